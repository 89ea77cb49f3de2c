//! Writing, resuming, extending and refusing.

use std::os::unix::fs::MetadataExt;

use icecap_cache::{
    Batch, CacheError, ColumnState, Dtype, Key, Overwrite, Reason, Retry, RowOutcome, Unfinished, content_hash,
};

use crate::common::*;

#[test]
fn what_is_written_is_read() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    check_reader(&cache, &images);
    assert_eq!(manifest.shards.iter().map(|shard| shard.rows).collect::<Vec<_>>(), [12, 12, 12, 5]);
    let expected: usize = (0..41).filter(|&row| matches!(images.outcome(row), RowOutcome::Missing { .. })).count();
    assert!(expected > 3);
    assert_eq!(manifest.missing.count as usize, expected);
    assert_eq!(manifest.missing.by_reason.values().sum::<u32>(), manifest.missing.count);
    let names: Vec<String> = files(&scratch.column()).into_keys().collect();
    insta::assert_snapshot!(names.join(" "), @"00000.safetensors 00001.safetensors 00002.safetensors 00003.safetensors column.json missing.jsonl");
}

#[test]
fn a_column_of_no_rows_is_a_column() {
    let (scratch, images) = (Scratch::new(), Images::new(0));
    let cache = scratch.cache(&images);
    assert_eq!(write(&cache, &images, &spec()).shards.len(), 0);
    assert!(cache.column("avgpool").unwrap().is_empty());
}

#[test]
fn threads_do_not_change_the_bytes() {
    let images = Images::new(100);
    let expected = reference(&images, &spec());
    for threads in [2, 5] {
        let scratch = Scratch::new();
        let cache = scratch.cache(&images);
        let writer = cache.writer(&spec(), Overwrite::No).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (writer, images) = (&writer, &images);
                let batches = writer.todo_batches().iter().rev().skip(thread).step_by(threads);
                scope.spawn(move || batches.for_each(|batch| compute(writer, images, batch)));
            }
        });
        let manifest = writer.finish().unwrap();
        assert_eq!(column_bytes(&scratch.column(), &manifest), expected);
    }
}

#[test]
fn a_broken_off_column_is_resumed_with_the_rest() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let batches = writer.todo_batches().to_vec();
    for batch in batches.iter().take(6) {
        compute(&writer, &images, batch);
    }
    writer.flush().unwrap();
    drop(writer);
    assert!(!scratch.column().join("column.json").exists(), "a writer that is dropped published");
    let error = cache.column("avgpool").unwrap_err();
    insta::assert_snapshot!(error, @r"
    column `avgpool` is not finished: 18 of 41 rows are there
    hint: run the command that writes it again: it resumes
    ");
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert_eq!(writer.todo_batches(), &batches[6..]);
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    let manifest = writer.finish().unwrap();
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
}

#[test]
fn finishing_too_early_is_refused_and_loses_nothing() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    compute(&writer, &images, &writer.todo_batches()[0].clone());
    insta::assert_snapshot!(writer.finish().unwrap_err(), @r"
    column `avgpool` cannot be finished: 38 rows are not committed
    hint: run the same command again: it resumes
    ");
    assert_eq!(cache.writer(&spec(), Overwrite::No).unwrap().progress().todo, 38);
}

#[test]
fn nothing_to_do_is_said_and_changes_nothing() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    let before = files(&scratch.column());
    let writer = cache.writer(&spec().with_provenance("other".into()), Overwrite::No).unwrap();
    assert!(writer.todo_batches().is_empty());
    assert_eq!(writer.finish().unwrap(), manifest);
    assert_eq!(files(&scratch.column()), before);
}

