//! The training pass on a GPU: captions side by side, padded to the batch's longest.
//!
//! Padding costs less there than packing: to pick rows apart has a sort or a crowd of atomic additions as its gradient, several a block, and
//! the fused attention kernels want nothing but whole causal sequences, an image's places and then the caption's. A batch's captions are of
//! like length, so that little is padded, and the head sees none of it. An image's places are still computed once for all of its captions where
//! that saves more than it costs (`FEW_SHARED`).

use tch::{Kind, Tensor};

use super::{attention::past, *};
use crate::batch::sent;

/// Where the images are at least this share of the captions, each caption has a copy of its image's rows: few are computed twice, and none are
/// picked apart.
const FEW_SHARED: f64 = 0.75;

/// How the rows of a step lie: where few images have two captions, sequence after sequence, `[B * (K + T), W]`; otherwise all images' rows
/// `[N * K, W]`, then all captions' `[B * T, W]`.
#[derive(Debug)]
struct Padded {
    captions: i64,
    /// Words of the longest, `T`.
    steps: i64,
    images: i64,
    /// Places of an image, `K` (0 with cross-attention).
    vectors: i64,
    /// What goes in after the begin mark, as places in the batch's distinct words: `[B, T - 1]`; any word where the caption has ended.
    fed: Tensor,
    /// Where each packed word stands: `[P]`.
    packed: Tensor,
    /// For each image the caption whose sequence its rows are taken from, `[N]`: the first of those that speak of it, or any where none
    /// does (then nobody looks at them). `None` where each caption has rows of its own for its image.
    speaker: Option<Tensor>,
}

/// What the blocks of a padded training step share.
struct Pass<'a> {
    captions: &'a Captions,
    padded: Padded,
    dropout: &'a Dropout,
    mask: Mask,
    /// With cross-attention: what is seen of the images, `[N * K, W]`, and which of it.
    seen: Option<(Tensor, Mask)>,
}

impl Padded {
    fn new(captions: &Captions, images: i64, vectors: i64) -> Self {
        let device = captions.inputs.device();
        let (count, steps) = (captions.count() as usize, captions.active.len());
        let (mut fed, mut packed) = (vec![0; count * (steps - 1)], vec![]);
        for (step, &active) in captions.active.iter().enumerate() {
            for caption in 0..active as usize {
                if step > 0 {
                    fed[caption * (steps - 1) + step - 1] = packed.len() as i64;
                }
                packed.push((caption * steps + step) as i64);
            }
        }
        let shared = vectors > 0 && (images as f64) < FEW_SHARED * count as f64;
        let speaker = shared.then(|| {
            let all = Tensor::arange(images, (Kind::Int64, device)).unsqueeze(1);
            captions.image.eq_tensor(&all).to_kind(Kind::Int64).argmax(1, false) // the first of each row [N, B]
        });
        Self {
            fed: captions.inputs.index_select(0, &sent(&fed, device)).view([count as i64, steps as i64 - 1]),
            packed: sent(&packed, device),
            captions: count as i64,
            steps: steps as i64,
            images,
            vectors,
            speaker,
        }
    }

    /// Rows of all places of images `[N * K, W]` and words `[B, T, W]`.
    fn all(&self, images: &Tensor, words: &Tensor, image: &Tensor) -> Tensor {
        let width = words.size()[2];
        match (self.vectors, &self.speaker) {
            (0, _) => words.reshape([-1, width]),
            (_, Some(_)) => Tensor::cat(&[images, &words.reshape([-1, width])], 0),
            (_, None) => Tensor::cat(&[&self.repeated(images, image), words], 1).view([-1, width]),
        }
    }

    /// Each caption's image's rows, `[B, K, W]` of `[N * K, W]`.
    fn repeated(&self, images: &Tensor, image: &Tensor) -> Tensor {
        let width = images.size()[1];
        let flat = images.reshape([self.images, self.vectors * width]).index_select(0, image);
        flat.view([self.captions, self.vectors, width])
    }

    /// Sequences `[B, K + T, W]` of rows of all places.
    fn sequences(&self, rows: &Tensor, image: &Tensor) -> Tensor {
        let width = rows.size()[1];
        if self.speaker.is_none() {
            return rows.view([self.captions, self.vectors + self.steps, width]);
        }
        let parts = rows.split_with_sizes([self.images * self.vectors, self.captions * self.steps], 0);
        let words = parts[1].view([self.captions, self.steps, width]);
        Tensor::cat(&[self.repeated(&parts[0], image), words], 1)
    }

    /// The other way round: what is said of an image's places is the same in all of its captions' sequences, and is taken from one.
    fn rows(&self, sequences: &Tensor) -> Tensor {
        let width = sequences.size()[2];
        let Some(speaker) = &self.speaker else { return sequences.reshape([-1, width]) };
        // Split, not narrowed twice: then the gradients of both parts come together in one copy.
        let parts = sequences.split_with_sizes([self.vectors, self.steps], 1);
        let images = parts[0].index_select(0, speaker).view([-1, width]);
        Tensor::cat(&[images, parts[1].reshape([-1, width])], 0)
    }

