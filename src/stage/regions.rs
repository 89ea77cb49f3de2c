//! Regions of the pictures of a batch: found by the detector or read from a file, carried over to the encoder's input, written beside
//! the vectors.
//!
//! It must not know shards or how pictures are decoded. A row of regions has its vectors `[K, D]`, and beside them `boxes [K, 4]` in pixels of
//! the original, `scores [K]`, `labels [K]` and `count [1]`; what is behind the count is zero. One decision defended: a region that the
//! encoder's crop doesn't show is no region of that column. Its vector would be that of some place at the border.

use std::path::{Path, PathBuf};

use anyhow::Result;
use half::{bf16, f16};
use icecap_cache::{Dtype, Rows};
use serde_json::{Value, json};

use super::{
    embed::Embedding,
    prepare::{Second, SecondInput},
};
use crate::{
    detector::{BOX_FEATURES, Box4, BoxFile, Detector, DetectorError, DetectorSession, Found, LEVELS, Look, Policy, Regions, Wanted},
    encoder::{Device, Pool},
    image::{IMPLEMENTATION, Picture, Preprocess},
    recipe::{ColumnSpec, DetectorSpec, Origin, RegionsSpec},
};

/// The tensors of a row of regions beside its vectors, and their shapes for K regions.
#[must_use]
pub fn extra_tensors(count: usize) -> [(&'static str, Vec<usize>); 4] {
    [("boxes", vec![count, 4]), ("scores", vec![count]), ("labels", vec![count]), ("count", vec![1])]
}

/// None of a file's boxes are of the data set's pictures.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` has boxes of none of the data set's {rows} pictures, whose names are such as `{example}`\nhint: the ids or file names in it must be \
     those of the data set", path.display()
)]
pub struct ForeignBoxes {
    path: PathBuf,
    rows: u32,
    example: String,
}

/// What a recipe's columns want of regions.
pub struct RegionModel {
    /// The detector, and its file.
    detector: Option<(Detector, PathBuf)>,
    files: Vec<FileSource>,
    /// By the recipe's columns.
    columns: Vec<Option<RegionColumn>>,
}

struct FileSource {
    path: PathBuf,
    boxes: BoxFile,
    /// By row: the picture's number in the file.
    pictures: Vec<Option<u32>>,
}

/// Where regions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Detector,
    /// A position in [`RegionModel::files`].
    File(usize),
}

/// A column that has to do with regions or the detector.
#[derive(Debug, Clone, PartialEq)]
struct RegionColumn {
    source: Source,
    what: What,
    dtype: Dtype,
    l2: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    /// The encoder's map, pooled in up to K regions.
    Aligned(usize),
    /// The detector's own features of up to K regions, and their width.
    Features(usize, usize),
    /// The level wanted as number `at` of all, `[K*K, C]`.
    Level { at: usize, level: usize, pool: Pool, shape: Vec<usize> },
}

impl RegionModel {
    /// What `columns` want; `detector` is the section with the detector's file.
    ///
    /// # Errors
    /// Where the detector's file or a file of boxes can't be used.
    pub fn open(
        columns: &[ColumnSpec],
        detector: Option<(&DetectorSpec, &Path)>,
        batch: usize,
        data: &Path,
    ) -> Result<Self> {
        let needed = columns.iter().any(ColumnSpec::needs_detector);
        let detector = match detector.filter(|_| needed) {
            Some((spec, path)) => {
                let found = Detector::open(spec.resolve(path, batch), wanted(columns))?;
                Some((found, path.to_owned()))
            }
            None => None,
        };
        let mut model = Self { detector, files: Vec::new(), columns: Vec::new() };
        let mut level = 0;
        for spec in columns {
            let column = model.column(spec, &mut level, data)?;
            model.columns.push(column);
        }
        Ok(model)
    }

