//! Words, and words taken apart at an apostrophe.

use super::chars::{is_alphanumeric, is_apostrophe, is_digit, is_letter, is_quote_mark, is_word_letter};
use super::marks::letter_entity;
use super::rule::{Found, Out, Text};

/// Two words written as one: the text and the length of its first part.
const ASSIMILATED: [(&str, usize); 8] =
    [("cannot", 3), ("gonna", 3), ("gotta", 3), ("lemme", 3), ("gimme", 3), ("wanna", 3), ("'tis", 2), ("'twas", 2)];

/// What may follow a word after its apostrophe.
const SUFFIXES: [&str; 6] = ["'s", "'m", "'d", "'ll", "'re", "'ve"];

pub(super) fn assimilation(text: Text<'_>, i: usize) -> Option<Found> {
    let cut = |&(whole, first): &(&str, usize)| Some(Found::before(i + first, text.literal_any_case(i, whole)?));
    ASSIMILATED.iter().find_map(cut)
}

/// "dog", "b2", "ground.a": letters and digits, a letter first; joined by full stops that have letters on both sides.
pub(super) fn word(text: Text<'_>, i: usize) -> Option<Found> {
    let mut end = stem(text, i)?;
    while let Some(next) = matches!(text.at(end), '.' | '!' | '?').then(|| stem(text, end + 1)).flatten() {
        end = next;
    }
    Some(Found::same(end))
}

fn stem(text: Text<'_>, i: usize) -> Option<usize> {
    let letter = |i| {
        if is_word_letter(text.at(i)) { Some(i + 1) } else { letter_entity(text, i) }
    };
    let mut end = letter(i)?;
    loop {
        end = text.run(end, |c| is_word_letter(c) || is_digit(c));
        match letter_entity(text, end) {
            Some(next) => end = next,
            None => return Some(end),
        }
    }
}

/// "is" of "isn't".
pub(super) fn before_not(text: Text<'_>, i: usize) -> Option<Found> {
    let last = text.run(i, |c| c.is_ascii_alphabetic()).checked_sub(1)?;
    if last <= i || matches!(text.at(last - 1), 'n' | 'N') {
        return None;
    }
    Some(Found::before(last, not(text, last)?))
}

/// The end of "n't".
fn not(text: Text<'_>, i: usize) -> Option<usize> {
    let is_not =
        matches!(text.at(i), 'n' | 'N') && is_quote_mark(text.at(i + 1)) && matches!(text.at(i + 2), 't' | 'T');
    is_not.then_some(i + 3)
}

/// "dog" of "dog's", and of "dog'sled".
pub(super) fn before_suffix(text: Text<'_>, i: usize) -> Option<Found> {
    let end = word(text, i)?.end;
    let (_, after) = suffix_at(text, end)?;
    Some(Found::before(end, after))
}

/// "n't" by itself.
pub(super) fn not_alone(text: Text<'_>, i: usize) -> Option<Found> {
    let end = not(text, i)?;
    let spelt = if is_apostrophe(text.at(i + 1)) { "n't" } else { "n`t" };
    Some(Found::text(end, spelt))
}

/// "'s" by itself, no letter after it.
pub(super) fn suffix(text: Text<'_>, i: usize) -> Option<Found> {
    let (suffix, end) = suffix_at(text, i)?;
    (!text.at(end).is_ascii_alphabetic()).then_some(Found { end, reach: end + 1, out: Out::Text(suffix) })
}

/// "'s" by itself, whatever follows: a weaker claim than that of an opening quotation mark.
pub(super) fn suffix_of_any(text: Text<'_>, i: usize) -> Option<Found> {
    suffix_at(text, i).map(|(suffix, end)| Found::text(end, suffix))
}

/// The suffix that stands at `i`, and its end.
fn suffix_at(text: Text<'_>, i: usize) -> Option<(&'static str, usize)> {
    let at = |&suffix: &&'static str| Some((suffix, text.literal_any_case(i + 1, &suffix[1..])?));
    is_apostrophe(text.at(i)).then(|| SUFFIXES.iter().find_map(at)).flatten()
}

