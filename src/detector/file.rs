//! Boxes that somebody else found: COCO's instances, or a file of one picture a line.
//!
//! Must not know networks. Coordinates are pixels of the upright picture; where the file says how large the picture was, and the one at hand
//! is another size, the boxes are scaled with it: data sets are handed on shrunk, their annotations are not.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    DetectorError,
    boxes::{Box4, clip, is_large},
    policy::{Candidate, Regions},
};

/// Sides of a region in pixels.
const LEAST_SIDE: f32 = 1e-2;

/// The boxes of a file.
#[derive(Debug, Clone)]
pub struct BoxFile {
    digest: String,
    pictures: Vec<Picture>,
    /// By id and by file name.
    by_name: HashMap<String, u32>,
    max: usize,
    score: f32,
}

/// The boxes of one picture.
#[derive(Debug, Clone, Default, PartialEq)]
struct Picture {
    /// `(height, width)` that the coordinates are of, where the file says so.
    size: Option<(f32, f32)>,
    boxes: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Instances {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: Option<String>,
    width: Option<f32>,
    height: Option<f32>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    /// x, y, width, height
    bbox: [f32; 4],
    category_id: i32,
    #[serde(default)]
    iscrowd: u8,
    /// Results have one, annotations don't.
    score: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    boxes: Vec<Box4>,
    scores: Option<Vec<f32>>,
    labels: Option<Vec<i32>>,
    width: Option<f32>,
    height: Option<f32>,
}

impl BoxFile {
    /// Reads the file at `path`: lines where it is called `.jsonl`, else COCO's instances. Of each picture the `max` best boxes with a
    /// score above `score` are regions; boxes without a score have 1, and equal scores keep the file's order. Crowds are left out.
    ///
    /// # Errors
    /// [`DetectorError`] names the file, and the line where there is one.
    pub fn read(path: &Path, max: usize, score: f32) -> Result<Self, DetectorError> {
        let bytes = std::fs::read(path).map_err(|source| DetectorError::Read { path: path.to_owned(), source })?;
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let mut file = Self { digest, pictures: Vec::new(), by_name: HashMap::new(), max, score };
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            file.read_lines(path, &bytes)?;
        } else {
            file.read_instances(path, &bytes)?;
        }
        Ok(file)
    }

    /// Everything here that decides a column's bytes.
    #[must_use]
    pub fn key_fields(&self) -> Vec<(String, Value)> {
        let score = self.score.to_string().parse::<f64>().unwrap_or_default();
        [("file", json!(self.digest)), ("max", json!(self.max)), ("score", json!(score))]
            .map(|(name, value)| (format!("regions.{name}"), value))
            .to_vec()
    }

    /// Regions a picture at most.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// The number of the picture called `name` (an id or a file name).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The regions of the picture `number`, of `(height, width)`; the whole picture where the file has none for it.
    #[must_use]
    pub fn regions(&self, number: Option<u32>, size: (u32, u32)) -> Regions {
        let Some(picture) = number.and_then(|number| self.pictures.get(number as usize)) else {
            return Regions::whole(size);
        };
        let (y, x) = picture.size.map_or((1.0, 1.0), |(h, w)| (size.0 as f32 / h, size.1 as f32 / w));
        let here = |b: Box4| clip([b[0] * x, b[1] * y, b[2] * x, b[3] * y], size);
        let mut chosen: Vec<Candidate> =
            picture.boxes.iter().map(|candidate| Candidate { bbox: here(candidate.bbox), ..*candidate }).collect();
        chosen.retain(|candidate| candidate.score > self.score && is_large(candidate.bbox, LEAST_SIDE));
        chosen.sort_by(|a, b| b.score.total_cmp(&a.score));
        chosen.truncate(self.max);
        Regions::of(&chosen, size)
    }

