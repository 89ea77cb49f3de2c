//! Pictures from the web: thousands of downloads in flight, each to its bytes or to the reason why there are none.
//!
//! It must not know data sets, pictures or caches: URLs in groups go in, a group comes out when its last URL is settled, in
//! whatever order that happens. What is downloaded is held in memory and nowhere else.
//!
//! Decision: a list of URLs is hostile until shown otherwise. An address is checked after its name was resolved and before
//! a connection is made, on every redirect; so no name, however it resolves the next time, leads inside a private network. Proxies of
//! the environment are not used, because they would resolve names unchecked.

mod address;
mod client;
mod error;
mod hosts;
mod retry;
mod room;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use client::Client;
pub use error::{FetchError, SetupError};
use room::{Place, Room};

/// How pictures are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOptions {
    /// Connections at once, to all hosts.
    pub connections: usize,
    /// Connections at once to one host.
    pub per_host: usize,
    /// The time that one try may take, from the first byte sent to the last one received.
    pub timeout: Duration,
    /// Tries after the first, for what may pass.
    pub retries: u32,
    /// Addresses of private networks and of this machine are fetched, too.
    pub allow_private: bool,
    /// A file of more bytes is given up.
    pub max_bytes: usize,
    /// Bytes of files that are downloaded and not yet taken.
    pub held_bytes: usize,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            connections: 1024,
            per_host: 32,
            timeout: Duration::from_secs(10),
            retries: 2,
            allow_private: false,
            max_bytes: 64 << 20,
            held_bytes: 1 << 30,
        }
    }
}

/// URLs that are wanted together, such as those of a batch.
#[derive(Debug)]
pub struct Group<T> {
    /// Comes back with the answers.
    pub ticket: T,
    /// What to fetch; `None` is answered by [`FetchError::Gone`].
    pub urls: Vec<Option<String>>,
}

/// What became of a [`Group`].
#[derive(Debug)]
pub struct Fetched<T> {
    /// The group's.
    pub ticket: T,
    /// One answer a URL, in their order.
    pub files: Vec<Result<Download, FetchError>>,
}

/// The bytes of a file. They count as held until this is dropped.
#[derive(Debug)]
pub struct Download {
    bytes: Vec<u8>,
    _place: Place,
}

impl Deref for Download {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What goes over the wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections that are busy now.
    pub busy: usize,
    /// Bytes of files received so far.
    pub bytes: u64,
}

/// Fetches URLs.
#[derive(Debug)]
pub struct Fetcher {
    /// Always there, until it is dropped.
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    /// Where fewer connections are to be had than were asked for.
    note: Option<String>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    room: Arc<Room>,
    retries: u32,
    received: AtomicU64,
}

/// How often a fetch that waits looks whether it is to stop.
const STOP_LOOK: Duration = Duration::from_millis(50);

impl Fetcher {
    /// Starts the threads that fetch.
    ///
    /// # Errors
    /// [`SetupError`] where the system gives no threads or the client cannot be made.
    pub fn new(options: &FetchOptions) -> Result<Self, SetupError> {
        let (connections, note) = affordable(options.connections.max(1));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads((cores / 4).clamp(1, 8))
            .max_blocking_threads(256)
            .thread_name("fetch")
            .enable_all()
            .build()
            .map_err(SetupError::Threads)?;
        let shared = Arc::new(Shared {
            client: Client::new(options, connections)?,
            // A batch waits for its slowest picture, so many more are begun than there are connections.
            room: Room::new(connections.saturating_mul(16).max(1 << 14), options.held_bytes),
            retries: options.retries,
            received: AtomicU64::new(0),
        });
        Ok(Self { runtime: Some(runtime), shared, note })
    }

    /// What the user should know of the connections.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What goes over the wires now.
    pub fn traffic(&self) -> Traffic {
        Traffic { busy: self.shared.client.busy(), bytes: self.shared.received.load(Ordering::Relaxed) }
    }

