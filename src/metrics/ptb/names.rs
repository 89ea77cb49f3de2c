//! Hyphenated, slashed and dotted compounds: "well-known", "and/or", "AT&T", "U.S.-based", "report.pdf".

use super::chars::{is_alphanumeric, is_hyphen, is_space};
use super::rule::{Found, Out, Text};
use super::words::{listed_with_apostrophe, part, word};

/// Compounds that no other rule holds together, in any case.
const SPECIAL: [&str; 12] =
    ["-lrb-", "-rrb-", "-lcb-", "-rcb-", "-lsb-", "-rsb-", "c.d.s", "pro-", "anti-", "s&p-500", "s&ls", "jos."];

/// File names end in one of these; the longer ones first.
const EXTENSIONS: [&str; 34] = [
    "docx", "html", "java", "jpeg", "bat", "bmp", "cgi", "cpp", "dll", "doc", "exe", "gif", "htm", "jar", "jpg", "mov",
    "mp3", "pdf", "php", "png", "ppt", "sql", "tar", "txt", "wav", "xml", "zip", "gz", "pl", "ps", "py", "c", "h", "x",
];

pub(super) fn special(text: Text<'_>, i: usize) -> Option<Found> {
    let end = SPECIAL.iter().find_map(|special| text.literal_any_case(i, special));
    let plus = || {
        let named = text.literal_any_case(i, "c++").or_else(|| text.literal_any_case(i, "c#"));
        named.or_else(|| text.literal_any_case(i, "f#"))
    };
    end.or_else(plus).map(Found::same)
}

/// "well-known", "foo_bar", "coat-d'armes", "4x4": parts joined by single hyphens.
pub(super) fn hyphenated(text: Text<'_>, i: usize) -> Option<Found> {
    let mut end = part(text, i)?;
    while let Some(next) = is_hyphen(text.at(end)).then(|| part(text, end + 1)).flatten() {
        end = next;
    }
    Some(Found::same(end))
}

/// "and/or", "black-and-white/colour": two or three ASCII compounds.
pub(super) fn slashed(text: Text<'_>, i: usize) -> Option<Found> {
    let first = slash_part(text, i)?;
    let second = slash(text, first).and_then(|next| slash_part(text, next))?;
    let third = slash(text, second).and_then(|next| slash_part(text, next));
    Some(Found::same(third.unwrap_or(second)))
}

fn slash(text: Text<'_>, i: usize) -> Option<usize> {
    let slash = text.skip(i, |c| c == '\\');
    (text.at(slash) == '/').then_some(slash + 1)
}

/// ASCII letters and digits, then at most two more words of letters behind hyphens.
fn slash_part(text: Text<'_>, i: usize) -> Option<usize> {
    let mut end = text.run(i, |c| c.is_ascii_alphanumeric());
    if end == i {
        return None;
    }
    for _ in 0..2 {
        let next = text.run(end + 1, |c| c.is_ascii_alphabetic());
        if text.at(end) == '-' && next > end + 1 {
            end = next;
        }
    }
    Some(end)
}

/// "AT&T", "A+B": capitals.
pub(super) fn joined_capitals(text: Text<'_>, i: usize) -> Option<Found> {
    let capitals = |i| text.run(i, |c| c.is_ascii_uppercase());
    let mut end = capitals(i);
    let mut joined = false;
    while end > i {
        let next = match text.at(end) {
            '+' => end + 1,
            '&' => text.literal_any_case(end, "&amp;").unwrap_or(end + 1),
            _ => break,
        };
        if capitals(next) == next {
            break;
        }
        end = capitals(next);
        joined = true;
    }
    joined.then_some(Found { end, reach: end, out: Out::Ampersands })
}

/// "U.S.-based", "1,000-foot", "non-U.S.".
pub(super) fn dotted_hyphenated(text: Text<'_>, i: usize) -> Option<Found> {
    if !text.at(i).is_ascii_alphanumeric() {
        return None;
    }
    let mut end = text.run(i + 1, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | ','));
    let mut hyphens = 0;
    while text.at(end) == '-' {
        let plain = text.run(end + 1, |c| c.is_ascii_alphanumeric());
        if plain == end + 1 {
            break;
        }
        end = acronym(text, end + 1).unwrap_or(plain);
        hyphens += 1;
    }
    (hyphens > 0).then(|| Found::same(end))
}

/// "u.s." in any case.
pub(super) fn acronym(text: Text<'_>, i: usize) -> Option<usize> {
    let mut end = i;
    while text.at(end).is_ascii_alphabetic() && text.at(end + 1) == '.' {
        end += 2;
    }
    (end >= i + 4).then_some(end)
}

/// A word with its full stop where a comma follows: then it is short for something.
pub(super) fn before_comma(text: Text<'_>, i: usize) -> Option<Found> {
    let words: [fn(Text<'_>, usize) -> Option<Found>; 4] = [word, hyphenated, joined_capitals, listed_with_apostrophe];
    let end = words.iter().filter_map(|rule| Some(rule(text, i)?.end)).max()?;
    let short = text.at(end) == '.' && matches!(text.at(end + 1), ',' | ';' | ':' | '、');
    short.then_some(Found::before(end + 1, end + 2))
}

/// "1.jpg", "report.2.pdf", before a space or a mark that ends a phrase.
pub(super) fn file(text: Text<'_>, i: usize) -> Option<Found> {
    let mut dot = text.run(i, is_alphanumeric);
    let mut found = None;
    while dot > i && text.at(dot) == '.' {
        let name_end = text.run(dot + 1, is_alphanumeric);
        let ends = |&&extension: &&&str| text.literal_any_case(dot + 1, extension) == Some(name_end);
        let after = text.at(name_end);
        if EXTENSIONS.iter().any(|extension| ends(&extension))
            && (is_space(after) || matches!(after, '\n' | '.' | '?' | '!' | ','))
        {
            found = Some(Found::before(name_end, name_end + 1));
        }
        if name_end == dot + 1 {
            break;
        }
        dot = name_end;
    }
    found
}
