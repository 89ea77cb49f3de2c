//! The faults of a sweep file, gathered: each place says a thing once, however many trials it spoils.

use std::ops::Range;

use super::super::strict::{self, Fault};

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    faults: Vec<Fault>,
}

impl Found {
    pub fn new(faults: Vec<Fault>) -> Self {
        Self { faults }
    }

    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// A fault at a range of bytes.
    pub fn push(&mut self, span: Range<usize>, message: String, hint: Option<String>) {
        let fault = Fault { span, message, hint };
        let told = |other: &Fault| other.span == fault.span && other.message == fault.message;
        if !self.faults.iter().any(told) {
            self.faults.push(fault);
        }
    }

    /// A fault of the entry `path` of `text`.
    pub fn at(&mut self, text: &str, path: &[&str], message: String, hint: Option<String>) {
        self.push(strict::span_of(text, path).unwrap_or(0..0), message, hint);
    }

    /// All of them, from top to bottom.
    pub fn sorted(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| fault.span.start);
        self.faults
    }
}
