//! How fast is a training? The other half of `benches/train_lstm_torch.py` and its sister, which run these tests and say what they compare.
//!
//! `ICECAP_DEVICE` (cpu, cuda), `ICECAP_STEPS`, `ICECAP_BATCH` (captions) and `ICECAP_PRECISION` (auto, f32, bf16) say what is measured.

use std::{env, sync::Arc, time::Instant};

use tch::{Device, Kind};

use super::*;
use crate::{
    batch::random::SplitMix,
    decoder::{AttentionLstmSpec, ColumnInput, DecoderSpec, Gpt2Mapping, Gpt2Spec, LstmSpec, build, device},
    progress::Silent,
};

/// Features that are in memory already.
struct Held {
    bytes: Vec<u8>,
    shape: [usize; 2],
}

impl Column for Held {
    fn name(&self) -> &str {
        "grid"
    }
    fn kind(&self) -> Kind {
        Kind::Half
    }
    fn row_shape(&self) -> &[usize] {
        &self.shape
    }
    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let row_bytes = self.shape[0] * self.shape[1] * 2;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(row_bytes)) {
            let start = row as usize % (self.bytes.len() / row_bytes) * row_bytes;
            out.copy_from_slice(&self.bytes[start..start + row_bytes]);
        }
        vec![]
    }
}

/// As in benches/train_lstm_torch.py.
fn length(index: usize) -> usize {
    let share = ((index * 7919 % 1000) as f64 + 0.5) / 1000.0;
    (10.8 + 2.1 * (share / (1.0 - share)).ln()).round().clamp(3.0, 30.0) as usize
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// A model to be measured: its vocabulary, the vectors an image and the captions a batch.
#[derive(Clone, Copy)]
struct Sizes {
    vocab: usize,
    vectors: usize,
    batch: usize,
}

const LSTM: Sizes = Sizes { vocab: 2540, vectors: 49, batch: 100 };

fn data(captions: usize, sizes: Sizes) -> TrainData {
    let mut random = SplitMix::new(1);
    let shape = [sizes.vectors, 1280];
    let bytes = (0..40 * shape[0] * shape[1]).flat_map(|_| half::f16::from_f32(random.unit()).to_le_bytes()).collect();
    let captions = (0..captions).map(|index| Caption {
        row: index as u32 / 5,
        tokens: (0..length(index)).map(|_| 4 + random.below(sizes.vocab - 4) as u32).collect(),
    });
    TrainData {
        source: String::new(),
        tokenizer: String::new(),
        columns: vec![Arc::new(Held { bytes, shape })],
        captions: captions.collect(),
        validation: vec![0],
        special: Special { bos: 1, eos: 2, unk: Some(3), pad: 0 },
    }
}

fn measure(name: &str, decoder: &DecoderSpec, together: usize, steps: u64, sizes: Sizes) {
    let inputs = [ColumnInput { name: "grid".into(), vectors: sizes.vectors as i64, width: 1280 }];
    let said = |name: &str, other: &str| env::var(name).unwrap_or_else(|_| other.to_owned());
    let (device, note) = device::resolve(&said("ICECAP_DEVICE", "cpu")).unwrap();
    assert!(note.is_none(), "{note:?}");
    let sizes = Sizes { batch: said("ICECAP_BATCH", &sizes.batch.to_string()).parse().unwrap(), ..sizes };
    let precision = serde_json::from_value(said("ICECAP_PRECISION", "auto").into()).unwrap();
    let mut decoder = build(decoder, &inputs, sizes.vocab, 0, device).unwrap();
    let data = data(6000.max(8 * sizes.batch), sizes);
    let hooks = Hooks {
        progress: &Silent,
        name: &|row| row.to_string(),
        text: &|_| String::new(),
        score: &|_| Ok(Score { value: 0.0, shown: vec![] }),
        reward: None,
    };
    let mut go = |steps| {
        let spec = TrainSpec {
            steps: Some(steps),
            together,
            batch: sizes.batch,
            precision,
            validate_every: 1e6,
            ..TrainSpec::default()
        };
        let run = tempfile::tempdir().unwrap();
        let (begun, used) = (Instant::now(), cpu_seconds());
        let outcome = train(decoder.as_mut(), &spec, &data, run.path(), None, None, &hooks).unwrap();
        (outcome, begun.elapsed().as_secs_f64(), cpu_seconds() - used)
    };
    // A device is woken once a process, and its kernels are chosen and loaded at the first batch of each shape: a training sees few
    // shapes often, so neither run pays for that.
    go(if device == Device::Cpu { 4 } else { steps });
    // The short run pays for what is paid once: it is taken off the long one.
    let (short, long) = (go(2), go(steps));
    let tokens = (long.0.tokens - short.0.tokens) as f64;
    let (speed, lean) = (tokens / (long.0.seconds - short.0.seconds), tokens / (long.2 - short.2));
    println!("icecap {name:28} {speed:8.0} tokens/s  {lean:8.0} tokens per CPU second");
}

#[test]
#[ignore = "a measurement, not a check: run by benches/train_lstm_torch.py"]
fn tokens_per_second() {
    let steps = env::var("ICECAP_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(12);
    let attention = DecoderSpec::AttentionLstm(AttentionLstmSpec::default());
    let lstm = DecoderSpec::Lstm(LstmSpec::default());
    measure("attention-lstm, 5 an image", &attention, 5, steps, LSTM);
    measure("attention-lstm, 1 an image", &attention, 1, steps, LSTM);
    measure("lstm, 5 an image", &lstm, 5, steps, LSTM);
    measure("lstm, 1 an image", &lstm, 1, steps, LSTM);
}

#[test]
#[ignore = "a measurement, not a check: run by benches/train_gpt2_torch.py"]
fn gpt2_tokens_per_second() {
    let steps = env::var("ICECAP_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(6);
    let small = Gpt2Spec { positions: 128, ..Gpt2Spec::default() };
    let (width, layers, heads) = (768, 12, 12);
    let clip = Gpt2Spec { width, layers, heads, positions: 1024, mapping: Gpt2Mapping::Mlp, ..Gpt2Spec::default() };
    let grid = Sizes { vocab: 2540, vectors: 49, batch: 100 };
    let pooled = Sizes { vocab: 50_257, vectors: 1, batch: 40 };
    let models = [("small", small, grid), ("124M", clip, pooled)];
    let only = env::var("ICECAP_MODEL").ok();
    for (name, spec, sizes) in models.into_iter().filter(|(name, ..)| only.as_deref().is_none_or(|only| only == *name))
    {
        for together in [5, 1] {
            measure(
                &format!("gpt2 {name}, {together} an image"),
                &DecoderSpec::Gpt2(spec.clone()),
                together,
                steps,
                sizes,
            );
        }
    }
}
