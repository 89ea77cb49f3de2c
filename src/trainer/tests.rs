//! Whole trainings on small made-up data.

use std::{fs, path::Path, sync::Arc};

use tch::{Device, Kind};

use super::*;
use crate::{
    decoder::{AttentionLstmSpec, ColumnInput, DecoderSpec, Gpt2Spec, LstmSpec, Variant, build},
    progress::Silent,
};

const SPECIAL: Special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
const VOCAB: usize = 12;

/// Rows of numbers that say what the captions of the row are.
struct Signs {
    broken: bool,
}

impl Column for Signs {
    fn name(&self) -> &str {
        "signs"
    }
    fn kind(&self) -> Kind {
        Kind::Float
    }
    fn row_shape(&self) -> &[usize] {
        &[3, 8]
    }
    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(4 * 24)) {
            for (at, out) in out.chunks_exact_mut(4).enumerate() {
                let on = at % 8 == *row as usize % 8;
                let value: f32 = if self.broken { f32::NAN } else { f32::from(on) };
                out.copy_from_slice(&value.to_le_bytes());
            }
        }
        vec![]
    }
}

/// Row `r` is described by the word `4 + r % 8`, said once or twice.
pub(super) fn data(broken: bool) -> TrainData {
    let word = |row: u32| 4 + row % 8;
    let captions =
        (0..60u32).map(|index| Caption { row: index % 20, tokens: vec![word(index % 20); 1 + index as usize / 20] });
    TrainData {
        source: String::new(),
        tokenizer: String::new(),
        columns: vec![Arc::new(Signs { broken })],
        captions: captions.collect(),
        validation: vec![20, 21, 22, 23],
        special: SPECIAL,
    }
}

pub(super) fn spec() -> TrainSpec {
    TrainSpec {
        batch: 7,
        together: 2,
        accumulation: 2,
        epochs: 4,
        learning_rate: 0.02,
        warmup_steps: 3,
        patience: 0,
        ..TrainSpec::default()
    }
}

pub(super) fn small(kind: &str) -> DecoderSpec {
    let lstm = LstmSpec { embedding: 32, hidden: 32, layers: 2, dropout: 0.2, ..LstmSpec::default() };
    let attention = AttentionLstmSpec {
        width: 16,
        embedding: 16,
        hidden: 16,
        attention: 16,
        dropout: 0.2,
        ..AttentionLstmSpec::default()
    };
    let gpt2 = Gpt2Spec { width: 16, layers: 2, heads: 2, positions: 12, dropout: 0.2, ..Gpt2Spec::default() };
    match kind {
        "lstm" => DecoderSpec::Lstm(lstm),
        "attention-lstm" => DecoderSpec::AttentionLstm(attention),
        "up-down" => DecoderSpec::AttentionLstm(AttentionLstmSpec {
            variant: Variant::UpDown,
            doubly_stochastic: 0.0,
            ..attention
        }),
        "gpt2" => DecoderSpec::Gpt2(gpt2),
        _ => DecoderSpec::Gpt2(Gpt2Spec { positions: 8, ..gpt2 }),
    }
}

/// The share of captions whose first word is right.
fn right(captions: &[(u32, String)]) -> Result<Score, HookError> {
    let good = captions.iter().filter(|(row, text)| text.split(' ').next() == Some(&(4 + row % 8).to_string()));
    let value = good.count() as f64 / captions.len() as f64;
    Ok(Score { value, shown: vec![("right".into(), value)] })
}

/// One for the right first word, a little less for each that follows it.
fn first_and_short(captions: &[(u32, &[u32])]) -> Result<Vec<f64>, HookError> {
    let one =
        |(row, tokens): &(u32, &[u32])| f64::from(tokens.first() == Some(&(4 + row % 8))) - 0.1 * tokens.len() as f64;
    Ok(captions.iter().map(one).collect())
}

pub(super) fn go(
    spec: &TrainSpec,
    kind: &str,
    data: &TrainData,
    run: &Path,
    resume: bool,
) -> Result<Outcome, TrainError> {
    rewarded_by(spec, kind, data, run, resume, &first_and_short)
}

