//! A device's memory: how much a GPU has left, and what is said where there was too little.
//!
//! torch says that memory ran out by an error, which tch raises as a panic. What is left is asked of NVIDIA's driver: torch knows, but
//! tch does not pass it on.

use std::{
    any::Any,
    cell::Cell,
    ffi::{c_int, c_void},
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use libloading::{Library, Symbol};

use super::{DecoderError, device::Device};

/// What torch and its libraries say when memory runs out.
const WORDS: [&str; 5] = ["out of memory", "can't allocate memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "bad_alloc"];

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Does `work`; `None` where the device has not the memory for it. Other panics go on.
pub fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    quieten();
    let before = GUARDED.replace(true);
    let found = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    match found {
        Ok(found) => Some(found),
        Err(panic) if is_memory(panic.as_ref()) => None,
        Err(panic) => panic::resume_unwind(panic),
    }
}

fn is_memory(panic: &(dyn Any + Send)) -> bool {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    said.is_some_and(|said| WORDS.iter().any(|words| said.contains(words)))
}

/// Panics that [`guard`] turns into an error print nothing.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !(GUARDED.get() && is_memory(info.payload())) {
                print(info);
            }
        }));
    });
}

/// The same with an error: `device` has too little memory `what_for`, and `hint` says what would take less.
///
/// # Errors
/// [`DecoderError::Memory`].
pub fn within_memory<T>(
    device: Device,
    what_for: &'static str,
    hint: &'static str,
    work: impl FnOnce() -> T,
) -> Result<T, DecoderError> {
    guard(work).ok_or_else(|| DecoderError::Memory { device: device_name(device), what_for, hint })
}

/// A device as it is typed.
#[must_use]
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

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

    #[test]
    fn only_memory_that_ran_out_is_caught() {
        assert_eq!(guard(|| 7), Some(7));
        let torch = "Torch(\"[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory\")";
        assert_eq!(guard(|| -> u8 { panic!("{torch}") }), None);
        assert_eq!(guard(|| -> u8 { panic!("CUDA out of memory. Tried to allocate 2.00 GiB") }), None);
        let other = panic::catch_unwind(|| guard(|| -> u8 { panic::resume_unwind(Box::new("a shape does not fit")) }));
        assert!(other.is_err());
    }

    #[test]
    fn torch_itself_is_caught_when_it_asks_for_more_than_there_is() {
        let huge = || tch::Tensor::zeros([1 << 46], (tch::Kind::Float, Device::Cpu));
        assert!(guard(huge).is_none());
    }

    #[test]
    fn an_error_says_what_the_memory_was_for() {
        let short = || -> u8 { panic!("CUDA out of memory. Tried to allocate 2.00 GiB") };
        let error = within_memory(Device::Cuda(1), "for the weights", "take a smaller decoder", short).unwrap_err();
        insta::assert_snapshot!(error, @r"
        `cuda:1` has too little memory for the weights
        hint: take a smaller decoder
        ");
        assert_eq!(within_memory(Device::Cpu, "", "", || 7).unwrap(), 7);
    }
}
