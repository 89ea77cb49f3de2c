//! The kernels as operators of ONNX Runtime, in a domain of their own.
//!
//! Must not know how they compute. One operator serves every entry of the table: its attribute `entry` says which, and an
//! optional second input is added to the result before it is cut at zero. Shapes are checked here, at the border, and the
//! kernels take them as given.

use std::sync::Arc;

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::pool::{ScratchPool, Workers};
use super::table::Table;

/// The domain's name in a graph.
pub(in crate::encoder) const DOMAIN: &str = "icecap";
/// The operator's name in a graph.
pub(super) const OPERATOR: &str = "Blocked";
/// The attribute that says which entry of the table.
pub(super) const ENTRY: &str = "entry";

/// The operators over a model's table, for one session.
pub(in crate::encoder) fn domain(table: &Arc<Table>) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?.add(Blocked { table: Arc::clone(table), scratch: Arc::default() })
}

struct Blocked {
    table: Arc<Table>,
    /// A session runs its nodes one after the other, so they all work in the same memory.
    scratch: Arc<ScratchPool>,
}

impl Operator for Blocked {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        OPERATOR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32), OperatorInput::optional(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, kernel: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let entry = kernel.get::<i64>(ENTRY).and_then(|entry| usize::try_from(entry).ok());
        let entry =
            entry.filter(|&entry| entry < self.table.0.len()).ok_or_else(|| ort::Error::new("no such entry"))?;
        let (table, scratch) = (Arc::clone(&self.table), Arc::clone(&self.scratch));
        Ok(Box::new(move |context: &ComputeContext| compute(&table, entry, &scratch, context)))
    }
}

fn compute(table: &Table, entry: usize, scratch: &ScratchPool, context: &ComputeContext) -> ort::Result<()> {
    let entry = &table.0[entry];
    let x = context.input(0)?.ok_or_else(|| ort::Error::new("an input is missing"))?;
    let (shape, x) = x.try_extract_tensor::<f32>()?;
    let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    let size = entry.output(&shape).ok_or_else(|| ort::Error::new(format!("no kernel for the shape {shape:?}")))?;
    let residual = if context.num_inputs()? > 1 { context.input(1)? } else { None };
    let residual = residual.as_ref().map(|residual| residual.try_extract_tensor::<f32>()).transpose()?;
    let residual = match residual {
        Some((other, _)) if other.iter().map(|&size| size as usize).ne(size.iter().copied()) => {
            return Err(ort::Error::new(format!("{other:?} cannot be added to {size:?}")));
        }
        Some((_, values)) => Some(values),
        None => None,
    };
    let mut out = context.output(0, size)?.ok_or_else(|| ort::Error::new("an output is missing"))?;
    let (_, out) = out.try_extract_tensor_mut::<f32>()?;
    let spread = |count: usize, work: &(dyn Fn(usize) + Sync)| {
        if context.par_for(count, 0, |index: usize| work(index)).is_err() {
            (0..count).for_each(work);
        }
    };
    entry.run(x, &shape, residual, out, &Workers { scratch, spread: &spread });
    Ok(())
}
