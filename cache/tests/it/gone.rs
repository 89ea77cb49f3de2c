//! Rows that the data set no longer holds, and what becomes of them when it does again.

use icecap_cache::{Cache, ColumnWriter, Overwrite, Reason, RowOutcome};

use crate::common::*;

/// The cache, without row 3.
fn without_row_3(scratch: &Scratch, images: &Images) -> Cache {
    let mut cache = Cache::open(scratch.path()).unwrap();
    let mut records = images.records();
    records.remove(3);
    cache.sync_rows(records).unwrap();
    assert!(cache.rows().is_gone(3));
    cache
}

/// Writes what is to do; a row that is gone cannot be tried.
fn write_what_is_held(writer: &ColumnWriter, cache: &Cache, images: &Images) {
    for batch in writer.todo_batches() {
        if !batch.rows.iter().any(|&row| cache.rows().is_gone(row)) {
            compute(writer, images, batch);
            continue;
        }
        let mut slot = writer.slot(batch).unwrap();
        let mut outcomes = Vec::new();
        for &row in &batch.rows {
            for (tensor, spec) in writer.plan().tensors.iter().enumerate() {
                slot.row_mut(tensor, row).unwrap().copy_from_slice(&images.bytes(row, tensor, spec.row_bytes()));
            }
            let lost = RowOutcome::Missing { reason: Reason::NotFound, detail: String::new(), content: None };
            outcomes.push(if cache.rows().is_gone(row) { lost } else { images.outcome(row) });
        }
        writer.commit(slot, &outcomes).unwrap();
    }
}

fn todo(cache: &Cache, retry: bool) -> Vec<u32> {
    let writer = cache.writer(&spec().retrying_missing(retry), Overwrite::No).unwrap();
    writer.todo_batches().iter().flat_map(|batch| batch.rows.clone()).collect()
}

#[test]
fn a_row_that_is_gone_does_not_count_as_missing() {
    let (scratch, images) = (Scratch::new(), Images { missing_every: 0, ..Images::new(10) });
    scratch.cache(&images);
    let cache = without_row_3(&scratch, &images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert_eq!(writer.rows_held(), 9);
    write_what_is_held(&writer, &cache, &images);
    assert!(writer.missing_by_reason().is_empty(), "{:?}", writer.missing_by_reason());
    assert_eq!(writer.finish().unwrap().missing.count, 1, "the manifest says what the shard holds");
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert!(writer.missing_by_reason().is_empty() && writer.rows_held() == 9);
}

#[test]
fn a_row_that_is_back_is_encoded() {
    for hashed in [true, false] {
        let (scratch, images) = (Scratch::new(), Images { missing_every: 0, hashed, ..Images::new(10) });
        scratch.cache(&images);
        let mut cache = without_row_3(&scratch, &images);
        let writer = cache.writer(&spec(), Overwrite::No).unwrap();
        write_what_is_held(&writer, &cache, &images);
        writer.finish().unwrap();
        cache.adopt_contents("avgpool").unwrap();
        assert_eq!([todo(&cache, false), todo(&cache, true)], [[0; 0]; 2], "a row that is gone is tried for ever");

        let mut records = images.records();
        let needed: Vec<bool> = records.iter().map(|record| cache.rows().needs_content(record)).collect();
        assert_eq!(needed, (0..10).map(|row| !hashed && row == 3).collect::<Vec<_>>());
        let known = Images { hashed: true, ..images.clone() }.records();
        for (record, known) in records.iter_mut().zip(known).filter(|(record, _)| cache.rows().needs_content(record)) {
            record.content = known.content;
        }
        cache.sync_rows(records).unwrap();
        assert_eq!(todo(&cache, false), [3]);
        let manifest = write(&cache, &images, &spec());
        assert_eq!(manifest.missing.count, 0);
        check_reader(&cache, &images);
    }
}

#[test]
fn a_row_that_has_its_embedding_keeps_it_while_it_is_gone() {
    let (scratch, images) = (Scratch::new(), Images { missing_every: 0, ..Images::new(10) });
    write(&scratch.cache(&images), &images, &spec());
    let cache = without_row_3(&scratch, &images);
    assert!(todo(&cache, true).is_empty());
    assert!(cache.column("avgpool").unwrap().is_present(3));
    assert!(todo(&scratch.cache(&images), false).is_empty());
}
