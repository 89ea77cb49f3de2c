//! Walks through a caption token by token.

use super::rule::{Found, Out, Text};
use super::{abbreviations, chars::is_space, marks, names, numbers, web, words};

/// One way to read what stands at a position.
type Rule = fn(Text<'_>, usize) -> Option<Found>;

/// Every rule. Among those that reach equally far the first one wins.
const RULES: [Rule; 37] = [
    marks::space,
    marks::tag,
    words::assimilation,
    words::listed_with_apostrophe,
    words::before_not,
    words::before_suffix,
    words::word,
    words::not_alone,
    words::suffix,
    words::apostrophe_word,
    words::split_apostrophe,
    web::url,
    web::likely_url,
    web::email,
    web::handle,
    numbers::date,
    numbers::number,
    numbers::raised,
    numbers::fraction,
    numbers::fraction_sign,
    numbers::phone,
    names::special,
    marks::currency,
    marks::quotes,
    marks::dash,
    marks::dots,
    marks::smiley,
    marks::opening_quote,
    words::suffix_of_any,
    marks::face,
    marks::entity,
    names::hyphenated,
    names::slashed,
    names::joined_capitals,
    names::dotted_hyphenated,
    names::file,
    names::before_comma,
];

/// Calls `each` with the tokens of a caption; marks that stand alone, which nobody counts, may be left out.
pub(super) fn each_token(caption: &str, mut each: impl FnMut(&str)) {
    let chars = characters(caption);
    let text = Text { chars: &chars };
    let mut token = String::new();
    let mut i = 0;
    while i < chars.len() {
        let found = common(text, i).unwrap_or_else(|| longest(text, i));
        if lower(found, &chars[i..found.end], &mut token) {
            each(&token);
        }
        i = found.end;
    }
}

/// Soft hyphens are nowhere to be seen, and an apostrophe may be spelt as an entity.
fn characters(caption: &str) -> Vec<char> {
    if caption.contains(['&', '\u{ad}']) {
        caption.replace("&apos;", "'").chars().filter(|&c| c != '\u{ad}').collect()
    } else {
        caption.chars().collect()
    }
}

/// What most captions are made of, read without asking every rule: spaces, words of ASCII letters, marks that stand alone.
fn common(text: Text<'_>, i: usize) -> Option<Found> {
    let ends = |i| matches!(text.at(i), ' ' | '\n');
    match text.at(i) {
        ' ' => Some(Found::nothing(text.run(i, is_space))),
        '.' | ',' | '!' | '?' | ':' | ';' | '"' | '-' if ends(i + 1) => Some(Found::nothing(i + 1)),
        c if c.is_ascii_alphabetic() => {
            let end = text.run(i, |c| c.is_ascii_alphabetic());
            let alone = match text.at(end) {
                ',' => ends(end + 1),
                '.' => ends(end + 1) && abbreviations::abbreviation(text, i).is_none(),
                _ => ends(end),
            };
            (alone && words::assimilation(text, i).is_none()).then(|| Found::same(end))
        }
        _ => None,
    }
}

fn longest(text: Text<'_>, i: usize) -> Found {
    let abbreviation = abbreviations::abbreviation(text, i);
    let others = RULES.iter().filter_map(|rule| rule(text, i));
    let farther = |best: Found, next: Found| if next.reach > best.reach { next } else { best };
    abbreviation.into_iter().chain(others).reduce(farther).unwrap_or_else(|| marks::single(text, i))
}

/// Writes the token; `false` where there is none.
fn lower(found: Found, chars: &[char], token: &mut String) -> bool {
    token.clear();
    match found.out {
        Out::Nothing => return false,
        Out::Text(text) => token.push_str(text),
        Out::Quotes => token.extend(chars.iter().map(|&c| marks::ascii_quote(c))),
        Out::Same | Out::Tag | Out::Ampersands => spell(chars, token),
    }
    if found.out == Out::Ampersands {
        *token = token.replace("&amp;", "&");
    }
    if found.out == Out::Same && token.contains(['(', ')']) {
        *token = token.replace('(', "-lrb-").replace(')', "-rrb-");
    }
    true
}

/// Lower case; a space inside a token doesn't part it. Other white space, which an address may hold, stays as it is.
fn spell(chars: &[char], token: &mut String) {
    let inner = |&c: &char| if c == ' ' { '\u{a0}' } else { c };
    if chars.iter().all(char::is_ascii) {
        token.extend(chars.iter().map(|c| inner(c).to_ascii_lowercase()));
    } else {
        // Letter by letter would miss that a Greek sigma ends its word in another shape.
        token.push_str(&chars.iter().map(inner).collect::<String>().to_lowercase());
    }
}
