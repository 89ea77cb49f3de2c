//! `icecap cache missing`: which pictures have no embedding, and why.
//!
//! Must not know how a picture came to be missing: the cache's lists say it, those of unfinished columns too.

use anyhow::Result;
use icecap_cache::{Cache, ColumnState, Missing};
use serde::Serialize;

/// Pictures that a message names; `icecap cache missing` names all.
const NAMED: usize = 10;

/// A picture without an embedding in a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingPicture {
    /// The picture's name in the data set.
    pub id: String,
    /// The column.
    pub column: String,
    /// Why, as a class: `not-found`, `truncated`, ..
    pub reason: String,
    /// Why, in words.
    pub detail: String,
    /// Where it should come from: a path in the data folder, or an address.
    pub source: String,
}

impl MissingPicture {
    /// The first line of the detail: hints follow it.
    #[must_use]
    pub fn short(&self) -> &str {
        self.detail.lines().next().unwrap_or_default()
    }
}

/// The pictures of `cache` that lack an embedding in the columns `wanted`, or (where none is named) in any that can be read.
///
/// # Errors
/// Where a column that is named isn't there or can't be read.
pub fn missing(cache: &Cache, wanted: &[String]) -> Result<Vec<MissingPicture>> {
    let names: Vec<String> = match wanted {
        [] => {
            let sound = cache.columns()?.into_iter().filter(|info| !matches!(info.state, ColumnState::Damaged(_)));
            sound.map(|info| info.folder).collect()
        }
        wanted => wanted.to_vec(),
    };
    let mut found = Vec::new();
    for name in &names {
        let (column, rows) = cache.missing(name)?;
        found.extend(rows.into_iter().map(|row| picture(cache, &column, row)));
    }
    Ok(found)
}

fn picture(cache: &Cache, column: &str, missing: Missing) -> MissingPicture {
    let record = cache.rows().get(missing.row);
    MissingPicture {
        id: record.id,
        column: column.to_owned(),
        reason: missing.reason.to_string(),
        detail: missing.detail,
        source: record.source,
    }
}

/// The first missing pictures of `column`, a line each, for a message: empty where they can't be told.
pub(super) fn first(cache: &Cache, column: &str) -> String {
    let Ok((_, rows)) = cache.missing(column) else { return String::new() };
    let more = rows.len().saturating_sub(NAMED);
    let mut lines: String = rows
        .into_iter()
        .take(NAMED)
        .map(|row| picture(cache, column, row))
        .map(|picture| format!("\n  {}: {} ({})", picture.source, picture.reason, picture.short()))
        .collect();
    if more > 0 {
        lines += &format!("\n  and {more} more: `icecap cache missing {} {column}`", cache.folder().display());
    }
    lines
}
