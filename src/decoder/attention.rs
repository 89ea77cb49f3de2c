//! Show, Attend and Tell (Xu et al. 2015): at each word, soft attention over the image's vectors.
//!
//! z = sigmoid(f h) * context (see [`super::attend`]), then an LSTM cell on [E y; z]. `Wx [E y]` is computed once for each
//! distinct word of a batch.

use tch::{Device, Kind, Tensor};

use super::{
    AttentionLstmSpec, ColumnInput, Decoder, Handle, Params, ParamsBuilder, Prefix, Scoring, State,
    attend::Attend,
    attention_tape::{AttentionTape, Given, Weights},
    cell::{self, Cell, first},
    dropout::Dropout,
    gradients::{Gradients, leaf, stand_in},
    mapping::Mapping,
    seen::{Seen, attended, unattended},
    words::Words,
};
use crate::batch::Captions;

/// An LSTM that looks at the image's vectors before each word.
#[derive(Debug)]
pub struct AttentionLstm {
    params: Params,
    mapping: Mapping,
    words: Words,
    cell: Cell,
    attend: Attend,
    /// `gate.{weight [W, H], bias [W]}`
    gate: (Handle, Handle),
    /// `init_h.{weight [H, W], bias [H]}`
    init_hidden: (Handle, Handle),
    /// `init_c.{weight [H, W], bias [H]}`
    init_cell: (Handle, Handle),
    embedding: i64,
    width: i64,
    penalty: f64,
}

impl AttentionLstm {
    /// A decoder with seeded first weights; the spec was checked by [`super::build`].
    #[must_use]
    pub(super) fn new(spec: &AttentionLstmSpec, inputs: &[ColumnInput], vocab: i64, seed: u64, device: Device) -> Self {
        let mut builder = ParamsBuilder::new(seed);
        let AttentionLstmSpec { width, embedding, hidden, attention, .. } = *spec;
        let mapping = Mapping::declare(&mut builder, inputs, width, spec.activation, spec.dropout);
        let words = Words::declare(&mut builder, vocab, embedding, hidden, spec.dropout, spec.tied);
        Self {
            mapping,
            words,
            attend: Attend::declare(&mut builder, width, hidden, attention),
            gate: builder.linear("gate", hidden, width),
            init_hidden: builder.linear("init_h", width, hidden),
            init_cell: builder.linear("init_c", width, hidden),
            cell: Cell::declare(&mut builder, "cell", "", embedding + width, hidden),
            embedding,
            width,
            penalty: spec.doubly_stochastic,
            params: builder.build(device),
        }
    }

    fn linear(&self, input: &Tensor, (weight, bias): (Handle, Handle)) -> Tensor {
        input.linear(self.params.get(weight), Some(self.params.get(bias)))
    }

    /// The images as the words will see them, and the first hidden and cell state `[N, H]`.
    fn look(&self, prefix: &Prefix, dropout: &Dropout) -> (Seen, Tensor, Tensor) {
        let mapped = self.mapping.apply(&self.params, prefix, dropout);
        let mean = mapped.mean();
        let (hidden, cell) = (self.linear(&mean, self.init_hidden), self.linear(&mean, self.init_cell));
        (self.attend.seen(&self.params, mapped), hidden, cell)
    }

    /// The part of the gates that the words decide, bias included: `[n, 4H]`.
    fn word_gates(&self, words: &Tensor) -> Tensor {
        let weight = self.params.get(self.cell.weight_ih).narrow(1, 0, self.embedding);
        words.linear(&weight, Some(&self.cell.bias(&self.params)))
    }

    /// Attention `[n, r, K]` and the gated context `[n, r, W]` of `r` hidden states an image `[n, r, H]`.
    fn attend(&self, seen: &Seen, hidden: &Tensor) -> (Tensor, Tensor) {
        let (alpha, context) = self.attend.look(&self.params, seen, hidden);
        let context = context * self.linear(hidden, self.gate).sigmoid();
        (alpha, context)
    }

    /// The cell after attention: word gates `[n, 4H]`, context `[n, W]`, states `[n, H]`.
    fn cell(&self, words: &Tensor, context: &Tensor, hidden: &Tensor, cell: &Tensor) -> (Tensor, Tensor) {
        let weight = self.params.get(self.cell.weight_ih).narrow(1, self.embedding, self.width);
        let gates = words.addmm(context, &weight.tr()).addmm(hidden, &self.params.get(self.cell.weight_hh).tr());
        cell::pointwise(&gates, cell)
    }

