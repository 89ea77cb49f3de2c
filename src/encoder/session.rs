//! Runs a compiled encoder: one session a worker, rows written straight into the caller's memory.
//!
//! Must not know files or caches. The output slices are lent to ONNX Runtime for one run only: they are bound before it
//! and unbound after it, on success and on failure, so that no pointer outlives the borrow. All `unsafe` of running is here.
//!
//! Denormals are left as they are: ONNX Runtime's switch changes the thread that opens the session for good, and trained
//! encoders hold none (39.2 against 39.6 images/s, within the noise).

use std::sync::Arc;

use half::{bf16, f16};
use icecap_cache::Dtype;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{IoBinding, Session};
use ort::value::{PrimitiveTensorElementType, Shape, Tensor, TensorRefMut};

use super::blocked::{self, Table};
use super::compile::{CompiledEncoder, Output};
use super::pixels::Affine;
use super::plan::Device;
use super::regions::{RegionInput, RegionWeights};
use super::{EncoderError, prologue, runtime};

/// One worker's session. [`EncoderSession::run`] takes exactly a batch.
pub struct EncoderSession {
    session: Session,
    binding: IoBinding,
    input: Input,
    outputs: Vec<Output>,
    /// By output: where its regions are, for each of its tensors; none for other columns.
    regions: Vec<Vec<RegionWeights>>,
    batch: usize,
    images_bytes: usize,
    kernels: Kernels,
}

/// Who computes the convolutions on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// icecap, by Winograd's way, where the processor and the model allow.
    Own,
    /// ONNX Runtime.
    Provider,
}

impl Default for Kernels {
    /// icecap's own, but in a debug build, where they are seventy times slower than they should be.
    fn default() -> Self {
        if cfg!(debug_assertions) { Self::Provider } else { Self::Own }
    }
}

/// What the session reads.
enum Input {
    /// `f32`, written by the CPU.
    Host { name: String, images: Tensor<f32>, affine: Affine, area: usize },
    /// The bytes themselves.
    Device { images: Tensor<u8> },
}

impl EncoderSession {
    /// Opens a session on `device` that computes on `intra_threads` threads, the caller's among them, with the default
    /// [`Kernels`].
    ///
    /// Stage one opens one session of one thread a core. That is the faster way (118 images/s of a ResNet-18 on 2 cores,
    /// against 97 with one session of two threads), and the one whose rows are a function of the picture alone: with more
    /// threads than images in a batch, ONNX Runtime splits a matrix product by thread, and its sums round differently.
    ///
    /// # Errors
    /// [`EncoderError::Rejected`] where ONNX Runtime refuses the model or the device.
    pub fn new(encoder: &CompiledEncoder, device: Device, intra_threads: usize) -> Result<Self, EncoderError> {
        Self::with_kernels(encoder, device, intra_threads, Kernels::default())
    }

    /// The same with the kernels named. Own kernels are for the CPU, and for models that gain by them; elsewhere it is
    /// always the provider's.
    ///
    /// # Errors
    /// As [`EncoderSession::new`].
    pub fn with_kernels(
        encoder: &CompiledEncoder,
        device: Device,
        intra_threads: usize,
        kernels: Kernels,
    ) -> Result<Self, EncoderError> {
        match (device, kernels) {
            (Device::Cpu, Kernels::Own) => match encoder.fast()? {
                Some(fast) => Self::open(encoder, device, intra_threads, &fast.bytes, Some(&fast.table)),
                None => Self::open(encoder, device, intra_threads, encoder.model_bytes(device)?, None),
            },
            _ => Self::open(encoder, device, intra_threads, encoder.model_bytes(device)?, None),
        }
    }

