//! A model's shape as the `config.json` of a Hugging Face folder, which configuration files and checkpoints speak as well.

use serde_json::{Map, Value, json};

use super::TrainError;
use crate::config::{ActivationBits, InputForms, Mixer, TttOptions};
use crate::{Activation, ModelConfig, RopePairs};

/// Words for the elements that the rotary embedding of test-time-training layers pairs.
const PAIRS: [(&str, RopePairs); 2] = [("neighbours", RopePairs::Neighbours), ("halves", RopePairs::Halves)];

fn wrong(option: &'static str, value: &Value, must: &'static str) -> TrainError {
    TrainError::Option { option, value: value.to_string(), must }
}

fn size(v: &Value, key: &'static str, default: Option<usize>) -> Result<usize, TrainError> {
    match (&v[key], default) {
        (Value::Null, Some(n)) => Ok(n),
        (value, _) => value.as_u64().map(|n| n as usize).ok_or_else(|| wrong(key, value, "a whole number")),
    }
}

fn number(v: &Value, key: &'static str, default: f64) -> Result<f64, TrainError> {
    match &v[key] {
        Value::Null => Ok(default),
        value => value.as_f64().ok_or_else(|| wrong(key, value, "a number")),
    }
}

fn flag(v: &Value, key: &'static str, default: bool) -> Result<bool, TrainError> {
    match &v[key] {
        Value::Null => Ok(default),
        value => value.as_bool().ok_or_else(|| wrong(key, value, "true or false")),
    }
}

/// A model's shape from the keys of a Hugging Face `config.json`; what is absent has the value of BitNet b1.58 2B4T.
/// `hadamard` and `activation_bits`, or `input_forms`, say how activations become codes;
/// `mixers` is a name for all layers (`attention`, `ttt_linear`, `ttt_mlp`) or a list of one for each, `ttt` holds the constants of
/// test-time-training layers.
///
/// # Errors
/// [`TrainError::Option`] for a key that is missing or has a value of the wrong kind.
pub fn model_from_json(v: &Value) -> Result<ModelConfig, TrainError> {
    let heads = size(v, "num_attention_heads", None)?;
    let mut c = ModelConfig::new(
        size(v, "vocab_size", None)?,
        size(v, "hidden_size", None)?,
        size(v, "intermediate_size", None)?,
        size(v, "num_hidden_layers", None)?,
        heads,
        size(v, "num_key_value_heads", Some(heads))?,
    );
    c.head_dim = size(v, "head_dim", Some(c.head_dim))?;
    c.max_position_embeddings = size(v, "max_position_embeddings", Some(c.max_position_embeddings))?;
    c.hidden_act = match &v["hidden_act"] {
        Value::Null => c.hidden_act,
        Value::String(s) if s == "relu2" => Activation::Relu2,
        Value::String(s) if s == "silu" => Activation::Silu,
        other => return Err(wrong("hidden_act", other, "relu2 or silu")),
    };
    c.rms_norm_eps = number(v, "rms_norm_eps", 1e-5)? as f32;
    c.rope_theta = number(v, "rope_theta", c.rope_theta)?;
    c.tie_word_embeddings = flag(v, "tie_word_embeddings", true)?;
    c.sub_norms = flag(v, "sub_norms", true)?;
    let id = |key: &'static str| match &v[key] {
        Value::Null => Ok(None),
        value => value.as_u64().and_then(|n| u32::try_from(n).ok()).map(Some).ok_or_else(|| wrong(key, value, "an id")),
    };
    c.bos_token_id = id("bos_token_id")?;
    c.eos_token_ids = id("eos_token_id")?.into_iter().collect();
    c.mixers = mixers(&v["mixers"], c.num_hidden_layers)?;
    if !c.mixers.is_empty() {
        c.ttt = ttt_options(&v["ttt"])?;
    }
    c.inputs = inputs(v, &c)?;
    c.validate()?;
    Ok(c)
}

/// How activations become codes: `input_forms` for each projection; then `hadamard`, true for the placement of BitNet v2, and
/// `activation_bits`, for all.
fn inputs(v: &Value, c: &ModelConfig) -> Result<InputForms, TrainError> {
    let mut forms = match &v[InputForms::JSON_KEY] {
        Value::Null => InputForms::default(),
        json => InputForms::from_json(json)?,
    };
    if flag(v, "hadamard", false)? {
        forms = forms.with_hadamard(c);
    }
    if !v["activation_bits"].is_null() {
        let bits = v["activation_bits"].as_u64().and_then(ActivationBits::from_number);
        forms = forms.with_bits(bits.ok_or_else(|| wrong("activation_bits", &v["activation_bits"], "8 or 4"))?);
    }
    Ok(forms)
}

