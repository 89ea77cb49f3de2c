//! What has to be there before CUDA can be used: a provider in the library, a driver, the device, NVIDIA's libraries.
//!
//! Must not know models or sessions. The CUDA libraries come with the torch wheel and no loader path leads to them, so
//! they are opened by their full path first; ONNX Runtime's provider then finds them by name among what is loaded.
//! Opening them costs hundreds of megabytes, so it happens only when a session on CUDA is asked for.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;
use ort::ep::ExecutionProvider;

/// Why the CUDA device `number` cannot be used, or nothing. `runtime` is the library that was loaded.
pub(super) fn missing(number: u32, runtime: Option<&Path>) -> Option<String> {
    let Some(runtime) = runtime else {
        return Some("ONNX Runtime has not been loaded".to_owned());
    };
    match devices() {
        Err(why) => return Some(why),
        Ok(count) if number >= count => return Some(format!("this machine has {count} CUDA devices")),
        Ok(_) => {}
    }
    if !ort::ep::CUDA::is_available().unwrap_or(false) {
        return Some(format!(
            "the ONNX Runtime at `{}` is built without it (`make setup GPU=1` installs one with it)",
            runtime.display()
        ));
    }
    preload(runtime);
    None
}

/// CUDA devices the driver sees.
fn devices() -> Result<u32, String> {
    let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    // SAFETY: the driver's library has no initialiser that depends on the state of this process.
    let driver = unsafe { Library::new(name) }.map_err(|_| "there is no NVIDIA driver".to_owned())?;
    // SAFETY: the signatures are those of cuda.h (`CUresult cuInit(unsigned int)`, `CUresult cuDeviceGetCount(int *)`).
    let (init, count) = unsafe {
        let init = driver.get::<unsafe extern "C" fn(u32) -> c_int>(b"cuInit\0");
        let count = driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount\0");
        (init.map_err(|error| error.to_string())?, count.map_err(|error| error.to_string())?)
    };
    let mut devices: c_int = 0;
    // SAFETY: cuInit takes no pointer; `devices` outlives the second call, which writes one int.
    let answer = unsafe {
        match init(0) {
            0 => count(&raw mut devices),
            failure => failure,
        }
    };
    // The driver keeps threads and handlers of its own: it stays loaded.
    std::mem::forget(driver);
    if answer == 0 { Ok(devices.max(0) as u32) } else { Err(format!("the NVIDIA driver answers error {answer}")) }
}

/// Opens NVIDIA's libraries of the wheels beside the runtime, once. What is not there is left to the system's loader.
fn preload(runtime: &Path) {
    static OPENED: OnceLock<()> = OnceLock::new();
    OPENED.get_or_init(|| {
        // runtime = SITE/onnxruntime/capi/libonnxruntime.so.V
        let Some(site) = runtime.ancestors().nth(3) else { return };
        let folders = library_folders(&site.join("nvidia"));
        for name in ort::ep::cuda::CUDA_DYLIBS.iter().chain(ort::ep::cuda::CUDNN_DYLIBS) {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
            // SAFETY: NVIDIA's own libraries, whose initialisers ask nothing of this process.
            if let Some(Ok(library)) = found.map(|path| unsafe { Library::new(path) }) {
                std::mem::forget(library);
            }
        }
    });
}

/// `nvidia/<part>/lib` for each part of NVIDIA's wheels.
fn library_folders(nvidia: &Path) -> Vec<PathBuf> {
    let parts = std::fs::read_dir(nvidia).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = parts.map(|part| part.path().join("lib")).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_wheels_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("cu13/lib")).unwrap();
        std::fs::create_dir_all(dir.path().join("cudnn/lib")).unwrap();
        std::fs::create_dir_all(dir.path().join("empty")).unwrap();
        assert_eq!(library_folders(dir.path()), [dir.path().join("cu13/lib"), dir.path().join("cudnn/lib")]);
        assert!(library_folders(&dir.path().join("nowhere")).is_empty());
    }
}