#[test]
fn appended_images_are_the_only_ones_to_do() {
    let (scratch, mut images) = (Scratch::new(), Images::new(41));
    let first = write(&scratch.cache(&images), &images, &spec());
    let inode = |file: &str| std::fs::metadata(scratch.column().join(file)).unwrap().ino();
    let kept = inode("00001.safetensors");
    let old_reader = scratch.cache(&images).column("avgpool").unwrap();
    images.versions.extend([0; 10]);
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let rows: Vec<u32> = writer.todo_batches().iter().flat_map(|batch| batch.rows.clone()).collect();
    assert_eq!(rows, (41..51).collect::<Vec<_>>());
    assert_eq!(writer.todo_batches()[0], Batch { start: 39, rows: vec![41] });
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    assert!(matches!(cache.columns().unwrap()[0].state, ColumnState::Extending(..)));
    let manifest = writer.finish().unwrap();
    check_reader(&cache, &images);
    assert_eq!((first.generation, manifest.generation), (0, 1));
    assert_eq!(inode("00001.safetensors"), kept, "a finished shard was written again");
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
    let names: Vec<String> = files(&scratch.column()).into_keys().collect();
    insta::assert_snapshot!(names.join(" "), @"00000.safetensors 00001.safetensors 00002.safetensors 00003.g1.safetensors 00004.safetensors column.json missing.g1.jsonl");
    assert_eq!(old_reader.len(), 41, "a reader keeps what it opened");
    assert!((0..41).all(|row| old_reader.row(row) == cache.column("avgpool").unwrap().row(row)));
}

#[test]
fn changed_images_are_the_only_ones_to_do() {
    let (scratch, mut images) = (Scratch::new(), Images::new(41));
    write(&scratch.cache(&images), &images, &spec());
    images.versions[13] = 1;
    images.versions[14] = 1;
    images.versions[40] = 1;
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let todo = [Batch { start: 12, rows: vec![13, 14] }, Batch { start: 39, rows: vec![40] }];
    assert_eq!(writer.todo_batches(), todo);
    assert_eq!(writer.batch_at(12), Some(&todo[0]));
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    let manifest = writer.finish().unwrap();
    check_reader(&cache, &images);
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
    assert!(cache.writer(&spec(), Overwrite::No).unwrap().todo_batches().is_empty());
}

#[test]
fn an_image_changed_back_costs_nothing() {
    let (scratch, mut images) = (Scratch::new(), Images::new(41));
    write(&scratch.cache(&images), &images, &spec());
    let before = files(&scratch.column());
    images.versions[13] = 1;
    drop(scratch.cache(&images).writer(&spec(), Overwrite::No).unwrap());
    images.versions[13] = 0;
    let writer = scratch.cache(&images).writer(&spec(), Overwrite::No).unwrap();
    assert!(writer.todo_batches().is_empty());
    writer.finish().unwrap();
    assert_eq!(files(&scratch.column()), before);
}

#[test]
fn missing_rows_are_tried_again_when_asked() {
    let (scratch, mut images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    assert!(cache.writer(&spec(), Overwrite::No).unwrap().todo_batches().is_empty());
    images.missing_every = 10;
    let writer = cache.writer(&spec().retrying_missing(true), Overwrite::No).unwrap();
    assert_eq!(writer.progress().todo, manifest.missing.count);
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    let fewer = writer.finish().unwrap();
    assert!(fewer.missing.count < manifest.missing.count);
    check_reader(&cache, &images);
    assert_eq!(column_bytes(&scratch.column(), &fewer), reference(&images, &spec()));
}

#[test]
fn a_retry_broken_off_is_not_tried_a_third_time() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let missing = write(&cache, &images, &spec()).missing.count;
    let retry = spec().retrying_missing(true);
    let writer = cache.writer(&retry, Overwrite::No).unwrap();
    let first = writer.todo_batches()[0].clone();
    compute(&writer, &images, &first);
    drop(writer);
    let writer = cache.writer(&retry, Overwrite::No).unwrap();
    assert_eq!(writer.progress().todo, missing - first.rows.len() as u32);
}

#[test]
fn a_retry_that_ended_can_be_asked_for_again_before_the_column_is_published() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let retry = spec().retrying_missing(true);
    let mut missing = Vec::new();
    for round in 0..3 {
        let writer = scratch.cache(&images).writer(&retry, Overwrite::No).unwrap();
        writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
        missing.push(writer.missing_by_reason().values().sum::<u32>());
        assert_eq!(writer.progress().todo, if round == 0 { 41 } else { missing[0] }, "round {round}");
    }
}

