//! How a session's memory meets the caller's: pictures in, rows out.
//!
//! Must not know graphs or devices. The caller's rows are lent to ONNX Runtime for one run: bound before it and unbound after it, on success
//! and on failure, so that no pointer outlives the borrow. Pictures go in as `f32`, made here, or as the bytes that they are where the graph
//! begins with the prologue. All `unsafe` of running is here.
//!
//! All of it is ordinary memory, on a GPU too. Page-locked memory would cross the bus faster, but with such buffers bound ONNX Runtime 1.31
//! refused the first run (`dst_data != src_data was false`, an H200); what it does with ordinary memory, every Python user relies on. Two
//! sessions a GPU hide the copies.

use half::{bf16, f16};
use icecap_cache::Dtype;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::IoBinding;
use ort::value::{PrimitiveTensorElementType, Shape, Tensor, TensorRefMut};

use super::compile::{CompiledEncoder, Output};
use super::pixels::Affine;
use super::prologue;

/// The pictures of a batch, in the session's own memory.
pub(super) enum Pictures {
    /// What a graph without the prologue takes.
    Normalized { name: String, images: Tensor<f32>, affine: Affine, area: usize },
    /// What the prologue takes.
    Bytes(Tensor<u8>),
}

impl Pictures {
    /// For a graph without the prologue.
    pub fn normalized(encoder: &CompiledEncoder) -> ort::Result<Self> {
        let plan = encoder.plan();
        let (name, layout) = encoder.input();
        Ok(Self::Normalized {
            name: name.to_owned(),
            images: Tensor::new(&Allocator::default(), layout.shape(plan.batch, plan.height, plan.width))?,
            affine: Affine::new(&plan.normalize, layout),
            area: plan.height * plan.width,
        })
    }

    /// For a graph with the prologue.
    pub fn bytes(encoder: &CompiledEncoder) -> ort::Result<Self> {
        let plan = encoder.plan();
        Ok(Self::Bytes(Tensor::new(&Allocator::default(), [plan.batch, plan.height, plan.width, 3])?))
    }

    /// Takes in a batch and binds it. Binding is what sends it to a device.
    pub fn bind(&mut self, binding: &mut IoBinding, pixels: &[u8]) -> ort::Result<()> {
        match self {
            Self::Normalized { name, images, affine, area } => {
                affine.apply(pixels, *area, images.extract_tensor_mut().1);
                binding.bind_input(name.as_str(), images)
            }
            Self::Bytes(images) => {
                images.extract_tensor_mut().1.copy_from_slice(pixels);
                binding.bind_input(prologue::IMAGES, images)
            }
        }
    }
}

impl Output {
    fn shape(&self) -> Shape {
        self.shape.iter().map(|&size| size as i64).collect()
    }

    /// Lends `rows` to the session as this output. The caller unbinds it (`clear_outputs`) before the borrow of its rows ends.
    pub(super) fn lend(&self, binding: &mut IoBinding, rows: &mut [u8]) -> ort::Result<()> {
        match self.info.dtype {
            Dtype::F16 => self.lend_as::<f16>(binding, rows),
            Dtype::Bf16 => self.lend_as::<bf16>(binding, rows),
            _ => self.lend_as::<f32>(binding, rows),
        }
    }

    fn lend_as<T: PrimitiveTensorElementType + std::fmt::Debug>(
        &self,
        binding: &mut IoBinding,
        rows: &mut [u8],
    ) -> ort::Result<()> {
        // SAFETY: `rows` is CPU memory of exactly this shape in elements of `T` and aligned to them (the session's check). The tensor
        // borrows it; the session unbinds it before the borrow of the caller's slices ends.
        let tensor =
            unsafe { TensorRefMut::<T>::from_raw(MemoryInfo::default(), rows.as_mut_ptr().cast(), self.shape())? };
        binding.bind_output(self.name.as_str(), tensor)
    }
}
