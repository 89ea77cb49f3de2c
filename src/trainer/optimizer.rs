//! AdamW over one flat buffer: a few kernels a step, clipping included, and no question to the device.
//!
//! Whether a gradient is finite is decided on the device: a step whose gradient is not changes nothing. The host reads the
//! count of such steps when it likes.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::{TrainSpec, fused, validate::number};
use crate::{
    batch::sent,
    decoder::{DecoderError, Params, read_tensors, write_tensors},
};

/// Added to the root of the second moment (Kingma and Ba 2015).
const EPSILON: f64 = 1e-8;

/// Moments and settings.
#[derive(Debug)]
pub(super) struct AdamW {
    mean: Tensor,
    square: Tensor,
    betas: [f64; 2],
    decay: f64,
    clip: f64,
}

/// What a step found, still on the device.
#[derive(Debug)]
pub(super) struct Stepped {
    /// The gradient's norm before clipping: a scalar.
    pub norm: Tensor,
    /// Whether it was finite, so that the parameters changed: a scalar, 1 or 0.
    pub finite: Tensor,
}

impl AdamW {
    pub fn new(params: &Params, spec: &TrainSpec) -> Self {
        let zeros = || params.flat().zeros_like();
        Self { mean: zeros(), square: zeros(), betas: spec.betas, decay: spec.weight_decay, clip: spec.clip }
    }

    /// Steps along `gradient` (laid out as the parameters, consumed) of `loss` at rate `rate`; `step` counts from 0.
    pub fn step(&mut self, params: &mut Params, gradient: &mut Tensor, loss: &Tensor, rate: f64, step: u64) -> Stepped {
        let _guard = tch::no_grad_guard();
        let norm = gradient.norm();
        let finite = ((&norm + loss) * 0.0).eq(0.0).to_kind(Kind::Float); // 1, or 0: zero times what is not finite is no number
        if norm.device() != Device::Cpu {
            self.step_on_device(params, gradient, &norm, &finite, rate, step);
        } else if number(&finite) != 0.0 {
            let scale = if self.clip > 0.0 { 1.0 / number(&excess(&norm, self.clip)) } else { 1.0 };
            self.update_on_host(params, gradient, scale, rate, step);
        }
        Stepped { norm, finite }
    }

    /// Clips and updates without asking the device for anything.
    fn step_on_device(
        &mut self,
        params: &Params,
        gradient: &mut Tensor,
        norm: &Tensor,
        finite: &Tensor,
        rate: f64,
        step: u64,
    ) {
        // Without clipping too: a norm that is not finite makes no number of all that is left, and then nothing of it.
        let _ = gradient.g_div_(&excess(norm, self.clip)).nan_to_num_(0.0, 0.0, 0.0);
        self.update(params, gradient, finite, rate, step);
    }

    /// Loshchilov and Hutter 2019, in one pass.
    fn update_on_host(&self, params: &Params, gradient: &Tensor, scale: f64, rate: f64, step: u64) {
        let [beta1, beta2] = self.betas;
        let count = (step + 1).min(i32::MAX as u64) as i32;
        for part in params.parts() {
            let rate = rate * part.scale;
            let numbers = fused::Numbers {
                scale: scale as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                keep: (1.0 - rate * self.decay) as f32,
                rate: (rate / (1.0 - beta1.powi(count))) as f32,
                correction: (1.0 / (1.0 - beta2.powi(count))) as f32,
                epsilon: EPSILON as f32,
            };
            let [flat, mean, square, gradient] =
                [params.flat(), &self.mean, &self.square, gradient].map(|buffer| cut(buffer, part.start, part.length));
            fused::update(&flat, &mean, &square, &gradient, part.decayed as usize, numbers);
        }
    }

    /// The same as tensor operations, in few passes over the buffers and with few kernels; nothing changes where `finite` is 0.
    fn update(&mut self, params: &Params, gradient: &Tensor, finite: &Tensor, rate: f64, step: u64) {
        let [beta1, beta2] = self.betas;
        let count = (step + 1).min(i32::MAX as u64) as i32;
        let correction = (1.0 - beta2.powi(count)).sqrt();
        for (index, part) in params.parts().iter().enumerate() {
            let rate = rate * part.scale;
            // What the mean is divided by: (root / correction + epsilon) / -rate, infinite where the step is to change nothing.
            let against = -(1.0 - beta1.powi(count)) / rate;
            // Three numbers as they are where `finite` is 0, what is added where it is 1, and two more: sent at once.
            let numbers = [
                [0.0, 0.0, 1.0],
                [1.0 - beta1, 1.0 - beta2, -rate * self.decay],
                [against / correction, EPSILON * against, 0.0],
            ];
            let numbers =
                sent(&numbers.as_flattened().iter().map(|&number| number as f32).collect::<Vec<_>>(), finite.device());
            let row = |at: i64| numbers.narrow(0, 3 * at, 3);
            let weights = row(0).addcmul(&row(1), finite);
            if index == 0 {
                let _ = self.mean.lerp_tensor_(gradient, &weights.get(0));
                let _ = self.square.lerp_tensor_(&gradient.square(), &weights.get(1));
            }
            if rate == 0.0 {
                continue;
            }
            let _ = cut(params.flat(), part.start, part.decayed).g_mul_(&weights.get(2));
            let least = row(2).get(1) / finite;
            let root = cut(&self.square, part.start, part.length).sqrt();
            let below = least.addcmul(&root, &row(2).get(0));
            let _ =
                cut(params.flat(), part.start, part.length).addcdiv_(&cut(&self.mean, part.start, part.length), &below);
        }
    }