/// Words with an apostrophe that are whole all the same: "o'clock", "O'Reilly", "ma'am", "'em", "'90s".
pub(super) fn apostrophe_word(text: Text<'_>, i: usize) -> Option<Found> {
    let rules = [after_apostrophe, one_letter_name, between_vowels];
    rules.iter().filter_map(|rule| rule(text, i)).max().map(Found::same)
}

fn after_apostrophe(text: Text<'_>, i: usize) -> Option<usize> {
    if !is_apostrophe(text.at(i)) {
        return None;
    }
    let next = i + 1;
    match text.at(next) {
        'n' | 'N' => Some(text.skip(next + 1, is_apostrophe)),
        '2'..='9' if text.literal(next + 1, "0s").is_some() => Some(next + 3),
        '0'..='9' => two_digits(text, next),
        _ => ["em", "till", "til", "cause"].iter().find_map(|word| text.literal_any_case(next, word)),
    }
}

/// A year without its century, alone: "'98".
fn two_digits(text: Text<'_>, i: usize) -> Option<usize> {
    let alone = text.at(i) != '0' && text.at(i + 1).is_ascii_digit() && text.at(i + 2).is_whitespace();
    alone.then_some(i + 2)
}

/// Words listed one by one; `'` stands for any apostrophe.
pub(super) fn listed_with_apostrophe(text: Text<'_>, i: usize) -> Option<Found> {
    const LISTED: [&str; 15] = [
        "dunkin'",
        "somethin'",
        "ol'",
        "c'mon",
        "cont'd.",
        "o'clock",
        "s'mores",
        "nat'l",
        "ev'ry",
        "e'er",
        "d'ye",
        "cap'n",
        "c'est",
        "b'gosh",
        "o'o",
    ];
    let spelt = |word: &&str| {
        let same = |(k, wanted): (usize, char)| match wanted {
            '\'' => is_apostrophe(text.at(i + k)),
            _ => text.at(i + k).to_ascii_lowercase() == wanted,
        };
        word.chars().enumerate().all(same).then_some(i + word.len())
    };
    LISTED.iter().find_map(spelt).map(Found::same)
}

/// "O'Reilly", "D'Artagnan", "l'amour".
fn one_letter_name(text: Text<'_>, i: usize) -> Option<usize> {
    let first = text.at(i);
    let name = first == 'n' || first.is_ascii_uppercase() && !matches!(first, 'I' | 'Y');
    let end = text.letters(i + 2);
    (name && is_quote_mark(text.at(i + 1)) && end >= i + 4).then_some(end)
}

/// "ma'am", "ne'er", "DeSoto'A": letters, the last one a vowel, then a vowel or a capital.
fn between_vowels(text: Text<'_>, i: usize) -> Option<usize> {
    let apostrophe = text.letters(i);
    let next = text.at(apostrophe + 1);
    let vowel_before = apostrophe >= i + 2 && "aeiouyAEIOUY".contains(text.at(apostrophe - 1));
    let opens = "aeiou".contains(next) || next.is_ascii_uppercase();
    (vowel_before && opens && is_quote_mark(text.at(apostrophe))).then(|| text.letters(apostrophe + 1))
}

/// "y'" of "y'all", "d'", "l'" and "j'" of "j'ai".
pub(super) fn split_apostrophe(text: Text<'_>, i: usize) -> Option<Found> {
    if !is_apostrophe(text.at(i + 1)) {
        return None;
    }
    match text.at(i) {
        'd' | 'D' | 'l' | 'L' | 'j' | 'J' => Some(Found::same(i + 2)),
        'y' | 'Y' if is_letter(text.at(i + 2)) => Some(Found::before(i + 2, i + 3)),
        _ => None,
    }
}

/// One part of a hyphenated word, from its first character on: "well" or "d'Ivoire".
pub(super) fn part(text: Text<'_>, i: usize) -> Option<usize> {
    let elided = matches!(text.at(i), 'd' | 'D' | 'o' | 'O' | 'l' | 'L') && is_quote_mark(text.at(i + 1));
    let after = if elided { text.run(i + 2, is_alphanumeric) } else { i };
    let plain = text.run(i, is_alphanumeric);
    let end = if elided && after >= i + 4 { after } else { plain };
    (end > i).then_some(end)
}
