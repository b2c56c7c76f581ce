//! Mixers and the constants of layers that are not attention in a `config.json`; `docs/formats/bit_ttt.md` describes
//! them.

use serde_json::{Map, Value, json};

use super::super::{DeltaOptions, Mixer, ModelConfig, TttOptions};
use super::fields::{Fields, JsonError, decimal, unsupported, wrong};
use crate::RopePairs;

const MIXERS: &str = "mixers";
const TTT: &str = "ttt";
const DELTA: &str = "delta";
/// More layers than any configuration may have.
const MAX_LAYERS: usize = 1 << 12;

impl TttOptions {
    /// Names of the pairings of the rotary embedding, in both containers.
    pub const PAIRS: [(&str, RopePairs); 2] = [("neighbours", RopePairs::Neighbours), ("halves", RopePairs::Halves)];

    /// The name of [`TttOptions::rope_pairs`].
    pub fn pairs_name(&self) -> &'static str {
        Self::PAIRS.iter().find(|p| p.1 == self.rope_pairs).map_or("", |p| p.0)
    }
}

/// One mixer for each layer, or a single name for all layers.
pub(super) fn mixers(f: &Fields<'_>, layers: usize) -> Result<Vec<Mixer>, JsonError> {
    match f.get(MIXERS) {
        // The names are counted as they are read: numbers in the file do not determine the length of the list.
        Some(Value::String(name)) if layers <= MAX_LAYERS => {
            named_mixers(MIXERS, std::iter::repeat_n(name.as_str(), layers), layers)
        }
        Some(Value::String(_)) => Err(unsupported("num_hidden_layers", layers, "at most 4096 layers are supported")),
        Some(Value::Array(names)) => {
            let word = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| wrong(MIXERS, "names of mixers", v));
            let names = names.iter().map(word).collect::<Result<Vec<_>, _>>()?;
            named_mixers(MIXERS, names.iter().map(String::as_str), layers)
        }
        Some(other) => Err(wrong(MIXERS, "a list of names, or one name for all layers", other)),
        None => Err(JsonError::Missing { key: MIXERS.to_owned(), needed_for: "the mixers of the layers" }),
    }
}

/// The mixers of the layers, from their names, one for each layer; `key` is the field that holds them.
///
/// # Errors
/// [`JsonError::Value`] for a wrong number of names and for unknown names.
pub fn named_mixers<'a>(
    key: &str,
    names: impl Iterator<Item = &'a str>,
    layers: usize,
) -> Result<Vec<Mixer>, JsonError> {
    let mut all = Vec::new();
    for name in names {
        let expected = "expected attention, ttt_linear, ttt_mlp or gated_delta";
        all.push(Mixer::from_name(name).ok_or_else(|| unsupported(key, name, expected))?);
        if all.len() > layers {
            return Err(unsupported(key, format!("more than {layers} names"), "there must be one for each layer"));
        }
    }
    if all.len() != layers {
        return Err(unsupported(key, format!("{} names", all.len()), "there must be one for each layer"));
    }
    // A model without other mixers always has an empty list.
    if all.iter().all(|m| *m == Mixer::Attention) {
        all.clear();
    }
    Ok(all)
}

/// Refuses keys in the sections of test-time-training layers and of layers of the gated delta rule that nothing reads:
/// slips of a pen in a file that is written by hand.
///
/// # Errors
/// [`JsonError::Value`] naming the key.
pub fn refuse_unknown_ttt(map: &Map<String, Value>) -> Result<(), JsonError> {
    for (section, known) in [
        (TTT, to_json(&TttOptions { decay: true, ..TttOptions::default() })),
        (DELTA, delta_to_json(&DeltaOptions::default())),
    ] {
        let Some(given) = Fields(map).object(section)? else { continue };
        if let Some(key) = given.keys().find(|k| known.get(k.as_str()).is_none()) {
            return Err(unsupported(section, format!("a section with {key:?}"), "there is no such key in it"));
        }
    }
    Ok(())
}

