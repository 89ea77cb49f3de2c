//! The YOLOX family: one pass over a letterboxed picture, a row of numbers for each place of three grids.
//!
//! Must not know recipes or caches. A YOLOX file is an ordinary encoder to icecap, whose one tap is the file's output: batches, threads and
//! devices are the encoder's affair. A file whose batch is fixed is widened there where that changes no row, and run at its own batch
//! where it would. What the rows mean is decoded here, as YOLOX's `postprocess` does: `(x, y) = (row + place) * stride`, `(w, h) = exp(row) * stride`, score =
//! objectness times that of the best class.

use std::path::Path;

use icecap_cache::Dtype;

use super::{
    DetectorError, Found,
    boxes::clip,
    policy::{Candidate, Policy, Regions},
    transform::Letterbox,
};
use crate::encoder::{
    self, Channels, CompiledEncoder, Device, EncoderError, EncoderPlan, EncoderSession, Normalize, Pool, Precision, Tap,
};

/// Pixels between the places of each grid.
const STRIDES: [usize; 3] = [8, 16, 32];

/// Numbers of a row before its classes: x, y, w, h, objectness.
const BEFORE_CLASSES: usize = 5;

/// Sides of a detection, in pixels of the original.
const LEAST_SIDE: f32 = 1e-2;

/// A YOLOX, from which sessions are opened.
pub(super) struct Yolox {
    compiled: CompiledEncoder,
    /// `(height, width)` of its input.
    size: (u32, u32),
}

impl Yolox {
    /// The network in the file at `path`, for batches of `batch`; `size` is `(height, width)` where the file leaves it open.
    pub fn open(path: &Path, size: Option<(u32, u32)>, batch: usize) -> Result<Self, DetectorError> {
        let ends = encoder::ends(path)?;
        let size = match (ends.size, size) {
            (Some([height, width]), None) => (height as u32, width as u32),
            (_, Some(size)) => size,
            (None, None) => return Err(DetectorError::NoSize { path: path.to_owned() }),
        };
        let tensor = ends.outputs.first().cloned().unwrap_or_default();
        let tap = Tap {
            name: "detections".to_owned(),
            tensors: vec![tensor.clone()],
            pool: Pool::None,
            l2: false,
            dtype: Dtype::F32,
            regions: None,
        };
        let normalize = Normalize { mean: [0.0; 3], std: [1.0; 3], scale: 1.0, channels: Channels::Bgr };
        let (height, width) = (size.0 as usize, size.1 as usize);
        let plan = |batch| EncoderPlan {
            normalize: normalize.clone(),
            height,
            width,
            batch,
            precision: Precision::F32,
            taps: vec![tap.clone()],
        };
        let compiled = match encoder::compile(path, &plan(batch)) {
            // Most files are made for one picture, and a constant inside of them holds that one.
            Err(EncoderError::FixedBatch { expected, .. }) => encoder::compile(path, &plan(expected)),
            other => other,
        }?;
        let shape = compiled.outputs()[0].row_shape.clone();
        let rows: usize = STRIDES.iter().map(|stride| (height / stride) * (width / stride)).sum();
        if shape.len() != 2 || shape[0] != rows || shape[1] <= BEFORE_CLASSES {
            let expected = format!("[{rows}, 5 + classes]");
            return Err(DetectorError::NotYolox { path: path.to_owned(), tensor, shape, expected });
        }
        Ok(Self { compiled, size })
    }

    pub fn digest(&self) -> &str {
        self.compiled.model_digest()
    }

    /// `(height, width)` of its input.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    pub fn session(&self, device: Device, threads: usize) -> Result<Session, DetectorError> {
        let session = EncoderSession::new(&self.compiled, device, threads)?;
        let row = self.compiled.outputs()[0].row_shape.clone();
        let batch = session.batch();
        let pixels = vec![0; self.compiled.plan().images_bytes()];
        Ok(Session { session, size: self.size, width: row[1], pixels, rows: vec![0.0; batch * row[0] * row[1]] })
    }
}

