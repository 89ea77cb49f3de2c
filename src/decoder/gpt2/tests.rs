//! GPT-2 against transformers' own numbers, and its files.
//!
//! How it agrees with itself (speaking with scoring, closed forms with torch) is tested with the other decoders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tch::Kind;

use super::{
    super::{
        DecodeSpec, Method,
        files::{read_tensors, write_tensors},
        generate, mixed, samples,
    },
    *,
};
use crate::batch::Vectors;

const SPECIAL: Special = Special { bos: 1, eos: 2, unk: None, pad: 0 };
const SCORING: Scoring = Scoring { dropout: None, label_smoothing: 0.0 };

/// A folder that transformers wrote, and what it made of `golden.json`'s numbers (`tests/fixtures/gpt2/make.py`).
fn fixture(name: &str) -> (PathBuf, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2").join(name);
    let golden = fs::read_to_string(folder.join("golden.json")).unwrap();
    (folder, serde_json::from_str(&golden).unwrap())
}

fn numbers(value: &Value) -> Tensor {
    let shape: Vec<i64> = serde_json::from_value(value["shape"].clone()).unwrap();
    let values: Vec<f32> = serde_json::from_value(value["values"].clone()).unwrap();
    Tensor::from_slice(&values).view(shape.as_slice())
}

fn inputs() -> [ColumnInput; 1] {
    [ColumnInput { name: "grid".into(), vectors: 3, width: 2 }]
}

/// The fixture's decoder with the golden file's marks and mapping, and its images.
fn golden(name: &str, mapping: Gpt2Mapping) -> (Gpt2, Prefix, Value) {
    let (folder, golden) = fixture(name);
    let spec = Gpt2Spec { pretrained: Some(folder), mapping, ..Gpt2Spec::default() };
    let decoder = Gpt2::new(&spec, &inputs(), 11, 0, Device::Cpu).unwrap();
    tch::no_grad(|| {
        for (name, mut place) in decoder.params.all().into_iter().filter(|(name, _)| name.starts_with(OWN)) {
            place.copy_(&numbers(&golden[name]));
        }
    });
    let prefix = Prefix { columns: vec![Vectors { data: numbers(&golden["grid"]), present: None }] };
    (decoder, prefix, golden)
}

/// The logits after `<desc>` and each fed token, `[N, T, V]`.
fn spoken(decoder: &Gpt2, prefix: &Prefix, fed: &[Vec<i64>]) -> Tensor {
    let mut state = decoder.start(prefix);
    let mut all = vec![];
    for step in 0..=fed[0].len() {
        let tokens: Vec<i64> = fed.iter().map(|fed| step.checked_sub(1).map_or(1, |before| fed[before])).collect();
        let (logits, next) = decoder.step(&state, &Tensor::from_slice(&tokens));
        all.push(logits);
        state = next;
    }
    Tensor::stack(&all, 1)
}

#[test]
fn logits_and_losses_are_those_of_transformers() {
    for (name, mapping) in [("prefix", Gpt2Mapping::Linear), ("cross", Gpt2Mapping::CrossAttention)] {
        let (decoder, prefix, golden) = golden(name, mapping);
        let fed: Vec<Vec<i64>> = serde_json::from_value(golden["fed"].clone()).unwrap();
        let (found, expected) = (spoken(&decoder, &prefix, &fed), numbers(&golden["logits"]));
        assert!(expected.std(false).double_value(&[]) > 0.3, "logits that tell something");
        let apart = (&found - &expected).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "{name}: {apart}");
        let captions: Vec<Vec<u32>> = fed.iter().map(|fed| fed.iter().map(|&token| token as u32).collect()).collect();
        let pairs: Vec<(i64, &[u32])> = captions.iter().zip(0..).map(|(tokens, image)| (image, &tokens[..])).collect();
        let loss = decoder.loss(&prefix, &Captions::pack(&pairs, SPECIAL, 40), SCORING).double_value(&[]);
        assert!((loss - golden["loss"].as_f64().unwrap()).abs() < 1e-5, "{name}: {loss}");
    }
}

/// A copy of a fixture whose tensors went through `change`.
fn changed(change: impl Fn(&mut Vec<(String, Tensor)>)) -> (tempfile::TempDir, Gpt2Spec) {
    let (from, _) = fixture("prefix");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        (name, Tensor::from_data_size(view.data(), &shape, Kind::Half).to_kind(Kind::Float))
    };
    let mut tensors: Vec<(String, Tensor)> = file.tensors().into_iter().map(read).collect();
    change(&mut tensors);
    let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
    write_tensors(&folder.path().join("model.safetensors"), named).unwrap();
    let spec = Gpt2Spec { pretrained: Some(folder.path().to_owned()), ..Gpt2Spec::default() };
    (folder, spec)
}

