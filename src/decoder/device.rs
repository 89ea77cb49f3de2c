//! Which device a decoder runs on, and waking up libtorch's CUDA half.
//!
//! The linker drops libtorch_cuda as unneeded, so that CUDA reads as absent until the library is loaded by hand. That is
//! done only where an NVIDIA driver is there: elsewhere it would cost seconds and memory for nothing. Nothing may ask torch about CUDA
//! before: what it finds at the first question it keeps for the life of the process.

use std::path::{Path, PathBuf};

use tch::Cuda;
pub use tch::Device;

use super::DecoderError;

/// The device named `cpu`, `cuda` or `cuda:1`, or the CPU and a line that says why where CUDA doesn't work. `auto` takes CUDA
/// where it works, and says a line only where the machine has a driver.
///
/// # Errors
/// When the name is none of these, or the machine has CUDA devices and not that one.
pub fn resolve(name: &str) -> Result<(Device, Option<String>), DecoderError> {
    match name {
        "cpu" => Ok((Device::Cpu, None)),
        "auto" => Ok(match wake() {
            Ok(_) => (Device::Cuda(0), None),
            Err(found) if driver() => (Device::Cpu, Some(format!("running on the CPU: {found}"))),
            Err(_) => (Device::Cpu, None),
        }),
        _ => {
            let index = cuda_index(name).ok_or_else(|| DecoderError::Device { value: name.to_owned() })?;
            let absent = |found| DecoderError::NoDevice { value: name.to_owned(), found };
            let count = match wake() {
                Ok(count) => count,
                Err(found) => {
                    let note = format!("`{name}` was asked for, but {found}: the decoder runs on the CPU");
                    return Ok((Device::Cpu, Some(note)));
                }
            };
            if index >= count {
                return Err(absent(format!("this machine has `{count}` CUDA devices, counted from 0")));
            }
            Ok((Device::Cuda(index), None))
        }
    }
}

fn cuda_index(name: &str) -> Option<usize> {
    match name.strip_prefix("cuda")? {
        "" => Some(0),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

/// Loads libtorch's CUDA half and counts the devices; says what is in the way.
fn wake() -> Result<usize, String> {
    if !driver() {
        return Err("this machine has no NVIDIA driver".into());
    }
    let folder = libtorch().ok_or("libtorch_cpu.so is not loaded from a folder")?;
    load_global(&folder.join("libtorch_cuda.so"))?;
    match Cuda::device_count() {
        count if count > 0 => Ok(count as usize),
        _ => Err("libtorch finds no CUDA device".into()),
    }
}

fn driver() -> bool {
    ["/dev/nvidiactl", "/proc/driver/nvidia/version"].iter().any(|path| Path::new(path).exists())
}

/// The folder that libtorch_cpu.so was loaded from.
fn libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .find_map(|line| Some(&line[line.find('/')?..]).filter(|path| path.ends_with("/libtorch_cpu.so")))?;
    Path::new(path).parent().map(Path::to_owned)
}

#[cfg(unix)]
fn load_global(path: &Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library is libtorch's own other half, of the same build as the half already loaded; its initializers
    // only register kernels.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| format!("could not load `{}`: {error}", path.display()))?;
    // Kernels stay registered until the process ends, so the library must stay too.
    std::mem::forget(library);
    Ok(())
}

#[cfg(not(unix))]
fn load_global(path: &Path) -> Result<(), String> {
    Err(format!("loading `{}` is not supported on this system", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly() {
        assert_eq!(cuda_index("cuda"), Some(0));
        assert_eq!(cuda_index("cuda:3"), Some(3));
        assert_eq!(cuda_index("cuda3"), None);
        assert_eq!(resolve("cpu").unwrap().0, Device::Cpu);
        assert!(matches!(resolve("gpu"), Err(DecoderError::Device { .. })));
        assert!(matches!(resolve("cuda:x"), Err(DecoderError::Device { .. })));
    }

    #[test]
    fn without_a_driver_the_cpu_is_taken_and_a_line_says_so() {
        if !driver() {
            let (device, note) = resolve("cuda:1").unwrap();
            assert_eq!(device, Device::Cpu);
            insta::assert_snapshot!(note.unwrap(), @"`cuda:1` was asked for, but this machine has no NVIDIA driver: the decoder runs on the CPU");
            assert_eq!(resolve("auto").unwrap(), (Device::Cpu, None));
        }
    }

    /// In a process of its own: what torch finds when it is first asked about CUDA holds for all of it.
    #[test]
    fn torch_sees_the_cuda_half_once_it_is_loaded() {
        const ALONE: &str = "ICECAP_TEST_CUDA_HALF";
        if std::env::var_os(ALONE).is_some() {
            if let Err(error) = load_global(&libtorch().unwrap().join("libtorch_cuda.so")) {
                println!("{error}");
            } else {
                assert!(tch::utils::has_cudart(), "torch keeps hooks that know nothing of CUDA");
            }
            return;
        }
        let name = "decoder::device::tests::torch_sees_the_cuda_half_once_it_is_loaded";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let done = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }

    #[test]
    fn libtorch_is_found_where_it_was_loaded_from() {
        let _ = tch::Tensor::from_slice(&[1.0f32]);
        assert!(libtorch().unwrap().join("libtorch_cpu.so").exists());
    }
}
