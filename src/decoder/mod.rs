//! Decoders: from image vectors to the words of a caption.
//!
//! A decoder knows its parameters, how to score the captions of a batch ([`Decoder::loss`]) and how to speak one token at
//! a time ([`Decoder::start`], [`Decoder::step`]); it does not know files of data, optimizers, or how a search picks among
//! tokens ([`generate()`]). One decision defended: parameters are named leaves aliasing one flat buffer ([`Params`]), so that
//! an optimizer is a few kernels however many tensors a decoder has.
//!
//! Shapes: `N` images, `K` vectors an image, `D` their width, `W` the width they are mapped to, `B` captions, `P` tokens
//! of a batch, `R` rows of a search, `E` embedding, `H` hidden, `A` attention, `V` vocabulary.

mod attend;
mod attend_tape;
mod attention;
mod attention_tape;
mod cell;
mod decode;
pub mod device;
mod dropout;
mod error;
mod files;
mod generate;
mod gpt2;
mod gradients;
mod half;
mod head;
mod lstm;
mod lstm_tape;
mod mapping;
mod memory;
mod mixed;
mod params;
#[cfg(test)]
mod parity;
mod sample;
mod search;
mod seen;
#[cfg(test)]
pub(crate) mod short;
mod spec;
mod standard;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod up_down;
mod up_down_tape;
mod words;

use std::path::Path;

use tch::Tensor;

use crate::section::Weight;

pub use crate::batch::{Captions, Prefix, Special};
pub use attention::AttentionLstm;
pub use decode::{DecodeSpec, Method};
pub use error::DecoderError;
pub use files::{read_tensors, write_tensors};
pub use generate::{Generated, generate, generate_from, samples, speak};
pub use gpt2::{Freeze, Gpt2, Gpt2Error, Gpt2Mapping, Gpt2Spec};
pub use lstm::Lstm;
pub use mapping::ColumnInput;
pub use memory::{device_name, free_memory, guard, within_memory};
pub use mixed::mixed;
pub use params::{Handle, Init, Params, ParamsBuilder};
pub use spec::{Activation, AttentionLstmSpec, DecoderSpec, LstmSpec, Variant};
pub use standard::{Scale, Standardized, read_scales, write_scales};
pub use state::State;
pub use tail::{BatchNorm, TailError, TailPlan, TailPool, Tailed, read_section, write_section};
pub use up_down::UpDown;

/// How the captions of a batch are scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// The seed of the masks, where dropout is on.
    pub dropout: Option<u64>,
    /// The share of a target's probability that is spread over the vocabulary.
    pub label_smoothing: f64,
}

/// What training and decoding need of a decoder, and no more.
pub trait Decoder {
    /// Its parameters.
    fn params(&self) -> &Params;

    /// Its parameters, to be changed by an optimizer.
    fn params_mut(&mut self) -> &mut Params;

    /// The columns it looks at, in the order in which a prefix must hold them.
    fn inputs(&self) -> &[ColumnInput];

    /// The columns as its attention sees them: others than [`Decoder::inputs`] behind a tail.
    fn seen_inputs(&self) -> &[ColumnInput] {
        self.inputs()
    }

    /// Tokens of its vocabulary, `V`.
    fn vocab(&self) -> usize;

    /// Rows at the end of its vocabulary that no token has, and that are never spoken: some models round theirs up.
    fn spare(&self) -> usize {
        0
    }

    /// Tokens of a caption that there are places for, the end mark counted; `None` where there is no limit.
    fn limit(&self) -> Option<usize> {
        None
    }

    /// Whether its gradients can be computed in bf16, and gain by it.
    fn halves(&self) -> bool {
        false
    }

    /// Whether they could be, were it not behind a tail: what a tail's batch norms keep of their batches would be lost in a copy in bf16.
    fn halves_without_tail(&self) -> bool {
        false
    }

    /// The mean loss over the batch's tokens, penalties included: a scalar that can be differentiated.
    fn loss(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> Tensor;

    /// The loss and its gradient for every parameter, in the order of [`Params::leaves`], from a prefix in their kind.
    ///
    /// By torch's own differentiation; a decoder that knows a cheaper way overrides it.
    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        gradients::by_torch(self.params(), &self.loss(prefix, captions, scoring))
    }

    /// Where it looked before each token of the captions: `[P, K]`, all columns' vectors one after another, absent ones zero;
    /// `None` for a decoder without attention.
    fn attention(&self, _prefix: &Prefix, _captions: &Captions) -> Option<Tensor> {
        None
    }

    /// What is known before the first token: one row an image.
    fn start(&self, prefix: &Prefix) -> State;

