//! Qwen 3.5: layers of the gated delta rule, gated attention in every so many layers, a rotary embedding of a part of
//! each head.

use bitnet_model::{Architecture, ModelConfig, Norm};

use super::{LLAMA, Rules};
use crate::LoadError;
use crate::config::{to_usize, unsupported};
use crate::gguf::{Array, Metadata, Value};

pub(super) static RULES: Rules = Rules { template: Some("chatml"), gain_offset, ..LLAMA };

/// The family multiplies by `1 + w`: safetensors hold `w`, GGUF files the sum. The norm of the outputs of the gated
/// delta rule is plain in both, and no [`Norm`].
fn gain_offset(norm: Norm) -> f32 {
    match norm {
        Norm::Input(_) | Norm::PostAttention(_) | Norm::HeadQ(_) | Norm::HeadK(_) | Norm::Final => 1.0,
        Norm::MixerOut(_) | Norm::FfnOut(_) => 1.0,
        Norm::ProjectionIn(..) | Norm::PreConv(_) | Norm::AttnSub(_) | Norm::FfnSub(_) => 0.0,
    }
}

/// Suffix of names in files with layers that predict further tokens (MTP), and the note about them.
pub(crate) const NEXTN: &str = "nextn_predict_layers";
pub(crate) const NEXTN_NOTE: &str =
    "layers that predict further tokens (nextn, MTP) are not read: nothing here uses them";
const INTERVAL: &str = "full_attention_interval";
const TAPS: &str = "ssm.conv_kernel";
const STATE: &str = "ssm.state_size";
const KEY_HEADS: &str = "ssm.group_count";
const VALUE_HEADS: &str = "ssm.time_step_rank";
const INNER: &str = "ssm.inner_size";
const SECTIONS: &str = "rope.dimension_sections";
/// The default interval of llama.cpp.
const USUAL: usize = 4;
/// More layers than any configuration may have.
const MAX_LAYERS: usize = 1 << 12;

/// Whether these are keys of this family only.
pub(crate) fn reads(short: &str) -> bool {
    // In a text the positions of all sections are equal, so the sections have no effect.
    [NEXTN, INTERVAL, TAPS, STATE, KEY_HEADS, VALUE_HEADS, INNER, SECTIONS].contains(&short)
}

/// Mixers and constants in the metadata of a GGUF file.
pub(crate) fn read(m: &Metadata, architecture: &str, c: &mut ModelConfig) -> Result<(), LoadError> {
    let key = |short: &str| format!("{architecture}.{short}");
    let get = |short: &str| m.u64(&key(short))?.map(|v| to_usize(&key(short), v)).transpose();
    let need = |short: &str| {
        get(short)?
            .ok_or_else(|| LoadError::MissingKey { key: key(short), needed_for: "layers of the gated delta rule" })
    };
    let interval = get(INTERVAL)?.unwrap_or(USUAL);
    if interval == 0 {
        return Err(unsupported(&key(INTERVAL), interval, "it must be at least 1"));
    }
    if c.num_hidden_layers > MAX_LAYERS {
        return Err(unsupported(&key("block_count"), c.num_hidden_layers, "at most 4096 layers are supported"));
    }
    c.mixers = ModelConfig::every(c.num_hidden_layers, interval);
    if c.mixers.is_empty() {
        return Ok(());
    }
    c.delta.conv_kernel = need(TAPS)?;
    c.delta.state_size = need(STATE)?;
    c.delta.key_heads = need(KEY_HEADS)?;
    c.delta.value_heads = need(VALUE_HEADS)?;
    let width = c.delta.value_heads.checked_mul(c.delta.state_size);
    match get(INNER)? {
        Some(inner) if Some(inner) != width => {
            let reason = format!("it must be {VALUE_HEADS} times {STATE}: values as wide as keys are supported only");
            Err(unsupported(&key(INNER), inner, &reason))
        }
        _ => Ok(()),
    }
}

/// Adds them.
pub(crate) fn put(m: &mut Metadata, c: &ModelConfig) {
    let name = Architecture::Qwen35.gguf_name();
    // Sizes of a checked configuration are far below 2^32.
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut set = |short: &str, n: usize| m.set(&format!("{name}.{short}"), number(n));
    // Others are rejected before anything is written.
    set(INTERVAL, c.attention_interval().unwrap_or(1));
    if c.has_delta() {
        set(TAPS, c.delta.conv_kernel);
        set(STATE, c.delta.state_size);
        set(KEY_HEADS, c.delta.key_heads);
        set(VALUE_HEADS, c.delta.value_heads);
        set(INNER, c.delta.value_heads.saturating_mul(c.delta.state_size));
    }
    // The rotated pairs are shared among three dimensions of positions as evenly as in the published models, for
    // programs that need them.
    let pairs = c.rotary_width() / 2;
    let first = pairs.div_ceil(3);
    let second = pairs.saturating_sub(first).div_ceil(2);
    let sections = [first, second, pairs.saturating_sub(first).saturating_sub(second), 0];
    let sections = sections.map(|n| i32::try_from(n).unwrap_or(i32::MAX)).to_vec();
    m.set(&format!("{name}.{SECTIONS}"), Value::Array(Array::I32(sections)));
}
