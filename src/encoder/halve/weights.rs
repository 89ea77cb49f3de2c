//! Weights in f16, made when somebody wants them so.
//!
//! Must not know nodes. A value beyond what f16 holds becomes its largest, never infinity: an infinite weight makes every
//! row NaN, and a bound of a Clip or a mask of -1e9 means "as much as there is". Each such weight is noted.

use std::collections::{HashMap, HashSet};

use half::f16;

use super::super::build::Builder;
use super::super::constant::floats;
use super::super::onnx::TensorProto;
use super::super::onnx::tensor_proto::DataType;

/// All constants of a graph.
pub(super) struct Weights {
    all: HashMap<String, TensorProto>,
    /// The f16 form of a weight.
    half: HashMap<String, String>,
    notes: Vec<String>,
}

impl Weights {
    pub fn new(all: Vec<TensorProto>) -> Self {
        let all = all.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)).collect();
        Self { all, half: HashMap::new(), notes: Vec::new() }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    /// Is there an `f32` weight of this name?
    pub fn is_float(&self, name: &str) -> bool {
        self.all.get(name).is_some_and(|tensor| tensor.data_type() == DataType::Float as i32)
    }

    /// The name of the f16 form of the `f32` weight `name`.
    pub fn half(&mut self, name: &str, builder: &mut Builder<'_>) -> String {
        if let Some(half) = self.half.get(name) {
            return half.clone();
        }
        let tensor = &self.all[name];
        let dims: Vec<usize> = tensor.dims.iter().map(|&size| size.max(0) as usize).collect();
        // A weight whose values do not fill its shape is passed on as it is: ONNX Runtime refuses the model by its name.
        let Some(values) = floats(tensor) else { return name.to_owned() };
        let (values, clamped) = convert(&values);
        if clamped > 0 {
            self.notes.push(format!("{clamped} of {} values of `{name}` are beyond {}", values.len(), f16::MAX));
        }
        let half = builder.halves(&dims, &values);
        self.half.insert(name.to_owned(), half.clone());
        half
    }

    /// The weights whose names are in `read`, and the notes.
    pub fn finish(self, read: &HashSet<String>) -> (Vec<TensorProto>, Vec<String>) {
        let mut kept: Vec<TensorProto> = self.all.into_values().filter(|weight| read.contains(weight.name())).collect();
        kept.sort_by(|a, b| a.name().cmp(b.name()));
        (kept, self.notes)
    }
}

/// Rounded to the nearest f16; how many were clamped to the largest.
fn convert(values: &[f32]) -> (Vec<f16>, usize) {
    let most = f16::MAX.to_f32();
    let clamped = values.iter().filter(|value| value.is_finite() && value.abs() > most).count();
    let round = |&value: &f32| f16::from_f32(if value.is_finite() { value.clamp(-most, most) } else { value });
    (values.iter().map(round).collect(), clamped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_f16_become_its_largest_and_are_counted() {
        let (values, clamped) = convert(&[1.0, 65_504.0, 65_520.0, -1e9, f32::INFINITY, 1e-9]);
        let expected = [1.0, 65_504.0, 65_504.0, -65_504.0, f32::INFINITY, 0.0];
        assert_eq!(values.iter().map(|value| value.to_f32()).collect::<Vec<_>>(), expected);
        assert_eq!(clamped, 2);
    }
}