    fn column(&mut self, spec: &ColumnSpec, levels: &mut usize, data: &Path) -> Result<Option<RegionColumn>> {
        let policy = self.detector.as_ref().map_or(0, |(detector, _)| detector.policy().max);
        let (source, what) = match (spec.from, &spec.regions) {
            (Origin::Encoder, None) => return Ok(None),
            (Origin::Encoder, Some(RegionsSpec::Detector(_))) => (Source::Detector, What::Aligned(policy)),
            (Origin::Encoder, Some(RegionsSpec::File(file))) => {
                let path = data.join(&file.file);
                let boxes = BoxFile::read(&path, file.max, file.score)?;
                self.files.push(FileSource { path, boxes, pictures: Vec::new() });
                (Source::File(self.files.len() - 1), What::Aligned(file.max))
            }
            (Origin::Detector, _) if spec.taps_only(BOX_FEATURES) => {
                let width = self.of_detector(spec, Detector::feature_width)?;
                (Source::Detector, What::Features(policy, width))
            }
            (Origin::Detector, _) => {
                let channels = self.of_detector(spec, Detector::channels)?;
                let level = LEVELS.iter().position(|level| spec.taps_only(level)).unwrap_or_default();
                let shape = match spec.pool {
                    Pool::Grid(k) => vec![(k * k) as usize, channels],
                    _ => vec![channels],
                };
                *levels += 1;
                (Source::Detector, What::Level { at: *levels - 1, level, pool: spec.pool, shape })
            }
        };
        Ok(Some(RegionColumn { source, what, dtype: spec.dtype, l2: spec.l2 }))
    }

    fn of_detector(
        &self,
        spec: &ColumnSpec,
        width: impl Fn(&Detector) -> Option<usize>,
    ) -> Result<usize, DetectorError> {
        let (detector, path) = match &self.detector {
            Some((detector, path)) => (Some(detector), path.clone()),
            None => (None, PathBuf::new()),
        };
        detector.and_then(width).ok_or(DetectorError::NoFeatures { path, tensor: spec.tap.clone().unwrap_or_default() })
    }

    /// The detector's file.
    #[must_use]
    pub fn detector_path(&self) -> Option<&Path> {
        self.detector.as_ref().map(|(_, path)| path.as_path())
    }

    /// A file of boxes that a column needs: new pictures are in none.
    #[must_use]
    pub fn box_file(&self) -> Option<&Path> {
        self.files.first().map(|file| file.path.as_path())
    }

    /// Vectors of a row of the encoder's column `column`, where it is one of regions.
    #[must_use]
    pub fn aligned(&self, column: usize) -> Option<usize> {
        match self.columns[column].as_ref()?.what {
            What::Aligned(count) => Some(count),
            _ => None,
        }
    }

    /// The shape of a row of the detector's column `column`.
    #[must_use]
    pub fn detector_shape(&self, column: usize) -> Option<Vec<usize>> {
        match &self.columns[column].as_ref()?.what {
            What::Aligned(_) => None,
            What::Features(count, width) => Some(vec![*count, *width]),
            What::Level { shape, .. } => Some(shape.clone()),
        }
    }

    /// Regions of a row of `column`, where it has any: the K of its extra tensors.
    #[must_use]
    pub fn regions(&self, column: usize) -> Option<usize> {
        match self.columns[column].as_ref()?.what {
            What::Aligned(count) | What::Features(count, _) => Some(count),
            What::Level { .. } => None,
        }
    }

    /// Everything that regions and the detector add to the key of `column`; all of it for a column of the detector.
    #[must_use]
    pub fn key_fields(&self, column: usize, preprocess: &Preprocess) -> Vec<(String, Value)> {
        let Some(column) = &self.columns[column] else { return Vec::new() };
        let mut fields = match (column.source, &self.detector) {
            (Source::Detector, Some((detector, _))) => {
                let mut fields = detector.key_fields();
                if !matches!(column.what, What::Level { .. }) {
                    fields.extend(Policy::key_fields(detector.policy(), "regions"));
                }
                fields
            }
            (Source::File(file), _) => self.files[file].boxes.key_fields(),
            (Source::Detector, None) => Vec::new(),
        };
        let mut own = |name: &str, value: Value| fields.push((name.to_owned(), value));
        let (tensor, pool) = match &column.what {
            What::Aligned(_) => return fields,
            What::Features(..) => (BOX_FEATURES, Pool::None),
            What::Level { level, pool, .. } => (LEVELS[*level], *pool),
        };
        own("detector.tensor", json!(tensor));
        own("detector.pool", json!(pool));
        own("detector.l2", json!(column.l2));
        own("detector.dtype", json!(column.dtype));
        own("image.implementation", json!(IMPLEMENTATION));
        own("image.max_pixels", json!(preprocess.max_pixels));
        fields
    }

