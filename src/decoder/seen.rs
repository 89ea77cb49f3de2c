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

/// mean((1 - attended)^2) over the vectors that are there, and its slope `[B, K]`.
pub(super) fn unattended(attended: &Tensor, seen: &Seen) -> (Tensor, Tensor) {
    let present = match &seen.mask {
        Some(mask) => mask.ge(ABSENT / 2.0).to_kind(Kind::Float),
        None => attended.ones_like(),
    };
    let count = present.sum(Kind::Float).clamp_min(1.0);
    let rest = (attended - 1.0) * &present;
    (rest.square().sum(Kind::Float) / &count, rest * 2.0 / count)
}
