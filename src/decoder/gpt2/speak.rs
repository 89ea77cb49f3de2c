//! Speaking: the images' keys and values once, then a word a step over what was kept.
//!
//! An image's keys and values are shared by all its rows of a search: they are never copied when a beam is reordered.

use tch::{Kind, Tensor};

use super::{
    super::{State, dropout::Dropout},
    *,
};

impl Gpt2 {
    /// The images' part of every block. A state holds, a block: keys and values of the images `[N, H, K, d]`; then which
    /// vectors are absent `[N, 1, 1, K]`, where any is. Its rows hold, a block: keys and values so far `[R, H, t, d]`.
    pub(super) fn begin(&self, prefix: &Prefix) -> State {
        let _guard = tch::no_grad_guard();
        let (mut rows, hidden) = self.image_rows(prefix, &Dropout::none());
        let (count, vectors) = (prefix.images(), rows.size()[0] / prefix.images());
        let mask = among_images(vectors, hidden.as_ref());
        let mut images = Vec::with_capacity(2 * self.blocks.len() + 1);
        for (index, block) in self.blocks.iter().enumerate() {
            let keyed = match &block.cross {
                Some(cross) => heads(&cross.images.apply(&self.params, &rows), 2, vectors, self.sizes.heads),
                None => {
                    let last = index + 1 == self.blocks.len();
                    let (keyed, next) = self.begin_block(block, &rows, vectors, last, &mask);
                    rows = next;
                    keyed
                }
            };
            images.extend(keyed.iter().map(Tensor::contiguous));
        }
        images.extend(hidden);
        let depth = self.sizes.width / self.sizes.heads;
        let none = || Tensor::zeros([count, self.sizes.heads, 0, depth], (Kind::Float, self.params.device()));
        State { images, rows: (0..2 * self.blocks.len()).map(|_| none()).collect() }
    }

    /// Keys and values of the images' rows `[N K, W]`, and the rows after the block (as they came, after the last).
    fn begin_block(
        &self,
        block: &Block,
        rows: &Tensor,
        vectors: i64,
        last: bool,
        mask: &Mask,
    ) -> (Vec<Tensor>, Tensor) {
        let (params, width) = (&self.params, self.sizes.width);
        let normed = block.norm.apply(params, rows);
        if last {
            let keyed = block.attention.columns(params, &normed, width, 2 * width);
            return (heads(&keyed, 2, vectors, self.sizes.heads), rows.shallow_clone());
        }
        let mut qkv = heads(&block.attention.apply(params, &normed), 3, vectors, self.sizes.heads);
        let seen = attend([&qkv[0], &qkv[1], &qkv[2]], mask, 0.0, &Dropout::none());
        let rows = rows + block.project.apply(params, &join(&seen));
        let rows = &rows + block.mlp(params, &rows);
        (qkv.split_off(1), rows)
    }

    /// One word a row; and, a block with cross-attention, its weights `[R, H, 1, K]`.
    pub(super) fn speak(&self, state: &State, tokens: &Tensor) -> (Tensor, State, Vec<Tensor>) {
        let _guard = tch::no_grad_guard();
        let (params, width) = (&self.params, self.sizes.width);
        let (count, step) = (tokens.size()[0], state.rows[0].size()[2]);
        let words = match step {
            0 => params.get(self.mark).expand([count, width], false),
            _ => params.get(self.words).index_select(0, tokens),
        };
        let place = params.get(self.places).narrow(0, self.offset() + step, 1);
        let mut rows = self.placed(&words, &place, self.mark); // [R, W]
        let (mut kept, mut looks) = (Vec::with_capacity(state.rows.len()), vec![]);
        let absent = state.images.get(2 * self.blocks.len());
        let parts = self.blocks.iter().zip(state.images.chunks(2)).zip(state.rows.chunks(2));
        for ((block, images), own) in parts {
            let images = Shared { key: &images[0], value: &images[1], absent };
            let (next, own) = self.speak_block(block, &rows, &images, own, &mut looks);
            rows = next;
            kept.extend(own);
        }
        let logits = self.last.apply(params, &rows).linear::<Tensor>(params.get(self.words), None);
        (logits, State { images: state.images.iter().map(Tensor::shallow_clone).collect(), rows: kept }, looks)
    }

