//! One step of a tail: an operator whose weights are parameters, applied to tensors.
//!
//! Shapes are ONNX's: maps `[N, C, H, W]`, vectors `[N, D]`.

use tch::{Kind, TchError, Tensor};

use super::{
    super::{Handle, Params},
    window::Window,
};

/// Where an input comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A tensor of the tail, by its place.
    Tensor(usize),
    /// A parameter, seen in this shape.
    Weight(Handle, Vec<i64>),
    /// A number.
    Number(f64),
}

/// One node.
#[derive(Debug)]
pub(super) struct Step {
    pub node: String,
    pub name: String,
    pub operator: Operator,
    /// What it reads beside the weights of its operator.
    pub inputs: Vec<Source>,
    /// The place of what it makes.
    pub output: usize,
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Operator {
    Same,
    Conv { weight: Handle, bias: Option<Handle>, window: Window, groups: i64 },
    BatchNorm { scale: Handle, bias: Handle, mean: Handle, variance: Handle, epsilon: f64, momentum: f64 },
    Gemm { weight: Handle, bias: Option<(Handle, Vec<i64>)>, turned: [bool; 2], alpha: f64, beta: f64 },
    Relu,
    LeakyRelu(f64),
    Sigmoid,
    Tanh,
    Clip(Option<f64>, Option<f64>),
    HardSigmoid { alpha: f64, beta: f64 },
    HardSwish,
    Add,
    Sub,
    Mul,
    Div,
    MatMul,
    MaxPool(Window),
    AveragePool { window: Window, padding: bool },
    GlobalAverage,
    Mean { axes: Vec<i64>, keep: bool },
    Concat(i64),
    Flatten(i64),
    Reshape(Vec<i64>),
    Squeeze(Vec<i64>),
    Unsqueeze(Vec<i64>),
}

impl Step {
    /// What the step makes of `tensors`; with `training`, batch norms look at the batch and note what they saw.
    pub fn apply(&self, params: &Params, tensors: &[Option<Tensor>], training: Training) -> Result<Tensor, TchError> {
        let input = |source: &Source| match source {
            Source::Tensor(place) => {
                let missing = || TchError::Shape(format!("an input of `{}` is not there", self.node));
                tensors.get(*place).and_then(Option::as_ref).map(Tensor::shallow_clone).ok_or_else(missing)
            }
            Source::Weight(handle, shape) => params.get(*handle).f_view(shape.as_slice()),
            Source::Number(number) => Ok(Tensor::full([], *number, (Kind::Float, params.device()))),
        };
        let inputs = self.inputs.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        match inputs.as_slice() {
            [] => Err(TchError::Shape(format!("`{}` reads nothing", self.node))),
            [x] => self.operator.one(params, x, training),
            [a, b] if !matches!(self.operator, Operator::Concat(_)) => self.operator.two(a, b),
            all => match self.operator {
                Operator::Concat(axis) => Tensor::f_cat(all, axis),
                _ => Err(TchError::Shape(format!("`{}` reads {} tensors", self.node, all.len()))),
            },
        }
    }
}

/// What batch norms do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Training {
    /// They use their running statistics.
    No,
    /// They use those of the batch.
    Batch,
    /// They use those of the batch, and let the running ones follow.
    Follow,
}

