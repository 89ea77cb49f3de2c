//! Recipes: one TOML file a pipeline, from the data set to the report.
//!
//! A recipe is kept as typed ([`Recipe`]); what it means is decided once, here (by [`Recipe::parse`] and [`EncoderSpec::resolve`]),
//! and the stages take the resolved plans. The types of the sections live with the modules that use them; this module
//! composes them, and knows no runtime.

mod column;
mod decoder;
mod detector;
mod encoder;
mod error;
mod own_words;
pub mod strict;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, fs, path::Path};

use serde::{Deserialize, Serialize};

pub use column::ColumnSpec;
pub use decoder::DecoderSection;
pub use detector::{DetectorSpec, DetectorWord, FileSpec, Origin, RegionsSpec};
pub use encoder::{EncoderSpec, ModelSource, ResolvedEncoder, UnknownPreprocessing};
pub use error::RecipeError;

use crate::{
    dataset::DatasetSpec,
    decoder::{DecodeSpec, DecoderError},
    text::TokenizerSpec,
    trainer::TrainSpec,
};
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
        let mut recipe: Self = strict::parse(&text, name)?;
        if recipe.pretrained() && strict::span_of(&text, &["tokenizer"]).is_none() {
            recipe.tokenizer = TokenizerSpec::Pretrained;
        }
        own_words::settle(&mut recipe.train, &text);
        let faults = recipe.check(&text);
        if faults.is_empty() { Ok(recipe) } else { Err(RecipeError::Faults { name: name.to_owned(), text, faults }) }
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

    /// Faults of meaning, which no type can express.
    fn check(&self, text: &str) -> Vec<Fault> {
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
            for found in column.faults(at) {
                let path: Vec<&str> = ["column", &index].into_iter().chain(found.key).collect();
                fault(&path, found.message, found.hint.map(str::to_owned));
            }
        }
        for wrong in self.detector.iter().flat_map(DetectorSpec::senseless) {
            fault(&["detector", wrong.key], wrong.message, Some(wrong.hint.to_owned()));
        }
        let needing = self.columns.iter().position(ColumnSpec::needs_detector);
        match (&self.detector, needing) {
            (None, Some(index)) => {
                let message = format!("column `{}` needs a detector, and there is none", self.columns[index].name);
                let hint = "add a section: [detector], kind = \"fasterrcnn\" or \"yolox\", model = FILE".to_owned();
                fault(&["column", &index.to_string(), "name"], message, Some(hint));
            }
            (Some(_), None) => {
                let hint = "a [[column]] says regions = \"detector\", or from = \"detector\"".to_owned();
                fault(&["detector", "kind"], "no column asks the detector for anything".to_owned(), Some(hint));
            }
            _ => {}
        }
        if let Err(DecoderError::Decode { field, value, must }) = self.decode.check() {
            fault(&["decode", field], format!("`{value}` does not work: it must be {must}"), None);
        }
        self.check_tokenizer(&mut fault);
        own_words::check(&self.train, &mut fault);
        if self.columns.is_empty() {
            fault(&["encoder"], "the recipe has no [[column]]: nothing would be kept".to_owned(), None);
        }
        let known: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
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
        let bad = || RecipeError::Set { given: given.clone() };
        let (path, value) = given.split_once('=').ok_or_else(bad)?;
        // A bare word is a string: nobody wants to quote quotes in a shell.
        let value = value.parse::<toml_edit::Value>().unwrap_or_else(|_| value.into());
        let keys: Vec<&str> = path.trim().split('.').collect();
        let (last, parents) = keys.split_last().ok_or_else(bad)?;
        let mut item = document.as_item_mut();
        for key in parents {
            item = match item {
                toml_edit::Item::ArrayOfTables(tables) => {
                    let index: usize = key.parse().map_err(|_| bad())?;
                    if index >= tables.len() {
                        return Err(bad());
                    }
                    &mut item[index]
                }
                item if item.is_table_like() => &mut item[*key],
                _ => return Err(bad()),
            };
            if item.is_none() {
                *item = toml_edit::table();
            }
        }
        item.as_table_like_mut().ok_or_else(bad)?.insert(last, toml_edit::value(value));
    }
    Ok(document.to_string())
}
