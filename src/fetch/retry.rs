//! When a fetch is tried again: a pure function of the URL, the try and the failure.

use std::time::{Duration, SystemTime};

use super::FetchError;

/// Pause before the second try; it doubles from try to try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A server that asks for more patience than this is left to a later run.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Seconds that a fetch waits for a free socket.
pub(super) const SHORTAGES: u32 = 60;

/// How long to wait before the try after `tries`; `None` where another try is of no use. `after` is the server's wish.
pub(super) fn pause(url: &str, tries: u32, error: &FetchError, after: Option<Duration>) -> Option<Duration> {
    if !error.reason().is_temporary() || matches!(error, FetchError::Gone) {
        return None;
    }
    let doubled = FIRST_PAUSE.saturating_mul(1 << tries.min(16));
    // Between half and all of it: what failed together is not tried again together.
    let pause = doubled.mul_f64(0.5 + 0.5 * share(url, tries));
    let pause = after.map_or(pause, |after| after.saturating_add(pause / 4));
    (pause <= LONGEST_PAUSE).then_some(pause)
}

/// A number in 0..1 from the URL and the try.
fn share(url: &str, tries: u32) -> f64 {
    let hash = blake3::Hasher::new().update(&tries.to_le_bytes()).update(url.as_bytes()).finalize();
    let bytes: [u8; 4] = std::array::from_fn(|at| hash.as_bytes()[at]);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// The header `Retry-After`: seconds, or a date.
pub(super) fn parse_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: FetchError = FetchError::Http { status: 503 };

    #[test]
    fn pauses_double_and_differ_from_url_to_url() {
        let seconds = |tries| pause("http://a/", tries, &BUSY, None).unwrap().as_secs_f64();
        for (tries, full) in [(0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0)] {
            assert!((full / 2.0..=full).contains(&seconds(tries)), "{tries}: {}", seconds(tries));
        }
        assert_ne!(pause("http://a/", 0, &BUSY, None), pause("http://b/", 0, &BUSY, None));
        assert_eq!(pause("http://a/", 0, &BUSY, None), pause("http://a/", 0, &BUSY, None));
        assert_eq!(pause("http://a/", 40, &BUSY, None), None, "nobody waits for days");
    }

    #[test]
    fn a_server_is_given_the_time_it_asks_for_within_reason() {
        let after = |seconds| pause("http://a/", 0, &BUSY, Some(Duration::from_secs(seconds)));
        assert!(after(7).unwrap() >= Duration::from_secs(7) && after(7).unwrap() < Duration::from_secs(8));
        assert_eq!(after(3600), None);
    }

    #[test]
    fn what_stays_is_not_tried_again() {
        for error in
            [FetchError::Http { status: 404 }, FetchError::Gone, FetchError::Tls, FetchError::TooLarge { max_bytes: 1 }]
        {
            assert_eq!(pause("http://a/", 0, &error, None), None, "{error}");
        }
        for error in [FetchError::Timeout, FetchError::Dns, FetchError::Http { status: 429 }] {
            assert!(pause("http://a/", 0, &error, None).is_some(), "{error}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(parse_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(parse_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(parse_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_after("soon", now), None);
    }
}
