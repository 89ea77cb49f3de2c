//! Beam search over many images at once.
//!
//! Every image keeps the same number of rows, one after another, so that the state is reordered by one index and the
//! images' own tensors are shared by their rows. What ends is set aside with its score divided by length to a power; an
//! image is done when it has `beam` ended captions and no living one scores better than the worst of them.

use tch::{Kind, Tensor};

use super::{
    DecodeSpec, Decoder, Generated, Prefix, Special, State,
    generate::{Said, advance, numbers},
};
use crate::batch::sent;

/// A caption in the making.
#[derive(Debug, Clone)]
struct Living {
    tokens: Vec<u32>,
    log_prob: f64,
}

/// The search for one image's caption.
#[derive(Debug)]
struct Search {
    /// Where its caption goes.
    image: usize,
    living: Vec<Living>,
    /// Ended captions with their scores, best first, `beam` at most.
    ended: Vec<(f64, Generated)>,
}

/// What one row becomes: the row it continues and its next token.
type Continued = (i64, i64);

impl Search {
    fn new(image: usize) -> Self {
        Self { image, living: vec![Living { tokens: vec![], log_prob: 0.0 }], ended: vec![] }
    }

    fn end(&mut self, tokens: Vec<u32>, log_prob: f64, length: usize, spec: &DecodeSpec) {
        let score = log_prob / (length.max(1) as f64).powf(spec.length_penalty);
        let place = self.ended.partition_point(|(other, _)| *other >= score);
        self.ended.insert(place, (score, Generated { tokens, log_prob }));
        self.ended.truncate(spec.beam);
    }

    /// Takes the best candidates (score, row within the image, token), best first, and says how its rows go on.
    fn advance(&mut self, candidates: &[(f64, usize, i64)], special: Special, spec: &DecodeSpec) -> Vec<Continued> {
        let (mut living, mut continued) = (Vec::with_capacity(spec.beam), Vec::with_capacity(spec.beam));
        for (rank, &(log_prob, row, token)) in candidates.iter().enumerate() {
            if living.len() == spec.beam || log_prob == f64::NEG_INFINITY {
                break;
            }
            let mut tokens = self.living[row].tokens.clone();
            if token == i64::from(special.eos) {
                if rank < spec.beam {
                    let length = tokens.len() + 1;
                    self.end(tokens, log_prob, length, spec);
                }
                continue;
            }
            tokens.push(token as u32);
            living.push(Living { tokens, log_prob });
            continued.push((row as i64, token));
        }
        self.living = living;
        continued
    }

    /// Whether nothing better can be expected.
    fn done(&self, spec: &DecodeSpec) -> bool {
        let Some(best) = self.living.first() else { return true };
        let length = (best.tokens.len() + 1) as f64;
        let hope = best.log_prob / length.powf(spec.length_penalty);
        self.ended.len() >= spec.beam && self.ended.last().is_some_and(|(worst, _)| *worst >= hope)
    }

    /// The best caption: an ended one, or where none ended the best living one.
    fn best(mut self, spec: &DecodeSpec) -> (usize, Generated) {
        if self.ended.is_empty() {
            for Living { tokens, log_prob } in std::mem::take(&mut self.living) {
                let length = tokens.len();
                self.end(tokens, log_prob, length, spec);
            }
        }
        let best = self.ended.into_iter().next();
        (self.image, best.map_or(Generated { tokens: vec![], log_prob: f64::NEG_INFINITY }, |(_, best)| best))
    }
}