fn open(spec: &Gpt2Spec, vocab: usize) -> Result<Gpt2, DecoderError> {
    Gpt2::new(spec, &inputs(), vocab, 0, Device::Cpu)
}

/// The message of a folder that is refused.
fn refused(folder: &tempfile::TempDir, spec: &Gpt2Spec) -> String {
    open(spec, 11).unwrap_err().to_string().replace(&folder.path().display().to_string(), "gpt2")
}

fn set(tensors: &mut Vec<(String, Tensor)>, name: &str, tensor: Tensor) {
    tensors.retain(|(other, _)| other != name);
    tensors.push((name.to_owned(), tensor));
}

#[test]
fn names_without_prefix_buffers_and_a_tied_head_are_taken() {
    let (_one, plain) = changed(|_| ());
    let (_two, spelt) = changed(|tensors| {
        let words = tensors.iter().find(|(name, _)| name == "transformer.wte.weight").unwrap().1.shallow_clone();
        tensors.iter_mut().for_each(|(name, _)| *name = name.replace("transformer.", ""));
        set(tensors, "lm_head.weight", words);
        set(tensors, "h.0.attn.bias", Tensor::ones([1, 1, 10, 10], (Kind::Float, Device::Cpu)));
        set(tensors, "h.1.attn.masked_bias", Tensor::from(-1e4f32));
        set(tensors, "icecap.img", Tensor::from_slice(&[1.0f32]));
    });
    let [plain, spelt] = [plain, spelt].map(|spec| open(&spec, 11).unwrap());
    assert!(plain.params.flat().equal(spelt.params.flat()));
}

