//! Where attention decoders looked before each word, small enough for a page.
//!
//! Must not know how it is drawn. A caption is said once more, word by word, and the weights are read off: nothing is searched for again. A vector of a
//! column lies in a frame (the crop, a tile, a region) that is divided into cells; a frame that can't be told, such as a random crop's, is absent.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Result;
use icecap_cache::{Cache, ColumnReader};
use serde_json::Value;

use super::{Group, entrant::Entrant, gallery::id};
use crate::{
    batch::{self, Column},
    decoder::Decoder,
    image::{Preprocess, Resize, View},
    recipe::ColumnSpec,
    report::page::{Look, Part, Shares},
    stage::caption::attention,
};

/// A decoder that shows where it looks: one run a variant.
pub(super) struct Looker<'a> {
    /// The run's number in the report.
    number: usize,
    entrant: &'a Entrant,
    cache: &'a Cache,
    decoder: Box<dyn Decoder>,
    columns: Vec<Arc<dyn Column>>,
    readers: Vec<ColumnReader>,
}

/// What is looked at, of one image.
pub(super) struct Seen {
    pub looks: Vec<Look>,
    /// Where the vectors of each column lie, by the column's key.
    pub parts: BTreeMap<String, Part>,
}

/// The first run of each variant whose decoder weighs an image's vectors, where its cache is there.
pub(super) fn lookers<'a>(
    entrants: &'a [Entrant],
    groups: &[Group],
    caches: &'a HashMap<PathBuf, Cache>,
    device: &str,
) -> Result<Vec<Looker<'a>>> {
    let mut number = 0;
    let mut lookers = Vec::new();
    for group in groups {
        let entrant = &entrants[group.runs[0]];
        let looks = entrant.run.recipe.decoder.as_ref().is_some_and(|section| section.spec.looks());
        if let (true, Some(cache)) = (looks, caches.get(&entrant.cache)) {
            lookers.push(Looker::open(number, entrant, cache, device)?);
        }
        number += group.runs.len();
    }
    Ok(lookers)
}

impl<'a> Looker<'a> {
    fn open(number: usize, entrant: &'a Entrant, cache: &'a Cache, device: &str) -> Result<Self> {
        let run = &entrant.run;
        let open = || run.columns(cache, &entrant.cache);
        let columns = run.view(open()?.into_iter().map(batch::cached).collect())?;
        Ok(Self { number, entrant, cache, decoder: run.decoder(device)?.0, columns, readers: open()? })
    }

    /// Where it looked while it said its caption of image `at`, whose picture is of `(height, width)`.
    fn look(&self, at: usize, size: (u32, u32), parts: &mut BTreeMap<String, Part>) -> Option<Look> {
        let scored = &self.entrant.scored.images[at];
        let row = self.cache.rows().find(&id(&scored.image_id))?;
        let prefix = batch::gather(&self.columns, &[row]).to_device(self.decoder.params().device());
        let tokens = self.entrant.run.tokenizer.encode(&scored.caption);
        // The page shows the words that were scored, so a caption that isn't made of this run's tokens is left to stand as text.
        if self.entrant.run.tokenizer.decode(&tokens) != scored.caption {
            return None;
        }
        let seen = attention(&self.entrant.run, self.decoder.as_ref(), &prefix, &self.columns, &tokens).ok()?;
        let mut names = Vec::with_capacity(self.readers.len());
        for (reader, column) in self.readers.iter().zip(&seen.columns) {
            let vectors: usize = column.shape.iter().rev().skip(1).product();
            let name = format!("{}-{}", column.name, reader.key().short());
            // Behind a tail it sees other vectors than the column's, cells of the same frame.
            let name = if vectors == vectors_of(reader) { name } else { format!("{name}-{vectors}") };
            if !parts.contains_key(&name) {
                parts.insert(name.clone(), self.part(reader, vectors, row, size));
            }
            names.push(name);
        }
        let weights = seen.weights.iter().map(|weights| Shares::of(weights)).collect();
        Some(Look { run: self.number, tokens: seen.tokens, parts: names, weights })
    }