/// One worker's session.
pub(super) struct Session {
    session: EncoderSession,
    size: (u32, u32),
    /// Numbers of a row.
    width: usize,
    /// `[batch, H, W, 3]`
    pixels: Vec<u8>,
    /// `[batch, rows, width]`
    rows: Vec<f32>,
}

impl Session {
    /// What is found in `pictures`, one for one.
    pub fn detect(&mut self, pictures: &[&Letterbox], policy: &Policy) -> Result<Vec<Found>, DetectorError> {
        let batch = self.session.batch();
        let (picture, answer) = (self.pixels.len() / batch, self.rows.len() / batch);
        let mut found = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(batch) {
            self.pixels.fill(0);
            for (from, to) in pictures.iter().zip(self.pixels.chunks_exact_mut(picture)) {
                to.copy_from_slice(&from.pixels);
            }
            self.session.run(&self.pixels, &mut [bytemuck::cast_slice_mut(&mut self.rows)])?;
            for (picture, rows) in pictures.iter().zip(self.rows.chunks_exact(answer)) {
                let chosen = policy.choose(&decode(rows, self.width, self.size, picture), LEAST_SIDE);
                let regions = Regions::of(&chosen, picture.original);
                found.push(Found { regions, features: Vec::new(), levels: Vec::new() });
            }
        }
        Ok(found)
    }
}

/// The candidates among `rows`, `[places, width]`, in pixels of the original, in the order of the places.
fn decode(rows: &[f32], width: usize, (height_in, width_in): (u32, u32), picture: &Letterbox) -> Vec<Candidate> {
    let places = STRIDES.iter().flat_map(|&stride| {
        let (height, width) = (height_in as usize / stride, width_in as usize / stride);
        (0..height * width).map(move |place| (stride as f32, (place % width) as f32, (place / width) as f32))
    });
    let one = |(source, (row, (stride, column, line)))| {
        let row: &[f32] = row;
        let (label, class) = best(&row[BEFORE_CLASSES..]);
        let (x, y) = ((row[0] + column) * stride, (row[1] + line) * stride);
        let (half_width, half_height) = (row[2].exp() * stride / 2.0, row[3].exp() * stride / 2.0);
        let corners = [x - half_width, y - half_height, x + half_width, y + half_height];
        let bbox = clip(corners.map(|value| value / picture.scale), picture.original);
        Candidate { bbox, score: row[4] * class, label: label as i32, source }
    };
    rows.chunks_exact(width).zip(places).enumerate().map(one).collect()
}

/// The first of the largest numbers.
fn best(classes: &[f32]) -> (usize, f32) {
    let better = |best: (usize, f32), (at, &value): (usize, &f32)| if value > best.1 { (at, value) } else { best };
    classes.iter().enumerate().fold((0, f32::NEG_INFINITY), better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_boxes_of_the_original() {
        // Input 32x32: grids of 4x4, 2x2 and 1x1 places; two classes.
        let mut rows = vec![0.0; 21 * 7];
        let of_place = |place: usize| place * 7..place * 7 + 7;
        rows[of_place(5)].copy_from_slice(&[0.5, 0.5, 0.0, 2.0f32.ln(), 0.5, 0.2, 0.8]); // place (1, 1) of stride 8
        rows[of_place(20)].copy_from_slice(&[0.5, 0.5, 1.0, 1.0, 1.0, 0.9, 0.1]); // the place of stride 32
        let picture = Letterbox { original: (16, 16), scale: 2.0, pixels: Vec::new() };
        let found = decode(&rows, 7, (32, 32), &picture);
        assert_eq!(found.len(), 21);
        assert_eq!((found[5].label, found[5].score), (1, 0.5 * 0.8));
        assert_eq!(found[5].bbox, [4.0, 2.0, 8.0, 10.0]);
        assert_eq!(found[20].bbox, [0.0, 0.0, 16.0, 16.0], "clipped to the picture");
        assert_eq!(found[20].label, 0);
    }
}
