//! Strict TOML: every fault of a file is found at once and shown with a caret under it and the nearest known name.
//!
//! Knows nothing of what a recipe means: it turns text into any `Deserialize` type. serde stops at the first fault; so
//! that a user doesn't mend a file one fault at a time, the faulty entry is noted, taken out of the parsed tree, and the
//! rest is tried again until nothing is left to complain about.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::{Table, Value};
use toml_edit::{Document, Item, Key, TableLike};

use super::RecipeError;

/// More faults than this are not looked for: the file is then of another kind altogether.
const MOST_FAULTS: usize = 50;

/// One fault of a file: where it is (a byte range), what it is, and what to do where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the text that the caret stands under.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

/// Reads `text`, the contents of the file called `name`, as a `T`.
///
/// # Errors
/// [`RecipeError::Faults`] with every fault found.
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, RecipeError> {
    let fail = |mut faults: Vec<Fault>| {
        faults.sort_by_key(|fault| fault.span.start);
        Err(RecipeError::Faults { name: name.to_owned(), text: text.to_owned(), faults })
    };
    let document = match Document::parse(text.to_owned()) {
        Ok(document) => document,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            return fail(vec![Fault { span, message: error.message().to_owned(), hint: None }]);
        }
    };
    let mut tree: Table = match toml::from_str(text) {
        Ok(tree) => tree,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            return fail(vec![Fault { span, message: error.message().to_owned(), hint: None }]);
        }
    };
    let mut faults: Vec<Fault> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(Value::Table(tree.clone())) {
            Ok(parsed) if faults.is_empty() => return Ok(parsed),
            Ok(_) => return fail(faults),
            Err(error) => error,
        };
        let complaint = Complaint::read(&path_of(&error), error.inner().message());
        let (span, message) = complaint.locate(&document);
        let fault = Fault { span, message, hint: complaint.hint() };
        if faults.contains(&fault) || faults.len() >= MOST_FAULTS {
            return fail(faults);
        }
        faults.push(fault);
        if !complaint.mend(&mut tree) {
            return fail(faults);
        }
    }
}

/// The place of the entry `path` (such as `["decoder", "columns"]`) in `text`, for faults of meaning found after parsing.
#[must_use]
pub fn span_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let document = Document::parse(text.to_owned()).ok()?;
    let path: Vec<String> = path.iter().map(ToString::to_string).collect();
    let found = lookup(document.as_item(), &path)?;
    Some(found.span)
}

fn path_of(error: &serde_path_to_error::Error<toml::de::Error>) -> Vec<String> {
    use serde_path_to_error::Segment;
    error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// What serde objected to, in a form that can be located and mended.
#[derive(Debug)]
enum Complaint {
    Unknown { table: Vec<String>, key: String, known: Vec<String> },
    Variant { table: Vec<String>, value: String, known: Vec<String> },
    Missing { table: Vec<String>, key: String },
    Other { path: Vec<String>, message: String },
}

impl Complaint {
    fn read(path: &[String], message: &str) -> Self {
        let message = message.lines().next().unwrap_or_default();
        let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
        if message.starts_with("unknown field") {
            let key = quoted.next().unwrap_or_default();
            let mut table = path.to_vec();
            if table.last() == Some(&key) {
                table.pop();
            }
            return Self::Unknown { table, key, known: quoted.collect() };
        }
        if message.starts_with("unknown variant") {
            let value = quoted.next().unwrap_or_default();
            return Self::Variant { table: path.to_vec(), value, known: quoted.collect() };
        }
        if message.starts_with("missing field") {
            return Self::Missing { table: path.to_vec(), key: quoted.next().unwrap_or_default() };
        }
        Self::Other { path: path.to_vec(), message: message.to_owned() }
    }

    /// The bytes to underline, and the message to put there.
    fn locate(&self, document: &Document<String>) -> (Range<usize>, String) {
        let root = document.as_item();
        let near = |path: &[String]| nearest_place(root, path);
        match self {
            Self::Unknown { table, key, .. } => {
                let span = lookup(root, table).and_then(|found| find_key(found.item, key));
                (span.unwrap_or_else(|| near(table)), format!("unknown key `{key}`{}", inside(table)))
            }
            Self::Variant { table, value, .. } => {
                let span = lookup(root, table).and_then(|found| find_string(found.item, value));
                (span.unwrap_or_else(|| near(table)), format!("`{value}` is not known here"))
            }
            Self::Missing { table, key } => (near(table), format!("the key `{key}` is missing{}", inside(table))),
            Self::Other { path, message } => {
                let span = find_in_array(root, path, message)
                    .or_else(|| lookup(root, path).and_then(|found| find_blamed(found.item, message)));
                (span.unwrap_or_else(|| near(path)), message.clone())
            }
        }
    }

    fn hint(&self) -> Option<String> {
        let (word, known) = match self {
            Self::Unknown { key, known, .. } => (key, known),
            Self::Variant { value, known, .. } => (value, known),
            Self::Missing { .. } | Self::Other { .. } => return None,
        };
        if known.is_empty() {
            return None;
        }
        Some(match nearest(word, known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known here: {}", known.join(", ")),
        })
    }

    /// Takes the fault out of `tree`; false where that can't be done and the search ends.
    fn mend(&self, tree: &mut Table) -> bool {
        match self {
            Self::Unknown { table, key, .. } => descend(tree, table).is_some_and(|table| remove_deep(table, key)),
            Self::Variant { table, value, known } => {
                let Some(first) = nearest(value, known) else { return false };
                descend_value(tree, table).is_some_and(|found| replace_string(found, value, &first))
            }
            Self::Missing { .. } => false,
            Self::Other { path, .. } => {
                let Some((last, parents)) = path.split_last() else { return false };
                if let Some(Value::Array(items)) = descend_value(tree, parents) {
                    let at = last.parse().ok().filter(|at| *at < items.len());
                    return at.map(|at: usize| items.remove(at)).is_some();
                }
                descend(tree, parents).is_some_and(|table| table.remove(last).is_some())
            }
        }
    }
}

fn inside(table: &[String]) -> String {
    if table.is_empty() { String::new() } else { format!(" in `{}`", table.join(".")) }
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

struct Found<'a> {
    item: &'a Item,
    span: Range<usize>,
}

/// Follows `path` through tables and arrays of tables.
fn lookup<'a>(root: &'a Item, path: &[String]) -> Option<Found<'a>> {
    let mut found = Found { item: root, span: root.span().unwrap_or(0..0) };
    for name in path {
        let next = match found.item {
            Item::ArrayOfTables(tables) => {
                let index = name.parse::<usize>().ok()?;
                // An `Item` of one table of the array isn't to be had: look it up through the array's own index.
                let item = found.item.get(index)?;
                Found { item, span: tables.get(index)?.span().unwrap_or(0..0) }
            }
            Item::Value(value) if value.is_array() => {
                let item = found.item;
                let span = value.as_array()?.get(name.parse::<usize>().ok()?)?.span();
                return Some(Found { item, span: span.unwrap_or(0..0) });
            }
            item => {
                let (key, value) = item.as_table_like()?.get_key_value(name)?;
                let span = value.span().or_else(|| key.span()).unwrap_or(0..0);
                Found { item: value, span }
            }
        };
        found = next;
    }
    Some(found)
}

