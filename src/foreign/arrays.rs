//! A folder of NumPy files, one a picture: `cocotalk_fc` and `cocotalk_att`, and bottom-up attention's `.npz`.
//!
//! The first pass reads every file once, on all cores: for the digest, and for the shape, which decides that of the rows.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use zip::ZipArchive;

use super::{FEATURES, ForeignError, Format, IDS, Row, Shape, Source, SourceOptions, files, ids, npy};
use crate::progress::Progress;

/// A folder of features, looked through.
#[derive(Debug)]
pub struct Arrays {
    format: Format,
    array: String,
    files: Vec<PathBuf>,
    names: Vec<String>,
    digest: String,
    /// A row of the embedding: `[D]`, `[K, D]` or `[h, w, D]`.
    row_shape: Vec<usize>,
    /// Whether pictures have different numbers of vectors, at most `row_shape[0]`.
    counted: bool,
}

/// What the first pass finds in a file.
struct Looked {
    digest: blake3::Hash,
    shape: Vec<u64>,
}

impl Arrays {
    /// Looks through the folder.
    ///
    /// # Errors
    /// [`ForeignError`], with the file.
    pub fn open(options: &SourceOptions, progress: &dyn Progress) -> Result<Self, ForeignError> {
        let extension = if options.format == Format::Npy { "npy" } else { "npz" };
        if options.format == Format::Npy && [FEATURES, IDS].iter().all(|name| options.from.join(name).is_file()) {
            return Err(ForeignError::Rows { folder: options.from.clone(), features: FEATURES, ids: IDS });
        }
        let files = files(&options.from, extension)?;
        if files.is_empty() {
            return Err(ForeignError::Nothing { path: options.from.clone(), extension });
        }
        let names: Vec<String> =
            files.iter().map(|file| file.file_stem().unwrap_or_default().to_string_lossy().into_owned()).collect();
        refuse_twice(&names, &files)?;
        let mut arrays = Self {
            format: options.format,
            array: match options.format {
                Format::Npz => options.array.clone(),
                Format::BottomUpNpz => "x".to_owned(),
                _ => "array".to_owned(),
            },
            files,
            names,
            digest: String::new(),
            row_shape: Vec::new(),
            counted: false,
        };
        progress.start("look through", Some(arrays.files.len() as u64));
        let look = |path: &PathBuf| {
            progress.advance(1);
            arrays.look(path)
        };
        let looked = arrays.files.par_iter().map(look).collect::<Result<Vec<_>, _>>()?;
        progress.finish();
        arrays.digest = digest(&arrays.names, &looked);
        (arrays.row_shape, arrays.counted) = arrays.shape_of_rows(&looked, options.vectors)?;
        Ok(arrays)
    }

    fn look(&self, path: &Path) -> Result<Looked, ForeignError> {
        let bytes = read(path)?;
        let digest = blake3::hash(&bytes);
        let shape = match self.format {
            Format::Npy => npy::read_shape(&bytes[..], bytes.len() as u64, &shown(path))?,
            Format::BottomUpNpz => Regions::read(path, bytes)?.shape(),
            _ => Archive::open(path, bytes)?
                .entry(&self.array, |entry, bytes, place| npy::read_shape(entry, bytes, place))?,
        };
        Ok(Looked { digest, shape })
    }

    /// The one shape of all rows, and whether it is larger than some pictures.
    fn shape_of_rows(&self, looked: &[Looked], room: Option<usize>) -> Result<(Vec<usize>, bool), ForeignError> {
        let first = &looked[0].shape;
        let rank = first.len();
        let variable = rank == 2;
        for (looked, file) in looked.iter().zip(&self.files) {
            let same =
                if variable { looked.shape.len() == 2 && looked.shape[1] == first[1] } else { looked.shape == *first };
            if !same || rank == 0 || first[usize::from(variable)..].contains(&0) {
                let expected = if variable { format!("[any, {}]", first[1]) } else { format!("{first:?}") };
                return Err(ForeignError::ArrayShape { place: shown(file), expected, found: looked.shape.clone() });
            }
        }
        let mut shape: Vec<usize> = first.iter().map(|side| *side as usize).collect();
        if !variable {
            return Ok((shape, false));
        }
        let vectors = |looked: &Looked| looked.shape[0] as usize;
        let most = looked.iter().map(vectors).max().unwrap_or(0);
        shape[0] = room.unwrap_or(most).max(1);
        if let Some((looked, file)) = looked.iter().zip(&self.files).find(|(looked, _)| vectors(looked) > shape[0]) {
            return Err(ForeignError::TooMany { place: shown(file), found: vectors(looked), vectors: shape[0] });
        }
        let counted = self.format == Format::BottomUpNpz || looked.iter().any(|looked| vectors(looked) != shape[0]);
        Ok((shape, counted))
    }
}

impl Source for Arrays {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn shapes(&self) -> Vec<Shape> {
        let mut shapes = vec![Shape::new("embedding", self.row_shape.clone())];
        if self.format == Format::BottomUpNpz {
            shapes.extend([
                Shape::new("boxes", [self.row_shape[0], 4]),
                Shape::new("count", [1]),
                Shape::new("size", [2]),
            ]);
        } else if self.counted {
            shapes.push(Shape::new("count", [1]));
        }
        shapes
    }