    /// Finds the cache's rows in the files of boxes; says how many aren't there.
    ///
    /// # Errors
    /// [`ForeignBoxes`] where none is.
    pub fn find_rows(&mut self, rows: &Rows) -> Result<Vec<String>, ForeignBoxes> {
        let mut notes = Vec::new();
        for file in &mut self.files {
            let find = |row: u32| {
                let record = rows.get(row);
                let name = record.source.rsplit('/').next().unwrap_or_default();
                file.boxes.find(&record.id).or_else(|| file.boxes.find(name))
            };
            file.pictures = (0..rows.len()).map(find).collect();
            let absent = file.pictures.iter().filter(|picture| picture.is_none()).count();
            if absent == file.pictures.len() && absent > 0 {
                let (path, rows, example) = (file.path.clone(), rows.len(), rows.id(0));
                return Err(ForeignBoxes { path, rows, example });
            }
            if absent > 0 {
                notes.push(format!(
                    "{absent} of {} pictures have no boxes in `{}`: the whole picture is their region",
                    file.pictures.len(),
                    file.path.display()
                ));
            }
        }
        Ok(notes)
    }

    /// Whether any of `columns` (positions) needs the detector.
    pub fn wants_look(&self, columns: impl Fn(usize) -> bool) -> bool {
        let detected = |column: &RegionColumn| column.source == Source::Detector;
        self.columns.iter().enumerate().any(|(at, column)| column.as_ref().is_some_and(detected) && columns(at))
    }

    /// What to take from each decoded picture for `columns` (positions); nothing where none of them has to do with regions.
    pub(super) fn looker(&self, columns: impl Fn(usize) -> bool) -> Option<Looker<'_>> {
        let any = (0..self.columns.len()).any(|at| self.columns[at].is_some() && columns(at));
        let detector = self.detector.as_ref().map(|(detector, _)| detector).filter(|_| self.wants_look(columns));
        any.then_some(Looker(detector))
    }

    /// Whether no column has to do with regions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.iter().all(Option::is_none)
    }
}

/// What the columns ask the detector for.
fn wanted(columns: &[ColumnSpec]) -> Wanted {
    let mut wanted = Wanted::default();
    for column in columns.iter().filter(|column| column.needs_detector()) {
        match LEVELS.iter().position(|level| column.taps_only(level)) {
            Some(level) if column.from == Origin::Detector => wanted.levels.push((level, column.pool)),
            _ => wanted.regions = true,
        }
    }
    wanted
}

/// Takes from each decoded picture what its regions need.
pub(super) struct Looker<'m>(Option<&'m Detector>);

impl SecondInput for Looker<'_> {
    fn of(&self, picture: &Picture<'_>) -> Option<Look> {
        let detector = self.0?;
        Some(detector.look(crate::detector::Picture { size: picture.size(), pixels: picture.pixels() }))
    }
}

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

    fn align(
        &self,
        row: Option<u32>,
        size: (u32, u32),
        found: Option<&Found>,
    ) -> Vec<(usize, Regions, Vec<Box4>)> {
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
        let mut tensors = extra_tensors(count).map(|(_, shape)| {
            vec![0.0f32; self.slots.len() * shape.iter().product::<usize>()]
        });
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
    pub fn counts(&self, column: usize, used: usize) -> Option<Vec<u32>> {
        self.model.regions(column)?;
        let count = |seen: &Option<SeenPicture>| {
            seen.as_ref().and_then(|seen| seen.regions(column)).map_or(0, |regions| regions.count() as u32)
        };
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
