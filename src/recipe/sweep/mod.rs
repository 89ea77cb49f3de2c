//! Sweep files: a recipe, values for its keys, and the trials that come of them.
//!
//! Knows what a trial is called and which recipe it is; not where it runs. A key is what `--set` takes, so nothing has to be learned twice.
//! Decision: every trial's recipe is read whole before the first one starts. A value that makes no sense in one of 54 trials is an
//! error with a caret in the sweep file, not a failure at three in the morning.

mod entries;
mod error;
mod expand;
mod faults;
mod spec;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml_edit::Document;

pub use error::SweepError;
pub use spec::HalvingSpec;

use super::{Recipe, RecipeError, strict};
use faults::Found;
use spec::SweepSpec;

/// A sweep file, resolved.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// The trials, in the order in which they are run and shown.
    pub trials: Vec<TrialPlan>,
    /// How trials are weeded out, where they are.
    pub halving: Option<HalvingSpec>,
}

/// One training of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialPlan {
    /// Its name, which is its folder's: `lstm-grid7-s0`.
    pub name: String,
    /// The name without the seed: trials of one point differ in nothing else.
    pub point: String,
    /// Its seed, where the sweep file gives seeds.
    pub seed: Option<u64>,
    /// What differs from the recipe, as `--set` takes it: key and value.
    pub sets: Vec<(String, String)>,
    /// The recipe with all that put in.
    pub recipe: Recipe,
}

/// Finds the text and the path of the recipe that a sweep file names.
pub type RecipeFinder<'a> = dyn FnMut(&Path) -> Result<(String, PathBuf), RecipeError> + 'a;

impl Sweep {
    /// Reads the sweep file at `path` and the recipe that it names, with `sets` put into the recipe first.
    ///
    /// # Errors
    /// [`SweepError`] with everything that is wrong with the file.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, SweepError> {
        let text = fs::read_to_string(path).map_err(|source| SweepError::Read { path: path.to_owned(), source })?;
        let name = path.display().to_string();
        let from = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &name, &mut |recipe| {
            let path = from.join(recipe);
            let text = fs::read_to_string(&path);
            let text = text.map_err(|source| RecipeError::Read { path: path.clone(), source })?;
            Ok((super::with_sets(&text, &path.display().to_string(), sets)?, path))
        })
    }

    /// Reads a sweep from `text`, the contents of the file called `name`; `recipe` finds the text and path of the recipe it names.
    ///
    /// # Errors
    /// [`SweepError`] with everything that is wrong with it.
    pub fn parse(text: &str, name: &str, recipe: &mut RecipeFinder<'_>) -> Result<Self, SweepError> {
        let wrong = |faults| SweepError::Faults { name: name.to_owned(), text: text.to_owned(), faults };
        let reading = strict::read::<SweepSpec>(text, name).map_err(|error| match error {
            RecipeError::Faults { faults, .. } => wrong(faults),
            other => other.into(),
        })?;
        let document = Document::parse(text.to_owned()).expect("it was read as TOML just now");
        let mut found = Found::new(reading.faults);
        let entries = entries::Entries::of(&document, &mut found);
        let Some(spec) = reading.value else { return Err(wrong(found.sorted())) };
        spec.check(text, &mut found);
        if !found.is_empty() {
            return Err(wrong(found.sorted()));
        }
        let (base, path) = recipe(&spec.recipe)?;
        let shown = path.display().to_string();
        // What is wrong with the recipe itself is no fault of the sweep file's.
        Recipe::parse(&base, &shown, &[])?.decoder(&shown, "sweep")?;
        let points = expand::points(&entries, &mut found);
        let trials = expand::trials(&points, &spec.seeds, (&base, &shown), &mut found);
        if !found.is_empty() {
            return Err(wrong(found.sorted()));
        }
        Ok(Self { recipe: path, trials, halving: spec.halving })
    }
}
