//! Which images a report shows, and what was said of each.
//!
//! Must not know pictures. One decision defended: where not all fit, half are those that the variants disagree about most, which is what
//! one came to see, and half are drawn by chance, which keeps the first half from passing for the whole. They alternate, so that wherever the
//! room ends the rule holds.

use std::collections::HashSet;

use serde_json::Value;

use super::{Group, entrant::Entrant};
use crate::{
    batch::random::SplitMix,
    report::page::{Image, Said},
    stage::spread::{deviation, mean},
};

/// Decides which images are drawn by chance.
const SEED: u64 = 0;

/// An image's name, as its data set has it.
pub(super) fn id(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Image `at` with all that was said of it, without its photograph. Runs are numbered in the order of the groups.
pub(super) fn image(at: usize, entrants: &[Entrant], groups: &[Group]) -> Image {
    let mut said: Vec<Said> = Vec::new();
    for (number, run) in groups.iter().flat_map(|group| &group.runs).enumerate() {
        let scored = &entrants[*run].scored.images[at];
        match said.iter_mut().find(|said| said.caption == scored.caption) {
            Some(said) => said.runs.push(number),
            None => said.push(Said {
                caption: scored.caption.clone(),
                cider: (1000.0 * scored.cider).round() / 10.0,
                runs: vec![number],
            }),
        }
    }
    said.sort_by(|a, b| b.cider.total_cmp(&a.cider));
    let scored = &entrants[0].scored.images[at];
    Image {
        id: id(&scored.image_id),
        references: scored.references.clone(),
        apart: (1000.0 * disagreement(at, entrants, groups)).round() / 10.0,
        said,
        ..Image::default()
    }
}

/// The standard deviation of the variants' CIDEr of image `at`.
fn disagreement(at: usize, entrants: &[Entrant], groups: &[Group]) -> f64 {
    let cider = |run: &usize| entrants[*run].scored.images[at].cider;
    let scores: Vec<f64> = groups.iter().filter_map(|group| mean(group.runs.iter().map(cider))).collect();
    deviation(&scores).unwrap_or(0.0)
}

/// All images in the order in which they are given room: the most disputed and random ones by turns.
pub(super) fn order(images: &[Image]) -> Vec<usize> {
    let mut disputed: Vec<usize> = (0..images.len()).collect();
    disputed.sort_by(|a, b| images[*b].apart.total_cmp(&images[*a].apart).then(a.cmp(b)));
    let mut random: Vec<usize> = (0..images.len()).collect();
    SplitMix::new(SEED).shuffle(&mut random);
    let mut taken = HashSet::new();
    let by_turns = disputed.into_iter().zip(random).flat_map(|(disputed, random)| [disputed, random]);
    by_turns.filter(|at| taken.insert(*at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_one_place_and_the_most_disputed_the_first() {
        let images: Vec<Image> = (0..50).map(|at| Image { apart: f64::from(at % 10), ..Image::default() }).collect();
        let order = order(&images);
        assert_eq!((order[0], order.len()), (9, 50));
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 50);
        let early = order[..10].iter().filter(|at| images[**at].apart == 9.0).count();
        assert!((4..=8).contains(&early), "half of them by dispute: {early}");
    }
}
