//! The tokenizer as a recipe asks for it.

use serde::{Deserialize, Serialize};

/// How captions become token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TokenizerSpec {
    /// One token a word: lower case, without the punctuation that the metrics drop, contractions split (`is` `n't`).
    Word {
        /// Words found fewer times become `<unk>`.
        #[serde(default = "default_min_count")]
        min_count: u32,
        /// The most words kept, the commonest first; special tokens not counted. All where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_vocabulary: Option<usize>,
    },
    /// Byte-level BPE: case and punctuation kept, no text unknown.
    Bpe {
        /// Tokens in all, the special ones and the 256 bytes included.
        #[serde(default = "default_bpe_vocabulary")]
        vocabulary: usize,
    },
}

impl Default for TokenizerSpec {
    fn default() -> Self {
        Self::Word { min_count: default_min_count(), max_vocabulary: None }
    }
}

fn default_min_count() -> u32 {
    5
}

fn default_bpe_vocabulary() -> usize {
    8_192
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let spec: TokenizerSpec = serde_json::from_str(r#"{"kind": "word"}"#).unwrap();
        assert_eq!(spec, TokenizerSpec::Word { min_count: 5, max_vocabulary: None });
        assert_eq!(spec, TokenizerSpec::default());
        let spec: TokenizerSpec = serde_json::from_str(r#"{"kind": "bpe"}"#).unwrap();
        assert_eq!(spec, TokenizerSpec::Bpe { vocabulary: 8_192 });
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<TokenizerSpec>(r#"{"kind": "word", "mincount": 1}"#).unwrap_err();
        assert!(error.to_string().contains("mincount"), "{error}");
    }
}
