//! Self-critical sequence training (Rennie et al. 2017): captions are sampled, and each is learned by its advantage.
//!
//! The gradient of -(1/P) sum over samples of (reward - baseline) log p(sample) is, in expectation, that of the expected reward. For
//! that to hold a sample must come from what is differentiated: both know no dropout, the mark of unknown words may be spoken,
//! and a caption may be empty. One gap is left: begin mark, padding and rows without a token are never sampled, but have their probability in what
//! is differentiated; a decoder that was trained on captions gives them next to none. What is sampled is a pure function of the seed and the weights.

use super::{Baseline, Hooks, Scst, TrainError};
use crate::{
    batch::{Captions, Prefix, Special},
    decoder::{DecodeSpec, Decoder, Generated, Method, generate, samples},
};

/// The samples of a batch, weighted by their advantages.
#[derive(Debug)]
pub(super) struct Rewarded {
    pub captions: Captions,
    /// Mean over the samples.
    pub reward: f64,
    /// Mean over the samples.
    pub baseline: f64,
}

/// A batch's images and their rows.
pub(super) struct Images<'a> {
    pub prefix: &'a Prefix,
    pub rows: &'a [u32],
    pub special: Special,
    /// Tokens of a caption that are learned, the end mark counted.
    pub max_tokens: usize,
}

/// Samples captions of `images` and has them rewarded.
pub(super) fn rewarded(
    decoder: &dyn Decoder,
    images: &Images<'_>,
    spec: &Scst,
    seed: u64,
    hooks: &Hooks<'_>,
) -> Result<Rewarded, TrainError> {
    let freely = freely(decoder, images.max_tokens, seed);
    let sampled = samples(decoder, images.prefix, spec.samples, &freely, images.special);
    let rewards = reward(images.rows, &sampled, spec.samples, hooks)?;
    let baselines = match spec.baseline {
        Baseline::Mean => means_of_others(&rewards, spec.samples),
        Baseline::Greedy => {
            let greedy = DecodeSpec { max_length: freely.max_length, ..DecodeSpec::default() }.greedy();
            let spoken = generate(decoder, images.prefix, &greedy, images.special);
            let rewards = reward(images.rows, &spoken, 1, hooks)?;
            rewards.into_iter().flat_map(|reward| vec![reward; spec.samples]).collect()
        }
    };
    let advantages: Vec<f32> = rewards.iter().zip(&baselines).map(|(reward, base)| (reward - base) as f32).collect();
    let packed: Vec<(i64, &[u32])> = sampled
        .iter()
        .enumerate()
        .map(|(at, caption)| ((at / spec.samples) as i64, caption.tokens.as_slice()))
        .collect();
    // A caption as long as may be was cut: it predicts no end.
    let captions = Captions::pack_weighted(&packed, &advantages, images.special, freely.max_length);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    Ok(Rewarded {
        captions: captions.to_device(decoder.params().device()),
        reward: mean(&rewards),
        baseline: mean(&baselines),
    })
}

/// How samples are spoken: as what is differentiated says it.
fn freely(decoder: &dyn Decoder, max_tokens: usize, seed: u64) -> DecodeSpec {
    let longest = max_tokens - 1;
    DecodeSpec {
        method: Method::Sample,
        max_length: decoder.limit().map_or(longest, |limit| longest.min(limit - 1)),
        min_length: 0,
        allow_unknown: true,
        seed,
        ..DecodeSpec::default()
    }
}

/// Samples that are all as long as may be, for what a batch may take at most.
pub(super) fn longest(
    decoder: &dyn Decoder,
    prefix: &Prefix,
    spec: &Scst,
    special: Special,
    max_tokens: usize,
) -> Captions {
    let freely = freely(decoder, max_tokens, 0);
    let freely = DecodeSpec { min_length: freely.max_length, ..freely };
    let sampled = samples(decoder, prefix, spec.samples, &freely, special);
    let packed: Vec<(i64, &[u32])> =
        sampled.iter().enumerate().map(|(at, caption)| ((at / spec.samples) as i64, &caption.tokens[..])).collect();
    let weights = vec![1.0; packed.len()];
    let captions = Captions::pack_weighted(&packed, &weights, special, freely.max_length);
    captions.to_device(decoder.params().device())
}

/// The rewards of `captions`, of which each row has `each`, one after another.
fn reward(rows: &[u32], captions: &[Generated], each: usize, hooks: &Hooks<'_>) -> Result<Vec<f64>, TrainError> {
    let said: Vec<(u32, &[u32])> =
        captions.iter().enumerate().map(|(at, caption)| (rows[at / each], caption.tokens.as_slice())).collect();
    let reward = hooks.reward.ok_or(TrainError::NoReward)?;
    let rewards = reward(&said).map_err(TrainError::Reward)?;
    match rewards.len() == captions.len() && rewards.iter().all(|reward| reward.is_finite()) {
        true => Ok(rewards),
        false => Err(TrainError::Reward("a reward is missing, or not finite".into())),
    }
}

/// For each of `each` rewards of an image, the mean of the others.
fn means_of_others(rewards: &[f64], each: usize) -> Vec<f64> {
    let of_image = |rewards: &[f64]| {
        let sum: f64 = rewards.iter().sum();
        rewards.iter().map(|reward| (sum - reward) / (each - 1) as f64).collect::<Vec<_>>()
    };
    rewards.chunks(each).flat_map(of_image).collect()
}

