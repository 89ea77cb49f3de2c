//! The program `icecap`: parse, run, render the error, exit code.

#[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
mod early;

use std::process::ExitCode;

/// torch on Hopper cards prefers cuDNN's attention, which is planned anew for each shape; batches of captions have another nearly every step.
const ATTENTION: &str = "TORCH_CUDNN_SDPA_DEPRIORITIZED";

fn main() -> ExitCode {
    if std::env::var_os(ATTENTION).is_none() {
        // SAFETY: no other thread of the program runs yet.
        unsafe { std::env::set_var(ATTENTION, "1") };
    }
    icecap::cli::main()
}
