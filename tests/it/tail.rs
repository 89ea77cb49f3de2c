//! The encoder's last block as a tail: against ONNX Runtime on every family's fixture, back into a model, and with the built
//! program from `encode` to captions.

use std::path::{Path, PathBuf};

use icecap::{
    batch::{Prefix, Vectors},
    decoder::{self, BatchNorm, ColumnInput, Decoder, DecoderSpec, LstmSpec, TailPlan, TailPool, Tailed},
    encoder::{self, EncoderPlan, EncoderSession, Normalize, Pool, Precision, Tap},
};
use tch::{Device, Tensor};

use crate::support::{Place, fixture, shared};

const FAMILIES: [&str; 5] = ["resnet", "densenet", "mobilenet", "inception", "operators"];
/// Height and width of the pictures: neither is even, nor a multiple of anything.
const SIZE: [usize; 2] = [19, 27];
const BATCH: usize = 3;

/// Rows of tapped tensors, as ONNX Runtime gives them for pictures of noise: `[BATCH, K, D]` each.
fn rows(model: &Path, size: [usize; 2], taps: &[(&str, Pool)]) -> Vec<Tensor> {
    encoder::init_runtime(None).expect("ONNX Runtime");
    let tap = |(index, &(tensor, pool)): (usize, &(&str, Pool))| Tap {
        name: index.to_string(),
        tensors: vec![tensor.to_owned()],
        pool,
        l2: false,
        dtype: icecap_cache::Dtype::F32,
        regions: None,
    };
    let taps = taps.iter().enumerate().map(tap).collect();
    let [height, width] = size;
    let (normalize, precision) = (Normalize::default(), Precision::F32);
    let plan = EncoderPlan { normalize, height, width, batch: BATCH, precision, taps };
    let compiled = encoder::compile(model, &plan).expect("a model");
    let noise = |index: u32| (index.wrapping_mul(0x9E37_79B9).wrapping_mul(0xC2B2_AE35) >> 24) as u8;
    let images: Vec<u8> = (0..plan.images_bytes() as u32).map(noise).collect();
    let mut memory: Vec<Vec<f32>> =
        compiled.outputs().iter().map(|output| vec![f32::NAN; BATCH * output.row_elements()]).collect();
    let mut session = EncoderSession::new(&compiled, encoder::Device::Cpu, 1).expect("a session");
    session
        .run(&images, &mut memory.iter_mut().map(|rows| bytemuck::cast_slice_mut(rows)).collect::<Vec<_>>())
        .expect("rows");
    let shaped = |(rows, output): (&Vec<f32>, &encoder::OutputInfo)| {
        let width = output.row_shape.last().copied().unwrap_or(1) as i64;
        Tensor::from_slice(rows).view([BATCH as i64, -1, width])
    };
    memory.iter().zip(compiled.outputs()).map(shaped).collect()
}

fn tailed(model: &Path, from: &str, to: &str, pool: TailPool, size: [usize; 2]) -> Tailed {
    encoder::init_runtime(None).expect("ONNX Runtime");
    let section = encoder::section(model, from, to, size).expect("a section");
    let (vectors, width) = match *section.input.as_slice() {
        [channels, height, width] => (height * width, channels),
        ref other => (1, other.iter().product()),
    };
    let inputs = [ColumnInput { name: "map".into(), vectors, width }];
    let plan = TailPlan { column: 0, section, pool, batch_norm: BatchNorm::Frozen, learning_rate_scale: 0.1 };
    let spec = DecoderSpec::Lstm(LstmSpec { embedding: 4, hidden: 4, ..LstmSpec::default() });
    let inner = decoder::build(&spec, &plan.inputs(&inputs).expect("fits"), 8, 0, Device::Cpu).expect("a decoder");
    Tailed::new(inner, &plan, &inputs).expect("a tail")
}

fn see(tailed: &Tailed, rows: &Tensor) -> Tensor {
    let columns = vec![Vectors { data: rows.shallow_clone(), present: None }];
    tailed.see(&Prefix { columns }).columns.remove(0).data
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    let apart = (found - expected).abs().max().double_value(&[]);
    assert!(apart <= 1e-4 * scale.max(1.0), "{what}: {apart} apart at a scale of {scale}");
    assert!(expected.std(false).double_value(&[]) > 1e-3, "{what}: nothing to see");
}

