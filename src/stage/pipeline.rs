//! The encoder's assembly line: files are read ahead, pictures decoded, batches run, rows committed.
//!
//! On the CPU each worker decodes a batch and then runs it on a session of its own with one thread: as many workers as
//! cores, nothing to balance, nobody oversubscribed. On a GPU the decoding is what the cores are for: decode workers feed the
//! sessions, two a GPU, through one bounded queue. Either way readers fetch the files of later batches meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use icecap_cache::{Reason, RowOutcome};

use super::{
    prepare::{Prepared, Preparer},
    read::{Loaded, Reader},
};
use crate::{fetch::Fetcher, progress::Progress};

/// Prepared batches that wait for a session.
const READ_AHEAD: usize = 2;

/// Takes prepared batches to their end; one for each session.
pub(super) trait Embedder: Send {
    fn embed(&mut self, prepared: &Prepared) -> Result<()>;
}

/// Where the time goes, in nanoseconds of all workers together, and what was done.
#[derive(Debug, Default)]
pub(super) struct Meter {
    waiting: AtomicU64,
    decoding: AtomicU64,
    encoding: AtomicU64,
    images: AtomicU64,
    missing: Mutex<BTreeMap<Reason, u64>>,
    /// Whether the files come over the network.
    is_remote: bool,
}

impl Meter {
    pub fn new(is_remote: bool) -> Self {
        Self { is_remote, ..Self::default() }
    }

    fn add(counter: &AtomicU64, since: Instant) {
        counter.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Images done, missing ones among them.
    pub fn images(&self) -> u64 {
        self.images.load(Ordering::Relaxed)
    }

    /// Counts what became of rows.
    fn count(&self, outcomes: &[RowOutcome]) {
        self.images.fetch_add(outcomes.len() as u64, Ordering::Relaxed);
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        for outcome in outcomes {
            if let RowOutcome::Missing { reason, .. } = outcome {
                *missing.entry(*reason).or_default() += 1;
            }
        }
    }

    /// How many images turned out to be missing, and why, the most frequent reasons first: `12 missing (7 http-404, 5 dns)`.
    pub fn missing(&self) -> String {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all: u64 = missing.values().sum();
        let mut reasons: Vec<(Reason, u64)> = missing.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let listed: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if all == 0 { "0 missing".to_owned() } else { format!("{all} missing ({})", listed.join(", ")) }
    }

    /// What the files are waited for.
    fn source(&self) -> &'static str {
        if self.is_remote { "network" } else { "disk" }
    }

    /// The shares of decoding, encoding and waiting for files, in per cent of the workers' time.
    pub fn shares(&self) -> [f64; 3] {
        let parts = [&self.decoding, &self.encoding, &self.waiting].map(|part| part.load(Ordering::Relaxed) as f64);
        let sum = parts.iter().sum::<f64>().max(1.0);
        parts.map(|part| 100.0 * part / sum)
    }

    /// Seconds of all workers together: decoding, encoding, waiting for files.
    pub fn seconds(&self) -> [f64; 3] {
        [&self.decoding, &self.encoding, &self.waiting].map(|part| part.load(Ordering::Relaxed) as f64 / 1e9)
    }

    /// What takes most of the workers' time.
    pub fn bottleneck(&self) -> &'static str {
        let [decoding, encoding, waiting] = self.shares();
        if encoding >= decoding && encoding >= waiting {
            "encoder"
        } else if decoding >= waiting {
            "decode"
        } else {
            self.source()
        }
    }
}

/// What the line works on.
pub(super) struct Line<'a> {
    pub reader: Reader<'a>,
    pub preparer: Preparer<'a>,
    pub meter: &'a Meter,
    pub progress: &'a dyn Progress,
}