/// One for each layer; empty where all are attention.
fn mixers(v: &Value, layers: usize) -> Result<Vec<Mixer>, TrainError> {
    let must = "attention, ttt_linear or ttt_mlp, or a list of these with one for each layer";
    let named = |v: &Value| v.as_str().and_then(Mixer::from_name).ok_or_else(|| wrong("mixers", v, must));
    let all = match v {
        Value::Null => Vec::new(),
        Value::Array(names) if names.len() == layers => names.iter().map(named).collect::<Result<Vec<_>, _>>()?,
        // More layers than any model may have are refused behind this.
        Value::String(_) => vec![named(v)?; layers.min(1 << 12)],
        other => return Err(wrong("mixers", other, must)),
    };
    Ok(if all.iter().all(|m| *m == Mixer::Attention) { Vec::new() } else { all })
}

fn ttt_options(v: &Value) -> Result<TttOptions, TrainError> {
    let mut o = TttOptions::default();
    if v.is_null() {
        return Ok(o);
    }
    let known = ttt_to_json(&o);
    let given = v.as_object().ok_or_else(|| wrong("ttt", v, "a section"))?;
    if let Some(key) = given.keys().find(|k| known.get(k.as_str()).is_none()) {
        return Err(wrong("ttt", &Value::from(key.as_str()), "a section of known keys"));
    }
    o.mini_batch_size = size(v, "mini_batch_size", Some(o.mini_batch_size))?;
    o.base_lr_linear = number(v, "base_lr_linear", o.base_lr_linear.into())? as f32;
    o.base_lr_mlp = number(v, "base_lr_mlp", o.base_lr_mlp.into())? as f32;
    o.share_qk = flag(v, "share_qk", o.share_qk)?;
    o.conv_kernel = size(v, "conv_kernel", Some(o.conv_kernel))?;
    o.use_gate = flag(v, "use_gate", o.use_gate)?;
    o.pre_conv = flag(v, "pre_conv", o.pre_conv)?;
    o.rope_theta = number(v, "rope_theta", o.rope_theta.into())? as f32;
    o.norm_eps = number(v, "norm_eps", o.norm_eps.into())? as f32;
    if let Some(word) = given.get("rope_pairs") {
        let pairs = PAIRS.iter().find(|p| word.as_str() == Some(p.0));
        o.rope_pairs = pairs.ok_or_else(|| wrong("rope_pairs", word, "neighbours or halves"))?.1;
    }
    Ok(o)
}

/// The shortest decimal number that is this f32.
fn decimal(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn ttt_to_json(o: &TttOptions) -> Value {
    json!({
        "mini_batch_size": o.mini_batch_size,
        "base_lr_linear": decimal(o.base_lr_linear),
        "base_lr_mlp": decimal(o.base_lr_mlp),
        "share_qk": o.share_qk,
        "conv_kernel": o.conv_kernel,
        "use_gate": o.use_gate,
        "pre_conv": o.pre_conv,
        "rope_theta": decimal(o.rope_theta),
        "rope_pairs": PAIRS.iter().find(|p| p.1 == o.rope_pairs).map(|p| p.0),
        "norm_eps": decimal(o.norm_eps),
    })
}

/// The `config.json` of a model with float master weights that are quantised when they are read.
pub fn model_to_json(c: &ModelConfig) -> Value {
    let ttt = c.has_ttt();
    let (class, model_type) = match (ttt, c.inputs.are_plain()) {
        (true, _) => ("BitTttForCausalLM", "bit-ttt"),
        (false, false) => ("BitNetV2ForCausalLM", "bitnet-v2"),
        (false, true) => ("BitNetForCausalLM", "bitnet"),
    };
    let mut v = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": c.hidden_act.name(),
        "rms_norm_eps": decimal(c.rms_norm_eps),
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.max_position_embeddings,
        "tie_word_embeddings": c.tie_word_embeddings,
        "sub_norms": c.sub_norms,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_ids.first(),
        "torch_dtype": "float32",
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        },
    });
    if let (false, Some(map)) = (c.inputs.are_plain(), v.as_object_mut()) {
        map.insert(InputForms::JSON_KEY.to_owned(), c.inputs.to_json());
    }
    if let (true, Some(map)) = (ttt, v.as_object_mut()) {
        let names = (0..c.num_hidden_layers).map(|l| c.mixer(l).name());
        map.extend(Map::from_iter([
            ("mixers".to_owned(), names.collect::<Vec<_>>().into()),
            ("ttt".to_owned(), ttt_to_json(&c.ttt)),
        ]));
    }
    v
}
