//! Models that icecap's own kernels take, against ONNX Runtime's.
//!
//! The models are written here, because weights enough for the kernels to take an interest are too large for a fixture.

use build::{integer, integer_list, value_info};
use onnx::tensor_proto::DataType;
use onnx::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto};
use prost::Message;

use super::*;

/// A graph being written: each node takes names and gives the name of what it makes.
pub(super) struct Writer<'g> {
    pub(super) builder: build::Builder<'g>,
    seed: u32,
}

impl Writer<'_> {
    pub(super) fn weights(&mut self, dims: &[usize]) -> String {
        self.seed += 1;
        let count: usize = dims.iter().product();
        let fan_in: usize = dims[1..].iter().product::<usize>().max(1);
        let noise = |index: usize| (index as u32 + self.seed * 7919).wrapping_mul(0x9E37_79B9) >> 8;
        let values: Vec<f32> = (0..count)
            .map(|index| (noise(index) as f32 / (1 << 23) as f32 - 1.0) * (3.0 / fan_in as f32).sqrt())
            .collect();
        self.builder.floats(dims, &values)
    }

    pub(super) fn conv(&mut self, x: &str, [o, c]: [usize; 2], kernel: i64, stride: i64) -> String {
        let k = kernel as usize;
        let (weights, bias) = (self.weights(&[o, c, k, k]), self.weights(&[o]));
        let attributes = vec![integer_list("pads", &[kernel / 2; 4]), integer_list("strides", &[stride; 2])];
        self.builder.node("Conv", &[x, &weights, &bias], attributes)
    }

    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.builder.node(op, inputs, attributes)
    }

    pub(super) fn relu(&mut self, x: &str) -> String {
        self.node("Relu", &[x], Vec::new())
    }
}

