use proptest::prelude::*;

use super::*;

const CAPTIONS: [&str; 6] = [
    "A dog runs through the grass .",
    "A dog's ball isn't red .",
    "Two dogs run ; a dog jumps !",
    "A man in a T-shirt stands by the dog .",
    "The U.S. flag flies at 5 o'clock",
    "a man and a dog",
];

fn word(min_count: u32) -> Tokenizer {
    Tokenizer::train(CAPTIONS, &TokenizerSpec::Word { min_count, max_vocabulary: None }).unwrap()
}

fn bpe() -> Tokenizer {
    Tokenizer::train(CAPTIONS, &TokenizerSpec::Bpe { vocabulary: 300 }).unwrap()
}

fn tokens(tokenizer: &Tokenizer, caption: &str) -> Vec<String> {
    tokenizer.encode(caption).into_iter().map(|id| tokenizer.token(id).unwrap()).collect()
}

#[test]
fn special_tokens_come_first() {
    for tokenizer in [word(1), bpe()] {
        assert_eq!(tokenizer.special(), SpecialIds { pad: 0, bos: 1, eos: 2, unk: Some(3) });
        assert_eq!((tokenizer.id("<pad>"), tokenizer.id("<eos>")), (Some(0), Some(2)));
    }
}

#[test]
fn roles_are_told_in_transformers_words() {
    let expected = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>",
    });
    assert_eq!(word(1).config(), expected);
}

#[test]
fn words_are_the_commonest_first() {
    let tokenizer = word(2);
    assert_eq!(tokenizer.token(4).as_deref(), Some("a"));
    assert_eq!(tokenizer.token(5).as_deref(), Some("dog"));
    assert_eq!(tokenizer.token(6).as_deref(), Some("the"));
    assert_eq!(tokenizer.token(7).as_deref(), Some("man"));
    assert_eq!(tokenizer.vocab_size(), 8, "every other word is found once");
    let capped = Tokenizer::train(CAPTIONS, &TokenizerSpec::Word { min_count: 1, max_vocabulary: Some(3) }).unwrap();
    assert_eq!(capped.vocab_size(), 7);
}

#[test]
fn words_are_cleaned() {
    let tokenizer = word(1);
    assert_eq!(tokens(&tokenizer, "The dog's ball isn't red!"), ["the", "dog", "'s", "ball", "is", "n't", "red"]);
    assert_eq!(
        tokens(&tokenizer, "\"A T-shirt\" -- in the U.S. (5 O'Clock)"),
        ["a", "t-shirt", "in", "the", "u.s.", "5", "o'clock"]
    );
    assert_eq!(tokens(&tokenizer, "the dog’s zebra"), ["the", "dog", "'s", "<unk>"]);
    assert_eq!(tokens(&tokenizer, " ... !"), [""; 0]);
}

#[test]
fn decoding_reads_well_and_counts_the_same() {
    let tokenizer = word(1);
    let caption = "A dog's ball isn't red .";
    let decoded = tokenizer.decode(&tokenizer.encode(caption));
    assert_eq!(decoded, "a dog's ball isn't red");
    assert_eq!(crate::metrics::ptb::tokenize(&decoded), crate::metrics::ptb::tokenize(caption));
}

#[test]
fn decoding_stops_at_the_end() {
    let tokenizer = word(1);
    let SpecialIds { pad, bos, eos, .. } = tokenizer.special();
    let [a, dog] = [tokenizer.id("a").unwrap(), tokenizer.id("dog").unwrap()];
    assert_eq!(tokenizer.decode(&[bos, a, dog, eos, dog, pad, pad]), "a dog");
    assert_eq!(tokenizer.decode(&[a, 1_000_000, dog]), "a dog", "an id out of range is left out");
    assert_eq!(tokenizer.decode(&[]), "");
}

#[test]
fn special_tokens_in_a_caption_are_text() {
    let tokenizer = word(1);
    let eos = tokenizer.special().eos;
    assert!(!tokenizer.encode("a dog <eos> a man").contains(&eos));
}

#[test]
fn bytes_keep_everything() {
    let tokenizer = bpe();
    assert_eq!(tokenizer.vocab_size(), 300);
    for caption in ["A dog runs through the grass .", "Café, \"naïve\" 😀 <eos>"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(caption)), caption);
    }
    assert_eq!(tokenizer.decode(&tokenizer.encode("  two \t spaces ")), "two spaces");
}

#[test]
fn training_is_deterministic_and_files_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for (name, make) in [("word", (|| word(1)) as fn() -> Tokenizer), ("bpe", bpe)] {
        let paths = [folder.path().join(format!("{name}1.json")), folder.path().join(format!("{name}2.json"))];
        for path in &paths {
            make().save(path).unwrap();
        }
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap(), "{name}");
        let (made, loaded) = (make(), Tokenizer::load(&paths[0]).unwrap());
        assert_eq!((loaded.vocab_size(), loaded.special()), (made.vocab_size(), made.special()));
        assert_eq!(loaded.encode_batch(&CAPTIONS), made.encode_batch(&CAPTIONS));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "no partial file stays");
}

#[test]
fn coverage_counts_what_is_lost() {
    let coverage = word(2).coverage(&["A dog .", "", "!!", "a zebra and a dog"]);
    assert_eq!(coverage, Coverage { captions: 4, empty: 2, tokens: 7, unknown: 2, longest: 5 });
}

#[test]
fn what_cannot_be_trained() {
    let spec = TokenizerSpec::Word { min_count: 99, max_vocabulary: None };
    assert!(matches!(Tokenizer::train(CAPTIONS, &spec), Err(TextError::NothingKept { min_count: 99, captions: 6 })));
    assert!(matches!(Tokenizer::train(["...", ""], &spec), Err(TextError::NoWords { captions: 2 })));
    let small = TokenizerSpec::Bpe { vocabulary: 100 };
    assert!(matches!(Tokenizer::train(CAPTIONS, &small), Err(TextError::VocabularyTooSmall { least: 260, .. })));
}

#[test]
fn what_cannot_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::load(&path), Err(TextError::Read { .. })));
    std::fs::write(&path, "{\"a\": 1}").unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(TextError::Parse { .. })));
    let model = |vocabulary: &str| {
        format!(r#"{{"model": {{"type": "WordLevel", "vocab": {{{vocabulary}}}, "unk_token": "<unk>"}}}}"#)
    };
    std::fs::write(&path, model(r#""<unk>": 0"#)).unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(TextError::NoEnd { .. })));
    std::fs::write(&path, model(r#""<eos>": 0"#)).unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(TextError::Partial { .. })));
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,30}", ids in prop::collection::vec(0_u32..400, 0..20)) {
        for tokenizer in [word(1), bpe()] {
            let encoded = tokenizer.encode(&text);
            prop_assert!(encoded.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            let _ = (tokenizer.decode(&ids), tokenizer.decode(&encoded));
        }
    }
}
