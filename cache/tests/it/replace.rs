//! A column in the place of another: what goes, what stays, and what is refused before anything is touched.

use icecap_cache::{Cache, CacheError, ColumnSpec, ColumnState, Key, Overwrite};

use crate::common::*;

fn other_key() -> ColumnSpec {
    ColumnSpec { key: Key::new().with("tensor", "layer4"), ..spec() }
}

fn named(name: &str, spec: ColumnSpec) -> ColumnSpec {
    ColumnSpec { name: name.to_owned(), ..spec }
}

fn names(cache: &Cache) -> Vec<String> {
    cache.columns().unwrap().into_iter().map(|column| column.name).collect()
}

#[test]
fn overwriting_takes_up_a_column_of_the_same_key() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::Yes).unwrap();
    writer.todo_batches().iter().take(6).for_each(|batch| compute(&writer, &images, batch));
    drop(writer);
    let writer = cache.writer(&spec(), Overwrite::Yes).unwrap();
    assert_eq!(writer.progress().todo, 41 - 18, "rows that were done are done again");
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    writer.finish().unwrap();
    let before = files(&scratch.column());
    let mut usual = spec();
    usual.rows_per_shard = None;
    assert!(cache.writer(&usual, Overwrite::Yes).unwrap().todo_batches().is_empty());
    assert_eq!(files(&scratch.column()), before);
}

#[test]
fn overwriting_replaces_another_layout_of_the_same_key() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    // Five do not divide the twelve rows a shard that the column has.
    let mut fives = spec().with_batch_rows(5);
    fives.rows_per_shard = None;
    let refused = cache.writer(&fives, Overwrite::No).unwrap_err();
    assert!(matches!(refused, CacheError::LayoutDiffers { field: "number of rows a batch", .. }), "{refused}");
    let writer = cache.writer(&fives, Overwrite::Yes).unwrap();
    assert_eq!((writer.progress().todo, writer.plan().batch_rows), (41, 5));
}

#[test]
fn overwriting_replaces_what_cannot_be_read() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    for file in ["column.json", "journal"] {
        write(&cache, &images, &spec());
        std::fs::write(scratch.column().join(file), "{").unwrap();
        assert!(matches!(cache.columns().unwrap()[0].state, ColumnState::Damaged(_)));
        assert!(cache.writer(&spec(), Overwrite::No).is_err());
        let writer = cache.writer(&spec(), Overwrite::Yes).unwrap();
        assert_eq!(writer.progress().todo, 4);
        drop(writer);
    }
}

#[test]
fn overwriting_is_no_way_around_a_shorter_index() {
    let (scratch, images) = (Scratch::new(), Images::new(13));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    std::fs::write(scratch.path().join("rows.jsonl"), "").unwrap();
    let cache = Cache::open(scratch.path()).unwrap();
    assert!(matches!(cache.writer(&spec(), Overwrite::Yes), Err(CacheError::RowsShrank { .. })));
    assert!(scratch.column().join("column.json").exists(), "the column went though its rows may come back");
}

#[test]
fn a_column_without_rows_is_no_obstacle() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    drop(cache.writer(&spec(), Overwrite::No).unwrap());
    drop(cache.writer(&spec().with_batch_rows(4), Overwrite::No).unwrap());
    drop(cache.writer(&other_key(), Overwrite::No).unwrap());
    assert_eq!(names(&cache), ["avgpool"]);
    let writer = cache.writer(&other_key(), Overwrite::No).unwrap();
    compute(&writer, &images, &writer.todo_batches()[0].clone());
    drop(writer);
    assert!(matches!(cache.writer(&spec(), Overwrite::No), Err(CacheError::KeyDiffers { .. })));
}

#[test]
fn one_refusal_refuses_all_and_leaves_everything_as_it_was() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    write(&cache, &images, &named("b", spec()));
    let refused = cache.writers(&[named("a", spec()), named("b", other_key())], Overwrite::No);
    assert!(matches!(refused, Err(CacheError::KeyDiffers { .. })), "{refused:?}");
    assert_eq!(names(&cache), ["b"], "a column was begun though another was refused");

    let busy = cache.writer(&named("c", spec()), Overwrite::No).unwrap();
    for last in [named("c", spec()), named("c", other_key())] {
        let refused = cache.writers(&[named("b", other_key()), last], Overwrite::Yes);
        assert!(matches!(refused, Err(CacheError::Busy { .. })), "{refused:?}");
        assert_eq!(cache.column("b").unwrap().key(), &spec().key, "a column was dropped though another was refused");
    }
    drop(busy);
    let writers = cache.writers(&[named("b", other_key()), named("c", spec())], Overwrite::Yes).unwrap();
    assert_eq!(writers.iter().map(|writer| writer.progress().todo).collect::<Vec<_>>(), [4, 4]);
}
