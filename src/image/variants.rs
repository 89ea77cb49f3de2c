//! What a recipe writes for the views of a column: `tiles = "2x2+1"`, `views = ["center", "hflip", "five-crop", "random:4"]`.
//!
//! Short strings, because a recipe, a table and a message all show them so. They are resolved to the list of [`View`]s a
//! row is made of, each once: that list, and not its spelling, decides a column's bytes and goes into its key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::View;

/// Most parts a side, and most random crops.
const MOST: u32 = 64;

/// `RxC`, or `RxC+1`: the picture cut in R rows and C columns, and with `+1` the whole of it after its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// Parts from top to bottom.
    pub rows: u32,
    /// Parts from left to right.
    pub columns: u32,
    /// Whether the whole picture, squeezed, is the last vector.
    pub whole: bool,
}

/// One entry of `views`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewSpec {
    /// The ordinary preprocessing.
    Center,
    /// Its mirror.
    Hflip,
    /// torchvision's `FiveCrop`: the corners (upper left, upper right, lower left, lower right), then the centre.
    FiveCrop,
    /// The whole picture, squeezed.
    Whole,
    /// So many seeded random crops.
    Random(u32),
}

/// The text means no tiles or views.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariantSyntax {
    /// No tiles.
    #[error("`{0}` cuts no picture: write ROWSxCOLUMNS, such as `2x2`, or `2x2+1` for the parts and the whole")]
    Tiles(String),
    /// No view.
    #[error("`{0}` is no view: center, hflip, five-crop, whole, or N random crops by `random:N`")]
    View(String),
}

impl FromStr for Tiles {
    type Err = VariantSyntax;

    fn from_str(text: &str) -> Result<Self, VariantSyntax> {
        let parse = || {
            let (grid, whole) = text.strip_suffix("+1").map_or((text, false), |grid| (grid, true));
            let (rows, columns) = grid.split_once('x')?;
            let (rows, columns) = (count(rows)?, count(columns)?);
            Some(Self { rows, columns, whole })
        };
        parse().ok_or_else(|| VariantSyntax::Tiles(text.to_owned()))
    }
}

impl FromStr for ViewSpec {
    type Err = VariantSyntax;

    fn from_str(text: &str) -> Result<Self, VariantSyntax> {
        let random = || text.strip_prefix("random:").and_then(count).map(Self::Random);
        match text {
            "center" => Ok(Self::Center),
            "hflip" => Ok(Self::Hflip),
            "five-crop" => Ok(Self::FiveCrop),
            "whole" => Ok(Self::Whole),
            _ => random().ok_or_else(|| VariantSyntax::View(text.to_owned())),
        }
    }
}

/// A number from 1 to [`MOST`], in plain digits.
fn count(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|count| digits && (1..=MOST).contains(count))
}

impl fmt::Display for Tiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}x{}{}", self.rows, self.columns, if self.whole { "+1" } else { "" })
    }
}

impl fmt::Display for ViewSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Center => out.write_str("center"),
            Self::Hflip => out.write_str("hflip"),
            Self::FiveCrop => out.write_str("five-crop"),
            Self::Whole => out.write_str("whole"),
            Self::Random(crops) => write!(out, "random:{crops}"),
        }
    }
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Tiles, ViewSpec);

impl Tiles {
    /// The parts, row by row, then the whole.
    pub fn resolve(self) -> Vec<View> {
        let Self { rows, columns, whole } = self;
        let parts = (0..rows).flat_map(|row| (0..columns).map(move |column| View::Tile { row, column, rows, columns }));
        parts.chain(whole.then_some(View::Whole)).collect()
    }
}

/// The views that `specs` name, in their order and each once: `["center", "five-crop"]` is five views, the centre first.
pub fn resolve_views(specs: &[ViewSpec], seed: u64) -> Vec<View> {
    let mut views = Vec::new();
    for spec in specs {
        for view in spec.resolve(seed) {
            if !views.contains(&view) {
                views.push(view);
            }
        }
    }
    views
}

impl ViewSpec {
    fn resolve(self, seed: u64) -> Vec<View> {
        match self {
            Self::Center => vec![View::Center],
            Self::Hflip => vec![View::Hflip],
            Self::Whole => vec![View::Whole],
            Self::FiveCrop => {
                let corners = [(false, false), (false, true), (true, false), (true, true)];
                let corners = corners.map(|(bottom, right)| View::Corner { bottom, right });
                corners.into_iter().chain([View::Center]).collect()
            }
            Self::Random(crops) => (0..crops).map(|index| View::Random { index, seed }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(views: &[View]) -> String {
        views.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["2x2", "1x3+1", "64x64+1"] {
            assert_eq!(text.parse::<Tiles>().unwrap().to_string(), text);
        }
        for text in ["center", "hflip", "five-crop", "whole", "random:4"] {
            assert_eq!(text.parse::<ViewSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "2", "2x", "x2", "0x2", "2x65", "2x2+2", "2x2+", "2x2x2", "+2x2", "2x-1"] {
            assert!(text.parse::<Tiles>().is_err(), "{text}");
        }
        for text in ["centre", "random", "random:", "random:0", "random:65", "random:+4", ""] {
            assert!(text.parse::<ViewSpec>().is_err(), "{text}");
        }
        insta::assert_snapshot!("3".parse::<Tiles>().unwrap_err(), @"`3` cuts no picture: write ROWSxCOLUMNS, such as `2x2`, or `2x2+1` for the parts and the whole");
        insta::assert_snapshot!("vflip".parse::<ViewSpec>().unwrap_err(), @"`vflip` is no view: center, hflip, five-crop, whole, or N random crops by `random:N`");
    }

    #[test]
    fn tiles_go_row_by_row_and_the_whole_comes_last() {
        insta::assert_snapshot!(shown(&"2x2+1".parse::<Tiles>().unwrap().resolve()), @"tile:0,0/2x2 tile:0,1/2x2 tile:1,0/2x2 tile:1,1/2x2 whole");
        assert_eq!("1x3".parse::<Tiles>().unwrap().resolve().len(), 3);
    }

    #[test]
    fn a_view_that_is_named_twice_is_there_once() {
        let views = [ViewSpec::Center, ViewSpec::Hflip, ViewSpec::FiveCrop, ViewSpec::Random(2)];
        insta::assert_snapshot!(shown(&resolve_views(&views, 9)), @"center hflip top-left top-right bottom-left bottom-right random:0/9 random:1/9");
        insta::assert_snapshot!(shown(&resolve_views(&[ViewSpec::FiveCrop], 9)), @"top-left top-right bottom-left bottom-right center");
    }
}
