//! The compiled encoder against plain loops, on the tiny models of tests/fixtures/encoder. They need ONNX Runtime (`make setup`).

mod errors;
mod joined;
mod kernels;
mod precision;
mod regions;
mod rows;

use std::path::{Path, PathBuf};

use icecap_cache::Dtype;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder").join(name)
}

fn tap(name: &str, tensor: &str, pool: Pool, dtype: Dtype) -> Tap {
    Tap { name: name.to_owned(), tensors: vec![tensor.to_owned()], pool, l2: false, dtype, regions: None }
}

fn plan(batch: usize, [height, width]: [usize; 2], taps: Vec<Tap>) -> EncoderPlan {
    EncoderPlan { normalize: Normalize::default(), height, width, batch, precision: Precision::F32, taps }
}

/// Pictures of noise, seeded.
fn pictures(plan: &EncoderPlan, seed: u32) -> Vec<u8> {
    let noise =
        |index: u32| (index.wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35);
    (0..plan.images_bytes() as u32).map(|index| (noise(index) >> 24) as u8).collect()
}

/// Memory of output rows, aligned as a shard is.
fn buffers(encoder: &CompiledEncoder) -> Vec<Vec<u64>> {
    let bytes = |output: &OutputInfo| encoder.plan().batch * output.row_bytes();
    encoder.outputs().iter().map(|output| vec![u64::MAX; bytes(output).div_ceil(8)]).collect()
}

/// Every column's bytes for one batch, by own kernels where the model takes them.
fn run(encoder: &CompiledEncoder, images: &[u8], threads: usize) -> Vec<Vec<u8>> {
    run_by(encoder, images, threads, Kernels::Own)
}

fn run_by(encoder: &CompiledEncoder, images: &[u8], threads: usize, kernels: Kernels) -> Vec<Vec<u8>> {
    let mut session = EncoderSession::with_kernels(encoder, Device::Cpu, threads, kernels).unwrap();
    let mut memory = buffers(encoder);
    let lengths: Vec<usize> =
        encoder.outputs().iter().map(|output| encoder.plan().batch * output.row_bytes()).collect();
    let mut rows: Vec<&mut [u8]> =
        memory.iter_mut().zip(&lengths).map(|(words, &bytes)| &mut bytemuck::cast_slice_mut(words)[..bytes]).collect();
    session.run(images, &mut rows).unwrap();
    rows.into_iter().map(|rows| rows.to_vec()).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Compiles and runs in one go; one column as floats.
fn column(model: &str, plan: &EncoderPlan, seed: u32) -> Vec<f32> {
    init_runtime(None).unwrap();
    let encoder = compile(&fixture(model), plan).unwrap();
    f32s(&run(&encoder, &pictures(plan, seed), 1)[0])
}
