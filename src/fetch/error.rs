//! Why a URL gave no file, and the reason that a cache records.

use std::io;

use icecap_cache::Reason;

/// A URL that could not be fetched. The same failure has the same words in every run: they go into the cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The data set has the image no longer.
    #[error("the data set has this picture no longer")]
    Gone,
    /// It was not asked for.
    #[error("not fetched: {why}")]
    Refused {
        /// What is wrong with it.
        why: String,
    },
    /// The name of a host leads nowhere.
    #[error("the host's name does not resolve")]
    Dns,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The server's answer.
    #[error("the server answered `{status}`")]
    Http {
        /// HTTP's status code.
        status: u16,
    },
    /// More bytes than a picture may have.
    #[error("the file has more than `{max_bytes}` bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The connection was not made, or broke off.
    #[error("{what}")]
    Connection {
        /// Which of the two.
        what: &'static str,
    },
    /// The server's certificate is not trusted, or its TLS is not ours.
    #[error("the server's TLS or certificate is not accepted")]
    Tls,
    /// One redirect after another.
    #[error("redirected more than `{most}` times")]
    Redirects {
        /// How many are followed.
        most: usize,
    },
}

impl FetchError {
    /// The reason that a cache records for the missing row.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Gone => Reason::NotFound,
            Self::Refused { .. } => Reason::Refused,
            Self::Dns => Reason::Dns,
            Self::Timeout => Reason::Timeout,
            Self::Http { status } => Reason::Http(*status),
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Connection { .. } => Reason::Connection,
            Self::Tls => Reason::Tls,
            Self::Redirects { .. } => Reason::Redirects,
        }
    }
}

/// Fetching could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No threads.
    #[error("the threads that fetch pictures cannot be started")]
    Threads(#[source] io::Error),
    /// No client.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_it_is_and_has_its_reason() {
        let connection = FetchError::Connection { what: "the connection broke off" };
        let errors = [
            FetchError::Gone,
            FetchError::Refused { why: "`10.0.0.1` is not a public address".to_owned() },
            FetchError::Dns,
            FetchError::Timeout,
            FetchError::Http { status: 404 },
            FetchError::TooLarge { max_bytes: 1000 },
            connection,
            FetchError::Tls,
            FetchError::Redirects { most: 5 },
        ];
        let shown: Vec<String> = errors.iter().map(|error| format!("{}: {error}", error.reason())).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        not-found: the data set has this picture no longer
        refused: not fetched: `10.0.0.1` is not a public address
        dns: the host's name does not resolve
        timeout: no answer in time
        http-404: the server answered `404`
        too-large: the file has more than `1000` bytes
        connection: the connection broke off
        tls: the server's TLS or certificate is not accepted
        redirects: redirected more than `5` times
        ");
    }

    #[test]
    fn what_cannot_begin_says_so() {
        let threads = SetupError::Threads(io::Error::other("no more"));
        insta::assert_snapshot!(threads, @"the threads that fetch pictures cannot be started");
    }
}
