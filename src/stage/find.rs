//! One worker's way from the pictures of a batch to their regions: detected or read, carried over to the encoder's input, written out.
//!
//! It must not know shards or how pictures are decoded. One decision defended: a region that the encoder's crop doesn't show is no region of
//! that column. Its vector would be that of some place at the border.

use anyhow::Result;
use half::{bf16, f16};
use icecap_cache::Dtype;

use super::{
    embed::Embedding,
    prepare::Second,
    regions::{RegionColumn, RegionModel, Source, What, extra_tensors},
};
use crate::{
    detector::{Box4, DetectorSession, Found, Look, Regions},
    encoder::Device,
    image::Preprocess,
};

/// One worker's way to the regions of a batch.
pub(super) struct Finder<'m> {
    model: &'m RegionModel,
    preprocess: &'m Preprocess,
    session: Option<DetectorSession<'m>>,
}

/// A picture of a batch: its slot, its row (for files of boxes) and what was kept of it.
pub(super) type Slot<'a> = (usize, Option<u32>, &'a Second);

/// What was seen in the pictures of a batch: by slot.
pub(super) struct Seen<'m> {
    model: &'m RegionModel,
    slots: Vec<Option<SeenPicture>>,
}

struct SeenPicture {
    found: Option<Found>,
    /// By column of the encoder: its regions that the crop shows, and where they are in the encoder's input.
    aligned: Vec<(usize, Regions, Vec<Box4>)>,
}

impl<'m> Finder<'m> {
    /// Opens the session that `columns` (positions) need.
    pub fn new(
        model: &'m RegionModel,
        preprocess: &'m Preprocess,
        device: Device,
        threads: usize,
        columns: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let session = match &model.detector {
            Some((detector, _)) if model.wants_look(columns) => Some(detector.session(device, threads)?),
            _ => None,
        };
        Ok(Self { model, preprocess, session })
    }

