//! Recipes: one TOML file a pipeline, from the data set to the report.
//!
//! A recipe is kept as typed ([`Recipe`]); what it means is decided once, here (by [`Recipe::parse`] and [`EncoderSpec::resolve`]),
//! and the stages take the resolved plans. The types of the sections live with the modules that use them; this module
//! composes them, and knows no runtime.

mod column;
mod decoder;
mod detector;
mod differences;
mod encoder;
mod error;
mod numbers;
mod own_words;
pub mod strict;
mod sweep;
mod tail;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, fs, path::Path};

use serde::{Deserialize, Serialize};

pub use column::ColumnSpec;
pub use decoder::DecoderSection;
pub use detector::{DetectorSpec, DetectorWord, FileSpec, Origin, RegionsSpec};
pub use differences::Difference;
pub use encoder::{EncoderSpec, ModelSource, ResolvedEncoder, UnknownPreprocessing};
pub use error::RecipeError;
pub use sweep::{HalvingSpec, RecipeFinder, Sweep, SweepError, TrialPlan};
pub use tail::TailSpec;

use crate::{dataset::DatasetSpec, decoder::DecodeSpec, text::TokenizerSpec, trainer::TrainSpec};
use strict::Fault;

/// A recipe as typed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The images and their captions.
    pub dataset: DatasetSpec,
    /// The frozen network.
    pub encoder: EncoderSpec,
    /// What is kept of each image.
    #[serde(rename = "column", default)]
    pub columns: Vec<ColumnSpec>,
    /// The network that finds regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<DetectorSpec>,
    /// The network that is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderSection>,
    /// The part of the frozen network that is trained after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<TailSpec>,
    /// How captions become tokens.
    #[serde(default)]
    pub tokenizer: TokenizerSpec,
    /// How the decoder is trained.
    #[serde(default)]
    pub train: TrainSpec,
    /// How captions are searched for.
    #[serde(default)]
    pub decode: DecodeSpec,
}

impl Recipe {
    /// Reads the recipe at `path` and puts the `--set` values in.
    ///
    /// # Errors
    /// [`RecipeError`] with everything that is wrong with the file.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let text = fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string(), sets)
    }

    /// Reads a recipe from `text`, the contents of the file called `name`.
    ///
    /// # Errors
    /// [`RecipeError`] with everything that is wrong with it.
    pub fn parse(text: &str, name: &str, sets: &[String]) -> Result<Self, RecipeError> {
        let text = with_sets(text, name, sets)?;
        let strict::Reading { mut value, mut faults, unread } = strict::read::<Self>(&text, name)?;
        let no_section = strict::span_of(&text, &["tokenizer"]).is_none();
        if let Some(recipe) = value.as_mut().filter(|recipe| no_section && recipe.pretrained()) {
            recipe.tokenizer = TokenizerSpec::Pretrained;
        }
        if let Some(recipe) = value.as_mut() {
            own_words::settle(&mut recipe.train, &text);
        }
        let meant = value.as_ref().map(|recipe| recipe.check(&text, &unread)).unwrap_or_default();
        // Where an entry could not be read, what was put in its place says nothing.
        let guessed = !faults.is_empty();
        let told = |fault: &Fault, faults: &[Fault]| faults.iter().any(|other| other.span == fault.span);
        let meant = meant.into_iter().filter(|fault| !guessed || !(fault.span.is_empty() || told(fault, &faults)));
        faults.append(&mut meant.collect());
        match value {
            Some(recipe) if faults.is_empty() => Ok(recipe),
            _ => {
                faults.sort_by_key(|fault| fault.span.start);
                Err(RecipeError::Faults { name: name.to_owned(), text, faults })
            }
        }
    }

    /// The recipe with every default written out, as it goes into columns, checkpoints and reports.
    ///
    /// # Panics
    /// Never: every value of a recipe has a TOML form.
    #[must_use]
    pub fn resolved(&self) -> String {
        toml::to_string_pretty(self).expect("every value of a recipe has a TOML form")
    }

    /// The decoder's section.
    ///
    /// # Errors
    /// [`RecipeError::Section`] where the recipe has none.
    pub fn decoder(&self, name: &str, command: &'static str) -> Result<&DecoderSection, RecipeError> {
        let missing = || RecipeError::Section { name: name.to_owned(), section: "decoder", command };
        self.decoder.as_ref().ok_or_else(missing)
    }

    /// Whether the decoder begins with pretrained weights.
    fn pretrained(&self) -> bool {
        self.decoder.as_ref().is_some_and(|section| section.spec.pretrained().is_some())
    }

    /// A tokenizer that its weights were not made for.
    fn check_tokenizer(&self, fault: &mut impl FnMut(&[&str], String, Option<String>)) {
        match (&self.tokenizer, self.pretrained()) {
            (TokenizerSpec::Word { .. } | TokenizerSpec::Bpe { .. }, true) => fault(
                &["tokenizer", "kind"],
                "a tokenizer trained on the captions doesn't fit pretrained weights".to_owned(),
                Some("leave [tokenizer] out: the weights come with their own".to_owned()),
            ),
            (TokenizerSpec::Pretrained, false) => fault(
                &["tokenizer", "kind"],
                "the decoder has no pretrained weights that a tokenizer could come with".to_owned(),
                Some("give `pretrained` in [decoder], or use `word`, `bpe` or `file`".to_owned()),
            ),
            _ => {}
        }
    }

    /// Faults of meaning, which no type can express. Of what is `unread` nothing is said: its faults are known.
    fn check(&self, text: &str, unread: &[Vec<String>]) -> Vec<Fault> {
        let is_unread =
            |place: &[&str]| unread.iter().any(|path| path.iter().zip(place).all(|(one, other)| one == other));
        let mut faults = Vec::new();
        let mut fault = |path: &[&str], message: String, hint: Option<String>| {
            faults.push(Fault { span: strict::span_of(text, path).unwrap_or(0..0), message, hint });
        };
        let mut names = HashSet::new();
        for (at, column) in self.columns.iter().enumerate() {
            let index = at.to_string();
            if !names.insert(column.name.clone()) {
                fault(&["column", &index, "name"], format!("two columns are called `{}`", column.name), None);
            }
            if !is_column_name(&column.name) {
                let hint = "use letters, digits, `.`, `_` and `-`".to_owned();
                fault(&["column", &index, "name"], format!("`{}` can't name a column", column.name), Some(hint));
            }
            let no_tap_read = ["tap", "taps"].iter().any(|key| is_unread(&["column", &index, key]));
            for found in column.faults(at) {
                if found.key.is_none() && no_tap_read {
                    continue;
                }
                let path: Vec<&str> = ["column", &index].into_iter().chain(found.key).collect();
                fault(&path, found.message, found.hint.map(str::to_owned));
            }
        }
        for wrong in self.detector.iter().flat_map(DetectorSpec::senseless) {
            fault(&["detector", wrong.key], wrong.message, Some(wrong.hint.to_owned()));
        }
        let needing = self.columns.iter().position(ColumnSpec::needs_detector);
        match (&self.detector, needing) {
            (None, Some(index)) if !is_unread(&["detector"]) => {
                let message = format!("column `{}` needs a detector, and there is none", self.columns[index].name);
                let hint = "add a section: [detector], kind = \"fasterrcnn\" or \"yolox\", model = FILE".to_owned();
                fault(&["column", &index.to_string(), "name"], message, Some(hint));
            }
            (Some(_), None) if !is_unread(&["column"]) => {
                let hint = "a [[column]] says regions = \"detector\", or from = \"detector\"".to_owned();
                fault(&["detector", "kind"], "no column asks the detector for anything".to_owned(), Some(hint));
            }
            _ => {}
        }
        numbers::check(self, &mut fault);
        if ![["decoder", "kind"], ["decoder", "pretrained"], ["tokenizer", "kind"]].iter().any(|place| is_unread(place))
        {
            self.check_tokenizer(&mut fault);
        }
        for wrong in self.tail.iter().flat_map(|tail| tail.faults(self)) {
            let path: Vec<&str> = ["tail"].into_iter().chain(wrong.key).collect();
            fault(&path, wrong.message, wrong.hint.map(str::to_owned));
        }
        if self.columns.is_empty() {
            fault(&["encoder"], "the recipe has no [[column]]: nothing would be kept".to_owned(), None);
        }
        let known: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        if known.iter().any(|name| name == strict::STAND_IN) {
            return faults; // The column meant may be the one whose name is missing.
        }
        for column in self.decoder.iter().flat_map(|decoder| &decoder.columns) {
            if !names.contains(column) {
                let hint = strict::nearest(column, &known).map_or_else(
                    || format!("the recipe's columns: {}", known.join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                fault(&["decoder", "columns"], format!("no [[column]] is called `{column}`"), Some(hint));
            }
        }
        faults
    }
}

/// Whether `name` can be part of a folder's name everywhere.
fn is_column_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(fits)
}

