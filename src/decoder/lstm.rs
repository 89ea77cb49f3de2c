//! Show and Tell (Vinyals et al. 2015): the image is the LSTM's first input, then come the words.

use tch::{Device, Kind, Tensor};

use super::{
    ColumnInput, Decoder, LstmSpec, Params, ParamsBuilder, Prefix, Scoring, State,
    cell::{self, Cell},
    dropout::Dropout,
    gradients::{Gradients, leaf, stand_in},
    lstm_tape::LayerTape,
    mapping::Mapping,
    words::Words,
};
use crate::batch::Captions;

/// An LSTM that sees the image once, before the first word.
#[derive(Debug)]
pub struct Lstm {
    params: Params,
    mapping: Mapping,
    words: Words,
    layers: Vec<Cell>,
    hidden: i64,
    dropout: f64,
}

impl Lstm {
    /// A decoder with seeded first weights; the spec was checked by [`super::build`].
    #[must_use]
    pub(super) fn new(spec: &LstmSpec, inputs: &[ColumnInput], vocab: i64, seed: u64, device: Device) -> Self {
        let mut builder = ParamsBuilder::new(seed);
        let mapping = Mapping::declare(&mut builder, inputs, spec.embedding, spec.activation, spec.dropout);
        let words = Words::declare(&mut builder, vocab, spec.embedding, spec.hidden, spec.dropout, spec.tied);
        let layers = (0..spec.layers).map(|layer| {
            let input = if layer == 0 { spec.embedding } else { spec.hidden };
            Cell::declare(&mut builder, "lstm", &format!("_l{layer}"), input, spec.hidden)
        });
        let layers = layers.collect();
        Self { mapping, words, layers, hidden: spec.hidden, dropout: spec.dropout, params: builder.build(device) }
    }

    /// The image vectors `[N, E]`.
    fn images(&self, prefix: &Prefix, dropout: &Dropout) -> Tensor {
        self.mapping.mean(&self.params, prefix, dropout)
    }

    /// The first layer's gates of the image, then of the words, without the recurrent part: `[B + P, 4H]`.
    ///
    /// Each image and each distinct word goes through the weights once.
    fn first_gates(&self, prefix: &Prefix, captions: &Captions, dropout: &Dropout) -> Tensor {
        let (given, places) = self.given(prefix, captions, dropout);
        self.gates(0, &given).index_select(0, &places)
    }

    /// Each image, then each distinct word, `[N + U, E]`, and which of them goes in at each place, `[B + P]`.
    fn given(&self, prefix: &Prefix, captions: &Captions, dropout: &Dropout) -> (Tensor, Tensor) {
        let images = self.images(prefix, dropout); // [N, E]
        let words = self.words.embed(&self.params, &captions.words, dropout); // [U, E]
        let places = Tensor::cat(&[&captions.image, &(&captions.inputs + images.size()[0])], 0); // [B + P]
        (Tensor::cat(&[images, words], 0), places)
    }

    /// A layer's gates without the recurrent part, `[n, 4H]`.
    fn gates(&self, layer: usize, input: &Tensor) -> Tensor {
        let layer = &self.layers[layer];
        input.linear(self.params.get(layer.weight_ih), Some(&layer.bias(&self.params)))
    }

    /// How many captions each step has, the image's step first.
    fn active(captions: &Captions) -> Vec<i64> {
        std::iter::once(captions.count()).chain(captions.active.iter().copied()).collect()
    }

