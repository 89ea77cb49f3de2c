//! Soft attention over packed steps, forward and backward in closed form: the part that decoders with attention share.
//!
//! A step passes on the gradient of its query only; the gradients of image vectors are one product over all steps.

use tch::{Kind, Tensor};

use super::{
    lstm_tape::{at, empty},
    seen::Seen,
};

/// Everything the backward pass reads.
#[derive(Debug)]
pub(super) struct AttendTape {
    /// One entry a caption, detached.
    seen: Seen,
    /// Doubled, `[A]`.
    score: Tensor,
    /// sigmoid(keys + query), `[P, K, A]`
    compared: Tensor,
    /// `[P, K]`
    pub alpha: Tensor,
    /// sum(alpha a), `[P, W]`
    pub context: Tensor,
}

/// What the backward pass gathers over the steps.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Gradients of the scores, `[P, K]`.
    scores: Tensor,
    /// Padded by step, for one product over all steps: gradients of contexts `[T, B, W]`, and attention `[T, B, K]`.
    contexts: Tensor,
    alphas: Tensor,
    /// The gradient of the keys, `[B, K, A]`.
    keys: Tensor,
}

impl Gathered {
    /// Where the gradient of one step's contexts is put, `[n, W]`.
    pub fn context(&self, step: usize, count: i64) -> Tensor {
        at(&self.contexts.get(step as i64), 0, count)
    }
}

/// Gradients of what was seen and of the score.
#[derive(Debug)]
pub(super) struct Looked {
    pub values: Tensor,
    pub keys: Tensor,
    /// Doubled, `[A]`.
    pub score: Tensor,
}

impl AttendTape {
    /// For `total` tokens, `P`.
    pub fn new(seen: Seen, score: &Tensor, total: i64) -> Self {
        let (keys, width) = (seen.keys.size(), seen.values.size()[2]);
        Self {
            compared: empty(&seen.keys, &[total, keys[1], keys[2]]),
            alpha: empty(&seen.keys, &[total, keys[1]]),
            context: empty(&seen.keys, &[total, width]),
            score: score.shallow_clone(),
            seen,
        }
    }

    /// The contexts `[n, W]` of one step's queries `[n, A]`, doubled.
    pub fn forward(&self, start: i64, count: i64, query: &Tensor) -> Tensor {
        let (vectors, attention) = (self.compared.size()[1], self.compared.size()[2]);
        let part = |packed: &Tensor| at(packed, start, count);
        let keys = at(&self.seen.keys, 0, count);
        let compared = keys.add_out(&part(&self.compared), &query.unsqueeze(1)).sigmoid_();
        let scores = compared.view([-1, attention]).mv(&self.score).view([count, vectors]);
        let scores = match &self.seen.mask {
            Some(mask) => scores + mask.narrow(0, 0, count),
            None => scores,
        };
        let alpha = scores.softmax_int_out(&part(&self.alpha), -1, Kind::Float);
        let context = part(&self.context);
        let _ = alpha.unsqueeze(1).bmm_out(&context.unsqueeze(1), &at(&self.seen.values, 0, count));
        context
    }

    /// Room for the backward pass over `steps` steps.
    pub fn gather(&self, steps: usize) -> Gathered {
        let size = self.seen.values.size();
        let zeros = |last: i64| Tensor::zeros([steps as i64, size[0], last], (Kind::Float, self.seen.values.device()));
        Gathered {
            scores: self.alpha.empty_like(),
            contexts: zeros(size[2]),
            alphas: zeros(size[1]),
            keys: self.seen.keys.zeros_like(),
        }
    }

    /// One step back: from the gradient of its contexts, which [`Gathered::context`] holds, and of each caption's sum of
    /// attention `[B, K]`, to that of its queries (written to `query`, `[n, A]`, doubled).
    pub fn backward(
        &self,
        gathered: &Gathered,
        step: usize,
        (start, count): (i64, i64),
        attended: Option<&Tensor>,
        query: &Tensor,
    ) {
        let part = |packed: &Tensor| at(packed, start, count);
        let alpha = part(&self.alpha);
        at(&gathered.alphas.get(step as i64), 0, count).copy_(&alpha);
        let turned = at(&self.seen.values, 0, count).transpose(1, 2); // [n, W, K]: far faster than a product from the left
        let mut of_alpha = gathered.context(step, count).unsqueeze(1).bmm(&turned).squeeze_dim(1); // [n, K]
        if let Some(attended) = attended {
            of_alpha += at(attended, 0, count);
        }
        let score = Tensor::internal_softmax_backward_data(&of_alpha, &alpha, -1, Kind::Float);
        part(&gathered.scores).copy_(&score);
        let outer = score.unsqueeze(2) * &self.score; // [n, K, A]
        let compared = Tensor::sigmoid_backward_grad_input(&outer, &outer, &part(&self.compared));
        let _ = compared.sum_intlist_out(query, 1, false, Kind::Float);
        let _ = at(&gathered.keys, 0, count).g_add_(&compared);
    }

    /// What the steps' gradients come to.
    pub fn finish(&self, gathered: Gathered) -> Looked {
        let attention = self.compared.size()[2];
        Looked {
            values: gathered.alphas.permute([1, 2, 0]).bmm(&gathered.contexts.permute([1, 0, 2])),
            keys: gathered.keys,
            score: self.compared.view([-1, attention]).tr().mv(&gathered.scores.view(-1)),
        }
    }
}
