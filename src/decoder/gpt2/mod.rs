//! GPT-2 (Radford et al. 2019) as a decoder: `[<img>, image vectors.., <desc>, caption.., EOS]`, or cross-attention.
//!
//! Knows neither tokenizers nor optimizers. One decision defended: an image's places are computed once for all its captions
//! (on a GPU where it has several: [`padded`]). They come first and never see a caption, so sharing them is exact; with a grid
//! of 49 vectors and five captions an image it is most of the work saved.
//!
//! The language model keeps Hugging Face's names and shapes; what icecap adds begins with `icecap.`. The marks `<img>` and
//! `<desc>` are vectors of their own: the vocabulary stays what it was. `<desc>` takes the place of the begin mark.

mod attention;
mod block;
mod config;
mod error;
mod files;
mod images;
mod look;
mod mapper;
mod padded;
mod speak;
mod spec;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::{
    ColumnInput, Decoder, DecoderError, Handle, Init, Params, ParamsBuilder, Prefix, Scoring, Special, State,
    dropout::Dropout,
    gradients::{Gradients, leaf, stand_in},
    head::{self, Head},
    words::mean_loss,
};
use crate::batch::Captions;
use attention::{Layout, Mask, among_images, attend, heads, hide, join, pick};
use block::{Block, Declared, Norm};
use config::Sizes;
pub use error::Gpt2Error;
use images::Images;
pub use spec::{Freeze, Gpt2Mapping, Gpt2Spec};
use weights::OWN;

/// A GPT-2 that speaks about images.
#[derive(Debug)]
pub struct Gpt2 {
    params: Params,
    spec: Gpt2Spec,
    sizes: Sizes,
    /// Tokens of the tokenizer: the vocabulary's rows after these are nobody's.
    tokens: usize,
    images: Images,
    /// `wte.weight [V, W]`, the head's weight too.
    words: Handle,
    /// `wpe.weight [positions, W]`
    places: Handle,
    /// The vector of `<desc>`, `[W]`.
    mark: Handle,
    blocks: Vec<Block>,
    last: Norm,
    /// Captions of a training step lie padded side by side, not packed: on a GPU.
    padded: bool,
}

/// What the blocks of a training step share.
struct Pass<'a> {
    captions: &'a Captions,
    layout: Layout,
    dropout: &'a Dropout,
    /// Images of the batch and vectors each in the prefix, `N` and `K` (0 with cross-attention).
    images: i64,
    vectors: i64,
    /// Places of the captions' keys among images and words.
    keys: Tensor,
    among_images: Mask,
    of_words: Mask,
    /// With cross-attention: what is seen of the images, `[N * K, W]`, and which of it.
    seen: Option<(Tensor, Mask)>,
}

impl Gpt2 {
    fn declare(
        spec: &Gpt2Spec,
        (sizes, tokens): (Sizes, usize),
        inputs: &[ColumnInput],
        seed: u64,
        read: bool,
        device: Device,
    ) -> Result<Self, DecoderError> {
        let mut builder = ParamsBuilder::new(seed);
        let declared = Declared { freeze: spec.freeze, lora: spec.lora, read };
        let (width, cross) = (sizes.width, spec.mapping == Gpt2Mapping::CrossAttention);
        let images = Images::declare(&mut builder, inputs, spec, width);
        let mark = builder.add(format!("{OWN}desc"), &[width], Init::Normal(0.02));
        builder.freeze(spec.freeze != Freeze::None);
        let words = builder.add("wte.weight", &[sizes.vocab, width], declared.normal(0.02));
        let places = builder.add("wpe.weight", &[sizes.positions, width], declared.normal(0.02));
        let block = |index| Block::declare(&mut builder, index, &sizes, declared, cross);
        let blocks = (0..sizes.layers).map(block).collect();
        builder.freeze(spec.freeze == Freeze::Lm);
        let last = Norm::declare(&mut builder, "ln_f", width, sizes.epsilon);
        let params = builder.build(device);
        let (spec, padded) = (spec.clone(), device != Device::Cpu);
        let decoder = Self { params, spec, sizes, tokens, images, words, places, mark, blocks, last, padded };
        decoder.check_positions()?;
        Ok(decoder)
    }

    /// Images' places before the first word's, `<desc>` not counted.
    fn offset(&self) -> i64 {
        if self.spec.mapping == Gpt2Mapping::CrossAttention { 0 } else { self.images.count() }
    }

    /// Rows that go in: with the place of each and, where asked for, its type.
    fn placed(&self, rows: &Tensor, places: &Tensor, mark: Handle) -> Tensor {
        let rows = rows + places;
        if self.spec.token_types { rows + self.params.get(mark) } else { rows }
    }

