//! A block of GPT-2 (Radford et al. 2019): its parameters under Hugging Face's names, and what needs no neighbours.
//!
//! Conv1D is `x W + b` with `W [in, out]`, as in the checkpoints: no transpose on loading or saving.

use tch::Tensor;

use super::{
    super::{Handle, Init, Params, ParamsBuilder},
    config::Sizes,
    spec::Freeze,
    weights::OWN,
};

/// How the parameters are declared: what is trained, what is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declared {
    pub freeze: Freeze,
    pub lora: i64,
    /// First values do not matter: they will be read from a file.
    pub read: bool,
}

impl Declared {
    /// Normal with this deviation, unless the values are read from a file anyway.
    pub fn normal(self, deviation: f32) -> Init {
        if self.read { Init::Constant(0.0) } else { Init::Normal(deviation) }
    }
}

/// A layer norm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    weight: Handle,
    bias: Handle,
    width: i64,
    epsilon: f64,
}

impl Norm {
    pub fn declare(builder: &mut ParamsBuilder, name: &str, width: i64, epsilon: f64) -> Self {
        let weight = builder.add(format!("{name}.weight"), &[width], Init::Constant(1.0));
        Self { weight, bias: builder.add(format!("{name}.bias"), &[width], Init::Constant(0.0)), width, epsilon }
    }

    /// Over the last axis, `[.., W]`.
    pub fn apply(&self, params: &Params, values: &Tensor) -> Tensor {
        let (weight, bias) = (params.get(self.weight), params.get(self.bias));
        values.layer_norm([self.width], Some(weight), Some(bias), self.epsilon, true)
    }
}

/// GPT-2's linear layer, with its low-rank addition where it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    weight: Handle,
    bias: Handle,
    /// `a [in, r]` and `b [r, out]`: the weight is `W + a b`.
    lora: Option<(Handle, Handle)>,
}

impl Conv {
    /// `name.weight [input, output]`, `name.bias [output]`.
    pub fn declare(builder: &mut ParamsBuilder, name: &str, [input, output]: [i64; 2], init: Init) -> Self {
        let weight = builder.add(format!("{name}.weight"), &[input, output], init);
        Self { weight, bias: builder.add(format!("{name}.bias"), &[output], Init::Constant(0.0)), lora: None }
    }

    /// The same with a trained addition of rank `rank` that is zero at first (Hu et al. 2021).
    fn with_lora(mut self, builder: &mut ParamsBuilder, name: &str, [input, output]: [i64; 2], rank: i64) -> Self {
        if rank > 0 {
            builder.freeze(false);
            let bound = Init::Uniform(1.0 / (input as f32).sqrt());
            let a = builder.add(format!("{OWN}lora.{name}.a"), &[input, rank], bound);
            self.lora = Some((a, builder.add(format!("{OWN}lora.{name}.b"), &[rank, output], Init::Constant(0.0))));
        }
        self
    }

    /// `[n, out]` of `[n, in]`.
    pub fn apply(&self, params: &Params, values: &Tensor) -> Tensor {
        self.columns(params, values, 0, params.get(self.bias).size()[0])
    }

    /// Only `count` of the output's columns, from `from` on.
    pub fn columns(&self, params: &Params, values: &Tensor, from: i64, count: i64) -> Tensor {
        let part = |tensor: &Tensor, axis: i64| match tensor.size()[axis as usize] == count {
            true => tensor.shallow_clone(),
            false => tensor.narrow(axis, from, count),
        };
        let found = part(params.get(self.bias), 0).addmm(values, &part(params.get(self.weight), 1));
        match self.lora {
            Some((a, b)) => found.addmm(&values.mm(params.get(a)), &part(params.get(b), 1)),
            None => found,
        }
    }

    /// The addition's weight `a b` and the weight it belongs to.
    pub fn addition(&self, params: &Params) -> Option<(Handle, Tensor)> {
        self.lora.map(|(a, b)| (self.weight, params.get(a).mm(params.get(b))))
    }
}

/// Attention to the columns' vectors, as transformers' `add_cross_attention` has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cross {
    pub norm: Norm,
    /// Keys and values of the images, `[W, 2W]`.
    pub images: Conv,
    pub query: Conv,
    pub project: Conv,
}

/// One block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub norm: Norm,
    /// Query, key and value, `[W, 3W]`.
    pub attention: Conv,
    pub project: Conv,
    pub cross: Option<Cross>,
    norm_mlp: Norm,
    widen: Conv,
    narrow: Conv,
}

impl Block {
    /// `h.{index}.*`.
    pub fn declare(builder: &mut ParamsBuilder, index: i64, sizes: &Sizes, declared: Declared, cross: bool) -> Self {
        let (width, inner, name) = (sizes.width, sizes.inner, format!("h.{index}"));
        // What is added to the sum of all layers is smaller the more layers there are.
        let residual = 0.02 / (2.0 * sizes.layers as f32).sqrt();
        let (frozen, norms) = (declared.freeze != Freeze::None, declared.freeze == Freeze::Lm);
        let norm = |builder: &mut ParamsBuilder, part: &str, frozen: bool| {
            builder.freeze(frozen);
            Norm::declare(builder, &format!("{name}.{part}"), width, sizes.epsilon)
        };
        let conv = |builder: &mut ParamsBuilder, part: &str, shape: [i64; 2], init: Init, frozen: bool| {
            builder.freeze(frozen);
            Conv::declare(builder, &format!("{name}.{part}"), shape, init)
        };
        let low_rank = |builder: &mut ParamsBuilder, conv: Conv, part: &str, shape: [i64; 2]| {
            conv.with_lora(builder, &format!("{name}.{part}"), shape, declared.lora)
        };
        let (plain, small) = (declared.normal(0.02), declared.normal(residual));
        let (qkv, square) = ([width, 3 * width], [width, width]);
        let attention = conv(builder, "attn.c_attn", qkv, plain, frozen);
        let project = conv(builder, "attn.c_proj", square, small, frozen);
        let block = Self {
            norm: norm(builder, "ln_1", norms),
            attention: low_rank(builder, attention, "attn.c_attn", qkv),
            project: low_rank(builder, project, "attn.c_proj", square),
            // New even where the rest is read from a file.
            cross: cross.then(|| Cross {
                norm: norm(builder, "ln_cross_attn", false),
                images: conv(builder, "crossattention.c_attn", [width, 2 * width], Init::Normal(0.02), false),
                query: conv(builder, "crossattention.q_attn", square, Init::Normal(0.02), false),
                project: conv(builder, "crossattention.c_proj", square, Init::Normal(residual), false),
            }),
            norm_mlp: norm(builder, "ln_2", norms),
            widen: conv(builder, "mlp.c_fc", [width, inner], plain, frozen),
            narrow: conv(builder, "mlp.c_proj", [inner, width], small, frozen),
        };
        builder.freeze(false);
        block
    }

    /// What the MLP adds to `[n, W]`.
    pub fn mlp(&self, params: &Params, values: &Tensor) -> Tensor {
        let wide = self.widen.apply(params, &self.norm_mlp.apply(params, values)); // [n, 4W]
        self.narrow.apply(params, &wide.gelu("tanh"))
    }

    /// The low-rank additions with the weights they belong to.
    pub fn additions(&self, params: &Params) -> Vec<(Handle, Tensor)> {
        [self.attention, self.project].iter().filter_map(|conv| conv.addition(params)).collect()
    }
}
