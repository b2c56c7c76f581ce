//! Reference vectors and checkpoints for tests, read in the simplest way: whole files, trusted content.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::path::{Path, PathBuf};

use bitnet_model::{Activation, FloatMatrix, ModelConfig, ModelError, Norm, Projection, Table, WeightSource};
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use ternary_kernels::{Scales, TernaryMatrix};
use test_support::Tensors;

/// A folder below the reference vectors, or `None` (with a message) if they are missing.
pub(crate) fn fixture(path: &str) -> Option<PathBuf> {
    test_support::shared_dir().map(|dir| dir.join(path))
}

/// A safetensors file in memory.
pub(crate) struct File(Tensors);

impl std::ops::Deref for File {
    type Target = Tensors;

    fn deref(&self) -> &Tensors {
        &self.0
    }
}

impl File {
    pub(crate) fn open(path: &Path) -> Self {
        Self(Tensors::open(path))
    }

    /// A float tensor, as f32.
    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        Tensor::from_vec(self.f32(name), self.shape(name), &Device::Cpu).unwrap()
    }

    /// The bytes of packed weights; `None` for a tensor of another type.
    fn packed(&self, name: &str) -> Option<&[u8]> {
        (self.dtype(name) == Dtype::U8).then(|| self.bytes(name))
    }
}

/// The configuration in a `config.json`.
pub(crate) fn config(path: &Path) -> ModelConfig {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let int = |k: &str| json[k].as_u64().unwrap() as usize;
    let mut c = ModelConfig::new(
        int("vocab_size"),
        int("hidden_size"),
        int("intermediate_size"),
        int("num_hidden_layers"),
        int("num_attention_heads"),
        int("num_key_value_heads"),
    );
    c.hidden_act = match json["hidden_act"].as_str().unwrap() {
        "relu2" => Activation::Relu2,
        "silu" => Activation::Silu,
        other => panic!("activation {other}"),
    };
    c.rms_norm_eps = json["rms_norm_eps"].as_f64().unwrap() as f32;
    c.rope_theta = json["rope_theta"].as_f64().unwrap();
    c.max_position_embeddings = int("max_position_embeddings");
    c.tie_word_embeddings = json["tie_word_embeddings"].as_bool().unwrap();
    c
}

/// A checkpoint folder written by transformers: packed or master weights.
pub(crate) struct Checkpoint {
    pub(crate) config: ModelConfig,
    pub(crate) file: File,
    /// Whether `weight_scale` divides (`linear_class: bitlinear`).
    divide: bool,
}

impl Checkpoint {
    pub(crate) fn open(dir: &Path) -> Self {
        let json = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let divide = json.contains("\"linear_class\": \"bitlinear\"");
        Self { config: config(&dir.join("config.json")), file: File::open(&dir.join("model.safetensors")), divide }
    }

    pub(crate) fn projection_name(layer: usize, p: Projection) -> String {
        let block = if p.in_feed_forward() { "mlp" } else { "self_attn" };
        format!("model.layers.{layer}.{block}.{}.weight", p.name())
    }

    fn matrix(&self, name: &str) -> FloatMatrix {
        let shape = self.file.shape(name);
        FloatMatrix::from_f32(shape[0], shape[1], &self.file.f32(name)).unwrap()
    }
}

/// Absmean in f64 and `round_half_even(w * s)` with `s = 1 / mean`, as in transformers, written without the code under
/// test.
pub(crate) fn absmean(w: &[f32]) -> (Vec<i8>, f32) {
    let mean = w.iter().map(|v| f64::from(v.abs())).sum::<f64>() / w.len() as f64;
    let s = 1.0 / (mean as f32).max(1e-5);
    (w.iter().map(|v| (v * s).round_ties_even().clamp(-1.0, 1.0) as i8).collect(), 1.0 / s)
}

impl WeightSource for Checkpoint {
    type Error = ModelError;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let name = Self::projection_name(layer, which);
        let (rows, cols) = self.config.projection_shape(layer, which);
        let (trits, scale) = match self.file.packed(&name) {
            None => absmean(&self.file.f32(&name)),
            Some(packed) => {
                let quarter = rows / 4;
                let trit = |i: usize| {
                    let (row, col) = (i / cols, i % cols);
                    ((packed[row % quarter * cols + col] >> (2 * (row / quarter))) & 3) as i8 - 1
                };
                let scale = self.file.f32(&format!("{name}_scale"))[0];
                ((0..rows * cols).map(trit).collect(), if self.divide { 1.0 / scale } else { scale })
            }
        };
        Ok(TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(scale))?)
    }

    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        let name = match which {
            Norm::Input(l) => format!("layers.{l}.input_layernorm"),
            Norm::AttnSub(l) => format!("layers.{l}.self_attn.attn_sub_norm"),
            Norm::PostAttention(l) => format!("layers.{l}.post_attention_layernorm"),
            Norm::FfnSub(l) => format!("layers.{l}.mlp.ffn_sub_norm"),
            Norm::Final => "norm".to_string(),
            _ => panic!("no such norm in these checkpoints"),
        };
        Ok(self.file.f32(&format!("model.{name}.weight")))
    }

    fn embedding(&self) -> Result<Table, ModelError> {
        Ok(self.matrix("model.embed_tokens.weight").into())
    }

    fn head(&self) -> Result<Table, ModelError> {
        Ok(self.matrix("lm_head.weight").into())
    }
}

/// All values of a tensor as f32.
pub(crate) fn values(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest absolute difference; infinite if lengths differ or a value is NaN.
pub(crate) fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let diff = |(x, y): (&f32, &f32)| if x == y { 0.0 } else { (x - y).abs() };
    a.iter().zip(b).map(diff).fold(0.0, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })
}

/// Largest magnitude.
pub(crate) fn max_abs(a: &[f32]) -> f32 {
    a.iter().fold(0.0, |m, v| m.max(v.abs()))
}
