//! Validation: captions spoken freely for the validation images, and what the caller's scorer says of them.

use tch::Tensor;

use super::{Hooks, Score, TrainData, TrainError};
use crate::decoder::{DecodeSpec, Decoder, speak};

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
    let captions = spoken(decoder, data, spec, hooks)?;
    let score = (hooks.score)(&captions).map_err(TrainError::Score)?;
    Ok(Validated { score, captions })
}

/// One caption for each validation row.
fn spoken(
    decoder: &dyn Decoder,
    data: &TrainData,
    spec: &DecodeSpec,
    hooks: &Hooks<'_>,
) -> Result<Vec<(u32, String)>, TrainError> {
    let _guard = tch::no_grad_guard();
    let mut captions = Vec::with_capacity(data.validation.len());
    for rows in data.validation.chunks(IMAGES) {
        let (_, spoken) = speak(decoder, &data.columns, rows, spec, data.special, 0)?;
        captions.extend(rows.iter().zip(spoken).map(|(&row, caption)| (row, (hooks.text)(&caption.tokens))));
    }
    Ok(captions)
}

/// A scalar on the host.
pub(super) fn number(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}
