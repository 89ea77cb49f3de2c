//! Attention and its LSTM cell over packed steps, forward and backward in closed form.
//!
//! As in [`super::lstm_tape`], steps pass on the state's gradient only. All that a hidden state is multiplied with (query,
//! gate, recurrent part of the cell) is one product a step, and the gradients of weights and image vectors are one product
//! over all steps.
//!
//! Keys, query and score come in doubled, so that a sigmoid takes the place of tanh (see [`super::attention`]).

use tch::{Kind, Tensor};

use super::{
    gradients::over_rows,
    lstm_tape::{CellTape, at, empty, offsets},
};

/// The weights of the recurrent part, detached.
#[derive(Debug)]
pub(super) struct Weights {
    /// What the hidden state is multiplied with: query (doubled), gate and cell, `[A + W + 4H, H]`, and their biases.
    pub state: Tensor,
    pub bias: Tensor,
    /// What the context is multiplied with, `[4H, W]`.
    pub context: Tensor,
    /// What compared vectors are multiplied with, doubled, `[A]`.
    pub score: Tensor,
}

/// What the steps begin with, detached; one entry a caption.
#[derive(Debug)]
pub(super) struct Given {
    /// `[B, K, W]`
    pub values: Tensor,
    /// Doubled, `[B, K, A]`.
    pub keys: Tensor,
    /// `[B, K]`, added to the scores.
    pub mask: Option<Tensor>,
    /// `[B, H]`
    pub hidden: Tensor,
    /// `[B, H]`
    pub cell: Tensor,
    /// The words' part of the gates, bias included: `[P, 4H]`.
    pub gates: Tensor,
}

/// Everything the backward pass reads.
#[derive(Debug)]
pub(super) struct AttentionTape {
    given: Given,
    active: Vec<i64>,
    starts: Vec<i64>,
    pub cell: CellTape,
    /// sigmoid(keys + query), `[P, K, A]`
    compared: Tensor,
    /// `[P, K]`
    pub alpha: Tensor,
    /// Context before its gate, the gate, and the product, `[P, W]` each.
    context: Tensor,
    gate: Tensor,
    gated: Tensor,
}

/// Gradients of what was given and of the weights, in their shapes, doubled ones as they came.
#[derive(Debug)]
pub(super) struct Gradient {
    pub values: Tensor,
    pub keys: Tensor,
    pub hidden: Tensor,
    pub cell: Tensor,
    pub gates: Tensor,
    pub weights: Weights,
}

impl AttentionTape {
    pub fn forward(given: Given, active: &[i64], weights: &Weights) -> Self {
        let [_, vectors, attention] = size3(&given.keys);
        let (total, width) = (given.gates.size()[0], given.values.size()[2]);
        let wide = || empty(&given.gates, &[total, width]);
        let tape = Self {
            cell: CellTape::new(given.gates.copy()),
            compared: empty(&given.keys, &[total, vectors, attention]),
            alpha: empty(&given.keys, &[total, vectors]),
            context: wide(),
            gate: wide(),
            gated: wide(),
            starts: offsets(active),
            active: active.to_vec(),
            given,
        };
        let mut state = (tape.given.hidden.shallow_clone(), tape.given.cell.shallow_clone());
        for (&start, &count) in tape.starts.iter().zip(active) {
            state = tape.step(start, count, &state, weights);
        }
        tape
    }

    fn step(&self, start: i64, count: i64, (hidden, cell): &(Tensor, Tensor), weights: &Weights) -> (Tensor, Tensor) {
        let [_, vectors, attention] = size3(&self.given.keys);
        let width = self.context.size()[1];
        let part = |packed: &Tensor| at(packed, start, count);
        let of_state = weights.bias.addmm(&hidden.narrow(0, 0, count), &weights.state.tr()); // [n, A + W + 4H]
        let query = of_state.narrow(1, 0, attention).unsqueeze(1); // [n, 1, A]
        let compared = at(&self.given.keys, 0, count).add_out(&part(&self.compared), &query).sigmoid_();
        let scores = compared.view([-1, attention]).mv(&weights.score).view([count, vectors]);
        let scores = match &self.given.mask {
            Some(mask) => scores + mask.narrow(0, 0, count),
            None => scores,
        };
        let alpha = scores.softmax_int_out(&part(&self.alpha), -1, Kind::Float);
        let _ = alpha.unsqueeze(1).bmm_out(&part(&self.context).unsqueeze(1), &at(&self.given.values, 0, count));
        let gate = of_state.narrow(1, attention, width).sigmoid_out(&part(&self.gate));
        let gated = part(&self.context).mul_out(&part(&self.gated), &gate);
        let mut gates = part(&self.cell.gates);
        let _ = gates.g_add_(&of_state.narrow(1, attention + width, gates.size()[1]));
        let _ = gates.addmm_(&gated, &weights.context.tr());
        self.cell.forward(start, count, &cell.narrow(0, 0, count))
    }

