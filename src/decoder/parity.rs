//! Writes what a plain PyTorch reimplementation needs to be compared with: weights, inputs, and what came of them.
//!
//! `benches/parity_decoders.py` runs this test and compares. Dropout is off; everything else is as in training.

use std::{env, fs, path::Path};

use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::batch::{Vectors, random::SplitMix};

const SPECIAL: Special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
const VOCAB: usize = 57;

#[test]
#[ignore = "writes a folder for benches/parity_decoders.py, which sets ICECAP_PARITY"]
fn dump_for_pytorch() {
    let folder = env::var("ICECAP_PARITY").expect("ICECAP_PARITY names a folder");
    let lstm = LstmSpec { embedding: 40, hidden: 48, layers: 2, ..LstmSpec::default() };
    let attention =
        AttentionLstmSpec { width: 44, embedding: 40, hidden: 48, attention: 36, ..AttentionLstmSpec::default() };
    dump(&Path::new(&folder).join("lstm"), &DecoderSpec::Lstm(lstm));
    let up_down = AttentionLstmSpec { variant: Variant::UpDown, doubly_stochastic: 0.0, ..attention.clone() };
    dump(&Path::new(&folder).join("attention-lstm"), &DecoderSpec::AttentionLstm(attention));
    dump(&Path::new(&folder).join("up-down"), &DecoderSpec::AttentionLstm(up_down));
}

fn dump(folder: &Path, spec: &DecoderSpec) {
    fs::create_dir_all(folder).unwrap();
    let inputs = [
        ColumnInput { name: "grid".into(), vectors: 9, width: 30 },
        ColumnInput { name: "pooled".into(), vectors: 1, width: 20 },
    ];
    let decoder = build(spec, &inputs, VOCAB, 11, Device::Cpu).unwrap();
    let _ = tch::no_grad(|| decoder.params().flat().shallow_clone().g_mul_scalar_(2.0));
    decoder.params().save(&folder.join("model.safetensors")).unwrap();
    let prefix = images(6);
    let captions = captions();
    let pairs: Vec<(i64, &[u32])> = captions.iter().map(|(image, tokens)| (*image, tokens.as_slice())).collect();
    let packed = Captions::pack(&pairs, SPECIAL, 40);
    let scoring = Scoring { dropout: None, label_smoothing: 0.1 };
    let (loss, gradients) = decoder.gradients(&prefix, &packed, scoring);
    let named = decoder.params().names().map(str::to_owned).zip(&gradients);
    write_tensors(&folder.join("gradients.safetensors"), named).unwrap();
    let spoken = [DecodeSpec::default().greedy(), DecodeSpec::default()]
        .map(|spec| generate(decoder.as_ref(), &prefix, &DecodeSpec { max_length: 12, ..spec }, SPECIAL));
    let steps = steps(decoder.as_ref(), &prefix);
    let present = prefix.columns[0].present.as_ref().unwrap().to_kind(Kind::Float);
    let tensors = [
        ("grid", &prefix.columns[0].data),
        ("grid.present", &present),
        ("pooled", &prefix.columns[1].data),
        ("logits", &steps),
    ];
    let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor));
    write_tensors(&folder.join("inputs.safetensors"), tensors.into_iter()).unwrap();
    let said = |captions: &[Generated]| -> Vec<_> {
        captions.iter().map(|caption| json!({"tokens": caption.tokens, "log_prob": caption.log_prob})).collect()
    };
    let facts = json!({
        "spec": spec, "captions": captions, "loss": loss.double_value(&[]), "label_smoothing": 0.1, "fed": FED,
        "greedy": said(&spoken[0]), "beam": said(&spoken[1]), "special": [SPECIAL.bos, SPECIAL.eos, 3, SPECIAL.pad],
        "max_length": 12, "length_penalty": DecodeSpec::default().length_penalty, "beam_width": DecodeSpec::default().beam,
    });
    fs::write(folder.join("facts.json"), facts.to_string()).unwrap();
}

/// What is fed to every image, one after another.
const FED: [i64; 7] = [1, 9, 20, 4, 33, 12, 56];

/// The logits after each fed token: `[T, N, V]`.
fn steps(decoder: &dyn Decoder, prefix: &Prefix) -> Tensor {
    let mut state = decoder.start(prefix);
    let mut all = vec![];
    for token in FED {
        let tokens = Tensor::from_slice(&vec![token; prefix.images() as usize]);
        let (logits, next) = decoder.step(&state, &tokens);
        all.push(logits);
        state = next;
    }
    Tensor::stack(&all, 0)
}

/// Images of two columns; the last lacks the first.
fn images(count: i64) -> Prefix {
    let mut random = SplitMix::new(4);
    let mut draw = |shape: [i64; 3]| {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| 2.0 * random.unit() - 1.0).collect();
        Tensor::from_slice(&numbers).view(shape)
    };
    let present = Tensor::ones([count, 9], (Kind::Bool, Device::Cpu));
    let _ = present.narrow(0, count - 1, 1).fill_(0);
    let grid = Vectors { data: draw([count, 9, 30]), present: Some(present) };
    Prefix { columns: vec![grid, Vectors { data: draw([count, 1, 20]), present: None }] }
}

/// Captions of all lengths, several for some images.
fn captions() -> Vec<(i64, Vec<u32>)> {
    let mut random = SplitMix::new(5);
    let caption = |index: usize| {
        let tokens = (0..index % 11).map(|_| 4 + random.below(VOCAB - 4) as u32).collect();
        ((index * 5 % 6) as i64, tokens)
    };
    (0..25).map(caption).collect()
}