/// Rewards since the last report.
#[derive(Debug, Default)]
pub(super) struct Rewards {
    reward: f64,
    baseline: f64,
    batches: u64,
}

impl Rewards {
    pub fn push(&mut self, rewarded: &Rewarded) {
        self.reward += rewarded.reward;
        self.baseline += rewarded.baseline;
        self.batches += 1;
    }

    /// The mean reward and baseline, where there were any, and none from here on.
    pub fn take(&mut self) -> Option<(f64, f64)> {
        let Self { reward, baseline, batches } = std::mem::take(self);
        (batches > 0).then(|| (reward / batches as f64, baseline / batches as f64))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::{
        batch::Vectors,
        decoder::{ColumnInput, DecoderSpec, LstmSpec, Scoring, build},
        progress::Silent,
        trainer::{HookError, Score},
    };

    const SPECIAL: Special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
    const SCORING: Scoring = Scoring { dropout: None, label_smoothing: 0.0 };

    /// A toy of four words that has something to say, and one image.
    fn toy() -> (Box<dyn Decoder>, Prefix) {
        tch::set_num_threads(1);
        let spec = DecoderSpec::Lstm(LstmSpec { embedding: 4, hidden: 4, ..LstmSpec::default() });
        let inputs = [ColumnInput { name: "image".into(), vectors: 1, width: 3 }];
        let decoder = build(&spec, &inputs, 7, 5, Device::Cpu).unwrap();
        let _guard = tch::no_grad_guard();
        let _ = decoder.params().flat().shallow_clone().g_mul_scalar_(3.0);
        // Marks that are never spoken have no probability, as in a trained decoder.
        for (name, place) in decoder.params().named(decoder.params().flat()) {
            if name == "output.bias" {
                let _ = place.narrow(0, 0, 2).fill_(-30.0);
                let _ = place.narrow(0, 2, 1).g_add_scalar_(0.5);
            }
        }
        let data = Tensor::from_slice(&[0.3f32, -0.8, 0.5]).view([1, 1, 3]);
        (decoder, Prefix { columns: vec![Vectors { data, present: None }] })
    }

    fn value(tokens: &[u32]) -> f64 {
        tokens.iter().map(|&token| if token == 5 { 1.5 } else { 0.2 }).sum::<f64>() + f64::from(tokens.len() == 1)
    }

    fn rewards(captions: &[(u32, &[u32])]) -> Result<Vec<f64>, HookError> {
        Ok(captions.iter().map(|(_, tokens)| value(tokens)).collect())
    }

    /// All gradients, one after another.
    fn joined(gradients: &[Tensor]) -> Tensor {
        Tensor::cat(&gradients.iter().map(|gradient| gradient.view(-1)).collect::<Vec<_>>(), 0)
    }

    /// The gradient of the expected reward, by every caption of at most two words.
    fn exact(decoder: &dyn Decoder, prefix: &Prefix) -> Tensor {
        let words = [3u32, 4, 5, 6];
        let mut captions = vec![vec![]];
        captions.extend(words.map(|word| vec![word]));
        captions.extend(words.iter().flat_map(|&one| words.map(|two| vec![one, two])));
        let weight = |tokens: &Vec<u32>| {
            let alone = Captions::pack(&[(0, tokens)], SPECIAL, 2);
            let loss = decoder.loss(prefix, &alone, SCORING).double_value(&[]);
            (-loss * alone.tokens() as f64).exp() * value(tokens)
        };
        let weights: Vec<f32> = captions.iter().map(|tokens| weight(tokens) as f32).collect();
        let pairs: Vec<(i64, &[u32])> = captions.iter().map(|tokens| (0, tokens.as_slice())).collect();
        let packed = Captions::pack_weighted(&pairs, &weights, SPECIAL, 2);
        joined(&decoder.gradients(prefix, &packed, SCORING).1) * packed.tokens() as f64
    }

    #[test]
    fn the_gradient_is_that_of_the_expected_reward() {
        let (decoder, prefix) = toy();
        let expected = exact(decoder.as_ref(), &prefix);
        let (name, text) = (|_: u32| String::new(), |_: &[u32]| String::new());
        let score = |_: &[(u32, String)]| Ok(Score { value: 0.0, shown: vec![] });
        let hooks = Hooks { progress: &Silent, name: &name, text: &text, score: &score, reward: Some(&rewards) };
        for baseline in [Baseline::Mean, Baseline::Greedy] {
            let spec = Scst { samples: 100, baseline, after: 0.0 };
            let images = Images { prefix: &prefix, rows: &[7], special: SPECIAL, max_tokens: 3 };
            let mut sum = expected.zeros_like();
            for seed in 0..80 {
                let found = rewarded(decoder.as_ref(), &images, &spec, seed, &hooks).unwrap();
                let tokens = found.captions.tokens() as f64;
                sum += joined(&decoder.gradients(&prefix, &found.captions, SCORING).1) * (tokens / 100.0);
            }
            let found = sum / 80.0;
            let number = |tensor: Tensor| tensor.to_kind(Kind::Double).double_value(&[]);
            let apart = number((&found - &expected).norm()) / number(expected.norm());
            assert!(apart < 0.06, "{baseline:?}: {apart}");
        }
    }

    #[test]
    fn a_baseline_is_the_mean_of_the_others() {
        assert_eq!(means_of_others(&[1.0, 2.0, 6.0, 5.0, 5.0, 5.0], 3), [4.0, 3.5, 1.5, 5.0, 5.0, 5.0]);
    }
}
