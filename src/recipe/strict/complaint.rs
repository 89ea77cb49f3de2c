//! What serde objected to, taken from its message: what it is, where it is, and the words to say it in.
//!
//! Must not know how a fault is mended. serde's errors are texts; these few forms of them have been the same since 1.0, and a
//! form that isn't known is passed on as it is.

use toml_edit::Document;

use super::{Fault, place};

/// Keys from the root; numbers are places in lists.
pub(super) type Path = Vec<String>;

/// What serde objected to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Complaint {
    /// `table` has a key that is none of `known`.
    Unknown { table: Path, key: String, known: Vec<String> },
    /// The text at `path` is none of `known`.
    Variant { path: Path, value: String, known: Vec<String> },
    /// `table` lacks a key.
    Missing { table: Path, key: String },
    /// Anything else about `path`.
    Other { path: Path, message: String },
}

impl Complaint {
    pub fn of(error: &serde_path_to_error::Error<toml::de::Error>) -> Self {
        Self::read(path_of(error), error.inner().message())
    }

    fn read(mut path: Path, message: &str) -> Self {
        let message = message.lines().next().unwrap_or_default();
        let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
        if message.starts_with("unknown field") {
            let key = quoted.next().unwrap_or_default();
            path.pop_if(|last| *last == key);
            return Self::Unknown { table: path, key, known: quoted.collect() };
        }
        if message.starts_with("unknown variant") {
            let value = quoted.next().unwrap_or_default();
            return Self::Variant { path, value, known: quoted.collect() };
        }
        if message.starts_with("missing field") {
            return Self::Missing { table: path, key: quoted.next().unwrap_or_default() };
        }
        Self::Other { path, message: message.to_owned() }
    }

    /// The same as a fault of `document`.
    pub fn fault(&self, document: &Document<String>) -> Fault {
        let (span, message) = match self {
            Self::Unknown { table, key, .. } => {
                (place::key(document, table, key), format!("unknown key `{key}`{}", inside(table)))
            }
            Self::Variant { path, value, .. } => (place::value(document, path), format!("`{value}` is not known here")),
            Self::Missing { table, key } => (None, format!("the key `{key}` is missing{}", inside(table))),
            Self::Other { path, message } => (place::value(document, path), in_plain_words(message)),
        };
        let (Self::Unknown { table: path, .. }
        | Self::Variant { path, .. }
        | Self::Missing { table: path, .. }
        | Self::Other { path, .. }) = self;
        Fault { span: span.unwrap_or_else(|| place::nearest(document, path)), message, hint: self.hint() }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { key: word, known, .. } | Self::Variant { value: word, known, .. } => ways_out(word, known),
            Self::Missing { .. } | Self::Other { .. } => None,
        }
    }
}

fn path_of(error: &serde_path_to_error::Error<toml::de::Error>) -> Path {
    use serde_path_to_error::Segment;
    let segments = error.path().iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    segments.collect()
}

fn inside(table: &[String]) -> String {
    if table.is_empty() { String::new() } else { format!(" in `{}`", table.join(".")) }
}

/// What to say of `word`, which is none of `known`: the nearest of them, or all.
#[must_use]
pub fn ways_out(word: &str, known: &[String]) -> Option<String> {
    if known.is_empty() {
        return None;
    }
    Some(match nearest(word, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", known.join(", ")),
    })
}

/// The name among `known` closest to `word`, where one is close enough to be a slip of the fingers.
#[must_use]
pub fn nearest(word: &str, known: &[String]) -> Option<String> {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.clone())
}

/// serde's `invalid type: string "x", expected u32` as a person says it.
fn in_plain_words(message: &str) -> String {
    let invalid = ["invalid type: ", "invalid value: ", "invalid length "];
    let Some(rest) = invalid.iter().find_map(|start| message.strip_prefix(start)) else { return message.to_owned() };
    let Some((found, expected)) = rest.rsplit_once(", expected ") else { return message.to_owned() };
    let found = match found.split_once(' ') {
        Some(("string", text)) => text.to_owned(),
        Some(("integer" | "boolean", text)) => text.trim_matches('`').to_owned(),
        _ if found.starts_with("floating point") => found["floating point".len()..].trim_matches([' ', '`']).to_owned(),
        _ if message.starts_with("invalid length") => format!("{found} of them"),
        _ => match found {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            other => other.to_owned(),
        },
    };
    format!("expected {}, found {found}", type_in_plain_words(expected))
}

fn type_in_plain_words(expected: &str) -> String {
    let said = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" | "integer" => "a whole number",
        "f32" | "f64" | "float" | "floating point number" => "a number",
        "a boolean" | "bool" => "true or false",
        "a string" | "str" | "string" | "path string" | "a borrowed string" => "a text in quotes",
        "a sequence" => "a list",
        "string or map" | "variant identifier" => "a word in quotes",
        other if other.starts_with("an array of length ") => {
            return format!("a list of {}", &other["an array of length ".len()..]);
        }
        other if other.starts_with("enum ") || other.starts_with("unit variant") => "a word in quotes",
        other if other.starts_with("struct ") || other.contains("tagged enum ") || other == "a map" => {
            "a table of keys and values"
        }
        other => other,
    };
    said.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_said_in_plain_words() {
        let said = [
            "invalid type: string \"x\", expected i64",
            "invalid value: integer `-1`, expected usize",
            "invalid type: floating point `1.5`, expected u32",
            "invalid type: string \"x\", expected struct CocoPart",
            "invalid type: boolean `true`, expected path string",
            "invalid type: sequence, expected internally tagged enum DatasetSpec",
            "invalid length 2, expected an array of length 3",
            "`3` is no pooling: none, global, or a grid such as 7x7",
        ];
        insta::assert_snapshot!(said.map(in_plain_words).join("\n"), @r#"
        expected a whole number, found "x"
        expected a whole number of at least 0, found -1
        expected a whole number of at least 0, found 1.5
        expected a table of keys and values, found "x"
        expected a text in quotes, found true
        expected a table of keys and values, found a list
        expected a list of 3, found 2 of them
        `3` is no pooling: none, global, or a grid such as 7x7
        "#);
    }
}
