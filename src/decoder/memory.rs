//! How much memory a GPU has left, asked of NVIDIA's driver: torch knows, but tch does not pass it on.

use std::ffi::{c_int, c_void};

use libloading::{Library, Symbol};

use super::device::Device;

/// Bytes that nobody has taken on a GPU; `None` on the CPU, or where the driver does not say.
#[must_use]
pub fn free_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => of_gpu(c_int::try_from(index).ok()?),
        _ => None,
    }
}

type Context = *mut c_void;

/// In the context that torch uses too, which is made current for the question and put back after it.
fn of_gpu(index: c_int) -> Option<u64> {
    // SAFETY: libcuda is NVIDIA's driver library, already loaded and initialised by torch where there is a CUDA device; loading it
    // again only counts its users.
    let library = unsafe { Library::new("libcuda.so.1") }.ok()?;
    // SAFETY: the signatures are those of cuda.h for these symbols, whose versions (`_v2`) are part of the driver's stable interface;
    // every pointer is to a local that outlives the call.
    unsafe {
        let device_get: Symbol<unsafe extern "C" fn(*mut c_int, c_int) -> c_int> =
            library.get(b"cuDeviceGet\0").ok()?;
        let retain: Symbol<unsafe extern "C" fn(*mut Context, c_int) -> c_int> =
            library.get(b"cuDevicePrimaryCtxRetain\0").ok()?;
        let release: Symbol<unsafe extern "C" fn(c_int) -> c_int> =
            library.get(b"cuDevicePrimaryCtxRelease_v2\0").ok()?;
        let push: Symbol<unsafe extern "C" fn(Context) -> c_int> = library.get(b"cuCtxPushCurrent_v2\0").ok()?;
        let pop: Symbol<unsafe extern "C" fn(*mut Context) -> c_int> = library.get(b"cuCtxPopCurrent_v2\0").ok()?;
        let ask: Symbol<unsafe extern "C" fn(*mut usize, *mut usize) -> c_int> =
            library.get(b"cuMemGetInfo_v2\0").ok()?;
        let (mut device, mut context, mut free, mut total) = (0, std::ptr::null_mut(), 0, 0);
        if device_get(&raw mut device, index) != 0 || retain(&raw mut context, device) != 0 {
            return None;
        }
        let pushed = push(context) == 0;
        let answered = pushed && ask(&raw mut free, &raw mut total) == 0;
        if pushed {
            pop(&raw mut context);
        }
        release(device);
        answered.then_some(free as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_no_answer_and_an_absent_gpu_neither() {
        assert_eq!(free_memory(Device::Cpu), None);
        assert_eq!(free_memory(Device::Cuda(999)), None);
    }
}
