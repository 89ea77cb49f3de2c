//! Commands of pure Rust are done before libtorch wakes up.
//!
//! libtorch registers its operators when it is loaded, and takes them apart again at exit: 0.2 s of every process, also of those that
//! ask nothing of it, and more than half of the time that scoring 5,000 captions takes. An executable's `.preinit_array` runs when all libraries
//! are mapped and relocated and before the first of them initializes. Scoring a file, `--help` and a word mistyped need no library but libc, so
//! they are done here and the process ends. All else returns, libraries initialize, and `main` starts as if nothing had been.
//!
//! It must not be given a command that calls C++ (ONNX Runtime, libtorch) or OpenMP: their initializers have not run.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
    panic,
    process::exit,
};

unsafe extern "C" {
    /// libc's pointer to the environment, which its own initializer would set.
    static mut environ: *const *const c_char;
    /// libc's; Rust's own start, which is still to come, makes the same call.
    fn signal(number: c_int, handler: usize) -> usize;
}

/// A write to a pipe that nobody reads fails and kills nobody: `SIGPIPE` and `SIG_IGN`, the same on every Linux with glibc.
const PIPE: c_int = 13;
const IGNORE: usize = 1;

#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = early;

extern "C" fn early(count: c_int, arguments: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: the loader runs this on the only thread, with the process's own environment, which stays where it is; libc will set
    // the same pointer.
    unsafe { environ = environment };
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { signal(PIPE, IGNORE) };
    let argument = |at: usize| {
        // SAFETY: the loader gives `count` arguments, each a string that ends in 0 and lives as long as the process.
        let text = unsafe { CStr::from_ptr(*arguments.add(at)) };
        OsStr::from_bytes(text.to_bytes()).to_owned()
    };
    let arguments: Vec<OsString> = (0..usize::try_from(count).unwrap_or(0)).map(argument).collect();
    match panic::catch_unwind(|| icecap::cli::without_libraries(arguments)) {
        Ok(None) => {}
        // What `exit` undoes has not been done yet: no library's end runs either.
        Ok(Some(code)) => exit(code),
        Err(_) => exit(101),
    }
}
