//! Where the assembly line's files come from: read from the disk by a few threads, or fetched from the web by thousands of
//! connections.
//!
//! It must not decode anything. Decision: batches arrive whole and in any order. A batch waits for its slowest picture and for no
//! other batch, so one server that stalls holds up the sixteen rows of its batch and nobody else.

use std::{
    io,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::Scope,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use icecap_cache::Reason;

use super::prepare::Job;
use crate::{
    dataset::{
        Item, Source,
        webdataset::{KeepError, Keeper, Kept},
    },
    fetch::{Download, FetchError, Fetched, Fetcher, Group},
};

/// Batches of files that wait for a decoder, for each worker.
const READ_AHEAD: usize = 2;
/// Threads that read files: the disk has more to do at once than one thread asks for.
const MOST_READERS: usize = 8;

/// A batch whose files are here: an answer for each of the job's rows.
pub(super) type Loaded = (Job, Vec<Result<Picture, Unread>>);

/// The bytes of a picture's file.
#[derive(Debug)]
pub(super) enum Picture {
    /// From the disk, or drawn.
    Read(Vec<u8>),
    /// From the web.
    Fetched(Download),
}

impl Deref for Picture {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Fetched(download) => download,
        }
    }
}

/// Why a row has no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its kind.
    pub reason: Reason,
    /// What was said.
    pub detail: String,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => Reason::NotFound,
            io::ErrorKind::UnexpectedEof => Reason::Truncated,
            io::ErrorKind::FileTooLarge => Reason::TooLarge,
            _ => Reason::Unreadable,
        };
        Self { reason, detail: error.to_string() }
    }
}

impl From<FetchError> for Unread {
    fn from(error: FetchError) -> Self {
        Self { reason: error.reason(), detail: error.to_string() }
    }
}

/// The web, where the data set is there, and where its pictures are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Web<'a> {
    pub fetcher: &'a Fetcher,
    pub keeper: Option<&'a Keeper>,
}

/// What hears of an error that ends the run.
pub(super) type Fail<'a> = &'a (dyn Fn(anyhow::Error) + Sync);

/// Gets the files of `jobs`.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub jobs: &'a [Job],
    /// By row; `None` where the data set has the row no longer.
    pub items: &'a [Option<&'a Item>],
    pub web: Option<Web<'a>>,
}

impl<'a> Reader<'a> {
    /// Begins to read, on threads of `scope`, ahead of `hands` workers. Ends after the last job, or when `stop` is set.
    pub(super) fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        hands: usize,
        stop: &'scope AtomicBool,
        fail: Fail<'scope>,
    ) -> Receiver<Loaded>
    where
        'a: 'scope,
    {
        let (out, loaded) = bounded(hands * READ_AHEAD);
        if let Some(web) = self.web {
            // Not bounded here: the fetcher holds so many files and no more until they are taken.
            let (fetched_out, fetched) = unbounded();
            scope.spawn(move || web.fetcher.fetch(self.jobs.iter().map(|job| self.group(job)), &fetched_out, stop));
            scope.spawn(move || self.pass_on(web.keeper, &fetched, &out).unwrap_or_else(|error| fail(error.into())));
            return loaded;
        }
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..hands.clamp(1, MOST_READERS) {
            let (next, out) = (Arc::clone(&next), out.clone());
            scope.spawn(move || self.read(&next, stop, &out));
        }
        loaded
    }

    fn item(&self, row: u32) -> Option<&'a Item> {
        self.items.get(row as usize).copied().flatten()
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

    fn read_row(&self, row: u32) -> Result<Picture, Unread> {
        match self.item(row) {
            Some(item) => Ok(Picture::Read(item.source.read()?)),
            None => Err(FetchError::Gone.into()),
        }
    }

    fn group(&self, job: &Job) -> Group<Job> {
        let url = |row: &u32| match &self.item(*row)?.source {
            Source::Url(url) => Some(url.to_string()),
            _ => None,
        };
        Group { ticket: job.clone(), urls: job.rows.iter().map(url).collect() }
    }

    /// Hands fetched batches on, and keeps their pictures before anyone can record that they were seen.
    fn pass_on(
        &self,
        keeper: Option<&Keeper>,
        fetched: &Receiver<Fetched<Job>>,
        out: &Sender<Loaded>,
    ) -> Result<(), KeepError> {
        for Fetched { ticket: job, files } in fetched {
            if let Some(keeper) = keeper {
                for (row, file) in job.rows.iter().zip(&files) {
                    self.keep(keeper, *row, file.as_deref().ok())?;
                }
            }
            let files = files.into_iter().map(|file| file.map(Picture::Fetched).map_err(Unread::from)).collect();
            if out.send((job, files)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn keep(&self, keeper: &Keeper, row: u32, bytes: Option<&[u8]>) -> Result<(), KeepError> {
        if let (Some(item), Some(bytes)) = (self.item(row), bytes) {
            keeper.keep(&Kept { row, url: &item.id, captions: &item.captions, bytes })?;
        }
        keeper.settle(row)
    }
}
