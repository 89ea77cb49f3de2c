//! Keeps freed memory in the process while training on the CPU.
//!
//! glibc gives every large block back to the system when it is freed, and gets it anew, page by page, for the next tensor:
//! a good part of a step on the CPU. A training frees and takes blocks of the same sizes over and over.

/// Asks glibc to serve large blocks from the heap and not to trim it. Elsewhere it does nothing.
pub(super) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_MAX: i32 = -4;
        // SAFETY: mallopt(3) takes two ints and only changes how malloc gets memory; it may be called at any time.
        unsafe {
            mallopt(TRIM_THRESHOLD, -1);
            mallopt(MMAP_MAX, 0);
        }
    }
}
