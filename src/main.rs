//! The program `icecap`: parse, run, render the error, exit code.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod early;

use std::process::ExitCode;

fn main() -> ExitCode {
    icecap::cli::main()
}
