//! From a tapped tensor to finished rows, inside of the graph.
//!
//! Must not know files or sessions. A map is transposed to `[N, H, W, C]` before it is pooled, not after: on the CPU ONNX
//! Runtime folds that transposition into leaving its own blocked layout, and the pooling `[K*K, H*W] x [H*W, C]` then
//! writes rows `[K*K, C]` in place. The cast stays in the graph on the CPU too: measured against `f32` rows of 200,000
//! elements it costs nothing (165 images/s either way), and rounds to the nearest even as the `half` crate does (a test).
//!
//! Legend: `N` images, `C` channels, `T` tokens, `D` features, `K` cells a side.

use icecap_cache::Dtype;
use ort::value::TensorElementType;

use super::build::{Builder, integer, integer_list};
use super::onnx::tensor_proto::DataType;
use super::plan::{Pool, Tap};
use super::probe::Probed;
use super::regions::{self, RegionInput};
use super::{EncoderError, OutputInfo};

/// Finished rows in the graph, still `f32`.
pub(super) struct Rows {
    /// The tensor that holds them.
    pub tensor: String,
    /// Its shape without the batch: that of a row, or one of as many elements in the same order.
    pub shape: Vec<usize>,
    /// What a row is.
    pub info: OutputInfo,
    /// The inputs that say where its regions are, one for each tensor; none where it is no row of regions.
    pub regions: Vec<RegionInput>,
}

/// One tensor's vectors, pooled, still `f32`.
struct Part {
    tensor: String,
    /// Its shape without the batch.
    shape: Vec<usize>,
    row_shape: Vec<usize>,
    /// The input that says where its regions are.
    regions: Option<RegionInput>,
}

/// Adds what turns `tap.tensors`, which are `probed`, into rows; `index` is the column's.
pub(super) fn rows(
    builder: &mut Builder<'_>,
    tap: &Tap,
    probed: &[Probed],
    index: usize,
) -> Result<Rows, EncoderError> {
    let parts = tap.tensors.iter().zip(probed).enumerate();
    let parts = parts.map(|(at, (tensor, probed))| part(builder, tap, tensor, probed, (index, at)));
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    let regions = parts.iter_mut().filter_map(|part| part.regions.take()).collect();
    let whole = if parts.len() == 1 { parts.remove(0) } else { joined(builder, tap, &parts)? };
    let Part { tensor, shape, row_shape, .. } = whole;
    let tensor = if tap.l2 { unit_length(builder, &tensor) } else { tensor };
    let info = OutputInfo { name: tap.name.clone(), row_shape, dtype: tap.given() };
    Ok(Rows { tensor, shape, info, regions })
}

/// The vectors of several tensors side by side: `[N, D1]` and `[N, D2]` give `[N, D1+D2]`, `[N, K, C1]` and `[N, K, C2]` give
/// `[N, K, C1+C2]`.
fn joined(builder: &mut Builder<'_>, tap: &Tap, parts: &[Part]) -> Result<Part, EncoderError> {
    let vectors = |part: &Part| part.row_shape.split_last().map(|(width, vectors)| (*width, vectors.to_vec()));
    let all: Vec<(usize, Vec<usize>)> = parts.iter().filter_map(vectors).collect();
    let Some((_, first)) = all.first().filter(|(_, first)| all.iter().all(|(_, vectors)| vectors == first)) else {
        let shapes = tap.tensors.iter().zip(parts).map(|(tensor, part)| (tensor.clone(), part.row_shape.clone()));
        return Err(EncoderError::TapsDiffer { column: tap.name.clone(), taps: shapes.collect() });
    };
    let aligned: Vec<String> = parts.iter().map(|part| aligned(builder, part)).collect();
    let row_shape = [&first[..], &[all.iter().map(|(width, _)| width).sum()]].concat();
    // The last axis, counted with the batch: older versions of Concat know no negative ones.
    let axis = vec![integer("axis", row_shape.len() as i64)];
    let tensor = builder.node("Concat", &aligned.iter().map(String::as_str).collect::<Vec<_>>(), axis);
    Ok(Part { tensor, shape: row_shape.clone(), row_shape, regions: None })
}

