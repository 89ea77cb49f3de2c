//! METEOR and SPICE: Java programs, run by a Python script where both are installed.
//!
//! Must not know: what is scored. Nothing here is an error: a score that can't be had is a reason in words, and the other scores stand.
//! The script's text is compiled into the program, as the exporter's is. Captions go out as our tokenizer made them, which is how pycocoevalcap
//! feeds the two as well.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::{encoder::find_python, metrics::ptb::tokenize};

const SCRIPT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/score_jars.py"));

/// A score by a Java program, or why there is none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum JarScore {
    /// The corpus's score, and each image's.
    Scored { score: f64, images: Vec<f64> },
    /// Why not.
    Absent { reason: String },
}

impl JarScore {
    pub(super) fn score(&self) -> Option<f64> {
        match self {
            Self::Scored { score, .. } => Some(*score),
            Self::Absent { .. } => None,
        }
    }

    pub(super) fn image(&self, at: usize) -> Option<f64> {
        match self {
            Self::Scored { images, .. } => images.get(at).copied(),
            Self::Absent { .. } => None,
        }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Scored { .. } => None,
            Self::Absent { reason } => Some(reason),
        }
    }
}

/// Both scores.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct JarScores {
    pub meteor: JarScore,
    pub spice: JarScore,
}

impl JarScores {
    /// Neither, for one reason.
    pub(super) fn absent(reason: &str) -> Self {
        let absent = JarScore::Absent { reason: reason.to_owned() };
        Self { meteor: absent.clone(), spice: absent }
    }
}

/// Scores raw captions, one an image, with the Python named, else the one that exports encoders.
pub(super) fn score(candidates: &[String], references: &[Vec<String>], python: Option<&Path>) -> JarScores {
    let python = match find_python(python) {
        Ok(python) => python,
        Err(looked) => {
            return JarScores::absent(&format!("no Python was found to run it; looked at {}", looked.join(", ")));
        }
    };
    let tokens = |captions: &Vec<String>| captions.iter().map(|caption| tokenize(caption)).collect::<Vec<_>>();
    let task = json!({
        "candidates": candidates.par_iter().map(|caption| tokenize(caption)).collect::<Vec<_>>(),
        "references": references.par_iter().map(tokens).collect::<Vec<_>>(),
    });
    run(&python, &task.to_string())
        .unwrap_or_else(|reason| JarScores::absent(&format!("`{}` could not run it: {reason}", python.display())))
}

fn run(python: &Path, task: &str) -> Result<JarScores, String> {
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // The script reads all of it before it writes; one that ended early says why on stderr.
        let _ = stdin.write_all(task.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it was stopped").to_owned();
    if !output.status.success() {
        return Err(last);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_that_is_not_there_is_a_reason_and_no_failure() {
        let scores = score(&["a dog".into()], &[vec!["a dog".into()]], Some(Path::new("/nowhere/python")));
        insta::assert_snapshot!(scores.meteor.reason().unwrap_or_default(), @"no Python was found to run it; looked at `/nowhere/python` (named)");
        assert_eq!((scores.spice.score(), scores.spice.image(0)), (None, None));
    }
}