    /// As [`Decoder::gradients`], for a GPU: cuDNN's layers, the output layer in closed form, and torch for the rest.
    fn gradients_by_cudnn(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        let (active, dropout) = (Self::active(captions), Dropout::new(scoring));
        let (given, places) = self.given(prefix, captions, &dropout);
        let (mut states, mut weights) = (given.index_select(0, &places), vec![]);
        for (index, layer) in self.layers.iter().enumerate() {
            let share = if index == 0 { 0.0 } else { self.dropout };
            let detached = layer.handles().map(|handle| self.params.get(handle).detach());
            // Leaves of their own: gradients of the pieces, not of the whole that they were laid into.
            let pieces = Cell::in_one_piece(&detached).map(|piece| piece.set_requires_grad(true));
            states = cell::run(&pieces, &dropout.apply(states, share), &active);
            weights.push(pieces);
        }
        let spoken = self.words.dropped(states.narrow(0, captions.count(), captions.tokens()), &dropout);
        let scored = self.words.score(&self.params, &spoken, captions, scoring);
        let mut gradients = Gradients::new(&self.params);
        let mut handles = vec![self.words.embedding()];
        handles.extend(self.mapping.handles(&self.params));
        let pieces: Vec<&Tensor> = weights.iter().flatten().collect();
        let found = gradients.differentiate(&stand_in(&spoken, &scored.hidden), &pieces, &handles);
        for (handle, part) in self.layers.iter().flat_map(Cell::handles).zip(found) {
            gradients.add(handle, part);
        }
        for (handle, part) in self.words.output().into_iter().zip([scored.weight, scored.bias].into_iter().flatten()) {
            gradients.add(handle, part);
        }
        (scored.loss, gradients.finish())
    }

    /// One step through all layers: input `[R, E]`, rows `[h, c]` a layer.
    fn advance(&self, input: Tensor, rows: &[Tensor]) -> (Tensor, Vec<Tensor>) {
        let mut next = Vec::with_capacity(rows.len());
        let mut input = input;
        for (index, state) in rows.chunks_exact(2).enumerate() {
            let recurrent = self.params.get(self.layers[index].weight_hh).tr();
            let gates = self.gates(index, &input).addmm(&state[0], &recurrent);
            let (hidden, cell) = cell::pointwise(&gates, &state[1]);
            input = hidden.shallow_clone();
            next.extend([hidden, cell]);
        }
        (input, next)
    }
}

