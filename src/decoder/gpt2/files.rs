//! A GPT-2's beginnings and its settings: from a recipe's sizes, a Hugging Face folder or a checkpoint, to a checkpoint.

use std::path::Path;

use serde_json::json;
use tch::Device;

use super::{super::files::write_tensors, *};

/// The files that stand beside the weights.
const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";

/// Rows of an embedding that no token may use: some models round their vocabulary up.
const SPARE: i64 = 1024;

impl Gpt2 {
    /// A decoder as the recipe says: seeded first weights, or those of its pretrained folder.
    pub(in super::super) fn new(
        spec: &Gpt2Spec,
        inputs: &[ColumnInput],
        vocab: usize,
        seed: u64,
        device: Device,
    ) -> Result<Self, DecoderError> {
        let Some(folder) = &spec.pretrained else {
            return Self::declare(spec, (Sizes::of(spec, vocab), vocab), inputs, seed, false, device);
        };
        let sizes = Self::sizes(folder, vocab)?;
        let decoder = Self::declare(spec, (sizes, vocab), inputs, seed, true, device)?;
        weights::load(&decoder.params, &folder.join(WEIGHTS))?;
        Ok(decoder)
    }

    /// The decoder of a checkpoint, whose own config.json says its sizes; its weights are not read yet.
    pub(in super::super) fn of_checkpoint(
        folder: &Path,
        spec: &Gpt2Spec,
        inputs: &[ColumnInput],
        vocab: usize,
        device: Device,
    ) -> Result<Self, DecoderError> {
        let sizes = Self::sizes(folder, vocab)?;
        Self::declare(spec, (sizes, vocab), inputs, 0, true, device)
    }

    /// The sizes of the model in `folder`, where it was made for a tokenizer of `vocab` tokens.
    fn sizes(folder: &Path, vocab: usize) -> Result<Sizes, Gpt2Error> {
        let sizes = Sizes::read(&folder.join(CONFIG))?;
        if (0..SPARE).contains(&(sizes.vocab - vocab as i64)) {
            return Ok(sizes);
        }
        Err(Gpt2Error::Tokenizer { path: folder.to_owned(), tokenizer: vocab, model: sizes.vocab })
    }

    /// Refuses sizes that leave no place for a caption, or that the mapping cannot have.
    pub(super) fn check_positions(&self) -> Result<(), DecoderError> {
        let (prefix, positions, width) = (self.offset() + 1, self.sizes.positions, self.sizes.width);
        if self.spec.mapping == Gpt2Mapping::Transformer && width % mapper::HEADS != 0 {
            let must =
                format!("another than transformer: its {} heads do not divide the width `{width}`", mapper::HEADS);
            return Err(DecoderError::Spec { field: "mapping", value: "transformer".into(), must });
        }
        if prefix < positions {
            return Ok(());
        }
        let hint = match self.spec.pretrained {
            Some(_) => "pool the column to fewer vectors, or use `mapping = \"transformer\"` or \"cross-attention\"",
            None => "raise `decoder.positions`, or pool the column to fewer vectors",
        };
        Err(Gpt2Error::Positions { prefix, positions, hint }.into())
    }

    /// config.json and generation_config.json, so that transformers opens the folder.
    pub(super) fn write_settings(&self, folder: &Path, special: Special) -> Result<Vec<&'static str>, DecoderError> {
        let cross = self.spec.mapping == Gpt2Mapping::CrossAttention;
        let generation = json!({
            "bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad, "do_sample": false,
        });
        let (config, path) = (folder.join(CONFIG), folder.join(GENERATION));
        let io = |path: &Path, source| DecoderError::Io { what: "write", path: path.to_owned(), source };
        self.sizes.write(&config, &self.spec, cross, special).map_err(|source| io(&config, source))?;
        std::fs::write(&path, format!("{generation:#}\n")).map_err(|source| io(&path, source))?;
        Ok(vec![CONFIG, GENERATION])
    }

    /// The language model alone in a folder that transformers opens, low-rank additions merged; what icecap adds is in
    /// `icecap.safetensors` beside it.
    pub(super) fn write_merged(&self, folder: &Path, special: Special) -> Result<(), DecoderError> {
        let _guard = tch::no_grad_guard();
        let additions: Vec<_> = self.blocks.iter().flat_map(|block| block.additions(&self.params)).collect();
        let merged = |name: &str, value: Tensor| {
            let same = |handle: Handle| self.params.name(handle) == name;
            match additions.iter().find(|(handle, _)| same(*handle)) {
                Some((_, addition)) => value + addition,
                None => value,
            }
        };
        let (own, model): (Vec<_>, Vec<_>) = self.params.all().into_iter().partition(|(name, _)| name.starts_with(OWN));
        let model: Vec<_> = model.into_iter().map(|(name, value)| (name.to_owned(), merged(name, value))).collect();
        write_tensors(&folder.join(WEIGHTS), model.iter().map(|(name, value)| (name.clone(), value)))?;
        let own = own.iter().filter(|(name, _)| !name.contains(".lora."));
        let own = own.map(|(name, value)| ((*name).to_owned(), value));
        write_tensors(&folder.join("icecap.safetensors"), own)?;
        self.write_settings(folder, special).map(drop)
    }
}
