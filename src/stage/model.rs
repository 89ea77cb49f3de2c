//! From `[encoder]` to a compiled encoder: finds or exports the ONNX file, reads what it says of itself, edits the graph.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use icecap_cache::Key;

use crate::{
    encoder::{self, CompiledEncoder, Tap},
    image::Preprocess,
    progress::Progress,
    recipe::{ColumnSpec, EncoderSpec, ModelSource, ResolvedEncoder},
};

/// An encoder that is ready for sessions, and how its pictures are prepared.
pub struct Model {
    /// The ONNX file.
    pub path: PathBuf,
    /// Decode, resize, crop; and what is computed.
    pub resolved: ResolvedEncoder,
    /// The edited graph.
    pub compiled: CompiledEncoder,
}

impl Model {
    /// Makes the model of `[encoder]` ready, with `columns` as its outputs.
    ///
    /// # Errors
    /// Where the file isn't there or can't be exported, or the columns don't fit the graph.
    pub fn prepare(
        spec: &EncoderSpec,
        columns: &[ColumnSpec],
        data: &Path,
        python: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let source = spec.source(data);
        if let ModelSource::File(path) = &source
            && !path.exists()
        {
            return Err(encoder::absent(&spec.model, path).into());
        }
        export_if_absent(&source, python, progress)?;
        Self::open(spec, columns, source.path())
    }

    /// The same with the ONNX file `path`, which must be there.
    ///
    /// # Errors
    /// As [`Model::prepare`].
    pub fn open(spec: &EncoderSpec, columns: &[ColumnSpec], path: &Path) -> Result<Self> {
        let own = encoder::read_metadata(path)?;
        let resolved = spec.resolve(columns, path, own.as_ref())?;
        resolved.preprocess.validate()?;
        let compiled = encoder::compile(path, &resolved.plan)?;
        Ok(Self { path: path.to_owned(), resolved, compiled })
    }

    /// Everything that decides the bytes of the column of `tap`.
    #[must_use]
    pub fn key(&self, tap: &Tap) -> Key {
        let mut fields = encoder::key_fields(self.compiled.model_digest(), &self.resolved.plan, tap);
        fields.extend(Preprocess::key_fields(&self.resolved.preprocess));
        fields.into_iter().fold(Key::new(), |key, (field, value)| key.with(field, value))
    }
}

fn export_if_absent(source: &ModelSource, python: Option<&Path>, progress: &dyn Progress) -> Result<()> {
    let ModelSource::Known { name, weights, path } = source else { return Ok(()) };
    if path.exists() {
        return Ok(());
    }
    progress.line(&format!("exporting {name} ({weights} weights) to {}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("the folder `{}` can't be made", folder.display()))?;
    }
    encoder::export(name, weights, path, python)?;
    Ok(())
}
