//! Where the entries of a document are in its text.

use std::ops::Range;

use toml_edit::{Document, Item};

/// The value at `path`.
pub(super) fn value(document: &Document<String>, path: &[String]) -> Option<Range<usize>> {
    lookup(document.as_item(), path).map(|found| found.span)
}

/// The key `name` of the table at `path`.
pub(super) fn key(document: &Document<String>, path: &[String], name: &str) -> Option<Range<usize>> {
    let table = lookup(document.as_item(), path)?.item;
    table.as_table_like()?.get_key_value(name)?.0.span()
}

/// The longest part of `path` that exists.
pub(super) fn nearest(document: &Document<String>, path: &[String]) -> Range<usize> {
    (1..=path.len()).rev().find_map(|length| value(document, &path[..length])).unwrap_or(0..0)
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