/// The part in the shape of its rows: a map that is a grid already still has two axes of positions.
fn aligned(builder: &mut Builder<'_>, part: &Part) -> String {
    if part.shape == part.row_shape {
        return part.tensor.clone();
    }
    let sizes: Vec<i64> = std::iter::once(0).chain(part.row_shape.iter().map(|&size| size as i64)).collect();
    let shape = builder.integers(&sizes);
    builder.node("Reshape", &[&part.tensor, &shape], Vec::new())
}

/// One tensor of a tap, pooled; `place` is the column's number and the tensor's in it.
fn part(
    builder: &mut Builder<'_>,
    tap: &Tap,
    tensor: &str,
    probed: &Probed,
    place: (usize, usize),
) -> Result<Part, EncoderError> {
    let inner: Vec<usize> = probed.shape[1..].iter().map(|&size| size as usize).collect();
    let x = to_f32(builder, tensor, probed.element);
    let regions = regions::pool(builder, tap, &x, &inner, place);
    if tap.regions.is_some() && regions.is_none() {
        let (column, tensor) = (tap.name.clone(), tensor.to_owned());
        return Err(EncoderError::RegionsNeedMap { column, tensor, shape: inner });
    }
    let (x, shape, row_shape) = match (tap.pool, inner.as_slice()) {
        (_, &[channels, ..]) if let Some((rows, input)) = &regions => {
            (rows.clone(), vec![input.count, channels], vec![input.count, channels])
        }
        (Pool::None, &[channels, height, width]) => {
            let x = builder.node("Transpose", &[&x], vec![integer_list("perm", &[0, 2, 3, 1])]);
            (x, vec![height, width, channels], vec![height * width, channels])
        }
        (Pool::Flatten, _) => {
            let width = inner.iter().product();
            (builder.node("Flatten", &[&x], vec![integer("axis", 1)]), vec![width], vec![width])
        }
        (Pool::None, []) => (builder.node("Flatten", &[&x], vec![integer("axis", 1)]), vec![1], vec![1]),
        (Pool::None, _) => (x, inner.clone(), inner),
        (Pool::Global, &[channels, ..]) if inner.len() == 3 => {
            (mean_of_map(builder, &x), vec![channels], vec![channels])
        }
        (Pool::Global, &[tokens, features]) => (mean_of_tokens(builder, &x, tokens), vec![features], vec![features]),
        (Pool::Grid(k), &[channels, height, width]) => {
            let row_shape = vec![(k * k) as usize, channels];
            if [height, width] == [k as usize; 2] {
                let x = builder.node("Transpose", &[&x], vec![integer_list("perm", &[0, 2, 3, 1])]);
                (x, vec![height, width, channels], row_shape)
            } else {
                (grid(builder, &x, [channels, height, width], k as usize), row_shape.clone(), row_shape)
            }
        }
        _ => {
            return Err(EncoderError::PoolNeedsMap {
                column: tap.name.clone(),
                tensor: tensor.to_owned(),
                pool: tap.pool.to_string(),
                shape: inner,
            });
        }
    };
    Ok(Part { tensor: x, shape, row_shape, regions: regions.map(|(_, input)| input) })
}

fn to_f32(builder: &mut Builder<'_>, tensor: &str, element: TensorElementType) -> String {
    match element {
        TensorElementType::Float32 => tensor.to_owned(),
        _ => builder.node("Cast", &[tensor], vec![integer("to", DataType::Float as i64)]),
    }
}

/// `[N, C, H, W] -> [N, C]`
fn mean_of_map(builder: &mut Builder<'_>, x: &str) -> String {
    let mean = builder.node("GlobalAveragePool", &[x], Vec::new());
    builder.node("Flatten", &[&mean], vec![integer("axis", 1)])
}