/// The constants of test-time-training layers; the defaults are those of [`TttOptions::default`].
pub(super) fn options(f: &Fields<'_>) -> Result<TttOptions, JsonError> {
    let mut o = TttOptions::default();
    let Some(map) = f.object(TTT)? else { return Ok(o) };
    let f = Fields(map);
    let float = |key: &str, default: f32| Ok::<_, JsonError>(f.f64(key)?.map_or(default, |v| v as f32));
    let TttOptions {
        mini_batch_size,
        base_lr_linear,
        base_lr_mlp,
        share_qk,
        conv_kernel,
        use_gate,
        pre_conv,
        decay,
        rope_theta,
        rope_pairs,
        norm_eps,
    } = &mut o;
    *mini_batch_size = f.get_size("mini_batch_size")?.unwrap_or(*mini_batch_size);
    *base_lr_linear = float("base_lr_linear", *base_lr_linear)?;
    *base_lr_mlp = float("base_lr_mlp", *base_lr_mlp)?;
    *share_qk = f.bool("share_qk")?.unwrap_or(*share_qk);
    *conv_kernel = f.get_size("conv_kernel")?.unwrap_or(*conv_kernel);
    *use_gate = f.bool("use_gate")?.unwrap_or(*use_gate);
    *pre_conv = f.bool("pre_conv")?.unwrap_or(*pre_conv);
    *decay = f.bool("decay")?.unwrap_or(*decay);
    *rope_theta = float("rope_theta", *rope_theta)?;
    if let Some(word) = f.str("rope_pairs")? {
        let known = TttOptions::PAIRS.iter().find(|p| p.0 == word);
        *rope_pairs = known.ok_or_else(|| unsupported("ttt.rope_pairs", word, "expected neighbours or halves"))?.1;
    }
    *norm_eps = float("norm_eps", *norm_eps)?;
    Ok(o)
}

fn to_json(o: &TttOptions) -> Value {
    let TttOptions {
        mini_batch_size,
        base_lr_linear,
        base_lr_mlp,
        share_qk,
        conv_kernel,
        use_gate,
        pre_conv,
        decay,
        rope_theta,
        rope_pairs: _,
        norm_eps,
    } = o;
    let mut all = json!({
        "mini_batch_size": mini_batch_size,
        "base_lr_linear": decimal(*base_lr_linear),
        "base_lr_mlp": decimal(*base_lr_mlp),
        "share_qk": share_qk,
        "conv_kernel": conv_kernel,
        "use_gate": use_gate,
        "pre_conv": pre_conv,
        "rope_theta": decimal(*rope_theta),
        "rope_pairs": o.pairs_name(),
        "norm_eps": decimal(*norm_eps),
    });
    if *decay {
        // Absent otherwise: files are what they were before there was one.
        all["decay"] = Value::Bool(true);
    }
    all
}

/// Adds mixers and the constants of all layers that are not attention.
pub(super) fn put(map: &mut Map<String, Value>, c: &ModelConfig) {
    let names: Vec<&str> = (0..c.num_hidden_layers).map(|l| c.mixer(l).name()).collect();
    map.insert(MIXERS.to_owned(), names.into());
    if c.has_ttt() {
        map.insert(TTT.to_owned(), to_json(&c.ttt));
    }
    if c.has_delta() {
        map.insert(DELTA.to_owned(), delta_to_json(&c.delta));
    }
}

/// The constants of layers of the gated delta rule in a model of mixers for each layer; those that are absent are as
/// in [`DeltaOptions::of_heads`].
pub(super) fn delta_options(f: &Fields<'_>, c: &ModelConfig) -> Result<DeltaOptions, JsonError> {
    let mut o = DeltaOptions::of_heads(c);
    let Some(map) = f.object(DELTA)? else { return Ok(o) };
    let f = Fields(map);
    let DeltaOptions { conv_kernel, state_size, key_heads, value_heads } = &mut o;
    *conv_kernel = f.get_size("conv_kernel")?.unwrap_or(*conv_kernel);
    *state_size = f.get_size("state_size")?.unwrap_or(*state_size);
    *key_heads = f.get_size("key_heads")?.unwrap_or(*key_heads);
    *value_heads = f.get_size("value_heads")?.unwrap_or(*value_heads);
    Ok(o)
}

fn delta_to_json(o: &DeltaOptions) -> Value {
    let DeltaOptions { conv_kernel, state_size, key_heads, value_heads } = o;
    json!({
        "conv_kernel": conv_kernel,
        "state_size": state_size,
        "key_heads": key_heads,
        "value_heads": value_heads,
    })
}
