//! How fast is a training? The other half of `benches/train_lstm_torch.py`, which runs this test and says what it compares.

use std::{env, sync::Arc, time::Instant};

use tch::{Device, Kind};

use super::*;
use crate::{
    batch::random::SplitMix,
    decoder::{AttentionLstmSpec, ColumnInput, DecoderSpec, LstmSpec, build},
    progress::Silent,
};

const VOCAB: usize = 2540;

/// Features that are in memory already.
struct Held(Vec<u8>);

impl Column for Held {
    fn name(&self) -> &str {
        "grid"
    }
    fn kind(&self) -> Kind {
        Kind::Half
    }
    fn row_shape(&self) -> &[usize] {
        &[49, 1280]
    }
    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let row_bytes = 49 * 1280 * 2;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(row_bytes)) {
            let start = row as usize % (self.0.len() / row_bytes) * row_bytes;
            out.copy_from_slice(&self.0[start..start + row_bytes]);
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

fn data(captions: usize) -> TrainData {
    let mut random = SplitMix::new(1);
    let features = (0..40 * 49 * 1280).flat_map(|_| half::f16::from_f32(random.unit()).to_le_bytes()).collect();
    let captions = (0..captions).map(|index| Caption {
        row: index as u32 / 5,
        tokens: (0..length(index)).map(|_| 4 + random.below(VOCAB - 4) as u32).collect(),
    });
    TrainData {
        source: String::new(),
        columns: vec![Arc::new(Held(features))],
        captions: captions.collect(),
        validation: vec![0],
        special: Special { bos: 1, eos: 2, unk: Some(3), pad: 0 },
    }
}

fn measure(name: &str, decoder: &DecoderSpec, together: usize, steps: u64) {
    let inputs = [ColumnInput { name: "grid".into(), vectors: 49, width: 1280 }];
    let mut decoder = build(decoder, &inputs, VOCAB, 0, Device::Cpu).unwrap();
    let data = data(6000);
    let hooks = Hooks {
        progress: &Silent,
        name: &|row| row.to_string(),
        text: &|_| String::new(),
        score: &|_| Ok(Score { value: 0.0, shown: vec![] }),
    };
    let mut go = |steps| {
        let spec = TrainSpec { steps: Some(steps), together, validate_every: 1e6, ..TrainSpec::default() };
        let run = tempfile::tempdir().unwrap();
        let (begun, used) = (Instant::now(), cpu_seconds());
        let outcome = train(decoder.as_mut(), &spec, &data, run.path(), false, &hooks).unwrap();
        (outcome, begun.elapsed().as_secs_f64(), cpu_seconds() - used)
    };
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
    measure("attention-lstm, 5 an image", &attention, 5, steps);
    measure("attention-lstm, 1 an image", &attention, 1, steps);
    measure("lstm, 5 an image", &lstm, 5, steps);
    measure("lstm, 1 an image", &lstm, 1, steps);
}
