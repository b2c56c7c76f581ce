//! Everything a run needs to go on bit for bit, in one safetensors file.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shape::{model_from_json, model_to_json};
use super::{AdamW, Params, TrainConfig, TrainError};
use crate::ModelConfig;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Windows drawn from the training data; with the seed it is all there is to know about random numbers.
    pub position: u64,
    /// Best validation loss so far, nats per token.
    pub best: Option<f64>,
    /// Validations since the best one.
    pub since_best: u64,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The model's shape.
    pub model: ModelConfig,
    /// The run's configuration.
    pub config: TrainConfig,
    /// Master weights.
    pub params: Params,
    /// Optimizer with moments and step.
    pub adam: AdamW,
    /// Where the run stands.
    pub progress: Progress,
}

/// The entry of the metadata that says what run this is.
const KEY: &str = "bitnet-train";
const FORMAT: u64 = 1;
const FIRST: &str = "adam.m.";
const SECOND: &str = "adam.v.";

impl Checkpoint {
    /// Writes the file; it gets its name when it is complete and on disk, so a crash leaves the old one.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let mut views = Vec::new();
        for e in &self.params.entries {
            let parts = [("", &self.params.values), (FIRST, &self.adam.m), (SECOND, &self.adam.v)];
            for (prefix, values) in parts {
                let bytes = bytemuck::cast_slice(&values[e.range.clone()]);
                let view = TensorView::new(Dtype::F32, e.shape.clone(), bytes).map_err(|e| bad(path, &e))?;
                views.push((format!("{prefix}{}", e.name), view));
            }
        }
        // One entry, because several would come in any order, and equal runs are to give equal files.
        let about = json!({
            "format": FORMAT,
            "model": model_to_json(&self.model),
            "config": self.config,
            "progress": self.progress,
        });
        let metadata = HashMap::from([(KEY.to_owned(), about.to_string())]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| bad(path, &e))?;
        write_atomically(path, &bytes)
    }

    /// The run goes on as another: with `model`, whose parameters have the same shapes but may be used in another way (four bits
    /// instead of eight), and with `config`. Master weights, moments, step and data position stay; only the best validation loss is
    /// forgotten, as it was that of another model. So the optimizer and its schedule do not notice.
    ///
    /// Paper: arXiv:2504.18415, section 2.2: training ends with four bits, and reuses the states of the optimizer.
    ///
    /// # Errors
    /// Parameters of other shapes; a configuration that cannot be, or that ends before the run stands.
    pub fn second_stage(self, model: ModelConfig, config: TrainConfig) -> Result<Self, TrainError> {
        model.validate()?;
        config.validate()?;
        let shapes = |c: &ModelConfig| super::params::layout(c).into_iter().map(|(name, shape, _)| (name, shape));
        if !shapes(&self.model).eq(shapes(&model)) {
            let what = "parameters of the second stage".to_owned();
            let count = |c: &ModelConfig| format!("{} parameters", c.parameters());
            return Err(TrainError::Mismatch { what, expected: count(&self.model), got: count(&model) });
        }
        if config.steps <= self.progress.step {
            let must = "more than the steps that the first stage has done; they count from its beginning";
            return Err(TrainError::Option { option: "steps", value: config.steps.to_string(), must });
        }
        let mut adam = AdamW::new(config.adamw, 0);
        (adam.m, adam.v, adam.step) = (self.adam.m, self.adam.v, self.adam.step);
        let progress = Progress { best: None, since_best: 0, ..self.progress };
        Ok(Self { model, config, params: self.params, adam, progress })
    }

    /// Reads a file that [`Checkpoint::save`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or belongs to another model than it says.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(path, &e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(path, &e))?;
        let about = header.metadata().as_ref().and_then(|m| m.get(KEY));
        let about =
            about.ok_or_else(|| bad(path, &format!("no {KEY} in the metadata; this is no checkpoint of a run")))?;
        let mut about: Value = serde_json::from_str(about).map_err(|e| bad(path, &e))?;
        if about["format"] != FORMAT {
            return Err(bad(path, &format!("this is a checkpoint of format {}, not {FORMAT}", about["format"])));
        }
        let model = model_from_json(&about["model"])?;
        let config: TrainConfig = serde_json::from_value(about["config"].take()).map_err(|e| bad(path, &e))?;
        config.validate()?;
        let progress: Progress = serde_json::from_value(about["progress"].take()).map_err(|e| bad(path, &e))?;
        // Shapes are checked against the file before anything of their size is made.
        let layout = super::params::layout(&model);
        for (name, shape, _) in &layout {
            for prefix in ["", FIRST, SECOND] {
                let t = file.tensor(&format!("{prefix}{name}")).map_err(|e| bad(path, &e))?;
                if t.dtype() != Dtype::F32 || t.shape() != shape {
                    return Err(bad(
                        path,
                        &format!("{prefix}{name} is {:?} {:?}, not F32 {shape:?}", t.dtype(), t.shape()),
                    ));
                }
            }
        }
        let mut params = Params::zeros(layout);
        let mut adam = AdamW::new(config.adamw, params.values.len());
        adam.step = progress.step;
        for e in params.entries.clone() {
            for (prefix, values) in [("", &mut params.values), (FIRST, &mut adam.m), (SECOND, &mut adam.v)] {
                let t = file.tensor(&format!("{prefix}{}", e.name)).map_err(|e| bad(path, &e))?;
                for (value, bytes) in values[e.range.clone()].iter_mut().zip(t.data().as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
        }
        Ok(Self { model, config, params, adam, progress })
    }
}

fn bad(path: &Path, problem: &dyn std::fmt::Display) -> TrainError {
    TrainError::File { path: path.to_path_buf(), problem: problem.to_string() }
}

/// Writes beside the file, makes sure that it is on disk, and renames.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial).map_err(TrainError::io("create", &partial))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(TrainError::io("write", &partial))?;
    drop(file);
    std::fs::rename(&partial, path).map_err(TrainError::io("rename to", path))
}
