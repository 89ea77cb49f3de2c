//! Checkpoints: folders that are either whole or not there.
//!
//! A checkpoint is written to a sibling folder, synced, and takes the place of the one before by renaming. Between the two
//! renames the old one stands aside under a name of its own, and [`find`] looks there too: at no instant is there none.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::{TrainData, TrainError, TrainSpec, average::Average, optimizer::AdamW, schedule::Plateaus};
use crate::decoder::{Decoder, Special};

/// The weights that a training with a running average goes on from; model.safetensors holds the average.
pub(super) const TRAINED: &str = "trained.safetensors";

/// A language model's sizes, in checkpoints of decoders that have one.
pub(super) const CONFIG: &str = "config.json";

/// The version of state.json.
const VERSION: u32 = 2;

/// How far a training is: all that is not weights or moments. Orders, rates and dropout follow from the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// The version of this file's format.
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// Tokens learned from so far.
    pub tokens: u64,
    /// Seconds spent training so far.
    pub seconds: f64,
    /// The best validation score and its step.
    pub best: Option<(f64, u64)>,
    /// Validations since then.
    pub since_best: u64,
    /// What the schedule `plateau` made of them.
    #[serde(default)]
    pub plateaus: Plateaus,
    /// Steps skipped because their loss or gradient was not finite.
    pub skipped: u64,
    /// How many of them just now, one after another.
    pub skipped_in_a_row: u64,
    /// Training captions.
    pub captions: u64,
    /// Digest of the captions' tokens and rows, the validation rows and the columns' source.
    pub data: String,
    /// The same of each of them; states written before they were told apart have none.
    #[serde(default)]
    pub parts: Option<Parts>,
    /// The settings.
    pub spec: TrainSpec,
}

impl TrainState {
    pub(super) fn new(spec: &TrainSpec, data: &TrainData) -> Self {
        Self {
            version: VERSION,
            step: 0,
            tokens: 0,
            seconds: 0.0,
            best: None,
            since_best: 0,
            plateaus: Plateaus::default(),
            skipped: 0,
            skipped_in_a_row: 0,
            captions: data.captions.len() as u64,
            data: digest(data),
            parts: Some(Parts::of(data)),
            spec: spec.clone(),
        }
    }

    /// Reads a checkpoint's state.
    ///
    /// # Errors
    /// When it cannot be read or is no state.
    pub fn read(checkpoint: &Path) -> Result<Self, TrainError> {
        let path = checkpoint.join("state.json");
        let bytes = fs::read(&path).map_err(|source| io("read", &path, source))?;
        serde_json::from_slice(&bytes).map_err(|source| TrainError::State { path, source })
    }

    /// Refuses settings under which the steps so far would have been others.
    pub(super) fn check(&self, checkpoint: &Path, spec: &TrainSpec, data: &TrainData) -> Result<(), TrainError> {
        let old = &self.spec;
        let number = |value: u64| value.to_string();
        let fields: [(&'static str, String, String); 9] = [
            ("version", number(VERSION.into()), number(self.version.into())),
            ("train.seed", number(spec.seed), number(old.seed)),
            ("train.batch", number(spec.batch as u64), number(old.batch as u64)),
            ("train.together", number(spec.together as u64), number(old.together as u64)),
            ("train.accumulation", number(spec.accumulation as u64), number(old.accumulation as u64)),
            ("train.ema", spec.ema.to_string(), old.ema.to_string()),
            ("train.max_tokens", number(spec.max_tokens as u64), number(old.max_tokens as u64)),
            ("captions", number(data.captions.len() as u64), number(self.captions)),
            (DATA, digest(data), self.data.clone()),
        ];
        match fields.into_iter().find(|(_, expected, found)| expected != found) {
            None => Ok(()),
            Some((field, expected, found)) => {
                let path = checkpoint.to_owned();
                let part = self.parts.as_ref().filter(|_| field == DATA).and_then(|old| Parts::of(data).other(old));
                Err(match part {
                    Some(part) => TrainError::OtherData { path, part },
                    None => TrainError::Changed { path, field, found, expected },
                })
            }
        }
    }
}

/// What decides what is learned, each apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What turns words into tokens.
    Tokenizer,
    /// The training images and what is said of them.
    Captions,
    /// The images that are validated on.
    Validation,
    /// The columns' bytes.
    Columns,
}