    /// Which kernels it runs, for a column's provenance: rows of different kernels differ in their last bits.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    fn open(
        encoder: &CompiledEncoder,
        device: Device,
        intra_threads: usize,
        bytes: &[u8],
        table: Option<&Arc<Table>>,
    ) -> Result<Self, EncoderError> {
        let rejected = |source| EncoderError::Rejected { path: encoder.path_buf(), source };
        let mut builder = options(device, intra_threads)?.map_err(rejected)?;
        if let Some(table) = table {
            let domain = blocked::domain(table).map_err(rejected)?;
            builder = builder.with_operators(domain).map_err(|error| rejected(error.into()))?;
        }
        let kernels = if table.is_some() { Kernels::Own } else { Kernels::Provider };
        let session = builder.commit_from_memory(bytes).map_err(rejected)?;
        let binding = session.create_binding().map_err(rejected)?;
        let plan = encoder.plan();
        let input = Input::new(encoder, device).map_err(rejected)?;
        let outputs = encoder.graph_outputs().to_vec();
        let weights = |input: &RegionInput| RegionWeights::new(input.clone(), plan.batch, [plan.height, plan.width]);
        let regions = outputs.iter().map(|output| output.regions.iter().map(weights).collect::<ort::Result<Vec<_>>>());
        let regions = regions.collect::<ort::Result<Vec<_>>>().map_err(rejected)?;
        let (batch, images_bytes) = (plan.batch, plan.images_bytes());
        Ok(Self { session, binding, input, outputs, regions, batch, images_bytes, kernels })
    }

    /// Images a run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Sets the regions of picture `at` of the next batch for the output `output`, a column of regions: boxes `[x1, y1, x2, y2]` in
    /// pixels of the encoder's input. Vectors of a row beyond the last box are zero. Other outputs have no regions to set.
    ///
    /// # Errors
    /// [`EncoderError::Buffer`] for more boxes than a row has vectors.
    pub fn set_regions(&mut self, output: usize, at: usize, boxes: &[[f32; 4]]) -> Result<(), EncoderError> {
        self.regions.get_mut(output).into_iter().flatten().try_for_each(|weights| weights.set(at, boxes))
    }

    /// Encodes one batch: `images` is `[batch, H, W, 3]`, and `outputs[i]` gets `batch` rows of column `i`. The last,
    /// shorter batch is padded by the caller; a row does not depend on the others.
    ///
    /// # Errors
    /// [`EncoderError::Buffer`] for a buffer of another length or not aligned to its elements; [`EncoderError::Run`].
    pub fn run(&mut self, images: &[u8], outputs: &mut [&mut [u8]]) -> Result<(), EncoderError> {
        self.check(images, outputs)?;
        let answer = self.bind_and_run(images, outputs);
        // Whatever happened, the session must not keep pointers into slices that were lent for this call.
        self.binding.clear_outputs();
        answer.map_err(|source| EncoderError::Run { source })
    }

    fn check(&self, images: &[u8], outputs: &[&mut [u8]]) -> Result<(), EncoderError> {
        let same = |what: &dyn Fn() -> String, expected: usize, found: usize| {
            if expected == found { Ok(()) } else { Err(EncoderError::Buffer { what: what(), expected, found }) }
        };
        same(&|| "bytes of the pictures of a batch".to_owned(), self.images_bytes, images.len())?;
        same(&|| "output buffers".to_owned(), self.outputs.len(), outputs.len())?;
        for (output, rows) in self.outputs.iter().zip(outputs) {
            let name = &output.info.name;
            same(
                &|| format!("bytes of a batch of rows of `{name}`"),
                self.batch * output.info.row_bytes(),
                rows.len(),
            )?;
            let size = output.info.dtype.size_bytes();
            same(
                &|| format!("offset of the rows of `{name}` from a multiple of {size} bytes"),
                0,
                rows.as_ptr() as usize % size,
            )?;
        }
        Ok(())
    }

    fn bind_and_run(&mut self, images: &[u8], rows: &mut [&mut [u8]]) -> ort::Result<()> {
        self.input.fill(images);
        self.input.bind(&mut self.binding)?;
        self.regions.iter().flatten().try_for_each(|regions| regions.bind(&mut self.binding))?;
        for (output, rows) in self.outputs.iter().zip(rows) {
            output.bind(&mut self.binding, rows)?;
        }
        self.session.run_binding(&self.binding).map(drop)
    }
}

/// Session options for a device; the outer error is that no runtime is loaded.
pub(super) fn options(device: Device, intra_threads: usize) -> Result<ort::Result<SessionBuilder>, EncoderError> {
    let environment = runtime::environment()?;
    let build = || {
        let builder = Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(intra_threads.max(1))?
            .with_inter_threads(1)?
            // Workers share the cores with the decoders: a thread that waits must sleep, not spin.
            .with_intra_op_spinning(false)?;
        match device {
            Device::Cpu => Ok(builder),
            Device::Cuda(number) => {
                let cuda = ort::ep::CUDA::default().with_device_id(number as i32).with_prefer_nhwc(true);
                Ok(builder.with_execution_providers([cuda.build().error_on_failure()])?)
            }
        }
    };
    Ok(build())
}

impl Input {
    fn new(encoder: &CompiledEncoder, device: Device) -> ort::Result<Self> {
        let plan = encoder.plan();
        let (batch, height, width) = (plan.batch, plan.height, plan.width);
        let memory = Allocator::default();
        let (name, layout) = encoder.input();
        Ok(match device {
            Device::Cpu => Self::Host {
                name: name.to_owned(),
                images: Tensor::new(&memory, layout.shape(batch, height, width))?,
                affine: Affine::new(&plan.normalize, layout),
                area: height * width,
            },
            Device::Cuda(_) => Self::Device { images: Tensor::new(&memory, [batch, height, width, 3])? },
        })
    }

    fn fill(&mut self, pixels: &[u8]) {
        match self {
            Self::Host { images, affine, area, .. } => affine.apply(pixels, *area, images.extract_tensor_mut().1),
            Self::Device { images } => images.extract_tensor_mut().1.copy_from_slice(pixels),
        }
    }

    fn bind(&self, binding: &mut IoBinding) -> ort::Result<()> {
        match self {
            Self::Host { name, images, .. } => binding.bind_input(name.as_str(), images),
            Self::Device { images } => binding.bind_input(prologue::IMAGES, images),
        }
    }
}

impl Output {
    /// Lends `rows` to the session as this output.
    fn bind(&self, binding: &mut IoBinding, rows: &mut [u8]) -> ort::Result<()> {
        match self.info.dtype {
            // Rows of an i8 column are given out as `f32` (`Tap::given`): no output says i8.
            Dtype::F32 | Dtype::I8 => self.bind_as::<f32>(binding, rows),
            Dtype::F16 => self.bind_as::<f16>(binding, rows),
            Dtype::Bf16 => self.bind_as::<bf16>(binding, rows),
        }
    }

    fn bind_as<T: PrimitiveTensorElementType + std::fmt::Debug>(
        &self,
        binding: &mut IoBinding,
        rows: &mut [u8],
    ) -> ort::Result<()> {
        let shape: Shape = self.shape.iter().map(|&size| size as i64).collect();
        // SAFETY: `rows` is CPU memory of exactly this shape in elements of `T` and aligned to them (`check`). The tensor borrows
        // it; `run` unbinds it before its borrow of the caller's slices ends.
        let tensor = unsafe { TensorRefMut::<T>::from_raw(MemoryInfo::default(), rows.as_mut_ptr().cast(), shape)? };
        binding.bind_output(self.name.as_str(), tensor)
    }
}