impl Operator {
    fn one(&self, params: &Params, x: &Tensor, training: Training) -> Result<Tensor, TchError> {
        match self {
            Self::Same => Ok(x.shallow_clone()),
            Self::Conv { weight, bias, window, groups } => {
                let (x, pads) = window.pad(x, 0.0, false)?;
                let bias = bias.map(|bias| params.get(bias));
                x.f_conv2d(params.get(*weight), bias, window.stride, pads, window.dilation, *groups)
            }
            Self::BatchNorm { scale, bias, mean, variance, epsilon, momentum } => {
                let affine = [scale, bias].map(|handle| params.get(*handle));
                batch_norm(
                    x,
                    affine,
                    [mean, variance].map(|handle| params.get(*handle)),
                    [*momentum, *epsilon],
                    training,
                )
            }
            Self::Gemm { weight, bias, turned, alpha, beta } => {
                let x = if turned[0] { x.f_tr()? } else { x.shallow_clone() };
                let weight = params.get(*weight);
                let weight = if turned[1] { weight.f_tr()? } else { weight.shallow_clone() };
                let product = x.f_matmul(&weight)?;
                let product = if *alpha == 1.0 { product } else { product * *alpha };
                let Some((bias, shape)) = bias else { return Ok(product) };
                product.f_add(&(params.get(*bias).f_view(shape.as_slice())? * *beta))
            }
            Self::Relu => x.f_relu(),
            Self::LeakyRelu(slope) => x.f_where_self(&x.f_ge(0.0)?, &(x * *slope)),
            Self::Sigmoid => x.f_sigmoid(),
            Self::Tanh => x.f_tanh(),
            Self::Clip(Some(least), Some(most)) => x.f_clamp(*least, *most),
            Self::Clip(Some(least), None) => x.f_clamp_min(*least),
            Self::Clip(None, Some(most)) => x.f_clamp_max(*most),
            Self::Clip(None, None) => Ok(x.shallow_clone()),
            Self::HardSigmoid { alpha, beta } => hard_sigmoid(x, *alpha, *beta),
            Self::HardSwish => x.f_mul(&hard_sigmoid(x, 1.0 / 6.0, 0.5)?),
            Self::MaxPool(window) => window.max(x),
            Self::AveragePool { window, padding } => window.mean(x, *padding),
            Self::GlobalAverage => x.f_mean_dim([2_i64, 3].as_slice(), true, Kind::Float),
            Self::Mean { axes, keep } => x.f_mean_dim(axes.as_slice(), *keep, Kind::Float),
            Self::Concat(_) => Ok(x.shallow_clone()),
            Self::Flatten(axis) => {
                let (size, rank) = (x.size(), x.dim() as i64);
                let axis = if *axis < 0 { axis + rank } else { *axis };
                x.f_reshape([size[..axis as usize].iter().product(), size[axis as usize..].iter().product()])
            }
            Self::Reshape(shape) => {
                let size = x.size();
                let kept = |(place, &wanted): (usize, &i64)| if wanted == 0 { size[place] } else { wanted };
                x.f_reshape(shape.iter().enumerate().map(kept).collect::<Vec<i64>>())
            }
            Self::Squeeze(axes) => {
                // From the last to the first, so that none moves before its turn.
                let rank = x.dim() as i64;
                let mut axes: Vec<i64> = axes.iter().map(|axis| axis.rem_euclid(rank)).collect();
                axes.sort_unstable();
                axes.iter().rev().try_fold(x.shallow_clone(), |x, &axis| x.f_squeeze_dim(axis))
            }
            Self::Unsqueeze(axes) => {
                let rank = x.dim() as i64 + axes.len() as i64;
                let mut axes: Vec<i64> = axes.iter().map(|axis| axis.rem_euclid(rank)).collect();
                axes.sort_unstable();
                axes.iter().try_fold(x.shallow_clone(), |x, &axis| x.f_unsqueeze(axis))
            }
            Self::Add | Self::Sub | Self::Mul | Self::Div | Self::MatMul => {
                Err(TchError::Shape("it needs two tensors".to_owned()))
            }
        }
    }

    fn two(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Add => a.f_add(b),
            Self::Sub => a.f_sub(b),
            Self::Mul => a.f_mul(b),
            Self::Div => a.f_div(b),
            Self::MatMul => a.f_matmul(b),
            _ => Err(TchError::Shape("it takes one tensor".to_owned())),
        }
    }
}

/// max(0, min(1, alpha x + beta))
fn hard_sigmoid(x: &Tensor, alpha: f64, beta: f64) -> Result<Tensor, TchError> {
    (x * alpha + beta).f_clamp(0.0, 1.0)
}

/// `running` are mean and variance; `numbers` the share of the running ones that is kept, and the epsilon.
fn batch_norm(
    x: &Tensor,
    [scale, bias]: [&Tensor; 2],
    running: [&Tensor; 2],
    [momentum, epsilon]: [f64; 2],
    training: Training,
) -> Result<Tensor, TchError> {
    let norm = |[mean, variance]: [&Tensor; 2], by_batch| {
        x.f_batch_norm(Some(scale), Some(bias), Some(mean), Some(variance), by_batch, 1.0 - momentum, epsilon, false)
    };
    if training == Training::No {
        return norm(running, false);
    }
    let [mean, variance] = running.map(Tensor::copy);
    let y = norm([&mean, &variance], true)?;
    if training == Training::Follow {
        let _guard = tch::no_grad_guard();
        for (place, seen) in running.into_iter().zip([mean, variance]) {
            // A batch with a number that is none leaves them as they are: its step is skipped too.
            place.shallow_clone().f_copy_(&seen.f_where_self(&seen.f_isfinite()?, place)?)?;
        }
    }
    Ok(y)
}
