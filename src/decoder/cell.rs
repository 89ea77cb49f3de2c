//! The LSTM cell, with the parameters and the gate order (input, forget, cell, output) of torch's `nn.LSTM`.

use tch::{Kind, Tensor};

use super::{Handle, Init, Params, ParamsBuilder};

/// The parameters of one layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    /// `[4H, input]`
    pub weight_ih: Handle,
    /// `[4H, H]`
    pub weight_hh: Handle,
    /// `[4H]`
    pub bias_ih: Handle,
    /// `[4H]`
    pub bias_hh: Handle,
}

impl Cell {
    /// Declares `{name}.weight_ih{suffix}` and its siblings; torch's bounds.
    pub fn declare(builder: &mut ParamsBuilder, name: &str, suffix: &str, input: i64, hidden: i64) -> Self {
        let init = Init::Uniform(1.0 / (hidden as f32).sqrt());
        let mut add = |part: &str, shape: &[i64]| builder.add(format!("{name}.{part}{suffix}"), shape, init);
        Self {
            weight_ih: add("weight_ih", &[4 * hidden, input]),
            weight_hh: add("weight_hh", &[4 * hidden, hidden]),
            bias_ih: add("bias_ih", &[4 * hidden]),
            bias_hh: add("bias_hh", &[4 * hidden]),
        }
    }

    /// What its inputs go through: `[weight_ih, bias_ih, bias_hh]`.
    pub fn input(&self) -> [Handle; 3] {
        [self.weight_ih, self.bias_ih, self.bias_hh]
    }

    /// Both biases together: `[4H]`.
    pub fn bias(&self, params: &Params) -> Tensor {
        params.get(self.bias_ih) + params.get(self.bias_hh)
    }

    /// All its parameters, in the order of [`Cell::in_one_piece`].
    pub fn handles(&self) -> [Handle; 4] {
        [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
    }

    /// The weights in one piece, as cuDNN wants them.
    pub fn in_one_piece(parts: &[Tensor; 4]) -> [Tensor; 4] {
        let flat = Tensor::cat(&parts.each_ref().map(|part| part.reshape(-1)), 0);
        let mut start = 0;
        parts.each_ref().map(|part| {
            let count = part.numel() as i64;
            start += count;
            flat.narrow(0, start - count, count).view(part.size().as_slice())
        })
    }
}

/// Gates before their squashing `[n, 4H]` and the cell state `[n, H]` give the new hidden and cell state.
pub(super) fn pointwise(gates: &Tensor, cell: &Tensor) -> (Tensor, Tensor) {
    let parts = gates.chunk(4, 1);
    let cell = parts[1].sigmoid() * cell + parts[0].sigmoid() * parts[2].tanh();
    (parts[3].sigmoid() * cell.tanh(), cell)
}

/// The first `count` rows; the tensor itself where it has no more.
pub(super) fn first(tensor: &Tensor, count: i64) -> Tensor {
    if tensor.size()[0] == count { tensor.shallow_clone() } else { tensor.narrow(0, 0, count) }
}

/// Runs a layer with `weights` over packed steps `[P, input]` cut as `active` says, from zeros, by torch's own LSTM (cuDNN's on a GPU).
///
/// Returns all hidden states `[P, H]`.
pub(super) fn run(weights: &[Tensor; 4], inputs: &Tensor, active: &[i64]) -> Tensor {
    let zeros = Tensor::zeros([1, active[0], weights[1].size()[1]], (Kind::Float, inputs.device()));
    let first = [zeros.shallow_clone(), zeros];
    Tensor::lstm_data(inputs, &Tensor::from_slice(active), &first, weights, true, 1, 0.0, true, false).0
}
