//! `icecap export-run`: a run's language model, for programs that know nothing of icecap.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::run::{Run, SCALES};

/// The folder holds something already.
#[derive(Debug, thiserror::Error)]
#[error("the folder `{}` is not empty\nhint: name one that is, or that doesn't exist yet", folder.display())]
pub struct NotEmpty {
    folder: PathBuf,
}

/// Writes the best checkpoint of `run` to `folder`: weights, settings and tokenizer as Hugging Face's `save_pretrained`
/// names them, and the tensors of icecap's own beside them.
///
/// # Errors
/// Where the folder is not empty or can't be written, or the run's decoder is of a kind that only icecap knows.
pub fn export_run(run: &Run, folder: &Path) -> Result<()> {
    let filled = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if filled {
        return Err(NotEmpty { folder: folder.to_owned() }.into());
    }
    let (decoder, _) = run.decoder("cpu")?;
    let written = || format!("the folder `{}` can't be written", folder.display());
    fs::create_dir_all(folder).with_context(written)?;
    if let Err(error) = decoder.export(folder, run.special()) {
        // Goes only where nothing was written.
        let _ = fs::remove_dir(folder);
        return Err(error.into());
    }
    run.tokenizer.save(&folder.join("tokenizer.json"))?;
    let config = serde_json::to_string_pretty(&run.tokenizer.config())?;
    fs::write(folder.join("tokenizer_config.json"), config + "\n").with_context(written)?;
    if run.folder.join(SCALES).exists() {
        fs::copy(run.folder.join(SCALES), folder.join(SCALES)).with_context(written)?;
    }
    Ok(())
}
