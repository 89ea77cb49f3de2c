//! Caches of every format version, kept for ever: they stay readable, and today's writer makes the same bytes.
//!
//! `cargo test -p icecap-cache --test it golden -- --ignored` writes the folder of the current version anew.

use std::path::{Path, PathBuf};

use icecap_cache::{
    Cache, CacheError, ColumnSpec, Dtype, FORMAT, Key, Overwrite, Reason, RowOutcome, RowRecord, SCALE, Slot,
    content_hash, dequantize,
};
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

/// The columns of a version's cache: what that version was the first to have.
fn specs(version: u32) -> Vec<ColumnSpec> {
    let specs = if version == 1 { plain() } else { vec![scaled()] };
    let finish = |spec: ColumnSpec| {
        let spec = spec.with_batch_rows(2).with_rows_per_shard(4);
        spec.with_provenance(json!({"made_by": "tests/it/golden.rs", "steps": [1, 2.5, null]}))
    };
    specs.into_iter().map(finish).collect()
}

/// Version 2: i8 with a scale a row.
fn scaled() -> ColumnSpec {
    let key = Key::new().with("encoder", "0123456789abcdef").with("encoder.dtype", "i8");
    ColumnSpec::new("scaled", key, Dtype::I8, [2, 3]).with_tensor("boxes", Dtype::F32, [4])
}

/// The numbers of a row of the i8 column, and what becomes of them; row 2 is zero.
fn scaled_row(row: u32) -> ([f32; 6], f32, [i8; 6]) {
    match row {
        0 => ([127.0, -63.5, 0.5, 1.5, -2.5, 0.0], 1.0, [127, -64, 0, 2, -2, 0]),
        2 => ([0.0; 6], 0.0, [0; 6]),
        _ => {
            let step = row as f32 / 64.0;
            ([-127.0, 126.0, 3.0, 40.25, -0.75, 0.125].map(|x| x * step), step, [-127, 126, 3, 40, -1, 0])
        }
    }
}

