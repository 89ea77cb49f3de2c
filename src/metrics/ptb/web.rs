//! Addresses: URLs, host names, e-mail, @names and #tags.

use super::chars::is_word_letter;
use super::rule::{Found, Text, nonempty};

/// What ends an address.
fn is_gap(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{c}' | '\r' | '"' | '<' | '>' | '|' | '(' | ')')
}

/// What can't be an address's last character.
fn is_trailing(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '{' | '}' | ',' | '-')
}

/// `https://example.org/a?b=1`.
pub(super) fn url(text: Text<'_>, i: usize) -> Option<Found> {
    let secure = text.literal_any_case(i, "https://");
    let start = secure.or_else(|| text.literal_any_case(i, "http://"))?;
    let end = text.run(start, |c| !is_gap(c) && !matches!(c, '{' | '}'));
    trimmed(text, start + 2, end).map(Found::same)
}

/// `end` moved back over what can't be last; `None` before `least`.
fn trimmed(text: Text<'_>, least: usize, mut end: usize) -> Option<usize> {
    while end > 0 && is_trailing(text.at(end - 1)) {
        end -= 1;
    }
    (end >= least).then_some(end)
}

/// "www.example.info", "example.com/a".
pub(super) fn likely_url(text: Text<'_>, i: usize) -> Option<Found> {
    let host = www(text, i).into_iter().chain(host(text, i)).max()?;
    let path = || {
        let end = text.run(host + 1, |c| !is_gap(c));
        (text.at(host) == '/').then(|| trimmed(text, host + 3, end)).flatten()
    };
    Some(Found::same(path().unwrap_or(host)))
}

fn www(text: Text<'_>, i: usize) -> Option<usize> {
    let mut start = text.literal(i, "www.")?;
    let mut found = None;
    loop {
        let end = text.run(start, |c| !is_gap(c) && !matches!(c, '.' | '!' | '?' | '{' | '}' | ','));
        if end == start || text.at(end) != '.' {
            return found;
        }
        start = end + 1;
        let top = text.run_to(start, 4, |c| c.is_ascii_alphabetic());
        found = (top >= start + 2).then_some(top).or(found);
    }
}

fn host(text: Text<'_>, i: usize) -> Option<usize> {
    // Digits, capitals and hyphens aren't allowed there either, which can only be an oversight of the original.
    let belongs = |c| !is_gap(c) && !matches!(c, '`' | '\'' | '.' | '!' | '?' | '{' | '}' | '$' | ','..='_');
    let mut start = i;
    let mut found = None;
    loop {
        let end = text.run(start, belongs);
        if end == start || text.at(end) != '.' {
            return found;
        }
        start = end + 1;
        let top = ["com", "net", "org", "edu"].iter().find_map(|top| text.literal_any_case(start, top));
        found = top.or(found);
    }
}

/// "name@example.org".
pub(super) fn email(text: Text<'_>, i: usize) -> Option<Found> {
    let start = text.literal(i, "&lt;").unwrap_or_else(|| text.skip(i, |c| c == '<'));
    if !text.at(start).is_ascii_alphanumeric() {
        return None;
    }
    let end = text.run(start, |c| !is_gap(c) && !matches!(c, '{' | '}' | '\u{a0}'));
    let at = (start + 1..end).rev().filter(|&k| text.at(k) == '@').find_map(|k| mail_host(text, k + 1))?;
    Some(Found::same(text.skip(at, |c| c == '>')))
}

fn mail_host(text: Text<'_>, i: usize) -> Option<usize> {
    let name = |i| nonempty(i, text.run(i, |c| !is_gap(c) && !matches!(c, '{' | '}' | '.' | '\u{a0}')));
    let mut end = name(i)?;
    while let Some(next) = (text.at(end) == '.').then(|| name(end + 1)).flatten() {
        end = next;
    }
    Some(end)
}

/// "@name", "#tag".
pub(super) fn handle(text: Text<'_>, i: usize) -> Option<Found> {
    let first = text.at(i + 1);
    match text.at(i) {
        '@' if first.is_ascii_alphabetic() || first == '_' => {
            Some(Found::same(text.run(i + 1, |c| c.is_ascii_alphanumeric() || c == '_')))
        }
        '#' if is_word_letter(first) => Some(Found::same(text.run(i + 1, is_word_letter))),
        _ => None,
    }
}
