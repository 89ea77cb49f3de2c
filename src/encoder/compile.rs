//! Edits a model into an encoder: taps become outputs, what no tap needs is dropped, rows are finished in the graph.
//!
//! Must not know sessions or pictures. A compiled encoder keeps the edited graph and not the bytes, because the bytes
//! differ by device: on the CPU the input is `f32` and written by [`super::pixels`], elsewhere the prologue is in the
//! graph. Either form is serialised once, when the first session asks for it, and shared by all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use icecap_cache::Dtype;
use ort::value::TensorElementType;

use super::blocked::{self, Shapes, Table};
use super::build::{Builder, value_info};
use super::device::Device;
use super::input::{ImageInput, Layout};
use super::model::Model;
use super::onnx::OperatorSetIdProto;
use super::plan::{EncoderPlan, Precision, Tap, key_fields};
use super::probe::Probed;
use super::regions::RegionInput;
use super::{EncoderError, Kernels, epilogue, graph, halve, probe, prologue, taps};

/// What one output of a compiled encoder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputInfo {
    /// The column.
    pub name: String,
    /// Shape of a row.
    pub row_shape: Vec<usize>,
    /// The element type in which it is given out.
    pub dtype: Dtype,
}

impl OutputInfo {
    /// Elements of a row.
    pub fn row_elements(&self) -> usize {
        self.row_shape.iter().product()
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_elements() * self.dtype.size_bytes()
    }
}

/// A model edited for a plan, from which sessions are opened. Cheap to clone.
#[derive(Clone)]
pub struct CompiledEncoder {
    inner: Arc<Inner>,
}

/// An output of the edited graph.
#[derive(Clone)]
pub(super) struct Output {
    pub name: String,
    /// Its shape, batch first.
    pub shape: Vec<usize>,
    pub info: OutputInfo,
    /// The inputs that say where its regions are, one for each of its tensors; none for other columns.
    pub regions: Vec<RegionInput>,
}

struct Inner {
    plan: EncoderPlan,
    model: Model,
    /// Name of the `f32` input, and where its channels are.
    input: String,
    layout: Layout,
    outputs: Vec<Output>,
    infos: Vec<OutputInfo>,
    shapes: Shapes,
    notes: Vec<String>,
    host: OnceLock<Vec<u8>>,
    device: OnceLock<Vec<u8>>,
    fast: OnceLock<Option<Fast>>,
}

/// The model for the CPU with icecap's own kernels.
pub(super) struct Fast {
    pub bytes: Vec<u8>,
    pub table: Arc<Table>,
}

/// Edits the model at `path` for `plan`. Loads ONNX Runtime's shape inference, so [`super::init_runtime`] comes first.
///
/// # Errors
/// An unreadable or foreign file, no image input, a tap that does not exist or holds no rows, a picture size or batch
/// that the file rules out. See [`EncoderError`].
pub fn compile(path: &Path, plan: &EncoderPlan) -> Result<CompiledEncoder, EncoderError> {
    plan.check()?;
    let mut model = Model::read(path)?;
    let image = ImageInput::find(&model)?;
    image.check_size(&model, plan.height, plan.width)?;
    let tensors: Vec<&str> = plan.taps.iter().flat_map(|tap| &tap.tensors).map(String::as_str).collect();
    taps::check(&model, &image, &tensors)?;
    graph::prune(model.graph_mut(), &tensors);
    graph::gather_constants(model.graph_mut());
    model.inline_external()?;
    modernise(&mut model);
    let (mut probed, shapes) = taps::probe(&model, &image, plan, &tensors)?;
    let shape = image.shape(plan.batch, plan.height, plan.width);
    let input = probe::fix_input(&mut model, &image, shape);
    let mut notes = Vec::new();
    if plan.precision == Precision::F16 {
        let halved = halve::rewrite(&mut model, &input, shape, &tensors)?;
        for (_, probed) in tensors.iter().zip(&mut probed).filter(|(tensor, _)| halved.half.contains(**tensor)) {
            probed.element = TensorElementType::Float16;
        }
        notes = halved.notes;
    }
    let outputs = add_epilogue(&mut model, plan, &probed)?;
    let infos = outputs.iter().map(|output| output.info.clone()).collect();
    let inner = Inner {
        plan: plan.clone(),
        model,
        input,
        layout: image.layout,
        outputs,
        infos,
        shapes,
        notes,
        host: OnceLock::new(),
        device: OnceLock::new(),
        fast: OnceLock::new(),
    };
    Ok(CompiledEncoder { inner: Arc::new(inner) })
}

/// Before IR version 4 every weight had to be an input as well; pruning has just removed those inputs.
fn modernise(model: &mut Model) {
    model.proto.ir_version = Some(model.proto.ir_version().max(4));
}

