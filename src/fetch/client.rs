//! One try for one URL: redirects followed by hand, so that each step is checked as the first one was.
//!
//! Decision: neither the content's type nor its length is believed. Whether the bytes are a picture is for a decoder to say, and
//! reading stops at the limit whatever was announced. No compression is asked for: pictures are compressed already, and a small
//! answer cannot become a large one.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use super::address::{self, CheckedResolver, Private};
use super::hosts::Hosts;
use super::room::Place;
use super::{FetchError, FetchOptions, SetupError, retry};

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 5;
/// Connecting, and every wait for more bytes, may take this long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that nothing uses for this long is closed: a list has too many hosts to keep them all open.
const LONGEST_IDLE: Duration = Duration::from_secs(2);
/// The body of a failure is read to its end, so that its connection can be used again, where it has fewer bytes.
const SMALL_BODY_BYTES: u64 = 16 << 10;
/// Bytes that a body of unknown length has at first.
const FIRST_BODY_BYTES: usize = 64 << 10;

/// Why a try gave no file.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file has (so far) `bytes` bytes, for which there is no room now.
    NoRoom { bytes: usize },
    /// This machine has no socket left.
    NoSocket,
    /// The server or the way to it. `after`: when it wishes to be asked again.
    Failed { error: FetchError, after: Option<Duration> },
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Failed { error, after: None }
    }
}

enum Answer {
    File(Vec<u8>),
    Elsewhere(Url),
}

/// An HTTP client with its limits.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    hosts: Hosts,
    connections: Semaphore,
    most_connections: usize,
    timeout: Duration,
    max_bytes: usize,
    allow_private: bool,
}

impl Client {
    pub(super) fn new(options: &FetchOptions, connections: usize) -> Result<Self, SetupError> {
        let wait = options.timeout.min(LONGEST_WAIT);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("image/*,*/*;q=0.5"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .dns_resolver(CheckedResolver { allow_private: options.allow_private })
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("icecap/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(wait)
            .read_timeout(wait)
            .pool_idle_timeout(LONGEST_IDLE)
            .pool_max_idle_per_host(options.per_host)
            .build()
            .map_err(SetupError::Client)?;
        let connections = connections.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            http,
            hosts: Hosts::new(options.per_host),
            connections: Semaphore::new(connections),
            most_connections: connections,
            timeout: options.timeout,
            max_bytes: options.max_bytes,
            allow_private: options.allow_private,
        })
    }

    /// Connections that are busy.
    pub(super) fn busy(&self) -> usize {
        self.most_connections.saturating_sub(self.connections.available_permits())
    }

    /// The file at `url`; its bytes are counted in `place`.
    pub(super) async fn get(&self, url: &Url, place: &mut Place) -> Result<Vec<u8>, Failure> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            address::check_scheme(&url)?;
            address::check_literal(&url, self.allow_private)?;
            let _host = self.hosts.enter(url.host_str().unwrap_or_default()).await;
            let _connection = self.connections.acquire().await;
            // On the heap: thousands of URLs wait for a connection, and need no room for one yet.
            let exchange = Box::pin(self.exchange(&url, place));
            let answer = tokio::time::timeout(self.timeout, exchange).await;
            match answer.unwrap_or_else(|_| Err(FetchError::Timeout.into()))? {
                Answer::File(bytes) => return Ok(bytes),
                Answer::Elsewhere(next) => url = next,
            }
        }
        Err(FetchError::Redirects { most: MOST_REDIRECTS }.into())
    }

    /// One request and its answer.
    async fn exchange(&self, url: &Url, place: &mut Place) -> Result<Answer, Failure> {
        let response = self.http.get(url.clone()).send().await.map_err(|error| classify(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Answer::File(self.body(response, place).await?));
        }
        let elsewhere = elsewhere(&response, url);
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry::parse_after(value, SystemTime::now()));
        finish(response).await;
        match elsewhere {
            Some(next) => Ok(Answer::Elsewhere(next)),
            None => Err(Failure::Failed { error: FetchError::Http { status: status.as_u16() }, after }),
        }
    }

    async fn body(&self, mut response: Response, place: &mut Place) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure::from(FetchError::TooLarge { max_bytes: self.max_bytes });
        let announced = response.content_length().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced.is_some_and(|bytes| bytes > self.max_bytes) {
            return Err(too_large());
        }
        let mut room = announced.unwrap_or(FIRST_BODY_BYTES);
        let no_room = |bytes| Err(Failure::NoRoom { bytes });
        if !place.grow(room) {
            return no_room(room);
        }
        let mut bytes = Vec::with_capacity(room.min(1 << 20));
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            let length = bytes.len() + chunk.len();
            if length > self.max_bytes {
                return Err(too_large());
            }
            if length > room {
                room = length.saturating_mul(2).min(self.max_bytes);
                if !place.grow(room) {
                    return no_room(room);
                }
            }
            bytes.extend_from_slice(&chunk);
        }
        bytes.shrink_to_fit();
        place.fit(bytes.len());
        Ok(bytes)
    }
}

/// Where a redirect leads; `None` for every other answer.
fn elsewhere(response: &Response, url: &Url) -> Option<Url> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&response.status()) {
        return None;
    }
    url.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()
}

/// Reads a small body to its end.
async fn finish(mut response: Response) {
    if response.content_length().is_some_and(|bytes| bytes <= SMALL_BODY_BYTES) {
        while let Ok(Some(_)) = response.chunk().await {}
    }
}

/// Mozilla's roots, compiled in: the same servers are trusted on every machine.
fn tls() -> ClientConfig {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// What an error of the client means, by its causes.
fn classify(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = known(error) {
            return failure;
        }
        // An io::Error hides what it was made of from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    if error.is_timeout() {
        FetchError::Timeout.into()
    } else if error.is_dns() {
        FetchError::Dns.into()
    } else if error.is_connect() {
        FetchError::Connection { what: "no connection is made" }.into()
    } else if error.is_builder() {
        FetchError::Refused { why: "no request can be made of the URL".to_owned() }.into()
    } else {
        FetchError::Connection { what: "the connection broke off" }.into()
    }
}

fn known(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(private) = error.downcast_ref::<Private>() {
        return Some(FetchError::from(private.clone()).into());
    }
    if error.is::<rustls::Error>() {
        return Some(FetchError::Tls.into());
    }
    /// No more open files for this process, or for the machine.
    const FULL: [i32; 2] = [24, 23];
    let code = error.downcast_ref::<io::Error>()?.raw_os_error()?;
    FULL.contains(&code).then_some(Failure::NoSocket)
}
