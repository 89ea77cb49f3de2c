//! A tail before each kind of decoder: gradients, absent images, batch norms, checkpoints.

use std::{fs, path::Path, sync::Arc};

use super::*;
use crate::{
    batch::{Column, Prefix, fake::Memory, gather},
    decoder::{
        AttentionLstmSpec, Captions, DecodeSpec, Decoder, DecoderSpec, Gpt2Spec, LstmSpec, Scoring, Special,
        build_behind, generate, load_behind,
    },
    progress::Silent,
    section::{Attribute, Constant, Node, Values},
    trainer::{Caption, Hooks, Precision, Resume, Schedule, Score, TrainData, TrainError, TrainSpec, train},
};

const SPECIAL: Special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
const VOCAB: usize = 7;

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[i64])]) -> Node {
    let attributes = attributes.iter().map(|(name, values)| ((*name).to_owned(), Attribute::Integers(values.to_vec())));
    Node {
        name: format!("/{output}"),
        operator: operator.to_owned(),
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: output.to_owned(),
        attributes: attributes.collect(),
    }
}

fn constant(name: &str, shape: &[i64], value: impl Fn(usize) -> f32) -> Constant {
    let count = shape.iter().product::<i64>() as usize;
    let values = Values::Floats((0..count).map(value).collect());
    Constant { name: name.to_owned(), shape: shape.to_vec(), values }
}

/// Convolution, norm, Relu of a map `[3, 2, 2]`; a sum with a scaled copy of itself.
fn section() -> Section {
    let wave = |step: usize| (step as f32 * 1.7).sin();
    Section {
        model: "digest".into(),
        from: "a".into(),
        to: "d".into(),
        input: vec![3, 2, 2],
        output: vec![4, 2, 2],
        nodes: vec![
            node("Conv", &["a", "weight", "bias"], "b", &[("pads", &[1, 1, 1, 1]), ("kernel_shape", &[3, 3])]),
            node("BatchNormalization", &["b", "scale", "shift", "mean", "variance"], "n", &[]),
            node("Relu", &["n"], "c", &[]),
            node("Mul", &["c", "scale4"], "m", &[]),
            node("Add", &["m", "c"], "d", &[]),
        ],
        constants: vec![
            constant("weight", &[4, 3, 3, 3], move |at| 0.6 * wave(at)),
            constant("bias", &[4], |at| 0.1 * at as f32),
            constant("scale", &[4], |at| 1.0 + 0.1 * at as f32),
            constant("shift", &[4], |at| 0.2 * at as f32),
            constant("mean", &[4], |at| 0.05 * at as f32),
            constant("variance", &[4], |at| 0.5 + 0.1 * at as f32),
            constant("scale4", &[4, 1, 1], |at| 0.5 + 0.2 * at as f32),
        ],
    }
}

fn plan(batch_norm: BatchNorm) -> TailPlan {
    TailPlan { column: 1, section: section(), pool: TailPool::Grid(2), batch_norm, learning_rate_scale: 0.5 }
}

fn inputs() -> [ColumnInput; 2] {
    [("memory", 1, 5), ("map", 4, 3)].map(|(name, vectors, width)| ColumnInput { name: name.into(), vectors, width })
}

fn specs() -> [DecoderSpec; 3] {
    let lstm = LstmSpec { embedding: 8, hidden: 8, dropout: 0.2, ..LstmSpec::default() };
    let attention =
        AttentionLstmSpec { width: 9, embedding: 7, hidden: 8, attention: 5, dropout: 0.2, ..Default::default() };
    let gpt2 = Gpt2Spec { width: 8, layers: 2, heads: 2, positions: 24, dropout: 0.1, ..Gpt2Spec::default() };
    [DecoderSpec::Lstm(lstm), DecoderSpec::AttentionLstm(attention), DecoderSpec::Gpt2(gpt2)]
}

fn behind(plan: &TailPlan, spec: &DecoderSpec) -> Box<dyn Decoder> {
    // So small that threads would only wait for each other.
    tch::set_num_threads(1);
    build_behind(Some(plan), spec, &inputs(), VOCAB, 1, Device::Cpu).unwrap()
}

