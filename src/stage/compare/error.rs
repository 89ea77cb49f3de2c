//! What keeps runs from one table.

use std::path::PathBuf;

/// Runs that can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One run is given twice.
    #[error("the run `{}` is given twice\nhint: name each run once", run.display())]
    Twice {
        /// The run.
        run: PathBuf,
    },
    /// A sweep's folder without a finished trial.
    #[error("no trial of the sweep `{}` is finished yet\nhint: `icecap sweep` with the same folder goes on with it", sweep.display())]
    NoTrials {
        /// The sweep's folder.
        sweep: PathBuf,
    },
    /// A run has no scores, and they can't be made.
    #[error("the run `{}` has no scores of the split `{split}` yet, and they can't be made", run.display())]
    Unscored {
        /// The run.
        run: PathBuf,
        /// The split.
        split: String,
    },
    /// The file of scores holds no captions.
    #[error("`{}` holds no captions\nhint: score the run again: `icecap evaluate {}`", scores.display(), run.display())]
    NoCaptions {
        /// The run.
        run: PathBuf,
        /// The file.
        scores: PathBuf,
    },
    /// The cache isn't where the run was trained on it.
    #[error(
        "the run `{}` has no scores of the split `{split}` yet, and its cache `{}` is gone\nhint: give the cache's folder by --cache, or encode the \
         run's recipe again", run.display(), cache.display()
    )]
    NoCache {
        /// The run.
        run: PathBuf,
        /// The split.
        split: String,
        /// Where the cache should be.
        cache: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let (run, cache) = (PathBuf::from("runs/a"), PathBuf::from("caches/x"));
        let split = "val".to_owned();
        insta::assert_snapshot!(CompareError::Twice { run: run.clone() }, @r"
        the run `runs/a` is given twice
        hint: name each run once
        ");
        insta::assert_snapshot!(CompareError::NoTrials { sweep: "runs/study".into() }, @r"
        no trial of the sweep `runs/study` is finished yet
        hint: `icecap sweep` with the same folder goes on with it
        ");
        insta::assert_snapshot!(
            CompareError::Unscored { run: run.clone(), split: split.clone() },
            @"the run `runs/a` has no scores of the split `val` yet, and they can't be made"
        );
        insta::assert_snapshot!(CompareError::NoCaptions { run: run.clone(), scores: "runs/a/scores/val.json".into() }, @r"
        `runs/a/scores/val.json` holds no captions
        hint: score the run again: `icecap evaluate runs/a`
        ");
        insta::assert_snapshot!(CompareError::NoCache { run, split, cache }, @r"
        the run `runs/a` has no scores of the split `val` yet, and its cache `caches/x` is gone
        hint: give the cache's folder by --cache, or encode the run's recipe again
        ");
    }
}