    /// The captions' part of sequences, `[B * T, W]`.
    fn said(&self, sequences: &Tensor) -> Tensor {
        sequences.narrow(1, self.vectors, self.steps).reshape([-1, sequences.size()[2]])
    }

    /// The captions' part of the rows of all places, `[B * T, W]`.
    fn words(&self, rows: &Tensor) -> Tensor {
        match self.speaker {
            None => self.said(&rows.view([self.captions, self.vectors + self.steps, rows.size()[1]])),
            Some(_) => rows.narrow(0, self.images * self.vectors, self.captions * self.steps),
        }
    }

    /// What each place sees: those before it and itself, without the absent ones; `hidden` `[N, 1, 1, K]` is minus infinity there.
    fn mask(&self, image: &Tensor, hidden: Option<&Tensor>) -> Mask {
        let added = hidden.filter(|_| self.vectors > 0).map(|hidden| {
            let words = Tensor::zeros([self.captions, 1, 1, self.steps], (Kind::Float, hidden.device()));
            let past = past(self.vectors + self.steps, 0, hidden.device());
            Tensor::cat(&[hidden.index_select(0, image), words], 3) + past // [B, 1, S, S]
        });
        Mask { causal: true, added }
    }
}

/// `[B, H, S, d]` of sequences `[B, S, parts * H * d]`, for each of the parts. They are cut before they are turned: so their gradients come
/// together in one copy.
fn turned(sequences: &Tensor, parts: i64, heads: i64) -> Vec<Tensor> {
    let size = sequences.size();
    let depth = size[2] / parts / heads;
    let one = |part: &Tensor| part.view([size[0], size[1], heads, depth]).transpose(1, 2);
    sequences.chunk(parts, 2).iter().map(one).collect()
}

impl Gpt2 {
    /// As [`Gpt2::body`]: the states that the words end in, `[P, W]`.
    pub(super) fn padded_body(
        &self,
        prefix: &Prefix,
        captions: &Captions,
        words: &Tensor,
        dropout: &Dropout,
    ) -> Tensor {
        let (images, hidden) = self.image_rows(prefix, dropout);
        let padded = Padded::new(captions, prefix.images(), self.offset());
        let words = self.padded_words(&padded, words, dropout);
        let mut rows = padded.all(&images, &words, &captions.image);
        let pass = Pass {
            captions,
            mask: padded.mask(&captions.image, hidden.as_ref()),
            seen: (padded.vectors == 0).then(|| (images, self.crossed(captions, hidden.as_ref()))),
            padded,
            dropout,
        };
        for (index, block) in self.blocks.iter().enumerate() {
            rows = self.padded_block(block, &rows, index + 1 == self.blocks.len(), &pass);
        }
        self.last.apply(&self.params, &rows.index_select(0, &pass.padded.packed))
    }

    /// The words' rows as they go in, `[B, T, W]`; `words` `[U, W]` are those of the batch's distinct tokens.
    fn padded_words(&self, padded: &Padded, words: &Tensor, dropout: &Dropout) -> Tensor {
        let mark = self.params.get(self.mark).expand([padded.captions, 1, self.sizes.width], false);
        let rows = Tensor::cat(&[mark, pick(words, &padded.fed)], 1);
        let places = self.params.get(self.places).narrow(0, self.offset(), padded.steps);
        dropout.apply(self.placed(&rows, &places, self.mark), self.spec.dropout)
    }

