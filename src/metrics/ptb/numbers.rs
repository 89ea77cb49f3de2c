//! Numbers, fractions, dates and telephone numbers.

use super::chars::{is_digit, is_space};
use super::rule::{Found, Text};

/// "1990", "1,000.50", "12:30", ".5", "-10".
pub(super) fn number(text: Text<'_>, i: usize) -> Option<Found> {
    let start = text.skip(i, |c| matches!(c, '+' | '-'));
    let mut end = text.digits(start);
    loop {
        let next = text.digits(end + 1);
        if !matches!(text.at(end), '.' | ',' | ':' | '\u{66b}' | '\u{66c}') || next == end + 1 {
            break;
        }
        end = next;
    }
    (end > start).then(|| Found::same(end))
}

/// Between `least` and `most` ASCII digits, as many as there are.
fn digits(text: Text<'_>, i: usize, least: usize, most: usize) -> Option<usize> {
    let end = text.run(i, |c| c.is_ascii_digit()).min(i + most);
    (end >= i + least).then_some(end)
}

/// "12/25/2010", "1-2-10".
pub(super) fn date(text: Text<'_>, i: usize) -> Option<Found> {
    let separator = |i| matches!(text.at(i), '-' | '/').then_some(i + 1);
    let month = separator(digits(text, i, 1, 2)?)?;
    let year = separator(digits(text, month, 1, 2)?)?;
    digits(text, year, 2, 4).map(Found::same)
}

/// "1/2", "2 1/2", "2-1/2".
pub(super) fn fraction(text: Text<'_>, i: usize) -> Option<Found> {
    let first = digits(text, i, 1, 4)?;
    let mixed =
        || is_joint(text.at(first)).then(|| digits(text, first + 1, 1, 4).and_then(|end| over(text, end))).flatten();
    over(text, first).or_else(mixed).map(Found::same)
}

/// The slash and the denominator.
fn over(text: Text<'_>, i: usize) -> Option<usize> {
    let slash = text.skip(i, |c| c == '\\');
    let after = if text.at(slash) == '/' { slash + 1 } else { text.literal(i, "\u{2044}")? };
    digits(text, after, 1, 4)
}

fn is_joint(c: char) -> bool {
    matches!(c, '-' | ' ' | '\u{a0}')
}

/// A fraction in one character.
pub(super) fn fraction_sign(text: Text<'_>, i: usize) -> Option<Found> {
    let spelt = match text.at(i) {
        '¼' => "1/4",
        '½' => "1/2",
        '¾' => "3/4",
        '⅓' => "1/3",
        '⅔' => "2/3",
        _ => return None,
    };
    Some(Found::text(i + 1, spelt))
}

/// Superscript and subscript numbers.
pub(super) fn raised(text: Text<'_>, i: usize) -> Option<Found> {
    let start = text.skip(i, |c| matches!(c, '⁺' | '⁻' | '₊' | '₋'));
    let up = text.run(start, |c| matches!(c, '⁰' | '¹' | '²' | '³' | '⁴'..='⁹'));
    let down = text.run(start, |c| matches!(c, '₀'..='₉'));
    let end = up.max(down);
    (end > start).then(|| Found::same(end))
}

/// "(555) 555-1234", "555 555 1234", "+44 20 7946 0958", "555.555.1234".
pub(super) fn phone(text: Text<'_>, i: usize) -> Option<Found> {
    let dotted = dotted_phone(text, i);
    let area = in_brackets(text, i).and_then(|start| subscriber(text, start));
    let spaced = spaced_phone(text, i);
    [dotted, area, spaced].into_iter().flatten().max().map(Found::same)
}

fn in_brackets(text: Text<'_>, i: usize) -> Option<usize> {
    let end = (text.at(i) == '(').then(|| digits(text, i + 1, 2, 3)).flatten()?;
    (text.at(end) == ')').then(|| text.skip(end + 1, |c| c == ' ' || c == '\u{a0}'))
}

fn plus_signs(text: Text<'_>, i: usize) -> usize {
    text.run_to(i, 2, |c| c == '+')
}

fn spaced_phone(text: Text<'_>, i: usize) -> Option<usize> {
    let group = |i| digits(text, i, 2, 4).filter(|&end| is_joint(text.at(end))).map(|end| end + 1);
    let first = group(plus_signs(text, i))?;
    let long = group(first).and_then(|second| subscriber(text, second));
    long.into_iter().chain(subscriber(text, first)).max()
}

/// Three or four digits and three to five more, with or without a joint.
fn subscriber(text: Text<'_>, i: usize) -> Option<usize> {
    let ends = |first: usize| {
        let after = text.skip(i + first, is_joint);
        digits(text, i, first, first).and_then(|_| digits(text, after, 3, 5))
    };
    [ends(3), ends(4)].into_iter().flatten().max()
}

fn dotted_phone(text: Text<'_>, i: usize) -> Option<usize> {
    let group = |i, least, most| digits(text, i, least, most).filter(|&end| text.at(end) == '.').map(|end| end + 1);
    let three = |i| group(i, 2, 4).and_then(|i| group(i, 3, 4)).and_then(|i| digits(text, i, 3, 5));
    let four = group(plus_signs(text, i), 2, 4).and_then(three);
    four.or_else(|| three(i))
}

/// Whether a number follows, behind spaces or at once.
pub(super) fn follows(text: Text<'_>, i: usize) -> Option<usize> {
    let start = text.run(i, is_space);
    is_digit(text.at(start)).then_some(start + 1)
}
