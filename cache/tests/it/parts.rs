//! Parts of a column in caches of their own, and what joins them: the bytes of one run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use icecap_cache::{Cache, CacheError, ColumnSpec, ColumnState, MergeError, Overwrite, Part};
use proptest::prelude::*;

use crate::common::*;

/// A folder with a cache for each part, the whole and the result.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes part `index` of `of` and returns its cache's folder.
    fn part(&self, images: &Images, spec: &ColumnSpec, index: u32, of: u32) -> PathBuf {
        let path = self.path(&format!("part-{index}-of-{of}"));
        let cache = &mut cache_in(&path, images);
        write(cache, images, &spec.clone().with_part(Some(Part { index, of })));
        cache.adopt_contents("avgpool").unwrap();
        path
    }

    fn parts(&self, images: &Images, spec: &ColumnSpec, of: u32) -> Vec<PathBuf> {
        (1..=of).map(|index| self.part(images, spec, index, of)).collect()
    }

    /// The column written by one run.
    fn whole(&self, images: &Images, spec: &ColumnSpec) -> PathBuf {
        let path = self.path("whole");
        let cache = &mut cache_in(&path, images);
        write(cache, images, spec);
        cache.adopt_contents("avgpool").unwrap();
        path
    }

    fn merge(&self, parts: &[PathBuf]) -> Result<icecap_cache::MergeReport, CacheError> {
        Cache::merge(self.path("merged"), parts, &|_| ())
    }

    fn refused(&self, parts: &[PathBuf]) -> String {
        self.anonymous(self.merge(parts).unwrap_err())
    }

    #[expect(clippy::needless_pass_by_value, reason = "errors are handed over as they come")]
    fn anonymous(&self, text: impl ToString) -> String {
        text.to_string().replace(self.0.path().to_str().unwrap(), "DIR")
    }
}

/// All files of a cache below `path`, but locks.
fn tree(path: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = files(path).into_iter().collect();
    for column in std::fs::read_dir(path.join("columns")).unwrap() {
        let column = column.unwrap().path();
        let name = column.file_name().unwrap().to_string_lossy().into_owned();
        found.extend(files(&column).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
    }
    found
}

fn assert_same_cache(one: &std::path::Path, two: &std::path::Path) {
    let names = |tree: &[(String, Vec<u8>)]| tree.iter().map(|file| file.0.clone()).collect::<Vec<_>>();
    let (one, two) = (tree(one), tree(two));
    assert_eq!(names(&one), names(&two));
    for ((name, bytes), (_, others)) in one.iter().zip(&two) {
        assert!(bytes == others, "`{name}` differs");
    }
}

/// As many as PROPTEST_CASES says, else a few: each makes up to eight caches.
fn cases(few: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), ..ProptestConfig::default() })]

    #[test]
    fn merged_parts_are_the_cache_of_one_run(
        rows in 0u32..60, batch in 1u32..5, batches in 1u32..5, of in 1u32..7, missing_every in 0u64..5, hashed: bool, shuffle: u64,
    ) {
        let images = Images { missing_every, hashed, ..Images::new(rows) };
        let spec = spec().with_batch_rows(batch).with_rows_per_shard(batch * batches);
        let place = Place::new();
        let whole = place.whole(&images, &spec);
        let mut parts = place.parts(&images, &spec, of);
        parts.rotate_left(shuffle as usize % of as usize);
        let report = place.merge(&parts).unwrap();
        prop_assert_eq!(report.rows, rows);
        let linked: usize = report.columns.iter().map(|column| column.linked + column.copied).sum();
        prop_assert_eq!(linked, rows.div_ceil(batch * batches) as usize);
        assert_same_cache(&whole, &place.path("merged"));
    }
}

#[test]
fn a_crash_at_any_shard_leaves_no_column_and_the_next_merge_makes_it() {
    let images = Images::new(45);
    let place = Place::new();
    let whole = place.whole(&images, &spec());
    let parts = place.parts(&images, &spec(), 3);
    for crash in 0..4 {
        let out = place.path(&format!("crash-{crash}"));
        let placed = AtomicU32::new(0);
        let tick = |_| assert!(placed.fetch_add(1, Ordering::Relaxed) < crash, "the plug is pulled");
        assert!(catch_unwind(AssertUnwindSafe(|| Cache::merge(&out, &parts, &tick))).is_err());
        assert!(Cache::open(&out).unwrap().columns().unwrap().is_empty(), "half a column is none");
        // What a crash can leave beside: a link without its name, and one in its place.
        let column = out.join("columns").join(spec().name + "-" + &spec().key.short());
        std::fs::write(column.join("00003.safetensors.tmp"), "half").unwrap();
        let _ = std::fs::remove_file(column.join("00002.safetensors"));
        std::fs::write(column.join("00002.safetensors"), "from elsewhere").unwrap();
        Cache::merge(&out, &parts, &|_| ()).unwrap();
        assert_same_cache(&whole, &out);
        // Once more is no work and no harm.
        let again = Cache::merge(&out, &parts, &|_| ()).unwrap();
        assert_eq!((again.columns[0].linked, again.columns[0].copied), (0, 0));
        assert_same_cache(&whole, &out);
    }
    // The parts are as they were.
    for part in &parts {
        assert!(Cache::open(part).unwrap().verify("avgpool", &|_| ()).unwrap().is_sound());
    }
}