    /// One block over the rows of all places; after the last one those of the words `[B * T, W]`, which alone are asked for.
    fn padded_block(&self, block: &Block, rows: &Tensor, last: bool, pass: &Pass<'_>) -> Tensor {
        let (params, padded, share) = (&self.params, &pass.padded, self.spec.dropout);
        let qkv = block.attention.apply(params, &block.norm.apply(params, rows));
        let qkv = turned(&padded.sequences(&qkv, &pass.captions.image), 3, self.sizes.heads);
        let seen = attend([&qkv[0], &qkv[1], &qkv[2]], &pass.mask, self.spec.attention_dropout, pass.dropout);
        let seen = seen.transpose(1, 2).flatten(2, 3); // [B, S, W]
        let (rows, seen) = match last {
            true => (padded.words(rows), padded.said(&seen)),
            false => (rows.shallow_clone(), padded.rows(&seen)),
        };
        let mut rows = rows + pass.dropout.apply(block.project.apply(params, &seen), share);
        if let (Some((seen, mask)), Some(cross)) = (&pass.seen, &block.cross) {
            let query = cross.query.apply(params, &cross.norm.apply(params, &rows));
            let query = turned(&query.view([padded.captions, padded.steps, -1]), 1, self.sizes.heads);
            let keyed = cross.images.apply(params, seen).view([padded.images, -1, 2 * self.sizes.width]);
            let keyed = turned(&keyed.index_select(0, &pass.captions.image), 2, self.sizes.heads);
            let seen = attend([&query[0], &keyed[0], &keyed[1]], mask, self.spec.attention_dropout, pass.dropout);
            let seen = cross.project.apply(params, &join(&seen));
            rows = &rows + pass.dropout.apply(seen, share);
        }
        &rows + pass.dropout.apply(block.mlp(params, &rows), share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Vectors;

    const SPECIAL: Special = Special { bos: 1, eos: 2, unk: None, pad: 0 };

    /// Images of three vectors; of every other one the last is absent where some are.
    fn prefix(images: i64, some_absent: bool) -> Prefix {
        let data = (Tensor::arange(images * 6, (Kind::Float, Device::Cpu)) * 0.7).sin().view([images, 3, 2]);
        let present = some_absent.then(|| {
            let last = Tensor::arange(images, (Kind::Int64, Device::Cpu)).remainder(2).eq(0);
            let there = Tensor::ones([images, 2], (Kind::Bool, Device::Cpu));
            Tensor::cat(&[there, last.view([images, 1])], 1)
        });
        Prefix { columns: vec![Vectors { data, present }] }
    }

    fn spec(mapping: Gpt2Mapping) -> Gpt2Spec {
        Gpt2Spec { width: 16, layers: 2, heads: 2, prefix_length: Some(3), mapping, ..Gpt2Spec::default() }
    }

    /// Both passes' losses and gradients agree, with images of which the last vector is absent and without.
    fn agrees(spec: &Gpt2Spec, captions: &Captions, images: i64) {
        let inputs = [ColumnInput { name: "grid".into(), vectors: 3, width: 2 }];
        let mut decoder = Gpt2::new(spec, &inputs, 11, 3, Device::Cpu).unwrap();
        // Larger weights than a first step's: so that all that is attended to tells.
        tch::no_grad(|| drop(decoder.params.flat().shallow_clone().g_mul_scalar_(3.0)));
        for some_absent in [false, true] {
            let scoring = Scoring { dropout: None, label_smoothing: 0.1 };
            let mut both = [false, true].map(|padded| {
                decoder.padded = padded;
                decoder.gradients(&prefix(images, some_absent), captions, scoring)
            });
            let [(loss, packed), (other, padded)] = &mut both;
            let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(apart(loss, other) < 1e-5, "{spec:?} {images} {some_absent}: {loss:?} {other:?}");
            assert_eq!((packed.len(), padded.len()), (decoder.params.names().count(), decoder.params.names().count()));
            for ((name, packed), padded) in decoder.params.names().zip(packed).zip(padded) {
                let least = packed.abs().max().double_value(&[]).max(1.0) * 1e-5;
                let apart = apart(packed, padded);
                assert!(apart < least, "{spec:?} {images} {some_absent} {name}: {apart:e}, {least:e}");
            }
        }
    }

    #[test]
    fn loss_and_gradients_are_those_of_packed_rows() {
        let shared: [(i64, &[u32]); 4] = [(1, &[4, 5, 6, 7]), (0, &[8, 4]), (1, &[]), (0, &[9, 9, 5])];
        let own: [(i64, &[u32]); 4] = [(1, &[4, 5, 6, 7]), (2, &[8]), (0, &[9, 9, 5]), (2, &[6])];
        let single: [(i64, &[u32]); 2] = [(0, &[]), (1, &[])];
        for mapping in [Gpt2Mapping::Linear, Gpt2Mapping::Mlp, Gpt2Mapping::Transformer, Gpt2Mapping::CrossAttention] {
            for (captions, images) in [(&shared[..], 2), (&own, 3), (&single, 2)] {
                agrees(&spec(mapping), &Captions::pack(captions, SPECIAL, 40), images);
            }
        }
    }

    #[test]
    fn so_are_those_of_what_is_frozen_or_added_to_and_of_rewards() {
        let captions: [(i64, &[u32]); 4] = [(1, &[4, 5, 6, 7]), (0, &[8, 4]), (1, &[]), (0, &[9, 9, 5])];
        for mapping in [Gpt2Mapping::Mlp, Gpt2Mapping::CrossAttention] {
            let spec = spec(mapping);
            let variants = [
                Gpt2Spec { token_types: false, ..spec.clone() },
                Gpt2Spec { freeze: Freeze::Lm, ..spec.clone() },
                Gpt2Spec { freeze: Freeze::AllButLn, ..spec.clone() },
                Gpt2Spec { freeze: Freeze::Lm, lora: 2, ..spec },
            ];
            let weights = [0.5, -1.5, 2.0, -0.25];
            for spec in variants {
                for images in [2, 4] {
                    agrees(&spec, &Captions::pack_weighted(&captions, &weights, SPECIAL, 40), images);
                }
            }
        }
    }
}
