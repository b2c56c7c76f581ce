//! Layers of the gated delta rule in a `config.json`: which layers use it, and their constants.

use serde_json::{Map, Value, json};

use super::super::{Mixer, ModelConfig};
use super::fields::{Fields, JsonError, unsupported, wrong};

/// The mixer of each layer.
pub(super) const LAYER_TYPES: &str = "layer_types";
const INTERVAL: &str = "full_attention_interval";
const TAPS: &str = "linear_conv_kernel_dim";
const SIZES: [&str; 2] = ["linear_key_head_dim", "linear_value_head_dim"];
const HEADS: [&str; 2] = ["linear_num_key_heads", "linear_num_value_heads"];
/// Names of mixers.
const DELTA: &str = "linear_attention";
const ATTENTION: &str = "full_attention";
/// The interval of the class if a file gives neither it nor the mixers.
const USUAL: usize = 4;

/// Mixers and constants.
pub(super) fn read(f: &Fields<'_>, c: &mut ModelConfig) -> Result<(), JsonError> {
    let layers = c.num_hidden_layers;
    c.mixers = match f.get(LAYER_TYPES) {
        Some(Value::Array(names)) => {
            // Numbers in the file do not determine the length of the list.
            if names.len() != layers {
                let reason = format!("there must be one for each of {layers} layers");
                return Err(unsupported(LAYER_TYPES, format!("{} names", names.len()), &reason));
            }
            names.iter().map(mixer).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong(LAYER_TYPES, "a list of names", other)),
        None if layers <= 1 << 12 => ModelConfig::every(layers, interval(f)?),
        None => return Err(unsupported("num_hidden_layers", layers, "at most 4096 layers are supported")),
    };
    if !c.has_delta() {
        // A model without such layers always has an empty list.
        c.mixers = Vec::new();
        return Ok(());
    }
    let need = |key: &str| {
        let missing = || JsonError::Missing { key: key.to_owned(), needed_for: "layers of the gated delta rule" };
        f.get_size(key)?.ok_or_else(missing)
    };
    let [keys, values] = SIZES.map(need);
    let (keys, values) = (keys?, values?);
    if keys != values {
        let reason = format!("{} is {keys}; keys and values of one width are supported only", SIZES[0]);
        return Err(unsupported(SIZES[1], values, &reason));
    }
    c.delta.state_size = keys;
    [c.delta.key_heads, c.delta.value_heads] = [need(HEADS[0])?, need(HEADS[1])?];
    c.delta.conv_kernel = f.get_size(TAPS)?.unwrap_or(4);
    Ok(())
}

fn interval(f: &Fields<'_>) -> Result<usize, JsonError> {
    match f.get_size(INTERVAL)?.unwrap_or(USUAL) {
        0 => Err(unsupported(INTERVAL, 0, "it must be at least 1")),
        interval => Ok(interval),
    }
}

fn mixer(name: &Value) -> Result<Mixer, JsonError> {
    match name.as_str() {
        Some(DELTA) => Ok(Mixer::GatedDelta),
        Some(ATTENTION) => Ok(Mixer::Attention),
        _ => Err(unsupported(LAYER_TYPES, name, "expected linear_attention or full_attention")),
    }
}

/// Adds mixers and constants.
pub(super) fn put(map: &mut Map<String, Value>, c: &ModelConfig) {
    let word = |l: usize| if c.mixer(l) == Mixer::GatedDelta { DELTA } else { ATTENTION };
    let types: Vec<&str> = (0..c.num_hidden_layers).map(word).collect();
    map.insert(LAYER_TYPES.to_owned(), types.into());
    if c.has_delta() {
        let o = &c.delta;
        for key in SIZES {
            map.insert(key.to_owned(), json!(o.state_size));
        }
        map.insert(HEADS[0].to_owned(), json!(o.key_heads));
        map.insert(HEADS[1].to_owned(), json!(o.value_heads));
        map.insert(TAPS.to_owned(), json!(o.conv_kernel));
    }
}
