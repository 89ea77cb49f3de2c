//! How a session's memory meets the caller's: pictures in, rows out.
//!
//! Must not know graphs or devices. Two ways. On the CPU the caller's rows are lent to ONNX Runtime for one run: bound before it and
//! unbound after it, on success and on failure, so that no pointer outlives the borrow. A GPU reads and writes page-locked memory
//! at the full speed of the bus and without holding up other streams, and a mapped shard is none: there the session owns
//! both ends, allocated and bound once, and a batch costs two copies of bytes by the CPU and no allocation. All `unsafe` of
//! running is here.

use half::{bf16, f16};
use icecap_cache::Dtype;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::IoBinding;
use ort::value::{DynTensor, PrimitiveTensorElementType, Shape, Tensor, TensorElementType, TensorRefMut};

use super::compile::{CompiledEncoder, Output};
use super::pixels::Affine;
use super::prologue;

/// The two ways.
pub(super) enum Buffers {
    /// `f32` pictures, written by the CPU; rows where the caller wants them.
    Lent { name: String, images: Tensor<f32>, affine: Affine, area: usize },
    /// The bytes of the pictures; rows by output.
    Staged { images: Tensor<u8>, rows: Vec<DynTensor> },
}

impl Buffers {
    /// For a graph without the prologue.
    pub fn lent(encoder: &CompiledEncoder) -> ort::Result<Self> {
        let plan = encoder.plan();
        let (name, layout) = encoder.input();
        Ok(Self::Lent {
            name: name.to_owned(),
            images: Tensor::new(&Allocator::default(), layout.shape(plan.batch, plan.height, plan.width))?,
            affine: Affine::new(&plan.normalize, layout),
            area: plan.height * plan.width,
        })
    }

    /// For a graph with the prologue; both ends lie in `memory`, which the CPU can address, and the rows are bound for good.
    pub fn staged(encoder: &CompiledEncoder, memory: &Allocator, binding: &mut IoBinding) -> ort::Result<Self> {
        let plan = encoder.plan();
        let images = Tensor::new(memory, [plan.batch, plan.height, plan.width, 3])?;
        let mut rows = Vec::with_capacity(encoder.graph_outputs().len());
        for output in encoder.graph_outputs() {
            let mut tensor = DynTensor::new(memory, element_type(output.info.dtype), output.shape())?;
            binding.bind_output(output.name.as_str(), &mut tensor)?;
            rows.push(tensor);
        }
        Ok(Self::Staged { images, rows })
    }

    /// Takes in the pictures of a batch and binds what is bound for one run.
    pub fn before(
        &mut self,
        binding: &mut IoBinding,
        outputs: &[Output],
        pixels: &[u8],
        rows: &mut [&mut [u8]],
    ) -> ort::Result<()> {
        match self {
            Self::Lent { name, images, affine, area } => {
                affine.apply(pixels, *area, images.extract_tensor_mut().1);
                binding.bind_input(name.as_str(), images)?;
                outputs.iter().zip(rows).try_for_each(|(output, rows)| output.lend(binding, rows))
            }
            Self::Staged { images, .. } => {
                fill(images, pixels);
                // Binding is what sends them to the device.
                binding.bind_input(prologue::IMAGES, images)
            }
        }
    }

    /// Ends what [`Buffers::before`] began, whether the run succeeded or not; gives the caller the rows of one that did.
    pub fn after(&self, binding: &mut IoBinding, rows: &mut [&mut [u8]], succeeded: bool) {
        match self {
            // The session must not keep pointers into slices that were lent for this call.
            Self::Lent { .. } => binding.clear_outputs(),
            Self::Staged { rows: staged, .. } if succeeded => {
                staged.iter().zip(rows).for_each(|(staged, rows)| read(staged, rows));
            }
            Self::Staged { .. } => {}
        }
    }
}

/// Copies `pixels` into a tensor of as many bytes.
fn fill(images: &mut Tensor<u8>, pixels: &[u8]) {
    assert_eq!(images.shape().num_elements(), pixels.len(), "the session has checked the length");
    // SAFETY: the tensor owns so many bytes (asserted), in memory that the CPU addresses (`staged`): page-locked memory counts as
    // the device's with ONNX Runtime, which is why its own accessor refuses. No run is under way: `&mut` of the session is held.
    unsafe { images.data_ptr_mut().cast::<u8>().copy_from_nonoverlapping(pixels.as_ptr(), pixels.len()) };
}

/// Copies all of a tensor into `rows`, which has its length.
fn read(staged: &DynTensor, rows: &mut [u8]) {
    let bytes = staged.data_type().byte_size(staged.shape().num_elements()).unwrap_or(0);
    assert_eq!(bytes, rows.len(), "the session has checked the length");
    // SAFETY: as in `fill`; ONNX Runtime has written all of it, and a run ends with the device at rest.
    unsafe { rows.as_mut_ptr().copy_from_nonoverlapping(staged.data_ptr().cast::<u8>(), bytes) };
}

fn element_type(dtype: Dtype) -> TensorElementType {
    match dtype {
        Dtype::F16 => TensorElementType::Float16,
        Dtype::Bf16 => TensorElementType::Bfloat16,
        // Whatever else there is leaves the graph as f32.
        _ => TensorElementType::Float32,
    }
}

impl Output {
    fn shape(&self) -> Shape {
        self.shape.iter().map(|&size| size as i64).collect()
    }

    /// Lends `rows` to the session as this output.
    fn lend(&self, binding: &mut IoBinding, rows: &mut [u8]) -> ort::Result<()> {
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
        // borrows it; `after` unbinds it before the borrow of the caller's slices ends.
        let tensor =
            unsafe { TensorRefMut::<T>::from_raw(MemoryInfo::default(), rows.as_mut_ptr().cast(), self.shape())? };
        binding.bind_output(self.name.as_str(), tensor)
    }
}
