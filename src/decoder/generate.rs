//! Speaking: from images to captions, by greedy choice, by sampling or by beam search.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{
    DecodeSpec, Decoder, DecoderError, Method, Prefix, Special, State, sample::Sampler, search, within_memory,
};
use crate::batch::{Column, gather, sent};

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
/// The same on a GPU, where a step costs its launches.
const IMAGES_AT_ONCE_ON_GPU: i64 = 256;

/// Captions sampled at once.
const ROWS_AT_ONCE: i64 = 256;

/// One caption for each image of the prefix, in its order.
#[must_use]
pub fn generate(decoder: &dyn Decoder, prefix: &Prefix, spec: &DecodeSpec, special: Special) -> Vec<Generated> {
    generate_from(decoder, prefix, spec, special, 0)
}

/// The same for images that are the `first`-th of all and those after it: what is sampled depends on an image's place among
/// all, not on how they are split into calls.
#[must_use]
pub fn generate_from(
    decoder: &dyn Decoder,
    prefix: &Prefix,
    spec: &DecodeSpec,
    special: Special,
    first: usize,
) -> Vec<Generated> {
    let _guard = tch::no_grad_guard();
    let spec = &within(decoder, spec);
    let mut captions = Vec::with_capacity(prefix.images() as usize);
    let at_once = if decoder.params().device() == Device::Cpu { IMAGES_AT_ONCE } else { IMAGES_AT_ONCE_ON_GPU };
    for start in (0..prefix.images()).step_by(at_once as usize) {
        let part = prefix.narrow(start, at_once.min(prefix.images() - start));
        captions.extend(match spec.method {
            Method::Greedy => one_by_one(decoder, decoder.start(&part), spec, special, most_probable),
            Method::Sample => {
                let (sampler, state) = (Sampler::new(spec, first + start as usize), decoder.start(&part));
                one_by_one(decoder, state, spec, special, |log_probs, live, at| sampler.choose(log_probs, live, at))
            }
            Method::Beam => search::beam(decoder, &part, spec, special),
        });
    }
    captions
}

/// One caption for each of `rows` of the columns, gathered and spoken about at once, and what was looked at; the first is the
/// `first`-th of all.
///
/// # Errors
/// Where the device has too little memory for that.
pub fn speak(
    decoder: &dyn Decoder,
    columns: &[impl AsRef<dyn Column>],
    rows: &[u32],
    spec: &DecodeSpec,
    special: Special,
    first: usize,
) -> Result<(Prefix, Vec<Generated>), DecoderError> {
    let (device, what_for) = (decoder.params().device(), "to say captions of so many images at once");
    let hint = "end what else runs on the device, or say `--device cpu`; a lower `--beam`, columns of fewer vectors and, in a training, \
                `train.hold = false` take less";
    within_memory(device, what_for, hint, || {
        let prefix = gather(columns, rows).to_device(device);
        let spoken = generate_from(decoder, &prefix, spec, special, first);
        (prefix, spoken)
    })
}

/// `count` random captions for each image of the prefix, an image's one after another, whatever `spec.method` says.
#[must_use]
pub fn samples(
    decoder: &dyn Decoder,
    prefix: &Prefix,
    count: usize,
    spec: &DecodeSpec,
    special: Special,
) -> Vec<Generated> {
    let _guard = tch::no_grad_guard();
    let spec = &within(decoder, spec);
    let (images, at_once) = (prefix.images(), (ROWS_AT_ONCE / count.max(1) as i64).max(1));
    let mut captions = Vec::with_capacity(images as usize * count);
    for start in (0..images).step_by(at_once as usize) {
        let part = prefix.narrow(start, at_once.min(images - start));
        let rows: Vec<i64> = (0..part.images()).flat_map(|image| vec![image; count]).collect();
        let state = decoder.start(&part).repeat(&sent(&rows, decoder.params().device()));
        let sampler = Sampler::new(spec, start as usize * count);
        captions.extend(one_by_one(decoder, state, spec, special, |log_probs, live, at| {
            sampler.choose(log_probs, live, at)
        }));
    }
    captions
}

