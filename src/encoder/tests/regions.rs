//! Columns of regions against RoIAlign as its paper has it: cell by cell, sample by sample.

use super::*;

const SIZE: [usize; 2] = [24, 40];

/// torchvision's `roi_align(map, [b], cells, scale, 2, aligned=True).mean((2, 3))` of a map `[H*W, C]`, with plain loops.
fn roi_align(map: &[f32], [height, width]: [usize; 2], channels: usize, b: [f32; 4], cells: usize) -> Vec<f32> {
    let scale = [width as f32 / SIZE[1] as f32, height as f32 / SIZE[0] as f32];
    let (x0, y0) = (b[0] * scale[0] - 0.5, b[1] * scale[1] - 0.5);
    let (cell_width, cell_height) = ((b[2] - b[0]) * scale[0] / cells as f32, (b[3] - b[1]) * scale[1] / cells as f32);
    let mut sum = vec![0.0; channels];
    for (i, j, sample) in (0..cells).flat_map(|i| (0..cells).flat_map(move |j| (0..4).map(move |s| (i, j, s)))) {
        let y = y0 + cell_height * (i as f32 + (sample / 2) as f32 * 0.5 + 0.25);
        let x = x0 + cell_width * (j as f32 + (sample % 2) as f32 * 0.5 + 0.25);
        if !(-1.0..=height as f32).contains(&y) || !(-1.0..=width as f32).contains(&x) {
            continue;
        }
        let (y, x) = (y.clamp(0.0, (height - 1) as f32), x.clamp(0.0, (width - 1) as f32));
        let (top, left) = (y as usize, x as usize);
        let (bottom, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
        let (down, across) = (y - top as f32, x - left as f32);
        for (c, sum) in sum.iter_mut().enumerate() {
            let at = |y: usize, x: usize| map[(y * width + x) * channels + c];
            let above = at(top, left) * (1.0 - across) + at(top, right) * across;
            let below = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
            *sum += (above * (1.0 - down) + below * down) / (4 * cells * cells) as f32;
        }
    }
    sum
}

#[test]
fn a_region_is_the_mean_of_roi_align() {
    init_runtime(None).unwrap();
    let region = |name: &str, tensor: &str, pool| Tap { regions: Some(3), ..tap(name, tensor, pool, Dtype::F32) };
    let taps = vec![
        region("fine", "c1", Pool::None),
        region("coarse", "c2", Pool::Grid(2)),
        tap("c1", "c1", Pool::None, Dtype::F32),
        tap("c2", "c2", Pool::None, Dtype::F32),
    ];
    let plan = plan(2, SIZE, taps);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    assert_eq!(encoder.outputs()[0].row_shape, [3, 8]);
    let boxes = [
        vec![[0.0, 0.0, 40.0, 24.0], [3.5, 2.25, 17.0, 20.0]],
        vec![[39.0, 23.0, 40.0, 24.0], [10.0, 10.0, 11.0, 11.0], [-5.0, 4.0, 60.0, 9.0]],
    ];
    for kernels in [Kernels::Own, Kernels::Provider] {
        let mut session = EncoderSession::with_kernels(&encoder, Device::Cpu, 1, kernels).unwrap();
        for (output, (at, boxes)) in
            (0..2).flat_map(|output| boxes.iter().enumerate().map(move |boxes| (output, boxes)))
        {
            session.set_regions(output, at, boxes).unwrap();
        }
        let mut memory = buffers(&encoder);
        let mut rows: Vec<&mut [u8]> = memory
            .iter_mut()
            .zip(encoder.outputs())
            .map(|(words, output)| &mut bytemuck::cast_slice_mut(words)[..2 * output.row_bytes()])
            .collect();
        session.run(&pictures(&plan, 3), &mut rows).unwrap();
        let rows: Vec<Vec<f32>> = rows.into_iter().map(|rows| f32s(rows)).collect();
        for (output, (map, cells)) in [([24, 40], 7), ([12, 20], 2)].into_iter().enumerate() {
            for (image, boxes) in boxes.iter().enumerate() {
                let size = map[0] * map[1] * 8;
                let source = &rows[output + 2][image * size..][..size];
                for (k, found) in rows[output][image * 24..][..24].chunks(8).enumerate() {
                    let expected = boxes.get(k).map_or(vec![0.0; 8], |b| roi_align(source, map, 8, *b, cells));
                    let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4);
                    assert!(close, "{kernels:?} {output} {image} {k}: {found:?} {expected:?}");
                }
            }
        }
    }
}