/// Digests of the parts of a training's data: blake3, 16 hex digits each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    tokenizer: String,
    captions: String,
    validation: String,
    columns: String,
}

impl Parts {
    fn of(data: &TrainData) -> Self {
        Self {
            tokenizer: data.tokenizer.clone(),
            captions: hashed(|hasher| hash_captions(hasher, data)),
            validation: hashed(|hasher| hash_validation(hasher, data)),
            columns: hashed(|hasher| hash_columns(hasher, data)),
        }
    }

    /// The first part that differs. A tokenizer only where it makes other tokens of the captions: nothing else of it is learned.
    fn other(&self, old: &Self) -> Option<Part> {
        let captions = self.captions != old.captions;
        let parts = [
            (captions && self.tokenizer != old.tokenizer, Part::Tokenizer),
            (captions, Part::Captions),
            (self.validation != old.validation, Part::Validation),
            (self.columns != old.columns, Part::Columns),
        ];
        parts.into_iter().find_map(|(differs, part)| differs.then_some(part))
    }
}

/// What the digest of the data is of, for a person who reads that it differs.
const DATA: &str = "data (tokenizer, captions, validation images or columns)";

/// Digest of everything of `data` that decides what is learned: blake3, 16 hex digits.
fn digest(data: &TrainData) -> String {
    hashed(|hasher| {
        hash_columns(hasher, data);
        hash_captions(hasher, data);
        hash_validation(hasher, data);
    })
}

fn hashed(update: impl FnOnce(&mut blake3::Hasher)) -> String {
    let mut hasher = blake3::Hasher::new();
    update(&mut hasher);
    hasher.finalize().to_hex()[..16].to_owned()
}

fn hash_columns(hasher: &mut blake3::Hasher, data: &TrainData) {
    hasher.update(data.source.as_bytes());
}

fn hash_captions(hasher: &mut blake3::Hasher, data: &TrainData) {
    for caption in data.captions.iter() {
        hasher.update(&caption.row.to_le_bytes()).update(&(caption.tokens.len() as u64).to_le_bytes());
        for token in &caption.tokens {
            hasher.update(&token.to_le_bytes());
        }
    }
}

fn hash_validation(hasher: &mut blake3::Hasher, data: &TrainData) {
    for row in &data.validation {
        hasher.update(&row.to_le_bytes());
    }
}

/// The folder of the run's checkpoint `name` (`last` or `best`), the one standing aside where a rename was interrupted.
#[must_use]
pub fn find(run: &Path, name: &str) -> Option<PathBuf> {
    let folder = run.join("checkpoints");
    [folder.join(name), aside(&folder, name)].into_iter().find(|path| path.join("state.json").exists())
}

/// The state of a checkpoint whose files can all be read; what they hold is not compared with anything. Where `config` is, a
/// config.json is among them.
pub(super) fn sound(checkpoint: &Path, config: bool) -> Option<TrainState> {
    let state = TrainState::read(checkpoint).ok()?;
    let read_config =
        || -> Option<serde_json::Value> { serde_json::from_slice(&fs::read(checkpoint.join(CONFIG)).ok()?).ok() };
    let mut tensors = vec!["model.safetensors", "optimizer.safetensors"];
    tensors.extend((state.spec.ema > 0.0).then_some(TRAINED));
    let all = tensors.into_iter().all(|name| is_whole(&checkpoint.join(name)));
    (all && (!config || read_config().is_some())).then_some(state)
}

/// Whether a file is as long as its header says; no more than that is read.
fn is_whole(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // SAFETY: a checkpoint's files are written under another name and renamed: none is changed while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file) };
    map.is_ok_and(|map| SafeTensors::deserialize(&map).is_ok())
}

/// Which of its checkpoints a training goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The last one.
    Last,
    /// The one with the best score: what was learned after it is learned again.
    Best,
}

/// The checkpoint of the run that a training goes on from where `asked` is wanted; `None` where the run has none yet.
///
/// Where there is no last one but a best (a training ended between the two, or what was left of the last was set aside), it is the best.
#[must_use]
pub fn goes_on_from(run: &Path, asked: Resume) -> Option<(Resume, PathBuf)> {
    let folder = run.join("checkpoints");
    let best = || find(run, "best").map(|path| (Resume::Best, path));
    if asked == Resume::Best {
        return best();
    }
    // A folder that lost its state is still what is left of the last checkpoint: it is not to be passed over in silence.
    let left = || [folder.join("last"), aside(&folder, "last")].into_iter().find(|path| path.is_dir());
    find(run, "last").or_else(left).map(|path| (Resume::Last, path)).or_else(best)
}