/// `text` with each `key.path=value` of `sets` put in.
fn with_sets(text: &str, name: &str, sets: &[String]) -> Result<String, RecipeError> {
    if sets.is_empty() {
        return Ok(text.to_owned());
    }
    let mut document: toml_edit::DocumentMut = match text.parse() {
        Ok(document) => document,
        // The fault is shown, with its caret, by the parser proper.
        Err(_) => return strict::parse::<toml::Table>(text, name).map(|_| text.to_owned()),
    };
    for given in sets {
        put(&mut document, given)?;
    }
    Ok(document.to_string())
}

/// Puts `given`, one `key.path=value`, into `document`.
fn put(document: &mut toml_edit::DocumentMut, given: &str) -> Result<(), RecipeError> {
    let bad = || RecipeError::Set { given: given.to_owned() };
    let (path, value) = given.split_once('=').ok_or_else(bad)?;
    // A bare word is a string: nobody wants to quote quotes in a shell.
    let value = value.parse::<toml_edit::Value>().unwrap_or_else(|_| value.into());
    let keys: Vec<&str> = path.trim().split('.').collect();
    let (last, parents) = keys.split_last().ok_or_else(bad)?;
    let mut item = document.as_item_mut();
    for (depth, key) in parents.iter().enumerate() {
        let nowhere =
            |found: String| RecipeError::SetPlace { given: given.to_owned(), at: keys[..=depth].join("."), found };
        item = match item {
            toml_edit::Item::ArrayOfTables(tables) => {
                let count = tables.len();
                let index: usize = key.parse().unwrap_or(count);
                if index >= count {
                    let last = count.saturating_sub(1);
                    return Err(nowhere(format!("the last one is `{}.{last}`", keys[..depth].join("."))));
                }
                &mut item[index]
            }
            item if item.is_table_like() => &mut item[*key],
            _ => return Err(nowhere(format!("`{}` holds one value", keys[..depth].join(".")))),
        };
        if item.is_none() {
            *item = toml_edit::table();
        }
    }
    let nowhere = || RecipeError::SetPlace {
        given: given.to_owned(),
        at: keys.join("."),
        found: format!("`{}` is no table", parents.join(".")),
    };
    item.as_table_like_mut().ok_or_else(nowhere)?.insert(last, toml_edit::value(value));
    Ok(())
}