fn rewarded_by(
    spec: &TrainSpec,
    kind: &str,
    data: &TrainData,
    run: &Path,
    resume: bool,
    reward: &Rewarder<'_>,
) -> Result<Outcome, TrainError> {
    resumed(spec, kind, data, run, resume.then_some(Resume::Last), reward)
}

fn resumed(
    spec: &TrainSpec,
    kind: &str,
    data: &TrainData,
    run: &Path,
    resume: Option<Resume>,
    reward: &Rewarder<'_>,
) -> Result<Outcome, TrainError> {
    // So small that threads would only wait for each other.
    tch::set_num_threads(1);
    let inputs = [ColumnInput { name: "signs".into(), vectors: 3, width: 8 }];
    let mut decoder = build(&small(kind), &inputs, VOCAB, spec.seed, Device::Cpu).unwrap();
    let text = |tokens: &[u32]| tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let name = |row: u32| row.to_string();
    let hooks = Hooks { progress: &Silent, name: &name, text: &text, score: &right, reward: Some(reward) };
    train(decoder.as_mut(), spec, data, run, resume, None, &hooks)
}

fn model(run: &Path, file: &str) -> Vec<u8> {
    fs::read(run.join("checkpoints/last").join(file)).unwrap()
}

#[test]
fn a_training_cut_in_two_gives_the_same_bytes() {
    for kind in ["lstm", "attention-lstm", "up-down", "gpt2"] {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let spec = TrainSpec { schedule: Schedule::Constant, validate_every: 100.0, ..spec() };
        let until = |steps| TrainSpec { steps: Some(steps), ..spec.clone() };
        go(&until(20), kind, &data(false), whole.path(), false).unwrap();
        go(&until(10), kind, &data(false), cut.path(), false).unwrap();
        let halfway = model(cut.path(), "model.safetensors");
        go(&until(20), kind, &data(false), cut.path(), true).unwrap();
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(model(whole.path(), file) == model(cut.path(), file), "{kind}: {file} differs");
        }
        assert!(halfway != model(cut.path(), "model.safetensors"));
    }
}

/// What is damaged is named and kept; the best checkpoint is gone on from where that is said, to the same bytes.
#[test]
fn a_damaged_checkpoint_has_a_way_out() {
    let spec = TrainSpec { schedule: Schedule::Constant, ema: 0.9, steps: Some(20), ..spec() };
    let (whole, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    go(&spec, "lstm", &data(false), whole.path(), false).unwrap();
    go(&TrainSpec { steps: Some(9), ..spec.clone() }, "lstm", &data(false), run.path(), false).unwrap();
    let folder = run.path().join("checkpoints");
    let last = folder.join("last");
    let best = TrainState::read(&folder.join("best")).unwrap().step;
    for file in ["model.safetensors", "optimizer.safetensors", "trained.safetensors", "state.json"] {
        let sound = fs::read(last.join(file)).unwrap();
        for damage in [Some(&sound[..sound.len() - 9]), None] {
            match damage {
                Some(bytes) => fs::write(last.join(file), bytes).unwrap(),
                None => fs::remove_file(last.join(file)).unwrap(),
            }
            let error = go(&spec, "lstm", &data(false), run.path(), true).unwrap_err();
            let (said, why) = (error.to_string(), std::error::Error::source(&error).unwrap().to_string());
            assert!(why.contains(&format!("last/{file}`")), "{why}");
            assert!(
                said.contains(&format!("`--resume=best` goes on from the best checkpoint, step {best};")),
                "{said}"
            );
        }
        fs::write(last.join(file), sound).unwrap();
    }
    fs::write(last.join("model.safetensors"), "cut").unwrap();
    resumed(&spec, "lstm", &data(false), run.path(), Some(Resume::Best), &first_and_short).unwrap();
    assert!(model(run.path(), "model.safetensors") == model(whole.path(), "model.safetensors"));
    assert_eq!(fs::read(folder.join("last.left/model.safetensors")).unwrap(), b"cut");
    // Killed before the next checkpoint there is a best one alone; and what was kept is never written over.
    fs::rename(&last, folder.join("elsewhere")).unwrap();
    go(&spec, "lstm", &data(false), run.path(), true).unwrap();
    assert!(model(run.path(), "model.safetensors") == model(whole.path(), "model.safetensors"));
    resumed(&spec, "lstm", &data(false), run.path(), Some(Resume::Best), &first_and_short).unwrap();
    assert_eq!(fs::read(folder.join("last.left/model.safetensors")).unwrap(), b"cut");
    assert!(folder.join("last.left.2/state.json").exists());
}

/// Epochs of five steps: own words from the second on, rewards from the third.
fn own_words() -> TrainSpec {
    TrainSpec {
        schedule: Schedule::Constant,
        validate_every: 100.0,
        scheduled_sampling: Some(ScheduledSampling { max: 0.6, after: 0.4, over: 1.0 }),
        scst: Some(Scst { samples: 2, after: 2.0, ..Scst::default() }),
        ..spec()
    }
}

#[test]
fn own_words_are_drawn_the_same_after_a_cut() {
    for kind in ["lstm", "attention-lstm", "up-down", "gpt2"] {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let until = |steps| TrainSpec { steps: Some(steps), ..own_words() };
        go(&until(14), kind, &data(false), whole.path(), false).unwrap();
        for (steps, resume) in [(7, false), (12, true), (14, true)] {
            go(&until(steps), kind, &data(false), cut.path(), resume).unwrap();
        }
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(model(whole.path(), file) == model(cut.path(), file), "{kind}: {file} differs");
        }
    }
}

