//! `icecap export-run`: a run's language model, for programs that know nothing of icecap.

use std::{
    ffi::OsString,
    fs, io,
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

/// Where an export is written, inside of its folder; moved out when all of it is there. A folder that holds this and nothing but
/// files of an export is one that was cut, and may be written again.
const PARTIAL: &str = ".icecap-export";

/// Writes the best checkpoint of `run` to `folder`: weights, settings and tokenizer as Hugging Face's `save_pretrained`
/// names them, and the tensors of icecap's own beside them. Where that fails nothing is left but what lay there before, or,
/// where it fails between two files, those that may be written again.
///
/// # Errors
/// Where the folder is not empty or can't be written, or the run's decoder is of a kind that only icecap knows.
pub fn export_run(run: &Run, folder: &Path) -> Result<()> {
    let partial = folder.join(PARTIAL);
    let before = match entries(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        read => read.with_context(|| format!("the folder `{}` can't be read", folder.display()))?,
    };
    if !before.is_empty() && !partial.is_dir() {
        return Err(NotEmpty { folder: folder.to_owned() }.into());
    }
    let (decoder, _) = run.decoder("cpu")?;
    let written = || format!("the folder `{}` can't be written", folder.display());
    fs::create_dir_all(&partial).with_context(written)?;
    clear(&partial).with_context(written)?;
    let moved = write(run, decoder.as_ref(), &partial)
        .and_then(|()| publish(&partial, folder, &before).with_context(written)?.map_err(Into::into));
    let alone = || entries(folder).is_ok_and(|names| names == [PARTIAL]);
    if moved.is_err() && clear(&partial).is_ok() && before.is_empty() && alone() {
        let _ = fs::remove_dir(&partial).and_then(|()| fs::remove_dir(folder));
    }
    moved
}

/// Moves all that was written out, over what an export that was cut had moved; refused where the folder held anything else.
///
/// Where a move fails the marker stays, and so what was moved can be written again.
fn publish(partial: &Path, folder: &Path, before: &[OsString]) -> io::Result<Result<(), NotEmpty>> {
    let files = entries(partial)?;
    let own = |name: &OsString| name == PARTIAL || (files.contains(name) && folder.join(name).is_file());
    if !before.iter().all(own) {
        return Ok(Err(NotEmpty { folder: folder.to_owned() }));
    }
    for name in &files {
        fs::rename(partial.join(name), folder.join(name))?;
    }
    fs::remove_dir(partial).map(Ok)
}

fn entries(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn clear(folder: &Path) -> io::Result<()> {
    entries(folder)?.iter().try_for_each(|name| fs::remove_file(folder.join(name)))
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