/// Keeps what is left of the last checkpoint under another name, which nothing writes to, and says which.
pub(super) fn set_aside(run: &Path) -> Result<Option<PathBuf>, TrainError> {
    let folder = run.join("checkpoints");
    let mut kept = None;
    for left in [aside(&folder, "last"), folder.join("last")].into_iter().filter(|path| path.is_dir()) {
        let named = |at: usize| folder.join(if at == 1 { "last.left".to_owned() } else { format!("last.left.{at}") });
        let place = (1..).map(named).find(|place| !place.exists()).unwrap_or_else(|| named(1));
        fs::rename(&left, &place).map_err(|source| io("rename", &left, source))?;
        kept = Some(place);
    }
    if kept.is_some() {
        sync(&folder)?;
    }
    Ok(kept)
}

fn aside(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.old"))
}

/// Publishes the checkpoint `name` of the run. Where there is an `average`, the decoder holds it, and it the trained weights.
pub(super) fn save(
    run: &Path,
    name: &str,
    decoder: &dyn Decoder,
    optimizer: &AdamW,
    average: Option<&Average>,
    state: &TrainState,
    special: Special,
) -> Result<(), TrainError> {
    let folder = run.join("checkpoints");
    let fresh = folder.join(format!(".{name}.new"));
    remove(&fresh)?;
    fs::create_dir_all(&fresh).map_err(|source| io("create", &fresh, source))?;
    decoder.params().save(&fresh.join("model.safetensors"))?;
    optimizer.save(decoder.params(), &fresh.join("optimizer.safetensors"))?;
    average.map_or(Ok(()), |average| average.save_trained(decoder.params(), &fresh.join(TRAINED)))?;
    let path = fresh.join("state.json");
    let text =
        serde_json::to_string_pretty(state).map_err(|source| TrainError::State { path: path.clone(), source })?;
    let written = File::create(&path).and_then(|mut file| writeln!(file, "{text}"));
    written.map_err(|source| io("write", &path, source))?;
    let mut files = decoder.write_beside(&fresh, special)?;
    files.extend(copy_tokenizer(run, &fresh)?);
    files.extend(average.map(|_| TRAINED));
    for file in files.into_iter().chain(["model.safetensors", "optimizer.safetensors", "state.json"]) {
        sync(&fresh.join(file))?;
    }
    sync(&fresh)?;
    publish(&folder, name, &fresh)
}

/// The run's tokenizer, where it has one: weights are of little use without it.
fn copy_tokenizer(run: &Path, fresh: &Path) -> Result<Option<&'static str>, TrainError> {
    let (name, path) = ("tokenizer.json", run.join("tokenizer.json"));
    match fs::copy(&path, fresh.join(name)) {
        Ok(_) => Ok(Some(name)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io("copy", &path, source)),
    }
}

/// Puts `fresh` in the place of the checkpoint before it.
fn publish(folder: &Path, name: &str, fresh: &Path) -> Result<(), TrainError> {
    let (place, old) = (folder.join(name), aside(folder, name));
    if place.exists() {
        remove(&old)?;
        fs::rename(&place, &old).map_err(|source| io("rename", &place, source))?;
    }
    fs::rename(fresh, &place).map_err(|source| io("rename", fresh, source))?;
    sync(folder)?;
    remove(&old)
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path, source)),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), TrainError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| io("sync", path, source))
}

pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error) -> TrainError {
    TrainError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Caption, Special};

    fn folder_with(folder: &Path, text: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("state.json"), text).unwrap();
    }

    fn data(rows: &[u32], source: &str) -> TrainData {
        TrainData {
            source: source.to_owned(),
            tokenizer: String::new(),
            columns: vec![],
            captions: rows.iter().map(|&row| Caption { row, tokens: vec![row] }).collect(),
            validation: vec![9],
            special: Special { bos: 0, eos: 1, unk: None, pad: 2 },
        }
    }

    #[test]
    fn at_no_instant_is_there_none() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("checkpoints");
        let read = || find(run.path(), "last").map(|path| fs::read_to_string(path.join("state.json")).unwrap());
        assert_eq!(read(), None);
        folder_with(&folder.join(".last.new"), "one");
        publish(&folder, "last", &folder.join(".last.new")).unwrap();
        assert_eq!(read().unwrap(), "one");
        // killed between the renames: only the old one, aside
        fs::rename(folder.join("last"), folder.join(".last.old")).unwrap();
        assert_eq!(read().unwrap(), "one");
        // the next save still works, and cleans up
        folder_with(&folder.join(".last.new"), "two");
        publish(&folder, "last", &folder.join(".last.new")).unwrap();
        assert_eq!(read().unwrap(), "two");
        assert!(!folder.join(".last.old").exists() && !folder.join(".last.new").exists());
    }

    #[test]
    fn a_checkpoint_is_sound_where_all_that_it_needs_is_whole() {
        let run = tempfile::tempdir().unwrap();
        let (folder, data) = (run.path(), data(&[3, 4], "a"));
        let spec = |ema: f64| TrainSpec { ema, ..TrainSpec::default() };
        let write = |ema: f64| {
            let state = TrainState::new(&spec(ema), &data);
            fs::write(folder.join("state.json"), serde_json::to_string(&state).unwrap()).unwrap();
        };
        let tensor = tch::Tensor::from_slice(&[1.0f32, 2.0]);
        let tensors = |name: &str| {
            crate::decoder::write_tensors(&folder.join(name), [("a".to_owned(), &tensor)].into_iter()).unwrap();
        };
        let is = |config| sound(folder, config).is_some();
        write(0.0);
        assert!(!is(false));
        tensors("model.safetensors");
        tensors("optimizer.safetensors");
        assert!(is(false) && !is(true));
        fs::write(folder.join(CONFIG), "{").unwrap();
        assert!(is(false) && !is(true));
        fs::write(folder.join(CONFIG), "{}").unwrap();
        assert!(is(true));
        write(0.9);
        assert!(!is(true), "the trained weights are missing");
        tensors(TRAINED);
        assert!(is(true));
        let whole = fs::read(folder.join(TRAINED)).unwrap();
        fs::write(folder.join(TRAINED), &whole[..whole.len() - 1]).unwrap();
        assert!(!is(true));
    }

    #[test]
    fn a_changed_setting_is_named() {
        let spec = TrainSpec::default();
        let same = || data(&[3, 4], "a");
        let state = TrainState::new(&spec, &same());
        let at = Path::new("last");
        state.check(at, &TrainSpec { epochs: 99, ..spec.clone() }, &same()).unwrap();
        let field = |spec: TrainSpec, data| match state.check(at, &spec, &data) {
            Err(TrainError::Changed { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(TrainSpec { batch: 3, ..spec.clone() }, same()), "train.batch");
        assert_eq!(field(TrainSpec { ema: 0.9, ..spec.clone() }, same()), "train.ema");
        assert_eq!(field(TrainSpec { seed: 3, ..spec.clone() }, same()), "train.seed");
        assert_eq!(field(spec.clone(), data(&[3, 4, 4], "a")), "captions");
        let other = |data| match state.check(at, &spec, &data) {
            Err(TrainError::OtherData { part, .. }) => part,
            other => panic!("{other:?}"),
        };
        assert_eq!(other(data(&[3, 5], "a")), Part::Captions);
        assert_eq!(other(data(&[3, 4], "b")), Part::Columns);
        assert_eq!(other(TrainData { validation: vec![8], ..same() }), Part::Validation);
        let tokenizer = || "another".to_owned();
        assert_eq!(other(TrainData { tokenizer: tokenizer(), ..data(&[3, 5], "a") }), Part::Tokenizer);
        state.check(at, &spec, &TrainData { tokenizer: tokenizer(), ..same() }).unwrap();
        // A state that was written before they were told apart.
        let mut old = serde_json::to_value(&state).unwrap();
        old.as_object_mut().unwrap().remove("parts");
        let old: TrainState = serde_json::from_value(old).unwrap();
        old.check(at, &spec, &same()).unwrap();
        let error = old.check(at, &spec, &data(&[3, 4], "b")).unwrap_err();
        assert!(matches!(error, TrainError::Changed { field: DATA, .. }), "{error}");
    }
}
