//! Who computes a column's rows: device, kernels, ONNX Runtime's version.
//!
//! No part of a column's key: rows of two providers differ in their last bits alone. But they do differ, so a column's provenance lists
//! all who wrote rows of it, and whoever goes on with another's column is told. Two GPUs of one machine are taken for alike.

use icecap_cache::{ColumnWriter, Manifest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::Model;
use crate::{
    encoder::{Device, EncoderError, Kernels},
    progress::Progress,
};

/// One who computes rows. What is not known (of a column by an older icecap) is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// `cpu` or `cuda`.
    #[serde(default)]
    pub device: Option<String>,
    /// `own` or `provider`.
    #[serde(default)]
    pub kernels: Option<String>,
    /// ONNX Runtime's version.
    #[serde(default)]
    pub onnxruntime: Option<String>,
}

impl Provider {
    /// The one that computes the column at `column` of `model` on `device`.
    pub(super) fn of(model: &Model, column: usize, device: Device, runtime: &str) -> Result<Self, EncoderError> {
        let mut kernels = Kernels::Provider;
        for pass in model.passes.iter().filter(|pass| pass.columns.contains(&column)) {
            if pass.compiled.kernels(device)? == Kernels::Own {
                kernels = Kernels::Own;
            }
        }
        let device = match device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
        };
        Ok(Self {
            device: Some(device.to_owned()),
            kernels: json!(kernels).as_str().map(str::to_owned),
            onnxruntime: Some(runtime.to_owned()),
        })
    }

    /// What a column says of one who wrote rows of it.
    fn read(said: &Value) -> Self {
        let mut read: Self =
            serde_json::from_value(said.clone()).unwrap_or(Self { device: None, kernels: None, onnxruntime: None });
        // Provenances from before the list name a GPU by its number.
        if read.device.as_ref().is_some_and(|device| device.starts_with("cuda")) {
            read.device = Some("cuda".to_owned());
        }
        read
    }

    /// All that wrote rows of a finished column, in order. Empty for columns that icecap did not encode.
    #[must_use]
    pub fn all_of(manifest: &Manifest) -> Vec<Self> {
        match (&manifest.provenance["writers"], &manifest.provenance["device"]) {
            (Value::Array(writers), _) => writers.iter().map(Self::read).collect(),
            (_, Value::String(_)) => vec![Self::read(&manifest.provenance)],
            _ => Vec::new(),
        }
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.device.as_deref().unwrap_or("an unknown device"))?;
        let runtime = self.onnxruntime.as_ref().map(|version| format!("ONNX Runtime {version}"));
        let kernels = (self.kernels.as_deref() == Some("own")).then(|| "icecap's kernels".to_owned());
        let details: Vec<String> = runtime.into_iter().chain(kernels).collect();
        if details.is_empty() { Ok(()) } else { write!(out, " ({})", details.join(", ")) }
    }
}

/// `providers` for a person.
#[must_use]
pub fn listed(providers: &[Provider]) -> String {
    providers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Says which columns were begun by another provider than the one that goes on.
pub(super) fn tell_others(writers: &[ColumnWriter], own: &[Provider], progress: &dyn Progress) {
    for (writer, own) in writers.iter().zip(own).filter(|(writer, _)| !writer.todo_batches().is_empty()) {
        let before: Vec<Provider> = writer.writers_before().iter().map(Provider::read).collect();
        if before.iter().any(|other| other != own) {
            progress.line(&format!(
                "note: column `{}` has rows by {}, and goes on by {own}: these rows may differ from the others in their last bits",
                writer.plan().name,
                listed(&before)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_columns_say_is_read_old_and_new() {
        let shown = |said: Value| Provider::read(&said).to_string();
        let new = json!({"device": "cpu", "kernels": "own", "onnxruntime": "1.31.1"});
        assert_eq!(shown(new.clone()), "cpu (ONNX Runtime 1.31.1, icecap's kernels)");
        assert_eq!(shown(json!({"device": "cuda:1", "recipe": "..", "icecap": "0.1.0"})), "cuda");
        assert_eq!(shown(Value::Null), "an unknown device");
        let written = json!(Provider::read(&new));
        assert_eq!(written, new);
    }
}
