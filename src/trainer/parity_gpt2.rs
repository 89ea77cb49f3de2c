//! Runs a GPT-2 that transformers wrote and notes what came of it: the other half of `benches/parity_gpt2.py`.
//!
//! Logits, loss and gradients before training, then fifty steps of a real training without dropout, and greedy captions of what
//! it came to. Which captions made which batch is noted too, so that the other side trains on the same.

use std::{env, fs, path::Path, sync::Arc};

use serde_json::json;
use tch::{Device, Kind};

use super::*;
use crate::{
    batch::{Captions, Order, Prefix, gather, order, random::SplitMix},
    decoder::{ColumnInput, DecodeSpec, Decoder, DecoderSpec, Scoring, build, generate, write_tensors},
    progress::Silent,
};

const STEPS: u64 = 50;
const ROWS: u32 = 40;

/// Rows of made-up numbers; row 7 is absent.
struct Drawn {
    name: &'static str,
    shape: Vec<usize>,
}

impl Column for Drawn {
    fn name(&self) -> &str {
        self.name
    }
    fn kind(&self) -> Kind {
        Kind::Float
    }
    fn row_shape(&self) -> &[usize] {
        &self.shape
    }
    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let numbers: usize = self.shape.iter().product();
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(4 * numbers)) {
            let mut random = SplitMix::new(u64::from(*row) + numbers as u64);
            out.chunks_exact_mut(4).for_each(|out| out.copy_from_slice(&(2.0 * random.unit() - 1.0).to_le_bytes()));
        }
        (0..rows.len()).filter(|&at| rows[at] == 7 && self.name == "grid").collect()
    }
}

#[test]
#[ignore = "reads and writes folders for benches/parity_gpt2.py, which sets ICECAP_PARITY"]
fn dump_for_transformers() {
    let folder = env::var("ICECAP_PARITY").expect("ICECAP_PARITY names a folder");
    for entry in fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        let case: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).expect("case.json");
        dump(&folder, &case);
    }
}

fn columns() -> Vec<Arc<dyn Column>> {
    vec![Arc::new(Drawn { name: "grid", shape: vec![3, 3, 30] }), Arc::new(Drawn { name: "pooled", shape: vec![20] })]
}

/// Captions of all lengths, three an image.
fn captions(vocab: usize, special: Special) -> Vec<Caption> {
    let mut random = SplitMix::new(5);
    let mut token = || loop {
        let token = random.below(vocab) as u32;
        if ![special.bos, special.eos, special.pad].contains(&token) {
            return token;
        }
    };
    (0..3 * ROWS)
        .map(|index| Caption { row: index % ROWS, tokens: (0..index % 12).map(|_| token()).collect() })
        .collect()
}

fn dump(folder: &Path, case: &serde_json::Value) {
    let spec: DecoderSpec = serde_json::from_value(case["decoder"].clone()).expect("a decoder");
    let spec = spec.at(folder);
    let vocab = case["vocab"].as_u64().expect("vocab") as usize;
    let mark = |name: &str| case[name].as_u64().expect("a mark") as u32;
    let special = Special { bos: mark("bos"), eos: mark("eos"), unk: None, pad: mark("pad") };
    let columns = columns();
    let inputs: Vec<ColumnInput> =
        columns.iter().map(|column| ColumnInput::of_shape(column.name(), column.row_shape())).collect();
    let mut decoder = build(&spec, &inputs, vocab, 11, Device::Cpu).unwrap();
    let captions = captions(vocab, special);
    let rows: Vec<u32> = (0..10).collect();
    let prefix = gather(&columns, &rows);
    decoder.params().save(&folder.join("before.safetensors")).unwrap();
    before(folder, decoder.as_ref(), &prefix, &captions, special);
    let steps = case["steps"].as_u64().unwrap_or(STEPS);
    let train = TrainSpec {
        steps: Some(steps),
        learning_rate: case["learning_rate"].as_f64().expect("learning_rate"),
        batch: 12,
        together: 2,
        warmup_steps: 5,
        label_smoothing: 0.1,
        clip: 1.0,
        log_every: 1,
        validate_every: 1e6,
        ..TrainSpec::default()
    };
    let run = folder.join("run");
    let data = TrainData {
        source: String::new(),
        tokenizer: String::new(),
        columns,
        captions: captions.clone().into(),
        validation: vec![0],
        special,
    };
    let hooks = Hooks {
        progress: &Silent,
        name: &|row| row.to_string(),
        text: &|_| String::new(),
        score: &|_| Ok(Score { value: 0.0, shown: vec![] }),
        reward: None,
    };
    super::train(decoder.as_mut(), &train, &data, &run, None, None, &hooks).unwrap();
    let rule = Order { seed: train.seed, batch: train.batch, together: train.together };
    let batches: Vec<Vec<u32>> = (0..).flat_map(|epoch| order(&captions, rule, epoch)).take(steps as usize).collect();
    let rates: Vec<f64> = (0..steps).map(|step| learning_rate(&train, step, steps)).collect();
    let decode = DecodeSpec { max_length: 12, ..DecodeSpec::default() }.greedy();
    let greedy: Vec<Vec<u32>> =
        generate(decoder.as_ref(), &prefix, &decode, special).into_iter().map(|caption| caption.tokens).collect();
    let captions: Vec<_> = captions.iter().map(|caption| json!([caption.row, caption.tokens])).collect();
    let facts = json!({
        "captions": captions, "batches": batches, "rates": rates, "train": train, "greedy": greedy, "rows": rows,
        "max_length": decode.max_length,
    });
    fs::write(folder.join("facts.json"), facts.to_string()).unwrap();
    let all: Vec<u32> = (0..ROWS).collect();
    let prefix = gather(&data.columns, &all);
    let names = ["grid", "pooled"].map(str::to_owned);
    write_tensors(&folder.join("columns.safetensors"), names.into_iter().zip(prefix.columns.iter().map(|v| &v.data)))
        .unwrap();
}

/// Logits, loss and gradients of the first images' captions.
fn before(folder: &Path, decoder: &dyn Decoder, prefix: &Prefix, captions: &[Caption], special: Special) {
    let pairs: Vec<(i64, &[u32])> =
        captions.iter().filter(|c| c.row < 10).map(|c| (i64::from(c.row), c.tokens.as_slice())).collect();
    let packed = Captions::pack(&pairs, special, 40);
    let (loss, gradients) = decoder.gradients(prefix, &packed, Scoring { dropout: None, label_smoothing: 0.1 });
    let named = decoder.params().names().map(str::to_owned).zip(&gradients);
    write_tensors(&folder.join("gradients.safetensors"), named).unwrap();
    let mut state = decoder.start(prefix);
    let mut all = vec![];
    for token in [0_i64, 5, 9, 20, 4, 33] {
        let (logits, next) = decoder.step(&state, &tch::Tensor::from_slice(&[token; 10]));
        all.push(logits);
        state = next;
    }
    let logits = tch::Tensor::stack(&all, 1); // [N, T, V]
    let named = [("logits".to_owned(), &logits), ("loss".to_owned(), &loss)];
    write_tensors(&folder.join("outputs.safetensors"), named.into_iter()).unwrap();
}
