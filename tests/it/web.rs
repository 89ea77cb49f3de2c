//! A web server on the loopback that serves, fails, stalls, lies and breaks off, as a test tells it.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// What the server does with a request.
pub enum Answer {
    /// 200 and these bytes.
    Bytes(Vec<u8>),
    /// 200 and these bytes in chunks, without a length.
    Chunked(Vec<u8>),
    /// This status, with more headers.
    Status(u16, String),
    /// This status, leading elsewhere.
    Redirect(String),
    /// Nothing, for as long as the client waits.
    Stall,
    /// Half of these bytes, and then nothing.
    StallHalfway(Vec<u8>),
    /// Half of these bytes, and then the end.
    BreakOff(Vec<u8>),
    /// The end at once.
    HangUp,
    /// A length of so many bytes, and a few of them.
    Announce(u64),
    /// Bytes without an end.
    Endless,
    /// No HTTP at all.
    Rubbish,
}

type Handler = dyn Fn(&str, usize) -> Answer + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    hits: Mutex<HashMap<String, usize>>,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
    is_over: AtomicBool,
}

/// The server. It ends with its test.
pub struct Web {
    port: u16,
    shared: Arc<Shared>,
}

impl Web {
    /// Serves what `handler` says to a path and how often it was asked for before.
    pub fn new(handler: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            hits: Mutex::default(),
            busy: AtomicUsize::new(0),
            most_busy: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if own.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.serve(stream));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often a path was asked for.
    pub fn hits(&self, path: &str) -> usize {
        self.shared.hits.lock().expect("hits").get(path).copied().unwrap_or_default()
    }

    /// How often anything was asked for.
    pub fn all_hits(&self) -> usize {
        self.shared.hits.lock().expect("hits").values().sum()
    }

    /// Requests that were answered at once, at most.
    pub fn most_busy(&self) -> usize {
        self.shared.most_busy.load(Ordering::SeqCst)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let mut input = BufReader::new(stream);
        while let Some(path) = request(&mut input) {
            let before = {
                let mut hits = self.hits.lock().expect("hits");
                let hits = hits.entry(path.clone()).or_default();
                *hits += 1;
                *hits - 1
            };
            let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_busy.fetch_max(busy, Ordering::SeqCst);
            let answer = (self.handler)(&path, before);
            let goes_on = give(input.get_mut(), answer);
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if !goes_on {
                return;
            }
        }
    }
}

/// The path of the next request.
fn request(input: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first = String::new();
    let mut line = String::new();
    while input.read_line(&mut line).ok()? > 2 {
        if first.is_empty() {
            first.clone_from(&line);
        }
        line.clear();
    }
    Some(first.split(' ').nth(1)?.trim_start_matches('/').to_owned())
}

/// Answers; whether the connection can be used again.
fn give(stream: &mut TcpStream, answer: Answer) -> bool {
    let head = |status: u16, more: &str, length: u64| {
        format!("HTTP/1.1 {status} x\r\ncontent-type: image/jpeg\r\n{more}content-length: {length}\r\n\r\n")
            .into_bytes()
    };
    let whole = |bytes: &[u8]| [head(200, "", bytes.len() as u64), bytes.to_vec()].concat();
    let half = |bytes: &[u8]| [head(200, "", bytes.len() as u64), bytes[..bytes.len() / 2].to_vec()].concat();
    let chunked = b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n";
    match answer {
        Answer::Bytes(bytes) => stream.write_all(&whole(&bytes)).is_ok(),
        Answer::Chunked(bytes) => {
            let chunks = bytes
                .chunks(10_000)
                .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            stream.write_all(&[&chunked[..], &chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n"].concat()).is_ok()
        }
        Answer::Status(status, more) => stream.write_all(&[head(status, &more, 4), b"none".to_vec()].concat()).is_ok(),
        Answer::Redirect(to) => stream.write_all(&head(302, &format!("location: {to}\r\n"), 0)).is_ok(),
        Answer::Stall => wait(stream),
        Answer::StallHalfway(bytes) => stream.write_all(&half(&bytes)).is_ok() && wait(stream),
        Answer::BreakOff(bytes) => {
            let _ = stream.write_all(&half(&bytes));
            false
        }
        Answer::HangUp => false,
        Answer::Announce(length) => {
            stream.write_all(&[head(200, "", length), vec![0; 100]].concat()).is_ok() && wait(stream)
        }
        Answer::Endless => {
            let _ = stream.write_all(chunked);
            while stream.write_all(&[&b"2000\r\n"[..], &[7; 0x2000], b"\r\n"].concat()).is_ok() {}
            false
        }
        Answer::Rubbish => {
            let _ = stream.write_all(b"\x00\x01 this is not the web\r\n\r\n");
            false
        }
    }
}

/// Waits until the client gives up.
fn wait(stream: &mut TcpStream) -> bool {
    let _ = stream.read(&mut [0; 1]);
    false
}
