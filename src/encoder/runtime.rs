//! Finds and loads ONNX Runtime, once a process.
//!
//! Must not know models. The library is loaded when it is needed and not linked: `icecap --help` starts without it, and
//! the CPU and the CUDA build are the same program. A library that was named (flag or variable) and fails is an error;
//! the usual places are tried one after the other, and when none has it the error lists them all.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use libloading::Library;
use ort::environment::Environment;
use ort::logging::LogLevel;

use super::{Device, Devices, EncoderError, cuda};

/// The ONNX Runtime in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// The library loaded; a bare file name when the system's loader found it.
    pub path: PathBuf,
    /// Its version, such as `1.31.1`.
    pub version: String,
    /// Its build: branch, commit, flags.
    pub build: String,
}

struct Loaded {
    environment: Environment,
    info: RuntimeInfo,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Loads ONNX Runtime: `library` where one is named, else `ORT_DYLIB_PATH`, else the `.venv` of the checkout, of the
/// current folder or of `VIRTUAL_ENV`, else beside the executable, else the system's library path.
///
/// The first call decides for the process; later calls answer what it found.
///
/// # Errors
/// [`EncoderError::RuntimeNotFound`] lists every place; [`EncoderError::RuntimeUnusable`] where a named library does not load.
pub fn init_runtime(library: Option<&Path>) -> Result<RuntimeInfo, EncoderError> {
    let _one_at_a_time = LOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded.info.clone());
    }
    let loaded = load(library)?;
    let info = loaded.info.clone();
    let _ = LOADED.set(loaded);
    Ok(info)
}

/// The process's environment.
pub(super) fn environment() -> Result<&'static Environment, EncoderError> {
    LOADED.get().map(|loaded| &loaded.environment).ok_or(EncoderError::RuntimeNotLoaded)
}

/// The process's environment, about to make a session on a GPU.
pub(super) fn environment_for_gpu() -> Result<&'static Environment, EncoderError> {
    let environment = environment()?;
    // What stops a run comes back as an error. What is logged beside it is cuDNN's search for kernels: an "error" for each way of
    // computing a layer that it lacks and does without. `ORT_LOG=error`, which ort reads, shows them.
    if non_empty("ORT_LOG").is_none() {
        environment.set_log_level(LogLevel::Fatal);
    }
    Ok(environment)
}

/// The device to use for the one asked for, with a plain line to print when that is another one.
pub fn resolve(device: Device) -> (Device, Option<String>) {
    let (devices, mut lines) = resolve_all(&Devices::from(device));
    (devices[0], lines.pop())
}

/// The same for several: those that can be used, and a plain line for each that can't; the CPU where none can.
pub fn resolve_all(devices: &Devices) -> (Vec<Device>, Vec<String>) {
    let loaded = LOADED.get().map(|loaded| loaded.info.path.as_path());
    choose(devices, |number| cuda::missing(number, loaded))
}

fn choose(devices: &Devices, missing: impl Fn(u32) -> Option<String>) -> (Vec<Device>, Vec<String>) {
    let (mut found, mut lines) = (Vec::new(), Vec::new());
    for &device in devices.as_slice() {
        match device {
            Device::Cpu => found.push(device),
            Device::Cuda(number) => match missing(number) {
                None => found.push(device),
                Some(why) => lines.push(format!("`{device}` was asked for, but {why}")),
            },
        }
    }
    if found.is_empty() {
        found.push(Device::Cpu);
    }
    if let Some(last) = lines.last_mut() {
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        let on = if found == [Device::Cpu] { "the CPU".to_owned() } else { names.join(" and ") };
        last.push_str(&format!(": encoding on {on}"));
    }
    (found, lines)
}

fn load(library: Option<&Path>) -> Result<Loaded, EncoderError> {
    let named = library.map(Path::to_path_buf).or_else(|| non_empty("ORT_DYLIB_PATH"));
    if let Some(path) = named {
        return start(&path).map_err(|error| match error {
            EncoderError::RuntimeUnusable { .. } if !path.exists() => EncoderError::RuntimeNotFound {
                looked: vec![format!("`{}` (named, but there is no such file)", path.display())],
            },
            other => other,
        });
    }
    let mut looked = Vec::new();
    for place in places() {
        let found = place.libraries();
        if found.is_empty() {
            looked.push(place.to_string());
        }
        for path in found {
            match start(&path) {
                Ok(loaded) => return Ok(loaded),
                Err(EncoderError::RuntimeUnusable { source, .. }) => looked.push(format!("{place}: {source}")),
                Err(other) => return Err(other),
            }
        }
    }
    Err(EncoderError::RuntimeNotFound { looked })
}

fn start(path: &Path) -> Result<Loaded, EncoderError> {
    let unusable = |source| EncoderError::RuntimeUnusable { path: path.to_path_buf(), source };
    let builder = ort::init_from(path).map_err(|error| unusable(Box::new(error)))?;
    let environment = builder
        .with_name("icecap")
        .with_telemetry(false)
        .build()
        .map_err(|source| EncoderError::RuntimeStart { source })?;
    let version = version(path).unwrap_or_else(|| "unknown".to_owned());
    let info = RuntimeInfo { path: path.to_path_buf(), version, build: ort::info().to_owned() };
    Ok(Loaded { environment, info })
}