    /// What the steps of a batch begin with, one entry a caption.
    fn begin(&self, prefix: &Prefix, captions: &Captions, dropout: &Dropout) -> Begun {
        let (seen, hidden, cell) = self.look(prefix, dropout);
        let per_caption = |tensor: &Tensor| tensor.index_select(0, &captions.image);
        let words = self.words.embed(&self.params, &captions.words, dropout); // [U, E]
        Begun {
            seen: seen.each(per_caption),
            hidden: per_caption(&hidden),
            cell: per_caption(&cell),
            gates: self.word_gates(&words).index_select(0, &captions.inputs),
        }
    }

    /// What is seen, the hidden states `[P, H]` and the attention `[P, K]` while the captions are read to it.
    fn listen(&self, prefix: &Prefix, captions: &Captions, dropout: &Dropout) -> (Seen, Tensor, Tensor) {
        let Begun { seen, mut hidden, mut cell, gates } = self.begin(prefix, captions, dropout);
        let (mut states, mut alphas) = (vec![], vec![]);
        for (gates, &count) in gates.split_with_sizes(captions.active.as_slice(), 0).iter().zip(&captions.active) {
            let before = first(&hidden, count);
            let (alpha, context) = self.attend(&seen.first(count), &before.unsqueeze(1));
            (hidden, cell) = self.cell(gates, &context.squeeze_dim(1), &before, &first(&cell, count));
            states.push(hidden.shallow_clone());
            alphas.push(alpha.squeeze_dim(1));
        }
        (seen, Tensor::cat(&states, 0), Tensor::cat(&alphas, 0))
    }

    /// The weights that the steps use, as the closed form wants them.
    fn weights(&self) -> Weights {
        let get = |handle: Handle| self.params.get(handle).detach();
        Weights {
            state: Tensor::cat(&[get(self.attend.query.0) * 2.0, get(self.gate.0), get(self.cell.weight_hh)], 0),
            bias: Tensor::cat(
                &[get(self.attend.query.1) * 2.0, get(self.gate.1), get(self.cell.bias_hh).zeros_like()],
                0,
            ),
            context: get(self.cell.weight_ih).narrow(1, self.embedding, self.width),
            score: get(self.attend.score).squeeze_dim(0) * 2.0,
        }
    }

    /// Hands the gradients of [`AttentionLstm::weights`] to the parameters they were made of.
    fn add_weights(&self, gradients: &mut Gradients<'_>, found: Weights) {
        let attention = self.params.get(self.attend.score).size()[1];
        let rest = found.state.size()[0] - attention - self.width;
        let parts =
            [(self.attend.query.0, attention, 2.0), (self.gate.0, self.width, 1.0), (self.cell.weight_hh, rest, 1.0)];
        let mut start = 0;
        for (handle, count, scale) in parts {
            gradients.add(handle, found.state.narrow(0, start, count) * scale);
            start += count;
        }
        gradients.add(self.attend.query.1, found.bias.narrow(0, 0, attention) * 2.0);
        gradients.add(self.gate.1, found.bias.narrow(0, attention, self.width));
        gradients.add(self.attend.score, found.score.unsqueeze(0) * 2.0);
        // torch already gave this parameter's words' half its gradient, and zeros here.
        let words = Tensor::zeros([found.context.size()[0], self.embedding], (Kind::Float, found.context.device()));
        gradients.add(self.cell.weight_ih, Tensor::cat(&[words, found.context], 1));
    }

    /// The weight of the penalty. Captions with weights are rewarded or not: the penalty is no part of that.
    fn penalty(&self, captions: &Captions) -> f64 {
        if captions.weights.is_some() { 0.0 } else { self.penalty }
    }

    /// The parameters that are used before the first step.
    fn before_steps(&self) -> Vec<Handle> {
        let pairs = [self.init_hidden, self.init_cell].into_iter().flat_map(|(weight, bias)| [weight, bias]);
        let rest = [self.attend.key, self.words.embedding()].into_iter().chain(self.cell.input());
        pairs.chain(rest).chain(self.mapping.handles(&self.params)).collect()
    }
}

