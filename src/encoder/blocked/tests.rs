//! The kernels against plain loops, at every width this processor has, and for any shape.

use proptest::prelude::*;

use super::direct::{Direct, Geometry};
use super::kernel::{BLOCK, Finish, Isa};
use super::layout::{self, Window};
use super::pointwise::{Normal, Pointwise};
use super::pool::{ScratchPool, Workers};
use super::winograd::Winograd;

fn isas() -> Vec<Isa> {
    match Isa::detect() {
        Some(Isa::Avx512) => vec![Isa::Avx512, Isa::Avx2],
        other => other.into_iter().collect(),
    }
}

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let value = |index: u32| (index.wrapping_add(seed.wrapping_mul(97)).wrapping_mul(0x9E37_79B9) >> 8) as f32;
    (0..count as u32).map(|index| value(index) / (1 << 23) as f32 - 1.0).collect()
}

fn in_order(work: &dyn Fn(&Workers<'_>)) {
    let spread = |count: usize, piece: &(dyn Fn(usize) + Sync)| (0..count).for_each(piece);
    work(&Workers { scratch: &ScratchPool::default(), spread: &spread });
}

fn in_threads(work: &dyn Fn(&Workers<'_>)) {
    let spread = |count: usize, piece: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| (0..count).rev().for_each(|index| drop(scope.spawn(move || piece(index)))));
    };
    work(&Workers { scratch: &ScratchPool::default(), spread: &spread });
}

/// The sum itself, in double precision, all in ONNX's layout.
fn reference(x: &[f32], weights: &[f32], [n, h, w]: [usize; 3], g: &Geometry) -> Vec<f32> {
    let ([oh, ow], [kh, kw]) = (g.output(h, w), g.kernel);
    let mut out = Vec::with_capacity(n * g.outputs * oh * ow);
    for index in 0..n * g.outputs * oh * ow {
        let (ox, oy, o, image) =
            (index % ow, index / ow % oh, index / ow / oh % g.outputs, index / ow / oh / g.outputs);
        let mut sum = 0.0f64;
        for (c, ky, kx) in (0..g.inputs).flat_map(|c| (0..kh * kw).map(move |k| (c, k / kw, k % kw))) {
            let (y, x_) = ((oy * g.stride + ky).wrapping_sub(g.pads[0]), (ox * g.stride + kx).wrapping_sub(g.pads[1]));
            if y < h && x_ < w {
                let value = x[((image * g.inputs + c) * h + y) * w + x_];
                sum += f64::from(value) * f64::from(weights[((o * g.inputs + c) * kh + ky) * kw + kx]);
            }
        }
        out.push(sum as f32);
    }
    out
}

fn blocked(x: &[f32], area: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    layout::to_blocked(x, area, &mut out);
    out
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    let scale = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{index}: {a} {b}");
    }
}

type Run<'k> = dyn Fn(&[f32], Finish<'_>, &mut [f32], &Workers<'_>) + 'k;

/// One convolution in every way it can be finished, by one thread and by many.
fn check(run: &Run<'_>, size: [usize; 3], g: &Geometry, weights: &[f32], tolerance: f32) {
    check_after(&<[f32]>::to_vec, run, size, g, weights, tolerance);
}

