//! The weights' running average over the steps (Polyak and Juditsky 1992, with an exponential window).
//!
//! One decision defended: a checkpoint's model.safetensors is the average, and the weights that the training goes on from lie
//! beside it. Whoever speaks, scores or exports reads the model as ever, and need not know that there was an average.

use std::path::Path;

use tch::Tensor;

use super::TrainSpec;
use crate::decoder::{DecoderError, Params, read_tensors, write_tensors};

/// A buffer laid out as the parameters.
#[derive(Debug)]
pub(super) struct Average {
    values: Tensor,
    keep: f64,
}

impl Average {
    /// The average over nothing but the weights as they are; none where the spec wants none.
    pub fn new(params: &Params, spec: &TrainSpec) -> Option<Self> {
        (spec.ema > 0.0).then(|| Self { values: params.flat().copy(), keep: spec.ema })
    }

    /// Takes in the weights after `step` (from 0), where the step was `finite` (a scalar, 1 or 0, on the device).
    ///
    /// Early on it keeps less, so that it is not an average of first weights.
    pub fn follow(&mut self, params: &Params, finite: &Tensor, step: u64) {
        let _guard = tch::no_grad_guard();
        let keep = self.keep.min((step + 1) as f64 / (step + 10) as f64);
        let _ = self.values.lerp_tensor_(params.flat(), &(finite * (1.0 - keep)));
    }

    /// The parameters become the average, which keeps what they were; or back again.
    pub fn swap(&mut self, params: &mut Params) {
        let _guard = tch::no_grad_guard();
        let others = params.flat().copy();
        params.flat().shallow_clone().copy_(&self.values);
        self.values = others;
    }

    /// Writes the trained weights while they are swapped out.
    pub fn save_trained(&self, params: &Params, path: &Path) -> Result<(), DecoderError> {
        let named = params.named(&self.values);
        write_tensors(path, named.iter().map(|(name, tensor)| ((*name).to_owned(), tensor)))
    }

    /// Takes the average that was read into the parameters, and reads the trained weights into them.
    pub fn load_trained(&mut self, params: &Params, path: &Path) -> Result<(), DecoderError> {
        let _guard = tch::no_grad_guard();
        self.values.copy_(params.flat());
        let named = params.named(params.flat());
        let shapes: Vec<_> = named.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.size())).collect();
        for ((_, mut place), values) in named.into_iter().zip(read_tensors(path, &shapes)?) {
            place.copy_(&values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::decoder::{Init, ParamsBuilder};

    fn params(value: f32) -> Params {
        let mut builder = ParamsBuilder::new(0);
        builder.add("weight", &[4, 4], Init::Constant(value));
        builder.build(Device::Cpu)
    }

    fn first(values: &Tensor) -> f64 {
        values.double_value(&[0])
    }

    #[test]
    fn follows_finite_steps_and_swaps_without_loss() {
        let spec = TrainSpec { ema: 0.5, ..TrainSpec::default() };
        let mut params = params(0.0);
        assert!(Average::new(&params, &TrainSpec::default()).is_none());
        let mut average = Average::new(&params, &spec).unwrap();
        let _ = params.flat().shallow_clone().fill_(1.0);
        average.follow(&params, &Tensor::from(1.0f32), 100);
        assert_eq!(first(&average.values), 0.5);
        average.follow(&params, &Tensor::from(0.0f32), 101); // a skipped step
        assert_eq!(first(&average.values), 0.5);
        average.follow(&params, &Tensor::from(1.0f32), 0); // the first step keeps a tenth
        assert!((first(&average.values) - 0.95).abs() < 1e-6);
        average.swap(&mut params);
        assert!((first(params.flat()) - 0.95).abs() < 1e-6 && first(&average.values) == 1.0);
        average.swap(&mut params);
        assert_eq!(first(params.flat()), 1.0);
    }
}
