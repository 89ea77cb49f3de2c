//! A column's provenance lists who wrote its rows.

use icecap_cache::{Cache, ColumnSpec, Manifest, Overwrite};
use serde_json::{Value, json};

use crate::common::*;

fn by(writer: &str) -> ColumnSpec {
    spec().with_provenance(json!({"by": writer})).with_writer(writer.into())
}

fn writers(manifest: &Manifest) -> Value {
    manifest.provenance["writers"].clone()
}

/// Commits this many batches and is broken off.
fn begin(cache: &Cache, images: &Images, writer: &str, batches: usize) -> Vec<Value> {
    let column = cache.writer(&by(writer), Overwrite::No).unwrap();
    column.todo_batches().iter().take(batches).for_each(|batch| compute(&column, images, batch));
    column.flush().unwrap();
    column.writers_before().to_vec()
}

#[test]
fn one_who_wrote_it_all_is_the_only_one() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    begin(&cache, &images, "cpu", 2);
    assert_eq!(writers(&write(&cache, &images, &by("cpu"))), json!(["cpu"]));
    // Nothing is to do, and nobody comes to the list by looking.
    assert_eq!(writers(&write(&cache, &images, &by("gpu"))), json!(["cpu"]));
}

#[test]
fn those_who_went_on_are_listed_and_those_who_wrote_nothing_are_not() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    assert!(begin(&cache, &images, "none", 0).is_empty());
    assert!(begin(&cache, &images, "cpu", 5).is_empty());
    assert_eq!(begin(&cache, &images, "idle", 0), ["cpu"]);
    assert_eq!(begin(&cache, &images, "gpu", 1), ["cpu"]);
    assert_eq!(begin(&cache, &images, "cpu", 1), ["cpu", "gpu"]);
    assert_eq!(writers(&write(&cache, &images, &by("new"))), json!(["cpu", "gpu", "new"]));
}

#[test]
fn what_comes_later_adds_to_the_list_and_an_old_column_stands_for_its_writer() {
    let (scratch, mut images) = (Scratch::new(), Images::new(20));
    write(&scratch.cache(&images), &images, &spec().with_provenance(json!({"device": "cpu"})));
    images.versions.extend([0; 5]);
    let manifest = write(&scratch.cache(&images), &images, &by("gpu"));
    assert_eq!(writers(&manifest), json!([{"device": "cpu"}, "gpu"]));
    images.versions.extend([0; 5]);
    assert_eq!(writers(&write(&scratch.cache(&images), &images, &by("gpu"))), json!([{"device": "cpu"}, "gpu"]));
}

#[test]
fn a_broken_off_column_of_before_has_an_unknown_writer() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let column = cache.writer(&spec(), Overwrite::No).unwrap();
    compute(&column, &images, &column.todo_batches()[0].clone());
    column.flush().unwrap();
    drop(column);
    assert_eq!(writers(&write(&cache, &images, &by("cpu"))), json!([null, "cpu"]));
}
