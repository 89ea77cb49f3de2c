//! From what varies to the trials: names, combinations, and each one's recipe.
//!
//! A trial's name is made of what it differs in, and never of its place: points that are added to the file rename no trial. Faults of a
//! trial's recipe are led back to the entry of the sweep file that brought them in.

use std::collections::HashSet;

use super::{
    TrialPlan,
    entries::{Entries, Entry},
    faults::Found,
};
use crate::recipe::{
    Recipe, RecipeError,
    strict::{self, Fault},
};

/// More trials than this are a slip of the fingers.
const MOST_TRIALS: usize = 10_000;

/// Names longer than this are cut, and told apart by a digest.
const LONGEST_NAME: usize = 80;

/// A combination of values.
#[derive(Debug, Clone, Default)]
pub(super) struct Point {
    parts: Vec<String>,
    entries: Vec<Entry>,
}

impl Point {
    fn with(&self, part: String, entries: &[Entry]) -> Self {
        let mut next = self.clone();
        next.parts.push(part);
        next.entries.extend_from_slice(entries);
        next
    }

    fn name(&self) -> String {
        let name = if self.parts.is_empty() { "trial".to_owned() } else { self.parts.join("-") };
        if name.len() <= LONGEST_NAME {
            return name;
        }
        let cut = (0..=LONGEST_NAME - 9).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        format!("{}-{}", &name[..cut], digest(&name))
    }
}

/// All combinations: the variants of each group, then the grid, then what was drawn.
pub(super) fn points(entries: &Entries, found: &mut Found) -> Vec<Point> {
    let mut axes: Vec<Vec<(String, Vec<Entry>)>> = entries.groups.clone();
    let keys: Vec<&str> = entries.grid.iter().filter_map(|values| Some(values.first()?.key.as_str())).collect();
    axes.extend(entries.grid.iter().filter(|values| !values.is_empty()).map(|values| {
        let named = |entry: &Entry| (part(entry, &keys), vec![entry.clone()]);
        values.iter().map(named).collect()
    }));
    if !entries.drawn.is_empty() {
        let drawn = entries.drawn.iter().enumerate();
        axes.push(drawn.map(|(at, entries)| (format!("r{at:02}"), entries.clone())).collect());
    }
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.len()));
    if count.is_none_or(|count| count > MOST_TRIALS) {
        found.push(
            0..0,
            format!("more than {MOST_TRIALS} points come of it"),
            Some("draw some of them: [random]".to_owned()),
        );
        return Vec::new();
    }
    axes.iter().fold(vec![Point::default()], |points, axis| {
        points.iter().flat_map(|point| axis.iter().map(|(part, entries)| point.with(part.clone(), entries))).collect()
    })
}

/// The part of a name that says an entry: `hidden=256`, with more of the key where two end alike.
fn part(entry: &Entry, keys: &[&str]) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let alike = keys.iter().filter(|key| last(key) == last(&entry.key)).count() > 1;
    let key = if alike { entry.key.clone() } else { last(&entry.key) };
    format!("{key}={}", short(&entry.value))
}

/// A value as a part of a folder's name: a list as `a+b`, anything long as a digest.
fn short(value: &str) -> String {
    let bare: String = value.chars().filter(|letter| !" \"'[]".contains(*letter)).collect();
    let bare = bare.replace(',', "+");
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
    if bare.len() <= 40 && !bare.is_empty() && bare.chars().all(fits) { bare } else { digest(value) }
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..8].to_owned()
}

/// The trials of `points`, one for each seed, and what is wrong with their recipes.
pub(super) fn trials(points: &[Point], seeds: &[u64], (base, name): (&str, &str), found: &mut Found) -> Vec<TrialPlan> {
    let seeds: Vec<Option<u64>> = if seeds.is_empty() { vec![None] } else { seeds.iter().copied().map(Some).collect() };
    let mut taken = HashSet::new();
    let mut trials = Vec::new();
    for point in points {
        let sets: Vec<(String, String)> =
            point.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        let Some(recipe) = read(base, name, point, found) else { continue };
        let mut label = point.name();
        if !taken.insert(label.clone()) {
            label = format!("{label}-{}", digest(&format!("{sets:?}")));
        }
        for seed in &seeds {
            let mut recipe = recipe.clone();
            let (mut sets, mut name) = (sets.clone(), label.clone());
            if let Some(seed) = seed {
                recipe.train.seed = *seed;
                sets.push(("train.seed".to_owned(), seed.to_string()));
                name = format!("{label}-s{seed}");
            }
            trials.push(TrialPlan { name, point: label.clone(), seed: *seed, sets, recipe });
        }
    }
    trials
}

/// The recipe of `point`; `None` where it has faults.
fn read(base: &str, name: &str, point: &Point, found: &mut Found) -> Option<Recipe> {
    let set = |entry: &Entry| format!("{}={}", entry.key, entry.value);
    let sets: Vec<String> = point.entries.iter().map(set).collect();
    match Recipe::parse(base, name, &sets) {
        Ok(recipe) if recipe.decoder.is_some() => return Some(recipe),
        Ok(_) => blame(point, "", &Fault { span: 0..0, message: "it has no [decoder]".to_owned(), hint: None }, found),
        Err(RecipeError::Faults { text, faults, .. }) => {
            faults.iter().for_each(|fault| blame(point, &text, fault, found));
        }
        Err(RecipeError::SetPlace { given, at, found: there }) => {
            let (wrong, others): (Vec<Entry>, Vec<Entry>) =
                point.entries.iter().cloned().partition(|entry| set(entry) == given);
            for entry in &wrong {
                found.push(entry.span.clone(), format!("the recipe has no `{at}`: {there}"), None);
            }
            // Without it, what else is wrong can be seen.
            if !wrong.is_empty() {
                read(base, name, &Point { entries: others, ..point.clone() }, found);
            }
        }
        Err(other) => {
            blame(point, "", &Fault { span: 0..0, message: other.to_string(), hint: None }, found);
        }
    }
    None
}

/// Leads `fault` of the recipe `text` back to the entry that brought it in; where no single one did, to the last, with the trial named.
fn blame(point: &Point, text: &str, fault: &Fault, found: &mut Found) {
    let (span, message) = match point.entries.iter().rev().find(|entry| brings(entry, text, fault)) {
        Some(entry) => (entry.span.clone(), fault.message.clone()),
        None => {
            let span = point.entries.last().map_or(0..0, |entry| entry.span.clone());
            (span, format!("with this, the trial `{}` can't be: {}", point.name(), fault.message))
        }
    };
    found.push(span, message, fault.hint.clone());
}

/// Whether `fault` of the recipe `text` is of what `entry` put there: of its value, or of its key before it.
fn brings(entry: &Entry, text: &str, fault: &Fault) -> bool {
    let path: Vec<&str> = entry.key.split('.').collect();
    let Some(value) = strict::span_of(text, &path) else { return false };
    let line = text[..value.start].rfind('\n').map_or(0, |at| at + 1);
    (line..value.end.max(line + 1)).contains(&fault.span.start) && !fault.span.is_empty()
}