#[test]
fn own_words_change_what_is_learned() {
    let learned = |spec: &TrainSpec| {
        let run = tempfile::tempdir().unwrap();
        go(&TrainSpec { steps: Some(8), ..spec.clone() }, "lstm", &data(false), run.path(), false).unwrap();
        model(run.path(), "model.safetensors")
    };
    let sampled = TrainSpec { scst: None, ..own_words() };
    let plain = TrainSpec { scheduled_sampling: None, ..sampled.clone() };
    assert!(learned(&sampled) != learned(&plain));
    let never = ScheduledSampling { after: 3.0, ..ScheduledSampling::default() };
    assert!(learned(&TrainSpec { scheduled_sampling: Some(never), ..plain.clone() }) == learned(&plain));
}

#[test]
fn rewards_rise() {
    for (kind, baseline) in [
        ("lstm", Baseline::Mean),
        ("attention-lstm", Baseline::Greedy),
        ("up-down", Baseline::Mean),
        ("gpt2", Baseline::Mean),
    ] {
        let run = tempfile::tempdir().unwrap();
        let spec = TrainSpec {
            epochs: 30,
            log_every: 5,
            label_smoothing: 0.0,
            learning_rate: 0.01,
            scst: Some(Scst { samples: 8, baseline, after: 2.0 }),
            scheduled_sampling: None,
            ..own_words()
        };
        go(&spec, kind, &data(false), run.path(), false).unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let rewards: Vec<f64> = lines.filter_map(|line| line["reward"].as_f64()).collect();
        let (first, last) = (rewards[0], rewards[rewards.len() - 1]);
        assert_eq!(rewards.len(), 28, "{text}");
        assert!(last > first + 0.1, "{kind}: {first} {last}");
    }
}

/// Rewards alone begin with a validation and its checkpoint; a training that ended right after it goes on as if nothing had been.
#[test]
fn rewards_are_the_same_after_a_cut_before_the_first_step() {
    let spec = TrainSpec {
        schedule: Schedule::Plateau,
        plateau_patience: 0,
        steps: Some(6),
        label_smoothing: 0.0,
        scst: Some(Scst { samples: 2, ..Scst::default() }),
        scheduled_sampling: None,
        ..own_words()
    };
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    go(&spec, "lstm", &data(false), whole.path(), false).unwrap();
    let failing = |_: &[(u32, &[u32])]| -> Result<Vec<f64>, HookError> { Err("cut".into()) };
    rewarded_by(&spec, "lstm", &data(false), cut.path(), false, &failing).unwrap_err();
    go(&spec, "lstm", &data(false), cut.path(), true).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert!(model(whole.path(), file) == model(cut.path(), file), "{file} differs");
    }
    let lines = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(lines(whole.path()), lines(cut.path()), "the first validation is not done twice");
}

