//! Dropout whose masks are a pure function of a seed.
//!
//! On the CPU the masks are drawn here, eight numbers of one draw: torch draws them one by one on one thread, which costs
//! a tenth of a training step. Elsewhere torch draws them, from the seed.
//!
//! Two things are not as `nn.Dropout` has them. What is computed once for many uses is masked once for all of them: a word that comes several
//! times in a batch loses the same numbers each time, and an image for all of its captions. And a mask drawn here drops a share rounded to 1/256
//! (0.1 is 0.1016).

use std::cell::Cell;

use tch::{Device, Tensor};

use super::Scoring;
use crate::batch::random::{SplitMix, mix};

/// The dropout of one pass: every use draws another mask.
#[derive(Debug)]
pub(super) struct Dropout {
    seed: Option<u64>,
    uses: Cell<u64>,
}

impl Dropout {
    /// As the scoring says.
    pub fn new(scoring: Scoring) -> Self {
        Self { seed: scoring.dropout, uses: Cell::new(0) }
    }

    /// None: nothing is dropped.
    pub fn none() -> Self {
        Self { seed: None, uses: Cell::new(0) }
    }

    /// The share that a kernel of torch drops itself, from a seed that is set here: all of it on a GPU, nothing where nothing is
    /// dropped; `None` where the masks are drawn here.
    pub fn within_kernel(&self, share: f64, device: Device) -> Option<f64> {
        if self.seed.is_none() || share == 0.0 {
            return Some(0.0);
        }
        (device != Device::Cpu).then(|| {
            tch::manual_seed(self.next().unwrap_or_default() as i64);
            share
        })
    }

    /// The seed of one more use.
    fn next(&self) -> Option<u64> {
        self.uses.set(self.uses.get() + 1);
        self.seed.map(|seed| mix(seed, self.uses.get()))
    }

    /// `values` with each number zeroed with probability `share`, the others scaled so that the mean stays.
    pub fn apply(&self, values: Tensor, share: f64) -> Tensor {
        if share == 0.0 {
            return values;
        }
        let Some(seed) = self.next() else { return values };
        if values.device() != Device::Cpu {
            tch::manual_seed(seed as i64);
            return values.dropout(share, true);
        }
        let mask = Tensor::from_slice(&mask(seed, values.numel(), share)).view_as(&values).to_kind(values.kind());
        values * mask
    }
}

/// `count` numbers, zero or the scale of what is kept; `share` is rounded to a 256th.
fn mask(seed: u64, count: usize, share: f64) -> Vec<f32> {
    let dropped = (share * 256.0).round().clamp(0.0, 255.0);
    let (below, scale) = (dropped as u8, (256.0 / (256.0 - dropped)) as f32);
    let mut random = SplitMix::new(seed);
    let mut mask = vec![0.0; count.next_multiple_of(8)];
    for eight in mask.chunks_exact_mut(8) {
        for (value, byte) in eight.iter_mut().zip(random.bits().to_le_bytes()) {
            *value = if byte < below { 0.0 } else { scale };
        }
    }
    mask.truncate(count);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_its_share_and_keeps_the_mean() {
        for share in [0.1, 0.5, 0.75] {
            let mask = mask(7, 100_001, share);
            let dropped = mask.iter().filter(|value| **value == 0.0).count() as f64 / mask.len() as f64;
            let mean = mask.iter().sum::<f32>() as f64 / mask.len() as f64;
            assert!((dropped - share).abs() < 0.01 && (mean - 1.0).abs() < 0.02, "{dropped} {mean}");
        }
    }

    #[test]
    fn masks_differ_by_use_and_return_with_the_seed() {
        let ones = || Tensor::from_slice(&[1.0f32; 64]);
        let pass = |seed| {
            let dropout = Dropout::new(Scoring { dropout: seed, label_smoothing: 0.0 });
            [dropout.apply(ones(), 0.5), dropout.apply(ones(), 0.5)]
        };
        let ([one, two], [again, _], [other, _]) = (pass(Some(1)), pass(Some(1)), pass(Some(2)));
        assert!(one.equal(&again) && !one.equal(&two) && !one.equal(&other));
        assert!(pass(None)[0].equal(&ones()));
    }
}