/// What the library at `path`, which is loaded, calls its version. `ort` reads it and keeps it to itself.
fn version(path: &Path) -> Option<String> {
    // SAFETY: the library is loaded and initialised already: this counts one more user of it.
    let library = unsafe { Library::new(path) }.ok()?;
    // SAFETY: the signature is the one of onnxruntime_c_api.h, which ort relied on a moment ago.
    let base =
        unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0") }.ok()?;
    // SAFETY: ONNX Runtime answers with a static table, whose function answers with a static text that ends in a zero.
    let text = unsafe { base().as_ref().map(|base| CStr::from_ptr((base.GetVersionString)())) }?;
    Some(text.to_string_lossy().into_owned())
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A place where the library may be.
enum Place {
    /// A virtual environment with the wheel `onnxruntime` or `onnxruntime-gpu`, and what it is called in an error.
    Venv(PathBuf, &'static str),
    /// A folder holding the library itself.
    Folder(PathBuf, &'static str),
    /// The system's loader.
    System,
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Venv(path, what) | Self::Folder(path, what) => write!(out, "`{}` ({what})", path.display()),
            Self::System => write!(out, "`{}` (the system's library path)", library_name()),
        }
    }
}

fn places() -> Vec<Place> {
    let mut places = vec![Place::Venv(Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv"), "the checkout's .venv")];
    if let Ok(current) = std::env::current_dir() {
        places.push(Place::Venv(current.join(".venv"), "the current folder's .venv"));
    }
    if let Some(venv) = non_empty("VIRTUAL_ENV") {
        places.push(Place::Venv(venv, "VIRTUAL_ENV"));
    }
    if let Some(folder) = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)) {
        places.push(Place::Folder(folder.join("lib"), "lib beside the executable"));
        places.push(Place::Folder(folder, "beside the executable"));
    }
    places.push(Place::System);
    places
}

impl Place {
    fn libraries(&self) -> Vec<PathBuf> {
        match self {
            Self::Venv(venv, _) => {
                site_packages(venv).iter().flat_map(|site| in_folder(&site.join("onnxruntime").join("capi"))).collect()
            }
            Self::Folder(folder, _) => in_folder(folder),
            Self::System => vec![PathBuf::from(library_name())],
        }
    }
}

/// The `site-packages` folders of a virtual environment.
pub(super) fn site_packages(venv: &Path) -> Vec<PathBuf> {
    let lib = venv.join("lib");
    let pythons =
        std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path().join("site-packages"));
    let mut found: Vec<PathBuf> =
        pythons.chain([venv.join("Lib").join("site-packages")]).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn library_name() -> String {
    format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Files in `folder` that are the library, of any version: `libonnxruntime.so`, `libonnxruntime.so.1.31.1`.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let exact = library_name();
    let versioned = if cfg!(target_os = "macos") { "libonnxruntime.".to_owned() } else { format!("{exact}.") };
    let is_library = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name == exact || (name.starts_with(&versioned) && (!cfg!(target_os = "macos") || name.ends_with(".dylib")))
        })
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(is_library).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_in_a_venv_whatever_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let capi = dir.path().join("lib/python3.12/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        for name in ["libonnxruntime.so.1.99.0", "libonnxruntime_providers_shared.so", "onnxruntime_pybind11_state.so"]
        {
            std::fs::write(capi.join(name), b"").unwrap();
        }
        if cfg!(target_os = "linux") {
            let found = Place::Venv(dir.path().to_path_buf(), "test").libraries();
            assert_eq!(found, [capi.join("libonnxruntime.so.1.99.0")]);
        }
    }

    #[test]
    fn a_named_library_that_is_not_there_is_an_error() {
        let error = load(Some(Path::new("/nowhere/libonnxruntime.so"))).err().unwrap();
        insta::assert_snapshot!(error, @r"
        ONNX Runtime was not found; looked at
          `/nowhere/libonnxruntime.so` (named, but there is no such file)
        hint: run `make setup`, or name the library with --onnxruntime FILE or ORT_DYLIB_PATH
        ");
    }

    #[test]
    fn a_named_file_that_is_no_library_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libonnxruntime.so");
        std::fs::write(&file, b"not a library").unwrap();
        let error = load(Some(&file)).err().unwrap().to_string().replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(error, @r"
        `DIR/libonnxruntime.so` is not a usable ONNX Runtime
        hint: icecap needs version 1.22 or newer; `make setup` installs one
        ");
    }

    #[test]
    fn of_several_gpus_those_that_are_there_are_used() {
        let one_of = |number| (number >= 2).then(|| "this machine has 2 CUDA devices".to_owned());
        let all = |text: &str| choose(&text.parse().unwrap(), one_of);
        assert_eq!(all("cuda:0,1"), (vec![Device::Cuda(0), Device::Cuda(1)], Vec::new()));
        let (devices, lines) = all("cuda:1,2");
        assert_eq!(devices, [Device::Cuda(1)]);
        insta::assert_snapshot!(lines.join("\n"), @"`cuda:2` was asked for, but this machine has 2 CUDA devices: encoding on cuda:1");
        let (devices, lines) = all("cuda:2,3");
        assert_eq!(devices, [Device::Cpu]);
        insta::assert_snapshot!(lines.join("\n"), @r"
        `cuda:2` was asked for, but this machine has 2 CUDA devices
        `cuda:3` was asked for, but this machine has 2 CUDA devices: encoding on the CPU
        ");
    }

    #[test]
    fn cuda_that_is_not_there_becomes_the_cpu_with_a_plain_line() {
        assert_eq!(resolve(Device::Cpu), (Device::Cpu, None));
        let (device, line) = resolve(Device::Cuda(99));
        assert_eq!(device, Device::Cpu);
        assert!(line.unwrap().starts_with("`cuda:99` was asked for, but "));
    }
}