/// `[N, T, D] -> [N, D]`
fn mean_of_tokens(builder: &mut Builder<'_>, x: &str, tokens: usize) -> String {
    let weights = builder.floats(&[1, tokens], &vec![1.0 / tokens as f32; tokens]);
    let mean = builder.node("MatMul", &[&weights, x], Vec::new());
    builder.node("Flatten", &[&mean], vec![integer("axis", 1)])
}

/// `[N, C, H, W] -> [N, K*K, C]`
fn grid(builder: &mut Builder<'_>, x: &str, [channels, height, width]: [usize; 3], k: usize) -> String {
    let x = builder.node("Transpose", &[x], vec![integer_list("perm", &[0, 2, 3, 1])]);
    let shape = builder.integers(&[0, (height * width) as i64, channels as i64]);
    let x = builder.node("Reshape", &[&x, &shape], Vec::new());
    let weights = builder.floats(&[k * k, height * width], &grid_weights(height, width, k));
    builder.node("MatMul", &[&weights, &x], Vec::new())
}

/// Weights `[K*K, H*W]` of torch's `adaptive_avg_pool2d`: cell `i` covers rows `floor(i*H/K) .. ceil((i+1)*H/K)`, and
/// columns likewise; neighbouring cells overlap where K does not divide the size.
pub(super) fn grid_weights(height: usize, width: usize, k: usize) -> Vec<f32> {
    let bin = |index: usize, size: usize| (index * size / k)..((index + 1) * size).div_ceil(k);
    let mut weights = vec![0.0; k * k * height * width];
    for (cell, row) in weights.chunks_exact_mut(height * width).enumerate() {
        let (ys, xs) = (bin(cell / k, height), bin(cell % k, width));
        let share = 1.0 / (ys.len() * xs.len()) as f32;
        for y in ys {
            row[y * width + xs.start..y * width + xs.end].fill(share);
        }
    }
    weights
}

/// Divides along the last axis by the Euclidean length, or by 1e-12 where that is less, as torch's `normalize`.
fn unit_length(builder: &mut Builder<'_>, x: &str) -> String {
    let length = if builder.opset() >= 18 {
        let axes = builder.integers(&[-1]);
        builder.node("ReduceL2", &[x, &axes], vec![integer("keepdims", 1)])
    } else {
        builder.node("ReduceL2", &[x], vec![integer_list("axes", &[-1]), integer("keepdims", 1)])
    };
    let least = builder.floats(&[], &[1e-12]);
    let length = builder.node("Max", &[&length, &least], Vec::new());
    builder.node("Div", &[x, &length], Vec::new())
}

/// The graph's last node for a column: a cast to its type, or a plain copy that gives the output its name.
pub(super) fn finish(builder: &mut Builder<'_>, rows: &str, output: &str, dtype: Dtype) {
    match element_type(dtype) {
        DataType::Float => builder.node_named("Identity", &[rows], output, Vec::new()),
        other => builder.node_named("Cast", &[rows], output, vec![integer("to", other as i64)]),
    }
}

/// ONNX's name of the element type in which rows leave the graph; see [`Tap::given`].
pub(super) fn element_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F32 | Dtype::I8 => DataType::Float,
        Dtype::F16 => DataType::Float16,
        Dtype::Bf16 => DataType::Bfloat16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_weights_are_torchs_bins() {
        // adaptive_avg_pool2d of 5 to 3: rows 0..2, 1..4, 3..5.
        let w = grid_weights(5, 5, 3);
        let row_of = |cell: usize| w[cell * 25..(cell + 1) * 25].to_vec();
        let centre = row_of(4);
        for (position, weight) in centre.iter().enumerate() {
            let inside = (1..4).contains(&(position / 5)) && (1..4).contains(&(position % 5));
            assert_eq!(*weight, if inside { 1.0 / 9.0 } else { 0.0 });
        }
        assert_eq!(row_of(0)[..5], [0.25, 0.25, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_grid_finer_than_the_map_repeats_positions() {
        assert_eq!(grid_weights(1, 1, 2), [1.0; 4]);
        assert_eq!(grid_weights(2, 2, 4).chunks(4).map(|row| row.iter().sum::<f32>()).collect::<Vec<_>>(), [1.0; 16]);
    }
}
