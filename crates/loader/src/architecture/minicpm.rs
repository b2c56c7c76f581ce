//! MiniCPM: LLaMA with scales of embedding, residual branches and logits, and the factors of LongRoPE in two tensors.

use bitnet_model::ModelConfig;

use super::{LLAMA, Rules, Scales};
use crate::config::to_f32;
use crate::loaded::QkLayout;

pub(super) static RULES: Rules =
    Rules { gguf_qk: QkLayout::Interleaved, longrope_tensors: true, absent_scales: Some(absent_scales), ..LLAMA };

/// The values of files that were made before there were keys for them.
fn absent_scales(c: &ModelConfig) -> Scales {
    Scales {
        embedding: 12.0,
        residual: to_f32(1.4 / (c.num_hidden_layers as f64).sqrt()),
        logits: to_f32(c.hidden_size as f64 / 256.0),
    }
}
