//! Keys that would change what a model computes, and that are not implemented here: each may only have a value without
//! effect.
//!
//! Other values are rejected by the name of the key, because ignoring them would compute another model. Keys that only
//! describe (training, licences, caches) are not listed and are ignored.

use bitnet_model::{Architecture, ModelConfig, RopeScaling, config_json};
use serde_json::{Map, Value as Json};

use super::from_gguf::{ATTENTION_SCALE, SCALES};
use super::unsupported;
use crate::LoadError;
use crate::architecture::qwen35;
use crate::gguf::{Metadata, Value};

/// Values that a key may have.
#[derive(Clone, Copy)]
enum Neutral {
    /// Nothing, null, false, 0, or an empty text or list.
    Off,
    /// Like `Off`, or 1: it multiplies, and 0 means that it does not.
    One,
    /// Like `Off`, or the number that the model has anyway.
    Equal(fn(&ModelConfig) -> f64),
    /// Like `Off`, or negative, or at least as long as the context: a window that sees everything.
    Window,
    /// Like `Off`, or one of these words.
    Words(&'static [&'static str]),
    /// Only `true`, which is also the default.
    True,
}

use Neutral::{Equal, Off, One, True, Window, Words};

const SCALE: fn(&ModelConfig) -> f64 = |c| 1.0 / (c.head_dim as f64).sqrt();
const HEAD_DIM: fn(&ModelConfig) -> f64 = |c| c.head_dim as f64;
const HIDDEN: fn(&ModelConfig) -> f64 = |c| c.hidden_size as f64;

/// Keys of GGUF files, without the architecture. A key that ends in a point is a prefix.
const GGUF: &[(&str, Neutral)] = &[
    ("expert_count", Off),
    ("expert_used_count", Off),
    ("expert_shared_count", Off),
    ("expert_feed_forward_length", Off),
    ("expert_shared_feed_forward_length", Off),
    ("expert_weights_scale", One),
    ("leading_dense_block_count", Off),
    ("interleave_moe_layer_step", Off),
    ("nextn_predict_layers", Off),
    ("use_parallel_residual", Off),
    ("tensor_data_layout", Words(&["Meta AI original pth"])),
    ("logit_scale", One),
    ("residual_scale", One),
    ("embedding_scale", One),
    ("attn_logit_softcapping", Off),
    ("final_logit_softcapping", Off),
    ("router_logit_softcapping", Off),
    ("swin_norm", Off),
    ("rescale_every_n_layers", Off),
    ("token_shift_count", Off),
    ("full_attention_interval", One),
    ("activation_sparsity_scale", Off),
    ("embedding_length_out", Equal(HIDDEN)),
    ("embedding_length_per_layer_input", Off),
    ("n_deepstack_layers", Off),
    ("decoder_block_count", Off),
    ("altup.", Off),
    ("ssm.", Off),
    ("wkv.", Off),
    ("posnet.", Off),
    ("convnext.", Off),
    ("shortconv.", Off),
    ("xielu.", Off),
    ("attention.scale", Equal(SCALE)),
    ("attention.output_scale", One),
    ("attention.temperature_length", Off),
    ("attention.temperature_scale", Off),
    ("attention.max_alibi_bias", Off),
    ("attention.clamp_kqv", Off),
    ("attention.sliding_window", Window),
    ("attention.causal", True),
    ("attention.q_lora_rank", Off),
    ("attention.kv_lora_rank", Off),
    ("attention.key_length_mla", Off),
    ("attention.value_length_mla", Off),
    ("attention.relative_buckets_count", Off),
    ("attention.shared_kv_layers", Off),
    ("attention.group_norm_epsilon", Off),
    ("attention.group_norm_groups", Off),
    ("attention.layer_norm_epsilon", Equal(|c| f64::from(c.rms_norm_eps))),
    ("rope.dimension_sections", Off),
    ("rope.scaling.attn_factor", One),
    ("rope.scaling.alpha", One),
    ("rope.scaling.yarn_attn_factor", One),
    ("rope.scaling.yarn_ext_factor", One),
    ("rope.scaling.yarn_log_multiplier", Off),
];

/// Keys of GGUF files, without the architecture, that are read elsewhere or change nothing.
const KNOWN: &[&str] = &[
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "feed_forward_activation",
    "hidden_activation",
    "hidden_act",
    "mixers",
    "ttt.",
    "delta.",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.",
    "pooling_type",
    "expert_weights_norm",
    "expert_gating_func",
    "expert_group_count",
    "expert_group_used_count",
    "decoder_start_token_id",
];

