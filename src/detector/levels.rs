//! The levels of a detector's pyramid, pooled to rows.
//!
//! Must not know networks. A level's map has the size of its picture, so no constant in a graph can pool it. Only the part of the map that
//! the picture covers is averaged: what lies beyond it is padding, and says how the picture was batched.

use super::Wanted;
use crate::encoder::{Answer, EncoderError, Pool};

/// The levels, from fine to coarse.
pub const LEVELS: [&str; 5] = ["fpn.0", "fpn.1", "fpn.2", "fpn.3", "fpn.pool"];

/// The wanted levels of the picture `index`, whose size is `size` of `padded`: a row `[K*K, C]` each.
pub(super) fn pooled(
    maps: &[Answer],
    index: usize,
    size: (u32, u32),
    padded: (u32, u32),
    wanted: &Wanted,
) -> Result<Vec<Vec<f32>>, EncoderError> {
    let one = |&(level, pool): &(usize, Pool)| {
        let shape = maps[level].shape();
        let (channels, height, width) = (shape[1], shape[2], shape[3]);
        let map = &maps[level].floats()?[index * channels * height * width..][..channels * height * width];
        let covered = |side: u32, padded: u32, cells: usize| (side as usize * cells).div_ceil(padded as usize).max(1);
        let shown = (covered(size.0, padded.0, height), covered(size.1, padded.1, width));
        let k = match pool {
            Pool::Grid(k) => k as usize,
            _ => 1,
        };
        Ok(average(map, (height, width), shown, k))
    };
    wanted.levels.iter().map(one).collect()
}

/// Adaptive average of the top left `shown` of a map `[C, height, width]` to `[k*k, C]`, as torch's `adaptive_avg_pool2d`.
fn average(map: &[f32], (height, width): (usize, usize), shown: (usize, usize), k: usize) -> Vec<f32> {
    let bin = |index: usize, size: usize| (index * size / k)..((index + 1) * size).div_ceil(k);
    let channels = map.len() / (height * width);
    let mut out = vec![0.0; k * k * channels];
    for (c, plane) in map.chunks_exact(height * width).enumerate() {
        for cell in 0..k * k {
            let (rows, columns) = (bin(cell / k, shown.0), bin(cell % k, shown.1));
            let count = rows.len() * columns.len();
            let sum: f32 = rows.map(|y| plane[y * width..][columns.clone()].iter().sum::<f32>()).sum();
            out[cell * channels + c] = sum / count as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_averaged() {
        // Two channels of 2x3; the last column is padding.
        let map = [1., 2., 99., 3., 4., 99., 10., 20., -9., 30., 40., -9.];
        assert_eq!(average(&map, (2, 3), (2, 2), 1), [2.5, 25.0]);
        assert_eq!(average(&map, (2, 3), (2, 2), 2), [1., 10., 2., 20., 3., 30., 4., 40.]);
        assert_eq!(average(&map, (2, 3), (1, 1), 2), [1., 10., 1., 10., 1., 10., 1., 10.], "finer than the map");
    }
}
