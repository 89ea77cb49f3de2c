//! What fits on the device: whether columns are held there, and which batch would have done where memory ran out.
//!
//! One decision defended: which batch fits is not estimated but tried, with the very captions that did not fit, half of them at
//! a time. Where captions are sampled, with as many of each image as are sampled, all as long as may be: what fits then always does.

use std::collections::HashSet;

use super::{Hold, Scst, TrainData, TrainError, TrainSpec, precision, scst, spec::Plan};
use crate::{
    batch::{Captions, Held, Order, fetch, order},
    decoder::{Decoder, Scoring, device_name, free_memory, guard},
};

/// The error that says what would have fitted at `step`.
pub(super) fn too_large(
    decoder: &mut dyn Decoder,
    half: bool,
    spec: &TrainSpec,
    data: &TrainData,
    plan: Plan,
    step: u64,
    held: bool,
) -> TrainError {
    let device = device_name(decoder.params().device());
    let rewards = spec.rewards_at(plan.epoch(step));
    let hint = match (largest(decoder, half, spec, data, plan, step, rewards), rewards) {
        (Some(fits), rewards) => {
            let accumulation = spec.accumulation * spec.batch.div_ceil(fits);
            let (what, fewer) = match rewards {
                Some(scst) => (
                    format!("the images of {fits} captions fit, each sampled {} times", scst.samples),
                    "; fewer `train.scst.samples` take less",
                ),
                None => (format!("{fits} captions fit"), ""),
            };
            format!(
                "{what}: `train.batch` = {fits} with `train.accumulation` = {accumulation} learns in steps of the same size{fewer}"
            )
        }
        (None, Some(scst)) => format!(
            "not even one image fits, sampled {} times: lower `train.scst.samples`, take a smaller decoder, or a column of fewer vectors",
            scst.samples
        ),
        (None, None) => "not even one caption fits: take a smaller decoder, or a column of fewer vectors".to_owned(),
    };
    let hold = if held { "; `train.hold = false` leaves the columns' rows where they are" } else { "" };
    TrainError::Memory { device, batch: spec.batch, hint: format!("{hint}{hold}") }
}

/// Half of the step's largest batch, or a quarter, and so on: the first that fits.
fn largest(
    decoder: &mut dyn Decoder,
    half: bool,
    spec: &TrainSpec,
    data: &TrainData,
    plan: Plan,
    step: u64,
    rewards: Option<&Scst>,
) -> Option<usize> {
    let rule = Order { seed: spec.seed, batch: spec.batch, together: spec.together };
    let (epoch, first, count) = plan.locate(step);
    let size = |indices: &Vec<u32>| {
        let captions = || indices.iter().map(|&at| &data.captions[at as usize]);
        match rewards {
            Some(_) => captions().map(|caption| caption.row).collect::<HashSet<_>>().len(),
            None => captions().map(|caption| caption.tokens.len()).sum(),
        }
    };
    let batches = order(&data.captions, rule, epoch).into_iter().skip(first as usize).take(count as usize);
    let batch = batches.max_by_key(size)?;
    let device = decoder.params().device();
    let scoring = Scoring {
        dropout: rewards.is_none().then_some(0),
        label_smoothing: if rewards.is_some() { 0.0 } else { spec.label_smoothing },
    };
    let mut fits = batch.len() / 2;
    while fits > 0 {
        let tried = guard(|| {
            let batch = fetch(&data.columns, &data.captions, &batch[..fits], data.special, spec.max_tokens);
            let prefix = batch.prefix.to_device(device);
            let captions: Captions = match rewards {
                Some(scst) => scst::longest(decoder, &prefix, scst, data.special, spec.max_tokens),
                None => batch.captions.to_device(device),
            };
            let (loss, gradients) = precision::gradients(decoder, half, &prefix, &captions, scoring);
            // The device works behind the host: only a number from it says that it was done.
            (loss.double_value(&[]), gradients.len())
        });
        if tried.is_some() {
            return Some(fits);
        }
        fits /= 2;
    }
    None
}