fn plain() -> Vec<ColumnSpec> {
    let key = Key::new()
        .with("encoder", "0123456789abcdef")
        .with("tap", json!({"tensor": "avgpool", "pool": "global"}))
        .with("scale", 1.0 / 255.0)
        .with("resize", json!([224, 224]))
        .with("crop", json!(null));
    let pooled = ColumnSpec::new("pooled", key.clone(), Dtype::F16, [6]);
    let regions = ColumnSpec::new("regions", key.with("regions", 2), Dtype::Bf16, [2, 3]);
    let regions = regions.with_tensor("boxes", Dtype::F32, [2, 4]).with_tensor("count", Dtype::F32, []);
    vec![pooled, regions]
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

fn write(folder: &Path, version: u32) {
    let mut cache = Cache::create_or_open(folder, &json!({"name": "golden", "format": "none"})).unwrap();
    cache.sync_rows(records()).unwrap();
    for (column, spec) in specs(version).iter().enumerate() {
        let writer = cache.writer(spec, Overwrite::No).unwrap();
        for batch in writer.todo_batches() {
            let mut slot = writer.slot(batch).unwrap();
            for &row in &batch.rows {
                fill(&mut slot, spec, column, row);
            }
            let outcomes: Vec<RowOutcome> = batch.rows.iter().map(|&row| outcome(row)).collect();
            writer.commit(slot, &outcomes).unwrap();
        }
        writer.finish().unwrap();
    }
}

fn fill(slot: &mut Slot<'_>, spec: &ColumnSpec, column: usize, row: u32) {
    for (tensor, which) in spec.tensors.iter().enumerate() {
        let bytes = slot.row_mut(tensor, row).unwrap();
        if which.name != SCALE && which.dtype != Dtype::I8 {
            bytes.iter_mut().enumerate().for_each(|(at, place)| *place = byte(column, tensor, row, at));
        }
    }
    if spec.tensors[0].dtype == Dtype::I8 {
        let numbers: Vec<u8> = scaled_row(row).0.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(slot.quantize_row(row, &numbers).unwrap());
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
    for (column, spec) in specs(1).iter().enumerate() {
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
fn version_2_is_read_as_it_was_written() -> Result<(), CacheError> {
    let cache = Cache::open(golden(2))?;
    let reader = cache.column("scaled")?;
    assert_eq!((reader.dtype(), reader.tensor(SCALE), reader.manifest().unwrap().format), (Dtype::I8, Some(1), 2));
    for row in 0..ROWS {
        let (numbers, scale, q) = scaled_row(row);
        if matches!(outcome(row), RowOutcome::Missing { .. }) {
            assert_eq!((reader.row(row), reader.scale(row)), (None, None));
            continue;
        }
        let bytes = reader.row(row).unwrap();
        assert_eq!((reader.scale(row), bytes), (Some(scale), &q.map(|x| x as u8)[..]), "row {row}");
        let mut back = [0; 24];
        dequantize(bytes, scale, &mut back);
        for (x, y) in numbers.iter().zip(back.as_chunks::<4>().0) {
            assert!((x - f32::from_le_bytes(*y)).abs() <= scale / 2.0);
        }
        let boxes = reader.row_of(2, row).unwrap();
        assert!(boxes.iter().enumerate().all(|(at, value)| *value == byte(0, 2, row, at)));
    }
    assert!(cache.verify("scaled", &|_| ())?.is_sound());
    Ok(())
}

#[test]
fn every_version_is_written_the_same_today() {
    for version in 1..=FORMAT {
        let scratch = Scratch::new();
        write(&scratch.path(), version);
        let (expected, found) = (tree(&golden(version)), tree(&scratch.path()));
        let names = |tree: &[(String, Vec<u8>)]| tree.iter().map(|file| file.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&expected), names(&found));
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            assert!(*expected == without_digest(name, found), "`{name}` of version {version} differs");
        }
    }
}

/// The file without what programs write today and did not when the golden files were made: digests of the manifest and the rows.
fn without_digest(name: &str, bytes: &[u8]) -> Vec<u8> {
    if name.ends_with("cache.json") {
        let text = std::str::from_utf8(bytes).unwrap();
        let (before, digests) = text.rsplit_once(",\n  \"rows_digests\": [").expect("the last member is the digests");
        assert!(digests.trim_matches(|c: char| !c.is_ascii_hexdigit()).len() == 64, "`{digests}`");
        return format!("{before}\n}}\n").into_bytes();
    }
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
    write(&scratch.path(), 1);
    let digests: Vec<String> = specs(1)
        .iter()
        .map(|spec| {
            let folder = scratch.path().join("columns").join(format!("{}-{}", spec.name, spec.key.short()));
            let text = std::fs::read(folder.join("column.json")).unwrap();
            let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
            format!("{} {}", spec.name, manifest["digest"].as_str().unwrap())
        })
        .collect();
    insta::assert_snapshot!(digests.join("\n"), @r"
    pooled d80f9def078d41cefd22ebd832ead108d01466937440f9c04a39a2e3e19495fc
    regions 76ccb5ea4855f69113e7da6705f42e48fd9a62ab42b6f7f811fd392510cec70e
    ");
}

#[test]
fn golden_files_are_small() {
    for (name, bytes) in (1..=FORMAT).flat_map(|version| tree(&golden(version))) {
        assert!(bytes.len() < 5000, "`{name}` has {} bytes", bytes.len());
    }
}

#[test]
#[ignore = "replaces the golden files: only for a new format version"]
fn write_golden_files() {
    let folder = golden(FORMAT);
    let _ = std::fs::remove_dir_all(&folder);
    write(&folder, FORMAT);
    let columns = specs(FORMAT).into_iter().map(|spec| format!("columns/{}-{}", spec.name, spec.key.short()));
    for lock in columns.map(|column| folder.join(column).join("lock")).chain([folder.join("lock")]) {
        std::fs::remove_file(lock).unwrap();
    }
}