    /// From the gradients of the hidden states `[P, H]` and of each caption's sum of attention `[B, K]`.
    pub fn backward(&self, hidden: &Tensor, attended: Option<&Tensor>, weights: &Weights) -> Gradient {
        let [batch, vectors, attention] = size3(&self.given.keys);
        let (total, width) = (self.alpha.size()[0], self.context.size()[1]);
        let steps = self.active.len() as i64;
        let of_state = empty(hidden, &[total, weights.state.size()[0]]);
        let scores = empty(hidden, &[total, vectors]);
        // Padded by step, for one product over all steps: gradients of contexts, and attention.
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, hidden.device()));
        let (contexts, alphas) = (zeros(&[steps, batch, width]), zeros(&[steps, batch, vectors]));
        let keys = self.given.keys.zeros_like();
        let (later, cells) = (self.given.hidden.zeros_like(), self.given.cell.zeros_like());
        for (step, (&start, &count)) in self.starts.iter().zip(&self.active).enumerate().rev() {
            let part = |packed: &Tensor| at(packed, start, count);
            let first = |tensor: &Tensor| at(tensor, 0, count);
            let of_state = part(&of_state);
            let gates = of_state.narrow(1, attention + width, 4 * later.size()[1]);
            let before = self.cell.before(&self.active, &self.starts, step, &self.given.cell);
            let _ = first(&later).g_add_(&part(hidden));
            self.cell.backward(start, count, &before, &first(&later), &mut first(&cells), &gates);
            let gated = gates.mm(&weights.context); // [n, W]
            let gate = part(&self.gate);
            let context = gated.mul_out(&at(&contexts.get(step as i64), 0, count), &gate);
            let opened = gated * part(&self.context);
            let _ = Tensor::sigmoid_backward_grad_input(&of_state.narrow(1, attention, width), &opened, &gate);
            let alpha = part(&self.alpha);
            at(&alphas.get(step as i64), 0, count).copy_(&alpha);
            let turned = first(&self.given.values).transpose(1, 2); // [n, W, K]: far faster than a product from the left
            let mut of_alpha = context.unsqueeze(1).bmm(&turned).squeeze_dim(1); // [n, K]
            if let Some(attended) = attended {
                of_alpha += first(attended);
            }
            let score = Tensor::internal_softmax_backward_data(&of_alpha, &alpha, -1, Kind::Float);
            part(&scores).copy_(&score);
            let outer = score.unsqueeze(2) * &weights.score; // [n, K, A]
            let compared = Tensor::sigmoid_backward_grad_input(&outer, &outer, &part(&self.compared));
            let _ = compared.sum_intlist_out(&of_state.narrow(1, 0, attention), 1, false, Kind::Float);
            let _ = first(&keys).g_add_(&compared);
            let _ = of_state.mm_out(&first(&later), &weights.state);
        }
        let states = self.cell.hidden_before(&self.active, &self.starts, &self.given.hidden);
        let gates = of_state.narrow(1, attention + width, 4 * later.size()[1]);
        Gradient {
            values: alphas.permute([1, 2, 0]).bmm(&contexts.permute([1, 0, 2])),
            keys,
            hidden: later,
            cell: cells,
            weights: Weights {
                state: of_state.tr().mm(&states),
                bias: over_rows(&of_state.narrow(1, 0, attention + width)),
                context: gates.tr().mm(&self.gated),
                score: self.compared.view([-1, attention]).tr().mv(&scores.view(-1)),
            },
            gates: gates.contiguous(),
        }
    }
}

fn size3(tensor: &Tensor) -> [i64; 3] {
    let size = tensor.size();
    [size[0], size[1], size[2]]
}