    /// Feeds one token a row (`[R]` i64); gives the logits `[R, V]` of the next ones and the state after them.
    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State);

    /// The weights of its tail as they are now; none without one.
    fn tail_weights(&self) -> Vec<Weight> {
        vec![]
    }

    /// Writes what belongs beside the weights of a checkpoint, and names the files.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn write_beside(&self, _folder: &Path, _special: Special) -> Result<Vec<&'static str>, DecoderError> {
        Ok(vec![])
    }

    /// Writes a folder of weights and settings that other programs open.
    ///
    /// # Errors
    /// When a file cannot be written, or nobody else knows decoders of this kind.
    fn export(&self, _folder: &Path, _special: Special) -> Result<(), DecoderError> {
        Err(DecoderError::NoExport)
    }
}

/// What weights are too large for, and what helps.
const WEIGHTS: &str = "for the decoder's weights";
const NO_ROOM: &str = "end what else runs on the device, take a smaller decoder, or say `--device cpu`";

/// A new decoder with seeded first weights, on `device`.
///
/// `vocab` is the size of the vocabulary; `inputs` say which columns come in, in the order in which [`Prefix`] holds them.
///
/// # Errors
/// When the numbers of the spec do not fit together.
pub fn build(
    spec: &DecoderSpec,
    inputs: &[ColumnInput],
    vocab: usize,
    seed: u64,
    device: tch::Device,
) -> Result<Box<dyn Decoder>, DecoderError> {
    spec.check(inputs, vocab)?;
    Ok(match spec {
        DecoderSpec::Lstm(spec) => Box::new(Lstm::new(spec, inputs, vocab as i64, seed, device)),
        DecoderSpec::AttentionLstm(spec) => match spec.variant {
            Variant::ShowAttendTell => Box::new(AttentionLstm::new(spec, inputs, vocab as i64, seed, device)),
            Variant::UpDown => Box::new(UpDown::new(spec, inputs, vocab as i64, seed, device)),
        },
        DecoderSpec::Gpt2(spec) => Box::new(Gpt2::new(spec, inputs, vocab, seed, device)?),
    })
}

/// The same behind `tail`, where there is one: the section's weights are those of the encoder.
///
/// # Errors
/// As [`build`], and where the tail does not fit its column or can't be trained.
pub fn build_behind(
    tail: Option<&TailPlan>,
    spec: &DecoderSpec,
    inputs: &[ColumnInput],
    vocab: usize,
    seed: u64,
    device: tch::Device,
) -> Result<Box<dyn Decoder>, DecoderError> {
    within_memory(device, WEIGHTS, NO_ROOM, || behind(tail, inputs, |seen| build(spec, seen, vocab, seed, device)))?
}

/// The decoder whose weights are in `folder/model.safetensors`.
///
/// # Errors
/// When the file cannot be read, or its tensors are not exactly those of the spec.
pub fn load(
    folder: &Path,
    spec: &DecoderSpec,
    inputs: &[ColumnInput],
    vocab: usize,
    device: tch::Device,
) -> Result<Box<dyn Decoder>, DecoderError> {
    load_behind(None, folder, spec, inputs, vocab, device)
}

/// The same behind `tail`, where there is one.
///
/// # Errors
/// As [`load`], and [`build_behind`].
pub fn load_behind(
    tail: Option<&TailPlan>,
    folder: &Path,
    spec: &DecoderSpec,
    inputs: &[ColumnInput],
    vocab: usize,
    device: tch::Device,
) -> Result<Box<dyn Decoder>, DecoderError> {
    within_memory(device, WEIGHTS, NO_ROOM, || {
        let mut decoder = behind(tail, inputs, |seen| match spec {
            DecoderSpec::Gpt2(spec) => Ok(Box::new(Gpt2::of_checkpoint(folder, spec, seen, vocab, device)?) as Box<_>),
            _ => build(spec, seen, vocab, 0, device),
        })?;
        decoder.params_mut().load(&folder.join("model.safetensors"))?;
        Ok(decoder)
    })?
}

/// The decoder that `make` makes for the columns as they are behind `tail`, and the tail before it.
fn behind(
    tail: Option<&TailPlan>,
    inputs: &[ColumnInput],
    make: impl FnOnce(&[ColumnInput]) -> Result<Box<dyn Decoder>, DecoderError>,
) -> Result<Box<dyn Decoder>, DecoderError> {
    match tail {
        None => make(inputs),
        Some(tail) => Ok(Box::new(Tailed::new(make(&tail.inputs(inputs)?)?, tail, inputs)?)),
    }
}
