//! Speaking: from images to captions, by greedy choice or by beam search.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{Decoder, Prefix, Special, State, search};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The most probable token each time.
    Greedy,
    /// The most probable caption among the `beam` best at each length.
    #[default]
    Beam,
}

/// How captions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeSpec {
    /// Greedy or beam search.
    pub method: Method,
    /// Captions kept at each length by beam search.
    pub beam: usize,
    /// Log-probabilities are divided by length to this power; 0 prefers short captions, 1 compares by token.
    pub length_penalty: f64,
    /// Tokens at most, the end mark not counted.
    pub max_length: usize,
    /// Tokens at least.
    pub min_length: usize,
    /// The mark of unknown words may be spoken.
    pub allow_unknown: bool,
}

impl Default for DecodeSpec {
    fn default() -> Self {
        Self { method: Method::Beam, beam: 5, length_penalty: 0.5, max_length: 30, min_length: 1, allow_unknown: false }
    }
}

impl DecodeSpec {
    /// Greedy, otherwise the same.
    #[must_use]
    pub fn greedy(self) -> Self {
        Self { method: Method::Greedy, ..self }
    }

    /// Tokens that may not be spoken as the `position`-th (from 0).
    fn forbidden(&self, special: Special, position: usize) -> Vec<i64> {
        let mut tokens = vec![special.bos, special.pad];
        if !self.allow_unknown {
            tokens.extend(special.unk);
        }
        if position < self.min_length {
            tokens.push(special.eos);
        }
        tokens.retain(|&token| token != special.eos || position < self.min_length);
        tokens.into_iter().map(i64::from).collect()
    }
}

/// A caption spoken by a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its tokens, without begin and end marks.
    pub tokens: Vec<u32>,
    /// The sum of their natural log-probabilities, the end mark's included where it was reached.
    pub log_prob: f64,
}

/// Images spoken about at once: enough to fill the kernels, few enough for their keys to stay in the cache.
const IMAGES_AT_ONCE: i64 = 64;

/// One caption for each image of the prefix, in its order.
#[must_use]
pub fn generate(decoder: &dyn Decoder, prefix: &Prefix, spec: &DecodeSpec, special: Special) -> Vec<Generated> {
    let _guard = tch::no_grad_guard();
    let longest = decoder.limit().map_or(spec.max_length, |limit| spec.max_length.min(limit - 1));
    let spec = &DecodeSpec { max_length: longest, ..*spec };
    let mut captions = Vec::with_capacity(prefix.images() as usize);
    for start in (0..prefix.images()).step_by(IMAGES_AT_ONCE as usize) {
        let part = prefix.narrow(start, IMAGES_AT_ONCE.min(prefix.images() - start));
        captions.extend(match spec.method {
            Method::Greedy => greedy(decoder, &part, spec, special),
            Method::Beam => search::beam(decoder, &part, spec, special),
        });
    }
    captions
}

/// One step: log-probabilities `[R, V]` with the forbidden tokens at minus infinity, and the state after it.
pub(super) fn advance(
    decoder: &dyn Decoder,
    state: &State,
    tokens: &[i64],
    spec: &DecodeSpec,
    special: Special,
    position: usize,
) -> (Tensor, State) {
    let device = decoder.params().device();
    let (logits, state) = decoder.step(state, &Tensor::from_slice(tokens).to_device(device));
    let log_probs = logits.log_softmax(-1, Kind::Float);
    let forbidden = Tensor::from_slice(&spec.forbidden(special, position)).to_device(device);
    (log_probs.index_fill(1, &forbidden, f64::NEG_INFINITY), state)
}

fn greedy(decoder: &dyn Decoder, prefix: &Prefix, spec: &DecodeSpec, special: Special) -> Vec<Generated> {
    let images = prefix.images() as usize;
    let mut captions = vec![Generated { tokens: vec![], log_prob: 0.0 }; images];
    let mut live: Vec<usize> = (0..images).collect();
    let mut tokens = vec![i64::from(special.bos); images];
    let mut state = decoder.start(prefix);
    for position in 0..=spec.max_length {
        let (log_probs, next) = advance(decoder, &state, &tokens, spec, special, position);
        let (best, choice) = log_probs.max_dim(1, false);
        let (best, choice) = (numbers::<f32>(&best), numbers::<i64>(&choice));
        let mut going = Vec::with_capacity(live.len());
        for (row, &image) in live.iter().enumerate() {
            let ended = choice[row] == i64::from(special.eos);
            if ended || position < spec.max_length {
                captions[image].log_prob += f64::from(best[row]);
            }
            if !ended && position < spec.max_length {
                captions[image].tokens.push(choice[row] as u32);
                going.push(row as i64);
            }
        }
        if going.is_empty() {
            break;
        }
        tokens = going.iter().map(|&row| choice[row as usize]).collect();
        state = if going.len() == live.len() {
            next
        } else {
            let rows = Tensor::from_slice(&going).to_device(decoder.params().device());
            next.keep(&rows, &rows)
        };
        live = going.iter().map(|&row| live[row as usize]).collect();
    }
    captions
}

/// A tensor's numbers on the host.
pub(super) fn numbers<T: tch::kind::Element + Copy>(tensor: &Tensor) -> Vec<T> {
    Vec::try_from(&tensor.contiguous().view(-1)).expect("a one-dimensional tensor of this kind")
}
