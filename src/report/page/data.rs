//! The gallery's data, as the page's script reads it. Names are short where they occur a thousand times.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// All that the script draws.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Data {
    /// The variants, best first.
    pub variants: Vec<String>,
    /// The runs, in the order of the variants.
    pub runs: Vec<RunData>,
    /// What sets variants apart.
    pub pairs: Vec<Pair>,
    /// The gallery.
    pub images: Vec<Image>,
}

/// A run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunData {
    /// Its name.
    pub name: String,
    /// Its variant's place.
    pub variant: usize,
    /// Its resolved recipe.
    pub recipe: String,
}

/// What sets variant `b` apart from variant `a`, scores times 100.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Pair {
    /// The place of the better one.
    pub a: usize,
    /// The place of the worse one.
    pub b: usize,
    /// The difference, as shown.
    pub difference: String,
    /// Where it lies, as shown.
    pub interval: String,
    /// Holm's p, as shown.
    pub p: String,
    /// Whether it may be called a difference.
    pub significant: bool,
}

/// An image of the gallery.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Image {
    /// Its name.
    pub id: String,
    /// Its references.
    #[serde(rename = "refs")]
    pub references: Vec<String>,
    /// How much the variants disagree about it: the standard deviation of their CIDEr.
    pub apart: f64,
    /// What was said of it, best first.
    pub said: Vec<Said>,
    /// The photograph, a JPEG in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub photo: Option<String>,
    /// `[height, width]` of the photograph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 2]>,
    /// Where decoders looked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
    /// Where the vectors that they looked at lie.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Part>,
}

/// A caption and the runs that said it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Said {
    /// The caption.
    #[serde(rename = "c")]
    pub caption: String,
    /// Its CIDEr, times 100.
    #[serde(rename = "s")]
    pub cider: f64,
    /// The runs' places.
    #[serde(rename = "r")]
    pub runs: Vec<usize>,
}

/// Where a run looked while it said its caption.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Look {
    /// The run's place.
    pub run: usize,
    /// The caption's tokens; the last is the end mark, empty.
    pub tokens: Vec<String>,
    /// The parts whose vectors follow one another.
    pub parts: Vec<String>,
    /// The share of each vector before each token.
    #[serde(rename = "w")]
    pub weights: Vec<Shares>,
}

/// Where the vectors of a column lie: each frame is divided into cells, row by row.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Part {
    /// The column.
    pub name: String,
    /// `[rows, columns]` of a frame.
    pub cells: [usize; 2],
    /// `[x1, y1, x2, y2]` in thousandths of the photograph; none where it can't be told, or there is no vector.
    pub frames: Vec<Option<[i32; 4]>>,
}

/// Shares of the highest of them, in 64 steps: a letter each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares(String);

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Shares {
    /// `weights`, none below 0.
    #[must_use]
    pub fn of(weights: &[f32]) -> Self {
        let highest = weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let letter = |weight: &f32| char::from(LETTERS[((63.0 * weight / highest).round() as usize).min(63)]);
        Self(weights.iter().map(letter).collect())
    }
}

impl Serialize for Shares {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_letters() {
        assert_eq!(Shares::of(&[0.0, 0.25, 0.5]), Shares("Ag_".into()));
        assert_eq!(Shares::of(&[0.0, f32::NAN]), Shares("AA".into()));
        assert_eq!(Shares::of(&[]), Shares(String::new()));
    }
}