#[test]
fn a_part_is_no_column() {
    let images = Images::new(45);
    let place = Place::new();
    let path = place.part(&images, &spec(), 2, 3);
    let cache = Cache::open(&path).unwrap();
    insta::assert_snapshot!(cache.column("avgpool").unwrap_err(), @r"
    column `avgpool` is part 2 of 3 here, not the whole
    hint: `icecap cache merge OUT CACHE...` joins the caches of all parts; encoding without --part does the rest in this one
    ");
    let columns = cache.columns().unwrap();
    let ColumnState::Part(manifest) = &columns[0].state else { panic!("{columns:?}") };
    assert_eq!((manifest.part, manifest.shards.len()), (Some(Part { index: 2, of: 3 }), 1));
    let reader = cache.column_so_far("avgpool").unwrap();
    let known: Vec<u32> = (0..45).filter(|&row| reader.is_known(row)).collect();
    assert_eq!(known, (12..24).collect::<Vec<_>>());
    cache.drop_column("avgpool").unwrap();
    assert!(cache.columns().unwrap().is_empty());
}

#[test]
fn a_manifest_under_the_other_name_is_refused() {
    let place = Place::new();
    let path = place.part(&Images::new(45), &spec(), 2, 3);
    let folder = path.join("columns").join(spec().name + "-" + &spec().key.short());
    std::fs::rename(folder.join("part.json"), folder.join("column.json")).unwrap();
    let error = place.anonymous(Cache::open(&path).unwrap().column("avgpool").unwrap_err());
    insta::assert_snapshot!(error.replace(&spec().key.short(), "KEY8"), @r"
    the manifest `DIR/part-2-of-3/columns/avgpool-KEY8/column.json` belongs in `part.json`: a part is not a column
    hint: it was renamed by hand; `icecap cache merge` makes a column of parts
    ");
}

#[test]
fn a_part_is_resumed_and_the_whole_may_take_it_up() {
    let images = Images::new(45);
    let place = Place::new();
    let whole = place.whole(&images, &spec());
    let path = place.path("cache");
    let cache = &mut cache_in(&path, &images);
    let part = |index, of| spec().with_part(Some(Part { index, of }));
    {
        let writer = cache.writer(&part(1, 2), Overwrite::No).unwrap();
        assert_eq!((writer.progress().rows, writer.progress().todo), (24, 24));
        compute(&writer, &images, &writer.todo_batches()[0]);
        compute(&writer, &images, &writer.todo_batches()[5]);
    }
    let ColumnState::Unfinished(unfinished) = cache.columns().unwrap().remove(0).state else {
        panic!("it is not finished")
    };
    assert_eq!((unfinished.part, unfinished.rows, unfinished.rows_done), (Some(Part { index: 1, of: 2 }), 24, 6));
    let refused = cache.writer(&part(2, 2), Overwrite::No).unwrap_err();
    insta::assert_snapshot!(place.anonymous(refused).replace(&spec().key.short(), "KEY8"), @r"
    column `avgpool` in `DIR/cache/columns/avgpool-KEY8` is part 1 of 2, and part 2 of 2 is asked for
    hint: give each part a cache of its own; `icecap cache merge` joins them
    ");
    assert_eq!(cache.writer(&part(1, 2), Overwrite::No).unwrap().progress().todo, 18);
    write(cache, &images, &part(1, 2));
    let idle = cache.writer(&part(1, 2), Overwrite::No).unwrap();
    assert_eq!(idle.progress().todo, 0);
    idle.finish().unwrap();
    // The rest, in the same cache.
    assert_eq!(cache.writer(&spec(), Overwrite::No).unwrap().progress().todo, 21);
    let manifest = write(cache, &images, &spec());
    cache.adopt_contents("avgpool").unwrap();
    check_reader(cache, &images);
    let folder = |cache: &std::path::Path| cache.join("columns").join(manifest.folder());
    let one = Cache::open(&whole).unwrap().column("avgpool").unwrap().manifest().unwrap().clone();
    assert_eq!(column_bytes(&folder(&path), &manifest), column_bytes(&folder(&whole), &one));
    assert!(!folder(&path).join("part.json").exists());
    let refused = cache.writer(&part(1, 2), Overwrite::No).unwrap_err();
    insta::assert_snapshot!(place.anonymous(refused).replace(&spec().key.short(), "KEY8"), @r"
    column `avgpool` in `DIR/cache/columns/avgpool-KEY8` is whole, or on its way to be, and part 1 of 2 is asked for
    hint: give each part a cache of its own; `icecap cache merge` joins them
    ");
}

#[test]
fn what_does_not_make_one_column_is_refused() {
    let images = Images::new(45);
    let place = Place::new();
    let parts = place.parts(&images, &spec(), 3);
    insta::assert_snapshot!(place.refused(&parts[..1]), @r"
    no cache has rows 12 to 44 of column `avgpool`: they are part 2 of 3, part 3 of 3
    hint: name the caches of all parts
    ");
    let twice = [&parts[..], &parts[1..2]].concat();
    insta::assert_snapshot!(place.refused(&twice), @r"
    rows 12 to 23 of column `avgpool` are in `DIR/part-2-of-3` and in `DIR/part-2-of-3`
    hint: name each part once
    ");
    let other = place.path("other-rows");
    let fewer = Images::new(44);
    write(&cache_in(&other, &fewer), &fewer, &spec().with_part(Some(Part { index: 3, of: 3 })));
    insta::assert_snapshot!(place.refused(&[parts[0].clone(), other]), @r"
    `DIR/part-1-of-3` and `DIR/other-rows` are caches of different rows: row `44` differs in its number of rows
    hint: parts must be encoded from the same recipe and the same data set
    ");
    let changed = Images { versions: vec![1; 45], ..images.clone() };
    let other = Place::new();
    let foreign = other.part(&changed, &spec(), 2, 3);
    assert!(matches!(
        place.merge(&[parts[0].clone(), foreign]),
        Err(CacheError::Merge(MergeError::Rows { row: 0, what: "content hash", .. }))
    ));
    let other = Place::new();
    let mut layer3 = spec();
    layer3.key.set("tensor", "layer3");
    let foreign = other.part(&images, &layer3, 2, 3);
    let error = place.merge(&[parts[0].clone(), foreign]).unwrap_err();
    insta::assert_snapshot!(place.anonymous(other.anonymous(error).replace("DIR/part-2", "OTHER/part-2")), @r#"
    column `avgpool` of `OTHER/part-2-of-3` has another key than that of `DIR/part-1-of-3`:
      `tensor`: expected `"avgpool"`, found `"layer3"`
    hint: parts must be encoded by the same recipe and the same model
    "#);
    let other = Place::new();
    let foreign = other.part(&images, &spec().with_rows_per_shard(6), 2, 3);
    let error = place.merge(&[parts[0].clone(), foreign]).unwrap_err();
    insta::assert_snapshot!(place.anonymous(other.anonymous(error).replace("DIR/part-2", "OTHER/part-2")), @r"
    column `avgpool` of `OTHER/part-2-of-3` has another number of rows a shard than that of `DIR/part-1-of-3`: expected `12`, found `6`
    hint: encode the part again with the same options as the others
    ");
    let half = place.path("half");
    drop(cache_in(&half, &images).writer(&spec().with_part(Some(Part { index: 2, of: 3 })), Overwrite::No).unwrap());
    insta::assert_snapshot!(place.refused(&[parts[0].clone(), half]), @r"
    column `avgpool` of `DIR/half` is not finished: 0 of 12 rows are there
    hint: run its `icecap encode --part` again: it resumes
    ");
    insta::assert_snapshot!(place.anonymous(Cache::merge(&parts[0], &parts, &|_| ()).unwrap_err()), @r"
    `DIR/part-1-of-3` is to be made of itself
    hint: name a new folder for the result
    ");
    cache_in(&place.path("empty"), &images);
    insta::assert_snapshot!(place.refused(&[place.path("empty")]), @"there is no column to merge in `DIR/empty`");
    assert!(!place.path("merged").exists(), "nothing is made before all is checked");
    write(&cache_in(&place.path("merged"), &images), &images, &layer3);
    insta::assert_snapshot!(place.refused(&parts), @r"
    `DIR/merged` has a column `avgpool` that is not the one to be made
    hint: `icecap cache drop DIR/merged avgpool`, or name a new folder for the result
    ");
}

#[test]
fn parts_of_different_machines_keep_all_their_provenance() {
    let images = Images::new(45);
    let place = Place::new();
    let on = |host: &str| spec().with_provenance(serde_json::json!({"host": host}));
    let parts = [place.part(&images, &on("a"), 1, 2), place.part(&images, &on("b"), 2, 2)];
    let report = place.merge(&parts).unwrap();
    insta::assert_snapshot!(report.columns[0].manifest.provenance, @r#"{"host":"a","parts":[{"host":"a"},{"host":"b"}]}"#);
}

#[test]
fn those_who_wrote_the_parts_are_those_who_wrote_the_column() {
    let images = Images::new(45);
    let place = Place::new();
    let on = |host: &str| spec().with_provenance(serde_json::json!({"host": host})).with_writer(host.into());
    let parts = [1, 2, 3].map(|part| place.part(&images, &on(["a", "b", "a"][part as usize - 1]), part, 3));
    let report = place.merge(&parts).unwrap();
    assert_eq!(report.columns[0].manifest.provenance["writers"], serde_json::json!(["a", "b"]));
    assert_eq!(Cache::open(place.path("merged")).unwrap().verify_rows().unwrap(), icecap_cache::RowsVerdict::Sound);
}
