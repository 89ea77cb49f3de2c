//! ClipCap's transformer mapping (Mokady et al. 2021): learned constants look at the image's vectors, and take their place.
//!
//! 8 pre-LN layers, 8 heads, an MLP twice as wide with ReLU; queries, keys and values without bias.

use tch::Tensor;

use super::{
    super::{Handle, Init, Params, ParamsBuilder, dropout::Dropout},
    attention::{Mask, attend, heads, hide, join},
    block::Norm,
    weights::OWN,
};

/// Layers, as published.
const LAYERS: usize = 8;
/// Heads, as published; the width must be a multiple of it.
pub(super) const HEADS: i64 = 8;

#[derive(Debug)]
struct Layer {
    norm: Norm,
    /// `[3W, W]`
    qkv: Handle,
    project: (Handle, Handle),
    norm_mlp: Norm,
    widen: (Handle, Handle),
    narrow: (Handle, Handle),
}

/// The constants and the layers.
#[derive(Debug)]
pub(super) struct Mapper {
    /// `[k, W]`
    constants: Handle,
    layers: Vec<Layer>,
    count: i64,
}

impl Layer {
    fn declare(builder: &mut ParamsBuilder, index: usize, width: i64) -> Self {
        let name = |part: &str| format!("{OWN}mapping.h.{index}.{part}");
        let bound = Init::Uniform(1.0 / (width as f32).sqrt());
        Self {
            norm: Norm::declare(builder, &name("ln_1"), width, 1e-5),
            qkv: builder.add(name("attn.qkv.weight"), &[3 * width, width], bound),
            project: builder.linear(&name("attn.proj"), width, width),
            norm_mlp: Norm::declare(builder, &name("ln_2"), width, 1e-5),
            widen: builder.linear(&name("mlp.fc"), width, 2 * width),
            narrow: builder.linear(&name("mlp.proj"), 2 * width, width),
        }
    }

    /// Rows `[N * S, W]` of sequences of `S`.
    fn apply(&self, params: &Params, rows: &Tensor, length: i64, mask: &Mask) -> Tensor {
        let linear = |input: &Tensor, (weight, bias)| input.linear(params.get(weight), Some(params.get(bias)));
        let qkv = self.norm.apply(params, rows).linear::<Tensor>(params.get(self.qkv), None);
        let qkv = heads(&qkv, 3, length, HEADS);
        let seen = attend([&qkv[0], &qkv[1], &qkv[2]], mask, 0.0, &Dropout::none());
        let rows = rows + linear(&join(&seen), self.project);
        let wide = linear(&self.norm_mlp.apply(params, &rows), self.widen).relu();
        &rows + linear(&wide, self.narrow)
    }
}

impl Mapper {
    pub fn declare(builder: &mut ParamsBuilder, count: i64, width: i64) -> Self {
        let constants = builder.add(format!("{OWN}mapping.constants"), &[count, width], Init::Normal(1.0));
        Self { constants, layers: (0..LAYERS).map(|index| Layer::declare(builder, index, width)).collect(), count }
    }

    /// `k`
    pub fn count(&self) -> i64 {
        self.count
    }

    /// `[N, k, W]` of mapped vectors `[N, K, W]`, of which only the `present` ones `[N, K]` are looked at.
    pub fn apply(&self, params: &Params, mapped: &Tensor, present: Option<&Tensor>) -> Tensor {
        let size = mapped.size();
        let constants = params.get(self.constants).expand([size[0], self.count, size[2]], false);
        let added = present.map(|present| {
            let constants = present.new_ones([size[0], self.count], (tch::Kind::Bool, present.device()));
            hide(&Tensor::cat(&[present.shallow_clone(), constants], 1))
        });
        let mask = Mask { causal: false, added };
        let length = size[1] + self.count;
        let mut rows = Tensor::cat(&[mapped.shallow_clone(), constants], 1).view([-1, size[2]]);
        for layer in &self.layers {
            rows = layer.apply(params, &rows, length, &mask);
        }
        rows.view([size[0], length, size[2]]).narrow(1, size[1], self.count)
    }
}
