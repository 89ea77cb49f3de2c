//! The line with embedders that only look: both ways of sharing the work see every batch once, and a failure ends it.

use std::sync::Mutex;

use anyhow::bail;

use super::{super::prepare::Job, *};
use crate::{
    dataset::{Item, Source, shapes::Scene},
    image::{Preprocess, Resize, View},
    progress::Silent,
};

const BATCH: usize = 4;
const ROWS: u32 = 26;

/// Notes the rows of each batch, with the first pixel of each picture; fails at a batch, if asked to.
struct Looker<'a> {
    seen: &'a Mutex<Vec<(u32, u8)>>,
    fails_at: Option<u32>,
}

impl Embedder for Looker<'_> {
    fn embed(&mut self, prepared: &Prepared) -> Result<()> {
        if self.fails_at == Some(prepared.job.start) {
            bail!("the encoder failed");
        }
        let picture = prepared.views[0].len() / BATCH;
        let first = |row: &u32| (*row, prepared.views[0][(row - prepared.job.start) as usize * picture]);
        self.seen.lock().expect("no panic").extend(prepared.job.rows.iter().map(first));
        Ok(())
    }
}

/// Runs the drawn scenes through the line; `decoders` as [`Line::run`] takes them.
fn run(sessions: usize, decoders: Option<usize>, fails_at: Option<u32>) -> (Result<()>, Vec<(u32, u8)>) {
    let item = |row: u32| Item {
        id: row.to_string(),
        source: Source::Drawn(Scene { seed: 3, index: row.into(), side: 64 }),
        split: String::new(),
        captions: Vec::new(),
    };
    let items: Vec<Item> = (0..ROWS).map(item).collect();
    let items: Vec<Option<&Item>> = items.iter().map(Some).collect();
    let job = |start: u32| Job { start, rows: (start..(start + BATCH as u32).min(ROWS)).collect(), views: vec![0] };
    let jobs: Vec<Job> = (0..ROWS).step_by(BATCH).map(job).collect();
    let preprocess = Preprocess { resize: Resize::Exact([8, 8]), crop: None, ..Preprocess::default() };
    let (seen, meter, views) = (Mutex::default(), Meter::default(), [View::Center]);
    let preparer = Preparer { preprocess: &preprocess, views: &views, batch: BATCH, second: None };
    let reader = Reader { jobs: &jobs, items: &items, web: None };
    let line = Line { reader, preparer, meter: &meter, progress: &Silent };
    let looker = |_| Box::new(Looker { seen: &seen, fails_at }) as Box<dyn Embedder>;
    let outcome = line.run((0..sessions).map(looker).collect(), decoders);
    let mut seen = seen.into_inner().expect("no panic");
    seen.sort_unstable();
    (outcome, seen)
}

#[test]
fn workers_and_gpus_see_the_same_batches_once() {
    let (outcome, alone) = run(1, None, None);
    outcome.expect("no failure");
    assert_eq!(alone.iter().map(|(row, _)| *row).collect::<Vec<_>>(), (0..ROWS).collect::<Vec<_>>());
    // Two GPUs have two sessions each; their decoders use the memory of earlier batches again.
    for (sessions, decoders) in [(3, None), (2, Some(1)), (4, Some(3))] {
        let (outcome, seen) = run(sessions, decoders, None);
        outcome.expect("no failure");
        assert_eq!(seen, alone, "{sessions} sessions, decoders {decoders:?}");
    }
}

#[test]
fn a_failure_ends_the_line_and_is_told() {
    for (sessions, decoders) in [(1, None), (3, None), (1, Some(2)), (4, Some(3))] {
        let (outcome, seen) = run(sessions, decoders, Some(8));
        assert_eq!(outcome.expect_err("it failed").to_string(), "the encoder failed");
        assert!(seen.iter().all(|(row, _)| !(8..12).contains(row)));
    }
}
