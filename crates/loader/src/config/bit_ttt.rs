//! Models with test-time-training layers: our own architecture, in both containers. `docs/formats/bit_ttt.md` describes it.

use bitnet_model::{Mixer, ModelConfig, RopePairs, TttOptions};
use serde_json::{Value as Json, json};

use super::{decimal, to_f32, unsupported};
use crate::LoadError;
use crate::gguf::{Metadata, StringArray, Value};

/// `general.architecture` and `model_type`.
pub(crate) const ARCHITECTURE: &str = "bit-ttt";
/// `architectures` in a `config.json`.
pub(crate) const CLASS: &str = "BitTttForCausalLM";

/// Typed access to the fields of either container; a field that is absent is `None`.
pub(crate) trait TttFields {
    /// A whole number.
    fn number(&self, key: &str) -> Result<Option<usize>, LoadError>;
    /// A decimal number.
    fn float(&self, key: &str) -> Result<Option<f64>, LoadError>;
    /// Yes or no.
    fn flag(&self, key: &str) -> Result<Option<bool>, LoadError>;
    /// A word.
    fn word(&self, key: &str) -> Result<Option<&str>, LoadError>;
}

/// Words for the elements that the rotary embedding pairs.
const PAIRS: [(&str, RopePairs); 2] = [("neighbours", RopePairs::Neighbours), ("halves", RopePairs::Halves)];

/// The constants of test-time-training layers. Those that are absent are as in [`TttOptions::default`].
pub(crate) fn options(f: &impl TttFields) -> Result<TttOptions, LoadError> {
    let mut o = TttOptions::default();
    o.mini_batch_size = f.number("mini_batch_size")?.unwrap_or(o.mini_batch_size);
    o.base_lr_linear = f.float("base_lr_linear")?.map_or(o.base_lr_linear, to_f32);
    o.base_lr_mlp = f.float("base_lr_mlp")?.map_or(o.base_lr_mlp, to_f32);
    o.share_qk = f.flag("share_qk")?.unwrap_or(o.share_qk);
    o.conv_kernel = f.number("conv_kernel")?.unwrap_or(o.conv_kernel);
    o.use_gate = f.flag("use_gate")?.unwrap_or(o.use_gate);
    o.pre_conv = f.flag("pre_conv")?.unwrap_or(o.pre_conv);
    o.rope_theta = f.float("rope_theta")?.map_or(o.rope_theta, to_f32);
    if let Some(word) = f.word("rope_pairs")? {
        let known = PAIRS.iter().find(|p| p.0 == word);
        o.rope_pairs = known.ok_or_else(|| unsupported("ttt.rope_pairs", word, "known are neighbours and halves"))?.1;
    }
    o.norm_eps = f.float("norm_eps")?.map_or(o.norm_eps, to_f32);
    Ok(o)
}

/// The mixers of the layers, from their names: one for each layer, or one for all.
pub(crate) fn mixers<'a>(
    key: &str,
    names: impl Iterator<Item = &'a str>,
    layers: usize,
) -> Result<Vec<Mixer>, LoadError> {
    let mut all = Vec::new();
    for name in names {
        let known = Mixer::from_name(name);
        all.push(known.ok_or_else(|| unsupported(key, name, "known are attention, ttt_linear and ttt_mlp"))?);
        if all.len() > layers {
            return Err(unsupported(key, format!("more than {layers} names"), "there must be one for each layer"));
        }
    }
    if all.len() != layers {
        return Err(unsupported(key, format!("{} names", all.len()), "there must be one for each layer"));
    }
    // The one form of a model that has no other mixers.
    if all.iter().all(|m| *m == Mixer::Attention) {
        all.clear();
    }
    Ok(all)
}

fn pairs(o: &TttOptions) -> &'static str {
    PAIRS.iter().find(|p| p.1 == o.rope_pairs).map_or("", |p| p.0)
}

fn names(c: &ModelConfig) -> impl Iterator<Item = &'static str> {
    (0..c.num_hidden_layers).map(|l| c.mixer(l).name())
}

/// Adds the keys of this architecture to GGUF metadata.
pub(crate) fn put(m: &mut Metadata, c: &ModelConfig) {
    let o = &c.ttt;
    let mut set = |key: &str, value: Value| m.set(&format!("{ARCHITECTURE}.{key}"), value);
    // Sizes of a checked configuration are far below 2^32.
    let size = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    set("feed_forward_activation", Value::String(c.hidden_act.name().into()));
    set("mixers", Value::from(names(c).collect::<StringArray>()));
    set("ttt.mini_batch_size", size(o.mini_batch_size));
    set("ttt.base_lr_linear", Value::F32(o.base_lr_linear));
    set("ttt.base_lr_mlp", Value::F32(o.base_lr_mlp));
    set("ttt.share_qk", Value::Bool(o.share_qk));
    set("ttt.conv_kernel", size(o.conv_kernel));
    set("ttt.use_gate", Value::Bool(o.use_gate));
    set("ttt.pre_conv", Value::Bool(o.pre_conv));
    set("ttt.rope_theta", Value::F32(o.rope_theta));
    set("ttt.rope_pairs", Value::String(pairs(o).into()));
    set("ttt.norm_eps", Value::F32(o.norm_eps));
}

/// The fields of this architecture in a `config.json`.
pub(crate) fn to_json(c: &ModelConfig) -> Vec<(&'static str, Json)> {
    let o = &c.ttt;
    let ttt = json!({
        "mini_batch_size": o.mini_batch_size,
        "base_lr_linear": decimal(o.base_lr_linear),
        "base_lr_mlp": decimal(o.base_lr_mlp),
        "share_qk": o.share_qk,
        "conv_kernel": o.conv_kernel,
        "use_gate": o.use_gate,
        "pre_conv": o.pre_conv,
        "rope_theta": decimal(o.rope_theta),
        "rope_pairs": pairs(o),
        "norm_eps": decimal(o.norm_eps),
    });
    vec![("mixers", names(c).collect::<Vec<_>>().into()), ("ttt", ttt), ("sub_norms", c.sub_norms.into())]
}
