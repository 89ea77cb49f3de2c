//! Options for where pictures come from: a part of a data set, the web, and what is tried again.

use std::time::Duration;

use clap::{Args, ValueEnum};
use icecap_cache::Retry;

use crate::{dataset::Part, fetch::FetchOptions};

/// Which missing pictures are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RetryMissing {
    /// Those whose reason may have passed: timeouts, dns, broken connections, http-5xx, http-429, unreadable files
    Temporary,
    /// All, those that a server said are gone and those that are no images included
    All,
}

impl From<RetryMissing> for Retry {
    fn from(which: RetryMissing) -> Self {
        match which {
            RetryMissing::Temporary => Self::Temporary,
            RetryMissing::All => Self::All,
        }
    }
}

/// A part of the data set.
#[derive(Debug, Args)]
#[command(next_help_heading = "A part of the data set")]
pub(super) struct PartArgs {
    /// Only its first N images
    #[arg(long, value_name = "N", value_parser = images, conflicts_with = "sample")]
    pub limit: Option<usize>,
    /// Only N images drawn from all of it; another SEED draws others (default: 0)
    #[arg(long, value_name = "N[:SEED]", value_parser = sample)]
    pub sample: Option<(usize, u64)>,
}

impl PartArgs {
    pub(super) fn part(&self) -> Part {
        match (self.limit, self.sample) {
            (Some(images), _) => Part::First(images),
            (None, Some((images, seed))) => Part::Sample { images, seed },
            (None, None) => Part::All,
        }
    }
}

/// How pictures on the web are fetched.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data sets on the web")]
pub(super) struct FetchArgs {
    /// Connections at once
    #[arg(long, value_name = "N", default_value = "1024", value_parser = images)]
    pub connections: usize,
    /// Connections at once to one host
    #[arg(long, value_name = "N", default_value = "32", value_parser = images)]
    pub per_host: usize,
    /// Seconds that one try of a picture may take; connecting, and each wait for more bytes, may take 10 of them at most
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Fetch from this machine and from private networks, too; without it a list cannot make icecap reach inside them
    #[arg(long)]
    pub allow_private: bool,
}

impl FetchArgs {
    pub(super) fn options(&self) -> FetchOptions {
        FetchOptions {
            connections: self.connections,
            per_host: self.per_host,
            timeout: self.timeout,
            allow_private: self.allow_private,
            ..FetchOptions::default()
        }
    }
}

fn images(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(0) | Err(_) => Err("give a whole number, 1 or more".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn sample(text: &str) -> Result<(usize, u64), String> {
    let (number, seed) = text.split_once(':').unwrap_or((text, "0"));
    let seed = seed.parse().map_err(|_| "give a seed that is a whole number, such as `1000:7`".to_owned())?;
    Ok((images(number)?, seed))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().unwrap_or(f64::NAN);
    if (0.001..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("give seconds, more than 0 and at most 86400".to_owned())
    }
}
