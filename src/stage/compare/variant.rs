//! Runs that differ by nothing but their seed are one variant.
//!
//! Must not know scores. One decision defended: what makes a variant is its resolved recipe and its columns' keys, not how its folder is
//! called: two runs of one name-pattern with another learning rate are two variants, whatever their names promise.

use std::collections::HashSet;

use super::entrant::Entrant;
use crate::stage::run::Run;

/// Runs of one recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub name: String,
    /// The runs' places.
    pub runs: Vec<usize>,
}

/// The groups of `entrants`, in the order of their first runs; each run by itself where `apart`.
pub(super) fn groups(entrants: &[Entrant], apart: bool) -> Vec<Group> {
    let mut groups: Vec<(String, HashSet<u64>, Vec<usize>)> = Vec::new();
    for (at, entrant) in entrants.iter().enumerate() {
        let (recipe, seed) = (without_seed(&entrant.run), entrant.run.recipe.train.seed);
        let place = groups.iter_mut().find(|(other, seeds, _)| *other == recipe && !seeds.contains(&seed));
        match place.filter(|_| !apart) {
            Some((_, seeds, runs)) => {
                seeds.insert(seed);
                runs.push(at);
            }
            None => groups.push((recipe, HashSet::from([seed]), vec![at])),
        }
    }
    let runs: Vec<Vec<usize>> = groups.into_iter().map(|(.., runs)| runs).collect();
    let labels = |runs: &Vec<usize>| runs.iter().map(|at| entrants[*at].label.as_str()).collect::<Vec<_>>();
    let names = names(&runs.iter().map(labels).collect::<Vec<_>>());
    names.into_iter().zip(runs).map(|(name, runs)| Group { name, runs }).collect()
}

/// All that decides a run but its seed.
fn without_seed(run: &Run) -> String {
    let mut recipe = run.recipe.clone();
    recipe.train.seed = 0;
    let keys: Vec<&str> = run.info.columns.iter().map(|column| column.key.as_str()).collect();
    format!("{}\n{keys:?}\n{:?}", recipe.resolved(), run.info.init)
}

/// A name for each group of labels: what its labels share, where that tells it from the others, else the first label.
fn names(groups: &[Vec<&str>]) -> Vec<String> {
    let shared: Vec<String> = groups.iter().map(|labels| shared(labels)).collect();
    let unique = |at: usize| shared.iter().filter(|name| **name == shared[at]).count() == 1;
    let name = |(at, labels): (usize, &Vec<&str>)| match !shared[at].is_empty() && unique(at) {
        true => shared[at].clone(),
        false => labels.first().map_or_else(String::new, ToString::to_string),
    };
    groups.iter().enumerate().map(name).collect()
}

/// What all labels begin and end with, without the word `seed` and what joins it.
fn shared(labels: &[&str]) -> String {
    let [first, rest @ ..] = labels else { return String::new() };
    if rest.is_empty() {
        return (*first).to_owned();
    }
    let common = |one: &mut dyn Iterator<Item = char>, other: &mut dyn Iterator<Item = char>| {
        one.zip(other).take_while(|(a, b)| a == b).count()
    };
    let all = |from_end: bool| {
        let count = |other: &&str| match from_end {
            true => common(&mut first.chars().rev(), &mut other.chars().rev()),
            false => common(&mut first.chars(), &mut other.chars()),
        };
        rest.iter().map(count).min().unwrap_or(0)
    };
    let length = first.chars().count();
    let start = all(false);
    let end = all(true).min(length - start);
    let joins = |c: char| matches!(c, '-' | '_' | '.' | '/' | '=' | ' ' | ',');
    let head: String = first.chars().take(start).collect();
    let tail: String = first.chars().skip(length - end).collect();
    let head = head.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(joins);
    let bare = head.strip_suffix("seed").or_else(|| head.strip_suffix("s").filter(|rest| rest.ends_with(joins)));
    let head = bare.unwrap_or(head).trim_end_matches(joins);
    let tail = tail.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(joins);
    [head, tail].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_called_by_what_its_runs_share() {
        assert_eq!(shared(&["grid-lstm-seed0", "grid-lstm-seed1", "grid-lstm-seed2"]), "grid-lstm");
        assert_eq!(shared(&["grid-lstm-s10", "grid-lstm-s11"]), "grid-lstm");
        assert_eq!(shared(&["seed=0,grid", "seed=1,grid"]), "grid");
        assert_eq!(shared(&["grid/0", "grid/1"]), "grid");
        assert_eq!(shared(&["tiles"]), "tiles");
        assert_eq!(shared(&["0", "1"]), "");
    }

    #[test]
    fn two_variants_never_share_a_name() {
        assert_eq!(names(&[vec!["a-0", "a-1"], vec!["a-2", "a-3"], vec!["b"]]), ["a-0", "a-2", "b"]);
        assert_eq!(names(&[vec!["0", "1"], vec!["2"]]), ["0", "2"]);
    }
}
