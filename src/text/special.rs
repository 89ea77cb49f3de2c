//! The tokens that are no words: where a caption begins and ends, what fills up a batch, what isn't known.

use tokenizers::Tokenizer as Inner;

pub(super) const PAD: &str = "<pad>";
pub(super) const BOS: &str = "<bos>";
pub(super) const EOS: &str = "<eos>";
pub(super) const UNK: &str = "<unk>";
/// The special tokens of a trained tokenizer: their ids are 0, 1, 2, 3.
pub(super) const SPECIAL: [&str; 4] = [PAD, BOS, EOS, UNK];

/// Names of the end token, ours first. `<|endoftext|>` is GPT-2's, for both ends.
const ENDS: [&str; 4] = [EOS, "<|endoftext|>", "</s>", "[SEP]"];
const BEGINS: [&str; 4] = [BOS, "<|endoftext|>", "<s>", "[CLS]"];
const PADS: [&str; 3] = [PAD, "<|pad|>", "[PAD]"];
const UNKNOWNS: [&str; 2] = [UNK, "[UNK]"];

/// Ids of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// Fills up short captions in a batch. Where the tokenizer has none (GPT-2), the end token: mask padding by
    /// length, never by this id.
    pub pad: u32,
    /// Before the first token of a caption. Where the tokenizer has none, the end token.
    pub bos: u32,
    /// After the last token of a caption.
    pub eos: u32,
    /// Stands for a word not in the vocabulary; absent where every text can be spelt.
    pub unk: Option<u32>,
}

impl SpecialIds {
    /// Finds them by name; `None` where no token says that a caption ends.
    pub(super) fn find(inner: &Inner) -> Option<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let eos = first(&ENDS)?;
        Some(Self { pad: first(&PADS).unwrap_or(eos), bos: first(&BEGINS).unwrap_or(eos), eos, unk: first(&UNKNOWNS) })
    }

    /// The tokens by their roles in Hugging Face's words: `bos_token` and its siblings.
    pub(super) fn roles(self) -> Vec<(&'static str, u32)> {
        let always = [("bos_token", self.bos), ("eos_token", self.eos), ("pad_token", self.pad)];
        always.into_iter().chain(self.unk.map(|unk| ("unk_token", unk))).collect()
    }

    /// The known end tokens, for a message.
    pub(super) fn known_ends() -> String {
        ENDS.map(|name| format!("`{name}`")).join(", ")
    }
}
