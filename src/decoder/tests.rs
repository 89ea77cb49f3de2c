//! Decoders as wholes: speaking agrees with scoring, beams with enumeration, masks with absence.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::batch::{Vectors, random::SplitMix};

mod own_words;

const SPECIAL: Special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };
const VOCAB: usize = 7;
const SCORING: Scoring = Scoring { dropout: None, label_smoothing: 0.1 };

fn inputs() -> Vec<ColumnInput> {
    vec![
        ColumnInput { name: "grid".into(), vectors: 4, width: 6 },
        ColumnInput { name: "pooled".into(), vectors: 1, width: 5 },
    ]
}

fn decoders(seed: u64) -> Vec<Box<dyn Decoder>> {
    // So small that threads would only wait for each other.
    tch::set_num_threads(1);
    let lstm = LstmSpec { embedding: 8, hidden: 8, layers: 2, tied: true, ..LstmSpec::default() };
    let attention = AttentionLstmSpec { width: 9, embedding: 7, hidden: 8, attention: 5, ..Default::default() };
    let up_down = AttentionLstmSpec { variant: Variant::UpDown, doubly_stochastic: 0.0, ..attention.clone() };
    let tied = AttentionLstmSpec { embedding: 8, tied: true, activation: Activation::None, ..up_down.clone() };
    let gpt2 = Gpt2Spec { width: 8, layers: 2, heads: 2, positions: 24, ..Gpt2Spec::default() };
    let mlp = Gpt2Spec { mapping: Gpt2Mapping::Mlp, prefix_length: Some(3), token_types: false, ..gpt2.clone() };
    let transformer = Gpt2Spec { mapping: Gpt2Mapping::Transformer, prefix_length: Some(2), ..gpt2.clone() };
    let cross = Gpt2Spec { mapping: Gpt2Mapping::CrossAttention, ..gpt2.clone() };
    let gpt2s = [gpt2, mlp, transformer, cross].map(DecoderSpec::Gpt2);
    let attending = [attention, up_down, tied].map(DecoderSpec::AttentionLstm);
    [DecoderSpec::Lstm(lstm)]
        .iter()
        .chain(&attending)
        .chain(&gpt2s)
        .map(|spec| {
            let decoder = build(spec, &inputs(), VOCAB, seed, Device::Cpu).unwrap();
            // far from zero, so that captions differ by image; eight layers of that would only blow up rounding
            let named = decoder.params().named(decoder.params().flat());
            let shallow = named.into_iter().filter(|(name, _)| !name.starts_with("icecap.mapping.h."));
            tch::no_grad(|| shallow.for_each(|(_, mut place)| drop(place.g_mul_scalar_(4.0))));
            decoder
        })
        .collect()
}

/// `images` images; the last lacks its first column.
fn prefix(images: i64, seed: u64) -> Prefix {
    let mut random = SplitMix::new(seed);
    let mut draw = |shape: [i64; 3]| {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| 2.0 * random.unit() - 1.0).collect();
        Tensor::from_slice(&numbers).view(shape)
    };
    let present = Tensor::ones([images, 4], (Kind::Bool, Device::Cpu));
    let _ = present.narrow(0, images - 1, 1).fill_(0);
    let grid = draw([images, 4, 6]) * present.unsqueeze(-1);
    let columns =
        vec![Vectors { data: grid, present: Some(present) }, Vectors { data: draw([images, 1, 5]), present: None }];
    Prefix { columns }
}

/// The log-probability of a caption, end mark included, by scoring it alone.
fn log_prob(decoder: &dyn Decoder, prefix: &Prefix, tokens: &[u32], ended: bool) -> f64 {
    let limit = tokens.len() + usize::from(ended);
    let captions = Captions::pack(&[(0, tokens)], SPECIAL, limit);
    let mut plain = 0.0;
    let mut state = decoder.start(prefix);
    let inputs = captions.words.index_select(0, &captions.inputs);
    for (input, target) in
        Vec::<i64>::try_from(&inputs).unwrap().into_iter().zip(Vec::<i64>::try_from(&captions.targets).unwrap())
    {
        let (logits, next) = decoder.step(&state, &Tensor::from_slice(&[input]));
        plain += logits.log_softmax(-1, Kind::Double).double_value(&[0, target]);
        state = next;
    }
    plain
}

