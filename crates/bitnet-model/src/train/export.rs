//! A finished run as a Hugging Face folder of master weights, which every converter of this project reads.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use super::checkpoint::write_atomically;
use super::config::model_to_json;
use super::{Params, TrainError};
use crate::ModelConfig;

/// Writes `config.json` and `model.safetensors` (F32 master weights, quantised by whoever reads them, `quantization_mode`
/// `online`) to the folder `dir`, which is created where it is absent.
///
/// # Errors
/// Files that cannot be written.
pub fn write_master(dir: &Path, model: &ModelConfig, params: &Params) -> Result<(), TrainError> {
    std::fs::create_dir_all(dir).map_err(TrainError::io("create", dir))?;
    let path = dir.join("model.safetensors");
    let bad = |e: safetensors::SafeTensorError| TrainError::File { path: path.clone(), problem: e.to_string() };
    let mut views = Vec::new();
    for e in &params.entries {
        let bytes = bytemuck::cast_slice(&params.values[e.range.clone()]);
        views.push((e.name.as_str(), TensorView::new(Dtype::F32, e.shape.clone(), bytes).map_err(bad)?));
    }
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(bad)?;
    write_atomically(&path, &bytes)?;
    write_atomically(&dir.join("config.json"), format!("{:#}\n", model_to_json(model)).as_bytes())
}