    /// What is in the pictures of a batch of `batch` slots.
    pub fn find(&mut self, batch: usize, pictures: &[Slot<'_>]) -> Result<Seen<'m>> {
        let mut slots: Vec<Option<SeenPicture>> = (0..batch).map(|_| None).collect();
        let looks: Vec<&Look> = pictures.iter().filter_map(|(_, _, second)| second.look.as_ref()).collect();
        let mut found = match &mut self.session {
            Some(session) if !looks.is_empty() => session.detect(&looks)?.into_iter(),
            _ => Vec::new().into_iter(),
        };
        for &(slot, row, second) in pictures {
            let found = second.look.as_ref().and_then(|_| found.next());
            let aligned = self.align(row, second.original, found.as_ref());
            slots[slot] = Some(SeenPicture { found, aligned });
        }
        Ok(Seen { model: self.model, slots })
    }

    fn align(&self, row: Option<u32>, size: (u32, u32), found: Option<&Found>) -> Vec<(usize, Regions, Vec<Box4>)> {
        let mut aligned = Vec::new();
        for (at, column) in self.model.columns.iter().enumerate() {
            let Some(RegionColumn { source, what: What::Aligned(_), .. }) = column else { continue };
            let regions = match (source, found) {
                (Source::Detector, Some(found)) => found.regions.clone(),
                (Source::Detector, None) => continue,
                (Source::File(file), _) => {
                    let file = &self.model.files[*file];
                    let number = row.and_then(|row| file.pictures.get(row as usize).copied().flatten());
                    file.boxes.regions(number, size)
                }
            };
            let (regions, boxes) = shown(regions, size, self.preprocess);
            aligned.push((at, regions, boxes));
        }
        aligned
    }
}

/// The regions that the encoder's crop shows, and where they are in its input; the whole picture where it shows none.
fn shown(regions: Regions, size: (u32, u32), preprocess: &Preprocess) -> (Regions, Vec<Box4>) {
    let boxes: Vec<Option<Box4>> = regions.boxes.iter().map(|&b| preprocess.shown(size, b)).collect();
    if boxes.iter().all(Option::is_some) {
        return (regions, boxes.into_iter().flatten().collect());
    }
    let mut kept = Regions::default();
    for (at, _) in boxes.iter().enumerate().filter(|(_, shown)| shown.is_some()) {
        kept.boxes.push(regions.boxes[at]);
        kept.scores.push(regions.scores[at]);
        kept.labels.push(regions.labels[at]);
    }
    if kept.is_empty() {
        let whole = Regions::whole(size);
        let boxes = preprocess.shown(size, whole.boxes[0]).into_iter().collect();
        return (whole, boxes);
    }
    (kept, boxes.into_iter().flatten().collect())
}

impl Seen<'_> {
    /// Tells the encoder's sessions where the regions are.
    ///
    /// # Errors
    /// Where there are more than a row has vectors: never, as the policy is.
    pub fn set(&self, embedding: &mut Embedding<'_>) -> Result<()> {
        let columns = (0..self.model.columns.len()).filter(|&column| self.model.aligned(column).is_some());
        for column in columns {
            for (slot, seen) in self.slots.iter().enumerate() {
                let boxes = seen.as_ref().and_then(|seen| seen.aligned.iter().find(|(at, ..)| *at == column));
                embedding.set_regions(column, slot, boxes.map_or(&[], |(_, _, boxes)| boxes))?;
            }
        }
        Ok(())
    }

    /// Writes the rows of the detector's columns, `[batch, row]` bytes each, where they have a target.
    pub fn write(&self, targets: &mut [Option<&mut [u8]>]) {
        for (column, target) in self.model.columns.iter().zip(targets) {
            let (Some(column), Some(target)) = (column, target) else { continue };
            if matches!(column.what, What::Aligned(_)) {
                continue;
            }
            let row_bytes = target.len() / self.slots.len();
            for (seen, row) in self.slots.iter().zip(target.chunks_exact_mut(row_bytes)) {
                let found = seen.as_ref().and_then(|seen| seen.found.as_ref());
                let (values, width) = match (&column.what, found) {
                    (What::Features(_, width), Some(found)) => (found.features.as_slice(), *width),
                    (What::Level { at, shape, .. }, Some(found)) => {
                        (found.levels[*at].as_slice(), shape.last().copied().unwrap_or(1))
                    }
                    _ => (&[][..], 1),
                };
                row.fill(0);
                write_row(values, width, column.l2, column.dtype, row);
            }
        }
    }

    /// The tensors beside the vectors of `column` by name, as bytes of `[batch, ...]`.
    #[must_use]
    pub fn extras(&self, column: usize) -> Option<[(&'static str, Vec<u8>); 4]> {
        let count = self.model.regions(column)?;
        let names = extra_tensors(count).map(|(name, _)| name);
        let mut tensors =
            extra_tensors(count).map(|(_, shape)| vec![0.0f32; self.slots.len() * shape.iter().product::<usize>()]);
        for (slot, seen) in self.slots.iter().enumerate() {
            let Some(regions) = seen.as_ref().and_then(|seen| seen.regions(column)) else { continue };
            let [boxes, scores, labels, counts] = &mut tensors;
            for (at, b) in regions.boxes.iter().enumerate() {
                boxes[(slot * count + at) * 4..][..4].copy_from_slice(b);
                scores[slot * count + at] = regions.scores[at];
                labels[slot * count + at] = regions.labels[at] as f32;
            }
            counts[slot] = regions.count() as f32;
        }
        let mut names = names.into_iter();
        Some(tensors.map(|tensor| (names.next().unwrap_or_default(), bytemuck::cast_slice(&tensor).to_vec())))
    }

    /// How many regions each of the first `used` slots has in `column`, where it is one of regions.
    #[must_use]
    pub fn counts(&self, column: usize, used: usize) -> Option<Vec<usize>> {
        self.model.regions(column)?;
        let count =
            |seen: &Option<SeenPicture>| seen.as_ref().and_then(|seen| seen.regions(column)).map_or(0, Regions::count);
        Some(self.slots.iter().take(used).map(count).collect())
    }
}

impl SeenPicture {
    /// The regions of a column.
    fn regions(&self, column: usize) -> Option<&Regions> {
        let aligned = self.aligned.iter().find(|(at, ..)| *at == column).map(|(_, regions, _)| regions);
        aligned.or_else(|| self.found.as_ref().map(|found| &found.regions))
    }
}

/// Writes vectors of `width` numbers as `dtype` to the front of `row`, divided by their lengths where `l2`.
fn write_row(values: &[f32], width: usize, l2: bool, dtype: Dtype, row: &mut [u8]) {
    let element = if dtype == Dtype::I8 { Dtype::F32 } else { dtype }.size_bytes();
    let vectors = values.chunks_exact(width.max(1)).zip(row.chunks_exact_mut(width.max(1) * element));
    for (vector, row) in vectors {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
        let divisor = if l2 { length } else { 1.0 };
        for (value, out) in vector.iter().zip(row.chunks_exact_mut(element)) {
            let value = value / divisor;
            match dtype {
                // Rows for i8 are quantised where all of a row is there.
                Dtype::F32 | Dtype::I8 => out.copy_from_slice(&value.to_le_bytes()),
                Dtype::F16 => out.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                Dtype::Bf16 => out.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Resize;

    #[test]
    fn only_regions_that_the_crop_shows_are_kept() {
        let preprocess = Preprocess { resize: Resize::Shorter(50), crop: Some([50, 50]), ..Preprocess::default() };
        let regions = |boxes: &[Box4]| Regions {
            boxes: boxes.to_vec(),
            scores: (0..boxes.len()).map(|at| at as f32).collect(),
            labels: (0..boxes.len() as i32).collect(),
        };
        let (kept, boxes) =
            shown(regions(&[[0.0, 0.0, 40.0, 100.0], [80.0, 20.0, 120.0, 60.0]]), (100, 200), &preprocess);
        assert_eq!((kept.labels, boxes), (vec![1], vec![[15.0, 10.0, 35.0, 30.0]]));
        let (kept, boxes) = shown(regions(&[[0.0, 0.0, 40.0, 100.0]]), (100, 200), &preprocess);
        assert_eq!((kept, boxes), (Regions::whole((100, 200)), vec![[0.0, 0.0, 50.0, 50.0]]));
    }

    #[test]
    fn rows_are_cast_and_brought_to_length_one() {
        let mut row = [9; 10];
        write_row(&[3.0, 4.0, 0.0, 0.0], 2, true, Dtype::F16, &mut row);
        let numbers: Vec<f32> = row.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        assert!((numbers[0] - 0.6).abs() < 1e-3 && (numbers[1] - 0.8).abs() < 1e-3 && numbers[2..4] == [0.0, 0.0]);
        assert_eq!(row[8..], [9, 9], "the rest is the caller's");
        let mut row = [0; 4];
        write_row(&[2.0], 1, false, Dtype::I8, &mut row);
        assert_eq!(row, 2.0f32.to_le_bytes(), "quantised later");
    }
}