impl Decoder for Lstm {
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
        let (active, dropout) = (Self::active(captions), Dropout::new(scoring));
        let (given, places) = self.given(prefix, captions, &dropout);
        let mut states = given.index_select(0, &places); // [B + P, E], then [B + P, H]
        for (index, layer) in self.layers.iter().enumerate() {
            let share = if index == 0 { 0.0 } else { self.dropout };
            let weights = Cell::in_one_piece(&layer.handles().map(|handle| self.params.get(handle).shallow_clone()));
            states = cell::run(&weights, &dropout.apply(states, share), &active);
        }
        let spoken = states.narrow(0, captions.count(), captions.tokens()); // [P, H]
        self.words.loss(&self.params, &spoken, captions, scoring, &dropout)
    }

    /// torch differentiates both ends, the layers go backward in closed form.
    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        if self.params.device() != Device::Cpu {
            return self.gradients_by_cudnn(prefix, captions, scoring);
        }
        let (active, dropout) = (Self::active(captions), Dropout::new(scoring));
        let mut layers: Vec<(Tensor, LayerTape, Tensor)> = vec![];
        for (index, layer) in self.layers.iter().enumerate() {
            let gates = match layers.last() {
                None => self.first_gates(prefix, captions, &dropout),
                Some((.., below)) => self.gates(index, &dropout.apply(below.shallow_clone(), self.dropout)),
            };
            let weight_hh = self.params.get(layer.weight_hh).detach();
            let tape = tch::no_grad(|| LayerTape::forward(&gates.detach(), &active, &weight_hh));
            let states = leaf(&tape.cell.hidden); // [B + P, H]
            layers.push((gates, tape, states));
        }
        let states = layers.last().map(|(.., states)| states.shallow_clone()).expect("at least one layer");
        let spoken = states.narrow(0, captions.count(), captions.tokens());
        let loss = self.words.loss(&self.params, &spoken, captions, scoring, &dropout);
        let mut gradients = Gradients::new(&self.params);
        let mut hidden = gradients.differentiate(&loss, &[&states], &self.words.output()).remove(0);
        for index in (0..layers.len()).rev() {
            let (layer, (gates, tape, _)) = (&self.layers[index], &layers[index]);
            let weight_hh = self.params.get(layer.weight_hh).detach();
            let (gate_gradient, weight) = tch::no_grad(|| tape.backward(&hidden, &weight_hh));
            gradients.add(layer.weight_hh, weight);
            let loss = stand_in(gates, &gate_gradient);
            match index.checked_sub(1) {
                Some(below) => {
                    hidden = gradients.differentiate(&loss, &[&layers[below].2], &layer.input()).remove(0);
                }
                None => {
                    let mut handles = layer.input().to_vec();
                    handles.push(self.words.embedding());
                    handles.extend(self.mapping.handles(&self.params));
                    gradients.differentiate(&loss, &[], &handles);
                }
            }
        }
        (loss.detach(), gradients.finish())
    }

    fn start(&self, prefix: &Prefix) -> State {
        let _guard = tch::no_grad_guard();
        let image = self.images(prefix, &Dropout::none());
        let zeros = Tensor::zeros([image.size()[0], self.hidden], (Kind::Float, image.device()));
        let rows: Vec<Tensor> = (0..2 * self.layers.len()).map(|_| zeros.shallow_clone()).collect();
        State { images: vec![], rows: self.advance(image, &rows).1 }
    }

    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State) {
        let _guard = tch::no_grad_guard();
        let words = self.words.embed(&self.params, tokens, &Dropout::none());
        let (hidden, rows) = self.advance(words, &state.rows);
        (self.words.logits(&self.params, &hidden), State { images: vec![], rows })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::gradients::by_torch, *};
    use crate::{batch::Vectors, decoder::Special};

    /// What is done on a GPU gives the gradients of the same loss; cuDNN's part is torch's own here.
    #[test]
    fn gradients_for_a_gpu_are_torchs_own() {
        let column = |name: &str, vectors| ColumnInput { name: name.into(), vectors, width: 5 };
        let vectors = |vectors: i64| {
            let data = (Tensor::arange(2 * vectors * 5, (Kind::Float, Device::Cpu)) * 0.7).sin();
            Vectors { data: data.view([2, vectors, 5]), present: None }
        };
        let special = Special { bos: 1, eos: 2, unk: None, pad: 0 };
        let captions = Captions::pack(&[(1, &[4, 5, 6, 7]), (0, &[8, 4]), (1, &[])], special, 40);
        for (counts, tied) in [(&[3][..], false), (&[3, 1], true)] {
            let spec = LstmSpec { embedding: 6, hidden: 6, layers: 2, tied, ..LstmSpec::default() };
            let inputs: Vec<_> = counts.iter().zip(["a", "b"]).map(|(&count, name)| column(name, count)).collect();
            let decoder = Lstm::new(&spec, &inputs, 11, 3, Device::Cpu);
            let prefix = Prefix { columns: counts.iter().map(|&count| vectors(count)).collect() };
            for dropout in [None, Some(3)] {
                let scoring = Scoring { dropout, label_smoothing: 0.1 };
                let (loss, expected) = by_torch(&decoder.params, &decoder.loss(&prefix, &captions, scoring));
                let (found_loss, found) = decoder.gradients_by_cudnn(&prefix, &captions, scoring);
                let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
                assert!(apart(&loss, &found_loss) < 1e-6);
                for ((name, expected), found) in decoder.params.names().zip(&expected).zip(&found) {
                    let apart = apart(expected, found);
                    assert!(apart < 1e-6, "{name}, {tied}, {dropout:?}: {apart:e}");
                    assert!(expected.abs().max().double_value(&[]) > 1e-5, "{name} learns nothing");
                }
            }
        }
    }
}
