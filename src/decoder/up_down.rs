//! Up-Down's decoder (Anderson et al. 2018): one LSTM decides where to look, another what to say.
//!
//! h1 = LSTM([h2; mean(v); E y]), context by h1 (see [`super::attend`]), h2 = LSTM([context; h1]); h2 speaks. Both begin with
//! zeros. The part of h1's gates that the mean decides is computed once an image, that of the words once for each distinct
//! word of a batch.

use tch::{Device, Kind, Tensor};

use super::{
    AttentionLstmSpec, ColumnInput, Decoder, Handle, Params, ParamsBuilder, Prefix, Scoring, State,
    attend::Attend,
    cell::{self, Cell, first},
    dropout::Dropout,
    gradients::{Gradients, leaf, stand_in},
    mapping::Mapping,
    seen::Seen,
    up_down_tape::{UpDownTape, Weights},
    words::Words,
};
use crate::batch::Captions;

/// Two LSTMs with attention between them.
#[derive(Debug)]
pub struct UpDown {
    params: Params,
    mapping: Mapping,
    words: Words,
    attend: Attend,
    /// Looks: `top_down.*`, its input `[h2 H; mean W; word E]`.
    top_down: Cell,
    /// Speaks: `language.*`, its input `[context W; h1 H]`.
    language: Cell,
    embedding: i64,
    width: i64,
    hidden: i64,
}

/// What the words meet, one entry a caption or an image.
struct Met {
    seen: Seen,
    /// The part of h1's gates that the image decides, bias included: `[n, 4H]`.
    gates: Tensor,
}

/// Hidden and cell state of both LSTMs, `[n, H]` each.
struct States {
    first: (Tensor, Tensor),
    second: (Tensor, Tensor),
}

impl UpDown {
    /// A decoder with seeded first weights; the spec was checked by [`super::build`].
    #[must_use]
    pub(super) fn new(spec: &AttentionLstmSpec, inputs: &[ColumnInput], vocab: i64, seed: u64, device: Device) -> Self {
        let mut builder = ParamsBuilder::new(seed);
        let AttentionLstmSpec { width, embedding, hidden, attention, .. } = *spec;
        Self {
            mapping: Mapping::declare(&mut builder, inputs, width, spec.activation, spec.dropout),
            words: Words::declare(&mut builder, vocab, embedding, hidden, spec.dropout, spec.tied),
            attend: Attend::declare(&mut builder, width, hidden, attention),
            top_down: Cell::declare(&mut builder, "top_down", "", hidden + width + embedding, hidden),
            language: Cell::declare(&mut builder, "language", "", width + hidden, hidden),
            embedding,
            width,
            hidden,
            params: builder.build(device),
        }
    }

    /// `count` columns of a cell's input weights from `start` on: `[4H, count]`.
    fn input(&self, cell: &Cell, start: i64, count: i64) -> Tensor {
        self.params.get(cell.weight_ih).narrow(1, start, count)
    }

    /// The images as the words will meet them.
    fn meet(&self, prefix: &Prefix, dropout: &Dropout) -> Met {
        let mapped = self.mapping.apply(&self.params, prefix, dropout);
        let bias = self.top_down.bias(&self.params);
        let gates = mapped.mean().linear(&self.input(&self.top_down, self.hidden, self.width), Some(&bias));
        Met { seen: self.attend.seen(&self.params, mapped), gates }
    }

    /// The part of h1's gates that the words decide, `[n, 4H]`.
    fn word_gates(&self, tokens: &Tensor, dropout: &Dropout) -> Tensor {
        let words = self.words.embed(&self.params, tokens, dropout); // [n, E]
        words.linear::<Tensor>(&self.input(&self.top_down, self.hidden + self.width, self.embedding), None)
    }

    /// What the steps of a batch begin with: what is seen, one entry a caption, and h1's gates of images and words `[P, 4H]`.
    fn begin(&self, prefix: &Prefix, captions: &Captions, dropout: &Dropout) -> (Seen, Tensor) {
        let Met { seen, gates } = self.meet(prefix, dropout);
        let words = self.word_gates(&captions.words, dropout).index_select(0, &captions.inputs);
        let image = captions.image.index_select(0, &captions.owner); // [P]
        (seen.each(|tensor| tensor.index_select(0, &captions.image)), words + gates.index_select(0, &image))
    }