/// What the steps of a batch begin with.
struct Begun {
    seen: Seen,
    /// `[B, H]`
    hidden: Tensor,
    /// `[B, H]`
    cell: Tensor,
    /// The words' part of the gates, bias included: `[P, 4H]`.
    gates: Tensor,
}

impl Decoder for AttentionLstm {
    fn params(&self) -> &Params {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    fn inputs(&self) -> &[ColumnInput] {
        &self.mapping.inputs
    }

    fn vocab(&self) -> usize {
        self.words.vocab as usize
    }

    fn loss(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> Tensor {
        let dropout = Dropout::new(scoring);
        let (seen, states, alpha) = self.listen(prefix, captions, &dropout);
        let loss = self.words.loss(&self.params, &states, captions, scoring, &dropout);
        let penalty = self.penalty(captions);
        if penalty == 0.0 {
            return loss;
        }
        loss + penalty * unattended(&attended(&alpha, captions), &seen).0
    }

    fn attention(&self, prefix: &Prefix, captions: &Captions) -> Option<Tensor> {
        let _guard = tch::no_grad_guard();
        Some(self.listen(prefix, captions, &Dropout::none()).2)
    }

    /// torch differentiates both ends, the steps between them go backward in closed form.
    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        let dropout = Dropout::new(scoring);
        let Begun { seen, hidden, cell, gates } = self.begin(prefix, captions, &dropout);
        let given = Given {
            seen: seen.each(Tensor::detach),
            hidden: hidden.detach(),
            cell: cell.detach(),
            gates: gates.detach(),
        };
        let weights = tch::no_grad(|| self.weights());
        let tape = tch::no_grad(|| AttentionTape::forward(given, &captions.active, &weights));
        let mut gradients = Gradients::new(&self.params);
        let spoken = leaf(&tape.cell.hidden);
        let mut loss = self.words.loss(&self.params, &spoken, captions, scoring, &dropout);
        let of_spoken = gradients.differentiate(&loss, &[&spoken], &self.words.output()).remove(0);
        let mut of_attended = None;
        let penalty = self.penalty(captions);
        if penalty > 0.0 {
            let (rest, slope) = tch::no_grad(|| unattended(&attended(&tape.attend.alpha, captions), &seen));
            loss = loss.detach() + penalty * rest;
            of_attended = Some(slope * penalty);
        }
        let found = tch::no_grad(|| tape.backward(&of_spoken, of_attended.as_ref(), &weights));
        drop(tape);
        let pairs = [
            (&seen.values, &found.values),
            (&seen.keys, &found.keys),
            (&hidden, &found.hidden),
            (&cell, &found.cell),
            (&gates, &found.gates),
        ];
        let rest: Tensor = pairs.into_iter().map(|(output, gradient)| stand_in(output, gradient)).sum();
        gradients.differentiate(&rest, &[], &self.before_steps());
        self.add_weights(&mut gradients, found.weights);
        (loss.detach(), gradients.finish())
    }

    fn start(&self, prefix: &Prefix) -> State {
        let _guard = tch::no_grad_guard();
        let (Seen { values, keys, mask }, hidden, cell) = self.look(prefix, &Dropout::none());
        let mut images = vec![values, keys];
        images.extend(mask);
        State { images, rows: vec![hidden, cell] }
    }

    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State) {
        let _guard = tch::no_grad_guard();
        let shared = |index: usize| state.images[index].shallow_clone();
        let mask = state.images.get(2).map(Tensor::shallow_clone);
        let seen = Seen { values: shared(0), keys: shared(1), mask };
        let (hidden, cell) = (&state.rows[0], &state.rows[1]);
        let images = seen.values.size()[0];
        let (_, context) = self.attend(&seen, &hidden.view([images, -1, hidden.size()[1]]));
        let words = self.word_gates(&self.words.embed(&self.params, tokens, &Dropout::none()));
        let (hidden, cell) = self.cell(&words, &context.view([-1, self.width]), hidden, cell);
        let logits = self.words.logits(&self.params, &hidden);
        let images = state.images.iter().map(Tensor::shallow_clone).collect();
        (logits, State { images, rows: vec![hidden, cell] })
    }
}