#[test]
fn speaking_agrees_with_scoring() {
    for decoder in decoders(1) {
        let prefix = prefix(3, 2);
        let captions: [(i64, &[u32]); 3] = [(2, &[4, 5]), (0, &[6, 4, 4, 5]), (1, &[])];
        let packed = Captions::pack(&captions, SPECIAL, 40);
        let scoring = Scoring { dropout: None, label_smoothing: 0.0 };
        let found = decoder.loss(&prefix, &packed, scoring).double_value(&[]);
        let spoken: f64 = captions
            .iter()
            .map(|(image, tokens)| log_prob(decoder.as_ref(), &prefix.narrow(*image, 1), tokens, true))
            .sum();
        let penalty = found + spoken / packed.tokens() as f64;
        // the attention's penalty is on top of the mean loss
        assert!((-1e-5..1.01).contains(&penalty), "{found} {spoken}");
        if decoder.params().names().all(|name| !name.starts_with("gate")) {
            assert!(penalty.abs() < 1e-5, "{found} {spoken}");
        }
    }
}

#[test]
fn gradients_in_closed_form_are_torchs_own() {
    for decoder in decoders(7) {
        for images in [2, 3] {
            let prefix = prefix(images, 5);
            let captions: [(i64, &[u32]); 5] =
                [(images - 1, &[4, 5]), (0, &[6, 4, 4, 5, 5, 6]), (0, &[]), (images / 2, &[4, 6]), (0, &[5, 5, 4])];
            let packed = Captions::pack(&captions, SPECIAL, 6);
            for dropout in [None, Some(3)] {
                let scoring = Scoring { dropout, label_smoothing: 0.1 };
                let loss = decoder.loss(&prefix, &packed, scoring);
                let expected = Tensor::run_backward(&[&loss], decoder.params().leaves(), false, false);
                let (found_loss, found) = decoder.gradients(&prefix, &packed, scoring);
                assert!((loss.double_value(&[]) - found_loss.double_value(&[])).abs() < 1e-6);
                for ((name, expected), found) in decoder.params().names().zip(expected).zip(found) {
                    let apart = (&expected - &found).abs().max().double_value(&[]);
                    let size = expected.abs().max().double_value(&[]);
                    assert!(apart <= 1e-5 * size.max(1e-2), "{name}: {apart} of {size}, {dropout:?}");
                    assert!(size > 0.0, "{name} learns nothing");
                }
            }
        }
    }
}

/// Every caption of at most `longest` words out of 4, 5, 6: ended, with its score.
fn enumerate(decoder: &dyn Decoder, prefix: &Prefix, spec: &DecodeSpec) -> (Vec<u32>, f64) {
    let mut all = vec![vec![]];
    let mut level: Vec<Vec<u32>> = vec![vec![]];
    for _ in 0..spec.max_length {
        level = level.iter().flat_map(|caption| [4, 5, 6].map(|word| [&caption[..], &[word]].concat())).collect();
        all.extend(level.clone());
    }
    let score = |tokens: &Vec<u32>| {
        log_prob(decoder, prefix, tokens, true) / ((tokens.len() + 1) as f64).powf(spec.length_penalty)
    };
    let scored =
        all.into_iter().filter(|tokens| tokens.len() >= spec.min_length).map(|tokens| (score(&tokens), tokens));
    let (score, tokens) = scored.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    (tokens, score)
}

