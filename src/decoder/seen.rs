//! What attention looks at, and the penalty on what it left out.

use tch::{Kind, Tensor};

use super::{cell::first, mapping::Mapped};
use crate::batch::Captions;

/// What the words attend to, one entry a caption or an image.
#[derive(Debug)]
pub(super) struct Seen {
    /// `[n, K, W]`
    pub values: Tensor,
    /// Doubled, `[n, K, A]`.
    pub keys: Tensor,
    /// `[n, K]`, 0 where there is a vector and very negative where not.
    pub mask: Option<Tensor>,
}

/// Added to the scores of absent vectors. Not minus infinity: an image without any vector must not become NaN.
const ABSENT: f64 = -1e9;

impl Seen {
    /// Mapped vectors and what they are compared by.
    pub fn new(mapped: Mapped, keys: Tensor) -> Self {
        let absent = |present: Tensor| present.logical_not().to_kind(Kind::Float) * ABSENT;
        Self { values: mapped.values, keys, mask: mapped.present.map(absent) }
    }

    /// The same of other tensors.
    pub fn each(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { values: change(&self.values), keys: change(&self.keys), mask: self.mask.as_ref().map(change) }
    }

    /// The first `count` entries.
    pub fn first(&self, count: i64) -> Self {
        self.each(|tensor| first(tensor, count))
    }
}

/// Each caption's attention summed over its words, `[B, K]`, from `[P, K]`.
pub(super) fn attended(alpha: &Tensor, captions: &Captions) -> Tensor {
    let zeros = Tensor::zeros([captions.count(), alpha.size()[1]], (Kind::Float, alpha.device()));
    zeros.index_add(0, &captions.owner, alpha)
}

/// mean((τ - attended)^2) over the vectors that are there, and its slope `[B, K]`.
///
/// A caption's words look once each, so that its vectors' sums come to its words: τ is 1, and where there are fewer vectors than words what
/// each can have at least, words / vectors (Xu et al. 2015, 4.2.1). The gradient is that of τ = 1, but nothing is left that no weights
/// could take away.
pub(super) fn unattended(attended: &Tensor, seen: &Seen) -> (Tensor, Tensor) {
    let present = match &seen.mask {
        Some(mask) => mask.ge(ABSENT / 2.0).to_kind(Kind::Float),
        None => attended.ones_like(),
    };
    let count = present.sum(Kind::Float).clamp_min(1.0);
    let sum = |of: &Tensor| of.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
    let due = (sum(&(attended * &present)) / sum(&present).clamp_min(1.0)).clamp_min(1.0);
    let rest = (attended - due) * &present;
    (rest.square().sum(Kind::Float) / &count, rest * 2.0 / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The penalty on `words` looks that are spread alike over `present` of four places.
    fn spread(words: f64, present: i64) -> f64 {
        let there = Tensor::arange(4, (Kind::Int64, tch::Device::Cpu)).lt(present);
        let attended = (there.to_kind(Kind::Float) * (words / present as f64)).unsqueeze(0);
        let mask = (there.logical_not().to_kind(Kind::Float) * ABSENT).unsqueeze(0);
        let empty = Tensor::zeros([1, 4, 1], (Kind::Float, tch::Device::Cpu));
        unattended(&attended, &Seen { values: empty.shallow_clone(), keys: empty, mask: Some(mask) })
            .0
            .double_value(&[])
    }

    #[test]
    fn what_no_attention_could_do_better_costs_nothing() {
        for (words, present) in [(12.0, 1), (12.0, 4), (4.0, 4)] {
            assert!(spread(words, present).abs() < 1e-6, "{words} words, {present} vectors");
        }
        // fewer words than vectors: the published penalty
        assert!((spread(2.0, 4) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn looking_at_one_vector_alone_costs_something() {
        let attended = Tensor::from_slice2(&[[6.0f32, 0.0]]);
        let empty = Tensor::zeros([1, 2, 1], (Kind::Float, tch::Device::Cpu));
        let seen = Seen { values: empty.shallow_clone(), keys: empty, mask: None };
        let (penalty, slope) = unattended(&attended, &seen);
        assert!((penalty.double_value(&[]) - 9.0).abs() < 1e-6);
        assert!(slope.double_value(&[0, 0]) > 0.0 && slope.double_value(&[0, 1]) < 0.0);
    }
}
