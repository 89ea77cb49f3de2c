//! Parameters: named leaves that alias one flat buffer.
//!
//! Weights that decay come first in the buffer, biases and the like after them, so that an optimizer decays a prefix and
//! needs no mask. Each tensor begins on a 64-byte boundary: kernels like it, and sums come out the same in every process.
//! Frozen parameters lie outside of the buffer: an optimizer cannot touch them, nor spend moments on them.

mod join;
#[cfg(test)]
mod tests;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::{
    DecoderError,
    files::{read_tensors, write_tensors},
    half::Half,
};
use crate::batch::random::{SplitMix, named};

/// Floats in 64 bytes.
const ALIGN: i64 = 16;

/// First values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Uniform in `-bound..bound`.
    Uniform(f32),
    /// Normal around zero with this deviation.
    Normal(f32),
}

/// A parameter, by its place in the order of declaration among the trained ones or among the frozen ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    place: usize,
    frozen: bool,
}

impl Handle {
    /// Its place among [`Params::leaves`]; none where it is frozen.
    #[must_use]
    pub fn index(self) -> Option<usize> {
        (!self.frozen).then_some(self.place)
    }
}

#[derive(Debug)]
struct Entry {
    name: String,
    shape: Vec<i64>,
    init: Init,
    decay: bool,
}

impl Entry {
    fn numbers(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// Collects the parameters a decoder declares.
#[derive(Debug)]
pub struct ParamsBuilder {
    entries: Vec<Entry>,
    frozen: Vec<Entry>,
    freezing: bool,
    seed: u64,
    /// Trained and frozen parameters that stand before these ones.
    base: [usize; 2],
}

impl ParamsBuilder {
    /// Nothing yet; first values will be drawn from `seed` and each parameter's name.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entries: Vec::new(), frozen: Vec::new(), freezing: false, seed, base: [0, 0] }
    }

    /// Whether what is declared from here on is frozen: kept and saved, but not trained.
    pub fn freeze(&mut self, frozen: bool) {
        self.freezing = frozen;
    }

    /// Declares a parameter; matrices decay, vectors (biases, norms) do not.
    pub fn add(&mut self, name: impl Into<String>, shape: &[i64], init: Init) -> Handle {
        let decay = shape.len() > 1;
        let entries = if self.freezing { &mut self.frozen } else { &mut self.entries };
        entries.push(Entry { name: name.into(), shape: shape.to_vec(), init, decay });
        Handle { place: self.base[usize::from(self.freezing)] + entries.len() - 1, frozen: self.freezing }
    }

    /// Declares `name.weight [out, in]` and `name.bias [out]`, drawn as torch's `nn.Linear` draws them.
    pub fn linear(&mut self, name: &str, input: i64, output: i64) -> (Handle, Handle) {
        let init = Init::Uniform(1.0 / (input as f32).sqrt());
        let weight = self.add(format!("{name}.weight"), &[output, input], init);
        (weight, self.add(format!("{name}.bias"), &[output], init))
    }

    /// Lays the parameters out and draws their first values.
    #[must_use]
    pub fn build(self, device: Device) -> Params {
        let mut offsets = vec![0; self.entries.len()];
        let (mut end, mut decayed) = (0, 0);
        for decay in [true, false] {
            for (entry, offset) in self.entries.iter().zip(&mut offsets) {
                if entry.decay == decay {
                    *offset = end;
                    end += (entry.numbers() + ALIGN - 1) / ALIGN * ALIGN;
                }
            }
            if decay {
                decayed = end;
            }
        }
        let mut values = vec![0.0; end as usize];
        for (entry, &offset) in self.entries.iter().zip(&offsets) {
            draw(entry, self.seed, &mut values[offset as usize..][..entry.numbers() as usize]);
        }
        let flat = Tensor::from_slice(&values).to_device(device);
        let leaves = leaves(&flat, &self.entries, &offsets);
        let kept = self.frozen.iter().map(|entry| {
            let mut values = vec![0.0; entry.numbers() as usize];
            draw(entry, self.seed, &mut values);
            Tensor::from_slice(&values).view(entry.shape.as_slice()).to_device(device)
        });
        let kept = kept.collect();
        let parts = vec![Part { start: 0, length: end, decayed, scale: 1.0 }];
        Params {
            flat,
            entries: self.entries,
            offsets,
            leaves,
            decayed,
            frozen: self.frozen,
            kept,
            parts,
            upstream: 0,
            half: None,
            halved: false,
        }
    }
}

/// Views of the buffer, one a parameter, that gradients are taken for.
fn leaves(flat: &Tensor, entries: &[Entry], offsets: &[i64]) -> Vec<Tensor> {
    let leaf = |(entry, &offset): (&Entry, &i64)| {
        let view = flat.narrow(0, offset, entry.numbers()).view(entry.shape.as_slice());
        view.detach().set_requires_grad(true)
    };
    entries.iter().zip(offsets).map(leaf).collect()
}

fn draw(entry: &Entry, seed: u64, values: &mut [f32]) {
    let mut random = SplitMix::new(named(seed, &entry.name));
    match entry.init {
        Init::Constant(value) => values.fill(value),
        Init::Uniform(bound) => values.fill_with(|| bound * (2.0 * random.unit() - 1.0)),
        Init::Normal(deviation) => values.chunks_mut(2).for_each(|pair| {
            // Box and Muller 1958; 1 - unit is never zero.
            let radius = deviation * (-2.0 * (1.0 - random.unit()).ln()).sqrt();
            let (sine, cosine) = (std::f32::consts::TAU * random.unit()).sin_cos();
            pair.iter_mut().zip([radius * cosine, radius * sine]).for_each(|(place, value)| *place = value);
        }),
    }
}

/// A decoder's parameters.
#[derive(Debug)]
pub struct Params {
    flat: Tensor,
    entries: Vec<Entry>,
    offsets: Vec<i64>,
    leaves: Vec<Tensor>,
    decayed: i64,
    frozen: Vec<Entry>,
    kept: Vec<Tensor>,
    parts: Vec<Part>,
    /// So many of the trained ones, the last, stand before the columns' vectors.
    upstream: usize,
    half: Option<Half>,
    halved: bool,
}

/// A stretch of the buffer that learns at one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Where it begins, in numbers.
    pub start: i64,
    /// How long it is.
    pub length: i64,
    /// So many numbers at its front decay.
    pub decayed: i64,
    /// The learning rate is multiplied by this.
    pub scale: f64,
}

