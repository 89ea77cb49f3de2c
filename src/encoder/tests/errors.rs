//! Each message, once.

use onnx::tensor_proto::DataLocation;
use onnx::{ModelProto, SparseTensorProto, StringStringEntryProto};
use prost::Message;

use super::*;

/// The tiny model, changed and written to a folder of its own.
fn changed(change: impl FnOnce(&mut ModelProto)) -> (tempfile::TempDir, PathBuf) {
    let mut model = ModelProto::decode(std::fs::read(fixture("tiny.onnx")).unwrap().as_slice()).unwrap();
    change(&mut model);
    written(&model.encode_to_vec())
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// The message for a tap of a model, the folder left out.
fn message(path: &Path, plan: &EncoderPlan) -> String {
    init_runtime(None).unwrap();
    let error = compile(path, plan).err().unwrap().to_string();
    error.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

fn of(tensor: &str) -> EncoderPlan {
    plan(2, [8, 8], vec![tap("x", tensor, Pool::None, Dtype::F32)])
}

#[test]
fn a_tap_that_does_not_exist() {
    insta::assert_snapshot!(message(&fixture("tiny.onnx"), &of("C2")), @r"
    `tiny.onnx` has no tensor `C2`; nearest: `c2`, `c1`, `c2.conv`
    hint: `icecap inspect tiny.onnx` lists what can be tapped
    ");
}

#[test]
fn taps_that_hold_no_rows() {
    insta::assert_snapshot!(message(&fixture("tiny.onnx"), &of("label")), @r"
    tensor `label` of `tiny.onnx` holds i64, and rows hold floats
    hint: `icecap inspect tiny.onnx` lists what can be tapped
    ");
    insta::assert_snapshot!(message(&fixture("tiny.onnx"), &of("turned")), @r"
    tensor `turned` of `tiny.onnx` has shape [8, 2, 4, 4] for a batch of 2: its first dimension is not the image
    hint: `icecap inspect tiny.onnx` lists what can be tapped
    ");
    insta::assert_snapshot!(message(&fixture("tiny.onnx"), &of("masked")), @r"
    tap `masked` of `tiny.onnx` needs the input `mask`, which is no picture
    hint: `icecap inspect` lists the tensors that need only the picture
    ");
}

#[test]
fn a_tap_that_is_a_constant() {
    let (_dir, path) = changed(|model| model.graph.as_mut().unwrap().node[0].input[0] = "w3".to_owned());
    insta::assert_snapshot!(message(&path, &of("seen")), @r"
    tensor `seen` of `m.onnx` does not depend on the picture
    hint: `icecap inspect m.onnx` lists what can be tapped
    ");
}

#[test]
fn a_vector_has_no_grid() {
    let plan = plan(2, [8, 8], vec![tap("x", "vector", Pool::Grid(7), Dtype::F32)]);
    insta::assert_snapshot!(message(&fixture("tiny.onnx"), &plan), @r#"
    column `x` pools `vector` by `7x7`, but its rows have shape [8]
    hint: only maps [C, H, W] can be pooled so; set pool = "none"
    "#);
}

#[test]
fn sizes_and_batches_the_file_rules_out() {
    insta::assert_snapshot!(message(&fixture("fixed_batch.onnx"), &of("c1")), @r"
    `fixed_batch.onnx` takes pictures of 6x8, not `8x8`
    hint: set the crop to [6, 8]
    ");
    let plan = plan(2, [6, 8], vec![tap("x", "flat", Pool::None, Dtype::F32)]);
    insta::assert_snapshot!(message(&fixture("fixed_batch.onnx"), &plan), @r"
    `fixed_batch.onnx` takes batches of 1, and its layers rule out `2`
    hint: set batch = 1, or export it with a dynamic batch
    ");
}

#[test]
fn plans_that_make_no_sense() {
    let tiny = fixture("tiny.onnx");
    insta::assert_snapshot!(message(&tiny, &EncoderPlan { batch: 0, ..of("c1") }), @r"
    encoder: batch is `0`
    hint: 1 to 65536 images
    ");
    insta::assert_snapshot!(message(&tiny, &EncoderPlan { width: 0, ..of("c1") }), @r"
    encoder: the picture's size is `8x0`
    hint: 1 to 16384 pixels a side
    ");
    insta::assert_snapshot!(message(&tiny, &EncoderPlan { taps: Vec::new(), ..of("c1") }), @r"
    encoder: the list of columns is ``
    hint: tap one tensor at least
    ");
    let mut twice = of("c1");
    twice.taps.push(twice.taps[0].clone());
    insta::assert_snapshot!(message(&tiny, &twice), @r"
    two columns are called `x`
    hint: give one of them another name
    ");
    let mut flat = of("c1");
    flat.normalize.std[1] = 0.0;
    insta::assert_snapshot!(message(&tiny, &flat), @r"
    encoder: the normalisation is `std = [0.229, 0, 0.225]`
    hint: finite numbers, no zero in std
    ");
}

#[test]
fn files_that_are_no_models() {
    let (_dir, path) = written(b"\x89PNG and so on, and so on");
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` is not an ONNX model
    hint: export one with `icecap export NAME -o MODEL.onnx`
    ");
    let (_dir, path) = written(b"");
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` is not an ONNX model
    hint: export one with `icecap export NAME -o MODEL.onnx`
    ");
    let missing = Path::new("/nowhere/m.onnx");
    insta::assert_snapshot!(message(missing, &of("c1")), @"cannot read or write `m.onnx`");
}

#[test]
fn a_model_cut_short_anywhere_is_an_error() {
    let whole = std::fs::read(fixture("tiny.onnx")).unwrap();
    let (_dir, path) = written(&whole[..2000]);
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` is an ONNX model cut short after 2000 bytes
    hint: copy or download it again
    ");
    for length in (0..whole.len()).step_by(97) {
        let (_dir, path) = written(&whole[..length]);
        assert!(model_digest(&path).is_err(), "{length}");
    }
}

#[test]
fn a_file_beyond_what_protobuf_holds() {
    let (_dir, path) = written(b"");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 32).unwrap();
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` needs 4294967296 bytes in one message, and ONNX holds at most 2147483647
    hint: tap an earlier layer, or export the encoder in f16
    ");
}

#[test]
fn an_old_opset() {
    let (_dir, path) = changed(|model| model.opset_import[0].version = Some(7));
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` uses ONNX opset 7; icecap edits opset 8 and newer
    hint: convert it with onnx.version_converter
    ");
}

#[test]
fn a_model_that_takes_no_pictures() {
    let (_dir, path) = changed(|model| drop(model.graph.as_mut().unwrap().input.remove(0)));
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` has no image input: a float tensor of 4 dimensions with 3 channels; its inputs are `mask` [N, 4]
    hint: export it with the batch first, as [N, 3, H, W] or [N, H, W, 3]
    ");
}

/// Replaces the shape of the image input.
fn of_shape(dims: &[i64]) -> (tempfile::TempDir, PathBuf) {
    changed(|model| {
        let input = &mut model.graph.as_mut().unwrap().input[0];
        *input = build::value_info(input.name(), onnx::tensor_proto::DataType::Float, &[1; 8][..dims.len()]);
        let kind = input.r#type.as_mut().and_then(|kind| kind.value.as_mut());
        let Some(onnx::type_proto::Value::TensorType(tensor)) = kind else { panic!("a tensor") };
        for (dim, &size) in tensor.shape.as_mut().unwrap().dim.iter_mut().zip(dims) {
            dim.value = Some(onnx::tensor_shape_proto::dimension::Value::DimValue(size));
        }
    })
}

#[test]
fn a_model_without_a_batch_dimension() {
    let (_dir, path) = of_shape(&[3, 8, 8]);
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` has no image input: a float tensor of 4 dimensions with 3 channels; its inputs are `images` [3, 8, 8], `mask` [N, 4]
    hint: export it with the batch first, as [N, 3, H, W] or [N, H, W, 3]
    ");
}

#[test]
fn sizes_beyond_sense() {
    let (_dir, path) = of_shape(&[1, 3, i64::MAX, i64::MAX]);
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    `m.onnx` takes pictures of 9223372036854775807x9223372036854775807, not `8x8`
    hint: set the crop to 9223372036854775807
    ");
    insta::assert_snapshot!(inspect_at(&path, None).unwrap_err(), @r"
    encoder: the picture's size is `9223372036854775807x9223372036854775807`
    hint: 1 to 16384 pixels a side
    ");
    let (_dir, path) = changed(|model| {
        let graph = model.graph.as_mut().unwrap();
        let mut builder = build::Builder::new(graph, 17);
        let shape = builder.integers(&[2, 2, 1 << 40, 1 << 40]);
        let cell = builder.node("GlobalAveragePool", &["c1"], Vec::new());
        let (from, to, axis) = (builder.integers(&[0]), builder.integers(&[2]), builder.integers(&[1]));
        let cell = builder.node("Slice", &[&cell, &from, &to, &axis], Vec::new());
        builder.node_named("Expand", &[&cell, &shape], "huge", Vec::new());
        builder.append();
    });
    insta::assert_snapshot!(message(&path, &of("huge")), @r"
    tensor `huge` of `m.onnx` has shape [2, 2, 1099511627776, 1099511627776]: a row would have more than 268435456 elements
    hint: tap another tensor; `icecap inspect m.onnx` lists them
    ");
}

#[test]
fn a_model_that_onnx_runtime_refuses() {
    let (_dir, path) = changed(|model| model.graph.as_mut().unwrap().node[1].op_type = Some("Convolve".to_owned()));
    insta::assert_snapshot!(message(&path, &of("c1")), @"ONNX Runtime refuses `m.onnx`");
}

/// Moves the first weight to the file `location`; its 864 bytes at `offset`.
fn external(location: &str, offset: u64) -> (tempfile::TempDir, PathBuf) {
    changed(|model| {
        let weight = &mut model.graph.as_mut().unwrap().initializer[0];
        weight.raw_data = None;
        weight.data_location = Some(DataLocation::External as i32);
        let entries = [("location", location.to_owned()), ("offset", offset.to_string()), ("length", "864".to_owned())];
        let entry =
            |(key, value): (&str, String)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        weight.external_data = entries.into_iter().map(entry).collect();
    })
}

#[test]
fn external_data_stays_in_the_models_folder() {
    for location in ["../weights.bin", "/etc/passwd", ""] {
        let (_dir, path) = external(location, 0);
        let text = message(&path, &of("c1"));
        assert!(text.contains("outside of the model's folder"), "{text}");
    }
    let (dir, path) = external("link.bin", 0);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("w.bin"), vec![0; 864]).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("w.bin"), dir.path().join("link.bin")).unwrap();
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    tensor `w1` of `m.onnx` keeps its data at `link.bin`, outside of the model's folder
    hint: put the data file beside the model
    ");
}

#[test]
fn external_data_has_to_be_there_and_whole() {
    let (dir, path) = external("weights.bin", 64);
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    tensor `w1` of `m.onnx` keeps its data in `weights.bin`, which cannot be read
    hint: copy the data file beside the model
    ");
    std::fs::write(dir.path().join("weights.bin"), vec![0; 900]).unwrap();
    insta::assert_snapshot!(message(&path, &of("c1")), @r"
    tensor `w1` of `m.onnx` says its data is bytes 64..928 of `weights.bin`, which has 900
    hint: copy the data file again
    ");
}

#[test]
fn places_in_external_data_are_numbers_and_sparse_weights_are_seen() {
    let wrong = |weight: &mut onnx::TensorProto| {
        weight.external_data.iter_mut().find(|entry| entry.key() == "offset").unwrap().value = Some("0x8".to_owned());
    };
    let (dir, path) = external("weights.bin", 0);
    std::fs::write(dir.path().join("weights.bin"), vec![0; 900]).unwrap();
    let mut model = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    wrong(&mut model.graph.as_mut().unwrap().initializer[0]);
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let dense = message(&path, &of("c1"));
    insta::assert_snapshot!(dense, @r"
    tensor `w1` of `m.onnx` lies in a data file at offset `0x8`, which is no number
    hint: export the model again
    ");
    // The same tensor as the values of a sparse weight is looked at as well.
    let graph = model.graph.as_mut().unwrap();
    let values = graph.initializer.remove(0);
    graph.sparse_initializer.push(SparseTensorProto { values: Some(values), ..SparseTensorProto::default() });
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    assert_eq!(message(&path, &of("c1")), dense);
}

/// A hostile reference without a length means the rest of a file, whatever its size: no such buffer is made.
#[test]
fn external_data_beyond_what_protobuf_holds() {
    let (dir, path) = external("weights.bin", 0);
    let model = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    let mut tensor = model.graph.unwrap().initializer.remove(0);
    tensor.external_data.retain(|entry| entry.key() != "length");
    let data = std::fs::File::create(dir.path().join("weights.bin")).unwrap();
    data.set_len((1 << 31) + 1).unwrap();
    let error = external::Reference::of(&path, &tensor).unwrap().read().unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&format!("{}/", dir.path().display()), ""), @r"
    `m.onnx` needs 2147483649 bytes in one message, and ONNX holds at most 2147483647
    hint: tap an earlier layer, or export the encoder in f16
    ");
}

#[test]
fn external_data_is_read_and_is_in_the_digest() {
    let (dir, path) = external("weights.bin", 64);
    let tiny = ModelProto::decode(std::fs::read(fixture("tiny.onnx")).unwrap().as_slice()).unwrap();
    let mut data = vec![7; 64];
    data.extend(tiny.graph.unwrap().initializer[0].raw_data());
    std::fs::write(dir.path().join("weights.bin"), &data).unwrap();
    init_runtime(None).unwrap();
    let plan = of("c1");
    let images = pictures(&plan, 1);
    let inside = run(&compile(&fixture("tiny.onnx"), &plan).unwrap(), &images, 1);
    assert_eq!(run(&compile(&path, &plan).unwrap(), &images, 1), inside);
    let before = model_digest(&path).unwrap();
    data[0] = 8;
    std::fs::write(dir.path().join("weights.bin"), &data).unwrap();
    assert_ne!(model_digest(&path).unwrap(), before);
}

#[test]
fn buffers_of_the_wrong_size() {
    init_runtime(None).unwrap();
    let plan = of("logits");
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let mut session = EncoderSession::new(&encoder, Device::Cpu, 1).unwrap();
    let images = pictures(&plan, 1);
    let mut words = [0u64; 5];
    let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    insta::assert_snapshot!(session.run(&images[1..], &mut [&mut memory[..32]]).unwrap_err(), @"bytes of the pictures of a batch: expected 384, found `383`");
    insta::assert_snapshot!(session.run(&images, &mut []).unwrap_err(), @"output buffers: expected 1, found `0`");
    insta::assert_snapshot!(session.run(&images, &mut [&mut memory[..31]]).unwrap_err(), @"bytes of a batch of rows of `x`: expected 32, found `31`");
    insta::assert_snapshot!(session.run(&images, &mut [&mut memory[1..33]]).unwrap_err(), @"offset of the rows of `x` from a multiple of 4 bytes: expected 0, found `1`");
    session.run(&images, &mut [&mut memory[..32]]).unwrap();
}

#[test]
fn words_that_cannot_be_read() {
    insta::assert_snapshot!("gpu".parse::<Device>().unwrap_err(), @r"
    `gpu` is no device
    hint: cpu, cuda, cuda:N, or several GPUs such as cuda:0,1
    ");
    insta::assert_snapshot!("7x8".parse::<Pool>().unwrap_err(), @r"
    `7x8` is no pooling
    hint: none, global, flatten, or a grid such as 7x7
    ");
    for (text, device) in [("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))] {
        assert_eq!(text.parse::<Device>().unwrap(), device);
    }
    for text in ["cpu", "cuda:0", "cuda:3", "cuda:0,1", "cuda:3,1,2"] {
        assert_eq!(text.parse::<Devices>().unwrap().to_string(), text);
    }
    assert_eq!("cuda".parse::<Devices>().unwrap().as_slice(), [Device::Cuda(0)]);
    for text in ["cuda:", "cuda:0,", "cuda:,1", "cuda:0,x", "cpu,cuda", "cuda,1", "cuda:0,-1", "cuda:0, 1"] {
        assert!(matches!(text.parse::<Devices>(), Err(EncoderError::DeviceSyntax { .. })), "{text}");
    }
    insta::assert_snapshot!("cuda:0,1,0".parse::<Devices>().unwrap_err(), @r"
    `cuda:0,1,0` names GPU 0 twice
    hint: name each once; a GPU gets two sessions by itself
    ");
    for pool in [Pool::None, Pool::Global, Pool::Grid(14)] {
        assert_eq!(pool.to_string().parse::<Pool>().unwrap(), pool);
    }
}

#[test]
fn runtime_and_export_messages() {
    let found = EncoderError::RuntimeNotLoaded;
    insta::assert_snapshot!(found, @r"
    ONNX Runtime has not been loaded
    hint: call `init_runtime` first
    ");
    let large = EncoderError::TooLarge { path: "m.onnx".into(), bytes: 1 << 31 };
    insta::assert_snapshot!(large, @r"
    `m.onnx` needs 2147483648 bytes in one message, and ONNX holds at most 2147483647
    hint: tap an earlier layer, or export the encoder in f16
    ");
    let failed = EncoderError::Export { name: "resnet18".to_owned(), message: "why\nhint: how".to_owned() };
    insta::assert_snapshot!(failed, @r"
    exporting `resnet18` failed: why
    hint: how
    ");
    // Its errors are made by the library.
    init_runtime(None).unwrap();
    let source = || ort::Error::new("no");
    insta::assert_snapshot!(EncoderError::RuntimeStart { source: source() }, @"ONNX Runtime would not start");
    insta::assert_snapshot!(EncoderError::Run { source: source() }, @"the encoder failed on a batch");
}
