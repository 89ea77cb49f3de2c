//! Makes an ONNX model of a torchvision encoder, by running the exporter in pipelines/ with the Python of `make setup`.
//!
//! Must not know what the exporter does. Its text is compiled into the program, so that an installed `icecap` exports
//! without a checkout; it writes beside the target and renames, so that a broken export leaves nothing.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{EncoderError, known};

const SCRIPT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/export_onnx.py"));

/// Exports the encoder `name` to `out`. `weights` is `pretrained`, `random`, `random:SEED` or the path of a state dict.
/// The Python is the one named, else `ICECAP_PYTHON`, else that of `VIRTUAL_ENV`, of the checkout's or the current folder's
/// `.venv`, else `python3`.
///
/// # Errors
/// [`EncoderError::UnknownEncoder`], [`EncoderError::PythonNotFound`], and [`EncoderError::Export`] with the exporter's own message.
pub fn export(name: &str, weights: &str, out: &Path, python: Option<&Path>) -> Result<(), EncoderError> {
    known::require(name)?;
    let python =
        find_python(python).map_err(|looked| EncoderError::PythonNotFound { name: name.to_owned(), looked })?;
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(EncoderError::io(folder))?;
    }
    let mut child = Command::new(&python)
        .args([OsString::from("-"), name.into(), "--weights".into(), weights.into(), "--output".into(), out.into()])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(EncoderError::io(&python))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A Python that ends early closes the pipe; what it said is on stderr.
        let _ = stdin.write_all(SCRIPT.as_bytes());
    }
    let output = child.wait_with_output().map_err(EncoderError::io(&python))?;
    if output.status.success() {
        return Ok(());
    }
    let message = message(&String::from_utf8_lossy(&output.stderr));
    Err(EncoderError::Export { name: name.to_owned(), message })
}

/// What the exporter itself said (its lines begin with `export: `, hints follow), else the last lines of a traceback.
fn message(stderr: &str) -> String {
    let own = stderr.lines().skip_while(|line| !line.starts_with("export: "));
    let own: Vec<&str> = own.map(|line| line.strip_prefix("export: ").unwrap_or(line)).collect();
    if !own.is_empty() {
        return own.join("\n");
    }
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.as_slice() {
        [] => "the exporter was stopped".to_owned(),
        lines => lines[lines.len().saturating_sub(3)..].join("\n"),
    }
}

/// The Python that icecap's scripts run in: see [`export`]. It may lack the packages that a script needs.
///
/// # Errors
/// The places that were looked at, where there is none.
pub fn find_python(named: Option<&Path>) -> Result<PathBuf, Vec<String>> {
    let variable = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_path_buf).or_else(|| variable("ICECAP_PYTHON")) {
        return if path.exists() { Ok(path) } else { Err(vec![format!("`{}` (named)", path.display())]) };
    }
    let venvs = [
        (variable("VIRTUAL_ENV"), "VIRTUAL_ENV"),
        (Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv")), "the checkout's .venv"),
        (std::env::current_dir().ok().map(|current| current.join(".venv")), "the current folder's .venv"),
    ];
    let binary = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python3" };
    let mut looked = Vec::new();
    for (venv, what) in venvs {
        let Some(path) = venv.map(|venv| venv.join(binary)) else { continue };
        if path.exists() {
            return Ok(path);
        }
        looked.push(format!("`{}` ({what})", path.display()));
    }
    let system = PathBuf::from("python3");
    let runs = Command::new(&system).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if runs.is_ok_and(|status| status.success()) {
        return Ok(system);
    }
    looked.push("`python3` (the PATH)".to_owned());
    Err(looked)
}

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    #[test]
    fn a_python_that_is_not_there_is_named() {
        let error = export("resnet18", "random", Path::new("x.onnx"), Some(Path::new("/nowhere/python"))).unwrap_err();
        insta::assert_snapshot!(error, @r"
        no Python to export `resnet18` with; looked at
          `/nowhere/python` (named)
        hint: run `make setup`, or name one with --python FILE or ICECAP_PYTHON
        ");
    }

    #[test]
    fn the_exporter_and_the_table_of_known_encoders_agree() {
        for name in known::NAMES {
            let known = known(name).unwrap();
            let list = match &name[..1] {
                "r" => "RESNET",
                "d" => "DENSENET",
                "f" => "FASTERRCNN",
                _ => "INCEPTION",
            };
            let line = format!("    \"{name}\": ({list}, {}, {}),\n", known.resize, known.crop[0]);
            assert!(SCRIPT.contains(&line), "{line}");
            assert!(SCRIPT.contains(&format!("{list} = {:?}\n", known.taps)), "{list}");
            assert!(SCRIPT.contains(&format!("MEAN, STD = {:?}, {:?}\n", known.mean, known.std)));
        }
    }

    #[test]
    #[ignore = "needs torch, and takes some seconds"]
    fn an_exported_encoder_is_tapped_by_its_own_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resnet18.onnx");
        export("resnet18", "random:7", &path, None).unwrap();
        super::super::init_runtime(None).unwrap();
        let recipe = super::super::read_metadata(&path).unwrap().unwrap();
        assert_eq!(recipe.weights.as_deref(), Some("random seed 7"));
        let tensors = super::super::inspect(&path).unwrap();
        assert!(recipe.taps.iter().all(|tap| tensors.iter().any(|tensor| tensor.name == *tap)));
        let error = export("resnet18", "nowhere.pth", &path, None).unwrap_err();
        insta::assert_snapshot!(error, @r"
        exporting `resnet18` failed: there are no weights `nowhere.pth`
        hint: pretrained, random, random:SEED, or the path of a state dict (.pth)
        ");
    }

    #[test]
    fn the_exporters_own_words_are_passed_on() {
        let said = "Traceback\n  noise\nexport: no weights `x.pth`\nhint: give a file\n";
        assert_eq!(message(said), "no weights `x.pth`\nhint: give a file");
        assert_eq!(
            message("a\nb\n\nc\nModuleNotFoundError: No module named 'torch'\n"),
            "b\nc\nModuleNotFoundError: No module named 'torch'"
        );
    }
}