    /// The images' rows `[N * K, W]` as they go in, and which are absent: `[N, 1, 1, K]`.
    fn image_rows(&self, prefix: &Prefix, dropout: &Dropout) -> (Tensor, Option<Tensor>) {
        let seen = self.images.apply(&self.params, prefix);
        let hidden = seen.present.as_ref().map(hide);
        if self.offset() == 0 {
            return (seen.values.reshape([-1, self.sizes.width]), hidden);
        }
        let places = self.params.get(self.places).narrow(0, 0, self.offset());
        let rows = self.placed(&seen.values, &places, self.images.mark).view([-1, self.sizes.width]);
        (dropout.apply(rows, self.spec.dropout), hidden)
    }

    /// The words' rows `[P, W]` as they go in; `words` `[U, W]` are those of the batch's distinct tokens.
    fn word_rows(&self, captions: &Captions, layout: &Layout, words: &Tensor, dropout: &Dropout) -> Tensor {
        let (begun, width) = (captions.count(), self.sizes.width);
        let rest = captions.inputs.narrow(0, begun, captions.tokens() - begun);
        let mark = self.params.get(self.mark).expand([begun, width], false);
        let rows = Tensor::cat(&[mark, pick(words, &rest)], 0);
        let places = self.params.get(self.places).narrow(0, self.offset(), layout.steps);
        dropout.apply(self.placed(&rows, &pick(&places, &layout.step), self.mark), self.spec.dropout)
    }

    /// The states that the words end in, `[P, W]`.
    fn body(&self, prefix: &Prefix, captions: &Captions, words: &Tensor, dropout: &Dropout) -> Tensor {
        if self.padded {
            return self.padded_body(prefix, captions, words, dropout);
        }
        let (images, hidden) = self.image_rows(prefix, dropout);
        let layout = Layout::new(captions, self.params.device());
        let mut words = self.word_rows(captions, &layout, words, dropout);
        let (count, vectors) = (prefix.images(), self.offset());
        let pass = Pass {
            captions,
            dropout,
            images: count,
            vectors,
            keys: layout.keys(captions, count, vectors),
            among_images: among_images(vectors, hidden.as_ref()),
            of_words: layout.mask(captions, vectors, hidden.as_ref()),
            seen: (vectors == 0).then(|| (images.shallow_clone(), self.crossed(captions, hidden.as_ref()))),
            layout,
        };
        let mut images = (vectors > 0).then_some(images);
        for (index, block) in self.blocks.iter().enumerate() {
            let last = index + 1 == self.blocks.len();
            (images, words) = self.block(block, images, &words, last, &pass);
        }
        self.last.apply(&self.params, &words)
    }

    /// What each caption sees of its image's vectors by cross-attention.
    fn crossed(&self, captions: &Captions, hidden: Option<&Tensor>) -> Mask {
        Mask { causal: false, added: hidden.map(|hidden| hidden.index_select(0, &captions.image)) }
    }

    /// One block over all rows. After the last one nobody asks for the images' rows.
    fn block(
        &self,
        block: &Block,
        images: Option<Tensor>,
        words: &Tensor,
        last: bool,
        pass: &Pass<'_>,
    ) -> (Option<Tensor>, Tensor) {
        let (params, width, share) = (&self.params, self.sizes.width, self.spec.dropout);
        let split = images.as_ref().map_or(0, |images| images.size()[0]);
        let rows = images.map_or_else(|| words.shallow_clone(), |images| Tensor::cat(&[&images, words], 0));
        let normed = block.norm.apply(params, &rows);
        let count = rows.size()[0] - split;
        let (rows, attended, split) = if last {
            // Keys and values of all, queries of the words alone.
            let query = block.attention.columns(params, &normed.narrow(0, split, count), 0, width);
            let keyed = block.attention.columns(params, &normed, width, 2 * width);
            (words.shallow_clone(), self.words_attend(&query, &keyed, pass), 0)
        } else {
            let qkv = block.attention.apply(params, &normed); // [N K + P, 3W]
            let query = qkv.narrow(0, split, count).narrow(1, 0, width);
            let attended = self.words_attend(&query, &qkv.narrow(1, width, 2 * width), pass);
            let attended = match split {
                0 => attended,
                _ => Tensor::cat(&[self.images_attend(&qkv.narrow(0, 0, split), pass), attended], 0),
            };
            (rows, attended, split)
        };
        let mut rows = rows + pass.dropout.apply(block.project.apply(params, &attended), share);
        if let Some((seen, mask)) = &pass.seen {
            rows = &rows + pass.dropout.apply(self.cross_attend(block, &rows, seen, mask, pass), share);
        }
        let rows = &rows + pass.dropout.apply(block.mlp(params, &rows), share);
        match split {
            0 => (None, rows),
            _ => (Some(rows.narrow(0, 0, split)), rows.narrow(0, split, count)),
        }
    }

