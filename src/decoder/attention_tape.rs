//! Attention and its LSTM cell over packed steps, forward and backward in closed form.
//!
//! As in [`super::lstm_tape`], steps pass on the state's gradient only. All that a hidden state is multiplied with (query,
//! gate, recurrent part of the cell) is one product a step, and the gradients of weights and image vectors are one product
//! over all steps.
//!
//! Keys, query and score come in doubled, so that a sigmoid takes the place of tanh (see [`super::attend`]).

use tch::Tensor;

use super::{
    attend_tape::AttendTape,
    gradients::over_rows,
    lstm_tape::{CellTape, at, empty, offsets},
    seen::Seen,
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
    pub seen: Seen,
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
    active: Vec<i64>,
    starts: Vec<i64>,
    /// What the steps began with.
    hidden: Tensor,
    first_cell: Tensor,
    pub cell: CellTape,
    pub attend: AttendTape,
    /// The context's gate, and both multiplied, `[P, W]` each.
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
        let (total, width) = (given.gates.size()[0], given.seen.values.size()[2]);
        let wide = || empty(&given.gates, &[total, width]);
        let tape = Self {
            cell: CellTape::new(given.gates.copy()),
            gate: wide(),
            gated: wide(),
            attend: AttendTape::new(given.seen, &weights.score, total),
            starts: offsets(active),
            active: active.to_vec(),
            hidden: given.hidden,
            first_cell: given.cell,
        };
        let mut state = (tape.hidden.shallow_clone(), tape.first_cell.shallow_clone());
        for (&start, &count) in tape.starts.iter().zip(active) {
            state = tape.step(start, count, &state, weights);
        }
        tape
    }

    fn step(&self, start: i64, count: i64, (hidden, cell): &(Tensor, Tensor), weights: &Weights) -> (Tensor, Tensor) {
        let (attention, width) = (weights.score.size()[0], self.gate.size()[1]);
        let part = |packed: &Tensor| at(packed, start, count);
        let of_state = weights.bias.addmm(&hidden.narrow(0, 0, count), &weights.state.tr()); // [n, A + W + 4H]
        let context = self.attend.forward(start, count, &of_state.narrow(1, 0, attention));
        let gate = of_state.narrow(1, attention, width).sigmoid_out(&part(&self.gate));
        let gated = context.mul_out(&part(&self.gated), &gate);
        let mut gates = part(&self.cell.gates);
        let _ = gates.g_add_(&of_state.narrow(1, attention + width, gates.size()[1]));
        let _ = gates.addmm_(&gated, &weights.context.tr());
        self.cell.forward(start, count, &cell.narrow(0, 0, count))
    }

    /// From the gradients of the hidden states `[P, H]` and of each caption's sum of attention `[B, K]`.
    pub fn backward(&self, hidden: &Tensor, attended: Option<&Tensor>, weights: &Weights) -> Gradient {
        let (attention, width) = (weights.score.size()[0], self.gate.size()[1]);
        let of_state = empty(hidden, &[self.gate.size()[0], weights.state.size()[0]]);
        let gathered = self.attend.gather(self.active.len());
        let (later, cells) = (self.hidden.zeros_like(), self.first_cell.zeros_like());
        for (step, (&start, &count)) in self.starts.iter().zip(&self.active).enumerate().rev() {
            let part = |packed: &Tensor| at(packed, start, count);
            let first = |tensor: &Tensor| at(tensor, 0, count);
            let of_state = part(&of_state);
            let gates = of_state.narrow(1, attention + width, 4 * later.size()[1]);
            let before = self.cell.before(&self.active, &self.starts, step, &self.first_cell);
            let _ = first(&later).g_add_(&part(hidden));
            self.cell.backward(start, count, &before, &first(&later), &mut first(&cells), &gates);
            let gated = gates.mm(&weights.context); // [n, W]
            let gate = part(&self.gate);
            let _ = gated.mul_out(&gathered.context(step, count), &gate);
            let opened = gated * part(&self.attend.context);
            let _ = Tensor::sigmoid_backward_grad_input(&of_state.narrow(1, attention, width), &opened, &gate);
            self.attend.backward(&gathered, step, (start, count), attended, &of_state.narrow(1, 0, attention));
            let _ = of_state.mm_out(&first(&later), &weights.state);
        }
        let states = self.cell.hidden_before(&self.active, &self.starts, &self.hidden);
        let gates = of_state.narrow(1, attention + width, 4 * later.size()[1]);
        let looked = self.attend.finish(gathered);
        Gradient {
            values: looked.values,
            keys: looked.keys,
            hidden: later,
            cell: cells,
            weights: Weights {
                state: of_state.tr().mm(&states),
                bias: over_rows(&of_state.narrow(1, 0, attention + width)),
                context: gates.tr().mm(&self.gated),
                score: looked.score,
            },
            gates: gates.contiguous(),
        }
    }
}
