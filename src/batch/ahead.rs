//! Reading ahead: what a disk is asked for before a batch is gathered.
//!
//! Knows no file. A training reads rows in no order, so the kernel must not read on behind each of them (that reads many times
//! what is wanted, and where the columns are larger than memory it never ends); instead the rows of the next batches are announced
//! by number. Where all rows fit into memory, they are announced once from the first to the last, as a disk likes it best.

use std::{
    collections::VecDeque,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{Access, Caption, Column, LoaderError, column::row_bytes};

/// Bytes that are announced before the batch that is gathered.
const AHEAD_BYTES: usize = 256 << 20;
/// Batches that are announced at most.
const AHEAD_BATCHES: usize = 16;
/// Rows that are announced at once where all are.
const AT_ONCE: usize = 256;

/// The rows of some captions, each once, ascending.
pub(super) fn rows_of(captions: &[Caption], indices: &[u32]) -> Vec<u32> {
    let mut rows: Vec<u32> = indices.iter().map(|&index| captions[index as usize].row).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The reading of some columns for a training; dropping it ends what it does in the background.
pub(super) struct Reading {
    stop: Arc<AtomicBool>,
    whole: Option<JoinHandle<()>>,
}

impl Reading {
    /// Announces that the rows of `captions` will be read in no order, and all of them where half of the free memory holds them.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(columns: &[Arc<dyn Column>], captions: &[Caption]) -> Result<Self, LoaderError> {
        columns.iter().for_each(|column| column.expect(Access::Shuffled));
        let all: Vec<u32> = (0..captions.len() as u32).collect();
        let rows = rows_of(captions, &all);
        let bytes = bytes_of(columns, rows.len());
        let stop = Arc::new(AtomicBool::new(false));
        let fits = bytes > 0 && free_memory().is_some_and(|free| 2 * bytes as u64 <= free);
        let (columns, stopped) = (columns.to_vec(), stop.clone());
        let read = move || {
            for rows in rows.chunks(AT_ONCE).take_while(|_| !stopped.load(Ordering::Relaxed)) {
                columns.iter().for_each(|column| column.expect(Access::Rows(rows)));
            }
        };
        let spawn = || thread::Builder::new().name("read ahead".into()).spawn(read).map_err(LoaderError::Start);
        Ok(Self { stop, whole: fits.then(spawn).transpose()? })
    }

    /// The batches of `order`, each some batches after its rows were announced.
    pub fn ahead<I: Iterator<Item = Vec<u32>>>(
        &self,
        columns: &[Arc<dyn Column>],
        captions: &[Caption],
        order: I,
    ) -> impl Iterator<Item = Vec<u32>> {
        let mut order = order.fuse();
        let mut announced: VecDeque<(Vec<u32>, usize)> = VecDeque::new();
        let mut bytes = 0;
        std::iter::from_fn(move || {
            while announced.is_empty() || (bytes < AHEAD_BYTES && announced.len() < AHEAD_BATCHES) {
                let Some(batch) = order.next() else { break };
                let rows = rows_of(captions, &batch);
                columns.iter().for_each(|column| column.expect(Access::Rows(&rows)));
                let taken = bytes_of(columns, rows.len());
                bytes += taken;
                announced.push_back((batch, taken));
            }
            let (batch, taken) = announced.pop_front()?;
            bytes -= taken;
            Some(batch)
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic over there leaves rows that aren't announced: they are read when they are gathered.
        let _ = self.whole.take().map(JoinHandle::join);
    }
}

fn bytes_of(columns: &[Arc<dyn Column>], rows: usize) -> usize {
    rows * columns.iter().map(|column| row_bytes(column.as_ref())).sum::<usize>()
}

/// Bytes of memory that programs could get without swapping; `None` where the system doesn't say it as Linux does.
fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tch::Kind;

    use super::*;

    /// A column of 100 MB a row that remembers what it was told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Column for Told {
        fn name(&self) -> &str {
            "told"
        }
        fn kind(&self) -> Kind {
            Kind::Half
        }
        fn row_shape(&self) -> &[usize] {
            &[50_000_000]
        }
        fn gather(&self, _: &[u32], _: &mut [u8]) -> Vec<usize> {
            unreachable!("nothing is gathered here")
        }
        fn expect(&self, access: Access<'_>) {
            self.0.lock().unwrap().push(format!("{access:?}"));
        }
    }

    #[test]
    fn rows_are_announced_before_their_batch_and_not_too_many_of_them() {
        let told = Arc::new(Told::default());
        let columns: Vec<Arc<dyn Column>> = vec![told.clone()];
        // More rows than any memory holds, or all would be announced at once.
        let captions: Vec<Caption> = (0..1 << 16).map(|row| Caption { row, tokens: vec![] }).collect();
        let reading = Reading::start(&columns, &captions).unwrap();
        let order = [vec![9, 2, 9], vec![4], vec![7], vec![1]];
        let mut batches = reading.ahead(&columns, &captions, order.clone().into_iter());
        assert_eq!(batches.next().unwrap(), order[0]);
        assert_eq!(*told.0.lock().unwrap(), ["Shuffled", "Rows([2, 9])", "Rows([4])"], "256 MB are full");
        assert_eq!(batches.by_ref().collect::<Vec<_>>(), order[1..]);
        assert_eq!(*told.0.lock().unwrap(), ["Shuffled", "Rows([2, 9])", "Rows([4])", "Rows([7])", "Rows([1])"]);
    }

    #[test]
    fn what_fits_into_memory_is_announced_from_first_to_last() {
        if free_memory().is_none_or(|free| free < 1 << 30) {
            eprintln!("skipped: less than 1 GB is free, or the system doesn't say");
            return;
        }
        let told = Arc::new(Told::default());
        let columns: Vec<Arc<dyn Column>> = vec![told.clone()];
        let captions = [4, 1, 4].map(|row| Caption { row, tokens: vec![] });
        let mut reading = Reading::start(&columns, &captions).unwrap();
        reading.whole.take().unwrap().join().unwrap();
        assert_eq!(*told.0.lock().unwrap(), ["Shuffled", "Rows([1, 4])"]);
    }
}
