//! Captions as token ids and back: a thin, fixed face over Hugging Face `tokenizers`.
//!
//! Must not know: tensors, models, how good a caption is. A vocabulary comes from `train` captions, or from a `tokenizer.json`
//! that someone else made (GPT-2's own).
//!
//! [`Tokenizer::encode`] can't fail: what could make it fail (a model without an unknown token) is refused on loading,
//! so that a training run doesn't stop in its third epoch at a caption with an emoji.

mod error;
mod spec;
mod special;
mod train;

use std::io::Write as _;
use std::path::Path;

use rayon::prelude::*;
use tokenizers::Tokenizer as Inner;

pub use error::TextError;
pub use spec::TokenizerSpec;
pub use special::SpecialIds;

/// Turns captions into token ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    special: SpecialIds,
    vocab_size: usize,
}

/// How well a vocabulary covers some captions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Coverage {
    /// Captions looked at.
    pub captions: usize,
    /// Captions without a single token.
    pub empty: usize,
    /// Tokens, the unknown ones included.
    pub tokens: usize,
    /// Tokens that are `<unk>`.
    pub unknown: usize,
    /// Tokens of the longest caption.
    pub longest: usize,
}

impl Tokenizer {
    /// Learns a vocabulary. The same captions in the same order give the same file, byte for byte.
    ///
    /// # Errors
    /// When no caption has a word, no word is common enough, or a BPE vocabulary is too small for its bytes.
    pub fn train<'a>(captions: impl IntoIterator<Item = &'a str>, spec: &TokenizerSpec) -> Result<Self, TextError> {
        let captions: Vec<&str> = captions.into_iter().collect();
        let inner = train::train(&captions, spec)?;
        Self::checked(inner, Path::new("(just trained)"))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file can't be read or parsed, has no end token, or can't encode every text.
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.into(), source })?;
        let inner = Inner::from_bytes(bytes).map_err(|source| TextError::Parse { path: path.into(), source })?;
        Self::checked(inner, path)
    }

    fn checked(mut inner: Inner, path: &Path) -> Result<Self, TextError> {
        let special = SpecialIds::find(&inner)
            .ok_or_else(|| TextError::NoEnd { path: path.into(), known: SpecialIds::known_ends() })?;
        // Batching is not the tokenizer's affair, and a caption that spells "<eos>" doesn't end there.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|source| TextError::Parse { path: path.into(), source })?;
        inner.set_encode_special_tokens(true);
        inner
            .encode_fast("\u{10fffd} \u{1f9ca} a1", false)
            .map_err(|source| TextError::Partial { path: path.into(), source })?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(Self { inner, special, vocab_size })
    }

    /// Writes a `tokenizer.json` that Hugging Face `tokenizers` reads; a crash leaves the old file or the new one.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        self.write(path).map_err(|source| TextError::Write { path: path.into(), source })
    }

    /// The `tokenizer_config.json` that transformers wants beside `tokenizer.json`.
    #[must_use]
    pub fn config(&self) -> serde_json::Value {
        let mut config = serde_json::json!({"tokenizer_class": "PreTrainedTokenizerFast"});
        for (role, id) in self.special.roles() {
            config[role] = self.token(id).into();
        }
        config
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let json = self.inner.to_string(true).map_err(std::io::Error::other)?;
        let sibling = path.with_extension("json.partial");
        let mut file = std::fs::File::create(&sibling)?;
        file.write_all(json.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&sibling, path)
    }

    /// Token ids of a caption, without begin and end; empty where the caption holds no word.
    #[must_use]
    pub fn encode(&self, caption: &str) -> Vec<u32> {
        let encoding = self.inner.encode_fast(caption, false);
        encoding.map_or_else(|_| self.special.unk.into_iter().collect(), |encoding| encoding.get_ids().to_vec())
    }

    /// Token ids of many captions, in their order, on all threads.
    #[must_use]
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, captions: &[S]) -> Vec<Vec<u32>> {
        captions.par_iter().map(|caption| self.encode(caption.as_ref())).collect()
    }

    /// The text of token ids up to the first end token; special tokens and ids out of range are left out.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let begun = ids.iter().position(|&id| id != self.special.bos).unwrap_or(ids.len());
        let spoken: Vec<u32> = ids[begun..].iter().copied().take_while(|&id| id != self.special.eos).collect();
        self.inner.decode(&spoken, true).unwrap_or_default()
    }

    /// How well the vocabulary covers captions. A caption counts as empty when it has no token at all.
    #[must_use]
    pub fn coverage<S: AsRef<str> + Sync>(&self, captions: &[S]) -> Coverage {
        let mut coverage = Coverage { captions: captions.len(), ..Coverage::default() };
        for ids in self.encode_batch(captions) {
            coverage.empty += usize::from(ids.is_empty());
            coverage.tokens += ids.len();
            coverage.unknown += ids.iter().filter(|&&id| Some(id) == self.special.unk).count();
            coverage.longest = coverage.longest.max(ids.len());
        }
        coverage
    }

    /// Ids run from 0 to this, exclusive, the special ones included: the size of an embedding table.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Ids of the special tokens.
    #[must_use]
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// The token of an id.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, spelt as in the vocabulary.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

#[cfg(test)]
mod tests;