/// The best caption found for each image.
pub(super) fn beam(decoder: &dyn Decoder, prefix: &Prefix, spec: &DecodeSpec, special: Special) -> Vec<Generated> {
    let spec = DecodeSpec { beam: spec.beam.max(1), ..*spec };
    let mut searches: Vec<Search> = (0..prefix.images() as usize).map(Search::new).collect();
    let mut found = vec![Generated { tokens: vec![], log_prob: 0.0 }; searches.len()];
    let mut state = decoder.start(prefix);
    let mut tokens = vec![i64::from(special.bos); searches.len()];
    for position in 0..=spec.max_length {
        let (log_probs, next) = {
            let rows_an_image = tokens.len() / searches.len();
            let said = said(&searches, &tokens, rows_an_image);
            advance(decoder, &state, &said, &spec, special, position)
        };
        let last = position == spec.max_length;
        let candidates = candidates(&log_probs, &searches, &spec, last.then_some(special.eos));
        let rows_an_image = log_probs.size()[0] / searches.len() as i64;
        let (mut rows, mut images, mut going) = (vec![], vec![], vec![]);
        tokens = vec![];
        for (index, (mut search, candidates)) in searches.into_iter().zip(candidates).enumerate() {
            let before = search.living.clone();
            let mut continued = search.advance(&candidates, special, &spec);
            // Nothing may follow: what was there is all there is.
            let stuck = search.living.is_empty();
            if stuck {
                search.living = before;
            }
            if last || stuck || search.done(&spec) {
                let (image, caption) = search.best(&spec);
                found[image] = caption;
                continue;
            }
            // A short vocabulary may leave fewer rows than the beam holds: repeat one that can win nothing.
            continued.resize(spec.beam, continued[0]);
            images.push(index as i64);
            rows.extend(continued.iter().map(|(row, _)| index as i64 * rows_an_image + row));
            tokens.extend(continued.iter().map(|(_, token)| token));
            going.push(search);
        }
        if going.is_empty() {
            break;
        }
        state = reorder(&next, &images, &rows, log_probs.size()[0] / rows_an_image);
        searches = going;
    }
    found
}

/// What the rows have said; those that repeat another to fill the beam say nothing.
fn said<'a>(searches: &'a [Search], tokens: &[i64], rows_an_image: usize) -> Vec<Said<'a>> {
    let row = |(at, &last): (usize, &i64)| {
        let living = searches[at / rows_an_image].living.get(at % rows_an_image);
        Said { tokens: living.map_or(&[], |living| &living.tokens), last }
    };
    tokens.iter().enumerate().map(row).collect()
}

/// The best `2 beam` continuations of each image, best first. At the last position only `only` may come.
fn candidates(
    log_probs: &Tensor,
    searches: &[Search],
    spec: &DecodeSpec,
    only: Option<u32>,
) -> Vec<Vec<(f64, usize, i64)>> {
    let images = searches.len() as i64;
    let (rows, vocab) = (log_probs.size()[0] / images, log_probs.size()[1]);
    let so_far: Vec<f32> = searches
        .iter()
        .flat_map(|search| {
            let dead = f32::NEG_INFINITY;
            (0..rows as usize).map(move |row| search.living.get(row).map_or(dead, |living| living.log_prob as f32))
        })
        .collect();
    let so_far = sent(&so_far, log_probs.device()).unsqueeze(1);
    let mut scores = log_probs + so_far; // [images * rows, V]
    let mut base = 0;
    if let Some(token) = only {
        base = i64::from(token);
        scores = scores.narrow(1, base, 1);
    }
    let width = scores.size()[1];
    let scores = scores.contiguous().view([images, rows * width]);
    let count = (2 * spec.beam as i64).min(rows * width);
    let (best, place) = scores.topk(count, 1, true, true);
    let (best, place) = (numbers::<f32>(&best.to_kind(Kind::Float)), numbers::<i64>(&place));
    debug_assert!(width == vocab || width == 1);
    let candidate = |(&score, &place): (&f32, &i64)| (f64::from(score), (place / width) as usize, base + place % width);
    best.chunks_exact(count as usize)
        .zip(place.chunks_exact(count as usize))
        .map(|(best, place)| best.iter().zip(place).map(candidate).collect())
        .collect()
}

/// The state of the images that go on, their rows as chosen.
fn reorder(state: &State, images: &[i64], rows: &[i64], before: i64) -> State {
    let device = state.rows[0].device();
    let rows = sent(rows, device);
    if images.len() as i64 == before {
        return state.select(&rows);
    }
    state.keep(&sent(images, device), &rows)
}
