//! Bottom-up attention's TSV: a line a picture, its boxes and features in base64.
//!
//! Two kinds are around. Anderson's has `image_id, image_w, image_h, num_boxes, boxes, features`; that of LXMERT's extractor `img_id,
//! img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf, num_boxes, boxes, features`, the height first. The number of fields tells which.
//! `boxes` are f32 `[n, 4]` (x1, y1, x2, y2 in pixels), `features` f32 `[n, D]`, ids i64 `[n]`, confidences f32 `[n]`.

mod reading;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{ForeignError, Row, Shape, Source};
use crate::progress::Progress;
use reading::{Reading, decoded_bytes, fields, text, trimmed, whole};

/// A line, found by the first pass.
#[derive(Debug, Clone, Copy)]
struct Line {
    offset: u64,
    bytes: usize,
    number: usize,
}

/// Where the fields of a line are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Anderson,
    Lxmert,
}

impl Kind {
    fn of(fields: usize) -> Option<Self> {
        match fields {
            6 => Some(Self::Anderson),
            10 => Some(Self::Lxmert),
            _ => None,
        }
    }

    /// Places of width, height, number of boxes; boxes and features follow that.
    fn places(self) -> [usize; 3] {
        match self {
            Self::Anderson => [1, 2, 3],
            Self::Lxmert => [2, 1, 7],
        }
    }
}

/// A file of features, looked through.
#[derive(Debug)]
pub struct Tsv {
    path: PathBuf,
    file: File,
    names: Vec<String>,
    lines: Vec<Line>,
    digest: String,
    kind: Kind,
    /// `K`, vectors a row.
    vectors: usize,
    /// `D`, numbers a vector.
    width: usize,
}

/// What the first pass reads of a line.
struct Head {
    name: String,
    kind: Kind,
    boxes: usize,
    /// `None` where the picture has no box.
    width: Option<usize>,
}

impl Tsv {
    /// Looks through `path`. `vectors` is the room of a row; else it is that of the picture with the most boxes.
    ///
    /// # Errors
    /// [`ForeignError`], with the line.
    pub fn open(path: &Path, vectors: Option<usize>, progress: &dyn Progress) -> Result<Self, ForeignError> {
        let unreadable = |source| ForeignError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        progress.start("look through", file.metadata().ok().map(|metadata| metadata.len()));
        let mut survey = Survey::new(path, vectors);
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
            if bytes == 0 {
                break;
            }
            survey.take(&line)?;
            progress.advance(bytes as u64);
        }
        progress.finish();
        survey.finish(file)
    }
}

struct Survey {
    path: PathBuf,
    hasher: blake3::Hasher,
    offset: u64,
    number: usize,
    names: Vec<String>,
    lines: Vec<Line>,
    seen: HashMap<String, usize>,
    kind: Option<Kind>,
    width: Option<usize>,
    most: usize,
    vectors: Option<usize>,
}

impl Survey {
    fn new(path: &Path, vectors: Option<usize>) -> Self {
        Self {
            path: path.to_owned(),
            hasher: blake3::Hasher::new(),
            offset: 0,
            number: 0,
            names: Vec::new(),
            lines: Vec::new(),
            seen: HashMap::new(),
            kind: None,
            width: None,
            most: 0,
            vectors,
        }
    }

    fn take(&mut self, text: &[u8]) -> Result<(), ForeignError> {
        self.hasher.update(text);
        self.number += 1;
        let line = Line { offset: self.offset, bytes: text.len(), number: self.number };
        self.offset += text.len() as u64;
        if trimmed(text).is_empty() {
            return Ok(());
        }
        let place = place(&self.path, self.number);
        let head = head(text, &place)?;
        if *self.kind.get_or_insert(head.kind) != head.kind {
            let found = fields(text).len();
            return Err(ForeignError::Fields { place, found });
        }
        if let Some(width) = head.width {
            let expected = *self.width.get_or_insert(width);
            if expected != width {
                let (boxes, found) = (head.boxes, 4 * head.boxes * width);
                let expected = (4 * boxes * expected).to_string();
                return Err(ForeignError::Bytes { place, field: "features", boxes, expected, found });
            }
        }
        if let Some(vectors) = self.vectors.filter(|vectors| *vectors < head.boxes) {
            return Err(ForeignError::TooMany { place, found: head.boxes, vectors });
        }
        if let Some(first) = self.seen.insert(head.name.clone(), self.number) {
            let (first, second) = (format!("line {first}"), place);
            return Err(ForeignError::Twice { name: head.name, first, second });
        }
        self.most = self.most.max(head.boxes);
        self.names.push(head.name);
        self.lines.push(line);
        Ok(())
    }