#[test]
fn every_family_agrees_with_onnx_runtime() {
    for family in FAMILIES {
        let model = fixture(&format!("tail/{family}.onnx"));
        let both = rows(&model, SIZE, &[("from", Pool::None), ("to", Pool::None)]);
        let tailed = tailed(&model, "from", "to", TailPool::None, SIZE);
        assert_close(&see(&tailed, &both[0]), &both[1], family);
    }
    let model = fixture("tail/resnet.onnx");
    let ends = [("from", Pool::None), ("avgpool", Pool::None), ("logits", Pool::None), ("avgpool", Pool::None)];
    let all = rows(&model, SIZE, &ends);
    assert_close(&see(&tailed(&model, "from", "logits", TailPool::None, SIZE), &all[0]), &all[2], "map to logits");
    assert_close(
        &see(&tailed(&model, "avgpool", "logits", TailPool::None, SIZE), &all[1]),
        &all[2],
        "vector to logits",
    );
}

#[test]
fn a_tail_is_pooled_as_a_column_is() {
    let model = fixture("tail/inception.onnx");
    for (pool, own) in
        [(Pool::Global, TailPool::Global), (Pool::Grid(2), TailPool::Grid(2)), (Pool::Flatten, TailPool::Flatten)]
    {
        let both = rows(&model, SIZE, &[("from", Pool::None), ("to", pool)]);
        assert_close(&see(&tailed(&model, "from", "to", own, SIZE), &both[0]), &both[1], &pool.to_string());
    }
    // A flat row is the same map in another order.
    let both = rows(&model, SIZE, &[("from", Pool::Flatten), ("to", Pool::None)]);
    assert_close(&see(&tailed(&model, "from", "to", TailPool::None, SIZE), &both[0]), &both[1], "flat rows");
}

