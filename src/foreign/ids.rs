//! Which row a picture is, by its name: people name one COCO picture in five ways.
//!
//! A name is matched, in this order, (1) by the whole id, (2) by its *stem*: without folders and without image and NumPy extensions,
//! (3) by COCO's number: a stem that is all digits, or `COCO_<split><year>_<digits>`, means the number without leading zeros, on
//! both sides. So `COCO_train2014_000000132417.jpg.npz`, `000000132417.npy` and the row `132417` are one picture, and Flickr's
//! `1000268201_693b08cb0e.jpg` has no number. The first rule under which a row is found decides; two rows under it are an error.

use std::collections::HashMap;

use super::ForeignError;

/// Extensions that are no part of a picture's name.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "npy", "npz", "tif"];

/// Finds rows by the names that others give to pictures.
#[derive(Debug, Default)]
pub struct Matcher {
    ids: Vec<String>,
    by_id: HashMap<String, u32>,
    by_stem: HashMap<String, Found>,
    by_number: HashMap<u64, Found>,
}

#[derive(Debug, Clone, Copy)]
enum Found {
    One(u32),
    Several(u32, u32),
}

impl Matcher {
    /// A matcher for the rows with these ids.
    pub fn new(ids: impl IntoIterator<Item = String>) -> Self {
        let mut matcher = Self::default();
        for (row, id) in (0..).zip(ids) {
            enter(&mut matcher.by_stem, stem(&id).to_owned(), row);
            if let Some(number) = number(&id) {
                enter(&mut matcher.by_number, number, row);
            }
            matcher.by_id.insert(id.clone(), row);
            matcher.ids.push(id);
        }
        matcher
    }

    /// The row that `name` means.
    ///
    /// # Errors
    /// [`ForeignError::Ambiguous`] where it could be several.
    pub fn find(&self, name: &str) -> Result<Option<u32>, ForeignError> {
        if let Some(row) = self.by_id.get(name) {
            return Ok(Some(*row));
        }
        let found = self.by_stem.get(stem(name)).or_else(|| self.by_number.get(&number(name)?));
        match found {
            None => Ok(None),
            Some(Found::One(row)) => Ok(Some(*row)),
            Some(Found::Several(first, second)) => {
                let id = |row: &u32| self.ids[*row as usize].clone();
                Err(ForeignError::Ambiguous { name: name.to_owned(), first: id(first), second: id(second) })
            }
        }
    }
}

fn enter<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Found>, key: K, row: u32) {
    map.entry(key)
        .and_modify(|found| {
            if let Found::One(first) = *found {
                *found = Found::Several(first, row);
            }
        })
        .or_insert(Found::One(row));
}

/// The name without folders and extensions.
pub(super) fn stem(name: &str) -> &str {
    let mut stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
    while let Some((rest, extension)) = stem.rsplit_once('.') {
        if rest.is_empty() || !EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
            break;
        }
        stem = rest;
    }
    stem
}

/// COCO's number of a picture, where its name is one.
fn number(name: &str) -> Option<u64> {
    let stem = stem(name);
    let digits = match stem.strip_prefix("COCO_") {
        None => stem,
        Some(rest) => {
            let (split, digits) = rest.split_once('_')?;
            let year = split.trim_start_matches(|c: char| c.is_ascii_lowercase());
            (year.len() == 4 && year.len() < split.len() && year.bytes().all(|b| b.is_ascii_digit()))
                .then_some(digits)?
        }
    };
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(ids: &[&str]) -> Matcher {
        Matcher::new(ids.iter().map(ToString::to_string))
    }

    #[test]
    fn one_picture_of_coco_in_five_ways() {
        let rows = matcher(&["9", "132417", "0132417x"]);
        for name in [
            "132417",
            "000000132417",
            "000000132417.npy",
            "COCO_train2014_000000132417",
            "COCO_train2014_000000132417.jpg.npz",
            "train2014/COCO_train2014_000000132417.JPG",
        ] {
            assert_eq!(rows.find(name).unwrap(), Some(1), "{name}");
        }
        for name in ["COCO_train_132417", "COCO_2014_132417", "COCO_train2014_", "x132417", "132417_1", "", "."] {
            assert_eq!(rows.find(name).unwrap(), None, "{name}");
        }
        let named = matcher(&["COCO_val2014_000000000042.jpg"]);
        assert_eq!(named.find("42").unwrap(), Some(0));
    }

    #[test]
    fn flickr_is_matched_by_its_stem() {
        let rows = matcher(&["1000268201_693b08cb0e.jpg", "a.b.png"]);
        assert_eq!(rows.find("1000268201_693b08cb0e").unwrap(), Some(0));
        assert_eq!(rows.find("features/1000268201_693b08cb0e.npz").unwrap(), Some(0));
        assert_eq!(rows.find("1000268201").unwrap(), None);
        assert_eq!(rows.find("a.b").unwrap(), Some(1));
    }

    #[test]
    fn the_nearest_rule_decides_and_two_rows_under_it_are_an_error() {
        let rows = matcher(&["train/7.jpg", "val/7.jpg", "7", "007.png"]);
        assert_eq!(rows.find("val/7.jpg").unwrap(), Some(1));
        assert_eq!(rows.find("007.npy").unwrap(), Some(3));
        insta::assert_snapshot!(rows.find("test/7.jpg").unwrap_err(), @r"
        `test/7.jpg` could be row `train/7.jpg` or row `val/7.jpg`
        hint: pictures are matched by id, then by file name without folder and extension, then by COCO's number; here that is ambiguous
        ");
        assert!(rows.find("0007").is_err(), "four rows have the number 7");
    }
}
