//! Files of extractors ([`bitnet_model::encoder`]): one GGUF file, or a folder with `config.json` and
//! `model.safetensors`.
//!
//! Both containers hold the same numbers, so one model gives the same bits from either. What the tensors are is in
//! `docs/extract.md`.
//!
//! ```
//! use bitnet_model::encoder::{ExtractorConfig, ExtractorWeights, TaskConfig};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let task = TaskConfig::new("home", vec!["light_on".into(), "light_off".into()], vec!["room".into()]);
//! let config = ExtractorConfig { buckets: 64, hidden_size: 32, ..ExtractorConfig::new(vec![task]) };
//! let weights = ExtractorWeights::synthetic(config, 7)?;
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("home.gguf");
//! loader::extractor::write_gguf(&path, &weights)?;
//! assert_eq!(loader::extractor::read(&path)?.config, weights.config);
//! # Ok(())
//! # }
//! ```
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod config;
mod read;
mod write;

use std::path::Path;

pub use config::{config_from_json, config_to_json};
pub use read::{read, read_bytes};
pub use write::{write_gguf, write_safetensors};

use crate::LoadError;
use crate::gguf::{Gguf, locate};
use crate::mmap::read_bounded;

/// The architecture that files of extractors name: `general.architecture`, `model_type`.
pub const ARCHITECTURE: &str = "bitnet-extractor";

/// The GGUF key of the configuration, the JSON text that a folder has as `config.json`.
const CONFIG_KEY: &str = "extractor.config";

/// The GGUF key of the number of the form of features, heads and layers.
const FORMAT_KEY: &str = "extractor.format";

/// The form that is read and written.
const FORMAT: u32 = 2;

/// Refuses every form but [`FORMAT`].
fn check_format(key: &'static str, format: u64) -> Result<(), LoadError> {
    match format == u64::from(FORMAT) {
        true => Ok(()),
        false => Err(LoadError::ExtractorFormat { key, format, read: FORMAT }),
    }
}

/// The largest configuration, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Whether the file or folder at `path` is an extractor; also `false` if it cannot be read.
pub fn is_extractor(path: &Path) -> bool {
    match locate(path) {
        Ok(Some(file)) => Gguf::open(&file).is_ok_and(|file| file.architecture() == ARCHITECTURE),
        Ok(None) => {
            let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
            let json = read_bounded(&folder.join("config.json"), "config.json", MAX_CONFIG);
            json.is_ok_and(|json| config::model_type(&json).is_some_and(|name| name == ARCHITECTURE))
        }
        Err(_) => false,
    }
}