/// The tail of `model` with other weights agrees with the model that they are written into, which is otherwise the same.
#[track_caller]
fn assert_written_back(model: &Path, [from, to]: [&str; 2], size: [usize; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let tailed = tailed(model, from, to, TailPool::None, size);
    tch::manual_seed(1);
    let grow = |(_, place): (&str, Tensor)| {
        let _ = place.shallow_clone().g_mul_(&(place.rand_like() * 0.5 + 0.75));
    };
    tch::no_grad(|| tailed.params().all().into_iter().for_each(grow));
    let (tuned, what) = (folder.path().join("tuned.onnx"), model.display().to_string());
    encoder::write_section(model, &tuned, &tailed.tail_weights(), "a test").expect("written");
    let [before, after] =
        [model, tuned.as_path()].map(|model| rows(model, size, &[(from, Pool::None), (to, Pool::None)]));
    assert!(before[0].equal(&after[0]), "{what}: what stands before the tail is as it was");
    assert_close(&see(&tailed, &before[0]), &after[1], &what);
    assert!((&before[1] - &after[1]).abs().max().double_value(&[]) > 1e-3, "{what} was changed");
    // What was written is a model to begin with: all of it is there again.
    let again = self::tailed(&tuned, from, to, TailPool::None, size);
    let values = |tailed: &Tailed| tailed.tail_weights().into_iter().map(|weight| weight.values).collect::<Vec<_>>();
    assert!(values(&again) == values(&tailed), "{what}");
}

#[test]
fn trained_weights_go_back_into_the_model_and_nowhere_else() {
    for family in FAMILIES {
        assert_written_back(&fixture(&format!("tail/{family}.onnx")), ["from", "to"], SIZE);
    }
}

#[test]
fn what_does_not_enclose_a_part_is_refused() {
    encoder::init_runtime(None).expect("ONNX Runtime");
    let model = fixture("tail/skips.onnx");
    let refused = |from: &str, to: &str| {
        let error = encoder::section(&model, from, to, SIZE).err().map(|error| error.to_string()).unwrap_or_default();
        error.replace(&format!("{}/", fixture("tail").display()), "")
    };
    insta::assert_snapshot!(refused("inner", "to"), @"
    `to` also needs `from`, which is not computed from `inner`: something in `skips.onnx` goes past `inner`
    hint: tap `from` or `block` instead: everything goes through it there
    ");
    insta::assert_snapshot!(refused("to", "block"), @"
    `block` is not computed from `to` in `skips.onnx`
    hint: name a later tensor of the same model; `icecap inspect` lists them in order
    ");
    insta::assert_snapshot!(refused("from", "tow"), @"
    `skips.onnx` has no tensor `tow`; nearest: `to`, `t3`, `t5`
    hint: `icecap inspect skips.onnx` lists what can be tapped
    ");
    let built = |from: &str, to: &str, batch_norm| {
        let section = encoder::section(&model, from, to, SIZE).expect("a section");
        let inputs = [ColumnInput { name: "map".into(), vectors: section.input[1] * section.input[2], width: 4 }];
        let plan = TailPlan { column: 0, section, pool: TailPool::Global, batch_norm, learning_rate_scale: 1.0 };
        let spec = DecoderSpec::Lstm(LstmSpec::default());
        decoder::build_behind(Some(&plan), &spec, &inputs, 8, 0, Device::Cpu)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    insta::assert_snapshot!(built("block", "erf", BatchNorm::Frozen), @"
    the tail's node `erf` is of the operator `Erf`, which can't be trained yet
    hint: begin the tail after it, or end it before
    ");
    insta::assert_snapshot!(built("from", "bare", BatchNorm::Frozen), @"
    there is nothing to train between `from` and `bare`
    hint: begin the tail at an earlier tensor
    ");
    insta::assert_snapshot!(built("block", "to", BatchNorm::Train), @"
    `tail.batch_norm` = `train`, and there is no BatchNormalization between `block` and `to`: its exporter folded them into the convolutions
    hint: leave `batch_norm` out
    ");
}

#[test]
fn the_last_blocks_of_a_trained_mobilenet_agree() {
    let Some(model) = shared("encoders/mobilenet_v2.onnx") else { return };
    let (from, to) = ("t153", "feature_map");
    let both = rows(&model, [224, 224], &[(from, Pool::None), (to, Pool::None)]);
    assert_close(&see(&tailed(&model, from, to, TailPool::None, [224, 224]), &both[0]), &both[1], "mobilenet");
    assert_written_back(&model, [from, to], [224, 224]);
}

#[test]
#[ignore = "needs torchvision, and takes a minute"]
fn torchvisions_encoders_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, size, pairs) in [
        ("resnet18", 224, vec![("layer3", "layer4"), ("layer2", "avgpool")]),
        ("densenet121", 224, vec![("denseblock3", "features"), ("denseblock4", "avgpool")]),
        ("inception_v3", 299, vec![("Mixed_6e", "Mixed_7c"), ("Mixed_5d", "avgpool")]),
    ] {
        let model: PathBuf = folder.path().join(format!("{name}.onnx"));
        encoder::export(name, "random:3", &model, None).expect("an export");
        for (from, to) in pairs {
            let both = rows(&model, [size, size], &[(from, Pool::None), (to, Pool::None)]);
            let tailed = tailed(&model, from, to, TailPool::None, [size, size]);
            assert_close(&see(&tailed, &both[0]), &both[1], &format!("{name} {from} {to}"));
        }
    }
}

const TAIL: &str = "\n[tail]\ncolumn = \"early\"\nto = \"c2\"\npool = \"4x4\"\nlearning_rate_scale = 0.5\n";

/// A place with a cache, and `tail.toml`: the tiny encoder's last convolution is trained.
fn place() -> Place {
    let place = Place::with_recipe();
    let recipe = place.read("recipe.toml");
    let recipe = recipe
        .replace("[decoder]", "[[column]]\nname = \"early\"\ntap = \"c1\"\n\n[decoder]")
        .replace("columns = [\"grid\"]", "columns = [\"early\", \"whole\"]");
    place.write("tail.toml", format!("{recipe}{TAIL}"));
    place.icecap("encode tail.toml --data . --cache cache").good();
    place
}

#[test]
fn a_tail_is_trained_resumed_heard_and_written_back() {
    let place = place();
    let line = "train tail.toml --data . --cache cache --run run";
    let trained = place.icecap(line).good();
    assert!(trained.err.contains("tail: 2 nodes from `c1` [8, 32, 32] to `c2` [8, 16, 16]"), "{}", trained.err);
    let weights = std::fs::read(place.path("run/checkpoints/best/model.safetensors")).expect("weights");
    assert!(String::from_utf8_lossy(&weights[..4000]).contains("\"icecap.tail.w2\""));

    // The run has all it needs to go on and to be scored: the model may go.
    std::fs::rename(place.path("tiny.onnx"), place.path("moved.onnx")).expect("moved");
    place.icecap(&format!("{line} --resume")).good();
    place.icecap("evaluate run --split test --beam 2 -o results.json").good();
    let results: serde_json::Value = serde_json::from_str(&place.read("results.json")).expect("JSON");

    // New pictures begin at the picture, and give the captions of the cached rows.
    place.write("picture.png", icecap::dataset::shapes::Scene { seed: 0, index: 2 << 32, side: 64 }.png());
    let line = "caption run picture.png --model moved.onnx --beam 2 --attention seen --json";
    let said = place.icecap(line).good().json();
    assert_eq!(said[0]["caption"], results[0]["caption"], "{said} {results}");
    let seen: serde_json::Value = serde_json::from_str(&place.read("seen/picture.png.json")).expect("JSON");
    assert_eq!(seen["attention"]["columns"][0]["shape"], serde_json::json!([16, 8]), "{seen}");
    assert_eq!(seen["attention"]["weights"][0].as_array().map(Vec::len), Some(17));

    place.icecap("export-run run --encoder --model moved.onnx -o tuned.onnx").good();
    let exists = place.icecap("export-run run --encoder --model moved.onnx -o tuned.onnx").bad();
    assert!(exists.contains("`tuned.onnx` is there already"), "{exists}");
    let other = place.icecap("export-run run --encoder --model tuned.onnx -o again.onnx").bad();
    assert!(other.contains("`tuned.onnx` is not the model whose last block was trained"), "{other}");
    // What was written is what was trained, and a model to encode with.
    let run = icecap::stage::run::Run::open(&place.path("run")).expect("a run");
    let (decoder, _) = run.decoder("cpu").expect("a decoder");
    let tuned = tailed(&place.path("tuned.onnx"), "c1", "c2", TailPool::None, [32, 32]);
    let first = tailed(&place.path("moved.onnx"), "c1", "c2", TailPool::None, [32, 32]);
    assert_eq!(tuned.tail_weights(), decoder.tail_weights());
    assert!(tuned.tail_weights().iter().zip(first.tail_weights()).all(|(tuned, first)| *tuned != first));
    place.write("tuned.toml", place.read("recipe.toml").replace("tiny.onnx", "tuned.onnx"));
    place.icecap("encode tuned.toml --data . --cache tuned").good();

    // A run that was killed before its first checkpoint begins again, the model gone or not.
    std::fs::remove_dir_all(place.path("run/checkpoints")).expect("removed");
    place.icecap("train tail.toml --data . --cache cache --run run --resume").good();
    assert_eq!(std::fs::read(place.path("run/checkpoints/best/model.safetensors")).expect("weights"), weights);
}

#[test]
fn tails_that_do_not_fit_leave_no_run_behind() {
    let place = place();
    let refused = |sets: &str, why: &str| {
        let said = place.icecap(&format!("train tail.toml --data . --cache cache --run run {sets}")).bad();
        assert!(said.contains(why), "{said}");
    };
    refused("--set tail.to=masked", "needs the input `mask`");
    refused("--set tail.to=c3", "`c2`");
    refused("--set tail.column=grid", "the decoder reads no column `grid`");
    refused("--set tail.column=whole", "`c2` is not computed from `vector`");
    refused("--set tail.batch_norm=train", "there is no BatchNormalization between `c1` and `c2`");
    refused("--set tail.pool=global --set tail.to=vector", "needs a map");
    let bytes = std::fs::read(place.path("tiny.onnx")).expect("a model");
    place.write("tiny.onnx", std::fs::read(fixture("tail/resnet.onnx")).expect("a model"));
    refused("", "the tail can't be cut out of the model");
    place.write("tiny.onnx", [bytes.as_slice(), &[0xba, 0x01, 0x00]].concat());
    refused("", "was encoded by another model");
    assert!(!place.path("run/run.json").exists(), "nothing was begun");
    place.write("tiny.onnx", bytes);
    place.icecap("train recipe.toml --data . --cache cache --run plain --set train.steps=1").good();
    let said = place.icecap("export-run plain --encoder -o tuned.onnx").bad();
    assert!(said.contains("the run `plain` has no tail"), "{said}");
}
