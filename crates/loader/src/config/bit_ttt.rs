//! Models with layers of test-time training or of the gated delta rule in GGUF files: our own architecture. `docs/formats/bit_ttt.md` describes it;
//! the `config.json` is read and written by [`bitnet_model::config_json`].

use bitnet_model::{Architecture, DeltaOptions, ModelConfig, TttOptions};

use super::{to_f32, to_usize, unsupported};
use crate::LoadError;
use crate::gguf::{Metadata, StringArray, Value};

/// The constants of test-time-training layers. Those that are absent are as in [`TttOptions::default`].
pub(crate) fn options(m: &Metadata, architecture: &str) -> Result<TttOptions, LoadError> {
    let key = |short: &str| format!("{architecture}.ttt.{short}");
    let size = |short: &str, default: usize| match m.u64(&key(short))? {
        Some(n) => to_usize(&key(short), n),
        None => Ok(default),
    };
    let float = |short: &str, default: f32| Ok::<_, LoadError>(m.f64(&key(short))?.map_or(default, to_f32));
    let flag = |short: &str, default: bool| Ok::<_, LoadError>(m.bool(&key(short))?.unwrap_or(default));
    let mut o = TttOptions::default();
    o.mini_batch_size = size("mini_batch_size", o.mini_batch_size)?;
    o.base_lr_linear = float("base_lr_linear", o.base_lr_linear)?;
    o.base_lr_mlp = float("base_lr_mlp", o.base_lr_mlp)?;
    o.share_qk = flag("share_qk", o.share_qk)?;
    o.conv_kernel = size("conv_kernel", o.conv_kernel)?;
    o.use_gate = flag("use_gate", o.use_gate)?;
    o.pre_conv = flag("pre_conv", o.pre_conv)?;
    o.decay = flag("decay", o.decay)?;
    o.rope_theta = float("rope_theta", o.rope_theta)?;
    if let Some(word) = m.str(&key("rope_pairs"))? {
        let known = TttOptions::PAIRS.iter().find(|p| p.0 == word);
        o.rope_pairs = known.ok_or_else(|| unsupported("ttt.rope_pairs", word, "expected neighbours or halves"))?.1;
    }
    o.norm_eps = float("norm_eps", o.norm_eps)?;
    Ok(o)
}

/// Keys of the constants of layers of the gated delta rule.
const DELTA: [&str; 4] = ["conv_kernel", "state_size", "key_heads", "value_heads"];

/// The constants of layers of the gated delta rule. Those that are absent are as in [`DeltaOptions::of_heads`].
pub(crate) fn delta_options(m: &Metadata, architecture: &str, c: &ModelConfig) -> Result<DeltaOptions, LoadError> {
    let mut o = DeltaOptions::of_heads(c);
    let fields = [&mut o.conv_kernel, &mut o.state_size, &mut o.key_heads, &mut o.value_heads];
    for (short, field) in DELTA.iter().zip(fields) {
        let key = format!("{architecture}.delta.{short}");
        if let Some(n) = m.u64(&key)? {
            *field = to_usize(&key, n)?;
        }
    }
    Ok(o)
}

/// Adds mixers and constants to GGUF metadata.
pub(crate) fn put(m: &mut Metadata, c: &ModelConfig) {
    let o = &c.ttt;
    let mut set = |key: &str, value: Value| m.set(&format!("{}.{key}", Architecture::BitTtt.gguf_name()), value);
    // Sizes of a checked configuration are far below 2^32.
    let size = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    set("mixers", Value::from((0..c.num_hidden_layers).map(|l| c.mixer(l).name()).collect::<StringArray>()));
    if c.has_delta() {
        let o = &c.delta;
        let sizes = [o.conv_kernel, o.state_size, o.key_heads, o.value_heads];
        DELTA.iter().zip(sizes).for_each(|(key, n)| set(&format!("delta.{key}"), size(n)));
    }
    if !c.has_ttt() {
        return;
    }
    set("ttt.mini_batch_size", size(o.mini_batch_size));
    set("ttt.base_lr_linear", Value::F32(o.base_lr_linear));
    set("ttt.base_lr_mlp", Value::F32(o.base_lr_mlp));
    set("ttt.share_qk", Value::Bool(o.share_qk));
    set("ttt.conv_kernel", size(o.conv_kernel));
    set("ttt.use_gate", Value::Bool(o.use_gate));
    set("ttt.pre_conv", Value::Bool(o.pre_conv));
    if o.decay {
        // Absent otherwise: files are what they were before there was one.
        set("ttt.decay", Value::Bool(true));
    }
    set("ttt.rope_theta", Value::F32(o.rope_theta));
    set("ttt.rope_pairs", Value::String(o.pairs_name().into()));
    set("ttt.norm_eps", Value::F32(o.norm_eps));
}