/// The same with something done to the input first.
fn check_after(
    before: &dyn Fn(&[f32]) -> Vec<f32>,
    run: &Run<'_>,
    size: [usize; 3],
    g: &Geometry,
    weights: &[f32],
    tolerance: f32,
) {
    let [n, h, w] = size;
    let [oh, ow] = g.output(h, w);
    let x = noise(n * g.inputs * h * w, 1);
    let plain = reference(&before(&x), weights, size, g);
    let (bias, residual) = (noise(g.outputs, 2), noise(plain.len(), 3));
    let x = blocked(&x, h * w);
    let residual = blocked(&residual, oh * ow);
    let expected = blocked(&plain, oh * ow);
    let channel = |index: usize| index / (oh * ow * BLOCK) % (g.outputs / BLOCK) * BLOCK + index % BLOCK;
    let finished: Vec<f32> =
        expected.iter().enumerate().map(|(i, sum)| (sum + bias[channel(i)] + residual[i]).max(0.0)).collect();
    let finish = Finish { bias: Some(&bias), residual: Some(&residual), relu: true, onto: false };
    let (mut first, mut second) = (vec![f32::NAN; plain.len()], vec![f32::NAN; plain.len()]);
    let cell = std::cell::RefCell::new(&mut first);
    in_order(&|workers| run(&x, Finish::default(), &mut cell.borrow_mut(), workers));
    assert_close(&first, &expected, tolerance);
    let cell = std::cell::RefCell::new(&mut first);
    in_order(&|workers| run(&x, finish, &mut cell.borrow_mut(), workers));
    assert_close(&first, &finished, tolerance);
    let cell = std::cell::RefCell::new(&mut second);
    in_threads(&|workers| run(&x, finish, &mut cell.borrow_mut(), workers));
    assert_eq!(first, second);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn winograd_is_the_convolution(n in 1usize..3, h in 1usize..11, w in 1usize..11, c in 1usize..3, o in 1usize..7) {
        let geometry = Geometry { inputs: c * BLOCK, outputs: o * BLOCK, kernel: [3, 3], stride: 1, pads: [1; 4] };
        let weights = noise(geometry.inputs * geometry.outputs * 9, 4);
        for isa in isas() {
            let kernel = Winograd::new(isa, &weights, geometry.outputs, geometry.inputs);
            let run = |x: &[f32], finish: Finish<'_>, out: &mut [f32], workers: &Workers<'_>| kernel.run(x, [n, h, w], finish, out, workers);
            check(&run, [n, h, w], &geometry, &weights, 2e-5);
        }
    }

    #[test]
    fn direct_is_the_convolution(
        n in 1usize..6, h in 5usize..13, w in 5usize..13, c in 1usize..3, o in 1usize..7,
        kernel in prop::sample::select(vec![[1, 1], [3, 3], [1, 5], [5, 1], [2, 2]]), stride in 1usize..3, border in 0usize..2,
    ) {
        let pads = [kernel[0] / 2 * border, kernel[1] / 2 * border, kernel[0] / 2 * border, 0];
        let geometry = Geometry { inputs: c * BLOCK, outputs: o * BLOCK, kernel, stride, pads };
        let weights = noise(geometry.inputs * geometry.outputs * kernel[0] * kernel[1], 5);
        for isa in isas() {
            let packed = Direct::new(isa, &weights, geometry);
            let run = |x: &[f32], finish: Finish<'_>, out: &mut [f32], workers: &Workers<'_>| packed.run(x, [n, h, w], finish, out, workers);
            check(&run, [n, h, w], &geometry, &weights, 5e-6);
        }
    }

    #[test]
    fn pointwise_is_the_convolution(
        n in 1usize..4, h in 1usize..14, w in 1usize..14, c in 1usize..4, o in 1usize..8, stride in 1usize..3, normal in any::<bool>(),
    ) {
        let geometry = Geometry { inputs: c * BLOCK, outputs: o * BLOCK, kernel: [1, 1], stride, pads: [0; 4] };
        let weights = noise(geometry.inputs * geometry.outputs, 5);
        let (factor, offset) = if normal { (noise(c * BLOCK, 12), noise(c * BLOCK, 13)) } else { (vec![1.0; c * BLOCK], vec![0.0; c * BLOCK]) };
        for isa in isas() {
            let before = normal.then(|| Normal { factor: factor.clone(), offset: offset.clone(), relu: true });
            let packed = Pointwise::new(isa, &weights, geometry, before);
            let run = |x: &[f32], finish: Finish<'_>, out: &mut [f32], workers: &Workers<'_>| packed.run(x, [n, h, w], finish, out, workers);
            let normalised = |x: &[f32]| -> Vec<f32> {
                let channel = |index: usize| index / (h * w) % (c * BLOCK);
                let value = |(index, x): (usize, &f32)| x * factor[channel(index)] + offset[channel(index)];
                x.iter().enumerate().map(value).map(|x| if normal { x.max(0.0) } else { x }).collect()
            };
            check_after(&normalised, &run, [n, h, w], &geometry, &weights, 5e-6);
        }
    }

    #[test]
    fn layouts_are_turned_and_turned_back(n in 1usize..3, blocks in 1usize..4, area in 1usize..40) {
        let x = noise(n * blocks * BLOCK * area, 6);
        let turned = blocked(&x, area);
        let (mut back, mut last) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        layout::from_blocked(&turned, area, &mut back);
        prop_assert_eq!(&x, &back);
        let channels = blocks * BLOCK;
        layout::to_channels_last(&turned, channels, area, &mut last);
        for (index, value) in last.iter().enumerate() {
            let (c, position, image) = (index % channels, index / channels % area, index / channels / area);
            prop_assert_eq!(*value, x[(image * channels + c) * area + position]);
        }
    }
}

#[test]
fn both_widths_give_the_same_bits() {
    if isas().len() < 2 {
        return;
    }
    let weights = noise(64 * 96 * 9, 7);
    let x = noise(2 * 64 * 81, 8);
    let rows = [Isa::Avx512, Isa::Avx2].map(|isa| {
        let kernel = Winograd::new(isa, &weights, 96, 64);
        let out = std::cell::RefCell::new(vec![0.0; 2 * 96 * 81]);
        in_order(&|workers| kernel.run(&x, [2, 9, 9], Finish::default(), &mut out.borrow_mut(), workers));
        out.into_inner()
    });
    assert_eq!(rows[0], rows[1]);
}

#[test]
fn windows_pool_what_lies_inside() {
    let x: Vec<f32> = (0..25 * BLOCK).map(|i| (i / BLOCK) as f32).collect();
    let window = Window { kernel: [3, 3], strides: [2, 2], pads: [1; 4], largest: true, count_border: false };
    let pool = |window: Window| {
        let [oh, ow] = window.output(5, 5);
        let mut out = vec![0.0; oh * ow * BLOCK];
        window.run(&x, [5, 5], &mut out);
        out.into_iter().step_by(BLOCK).collect::<Vec<_>>()
    };
    assert_eq!(pool(window), [6.0, 8.0, 9.0, 16.0, 18.0, 19.0, 21.0, 23.0, 24.0]);
    // The mean of 0, 1, 5 and 6, and the same over the nine cells of the window.
    assert_eq!(pool(Window { largest: false, ..window })[0], 3.0);
    assert_eq!(pool(Window { largest: false, count_border: true, ..window })[0], 12.0 / 9.0);
}

#[test]
fn a_factor_and_an_offset_a_channel() {
    let x = noise(2 * BLOCK * 2 * 3, 9);
    let (factor, offset) = (noise(2 * BLOCK, 10), noise(2 * BLOCK, 11));
    let mut out = vec![0.0; x.len()];
    layout::affine(&x, &factor, &offset, true, 3, &mut out);
    for (index, value) in out.iter().enumerate() {
        let channel = index / (3 * BLOCK) % 2 * BLOCK + index % BLOCK;
        assert_eq!(*value, (x[index] * factor[channel] + offset[channel]).max(0.0));
    }
}