/// The training rows on the decoder's device, where they are to be held there; and a line about it.
pub(super) fn hold(
    decoder: &dyn Decoder,
    spec: &TrainSpec,
    data: &TrainData,
) -> Result<Option<(Held, String)>, TrainError> {
    let device = decoder.params().device();
    let mut rows: Vec<u32> = data.captions.iter().map(|caption| caption.row).collect();
    rows.sort_unstable();
    rows.dedup();
    let bytes = Held::bytes(&data.columns, rows.len());
    let holds = match spec.hold {
        Hold::Said(said) => said,
        // The mapped shards are in the host's memory as they are.
        Hold::Auto => free_memory(device).is_some_and(|free| bytes <= free / 2),
    };
    if !holds {
        return Ok(None);
    }
    let line = format!("{} rows of the columns are held on the device: {:.1} MB", rows.len(), bytes as f64 / 1e6);
    match guard(|| Held::copy(&data.columns, rows, device)) {
        Some(held) => Ok(Some((held, line))),
        None => Err(TrainError::Hold { megabytes: bytes / 1_000_000 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decoder::short::{Room, Short},
        progress::Silent,
        trainer::{
            Hooks, Precision, Schedule, Score,
            tests::{data, small, spec},
            train,
        },
    };

    /// What a training says on a device with room for so much.
    fn said(spec: &TrainSpec, room: Room) -> String {
        said_by("lstm", spec, room)
    }

    fn said_by(kind: &str, spec: &TrainSpec, room: Room) -> String {
        let mut decoder = Short::new(&small(kind), room);
        let (name, text) = (|row: u32| row.to_string(), |_: &[u32]| String::new());
        let score = |_: &[(u32, String)]| Ok(Score { value: 1.0, shown: vec![] });
        let reward = |captions: &[(u32, &[u32])]| Ok(vec![0.5; captions.len()]);
        let hooks = Hooks { progress: &Silent, name: &name, text: &text, score: &score, reward: Some(&reward) };
        let run = tempfile::tempdir().unwrap();
        let error = train(&mut decoder, spec, &data(false), run.path(), None, None, &hooks).unwrap_err();
        assert!(matches!(error, TrainError::Memory { .. } | TrainError::Decoder(_)), "{error:?}");
        error.to_string()
    }

    #[test]
    fn what_would_fit_is_found_with_the_captions_that_are_learned() {
        let spec = TrainSpec { schedule: Schedule::Constant, batch: 12, together: 1, accumulation: 1, ..spec() };
        insta::assert_snapshot!(said(&spec, Room::Captions(7)), @r"
        `cpu` has too little memory for `train.batch` = `12`
        hint: 6 captions fit: `train.batch` = 6 with `train.accumulation` = 2 learns in steps of the same size
        ");
        let sampled = Some(Scst { samples: 3, after: 0.0, ..Scst::default() });
        let rewarded = TrainSpec { scst: sampled, label_smoothing: 0.0, ..spec };
        insta::assert_snapshot!(said(&rewarded, Room::Captions(10)), @r"
        `cpu` has too little memory for `train.batch` = `12`
        hint: the images of 3 captions fit, each sampled 3 times: `train.batch` = 3 with `train.accumulation` = 4 learns in steps of the same size; fewer `train.scst.samples` take less
        ");
        // What did not fit was computed in bf16: what would is sampled with the f32 weights again.
        let halved = TrainSpec { precision: Precision::Bf16, ..rewarded.clone() };
        assert_eq!(said_by("gpt2", &halved, Room::Captions(10)), said(&rewarded, Room::Captions(10)));
        insta::assert_snapshot!(said(&rewarded, Room::Captions(2)), @r"
        `cpu` has too little memory for `train.batch` = `12`
        hint: not even one image fits, sampled 3 times: lower `train.scst.samples`, take a smaller decoder, or a column of fewer vectors
        ");
    }

    #[test]
    fn opening_and_validating_are_guarded_too() {
        insta::assert_snapshot!(said(&spec(), Room::Nothing), @r"
        `cpu` has too little memory to train the decoder: its gradient and the optimizer's moments take three times what the weights do
        hint: end what else runs on the device, take a smaller decoder, or freeze a part of it
        ");
        let soon = TrainSpec { steps: Some(1), ..spec() };
        insta::assert_snapshot!(said(&soon, Room::Learning), @r"
        `cpu` has too little memory to say captions of so many images at once
        hint: end what else runs on the device, or say `--device cpu`; a lower `--beam`, columns of fewer vectors and, in a training, `train.hold = false` take less
        ");
    }
}
