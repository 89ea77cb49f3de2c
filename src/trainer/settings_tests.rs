//! Whole trainings under settings that not every training has.

use std::{fs, path::Path, sync::Arc};

use serde_json::Value;
use tch::Kind;

use super::{
    spec::Plan,
    tests::{data, go, spec},
    *,
};
use crate::batch::{Order, order};

fn file(run: &Path, name: &str) -> Vec<u8> {
    fs::read(run.join("checkpoints/last").join(name)).unwrap()
}

/// The losses in metrics.jsonl.
fn losses(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64()).collect()
}

#[test]
fn average_plateaus_and_bf16_go_on_as_if_nothing_had_happened() {
    let plateau = TrainSpec { schedule: Schedule::Plateau, plateau_patience: 0, learning_rate: 1e-4, ..spec() };
    let average = TrainSpec { schedule: Schedule::Constant, ema: 0.9, ..spec() };
    let half = TrainSpec { precision: Precision::Bf16, ..average.clone() };
    for (kind, spec) in [("lstm", plateau), ("attention-lstm", average), ("gpt2", half)] {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let until = |steps| TrainSpec { steps: Some(steps), ..spec.clone() };
        go(&until(20), kind, &data(false), whole.path(), false).unwrap();
        go(&until(10), kind, &data(false), cut.path(), false).unwrap();
        go(&until(20), kind, &data(false), cut.path(), true).unwrap();
        let state = TrainState::read(&whole.path().join("checkpoints/last")).unwrap();
        assert_eq!(TrainState::read(&cut.path().join("checkpoints/last")).unwrap().plateaus, state.plateaus);
        assert_eq!(state.plateaus.cuts > 1, spec.schedule == Schedule::Plateau, "{state:?}");
        let trained = (spec.ema > 0.0).then_some("trained.safetensors");
        for name in ["model.safetensors", "optimizer.safetensors"].into_iter().chain(trained) {
            assert!(file(whole.path(), name) == file(cut.path(), name), "{kind}: {name} differs");
        }
        assert_eq!(whole.path().join("checkpoints/last/trained.safetensors").exists(), spec.ema > 0.0);
        assert!(trained.is_none_or(|name| file(whole.path(), name) != file(whole.path(), "model.safetensors")));
    }
}

#[test]
fn bf16_learns_as_f32_does() {
    let curve = |precision| {
        let run = tempfile::tempdir().unwrap();
        let spec = TrainSpec { steps: Some(60), log_every: 5, precision, ..spec() };
        go(&spec, "gpt2", &data(false), run.path(), false).unwrap();
        losses(run.path())
    };
    let (exact, half) = (curve(Precision::F32), curve(Precision::Bf16));
    assert!(exact.len() == 12 && exact[11] < 0.8 * exact[0], "{exact:?}");
    assert_ne!(exact, half);
    for (exact, half) in exact.iter().zip(&half) {
        assert!((exact - half).abs() < 0.02 * exact, "{exact} {half}");
    }
    assert_eq!(curve(Precision::Auto), exact, "f32 on the CPU");
}

#[test]
fn recurrent_decoders_refuse_bf16() {
    let run = tempfile::tempdir().unwrap();
    let spec = TrainSpec { precision: Precision::Bf16, ..spec() };
    assert!(matches!(
        go(&spec, "lstm", &data(false), run.path(), false),
        Err(TrainError::Precision { behind_tail: false })
    ));
}

#[test]
fn columns_held_on_the_device_change_nothing() {
    let bytes = |hold| {
        let run = tempfile::tempdir().unwrap();
        let spec = TrainSpec { steps: Some(7), hold: Hold::Said(hold), ..spec() };
        go(&spec, "attention-lstm", &data(false), run.path(), false).unwrap();
        file(run.path(), "model.safetensors")
    };
    assert!(bytes(true) == bytes(false));
}

/// A column one row of which is not finite.
struct Broken(Arc<dyn Column>);

const BROKEN: u32 = 7;

impl Column for Broken {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn kind(&self) -> Kind {
        self.0.kind()
    }
    fn row_shape(&self) -> &[usize] {
        self.0.row_shape()
    }
    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let absent = self.0.gather(rows, out);
        let row_bytes = out.len() / rows.len();
        for (_, out) in rows.iter().zip(out.chunks_exact_mut(row_bytes)).filter(|(row, _)| **row == BROKEN) {
            out[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        }
        absent
    }
}

#[test]
fn a_step_with_one_bad_batch_is_skipped_and_counted() {
    let run = tempfile::tempdir().unwrap();
    let (spec, mut data) = (TrainSpec { steps: Some(10), log_every: 1, ..spec() }, data(false));
    data.columns = vec![Arc::new(Broken(data.columns.remove(0)))];
    let outcome = go(&spec, "lstm", &data, run.path(), false).unwrap();
    let plan = Plan::new(&spec, data.captions.len());
    let rule = Order { seed: spec.seed, batch: spec.batch, together: spec.together };
    let bad = |step: &u64| {
        let (epoch, first, count) = plan.locate(*step);
        let batches = order(&data.captions, rule, epoch).into_iter().skip(first as usize).take(count as usize);
        batches.flatten().any(|at| data.captions[at as usize].row == BROKEN)
    };
    let expected = (0..10).filter(bad).count() as u64;
    assert!(expected > 0 && expected < 10);
    assert_eq!(outcome.skipped, expected);
    let events = fs::read_dir(run.path()).unwrap().flatten();
    assert_eq!(events.filter(|entry| entry.file_name().to_string_lossy().contains("tfevents")).count(), 1);
}