#[test]
fn rewards_without_a_rewarder_are_refused() {
    let run = tempfile::tempdir().unwrap();
    let spec = TrainSpec { label_smoothing: 0.0, scst: Some(Scst::default()), ..spec() };
    let inputs = [ColumnInput { name: "signs".into(), vectors: 3, width: 8 }];
    let mut decoder = build(&small("lstm"), &inputs, VOCAB, 0, Device::Cpu).unwrap();
    let (name, text) = (|row: u32| row.to_string(), |_: &[u32]| String::new());
    let hooks = Hooks { progress: &Silent, name: &name, text: &text, score: &right, reward: None };
    let error = train(decoder.as_mut(), &spec, &data(false), run.path(), None, None, &hooks).unwrap_err();
    assert!(matches!(error, TrainError::NoReward), "{error}");
}

#[test]
fn all_decoders_learn_what_the_features_say() {
    for kind in ["lstm", "attention-lstm", "up-down", "gpt2"] {
        let run = tempfile::tempdir().unwrap();
        let spec = TrainSpec { epochs: 80, schedule: Schedule::Constant, validate_every: 20.0, ..spec() };
        let outcome = go(&spec, kind, &data(false), run.path(), false).unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(outcome.best.unwrap().0, 1.0, "{kind}: {text}");
        assert_eq!((outcome.steps, outcome.skipped), (400, 0));
        assert_eq!(outcome.tokens, 80 * (20 * 2 + 20 * 3 + 20 * 4));
        assert_eq!(text.lines().count(), 12, "{text}");
        assert!(find_checkpoint(run.path(), "best").is_some());
    }
}

#[test]
fn a_score_that_no_longer_rises_ends_the_training() {
    let run = tempfile::tempdir().unwrap();
    let spec = TrainSpec { learning_rate: 1e-9, patience: 2, ..spec() };
    let outcome = go(&spec, "lstm", &data(false), run.path(), false).unwrap();
    assert!(outcome.stopped_early);
    assert_eq!((outcome.steps, outcome.best.unwrap().1), (15, 5));
}

#[test]
fn losses_that_are_not_finite_end_the_training() {
    let run = tempfile::tempdir().unwrap();
    let error = go(&spec(), "attention-lstm", &data(true), run.path(), false).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { step: 5, steps: 5, .. }), "{error}");
}

#[test]
fn a_run_is_neither_overwritten_nor_made_up() {
    let run = tempfile::tempdir().unwrap();
    let spec = TrainSpec { steps: Some(2), ..spec() };
    assert!(matches!(go(&spec, "lstm", &data(false), run.path(), true), Err(TrainError::NothingToResume { .. })));
    go(&spec, "lstm", &data(false), run.path(), false).unwrap();
    assert!(matches!(go(&spec, "lstm", &data(false), run.path(), false), Err(TrainError::Exists { .. })));
    let other = TrainSpec { batch: 8, ..spec };
    assert!(matches!(
        go(&other, "lstm", &data(false), run.path(), true),
        Err(TrainError::Changed { field: "train.batch", .. })
    ));
}

#[test]
fn data_that_does_not_fit_is_refused_before_the_first_step() {
    let run = tempfile::tempdir().unwrap();
    let fails = |data: TrainData| go(&spec(), "lstm", &data, run.path(), false).unwrap_err();
    assert!(matches!(fails(TrainData { captions: [].into(), ..data(false) }), TrainError::NoCaptions));
    assert!(matches!(fails(TrainData { validation: vec![], ..data(false) }), TrainError::NoValidation));
    let foreign = [Caption { row: 7, tokens: vec![4, 12] }].into();
    let error = fails(TrainData { captions: foreign, ..data(false) });
    assert!(matches!(error, TrainError::Token { row: 7, token: 12, vocab: 12 }));
    // 8 places, of which <img> and three vectors take 4.
    let long = [Caption { row: 7, tokens: vec![4; 4] }].into();
    let error = go(&spec(), "short gpt2", &TrainData { captions: long, ..data(false) }, run.path(), false).unwrap_err();
    assert!(matches!(error, TrainError::TooLong { row: 7, tokens: 5, limit: 4 }), "{error}");
    let columns = [data(false).columns, data(false).columns].concat();
    assert!(matches!(fails(TrainData { columns, ..data(false) }), TrainError::Columns { found: 2, expected: 1 }));
}
