//! Does a caption name the objects that its references name?
//!
//! Must not know: the picture, nor what a detector sees in it. The references are the judge: an object counts where at least two
//! of an image's references name it (or the only one does), because what one writer of five mentions is a matter of taste.
//! Words are looked up in a fixed list of COCO's 80 objects, so the share says nothing of other things; README.md says more.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::ngrams::{Caption, GramMap, phrase};

const LIST: &str = include_str!("objects.txt");

/// The longest phrase of the list, in words.
const LONGEST: usize = 4;

/// How many references must name an object for it to count, where an image has that many.
const AGREEING: usize = 2;

/// Objects that references name, and how many of them the caption names too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Objects {
    /// Named by the references.
    pub named: u64,
    /// Those of them that the caption names.
    pub found: u64,
}

impl Objects {
    /// Counts one image.
    #[must_use]
    pub fn of(candidate: &Caption, references: &[Caption]) -> Self {
        let (mut once, mut agreed) = (0_u128, 0_u128);
        for reference in references {
            let named = named(reference);
            agreed |= once & named;
            once |= named;
        }
        let wanted = if references.len() < AGREEING { once } else { agreed };
        let found = wanted & named(candidate);
        Self { named: u64::from(wanted.count_ones()), found: u64::from(found.count_ones()) }
    }

    /// The counts of both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self { named: self.named + other.named, found: self.found + other.found }
    }

    /// Found among named, 0 to 1; `None` where the references name nothing of the list.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        (self.named > 0).then(|| self.found as f64 / self.named as f64)
    }
}

/// Counts every image, in input order. Both slices have one entry an image.
#[must_use]
pub fn count(candidates: &[Caption], references: &[Vec<Caption>]) -> Vec<Objects> {
    candidates.par_iter().zip(references).map(|(candidate, references)| Objects::of(candidate, references)).collect()
}

/// The objects that a caption names: bit k is the list's object k.
fn named(caption: &Caption) -> u128 {
    let words = caption.words();
    let (mut objects, mut at) = (0, 0);
    while at < words.len() {
        let phrases = (1..=LONGEST.min(words.len() - at)).rev();
        let known =
            phrases.into_iter().find_map(|length| Some((length, PHRASES.get(&phrase(&words[at..at + length]))?)));
        let (length, bit) = known.map_or((1, 0), |(length, bit)| (length, *bit));
        objects |= bit;
        at += length;
    }
    objects
}

/// Each phrase of the list with the bit of its object; no bit for what is none.
static PHRASES: LazyLock<GramMap<u128>> = LazyLock::new(|| {
    let mut phrases = GramMap::default();
    for (object, words) in list() {
        let bit = object.map_or(0, |index| 1 << index);
        for form in words.iter().flat_map(|word| forms(word)) {
            phrases.insert(Caption::new(&form).digest(), bit);
        }
    }
    phrases
});

/// The lines of the list: the object's place (`None` for what is none), and its words.
fn list() -> Vec<(Option<usize>, Vec<&'static str>)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    let mut objects = 0..;
    let line = |line: &'static str| {
        let (name, words) = line.split_once(':').unwrap_or((line, ""));
        let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
        match name {
            "-" => (None, words.collect()),
            _ => (objects.next(), std::iter::once(name).chain(words).collect()),
        }
    };
    lines.map(line).collect()
}

/// A word and its plural; only itself after `=`, and for those names that are in the plural or are colours more often than fruit.
fn forms(word: &str) -> Vec<String> {
    match word {
        "orange" => Vec::new(),
        "skis" | "scissors" => vec![word.to_owned()],
        _ => match word.strip_prefix('=') {
            Some(exact) => vec![exact.to_owned()],
            None => vec![word.to_owned(), plural(word)],
        },
    }
}

fn plural(word: &str) -> String {
    let stem = |cut: usize| &word[..word.len() - cut];
    let vowel_before_y = ["ay", "ey", "oy", "uy"].iter().any(|end| word.ends_with(end));
    if word.ends_with("man") {
        format!("{}men", stem(3))
    } else if word.ends_with('y') && !vowel_before_y {
        format!("{}ies", stem(1))
    } else if ["s", "x", "z", "ch", "sh"].iter().any(|end| word.ends_with(end)) {
        format!("{word}es")
    } else {
        format!("{word}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let bits = named(&Caption::new(text));
        let lines = list();
        let name = |(object, words): &(Option<usize>, Vec<&'static str>)| {
            object.filter(|k| bits >> k & 1 == 1).map(|_| words[0])
        };
        lines.iter().filter_map(name).collect()
    }

    #[test]
    fn the_list_has_cocos_eighty() {
        let objects: Vec<usize> = list().iter().filter_map(|(object, _)| *object).collect();
        assert_eq!(objects, (0..80).collect::<Vec<_>>());
        let longest = list().iter().flat_map(|(_, words)| words.clone()).map(|word| word.split(' ').count()).max();
        assert!(longest.is_some_and(|words| words <= LONGEST), "{longest:?}");
    }

    #[test]
    fn words_plurals_and_phrases() {
        assert_eq!(names("two women and three puppies on benches"), ["person", "bench", "dog"]);
        assert_eq!(names("a boy eats a hot dog"), ["person", "hot dog"], "a hot dog is no dog");
        assert_eq!(names("the train station by the bus stop"), [""; 0], "no train and no bus");
        assert_eq!(names("an orange cat beside some oranges"), ["cat", "orange"]);
        assert_eq!(names("a man in an orange shirt with knives"), ["person", "knife"]);
        assert_eq!(names("policemen on skis"), ["person", "skis"]);
        assert_eq!(names(""), [""; 0]);
    }

    #[test]
    fn what_one_reference_mentions_does_not_count() {
        let captions = |texts: &[&str]| texts.iter().copied().map(Caption::new).collect::<Vec<_>>();
        let references = captions(&["a dog and a cat on a couch", "a puppy lies on a sofa", "a dog with a ball"]);
        let of = |text: &str| Objects::of(&Caption::new(text), &references);
        assert_eq!(of("a dog and a cat"), Objects { named: 2, found: 1 });
        assert_eq!(of("dogs on the couch").recall(), Some(1.0));
        assert_eq!(Objects::of(&Caption::new("a cat"), &references[..1]), Objects { named: 3, found: 1 });
        assert_eq!(Objects::of(&Caption::new("a cat"), &captions(&["red", "blue"])).recall(), None);
    }
}
