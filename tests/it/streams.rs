//! stdout and stderr as the program finds them: closed, full, or read by someone who has seen enough.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::Place;

fn encoded() -> Place {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    place
}

/// How `line` ends when nobody reads its stdout: the pipe is closed before the program begins.
fn unread(place: &Place, line: &str) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = place.command(line).stdout(writer).stderr(Stdio::piped()).output().expect("icecap runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let place = encoded();
    for line in [
        "inspect tiny.onnx --json",
        "inspect tiny.onnx",
        "cache list cache",
        "cache verify cache --json",
        "encode recipe.toml --data . --cache cache",
        "--help",
    ] {
        let (code, said) = unread(&place, line);
        assert_eq!(code, Some(0), "{line}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{line}: {said}");
    }
}

#[test]
fn a_reader_that_has_gone_hides_no_damage() {
    let place = encoded();
    let shard = crate::support::files(&place.path("cache/columns"))
        .into_iter()
        .find(|(name, _)| name.ends_with(".safetensors"))
        .expect("a shard");
    let (name, mut bytes) = shard;
    let at = bytes.len() - 2000;
    bytes[at] ^= 1;
    place.write(&format!("cache/columns/{name}"), bytes);
    assert_eq!(unread(&place, "cache verify cache").0, Some(1));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_a_plain_error() {
    let place = encoded();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut child =
        place.command("cache list cache --json").stdout(full).stderr(Stdio::piped()).spawn().expect("icecap runs");
    let mut said = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut said).expect("UTF-8");
    assert_eq!(child.wait().expect("an end").code(), Some(1));
    insta::assert_snapshot!(said, @"
    error: stdout can't be written: what was asked for is incomplete
      cause: No space left on device (os error 28)
    ");
}

#[test]
fn nobody_needs_to_read_stderr() {
    let place = Place::with_recipe();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command: Command = place.command("encode recipe.toml --data . --cache cache --json");
    let output = command.stderr(writer).output().expect("icecap runs");
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["encoded"], 144);
}

/// What is printed goes through `cli::out`, which knows what a closed pipe and a full disk mean.
#[test]
fn one_file_writes_to_the_streams() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("src/cli") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a source file");
        seen += 1;
        if path.ends_with("out.rs") {
            continue;
        }
        for word in ["print!(", "println!(", "eprint!(", "eprintln!(", "io::stdout", "io::stderr().lock"] {
            let found = text.lines().find(|line| !line.trim_start().starts_with("//") && line.contains(word));
            assert!(found.is_none(), "{} writes past `cli::out`: {}", path.display(), found.unwrap_or_default());
        }
    }
    assert!(seen > 5, "only {seen} files were looked at");
}
