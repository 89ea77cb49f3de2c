//! The program `icecap`: parse, run, render the error, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    icecap::cli::main()
}
