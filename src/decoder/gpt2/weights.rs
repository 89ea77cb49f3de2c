//! Weights of Hugging Face's: names with or without `transformer.`, f32, f16 or bf16, tied heads, stray buffers.
//!
//! A tensor at a time is read from the file: GPT-2 XL needs no second copy of itself.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use tch::{Kind, Tensor};

use super::{super::Params, error::Gpt2Error};

/// Names of icecap's own tensors begin so; a Hugging Face folder has none of them.
pub(super) const OWN: &str = "icecap.";
/// Names that are listed in an error, at most.
const SHOWN: usize = 5;

/// A safetensors file, its names without `transformer.`.
struct Weights {
    path: PathBuf,
    file: File,
    /// Where the tensors' bytes begin.
    start: u64,
    tensors: HashMap<String, TensorInfo>,
}

/// Puts the language model in the file at `path` into `params`.
pub(super) fn load(params: &Params, path: &Path) -> Result<(), Gpt2Error> {
    let _guard = tch::no_grad_guard();
    let mut weights = Weights::open(path)?;
    let wanted: Vec<(&str, Tensor)> = params.all().into_iter().filter(|(name, _)| weights.wants(name)).collect();
    weights.check_names(&wanted.iter().map(|(name, _)| *name).collect())?;
    for (name, mut place) in wanted {
        let values = weights.read(name, &place.size())?;
        place.copy_(&values);
    }
    weights.check_head()
}

/// What transformers writes and nobody reads: masks, and a head that is the embedding.
fn is_buffer(name: &str) -> bool {
    let mask = name.ends_with(".attn.bias") || name.ends_with("attn.masked_bias");
    mask || name.ends_with(".crossattention.bias") || name.ends_with(".crossattention.masked_bias")
}

fn is_cross(name: &str) -> bool {
    name.contains(".crossattention.") || name.contains(".ln_cross_attn.")
}

impl Weights {
    fn open(path: &Path) -> Result<Self, Gpt2Error> {
        let read = |source| Gpt2Error::Read { path: path.to_owned(), source };
        let broken = |what: String| Gpt2Error::Weights { path: path.to_owned(), what };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| broken("it is shorter than a header".into()))?;
        let header = u64::from_le_bytes(size);
        if header > length.saturating_sub(8) {
            return Err(broken("its header is longer than the file".into()));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(read)?;
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        let tensors = metadata.tensors();
        let end = tensors.values().map(|tensor| tensor.data_offsets.1 as u64).max().unwrap_or(0);
        if length - 8 - header != end {
            return Err(broken(format!("its tensors end at byte `{}`, the file at `{length}`", 8 + header + end)));
        }
        let plain = |name: String| name.strip_prefix("transformer.").map_or(name.clone(), str::to_owned);
        let tensors = tensors.into_iter().map(|(name, info)| (plain(name), info.clone())).collect();
        Ok(Self { path: path.to_owned(), file, start: 8 + header, tensors })
    }

    /// Whether a parameter is to come from this file: cross-attention is new where the file has none of it.
    fn wants(&self, name: &str) -> bool {
        !name.starts_with(OWN) && (!is_cross(name) || self.tensors.keys().any(|name| is_cross(name)))
    }

    fn check_names(&self, wanted: &BTreeSet<&str>) -> Result<(), Gpt2Error> {
        let found: BTreeSet<&str> = self.tensors.keys().map(String::as_str).collect();
        let known = |name: &&str| name.starts_with(OWN) || *name == "lm_head.weight" || is_buffer(name);
        let missing: Vec<&str> = wanted.difference(&found).copied().collect();
        let extra: Vec<&str> = found.difference(wanted).copied().filter(|name| !known(name)).collect();
        let parts = [("it lacks", missing), ("it also has", extra)];
        let parts: Vec<String> =
            parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| list(what, names)).collect();
        if parts.is_empty() {
            return Ok(());
        }
        Err(Gpt2Error::Tensors { path: self.path.clone(), what: parts.join("; ") })
    }

    /// A tensor of this shape, as f32.
    fn read(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, Gpt2Error> {
        let info = &self.tensors[name];
        let found: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
        if found != shape {
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(Gpt2Error::Shape { path, name, expected: shape.to_vec(), found });
        }
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                let (path, found) = (self.path.clone(), format!("{other:?}"));
                return Err(Gpt2Error::Dtype { path, name: name.to_owned(), found });
            }
        };
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        self.file
            .seek(SeekFrom::Start(self.start + begin as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|source| Gpt2Error::Read { path: self.path.clone(), source })?;
        Ok(Tensor::from_data_size(&bytes, shape, kind).to_kind(Kind::Float))
    }

    /// The head, where the file has one, must be the embedding.
    fn check_head(&mut self) -> Result<(), Gpt2Error> {
        let Some(head) = self.tensors.get("lm_head.weight") else { return Ok(()) };
        let shape: Vec<i64> = head.shape.iter().map(|&size| size as i64).collect();
        if self.read("lm_head.weight", &shape)?.equal(&self.read("wte.weight", &shape)?) {
            return Ok(());
        }
        Err(Gpt2Error::Untied { path: self.path.clone() })
    }
}

fn list(what: &str, names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what} {}{more}", shown.join(", "))
}
