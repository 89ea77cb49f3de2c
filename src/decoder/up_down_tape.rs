//! Both LSTMs of [`super::up_down`] and the attention between them over packed steps, forward and backward in closed form.
//!
//! As in [`super::lstm_tape`], steps pass on the states' gradients only. All that a state is multiplied with at one place is
//! one product a step, and the gradients of weights and image vectors are one product over all steps.

use tch::{Kind, Tensor};

use super::{
    attend_tape::AttendTape,
    gradients::over_rows,
    lstm_tape::{CellTape, at, empty, offsets},
    seen::Seen,
};

/// The weights of the recurrent part, detached.
#[derive(Debug)]
pub(super) struct Weights {
    /// What h1 is multiplied with in its own step: h2's gates and the query (doubled), `[4H + A, H]`, and their biases.
    pub of_first: Tensor,
    pub bias: Tensor,
    /// What h2 is multiplied with in the next step: h1's gates and its own, `[8H, H]`.
    pub of_second: Tensor,
    /// What h1 is multiplied with in the next step, `[4H, H]`.
    pub recurrent: Tensor,
    /// What the context is multiplied with, `[4H, W]`.
    pub context: Tensor,
    /// What compared vectors are multiplied with, doubled, `[A]`.
    pub score: Tensor,
}

/// Everything the backward pass reads.
#[derive(Debug)]
pub(super) struct UpDownTape {
    active: Vec<i64>,
    starts: Vec<i64>,
    zeros: Tensor,
    top_down: CellTape,
    pub language: CellTape,
    attend: AttendTape,
}

/// Gradients of what was given and of the weights, in their shapes, doubled ones as they came.
#[derive(Debug)]
pub(super) struct Gradient {
    pub values: Tensor,
    pub keys: Tensor,
    pub gates: Tensor,
    pub weights: Weights,
}

impl UpDownTape {
    /// `seen` has one entry a caption; `gates` `[P, 4H]` are h1's of images and words. Nothing is differentiated.
    pub fn forward(seen: Seen, gates: &Tensor, active: &[i64], weights: &Weights) -> Self {
        let (total, hidden) = (gates.size()[0], weights.recurrent.size()[1]);
        let tape = Self {
            zeros: Tensor::zeros([active[0], hidden], (Kind::Float, gates.device())),
            top_down: CellTape::new(gates.copy()),
            language: CellTape::new(gates.empty_like()),
            attend: AttendTape::new(seen, &weights.score, total),
            starts: offsets(active),
            active: active.to_vec(),
        };
        let zeros = || (tape.zeros.shallow_clone(), tape.zeros.shallow_clone());
        let (mut first, mut second) = (zeros(), zeros());
        for (&start, &count) in tape.starts.iter().zip(active) {
            (first, second) = tape.step(start, count, &first, &second, weights);
        }
        tape
    }

    fn step(
        &self,
        start: i64,
        count: i64,
        first: &(Tensor, Tensor),
        second: &(Tensor, Tensor),
        weights: &Weights,
    ) -> ((Tensor, Tensor), (Tensor, Tensor)) {
        let (mut looking, mut speaking) =
            (at(&self.top_down.gates, start, count), at(&self.language.gates, start, count));
        let gates = looking.size()[1];
        let of_second = second.0.narrow(0, 0, count).mm(&weights.of_second.tr()); // [n, 8H]
        let _ = looking.g_add_(&of_second.narrow(1, 0, gates));
        let _ = looking.addmm_(&first.0.narrow(0, 0, count), &weights.recurrent.tr());
        let first = self.top_down.forward(start, count, &first.1.narrow(0, 0, count));
        let of_first = weights.bias.addmm(&first.0, &weights.of_first.tr()); // [n, 4H + A]
        let query = of_first.narrow(1, gates, weights.score.size()[0]);
        let context = self.attend.forward(start, count, &query);
        let _ = of_first.narrow(1, 0, gates).add_out(&speaking, &of_second.narrow(1, gates, gates));
        let _ = speaking.addmm_(&context, &weights.context.tr());
        let second = self.language.forward(start, count, &second.1.narrow(0, 0, count));
        (first, second)
    }

    /// From the gradient of the states that speak, `[P, H]`.
    pub fn backward(&self, spoken: &Tensor, weights: &Weights) -> Gradient {
        let (gates, attention) = (self.language.gates.size()[1], weights.score.size()[0]);
        // Of h1's gates, h2's gates and the query.
        let all = empty(spoken, &[spoken.size()[0], 2 * gates + attention]);
        let gathered = self.attend.gather(self.active.len());
        let zeros = || self.zeros.zeros_like();
        let (of_first, of_second) = ((zeros(), zeros()), (zeros(), zeros()));
        for (step, (&start, &count)) in self.starts.iter().zip(&self.active).enumerate().rev() {
            let all = at(&all, start, count);
            let first = |tensor: &Tensor| at(tensor, 0, count);
            let (mut hidden, mut cell) = (first(&of_second.0), first(&of_second.1));
            let _ = hidden.g_add_(&at(spoken, start, count));
            let before = self.language.before(&self.active, &self.starts, step, &self.zeros);
            let speaking = all.narrow(1, gates, gates);
            self.language.backward(start, count, &before, &hidden, &mut cell, &speaking);
            let _ = speaking.mm_out(&gathered.context(step, count), &weights.context);
            self.attend.backward(&gathered, step, (start, count), None, &all.narrow(1, 2 * gates, attention));
            let (mut hidden, mut cell) = (first(&of_first.0), first(&of_first.1));
            let _ = hidden.addmm_(&all.narrow(1, gates, gates + attention), &weights.of_first);
            let before = self.top_down.before(&self.active, &self.starts, step, &self.zeros);
            let looking = all.narrow(1, 0, gates);
            self.top_down.backward(start, count, &before, &hidden, &mut cell, &looking);
            let _ = looking.mm_out(&hidden, &weights.recurrent);
            let _ = all.narrow(1, 0, 2 * gates).mm_out(&first(&of_second.0), &weights.of_second);
        }
        self.gradient(&all, gathered, gates)
    }

    /// The products over all steps, of the gradients of h1's gates, h2's gates and the query `[P, 8H + A]`.
    fn gradient(&self, all: &Tensor, gathered: super::attend_tape::Gathered, gates: i64) -> Gradient {
        let before = |cell: &CellTape| cell.hidden_before(&self.active, &self.starts, &self.zeros);
        let part = |start: i64, end: i64| all.narrow(1, start, end - start);
        let (looking, rest) = (part(0, gates), part(gates, all.size()[1]));
        let looked = self.attend.finish(gathered);
        Gradient {
            values: looked.values,
            keys: looked.keys,
            weights: Weights {
                of_first: rest.tr().mm(&self.top_down.hidden),
                bias: over_rows(&rest),
                of_second: part(0, 2 * gates).tr().mm(&before(&self.language)),
                recurrent: looking.tr().mm(&before(&self.top_down)),
                context: part(gates, 2 * gates).tr().mm(&self.attend.context),
                score: looked.score,
            },
            gates: looking.contiguous(),
        }
    }
}
