//! What of a cache is trained on: the rows of its splits, their captions, and columns that the recipe made.
//!
//! Knows nothing of decoders and runs. Rows that can teach nothing (without an embedding, without a word) are left out here, and
//! each time a line says how many: a training that silently saw less than the data set would be compared with one that didn't.

use std::path::{Path, PathBuf};

use icecap_cache::{Cache, ColumnReader, Rows};

use crate::{
    batch::Caption,
    progress::Progress,
    recipe::{EncoderSpec, Recipe},
    text::Tokenizer,
};

/// A cache that can't be trained on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingData {
    /// No rows of a split.
    #[error("the cache `{}` has no {what} of the split `{split}`\nhint: its splits: {known}", cache.display())]
    Empty {
        /// The cache.
        cache: PathBuf,
        /// What it lacks.
        what: &'static str,
        /// The split.
        split: &'static str,
        /// The splits that it has.
        known: String,
    },
    /// A split that no column holds an image of.
    #[error("{} none of the {images} captioned images of the split `{split}`
hint: {hint}",
        match &columns[..] { [one] => format!("column `{one}` holds"), all => format!("the columns `{}` hold", all.join("`, `")) })]
    NoRows {
        /// The columns.
        columns: Vec<String>,
        /// Images of the split.
        images: usize,
        /// The split.
        split: &'static str,
        /// Why, and what to do.
        hint: &'static str,
    },
    /// Captions of nothing.
    #[error(
        "none of the {captions} training captions has a word, as the tokenizer sees words
hint: look at the data set's captions, and at the recipe's [tokenizer]: nothing is learned from empty captions"
    )]
    NoWords {
        /// Captions of the training images.
        captions: usize,
    },
    /// A column was made by another recipe than the one given.
    #[error(
        "column `{column}` was not encoded by this recipe: it was made with {made}, and the recipe has {asked}\nhint: encode it anew with \
         `icecap encode --overwrite`, or give the recipe and the --set values that it was encoded with"
    )]
    OtherRecipe {
        /// The column.
        column: String,
        /// What the column's recipe says.
        made: String,
        /// What the given one says there.
        asked: String,
    },
}

/// Refuses a column whose recorded recipe makes it in another way than `recipe` would. Columns that were imported, or made by a version whose
/// recipes this one can't read, say nothing and pass.
pub(in super::super) fn check_recipe(recipe: &Recipe, column: &ColumnReader) -> Result<(), TrainingData> {
    let made = column.manifest().and_then(|manifest| manifest.provenance.get("recipe")?.as_str().map(str::to_owned));
    let Some(made) = made.and_then(|text| Recipe::parse(&text, "column.json", &[]).ok()) else { return Ok(()) };
    let told = |recipe: &Recipe| {
        let own = recipe.columns.iter().find(|own| own.name == column.name())?;
        // The batch decides no row.
        let encoder = EncoderSpec { batch: None, ..recipe.encoder.clone() };
        Some(format!("{}{}", toml::to_string(&encoder).ok()?, toml::to_string(own).ok()?))
    };
    let (Some(made), Some(asked)) = (told(&made), told(recipe)) else { return Ok(()) };
    let only = |text: &str, other: &str| {
        let lines: Vec<&str> = text.lines().filter(|line| !other.lines().any(|other| other == *line)).collect();
        if lines.is_empty() { "nothing there".to_owned() } else { format!("`{}`", lines.join("`, `")) }
    };
    if made == asked {
        return Ok(());
    }
    Err(TrainingData::OtherRecipe {
        column: column.name().to_owned(),
        made: only(&made, &asked),
        asked: only(&asked, &made),
    })
}

/// The rows that are trained and validated on.
pub(super) struct Split {
    pub train: Vec<u32>,
    pub validation: Vec<u32>,
}

