//! What a row holds.

use half::{bf16, f16};
use onnx::NodeProto;

use super::*;

/// `[N, 3, H, W]` as the encoder sees the pictures.
fn seen(plan: &EncoderPlan, pixels: &[u8]) -> Vec<f32> {
    let (factor, offset) = plan.normalize.affine();
    let area = plan.height * plan.width;
    let mut out = vec![0.0; pixels.len()];
    for (index, &pixel) in pixels.iter().enumerate() {
        let (image, position, from) = (index / (3 * area), index / 3 % area, index % 3);
        let to = if plan.normalize.channels == Channels::Bgr { 2 - from } else { from };
        out[image * 3 * area + to * area + position] = f32::from(pixel) * factor[to] + offset[to];
    }
    out
}

/// `[N, C, H, W]` to rows `[H*W, C]`.
fn channels_last(map: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let image = |map: &[f32]| (0..area * channels).map(|i| map[i % channels * area + i / channels]).collect::<Vec<_>>();
    map.chunks(channels * area).flat_map(image).collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{index}: {a} {b}");
    }
}

#[test]
fn the_encoder_sees_the_normalised_picture() {
    for channels in [Channels::Rgb, Channels::Bgr] {
        let mut plan = plan(3, [5, 7], vec![tap("x", "seen", Pool::None, Dtype::F32)]);
        plan.normalize = Normalize { mean: [0.1, 0.2, 0.3], std: [0.5, 0.25, 2.0], scale: 1.0 / 255.0, channels };
        let expected = channels_last(&seen(&plan, &pictures(&plan, 1)), 3, 35);
        assert_eq!(column("tiny.onnx", &plan, 1), expected, "{channels:?}");
    }
}

#[test]
fn the_prologue_in_the_graph_is_the_one_on_the_cpu() {
    init_runtime(None).unwrap();
    for model in ["tiny.onnx", "nhwc.onnx"] {
        for channels in [Channels::Rgb, Channels::Bgr] {
            let mut plan = plan(
                2,
                [6, 8],
                vec![tap("x", "seen", Pool::None, Dtype::F32), tap("c", "c1", Pool::Global, Dtype::F32)],
            );
            plan.normalize.channels = channels;
            let encoder = compile(&fixture(model), &plan).unwrap();
            let images = pictures(&plan, 2);
            let host = run(&encoder, &images, 1);
            let bytes = encoder.model_bytes(Device::Cuda(0)).unwrap();
            let builder = ort::session::Session::builder(runtime::environment().unwrap()).unwrap();
            let mut session = { builder }.commit_from_memory(bytes).unwrap();
            let input = ort::value::TensorRef::from_array_view(([2usize, 6, 8, 3], images.as_slice())).unwrap();
            let outputs = session.run(ort::inputs![input]).unwrap();
            for (index, rows) in host.iter().enumerate() {
                assert_close(outputs[index].try_extract_tensor::<f32>().unwrap().1, &f32s(rows));
            }
        }
    }
}

/// A GPU's graph on the CPU: several batches through one session, each with its own rows.
#[test]
fn the_prologue_gives_the_rows_of_pictures_that_were_normalized_before() {
    init_runtime(None).unwrap();
    let taps = vec![
        tap("map", "c1", Pool::None, Dtype::F32),
        tap("half", "c1", Pool::Global, Dtype::F16),
        tap("brain", "c2", Pool::Grid(2), Dtype::Bf16),
    ];
    let plan = plan(2, [6, 8], taps);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let mut session = EncoderSession::rehearsal(&encoder).unwrap();
    for seed in 1..4 {
        let images = pictures(&plan, seed);
        let lent = run_by(&encoder, &images, 1, Kernels::Provider);
        let mut memory: Vec<Vec<u8>> = lent.iter().map(|rows| vec![0xff; rows.len() + 8]).collect();
        let mut rows: Vec<&mut [u8]> =
            memory.iter_mut().zip(&lent).map(|(own, rows)| aligned(own, rows.len())).collect();
        session.run(&images, &mut rows).unwrap();
        assert_close(&f32s(rows[0]), &f32s(&lent[0]));
        let near = |a: f32, b: f32| (a - b).abs() <= 0.01 * b.abs().max(1.0);
        let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let brain = |bytes: &[u8]| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        assert!(rows[1].chunks(2).zip(lent[1].chunks(2)).all(|(a, b)| near(half(a), half(b))));
        assert!(rows[2].chunks(2).zip(lent[2].chunks(2)).all(|(a, b)| near(brain(a), brain(b))));
    }
    assert!(session.run(&pictures(&plan, 1)[1..], &mut []).is_err());
}