#[test]
fn a_wide_beam_finds_what_enumeration_finds() {
    for seed in 0..2 {
        for decoder in decoders(seed) {
            for (length_penalty, min_length) in [(0.0, 0), (1.0, 0), (0.7, 2)] {
                let spec = DecodeSpec { beam: 100, length_penalty, max_length: 4, min_length, ..DecodeSpec::default() };
                let prefix = prefix(5, seed);
                let found = generate(decoder.as_ref(), &prefix, &spec, SPECIAL);
                for (image, found) in found.iter().enumerate() {
                    let one = prefix.narrow(image as i64, 1);
                    let (tokens, score) = enumerate(decoder.as_ref(), &one, &spec);
                    let found_score = found.log_prob / ((found.tokens.len() + 1) as f64).powf(length_penalty);
                    assert_eq!(found.tokens, tokens, "{found_score} {score}");
                    assert!((found_score - score).abs() < 1e-4);
                }
            }
        }
    }
}

#[test]
fn images_do_not_disturb_each_other() {
    for decoder in decoders(3) {
        let prefix = prefix(70, 8);
        for spec in [DecodeSpec { max_length: 9, ..DecodeSpec::default() }, DecodeSpec::default().greedy()] {
            let together = generate(decoder.as_ref(), &prefix, &spec, SPECIAL);
            for (image, together) in together.iter().enumerate().step_by(7) {
                let alone = generate(decoder.as_ref(), &prefix.narrow(image as i64, 1), &spec, SPECIAL);
                assert_eq!(alone[0].tokens, together.tokens);
                assert!((alone[0].log_prob - together.log_prob).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn greedy_is_a_beam_of_one_and_keeps_its_limits() {
    for decoder in decoders(5) {
        let prefix = prefix(9, 4);
        let spec = DecodeSpec { beam: 1, length_penalty: 0.0, max_length: 6, min_length: 3, ..DecodeSpec::default() };
        let beam = generate(decoder.as_ref(), &prefix, &spec, SPECIAL);
        let greedy = generate(decoder.as_ref(), &prefix, &spec.greedy(), SPECIAL);
        for (greedy, beam) in greedy.iter().zip(&beam) {
            assert!((3..=6).contains(&greedy.tokens.len()));
            assert!(greedy.tokens.iter().all(|&token| token > 3));
            if greedy.tokens.len() < 6 {
                assert_eq!(greedy.tokens, beam.tokens);
                assert!((greedy.log_prob - beam.log_prob).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn absent_vectors_weigh_nothing() {
    for decoder in decoders(6) {
        let there = prefix(2, 3);
        let mut other = prefix(2, 3);
        let _ = other.columns[0].data.narrow(0, 1, 1).fill_(9.0); // what is absent may hold anything
        let captions = Captions::pack(&[(1, &[4, 5, 6])], SPECIAL, 40);
        let (one, two) = (decoder.loss(&there, &captions, SCORING), decoder.loss(&other, &captions, SCORING));
        assert_eq!(one.double_value(&[]), two.double_value(&[]));
        let all = Tensor::zeros([2, 4], (Kind::Bool, Device::Cpu));
        other.columns[0].present = Some(all);
        other.columns[1].present = Some(Tensor::zeros([2, 1], (Kind::Bool, Device::Cpu)));
        assert!(decoder.loss(&other, &captions, SCORING).double_value(&[]).is_finite());
    }
}

#[test]
fn a_saved_decoder_loads_and_speaks_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let spec = DecoderSpec::Lstm(LstmSpec { embedding: 8, hidden: 8, ..LstmSpec::default() });
    let decoder = build(&spec, &inputs(), VOCAB, 1, Device::Cpu).unwrap();
    decoder.params().save(&folder.path().join("model.safetensors")).unwrap();
    let loaded = load(folder.path(), &spec, &inputs(), VOCAB, Device::Cpu).unwrap();
    assert!(loaded.params().flat().equal(decoder.params().flat()));
    let error = load(folder.path(), &spec, &inputs(), VOCAB + 1, Device::Cpu).err().unwrap();
    assert!(matches!(error, DecoderError::Mismatch { .. }), "{error}");
    let error = load(folder.path(), &spec, &inputs()[..1], VOCAB, Device::Cpu).err().unwrap();
    assert!(matches!(error, DecoderError::Extra { .. }), "{error}");
}

#[test]
fn no_ngram_is_said_twice_by_any_method() {
    for decoder in decoders(3) {
        for method in [Method::Greedy, Method::Beam, Method::Sample] {
            let spec =
                DecodeSpec { method, no_repeat_ngram: 2, max_length: 12, min_length: 4, ..DecodeSpec::default() };
            for caption in generate(decoder.as_ref(), &prefix(4, 9), &spec, SPECIAL) {
                let mut pairs: Vec<_> = caption.tokens.windows(2).collect();
                let all = pairs.len();
                pairs.sort_unstable();
                pairs.dedup();
                assert_eq!(pairs.len(), all, "{method:?}: {:?}", caption.tokens);
                assert!(caption.log_prob.is_finite());
            }
        }
    }
}

#[test]
fn samples_follow_the_seed_and_the_image_and_not_the_batch() {
    for decoder in decoders(5) {
        let prefix = prefix(5, 4);
        let spec = DecodeSpec { method: Method::Sample, max_length: 8, seed: 11, ..DecodeSpec::default() };
        let all = generate(decoder.as_ref(), &prefix, &spec, SPECIAL);
        let part = generate_from(decoder.as_ref(), &prefix.narrow(2, 2), &spec, SPECIAL, 2);
        let tokens = |captions: &[Generated]| captions.iter().map(|caption| caption.tokens.clone()).collect::<Vec<_>>();
        assert_eq!(tokens(&part), tokens(&all[2..4]));
        let other = generate(decoder.as_ref(), &prefix, &DecodeSpec { seed: 12, ..spec }, SPECIAL);
        assert_ne!(tokens(&all), tokens(&other));
        // What is said of a sampled caption's probability is what scoring it says.
        for (image, caption) in all.iter().enumerate() {
            let ended = caption.tokens.len() < spec.max_length;
            let alone = prefix.narrow(image as i64, 1);
            let scored = log_prob(decoder.as_ref(), &alone, &caption.tokens, ended);
            if ended {
                assert!((scored - caption.log_prob).abs() < 1e-4, "{scored} {}", caption.log_prob);
            }
        }
    }
}

#[test]
fn attention_is_a_share_of_what_is_there() {
    let prefix = prefix(2, 6); // image 1 lacks its first column, vectors 0 to 3
    let captions = Captions::pack(&[(1, &[4, 5]), (0, &[6])], SPECIAL, 40);
    let mut decoders = decoders(2).into_iter();
    assert!(decoders.next().unwrap().attention(&prefix, &captions).is_none());
    let recurrent: Vec<_> = decoders.by_ref().take(3).map(|decoder| (decoder, true)).collect();
    let cross = decoders.next_back().unwrap();
    assert!(
        decoders.all(|decoder| decoder.attention(&prefix, &captions).is_none()),
        "a prefix is weighed with the words"
    );
    for (decoder, all) in recurrent.into_iter().chain([(cross, false)]) {
        let weights = decoder.attention(&prefix, &captions).unwrap(); // [5, 5]
        assert_eq!(weights.size(), [5, 5]);
        for (row, owner) in crate::batch::rows_of(&weights).iter().zip(Vec::<i64>::try_from(&captions.owner).unwrap()) {
            // Cross-attention looks at the mark of the image too, which is left out.
            let sum = row.iter().sum::<f32>();
            assert!(if all { (sum - 1.0).abs() < 1e-5 } else { sum > 0.01 && sum < 0.999 }, "{row:?}");
            let first: f32 = row[..4].iter().sum();
            assert_eq!(first == 0.0, owner == 0, "{row:?}"); // the longer caption, of image 1, comes first
        }
    }
}