    fn zeros(&self, count: i64) -> States {
        let zeros = || Tensor::zeros([count, self.hidden], (Kind::Float, self.params.device()));
        States { first: (zeros(), zeros()), second: (zeros(), zeros()) }
    }

    /// One step of `r` rows an image: h1's gates of images and words `[n r, 4H]`; gives attention `[n, r, K]` too.
    fn advance(&self, seen: &Seen, gates: &Tensor, before: &States) -> (Tensor, States) {
        let (hidden, width) = (self.hidden, self.width);
        let recurrent = |cell: &Cell| self.params.get(cell.weight_hh).tr();
        let (spoken, images) = (&before.second.0, seen.values.size()[0]);
        let gates = gates.addmm(spoken, &self.input(&self.top_down, 0, hidden).tr());
        let gates = gates.addmm(&before.first.0, &recurrent(&self.top_down));
        let first = cell::pointwise(&gates, &before.first.1);
        let (alpha, context) = self.attend.look(&self.params, seen, &first.0.view([images, -1, hidden]));
        let gates = self
            .language
            .bias(&self.params)
            .addmm(&context.view([-1, width]), &self.input(&self.language, 0, width).tr());
        let gates = gates.addmm(&first.0, &self.input(&self.language, width, hidden).tr());
        let gates = gates.addmm(spoken, &recurrent(&self.language));
        let second = cell::pointwise(&gates, &before.second.1);
        (alpha, States { first, second })
    }

    /// The states that speak `[P, H]` and the attention `[P, K]` while the captions are read to it.
    fn listen(&self, prefix: &Prefix, captions: &Captions, dropout: &Dropout) -> (Tensor, Tensor) {
        let (seen, gates) = self.begin(prefix, captions, dropout);
        let mut states = self.zeros(captions.count());
        let (mut spoken, mut alphas) = (vec![], vec![]);
        for (gates, &count) in gates.split_with_sizes(captions.active.as_slice(), 0).iter().zip(&captions.active) {
            let both = |(hidden, cell): &(Tensor, Tensor)| (first(hidden, count), first(cell, count));
            let before = States { first: both(&states.first), second: both(&states.second) };
            let (alpha, next) = self.advance(&seen.first(count), gates, &before);
            spoken.push(next.second.0.shallow_clone());
            alphas.push(alpha.squeeze_dim(1));
            states = next;
        }
        (Tensor::cat(&spoken, 0), Tensor::cat(&alphas, 0))
    }

    /// The weights that the steps use, as the closed form wants them.
    fn weights(&self) -> Weights {
        let get = |handle: Handle| self.params.get(handle).detach();
        let (query, query_bias) = self.attend.query;
        let of_first = self.input(&self.language, self.width, self.hidden).detach();
        let of_second = self.input(&self.top_down, 0, self.hidden).detach();
        Weights {
            of_first: Tensor::cat(&[of_first, get(query) * 2.0], 0),
            bias: Tensor::cat(&[self.language.bias(&self.params).detach(), get(query_bias) * 2.0], 0),
            of_second: Tensor::cat(&[of_second, get(self.language.weight_hh)], 0),
            recurrent: get(self.top_down.weight_hh),
            context: self.input(&self.language, 0, self.width).detach(),
            score: get(self.attend.score).squeeze_dim(0) * 2.0,
        }
    }