/// `length` bytes of `memory` from a multiple of eight on.
fn aligned(memory: &mut [u8], length: usize) -> &mut [u8] {
    let at = memory.as_ptr().align_offset(8);
    &mut memory[at..at + length]
}

#[test]
fn a_model_that_takes_channels_last_sees_them_last() {
    let plan = plan(2, [4, 5], vec![tap("x", "seen", Pool::None, Dtype::F32)]);
    // Its own tensor [N, H, W, 3] is read as a map [C, H, W] = [4, 5, 3]; the values are those of the bytes in order.
    let (factor, offset) = plan.normalize.affine();
    let pixels = pictures(&plan, 3);
    let direct: Vec<f32> =
        pixels.iter().enumerate().map(|(i, &p)| f32::from(p) * factor[i % 3] + offset[i % 3]).collect();
    assert_eq!(column("nhwc.onnx", &plan, 3), channels_last(&direct, 4, 15));
}

#[test]
fn global_pooling_is_the_mean_of_the_map() {
    let plan = plan(2, [9, 4], vec![tap("x", "seen", Pool::Global, Dtype::F32)]);
    let map = seen(&plan, &pictures(&plan, 4));
    let mean: Vec<f32> = map.chunks(36).map(|plane| plane.iter().sum::<f32>() / 36.0).collect();
    assert_close(&column("tiny.onnx", &plan, 4), &mean);
}

#[test]
fn grids_are_torchs_adaptive_average_at_any_size() {
    for (size, k) in [([7, 7], 7), ([8, 6], 2), ([9, 7], 4), ([5, 11], 3), ([2, 3], 5), ([1, 1], 2)] {
        let plan = plan(2, size, vec![tap("x", "seen", Pool::Grid(k as u32), Dtype::F32)]);
        let map = seen(&plan, &pictures(&plan, 5));
        let [height, width] = size;
        let cell = |plane: &[f32], cell: usize| {
            let bin = |index: usize, size: usize| (index * size / k)..((index + 1) * size).div_ceil(k);
            let (ys, xs) = (bin(cell / k, height), bin(cell % k, width));
            let all: Vec<f32> = ys.flat_map(|y| xs.clone().map(move |x| plane[y * width + x])).collect();
            all.iter().sum::<f32>() / all.len() as f32
        };
        let image = |image: &[f32]| -> Vec<f32> {
            (0..k * k).flat_map(|i| image.chunks(height * width).map(move |plane| cell(plane, i))).collect()
        };
        let expected: Vec<f32> = map.chunks(3 * height * width).flat_map(image).collect();
        assert_close(&column("tiny.onnx", &plan, 5), &expected);
    }
}

#[test]
fn vectors_and_scalars_are_rows_too() {
    init_runtime(None).unwrap();
    let taps = vec![
        tap("vector", "vector", Pool::None, Dtype::F32),
        tap("pooled", "pool", Pool::None, Dtype::F32),
        tap("score", "score", Pool::None, Dtype::F32),
        tap("map", "c2", Pool::Global, Dtype::F32),
    ];
    let plan = plan(2, [6, 6], taps);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let shapes: Vec<&[usize]> = encoder.outputs().iter().map(|output| output.row_shape.as_slice()).collect();
    assert_eq!(shapes, [&[8][..], &[1, 8], &[1], &[8]]);
    let rows = run(&encoder, &pictures(&plan, 6), 1);
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[0], rows[3]);
}

#[test]
fn l2_divides_every_vector_by_its_length() {
    let mut plan = plan(2, [6, 6], vec![tap("x", "c2", Pool::Grid(2), Dtype::F32)]);
    let plain = column("tiny.onnx", &plan, 7);
    plan.taps[0].l2 = true;
    let unit = column("tiny.onnx", &plan, 7);
    for (plain, unit) in plain.chunks(8).zip(unit.chunks(8)) {
        let length = plain.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert_close(unit, &plain.iter().map(|x| x / length.max(1e-12)).collect::<Vec<_>>());
    }
}