    /// Writes the moments as safetensors, `{parameter}.mean` and `{parameter}.square`.
    pub fn save(&self, params: &Params, path: &Path) -> Result<(), DecoderError> {
        let named = self.named(params);
        write_tensors(path, named.iter().map(|(name, tensor)| (name.clone(), tensor)))
    }

    /// Reads what [`AdamW::save`] wrote.
    pub fn load(&mut self, params: &Params, path: &Path) -> Result<(), DecoderError> {
        let _guard = tch::no_grad_guard();
        let named = self.named(params);
        let shapes: Vec<_> = named.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        for ((_, mut place), values) in named.into_iter().zip(read_tensors(path, &shapes)?) {
            place.copy_(&values);
        }
        Ok(())
    }

    fn named(&self, params: &Params) -> Vec<(String, Tensor)> {
        let moment = |suffix: &'static str, buffer: &Tensor| {
            params.named(buffer).into_iter().map(move |(name, tensor)| (format!("{name}.{suffix}"), tensor)).collect()
        };
        let both: [Vec<_>; 2] = [moment("mean", &self.mean), moment("square", &self.square)];
        both.into_iter().flatten().collect()
    }
}

/// How many times `clip` the norm is, at least once: what a gradient is divided by (as torch's `clip_grad_norm_` has it).
/// Where `clip` is 0, one, or no number where the norm is not finite.
fn excess(norm: &Tensor, clip: f64) -> Tensor {
    let share = if clip > 0.0 { 1.0 / clip } else { 0.0 };
    ((norm + 1e-6) * share).clamp_min(1.0)
}

