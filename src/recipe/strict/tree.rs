//! Paths through parsed TOML: what is where, and how it is put there or taken out.
//!
//! A list is walked into where it holds tables; any other list is one value.

use toml::{Table, Value};

use super::complaint::Path;

/// The value at `path`.
pub(super) fn get<'a>(tree: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(tree.get(first)?, |value, name| match value {
        Value::Table(table) => table.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// The table at `path`, the root for an empty one.
fn table_mut<'a>(tree: &'a mut Table, path: &[String]) -> Option<&'a mut Table> {
    let Some((first, rest)) = path.split_first() else { return Some(tree) };
    let value = rest.iter().try_fold(tree.get_mut(first)?, |value, name| match value {
        Value::Table(table) => table.get_mut(name),
        Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    });
    value?.as_table_mut()
}

/// Puts `value` at `path`, in a table that is there.
pub(super) fn set(tree: &mut Table, path: &[String], value: Value) -> bool {
    let Some((key, parents)) = path.split_last() else { return false };
    table_mut(tree, parents).map(|table| table.insert(key.clone(), value)).is_some()
}

/// Takes the entry at `path` out of its table.
pub(super) fn remove(tree: &mut Table, path: &[String]) -> bool {
    let Some((key, parents)) = path.split_last() else { return false };
    table_mut(tree, parents).is_some_and(|table| table.remove(key).is_some())
}

/// Takes the entry at `at` out of the list of plain values `list`.
pub(super) fn remove_entry(tree: &mut Table, list: &[String], at: usize) -> bool {
    let Some((key, parents)) = list.split_last() else { return false };
    let list = table_mut(tree, parents).and_then(|table| table.get_mut(key)).and_then(Value::as_array_mut);
    let Some(list) = list.filter(|list| at < list.len() && !list.iter().any(Value::is_table)) else { return false };
    list.remove(at);
    true
}

/// Everything at and below `path`, parents first, each list of plain values as one.
fn all(tree: &Table, path: &[String]) -> Vec<Path> {
    let mut found = vec![path.to_vec()];
    let mut below = |name: String| {
        let path: Path = path.iter().cloned().chain([name]).collect();
        found.extend(all(tree, &path));
    };
    match get(tree, path) {
        None if path.is_empty() => tree.keys().cloned().for_each(&mut below),
        Some(Value::Table(table)) => table.keys().cloned().for_each(&mut below),
        Some(Value::Array(items)) if items.iter().any(Value::is_table) => {
            (0..items.len()).map(|index| index.to_string()).for_each(&mut below);
        }
        _ => {}
    }
    found
}

/// The tables at and below `path`.
pub(super) fn tables(tree: &Table, path: &[String]) -> Vec<Path> {
    let is_table = |path: &Path| path.is_empty() || get(tree, path).is_some_and(Value::is_table);
    all(tree, path).into_iter().filter(is_table).collect()
}

/// The values at and below `path` that are no tables.
pub(super) fn leaves(tree: &Table, path: &[String]) -> Vec<Path> {
    let is_plain = |value: &Value| match value {
        Value::Table(_) => false,
        Value::Array(items) => !items.iter().any(Value::is_table),
        _ => true,
    };
    all(tree, whole(tree, path)).into_iter().filter(|path| get(tree, path).is_some_and(is_plain)).collect()
}

/// `path`, cut short at a list of plain values.
fn whole<'p>(tree: &Table, path: &'p [String]) -> &'p [String] {
    let plain = |value: &Value| value.as_array().is_some_and(|items| !items.iter().any(Value::is_table));
    let cut = (1..path.len()).find(|length| get(tree, &path[..*length]).is_some_and(plain));
    &path[..cut.unwrap_or(path.len())]
}

/// The place of the first key `name` at or below the table `path`.
pub(super) fn find_key(tree: &Table, path: &[String], name: &str) -> Option<Path> {
    let with_key = |table: Path| -> Path { table.into_iter().chain([name.to_owned()]).collect() };
    tables(tree, path).into_iter().map(with_key).find(|path| get(tree, path).is_some())
}

/// The place of the first text equal to `text` at or below `path`.
pub(super) fn find_text(tree: &Table, path: &[String], text: &str) -> Option<Path> {
    leaves(tree, path).into_iter().find(|path| get(tree, path).and_then(Value::as_str) == Some(text))
}

/// How serde names `value` where it expected another.
pub(super) fn in_serdes_words(value: &Value) -> String {
    match value {
        Value::String(text) => format!("string {text:?}"),
        Value::Integer(number) => format!("integer `{number}`"),
        Value::Float(number) => format!("floating point `{number:?}`"),
        Value::Boolean(value) => format!("boolean `{value}`"),
        Value::Array(_) => "sequence".to_owned(),
        Value::Table(_) | Value::Datetime(_) => "map".to_owned(),
    }
}