/// `spec` with no more words than the decoder has places for.
fn within(decoder: &dyn Decoder, spec: &DecodeSpec) -> DecodeSpec {
    let longest = decoder.limit().map_or(spec.max_length, |limit| spec.max_length.min(limit - 1));
    DecodeSpec { max_length: longest, ..*spec }
}

/// The rows of the vocabulary that no token has. What stands there was hardly trained, and no text comes of it.
pub(super) fn nobodys(decoder: &dyn Decoder) -> Range<i64> {
    let vocab = decoder.vocab() as i64;
    vocab - decoder.spare() as i64..vocab
}

/// What a row has said so far, and the token it goes on with.
pub(super) struct Said<'a> {
    /// All tokens but the begin mark.
    pub tokens: &'a [u32],
    /// The last of them, or the begin mark.
    pub last: i64,
}

/// One step: log-probabilities `[R, V]` with the forbidden tokens at minus infinity, and the state after it.
pub(super) fn advance(
    decoder: &dyn Decoder,
    state: &State,
    said: &[Said<'_>],
    spec: &DecodeSpec,
    special: Special,
    position: usize,
) -> (Tensor, State) {
    let device = decoder.params().device();
    let tokens: Vec<i64> = said.iter().map(|row| row.last).collect();
    let (logits, state) = decoder.step(state, &sent(&tokens, device));
    let log_probs = logits.log_softmax(-1, Kind::Float);
    let mut forbidden = spec.forbidden(special, position);
    forbidden.extend(nobodys(decoder));
    let forbidden = sent(&forbidden, device);
    let mut log_probs = log_probs.index_fill(1, &forbidden, f64::NEG_INFINITY);
    if spec.no_repeat_ngram > 0 {
        let vocab = log_probs.size()[1];
        let rows = said.iter().enumerate();
        let repeats: Vec<i64> = rows
            .flat_map(|(row, said)| {
                let banned = spec.repeats(said.tokens);
                banned.into_iter().map(move |token| row as i64 * vocab + i64::from(token))
            })
            .collect();
        let repeats = sent(&repeats, device);
        log_probs = log_probs.view(-1).index_fill(0, &repeats, f64::NEG_INFINITY).view([-1, vocab]);
    }
    (log_probs, state)
}

/// The best token of each row.
fn most_probable(log_probs: &Tensor, _live: &[usize], _position: usize) -> Tensor {
    log_probs.argmax(1, false)
}

/// Captions that grow by one token a step, from a state of one row an image; `choose` says which (`[R]` i64) of log-probabilities
/// `[R, V]`, the images the rows belong to, and the position.
fn one_by_one(
    decoder: &dyn Decoder,
    mut state: State,
    spec: &DecodeSpec,
    special: Special,
    choose: impl Fn(&Tensor, &[usize], usize) -> Tensor,
) -> Vec<Generated> {
    let images = state.rows[0].size()[0] as usize;
    let mut captions = vec![Generated { tokens: vec![], log_prob: 0.0 }; images];
    let mut live: Vec<usize> = (0..images).collect();
    let mut tokens = vec![i64::from(special.bos); images];
    for position in 0..=spec.max_length {
        let said: Vec<Said<'_>> =
            live.iter().zip(&tokens).map(|(&image, &last)| Said { tokens: &captions[image].tokens, last }).collect();
        let (log_probs, next) = advance(decoder, &state, &said, spec, special, position);
        let choice = choose(&log_probs, &live, position);
        let chosen = log_probs.gather(1, &choice.unsqueeze(1), false).squeeze_dim(1);
        let (chosen, choice) = (numbers::<f32>(&chosen), numbers::<i64>(&choice));
        let mut going = Vec::with_capacity(live.len());
        for (row, &image) in live.iter().enumerate() {
            // Where all is forbidden, the caption ends as it is.
            let stuck = chosen[row] == f32::NEG_INFINITY;
            let ended = stuck || choice[row] == i64::from(special.eos);
            if !stuck && (ended || position < spec.max_length) {
                captions[image].log_prob += f64::from(chosen[row]);
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
            let rows = sent(&going, decoder.params().device());
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