/// A stretch of a buffer, sharing its memory.
fn cut(buffer: &Tensor, start: i64, length: i64) -> Tensor {
    buffer.narrow(0, start, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::{Init, ParamsBuilder};

    /// Two parameters, a matrix of ones and a vector of ones.
    fn params() -> Params {
        let mut builder = ParamsBuilder::new(0);
        builder.add("weight", &[2, 3], Init::Constant(1.0));
        builder.add("bias", &[3], Init::Constant(1.0));
        builder.build(Device::Cpu)
    }

    fn gradient(params: &Params, value: f64) -> Tensor {
        params.flat().ones_like() * value
    }

    #[test]
    fn agrees_with_the_formula_and_decays_matrices_only() {
        let spec = TrainSpec { weight_decay: 0.1, clip: 0.0, betas: [0.9, 0.99], ..TrainSpec::default() };
        let mut params = params();
        let mut optimizer = AdamW::new(&params, &spec);
        let (mut mean, mut square, mut weight, mut bias) = (0.0f64, 0.0f64, 1.0f64, 1.0f64);
        for (step, value) in [0.5, -0.25, 2.0].into_iter().enumerate() {
            let loss = Tensor::from(1.0f32);
            optimizer.step(&mut params, &mut gradient(&self::params(), value), &loss, 0.01, step as u64);
            mean = 0.9 * mean + 0.1 * value;
            square = 0.99 * square + 0.01 * value * value;
            let count = step as i32 + 1;
            let change =
                0.01 * (mean / (1.0 - 0.9f64.powi(count))) / ((square / (1.0 - 0.99f64.powi(count))).sqrt() + 1e-8);
            weight = weight * (1.0 - 0.01 * 0.1) - change;
            bias -= change;
        }
        let found = params.leaves().iter().map(|leaf| leaf.mean(Kind::Double).double_value(&[]));
        for (found, expected) in found.zip([weight, bias]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn what_was_joined_learns_at_its_own_rate() {
        let joined = || {
            let mut params = params();
            let mut builder = ParamsBuilder::joining(&params, 0);
            builder.add("before.weight", &[4, 4], Init::Constant(1.0));
            builder.add("before.bias", &[4], Init::Constant(1.0));
            params.join(builder.build(Device::Cpu), 0.1);
            params
        };
        let spec = TrainSpec { weight_decay: 0.5, clip: 0.0, ..TrainSpec::default() };
        let loss = Tensor::from(1.0f32);
        let (mut host, device) = (joined(), joined());
        let mut optimizer = AdamW::new(&host, &spec);
        optimizer.step(&mut host, &mut gradient(&joined(), 3.0), &loss, 0.01, 0);
        // The first step of AdamW is as long as the rate, whatever the gradient; matrices decay by rate times decay on top.
        let expected = [1.0 - 0.01 * 0.5 - 0.01, 1.0 - 0.01, 1.0 - 0.001 * 0.5 - 0.001, 1.0 - 0.001];
        for (leaf, expected) in host.leaves().iter().zip(expected) {
            assert!((leaf.mean(Kind::Double).double_value(&[]) - expected).abs() < 1e-6);
        }
        let optimizer = &mut AdamW::new(&device, &spec);
        let _guard = tch::no_grad_guard();
        optimizer.update(&device, &gradient(&joined(), 3.0), &Tensor::from(1.0f32), 0.01, 0);
        assert!((host.flat() - device.flat()).abs().max().double_value(&[]) < 1e-7);
    }

    #[test]
    fn a_large_gradient_is_clipped_by_its_norm() {
        let spec = TrainSpec { clip: 1.0, betas: [0.0, 0.0], ..TrainSpec::default() };
        let mut params = params();
        let mut optimizer = AdamW::new(&params, &spec);
        let mut large = gradient(&params, 100.0);
        let stepped = optimizer.step(&mut params, &mut large, &Tensor::from(1.0f32), 0.1, 0);
        assert!((number(&stepped.norm) - 100.0 * (params.flat().numel() as f64).sqrt()).abs() < 1e-2);
        assert!((number(&optimizer.mean.norm()) - 1.0).abs() < 1e-4); // without averaging it is the clipped gradient
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut params = params();
        let mut optimizer = AdamW::new(&params, &TrainSpec::default());
        let before = params.flat().copy();
        let mut broken = gradient(&params, 1.0);
        let _ = broken.narrow(0, 2, 1).fill_(f64::NAN);
        let stepped = optimizer.step(&mut params, &mut broken, &Tensor::from(1.0f32), 0.1, 0);
        assert_eq!(stepped.finite.double_value(&[]), 0.0);
        let infinite = Tensor::from(f32::INFINITY);
        let mut sound = gradient(&params, 1.0);
        assert_eq!(optimizer.step(&mut params, &mut sound, &infinite, 0.1, 0).finite.double_value(&[]), 0.0);
        assert!(params.flat().equal(&before) && optimizer.mean.abs().max().double_value(&[]) == 0.0);
    }

    #[test]
    fn the_same_holds_where_the_host_asks_nothing() {
        for clip in [0.0, 5.0] {
            let params = params();
            let mut optimizer = AdamW::new(&params, &TrainSpec { clip, weight_decay: 0.3, ..TrainSpec::default() });
            let stepped = |optimizer: &mut AdamW, worst: f64, finite: f64| {
                let mut gradient = gradient(&params, 1.0);
                let _ = gradient.narrow(0, 2, 1).fill_(worst);
                let norm = gradient.norm();
                optimizer.step_on_device(&params, &mut gradient, &norm, &Tensor::from(finite as f32), 0.1, 0);
                params.flat().copy()
            };
            let before = stepped(&mut optimizer, 2.0, 1.0);
            let moments = [optimizer.mean.copy(), optimizer.square.copy()];
            // The last two are finite, but their squares are not, and neither is the norm.
            for worst in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e20, -3e38] {
                assert!(stepped(&mut optimizer, worst, 0.0).equal(&before), "{clip} {worst}");
                assert!(optimizer.mean.equal(&moments[0]) && optimizer.square.equal(&moments[1]), "{clip} {worst}");
            }
            assert!(!stepped(&mut optimizer, 2.0, 1.0).equal(&before));
        }
    }

    #[test]
    fn one_pass_and_tensor_operations_agree() {
        let spec = TrainSpec { weight_decay: 0.3, ..TrainSpec::default() };
        let (host, device) = (params(), params());
        let (optimizer, mut tensors) = (AdamW::new(&host, &spec), AdamW::new(&device, &spec));
        for step in 0..5 {
            let gradient = gradient(&host, 1.0 - 0.6 * step as f64) * Tensor::arange(32, (Kind::Float, Device::Cpu));
            optimizer.update_on_host(&host, &gradient, 1.0, 0.1, step);
            tensors.update(&device, &gradient, &Tensor::from(1.0f32), 0.1, step);
        }
        let apart = number(&(host.flat() - device.flat()).abs().max());
        assert!(apart < 1e-5, "{apart}");
        let (before, none) = (device.flat().copy(), Tensor::from(0.0f32));
        tensors.update(&device, &gradient(&host, 0.0), &none, 0.1, 5);
        tensors.update(&device, &gradient(&host, 1.0), &Tensor::from(1.0f32), 0.0, 5);
        assert!(device.flat().equal(&before), "a step that is not finite, or of no length, changes nothing");
    }

    #[test]
    fn moments_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        let mut params = params();
        let mut optimizer = AdamW::new(&params, &TrainSpec::default());
        let mut gradient = gradient(&params, 0.5);
        optimizer.step(&mut params, &mut gradient, &Tensor::from(1.0f32), 0.1, 0);
        optimizer.save(&params, &path).unwrap();
        let mut other = AdamW::new(&params, &TrainSpec::default());
        other.load(&params, &path).unwrap();
        let numbers = |buffer: &Tensor| {
            params.named(buffer).iter().map(|(_, t)| t.sum(Kind::Double).double_value(&[])).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&other.mean), numbers(&optimizer.mean));
        assert_eq!(numbers(&other.square), numbers(&optimizer.square));
    }
}
