//! The section `[tail]`: the encoder's last block, trained from a cached earlier layer.
//!
//! It knows neither graphs nor weights: whether the two tensors enclose anything is found out where the model is at hand. What is
//! checked here is that the column holds the tensor as it is, since only that can be computed on.

use serde::{Deserialize, Serialize};

use super::{ColumnSpec, Origin, Recipe, column::ColumnFault, strict};
use crate::{
    decoder::{BatchNorm, TailPool},
    encoder::Pool,
};

/// The section `[tail]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailSpec {
    /// The column that it begins with: one tensor of the encoder, not pooled.
    pub column: String,
    /// A later tensor of the same model, which it ends with; `icecap inspect` lists them.
    pub to: String,
    /// How the decoder sees that tensor: `none`, `global`, `flatten`, or a grid such as `7x7`.
    #[serde(default)]
    pub pool: Pool,
    /// The learning rate is multiplied by this for the tail.
    #[serde(default = "tenth")]
    pub learning_rate_scale: f64,
    /// `frozen` keeps the encoder's running statistics, `train` uses those of the batch.
    #[serde(default)]
    pub batch_norm: BatchNorm,
}

fn tenth() -> f64 {
    0.1
}

impl TailSpec {
    /// The pooling as the decoder has it.
    #[must_use]
    pub fn pool(&self) -> TailPool {
        match self.pool {
            Pool::None => TailPool::None,
            Pool::Flatten => TailPool::Flatten,
            Pool::Global => TailPool::Global,
            Pool::Grid(k) => TailPool::Grid(i64::from(k)),
        }
    }

    /// Everything in it that can't be meant, with the rest of `recipe`.
    pub(super) fn faults(&self, recipe: &Recipe) -> Vec<ColumnFault> {
        let mut faults = Vec::new();
        let scale = self.learning_rate_scale;
        if !(scale > 0.0 && scale <= 1000.0) {
            let message = format!("`{scale}` does not work: it must be above 0 and at most 1000");
            faults.push(ColumnFault::of("learning_rate_scale", message, "leave [tail] out to keep the encoder frozen"));
        }
        let Some(decoder) = &recipe.decoder else {
            let message = "the recipe has a [tail] and no [decoder] behind it".to_owned();
            faults.push(ColumnFault { key: None, message, hint: None });
            return faults;
        };
        let column = &self.column;
        if !decoder.columns.contains(column) {
            let near = strict::nearest(column, &decoder.columns);
            let near = near.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
            let message = format!("the decoder reads no column `{column}`{near}");
            faults.push(ColumnFault::of("column", message, "name one of `decoder.columns`: the tail takes its place"));
        } else if let Some(spec) = recipe.columns.iter().find(|spec| spec.name == *column) {
            let wrong = self.unfit(spec).map(|(what, hint)| {
                ColumnFault::of("column", format!("a tail can't begin with column `{column}`: {what}"), hint)
            });
            faults.extend(wrong);
        }
        if decoder.standardize {
            let message = "a tail computes with the encoder's own numbers, and `standardize` changes them".to_owned();
            faults.push(ColumnFault::of("column", message, "leave `decoder.standardize` out"));
        }
        faults
    }

    /// Why the rows of `column` are not one tensor of one picture.
    fn unfit(&self, column: &ColumnSpec) -> Option<(&'static str, &'static str)> {
        let rules = [
            (column.from == Origin::Detector, "it is the detector's", "begin with a tensor of the encoder"),
            (
                column.tiles.is_some(),
                "its rows are tiles of the picture",
                "make a column of the same tap without `tiles`",
            ),
            (
                !column.views.is_empty(),
                "its rows are several views of the picture",
                "make a column of the same tap without `views`",
            ),
            (
                column.regions.is_some(),
                "its rows are regions of the picture",
                "make a column of the same tap without `regions`",
            ),
            (!column.taps.is_empty(), "it joins several tensors", "make a column of one `tap`"),
            (column.l2, "its vectors were divided by their length", "make a column without `l2`"),
            (
                !matches!(column.pool, Pool::None | Pool::Flatten),
                "it was pooled",
                "keep the tensor as it is: pool = \"none\"",
            ),
            (column.tap.as_ref() == Some(&self.to), "it holds `to` itself", "name a later tensor as `to`"),
        ];
        rules.into_iter().find_map(|(wrong, what, hint)| wrong.then_some((what, hint)))
    }
}
