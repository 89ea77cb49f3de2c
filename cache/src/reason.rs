//! Why a row is missing: a closed list with stable names and codes.
//!
//! The name goes into `missing.jsonl` and the manifest, the code into the shard's `status` tensor. The code of an HTTP
//! failure does not tell which: the name does (`http-404`), so that one byte a row is enough.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why there is no embedding for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The file is there and could not be read.
    Unreadable,
    /// There is no such file.
    NotFound,
    /// The file holds no byte.
    Empty,
    /// The bytes are of no known image format.
    NotAnImage,
    /// The image ends before its pixels do.
    Truncated,
    /// More pixels than the limit allows.
    TooLarge,
    /// An image format, or a variant of one, that icecap does not decode.
    Unsupported,
    /// The server answered with this status.
    Http(u16),
    /// The host's name does not resolve.
    Dns,
    /// The server did not answer in time.
    Timeout,
    /// Anything else; the detail says what.
    Other,
    /// Not asked for: its address is not one that is fetched (another scheme, inside a private network).
    Refused,
    /// The connection was not made, or broke off.
    Connection,
    /// The server's certificate or its TLS was not accepted.
    Tls,
    /// Led from one address to another too often.
    Redirects,
}

/// `status` of a row that is present.
pub(crate) const PRESENT: u8 = 0;

const PLAIN: [(Reason, u8, &str); 14] = [
    (Reason::Unreadable, 1, "unreadable"),
    (Reason::NotFound, 2, "not-found"),
    (Reason::Empty, 3, "empty"),
    (Reason::NotAnImage, 4, "not-an-image"),
    (Reason::Truncated, 5, "truncated"),
    (Reason::TooLarge, 6, "too-large"),
    (Reason::Unsupported, 7, "unsupported"),
    (Reason::Dns, 9, "dns"),
    (Reason::Timeout, 10, "timeout"),
    (Reason::Other, 11, "other"),
    (Reason::Refused, 12, "refused"),
    (Reason::Connection, 13, "connection"),
    (Reason::Tls, 14, "tls"),
    (Reason::Redirects, 15, "redirects"),
];
const HTTP: u8 = 8;

impl Reason {
    /// The code in the shard's `status` tensor; never 0, which means present.
    pub fn code(self) -> u8 {
        PLAIN.iter().find(|(reason, ..)| *reason == self).map_or(HTTP, |(_, code, _)| *code)
    }

    /// Whether the same request may succeed at another time: the network, the server or the disk was at fault, not what was
    /// asked for. A file that is not there may be put in its place; a page that is not there (`http-404`) will not.
    pub fn is_temporary(self) -> bool {
        match self {
            Self::Http(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Unreadable | Self::NotFound | Self::Dns | Self::Timeout | Self::Connection | Self::Other => true,
            Self::Empty
            | Self::NotAnImage
            | Self::Truncated
            | Self::TooLarge
            | Self::Unsupported
            | Self::Refused
            | Self::Tls
            | Self::Redirects => false,
        }
    }

    /// Whether `code` is one that [`Reason::code`] gives.
    pub(crate) fn is_code(code: u8) -> bool {
        code == HTTP || PLAIN.iter().any(|(_, known, _)| *known == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(status) => write!(f, "http-{status}"),
            plain => {
                let name = PLAIN.iter().find(|(reason, ..)| reason == plain).map_or("other", |(.., name)| name);
                f.write_str(name)
            }
        }
    }
}

/// The text is not the name of a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a reason for a missing row")]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        if let Some(status) = text.strip_prefix("http-").and_then(|digits| digits.parse().ok()) {
            return Ok(Self::Http(status));
        }
        let plain = PLAIN.iter().find(|(.., name)| *name == text);
        plain.map(|(reason, ..)| *reason).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_stable() {
        let all: Vec<String> = PLAIN.iter().map(|(reason, code, _)| format!("{code} {reason}")).collect();
        insta::assert_snapshot!(all.join(", "), @"1 unreadable, 2 not-found, 3 empty, 4 not-an-image, 5 truncated, 6 too-large, 7 unsupported, 9 dns, 10 timeout, 11 other, 12 refused, 13 connection, 14 tls, 15 redirects");
        assert_eq!(Reason::Http(404).code(), 8);
        assert_eq!(Reason::Http(404).to_string(), "http-404");
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        let temporary = |reason: &&Reason| reason.is_temporary();
        let http = [404, 410, 403, 408, 429, 500, 503, 301].map(Reason::Http);
        let names = |reasons: &[Reason]| {
            reasons.iter().filter(temporary).map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&http), "http-408 http-429 http-500 http-503");
        let plain: Vec<Reason> = PLAIN.iter().map(|row| row.0).collect();
        assert_eq!(names(&plain), "unreadable not-found dns timeout other connection");
    }

    #[test]
    fn every_reason_survives_json() {
        for reason in PLAIN.iter().map(|row| row.0).chain([Reason::Http(404), Reason::Http(0)]) {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason);
            assert!(Reason::is_code(reason.code()));
        }
        assert!(!Reason::is_code(PRESENT) && !Reason::is_code(16));
        assert!(serde_json::from_str::<Reason>("\"bored\"").is_err());
    }
}