    /// Fetches all `groups`, begun in their order, and sends each to `out` when it is complete. Returns when all are sent, or soon
    /// after `stop` is set or nobody receives any more.
    ///
    /// # Panics
    /// Where a fetch panicked: with its panic.
    pub fn fetch<T: Send + 'static>(
        &self,
        groups: impl Iterator<Item = Group<T>>,
        out: &Sender<Fetched<T>>,
        stop: &AtomicBool,
    ) {
        let Some(runtime) = &self.runtime else { return };
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (serial, group) in (0u64..).zip(groups) {
                let open = Open::new(&self.shared, serial, group.ticket, group.urls.len(), out);
                for (at, url) in group.urls.into_iter().enumerate() {
                    let place = tokio::select! {
                        place = self.shared.room.enter(serial) => place,
                        () = stopped(stop) => return,
                    };
                    while let Some(ended) = tasks.try_join_next() {
                        raise(ended);
                    }
                    let (shared, open) = (Arc::clone(&self.shared), Arc::clone(&open));
                    tasks.spawn(async move { open.settle(at, shared.fetch(url, place).await) });
                }
            }
            loop {
                tokio::select! {
                    ended = tasks.join_next() => match ended {
                        Some(ended) => raise(ended),
                        None => return,
                    },
                    () = stopped(stop) => return,
                }
            }
        });
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // Nobody waits for a resolver that hangs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn raise(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(STOP_LOOK).await;
    }
}

/// The connections that the limit on open files leaves room for, and what to say where those are fewer.
fn affordable(wanted: usize) -> (usize, Option<String>) {
    /// Shards, tars, libraries; and connections that linger.
    const OTHER_FILES: u64 = 512;
    let files = (wanted as u64).saturating_mul(2).saturating_add(OTHER_FILES);
    let limit = rlimit::increase_nofile_limit(files).unwrap_or(1024);
    let affordable = (limit.saturating_sub(OTHER_FILES.min(limit / 2)) / 2).max(1) as usize;
    if affordable >= wanted {
        return (wanted, None);
    }
    let note =
        format!("{affordable} connections instead of {wanted}: the limit on open files is {limit} (`ulimit -Hn`)");
    (affordable, Some(note))
}

/// A group that is not complete yet.
struct Open<T> {
    shared: Arc<Shared>,
    serial: u64,
    left: AtomicUsize,
    state: Mutex<OpenState<T>>,
    out: Sender<Fetched<T>>,
}

struct OpenState<T> {
    ticket: Option<T>,
    files: Vec<Option<Result<Download, FetchError>>>,
}

impl<T: Send + 'static> Open<T> {
    fn new(shared: &Arc<Shared>, serial: u64, ticket: T, urls: usize, out: &Sender<Fetched<T>>) -> Arc<Self> {
        let files = (0..urls).map(|_| None).collect();
        let open = Arc::new(Self {
            shared: Arc::clone(shared),
            serial,
            left: AtomicUsize::new(urls),
            state: Mutex::new(OpenState { ticket: Some(ticket), files }),
            out: out.clone(),
        });
        if urls == 0 {
            open.send();
        }
        open
    }

    fn settle(&self, at: usize, file: Result<Download, FetchError>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files[at] = Some(file);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.send();
        }
    }

    fn send(&self) {
        let (ticket, files) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.ticket.take(), std::mem::take(&mut state.files))
        };
        self.shared.room.leave(self.serial, files.iter().filter(|file| matches!(file, Some(Ok(_)))).count());
        if let Some(ticket) = ticket {
            // Where nobody receives any more, the run is over.
            let _ = self.out.send(Fetched { ticket, files: files.into_iter().flatten().collect() });
        }
    }
}

impl Shared {
    /// One URL to its end, with as many tries as it may have.
    async fn fetch(&self, url: Option<String>, mut place: Place) -> Result<Download, FetchError> {
        let url = address::parse(&url.ok_or(FetchError::Gone)?)?;
        let (mut tries, mut shortages) = (0, 0);
        loop {
            match self.client.get(&url, &mut place).await {
                Ok(bytes) => {
                    self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.room.learn(bytes.len());
                    return Ok(Download { bytes, _place: place });
                }
                Err(client::Failure::NoRoom { bytes }) => place.wait_for(bytes).await,
                // This machine has no socket left: that says nothing of the picture.
                Err(client::Failure::NoSocket) if shortages < retry::SHORTAGES => {
                    shortages += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(client::Failure::NoSocket) => {
                    return Err(FetchError::Connection { what: "no socket is to be had" });
                }
                Err(client::Failure::Failed { error, after }) => {
                    let pause = (tries < self.retries).then(|| retry::pause(url.as_str(), tries, &error, after));
                    let Some(pause) = pause.flatten() else { return Err(error) };
                    place.empty();
                    tries += 1;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