    fn read(&self, picture: usize, row: &mut Row) -> Result<(), ForeignError> {
        let path = &self.files[picture];
        let bytes = read(path)?;
        row.clear();
        if self.format == Format::BottomUpNpz {
            return Regions::read(path, bytes)?.fill(row, &self.place(picture));
        }
        let array = match self.format {
            Format::Npy => npy::read(&bytes[..], bytes.len() as u64, &shown(path))?,
            _ => {
                Archive::open(path, bytes)?.entry(&self.array, |entry, bytes, place| npy::read(entry, bytes, place))?
            }
        };
        if self.counted {
            row.tensors[1][0] = array.shape[0] as f32;
        }
        fill(row, 0, &array.values, &self.place(picture), &self.array)
    }

    fn place(&self, picture: usize) -> String {
        shown(&self.files[picture])
    }
}

fn fill(row: &mut Row, tensor: usize, values: &[f32], place: &str, field: &str) -> Result<(), ForeignError> {
    let not_finite = |at| ForeignError::NotFinite { place: place.to_owned(), field: field.to_owned(), at };
    row.fill(tensor, values.iter().copied()).map_err(not_finite)
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

fn read(path: &Path) -> Result<Vec<u8>, ForeignError> {
    std::fs::read(path).map_err(|source| ForeignError::Read { path: path.to_owned(), source })
}

/// Files whose names are one picture's, such as `7.npy` and `7.jpg.npy`.
fn refuse_twice(names: &[String], files: &[PathBuf]) -> Result<(), ForeignError> {
    let mut seen: HashMap<&str, &PathBuf> = HashMap::new();
    for (name, file) in names.iter().zip(files) {
        let stem = ids::stem(name);
        if let Some(first) = seen.insert(stem, file) {
            let (first, second) = (shown(first), shown(file));
            return Err(ForeignError::Twice { name: stem.to_owned(), first, second });
        }
    }
    Ok(())
}

/// BLAKE3 over the names and the files' digests, in order of name.
fn digest(names: &[String], looked: &[Looked]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, looked) in names.iter().zip(looked) {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(looked.digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// An `.npz`: a zip of `.npy`.
struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<Cursor<Vec<u8>>>,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path, bytes: Vec<u8>) -> Result<Self, ForeignError> {
        let unreadable = |source| ForeignError::Zip { path: path.to_owned(), source };
        Ok(Self { path, zip: ZipArchive::new(Cursor::new(bytes)).map_err(unreadable)? })
    }

    fn entry<T>(
        &mut self,
        array: &str,
        take: impl FnOnce(&mut dyn Read, u64, &str) -> Result<T, ForeignError>,
    ) -> Result<T, ForeignError> {
        let file = npyz::npz::file_name_from_array_name(array);
        let unreadable = |source| ForeignError::Zip { path: self.path.to_owned(), source };
        let Some(at) = self.zip.index_for_name(&file) else {
            let names = self.zip.file_names().filter_map(Result::ok);
            let found: Vec<String> =
                names.filter_map(|name| Some(format!("`{}`", name.strip_suffix(".npy")?))).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            return Err(ForeignError::NoArray { path: self.path.to_owned(), array: array.to_owned(), found });
        };
        let mut entry = self.zip.by_index(at).map_err(unreadable)?;
        let bytes = entry.size();
        take(&mut entry, bytes, &format!("array `{array}` of `{}`", self.path.display()))
    }

    fn array(&mut self, array: &str) -> Result<npy::Array, ForeignError> {
        self.entry(array, |entry, bytes, place| npy::read(entry, bytes, place))
    }
}

/// What a bottom-up `.npz` holds, with the vectors as rows: some extractors save `x` as `[D, n]`.
struct Regions {
    x: npy::Array,
    boxes: npy::Array,
    count: usize,
    /// Width and height of the picture.
    size: [f32; 2],
}

impl Regions {
    fn read(path: &Path, bytes: Vec<u8>) -> Result<Self, ForeignError> {
        let mut archive = Archive::open(path, bytes)?;
        let boxes = archive.array("bbox")?;
        let first = |array: npy::Array| array.values.first().copied().unwrap_or(f32::NAN);
        let size = [first(archive.array("image_w")?), first(archive.array("image_h")?)];
        let number = first(archive.array("num_bbox")?);
        let mut x = archive.array("x")?;
        let count = boxes.shape.first().map_or(0, |count| *count as usize);
        let agreed = boxes.shape == [count as u64, 4] && number as usize == count;
        match x.shape[..] {
            [n, _] if agreed && n as usize == count => {}
            [width, n] if agreed && n as usize == count => x = turned(&x, width as usize, count),
            _ => {
                let (place, x, bbox) = (shown(path), x.shape, boxes.shape);
                return Err(ForeignError::Regions { place, x, bbox, num_bbox: number });
            }
        }
        Ok(Self { x, boxes, count, size })
    }

    fn shape(&self) -> Vec<u64> {
        self.x.shape.clone()
    }

    fn fill(&self, row: &mut Row, place: &str) -> Result<(), ForeignError> {
        fill(row, 0, &self.x.values, place, "x")?;
        fill(row, 1, &self.boxes.values, place, "bbox")?;
        row.tensors[2][0] = self.count as f32;
        fill(row, 3, &self.size, place, "image_w, image_h")
    }
}

/// `[D, n]` as `[n, D]`.
fn turned(x: &npy::Array, width: usize, count: usize) -> npy::Array {
    let values = (0..count).flat_map(|vector| (0..width).map(move |at| (vector, at)));
    let values = values.map(|(vector, at)| x.values[at * count + vector]).collect();
    npy::Array { shape: vec![count as u64, width as u64], values }
}
