//! Soft attention: how an image's vectors are compared with a hidden state.
//!
//! e = w tanh(Wa a + Wh h), alpha = softmax(e), context = sum(alpha a). `Wa a` is computed once an image.
//!
//! tanh(x) is 2 sigmoid(2x) - 1, torch's sigmoid is five times as fast as its tanh on the CPU, and a softmax does not see the
//! constant: so keys, query and score are doubled, and vectors are compared by a sigmoid.

use tch::{Kind, Tensor};

use super::{Handle, Init, Params, ParamsBuilder, mapping::Mapped, seen::Seen};

/// The parameters of the comparison.
#[derive(Debug)]
pub(super) struct Attend {
    /// `attention.key.weight [A, W]`
    pub key: Handle,
    /// `attention.query.{weight [A, H], bias [A]}`
    pub query: (Handle, Handle),
    /// `attention.score.weight [1, A]`
    pub score: Handle,
}

impl Attend {
    pub fn declare(builder: &mut ParamsBuilder, width: i64, hidden: i64, attention: i64) -> Self {
        let bound = |input: i64| Init::Uniform(1.0 / (input as f32).sqrt());
        Self {
            key: builder.add("attention.key.weight", &[attention, width], bound(width)),
            query: builder.linear("attention.query", hidden, attention),
            score: builder.add("attention.score.weight", &[1, attention], bound(attention)),
        }
    }

    /// Mapped vectors as hidden states will see them.
    pub fn seen(&self, params: &Params, mapped: Mapped) -> Seen {
        let keys = mapped.values.linear::<Tensor>(params.get(self.key), None) * 2.0;
        Seen::new(mapped, keys)
    }

    /// Attention `[n, r, K]` and context `[n, r, W]` of `r` hidden states an image `[n, r, H]`.
    pub fn look(&self, params: &Params, seen: &Seen, hidden: &Tensor) -> (Tensor, Tensor) {
        let (weight, bias) = self.query;
        let query = hidden.linear(params.get(weight), Some(params.get(bias))).unsqueeze(2) * 2.0; // [n, r, 1, A]
        let compared = (seen.keys.unsqueeze(1) + query).sigmoid_(); // [n, r, K, A]
        let scores = compared.matmul(&(params.get(self.score).squeeze_dim(0) * 2.0)); // [n, r, K]
        let scores = match &seen.mask {
            Some(mask) => scores + mask.unsqueeze(1),
            None => scores,
        };
        let alpha = scores.softmax(-1, Kind::Float);
        let context = alpha.bmm(&seen.values); // [n, r, W]
        (alpha, context)
    }
}
