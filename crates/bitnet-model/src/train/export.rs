//! A finished run as a Hugging Face folder of master weights, which every converter of this project reads.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use ternary_kernels::quantize::{absmean_quantize, absmean_quantize_groups};
use ternary_kernels::{Scales, TernaryMatrix};

use super::params::{EMBEDDING, HEAD};
use super::shape::model_to_json;
use super::{Params, TrainError};
use crate::files;
use crate::{DeltaTensor, FloatMatrix, ModelConfig, ModelError, Norm, Projection, Table, TttTensor, WeightSource};

/// Master weights as a source for the inference engine, quantised like in training.
#[derive(Clone, Copy, Debug)]
pub struct MasterWeights<'a> {
    /// The model's shape.
    pub model: &'a ModelConfig,
    /// Its parameters.
    pub params: &'a Params,
}

/// The factor of the softplus of decays whose logarithm is learned, as readers of checkpoints compute it.
pub(super) fn decay_factor(log: f32) -> f32 {
    -(f64::from(log).exp()) as f32
}

impl MasterWeights<'_> {
    fn table(&self, name: &str) -> Result<Table, ModelError> {
        FloatMatrix::from_f32(self.model.vocab_size, self.model.hidden_size, self.tensor(name)?).map(Table::Float)
    }

    fn tensor(&self, name: &str) -> Result<&[f32], ModelError> {
        let missing = |_| ModelError::TensorSize { tensor: name.to_owned(), expected: 1, got: 0 };
        self.params.get(name).map_err(missing)
    }
}

impl WeightSource for MasterWeights<'_> {
    type Error = ModelError;

    fn config(&self) -> &ModelConfig {
        self.model
    }

    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let (rows, cols) = self.model.projection_shape(layer, which);
        let w = self.tensor(&format!("{}.weight", self.model.projection_name(layer, which)))?;
        let (trits, scales) = match self.model.weight_group {
            None => {
                let (trits, alpha) = absmean_quantize(w, rows, cols)?;
                (trits, Scales::Tensor(alpha))
            }
            Some(len) => {
                let (trits, scales) = absmean_quantize_groups(w, rows, cols, len)?;
                (trits, Scales::Groups(scales))
            }
        };
        Ok(TernaryMatrix::from_trits(rows, cols, &trits, scales)?)
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        Ok(self.tensor(&self.model.norm_name(which))?.to_vec())
    }

    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, ModelError> {
        Ok(self.tensor(&self.model.ttt_tensor_name(layer, which))?.to_vec())
    }

    fn delta_tensor(&self, layer: usize, which: DeltaTensor) -> Result<Vec<f32>, ModelError> {
        let values = self.tensor(&self.model.delta_tensor_name(layer, which))?;
        Ok(match which {
            DeltaTensor::Decay => values.iter().map(|log| decay_factor(*log)).collect(),
            DeltaTensor::Alpha | DeltaTensor::Beta | DeltaTensor::Conv => values.to_vec(),
            DeltaTensor::DecayBias | DeltaTensor::Norm => values.to_vec(),
        })
    }

    fn embedding(&self) -> Result<Table, ModelError> {
        self.table(EMBEDDING)
    }

    fn head(&self) -> Result<Table, ModelError> {
        self.table(HEAD)
    }
}

/// Writes `config.json` and `model.safetensors` (F32 master weights, quantised by their reader: `quantization_mode`
/// `online`, or `weight_group_size`, which only this project supports) to the folder `dir`, which is created if
/// necessary.
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
    files::write(&path, &bytes)?;
    Ok(files::write(&dir.join("config.json"), format!("{:#}\n", model_to_json(model)?).as_bytes())?)
}