#[test]
fn only_what_may_have_passed_is_tried_again_unless_all_is_asked_for() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let reasons = [Reason::Http(404), Reason::Http(503), Reason::Timeout, Reason::NotAnImage, Reason::Dns];
    for batch in writer.todo_batches() {
        let outcome = |row: &u32| match reasons.get(*row as usize / 7) {
            Some(reason) if row.is_multiple_of(7) => {
                RowOutcome::Missing { reason: *reason, detail: String::new(), content: None }
            }
            _ => RowOutcome::Present { content: images.content(*row) },
        };
        let outcomes: Vec<RowOutcome> = batch.rows.iter().map(outcome).collect();
        writer.commit(writer.slot(batch).unwrap(), &outcomes).unwrap();
    }
    writer.finish().unwrap();
    let todo = |retry| {
        let writer = cache.writer(&spec().retrying_missing(retry), Overwrite::No).unwrap();
        writer.todo_batches().iter().flat_map(|batch| batch.rows.clone()).collect::<Vec<u32>>()
    };
    assert_eq!(todo(Retry::No), [0; 0]);
    assert_eq!(todo(Retry::Temporary), [7, 14, 28]);
    assert_eq!(todo(Retry::All), [0, 7, 14, 21, 28]);
}

#[test]
fn rows_appended_while_a_column_is_unfinished_join_it() {
    // The shard of the last rows is sealed in one case and a draft in the other.
    for skip in [0, 13] {
        let (scratch, mut images) = (Scratch::new(), Images::new(41));
        let writer = scratch.cache(&images).writer(&spec(), Overwrite::No).unwrap();
        let batches = writer.todo_batches().to_vec();
        for batch in batches.iter().skip(skip).filter(|batch| batch.start != 0) {
            compute(&writer, &images, batch);
        }
        drop(writer);
        images.versions.extend([0; 20]);
        let cache = scratch.cache(&images);
        let writer = cache.writer(&spec(), Overwrite::No).unwrap();
        assert!(!writer.todo_batches().iter().any(|batch| batch.rows.contains(&40)), "row 40 was done");
        writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
        let manifest = writer.finish().unwrap();
        check_reader(&cache, &images);
        assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
    }
}

#[test]
fn rows_changed_while_a_column_is_unfinished_are_done_again() {
    let (scratch, mut images) = (Scratch::new(), Images::new(41));
    let writer = scratch.cache(&images).writer(&spec(), Overwrite::No).unwrap();
    let batches = writer.todo_batches().to_vec();
    batches.iter().take(6).for_each(|batch| compute(&writer, &images, batch));
    drop(writer);
    images.versions[1] = 1;
    images.versions[16] = 1;
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let todo: Vec<u32> = writer.todo_batches().iter().flat_map(|batch| batch.rows.clone()).collect();
    assert_eq!(todo, [1, 16].into_iter().chain(18..41).collect::<Vec<_>>());
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    let manifest = writer.finish().unwrap();
    check_reader(&cache, &images);
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
}

#[test]
fn a_torn_journal_loses_only_its_tail() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    for batch in writer.todo_batches().iter().take(3) {
        compute(&writer, &images, batch);
        writer.flush().unwrap();
    }
    drop(writer);
    let journal = scratch.column().join("journal");
    let whole = std::fs::read(&journal).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for (text, todo) in [(&whole[..], 32), (&whole[..whole.len() - 1], 35), (&whole[..last_line + 5], 35)] {
        std::fs::write(&journal, text).unwrap();
        assert_eq!(cache.writer(&spec(), Overwrite::No).unwrap().progress().todo, todo);
    }
    let mut flipped = whole.clone();
    flipped[last_line + 20] ^= 1;
    std::fs::write(&journal, &flipped).unwrap();
    assert_eq!(cache.writer(&spec(), Overwrite::No).unwrap().progress().todo, 35);
}