/// The place of the longest part of `path` that exists.
fn nearest_place(root: &Item, path: &[String]) -> Range<usize> {
    (0..=path.len())
        .rev()
        .filter(|length| *length > 0)
        .find_map(|length| lookup(root, &path[..length]).map(|found| found.span))
        .unwrap_or(0..0)
}

fn entries(item: &Item) -> Vec<(Option<&Key>, &Item)> {
    if let Some(table) = item.as_table_like() {
        return table.iter().filter_map(|(name, _)| key_and_item(table, name)).collect();
    }
    match item {
        Item::ArrayOfTables(tables) => (0..tables.len()).filter_map(|i| item.get(i)).map(|item| (None, item)).collect(),
        _ => Vec::new(),
    }
}

fn key_and_item<'a>(table: &'a dyn TableLike, name: &str) -> Option<(Option<&'a Key>, &'a Item)> {
    table.get_key_value(name).map(|(key, item)| (Some(key), item))
}

/// The span of the key called `name` in `item` or, failing that, deeper down.
fn find_key(item: &Item, name: &str) -> Option<Range<usize>> {
    let here = entries(item);
    let own = here.iter().find_map(|(key, _)| key.filter(|key| key.get() == name).and_then(Key::span));
    own.or_else(|| here.iter().find_map(|(_, item)| find_key(item, name)))
}

/// The span of a string value equal to `text` in `item` or below.
fn find_string(item: &Item, text: &str) -> Option<Range<usize>> {
    if item.as_str() == Some(text) {
        return item.span();
    }
    entries(item).iter().find_map(|(_, item)| find_string(item, text))
}

/// The span of the value that a message such as "invalid type: string "x", expected u32" speaks of.
fn find_blamed(item: &Item, message: &str) -> Option<Range<usize>> {
    let leaf = item.as_value().filter(|value| !value.is_inline_table());
    if let Some(value) = leaf {
        let text = value.to_string();
        return message.contains(text.trim()).then(|| value.span()).flatten();
    }
    entries(item).iter().find_map(|(_, item)| find_blamed(item, message))
}

/// The span of the entry of an array that `message` quotes: its number is void once an entry before it was taken out.
fn find_in_array(root: &Item, path: &[String], message: &str) -> Option<Range<usize>> {
    let (_, parents) = path.split_last()?;
    let array = lookup(root, parents)?.item.as_array()?;
    let quoted = |value: &&toml_edit::Value| value.as_str().is_some_and(|text| message.contains(&format!("`{text}`")));
    array.iter().find(quoted)?.span()
}

fn descend<'a>(tree: &'a mut Table, path: &[String]) -> Option<&'a mut Table> {
    if path.is_empty() {
        return Some(tree);
    }
    descend_value(tree, path)?.as_table_mut()
}

fn descend_value<'a>(tree: &'a mut Table, path: &[String]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    let mut value = tree.get_mut(first)?;
    for name in rest {
        value = match value {
            Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?)?,
            Value::Table(table) => table.get_mut(name)?,
            _ => return None,
        };
    }
    Some(value)
}

fn remove_deep(table: &mut Table, key: &str) -> bool {
    if table.remove(key).is_some() {
        return true;
    }
    table.iter_mut().any(|(_, value)| value.as_table_mut().is_some_and(|table| remove_deep(table, key)))
}

fn replace_string(value: &mut Value, from: &str, to: &str) -> bool {
    match value {
        Value::String(text) if text == from => {
            *text = to.to_owned();
            true
        }
        Value::Table(table) => table.iter_mut().any(|(_, value)| replace_string(value, from, to)),
        _ => false,
    }
}
