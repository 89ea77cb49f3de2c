//! The thread that fetches batches ahead of the training.
//!
//! It packs captions and copies rows out of the columns, a few batches ahead of a bounded channel; the step that asks
//! finds its batch ready, or waits, and the wait is counted.
//! For a GPU the thread leaves a batch in page-locked memory, which the device copies from while everybody works on: torch
//! keeps the blocks that batches gave back for the next ones, so that they go round in a ring of a few.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::Device;

use super::{
    Caption, Captions, Column, Prefix, Special,
    ahead::{self, Reading},
    gather,
};

/// One batch, still on the host, features in the column's own kind.
#[derive(Debug)]
pub struct Batch {
    /// The images, each once.
    pub prefix: Prefix,
    /// Their captions.
    pub captions: Captions,
    /// The images' rows, in the prefix's order.
    pub rows: Vec<u32>,
}

impl Batch {
    /// The same batch in memory that a GPU copies from by itself; as it is for the CPU.
    fn pinned(self, device: Device) -> Self {
        if device == Device::Cpu {
            return self;
        }
        Self { prefix: self.prefix.pinned(device), captions: self.captions.pinned(device), ..self }
    }
}

/// Why no batch comes.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The thread panicked or the order ended before the training did.
    #[error(
        "the thread that reads the cached rows stopped before the training did\nhint: run `icecap cache verify` on the cache, then continue with `--resume`"
    )]
    Stopped,
    /// The system gave no thread.
    #[error("could not start the thread that reads the cached rows")]
    Start(#[source] std::io::Error),
}

/// Fetches batches in the background, in order.
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
    /// Time spent waiting in [`Loader::next_batch`] so far.
    pub waited: Duration,
}

/// Batches ready at most, beside the one being gathered.
const AHEAD: usize = 2;

impl Loader {
    /// Starts fetching: `order` yields the batches as indices into `captions`, of which at most `limit` tokens are
    /// predicted each. Where `pinned` is a GPU, batches lie in page-locked memory for it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        columns: Vec<Arc<dyn Column>>,
        captions: Arc<[Caption]>,
        order: impl Iterator<Item = Vec<u32>> + Send + 'static,
        special: Special,
        limit: usize,
        pinned: Device,
    ) -> Result<Self, LoaderError> {
        let (send, receive) = sync_channel(AHEAD);
        let reading = Reading::start(&columns, &captions)?;
        let work = move || {
            for indices in reading.ahead(&columns, &captions, order) {
                let batch = fetch(&columns, &captions, &indices, special, limit).pinned(pinned);
                if send.send(batch).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("gather".into()).spawn(work);
        let thread = Some(thread.map_err(LoaderError::Start)?);
        Ok(Self { batches: Some(receive), thread, waited: Duration::ZERO })
    }

    /// The next batch; waits for it where it is not ready.
    ///
    /// # Errors
    /// When the thread has stopped.
    pub fn next_batch(&mut self) -> Result<Batch, LoaderError> {
        let asked = Instant::now();
        let batch = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        self.waited += asked.elapsed();
        batch.ok_or(LoaderError::Stopped)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was already reported by `next_batch`; there is nothing left to do about it here.
            let _ = thread.join();
        }
    }
}

/// One batch: the distinct images of the captions, and the captions packed.
pub(crate) fn fetch(
    columns: &[Arc<dyn Column>],
    captions: &[Caption],
    indices: &[u32],
    special: Special,
    limit: usize,
) -> Batch {
    let rows = ahead::rows_of(captions, indices);
    let packed: Vec<(i64, &[u32])> = indices
        .iter()
        .map(|&index| {
            let caption = &captions[index as usize];
            let image = rows.partition_point(|&row| row < caption.row) as i64;
            (image, caption.tokens.as_slice())
        })
        .collect();
    Batch { prefix: gather(columns, &rows), captions: Captions::pack(&packed, special, limit), rows }
}

#[cfg(test)]
mod tests {
    use super::{super::column::fake::Memory, *};

    #[test]
    fn batches_come_in_order_with_each_image_once() {
        let column = Memory { shape: vec![2], absent: vec![], value: |row, _| row as f32 };
        let caption = |row, tokens: &[u32]| Caption { row, tokens: tokens.to_vec() };
        let captions: Arc<[Caption]> = [caption(9, &[5]), caption(3, &[6, 7]), caption(9, &[8])].into();
        let special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
        let order = vec![vec![0, 1, 2], vec![2]];
        let order = order.into_iter();
        let mut loader = Loader::start(vec![Arc::new(column)], captions, order, special, 40, Device::Cpu).unwrap();
        let first = loader.next_batch().unwrap();
        assert_eq!(first.prefix.columns[0].data.size(), [2, 1, 2]);
        assert_eq!(first.prefix.columns[0].data.double_value(&[0, 0, 0]), 3.0);
        assert_eq!(Vec::<i64>::try_from(&first.captions.image).unwrap(), [0, 1, 1]);
        assert_eq!(first.rows, [3, 9]);
        assert_eq!(loader.next_batch().unwrap().captions.count(), 1);
        assert!(matches!(loader.next_batch(), Err(LoaderError::Stopped)));
    }

    #[test]
    fn dropping_it_early_stops_the_thread() {
        let column = Memory { shape: vec![2], absent: vec![], value: |_, _| 0.0 };
        let captions: Arc<[Caption]> = [Caption { row: 0, tokens: vec![4] }].into();
        let special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
        let order = std::iter::repeat_with(|| vec![0]);
        let loader = Loader::start(vec![Arc::new(column)], captions, order, special, 40, Device::Cpu).unwrap();
        drop(loader);
    }

    #[test]
    fn errors_say_what_to_do() {
        insta::assert_snapshot!(LoaderError::Stopped, @"
        the thread that reads the cached rows stopped before the training did
        hint: run `icecap cache verify` on the cache, then continue with `--resume`
        ");
        insta::assert_snapshot!(LoaderError::Start(std::io::Error::other("x")), @"could not start the thread that reads the cached rows");
    }
}
