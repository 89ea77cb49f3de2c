//! AdamW's update on the CPU, in one pass over memory.
//!
//! As tensor operations it reads and writes the four buffers some twenty times, which for a small decoder is a tenth of a
//! step.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// The numbers of one update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    /// The gradient is multiplied by this first.
    pub scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    /// Decayed parameters are multiplied by this.
    pub keep: f32,
    /// The learning rate over the first moment's bias correction.
    pub rate: f32,
    /// One over the second moment's bias correction.
    pub correction: f32,
    pub epsilon: f32,
}

/// Numbers a thread takes at once: 64 KiB of each buffer.
const CHUNK: usize = 1 << 14;

/// Updates the parameters `flat`, of which the first `decayed` decay, and both moments; all of one length.
pub(super) fn update(
    flat: &Tensor,
    mean: &Tensor,
    square: &Tensor,
    gradient: &Tensor,
    decayed: usize,
    numbers: Numbers,
) {
    let length = flat.numel();
    for buffer in [flat, mean, square, gradient] {
        let fits = buffer.device() == Device::Cpu && buffer.kind() == Kind::Float && buffer.is_contiguous();
        assert!(fits && buffer.numel() == length, "the optimizer's buffers are alike");
    }
    // SAFETY: each buffer is a contiguous f32 tensor of `length` numbers on the CPU (asserted above) that outlives this
    // call; the three written ones are separate allocations of the optimizer's and the decoder's, and nothing else reads
    // or writes them while this function runs: torch's own work on them is done when its calls return.
    let (flat, mean, square, gradient) = unsafe {
        (
            std::slice::from_raw_parts_mut(flat.data_ptr().cast::<f32>(), length),
            std::slice::from_raw_parts_mut(mean.data_ptr().cast::<f32>(), length),
            std::slice::from_raw_parts_mut(square.data_ptr().cast::<f32>(), length),
            std::slice::from_raw_parts(gradient.data_ptr().cast::<f32>(), length),
        )
    };
    flat.par_chunks_mut(CHUNK)
        .zip(mean.par_chunks_mut(CHUNK))
        .zip(square.par_chunks_mut(CHUNK))
        .zip(gradient.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(index, (((flat, mean), square), gradient))| {
            let decayed = decayed.saturating_sub(index * CHUNK).min(flat.len());
            for value in &mut flat[..decayed] {
                *value *= numbers.keep;
            }
            chunk(flat, mean, square, gradient, numbers);
        });
}

fn chunk(flat: &mut [f32], mean: &mut [f32], square: &mut [f32], gradient: &[f32], numbers: Numbers) {
    let Numbers { scale, beta1, beta2, rate, correction, epsilon, .. } = numbers;
    for (((value, mean), square), gradient) in flat.iter_mut().zip(mean).zip(square).zip(gradient) {
        let gradient = gradient * scale;
        *mean += (1.0 - beta1) * (gradient - *mean);
        *square += (1.0 - beta2) * (gradient * gradient - *square);
        *value -= rate * *mean / ((*square * correction).sqrt() + epsilon);
    }
}
