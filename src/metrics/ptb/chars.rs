//! What kind of character is this?

use super::ranges::{DIGITS, LETTERS, MARKS, SYMBOLS};

/// The kinds that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Letter,
    Digit,
    /// May stand in a word, not in a compound: accents by themselves.
    Mark,
    /// A token of its own, where no rule says otherwise.
    Symbol,
    /// White space, and what can't be part of a token.
    Gap,
}

pub(super) fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Digit,
        '!'..='~' => Class::Symbol,
        '\0'..='\u{7f}' => Class::Gap,
        _ => u16::try_from(u32::from(c)).map_or(Class::Gap, class_of_wide),
    }
}

fn class_of_wide(c: u16) -> Class {
    let classes =
        [(&LETTERS[..], Class::Letter), (&SYMBOLS, Class::Symbol), (&DIGITS, Class::Digit), (&MARKS, Class::Mark)];
    let found = classes.into_iter().find(|(ranges, _)| holds(ranges, c));
    found.map_or(Class::Gap, |(_, class)| class)
}

/// Whether flat, ascending pairs of first and last hold a character.
fn holds(ranges: &[u16], c: u16) -> bool {
    let before = ranges.partition_point(|&bound| bound < c);
    before % 2 == 1 || ranges.get(before) == Some(&c)
}

pub(super) fn is_letter(c: char) -> bool {
    class(c) == Class::Letter
}

pub(super) fn is_digit(c: char) -> bool {
    class(c) == Class::Digit
}

pub(super) fn is_alphanumeric(c: char) -> bool {
    matches!(class(c), Class::Letter | Class::Digit)
}

pub(super) fn is_word_letter(c: char) -> bool {
    matches!(class(c), Class::Letter | Class::Mark)
}

/// White space inside a line.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{3000}')
}

/// Joins the parts of a compound.
pub(super) fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '_' | '\u{58a}' | '\u{2010}' | '\u{2011}')
}

/// An apostrophe as most rules know it.
pub(super) fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2019}' | '\u{92}')
}

/// An apostrophe as names and "n't" know it: single quotation marks too.
pub(super) fn is_quote_mark(c: char) -> bool {
    is_apostrophe(c) || matches!(c, '`' | '\u{2018}' | '\u{201b}' | '\u{91}')
}

/// Quotation marks that become dropped tokens.
pub(super) fn is_quotation(c: char) -> bool {
    matches!(c, '"' | '\u{91}'..='\u{94}' | '«' | '»' | '\u{2018}' | '\u{2019}' | '\u{201b}'..='\u{201d}' | '‹' | '›')
}

/// Dashes that become dropped tokens.
pub(super) fn is_dash(c: char) -> bool {
    matches!(c, '\u{96}' | '\u{97}' | '\u{2013}'..='\u{2015}')
}