#[test]
fn a_draft_that_is_gone_is_made_again() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    writer.todo_batches().iter().take(3).for_each(|batch| compute(&writer, &images, batch));
    drop(writer);
    std::fs::remove_file(scratch.column().join("00000.safetensors.partial")).unwrap();
    let manifest = write(&cache, &images, &spec());
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
}

#[test]
fn a_draft_lost_while_missing_rows_are_tried_again_brings_back_what_was_missing() {
    // So many that a shard has several batches to try again, and its draft is not complete after the first.
    let (scratch, mut images) = (Scratch::new(), Images { missing_every: 2, ..Images::new(41) });
    let cache = scratch.cache(&images);
    let manifest = write(&cache, &images, &spec());
    let lucky = Images { missing_every: 0, ..images.clone() };
    let writer = cache.writer(&spec().retrying_missing(true), Overwrite::No).unwrap();
    let first = writer.todo_batches()[0].clone();
    compute(&writer, &lucky, &first);
    drop(writer);
    let draft = format!("{:05}.g1.safetensors.partial", first.start / 12);
    std::fs::remove_file(scratch.column().join(draft)).unwrap();
    images.versions.extend([0; 3]);
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert_eq!(writer.missing_by_reason(), manifest.missing.by_reason);
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    let manifest = writer.finish().unwrap();
    check_reader(&cache, &images);
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
}

#[test]
fn a_crash_between_seal_and_name_is_healed() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    writer.todo_batches().iter().take(4).for_each(|batch| compute(&writer, &images, batch));
    drop(writer);
    let sealed = scratch.column().join("00000.safetensors");
    std::fs::rename(&sealed, scratch.column().join("00000.safetensors.partial")).unwrap();
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert_eq!(writer.progress().todo, 29);
    assert!(sealed.exists());
}

#[test]
fn a_crash_between_manifest_and_cleaning_up_is_healed() {
    let (scratch, mut images) = (Scratch::new(), Images::new(41));
    let writer = scratch.cache(&images).writer(&spec(), Overwrite::No).unwrap();
    writer.todo_batches().iter().for_each(|batch| compute(&writer, &images, batch));
    writer.flush().unwrap();
    let journal = std::fs::read(scratch.column().join("journal")).unwrap();
    writer.finish().unwrap();
    std::fs::write(scratch.column().join("journal"), journal).unwrap();
    let cache = scratch.cache(&images);
    assert!(matches!(cache.columns().unwrap()[0].state, ColumnState::Finished(_)));
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert!(writer.todo_batches().is_empty());
    writer.finish().unwrap();
    assert!(!scratch.column().join("journal").exists());
    images.versions[3] = 1;
    write(&scratch.cache(&images), &images, &spec());
    check_reader(&cache, &images);
}

#[test]
fn listing_tells_how_far_a_column_is() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    assert!(cache.columns().unwrap().is_empty());
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    writer.todo_batches().iter().take(5).for_each(|batch| compute(&writer, &images, batch));
    writer.flush().unwrap();
    let listed = cache.columns().unwrap();
    let ColumnState::Unfinished(Unfinished { rows_done: 15, column, .. }) = &listed[0].state else {
        panic!("{listed:?}")
    };
    assert_eq!((column.rows, listed[0].name.as_str()), (41, "avgpool"));
    let so_far = cache.column_so_far("avgpool").unwrap();
    assert!((0..41).all(|row| so_far.is_known(row) == (row < 12)));
    assert!((0..41).all(|row| so_far.row(row).is_some() == (row < 12 && so_far.missing(row).is_none())));
    drop(writer);
    drop(cache.writer(&spec(), Overwrite::No).unwrap());
    let ColumnState::Unfinished(progress) = &cache.columns().unwrap()[0].state else { panic!("finished?") };
    assert_eq!(progress.rows_done, 15);
    write(&cache, &images, &spec());
    let ColumnState::Finished(manifest) = &cache.columns().unwrap()[0].state else { panic!("not finished?") };
    assert_eq!(manifest.rows(), 41);
}

