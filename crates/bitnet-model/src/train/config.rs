//! Configuration of a run, as it is written in a file and kept in checkpoints.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AdamWOptions, Schedule, TrainError};
use crate::{Activation, ModelConfig};

/// Everything that decides what a run computes, but for the model's shape and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Windows of a batch.
    pub batch: usize,
    /// Batches of a step, whose gradients are averaged.
    pub accumulate: usize,
    /// Predicted tokens of a window.
    pub context: usize,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// Deviation of the initial matrices.
    pub init_std: f64,
    /// Largest norm of the gradient; larger ones are scaled down. 0 for no clipping.
    pub clip: f64,
    /// Lanes of the fused learner, one thread each; part of what decides the bits.
    pub threads: usize,
    /// Steps between validations; 0 for none but the last.
    pub validate_every: u64,
    /// At most this many windows of validation.
    pub validate_windows: u64,
    /// Steps between checkpoints; 0 for none but the last.
    pub checkpoint_every: u64,
    /// Steps over which the inner learning rate of test-time-training layers rises to its full value; 0 for none.
    pub inner_warmup: u64,
    /// The share of the inner learning rate that the warm-up begins with, above 0.
    pub inner_start: f64,
    /// Stop after this many validations without a better one; 0 for never.
    pub patience: u64,
    /// Learning rate and weight decay.
    pub schedule: Schedule,
    /// Optimizer.
    pub adamw: AdamWOptions,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            inner_warmup: 0,
            inner_start: 0.1,
            steps: 1000,
            batch: 32,
            accumulate: 1,
            context: 256,
            seed: 1,
            init_std: 0.02,
            clip: 1.0,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(1024)),
            validate_every: 100,
            validate_windows: 128,
            checkpoint_every: 100,
            patience: 0,
            schedule: Schedule::default(),
            adamw: AdamWOptions::default(),
        }
    }
}

impl TrainConfig {
    /// Checks that every number can be used.
    ///
    /// # Errors
    /// [`TrainError::Option`] naming the first that cannot.
    pub fn validate(&self) -> Result<(), TrainError> {
        let s = &self.schedule;
        let o = &self.adamw;
        let rate = |v: f64| v.is_finite() && (0.0..=10.0).contains(&v);
        let beta = |v: f64| (0.0..1.0).contains(&v);
        let start = self.inner_start;
        let checks: [(&'static str, String, bool, &'static str); 16] = [
            ("steps", self.steps.to_string(), self.steps > 0, "at least 1"),
            ("batch", self.batch.to_string(), (1..=1 << 20).contains(&self.batch), "1 to 1048576"),
            ("accumulate", self.accumulate.to_string(), (1..=1 << 20).contains(&self.accumulate), "1 to 1048576"),
            ("context", self.context.to_string(), (1..=1 << 20).contains(&self.context), "1 to 1048576"),
            ("threads", self.threads.to_string(), (1..=1024).contains(&self.threads), "1 to 1024"),
            ("init_std", self.init_std.to_string(), rate(self.init_std), "0 to 10"),
            ("clip", self.clip.to_string(), self.clip.is_finite() && self.clip >= 0.0, "0 or more"),
            ("inner_start", start.to_string(), start > 0.0 && start <= 1.0, "above 0, at most 1"),
            ("peak", s.peak.to_string(), rate(s.peak), "0 to 10"),
            ("peak2", s.peak2.to_string(), rate(s.peak2), "0 to 10"),
            ("boundary", s.boundary.to_string(), (0.0..=1.0).contains(&s.boundary), "0 to 1"),
            ("weight_decay", s.weight_decay.to_string(), rate(s.weight_decay), "0 to 10"),
            ("weight_decay2", s.weight_decay2.to_string(), rate(s.weight_decay2), "0 to 10"),
            ("beta1", o.beta1.to_string(), beta(o.beta1), "0 or more and below 1"),
            ("beta2", o.beta2.to_string(), beta(o.beta2), "0 or more and below 1"),
            ("eps", o.eps.to_string(), o.eps.is_finite() && o.eps > 0.0, "above 0"),
        ];
        match checks.into_iter().find(|c| !c.2) {
            Some((option, value, _, must)) => Err(TrainError::Option { option, value, must }),
            None => Ok(()),
        }
    }

