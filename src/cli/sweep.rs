//! `sweep`, and `trial`: the process that a sweep starts for each of its trainings.

use std::{
    io::{self, Read},
    path::PathBuf,
    process::abort,
    thread,
};

use anyhow::{Context, Result, bail};

use super::{
    args::Shared,
    bars::Bars,
    out,
    sweep_args::{SweepArgs, TrialArgs},
    sweep_board, sweep_tables as tables,
};
use crate::{
    recipe::Sweep,
    stage::sweep::{SweepOptions, TrialOptions, dry_run, sweep as run, trial as run_trial},
};

pub(super) fn sweep(args: &SweepArgs, shared: &Shared) -> Result<()> {
    let sweep = Sweep::load(&args.sweep, &args.sets)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let on_cpu = args.device == "cpu";
    let options = SweepOptions {
        cache: args.cache.clone(),
        runs: args.runs.clone(),
        data: args.data.clone(),
        device: args.device.clone(),
        // Trials on a GPU take turns; on the CPU each has its core.
        jobs: args.jobs.unwrap_or(if on_cpu { (cores / args.threads).max(1) } else { 1 }),
        threads: args.threads,
        take: args.take.part(),
        program: program()?,
        onnxruntime: shared.onnxruntime.clone(),
        python: None,
    };
    if args.dry_run {
        let found = dry_run(&sweep, &options, &Bars::new())?;
        return if args.json { out::json(&found) } else { out::data(tables::dry(&found, &options)) };
    }
    let mut board = sweep_board::board();
    let report = run(&sweep, &options, &Bars::new(), board.as_mut())?;
    if args.json {
        out::json(&report)?;
    } else {
        out::data(tables::points(&report))?;
        out::note!("each trial is a run: `icecap evaluate {}/TRIAL` scores one", args.runs.display());
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!(
            "{failed} of {} trials failed: each one's trial.log says why\nhint: the same command tries them again, and no others",
            report.trials.len()
        ),
    }
}

/// This program's own file, which trains the trials.
pub(super) fn program() -> Result<PathBuf> {
    std::env::current_exe().context("the program's own file can't be found")
}

pub(super) fn trial(args: &TrialArgs) -> Result<()> {
    end_with_the_sweep();
    run_trial(&TrialOptions { folder: args.folder.clone(), until: args.until }, &Bars::new())
}

/// The sweep holds the other end of stdin, and writes nothing to it. Where it ends, even by SIGKILL, so does this process at once: a
/// training that nobody waits for would keep its run locked. What is lost are the steps since the last checkpoint.
fn end_with_the_sweep() {
    thread::spawn(|| {
        let mut nothing = [0; 64];
        while io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        abort();
    });
}