#[test]
fn too_many_regions_and_regions_of_vectors_are_refused() {
    init_runtime(None).unwrap();
    let vector = Tap { regions: Some(3), ..tap("regions", "vector", Pool::None, Dtype::F16) };
    let error = compile(&fixture("tiny.onnx"), &plan(1, SIZE, vec![vector])).err().unwrap();
    insta::assert_snapshot!(error, @r"
    column `regions` pools regions of `vector`, but its rows have shape [8]
    hint: only maps [C, H, W] have regions; `icecap inspect` lists the shapes
    ");
    let map = Tap { regions: Some(1), ..tap("regions", "c2", Pool::None, Dtype::F16) };
    let encoder = compile(&fixture("tiny.onnx"), &plan(1, SIZE, vec![map])).unwrap();
    let mut session = EncoderSession::new(&encoder, Device::Cpu, 1).unwrap();
    let error = session.set_regions(0, 0, &[[0.0, 0.0, 1.0, 1.0]; 2]).unwrap_err();
    assert!(matches!(error, EncoderError::Buffer { expected: 1, found: 2, .. }), "{error}");
}

#[test]
fn only_columns_of_regions_have_them_in_their_key() {
    let plain = tap("a", "c2", Pool::None, Dtype::F16);
    let plan = plan(1, SIZE, vec![plain.clone()]);
    let fields = |tap: &Tap| key_fields("digest", &plan, tap);
    assert!(fields(&plain).iter().all(|(name, _)| name != "encoder.regions"));
    let regions = Tap { regions: Some(3), ..plain.clone() };
    assert!(fields(&regions).iter().any(|(name, _)| name == "encoder.regions"));
    let seven = Tap { pool: Pool::Grid(7), ..regions.clone() };
    assert_eq!(fields(&regions), fields(&seven), "7x7 is what goes without saying");
}

#[test]
fn a_flattened_map_keeps_the_networks_order() {
    let both =
        plan(1, SIZE, vec![tap("flat", "c2", Pool::Flatten, Dtype::F32), tap("map", "c2", Pool::None, Dtype::F32)]);
    init_runtime(None).unwrap();
    let encoder = compile(&fixture("tiny.onnx"), &both).unwrap();
    assert_eq!(encoder.outputs()[0].row_shape, [8 * 12 * 20]);
    let rows = run(&encoder, &pictures(&both, 5), 1);
    let (flat, map) = (f32s(&rows[0]), f32s(&rows[1]));
    assert!((0..flat.len()).all(|at| (flat[at] - map[at % 240 * 8 + at / 240]).abs() < 1e-5));
}

#[test]
fn several_layers_give_a_region_their_vectors_side_by_side() {
    init_runtime(None).unwrap();
    let region = |name: &str, tensors: &[&str]| Tap {
        regions: Some(2),
        tensors: tensors.iter().map(|&tensor| tensor.to_owned()).collect(),
        ..tap(name, "", Pool::None, Dtype::F32)
    };
    let plan = plan(1, SIZE, vec![region("both", &["c1", "c2"]), region("c1", &["c1"]), region("c2", &["c2"])]);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    assert_eq!(encoder.outputs()[0].row_shape, [2, 16]);
    let mut session = EncoderSession::new(&encoder, Device::Cpu, 1).unwrap();
    (0..3).for_each(|output| session.set_regions(output, 0, &[[1.0, 2.0, 30.0, 20.0]]).unwrap());
    let mut memory = buffers(&encoder);
    let lengths: Vec<usize> = encoder.outputs().iter().map(OutputInfo::row_bytes).collect();
    let mut rows: Vec<&mut [u8]> =
        memory.iter_mut().zip(lengths).map(|(words, bytes)| &mut bytemuck::cast_slice_mut(words)[..bytes]).collect();
    session.run(&pictures(&plan, 3), &mut rows).unwrap();
    let rows: Vec<Vec<f32>> = rows.into_iter().map(|rows| f32s(rows)).collect();
    assert_eq!((&rows[0][..8], &rows[0][8..16]), (&rows[1][..8], &rows[2][..8]));
    assert!(rows[0][..8].iter().any(|value| *value != 0.0) && rows[0][16..].iter().all(|value| *value == 0.0));
}