#[test]
fn another_key_is_refused_by_its_fields() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    let refused = |cache: &icecap_cache::Cache| {
        let mut other = spec();
        other.key = Key::new().with("encoder", "resnet18").with("tensor", "layer4").with("resize", 224);
        scratch.anonymous(cache.writer(&other, Overwrite::No).unwrap_err()).replace(&spec().key.short(), "KEY8")
    };
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let unfinished = refused(&cache);
    insta::assert_snapshot!(unfinished, @r#"
    column `avgpool` exists with another key, in `DIR/cache/columns/avgpool-KEY8`:
      `tensor`: expected `"layer4"`, found `"avgpool"`
      `resize`: expected `224`, found nothing
    hint: give the new column another name, or replace the old one with --overwrite
    "#);
    drop(writer);
    write(&cache, &images, &spec());
    assert_eq!(refused(&cache), unfinished);
}

#[test]
fn overwriting_drops_all_columns_of_the_name() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    let mut other = spec();
    other.key = Key::new().with("tensor", "layer4");
    let writer = cache.writer(&other, Overwrite::Yes).unwrap();
    assert_eq!(writer.progress().todo, 4);
    assert!(!scratch.column().exists());
    drop(writer);
    assert_eq!(cache.columns().unwrap().len(), 1);
}

#[test]
fn another_layout_is_refused() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    let refused = |spec| {
        let error = cache.writer(&spec, Overwrite::No).unwrap_err();
        scratch.anonymous(error).replace(&self::spec().key.short(), "KEY8")
    };
    insta::assert_snapshot!(refused(spec().with_batch_rows(4)), @r"
    column `avgpool` exists with another number of rows a batch, in `DIR/cache/columns/avgpool-KEY8`: expected `4`, found `3`
    hint: ask for the number of rows a batch it has, or replace the column with --overwrite
    ");
    insta::assert_snapshot!(refused(spec().with_rows_per_shard(6)).lines().next().unwrap(), @"column `avgpool` exists with another number of rows a shard, in `DIR/cache/columns/avgpool-KEY8`: expected `6`, found `12`");
    insta::assert_snapshot!(refused(spec().with_tensor("scores", Dtype::Bf16, [])).lines().next().unwrap(), @"column `avgpool` exists with another set of tensors, in `DIR/cache/columns/avgpool-KEY8`: expected `embedding f16 [5], boxes f32 [3], scores bf16 []`, found `embedding f16 [5], boxes f32 [3]`");
    let mut usual = spec();
    usual.rows_per_shard = None;
    assert_eq!(cache.writer(&usual, Overwrite::No).unwrap().plan().rows_per_shard, 12);
}

#[test]
fn one_writer_a_column() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    let cache = scratch.cache(&images);
    let _writer = cache.writer(&spec(), Overwrite::No).unwrap();
    for refused in [
        cache.writer(&spec(), Overwrite::No).map(drop),
        cache.writer(&spec(), Overwrite::Yes).map(drop),
        cache.drop_column("avgpool"),
    ] {
        assert!(matches!(refused, Err(CacheError::Busy { .. })), "{refused:?}");
    }
    let other = icecap_cache::ColumnSpec { name: "other".into(), ..spec() };
    cache.writer(&other, Overwrite::No).unwrap();
}

#[test]
fn a_batch_is_handed_out_once() {
    let (scratch, images) = (Scratch::new(), Images::new(7));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let batch = writer.todo_batches()[0].clone();
    let slot = writer.slot(&batch).unwrap();
    insta::assert_snapshot!(writer.slot(&batch).unwrap_err(), @"the batch at row `0` is not to be done, done already, or in other hands");
    drop(slot);
    compute(&writer, &images, &batch);
    assert!(matches!(writer.slot(&batch), Err(CacheError::BatchTaken { start: 0 })));
    assert!(matches!(writer.slot(&Batch { start: 1, rows: vec![1] }), Err(CacheError::BatchTaken { start: 1 })));
}

