//! What a decoder sees of a tail's end.

use std::fmt;

use tch::{Kind, Tensor};

use super::TailError;
use crate::section::Section;

/// How the end of a tail becomes vectors, as a column's pooling does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailPool {
    /// All of it: a map becomes `[H*W, C]`.
    None,
    /// All of it as one vector, in the network's own order.
    Flatten,
    /// Its mean over all positions.
    Global,
    /// Adaptive average to K x K.
    Grid(i64),
}

impl fmt::Display for TailPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::Flatten => out.write_str("flatten"),
            Self::Global => out.write_str("global"),
            Self::Grid(k) => write!(out, "{k}x{k}"),
        }
    }
}

impl TailPool {
    /// Vectors an image, and their width.
    pub(super) fn shape(self, section: &Section) -> Result<[i64; 2], TailError> {
        match (self, section.output.as_slice()) {
            (Self::Flatten, output) => Ok([1, output.iter().product()]),
            (Self::None, &[channels, height, width]) => Ok([height * width, channels]),
            (Self::None, &[vectors, width]) => Ok([vectors, width]),
            (Self::None, &[width]) => Ok([1, width]),
            (Self::Global, &[channels, _, _]) => Ok([1, channels]),
            (Self::Global, &[_, width]) => Ok([1, width]),
            (Self::Grid(k), &[channels, _, _]) => Ok([k * k, channels]),
            (pool, output) => {
                let (to, output) = (section.to.clone(), output.to_vec());
                Err(TailError::Pool { pool: pool.to_string(), to, output })
            }
        }
    }

    /// Vectors `[N, K, D]` of a map `[N, C, H, W]`, tokens `[N, T, D]` or a vector `[N, D]`; [`TailPool::shape`] let it pass.
    pub(super) fn apply(self, end: &Tensor) -> Tensor {
        let images = end.size()[0];
        let positions = |map: &Tensor| map.permute([0, 2, 3, 1]).reshape([images, -1, map.size()[1]]);
        match (self, end.dim()) {
            (Self::Global, 4) => end.mean_dim([2_i64, 3].as_slice(), false, Kind::Float).unsqueeze(1),
            (Self::Global, _) => end.mean_dim(1, true, Kind::Float),
            (Self::Grid(k), _) => positions(&end.adaptive_avg_pool2d([k, k])),
            (Self::None, 4) => positions(end),
            (Self::None, 3) => end.shallow_clone(),
            (Self::None | Self::Flatten, _) => end.reshape([images, 1, -1]),
        }
    }
}