    fn read_instances(&mut self, path: &Path, bytes: &[u8]) -> Result<(), DetectorError> {
        let not = |source| DetectorError::NotInstances { path: path.to_owned(), source };
        let file: Instances = serde_json::from_slice(bytes).map_err(not)?;
        for image in file.images {
            let index = self.pictures.len() as u32;
            let size = image.height.zip(image.width).filter(|(height, width)| *height > 0.0 && *width > 0.0);
            self.pictures.push(Picture { size, boxes: Vec::new() });
            let names = [Some(image.id.to_string()), image.file_name];
            for name in names.into_iter().flatten() {
                if self.by_name.insert(name.clone(), index).is_some_and(|other| other != index) {
                    return Err(DetectorError::Twice { path: path.to_owned(), name });
                }
            }
        }
        for annotation in file.annotations.iter().filter(|annotation| annotation.iscrowd == 0) {
            let Some(&index) = self.by_name.get(&annotation.image_id.to_string()) else { continue };
            let [x, y, width, height] = annotation.bbox;
            let bbox = [x, y, x + width, y + height];
            let score = annotation.score.unwrap_or(1.0);
            self.pictures[index as usize].boxes.push(Candidate {
                bbox,
                score,
                label: annotation.category_id,
                source: 0,
            });
        }
        Ok(())
    }

    fn read_lines(&mut self, path: &Path, bytes: &[u8]) -> Result<(), DetectorError> {
        for (number, text) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let at = number + 1;
            let bad = |source| DetectorError::Line { path: path.to_owned(), line: at, source };
            let line: Line = serde_json::from_slice(text).map_err(bad)?;
            let wrong = |what, value, hint| DetectorError::Value { path: path.to_owned(), line: at, what, value, hint };
            check(&line).map_err(|(what, value, hint)| wrong(what, value, hint))?;
            let index = self.pictures.len() as u32;
            if self.by_name.insert(line.id.clone(), index).is_some() {
                return Err(wrong("a second line for", line.id, "join the boxes of a picture in one line"));
            }
            self.pictures.push(line.into());
        }
        Ok(())
    }
}

/// What is wrong with a line, if anything: what, with which value, and the way out.
fn check(line: &Line) -> Result<(), (&'static str, String, &'static str)> {
    let counts = [line.scores.as_ref().map(Vec::len), line.labels.as_ref().map(Vec::len)];
    if let Some(count) = counts.into_iter().flatten().find(|count| *count != line.boxes.len()) {
        return Err((
            "a number of scores or labels that isn't that of the boxes,",
            count.to_string(),
            "one for each box",
        ));
    }
    let bad = |b: &&Box4| b.iter().any(|value| !value.is_finite()) || !is_large(**b, f32::MIN_POSITIVE);
    match line.boxes.iter().find(bad) {
        Some(b) => Err(("a box of no size,", format!("{b:?}"), "boxes are [x1, y1, x2, y2] with x1 < x2 and y1 < y2")),
        None => Ok(()),
    }
}

