//! Words that keep their full stop: "Mr.", "U.S.", "No. 5", "J. Smith".

use super::chars::is_space;
use super::names::acronym;
use super::numbers;
use super::rule::{Found, Text};

/// Titles and the like, in any case: a name follows.
const BEFORE_NAMES: &str = " adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft \
gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps rev \
sen sens sfc sgt spc st ste sup supt supts treas vs wm ";

/// In any case; they often end a sentence.
const ANYWHERE: &str = " al ala apr ariz assn aug bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla \
fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt sep sept \
seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo ";

/// Only with a capital, for small letters spell another word.
const CAPITALIZED: &str = " ark az del ill la mass miss ore pa tex wash ";

/// Not all in capitals.
const MIXED: &str = " attys bhd mfg mtg ppte pptes ppty pptys pte ptes pty ptys ";

/// Only before a number.
const NUMBERED: &str = " art ca fig figs no nos op pp prop ";

/// Words that begin a sentence: an initial before one of them was a word at a sentence's end.
const BEGINNINGS: &str = " a about according additionally after an as at but earlier he her here however if in it last many more mr. \
ms. now once one other our she since so some such that the their then there these they this we what when while yet you ";

pub(super) fn abbreviation(text: Text<'_>, i: usize) -> Option<Found> {
    if !text.at(i).is_ascii_alphabetic() {
        return None;
    }
    if let Some(end) = acronym(text, i) {
        return Some(Found::same(end));
    }
    if let Some(end) = ["ph.d.", "ed.d."].iter().find_map(|degree| text.literal_any_case(i, degree)) {
        return Some(Found::before(end, end + 1));
    }
    let stop = text.run(i, |c| c.is_ascii_alphabetic());
    if text.at(stop) != '.' {
        return None;
    }
    if stop == i + 1 {
        return initial(text, stop);
    }
    listed(text, i, stop)
}

/// A single letter and its full stop. At a caption's end it depends on how the next caption of the file begins: with a capital, if
/// this one does.
fn initial(text: Text<'_>, stop: usize) -> Option<Found> {
    let next = text.run(stop + 1, is_space);
    let ends = if next >= text.chars.len() {
        text.at(0).is_uppercase()
    } else {
        next > stop + 1 && begins_sentence(text, next)
    };
    (!ends).then(|| Found::same(stop + 1))
}

fn begins_sentence(text: Text<'_>, i: usize) -> bool {
    let letters = text.run(i, |c| c.is_ascii_alphabetic());
    let end = text.skip(letters, |c| c == '.');
    let word = &text.chars[i..end];
    let shouted = !word.iter().any(char::is_ascii_lowercase);
    let capital = word.first().is_some_and(char::is_ascii_uppercase)
        && (shouted || !word[1..].iter().any(char::is_ascii_uppercase));
    capital && text.at(end).is_whitespace() && holds(BEGINNINGS, word, |c| c.to_ascii_lowercase())
}

fn listed(text: Text<'_>, i: usize, stop: usize) -> Option<Found> {
    let word = &text.chars[i..stop];
    let known = |list| holds(list, word, |c| c.to_ascii_lowercase());
    let capital = word[0].is_ascii_uppercase();
    let rest_small = word[1..].iter().all(char::is_ascii_lowercase);
    if known(BEFORE_NAMES) || rest_small && known(MIXED) {
        return Some(Found::same(stop + 1));
    }
    // Looking one character further makes "etc.a" two tokens where "mr.a" is one.
    if known(ANYWHERE) || capital && known(CAPITALIZED) {
        return Some(Found::before(stop + 1, stop + 2));
    }
    let digit = known(NUMBERED).then(|| numbers::follows(text, stop + 1)).flatten()?;
    Some(Found::before(stop + 1, digit))
}

/// Whether a list of words, each between spaces, holds this one.
fn holds(list: &str, word: &[char], fold: fn(char) -> char) -> bool {
    let mut padded = String::with_capacity(word.len() + 2);
    padded.push(' ');
    padded.extend(word.iter().map(|&c| fold(c)));
    padded.push(' ');
    list.contains(&padded)
}
