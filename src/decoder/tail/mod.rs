//! The encoder's last block as part of a decoder: a section of a network, trained from a cached earlier layer.
//!
//! Must not know ONNX files: a section comes as plain data. One decision defended: it is not a decoder of its own kind but a
//! shell around any decoder ([`Tailed`]). The decoder sees the section's vectors in the place of the cached column, its
//! parameters and the section's lie in one buffer, and the gradient of the mapping simply goes further back.
//!
//! Shapes: maps `[N, C, H, W]`, read from rows `[H*W, C]`, which for torch is the same memory in its channels-last order.

mod error;
mod files;
mod pool;
mod read;
mod step;
mod tailed;
#[cfg(test)]
mod tests;
mod window;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{ColumnInput, Params, ParamsBuilder};
use crate::{
    batch::Vectors,
    section::{Section, Weight},
};
pub use error::TailError;
pub use files::{read_section, write_section};
pub use pool::TailPool;
use read::{Declared, Reader};
use step::{Operator, Step, Training};
pub use tailed::Tailed;

/// What batch norms do while a tail is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// They keep the running statistics of the encoder, as detectors do; scale and shift learn.
    #[default]
    Frozen,
    /// They use the batch's statistics, and the running ones follow.
    Train,
}

/// A tail as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct TailPlan {
    /// The place of its column among the decoder's.
    pub column: usize,
    /// What is computed of the column's rows.
    pub section: Section,
    /// What the decoder sees of that.
    pub pool: TailPool,
    /// What its batch norms do.
    pub batch_norm: BatchNorm,
    /// The learning rate is multiplied by this for it.
    pub learning_rate_scale: f64,
}

impl TailPlan {
    /// The columns as the decoder behind the tail sees them.
    ///
    /// # Errors
    /// Where the section's end can't be pooled so, or the column's rows are not the section's beginning.
    pub fn inputs(&self, inputs: &[ColumnInput]) -> Result<Vec<ColumnInput>, TailError> {
        let mut inputs = inputs.to_vec();
        if let Some(input) = inputs.get_mut(self.column) {
            self.check_rows(input)?;
            let [vectors, width] = self.pool.shape(&self.section)?;
            (input.vectors, input.width) = (vectors, width);
        }
        Ok(inputs)
    }

    /// Whether the rows of `input` are the section's beginning: a map `[H*W, C]` or flat, tokens `[T, D]`, a vector `[D]`.
    fn check_rows(&self, input: &ColumnInput) -> Result<(), TailError> {
        let rows = (input.vectors, input.width);
        let fits = match *self.section.input.as_slice() {
            [channels, height, width] => rows == (height * width, channels) || rows == (1, channels * height * width),
            [tokens, width] => rows == (tokens, width) || rows == (1, tokens * width),
            [width] => rows == (1, width),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let (column, from, shape) = (input.name.clone(), self.section.from.clone(), self.section.input.clone());
        Err(TailError::Column { column, vectors: rows.0, width: rows.1, from, input: shape })
    }
}

/// A section with its parameters declared.
#[derive(Debug)]
struct Tail {
    plan: TailPlan,
    steps: Vec<Step>,
    declared: Vec<Declared>,
    tensors: usize,
    end: usize,
}

impl Tail {
    /// Declares the section's parameters, which are joined to `params` with their first values.
    fn join(plan: &TailPlan, params: &mut Params) -> Result<Self, TailError> {
        let section = &plan.section;
        let ends = || (section.from.clone(), section.to.clone());
        let mut builder = ParamsBuilder::joining(params, 0);
        let mut reader = Reader::new(section, &mut builder);
        let steps = reader.steps()?;
        let (tensors, end) = (reader.tensors(), reader.end().unwrap_or_default());
        let declared = reader.declared;
        if declared.iter().all(|declared| declared.handle.index().is_none()) {
            let (from, to) = ends();
            return Err(TailError::Nothing { from, to });
        }
        let has_norm = steps.iter().any(|step| matches!(step.operator, Operator::BatchNorm { .. }));
        if plan.batch_norm == BatchNorm::Train && !has_norm {
            let (from, to) = ends();
            return Err(TailError::NoBatchNorm { from, to });
        }
        params.join(builder.build(params.device()), plan.learning_rate_scale);
        let tail = Self { plan: plan.clone(), steps, declared, tensors, end };
        tail.put(params);
        tail.check(params)?;
        Ok(tail)
    }

