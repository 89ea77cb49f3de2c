//! What a rule sees and what it answers.

use super::chars::{is_digit, is_letter};

/// The characters of a caption. Beyond its end stands a line feed, as in a file of captions.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) chars: &'a [char],
}

/// What becomes of the characters of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// They are the token, lower-cased.
    Same,
    /// As `Same`, brackets kept as they are.
    Tag,
    /// As `Same`, each "&amp;" one sign.
    Ampersands,
    /// Each is a quotation mark, spelt in ASCII.
    Quotes,
    /// The token is another text.
    Text(&'static str),
    /// No token.
    Nothing,
}

/// A rule's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Where the token ends.
    pub(super) end: usize,
    /// How far the rule looked to be sure; the rule that reaches farthest wins.
    pub(super) reach: usize,
    pub(super) out: Out,
}

impl Found {
    /// The characters up to `end`.
    pub(super) fn same(end: usize) -> Self {
        Self { end, reach: end, out: Out::Same }
    }

    /// The characters up to `end`, if what follows up to `reach` is there too.
    pub(super) fn before(end: usize, reach: usize) -> Self {
        Self { end, reach, out: Out::Same }
    }

    /// No token for the characters up to `end`.
    pub(super) fn nothing(end: usize) -> Self {
        Self { end, reach: end, out: Out::Nothing }
    }

    /// Another text for the characters up to `end`.
    pub(super) fn text(end: usize, text: &'static str) -> Self {
        Self { end, reach: end, out: Out::Text(text) }
    }
}

impl Text<'_> {
    pub(super) fn at(&self, i: usize) -> char {
        self.chars.get(i).copied().unwrap_or('\n')
    }

    /// Where the run of characters that begins at `i` ends.
    pub(super) fn run(&self, i: usize, belongs: impl Fn(char) -> bool) -> usize {
        let rest = self.chars.get(i..).unwrap_or_default();
        i + rest.iter().take_while(|&&c| belongs(c)).count()
    }

    /// As [`run`](Self::run), at most `most` characters.
    pub(super) fn run_to(&self, i: usize, most: usize, belongs: impl Fn(char) -> bool) -> usize {
        self.run(i, belongs).min(i + most)
    }

    /// The end of `literal` if it stands at `i`.
    pub(super) fn literal(&self, i: usize, literal: &str) -> Option<usize> {
        let mut end = i;
        for wanted in literal.chars() {
            if self.chars.get(end) != Some(&wanted) {
                return None;
            }
            end += 1;
        }
        Some(end)
    }

    /// The end of `literal` (lower case) if it stands at `i` in any case of ASCII letters.
    pub(super) fn literal_any_case(&self, i: usize, literal: &str) -> Option<usize> {
        let mut end = i;
        for wanted in literal.chars() {
            if self.chars.get(end).map(char::to_ascii_lowercase) != Some(wanted) {
                return None;
            }
            end += 1;
        }
        Some(end)
    }

    /// Past the character at `i` where it is to be skipped.
    pub(super) fn skip(&self, i: usize, skipped: impl Fn(char) -> bool) -> usize {
        i + usize::from(self.chars.get(i).is_some_and(|&c| skipped(c)))
    }

    pub(super) fn letters(&self, i: usize) -> usize {
        self.run(i, is_letter)
    }

    pub(super) fn digits(&self, i: usize) -> usize {
        self.run(i, is_digit)
    }
}

/// `Some` where the run that began at `start` isn't empty.
pub(super) fn nonempty(start: usize, end: usize) -> Option<usize> {
    (end > start).then_some(end)
}
