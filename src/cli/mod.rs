//! The command line: arguments in, one call into `stage`, tables and bars out.
//!
//! The only module that draws, prints or exits. Data goes to stdout; bars, warnings and errors go to stderr.

mod args;
mod bars;
mod cache;
mod cache_args;
mod cache_tables;
mod compare;
mod drift_tables;
mod encode;
mod error;
mod out;
mod plan;
mod score_tables;
mod sources;
mod sweep;
mod sweep_args;
mod sweep_board;
mod sweep_tables;
mod tables;
mod train;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use args::{Command, Options};

/// Parses the command line, runs the command, and says how it went: 0 done, 1 failed, 2 usage.
#[must_use]
pub fn main() -> ExitCode {
    if done(Options::parse()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same, where neither libtorch nor ONNX Runtime is needed for it: the exit code. `None`, and nothing done, for all else.
#[must_use]
pub fn without_libraries(arguments: Vec<OsString>) -> Option<i32> {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // Help on a closed pipe is no failure.
            let _ = error.print();
            return Some(error.exit_code());
        }
    };
    match &options.command {
        Command::Evaluate(args) if !args.subject.is_dir() => Some(i32::from(!done(options))),
        _ => None,
    }
}

/// Runs the command, and says what failed where it does.
fn done(options: Options) -> bool {
    let outcome = run(options);
    if let Err(error) = &outcome {
        out::raw(format_args!("{}", error::render(error)));
    }
    outcome.is_ok()
}

fn run(options: Options) -> anyhow::Result<()> {
    let shared = options.shared;
    match options.command {
        Command::Demo(args) => train::demo(&args, &shared),
        Command::Export(args) => encode::export(&args),
        Command::Inspect(args) => encode::inspect(&args, &shared),
        Command::Plan(args) => plan::plan(&args, &shared),
        Command::Encode(args) => encode::encode(&args, &shared),
        Command::Cache(args) => cache::run(args, &shared),
        Command::Drift(args) => cache::drift(&args),
        Command::Train(args) => train::train(&args, &shared),
        Command::Sweep(args) => sweep::sweep(&args, &shared),
        Command::Trial(args) => sweep::trial(&args),
        Command::Caption(args) => train::caption(&args, &shared),
        Command::Evaluate(args) => train::evaluate(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::ExportRun(args) => train::export_run(&args),
    }
}
