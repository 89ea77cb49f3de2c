//! A decoder behind a tail.

use std::path::Path;

use tch::Tensor;

use super::{
    super::{Captions, ColumnInput, Decoder, DecoderError, Params, Prefix, Scoring, Special, State},
    Tail, TailPlan,
    step::Training,
};
use crate::{batch::Vectors, section::Weight};

/// A decoder that sees what a section of the encoder makes of a cached column. All of [`Decoder`] is the inner one's, on the
/// prefix that the tail makes.
pub struct Tailed {
    inner: Box<dyn Decoder>,
    tail: Tail,
    /// As the cache has them.
    inputs: Vec<ColumnInput>,
}

impl Tailed {
    /// Puts the tail of `plan` before `inner`, which was built for [`TailPlan::inputs`] of `inputs`.
    ///
    /// # Errors
    /// Where the section has something that can't be trained.
    pub fn new(mut inner: Box<dyn Decoder>, plan: &TailPlan, inputs: &[ColumnInput]) -> Result<Self, DecoderError> {
        let tail = Tail::join(plan, inner.params_mut())?;
        Ok(Self { inner, tail, inputs: inputs.to_vec() })
    }

    /// The images as the decoder behind the tail sees them when it speaks.
    #[must_use]
    pub fn see(&self, prefix: &Prefix) -> Prefix {
        let _guard = tch::no_grad_guard();
        self.seen(prefix, Training::No)
    }

    fn seen(&self, prefix: &Prefix, training: Training) -> Prefix {
        let column = |(place, vectors): (usize, &Vectors)| match place == self.tail.plan.column {
            true => self.tail.see(self.inner.params(), vectors, training),
            false => Vectors {
                data: vectors.data.shallow_clone(),
                present: vectors.present.as_ref().map(Tensor::shallow_clone),
            },
        };
        Prefix { columns: prefix.columns.iter().enumerate().map(column).collect() }
    }
}

impl Decoder for Tailed {
    fn params(&self) -> &Params {
        self.inner.params()
    }

    fn params_mut(&mut self) -> &mut Params {
        self.inner.params_mut()
    }

    fn inputs(&self) -> &[ColumnInput] {
        &self.inputs
    }

    fn seen_inputs(&self) -> &[ColumnInput] {
        self.inner.seen_inputs()
    }

    fn vocab(&self) -> usize {
        self.inner.vocab()
    }

    fn spare(&self) -> usize {
        self.inner.spare()
    }

    fn limit(&self) -> Option<usize> {
        self.inner.limit()
    }

    fn halves_without_tail(&self) -> bool {
        self.inner.halves()
    }

    fn loss(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> Tensor {
        self.inner.loss(&self.seen(prefix, Training::Batch), captions, scoring)
    }

    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        self.inner.gradients(&self.seen(prefix, Training::Follow), captions, scoring)
    }

    fn attention(&self, prefix: &Prefix, captions: &Captions) -> Option<Tensor> {
        self.inner.attention(&self.see(prefix), captions)
    }

    fn start(&self, prefix: &Prefix) -> State {
        self.inner.start(&self.see(prefix))
    }

    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State) {
        self.inner.step(state, tokens)
    }

    fn tail_weights(&self) -> Vec<Weight> {
        self.tail.weights(self.inner.params())
    }

    fn write_beside(&self, folder: &Path, special: Special) -> Result<Vec<&'static str>, DecoderError> {
        self.inner.write_beside(folder, special)
    }

    fn export(&self, folder: &Path, special: Special) -> Result<(), DecoderError> {
        self.inner.export(folder, special)
    }
}
