//! Both ends of a decoder: word vectors in, the vocabulary's logits and their loss out.

use tch::{Kind, Reduction, Tensor};

use super::{
    Handle, Init, Params, ParamsBuilder, Scoring,
    dropout::Dropout,
    head::{self, Head, Scored},
};
use crate::batch::Captions;

/// The embedding and the output layer.
#[derive(Debug)]
pub(super) struct Words {
    /// `embedding.weight [V, E]`
    embedding: Handle,
    /// `output.weight [V, H]`; none where the embedding takes its place.
    weight: Option<Handle>,
    /// `output.bias [V]`
    bias: Handle,
    dropout: f64,
    pub vocab: i64,
}

impl Words {
    pub fn declare(
        builder: &mut ParamsBuilder,
        vocab: i64,
        embedding: i64,
        hidden: i64,
        dropout: f64,
        tied: bool,
    ) -> Self {
        let words = builder.add("embedding.weight", &[vocab, embedding], Init::Uniform(0.1));
        let weight = (!tied).then(|| builder.add("output.weight", &[vocab, hidden], Init::Uniform(0.1)));
        let bias = builder.add("output.bias", &[vocab], Init::Constant(0.0));
        Self { embedding: words, weight, bias, dropout, vocab }
    }

    /// What [`Words::embed`] reads.
    pub fn embedding(&self) -> Handle {
        self.embedding
    }

    /// What [`Words::logits`] reads.
    pub fn output(&self) -> [Handle; 2] {
        [self.weight.unwrap_or(self.embedding), self.bias]
    }

    /// Word vectors `[n, E]` of tokens `[n]`.
    pub fn embed(&self, params: &Params, tokens: &Tensor, dropout: &Dropout) -> Tensor {
        let words = Tensor::embedding(params.get(self.embedding), tokens, -1, false, false);
        dropout.apply(words, self.dropout)
    }

    /// Logits `[n, V]` of hidden states `[n, H]`.
    pub fn logits(&self, params: &Params, hidden: &Tensor) -> Tensor {
        let weight = params.get(self.weight.unwrap_or(self.embedding));
        hidden.linear(weight, Some(params.get(self.bias)))
    }

    /// The same loss with its gradients in closed form, after hidden states `[P, H]` that dropout was applied to.
    pub fn score(&self, params: &Params, hidden: &Tensor, captions: &Captions, scoring: Scoring) -> Scored {
        let [weight, bias] = self.output().map(|handle| params.get(handle).detach());
        let head = Head { weight: &weight, bias: Some(&bias), trained: true };
        head::score(&hidden.detach(), head, captions, scoring.label_smoothing)
    }

    /// What stands before the output layer.
    pub fn dropped(&self, hidden: Tensor, dropout: &Dropout) -> Tensor {
        dropout.apply(hidden, self.dropout)
    }

    /// The mean cross entropy of the captions' targets after hidden states `[P, H]`, each times its weight where there are
    /// weights: logits only where there is a target.
    pub fn loss(
        &self,
        params: &Params,
        hidden: &Tensor,
        captions: &Captions,
        scoring: Scoring,
        dropout: &Dropout,
    ) -> Tensor {
        let hidden = self.dropped(hidden.shallow_clone(), dropout);
        mean_loss(&self.logits(params, &hidden), captions, scoring.label_smoothing)
    }
}

/// The mean cross entropy of logits `[P, V]`, each target's times its weight where there are weights.
pub(super) fn mean_loss(logits: &Tensor, captions: &Captions, smoothing: f64) -> Tensor {
    let entropy = |reduction| logits.cross_entropy_loss::<Tensor>(&captions.targets, None, reduction, -100, smoothing);
    match &captions.weights {
        None => entropy(Reduction::Mean),
        Some(weights) => (entropy(Reduction::None) * weights).mean(Kind::Float),
    }
}
