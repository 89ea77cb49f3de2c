//! Faster R-CNN's anchors, and how a network's numbers move a box away from one.
//!
//! Must not know the network. A port of torchvision's `AnchorGenerator` and `BoxCoder.decode`, f32 and in their order of operations.

use super::boxes::Box4;

/// Anchors a cell: the heights are so many times the widths.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];

/// Anchors at each place of a map.
pub const PER_CELL: usize = RATIOS.len();

/// Side of the square anchor of each level, in pixels of the network's input.
pub const SIDES: [f32; 5] = [32.0, 64.0, 128.0, 256.0, 512.0];

/// The anchors of a level around the origin.
#[must_use]
pub fn cell(side: f32) -> [Box4; PER_CELL] {
    RATIOS.map(|ratio| {
        let tall = ratio.sqrt();
        let (width, height) = (1.0 / tall * side, tall * side);
        [-width / 2.0, -height / 2.0, width / 2.0, height / 2.0].map(f32::round_ties_even)
    })
}

/// The anchor `a` of `cell` at the place `(row, column)` of a map whose places are `(height, width)` pixels apart.
#[must_use]
pub fn at(cell: &[Box4; PER_CELL], a: usize, place: (usize, usize), stride: (usize, usize)) -> Box4 {
    let (y, x) = ((place.0 * stride.0) as f32, (place.1 * stride.1) as f32);
    let base = cell[a];
    [x + base[0], y + base[1], x + base[2], y + base[3]]
}

/// ln(1000 / 16): no box grows by more than that factor.
const MOST_GROWTH: f64 = 4.135_166_556_742_356;

/// The box that `deltas` (dx, dy, dw, dh) make of `from`; each is divided by its weight first.
#[must_use]
pub fn decode(from: Box4, deltas: [f32; 4], weights: [f32; 4]) -> Box4 {
    let (width, height) = (from[2] - from[0], from[3] - from[1]);
    let (x, y) = (from[0] + 0.5 * width, from[1] + 0.5 * height);
    let [dx, dy, dw, dh] = std::array::from_fn(|i| deltas[i] / weights[i]);
    let limit = |delta: f32| delta.min(MOST_GROWTH as f32);
    let (x, y) = (dx * width + x, dy * height + y);
    let half_width = 0.5 * (limit(dw).exp() * width);
    let half_height = 0.5 * (limit(dh).exp() * height);
    [x - half_width, y - half_height, x + half_width, y + half_height]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anchors_are_torchvisions() {
        // AnchorGenerator(((32,), (512,)), ((0.5, 1.0, 2.0),) * 2).cell_anchors
        assert_eq!(cell(32.0), [[-23., -11., 23., 11.], [-16., -16., 16., 16.], [-11., -23., 11., 23.]]);
        assert_eq!(cell(512.0), [[-362., -181., 362., 181.], [-256., -256., 256., 256.], [-181., -362., 181., 362.]]);
        assert_eq!(at(&cell(32.0), 1, (2, 3), (4, 8)), [8., -8., 40., 24.]);
    }

    #[test]
    fn deltas_move_and_stretch() {
        // BoxCoder((10, 10, 5, 5)).decode_single([[1, -2, .5, 40]], [[10, 20, 30, 60]])
        let moved = decode([10.0, 20.0, 30.0, 60.0], [1.0, -2.0, 0.5, 40.0], [10.0, 10.0, 5.0, 5.0]);
        let torch = [10.948_29, -1_218.000_1, 33.051_712, 1_282.000_1];
        assert!(
            moved.iter().zip(torch).all(|(a, b): (&f32, f32)| (a - b).abs() <= 1e-3 * b.abs().max(1.0)),
            "{moved:?}"
        );
        let still = decode([10.0, 20.0, 30.0, 60.0], [0.0; 4], [1.0; 4]);
        assert_eq!(still, [10.0, 20.0, 30.0, 60.0]);
    }
}
