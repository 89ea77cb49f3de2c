//! Caches of every format version, kept for ever: they stay readable, and today's writer makes the same bytes.
//!
//! `cargo test -p icecap-cache --test it golden -- --ignored` writes the folder of the current version anew.

use std::path::{Path, PathBuf};

use icecap_cache::{Cache, CacheError, ColumnSpec, Dtype, Key, Overwrite, Reason, RowOutcome, RowRecord, content_hash};
use serde_json::json;

use crate::common::{Scratch, files};

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

/// What the golden cache holds. Never changes.
const ROWS: u32 = 7;

fn records() -> Vec<RowRecord> {
    let record = |row: u32| RowRecord {
        id: format!("image {row}.jpg"),
        source: format!("images/image {row}.jpg"),
        split: ["train", "train", "val", "test"][row as usize % 4].to_owned(),
        captions: (0..row % 3).map(|caption| format!("Caption {caption} of \"{row}\", \u{e9}\u{1f427}.")).collect(),
        content: (row != 3).then(|| content_hash(&[row as u8]).iter().map(|byte| format!("{byte:02x}")).collect()),
        bytes: (row != 3).then_some(1000 + u64::from(row)),
        modified_ns: (row != 3).then_some(1_700_000_000_123_456_789 + u64::from(row)),
    };
    (0..ROWS).map(record).collect()
}

fn specs() -> [ColumnSpec; 2] {
    let key = Key::new()
        .with("encoder", "0123456789abcdef")
        .with("tap", json!({"tensor": "avgpool", "pool": "global"}))
        .with("scale", 1.0 / 255.0)
        .with("resize", json!([224, 224]))
        .with("crop", json!(null));
    let pooled = ColumnSpec::new("pooled", key.clone(), Dtype::F16, [6]);
    let regions = ColumnSpec::new("regions", key.with("regions", 2), Dtype::Bf16, [2, 3]);
    let regions = regions.with_tensor("boxes", Dtype::F32, [2, 4]).with_tensor("count", Dtype::F32, []);
    [pooled, regions].map(|spec| {
        let spec = spec.with_batch_rows(2).with_rows_per_shard(4);
        spec.with_provenance(json!({"made_by": "tests/it/golden.rs", "steps": [1, 2.5, null]}))
    })
}

fn byte(column: usize, tensor: usize, row: u32, at: usize) -> u8 {
    (column * 101 + tensor * 53 + row as usize * 17 + at * 3) as u8
}

fn outcome(row: u32) -> RowOutcome {
    match row {
        3 => RowOutcome::Missing { reason: Reason::Http(404), detail: "Not \"found\"".to_owned(), content: None },
        5 => {
            RowOutcome::Missing { reason: Reason::Truncated, detail: String::new(), content: Some(content_hash(&[5])) }
        }
        _ => RowOutcome::Present { content: content_hash(&[row as u8]) },
    }
}

fn write(folder: &Path) {
    let mut cache = Cache::create_or_open(folder, &json!({"name": "golden", "format": "none"})).unwrap();
    cache.sync_rows(records()).unwrap();
    for (column, spec) in specs().iter().enumerate() {
        let writer = cache.writer(spec, Overwrite::No).unwrap();
        for batch in writer.todo_batches() {
            let mut slot = writer.slot(batch).unwrap();
            for (tensor, row) in
                (0..spec.tensors.len()).flat_map(|tensor| batch.rows.iter().map(move |row| (tensor, *row)))
            {
                let bytes = slot.row_mut(tensor, row).unwrap();
                bytes.iter_mut().enumerate().for_each(|(at, place)| *place = byte(column, tensor, row, at));
            }
            let outcomes: Vec<RowOutcome> = batch.rows.iter().map(|&row| outcome(row)).collect();
            writer.commit(slot, &outcomes).unwrap();
        }
        writer.finish().unwrap();
    }
}

/// All files of a cache but locks, by their path in it.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = files(folder).into_iter().collect();
    for column in std::fs::read_dir(folder.join("columns")).unwrap() {
        let column = column.unwrap().file_name().into_string().unwrap();
        let own = files(&folder.join("columns").join(&column));
        all.extend(own.into_iter().map(|(name, bytes)| (format!("columns/{column}/{name}"), bytes)));
    }
    all.sort();
    all
}

