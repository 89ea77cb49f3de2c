//! Where cross-attention looks before each word, for a person to see.
//!
//! The mean over heads and layers. A head may look at `<img>`, which stands for no part of the picture: that share is left out,
//! and what is left of a word that hardly looked at the picture sums to little.

use tch::{Kind, Tensor};

use super::*;

impl Gpt2 {
    /// The share of each of the columns' vectors before each word, `[P, K]`; `None` for a prefix, where images and words are weighed as one.
    pub(super) fn looks(&self, prefix: &Prefix, captions: &Captions) -> Option<Tensor> {
        if self.spec.mapping != Gpt2Mapping::CrossAttention {
            return None;
        }
        let _guard = tch::no_grad_guard();
        let (fed, mut begun) = (captions.fed(), 0);
        let mut state = self.begin(prefix).repeat(&captions.image);
        let mut looks = Vec::with_capacity(captions.active.len());
        for &active in &captions.active {
            let (_, after, weights) = self.speak(&state.first(active), &fed.narrow(0, begun, active));
            let weights = Tensor::stack(&weights, 0).mean_dim([0_i64, 2, 3].as_slice(), false, Kind::Float);
            looks.push(self.images.of_columns(&weights));
            (state, begun) = (after, begun + active);
        }
        Some(Tensor::cat(&looks, 0))
    }
}
