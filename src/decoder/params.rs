//! Parameters: named leaves that alias one flat buffer.
//!
//! Weights that decay come first in the buffer, biases and the like after them, so that an optimizer decays a prefix and
//! needs no mask. Each tensor begins on a 64-byte boundary: kernels like it, and sums come out the same in every process.

use std::path::Path;

use tch::{Device, Tensor};

use super::{
    DecoderError,
    files::{read_tensors, write_tensors},
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
}

/// A parameter, by its place in the order of declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(usize);

impl Handle {
    /// Its place among [`Params::leaves`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
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
    seed: u64,
}

impl ParamsBuilder {
    /// Nothing yet; first values will be drawn from `seed` and each parameter's name.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entries: Vec::new(), seed }
    }

    /// Declares a parameter; matrices decay, vectors (biases, norms) do not.
    pub fn add(&mut self, name: impl Into<String>, shape: &[i64], init: Init) -> Handle {
        let decay = shape.len() > 1;
        self.entries.push(Entry { name: name.into(), shape: shape.to_vec(), init, decay });
        Handle(self.entries.len() - 1)
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
        let leaf = |(entry, &offset): (&Entry, &i64)| {
            let view = flat.narrow(0, offset, entry.numbers()).view(entry.shape.as_slice());
            view.detach().set_requires_grad(true)
        };
        let leaves = self.entries.iter().zip(&offsets).map(leaf).collect();
        Params { flat, entries: self.entries, offsets, leaves, decayed }
    }
}

fn draw(entry: &Entry, seed: u64, values: &mut [f32]) {
    let mut random = SplitMix::new(named(seed, &entry.name));
    match entry.init {
        Init::Constant(value) => values.fill(value),
        Init::Uniform(bound) => values.fill_with(|| bound * (2.0 * random.unit() - 1.0)),
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
}

impl Params {
    /// One parameter: a leaf, in the shape it was declared with.
    pub fn get(&self, handle: Handle) -> &Tensor {
        &self.leaves[handle.0]
    }

    /// All of them in order of declaration: what gradients are taken for.
    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The buffer that all of them alias, `[parameters with their padding]` f32.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// So many numbers at the front of the buffer decay.
    #[must_use]
    pub fn decayed(&self) -> i64 {
        self.decayed
    }

    /// Numbers that are learned (the padding is not).
    #[must_use]
    pub fn count(&self) -> i64 {
        self.entries.iter().map(Entry::numbers).sum()
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
        for ((entry, &offset), gradient) in self.entries.iter().zip(&self.offsets).zip(gradients) {
            let mut place = sum.narrow(0, offset, entry.numbers()).view(entry.shape.as_slice());
            match first {
                true if weight == 1.0 => place.copy_(gradient),
                true => place.copy_(&(gradient * weight)),
                false => drop(place.g_add_(&(gradient * weight))),
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

    /// Writes the parameters as safetensors.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DecoderError> {
        let named = self.named(&self.flat);
        write_tensors(path, named.iter().map(|(name, tensor)| ((*name).to_owned(), tensor)))
    }

    /// Reads the parameters from a safetensors file that holds exactly them.
    ///
    /// # Errors
    /// When it cannot be read, or a tensor is missing, too many, or of another shape or dtype.
    pub fn load(&mut self, path: &Path) -> Result<(), DecoderError> {
        let _guard = tch::no_grad_guard();
        let wanted = self.named(&self.flat);
        let shapes = wanted.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.size()));
        let read = read_tensors(path, &shapes.collect::<Vec<_>>())?;
        for ((_, mut place), values) in wanted.into_iter().zip(read) {
            place.copy_(&values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn params(seed: u64) -> (Params, [Handle; 3]) {
        let mut builder = ParamsBuilder::new(seed);
        let (weight, bias) = builder.linear("first", 3, 5);
        let last = builder.add("last.weight", &[2, 2], Init::Constant(0.5));
        (builder.build(Device::Cpu), [weight, bias, last])
    }

    #[test]
    fn leaves_alias_the_buffer_and_matrices_come_first() {
        let (params, [weight, bias, last]) = params(1);
        assert_eq!((params.decayed(), params.flat().size(), params.count()), (32, vec![48], 24));
        let _ = tch::no_grad(|| params.flat().narrow(0, 0, 32).fill_(2.0));
        assert_eq!(params.get(weight).sum(Kind::Double).double_value(&[]), 30.0);
        assert_eq!(params.get(last).sum(Kind::Double).double_value(&[]), 8.0);
        assert!(params.get(bias).abs().max().double_value(&[]) < 0.6);
        assert!(params.get(bias).requires_grad());
    }

    #[test]
    fn first_values_depend_on_seed_and_name_only() {
        let ((one, [weight, ..]), (two, _), (other, _)) = (params(1), params(1), params(2));
        assert!(one.flat().equal(two.flat()));
        assert!(!one.flat().equal(other.flat()));
        let mut builder = ParamsBuilder::new(1);
        builder.add("another.weight", &[7, 7], Init::Uniform(1.0));
        let (same, _) = builder.linear("first", 3, 5);
        let alone = builder.build(Device::Cpu);
        assert!(alone.get(same).equal(one.get(weight)));
    }

    #[test]
    fn gradients_add_up_in_the_buffers_layout() {
        let (params, [weight, ..]) = params(1);
        let loss =
            params.get(weight).sum(Kind::Float) + params.leaves().iter().map(|t| t.sum(Kind::Float)).sum::<Tensor>();
        let gradients = Tensor::run_backward(&[loss], params.leaves(), false, false);
        let sum = params.flat().zeros_like();
        params.accumulate(&gradients, 0.5, true, &sum);
        params.accumulate(&gradients, 0.25, false, &sum);
        let named = params.named(&sum);
        assert_eq!(named[0].1.double_value(&[4, 2]), 1.5);
        assert_eq!(named[2].1.double_value(&[1, 1]), 0.75);
        assert_eq!(sum.sum(Kind::Double).double_value(&[]), 15.0 * 1.5 + 9.0 * 0.75);
    }
}