impl Line<'_> {
    /// Runs all jobs; `embedders` are the sessions. With one embedder a core each decodes for itself; otherwise
    /// `decoders` threads feed them.
    pub fn run(&self, embedders: Vec<Box<dyn Embedder + '_>>, decoders: Option<usize>) -> Result<()> {
        let stop = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let fail = |error: anyhow::Error| {
            stop.store(true, Ordering::Relaxed);
            if let Ok(mut failure) = failure.lock() {
                failure.get_or_insert(error);
            }
        };
        let hands = decoders.unwrap_or(embedders.len());
        let (fail, stop) = (&fail, &stop);
        std::thread::scope(|scope| {
            let loaded = self.reader.start(scope, hands, stop, fail);
            match decoders {
                None => {
                    for embedder in embedders {
                        let loaded = loaded.clone();
                        scope.spawn(move || self.decode_and_embed(embedder, &loaded, stop).unwrap_or_else(fail));
                    }
                }
                Some(decoders) => {
                    let (ready_out, ready) = bounded::<Prepared>(embedders.len() * READ_AHEAD);
                    // Memory of batches that are done goes back to the decoders: the steady state allocates none.
                    let (spare_out, spare) = unbounded::<Vec<Vec<u8>>>();
                    for _ in 0..decoders {
                        let (loaded, ready_out, spare) = (loaded.clone(), ready_out.clone(), spare.clone());
                        scope.spawn(move || self.decode(&loaded, &ready_out, &spare));
                    }
                    for embedder in embedders {
                        let (ready, spare_out) = (ready.clone(), spare_out.clone());
                        scope.spawn(move || self.embed_all(embedder, &ready, &spare_out, stop).unwrap_or_else(fail));
                    }
                }
            }
            drop(loaded);
        });
        match failure.into_inner() {
            Ok(Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn decode_and_embed(
        &self,
        mut embedder: Box<dyn Embedder + '_>,
        loaded: &Receiver<Loaded>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut spare = Vec::new();
        while let Some(files) = self.wait(loaded) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let prepared = self.prepare(files, spare);
            self.embed(&mut *embedder, &prepared)?;
            spare = prepared.views;
        }
        Ok(())
    }

    fn decode(&self, loaded: &Receiver<Loaded>, out: &Sender<Prepared>, spare: &Receiver<Vec<Vec<u8>>>) {
        while let Some(files) = self.wait(loaded) {
            if out.send(self.prepare(files, spare.try_recv().unwrap_or_default())).is_err() {
                return;
            }
        }
    }

    fn embed_all(
        &self,
        mut embedder: Box<dyn Embedder + '_>,
        ready: &Receiver<Prepared>,
        spare: &Sender<Vec<Vec<u8>>>,
        stop: &AtomicBool,
    ) -> Result<()> {
        for prepared in ready {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.embed(&mut *embedder, &prepared)?;
            // Nobody left to decode into it: then it is not needed either.
            let _ = spare.send(prepared.views);
        }
        Ok(())
    }

    fn wait(&self, loaded: &Receiver<Loaded>) -> Option<Loaded> {
        let start = Instant::now();
        let files = loaded.recv().ok();
        Meter::add(&self.meter.waiting, start);
        files
    }

    fn prepare(&self, (job, files): Loaded, spare: Vec<Vec<u8>>) -> Prepared {
        let start = Instant::now();
        let prepared = self.preparer.prepare(job, files, spare);
        Meter::add(&self.meter.decoding, start);
        prepared
    }

    fn embed(&self, embedder: &mut dyn Embedder, prepared: &Prepared) -> Result<()> {
        let start = Instant::now();
        embedder.embed(prepared)?;
        Meter::add(&self.meter.encoding, start);
        self.meter.count(&prepared.outcomes);
        self.progress.advance(prepared.outcomes.len() as u64);
        Ok(())
    }
}

/// Tells `progress` the rate, the bottleneck and what is missing, twice a second, until `done`.
pub(super) fn report(meter: &Meter, fetcher: Option<&Fetcher>, progress: &dyn Progress, done: &Receiver<()>) {
    let start = Instant::now();
    while let Err(crossbeam_channel::RecvTimeoutError::Timeout) = done.recv_timeout(Duration::from_millis(500)) {
        let seconds = start.elapsed().as_secs_f64();
        let rate = meter.images() as f64 / seconds;
        let [decoding, encoding, waiting] = meter.shares();
        let traffic = fetcher.map(Fetcher::traffic).map_or_else(String::new, |traffic| {
            format!("{} connections, {:.1} MB/s, ", traffic.busy, traffic.bytes as f64 / seconds / 1e6)
        });
        progress.status(&format!(
            "{rate:.0} img/s, bound by {} (decode {decoding:.0}%, encoder {encoding:.0}%, {} {waiting:.0}%), {traffic}{}",
            meter.bottleneck(),
            meter.source(),
            meter.missing(),
        ));
    }
}

#[cfg(test)]
mod tests;
