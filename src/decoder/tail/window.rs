//! Windows that slide over maps: what convolutions and poolings have in common, from ONNX's attributes to torch's arguments.
//!
//! ONNX pads each side by a number of its own, torch both sides of an axis alike: where they differ, the map is padded first.

use tch::{TchError, Tensor};

use super::{TailError, read::used};
use crate::section::Node;

/// A window of two axes, height first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    pub kernel: [i64; 2],
    pub stride: [i64; 2],
    pub dilation: [i64; 2],
    pads: Pads,
    /// Windows that begin inside and end outside count.
    pub ceil: bool,
}

/// What is put around a map.
#[derive(Debug, Clone, PartialEq)]
enum Pads {
    /// Above, left, below, right.
    Given([i64; 4]),
    /// As much as gives `size / stride` windows, rounded up; where it is odd, one more below and right (or above and left).
    Same { more_before: bool },
}

impl Window {
    /// The node's window; `kernel` is its size where the attribute may be left out.
    pub fn read(node: &Node, kernel: Option<[i64; 2]>) -> Result<Self, TailError> {
        let pair = |name: &str, default: [i64; 2]| match node.integers(name) {
            None => Ok(default),
            Some(&[height, width]) if height > 0 && width > 0 => Ok([height, width]),
            Some(other) => Err(used(node, format!("`{name}` = {other:?}"))),
        };
        let kernel = match (node.integers("kernel_shape"), kernel) {
            (None, Some(kernel)) => kernel,
            (None, None) => return Err(used(node, "no `kernel_shape`")),
            (Some(_), _) => pair("kernel_shape", [1, 1])?,
        };
        let pads = match (node.text("auto_pad"), node.integers("pads")) {
            ("SAME_UPPER", _) => Pads::Same { more_before: false },
            ("SAME_LOWER", _) => Pads::Same { more_before: true },
            ("VALID", _) | ("" | "NOTSET", None) => Pads::Given([0; 4]),
            ("" | "NOTSET", Some(&[top, left, below, right]))
                if [top, left, below, right].iter().all(|&pad| pad >= 0) =>
            {
                Pads::Given([top, left, below, right])
            }
            ("" | "NOTSET", Some(other)) => return Err(used(node, format!("`pads` = {other:?}"))),
            (other, _) => return Err(used(node, format!("`auto_pad` = `{other}`"))),
        };
        let ceil = node.integer("ceil_mode", 0) != 0;
        Ok(Self { kernel, stride: pair("strides", [1, 1])?, dilation: pair("dilations", [1, 1])?, pads, ceil })
    }

    /// Above, left, below, right of a map of this size.
    fn pads(&self, size: [i64; 2]) -> [i64; 4] {
        match self.pads {
            Pads::Given(pads) => pads,
            Pads::Same { more_before } => {
                let both = |axis: usize| {
                    let windows = (size[axis] + self.stride[axis] - 1) / self.stride[axis];
                    let reach = (windows - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1;
                    let pad = (reach - size[axis]).max(0);
                    let less = pad / 2;
                    if more_before { [pad - less, less] } else { [less, pad - less] }
                };
                let ([top, below], [left, right]) = (both(0), both(1));
                [top, left, below, right]
            }
        }
    }

    /// `x [N, C, H, W]` with what torch can't pad by itself put around it, and what is left for torch; a pooling may leave at
    /// most half of its window.
    pub fn pad(&self, x: &Tensor, value: f64, pools: bool) -> Result<(Tensor, [i64; 2]), TchError> {
        let (_, _, height, width) = x.size4()?;
        let [top, left, below, right] = self.pads([height, width]);
        let fits = !pools || (2 * top <= self.kernel[0] && 2 * left <= self.kernel[1]);
        if top == below && left == right && fits {
            return Ok((x.shallow_clone(), [top, left]));
        }
        Ok((x.f_pad([left, right, top, below], "constant", value)?, [0, 0]))
    }

    pub fn max(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (x, pads) = self.pad(x, f64::NEG_INFINITY, true)?;
        x.f_max_pool2d(self.kernel, self.stride, pads, self.dilation, self.ceil)
    }

    /// The mean; of what lies in the map alone unless `padding` counts.
    pub fn mean(&self, x: &Tensor, padding: bool) -> Result<Tensor, TchError> {
        let mean = |x: &Tensor, pads| x.f_avg_pool2d(self.kernel, self.stride, pads, self.ceil, padding, None::<i64>);
        let (padded, pads) = self.pad(x, 0.0, true)?;
        let by_torch = padded.size() == x.size();
        if by_torch || padding {
            return mean(&padded, pads);
        }
        let ones = x.f_narrow(0, 0, 1)?.f_narrow(1, 0, 1)?.f_ones_like()?;
        mean(&padded, pads)?.f_div(&mean(&self.pad(&ones, 0.0, true)?.0, pads)?)
    }
}
