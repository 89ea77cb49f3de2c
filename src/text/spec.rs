//! The tokenizer as a recipe asks for it.

use std::path::{Path, PathBuf};

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
    /// A tokenizer.json that is there already.
    File {
        /// The file; in a recipe, found from `--data`.
        file: PathBuf,
    },
    /// The tokenizer.json in the folder of the decoder's pretrained weights: what a recipe without a `[tokenizer]` means
    /// where it has such a folder.
    Pretrained,
}

impl TokenizerSpec {
    /// The file to read, found from `data`, where the tokenizer is not trained; `folder` holds the decoder's weights.
    #[must_use]
    pub fn path(&self, data: &Path, folder: Option<&Path>) -> Option<PathBuf> {
        match self {
            Self::Word { .. } | Self::Bpe { .. } => None,
            Self::File { file } => Some(data.join(file)),
            Self::Pretrained => Some(data.join(folder.unwrap_or(Path::new(""))).join("tokenizer.json")),
        }
    }
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
    fn files_are_found_from_the_data() {
        let (data, folder) = (Path::new("data"), Path::new("gpt2"));
        let spec: TokenizerSpec = serde_json::from_str(r#"{"kind": "file", "file": "own/tokenizer.json"}"#).unwrap();
        assert_eq!(spec.path(data, None), Some("data/own/tokenizer.json".into()));
        assert_eq!(TokenizerSpec::Pretrained.path(data, Some(folder)), Some("data/gpt2/tokenizer.json".into()));
        assert_eq!(TokenizerSpec::default().path(data, Some(folder)), None);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<TokenizerSpec>(r#"{"kind": "word", "mincount": 1}"#).unwrap_err();
        assert!(error.to_string().contains("mincount"), "{error}");
    }
}
