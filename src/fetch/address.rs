//! Which URLs and addresses are fetched.
//!
//! Decision: an address is fetched where it is known to be public, not where it is not known to be private. The lists are those of
//! IANA's special-purpose registries; addresses that carry an IPv4 address in them are judged by that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::FetchError;

/// Longer URLs are refused.
const LONGEST: usize = 8192;

/// The URL, where it is one that can be fetched at all.
pub(super) fn parse(text: &str) -> Result<Url, FetchError> {
    let refused = |why: String| FetchError::Refused { why };
    if text.len() > LONGEST {
        return Err(refused(format!("the URL has {} bytes", text.len())));
    }
    let url = Url::parse(text).map_err(|error| refused(format!("`{}` is not a URL ({error})", shown(text))))?;
    check_scheme(&url)?;
    Ok(url)
}

/// The beginning of a text, fit for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

/// Refuses all schemes but http and https, and URLs with a password in them.
pub(super) fn check_scheme(url: &Url) -> Result<(), FetchError> {
    let refused = |why: String| Err(FetchError::Refused { why });
    if !matches!(url.scheme(), "http" | "https") {
        return refused(format!("`{}:` is neither http nor https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("the URL holds a user's name or password".to_owned());
    }
    Ok(())
}

/// Refuses an address that stands in the URL itself: no resolver is asked for it.
pub(super) fn check_literal(url: &Url, allow_private: bool) -> Result<(), FetchError> {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match literal {
        Ok(address) if !allow_private && !is_public(address) => Err(Private { address }.into()),
        _ => Ok(()),
    }
}

/// A name led to an address that is not public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is not a public address")]
pub(super) struct Private {
    pub address: IpAddr,
}

impl From<Private> for FetchError {
    fn from(private: Private) -> Self {
        Self::Refused { why: private.to_string() }
    }
}

/// The system's resolver, whose answers are checked before anyone connects to them.
#[derive(Debug)]
pub(super) struct CheckedResolver {
    pub allow_private: bool,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(usable(found, allow_private)?.into_iter()) as Addrs)
        })
    }
}

/// Those of `found` that may be connected to; an error where there are none but private ones.
fn usable(found: Vec<SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, Private> {
    let first = found.first().map(SocketAddr::ip);
    let usable: Vec<SocketAddr> =
        found.into_iter().filter(|address| allow_private || is_public(address.ip())).collect();
    match first {
        Some(address) if usable.is_empty() => Err(Private { address }),
        _ => Ok(usable),
    }
}

/// Whether an address is one of the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local() // with the clouds' metadata, 169.254.169.254
        || address.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b)) // carriers' networks
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && matches!(b, 18 | 19)) // benchmarks
        || a >= 224; // multicast, reserved, broadcast
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false, // Teredo, ORCHID, documentation
        [0x3fff, second, ..] if second < 0x1000 => false,                   // documentation
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
            "2002:808:808::",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_name_that_leads_to_both_is_used_by_its_public_addresses() {
        let found = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(usable(found(&["10.0.0.1:0", "1.1.1.1:0"]), false).unwrap(), found(&["1.1.1.1:0"]));
        assert_eq!(usable(found(&["10.0.0.1:0"]), true).unwrap(), found(&["10.0.0.1:0"]));
        assert_eq!(usable(Vec::new(), false), Ok(Vec::new()));
        insta::assert_snapshot!(usable(found(&["10.0.0.1:0"]), false).unwrap_err(), @"`10.0.0.1` is not a public address");
    }

    #[test]
    fn addresses_in_every_spelling_are_seen() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "https://10.0.0.1:8443/a.jpg",
        ] {
            let parsed = parse(url).unwrap();
            assert!(check_literal(&parsed, false).is_err(), "{url}");
            assert!(check_literal(&parsed, true).is_ok(), "{url}");
        }
        assert!(check_literal(&parse("http://example.com/a.jpg").unwrap(), false).is_ok());
    }

    #[test]
    fn odd_schemes_are_refused() {
        let refused = |url: &str| parse(url).unwrap_err().to_string();
        insta::assert_snapshot!(refused("file:///etc/passwd"), @"not fetched: `file:` is neither http nor https");
        insta::assert_snapshot!(refused("ftp://example.com/a.jpg"), @"not fetched: `ftp:` is neither http nor https");
        insta::assert_snapshot!(refused("data:image/png;base64,AAAA"), @"not fetched: `data:` is neither http nor https");
        insta::assert_snapshot!(refused("javascript:alert(1)"), @"not fetched: `javascript:` is neither http nor https");
        insta::assert_snapshot!(refused("http://user:secret@example.com/"), @"not fetched: the URL holds a user's name or password");
        insta::assert_snapshot!(refused("//example.com/a.jpg"), @"not fetched: `//example.com/a.jpg` is not a URL (relative URL without a base)");
        insta::assert_snapshot!(refused("http://"), @"not fetched: `http://` is not a URL (empty host)");
        insta::assert_snapshot!(refused(&format!("http://a/{}", "x".repeat(9000))), @"not fetched: the URL has 9009 bytes");
    }
}
