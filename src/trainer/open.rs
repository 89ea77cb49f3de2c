//! The beginning of a sitting: does the data fit, where does it go on, which batches come.

use std::path::Path;

use tch::Device;

use super::{
    Hooks, Resume, TrainData, TrainError, TrainSpec, TrainState, average::Average, checkpoint, optimizer::AdamW,
    spec::Plan,
};
use crate::{
    batch::{Loader, Order, order},
    decoder::{ColumnInput, Decoder},
};

/// Refuses data that the decoder cannot be trained on.
pub(super) fn check(decoder: &dyn Decoder, spec: &TrainSpec, data: &TrainData) -> Result<(), TrainError> {
    if data.captions.is_empty() {
        return Err(TrainError::NoCaptions);
    }
    if data.validation.is_empty() {
        return Err(TrainError::NoValidation);
    }
    let vocab = decoder.vocab();
    for caption in data.captions.iter() {
        if let Some(&token) = caption.tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(TrainError::Token { row: caption.row, token, vocab });
        }
        let tokens = (caption.tokens.len() + 1).min(spec.max_tokens);
        if let Some(limit) = decoder.limit().filter(|limit| tokens > *limit) {
            return Err(TrainError::TooLong { row: caption.row, tokens, limit });
        }
    }
    let inputs = decoder.inputs();
    if inputs.len() != data.columns.len() {
        return Err(TrainError::Columns { found: data.columns.len(), expected: inputs.len() });
    }
    for (input, column) in inputs.iter().zip(&data.columns) {
        let found = ColumnInput::of_shape(column.name(), column.row_shape());
        if (found.vectors, found.width) != (input.vectors, input.width) {
            return Err(TrainError::Column {
                name: found.name,
                found: format!("{} x {}", found.vectors, found.width),
                expected: format!("{} x {}", input.vectors, input.width),
            });
        }
    }
    Ok(())
}

/// A new training's state, or that of the checkpoint it goes on from, whose weights and moments are read.
#[expect(clippy::too_many_arguments, reason = "what is filled, what it is filled from, and who is told")]
pub(super) fn state(
    decoder: &mut dyn Decoder,
    optimizer: &mut AdamW,
    average: Option<&mut Average>,
    spec: &TrainSpec,
    data: &TrainData,
    folder: &Path,
    resume: Option<Resume>,
    hooks: &Hooks<'_>,
) -> Result<TrainState, TrainError> {
    let Some(asked) = resume else {
        return match checkpoint::goes_on_from(folder, Resume::Last) {
            None => Ok(TrainState::new(spec, data)),
            Some(_) => Err(TrainError::Exists { path: folder.to_owned() }),
        };
    };
    let (which, path) = checkpoint::goes_on_from(folder, asked)
        .ok_or_else(|| TrainError::NothingToResume { path: folder.to_owned() })?;
    let state = TrainState::read(&path).and_then(|state| {
        state.check(&path, spec, data)?;
        decoder.params_mut().load(&path.join("model.safetensors"))?;
        optimizer.load(decoder.params(), &path.join("optimizer.safetensors"))?;
        if let Some(average) = average {
            average.load_trained(decoder.params(), &path.join(checkpoint::TRAINED))?;
        }
        Ok(TrainState { spec: spec.clone(), ..state })
    });
    let state = state.map_err(|error| error.of_checkpoint(folder, which, &path))?;
    // Only now that all of the best one was read.
    if which == Resume::Best {
        let kept = checkpoint::set_aside(folder)?;
        let kept = kept
            .map_or_else(String::new, |kept| format!("; what is left of the last one is kept in {}", kept.display()));
        hooks.progress.line(&format!("the training goes on from the best checkpoint, step {}{kept}", state.step));
    }
    Ok(state)
}

/// Fetches the batches from `step` on.
///
/// Where the columns' rows are `held` on the device, the batches come without them.
pub(super) fn loader(
    spec: &TrainSpec,
    data: &TrainData,
    plan: Plan,
    step: u64,
    held: bool,
    device: Device,
) -> Result<Loader, TrainError> {
    let rule = Order { seed: spec.seed, batch: spec.batch, together: spec.together };
    let (epoch, first, _) = plan.locate(step);
    let captions = data.captions.clone();
    let batches = (epoch..).flat_map(move |at| {
        let skip = if at == epoch { first as usize } else { 0 };
        order(&captions, rule, at).into_iter().skip(skip)
    });
    let columns = if held { vec![] } else { data.columns.clone() };
    Ok(Loader::start(columns, data.captions.clone(), batches, data.special, spec.max_tokens, device)?)
}