    /// Gives the parameters their first values.
    fn put(&self, params: &Params) {
        let _guard = tch::no_grad_guard();
        for Declared { handle, first } in &self.declared {
            let place = params.get(*handle);
            place.shallow_clone().copy_(&Tensor::from_slice(&first.values).view_as(place));
        }
    }

    /// Whether three pictures give what the model says: no step fails later that doesn't fail here.
    fn check(&self, params: &Params) -> Result<(), TailError> {
        let _guard = tch::no_grad_guard();
        let section = &self.plan.section;
        let size = [&[3], section.input.as_slice()].concat();
        let found = self.run(params, Tensor::zeros(size, (Kind::Float, params.device())), Training::No)?.size();
        let expected = [&[3], section.output.as_slice()].concat();
        if found == expected { Ok(()) } else { Err(TailError::Shape { to: section.to.clone(), found, expected }) }
    }

    /// The section's end of its beginning `x [N, ..]`.
    fn run(&self, params: &Params, x: Tensor, training: Training) -> Result<Tensor, TailError> {
        let mut tensors: Vec<Option<Tensor>> = Vec::new();
        tensors.resize_with(self.tensors, || None);
        tensors[0] = Some(x);
        for step in &self.steps {
            let made = step.apply(params, &tensors, training).map_err(|source| TailError::Compute {
                node: step.node.clone(),
                operator: step.name.clone(),
                source,
            })?;
            tensors[step.output] = Some(made);
        }
        Ok(tensors.swap_remove(self.end).unwrap_or_default())
    }

    /// What the decoder sees in the place of the column's rows: each image goes through once, absent ones don't.
    fn see(&self, params: &Params, rows: &Vectors, training: Training) -> Vectors {
        let training = if self.plan.batch_norm == BatchNorm::Frozen { Training::No } else { training };
        let there = rows.present.as_ref().map(|present| present.any_dim(1, false)); // [N]
        let all = rows.data.size()[0];
        let some = there.as_ref().map(|there| there.nonzero().view(-1)).filter(|some| some.numel() > 0);
        let data = match &some {
            Some(some) => rows.data.index_select(0, some),
            None => rows.data.shallow_clone(),
        };
        // Every step was run before, on rows of these shapes.
        let end =
            self.run(params, self.begin(&data), training).expect("the tail's steps were checked when it was built");
        let seen = self.plan.pool.apply(&end); // [n, K, D]
        let (vectors, width) = (seen.size()[1], seen.size()[2]);
        let data = match &some {
            Some(some) => Tensor::zeros([all, vectors, width], (Kind::Float, seen.device())).index_copy(0, some, &seen),
            None => seen,
        };
        Vectors { data, present: there.map(|there| there.unsqueeze(1).expand([all, vectors], false).contiguous()) }
    }

    /// Rows `[N, K, D]` as the section's beginning.
    fn begin(&self, rows: &Tensor) -> Tensor {
        let (images, vectors) = (rows.size()[0], rows.size()[1]);
        match *self.plan.section.input.as_slice() {
            [channels, height, width] if vectors == height * width => {
                rows.view([images, height, width, channels]).permute([0, 3, 1, 2])
            }
            ref shape => rows.view([&[images], shape].concat().as_slice()),
        }
    }

    /// The weights as they are now, and where they belong.
    fn weights(&self, params: &Params) -> Vec<Weight> {
        let weight = |declared: &Declared| {
            let values = params.get(declared.handle).detach().to_device(Device::Cpu).reshape(-1);
            let mut numbers = vec![0.0; values.numel()];
            values.copy_data(&mut numbers, values.numel());
            Weight { values: numbers, ..declared.first.clone() }
        };
        self.declared.iter().map(weight).collect()
    }
}