/// What row `row` holds; rows divisible by 5 are absent.
fn columns() -> Vec<Arc<dyn Column>> {
    let value = |row: u32, at: usize| ((row as usize * 31 + at * 7) as f32).sin();
    let absent: Vec<u32> = (0..100).step_by(5).collect();
    vec![
        Arc::new(Memory { shape: vec![5], absent: vec![], value }),
        Arc::new(Memory { shape: vec![4, 3], absent, value }),
    ]
}

fn captions() -> Captions {
    Captions::pack(&[(1, &[4, 5]), (0, &[6, 4, 4, 5, 5, 6]), (0, &[]), (2, &[4, 6]), (0, &[5, 5, 4])], SPECIAL, 6)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().reshape(-1)).unwrap()
}

fn named(decoder: &dyn Decoder, name: &str) -> Vec<f32> {
    let all = decoder.params().all();
    values(&all.iter().find(|(found, _)| *found == name).unwrap().1)
}

#[test]
fn the_gradient_goes_through_the_decoder_into_the_tail() {
    for batch_norm in [BatchNorm::Frozen, BatchNorm::Train] {
        for spec in specs() {
            let decoder = behind(&plan(batch_norm), &spec);
            for rows in [[1, 2, 3], [5, 6, 7], [0, 5, 10]] {
                let prefix = gather(&columns(), &rows);
                let scoring = Scoring { dropout: Some(3), label_smoothing: 0.1 };
                let loss = decoder.loss(&prefix, &captions(), scoring);
                let expected = Tensor::run_backward(&[&loss], decoder.params().leaves(), false, false);
                let (found_loss, found) = decoder.gradients(&prefix, &captions(), scoring);
                assert!((loss.double_value(&[]) - found_loss.double_value(&[])).abs() < 1e-6);
                for ((name, expected), found) in decoder.params().names().zip(expected).zip(found) {
                    let apart = (&expected - &found).abs().max().double_value(&[]);
                    let size = expected.abs().max().double_value(&[]);
                    assert!(apart <= 1e-5 * size.max(1e-2), "{name}: {apart} of {size}");
                    // A bias before a batch's own mean, and anything behind absent rows alone, moves nothing.
                    let still = name == "icecap.tail.bias" && batch_norm == BatchNorm::Train || rows == [0, 5, 10];
                    assert!(size > 1e-7 || still, "{name} learns nothing");
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_a_weight_is_the_slope_of_the_loss() {
    let decoder = behind(&plan(BatchNorm::Frozen), &specs()[1]);
    let prefix = gather(&columns(), &[1, 2, 3]);
    let scoring = Scoring { dropout: None, label_smoothing: 0.0 };
    let (_, gradients) = decoder.gradients(&prefix, &captions(), scoring);
    for name in ["icecap.tail.weight", "icecap.tail.shift", "icecap.tail.scale4"] {
        let place = decoder.params().names().position(|found| found == name).unwrap();
        let gradient = gradients[place].reshape(-1);
        let steepest = gradient.abs().argmax(0, false).int64_value(&[]);
        let leaf = decoder.params().leaves()[place].detach().view(-1).narrow(0, steepest, 1);
        let at = |step: f64| {
            let _guard = tch::no_grad_guard();
            let _ = leaf.shallow_clone().g_add_scalar_(step);
            let loss = decoder.loss(&prefix, &captions(), scoring).double_value(&[]);
            let _ = leaf.shallow_clone().g_add_scalar_(-step);
            loss
        };
        let slope = (at(2e-2) - at(-2e-2)) / 4e-2;
        let found = gradient.double_value(&[steepest]);
        // The loss has seven digits.
        assert!((slope - found).abs() < 0.05 * found.abs() + 2e-5 && found.abs() > 1e-4, "{name}: {slope} {found}");
    }
}

#[test]
fn absent_images_neither_go_through_nor_weigh() {
    let mut decoder = behind(&plan(BatchNorm::Train), &specs()[0]);
    let scoring = Scoring { dropout: None, label_smoothing: 0.0 };
    let before = named(decoder.as_ref(), "icecap.tail.mean");
    let with = |rows: &[u32], images: &[(i64, &[u32])]| {
        let packed = Captions::pack(images, SPECIAL, 6);
        decoder.gradients(&gather(&columns(), rows), &packed, scoring).0.double_value(&[])
    };
    let alone = with(&[1, 2], &[(0, &[4, 5]), (1, &[5])]);
    let after = named(decoder.as_ref(), "icecap.tail.mean");
    assert_ne!(before, after, "the running mean follows");
    let start: Vec<_> = plan(BatchNorm::Train).section.constants;
    assert_eq!(Values::Floats(before), start[4].values);
    // With an absent image in between, the batch's statistics are those of the two that are there.
    let among = with(&[1, 5, 2], &[(0, &[4, 5]), (2, &[5])]);
    assert!((alone - among).abs() < 1e-6, "{alone} {among}");
    // As it speaks, nothing follows.
    let spec = DecodeSpec { max_length: 4, ..DecodeSpec::default() };
    let held = named(decoder.as_ref(), "icecap.tail.mean");
    let _ = generate(decoder.as_ref(), &gather(&columns(), &[1, 5, 2]), &spec, SPECIAL);
    assert_eq!(named(decoder.as_ref(), "icecap.tail.mean"), held);
    // A batch with a number that is none doesn't reach the running statistics.
    let broken = gather(&columns(), &[1, 2]);
    let _ = broken.columns[1].data.narrow(0, 0, 1).fill_(f64::NAN);
    let _ = decoder.gradients(&broken, &Captions::pack(&[(0, &[4])], SPECIAL, 6), scoring);
    assert_eq!(named(decoder.as_ref(), "icecap.tail.mean"), held);
    assert_eq!(decoder.params_mut().frozen_count(), 8);
}

#[test]
fn weights_that_an_exporter_merged_come_apart() {
    let mut section = section();
    section.nodes[1].inputs[2] = "bias".into();
    let decoder = behind(&TailPlan { section, ..plan(BatchNorm::Frozen) }, &specs()[0]);
    assert_eq!(named(decoder.as_ref(), "icecap.tail.bias"), named(decoder.as_ref(), "icecap.tail.bias.2"));
    let weights = decoder.tail_weights();
    let places: Vec<(&str, usize)> = weights.iter().map(|weight| (weight.output.as_str(), weight.input)).collect();
    assert_eq!(places, [("b", 1), ("b", 2), ("n", 1), ("n", 2), ("n", 3), ("n", 4), ("m", 1)]);
}

#[test]
fn what_is_not_known_is_named() {
    let error = |change: &dyn Fn(&mut Section)| {
        let mut section = section();
        change(&mut section);
        let plan = TailPlan { section, ..plan(BatchNorm::Frozen) };
        build_behind(Some(&plan), &specs()[0], &inputs(), VOCAB, 1, Device::Cpu).err().unwrap().to_string()
    };
    let attribute = |node: usize, name: &'static str, values: &'static [i64]| {
        error(&move |section| {
            drop(section.nodes[node].attributes.insert(name.to_owned(), Attribute::Integers(values.to_vec())));
        })
    };
    let said = error(&|section| section.nodes[2].operator = "com.other.Relu".into());
    assert!(said.contains("`/c` is of the operator `com.other.Relu`"), "{said}");
    let said = error(&|section| section.nodes[0].inputs[1] = "elsewhere".into());
    assert!(said.contains("`/b` (Conv) has a computed `elsewhere` in the place of a constant"), "{said}");
    let said = attribute(0, "kernel_shape", &[3]);
    assert!(said.contains("`kernel_shape` = [3]"), "{said}");
    let said = attribute(0, "pads", &[0, -1, 0, 0]);
    assert!(said.contains("`pads` = [0, -1, 0, 0]"), "{said}");
    let said = attribute(1, "training_mode", &[1]);
    assert!(said.contains("a mode of training of its own"), "{said}");
    let said = attribute(0, "group", &[2]);
    assert!(said.contains("the tail's node `/b` (Conv) can't be computed"), "{said}");
    let said = attribute(0, "pads", &[0, 0, 1, 1]);
    assert!(said.contains("the tail gives `d` of the shape [3, 4, 1, 1]"), "{said}");
    let said = error(&|section| section.input = vec![3, 4, 4]);
    assert!(said.contains("the rows of column `map` are 4 x 3"), "{said}");
}

fn go(spec: &TrainSpec, kind: &DecoderSpec, run: &Path, resume: bool) -> Box<dyn Decoder> {
    tried(spec, kind, run, resume).unwrap()
}

#[test]
fn bf16_behind_a_tail_is_refused_for_what_the_tail_would_lose() {
    let run = tempfile::tempdir().unwrap();
    let spec = TrainSpec { precision: Precision::Bf16, ..TrainSpec::default() };
    for kind in specs() {
        let behind = matches!(kind, DecoderSpec::Gpt2(_));
        let error = tried(&spec, &kind, run.path(), false).err().unwrap();
        assert!(matches!(error, TrainError::Precision { behind_tail } if behind_tail == behind), "{error}");
    }
}

fn tried(spec: &TrainSpec, kind: &DecoderSpec, run: &Path, resume: bool) -> Result<Box<dyn Decoder>, TrainError> {
    let mut decoder = behind(&plan(BatchNorm::Train), kind);
    let captions = (0..40u32).map(|at| Caption { row: at % 13, tokens: vec![4 + at % 3; 1 + at as usize % 4] });
    let data = TrainData {
        source: String::new(),
        tokenizer: String::new(),
        columns: columns(),
        captions: captions.collect(),
        validation: vec![20, 21],
        special: SPECIAL,
    };
    let score = |_: &[(u32, String)]| Ok(Score { value: 1.0, shown: vec![] });
    let hooks = Hooks {
        progress: &Silent,
        name: &|row| row.to_string(),
        text: &|_| String::new(),
        score: &score,
        reward: None,
    };
    train(decoder.as_mut(), spec, &data, run, resume.then_some(Resume::Last), None, &hooks)?;
    Ok(decoder)
}

#[test]
fn a_training_cut_in_two_gives_the_same_bytes_and_loads() {
    for kind in specs() {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let spec = TrainSpec {
            batch: 7,
            together: 2,
            accumulation: 2,
            learning_rate: 0.02,
            warmup_steps: 3,
            schedule: Schedule::Constant,
            validate_every: 100.0,
            ..TrainSpec::default()
        };
        let until = |steps| TrainSpec { steps: Some(steps), ..spec.clone() };
        let trained = go(&until(8), &kind, whole.path(), false);
        go(&until(4), &kind, cut.path(), false);
        go(&until(8), &kind, cut.path(), true);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let read = |run: &Path| fs::read(run.join("checkpoints/last").join(file)).unwrap();
            assert!(read(whole.path()) == read(cut.path()), "{file} differs");
        }
        let folder = whole.path().join("checkpoints/last");
        let plan = plan(BatchNorm::Train);
        let loaded = load_behind(Some(&plan), &folder, &kind, &inputs(), VOCAB, Device::Cpu).unwrap();
        assert_eq!(loaded.tail_weights(), trained.tail_weights());
        let first = &plan.section.constants;
        for (weight, first) in loaded.tail_weights().iter().zip(first) {
            assert_ne!(Values::Floats(weight.values.clone()), first.values, "{} never moved", first.name);
        }
    }
}

#[test]
fn a_section_is_read_from_a_runs_folder_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut section = section();
    section.constants.push(Constant { name: "axes".into(), shape: vec![2], values: Values::Integers(vec![2, 3]) });
    section.constants.push(constant("number", &[], |_| 6.0));
    write_section(folder.path(), &section).unwrap();
    assert_eq!(read_section(folder.path()).unwrap(), section);
    fs::remove_file(folder.path().join("tail.safetensors")).unwrap();
    assert!(read_section(folder.path()).unwrap_err().to_string().contains("tail.safetensors"));
}

#[test]
fn an_empty_prefix_of_a_column_is_a_column_all_the_same() {
    let decoder = behind(&plan(BatchNorm::Frozen), &specs()[1]);
    assert_eq!(decoder.inputs(), inputs());
    let seen: Vec<(i64, i64)> = decoder.seen_inputs().iter().map(|input| (input.vectors, input.width)).collect();
    assert_eq!(seen, [(1, 5), (4, 4)]);
    let spec = DecodeSpec { max_length: 4, ..DecodeSpec::default() };
    let absent: Prefix = gather(&columns(), &[0, 5]);
    assert_eq!(generate(decoder.as_ref(), &absent, &spec, SPECIAL).len(), 2);
    let attention = decoder.attention(&absent, &Captions::pack(&[(0, &[4])], SPECIAL, 6)).unwrap();
    assert_eq!(attention.size(), [2, 5]);
}
