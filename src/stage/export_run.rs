//! `icecap export-run`: a run's language model, for programs that know nothing of icecap.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::run::{Run, SCALES};
use crate::decoder::Decoder;

/// The folder holds something already.
#[derive(Debug, thiserror::Error)]
#[error("the folder `{}` is not empty\nhint: name one that is, or that doesn't exist yet", folder.display())]
pub struct NotEmpty {
    folder: PathBuf,
}

/// What is being written, inside of the folder: moved out when all of it is there. A folder that holds it is an export that was cut, and may be
/// written again.
const PARTIAL: &str = ".icecap-export";

/// Writes the best checkpoint of `run` to `folder`: weights, settings and tokenizer as Hugging Face's `save_pretrained`
/// names them, and the tensors of icecap's own beside them. Where that fails nothing is left.
///
/// # Errors
/// Where the folder is not empty or can't be written, or the run's decoder is of a kind that only icecap knows.
pub fn export_run(run: &Run, folder: &Path) -> Result<()> {
    let partial = folder.join(PARTIAL);
    let filled = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if filled && !partial.is_dir() {
        return Err(NotEmpty { folder: folder.to_owned() }.into());
    }
    let (decoder, _) = run.decoder("cpu")?;
    let written = || format!("the folder `{}` can't be written", folder.display());
    fs::create_dir_all(&partial).with_context(written)?;
    for stale in fs::read_dir(&partial).with_context(written)? {
        fs::remove_file(stale?.path()).with_context(written)?;
    }
    if let Err(error) = write(run, decoder.as_ref(), &partial) {
        // Goes only where nothing else is there.
        let _ = fs::remove_dir_all(&partial).and_then(|()| fs::remove_dir(folder));
        return Err(error);
    }
    for file in fs::read_dir(&partial).with_context(written)? {
        let file = file?;
        fs::rename(file.path(), folder.join(file.file_name())).with_context(written)?;
    }
    fs::remove_dir(&partial).with_context(written)
}

fn write(run: &Run, decoder: &dyn Decoder, folder: &Path) -> Result<()> {
    decoder.export(folder, run.special())?;
    run.tokenizer.save(&folder.join("tokenizer.json"))?;
    let config = serde_json::to_string_pretty(&run.tokenizer.config())?;
    let written = || format!("`{}` can't be written", folder.display());
    fs::write(folder.join("tokenizer_config.json"), config + "\n").with_context(written)?;
    if run.folder.join(SCALES).exists() {
        fs::copy(run.folder.join(SCALES), folder.join(SCALES)).with_context(written)?;
    }
    Ok(())
}