    /// Hands the gradients of [`UpDown::weights`] to the parameters they were made of.
    fn add_weights(&self, gradients: &mut Gradients<'_>, found: Weights) {
        let (gates, attention) = (4 * self.hidden, found.score.size()[0]);
        let part = |tensor: &Tensor, start: i64, count: i64| tensor.narrow(0, start, count);
        gradients.add(self.attend.query.0, part(&found.of_first, gates, attention) * 2.0);
        gradients.add(self.attend.query.1, part(&found.bias, gates, attention) * 2.0);
        gradients.add(self.attend.score, found.score.unsqueeze(0) * 2.0);
        for handle in [self.language.bias_ih, self.language.bias_hh] {
            gradients.add(handle, part(&found.bias, 0, gates));
        }
        gradients.add(self.language.weight_ih, Tensor::cat(&[found.context, part(&found.of_first, 0, gates)], 1));
        gradients.add(self.language.weight_hh, part(&found.of_second, gates, gates));
        gradients.add(self.top_down.weight_hh, found.recurrent);
        // torch already gave this parameter's other columns their gradient, and zeros here.
        let rest = Tensor::zeros([gates, self.width + self.embedding], (Kind::Float, self.params.device()));
        gradients.add(self.top_down.weight_ih, Tensor::cat(&[part(&found.of_second, 0, gates), rest], 1));
    }
}

impl Decoder for UpDown {
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
        let (spoken, _) = self.listen(prefix, captions, &dropout);
        self.words.loss(&self.params, &spoken, captions, scoring, &dropout)
    }

    fn attention(&self, prefix: &Prefix, captions: &Captions) -> Option<Tensor> {
        let _guard = tch::no_grad_guard();
        Some(self.listen(prefix, captions, &Dropout::none()).1)
    }

    /// torch differentiates both ends, the steps between them go backward in closed form.
    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        let dropout = Dropout::new(scoring);
        let (seen, gates) = self.begin(prefix, captions, &dropout);
        let weights = tch::no_grad(|| self.weights());
        let given = (seen.each(Tensor::detach), gates.detach());
        let tape = tch::no_grad(|| UpDownTape::forward(given.0, &given.1, &captions.active, &weights));
        let mut gradients = Gradients::new(&self.params);
        let spoken = leaf(&tape.language.hidden);
        let loss = self.words.loss(&self.params, &spoken, captions, scoring, &dropout);
        let of_spoken = gradients.differentiate(&loss, &[&spoken], &self.words.output()).remove(0);
        let found = tch::no_grad(|| tape.backward(&of_spoken, &weights));
        drop(tape);
        let pairs = [(&seen.values, &found.values), (&seen.keys, &found.keys), (&gates, &found.gates)];
        let rest: Tensor = pairs.into_iter().map(|(output, gradient)| stand_in(output, gradient)).sum();
        let mut handles = vec![self.attend.key, self.words.embedding()];
        handles.extend(self.top_down.input());
        handles.extend(self.mapping.handles(&self.params));
        gradients.differentiate(&rest, &[], &handles);
        self.add_weights(&mut gradients, found.weights);
        (loss.detach(), gradients.finish())
    }

    fn start(&self, prefix: &Prefix) -> State {
        let _guard = tch::no_grad_guard();
        let Met { seen, gates } = self.meet(prefix, &Dropout::none());
        let States { first, second } = self.zeros(prefix.images());
        let mut images = vec![gates, seen.values, seen.keys];
        images.extend(seen.mask);
        State { images, rows: vec![first.0, first.1, second.0, second.1] }
    }

    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State) {
        let _guard = tch::no_grad_guard();
        let shared = |index: usize| state.images[index].shallow_clone();
        let mask = state.images.get(3).map(Tensor::shallow_clone);
        let seen = Seen { values: shared(1), keys: shared(2), mask };
        let gates = self.word_gates(tokens, &Dropout::none()); // [R, 4H]
        let (images, width) = (seen.values.size()[0], gates.size()[1]);
        let gates = (gates.view([images, -1, width]) + state.images[0].unsqueeze(1)).view([-1, width]);
        let row = |index: usize| state.rows[index].shallow_clone();
        let before = States { first: (row(0), row(1)), second: (row(2), row(3)) };
        let (_, States { first, second }) = self.advance(&seen, &gates, &before);
        let logits = self.words.logits(&self.params, &second.0);
        let images = state.images.iter().map(Tensor::shallow_clone).collect();
        (logits, State { images, rows: vec![first.0, first.1, second.0, second.1] })
    }
}