#[test]
fn a_slot_takes_what_fits_it_and_nothing_else() {
    let (scratch, images) = (Scratch::new(), Images::new(7));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let last = writer.todo_batches()[2].clone();
    let mut slot = writer.slot(&last).unwrap();
    assert!(!slot.is_whole() && slot.whole_mut().is_none(), "a batch with padding is not one block");
    assert!(slot.row_mut(0, 7).is_none() && slot.row_mut(0, 5).is_none() && slot.row_mut(2, 6).is_none());
    insta::assert_snapshot!(slot.write_row(7, &[0; 10]).unwrap_err(), @"row `7` is not to be done in the batch at row `6`");
    insta::assert_snapshot!(slot.write_row(6, &[0; 9]).unwrap_err(), @"`embedding` of the batch at row `6` takes 10 bytes, and 9 were given");
    insta::assert_snapshot!(slot.write_batch(1, &[0; 9]).unwrap_err(), @"`boxes` of the batch at row `6` takes 36 bytes, and 9 were given");
    insta::assert_snapshot!(slot.write_batch(2, &[]).unwrap_err(), @"`#2` of the batch at row `6` takes 0 bytes, and 0 were given");
    insta::assert_snapshot!(writer.commit(slot, &[]).unwrap_err(), @"the batch at row `6` has 1 rows to do, and 0 outcomes were given");
    let mut slot = writer.slot(&last).unwrap();
    slot.write_row(6, &[3; 10]).unwrap();
    slot.row_mut(1, 6).unwrap().fill(4);
    let other = icecap_cache::ColumnSpec { name: "other".into(), ..spec() };
    let other = cache.writer(&other, Overwrite::No).unwrap();
    let outcome = RowOutcome::Present { content: content_hash(b"x") };
    insta::assert_snapshot!(other.commit(slot, std::slice::from_ref(&outcome)).unwrap_err(), @"the batch at row `6` belongs to another column's writer than `other`");
    let mut slot = writer.slot(&last).unwrap();
    slot.write_row(6, &[3; 10]).unwrap();
    writer.commit(slot, &[outcome]).unwrap();
}

#[test]
fn bytes_of_missing_rows_are_zero() {
    let (scratch, images) = (Scratch::new(), Images::new(3));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let batch = writer.todo_batches()[0].clone();
    let mut slot = writer.slot(&batch).unwrap();
    slot.wholes_mut().unwrap().into_iter().for_each(|whole| whole.fill(0xff));
    let missing = RowOutcome::Missing { reason: Reason::Empty, detail: String::new(), content: None };
    let present = RowOutcome::Present { content: content_hash(b"x") };
    writer.commit(slot, &[present.clone(), missing, present]).unwrap();
    assert_eq!(writer.progress().missing, 1);
    writer.finish().unwrap();
    let reader = cache.column("avgpool").unwrap();
    let (_, block) = reader.blocks(0).next().unwrap();
    assert_eq!(block, [[0xff; 10], [0; 10], [0xff; 10]].concat());
    let mut out = [1; 40];
    assert_eq!(reader.gather(&[1, 0, 1, 2], &mut out), [0, 2]);
    assert_eq!(out[..20], [[0; 10], [0xff; 10]].concat());
}

