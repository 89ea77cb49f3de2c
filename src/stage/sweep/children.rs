//! A trial's process: started, looked at, and told of when it ended.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{
    Seen, SweepOptions, SweepRunError,
    folder::{self, Failure},
    watch::Watch,
};

/// Lines of a failed trial's error that are kept and shown.
const ERROR_LINES: usize = 30;

/// Lines of its log where it says no error: it was killed, or crashed.
const LAST_LINES: usize = 4;

/// A trial whose process runs. Dropping it ends the process.
pub(super) struct Running {
    /// Its place among the trials.
    pub trial: usize,
    child: Child,
    watch: Watch,
}

impl Running {
    /// Starts the trial of `folder`. Its stdin is a pipe that this process holds and never writes to: when this process ends, however it
    /// ends, the pipe does, and the trial with it.
    pub fn start(
        trial: usize,
        folder: &Path,
        until: Option<u64>,
        options: &SweepOptions,
    ) -> Result<Self, SweepRunError> {
        folder::forget_failure(folder);
        let wrong = |source| SweepRunError::Start {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            program: options.program.clone(),
            source,
        };
        let log = File::create(folder.join("trial.log")).map_err(wrong)?;
        let mut command = Command::new(&options.program);
        command.arg("trial").arg(folder);
        if let Some(until) = until {
            command.arg("--until").arg(until.to_string());
        }
        let threads = options.threads.to_string();
        // libtorch reads them when it is loaded, before anything could be said to it.
        command.env("OMP_NUM_THREADS", &threads).env("MKL_NUM_THREADS", &threads).env("RAYON_NUM_THREADS", &threads);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(wrong)?;
        Ok(Self { trial, child, watch: Watch::new(folder) })
    }

    /// What its metrics say now.
    pub fn look(&mut self) -> &Seen {
        self.watch.look();
        &self.watch.seen
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why the trial of `folder`, which ended with `status`, failed.
pub(super) fn failure(folder: &Path, status: ExitStatus) -> Failure {
    let log = fs::read(folder.join("trial.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.lines().collect();
    // From the error on, where it says one.
    let said = match lines.iter().rposition(|line| line.starts_with("error: ")) {
        Some(from) => &lines[from..lines.len().min(from + ERROR_LINES)],
        None => &lines[lines.len().saturating_sub(LAST_LINES)..],
    };
    Failure { ended: ended(status), lines: said.iter().map(|line| (*line).to_owned()).collect() }
}

/// `exit code 1`, or the signal, with what it mostly means.
fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed (signal 9): by hand, or by the system for its memory".to_owned(),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_failure_is_told_from_its_error_on() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("trial.log"), "120 captions\nerror: no room\n  cause: x\nhint: less\n").unwrap();
        let found = failure(folder.path(), ExitStatus::from_raw(256));
        assert_eq!(found.ended, "exit code 1");
        assert_eq!(found.lines, ["error: no room", "  cause: x", "hint: less"]);
        fs::remove_file(folder.path().join("trial.log")).unwrap();
        let found = failure(folder.path(), ExitStatus::from_raw(9));
        assert_eq!(found.ended, "killed (signal 9): by hand, or by the system for its memory");
        assert!(found.lines.is_empty());
    }
}