/// Fields of a `config.json`.
const HF: &[(&str, Neutral)] = &[
    ("attention_bias", Off),
    ("mlp_bias", Off),
    ("qkv_bias", Off),
    ("use_qkv_bias", Off),
    ("attention_out_bias", Off),
    ("use_bias", Off),
    ("bias", Off),
    ("attn_logit_softcapping", Off),
    ("final_logit_softcapping", Off),
    ("logits_soft_cap", Off),
    ("clip_qkv", Off),
    ("num_experts", Off),
    ("num_local_experts", Off),
    ("n_routed_experts", Off),
    ("n_shared_experts", Off),
    ("moe_intermediate_size", Off),
    ("num_nextn_predict_layers", Off),
    ("alibi", Off),
    ("use_alibi", Off),
    ("use_parallel_residual", Off),
    ("parallel_attn", Off),
    ("use_qk_norm", Off),
    ("qk_norm", Off),
    ("qk_layernorm", Off),
    ("attn_temperature_tuning", Off),
    ("add_cross_attention", Off),
    ("is_encoder_decoder", Off),
    ("rope_interleave", Off),
    ("rope_interleaved", Off),
    ("no_rope_layer_interval", Off),
    // One number for each layer, 1 if it has a rotary embedding.
    ("no_rope_layers", True),
    ("use_rope", True),
    ("is_causal", True),
    ("use_bidirectional_attention", Off),
    ("logit_scale", One),
    ("logits_scaling", One),
    ("embedding_multiplier", One),
    ("embedding_scale", One),
    ("scale_emb", One),
    ("residual_multiplier", One),
    ("residual_scale", One),
    ("attention_multiplier", Equal(SCALE)),
    ("attention_scale", Equal(SCALE)),
    ("attn_scale", Equal(SCALE)),
    ("query_pre_attn_scalar", Equal(HEAD_DIM)),
    ("scale_depth", Equal(|c| (c.num_hidden_layers as f64).sqrt())),
    ("dim_model_base", Equal(HIDDEN)),
    ("partial_rotary_factor", One),
    ("rotary_pct", One),
    ("rope_pct", One),
    ("rope_percent", One),
    ("rope_ratio", One),
    ("rotary_dim", Equal(HEAD_DIM)),
    ("v_head_dim", Equal(HEAD_DIM)),
    ("attention_chunk_size", Window),
    ("attention_window_size", Window),
    ("input_bits", Equal(|_| 8.0)),
    ("position_embedding_type", Words(&["rope", "rotary"])),
    ("norm_type", Words(&["rmsnorm", "rms_norm", "rms"])),
    ("normalization_type", Words(&["rmsnorm", "rms_norm", "rms"])),
];

/// A value of either container.
enum PlainValue {
    Nothing,
    Flag(bool),
    Number(f64),
    Word(String),
    List(Vec<PlainValue>),
    Other,
}

impl From<&Json> for PlainValue {
    fn from(value: &Json) -> Self {
        match value {
            Json::Null => PlainValue::Nothing,
            Json::Bool(b) => PlainValue::Flag(*b),
            Json::Number(n) => n.as_f64().map_or(PlainValue::Other, PlainValue::Number),
            Json::String(s) => PlainValue::Word(s.clone()),
            Json::Array(list) => PlainValue::List(list.iter().map(PlainValue::from).collect()),
            Json::Object(map) if map.is_empty() => PlainValue::Nothing,
            Json::Object(_) => PlainValue::Other,
        }
    }
}

impl From<&Value> for PlainValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(b) => PlainValue::Flag(*b),
            Value::String(s) => PlainValue::Word(s.clone()),
            Value::Array(array) => match array {
                crate::gguf::Array::Bool(all) => PlainValue::List(all.iter().map(|b| PlainValue::Flag(*b)).collect()),
                crate::gguf::Array::F32(all) => {
                    PlainValue::List(all.iter().map(|v| PlainValue::Number(f64::from(*v))).collect())
                }
                crate::gguf::Array::F64(all) => PlainValue::List(all.iter().map(|v| PlainValue::Number(*v)).collect()),
                other => match other.to_i64s() {
                    Some(all) => PlainValue::List(all.iter().map(|v| PlainValue::Number(*v as f64)).collect()),
                    None if other.is_empty() => PlainValue::Nothing,
                    None => PlainValue::Other,
                },
            },
            other => match (other.to_f64(), other.to_u64()) {
                (Some(x), _) => PlainValue::Number(x),
                (None, Some(n)) => PlainValue::Number(n as f64),
                // Only negative integers remain.
                (None, None) => other.to_string().parse().map_or(PlainValue::Other, PlainValue::Number),
            },
        }
    }
}

impl PlainValue {
    fn is(&self, neutral: Neutral, c: &ModelConfig) -> bool {
        let near = |x: f64, y: f64| (x - y).abs() <= y.abs() * 1e-5;
        match (self, neutral) {
            (PlainValue::List(all), _) => all.iter().all(|v| v.is(neutral, c)),
            (PlainValue::Other, _) => false,
            (PlainValue::Flag(b), True) => *b,
            (PlainValue::Number(x), True) => *x != 0.0,
            (PlainValue::Nothing | PlainValue::Flag(false), _) => true,
            (PlainValue::Word(s), Words(words)) => s.is_empty() || words.iter().any(|w| s.eq_ignore_ascii_case(w)),
            (PlainValue::Word(s), _) => s.is_empty() || s.eq_ignore_ascii_case("none"),
            (PlainValue::Flag(true), _) => false,
            (PlainValue::Number(x), _) if *x == 0.0 => true,
            (PlainValue::Number(x), One) => *x == 1.0,
            (PlainValue::Number(x), Equal(of)) => near(*x, of(c)),
            (PlainValue::Number(x), Window) => *x < 0.0 || *x >= c.max_position_embeddings as f64,
            (PlainValue::Number(_), Off | Words(_)) => false,
        }
    }
}

