//! One line of `rows.jsonl`, as written and as read.
//!
//! Borrows from the mapped file where the text has no escapes, because opening parses every line.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::RowRecord;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A line. The order of the members is the order in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    pub split: Cow<'a, str>,
    pub captions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_ns: Option<u64>,
    /// The data set of the last sync did not hold the image.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
}

impl<'a> Line<'a> {
    pub(super) fn new(record: &'a RowRecord) -> Self {
        Self {
            id: Cow::Borrowed(&record.id),
            source: Cow::Borrowed(&record.source),
            split: Cow::Borrowed(&record.split),
            captions: record.captions.clone(),
            content: record.content.clone(),
            bytes: record.bytes,
            modified_ns: record.modified_ns,
            gone: false,
        }
    }

    pub(super) fn into_record(self) -> RowRecord {
        RowRecord {
            id: self.id.into_owned(),
            source: self.source.into_owned(),
            split: self.split.into_owned(),
            captions: self.captions,
            content: self.content,
            bytes: self.bytes,
            modified_ns: self.modified_ns,
        }
    }

    /// Whether the record describes the same file as far as can be told without reading it.
    pub(super) fn is_same_file(&self, record: &RowRecord) -> bool {
        self.source == record.source && self.bytes == record.bytes && self.modified_ns == record.modified_ns
    }

    /// In what the line describes another image, or the same one otherwise.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        fn known<T: PartialEq>(one: Option<&T>, two: Option<&T>) -> bool {
            one.zip(two).is_none_or(|(one, two)| one == two)
        }
        let same = [
            ("id", self.id == other.id),
            ("source", self.source == other.source),
            ("split", self.split == other.split && self.gone == other.gone),
            ("captions", self.captions == other.captions),
            ("size", known(self.bytes.as_ref(), other.bytes.as_ref())),
            ("content hash", known(self.content.as_ref(), other.content.as_ref())),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }

    /// Appends the line, with its end.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("a row is plain JSON");
        out.push(b'\n');
    }
}

/// Whether a line's id is `id`. Parses only lines that do not start as this crate writes them.
pub(super) fn has_id(line: &[u8], id: &str) -> bool {
    let plain = || {
        let rest = line.strip_prefix(b"{\"id\":\"")?.strip_prefix(id.as_bytes())?;
        Some(rest.starts_with(b"\",") && !id.contains(['\\', '"']))
    };
    plain() == Some(true) || serde_json::from_slice::<Line<'_>>(line).is_ok_and(|line| line.id == id)
}

/// What opening needs of a line, without copying any text but escaped text; all else is checked and dropped.
#[derive(Deserialize)]
pub(super) struct Scanned<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(rename = "source")]
    _source: Text,
    #[serde(borrow)]
    pub split: Cow<'a, str>,
    #[serde(rename = "captions")]
    _captions: Vec<Text>,
    #[serde(default)]
    pub content: Option<&'a str>,
    #[serde(default, rename = "bytes")]
    _bytes: Option<u64>,
    #[serde(default, rename = "modified_ns")]
    _modified_ns: Option<u64>,
    #[serde(default)]
    pub gone: bool,
}

/// A string of which only its being one matters. It has no size, so a list of it takes no memory.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl serde::de::Visitor<'_> for AnyText {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_short_way_to_an_id_agrees_with_the_long_one(id in "[ab\\\\\",é\n]{0,4}", other in "[ab\\\\\",é\n]{0,4}") {
            let record = RowRecord { id: id.clone(), ..RowRecord::default() };
            let mut line = Vec::new();
            Line::new(&record).write_to(&mut line);
            prop_assert!(has_id(&line, &id));
            prop_assert_eq!(has_id(&line, &other), id == other);
        }
    }

    #[test]
    fn an_id_in_another_place_is_found() {
        assert!(has_id(br#"{"split":"", "id": "a" ,"captions":[],"source":""}"#, "a"));
    }
}
