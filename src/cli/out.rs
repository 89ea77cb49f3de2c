//! The two streams: data on stdout, everything else on stderr. The only file of the program that writes to either.
//!
//! `println!` panics when the reader has gone or the disk is full, and both are ordinary. A reader that has read enough
//! (`| head`) ends nothing: the rest is written to nobody, and the command's own success or failure decides the exit code. A disk
//! that is full loses data, so that is an error. stderr is a courtesy: no job fails because nobody listens.

use std::{
    borrow::Cow,
    fmt::{Arguments, Display},
    io::{self, Write},
};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes `data` to stdout as it is.
///
/// # Errors
/// Where stdout can't take it; not where nobody reads it.
pub(super) fn data(data: impl Display) -> Result<()> {
    write(&mut io::stdout().lock(), format_args!("{data}"))
        .context("stdout can't be written: what was asked for is incomplete")
}

/// Writes `value` to stdout as JSON.
///
/// # Errors
/// As [`data`].
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    data(format_args!("{text}\n"))
}

fn write(out: &mut impl Write, text: Arguments<'_>) -> io::Result<()> {
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a line to stderr, if anyone takes it.
pub(super) fn line(text: Arguments<'_>) {
    raw(format_args!("{text}\n"));
}

/// Writes `text` to stderr, if anyone takes it. Names in it may come from a stranger's list or tar: what would steer the terminal
/// is shown as an escape.
pub(super) fn raw(text: Arguments<'_>) {
    let _ = write(&mut io::stderr().lock(), format_args!("{}", harmless(&text.to_string())));
}

fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if steers(letter) { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    Cow::Owned(shown)
}

/// A line on stderr, written as `eprintln!` is.
macro_rules! note {
    ($($said:tt)*) => { $crate::cli::out::line(format_args!($($said)*)) };
}
pub(super) use note;

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at the flush, as a pipe does for a short text.
    struct Refuses(io::ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn no_name_steers_the_terminal() {
        assert_eq!(harmless("a\tb\nc"), "a\tb\nc");
        assert_eq!(harmless("evil\u{1b}[2Jé"), "evil\\u{1b}[2Jé");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        assert!(write(&mut Refuses(io::ErrorKind::BrokenPipe), format_args!("x")).is_ok());
        let full = write(&mut Refuses(io::ErrorKind::StorageFull), format_args!("x"));
        assert_eq!(full.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    }
}