    fn speak_block(
        &self,
        block: &Block,
        rows: &Tensor,
        images: &Shared<'_>,
        own: &[Tensor],
        looks: &mut Vec<Tensor>,
    ) -> (Tensor, [Tensor; 2]) {
        let params = &self.params;
        let qkv = heads(&block.attention.apply(params, &block.norm.apply(params, rows)), 3, 1, self.sizes.heads);
        let own = [0, 1].map(|part: usize| Tensor::cat(&[&own[part], &qkv[part + 1]], 2)); // [R, H, t + 1, d]
        let seen = match &block.cross {
            None => images.with_own(&qkv[0], &own),
            Some(_) => attend([&qkv[0], &own[0], &own[1]], &Mask::default(), 0.0, &Dropout::none()),
        };
        let mut rows = rows + block.project.apply(params, &join(&seen));
        if let Some(cross) = &block.cross {
            let query = cross.query.apply(params, &cross.norm.apply(params, &rows));
            let (seen, weights) = images.alone(&heads(&query, 1, 1, self.sizes.heads)[0]);
            looks.push(weights);
            rows += cross.project.apply(params, &join(&seen));
        }
        (&rows + block.mlp(params, &rows), own)
    }
}

/// A block's keys and values of the images, shared by an image's rows.
struct Shared<'a> {
    /// `[N, H, K, d]`
    key: &'a Tensor,
    value: &'a Tensor,
    /// `[N, 1, 1, K]`
    absent: Option<&'a Tensor>,
}

impl Shared<'_> {
    /// Scores of queries `[R, H, 1, d]`, already scaled: `[R, H, 1, K]`.
    fn scores(&self, query: &Tensor) -> Tensor {
        let scores = self.grouped(query).matmul(&self.key.transpose(2, 3)); // [N, H, R/N, K]
        self.ungrouped(&match self.absent {
            Some(absent) => scores + absent,
            None => scores,
        })
    }

    /// `[N, H, R/N, x]` of `[R, H, 1, x]`.
    fn grouped(&self, rows: &Tensor) -> Tensor {
        let size = rows.size();
        rows.reshape([self.key.size()[0], -1, size[1], size[3]]).transpose(1, 2)
    }

    /// `[R, H, 1, x]` of `[N, H, R/N, x]`.
    fn ungrouped(&self, values: &Tensor) -> Tensor {
        let size = values.size();
        values.transpose(1, 2).reshape([-1, size[1], 1, size[3]])
    }

    /// Attention over the image's vectors alone, and its weights `[R, H, 1, K]`.
    fn alone(&self, query: &Tensor) -> (Tensor, Tensor) {
        let weights = self.scores(&scaled(query)).softmax(-1, Kind::Float);
        (self.ungrouped(&self.grouped(&weights).matmul(self.value)), weights)
    }

    /// Attention over the image's vectors and the row's own words, as one softmax.
    fn with_own(&self, query: &Tensor, own: &[Tensor; 2]) -> Tensor {
        let (query, vectors) = (scaled(query), self.key.size()[2]);
        let scores = [self.scores(&query), query.matmul(&own[0].transpose(2, 3))];
        let weights = Tensor::cat(&scores, 3).softmax(-1, Kind::Float); // [R, H, 1, K + t]
        let of_image = self.grouped(&weights.narrow(3, 0, vectors)).matmul(self.value);
        self.ungrouped(&of_image) + weights.narrow(3, vectors, own[0].size()[2]).matmul(&own[1])
    }
}

fn scaled(query: &Tensor) -> Tensor {
    query / (query.size()[3] as f64).sqrt()
}