fn reason(neutral: Neutral, c: &ModelConfig) -> String {
    let only = match neutral {
        Off | True => "the model would compute something else".to_owned(),
        One => "only 1 is supported".to_owned(),
        Equal(of) => format!("only {} is supported", of(c)),
        Window => "attention over the whole context is supported only".to_owned(),
        Words(words) => format!("known is {}", words.join(", ")),
    };
    format!("this is not implemented, and ignoring it would compute another model: {only}")
}

/// Rejects unsupported keys of a GGUF file; returns notes on unknown keys.
pub(crate) fn check_gguf(
    m: &Metadata,
    architecture: &str,
    family: Architecture,
    c: &ModelConfig,
) -> Result<Vec<String>, LoadError> {
    if let Some(kind) = m.str("general.type")?
        && !matches!(kind, "" | "model")
    {
        return Err(unsupported("general.type", kind, "only models are read, not their companion files"));
    }
    // Rotated weights give fluent nonsense if their inputs are not rotated.
    if let Some((key, value)) = m.iter().find(|(key, _)| key.starts_with("prism.") && !family.formulas().fold) {
        let reason = "weights folded with a signed Hadamard transform are not implemented for this architecture; take the file without the \
             fold";
        return Err(unsupported(key, value, reason));
    }
    let mut unknown = Vec::new();
    let prefix = format!("{architecture}.");
    for (key, value) in m.iter() {
        let Some(short) = key.strip_prefix(&prefix) else { continue };
        if is_read(short, family, c) {
            continue;
        }
        let fits = |name: &str| short == name || (name.ends_with('.') && short.starts_with(name));
        if let Some((_, neutral)) = GGUF.iter().find(|(name, _)| fits(name)) {
            if !PlainValue::from(value).is(*neutral, c) {
                return Err(unsupported(key, value, &reason(*neutral, c)));
            }
        } else if !KNOWN.iter().any(|name| fits(name)) && !is_input_form(short) && !PlainValue::from(value).is(Off, c) {
            unknown.push(key.to_owned());
        }
    }
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let more = unknown.len().saturating_sub(4);
    unknown.truncate(4);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok(vec![format!("metadata keys that are not known were ignored: {}{more}", unknown.join(", "))])
}

/// Keys that the reader of this family takes although others must not change their values.
fn is_read(short: &str, family: Architecture, c: &ModelConfig) -> bool {
    let f = family.formulas();
    let scales_attention = matches!(c.rope_scaling, RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. });
    f.scales && SCALES.contains(&short)
        || f.attention_scale && short == ATTENTION_SCALE
        || f.delta && qwen35::reads(short)
        || scales_attention && matches!(short, "rope.scaling.attn_factor" | "rope.scaling.yarn_attn_factor")
}

/// Keys of the forms of activations, which are read and rejected elsewhere.
fn is_input_form(short: &str) -> bool {
    short.ends_with(".hadamard_block") || short.ends_with(".activation_bits")
}

/// Rejects unsupported fields of a `config.json`.
pub(crate) fn check_hf(map: &Map<String, Json>, family: Architecture, c: &ModelConfig) -> Result<(), LoadError> {
    for (key, neutral) in HF {
        if let Some(value) = map.get(*key)
            && !value.is_null()
            && !config_json::reads(family, key)
            && !PlainValue::from(value).is(*neutral, c)
        {
            return Err(unsupported(key, short(value), &reason(*neutral, c)));
        }
    }
    let windowed = |key: &str| map.get(key).map(PlainValue::from).is_some_and(|v| !v.is(Window, c));
    let used = map.get("use_sliding_window") != Some(&Json::Bool(false));
    // The reader of a family with layers of the gated delta rule has looked at their types.
    let delta = family.formulas().delta;
    let local = |v: &Json| !delta && v.as_str().is_some_and(|s| s != "full_attention" && s != "attention");
    let layers = map.get("layer_types").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    // The class has windows in five of six layers by default, so files must state that all layers see everything.
    if family == Architecture::Gemma3 && layers.is_empty() && !map.contains_key("sliding_window") {
        return Err(LoadError::MissingKey {
            key: "layer_types".to_owned(),
            needed_for: "knowing that no layer has a window",
        });
    }
    // A window that no layer has does not count; one that sees the whole context changes nothing.
    if used && windowed("sliding_window") && (layers.is_empty() || layers.iter().any(local)) {
        let value = map.get("sliding_window").map(short).unwrap_or_default();
        return Err(unsupported("sliding_window", value, &reason(Window, c)));
    }
    let whole = map.get("sliding_window").is_some_and(Json::is_number) && !windowed("sliding_window");
    if let Some(kind) = layers.iter().find(|v| local(v) && !(whole && v.as_str() == Some("sliding_attention"))) {
        return Err(unsupported("layer_types", short(kind), "layers of full attention are supported only"));
    }
    Ok(())
}

fn short(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
