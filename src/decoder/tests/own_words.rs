//! A decoder's own words: those that go in, those that are sampled, those that are weighed.

use super::*;

#[test]
fn own_words_go_in_as_often_as_asked_and_follow_the_seed() {
    for decoder in decoders(4) {
        let prefix = prefix(3, 6);
        let words: Vec<u32> = (0..400).map(|at| 4 + at % 3).collect();
        let long: Vec<(i64, &[u32])> = words.chunks(16).enumerate().map(|(at, words)| (at as i64 % 3, words)).collect();
        let captions = Captions::pack(&long, SPECIAL, 17);
        let mix = |share, seed| mixed(decoder.as_ref(), &prefix, &captions, SPECIAL, share, seed);
        assert!(mix(0.0, 1).is_none());
        let tokens = |captions: &Captions| Vec::<i64>::try_from(&captions.fed()).unwrap();
        let (truth, all, half) = (tokens(&captions), mix(1.0, 1).unwrap(), mix(0.5, 1).unwrap());
        assert!(half.targets.equal(&captions.targets) && half.image.equal(&captions.image));
        assert_eq!(tokens(&half), tokens(&mix(0.5, 1).unwrap()));
        assert_ne!(tokens(&half), tokens(&mix(0.5, 2).unwrap()));
        let marks = |captions: &Captions| tokens(captions)[..25].to_vec();
        assert_eq!(marks(&all), [1; 25], "the begin mark stays");
        assert!(tokens(&all)[25..].iter().all(|&token| token > 2), "and no other mark goes in");
        let differ = |other: &Captions| truth.iter().zip(tokens(other)).filter(|(a, b)| *a != b).count() as f64;
        let share = differ(&half) / differ(&all).max(1.0);
        assert!((0.35..0.65).contains(&share), "{share}");
    }
}

#[test]
fn a_decoder_hears_the_words_it_drew_before() {
    for decoder in decoders(8) {
        let prefix = prefix(2, 6);
        let captions = Captions::pack(&[(1, &[4, 5, 6, 4]), (0, &[6, 5])], SPECIAL, 40);
        let drawn = mixed(decoder.as_ref(), &prefix, &captions, SPECIAL, 1.0, 9).unwrap();
        // The same words, one after another, by the steps of a search: each is the quantile of what was said before it.
        let fed: Vec<i64> = Vec::try_from(&drawn.fed()).unwrap();
        let own = [fed[0], fed[2], fed[4], fed[6], fed[7]]; // of the first caption, image 1
        let mut random = SplitMix::new(9);
        let draws: Vec<f32> = (0..2 * captions.tokens()).map(|_| random.unit()).skip(8).collect();
        let mut state = decoder.start(&prefix.narrow(1, 1));
        for (at, place) in [2usize, 4, 6, 7].into_iter().enumerate() {
            let (logits, next) = decoder.step(&state, &Tensor::from_slice(&own[at..=at]));
            let logits = logits.index_fill(1, &Tensor::from_slice(&[0_i64, 1, 2]), f64::NEG_INFINITY);
            let word = sample::quantile(&logits.softmax(1, Kind::Float), &Tensor::from_slice(&draws[place..=place]));
            assert_eq!(word.int64_value(&[0]), own[at + 1]);
            state = next;
        }
    }
}

#[test]
fn samples_of_an_image_come_one_after_another_and_are_those_of_generate() {
    for decoder in decoders(5) {
        let prefix = prefix(3, 4);
        let spec = DecodeSpec { method: Method::Sample, max_length: 8, seed: 3, ..DecodeSpec::default() };
        let found = samples(decoder.as_ref(), &prefix, 2, &spec, SPECIAL);
        for image in 0..3 {
            let alone = prefix.narrow(image, 1);
            for sample in 0..2 {
                let at = 2 * image as usize + sample;
                let one = &generate_from(decoder.as_ref(), &alone, &spec, SPECIAL, at)[0];
                assert_eq!(found[at].tokens, one.tokens);
                assert!((found[at].log_prob - one.log_prob).abs() < 1e-4);
            }
        }
    }
}

/// Captions with weights: the loss is the weighted mean, and its gradient in closed form is torch's.
#[test]
fn weights_multiply_each_captions_loss() {
    for decoder in decoders(2) {
        let prefix = prefix(3, 5);
        let captions: [(i64, &[u32]); 3] = [(2, &[4, 5]), (0, &[6, 4, 4, 5]), (1, &[])];
        let weights = [0.7f32, -1.3, 0.4];
        let packed = Captions::pack_weighted(&captions, &weights, SPECIAL, 40);
        let scoring = Scoring { dropout: None, label_smoothing: 0.0 };
        let spoken = captions.iter().zip(weights).map(|((image, tokens), weight)| {
            f64::from(weight) * log_prob(decoder.as_ref(), &prefix.narrow(*image, 1), tokens, true)
        });
        let expected = -spoken.sum::<f64>() / packed.tokens() as f64;
        let loss = decoder.loss(&prefix, &packed, scoring);
        assert!((loss.double_value(&[]) - expected).abs() < 1e-5);
        let expected = Tensor::run_backward(&[&loss], decoder.params().leaves(), false, false);
        let (_, found) = decoder.gradients(&prefix, &packed, scoring);
        for ((name, expected), found) in decoder.params().names().zip(expected).zip(found) {
            let (apart, size) = ((&expected - &found).abs().max(), expected.abs().max());
            assert!(apart.double_value(&[]) <= 1e-5 * size.double_value(&[]).max(1e-2), "{name}");
        }
    }
}