#[test]
fn dropping_a_column_leaves_the_others() {
    let (scratch, images) = (Scratch::new(), Images::new(13));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    write(&cache, &images, &icecap_cache::ColumnSpec { name: "other".into(), ..spec() });
    cache.drop_column("avgpool").unwrap();
    assert!(!scratch.column().exists());
    insta::assert_snapshot!(scratch.anonymous(cache.drop_column("avgpool").unwrap_err()).replace(&spec().key.short(), "KEY8"), @r"
    there is no column `avgpool` in `DIR/cache`
    hint: it has `other-KEY8`
    ");
    assert_eq!(cache.column("other").unwrap().len(), 13);
    cache.drop_column(&format!("other-{}", spec().key.short())).unwrap();
    assert!(cache.columns().unwrap().is_empty());
}

#[test]
fn a_shorter_index_is_refused() {
    let (scratch, images) = (Scratch::new(), Images::new(13));
    write(&scratch.cache(&images), &images, &spec());
    let rows = scratch.path().join("rows.jsonl");
    let text = std::fs::read_to_string(&rows).unwrap();
    std::fs::write(&rows, text.lines().take(5).map(|line| line.to_owned() + "\n").collect::<String>()).unwrap();
    let cache = icecap_cache::Cache::open(scratch.path()).unwrap();
    insta::assert_snapshot!(cache.writer(&spec(), Overwrite::No).unwrap_err(), @r"
    column `avgpool` has 13 rows and the cache only 5
    hint: `rows.jsonl` was replaced by a shorter one: put the old one back, or drop the column
    ");
}

#[test]
fn hashes_found_while_encoding_are_adopted() {
    let (scratch, mut images) = (Scratch::new(), Images::new(13));
    images.hashed = false;
    images.missing_every = 0;
    let mut cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    assert_eq!(cache.adopt_contents("avgpool").unwrap(), 13);
    assert_eq!(cache.adopt_contents("avgpool").unwrap(), 0);
    assert!((0..13).all(|row| cache.rows().content(row) == Some(images.content(row))));
    let cache = scratch.cache(&images);
    assert!(cache.rows().content(3).is_some(), "a sync that knows no hash keeps the one there is");
    assert!(cache.writer(&spec(), Overwrite::No).unwrap().todo_batches().is_empty());
}

#[test]
fn a_cache_is_only_made_where_there_is_room_for_it() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path()).unwrap();
    std::fs::write(scratch.path().join("thesis.tex"), "").unwrap();
    let error = icecap_cache::Cache::create_or_open(scratch.path(), &"x".into()).unwrap_err();
    insta::assert_snapshot!(scratch.anonymous(error), @r"
    cannot make a cache in `DIR/cache`: the folder holds `thesis.tex`
    hint: name a folder that is empty or does not exist yet
    ");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    insta::assert_snapshot!(scratch.anonymous(icecap_cache::Cache::open(scratch.path()).unwrap_err()), @r"
    `DIR/cache` is not a cache: it has no `cache.json`
    hint: `icecap encode RECIPE --cache DIR/cache` makes one
    ");
}

#[test]
fn a_lock_that_is_not_the_caches_stays() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path()).unwrap();
    for (text, found) in [("mine", "lock"), ("", "thesis.tex")] {
        std::fs::write(scratch.path().join("lock"), text).unwrap();
        if found != "lock" {
            std::fs::write(scratch.path().join(found), "").unwrap();
        }
        let error = icecap_cache::Cache::create_or_open(scratch.path(), &"x".into()).unwrap_err();
        assert!(matches!(&error, CacheError::NotEmpty { found: named, .. } if named == found), "{error}");
        assert_eq!(std::fs::read_to_string(scratch.path().join("lock")).unwrap(), text);
    }
}

#[test]
fn files_that_are_only_named_like_a_caches_are_no_cache() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path()).unwrap();
    for name in ["columns.csv", "rows.jsonl.bak", "lockfile"] {
        std::fs::write(scratch.path().join(name), "").unwrap();
        let error = icecap_cache::Cache::create_or_open(scratch.path(), &"x".into()).unwrap_err();
        assert!(matches!(error, CacheError::NotEmpty { .. }), "{name}");
        std::fs::remove_file(scratch.path().join(name)).unwrap();
    }
    // What a crash leaves of an attempt is taken up.
    std::fs::create_dir(scratch.path().join("columns")).unwrap();
    for name in ["CACHEDIR.TAG", "rows.jsonl", "lock", "cache.json.tmp"] {
        std::fs::write(scratch.path().join(name), "").unwrap();
    }
    scratch.cache(&Images::new(1));
}

