//! Parameters: named leaves that alias one flat buffer.
//!
//! Weights that decay come first in the buffer, biases and the like after them, so that an optimizer decays a prefix and
//! needs no mask. Each tensor begins on a 64-byte boundary: kernels like it, and sums come out the same in every process.
//! Frozen parameters lie outside of the buffer: an optimizer cannot touch them, nor spend moments on them.

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
}

impl ParamsBuilder {
    /// Nothing yet; first values will be drawn from `seed` and each parameter's name.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entries: Vec::new(), frozen: Vec::new(), freezing: false, seed }
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
        Handle { place: entries.len() - 1, frozen: self.freezing }
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
        let kept = self.frozen.iter().map(|entry| {
            let mut values = vec![0.0; entry.numbers() as usize];
            draw(entry, self.seed, &mut values);
            Tensor::from_slice(&values).view(entry.shape.as_slice()).to_device(device)
        });
        let kept = kept.collect();
        Params {
            flat,
            entries: self.entries,
            offsets,
            leaves,
            decayed,
            frozen: self.frozen,
            kept,
            half: None,
            halved: false,
        }
    }
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
    half: Option<Half>,
    halved: bool,
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
        for ((entry, &offset), gradient) in self.entries.iter().zip(&self.offsets).zip(gradients) {
            let mut place = sum.narrow(0, offset, entry.numbers()).view(entry.shape.as_slice());
            match first {
                true if weight == 1.0 => place.copy_(gradient),
                true => place.copy_(&(gradient.to_kind(Kind::Float) * weight)),
                false => drop(place.g_add_(&(gradient.to_kind(Kind::Float) * weight))),
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

#[cfg(test)]
mod tests {
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
    fn frozen_parameters_lie_outside_of_the_buffer_and_are_saved() {
        let frozen = |seed| {
            let mut builder = ParamsBuilder::new(seed);
            builder.freeze(true);
            let held = builder.add("held.weight", &[40, 50], Init::Normal(0.5));
            builder.freeze(false);
            let trained = builder.add("trained.weight", &[4, 4], Init::Uniform(1.0));
            (builder.build(Device::Cpu), held, trained)
        };
        let ((params, held, trained), (mut other, ..)) = (frozen(1), frozen(2));
        assert_eq!((params.count(), params.frozen_count(), params.flat().size()), (16, 2000, vec![16]));
        assert_eq!((held.index(), trained.index(), params.leaves().len()), (None, Some(0), 1));
        assert!(!params.get(held).requires_grad() && params.get(trained).requires_grad());
        let (mean, deviation) = (params.get(held).mean(Kind::Float), params.get(held).std(true));
        assert!(mean.double_value(&[]).abs() < 0.04 && (deviation.double_value(&[]) - 0.5).abs() < 0.03);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        params.save(&path).unwrap();
        other.load(&path).unwrap();
        assert!(other.get(held).equal(params.get(held)) && other.flat().equal(params.flat()));
    }

    #[test]
    fn the_bf16_copy_follows_the_numbers_and_its_gradients_add_up_in_f32() {
        let (mut params, [weight, bias, last]) = params(1);
        let exact = params.get(weight).copy();
        for factor in [1.0, 3.0] {
            let _ = tch::no_grad(|| params.flat().shallow_clone().g_mul_scalar_(factor));
            params.compute_in_half(true);
            let expected = (&exact * factor).to_kind(Kind::BFloat16);
            assert!(params.get(weight).equal(&expected) && params.get(bias).kind() == Kind::BFloat16);
            assert!(params.leaves()[0].requires_grad() && params.leaves()[0].is_leaf());
            let loss = params.get(last).sum(Kind::Float) * 1.0;
            let gradients = Tensor::run_backward(&[loss], &[params.get(last)], false, false);
            assert_eq!(gradients[0].kind(), Kind::BFloat16);
            params.compute_in_half(false);
            assert_eq!(params.get(weight).kind(), Kind::Float);
        }
        let sum = params.flat().zeros_like();
        let one = |value: f64| {
            params.leaves().iter().map(|leaf| (leaf.ones_like() * value).to_kind(Kind::BFloat16)).collect::<Vec<_>>()
        };
        params.accumulate(&one(1.0), 1.0, true, &sum);
        params.accumulate(&one(1.0), 1.0 / 1024.0, false, &sum); // lost in bf16
        assert_eq!(params.named(&sum)[0].1.double_value(&[0, 0]), 1.0 + 1.0 / 1024.0);
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