#[test]
fn casts_round_to_the_nearest_even() {
    init_runtime(None).unwrap();
    let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    let taps = dtypes.map(|dtype| tap(&format!("{dtype:?}"), "c2", Pool::Grid(3), dtype)).to_vec();
    let plan = plan(2, [12, 10], taps);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let rows = run(&encoder, &pictures(&plan, 8), 1);
    let floats = f32s(&rows[0]);
    let halves: Vec<u8> = floats.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
    let brains: Vec<u8> = floats.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
    assert_eq!(rows[1], halves);
    assert_eq!(rows[2], brains);
}

#[test]
fn what_no_tap_needs_is_dropped() {
    init_runtime(None).unwrap();
    let ops = |tensor: &str| -> Vec<String> {
        let plan = plan(1, [8, 8], vec![tap("x", tensor, Pool::None, Dtype::F32)]);
        let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
        let bytes = encoder.model_bytes(Device::Cpu).unwrap();
        let model: onnx::ModelProto = prost::Message::decode(bytes).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.initializer.len(), if tensor == "c1" { 2 } else { 4 }, "weights of `{tensor}`");
        assert_eq!(graph.input.len(), 1);
        graph.node.iter().map(NodeProto::op_type).map(str::to_owned).collect()
    };
    assert_eq!(ops("c1"), ["Conv", "Relu", "Transpose", "Identity"]);
    assert_eq!(ops("vector"), ["Conv", "Relu", "Conv", "Relu", "GlobalAveragePool", "Flatten", "Identity"]);
}

#[test]
fn rows_depend_on_nothing_but_their_picture() {
    init_runtime(None).unwrap();
    let taps = || vec![tap("a", "c2", Pool::Grid(3), Dtype::F16), tap("b", "logits", Pool::None, Dtype::F32)];
    let wide = plan(4, [33, 31], taps());
    let encoder = compile(&fixture("tiny.onnx"), &wide).unwrap();
    let images = pictures(&wide, 9);
    let rows = run(&encoder, &images, 1);
    assert_eq!(rows, run(&encoder, &images, 2), "threads");
    assert_eq!(rows, run(&encoder, &images, 3), "threads");
    // The same pictures in the other order, and one by one.
    let one = wide.images_bytes() / 4;
    let reversed: Vec<u8> = images.chunks(one).rev().flatten().copied().collect();
    for (column, turned) in rows.iter().zip(run(&encoder, &reversed, 1)) {
        let row = column.len() / 4;
        assert_eq!(*column, turned.chunks(row).rev().flatten().copied().collect::<Vec<_>>(), "order");
    }
    let single = compile(&fixture("tiny.onnx"), &plan(1, [33, 31], taps())).unwrap();
    for (index, image) in images.chunks(one).enumerate() {
        for (column, alone) in rows.iter().zip(run(&single, image, 1)) {
            assert_eq!(column[index * alone.len()..(index + 1) * alone.len()], alone, "batch");
        }
    }
}

#[test]
fn a_session_writes_its_rows_and_nothing_else() {
    init_runtime(None).unwrap();
    let plan = plan(2, [8, 8], vec![tap("x", "logits", Pool::None, Dtype::F16)]);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let mut session = EncoderSession::new(&encoder, Device::Cpu, 1).unwrap();
    let mut memory = [[0xABu8; 64]; 2];
    let bytes = 2 * encoder.outputs()[0].row_bytes();
    for (memory, seed) in memory.iter_mut().zip([1, 2]) {
        session.run(&pictures(&plan, seed), &mut [&mut memory[..bytes]]).unwrap();
        assert!(memory[bytes..].iter().all(|&byte| byte == 0xAB));
    }
    assert_ne!(memory[0][..bytes], memory[1][..bytes]);
    // The first batch's memory is left alone by the second run.
    assert_eq!(memory[0][..bytes], run(&encoder, &pictures(&plan, 1), 1)[0]);
}

#[test]
fn sessions_move_between_threads() {
    fn assert_send<T: Send>() {}
    fn assert_shared<T: Send + Sync>() {}
    assert_send::<EncoderSession>();
    assert_shared::<CompiledEncoder>();
}

