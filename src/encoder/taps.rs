//! Are the taps there, do they hold rows, and what shape is a row?
//!
//! Must not know pooling or sessions. Everything is asked at a batch of two where the plan's is larger, so that the batch can be told
//! from the other dimensions; what the file says about shapes is not believed.

use super::blocked::Shapes;
use super::build::untyped;
use super::input::ImageInput;
use super::model::Model;
use super::onnx::ValueInfoProto;
use super::plan::EncoderPlan;
use super::probe::{self, Probed};
use super::{EncoderError, graph};
use ort::value::TensorElementType;

/// Most elements of a tap for one picture: a gigabyte of f32. What a file declares is believed no further.
const MAX_ELEMENTS: u64 = 1 << 28;

/// Every tap has to be made by a node, and from the picture alone.
pub(super) fn check(model: &Model, image: &ImageInput, tensors: &[&str]) -> Result<(), EncoderError> {
    let graph = model.graph();
    let made = graph::producers(graph);
    let weights: std::collections::HashSet<&str> = graph::weight_names(graph).collect();
    for &tensor in tensors {
        if !made.contains_key(tensor) {
            let nearest = graph::nearest(tensor, made.keys().copied());
            return Err(EncoderError::UnknownTensor { path: model.path.clone(), tensor: tensor.to_owned(), nearest });
        }
        let needed = graph::ancestry(graph, &made, &[tensor]).leaves;
        if !needed.contains(image.name.as_str()) {
            return Err(EncoderError::Constant { path: model.path.clone(), tensor: tensor.to_owned() });
        }
        let other = graph.input.iter().map(ValueInfoProto::name);
        let mut other = other.filter(|name| needed.contains(name) && *name != image.name && !weights.contains(name));
        if let Some(input) = other.next() {
            return Err(EncoderError::ExtraInput {
                path: model.path.clone(),
                input: input.to_owned(),
                tensor: tensor.to_owned(),
            });
        }
    }
    Ok(())
}

/// Shapes of the taps at a small batch of more than one image, so that the batch can be told from other dimensions.
pub(super) fn probe(
    model: &Model,
    image: &ImageInput,
    plan: &EncoderPlan,
    taps: &[&str],
) -> Result<(Vec<Probed>, Shapes), EncoderError> {
    let batch = plan.batch.min(2);
    let mut unique = taps.to_vec();
    unique.sort_unstable();
    unique.dedup();
    let made = graph::producers(model.graph());
    let mut all = unique.clone();
    all.extend(made.keys().filter(|name| unique.binary_search(name).is_err()));
    let mut copy = model.clone();
    let shape = image.shape(batch, plan.height, plan.width);
    probe::fix_input(&mut copy, image, shape);
    let fixed = image.batch.filter(|&fixed| fixed != plan.batch);
    let probed = probe::shapes(&mut copy, &all, unique.len(), shape).and_then(|probed| {
        for (tensor, found) in unique.iter().zip(&probed) {
            check_rows(model, tensor, found, batch)?;
        }
        Ok(probed)
    });
    if let Some(expected) = fixed {
        let fits = probed.is_ok() && same_rows_at_another_batch(model, image, plan, expected, &unique)?;
        if !fits {
            return Err(EncoderError::FixedBatch { path: model.path.clone(), expected, asked: plan.batch });
        }
    }
    let probed = probed?;
    let of = |tensor: &&str| probed[unique.binary_search(tensor).unwrap_or_default()].clone();
    let known = all.iter().zip(&probed).filter(|(_, found)| check_rows(model, "", found, batch).is_ok());
    let inner = |shape: &[i64]| shape[1..].iter().map(|&size| size as usize).collect();
    let mut shapes: Shapes = known.map(|(name, found)| ((*name).to_owned(), inner(&found.shape))).collect();
    shapes.insert(image.name.clone(), inner(&shape.map(|size| size as i64)));
    Ok((taps.iter().map(of).collect(), shapes))
}

pub(super) fn check_rows(model: &Model, tensor: &str, found: &Probed, batch: usize) -> Result<(), EncoderError> {
    use TensorElementType::{Bfloat16, Float16, Float32, Float64};
    let (path, tensor) = (model.path.clone(), tensor.to_owned());
    if !matches!(found.element, Float32 | Float16 | Bfloat16 | Float64) {
        return Err(EncoderError::NotFloat { path, tensor, element: found.element.to_string() });
    }
    let batched = found.shape.first() == Some(&(batch as i64)) && found.shape[1..].iter().all(|&size| size > 0);
    if !batched {
        return Err(EncoderError::NotBatched { path, tensor, shape: found.shape.clone(), batch });
    }
    let elements = found.shape[1..].iter().fold(1u64, |count, &size| count.saturating_mul(size as u64));
    if elements > MAX_ELEMENTS {
        return Err(EncoderError::RowTooLarge { path, tensor, shape: found.shape.clone(), most: MAX_ELEMENTS });
    }
    Ok(())
}

/// Numbers of the pictures that such a file is tried with at most: 1 GiB of them.
const MOST_TRIED: usize = 1 << 28;

/// Whether a file with a fixed batch may be run at the plan's: it may when pictures then get the rows that they get at the
/// batch in the file. Shapes alone cannot tell (a constant inside of the model may hold the batch), so both are run.
fn same_rows_at_another_batch(
    model: &Model,
    image: &ImageInput,
    plan: &EncoderPlan,
    fixed: usize,
    taps: &[&str],
) -> Result<bool, EncoderError> {
    super::plan::check_sizes(fixed, plan.height, plan.width)?;
    let pixels = 3 * plan.height * plan.width;
    if (fixed + 1).saturating_mul(pixels) > MOST_TRIED {
        return Ok(false);
    }
    let noise = |index: usize| ((index as u32).wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1 << 24) as f32;
    let images: Vec<f32> = (0..(fixed + 1) * pixels).map(noise).collect();
    let run = |batch: usize, from: usize| {
        let mut copy = model.clone();
        let shape = image.shape(batch, plan.height, plan.width);
        probe::fix_input(&mut copy, image, shape);
        copy.graph_mut().output = taps.iter().map(|name| untyped(name)).collect();
        probe::values(&copy, &images[from * pixels..(from + batch) * pixels], shape)
    };
    let Ok(wide) = run(fixed + 1, 0) else { return Ok(false) };
    let (first, last) = (run(fixed, 0)?, run(fixed, 1)?);
    let close = |a: &[f32], b: &[f32]| {
        let scale = a.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-4 * scale)
    };
    Ok(wide.iter().zip(first.iter().zip(&last)).all(|(wide, (first, last))| {
        let row = wide.len() / (fixed + 1);
        close(&wide[..fixed * row], first) && close(&wide[row..], last)
    }))
}
