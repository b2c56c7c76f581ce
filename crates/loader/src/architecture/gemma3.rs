//! Gemma 3 without windows: norms of outputs, GELU, embeddings scaled by the square root of their length.

use bitnet_model::{Activation, Norm};

use super::{LLAMA, Rules};

pub(super) static RULES: Rules = Rules { gguf_activation: Some(Activation::GeluTanh), gain_offset, ..LLAMA };

/// The family multiplies by `1 + w`: safetensors hold `w`, GGUF files the sum. Norms of single projections are not part
/// of the family, and plain in both.
fn gain_offset(norm: Norm) -> f32 {
    match norm {
        Norm::Input(_)
        | Norm::PostAttention(_)
        | Norm::HeadQ(_)
        | Norm::HeadK(_)
        | Norm::MixerOut(_)
        | Norm::FfnOut(_)
        | Norm::Final => 1.0,
        Norm::ProjectionIn(..) | Norm::PreConv(_) | Norm::AttnSub(_) | Norm::FfnSub(_) => 0.0,
    }
}
