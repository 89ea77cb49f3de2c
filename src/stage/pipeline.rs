//! The encoder's assembly line: files are read ahead, pictures decoded, batches run, rows committed.
//!
//! On the CPU each worker decodes a batch and then runs it on a session of its own with one thread: as many workers as
//! cores, nothing to balance, nobody oversubscribed. On a GPU the decoding is what the cores are for: decode workers feed one
//! session through a bounded queue. Either way readers fetch the files of later batches meanwhile.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::prepare::{Job, Prepared, Preparer};
use crate::{dataset::Item, progress::Progress};

/// Batches of file contents that wait for a decoder, for each worker.
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
    missing: AtomicU64,
}

impl Meter {
    fn add(counter: &AtomicU64, since: Instant) {
        counter.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Images done, missing ones among them.
    pub fn images(&self) -> u64 {
        self.images.load(Ordering::Relaxed)
    }

    /// Images that turned out to be missing.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// The shares of decoding, encoding and waiting for files, in per cent of the workers' time.
    pub fn shares(&self) -> [f64; 3] {
        let parts = [&self.decoding, &self.encoding, &self.waiting].map(|part| part.load(Ordering::Relaxed) as f64);
        let sum = parts.iter().sum::<f64>().max(1.0);
        parts.map(|part| 100.0 * part / sum)
    }

    /// What takes most of the workers' time.
    pub fn bottleneck(&self) -> &'static str {
        let [decoding, encoding, waiting] = self.shares();
        if encoding >= decoding && encoding >= waiting {
            "encoder"
        } else if decoding >= waiting {
            "decode"
        } else {
            "disk"
        }
    }
}

/// What the line works on.
pub(super) struct Line<'a> {
    pub jobs: &'a [Job],
    pub items: &'a [Option<&'a Item>],
    pub preparer: Preparer<'a>,
    pub meter: &'a Meter,
    pub progress: &'a dyn Progress,
}

type Loaded = (Job, Vec<Result<Vec<u8>, io::Error>>);

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
        let next = AtomicUsize::new(0);
        let hands = decoders.unwrap_or(embedders.len());
        std::thread::scope(|scope| {
            let (loaded_out, loaded) = bounded::<Loaded>(hands * READ_AHEAD);
            for _ in 0..hands.clamp(1, 8) {
                let loaded_out = loaded_out.clone();
                let (next, stop) = (&next, &stop);
                scope.spawn(move || self.read(next, stop, &loaded_out));
            }
            drop(loaded_out);
            let fail = &fail;
            let stop = &stop;
            match decoders {
                None => {
                    for embedder in embedders {
                        let loaded = loaded.clone();
                        scope.spawn(move || self.decode_and_embed(embedder, &loaded, stop).unwrap_or_else(fail));
                    }
                }
                Some(decoders) => {
                    let (ready_out, ready) = bounded::<Prepared>(embedders.len() * READ_AHEAD);
                    for _ in 0..decoders {
                        let (loaded, ready_out) = (loaded.clone(), ready_out.clone());
                        scope.spawn(move || self.decode(&loaded, &ready_out));
                    }
                    for embedder in embedders {
                        let ready = ready.clone();
                        scope.spawn(move || self.embed_all(embedder, &ready, stop).unwrap_or_else(fail));
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

    fn read(&self, next: &AtomicUsize, stop: &AtomicBool, out: &Sender<Loaded>) {
        while !stop.load(Ordering::Relaxed) {
            let Some(job) = self.jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let files = job.rows.iter().map(|row| self.read_row(*row)).collect();
            if out.send((job.clone(), files)).is_err() {
                return;
            }
        }
    }

    fn read_row(&self, row: u32) -> io::Result<Vec<u8>> {
        match self.items.get(row as usize).copied().flatten() {
            Some(item) => item.source.read(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the data set has this picture no longer")),
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

    fn decode(&self, loaded: &Receiver<Loaded>, out: &Sender<Prepared>) {
        while let Some(files) = self.wait(loaded) {
            if out.send(self.prepare(files, Vec::new())).is_err() {
                return;
            }
        }
    }

    fn embed_all(
        &self,
        mut embedder: Box<dyn Embedder + '_>,
        ready: &Receiver<Prepared>,
        stop: &AtomicBool,
    ) -> Result<()> {
        for prepared in ready {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.embed(&mut *embedder, &prepared)?;
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
        let images = prepared.outcomes.len() as u64;
        self.meter.images.fetch_add(images, Ordering::Relaxed);
        self.meter.missing.fetch_add(prepared.missing() as u64, Ordering::Relaxed);
        self.progress.advance(images);
        Ok(())
    }
}

/// Tells `progress` the rate and the bottleneck, twice a second, until `done`.
pub(super) fn report(meter: &Meter, progress: &dyn Progress, done: &Receiver<()>) {
    let start = Instant::now();
    while let Err(crossbeam_channel::RecvTimeoutError::Timeout) = done.recv_timeout(Duration::from_millis(500)) {
        let rate = meter.images() as f64 / start.elapsed().as_secs_f64();
        let [decoding, encoding, waiting] = meter.shares();
        let missing = meter.missing();
        progress.status(&format!(
            "{rate:.0} img/s, bound by {} (decode {decoding:.0}%, encoder {encoding:.0}%, disk {waiting:.0}%), {missing} missing",
            meter.bottleneck()
        ));
    }
}
