//! Damage is found and named.

use std::os::unix::fs::FileExt;

use icecap_cache::Damage;
use proptest::prelude::*;

use crate::common::*;

fn damage(cache: &icecap_cache::Cache) -> Vec<Damage> {
    cache.verify("avgpool", &|_| ()).unwrap().damage
}

fn show(damage: &[Damage]) -> String {
    damage.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_sound_column_is_sound() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    let read = std::sync::atomic::AtomicU64::new(0);
    let report = cache
        .verify("avgpool", &|bytes| {
            read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
    assert!(report.is_sound());
    assert_eq!((report.shards, report.bytes), (4, manifest.bytes()));
    assert_eq!(read.into_inner(), manifest.bytes());
}

#[test]
fn the_digest_is_that_of_the_file() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let manifest = write(&scratch.cache(&images), &images, &spec());
    for shard in manifest.shards {
        let bytes = std::fs::read(scratch.column().join(&shard.file)).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), shard.digest);
    }
}

/// A column whose chunks are two rows each.
fn big() -> (Scratch, icecap_cache::Cache) {
    let (scratch, images) = (Scratch::new(), Images { missing_every: 0, ..Images::new(17) });
    let cache = scratch.cache(&images);
    let mut spec = spec();
    spec.tensors[0].row_shape = vec![256, 1024];
    let manifest = write(&cache, &images, &spec);
    assert_eq!((manifest.rows_per_chunk, manifest.shards[0].chunks.len()), (1, 12));
    (scratch, cache)
}

#[test]
fn a_flipped_bit_is_found_in_its_row() {
    let (scratch, cache) = big();
    let file = std::fs::File::options().write(true).open(scratch.column().join("00001.safetensors")).unwrap();
    let start = file.metadata().unwrap().len() - 5 * (256 * 1024 * 2 + 17);
    file.write_all_at(b"x", start + 3 * 256 * 1024 * 2 + 12345).unwrap();
    insta::assert_snapshot!(show(&damage(&cache)), @"`00001.safetensors`: row 15");
}

#[test]
fn files_gone_cut_or_of_another_header_are_named() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    let path = |file: &str| scratch.column().join(file);
    std::fs::remove_file(path("00000.safetensors")).unwrap();
    std::fs::File::options().write(true).open(path("00001.safetensors")).unwrap().set_len(100).unwrap();
    // The same header in other words.
    let bytes = std::fs::read(path("00002.safetensors")).unwrap();
    let (one, other) = (br#""dtype":"F32","shape":[12,3]"#, br#""shape":[12,3],"dtype":"F32""#);
    let at = bytes.windows(one.len()).position(|text| text == one).unwrap();
    let file = std::fs::File::options().write(true).open(path("00002.safetensors")).unwrap();
    file.write_all_at(other, at as u64).unwrap();
    std::fs::write(path("missing.jsonl"), "").unwrap();
    insta::assert_snapshot!(scratch.anonymous(show(&damage(&cache))).replace(&spec().key.short(), "KEY8"), @r"
    `00000.safetensors`: cannot open `DIR/cache/columns/avgpool-KEY8/00000.safetensors`
    `00001.safetensors`: shard `DIR/cache/columns/avgpool-KEY8/00001.safetensors` has 100 bytes where 916 are recorded
    `00002.safetensors`: its header
    `missing.jsonl`: the list of missing rows
    ");
}

#[test]
fn a_manifest_without_a_digest_is_one_of_an_earlier_program() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    let path = scratch.column().join("column.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    assert!(damage(&cache).is_empty());
    assert_eq!(write(&cache, &images, &spec()), manifest, "it is left as it is");
}

/// Every bit of the manifest: a flip is an error, or the manifest says the same as before.
#[test]
fn a_flipped_bit_of_the_manifest_is_found() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    let path = scratch.column().join("column.json");
    let whole = std::fs::read(&path).unwrap();
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let found = cache.column("avgpool").map(|column| column.manifest().cloned());
        assert!(found.is_err() || found.is_ok_and(|found| found.as_ref() == Some(&manifest)), "bit {bit} of byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_flipped_bit_is_found(shard in 0usize..4, place in 0.0..1.0f64, bit in 0u8..8) {
        thread_local! { static COLUMN: (Scratch, icecap_cache::Cache) = {
            let (scratch, images) = (Scratch::new(), Images::new(41));
            let cache = scratch.cache(&images);
            write(&cache, &images, &spec());
            (scratch, cache)
        } }
        COLUMN.with(|(scratch, cache)| {
            let name = format!("{shard:05}.safetensors");
            let path = scratch.column().join(&name);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = (bytes.len() as f64 * place) as usize;
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).unwrap();
            let found = damage(cache);
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].file, &name);
            Ok(())
        })?;
    }
}
