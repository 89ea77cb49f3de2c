//! What forward and backward are computed in: f32, or bf16 by a copy of the weights.
//!
//! The f32 weights are the ones that are trained, saved and spoken with. One decision defended: there is no scaling of the loss.
//! bf16 has the range of f32, and what it lacks in digits is made up where sums are long: softmax, loss, norms and the
//! gradients' sum over batches are in f32.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::TrainError;
use crate::{
    batch::{Captions, Prefix},
    decoder::{Decoder, Scoring},
};

/// `[train] precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// bf16 on a GPU for decoders that gain by it, f32 otherwise.
    #[default]
    Auto,
    /// f32 everywhere.
    F32,
    /// bf16 products with f32 weights behind them.
    Bf16,
}

impl Precision {
    /// Whether `decoder` is trained in bf16.
    pub(super) fn halves(self, decoder: &dyn Decoder) -> Result<bool, TrainError> {
        match self {
            Self::F32 => Ok(false),
            Self::Auto => Ok(decoder.params().device() != Device::Cpu && decoder.halves()),
            Self::Bf16 if decoder.halves() => Ok(true),
            Self::Bf16 => Err(TrainError::Precision { behind_tail: decoder.halves_without_tail() }),
        }
    }

    /// A line where f32 is not what a decoder of its kind is trained in by default.
    pub(super) fn line(self, on_gpu: bool, halves_without_tail: bool) -> Option<&'static str> {
        let line = "behind a [tail] the decoder is trained in f32, not in bf16 as it would be without one";
        (self == Self::Auto && on_gpu && halves_without_tail).then_some(line)
    }
}

/// The loss and its gradients, computed in bf16 where `half`.
pub(super) fn gradients(
    decoder: &mut dyn Decoder,
    half: bool,
    prefix: &Prefix,
    captions: &Captions,
    scoring: Scoring,
) -> (Tensor, Vec<Tensor>) {
    if !half {
        return decoder.gradients(prefix, captions, scoring);
    }
    InHalf::new(decoder).0.gradients(&prefix.to_kind(Kind::BFloat16), captions, scoring)
}

/// A decoder that computes in bf16 until this is dropped, by a panic too: where memory runs out, what would fit is tried with it.
struct InHalf<'a>(&'a mut dyn Decoder);

impl<'a> InHalf<'a> {
    fn new(decoder: &'a mut dyn Decoder) -> Self {
        let halved = Self(decoder);
        halved.0.params_mut().compute_in_half(true);
        halved
    }
}

impl Drop for InHalf<'_> {
    fn drop(&mut self) {
        self.0.params_mut().compute_in_half(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tail_that_changes_the_default_is_spoken_of() {
        let line = |precision: Precision, on_gpu, behind| precision.line(on_gpu, behind).is_some();
        assert!(line(Precision::Auto, true, true));
        assert!(!line(Precision::Auto, false, true) && !line(Precision::Auto, true, false));
        assert!(!line(Precision::F32, true, true));
    }
}
