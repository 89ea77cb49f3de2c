//! The digest of the row index: found where it is wrong, and never where a crash came between two files.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use icecap_cache::{Cache, RowRecord, RowsDiff, RowsVerdict};

use crate::common::*;

const CHILD: &str = "ICECAP_INDEX_CHILD";

fn flip(path: &std::path::Path, text: &str) {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is there");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at + text.len() - 1] ^ 1], (at + text.len() - 1) as u64).unwrap();
}

/// What the manifest of the cache says of its rows.
fn digests(scratch: &Scratch) -> usize {
    let text = std::fs::read(scratch.path().join("cache.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
    file["rows_digests"].as_array().map_or(0, Vec::len)
}

fn captioned(images: &Images) -> Vec<RowRecord> {
    images.records().into_iter().map(|row| RowRecord { captions: vec!["a red dog".to_owned()], ..row }).collect()
}

#[test]
fn a_flipped_bit_in_a_caption_is_found_and_mended_by_the_data_set() {
    let (scratch, images) = (Scratch::new(), Images::new(20));
    let mut cache = scratch.cache(&images);
    cache.sync_rows(captioned(&images)).unwrap();
    write(&cache, &images, &spec());
    cache.adopt_contents("avgpool").unwrap();
    assert_eq!((cache.verify_rows().unwrap(), digests(&scratch)), (RowsVerdict::Sound, 1));
    flip(&scratch.path().join("rows.jsonl"), "a red d");
    let mut cache = Cache::open(scratch.path()).unwrap();
    assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Damaged);
    // Nothing blesses it on the way.
    assert_eq!(cache.adopt_contents("avgpool").unwrap(), 0);
    assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Damaged);
    let diff = cache.sync_rows(captioned(&images)).unwrap();
    assert_eq!((diff.doubted, diff.recaptioned.len(), diff.changed.len()), (true, 1, 0));
    assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Sound);
    assert_eq!(cache.sync_rows(captioned(&images)).unwrap(), RowsDiff::default());
}

#[test]
fn a_flipped_content_hash_costs_no_embedding() {
    let (scratch, images) = (Scratch::new(), Images { missing_every: 0, ..Images::new(20) });
    let unhashed: Vec<RowRecord> = images.records().into_iter().map(|row| RowRecord { content: None, ..row }).collect();
    let mut cache = scratch.cache(&Images::new(0));
    cache.sync_rows(unhashed.clone()).unwrap();
    write(&cache, &images, &spec());
    assert_eq!(cache.adopt_contents("avgpool").unwrap(), 20);
    flip(&scratch.path().join("rows.jsonl"), "\"content\":\"0");
    let mut cache = Cache::open(scratch.path()).unwrap();
    assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Damaged);
    assert!(cache.sync_rows(unhashed).unwrap().doubted);
    // What the columns know is as good as what the index knew.
    assert!(cache.writer(&spec(), icecap_cache::Overwrite::No).unwrap().todo_batches().is_empty());
    assert_eq!(cache.adopt_contents("avgpool").unwrap(), 20);
    assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Sound);
}

#[test]
fn a_cache_from_before_has_its_digest_after_the_next_sync() {
    let (scratch, images) = (Scratch::new(), Images::new(20));
    let mut cache = scratch.cache(&images);
    std::fs::write(scratch.path().join("cache.json"), r#"{"format": 1, "dataset": 7, "of_later": [1]}"#).unwrap();
    assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Unknown);
    assert_eq!(cache.sync_rows(images.records()).unwrap(), RowsDiff::default());
    assert_eq!((cache.verify_rows().unwrap(), digests(&scratch)), (RowsVerdict::Sound, 1));
    let text = std::fs::read_to_string(scratch.path().join("cache.json")).unwrap();
    assert!(text.contains("\"dataset\": 7") && text.contains("\"of_later\": ["), "{text}");
}

/// Not a test: what the parent starts and kills.
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else {
        return;
    };
    let (images, mut cache) = (Images::new(50), Cache::open(PathBuf::from(folder)).unwrap());
    loop {
        cache.sync_rows(captioned(&images)).unwrap();
        cache.sync_rows(images.records()).unwrap();
    }
}

#[test]
fn a_kill_between_the_two_files_is_no_damage() {
    let (scratch, images) = (Scratch::new(), Images::new(50));
    let mut cache = scratch.cache(&images);
    let (mut between, mut children) = (0, 0);
    while children < 12 || between == 0 && children < 200 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "index::child", "--nocapture", "--test-threads=1"]).env(CHILD, scratch.path());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + 1_371 * children));
        // Another process may look at any time.
        assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Sound);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(cache.verify_rows().unwrap(), RowsVerdict::Sound);
        between += usize::from(digests(&scratch) > 1);
        children += 1;
    }
    assert!(between > 0, "no kill came between");
    assert!(!cache.sync_rows(images.records()).unwrap().doubted);
    assert_eq!(digests(&scratch), 1);
}