    /// What the words see: queries `[P, W]`, keys and values of images and words `[N K + P, 2W]`.
    fn words_attend(&self, query: &Tensor, keyed: &Tensor, pass: &Pass<'_>) -> Tensor {
        let layout = &pass.layout;
        let query = heads(&pick(query, &layout.side_by_side), 1, layout.steps, self.sizes.heads);
        let keyed = heads(&pick(keyed, &pass.keys), 2, pass.vectors + layout.steps, self.sizes.heads);
        let share = self.spec.attention_dropout;
        let seen = attend([&query[0], &keyed[0], &keyed[1]], &pass.of_words, share, pass.dropout);
        pick(&join(&seen), &layout.packed)
    }

    /// What the images' vectors see of each other, of their queries, keys and values `[N K, 3W]`.
    fn images_attend(&self, qkv: &Tensor, pass: &Pass<'_>) -> Tensor {
        let qkv = heads(qkv, 3, pass.vectors, self.sizes.heads);
        let share = self.spec.attention_dropout;
        join(&attend([&qkv[0], &qkv[1], &qkv[2]], &pass.among_images, share, pass.dropout))
    }

    /// What cross-attention adds to the words' rows `[P, W]`.
    fn cross_attend(&self, block: &Block, rows: &Tensor, seen: &Tensor, mask: &Mask, pass: &Pass<'_>) -> Tensor {
        let (params, layout) = (&self.params, &pass.layout);
        let Some(cross) = &block.cross else { return rows.zeros_like() };
        let query = cross.query.apply(params, &cross.norm.apply(params, rows));
        let query = heads(&pick(&query, &layout.side_by_side), 1, layout.steps, self.sizes.heads);
        let keyed = heads(&cross.images.apply(params, seen), 2, seen.size()[0] / pass.images, self.sizes.heads);
        let [key, value] = [0, 1].map(|part: usize| keyed[part].index_select(0, &pass.captions.image));
        let seen = attend([&query[0], &key, &value], mask, self.spec.attention_dropout, pass.dropout);
        cross.project.apply(params, &pick(&join(&seen), &layout.packed))
    }
}

impl Decoder for Gpt2 {
    fn params(&self) -> &Params {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    fn inputs(&self) -> &[ColumnInput] {
        &self.images.inputs
    }

    fn vocab(&self) -> usize {
        self.sizes.vocab as usize
    }

    fn spare(&self) -> usize {
        self.vocab() - self.tokens
    }

    fn limit(&self) -> Option<usize> {
        Some((self.sizes.positions - self.offset()) as usize)
    }

    fn halves(&self) -> bool {
        true
    }

    fn loss(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> Tensor {
        let (weight, dropout) = (self.params.get(self.words), Dropout::new(scoring));
        let words = pick(weight, &captions.words);
        let hidden = self.body(prefix, captions, &words, &dropout);
        let logits = hidden.linear::<Tensor>(weight, None); // [P, V]
        mean_loss(&logits, captions, scoring.label_smoothing)
    }

    /// torch differentiates the body; the head goes forward and backward in closed form.
    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        let weight = self.params.get(self.words).detach();
        let words = leaf(&pick(&weight, &captions.words)); // [U, W]
        let hidden = self.body(prefix, captions, &words, &Dropout::new(scoring));
        let trained = self.words.index().is_some();
        let head = Head { weight: &weight, bias: None, trained };
        let scored = head::score(&hidden.detach(), head, captions, scoring.label_smoothing);
        let handles: Vec<Handle> = self.params.handles().filter(|handle| *handle != self.words).collect();
        let others: &[&Tensor] = if trained { &[&words] } else { &[] };
        let mut gradients = Gradients::new(&self.params);
        let of_words = gradients.differentiate(&stand_in(&hidden, &scored.hidden), others, &handles);
        if let (Some(mut sum), [of_words]) = (scored.weight, &of_words[..]) {
            let _ = sum.index_add_(0, &captions.words, &of_words.to_kind(Kind::Float));
            gradients.add(self.words, sum);
        }
        (scored.loss, gradients.finish())
    }

    fn attention(&self, prefix: &Prefix, captions: &Captions) -> Option<Tensor> {
        self.looks(prefix, captions)
    }

    fn start(&self, prefix: &Prefix) -> State {
        self.begin(prefix)
    }

    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State) {
        let (logits, after, _) = self.speak(state, tokens);
        (logits, after)
    }

    fn write_beside(&self, folder: &Path, special: Special) -> Result<Vec<&'static str>, DecoderError> {
        self.write_settings(folder, special)
    }

    fn export(&self, folder: &Path, special: Special) -> Result<(), DecoderError> {
        self.write_merged(folder, special)
    }
}
