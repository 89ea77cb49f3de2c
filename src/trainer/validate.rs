//! Validation: captions spoken freely for the validation images, and what the caller's scorer says of them.

use tch::Tensor;

use super::{Hooks, Score, TrainData, TrainError};
use crate::{
    batch::gather,
    decoder::{DecodeSpec, Decoder, generate},
};

/// Validation images fetched and spoken about at once.
const IMAGES: usize = 128;

/// What a validation found.
#[derive(Debug)]
pub(super) struct Validated {
    pub score: Score,
    /// (row, caption) of every validation image, in the order of the data.
    pub captions: Vec<(u32, String)>,
}

/// Speaks greedily about every validation image and has the captions scored.
pub(super) fn validate(
    decoder: &dyn Decoder,
    data: &TrainData,
    spec: &DecodeSpec,
    hooks: &Hooks<'_>,
) -> Result<Validated, TrainError> {
    let captions = speak(decoder, data, &data.validation, spec, hooks);
    let score = (hooks.score)(&captions).map_err(TrainError::Score)?;
    Ok(Validated { score, captions })
}

/// One caption for each row.
fn speak(
    decoder: &dyn Decoder,
    data: &TrainData,
    rows: &[u32],
    spec: &DecodeSpec,
    hooks: &Hooks<'_>,
) -> Vec<(u32, String)> {
    let _guard = tch::no_grad_guard();
    let device = decoder.params().device();
    let mut captions = Vec::with_capacity(rows.len());
    for rows in rows.chunks(IMAGES) {
        let prefix = gather(&data.columns, rows).to_device(device);
        let spoken = generate(decoder, &prefix, spec, data.special);
        captions.extend(rows.iter().zip(spoken).map(|(&row, caption)| (row, (hooks.text)(&caption.tokens))));
    }
    captions
}

/// A scalar on the host.
pub(super) fn number(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}
