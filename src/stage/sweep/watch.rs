//! What a trial's metrics.jsonl says of it, read as it grows.
//!
//! Knows the file's lines and nothing of processes: a trial of another sitting, or one that was killed, reads the same.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// How far a trial is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Its last step that was logged.
    pub step: u64,
    /// The loss there.
    pub loss: Option<f64>,
    /// The best validation CIDEr so far.
    pub cider: Option<f64>,
    /// Its steps that were validated, and the score of each.
    pub scores: Vec<(u64, f64)>,
    /// Seconds of training at the last step that says them, and that step.
    pub seconds: Option<(u64, f64)>,
}

impl Seen {
    /// What is in the run's folder now.
    pub(super) fn of(run: &Path) -> Self {
        let mut watch = Watch::new(run);
        watch.look();
        watch.seen
    }

    /// The best score of the validations up to `step`.
    #[must_use]
    pub fn best_until(&self, step: Option<u64>) -> Option<f64> {
        let before = self.scores.iter().filter(|(at, _)| step.is_none_or(|step| *at <= step));
        before.map(|(_, score)| *score).max_by(f64::total_cmp)
    }

    /// What a step takes.
    #[must_use]
    pub fn seconds_a_step(&self) -> Option<f64> {
        self.seconds.filter(|(step, _)| *step > 0).map(|(step, seconds)| seconds / step as f64)
    }

    fn note(&mut self, line: &Value) {
        let Some(step) = line["step"].as_u64() else { return };
        self.step = step;
        if let Some(loss) = line["loss"].as_f64() {
            self.loss = Some(loss);
        }
        if let Some(seconds) = line["seconds"].as_f64() {
            self.seconds = Some((step, seconds));
        }
        if let Some(score) = line["score"].as_f64() {
            self.scores.push((step, score));
            self.cider = self.best_until(None);
        }
    }
}

/// Reads a metrics.jsonl again and again, each line once.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    read: u64,
    pub seen: Seen,
}

impl Watch {
    pub fn new(run: &Path) -> Self {
        Self { path: run.join("metrics.jsonl"), read: 0, seen: Seen::default() }
    }

    /// Reads what has been written since. A file that can't be read says nothing, as one that isn't there yet.
    pub fn look(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let bytes = file.metadata().map_or(0, |found| found.len());
        if bytes < self.read {
            // A resumed training takes steps again: its lines of them are gone.
            (self.read, self.seen) = (0, Seen::default());
        }
        let mut text = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut text)).is_err() {
            return;
        }
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        let lines = text[..whole].split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|line| self.seen.note(&line));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn lines_are_read_as_they_come() {
        let run = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(run.path());
        watch.look();
        assert_eq!(watch.seen, Seen::default());
        let mut file = File::create(run.path().join("metrics.jsonl")).unwrap();
        write!(file, "{{\"step\":50,\"loss\":4.5,\"seconds\":5.0}}\n{{\"step\":60,\"score\":7.0}}\n{{\"step\":7")
            .unwrap();
        watch.look();
        assert_eq!((watch.seen.step, watch.seen.loss, watch.seen.cider), (60, Some(4.5), Some(7.0)));
        assert_eq!(watch.seen.seconds_a_step(), Some(0.1));
        write!(file, "0,\"score\":9.0}}\n{{\"step\":80,\"score\":8.0}}\n").unwrap();
        watch.look();
        assert_eq!((watch.seen.step, watch.seen.cider), (80, Some(9.0)));
        assert_eq!((watch.seen.best_until(Some(60)), watch.seen.best_until(Some(59))), (Some(7.0), None));
        // The file of a training that goes on from step 60.
        fs::write(run.path().join("metrics.jsonl"), "{\"step\":60,\"score\":7.0}\n").unwrap();
        watch.look();
        assert_eq!((watch.seen.step, watch.seen.cider), (60, Some(7.0)));
        assert_eq!(Seen::of(run.path()), watch.seen);
    }
}
