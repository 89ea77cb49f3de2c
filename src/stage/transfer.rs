//! `icecap cache merge`: parts become one cache. The cache crate does it; here it is told how far it is.

use std::path::{Path, PathBuf};

use anyhow::Result;
use icecap_cache::{Cache, MergeReport};

use crate::progress::Progress;

/// Joins the caches `parts` into `out`.
///
/// # Errors
/// Where they do not make one; nothing is made then.
pub fn merge(out: &Path, parts: &[PathBuf], progress: &dyn Progress) -> Result<MergeReport> {
    progress.start("merge", None);
    let report = Cache::merge(out, parts, &|bytes| progress.advance(bytes));
    progress.finish();
    Ok(report?)
}
