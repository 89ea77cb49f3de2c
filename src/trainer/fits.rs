//! What fits on the device: whether columns are held there, and which batch would have done where memory ran out.
//!
//! torch says that memory ran out by an error, which tch raises as a panic. One decision defended: which batch fits is not
//! estimated but tried, with the very captions that did not fit, half of them at a time.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use tch::Device;

use super::{Hold, TrainData, TrainError, TrainSpec, precision, spec::Plan};
use crate::{
    batch::{Held, Order, fetch, order},
    decoder::{Decoder, Scoring, free_memory},
};

/// What torch and its libraries say when memory runs out.
const WORDS: [&str; 5] = ["out of memory", "can't allocate memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "bad_alloc"];

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Does `work`; `None` where the device has not the memory for it. Other panics go on.
pub(super) fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    quieten();
    let before = GUARDED.replace(true);
    let found = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    match found {
        Ok(found) => Some(found),
        Err(panic) if is_memory(panic.as_ref()) => None,
        Err(panic) => panic::resume_unwind(panic),
    }
}

fn is_memory(panic: &(dyn Any + Send)) -> bool {
    let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    said.is_some_and(|said| WORDS.iter().any(|words| said.contains(words)))
}

/// Panics that [`guard`] turns into an error print nothing.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !(GUARDED.get() && is_memory(info.payload())) {
                print(info);
            }
        }));
    });
}

/// The error that says what would have fitted at `step`.
pub(super) fn too_large(
    decoder: &mut dyn Decoder,
    half: bool,
    spec: &TrainSpec,
    data: &TrainData,
    plan: Plan,
    step: u64,
    held: bool,
) -> TrainError {
    let device = match decoder.params().device() {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let hint = match largest(decoder, half, spec, data, plan, step) {
        Some(fits) => {
            let accumulation = spec.accumulation * spec.batch.div_ceil(fits);
            format!(
                "{fits} captions fit: `train.batch` = {fits} with `train.accumulation` = {accumulation} learns in steps of the same size"
            )
        }
        None => "not even one caption fits: take a smaller decoder, or a column of fewer vectors".to_owned(),
    };
    let hold = if held { "; `train.hold = false` leaves the columns' rows where they are" } else { "" };
    TrainError::Memory { device, batch: spec.batch, hint: format!("{hint}{hold}") }
}

/// Half of the step's largest batch, or a quarter, and so on: the first that fits.
fn largest(
    decoder: &mut dyn Decoder,
    half: bool,
    spec: &TrainSpec,
    data: &TrainData,
    plan: Plan,
    step: u64,
) -> Option<usize> {
    let rule = Order { seed: spec.seed, batch: spec.batch, together: spec.together };
    let (epoch, first, count) = plan.locate(step);
    let tokens = |indices: &Vec<u32>| indices.iter().map(|&at| data.captions[at as usize].tokens.len()).sum::<usize>();
    let batches = order(&data.captions, rule, epoch).into_iter().skip(first as usize).take(count as usize);
    let batch = batches.max_by_key(tokens)?;
    let device = decoder.params().device();
    let scoring = Scoring { dropout: Some(0), label_smoothing: spec.label_smoothing };
    let mut fits = batch.len() / 2;
    while fits > 0 {
        let tried = guard(|| {
            let batch = fetch(&data.columns, &data.captions, &batch[..fits], data.special, spec.max_tokens);
            let (prefix, captions) = (batch.prefix.to_device(device), batch.captions.to_device(device));
            let (loss, gradients) = precision::gradients(decoder, half, &prefix, &captions, scoring);
            // The device works behind the host: only a number from it says that it was done.
            (loss.double_value(&[]), gradients.len())
        });
        if tried.is_some() {
            return Some(fits);
        }
        fits /= 2;
    }
    None
}

/// The training rows on the decoder's device, where they are to be held there; and a line about it.
pub(super) fn hold(
    decoder: &dyn Decoder,
    spec: &TrainSpec,
    data: &TrainData,
) -> Result<Option<(Held, String)>, TrainError> {
    let device = decoder.params().device();
    let mut rows: Vec<u32> = data.captions.iter().map(|caption| caption.row).collect();
    rows.sort_unstable();
    rows.dedup();
    let bytes = Held::bytes(&data.columns, rows.len());
    let holds = match spec.hold {
        Hold::Said(said) => said,
        // The mapped shards are in the host's memory as they are.
        Hold::Auto => free_memory(device).is_some_and(|free| bytes <= free / 2),
    };
    if !holds {
        return Ok(None);
    }
    let line = format!("{} rows of the columns are held on the device: {:.1} MB", rows.len(), bytes as f64 / 1e6);
    match guard(|| Held::copy(&data.columns, rows, device)) {
        Some(held) => Ok(Some((held, line))),
        None => Err(TrainError::Hold { megabytes: bytes / 1_000_000 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_that_ran_out_is_caught() {
        assert_eq!(guard(|| 7), Some(7));
        let torch = "Torch(\"[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory\")";
        assert_eq!(guard(|| -> u8 { panic!("{torch}") }), None);
        assert_eq!(guard(|| -> u8 { panic!("CUDA out of memory. Tried to allocate 2.00 GiB") }), None);
        let other = panic::catch_unwind(|| guard(|| -> u8 { panic::resume_unwind(Box::new("a shape does not fit")) }));
        assert!(other.is_err());
    }

    #[test]
    fn torch_itself_is_caught_when_it_asks_for_more_than_there_is() {
        let huge = || tch::Tensor::zeros([1 << 46], (tch::Kind::Float, Device::Cpu));
        assert!(guard(huge).is_none());
    }
}
