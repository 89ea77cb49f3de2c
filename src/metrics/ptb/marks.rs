//! What isn't a word: spaces, punctuation, tags, entities, faces, and single signs.

use super::chars::{Class, class, is_dash, is_quotation};
use super::rule::{Found, Out, Text};

pub(super) fn space(text: Text<'_>, i: usize) -> Option<Found> {
    (class(text.at(i)) == Class::Gap).then(|| Found::nothing(i + 1))
}

/// A sign that no rule knows. Quotation marks and dashes would become marks that are dropped anyway.
pub(super) fn single(text: Text<'_>, i: usize) -> Found {
    let c = text.at(i);
    let dropped = class(c) == Class::Gap || is_quotation(c) || is_dash(c) || c == '…' || c == '\u{ad}';
    match c {
        '(' => Found::text(i + 1, "-lrb-"),
        ')' => Found::text(i + 1, "-rrb-"),
        '[' => Found::text(i + 1, "-lsb-"),
        ']' => Found::text(i + 1, "-rsb-"),
        '{' => Found::text(i + 1, "-lcb-"),
        '}' => Found::text(i + 1, "-rcb-"),
        '¢' => Found::text(i + 1, "cents"),
        '£' => Found::text(i + 1, "#"),
        '¤' | '\u{80}' | '\u{20a0}' | '€' => Found::text(i + 1, "$"),
        '*' | '_' | '@' | '#' | '„' | '‚' | '‟' => Found::same(text.run(i, |next| next == c)),
        '<' | '>' => Found::same(text.run_to(i, 2, |next| next == c)),
        '\\' => Found::same(text.skip(i + 1, |next| next == '*')),
        '!' | '?' => Found::same(text.run(i, |next| matches!(next, '!' | '?'))),
        _ if dropped => Found::nothing(i + 1),
        _ => Found::same(i + 1),
    }
}

/// A quotation mark before a letter and something more: "'hello".
pub(super) fn opening_quote(text: Text<'_>, i: usize) -> Option<Found> {
    let more = |c: char| !c.is_whitespace();
    let opens = text.at(i) == '\'' && text.at(i + 1).is_ascii_alphabetic() && more(text.at(i + 2));
    opens.then_some(Found { end: i + 1, reach: i + 3, out: Out::Nothing })
}

/// Two quotation marks in a row are one token, which counts where it looks like no single mark.
pub(super) fn quotes(text: Text<'_>, i: usize) -> Option<Found> {
    let (first, second) = (text.at(i), text.at(i + 1));
    let plain = first == second && matches!(first, '\'' | '`');
    let curly = |c| is_quotation(c) && c != '"';
    let low = |c| matches!(c, '„' | '‚' | '‟');
    let pair = curly(first) && (curly(second) || second == '`' || low(second))
        || curly(second) && (first == '`' || low(first));
    (plain || pair).then(|| Found { end: i + 2, reach: i + 2, out: Out::Quotes })
}

/// A quotation mark as the tokens spell it.
pub(super) fn ascii_quote(c: char) -> &'static str {
    match c {
        '`' | '\u{91}' | '\u{2018}' | '\u{201b}' | '‹' => "`",
        '\'' | '\u{92}' | '\u{2019}' | '›' => "'",
        '\u{93}' | '\u{201c}' | '«' => "``",
        '„' => "„",
        '‚' => "‚",
        '‟' => "‟",
        _ => "''",
    }
}

/// "$", "US$": capitals belong to the sign.
pub(super) fn currency(text: Text<'_>, i: usize) -> Option<Found> {
    let sign = text.run(i, |c| c.is_ascii_uppercase());
    (text.at(sign) == '$').then(|| Found::same(sign + 1))
}

/// "--" to "----" are one dash; more are a line of their own.
pub(super) fn dash(text: Text<'_>, i: usize) -> Option<Found> {
    let end = text.run(i, |c| c == '-');
    match end - i {
        0 | 1 => None,
        2..=4 => Some(Found::text(end, "--")),
        _ => Some(Found::same(end)),
    }
}

/// Three or four full stops, an ellipsis.
pub(super) fn dots(text: Text<'_>, i: usize) -> Option<Found> {
    let end = text.run_to(i, 4, |c| c == '.');
    (end >= i + 3).then(|| Found::text(end, "..."))
}

