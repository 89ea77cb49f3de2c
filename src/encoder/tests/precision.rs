//! `precision = "f16"` against f32.
//!
//! ONNX Runtime's CPU has few f16 kernels and skips the rounding between nodes that it computes in f32. [`rounded`] puts it back,
//! node by node: what is compared is then what a GPU does, f32 sums rounded to f16 after every operator.

use std::collections::HashSet;

use build::{Builder, integer, integer_list, value_info};
use onnx::tensor_proto::DataType;
use onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use prost::Message;

use super::kernels::{Writer, dense, model, residual, taps};
use super::*;
use crate::image::{Preprocess, Resize, load_into};

fn halved(plan: &EncoderPlan) -> EncoderPlan {
    EncoderPlan { precision: Precision::F16, ..plan.clone() }
}

/// The edited graph, as ONNX Runtime gets it.
fn graph_of(encoder: &CompiledEncoder) -> GraphProto {
    ModelProto::decode(encoder.model_bytes(Device::Cpu).unwrap()).unwrap().graph.unwrap()
}

/// Tensors that hold f16: such weights, what is cast to it, and whatever is made of them.
fn half_tensors(graph: &GraphProto) -> HashSet<String> {
    let half = DataType::Float16 as i32;
    let weights = graph.initializer.iter().filter(|weight| weight.data_type() == half).map(TensorProto::name);
    let mut found: HashSet<String> = weights.map(str::to_owned).collect();
    for node in &graph.node {
        let made = match node.op_type() {
            "Cast" => node.attribute[0].i() == i64::from(half),
            "Shape" => false,
            _ => node.input.iter().any(|name| found.contains(name)),
        };
        if made {
            found.extend(node.output.iter().cloned());
        }
    }
    found
}

/// The model of f16 nodes as one of f32 nodes with a rounding to f16 behind each.
fn rounded(bytes: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let half = half_tensors(graph);
    let nodes = graph.node.clone();
    let mut builder = Builder::new(graph, 17);
    let to = |kind: DataType| vec![integer("to", kind as i64)];
    for mut node in nodes {
        let (reads, made) = (node.input.iter().any(|name| half.contains(name)), node.output[0].clone());
        if node.op_type() == "Cast" || !reads {
            builder.push(node);
            continue;
        }
        for input in node.input.iter_mut().filter(|name| half.contains(*name)) {
            *input = builder.node("Cast", &[input], to(DataType::Float));
        }
        if half.contains(&made) {
            node.output[0] = builder.fresh("full");
            let full = node.output[0].clone();
            builder.push(node);
            builder.node_named("Cast", &[&full], &made, to(DataType::Float16));
        } else {
            builder.push(node);
        }
    }
    builder.replace();
    model.encode_to_vec()
}

/// Every column of one batch as floats, all columns f32.
fn run_rounded(encoder: &CompiledEncoder, images: &[u8]) -> Vec<Vec<f32>> {
    let bytes = rounded(encoder.model_bytes(Device::Cuda(0)).unwrap());
    let builder = ort::session::Session::builder(runtime::environment().unwrap()).unwrap();
    let mut session = { builder }.commit_from_memory(&bytes).unwrap();
    let plan = encoder.plan();
    let shape = [plan.batch, plan.height, plan.width, 3];
    let input = ort::value::TensorRef::from_array_view((shape, images)).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    outputs.values().map(|value| value.try_extract_tensor::<f32>().unwrap().1.to_vec()).collect()
}

/// The least cosine of any row with the same row in f32, over all columns; by the provider as it is, and rounded.
fn least_cosines(path: &Path, plan: &EncoderPlan, images: &[u8]) -> [f64; 2] {
    init_runtime(None).unwrap();
    let (full, half) = (compile(path, plan).unwrap(), compile(path, &halved(plan)).unwrap());
    let expected: Vec<Vec<f32>> = run_by(&full, images, 1, Kernels::Provider).iter().map(|rows| f32s(rows)).collect();
    let plain: Vec<Vec<f32>> = run(&half, images, 1).iter().map(|rows| f32s(rows)).collect();
    [plain, run_rounded(&half, images)].map(|found| {
        let columns = found.iter().zip(&expected).zip(full.outputs());
        columns
            .map(|((found, expected), output)| least_cosine(found, expected, output.row_elements()))
            .fold(1.0, f64::min)
    })
}

fn least_cosine(found: &[f32], expected: &[f32], row: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let cosine = |(a, b): (&[f32], &[f32])| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    found.chunks(row).zip(expected.chunks(row)).map(cosine).fold(1.0, f64::min)
}