impl Split {
    pub fn open(
        cache: &Cache,
        path: &Path,
        columns: &[ColumnReader],
        progress: &dyn Progress,
    ) -> Result<Self, TrainingData> {
        let rows = cache.rows();
        let captioned = |split: &'static str| -> Result<Vec<u32>, TrainingData> {
            let mut found = rows.split_rows(split);
            found.retain(|row| !captions_of(rows, *row).is_empty());
            if found.is_empty() {
                let known = rows.split_names().join(", ");
                return Err(TrainingData::Empty { cache: path.to_owned(), what: "captioned rows", split, known });
            }
            let images = found.len();
            let none = |columns: Vec<&ColumnReader>, hint| {
                let columns = columns.into_iter().map(|column| column.name().to_owned()).collect();
                TrainingData::NoRows { columns, images, split, hint }
            };
            keep_encoded(&mut found, columns, split).iter().for_each(|note| progress.line(note));
            if found.is_empty() {
                let shortest = columns.iter().min_by_key(|column| column.len());
                return Err(none(
                    shortest.into_iter().collect(),
                    "they came after it was encoded: run `icecap encode` again",
                ));
            }
            keep_present(&mut found, columns, split).iter().for_each(|note| progress.line(note));
            if found.is_empty() {
                return Err(none(
                    columns.iter().collect(),
                    "`icecap cache missing` lists them, and why they have no embedding",
                ));
            }
            Ok(found)
        };
        Ok(Self { train: captioned("train")?, validation: captioned("val")? })
    }

    /// Keeps `images` of the validation images, evenly, in their order; all of them where it is 0.
    pub fn keep_validation(&mut self, images: usize) {
        let all = self.validation.len();
        if images > 0 && images < all {
            self.validation = (0..images).map(|at| self.validation[at * all / images]).collect();
        }
    }

    pub fn training_captions(&self, rows: &Rows) -> Vec<String> {
        self.train.iter().flat_map(|row| captions_of(rows, *row)).collect()
    }
}

/// Leaves out of `rows` those that came after a column was finished; a line says how many.
pub(in super::super) fn keep_encoded(rows: &mut Vec<u32>, columns: &[ColumnReader], split: &str) -> Option<String> {
    let all = rows.len();
    let encoded = columns.iter().map(ColumnReader::len).min().unwrap_or(0);
    rows.retain(|row| *row < encoded);
    let later = all - rows.len();
    (later > 0).then(|| {
        format!("{later} of {all} images of the split `{split}` are not in the columns yet and are left out: run `icecap encode` again")
    })
}

/// Leaves out of `rows` those without an embedding in any column: from nothing, nothing is learned. A line says how many.
fn keep_present(rows: &mut Vec<u32>, columns: &[ColumnReader], split: &str) -> Option<String> {
    let all = rows.len();
    rows.retain(|row| columns.iter().any(|column| column.is_present(*row)));
    let without = all - rows.len();
    (without > 0).then(|| {
        format!("{without} of {all} images of the split `{split}` have no embedding and are left out: `icecap cache missing` lists them")
    })
}

/// The captions of a row.
pub(in super::super) fn captions_of(rows: &Rows, row: u32) -> Vec<String> {
    rows.get(row).captions
}

/// The captions of `wanted`, as tokens; those without a single token are left out, and counted aloud.
///
/// # Errors
/// Where none has one: [`TrainingData::NoWords`].
pub(super) fn captions(
    tokenizer: &Tokenizer,
    rows: &Rows,
    wanted: &[u32],
    progress: &dyn Progress,
) -> Result<Vec<Caption>, TrainingData> {
    let (owners, texts): (Vec<u32>, Vec<String>) =
        wanted.iter().flat_map(|row| captions_of(rows, *row).into_iter().map(|text| (*row, text))).unzip();
    let mut captions: Vec<Caption> =
        tokenizer.encode_batch(&texts).into_iter().zip(owners).map(|(tokens, row)| Caption { row, tokens }).collect();
    let all = captions.len();
    captions.retain(|caption| !caption.tokens.is_empty());
    if captions.is_empty() {
        return Err(TrainingData::NoWords { captions: all });
    }
    if captions.len() < all {
        progress.line(&format!("{} captions have no words and are left out", all - captions.len()));
    }
    Ok(captions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_that_no_column_holds_names_the_columns() {
        let hint = "`icecap cache missing` lists them, and why they have no embedding";
        let error = |columns: &[&str]| {
            let columns = columns.iter().map(ToString::to_string).collect();
            TrainingData::NoRows { columns, images: 7, split: "val", hint }.to_string()
        };
        insta::assert_snapshot!(error(&["grid"]), @r"
        column `grid` holds none of the 7 captioned images of the split `val`
        hint: `icecap cache missing` lists them, and why they have no embedding
        ");
        insta::assert_snapshot!(error(&["grid", "whole"]), @r"
        the columns `grid`, `whole` hold none of the 7 captioned images of the split `val`
        hint: `icecap cache missing` lists them, and why they have no embedding
        ");
    }
}