/// ":-)", "=D", ";P", no letter or digit after it.
pub(super) fn smiley(text: Text<'_>, i: usize) -> Option<Found> {
    let eyes = text.skip(i, |c| matches!(c, '<' | '>'));
    if !matches!(text.at(eyes), ':' | ';' | '=') {
        return None;
    }
    let mouth = |i| "()DPdpO\\{@|[]".contains(text.at(i)).then_some(i + 1);
    let nose = matches!(text.at(eyes + 1), '-' | 'o' | '*' | '\'');
    let end = nose.then(|| mouth(eyes + 2)).flatten().or_else(|| mouth(eyes + 1))?;
    (!text.at(end).is_ascii_alphanumeric()).then(|| Found::before(end, end + 1))
}

/// "^_^", "(^-^)".
pub(super) fn face(text: Text<'_>, i: usize) -> Option<Found> {
    let eye = |i| "-^x=~<>'".contains(text.at(i));
    if text.at(i) == '(' {
        let right = text.skip(i + 2, |c| matches!(c, '_' | '.' | '-'));
        let framed = |right: usize| eye(i + 1) && eye(right) && text.at(right + 1) == ')';
        return [right, i + 2].into_iter().find(|&right| framed(right)).map(|right| Found::same(right + 2));
    }
    (eye(i) && text.at(i + 1) == '_' && eye(i + 2)).then(|| Found::same(i + 3))
}

/// "&lt;", "&#39;" and the few others that are known.
pub(super) fn entity(text: Text<'_>, i: usize) -> Option<Found> {
    const SPELT: [(&str, &str); 7] = [
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "''"),
        ("&md;", "--"),
        ("&mdash;", "--"),
        ("&ndash;", "--"),
    ];
    const KEPT: [&str; 9] = ["&ht;", "&tl;", "&ur;", "&lr;", "&qc;", "&ql;", "&qr;", "&odq;", "&cdq;"];
    if text.at(i) != '&' {
        return None;
    }
    if let Some(end) = text.literal_any_case(i, "&nbsp;") {
        return Some(Found::nothing(end));
    }
    let spelt = SPELT.iter().find_map(|&(entity, sign)| Some(Found::text(text.literal_any_case(i, entity)?, sign)));
    let kept = || KEPT.iter().find_map(|entity| text.literal_any_case(i, entity)).map(Found::same);
    spelt.or_else(kept).or_else(|| numbered_entity(text, i))
}

fn numbered_entity(text: Text<'_>, i: usize) -> Option<Found> {
    let start = text.literal(i, "&#")?;
    let end = text.run(start, |c| c.is_ascii_digit());
    (end > start && text.at(end) == ';').then(|| Found::same(end + 1))
}

/// The end of an accented vowel spelt "&eacute;".
pub(super) fn letter_entity(text: Text<'_>, i: usize) -> Option<usize> {
    let vowel = text.at(i) == '&' && "aeiouAEIOU".contains(text.at(i + 1));
    let accents = ["acute;", "grave;", "uml;"];
    vowel.then(|| accents.iter().find_map(|accent| text.literal(i + 2, accent))).flatten()
}

/// `<b>`, `</a>`, `<a href="x">`, `<!-- ... -->`.
pub(super) fn tag(text: Text<'_>, i: usize) -> Option<Found> {
    if text.at(i) != '<' {
        return None;
    }
    let next = text.at(i + 1);
    let end = if matches!(next, '!' | '?') { declaration(text, i + 2) } else { element(text, i + 1) };
    end.map(|end| Found { end, reach: end, out: Out::Tag })
}

fn declaration(text: Text<'_>, i: usize) -> Option<usize> {
    if !text.at(i).is_ascii_alphabetic() && text.at(i) != '-' {
        return None;
    }
    let end = text.run(i, |c| !matches!(c, '>' | '\n' | '\r'));
    (text.at(end) == '>').then_some(end + 1)
}

fn element(text: Text<'_>, i: usize) -> Option<usize> {
    let blanks = |i| text.run(i, |c| c == ' ');
    let mut end = tag_name(text, text.skip(i, |c| c == '/'))?;
    while let Some(name) = (text.at(end) == ' ').then(|| tag_name(text, blanks(end))).flatten() {
        let equals = blanks(name);
        end = if text.at(equals) == '=' { tag_value(text, blanks(equals + 1))? } else { name };
    }
    end = text.skip(blanks(end), |c| c == '/');
    end = blanks(end);
    (text.at(end) == '>').then_some(end + 1)
}

fn tag_name(text: Text<'_>, i: usize) -> Option<usize> {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-');
    text.at(i).is_ascii_alphabetic().then(|| text.run(i, name))
}

fn tag_value(text: Text<'_>, i: usize) -> Option<usize> {
    let quote = text.at(i);
    if !matches!(quote, '"' | '\'') {
        return tag_name(text, i);
    }
    let end = text.run(i + 1, |c| c != quote && c != '\n');
    (text.at(end) == quote).then_some(end + 1)
}
