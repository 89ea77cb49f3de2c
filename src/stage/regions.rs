//! What a recipe's columns want of regions: the detector, the files of boxes, the shapes and keys of such columns.
//!
//! It must not know shards, sessions or pixels. A row of regions has its vectors `[K, D]`, and beside them `boxes [K, 4]` in pixels of the
//! original, `scores [K]`, `labels [K]` and `count [1]`; what is behind the count is zero. One decision defended: every column of the detector is
//! filled by the one look that it takes at a picture, and a recipe has one detector; two detectors are two recipes on one cache.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use icecap_cache::{Dtype, Rows};
use serde_json::{Value, json};

use super::prepare::SecondInput;
use crate::{
    detector::{BOX_FEATURES, BoxFile, Detector, DetectorError, LEVELS, Look, Policy, Wanted},
    encoder::Pool,
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

/// One picture's boxes that would be two pictures'.
#[derive(Debug, thiserror::Error)]
#[error(
    "the boxes of `{name}` in `{}` would be those of two pictures, `{one}` and `{other}`, whose files have that name\nhint: name the pictures in it \
     by the ids of the data set, such as `{one}`", path.display()
)]
pub struct AmbiguousBoxes {
    path: PathBuf,
    name: String,
    one: String,
    other: String,
}

/// What a recipe's columns want of regions.
pub struct RegionModel {
    /// The detector, and its file.
    pub(super) detector: Option<(Detector, PathBuf)>,
    pub(super) files: Vec<FileSource>,
    /// By the recipe's columns.
    pub(super) columns: Vec<Option<RegionColumn>>,
}

pub(super) struct FileSource {
    path: PathBuf,
    pub boxes: BoxFile,
    /// By row: the picture's number in the file.
    pub pictures: Vec<Option<u32>>,
}

impl FileSource {
    /// For each row its picture in the file: by its id, else by its file's name where no other row has that.
    fn find(&self, rows: &Rows) -> Result<Vec<Option<u32>>, AmbiguousBoxes> {
        let mut named: HashMap<u32, u32> = HashMap::new(); // the picture, and the row that its file name gave it
        let mut found = Vec::with_capacity(rows.len() as usize);
        for row in 0..rows.len() {
            let record = rows.get(row);
            let by_id = self.boxes.find(&record.id);
            let name = record.source.rsplit('/').next().unwrap_or_default();
            let by_name = || self.boxes.find(name).filter(|_| !rows.is_gone(row));
            let picture = by_id.or_else(by_name);
            if let (None, Some(picture)) = (by_id, picture)
                && let Some(one) = named.insert(picture, row)
            {
                let (path, name, one) = (self.path.clone(), name.to_owned(), rows.id(one).to_string());
                return Err(AmbiguousBoxes { path, name, one, other: record.id });
            }
            found.push(picture);
        }
        Ok(found)
    }
}

/// Where regions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Detector,
    /// A position in [`RegionModel::files`].
    File(usize),
}

/// A column that has to do with regions or the detector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RegionColumn {
    pub source: Source,
    pub what: What,
    pub dtype: Dtype,
    pub l2: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
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
    /// [`ForeignBoxes`] where none is, [`AmbiguousBoxes`] where a file's name doesn't tell two pictures apart.
    pub fn find_rows(&mut self, rows: &Rows) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for file in &mut self.files {
            file.pictures = file.find(rows)?;
            let absent = file.pictures.iter().filter(|picture| picture.is_none()).count();
            if absent == file.pictures.len() && absent > 0 {
                let (path, rows, example) = (file.path.clone(), rows.len(), rows.id(0));
                return Err(ForeignBoxes { path, rows, example }.into());
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
