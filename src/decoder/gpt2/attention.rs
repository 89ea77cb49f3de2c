//! Who looks at whom: images at themselves, captions at their image and at their own past.
//!
//! Rows of all images and captions lie packed in one matrix, so that every linear layer is one product without padding; only
//! here, and only for the scores, are captions laid side by side. What is padded stands on the right, where a causal mask
//! hides it from everything that counts.

use tch::{Device, Kind, Tensor};

use super::super::dropout::Dropout;
use crate::batch::{Captions, sent};

/// What a score may see.
#[derive(Debug, Default)]
pub(super) struct Mask {
    /// Each place sees those before it and itself; with `added`, that says so itself.
    pub causal: bool,
    /// Added to the scores: 0 or minus infinity, `[.., queries, keys]`.
    pub added: Option<Tensor>,
}

/// softmax(q k' / sqrt(d)) v with queries `[n, H, q, d]`, keys and values `[n, H, k, d]`; dropout on the weights.
pub(super) fn attend([query, key, value]: [&Tensor; 3], mask: &Mask, share: f64, dropout: &Dropout) -> Tensor {
    // torch's fused kernels drop weights themselves on a GPU; on the CPU the masks are ours.
    if let Some(share) = dropout.within_kernel(share, query.device()) {
        let added = mask.added.as_ref().map(|added| added.to_kind(query.kind()));
        let causal = mask.causal && added.is_none();
        return Tensor::scaled_dot_product_attention(query, key, value, added.as_ref(), share, causal, None, false);
    }
    let scale = 1.0 / (query.size()[3] as f64).sqrt();
    let scores = (query * scale).matmul(&key.transpose(2, 3)); // [n, H, q, k]
    let scores = match &mask.added {
        Some(added) => scores + added,
        None if mask.causal => scores + past(query.size()[2], 0, query.device()),
        None => scores,
    };
    dropout.apply(scores.softmax(-1, Kind::Float), share).to_kind(value.kind()).matmul(value)
}

/// Minus infinity where a key comes after the query, `[count, ahead + count]`; all of the first `ahead` keys are seen.
pub(super) fn past(count: i64, ahead: i64, device: Device) -> Tensor {
    Tensor::full([count, ahead + count], f64::NEG_INFINITY, (Kind::Float, device)).triu(ahead + 1)
}

/// 0 where there is a vector, minus infinity where not: `[n, 1, 1, K]` of `[n, K]`.
pub(super) fn hide(present: &Tensor) -> Tensor {
    let zeros = Tensor::zeros(present.size(), (Kind::Float, present.device()));
    zeros.masked_fill(&present.logical_not(), f64::NEG_INFINITY).unsqueeze(1).unsqueeze(1)
}

/// `[n, H, q, d]` of rows `[n * q, parts * H * d]`, for each of the parts.
pub(super) fn heads(rows: &Tensor, parts: i64, count: i64, heads: i64) -> Vec<Tensor> {
    let depth = rows.size()[1] / parts / heads;
    rows.view([-1, count, parts, heads, depth]).permute([2, 0, 3, 1, 4]).unbind(0)
}

/// `[n * q, W]` of heads `[n, H, q, d]`.
pub(super) fn join(values: &Tensor) -> Tensor {
    let size = values.size();
    values.transpose(1, 2).reshape([size[0] * size[2], size[1] * size[3]])
}

/// Rows picked from a matrix; faster to differentiate than `index_select`.
pub(super) fn pick(rows: &Tensor, places: &Tensor) -> Tensor {
    Tensor::embedding(rows, places, -1, false, false)
}

/// Where the packed words of a batch lie when captions lie side by side.
#[derive(Debug)]
pub(super) struct Layout {
    /// Captions, `B`.
    captions: i64,
    /// Words of the longest, `T`.
    pub steps: i64,
    /// Which packed word stands at each place `[B * T]`; any at all where the caption has ended.
    pub side_by_side: Tensor,
    /// Where each packed word stands: `[P]`.
    pub packed: Tensor,
    /// Which word of its caption each packed word is: `[P]`.
    pub step: Tensor,
}

impl Layout {
    pub fn new(captions: &Captions, device: Device) -> Self {
        let (count, steps) = (captions.count() as usize, captions.active.len());
        let mut side_by_side = vec![0; count * steps];
        let (mut packed, mut step_of) = (vec![], vec![]);
        for (step, &active) in captions.active.iter().enumerate() {
            for caption in 0..active as usize {
                let place = caption * steps + step;
                side_by_side[place] = packed.len() as i64;
                packed.push(place as i64);
                step_of.push(step as i64);
            }
        }
        let there = |numbers: &[i64]| sent(numbers, device);
        Self {
            captions: count as i64,
            steps: steps as i64,
            side_by_side: there(&side_by_side),
            packed: there(&packed),
            step: there(&step_of),
        }
    }

    /// Places of each caption's keys in `[N * K rows of images, P rows of words]`: `[B * (K + T)]`.
    pub fn keys(&self, captions: &Captions, images: i64, vectors: i64) -> Tensor {
        let device = self.packed.device();
        let image = captions.image.unsqueeze(1) * vectors + Tensor::arange(vectors, (Kind::Int64, device)); // [B, K]
        let words = self.side_by_side.view([self.captions, self.steps]) + images * vectors;
        Tensor::cat(&[image, words], 1).view(-1)
    }

    /// What each word sees of `K` image vectors and of its caption; `hidden` `[N, 1, 1, K]` takes vectors out.
    pub fn mask(&self, captions: &Captions, vectors: i64, hidden: Option<&Tensor>) -> Mask {
        if vectors == 0 {
            return Mask { causal: true, added: None };
        }
        let past = past(self.steps, vectors, self.packed.device()); // [T, K + T]
        let added = match hidden {
            None => past,
            Some(hidden) => {
                let hidden = hidden.index_select(0, &captions.image); // [B, 1, 1, K]
                let words = Tensor::zeros([self.captions, 1, 1, self.steps], (Kind::Float, hidden.device()));
                Tensor::cat(&[hidden, words], 3) + past // [B, 1, T, K + T]
            }
        };
        Mask { causal: true, added: Some(added) }
    }
}

/// What image vectors see: those before them, without the absent ones.
pub(super) fn among_images(vectors: i64, hidden: Option<&Tensor>) -> Mask {
    let added = hidden.filter(|_| vectors > 0).map(|hidden| hidden + past(vectors, 0, hidden.device())); // [N, 1, K, K]
    Mask { causal: true, added }
}
