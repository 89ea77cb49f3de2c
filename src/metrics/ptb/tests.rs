use proptest::prelude::*;

use super::tokenize;

/// Raw captions beside the tokens pycocoevalcap gave: see tests/fixtures/metrics/make_fixtures.py.
fn golden() -> Vec<(String, String)> {
    let json = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics/tokens.json"));
    serde_json::from_str(json).unwrap()
}

#[test]
fn tokens_equal_pycocoevalcap() {
    for (caption, tokens) in golden() {
        assert_eq!(tokenize(&caption), tokens, "{caption:?}");
    }
}

#[test]
fn what_a_caption_usually_holds() {
    for (caption, tokens) in [
        ("A man in a red T-shirt isn't running .", "a man in a red t-shirt is n't running"),
        ("\"Two dogs,\" he said: they're playing!", "two dogs he said they 're playing"),
        ("The dog's ball (blue) -- it's gone...", "the dog 's ball -lrb- blue -rrb- it 's gone"),
        ("", ""),
        (" ... !", ""),
        ("Wow!!", "wow !!"),
    ] {
        assert_eq!(tokenize(caption), tokens, "{caption:?}");
    }
}

#[test]
fn an_initial_at_the_end_follows_the_captions_case() {
    assert_eq!(tokenize("A sign that reads K."), "a sign that reads k");
    assert_eq!(tokenize("a sign that reads k."), "a sign that reads k.");
}

#[test]
fn what_cannot_be_a_token_is_left_out() {
    assert_eq!(tokenize("a dog 😀 runs\u{200b}"), "a dog runs");
    assert_eq!(tokenize("a😀b"), "a b");
}

/// What CoreNLP 3.4.1 answers, and pycocoevalcap makes of it: an address may hold any space but the plain one.
#[test]
fn spaces_that_are_not_plain_may_stand_in_an_address() {
    for (caption, tokens) in [
        ("\u{a0}x.com", "\u{a0}x.com"),
        ("a\u{a0}x.com b", "a\u{a0}x.com b"),
        ("\u{3000}x.com", "\u{3000}x.com"),
        ("\u{2003}x.com", "\u{2003}x.com"),
        ("www.\u{a0}x.com", "www.\u{a0}x.com"),
        ("http://a\u{a0}b", "http://a\u{a0}b"),
        ("x.com/a\u{a0}", "x.com/a"),
        ("a \u{a0}x.org", "a x.org"),
        ("\u{a0}a@b.com", "a@b.com"),
        ("\u{a0}a b", "a b"),
        ("<a b=\"x y\u{2003}z\">", "<a\u{a0}b=\"x\u{a0}y\u{2003}z\">"),
    ] {
        assert_eq!(tokenize(caption), tokens, "{caption:?}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_never_leaves_a_gap(caption in "\\PC{0,40}") {
        let tokens = tokenize(&caption);
        prop_assert!(!tokens.contains("  ") && !tokens.starts_with(' ') && tokens.trim_end() == tokens, "{tokens:?}");
    }

    #[test]
    fn never_panics_on_marks(caption in "[a-cnstI1-3.'’`:;()<>&#@$%/,-/ \"=_^!?-]{0,24}") {
        let tokens = tokenize(&caption);
        prop_assert!(tokens.split(' ').all(|token| !super::DROPPED.contains(&token)), "{tokens:?}");
    }

    #[test]
    fn plain_words_stay(words in prop::collection::vec("[a-z]{2,8}", 1..8)) {
        let split = ["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"];
        let words: Vec<String> = words.into_iter().filter(|word| !split.contains(&word.as_str())).collect();
        prop_assert_eq!(tokenize(&words.join(" ")), words.join(" "));
    }
}