    /// The share of the inner learning rate at step `step`, counted from 0.
    ///
    /// ```
    /// use bitnet_model::train::TrainConfig;
    /// let c = TrainConfig { inner_warmup: 9, inner_start: 0.1, ..TrainConfig::default() };
    /// assert_eq!((c.inner_rate(0), c.inner_rate(9), c.inner_rate(100)), (0.1, 1.0, 1.0));
    /// ```
    pub fn inner_rate(&self, step: u64) -> f64 {
        if step >= self.inner_warmup {
            return 1.0;
        }
        self.inner_start + (1.0 - self.inner_start) * step as f64 / self.inner_warmup as f64
    }

    /// Predicted tokens of a step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch * self.accumulate * self.context) as u64
    }
}

/// A model's shape from the keys of a Hugging Face `config.json`; what is absent has the value of BitNet b1.58 2B4T.
///
/// # Errors
/// [`TrainError::Option`] for a key that is missing or has a value of the wrong kind.
pub fn model_from_json(v: &Value) -> Result<ModelConfig, TrainError> {
    let wrong =
        |option: &'static str, value: &Value, must| TrainError::Option { option, value: value.to_string(), must };
    let size = |key: &'static str, default: Option<usize>| match (&v[key], default) {
        (Value::Null, Some(n)) => Ok(n),
        (value, _) => value.as_u64().map(|n| n as usize).ok_or_else(|| wrong(key, value, "a whole number")),
    };
    let heads = size("num_attention_heads", None)?;
    let mut c = ModelConfig::new(
        size("vocab_size", None)?,
        size("hidden_size", None)?,
        size("intermediate_size", None)?,
        size("num_hidden_layers", None)?,
        heads,
        size("num_key_value_heads", Some(heads))?,
    );
    c.head_dim = size("head_dim", Some(c.head_dim))?;
    c.max_position_embeddings = size("max_position_embeddings", Some(c.max_position_embeddings))?;
    c.hidden_act = match &v["hidden_act"] {
        Value::Null => c.hidden_act,
        Value::String(s) if s == "relu2" => Activation::Relu2,
        Value::String(s) if s == "silu" => Activation::Silu,
        other => return Err(wrong("hidden_act", other, "relu2 or silu")),
    };
    let number = |key: &'static str, default: f64| match &v[key] {
        Value::Null => Ok(default),
        value => value.as_f64().ok_or_else(|| wrong(key, value, "a number")),
    };
    c.rms_norm_eps = number("rms_norm_eps", 1e-5)? as f32;
    c.rope_theta = number("rope_theta", c.rope_theta)?;
    c.tie_word_embeddings = match &v["tie_word_embeddings"] {
        Value::Null => true,
        value => value.as_bool().ok_or_else(|| wrong("tie_word_embeddings", value, "true or false"))?,
    };
    let id = |key: &'static str| match &v[key] {
        Value::Null => Ok(None),
        value => value.as_u64().and_then(|n| u32::try_from(n).ok()).map(Some).ok_or_else(|| wrong(key, value, "an id")),
    };
    c.bos_token_id = id("bos_token_id")?;
    c.eos_token_ids = id("eos_token_id")?.into_iter().collect();
    c.validate()?;
    Ok(c)
}

/// The `config.json` of a model with float master weights that are quantised when they are read.
pub fn model_to_json(c: &ModelConfig) -> Value {
    json!({
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": c.hidden_act.name(),
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.max_position_embeddings,
        "tie_word_embeddings": c.tie_word_embeddings,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_ids.first(),
        "torch_dtype": "float32",
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        },
    })
}