impl Params {
    /// One parameter in the shape it was declared with: a leaf where it is trained.
    pub fn get(&self, handle: Handle) -> &Tensor {
        let kept = self.half.as_ref().filter(|_| self.halved).map_or(&self.kept, |half| &half.kept);
        if handle.frozen { &kept[handle.place] } else { &self.leaves()[handle.place] }
    }

    /// The trained ones in order of declaration: what gradients are taken for.
    pub fn leaves(&self) -> &[Tensor] {
        self.half.as_ref().filter(|_| self.halved).map_or(&self.leaves, |half| &half.leaves)
    }

    /// Whether [`Params::get`] and [`Params::leaves`] give a bf16 copy, made of the f32 numbers as they are now.
    pub fn compute_in_half(&mut self, halved: bool) {
        self.halved = halved;
        if halved {
            let places = self.offsets.iter().copied().zip(self.entries.iter().map(|entry| entry.shape.as_slice()));
            self.half.get_or_insert_with(|| Half::new(&self.flat, places, &self.kept)).renew(&self.flat);
        }
    }

    /// The trained ones, in the same order.
    pub fn handles(&self) -> impl Iterator<Item = Handle> {
        (0..self.leaves.len()).map(|place| Handle { place, frozen: false })
    }

    /// The name of one parameter.
    #[must_use]
    pub fn name(&self, handle: Handle) -> &str {
        let entries = if handle.frozen { &self.frozen } else { &self.entries };
        &entries[handle.place].name
    }

    /// Names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The buffer that the trained ones alias, `[parameters with their padding]` f32.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// So many numbers at the front of the buffer decay.
    #[must_use]
    pub fn decayed(&self) -> i64 {
        self.decayed
    }

