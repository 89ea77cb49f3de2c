//! Runs a compiled encoder: one session a worker, rows written straight into the caller's memory.
//!
//! Must not know files or caches. On a GPU a session has one batch under way: two sessions, fed from one queue, keep it busy, one
//! computing while the other's rows and pictures travel. That costs the weights twice, and needs no streams or events of our own.
//!
//! Denormals are left as they are: ONNX Runtime's switch changes the thread that opens the session for good, and trained
//! encoders hold none (39.2 against 39.6 images/s, within the noise).

use std::sync::Arc;

use icecap_cache::Dtype;
use ort::ep::ArenaExtendStrategy;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{IoBinding, Session};

use super::blocked::{self, Table};
use super::buffers::Pictures;
use super::compile::{CompiledEncoder, Output};
use super::device::Device;
use super::plan::Precision;
use super::regions::{RegionInput, RegionWeights};
use super::{EncoderError, runtime};

/// One worker's session. [`EncoderSession::run`] takes exactly a batch.
pub struct EncoderSession {
    session: Session,
    binding: IoBinding,
    pictures: Pictures,
    outputs: Vec<Output>,
    /// By output: where its regions are, for each of its tensors; none for other columns.
    regions: Vec<Vec<RegionWeights>>,
    batch: usize,
    images_bytes: usize,
    kernels: Kernels,
    precision: Precision,
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
                Some(fast) => Self::open(encoder, device, intra_threads, &fast.bytes, Some(&fast.table), false),
                None => Self::open(encoder, device, intra_threads, encoder.model_bytes(device)?, None, false),
            },
            _ => Self::open(encoder, device, intra_threads, encoder.model_bytes(device)?, None, false),
        }
    }

    /// A session on the CPU of the graph for a GPU, which begins with the prologue.
    #[cfg(test)]
    pub(super) fn rehearsal(encoder: &CompiledEncoder) -> Result<Self, EncoderError> {
        Self::open(encoder, Device::Cpu, 1, encoder.model_bytes(Device::Cuda(0))?, None, true)
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
        prologue: bool,
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
        let pictures = match device {
            Device::Cpu if !prologue => Pictures::normalized(encoder),
            _ => Pictures::bytes(encoder),
        };
        let pictures = pictures.map_err(rejected)?;
        let outputs = encoder.graph_outputs().to_vec();
        let weights = |input: &RegionInput| RegionWeights::new(input.clone(), plan.batch, [plan.height, plan.width]);
        let regions = outputs.iter().map(|output| output.regions.iter().map(weights).collect::<ort::Result<Vec<_>>>());
        let regions = regions.collect::<ort::Result<Vec<_>>>().map_err(rejected)?;
        Ok(Self {
            session,
            binding,
            pictures,
            outputs,
            regions,
            batch: plan.batch,
            images_bytes: plan.images_bytes(),
            kernels,
            precision: plan.precision,
        })
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
    /// [`EncoderError::Buffer`] for a buffer of another length or not aligned to its elements; [`EncoderError::Run`];
    /// [`EncoderError::NotFinite`] where f16 was too small for the network.
    pub fn run(&mut self, images: &[u8], outputs: &mut [&mut [u8]]) -> Result<(), EncoderError> {
        self.check(images, outputs)?;
        let answer = self.bind_and_run(images, outputs);
        // The session must not keep pointers into slices that were lent for this call.
        self.binding.clear_outputs();
        answer.map_err(|source| EncoderError::Run { source })?;
        if self.precision.is_f32() { Ok(()) } else { self.check_range(outputs) }
    }

    fn bind_and_run(&mut self, images: &[u8], outputs: &mut [&mut [u8]]) -> ort::Result<()> {
        self.pictures.bind(&mut self.binding, images)?;
        self.outputs.iter().zip(outputs).try_for_each(|(output, rows)| output.lend(&mut self.binding, rows))?;
        self.regions.iter().flatten().try_for_each(|regions| regions.bind(&mut self.binding))?;
        self.session.run_binding(&self.binding).map(drop)
    }

    /// f16 ends at 65504. What goes beyond becomes infinite, and then, a layer later, no number at all: never a row.
    fn check_range(&self, outputs: &[&mut [u8]]) -> Result<(), EncoderError> {
        for (output, rows) in self.outputs.iter().zip(outputs) {
            if !finite(output.info.dtype, rows) {
                return Err(EncoderError::NotFinite { column: output.info.name.clone() });
            }
        }
        Ok(())
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
}

/// Whether every element of `rows` is a finite number; i8 rows are f32 until they are quantised.
#[must_use]
pub fn finite(dtype: Dtype, rows: &[u8]) -> bool {
    const INFINITE_F16: u16 = 0x7c00;
    const INFINITE_BF16: u16 = 0x7f80;
    // Folded without a way out, so that it is a few vector instructions a row.
    let halves = |infinite: u16| {
        let words = rows.as_chunks::<2>().0.iter();
        words.fold(true, |finite, word| finite & (u16::from_le_bytes(*word) & infinite != infinite))
    };
    match dtype {
        Dtype::F16 => halves(INFINITE_F16),
        Dtype::Bf16 => halves(INFINITE_BF16),
        // Whatever else there is leaves the graph as f32.
        _ => rows.as_chunks::<4>().0.iter().fold(true, |finite, word| finite & f32::from_le_bytes(*word).is_finite()),
    }
}

/// Session options for a device; the outer error is that no runtime is loaded.
pub(super) fn options(device: Device, intra_threads: usize) -> Result<ort::Result<SessionBuilder>, EncoderError> {
    let environment = match device {
        Device::Cpu => runtime::environment()?,
        Device::Cuda(_) => runtime::environment_for_gpu()?,
    };
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
                let cuda = ort::ep::CUDA::default()
                    .with_device_id(number as i32)
                    .with_prefer_nhwc(true)
                    // f32 is f32: TF32 keeps ten bits of a weight, as f16 does, at half its speed. Who wants that asks for f16.
                    .with_tf32(false)
                    // Shapes never change: what the first batch needs is all there will be, in each of two sessions.
                    .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested);
                Ok(builder.with_execution_providers([cuda.build().error_on_failure()])?)
            }
        }
    };
    Ok(build())
}