#[test]
fn a_cache_whose_cache_json_is_lost_is_not_begun_anew() {
    let (scratch, images) = (Scratch::new(), Images::new(4));
    write(&scratch.cache(&images), &images, &spec());
    std::fs::remove_file(scratch.path().join("cache.json")).unwrap();
    let rows = std::fs::read(scratch.path().join("rows.jsonl")).unwrap();
    let error = icecap_cache::Cache::create_or_open(scratch.path(), &"x".into()).unwrap_err();
    let refused = scratch.anonymous(error);
    insta::assert_snapshot!(refused, @r#"
    `DIR/cache` holds rows or columns of a cache that has lost its `cache.json`
    hint: put `cache.json` back (`{"format": 1}` is enough for one), or move the folder away and encode anew
    "#);
    assert_eq!(std::fs::read(scratch.path().join("rows.jsonl")).unwrap(), rows);
    std::fs::write(scratch.path().join("rows.jsonl"), "").unwrap();
    let error = icecap_cache::Cache::create_or_open(scratch.path(), &"x".into()).unwrap_err();
    assert_eq!(scratch.anonymous(error), refused, "columns alone are reason enough");
    // The way out that the hint names.
    std::fs::write(scratch.path().join("rows.jsonl"), rows).unwrap();
    std::fs::write(scratch.path().join("cache.json"), r#"{"format": 1}"#).unwrap();
    check_reader(&icecap_cache::Cache::open(scratch.path()).unwrap(), &images);
}

#[test]
fn a_cache_keeps_its_description_and_refuses_a_later_format() {
    let (scratch, images) = (Scratch::new(), Images::new(1));
    scratch.cache(&images);
    let cache = icecap_cache::Cache::create_or_open(scratch.path(), &"other".into()).unwrap();
    assert_eq!(cache.dataset(), "test");
    let tag = std::fs::read_to_string(scratch.path().join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    std::fs::write(scratch.path().join("cache.json"), r#"{"format": 3}"#).unwrap();
    insta::assert_snapshot!(scratch.anonymous(icecap_cache::Cache::open(scratch.path()).unwrap_err()), @r"
    `DIR/cache/cache.json` is of format `3`, and this program reads up to `2`
    hint: use a newer icecap
    ");
    std::fs::write(scratch.path().join("cache.json"), "{").unwrap();
    insta::assert_snapshot!(scratch.anonymous(icecap_cache::Cache::open(scratch.path()).unwrap_err()), @"cannot understand `DIR/cache/cache.json`");
}

#[test]
fn an_image_that_appears_is_encoded_once_it_does() {
    let (scratch, mut images) = (Scratch::new(), Images::new(3));
    images.hashed = false;
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let batch = writer.todo_batches()[0].clone();
    let lost = RowOutcome::Missing { reason: Reason::NotFound, detail: String::new(), content: None };
    writer.commit(writer.slot(&batch).unwrap(), &[lost.clone(), lost.clone(), lost.clone()]).unwrap();
    writer.finish().unwrap();
    assert!(cache.writer(&spec(), Overwrite::No).unwrap().todo_batches().is_empty());
    images.hashed = true;
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    assert_eq!(writer.todo_batches(), std::slice::from_ref(&batch));
    writer.commit(writer.slot(&batch).unwrap(), &[lost.clone(), lost.clone(), lost]).unwrap();
    writer.finish().unwrap();
    assert!(
        cache.writer(&spec(), Overwrite::No).unwrap().todo_batches().is_empty(),
        "the same image is not tried for ever"
    );
}

#[test]
fn a_writer_that_fails_says_why_once_and_can_be_resumed() {
    let (scratch, images) = (Scratch::new(), Images::new(41));
    let cache = scratch.cache(&images);
    let writer = cache.writer(&spec(), Overwrite::No).unwrap();
    let batches = writer.todo_batches().to_vec();
    batches[..3].iter().for_each(|batch| compute(&writer, &images, batch));
    writer.flush().unwrap();
    // Somebody deletes the draft: its shard cannot be sealed.
    std::fs::remove_file(scratch.column().join("00000.safetensors.partial")).unwrap();
    compute(&writer, &images, &batches[3]);
    let told = scratch.anonymous(writer.flush().unwrap_err()).replace(&spec().key.short(), "KEY8");
    insta::assert_snapshot!(told, @"cannot sync `DIR/cache/columns/avgpool-KEY8/00000.safetensors.partial`");
    insta::assert_snapshot!(writer.finish().unwrap_err(), @"the writer of column `avgpool` stopped at an earlier error");
    let manifest = write(&cache, &images, &spec());
    assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
}