#[test]
fn a_batch_fixed_in_the_file_is_widened_where_that_changes_no_row() {
    init_runtime(None).unwrap();
    let wide = plan(3, [6, 8], vec![tap("x", "c1", Pool::None, Dtype::F32)]);
    let encoder = compile(&fixture("fixed_batch.onnx"), &wide).unwrap();
    let images = pictures(&wide, 10);
    let rows = run(&encoder, &images, 1);
    let single = compile(&fixture("fixed_batch.onnx"), &EncoderPlan { batch: 1, ..wide.clone() }).unwrap();
    let alone: Vec<u8> = images.chunks(6 * 8 * 3).flat_map(|image| run(&single, image, 1).remove(0)).collect();
    assert_eq!(rows[0], alone);
}

#[test]
fn inspect_lists_what_can_be_tapped_with_its_cost() {
    init_runtime(None).unwrap();
    let lines: Vec<String> = inspect(&fixture("tiny.onnx"))
        .unwrap()
        .iter()
        .map(|t| format!("{} {} {:?} {} {}", t.name, t.operator, t.shape, t.multiply_adds, t.bytes_a_row_f16))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    seen Identity [3, 14, 18] 0 1512
    c1.conv Conv [8, 14, 18] 54432 4032
    c1 Relu [8, 14, 18] 54432 4032
    c2.conv Conv [8, 7, 9] 90720 1008
    c2 Relu [8, 7, 9] 90720 1008
    pool GlobalAveragePool [8, 1, 1] 90720 16
    vector Flatten [8] 90720 16
    logits Gemm [4] 90752 8
    ");
    assert_eq!(inspect_at(&fixture("tiny.onnx"), Some([8, 8])).unwrap()[0].shape, [3, 8, 8]);
}

#[test]
fn metadata_is_the_encoders_own_recipe() {
    let recipe = read_metadata(&fixture("tiny.onnx")).unwrap().unwrap();
    assert_eq!(recipe.encoder.as_deref(), Some("tiny"));
    assert_eq!((recipe.resize, recipe.crop), (Some(20), Some([14, 18])));
    assert_eq!(recipe.normalize.unwrap().mean, [0.5, 0.25, 0.125]);
    assert_eq!(recipe.taps, ["c1", "c2", "vector"]);
    assert_eq!(read_metadata(&fixture("nhwc.onnx")).unwrap(), None);
}

#[test]
fn models_pass_through_without_loss() {
    for name in ["tiny.onnx", "nhwc.onnx", "fixed_batch.onnx"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let read: onnx::ModelProto = prost::Message::decode(bytes.as_slice()).unwrap();
        assert_eq!(prost::Message::encode_to_vec(&read).len(), bytes.len(), "{name}");
        let written = model::Model::read(&fixture(name)).unwrap().to_bytes().unwrap();
        assert_eq!(<onnx::ModelProto as prost::Message>::decode(written.as_slice()).unwrap(), read, "{name}");
    }
}

#[test]
fn the_key_holds_what_decides_the_bytes() {
    init_runtime(None).unwrap();
    let plan = plan(2, [8, 8], vec![tap("x", "c1", Pool::Grid(2), Dtype::Bf16)]);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let bytes = std::fs::read(fixture("tiny.onnx")).unwrap();
    assert_eq!(encoder.model_digest(), blake3::hash(&bytes).to_hex().as_str());
    let fields = encoder.key_fields("x").unwrap();
    assert_eq!(fields, key_fields(&model_digest(&fixture("tiny.onnx")).unwrap(), &plan, &plan.taps[0]));
    let shown: Vec<String> = fields[1..].iter().map(|(name, value)| format!("{name} = {value}")).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    encoder.tensor = "c1"
    encoder.pool = "2x2"
    encoder.l2 = false
    encoder.dtype = "bf16"
    encoder.height = 8
    encoder.width = 8
    encoder.mean = [0.485,0.456,0.406]
    encoder.std = [0.229,0.224,0.225]
    encoder.scale = 0.003921569
    encoder.channels = "rgb"
    encoder.rewrite = 1
    "#);
    assert_eq!(encoder.key_fields("y"), None);
}
