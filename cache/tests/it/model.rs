//! Whatever happens to a cache, in whatever order, the column ends as if it had been written at once.

use icecap_cache::Overwrite;
use proptest::prelude::*;

use crate::common::*;

#[derive(Debug, Clone)]
enum Step {
    /// Open a writer, commit some of its batches, drop it.
    WriteSome {
        every: usize,
        retry: bool,
    },
    /// Open a writer, commit all, finish.
    Finish {
        retry: bool,
    },
    Append(u32),
    Change(Vec<prop::sample::Index>),
    /// More or fewer images can be read.
    Luck(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1usize..4, any::<bool>()).prop_map(|(every, retry)| Step::WriteSome { every, retry }),
        2 => any::<bool>().prop_map(|retry| Step::Finish { retry }),
        2 => (1u32..15).prop_map(Step::Append),
        2 => prop::collection::vec(any::<prop::sample::Index>(), 1..4).prop_map(Step::Change),
        1 => (2u64..6).prop_map(Step::Luck),
    ]
}

fn apply(scratch: &Scratch, images: &mut Images, step: &Step) {
    match step {
        Step::Append(rows) => images.versions.extend(vec![0; *rows as usize]),
        Step::Change(which) => {
            for index in which {
                if !images.versions.is_empty() {
                    let row = index.index(images.versions.len());
                    images.versions[row] += 1;
                }
            }
        }
        Step::Luck(every) => images.missing_every = *every,
        Step::WriteSome { every, retry } => {
            let writer = scratch.cache(images).writer(&spec().retrying_missing(*retry), Overwrite::No).unwrap();
            writer.todo_batches().iter().step_by(*every).for_each(|batch| compute(&writer, images, batch));
        }
        Step::Finish { retry } => drop(write(&scratch.cache(images), images, &spec().retrying_missing(*retry))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_history_ends_in_the_same_bytes(rows in 0u32..30, steps in prop::collection::vec(step(), 1..8)) {
        let (scratch, mut images) = (Scratch::new(), Images::new(rows));
        // Missing rows that carry a hash keep it: with luck changing, only a retry makes them what they are now.
        for step in &steps {
            apply(&scratch, &mut images, step);
        }
        images.missing_every = 0;
        let cache = scratch.cache(&images);
        write(&cache, &images, &spec());
        // Once to finish what was begun, once to try again what is missing: nothing may be missing then.
        let manifest = write(&cache, &images, &spec().retrying_missing(true));
        check_reader(&cache, &images);
        prop_assert!(cache.verify("avgpool", &|_| ()).unwrap().is_sound());
        prop_assert_eq!(column_bytes(&scratch.column(), &manifest), reference(&images, &spec()));
        prop_assert!(!scratch.column().join("journal").exists());
    }
}