    /// Where the `vectors` of a column lie in a picture of `(height, width)`.
    fn part(&self, reader: &ColumnReader, vectors: usize, row: u32, size: (u32, u32)) -> Part {
        let spec = self.entrant.run.recipe.columns.iter().find(|column| column.name == reader.name());
        let name = reader.name().to_owned();
        if let Some(boxes) = boxes(reader, row) {
            let (height, width) = (size.0 as f32, size.1 as f32);
            let frame = |b: &[f32]| Some(thousandths([b[0] / width, b[1] / height, b[2] / width, b[3] / height]));
            let mut frames: Vec<_> = boxes.chunks_exact(4).map(frame).collect();
            frames.resize(vectors, None);
            return Part { name, cells: [1, 1], frames };
        }
        let preprocess = preprocess(reader);
        let views = spec.map_or_else(|| vec![View::Center], ColumnSpec::views);
        let cells = (vectors / views.len().max(1)).max(1);
        let place = |view: &View| frame(*view, preprocess.as_ref(), size).map(thousandths);
        Part { name, cells: grid(cells), frames: views.iter().map(place).collect() }
    }
}

/// Where each of `lookers` looked in image `at`.
pub(super) fn seen(lookers: &[Looker<'_>], at: usize, size: (u32, u32)) -> Seen {
    let mut parts = BTreeMap::new();
    let looks = lookers.iter().filter_map(|looker| looker.look(at, size, &mut parts)).collect();
    Seen { looks, parts }
}

fn vectors_of(reader: &ColumnReader) -> usize {
    reader.row_shape().iter().rev().skip(1).product()
}

/// The boxes of a row of regions: `[K, 4]`, as many as there are.
fn boxes(reader: &ColumnReader, row: u32) -> Option<Vec<f32>> {
    let numbers = |name: &str| -> Option<Vec<f32>> {
        let bytes = reader.row_of(reader.tensor(name)?, row)?;
        Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
    };
    let mut boxes = numbers("boxes")?;
    let count = numbers("count").and_then(|count| count.first().copied());
    boxes.truncate(count.map_or(boxes.len(), |count| 4 * count as usize));
    Some(boxes)
}

/// How pictures were resized and cropped, by the column's key.
fn preprocess(reader: &ColumnReader) -> Option<Preprocess> {
    let field = |name: &str| reader.key().get(name).cloned();
    let resize: Resize = serde_json::from_value(field("image.resize")?).ok()?;
    let crop = field("image.crop").filter(|crop| *crop != Value::Null);
    let crop: Option<[u32; 2]> = crop.map(serde_json::from_value).transpose().ok()?;
    Some(Preprocess { resize, crop, ..Preprocess::default() })
}

/// Where a view lies: `[x1, y1, x2, y2]` in shares of the picture.
fn frame(view: View, preprocess: Option<&Preprocess>, size: (u32, u32)) -> Option<[f32; 4]> {
    match view {
        View::Center => preprocess.map(|preprocess| preprocess.frame(size)),
        View::Hflip => preprocess.map(|preprocess| preprocess.frame(size)).map(|[x1, y1, x2, y2]| [x2, y1, x1, y2]),
        View::Whole => Some([0.0, 0.0, 1.0, 1.0]),
        View::Tile { row, column, rows, columns } => {
            let share = |at: u32, of: u32| at as f32 / of as f32;
            Some([share(column, columns), share(row, rows), share(column + 1, columns), share(row + 1, rows)])
        }
        View::Corner { .. } | View::Random { .. } => None,
    }
}

/// `[rows, columns]` of so many cells: as near to a square as can be.
fn grid(cells: usize) -> [usize; 2] {
    let rows = (1..=cells)
        .take_while(|rows| rows * rows <= cells)
        .filter(|rows| cells.is_multiple_of(*rows))
        .last()
        .unwrap_or(1);
    [rows, cells / rows]
}

fn thousandths(frame: [f32; 4]) -> [i32; 4] {
    frame.map(|share| (1000.0 * share).round() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_a_grid() {
        assert_eq!([grid(49), grid(12), grid(1), grid(7)], [[7, 7], [3, 4], [1, 1], [1, 7]]);
    }

    #[test]
    fn views_have_their_places() {
        let pre = Preprocess { resize: Resize::Shorter(50), crop: Some([50, 50]), ..Preprocess::default() };
        let of = |view| frame(view, Some(&pre), (100, 200)).map(thousandths);
        assert_eq!(of(View::Center), Some([250, 0, 750, 1000]));
        assert_eq!(of(View::Hflip), Some([750, 0, 250, 1000]), "its left is the picture's right");
        assert_eq!(of(View::Whole), Some([0, 0, 1000, 1000]));
        assert_eq!(of(View::Tile { row: 1, column: 0, rows: 2, columns: 2 }), Some([0, 500, 500, 1000]));
        assert_eq!(of(View::Random { index: 0, seed: 0 }), None);
    }
}