#[test]
fn rows_in_f16_are_those_in_f32_but_for_their_rounding() {
    for (write, names) in
        [(residual as fn(&mut Writer<'_>), ["first", "second", "inner"]), (dense, ["last", "squared", "last"])]
    {
        let (_dir, path) = model(write);
        let plan = plan(3, [32, 28], taps(&names[..2]));
        let least = least_cosines(&path, &plan, &pictures(&plan, 1));
        assert!(least.iter().all(|least| *least > 0.9999), "{least:?}");
        assert!(least[1] < 1.0 - 1e-9, "nothing was rounded: {least:?}");
    }
}

/// Real weights, real photographs. The promise is 0.9995.
#[test]
fn real_encoders_keep_their_rows_in_f16() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let Ok(entries) = std::fs::read_dir(shared.join("flickr8k/originals")) else {
        eprintln!("skipped: {} is absent", shared.display());
        return;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let column = |name: &str, pool| tap(&format!("{name}-{pool}"), name, pool, Dtype::F32);
    let mobilenet = Normalize { mean: [0.5; 3], std: [0.5; 3], ..Normalize::default() };
    for (file, normalize, taps) in [
        ("mobilenet_v2.onnx", mobilenet, [column("features", Pool::None), column("feature_map", Pool::Grid(7))]),
        (
            "resnet18_layer3.onnx",
            Normalize::default(),
            [column("features", Pool::None), column("feature_map", Pool::None)],
        ),
    ] {
        let mut plan = plan(8, [224, 224], taps.to_vec());
        plan.normalize = normalize;
        let images = photographs(&files, plan.batch);
        let [plain, rounded] = least_cosines(&shared.join("encoders").join(file), &plan, &images);
        eprintln!(
            "{file}: least cosine {plain:.7} as the provider computes, {rounded:.7} rounded after every operator"
        );
        assert!(plain > 0.9995 && rounded > 0.9995, "{file}");
    }
}

fn photographs(files: &[PathBuf], count: usize) -> Vec<u8> {
    let pre = Preprocess { resize: Resize::Shorter(256), ..Preprocess::default() };
    let mut images = vec![0; count * 224 * 224 * 3];
    let step = files.len() / count;
    for (file, pixels) in files.iter().step_by(step).zip(images.chunks_exact_mut(224 * 224 * 3)) {
        load_into(&std::fs::read(file).unwrap(), &pre, pixels).unwrap();
    }
    images
}

/// Operators of the compiled graph that read or make f16, and those that do not.
fn sides(encoder: &CompiledEncoder) -> [Vec<String>; 2] {
    let graph = graph_of(encoder);
    let half = half_tensors(&graph);
    let of = |inside: bool| {
        let side =
            |node: &&NodeProto| node.op_type() != "Cast" && node.input.iter().any(|name| half.contains(name)) == inside;
        let mut names: Vec<String> = graph.node.iter().filter(side).map(|node| node.op_type().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    };
    [of(true), of(false)]
}

/// An attention-like net: sums and exponentials between convolutions.
fn islands(w: &mut Writer<'_>) {
    let stem = w.conv("images", [32, 3], 3, 2);
    let stem = w.relu(&stem);
    let mean = w.node("GlobalAveragePool", &[&stem], Vec::new());
    let gate = w.conv(&mean, [32, 32], 1, 1);
    let gate = w.node("Sigmoid", &[&gate], Vec::new());
    let gated = w.node("Mul", &[&stem, &gate], Vec::new());
    let soft = w.node("Softmax", &[&gated], vec![integer("axis", 1)]);
    let shifted = w.node("Sub", &[&soft, &mean], Vec::new());
    let square = w.node("Mul", &[&shifted, &shifted], Vec::new());
    w.builder.node_named("Identity", &[&square], "square", Vec::new());
    let joined = w.node("Add", &[&square, &gated], Vec::new());
    w.builder.node_named("Relu", &[&joined], "joined", Vec::new());
}

#[test]
fn sums_and_exponentials_are_an_island() {
    init_runtime(None).unwrap();
    let (_dir, path) = model(islands);
    let plan = plan(2, [32, 28], taps(&["joined", "square"]));
    let encoder = compile(&path, &halved(&plan)).unwrap();
    let [half, full] = sides(&encoder);
    assert_eq!(half, ["Add", "Conv", "Mul", "Relu", "Sigmoid"]);
    assert!(["GlobalAveragePool", "Softmax", "Sub"].iter().all(|op| full.contains(&(*op).to_owned())), "{full:?}");
    assert!(full.contains(&"Mul".to_owned()), "a square between islands stays there");
    let least = least_cosines(&path, &plan, &pictures(&plan, 2));
    assert!(least.iter().all(|least| *least > 0.9999), "{least:?}");
}

#[test]
fn no_weight_of_a_convolution_stays_in_f32_and_normalisations_are_folded() {
    init_runtime(None).unwrap();
    let (_dir, path) = model(|w| {
        let a = w.conv("images", [32, 3], 3, 1);
        let statistics = [0.5, 0.1, 0.2, 1e-6].map(|value| w.builder.floats(&[32], &[value; 32]));
        let [scale, shift, mean, variance] = statistics.each_ref().map(String::as_str);
        let b = w.node("BatchNormalization", &[&a, scale, shift, mean, variance], Vec::new());
        let c = w.node("BatchNormalization", &[&b, scale, shift, mean, variance], Vec::new());
        w.builder.node_named("Relu", &[&c], "last", Vec::new());
    });
    let plan = plan(2, [32, 28], taps(&["last"]));
    let encoder = compile(&path, &halved(&plan)).unwrap();
    let graph = graph_of(&encoder);
    let count = |op: &str| graph.node.iter().filter(|node| node.op_type() == op).count();
    assert_eq!((count("Conv"), count("BatchNormalization")), (1, 1), "the first went into the convolution");
    assert!(sides(&encoder)[0].contains(&"BatchNormalization".to_owned()));
    let least = least_cosines(&path, &plan, &pictures(&plan, 3));
    assert!(least.iter().all(|least| *least > 0.9999), "{least:?}");
}

#[test]
fn a_graph_inside_of_a_node_finds_its_tensors_in_f32() {
    init_runtime(None).unwrap();
    let (_dir, path) = model(|w| {
        let stem = w.conv("images", [16, 3], 3, 1);
        let stem = w.relu(&stem);
        let flag = boolean(&mut w.builder);
        let branch = |name: &str| {
            let node = NodeProto {
                op_type: Some("Relu".to_owned()),
                input: vec![stem.clone()],
                output: vec![name.to_owned()],
                ..NodeProto::default()
            };
            let output = vec![value_info(name, DataType::Float, &[1, 16, 32, 28])];
            GraphProto { node: vec![node], output, name: Some(name.to_owned()), ..GraphProto::default() }
        };
        let attribute = |name: &str, graph| AttributeProto {
            g: Some(graph),
            ..AttributeProto { name: Some(name.to_owned()), r#type: Some(5), ..AttributeProto::default() }
        };
        let branches = vec![attribute("then_branch", branch("then")), attribute("else_branch", branch("else"))];
        let chosen = w.node("If", &[&flag], branches);
        let last = w.conv(&chosen, [16, 16], 3, 1);
        w.builder.node_named("Relu", &[&last], "last", Vec::new());
    });
    let plan = plan(1, [32, 28], taps(&["last"]));
    let least = least_cosines(&path, &plan, &pictures(&plan, 4))[0];
    assert!(least > 0.9999, "{least}");
}

/// A constant `true`, made by a node from the constant one.
fn boolean(builder: &mut Builder<'_>) -> String {
    let one = builder.integers(&[1]);
    let one = builder.node("Cast", &[&one], vec![integer("to", DataType::Bool as i64)]);
    let axis = builder.integers(&[0]);
    builder.node("Squeeze", &[&one, &axis], Vec::new())
}

#[test]
fn a_weight_beyond_f16_is_noted_and_an_overflow_is_no_row() {
    init_runtime(None).unwrap();
    let (_dir, path) = model(|w| {
        let huge = w.builder.floats(&[4, 3, 1, 1], &[70_000.0; 12]);
        let attributes = vec![integer_list("strides", &[1, 1])];
        let a = w.builder.node("Conv", &["images", &huge], attributes);
        w.builder.node_named("Abs", &[&a], "last", Vec::new());
    });
    let plan = plan(1, [32, 28], vec![tap("x", "last", Pool::None, Dtype::F16)]);
    let encoder = compile(&path, &halved(&plan)).unwrap();
    assert_eq!(encoder.notes(), ["12 of 12 values of `icecap.constant` are beyond 65504"]);
    let mut session = EncoderSession::new(&encoder, Device::Cpu, 1).unwrap();
    assert_eq!(session.kernels(), Kernels::Provider);
    let mut memory = buffers(&encoder);
    let rows: &mut [u8] = bytemuck::cast_slice_mut(&mut memory[0]);
    insta::assert_snapshot!(session.run(&pictures(&plan, 5), &mut [rows]).unwrap_err(), @r#"
    column `x` has rows that are no numbers: some layer's values go beyond f16's 65504
    hint: set precision = "f32" in [encoder]
    "#);
}

#[test]
fn only_f16_is_mentioned_in_a_key() {
    let one = tap("x", "last", Pool::None, Dtype::F16);
    let full = plan(1, [8, 8], vec![one.clone()]);
    let names =
        |plan: &EncoderPlan| -> Vec<String> { key_fields("m", plan, &one).into_iter().map(|(name, _)| name).collect() };
    assert_eq!(names(&full).last().unwrap(), "encoder.rewrite");
    assert_eq!(names(&halved(&full))[12..], ["encoder.precision", "encoder.precision_version"]);
}

#[test]
fn an_old_model_without_a_name_for_its_opset_is_rewritten_too() {
    init_runtime(None).unwrap();
    let (dir, path) = model(residual);
    let mut old = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    old.opset_import = vec![OperatorSetIdProto { domain: Some("ai.onnx".to_owned()), version: Some(11) }];
    let path = dir.path().join("old.onnx");
    std::fs::write(&path, old.encode_to_vec()).unwrap();
    let plan = plan(2, [32, 28], taps(&["second"]));
    let least = least_cosines(&path, &plan, &pictures(&plan, 6));
    assert!(least.iter().all(|least| *least > 0.9999), "{least:?}");
}