#[test]
fn version_1_is_read_as_it_was_written() -> Result<(), CacheError> {
    let cache = Cache::open(golden(1))?;
    assert_eq!(cache.dataset(), &json!({"name": "golden", "format": "none"}));
    let rows: Vec<RowRecord> = (0..ROWS).map(|row| cache.rows().get(row)).collect();
    assert_eq!(rows, records());
    assert_eq!(cache.rows().split_rows("train"), [0, 1, 4, 5]);
    for (column, spec) in specs().iter().enumerate() {
        let reader = cache.column(&spec.name)?;
        assert_eq!((reader.key(), reader.tensors()), (&spec.key, &spec.tensors[..]));
        for (tensor, row) in (0..spec.tensors.len()).flat_map(|tensor| (0..ROWS).map(move |row| (tensor, row))) {
            let Some(bytes) = reader.row_of(tensor, row) else {
                assert!(
                    matches!(outcome(row), RowOutcome::Missing { reason, .. } if reader.missing(row).unwrap().reason == reason)
                );
                continue;
            };
            assert!(bytes.iter().enumerate().all(|(at, value)| *value == byte(column, tensor, row, at)));
            assert_eq!(reader.content(row), Some(content_hash(&[row as u8])));
        }
        assert_eq!(reader.missing_rows().len(), 2);
        assert_eq!(reader.missing(3).unwrap().detail, "Not \"found\"");
        assert!(cache.verify(&spec.name, &|_| ())?.is_sound());
        assert_eq!(reader.manifest().unwrap().provenance["steps"], json!([1, 2.5, null]));
    }
    Ok(())
}

#[test]
fn version_1_is_written_the_same_today() {
    let scratch = Scratch::new();
    write(&scratch.path());
    let (expected, found) = (tree(&golden(1)), tree(&scratch.path()));
    let names = |tree: &[(String, Vec<u8>)]| tree.iter().map(|file| file.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found));
    for ((name, expected), (_, found)) in expected.iter().zip(&found) {
        assert!(*expected == without_digest(name, found), "`{name}` differs");
    }
}

/// The file without what programs write today and did not when the golden files were made: the manifest's digest.
fn without_digest(name: &str, bytes: &[u8]) -> Vec<u8> {
    if !name.ends_with("column.json") {
        return bytes.to_vec();
    }
    let text = std::str::from_utf8(bytes).unwrap();
    let (before, digest) = text.rsplit_once(",\n  \"digest\": \"").expect("the last member is the digest");
    assert!(digest.len() == 64 + 4 && digest.ends_with("\"\n}\n"), "`{digest}`");
    format!("{before}\n}}\n").into_bytes()
}

/// The digest of a manifest, which the golden files do not have yet, is this one for ever, too.
#[test]
fn the_digest_of_a_manifest_is_the_same_today() {
    let scratch = Scratch::new();
    write(&scratch.path());
    let digests = specs().map(|spec| {
        let folder = scratch.path().join("columns").join(format!("{}-{}", spec.name, spec.key.short()));
        let text = std::fs::read(folder.join("column.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        format!("{} {}", spec.name, manifest["digest"].as_str().unwrap())
    });
    insta::assert_snapshot!(digests.join("\n"), @r"
    pooled d80f9def078d41cefd22ebd832ead108d01466937440f9c04a39a2e3e19495fc
    regions 76ccb5ea4855f69113e7da6705f42e48fd9a62ab42b6f7f811fd392510cec70e
    ");
}

#[test]
fn golden_files_are_small() {
    for (name, bytes) in tree(&golden(1)) {
        assert!(bytes.len() < 5000, "`{name}` has {} bytes", bytes.len());
    }
}

#[test]
#[ignore = "replaces the golden files: only for a new format version"]
fn write_golden_files() {
    let folder = golden(icecap_cache::FORMAT);
    let _ = std::fs::remove_dir_all(&folder);
    write(&folder);
    for lock in [folder.join("lock")].into_iter().chain(
        specs().map(|spec| folder.join("columns").join(format!("{}-{}", spec.name, spec.key.short())).join("lock")),
    ) {
        std::fs::remove_file(lock).unwrap();
    }
}