/// A vocabulary that was rounded up: no way of speaking says a number that the tokenizer has no token for.
#[test]
fn rows_without_a_token_are_never_spoken() {
    let (_folder, spec) = changed(|tensors| {
        let name = "transformer.wte.weight";
        let words = tensors.iter().find(|(other, _)| other == name).unwrap().1.copy();
        // Of two rows that point away from each other one is the most probable everywhere.
        let far = Tensor::from_slice(&[60.0f32, -50.0, 40.0, 70.0]);
        words.get(9).copy_(&far);
        words.get(10).copy_(&-far);
        set(tensors, name, words);
    });
    let decoder = open(&spec, 9).unwrap();
    assert_eq!((decoder.vocab(), decoder.spare(), open(&spec, 11).unwrap().spare()), (11, 2, 0));
    let prefix = Prefix { columns: vec![Vectors { data: numbers(&fixture("prefix").1["grid"]), present: None }] };
    let ways = [Method::Greedy, Method::Beam, Method::Sample].map(|method| {
        let spec = DecodeSpec { method, beam: 3, max_length: 5, min_length: 2, ..DecodeSpec::default() };
        generate(&decoder, &prefix, &spec, SPECIAL)
    });
    let sampled = samples(&decoder, &prefix, 8, &DecodeSpec { max_length: 5, ..DecodeSpec::default() }, SPECIAL);
    let spoken = || ways.iter().flatten().chain(&sampled);
    assert!(spoken().any(|caption| !caption.tokens.is_empty()));
    assert!(spoken().flat_map(|caption| &caption.tokens).all(|token| *token < 9), "{ways:?}");
    let captions = Captions::pack(&[(0, &[4, 5, 6]), (1, &[7, 8, 3])], SPECIAL, 40);
    let fed = mixed(&decoder, &prefix, &captions, SPECIAL, 1.0, 7).unwrap().fed();
    assert!(fed.max().int64_value(&[]) < 9, "{fed:?}");
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let name = "transformer.h.1.ln_2.weight";
    let (folder, spec) = changed(|tensors| {
        tensors.retain(|(other, _)| other != name && !other.ends_with("c_fc.bias"));
        set(tensors, "transformer.h.2.ln_1.weight", Tensor::from_slice(&[1.0f32; 4]));
    });
    insta::assert_snapshot!(refused(&folder, &spec), @r"
    `gpt2/model.safetensors` does not hold the tensors that its config.json promises: it lacks `h.0.mlp.c_fc.bias`, `h.1.ln_2.weight`, `h.1.mlp.c_fc.bias`; it also has `h.2.ln_1.weight`
    hint: take config.json and model.safetensors from the same folder
    ");
    let (folder, spec) = changed(|tensors| set(tensors, name, Tensor::from_slice(&[1.0f32; 5])));
    insta::assert_snapshot!(refused(&folder, &spec), @r"
    `gpt2/model.safetensors`: the tensor `h.1.ln_2.weight` is `[5]`, but its config.json promises `[4]`
    hint: take config.json and model.safetensors from the same folder
    ");
    let (folder, spec) =
        changed(|tensors| set(tensors, "lm_head.weight", Tensor::zeros([11, 4], (Kind::Float, Device::Cpu))));
    insta::assert_snapshot!(refused(&folder, &spec), @r"
    `gpt2/model.safetensors`: `lm_head.weight` differs from `wte.weight`
    hint: only models with tied word embeddings can be used, as GPT-2's are
    ");
    let (folder, spec) = changed(|_| ());
    assert!(matches!(open(&spec, 12), Err(DecoderError::Gpt2(Gpt2Error::Tokenizer { tokenizer: 12, model: 11, .. }))));
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(matches!(open(&spec, 11), Err(DecoderError::Gpt2(Gpt2Error::Weights { .. }))));
    fs::write(&path, &whole[..20]).unwrap();
    assert!(matches!(open(&spec, 11), Err(DecoderError::Gpt2(Gpt2Error::Weights { .. }))));
    let integers = String::from_utf8_lossy(&whole[8..]).contains("\"F32\"");
    assert!(integers);
    let at = whole.windows(3).position(|bytes| bytes == b"F32").unwrap();
    let other = [&whole[..at], b"I32", &whole[at + 3..]].concat();
    fs::write(&path, other).unwrap();
    assert!(matches!(open(&spec, 11), Err(DecoderError::Gpt2(Gpt2Error::Dtype { .. }))));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(&spec, 11), Err(DecoderError::Gpt2(Gpt2Error::Read { .. }))));
}

#[test]
fn a_prefix_that_leaves_no_place_is_refused() {
    let inputs = [ColumnInput { name: "grid".into(), vectors: 30, width: 2 }];
    let spec = Gpt2Spec { width: 8, heads: 2, positions: 32, ..Gpt2Spec::default() };
    let error = Gpt2::new(&spec, &inputs, 11, 0, Device::Cpu).unwrap_err();
    insta::assert_snapshot!(error, @r"
    the prefix takes `32` places, but the model has `32`
    hint: raise `decoder.positions`, or pool the column to fewer vectors
    ");
    let fits = Gpt2::new(&Gpt2Spec { positions: 33, ..spec.clone() }, &inputs, 11, 0, Device::Cpu).unwrap();
    assert_eq!(fits.limit(), Some(2));
    let narrow = Gpt2Spec { width: 12, mapping: Gpt2Mapping::Transformer, ..spec };
    let error = Gpt2::new(&narrow, &inputs, 11, 0, Device::Cpu).unwrap_err();
    insta::assert_snapshot!(error, @r"
    `decoder.mapping` = `transformer` does not work: it must be another than transformer: its 8 heads do not divide the width `12`
    hint: change it in the recipe, or with `--set decoder.mapping=...`
    ");
}

#[test]
fn frozen_models_train_what_was_added() {
    let trained = |freeze, lora| {
        let spec = Gpt2Spec { width: 8, layers: 1, heads: 2, freeze, lora, ..Gpt2Spec::default() };
        let decoder = open(&spec, 11).unwrap();
        let names: Vec<String> = decoder.params.names().map(str::to_owned).collect();
        let captions = Captions::pack(&[(0, &[4, 5, 6]), (1, &[7])], SPECIAL, 40);
        let data = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([2, 3, 2]) / 6.0 - 1.0;
        let prefix = Prefix { columns: vec![Vectors { data, present: None }] };
        let (loss, gradients) = decoder.gradients(&prefix, &captions, SCORING);
        let plain = decoder.loss(&prefix, &captions, SCORING);
        assert!((loss.double_value(&[]) - plain.double_value(&[])).abs() < 1e-6);
        let expected = Tensor::run_backward(&[plain], decoder.params.leaves(), false, false);
        for ((name, found), expected) in names.iter().zip(&gradients).zip(&expected) {
            assert!((found - expected).abs().max().double_value(&[]) < 1e-6, "{name}");
        }
        names
    };
    let added = ["icecap.img", "icecap.mapping.grid.weight", "icecap.mapping.grid.bias", "icecap.desc"];
    assert_eq!(trained(Freeze::Lm, 0), added);
    let norms = trained(Freeze::AllButLn, 0);
    assert_eq!(norms.len(), added.len() + 6);
    assert!(norms.iter().all(|name| added.contains(&name.as_str()) || name.contains("ln_")));
    let low_rank = trained(Freeze::Lm, 2);
    assert!(low_rank.contains(&"icecap.lora.h.0.attn.c_proj.b".to_owned()));
    assert_eq!(low_rank.len(), added.len() + 4);
}

/// What is exported is a plain GPT-2 that says the same, low-rank additions merged.
#[test]
fn exports_say_the_same() {
    let spec = Gpt2Spec { width: 8, layers: 2, heads: 2, freeze: Freeze::Lm, lora: 2, ..Gpt2Spec::default() };
    let decoder = open(&spec, 11).unwrap();
    let _ = tch::no_grad(|| decoder.params.flat().shallow_clone().g_add_scalar_(0.1));
    let folder = tempfile::tempdir().unwrap();
    Decoder::export(&decoder, folder.path(), SPECIAL).unwrap();
    let again = Gpt2Spec { pretrained: Some(folder.path().to_owned()), ..Gpt2Spec::default() };
    let again = open(&again, 11).unwrap();
    let own: Vec<(String, Vec<i64>)> =
        again.params.all().into_iter().map(|(name, t)| (name.to_owned(), t.size())).collect();
    let own: Vec<(String, Vec<i64>)> = own.into_iter().filter(|(name, _)| name.starts_with(OWN)).collect();
    let values = read_tensors(&folder.path().join("icecap.safetensors"), &own).unwrap();
    let places = again.params.all().into_iter().filter(|(name, _)| name.starts_with(OWN));
    tch::no_grad(|| places.zip(&values).for_each(|((_, mut place), value)| place.copy_(value)));
    let prefix = Prefix { columns: vec![Vectors { data: numbers(&fixture("prefix").1["grid"]), present: None }] };
    let fed = [vec![5, 9, 4], vec![10, 3, 3]];
    let apart = spoken(&decoder, &prefix, &fed) - spoken(&again, &prefix, &fed);
    assert!(apart.abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn a_checkpoint_opens_without_the_pretrained_folder() {
    let (pretrained, spec) = changed(|_| ());
    let decoder = open(&spec, 11).unwrap();
    let folder = tempfile::tempdir().unwrap();
    decoder.params.save(&folder.path().join("model.safetensors")).unwrap();
    let files = decoder.write_beside(folder.path(), SPECIAL).unwrap();
    assert_eq!(files, ["config.json", "generation_config.json"]);
    drop(pretrained);
    let load = |vocab| {
        super::super::load(folder.path(), &super::super::DecoderSpec::Gpt2(spec.clone()), &inputs(), vocab, Device::Cpu)
    };
    assert!(load(11).unwrap().params().flat().equal(decoder.params.flat()));
    let other = load(12).err().unwrap();
    assert!(matches!(other, DecoderError::Gpt2(Gpt2Error::Tokenizer { .. })));
}

/// Two heads and two layers, a word: the weights of its query among the keys, worked out by hand.
#[test]
fn what_is_looked_at_is_the_mean_over_heads_and_layers() {
    let mapping = Gpt2Mapping::CrossAttention;
    let spec = Gpt2Spec { width: 8, layers: 2, heads: 2, token_types: false, mapping, ..Gpt2Spec::default() };
    let decoder = open(&spec, 11).unwrap();
    let _guard = tch::no_grad_guard();
    let _ = decoder.params.flat().shallow_clone().g_mul_scalar_(6.0);
    let data = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([2, 3, 2]) / 6.0 - 1.0;
    let prefix = Prefix { columns: vec![Vectors { data, present: None }] };
    let found = decoder.attention(&prefix, &Captions::pack(&[(1, &[4, 5]), (0, &[6])], SPECIAL, 40)).unwrap(); // [5, 3]
    let params = &decoder.params;
    let images = decoder.image_rows(&prefix, &Dropout::none()).0.view([2, 4, 8]).get(1); // of the longer caption's image
    let mut rows = params.get(decoder.mark).view([1, 8]) + params.get(decoder.places).narrow(0, 0, 1);
    let mut expected = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    for block in &decoder.blocks {
        let value = block.attention.apply(params, &block.norm.apply(params, &rows)).narrow(1, 16, 8);
        rows += block.project.apply(params, &value);
        let cross = block.cross.as_ref().unwrap();
        let query = cross.query.apply(params, &cross.norm.apply(params, &rows));
        let keyed = cross.images.apply(params, &images); // [4, 16]
        let mut seen = vec![];
        for head in [0, 4] {
            let scores = query.narrow(1, head, 4).matmul(&keyed.narrow(1, head, 4).tr()) / 2.0;
            let weights = scores.softmax(1, Kind::Float); // [1, 4]
            expected += weights.get(0).narrow(0, 1, 3) / 4.0;
            seen.push(weights.matmul(&keyed.narrow(1, 8 + head, 4)));
        }
        rows += cross.project.apply(params, &Tensor::cat(&seen, 1));
        rows = &rows + block.mlp(params, &rows);
    }
    let spread = expected.max().double_value(&[]) - expected.min().double_value(&[]);
    assert!(spread > 0.01, "weights that tell something: {spread}");
    assert!((found.get(0) - expected).abs().max().double_value(&[]) < 1e-5);
}