fn add_epilogue(model: &mut Model, plan: &EncoderPlan, probed: &[Probed]) -> Result<Vec<Output>, EncoderError> {
    let opset = model.opset();
    let graph = model.graph_mut();
    let mut builder = Builder::new(graph, opset);
    let mut outputs = Vec::with_capacity(plan.taps.len());
    let mut declared = Vec::with_capacity(plan.taps.len());
    let mut probed = probed;
    for (index, tap) in plan.taps.iter().enumerate() {
        let (own, rest) = probed.split_at(tap.tensors.len());
        probed = rest;
        let rows = epilogue::rows(&mut builder, tap, own, index)?;
        let name = output_name(index);
        epilogue::finish(&mut builder, &rows.tensor, &name, rows.info.dtype);
        let shape: Vec<usize> = std::iter::once(plan.batch).chain(rows.shape).collect();
        declared.push(value_info(&name, epilogue::element_type(rows.info.dtype), &shape));
        outputs.push(Output { name, shape, info: rows.info, regions: rows.regions });
    }
    builder.append();
    graph.output = declared;
    graph.input.extend(outputs.iter().flat_map(|output| &output.regions).map(|regions| regions.declare(plan.batch)));
    Ok(outputs)
}

/// Name of the graph output of the column of this index.
fn output_name(index: usize) -> String {
    format!("icecap.rows.{index}")
}

impl CompiledEncoder {
    /// The plan it was compiled for.
    pub fn plan(&self) -> &EncoderPlan {
        &self.inner.plan
    }

    /// The columns, in the order of the plan's taps.
    pub fn outputs(&self) -> &[OutputInfo] {
        &self.inner.infos
    }

    /// The digest of the model for keys; see [`super::model_digest`].
    pub fn model_digest(&self) -> &str {
        &self.inner.model.digest
    }

    /// The file it was compiled from.
    pub fn path(&self) -> &Path {
        &self.inner.model.path
    }

    /// What whoever asked for this precision should know: weights that f16 cannot hold.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// Nodes of the edited graph, prologue left out.
    pub fn nodes(&self) -> usize {
        self.inner.model.graph().node.len()
    }

    /// Everything of the encoder that decides the bytes of a column; nothing for a column it does not have.
    pub fn key_fields(&self, column: &str) -> Option<Vec<(String, serde_json::Value)>> {
        let tap: &Tap = self.inner.plan.taps.iter().find(|tap| tap.name == column)?;
        Some(key_fields(self.model_digest(), self.plan(), tap))
    }

    /// The edited model for a device.
    ///
    /// # Errors
    /// [`EncoderError::TooLarge`] when it does not fit in one message.
    pub fn model_bytes(&self, device: Device) -> Result<&[u8], EncoderError> {
        let (cell, on_host) = match device {
            Device::Cpu => (&self.inner.host, true),
            Device::Cuda(_) => (&self.inner.device, false),
        };
        if let Some(bytes) = cell.get() {
            return Ok(bytes);
        }
        let bytes = if on_host {
            self.inner.model.to_bytes()?
        } else {
            let mut model = self.inner.model.clone();
            prologue::add(&mut model, &self.inner.input, self.inner.layout, &self.inner.plan);
            model.to_bytes()?
        };
        Ok(cell.get_or_init(|| bytes))
    }

    /// Whose kernels a session on `device` runs: see [`super::EncoderSession::new`].
    ///
    /// # Errors
    /// As [`CompiledEncoder::model_bytes`].
    pub fn kernels(&self, device: Device) -> Result<Kernels, EncoderError> {
        let own = device == Device::Cpu && Kernels::default() == Kernels::Own && self.fast()?.is_some();
        Ok(if own { Kernels::Own } else { Kernels::Provider })
    }

    /// The model for the CPU with icecap's own kernels, where this processor has them and the model gains by them.
    pub(super) fn fast(&self) -> Result<Option<&Fast>, EncoderError> {
        if let Some(fast) = self.inner.fast.get() {
            return Ok(fast.as_ref());
        }
        // Its kernels are made of f32.
        if self.inner.plan.precision != Precision::F32 {
            return Ok(None);
        }
        let mut model = self.inner.model.clone();
        let opset = model.opset();
        let fast = match blocked::rewrite(model.graph_mut(), opset, &self.inner.shapes) {
            Some(table) => {
                let domain = OperatorSetIdProto { domain: Some(blocked::DOMAIN.to_owned()), version: Some(1) };
                model.proto.opset_import.push(domain);
                Some(Fast { bytes: model.to_bytes()?, table: Arc::new(table) })
            }
            None => None,
        };
        Ok(self.inner.fast.get_or_init(|| fast).as_ref())
    }

    pub(super) fn input(&self) -> (&str, Layout) {
        (&self.inner.input, self.inner.layout)
    }

    pub(super) fn graph_outputs(&self) -> &[Output] {
        &self.inner.outputs
    }

    pub(super) fn path_buf(&self) -> PathBuf {
        self.inner.model.path.clone()
    }
}
