//! The kernels of one model, which its graph names by number.
//!
//! Must not know graphs or ONNX Runtime. Weights are packed once a process, however many sessions run them: each session
//! holds this table by reference, and the graph it is given has no copy of them.

use super::direct::Direct;
use super::kernel::{BLOCK, Finish};
use super::layout::{self, Window};
use super::pointwise::{Normal, Pointwise};
use super::pool::Workers;
use super::winograd::Winograd;

/// One convolution with what follows it.
pub(super) struct Convolution {
    pub how: How,
    /// `[O]`
    pub bias: Option<Vec<f32>>,
    pub relu: bool,
}

pub(super) enum How {
    Winograd(Winograd, usize),
    Direct(Direct),
    Pointwise(Pointwise),
}

/// One entry.
pub(super) enum Entry {
    Convolution(Convolution),
    Window(Window),
    /// A factor and an offset a channel.
    Affine(Normal),
    ToBlocked,
    /// Channels last, else as ONNX has them.
    FromBlocked {
        channels_last: bool,
    },
}

/// All entries of a model.
#[derive(Default)]
pub(in crate::encoder) struct Table(pub(super) Vec<Entry>);

impl Entry {
    /// Shape of the output for an input of this shape, or nothing where the entry does not take it.
    pub fn output(&self, shape: &[usize]) -> Option<Vec<usize>> {
        match (self, shape) {
            (Self::ToBlocked, &[n, c, h, w]) if c % BLOCK == 0 => Some(vec![n, c / BLOCK, h, w, BLOCK]),
            (Self::FromBlocked { channels_last: false }, &[n, blocks, h, w, BLOCK]) => {
                Some(vec![n, blocks * BLOCK, h, w])
            }
            (Self::FromBlocked { channels_last: true }, &[n, blocks, h, w, BLOCK]) => {
                Some(vec![n, h, w, blocks * BLOCK])
            }
            (Self::Affine(normal), &[_, blocks, _, _, BLOCK]) if normal.factor.len() == blocks * BLOCK => {
                Some(shape.to_vec())
            }
            (Self::Window(window), &[n, blocks, h, w, BLOCK]) => {
                let [oh, ow] = window.output(h, w);
                Some(vec![n, blocks, oh, ow, BLOCK])
            }
            (Self::Convolution(convolution), &[n, blocks, h, w, BLOCK]) => {
                let (inputs, outputs, [oh, ow]) = match &convolution.how {
                    How::Winograd(winograd, outputs) => (winograd.inputs(), *outputs, [h, w]),
                    How::Direct(direct) => direct.geometry().sizes(h, w),
                    How::Pointwise(pointwise) => pointwise.geometry().sizes(h, w),
                };
                (inputs == blocks * BLOCK).then(|| vec![n, outputs / BLOCK, oh, ow, BLOCK])
            }
            _ => None,
        }
    }

    /// Runs the entry on an input of a shape that [`Entry::output`] takes.
    pub fn run(&self, x: &[f32], shape: &[usize], residual: Option<&[f32]>, out: &mut [f32], workers: &Workers<'_>) {
        let area = |shape: &[usize]| shape[2] * shape[3];
        match self {
            Self::ToBlocked => layout::to_blocked(x, area(shape), out),
            Self::FromBlocked { channels_last: false } => layout::from_blocked(x, area(shape), out),
            Self::FromBlocked { channels_last: true } => {
                layout::to_channels_last(x, shape[1] * BLOCK, area(shape), out);
            }
            Self::Affine(normal) => layout::affine(x, &normal.factor, &normal.offset, normal.relu, area(shape), out),
            Self::Window(window) => window.run(x, [shape[2], shape[3]], out),
            Self::Convolution(convolution) => {
                let (bias, relu) = (convolution.bias.as_deref(), convolution.relu);
                let finish = Finish { bias, residual, relu, onto: false };
                let size = [shape[0], shape[2], shape[3]];
                match &convolution.how {
                    How::Winograd(winograd, _) => winograd.run(x, size, finish, out, workers),
                    How::Direct(direct) => direct.run(x, size, finish, out, workers),
                    How::Pointwise(pointwise) => pointwise.run(x, size, finish, out, workers),
                }
            }
        }
    }
}
