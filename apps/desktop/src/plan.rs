//! A model's memory, before it is loaded.

use std::path::{Path, PathBuf};

use bitnet::{KvType, LoadOptions};
use bitnet_model::WeightSource as _;
use loader::Checkpoint;
use serde::Serialize;

use crate::Failure;
use crate::engine::CONTEXT;

/// The memory that a model file needs, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The file.
    pub path: PathBuf,
    /// Its name for people.
    pub name: String,
    architecture: String,
    parameters: u64,
    file: u64,
    weights: u64,
    tables: u64,
    /// Keys and values of a full context, and states of constant size.
    session: u64,
    /// Tokens of a full context; nothing without a limit.
    context: Option<usize>,
    /// Whether the memory of a session stays as it is, however long its text.
    constant: bool,
    total: u64,
    /// Memory that is free now, where the system tells.
    available: Option<u64>,
    /// Whether it fits; true if it is not known.
    pub fits: bool,
}

impl Plan {
    /// Reads the headers of a file; its weights are not looked at.
    ///
    /// # Errors
    /// `model` for a file that is not a language model.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        let meta = loader::files::regular(path, "a model").map_err(|e| Failure::new("model", e.to_string()))?;
        let checkpoint = Checkpoint::open(path, &LoadOptions::default())?;
        let config = checkpoint.config();
        let context = config.context_limit().map(|limit| limit.min(CONTEXT));
        let needs = bitnet::MemoryEstimate::at(config, KvType::default(), context.unwrap_or(0));
        let available = available();
        let names = bitnet_model::Architecture::of(config).map_or(&[][..], |family| family.gguf_names());
        Ok(Self {
            path: path.to_owned(),
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            architecture: names.first().copied().unwrap_or_default().to_owned(),
            parameters: config.parameters(),
            file: meta.len(),
            weights: needs.weights + needs.plane,
            tables: needs.tables,
            session: needs.session,
            context,
            constant: KvType::default().token_bytes(config) == 0,
            total: needs.total(),
            available,
            fits: available.is_none_or(|free| needs.total() < free),
        })
    }
}

/// Free memory in bytes, where the system tells: `MemAvailable` of Linux.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
    }

    #[test]
    fn a_plan_knows_attention_from_states_of_constant_size() {
        let attention = Plan::of(&model("models/tinystories-5m.gguf")).unwrap();
        assert!(!attention.constant && attention.context.is_some() && attention.fits, "{attention:?}");
        let ttt = Plan::of(&model("models/tiny-ja-ttt.gguf")).unwrap();
        assert!(ttt.constant && ttt.context.is_none() && ttt.session > 0, "{ttt:?}");
        assert_eq!(ttt.total, ttt.weights + ttt.tables + ttt.session);
        assert_eq!(ttt.name, "tiny-ja-ttt");
    }

    #[test]
    fn what_is_no_model_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.gguf");
        std::fs::write(&path, "GGUF? no").unwrap();
        for bad in [path.as_path(), folder.path(), Path::new("/nowhere/at-all.gguf")] {
            let refused = Plan::of(bad).unwrap_err();
            assert_eq!(refused.code, "model");
            assert!(refused.message.contains(&bad.display().to_string()), "{refused}");
        }
    }
}