impl From<Line> for Picture {
    fn from(line: Line) -> Self {
        let score = |at: usize| line.scores.as_ref().map_or(1.0, |scores| scores[at]);
        let label = |at: usize| line.labels.as_ref().map_or(super::policy::NO_LABEL, |labels| labels[at]);
        let one = |(at, &bbox): (usize, &Box4)| Candidate { bbox, score: score(at), label: label(at), source: 0 };
        let boxes = line.boxes.iter().enumerate().map(one).collect();
        Self { size: line.height.zip(line.width).filter(|(height, width)| *height > 0.0 && *width > 0.0), boxes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<BoxFile, DetectorError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        BoxFile::read(&path, 2, 0.1)
    }

    /// The message without the temporary folder.
    fn message(name: &str, text: &str) -> String {
        let error = read(name, text).unwrap_err().to_string();
        let (before, after) = error.split_once('`').unwrap();
        let (path, rest) = after.split_once('`').unwrap();
        format!("{before}`{}`{rest}", Path::new(path).file_name().unwrap().to_string_lossy())
    }

    #[test]
    fn coco_instances_are_found_by_id_and_by_name() {
        let file = read(
            "instances.json",
            r#"{"images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
               "annotations": [{"image_id": 7, "bbox": [10, 5, 20, 10], "category_id": 18, "iscrowd": 0, "id": 1},
                               {"image_id": 7, "bbox": [0, 0, 90, 40], "category_id": 1, "iscrowd": 1},
                               {"image_id": 7, "bbox": [5, 5, 0, 10], "category_id": 3},
                               {"image_id": 8, "bbox": [0, 0, 1, 1], "category_id": 3}]}"#,
        )
        .unwrap();
        let regions = file.regions(file.find("7"), (50, 100));
        assert_eq!((regions.boxes.as_slice(), regions.labels[0]), ([[10.0, 5.0, 30.0, 15.0]].as_slice(), 18));
        assert_eq!(
            file.regions(file.find("a.jpg"), (25, 50)).boxes,
            [[5.0, 2.5, 15.0, 7.5]],
            "a copy of half the size"
        );
        assert_eq!(file.regions(file.find("b.jpg"), (25, 50)), Regions::whole((25, 50)));
    }

    #[test]
    fn lines_give_the_best_boxes_first() {
        let text = r#"{"id": "a", "boxes": [[0,0,1,1],[0,0,2,2],[0,0,3,3],[0,0,4,4]], "scores": [0.2, 0.9, 0.05, 0.9], "labels": [1,2,3,4]}

{"id": "b", "boxes": [[0,0,9,9]]}
"#;
        let file = read("boxes.jsonl", text).unwrap();
        let regions = file.regions(file.find("a"), (10, 10));
        assert_eq!((regions.labels, regions.scores), (vec![2, 4], vec![0.9, 0.9]));
        assert_eq!(file.regions(file.find("b"), (8, 8)).boxes, [[0.0, 0.0, 8.0, 8.0]]);
    }

    #[test]
    fn bad_files_are_told_with_their_place() {
        insta::assert_snapshot!(message("x.json", "[]"), @r"
        `x.json` is not COCO instances
        hint: an object with `images` and `annotations`; one picture a line is read from files called .jsonl
        ");
        insta::assert_snapshot!(message("x.jsonl", "{\"id\": 3}"), @r#"
        line 1 of `x.jsonl` can't be read
        hint: a line is {"id": "a.jpg", "boxes": [[x1, y1, x2, y2], ...], "scores": [...], "labels": [...]}, the last two as they like
        "#);
        insta::assert_snapshot!(message("x.jsonl", "{\"id\": \"a\", \"boxes\": [[1,2,1,3]]}"), @r"
        line 1 of `x.jsonl`: a box of no size, `[1.0, 2.0, 1.0, 3.0]`
        hint: boxes are [x1, y1, x2, y2] with x1 < x2 and y1 < y2
        ");
        insta::assert_snapshot!(message("x.jsonl", "\n{\"id\": \"a\", \"boxes\": [[1,2,2,3]], \"scores\": []}"), @r"
        line 2 of `x.jsonl`: a number of scores or labels that isn't that of the boxes, `0`
        hint: one for each box
        ");
        let twice = "{\"id\": \"a\", \"boxes\": []}\n{\"id\": \"a\", \"boxes\": []}";
        insta::assert_snapshot!(message("x.jsonl", twice), @r"
        line 2 of `x.jsonl`: a second line for `a`
        hint: join the boxes of a picture in one line
        ");
    }

    #[test]
    fn the_key_follows_the_file_and_the_policy() {
        let a = read("a.jsonl", "{\"id\": \"a\", \"boxes\": []}").unwrap();
        let b = read("a.jsonl", "{\"id\": \"b\", \"boxes\": []}").unwrap();
        assert_ne!(a.key_fields(), b.key_fields());
        assert_ne!(a.key_fields(), BoxFile { max: 3, ..a.clone() }.key_fields());
    }
}
