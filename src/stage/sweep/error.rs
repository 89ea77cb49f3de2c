//! What keeps a sweep from running.

use std::path::PathBuf;

/// A sweep that can't run.
#[derive(Debug, thiserror::Error)]
pub enum SweepRunError {
    /// Another process runs it.
    #[error(
        "the sweep `{}` is being run by another process\nhint: wait for it to end, or give another folder to --runs", folder.display()
    )]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// A run, not a sweep.
    #[error("`{}` is a run, and a sweep's folder holds runs\nhint: give another folder to --runs", folder.display())]
    IsARun {
        /// The folder.
        folder: PathBuf,
    },
    /// A name for two columns.
    #[error(
        "the trials `{first}` and `{second}` make column `{column}` in two ways, and a cache has one column of a name\n\
         hint: give it another name in one of them, such as `column.0.name = \"other\"`, or name both in the recipe and vary `decoder.columns`"
    )]
    TwoColumns {
        /// The column.
        column: String,
        /// A trial.
        first: String,
        /// Another.
        second: String,
    },
    /// Two data sets.
    #[error(
        "the trials `{first}` and `{second}` are of two data sets, and a cache is of one\nhint: make two sweeps of it"
    )]
    TwoDataSets {
        /// A trial.
        first: String,
        /// Another.
        second: String,
    },
    /// No program to train with.
    #[error("the trial `{name}` can't be started with the program `{}`", program.display())]
    Start {
        /// The trial.
        name: String,
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_way_out() {
        let (first, second) = (String::from("a"), String::from("b"));
        let messages = [
            SweepRunError::Busy { folder: "runs/study".into() },
            SweepRunError::IsARun { folder: "runs/lstm".into() },
            SweepRunError::TwoColumns { column: "grid".into(), first: first.clone(), second: second.clone() },
            SweepRunError::TwoDataSets { first, second },
            SweepRunError::Start {
                name: "a".into(),
                program: "/usr/bin/icecap".into(),
                source: std::io::ErrorKind::NotFound.into(),
            },
        ];
        let messages: Vec<String> = messages.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n\n"), @r##"
        the sweep `runs/study` is being run by another process
        hint: wait for it to end, or give another folder to --runs

        `runs/lstm` is a run, and a sweep's folder holds runs
        hint: give another folder to --runs

        the trials `a` and `b` make column `grid` in two ways, and a cache has one column of a name
        hint: give it another name in one of them, such as `column.0.name = "other"`, or name both in the recipe and vary `decoder.columns`

        the trials `a` and `b` are of two data sets, and a cache is of one
        hint: make two sweeps of it

        the trial `a` can't be started with the program `/usr/bin/icecap`
        "##);
    }
}