/// Writes a model of one input `images` to a folder of its own.
pub(super) fn model(write: impl FnOnce(&mut Writer<'_>)) -> (tempfile::TempDir, PathBuf) {
    let mut graph = GraphProto { name: Some("kernels".to_owned()), ..GraphProto::default() };
    graph.input.push(value_info("images", DataType::Float, &[1, 3, 32, 28]));
    let mut writer = Writer { builder: build::Builder::new(&mut graph, 17), seed: 0 };
    write(&mut writer);
    writer.builder.append();
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernels.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    (dir, path)
}

/// A residual net: a stem, a block that adds its input, a block that halves the map, taps on the way.
pub(super) fn residual(w: &mut Writer<'_>) {
    let stem = w.conv("images", [32, 3], 3, 1);
    let stem = w.relu(&stem);
    let a = w.conv(&stem, [32, 32], 3, 1);
    let a = w.relu(&a);
    let a = w.conv(&a, [32, 32], 3, 1);
    let sum = w.node("Add", &[&a, &stem], Vec::new());
    let first = w.relu(&sum);
    let b = w.conv(&first, [48, 32], 3, 2);
    let b = w.relu(&b);
    let b = w.conv(&b, [48, 48], 3, 1);
    let short = w.conv(&first, [48, 32], 1, 2);
    let sum = w.node("Add", &[&b, &short], Vec::new());
    w.builder.node_named("Relu", &[&sum], "second", Vec::new());
    w.builder.node_named("Identity", &[&first], "first", Vec::new());
    w.builder.node_named("Sigmoid", &[&a], "inner", Vec::new());
}

/// A dense net: what was there is kept and joined, normalised, pooled.
pub(super) fn dense(w: &mut Writer<'_>) {
    let stem = w.conv("images", [32, 3], 3, 1);
    let stem = w.relu(&stem);
    let a = w.conv(&stem, [32, 32], 3, 1);
    let joined = w.node("Concat", &[&stem, &a], vec![integer("axis", 1)]);
    let statistics = [0.5, 0.1, 0.2, 0.9].map(|value| w.builder.floats(&[64], &[value; 64]));
    let [scale, shift, mean, variance] = statistics.each_ref().map(String::as_str);
    let normal = w.node("BatchNormalization", &[&joined, scale, shift, mean, variance], Vec::new());
    let normal = w.relu(&normal);
    let b = w.conv(&normal, [64, 64], 1, 1);
    let window = || vec![integer_list("kernel_shape", &[2, 2]), integer_list("strides", &[2, 2])];
    let b = w.node("AveragePool", &[&b], window());
    let c = w.node("MaxPool", &[&joined], window());
    let sum = w.node("Add", &[&b, &c], Vec::new());
    w.builder.node_named("Clip", &[&sum], "last", Vec::new());
    w.builder.node_named("Mul", &[&joined, &joined], "squared", Vec::new());
}

pub(super) fn taps(names: &[&str]) -> Vec<Tap> {
    let each = |name: &&str| {
        let one = |suffix: &str, pool| tap(&format!("{name}.{suffix}"), name, pool, Dtype::F32);
        [one("all", Pool::None), one("mean", Pool::Global), one("grid", Pool::Grid(3))]
    };
    names.iter().flat_map(each).collect()
}

#[test]
fn own_kernels_agree_with_onnx_runtimes() {
    init_runtime(None).unwrap();
    for (write, names) in
        [(residual as fn(&mut Writer<'_>), ["first", "second", "inner"]), (dense, ["last", "squared", "last"])]
    {
        let (_dir, path) = model(write);
        let mut plan = plan(3, [32, 28], taps(&names[..2]));
        plan.taps.push(tap("third", names[2], Pool::Grid(2), Dtype::F32));
        let encoder = compile(&path, &plan).unwrap();
        assert_eq!(encoder.fast().unwrap().is_some(), cfg!(target_arch = "x86_64"));
        let images = pictures(&plan, 1);
        let own = run_by(&encoder, &images, 1, Kernels::Own);
        let theirs = run_by(&encoder, &images, 1, Kernels::Provider);
        for ((own, theirs), output) in own.iter().zip(&theirs).zip(encoder.outputs()) {
            let (own, theirs) = (f32s(own), f32s(theirs));
            let scale = theirs.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            assert!(scale > 0.1, "{output:?}");
            assert!(own.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 2e-5 * scale), "{output:?}");
        }
    }
}

#[test]
fn rows_of_own_kernels_depend_on_nothing_but_their_picture() {
    init_runtime(None).unwrap();
    let (_dir, path) = model(residual);
    let wide = plan(5, [32, 28], taps(&["first", "second"]));
    let encoder = compile(&path, &wide).unwrap();
    let images = pictures(&wide, 2);
    let rows = run(&encoder, &images, 1);
    assert_eq!(rows, run(&encoder, &images, 2), "threads");
    assert_eq!(rows, run(&encoder, &images, 4), "threads");
    let single = compile(&path, &EncoderPlan { batch: 1, ..wide.clone() }).unwrap();
    for (index, image) in images.chunks(wide.images_bytes() / 5).enumerate() {
        for (column, alone) in rows.iter().zip(run(&single, image, 1)) {
            assert_eq!(column[index * alone.len()..(index + 1) * alone.len()], alone, "batch");
        }
    }
}

#[test]
fn sessions_of_one_encoder_run_beside_each_other() {
    init_runtime(None).unwrap();
    let (_dir, path) = model(residual);
    let plan = plan(2, [32, 28], taps(&["second"]));
    let encoder = compile(&path, &plan).unwrap();
    let alone: Vec<_> = (0..4).map(|seed| run(&encoder, &pictures(&plan, seed), 1)).collect();
    std::thread::scope(|scope| {
        let worker = |seed: u32| (0..5).map(|_| run(&encoder, &pictures(&plan, seed), 1)).collect::<Vec<_>>();
        let workers: Vec<_> = (0..4).map(|seed| scope.spawn(move || worker(seed))).collect();
        for (worker, alone) in workers.into_iter().zip(&alone) {
            assert!(worker.join().unwrap().iter().all(|rows| rows == alone));
        }
    });
}

#[test]
fn a_model_with_nothing_to_gain_is_left_alone() {
    init_runtime(None).unwrap();
    let encoder =
        compile(&fixture("tiny.onnx"), &plan(1, [8, 8], vec![tap("x", "c2", Pool::None, Dtype::F32)])).unwrap();
    assert!(encoder.fast().unwrap().is_none());
}
