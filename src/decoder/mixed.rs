//! Scheduled sampling (Bengio et al. 2015): captions in which some words that go in are the decoder's own.
//!
//! One decision defended: the words are drawn in a pass before the one that learns, through the steps that every decoder speaks by. No
//! gradient goes through a drawn word anyway, so nothing is lost, a decoder needs nothing of its own for it, and GPT-2 sees
//! what it said before exactly as an LSTM does, without a second pass over guesses made after true words only (Mihaylova and
//! Martins 2019). Drawing knows no dropout. What is drawn is a pure function of the seed.

use tch::{Kind, Tensor};

use super::{
    Decoder, Prefix, Special,
    generate::{nobodys, numbers},
    sample::quantile,
};
use crate::batch::{Captions, random::SplitMix, sent};

/// `captions` with each word that goes in, but the begin mark, replaced with probability `share` by one drawn from what the decoder
/// says after the words before it, drawn ones included; `None` where no word is.
#[must_use]
pub fn mixed(
    decoder: &dyn Decoder,
    prefix: &Prefix,
    captions: &Captions,
    special: Special,
    share: f64,
    seed: u64,
) -> Option<Captions> {
    let _guard = tch::no_grad_guard();
    let mut random = SplitMix::new(seed);
    let mut draw = || (0..captions.tokens()).map(|_| random.unit()).collect::<Vec<f32>>();
    let (coins, draws) = (draw(), draw());
    let own: Vec<bool> = coins.iter().map(|coin| f64::from(*coin) < share).collect();
    let parts = parts(&captions.active);
    let last = (1..parts.len()).rev().find(|&step| own[parts[step].0..][..parts[step].1].contains(&true))?;
    let device = decoder.params().device();
    let (chosen, draws) = (sent(&own, device), sent(&draws, device));
    let mut marks: Vec<i64> = [special.bos, special.eos, special.pad].map(i64::from).to_vec();
    marks.extend(nobodys(decoder));
    let marks = sent(&marks, device);
    let fed = captions.fed();
    let mut state = decoder.start(prefix).repeat(&captions.image);
    for step in 0..last {
        let part = |tensor: &Tensor, step: usize| tensor.narrow(0, parts[step].0 as i64, parts[step].1 as i64);
        let (logits, after) = decoder.step(&state, &part(&fed, step));
        let (start, count) = parts[step + 1];
        if own[start..][..count].contains(&true) {
            let logits = logits.narrow(0, 0, count as i64).index_fill(1, &marks, f64::NEG_INFINITY);
            let words = quantile(&logits.softmax(1, Kind::Float), &part(&draws, step + 1));
            let mut place = part(&fed, step + 1);
            let mixed = words.where_self(&part(&chosen, step + 1), &place);
            place.copy_(&mixed);
        }
        state = after.first(count as i64);
    }
    Some(captions.with_fed(numbers(&fed)))
}

/// Where each step's tokens begin, and how many there are.
fn parts(active: &[i64]) -> Vec<(usize, usize)> {
    let parts = active.iter().scan(0, |end, &count| {
        let start = *end;
        *end += count as usize;
        Some((start, count as usize))
    });
    parts.collect()
}