    /// The stretches of the buffer that learn at rates of their own: one, unless a tail was joined.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Numbers that are learned (the padding is not).
    #[must_use]
    pub fn count(&self) -> i64 {
        self.entries.iter().map(Entry::numbers).sum()
    }

    /// Numbers that are kept as they are.
    #[must_use]
    pub fn frozen_count(&self) -> i64 {
        self.frozen.iter().map(Entry::numbers).sum()
    }

    /// The device they are on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.flat.device()
    }

    /// Gradients in order of declaration, times `weight`, into `sum`, a buffer laid out like [`Params::flat`]: the `first`
    /// ones take the place of what it held, others are added.
    pub fn accumulate(&self, gradients: &[Tensor], weight: f64, first: bool, sum: &Tensor) {
        let _guard = tch::no_grad_guard();
        if first && weight == 1.0 {
            return self.lay_out(gradients, sum);
        }
        for ((entry, &offset), gradient) in self.entries.iter().zip(&self.offsets).zip(gradients) {
            let mut place = sum.narrow(0, offset, entry.numbers()).view(entry.shape.as_slice());
            let part = gradient.to_kind(Kind::Float) * weight;
            if first {
                place.copy_(&part);
            } else {
                let _ = place.g_add_(&part);
            }
        }
    }

    /// Gradients into a buffer: those that lie side by side and are of one kind at once, which on a GPU is a kernel and not one for each.
    fn lay_out(&self, gradients: &[Tensor], buffer: &Tensor) {
        let mut order: Vec<usize> = (0..gradients.len()).collect();
        order.sort_unstable_by_key(|&at| self.offsets[at]);
        for run in order.chunk_by(|&one, &next| gradients[one].kind() == gradients[next].kind()) {
            let (kind, start) = (gradients[run[0]].kind(), self.offsets[run[0]]);
            let (mut parts, mut end) = (vec![], start);
            for &at in run {
                if self.offsets[at] > end {
                    parts.push(Tensor::zeros([self.offsets[at] - end], (kind, buffer.device())));
                }
                parts.push(gradients[at].reshape(-1));
                end = self.offsets[at] + self.entries[at].numbers();
            }
            let mut place = buffer.narrow(0, start, end - start);
            match kind {
                Kind::Float => drop(Tensor::cat_out(&place, &parts, 0)),
                _ => place.copy_(&Tensor::cat(&parts, 0)),
            }
        }
    }

    /// A buffer laid out like the parameters, cut into named tensors.
    #[must_use]
    pub fn named<'a>(&'a self, buffer: &Tensor) -> Vec<(&'a str, Tensor)> {
        let cut = |(entry, &offset): (&'a Entry, &i64)| {
            let values = buffer.narrow(0, offset, entry.numbers()).view(entry.shape.as_slice());
            (entry.name.as_str(), values)
        };
        self.entries.iter().zip(&self.offsets).map(cut).collect()
    }

    /// All parameters by name, the frozen ones last: what a file of weights holds.
    #[must_use]
    pub fn all(&self) -> Vec<(&str, Tensor)> {
        let kept = self.frozen.iter().zip(&self.kept).map(|(entry, kept)| (entry.name.as_str(), kept.shallow_clone()));
        self.named(&self.flat).into_iter().chain(kept).collect()
    }

    /// Writes the parameters as safetensors.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DecoderError> {
        let all = self.all();
        write_tensors(path, all.iter().map(|(name, tensor)| ((*name).to_owned(), tensor)))
    }

    /// Reads the parameters from a safetensors file that holds exactly them.
    ///
    /// # Errors
    /// When it cannot be read, or a tensor is missing, too many, or of another shape or dtype.
    pub fn load(&mut self, path: &Path) -> Result<(), DecoderError> {
        let _guard = tch::no_grad_guard();
        let wanted = self.all();
        let shapes = wanted.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.size()));
        let read = read_tensors(path, &shapes.collect::<Vec<_>>())?;
        for ((_, mut place), values) in wanted.into_iter().zip(read) {
            place.copy_(&values);
        }
        Ok(())
    }
}
