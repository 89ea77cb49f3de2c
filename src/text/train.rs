//! Learning a vocabulary from captions. The same captions give the same file, byte for byte.
//!
//! Words are cleaned with the library's own normalizers and one regular expression, so that `tokenizer.json` needs nothing of
//! icecap's: Python gives the same ids. The expression keeps what [`crate::metrics::ptb`] keeps, in ordinary captions.

use std::cmp::Reverse;
use std::collections::HashMap;

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::wordpiece::WordPiece;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, Sequence, Strip};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    Tokenizer as Inner,
};

use super::error::{Source, TextError};
use super::spec::TokenizerSpec;
use super::special::{SPECIAL, UNK};

/// What counts as one word of a lower-case caption, first alternative first; all else is dropped.
const WORD: &str = concat!(
    // Contractions: "is" of "isn't", then "n't", "'s" and their like.
    r"[\p{L}\p{N}]+?(?=n't(?![\p{L}\p{N}]))|n't(?![\p{L}\p{N}])|'(?:s|m|d|re|ve|ll)(?![\p{L}\p{N}])",
    // Abbreviations, with their full stops.
    r"|(?:mr|mrs|ms|dr|st|jr|sr|vs|ave|blvd|rd|mt|ft)\.|(?:\p{L}\.){2,}",
    // Numbers with inner commas and points.
    r"|\p{N}+(?:[.,:]\p{N}+)+",
    // Words, hyphenated ones and names such as o'clock whole.
    r"|[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:(?:[-./&]|'(?!(?:s|m|d|re|ve|ll)(?![\p{L}\p{N}])))[\p{L}\p{N}][\p{L}\p{M}\p{N}]*)*",
    // Signs that are read aloud.
    r"|[&$%#+=*/@£€°~]",
);

/// Trains what `spec` asks for.
pub(super) fn train(captions: &[&str], spec: &TokenizerSpec) -> Result<Inner, TextError> {
    match *spec {
        TokenizerSpec::Word { min_count, max_vocabulary } => word(captions, min_count, max_vocabulary),
        TokenizerSpec::Bpe { vocabulary } => bpe(captions, vocabulary),
        TokenizerSpec::File { .. } | TokenizerSpec::Pretrained => Err(TextError::NotTrained),
    }
}

fn word(captions: &[&str], min_count: u32, max_vocabulary: Option<usize>) -> Result<Inner, TextError> {
    let mut inner = Inner::new(WordLevel::default());
    set_up_words(&mut inner).map_err(TextError::Train)?;
    let counts = count_words(&inner, captions).map_err(TextError::Train)?;
    if counts.is_empty() {
        return Err(TextError::NoWords { captions: captions.len() });
    }
    let words = keep(counts, min_count, max_vocabulary);
    if words.is_empty() {
        return Err(TextError::NothingKept { min_count, captions: captions.len() });
    }
    let all = SPECIAL.iter().map(ToString::to_string).chain(words);
    let vocabulary = all.zip(0_u32..).collect();
    let model = WordLevel::builder().vocab(vocabulary).unk_token(UNK.to_string()).build();
    inner.with_model(model.map_err(TextError::Train)?);
    inner.add_special_tokens(&special_tokens());
    Ok(inner)
}

/// Everything of the word tokenizer but its vocabulary.
fn set_up_words(inner: &mut Inner) -> Result<(), Source> {
    let apostrophe = Replace::new(ReplacePattern::Regex("[\u{2018}\u{2019}\u{b4}]".into()), "'")?;
    inner.with_normalizer(Some(Sequence::new(vec![Lowercase.into(), apostrophe.into()])));
    let pattern = SplitPattern::Regex(WORD.into());
    inner.with_pre_tokenizer(Some(Split::new(pattern, SplitDelimiterBehavior::Removed, true)?));
    // Spaces between words, but none before "n't" and "'s". No word begins with two number signs.
    let spaces = WordPiece::new("##".into(), false);
    let contractions = Replace::new(ReplacePattern::Regex("^ (?=n't$|')".into()), "")?;
    inner.with_decoder(Some(DecoderSequence::new(vec![spaces.into(), contractions.into()])));
    Ok(())
}

fn count_words(inner: &Inner, captions: &[&str]) -> Result<HashMap<String, u64>, Source> {
    let mut counts = HashMap::new();
    for caption in captions {
        let mut text = PreTokenizedString::from(*caption);
        text.normalize(|piece| inner.get_normalizer().map_or(Ok(()), |normalizer| normalizer.normalize(piece)))?;
        inner.get_pre_tokenizer().map_or(Ok(()), |splitter| splitter.pre_tokenize(&mut text))?;
        for (word, _, _) in text.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_string(), 1)),
            }
        }
    }
    Ok(counts)
}

/// The commonest words; equally common ones in their own order.
fn keep(counts: HashMap<String, u64>, min_count: u32, max_vocabulary: Option<usize>) -> Vec<String> {
    let enough = |(word, count): &(String, u64)| *count >= u64::from(min_count) && !SPECIAL.contains(&word.as_str());
    let mut words: Vec<(String, u64)> = counts.into_iter().filter(enough).collect();
    words.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    words.truncate(max_vocabulary.unwrap_or(usize::MAX));
    words.into_iter().map(|(word, _)| word).collect()
}

fn bpe(captions: &[&str], vocabulary: usize) -> Result<Inner, TextError> {
    let alphabet: std::collections::HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let least = alphabet.len() + SPECIAL.len();
    if vocabulary < least {
        return Err(TextError::VocabularyTooSmall { vocabulary, least });
    }
    if captions.iter().all(|caption| caption.trim().is_empty()) {
        return Err(TextError::NoWords { captions: captions.len() });
    }
    let mut inner = Inner::new(BPE::default());
    set_up_bytes(&mut inner).map_err(TextError::Train)?;
    let trainer = BpeTrainer::builder().vocab_size(vocabulary).show_progress(false).initial_alphabet(alphabet);
    let mut trainer: TrainerWrapper = trainer.special_tokens(special_tokens()).build().into();
    inner.train(&mut trainer, captions.iter()).map_err(TextError::Train)?;
    inner.add_special_tokens(&special_tokens());
    Ok(inner)
}

/// Everything of the byte-level tokenizer but its vocabulary.
fn set_up_bytes(inner: &mut Inner) -> Result<(), Source> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    inner.with_normalizer(Some(Sequence::new(vec![spaces.into(), Strip::new(true, true).into()])));
    inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    inner.with_decoder(Some(ByteLevel::default()));
    Ok(())
}

fn special_tokens() -> Vec<AddedToken> {
    SPECIAL.iter().map(|&token| AddedToken::from(token, true)).collect()
}