    fn finish(self, file: File) -> Result<Tsv, ForeignError> {
        let (Some(kind), Some(width)) = (self.kind, self.width) else {
            return Err(ForeignError::Empty { path: self.path });
        };
        Ok(Tsv {
            path: self.path,
            file,
            names: self.names,
            lines: self.lines,
            digest: self.hasher.finalize().to_hex().to_string(),
            kind,
            vectors: self.vectors.unwrap_or(self.most),
            width,
        })
    }
}

fn place(path: &Path, line: usize) -> String {
    format!("line {line} of `{}`", path.display())
}

fn head(line: &[u8], place: &str) -> Result<Head, ForeignError> {
    let fields = fields(line);
    let found = fields.len();
    let kind = Kind::of(found).ok_or_else(|| ForeignError::Fields { place: place.to_owned(), found })?;
    let at = kind.places()[2];
    let boxes = whole(fields[at], "number of boxes", place)?;
    let sized = |field: &'static str, expected: String, found: usize| {
        Err(ForeignError::Bytes { place: place.to_owned(), field, boxes, expected, found })
    };
    let bytes = decoded_bytes(fields[at + 1]);
    if bytes != boxes.saturating_mul(16) {
        return sized("boxes", boxes.saturating_mul(16).to_string(), bytes);
    }
    let bytes = decoded_bytes(fields[at + 2]);
    let vector = boxes.saturating_mul(4);
    let width = bytes.checked_div(vector);
    if bytes != width.unwrap_or(0) * vector || width == Some(0) {
        return sized("features", format!("a multiple of {vector}"), bytes);
    }
    Ok(Head { name: text(fields[0]), kind, boxes, width })
}

impl Source for Tsv {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn shapes(&self) -> Vec<Shape> {
        let vectors = self.vectors;
        let mut shapes = vec![
            Shape::new("embedding", [vectors, self.width]),
            Shape::new("boxes", [vectors, 4]),
            Shape::new("count", [1]),
            Shape::new("size", [2]),
        ];
        if self.kind == Kind::Lxmert {
            let more = ["labels", "scores", "attributes", "attribute_scores"];
            shapes.extend(more.map(|name| Shape::new(name, [vectors])));
        }
        shapes
    }

    fn read(&self, picture: usize, row: &mut Row) -> Result<(), ForeignError> {
        let line = self.lines[picture];
        let mut text = vec![0; line.bytes];
        let read = self.file.read_exact_at(&mut text, line.offset);
        read.map_err(|source| ForeignError::Read { path: self.path.clone(), source })?;
        let reading = Reading { place: self.place(picture), fields: fields(&text) };
        let [width, height, boxes] = self.kind.places();
        let count = whole(reading.fields[boxes], "number of boxes", &reading.place)?;
        row.clear();
        reading.floats(row, 0, boxes + 2, "features", count * self.width)?;
        reading.floats(row, 1, boxes + 1, "boxes", count * 4)?;
        row.tensors[2][0] = count as f32;
        for (at, (field, name)) in [(width, "width"), (height, "height")].into_iter().enumerate() {
            row.tensors[3][at] = whole(reading.fields[field], name, &reading.place)? as f32;
        }
        if self.kind == Kind::Lxmert {
            reading.integers(row, 4, 3, "objects_id", count)?;
            reading.floats(row, 5, 4, "objects_conf", count)?;
            reading.integers(row, 6, 5, "attrs_id", count)?;
            reading.floats(row, 7, 6, "attrs_conf", count)?;
        }
        Ok(())
    }

    fn place(&self, picture: usize) -> String {
        place(&self.path, self.lines[picture].number)
    }
}
