//! Whether what is to be written fits on the disk, and whether a part has anything to write, said before it is written.
//!
//! A warning and not an error: somebody may be making room, and a disk that fills up stops a writer cleanly in any case.

use std::path::Path;

use icecap_cache::{ColumnWriter, free_bytes};

use crate::{progress::Progress, report::bytes};

/// Warns where the shards that `writers` will make don't fit.
pub(super) fn warn(writers: &[ColumnWriter], folder: &Path, progress: &dyn Progress) {
    let needed = writers.iter().map(ColumnWriter::bytes_to_allocate).sum();
    if let Some(text) = too_small(folder, needed, free_bytes(folder)) {
        progress.line(&format!("warning: {text}"));
    }
}

/// Says where a part has no shard, because the column has fewer than there are parts.
pub(super) fn tell_idle(writers: &[ColumnWriter], progress: &dyn Progress) {
    for writer in writers {
        let plan = writer.plan();
        if let Some(part) = writer.part().filter(|_| writer.progress().rows == 0) {
            let (name, shards, rows) = (&plan.name, plan.shards(), plan.rows_per_shard);
            progress.line(&format!(
                "note: column `{name}` has {shards} shards of {rows} rows, and {part} has none of them; --shard-rows N, the same for all parts, makes more"
            ));
        }
    }
}

/// What to say where `needed` bytes don't fit.
pub(super) fn too_small(folder: &Path, needed: u64, free: Option<u64>) -> Option<String> {
    let free = free.filter(|free| *free < needed)?;
    let (needed, free) = (bytes(needed), bytes(free));
    Some(format!("the disk of `{}` is too small: {needed} are needed, {free} are free", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_named() {
        let said = |needed, free| too_small(Path::new("cache"), needed, free);
        insta::assert_snapshot!(said(3_000_000_000, Some(1_200)).unwrap(), @"the disk of `cache` is too small: 3.0 GB are needed, 1.2 kB are free");
        assert_eq!((said(5, Some(5)), said(u64::MAX, None)), (None, None));
    }
}
