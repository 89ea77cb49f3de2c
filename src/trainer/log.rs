//! metrics.jsonl: one line a few steps, one line a validation; and the same for TensorBoard.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{TrainError, TrainSpec, board::Board, checkpoint::io};

/// Appends lines to a run's metrics.jsonl.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    board: Board,
}

impl Log {
    /// Opens the file, without the lines of steps after `step`: those will be taken again.
    pub fn open(run: &Path, step: u64, spec: &TrainSpec) -> Result<Self, TrainError> {
        let path = run.join("metrics.jsonl");
        if path.exists() {
            keep_until(&path, step).map_err(|source| io("rewrite", &path, source))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| io("open", &path, source))?;
        Ok(Self { file, path, board: Board::open(run, step, spec.tensorboard)? })
    }

    /// Appends one line.
    pub fn line(&mut self, value: &Value) -> Result<(), TrainError> {
        // In one write: no other line, and no full disk, cuts it in two.
        self.file.write_all(format!("{value}\n").as_bytes()).map_err(|source| io("write", &self.path, source))?;
        self.board.line(value)
    }

    /// Shows the captions of a few images, by the images' names.
    pub fn captions(&mut self, step: u64, captions: &[(String, &str)]) -> Result<(), TrainError> {
        self.board.captions(step, captions)
    }
}

fn keep_until(path: &Path, step: u64) -> std::io::Result<()> {
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes); // a line torn by a full disk may end within a letter
    let before = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        value.and_then(|value| value["step"].as_u64()).is_some_and(|at| at <= step)
    };
    let kept: String = text.lines().filter(before).flat_map(|line| [line, "\n"]).collect();
    let fresh = path.with_extension("jsonl.new");
    fs::write(&fresh, kept)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_of_steps_to_be_taken_again_go() {
        let run = tempfile::tempdir().unwrap();
        let spec = TrainSpec::default();
        let mut log = Log::open(run.path(), 0, &spec).unwrap();
        for step in [10, 20, 30] {
            log.line(&json!({"step": step})).unwrap();
        }
        log.file.write_all(b"{\"step\": 3, \"samples\": [\"caf\xc3").unwrap(); // cut short by a kill
        drop(log);
        Log::open(run.path(), 20, &spec).unwrap().line(&json!({"step": 25})).unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text, "{\"step\":10}\n{\"step\":20}\n{\"step\":25}\n");
    }
}
