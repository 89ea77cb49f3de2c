//! Opening a column: every way in which it can be malformed has an error of its own.

use std::path::Path;

use icecap_cache::{Cache, CacheError, ManifestError, ShardError};
use serde_json::{Value, json};

use crate::common::*;

fn column() -> (Scratch, Cache) {
    let (scratch, images) = (Scratch::new(), Images::new(17));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    (scratch, cache)
}

/// The error of a column whose manifest, one without a digest, `change` has changed.
fn with_manifest(change: impl FnOnce(&mut Value)) -> String {
    let (scratch, cache) = column();
    let path = scratch.column().join("column.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("digest").unwrap();
    change(&mut manifest);
    std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    tidy(&scratch, cache.column("avgpool").unwrap_err())
}

fn tidy(scratch: &Scratch, error: impl ToString) -> String {
    scratch.anonymous(error).replace("DIR/cache/columns/", "").replace(&spec().key.short(), "KEY8")
}

#[test]
fn a_manifest_that_is_no_json() {
    let (scratch, cache) = column();
    std::fs::write(scratch.column().join("column.json"), "{\"format\":1").unwrap();
    let error = cache.column("avgpool").unwrap_err();
    assert!(matches!(error, CacheError::Manifest(ManifestError::Json { .. })));
    insta::assert_snapshot!(tidy(&scratch, error), @r"
    cannot understand the manifest `avgpool-KEY8/column.json`
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
    assert!(matches!(cache.columns().unwrap()[0].state, icecap_cache::ColumnState::Damaged(_)));
}

#[test]
fn a_manifest_that_is_not_what_was_written() {
    let (scratch, cache) = column();
    let path = scratch.column().join("column.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let digest = manifest["digest"].as_str().unwrap();
    // White space and the order of members mean nothing.
    std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    cache.column("avgpool").unwrap();
    for (one, other) in [(r#""test": true"#, r#""test": null"#), (digest, "7"), (&format!("\"{digest}\""), "7")] {
        std::fs::write(&path, text.replace(one, other)).unwrap();
        let error = cache.column("avgpool").unwrap_err();
        assert!(matches!(error, CacheError::Manifest(ManifestError::Digest { .. })), "{error}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(tidy(&scratch, error).lines().last().unwrap(), @"hint: put the file back from a copy, or drop the column and encode it again");
        }
    }
}

#[test]
fn a_later_format() {
    insta::assert_snapshot!(with_manifest(|m| m["format"] = json!(3)), @r"
    the manifest `avgpool-KEY8/column.json` is of format `3`, and this program reads up to `2`
    hint: use a newer icecap
    ");
}

#[test]
fn more_than_its_format_has() {
    let i8 = json!([{"name": "embedding", "dtype": "i8", "row_shape": [10]}, {"name": "scale", "dtype": "f32", "row_shape": []}]);
    insta::assert_snapshot!(with_manifest(|m| m["column"]["tensors"] = i8), @r"
    the manifest `avgpool-KEY8/column.json` is of format `1` and describes a column of format `2`
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn an_impossible_plan() {
    insta::assert_snapshot!(with_manifest(|m| m["column"]["rows_per_shard"] = json!(0)), @r"
    the manifest `avgpool-KEY8/column.json` describes an impossible column
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
    with_manifest(|m| m["column"]["tensors"][0]["row_shape"] = json!([u64::MAX, 2]));
    with_manifest(|m| m["column"]["key_digest"] = json!("xyz"));
}

#[test]
fn a_folder_of_another_column() {
    let (scratch, cache) = column();
    let other = scratch.column().with_file_name("other-01234567");
    std::fs::rename(scratch.column(), &other).unwrap();
    let error = cache.column("other").unwrap_err();
    insta::assert_snapshot!(tidy(&scratch, error), @r"
    the manifest `other-01234567/column.json` is of column `avgpool-KEY8`
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn more_or_fewer_shards_than_rows() {
    insta::assert_snapshot!(with_manifest(|m| m["column"]["rows"] = json!(u32::MAX)), @r"
    the manifest `avgpool-KEY8/column.json` lists 2 shards where its rows need 357913942
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
    insta::assert_snapshot!(with_manifest(|m| m["shards"] = json!([])), @r"
    the manifest `avgpool-KEY8/column.json` lists 0 shards where its rows need 2
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn a_shard_of_another_number_of_rows() {
    insta::assert_snapshot!(with_manifest(|m| m["shards"][1]["rows"] = json!(6)), @r"
    the manifest `avgpool-KEY8/column.json` gives shard `00001.safetensors` 6 rows where it has 5
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn a_file_name_that_leads_elsewhere() {
    insta::assert_snapshot!(with_manifest(|m| m["shards"][1]["file"] = json!("../../secret")), @r"
    the manifest `avgpool-KEY8/column.json` names `../../secret`, which is not a plain file name of its folder
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
    with_manifest(|m| m["missing"]["file"] = json!("/etc/passwd"));
    with_manifest(|m| m["shards"][0]["file"] = json!("a/"));
}

#[test]
fn too_few_chunk_digests() {
    insta::assert_snapshot!(with_manifest(|m| m["shards"][0]["chunks"] = json!([])), @r"
    the manifest `avgpool-KEY8/column.json` has 0 chunk digests for `00000.safetensors` where its rows need 1
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn another_count_of_missing_rows() {
    insta::assert_snapshot!(with_manifest(|m| m["missing"]["count"] = json!(1000)), @r"
    `avgpool-KEY8/column.json` counts 1000 missing rows, and 1 are listed
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn a_list_that_is_not_what_the_shards_say() {
    let (scratch, cache) = column();
    let path = scratch.column().join("missing.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let mut line: Value = serde_json::from_str(first).unwrap();
    line["reason"] = json!("timeout");
    std::fs::write(&path, format!("{line}\n{rest}")).unwrap();
    let error = cache.column("avgpool").unwrap_err();
    assert!(matches!(error, CacheError::Manifest(ManifestError::MissingStatus { .. })), "{error}");
}

#[test]
fn no_list_of_missing_rows() {
    let (scratch, cache) = column();
    std::fs::remove_file(scratch.column().join("missing.jsonl")).unwrap();
    insta::assert_snapshot!(tidy(&scratch, cache.column("avgpool").unwrap_err()), @"cannot read `avgpool-KEY8/missing.jsonl`");
}

/// The error of a column one of whose shards `change` has changed.
fn with_shard(change: impl FnOnce(&mut Vec<u8>)) -> (String, CacheError) {
    let (scratch, cache) = column();
    let path = scratch.column().join("00001.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let error = cache.column("avgpool").unwrap_err();
    (tidy(&scratch, &error), error)
}

#[test]
fn a_shard_of_another_size() {
    let (text, error) = with_shard(|bytes| bytes.truncate(bytes.len() - 1));
    assert!(matches!(error, CacheError::Shard(ShardError::Size { .. })));
    insta::assert_snapshot!(text, @r"
    shard `avgpool-KEY8/00001.safetensors` has 642 bytes where 643 are recorded
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
    assert!(matches!(with_shard(Vec::clear).1, CacheError::Shard(ShardError::Size { found: 0, .. })));
}

#[test]
fn a_shard_with_a_damaged_header() {
    let (_, error) = with_shard(|bytes| bytes[20] = 0xff);
    assert!(matches!(error, CacheError::Shard(ShardError::Header { .. })), "{error}");
}

#[test]
fn a_status_that_means_nothing() {
    let (text, _) = with_shard(|bytes| *bytes.last_mut().unwrap() = 77);
    insta::assert_snapshot!(text, @r"
    row `16` in shard `avgpool-KEY8/00001.safetensors` has the unknown status `77`
    hint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again
    ");
}

#[test]
fn a_shard_in_the_place_of_another() {
    let (scratch, images) = (Scratch::new(), Images::new(24));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    let path = |file: &str| scratch.column().join(file);
    std::fs::rename(path("00000.safetensors"), path("x")).unwrap();
    std::fs::rename(path("00001.safetensors"), path("00000.safetensors")).unwrap();
    std::fs::rename(path("x"), path("00001.safetensors")).unwrap();
    let error = cache.column("avgpool").unwrap_err();
    assert!(matches!(error, CacheError::Shard(ShardError::Size { .. } | ShardError::Identity { .. })), "{error}");
}

#[test]
fn a_shard_that_is_gone() {
    let (scratch, cache) = column();
    std::fs::remove_file(scratch.column().join("00000.safetensors")).unwrap();
    insta::assert_snapshot!(tidy(&scratch, cache.column("avgpool").unwrap_err()), @"cannot open `avgpool-KEY8/00000.safetensors`");
}

#[test]
fn rows_outside_the_column_are_none() {
    let (_scratch, cache) = column();
    let reader = cache.column("avgpool").unwrap();
    for row in [17, 24, u32::MAX] {
        assert_eq!(reader.row(row), None);
        assert!(!reader.is_present(row) && !reader.is_known(row) && reader.missing(row).is_none());
        assert_eq!(reader.content(row), None);
        reader.prefetch_rows(&[row]);
    }
    assert_eq!(reader.row_of(2, 0), None);
    assert_eq!((reader.tensor("boxes"), reader.tensor("status")), (Some(1), None));
}

#[test]
#[should_panic = "row `17` is outside of column `avgpool` of 17 rows"]
fn gathering_a_row_outside_panics() {
    column().1.column("avgpool").unwrap().gather(&[17], &mut [0; 10]);
}

#[test]
#[should_panic = "must have `10` bytes for each of 2 rows"]
fn gathering_into_the_wrong_room_panics() {
    column().1.column("avgpool").unwrap().gather(&[0, 1], &mut [0; 10]);
}

#[test]
fn gathering_much_is_gathering_each() {
    let (scratch, images) = (Scratch::new(), Images::new(100));
    let cache = scratch.cache(&images);
    let mut spec = spec();
    spec.tensors[0].row_shape = vec![777];
    write(&cache, &images, &spec);
    let reader = cache.column("avgpool").unwrap();
    let rows: Vec<u32> = (0..2000).map(|at| at * 37 % 100).collect();
    let mut out = vec![1; rows.len() * 1554];
    let missing = reader.gather(&rows, &mut out);
    assert!(missing.len() > 100 && missing.is_sorted());
    for (at, (row, bytes)) in rows.iter().zip(out.chunks_exact(1554)).enumerate() {
        assert_eq!(missing.binary_search(&at).is_ok(), reader.row(*row).is_none());
        assert!(bytes == reader.row(*row).unwrap_or(&[0; 1554]), "position {at}");
    }
    let mut boxes = vec![1; 24];
    reader.advise_random();
    reader.prefetch_rows(&[3, 4, 99]);
    reader.gather_of(1, &[3, 99], &mut boxes);
    assert_eq!(&boxes[..12], reader.row_of(1, 3).unwrap_or(&[0; 12]));
}

#[test]
fn readers_go_on_while_a_column_is_replaced() {
    let (scratch, mut images) = (Scratch::new(), Images::new(30));
    write(&scratch.cache(&images), &images, &spec());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let done = |stop: &std::sync::atomic::AtomicBool| stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let readers = scope.spawn(|| {
            let mut opened = 0;
            while !done(&stop) || opened == 0 {
                let cache = Cache::open(scratch.path()).unwrap();
                let reader = cache.column("avgpool").unwrap();
                assert_eq!(reader.len(), 30);
                opened += 1;
            }
            opened
        });
        for version in 1..15 {
            images.versions.iter_mut().for_each(|own| *own = version);
            write(&scratch.cache(&images), &images, &spec());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(readers.join().unwrap() > 0);
    });
    assert!(Path::new(&scratch.column()).join("00000.g14.safetensors").exists());
}
