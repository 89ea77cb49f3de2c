//! Sampling: a random token among the most probable ones.
//!
//! What is drawn is a pure function of the seed, the image's place and the position, whatever else is in the batch. The nucleus is cut
//! on the device; one number a row goes there and one token comes back.

use tch::{Kind, Tensor};

use super::DecodeSpec;
use crate::batch::{
    random::{SplitMix, mix},
    sent,
};

/// Draws the tokens of one call.
#[derive(Debug)]
pub(super) struct Sampler {
    spec: DecodeSpec,
    /// The place of the call's image 0 among all images.
    first: usize,
}

impl Sampler {
    pub fn new(spec: &DecodeSpec, first: usize) -> Self {
        Self { spec: *spec, first }
    }

    /// A token (`[R]` i64) for each row of log-probabilities `[R, V]`, which belong to the images `live`.
    pub fn choose(&self, log_probs: &Tensor, live: &[usize], position: usize) -> Tensor {
        let draw = |&image: &usize| {
            let seed = mix(mix(self.spec.seed, (self.first + image) as u64), position as u64);
            SplitMix::new(seed).unit()
        };
        let draws: Vec<f32> = live.iter().map(draw).collect();
        nucleus(log_probs, &self.spec, &sent(&draws, log_probs.device()))
    }
}

/// The token at the quantile `draws` (`[R]`, 0 to 1) of each row's whole distribution `[R, V]`, which need not sum to 1: nothing is sorted.
pub(super) fn quantile(probabilities: &Tensor, draws: &Tensor) -> Tensor {
    let reached = probabilities.cumsum(1, Kind::Float);
    let all = reached.narrow(1, reached.size()[1] - 1, 1);
    let place = (draws.unsqueeze(1) * &all).searchsorted::<Tensor>(&reached, false, true, "right", None);
    // Rounding may lead past the end: the last token that has any probability.
    let last = all.contiguous().searchsorted::<Tensor>(&reached, false, false, "left", None);
    place.minimum(&last).squeeze_dim(1)
}

/// The token at the quantile `draws` (`[R]`, 0 to 1) of each row's distribution, cut to `top_k` and `top_p`.
fn nucleus(log_probs: &Tensor, spec: &DecodeSpec, draws: &Tensor) -> Tensor {
    let scores = log_probs / spec.temperature;
    if spec.top_k == 0 && spec.top_p >= 1.0 {
        return quantile(&scores.softmax(1, Kind::Float), draws);
    }
    let vocab = scores.size()[1];
    let kept = if spec.top_k == 0 { vocab } else { vocab.min(spec.top_k as i64) };
    let (scores, tokens) = scores.topk(kept, 1, true, true); // [R, k], best first
    let probabilities = scores.softmax(1, Kind::Float);
    let before = probabilities.cumsum(1, Kind::Float) - &probabilities;
    let probabilities = &probabilities * before.lt(spec.top_p).to_kind(Kind::Float);
    let reached = probabilities.cumsum(1, Kind::Float);
    let aim = draws.unsqueeze(1) * reached.narrow(1, kept - 1, 1);
    let count = probabilities.gt(0.0).to_kind(Kind::Int64).sum_dim_intlist(1, true, Kind::Int64);
    let place = reached.le_tensor(&aim).to_kind(Kind::Int64).sum_dim_intlist(1, true, Kind::Int64);
    let place = place.minimum(&(count - 1)).clamp_min(0);
    tokens.gather(1, &place, false).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of the tokens comes, of 4000 draws spread evenly.
    fn counts(probabilities: &[f32], spec: DecodeSpec) -> Vec<usize> {
        let draws: Vec<f32> = (0..4000).map(|at| (at as f32 + 0.5) / 4000.0).collect();
        let rows = Tensor::from_slice(probabilities).log().unsqueeze(0).repeat([4000, 1]);
        let tokens: Vec<i64> = Vec::try_from(nucleus(&rows, &spec, &Tensor::from_slice(&draws))).unwrap();
        (0..probabilities.len()).map(|token| tokens.iter().filter(|&&at| at == token as i64).count()).collect()
    }

    fn near(found: &[usize], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((*found as f64 / 4000.0 - expected).abs() < 2e-3, "{found} {expected}");
        }
    }

    #[test]
    fn tokens_come_by_their_probability() {
        let p = [0.1, 0.4, 0.0, 0.3, 0.2];
        let spec = DecodeSpec::default();
        near(&counts(&p, spec), &[0.1, 0.4, 0.0, 0.3, 0.2]);
        near(&counts(&p, DecodeSpec { top_k: 2, ..spec }), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
        near(&counts(&p, DecodeSpec { top_p: 0.75, ..spec }), &[0.0, 4.0 / 9.0, 0.0, 3.0 / 9.0, 2.0 / 9.0]);
        near(&counts(&p, DecodeSpec { top_p: 1e-6, ..spec }), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        let squares = [0.01, 0.16, 0.0, 0.09, 0.04].map(|square| square / 0.30);
        near(&counts(&p, DecodeSpec { temperature: 0.5, ..spec }), &squares);
    }

    #[test]
    fn no_draw_gives_a_token_without_probability() {
        let rows = Tensor::from_slice(&[0.0f32, 0.3, 0.0, 0.7, 0.0]).unsqueeze(0).repeat([3, 1]);
        let tokens = quantile(&rows, &Tensor::from_slice(&[0.0f32, 0.3 - 1e-6, 1.0 - f32::EPSILON / 2.0]));
        assert_eq!(Vec::<i64>::try_from(tokens).unwrap(), [1, 1, 3]);
        let past = quantile(&rows.narrow(0, 0, 1), &Tensor::from_slice(&[1.0f32]));
        assert_eq!(Vec::<i64>::try_from(past).unwrap(), [3]);
    }

    #[test]
    fn a_draw_depends_on_the_image_and_not_on_the_batch() {
        let rows = Tensor::ones([6, 50], (Kind::Float, tch::Device::Cpu)).log_softmax(1, Kind::Float);
        let spec = DecodeSpec { seed: 3, ..DecodeSpec::default() };
        let draw = |first, live: &[usize], position| -> Vec<i64> {
            let sampler = Sampler::new(&spec, first);
            Vec::try_from(sampler.choose(&rows.narrow(0, 0, live.len() as i64), live, position)).unwrap()
        };
        let all = draw(0, &[0, 1, 2, 3, 4, 5], 7);
        assert_eq!(draw(0, &[4, 1], 7), [all[4], all[1]]);
        assert_eq!(draw(3, &[1, 2], 7), all[4..]);
        assert_ne!(draw(0, &[0, 1, 2, 3, 4, 5], 8), all);
    }
}
