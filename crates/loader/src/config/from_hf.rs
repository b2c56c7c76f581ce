//! The configuration in the `config.json` of a Hugging Face folder.

use bitnet_model::{Activation, Mixer, ModelConfig};
use serde_json::{Map, Value};

use super::bit_ttt::{self, TttFields};
use super::inputs::{self, Asked};
use super::{DensePolicy, Reading, ScaleMeaning, TensorFacts, to_f32, to_token, to_usize, unsupported};
use super::{act, neutral, rope};
use crate::LoadError;
use crate::loaded::{GenerationConfig, QkLayout};

/// Largest `config.json` and `generation_config.json` accepted, bytes.
pub(crate) const MAX_CONFIG: u64 = 16 << 20;

/// More layers than any configuration may have.
const MAX_LAYERS: usize = 1 << 12;

const OFFLINE_DENSE: &str = "quantization_mode is offline, so projections must be packed uint8 weights or exact multiples \
                             of -1, 0 and 1; these are neither, and quantising them would make another model";
const SCALES: &str = "knowing what the weight_scale of packed weights means: autobitlinear (as in bitnet-b1.58-2B-4T) multiplies \
                      by it, bitlinear (as in Falcon3-1.58bit) divides; take config.json from the original repository";
const NOT_BITNET: &str = "neither quantization_config nor the architecture says that this is a BitNet model, so its \
                          float weights are not quantised: that would ruin an ordinary model";

fn parse(bytes: &[u8], what: &'static str) -> Result<Map<String, Value>, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Json { what, source })
}

/// Adds what a `generation_config.json` (its bytes) says to what was read of its `config.json`.
pub(crate) fn read_generation(bytes: &[u8], reading: &mut Reading) -> Result<(), LoadError> {
    let map = parse(bytes, "generation_config.json")?;
    let g = Fields(&map);
    let c = &mut reading.config;
    for id in g.tokens("eos_token_id")? {
        if !c.eos_token_ids.contains(&id) {
            c.eos_token_ids.push(id);
        }
    }
    c.bos_token_id = c.bos_token_id.or(g.tokens("bos_token_id")?.first().copied());
    reading.generation = GenerationConfig {
        do_sample: g.bool("do_sample")?,
        temperature: g.f64("temperature")?.map(to_f32),
        top_p: g.f64("top_p")?.map(to_f32),
        top_k: g.get_size("top_k")?,
        repetition_penalty: g.f64("repetition_penalty")?.map(to_f32),
    };
    Ok(())
}

/// Reads `config.json` (its bytes).
pub(crate) fn read(json: &[u8], facts: TensorFacts) -> Result<Reading, LoadError> {
    let map = parse(json, "config.json")?;
    let f = Fields(&map);
    let model_type = f.str("model_type")?.unwrap_or("").to_owned();
    let class_is_bitnet = f.strings("architectures").iter().any(|a| a.to_ascii_lowercase().starts_with("bitnet"));
    let is_ttt = model_type == bit_ttt::ARCHITECTURE;
    let is_v2 = model_type == inputs::HF_TYPE;
    let is_bitnet = model_type == "bitnet" || class_is_bitnet || is_ttt || is_v2;
    // 1bitLLM's models are of a BitNet class and of type llama; very old configurations name no type.
    let known = matches!(model_type.as_str(), "bitnet" | "llama")
        || is_ttt
        || is_v2
        || (model_type.is_empty() && class_is_bitnet);
    if !known {
        let reason = "supported are bitnet, bitnet-v2, bit-ttt, and llama with ternary weights";
        return Err(unsupported("model_type", format!("{model_type:?}"), reason));
    }
    let quantization = read_quantization(&f, is_bitnet, facts.has_scales)?;

    let hidden = f.size("hidden_size")?;
    let heads = f.size("num_attention_heads")?;
    let kv_heads = f.get_size("num_key_value_heads")?.unwrap_or(heads);
    let mut c = ModelConfig::new(
        f.size("vocab_size")?,
        hidden,
        f.size("intermediate_size")?,
        f.size("num_hidden_layers")?,
        heads,
        kv_heads,
    );
    if let Some(d) = f.get_size("head_dim")? {
        c.head_dim = d;
    }
    let named = act::HF_KEYS.iter().map(|key| f.str(key).map(|name| ((*key).to_owned(), name)));
    c.hidden_act = match act::named(named)? {
        Some(act) => act,
        // The defaults of the classes.
        None if is_ttt || model_type == "bitnet" => Activation::Relu2,
        None if is_v2 => {
            return Err(LoadError::MissingKey { key: "hidden_act".into(), needed_for: "the formulas of the model" });
        }
        None => Activation::Silu,
    };
    c.sub_norms = match f.bool("sub_norms")?.filter(|_| is_ttt || is_v2) {
        Some(sub_norms) => sub_norms,
        None => is_bitnet && !is_v2 || facts.has_sub_norms,
    };
    c.inputs = inputs::from_hf(f.0, Asked::by(is_v2, is_ttt))?;
    if is_ttt {
        c.mixers = read_mixers(&f, c.num_hidden_layers)?;
        let ttt = map.get("ttt").filter(|v| !v.is_null());
        let none = Map::new();
        let ttt = ttt.map_or(Ok(&none), |v| v.as_object().ok_or_else(|| wrong("ttt", "an object", v)))?;
        if !c.mixers.is_empty() {
            c.ttt = bit_ttt::options(&Fields(ttt))?;
        }
    }
    let tied = f.bool("tie_word_embeddings")?;
    if tied == Some(false) && !facts.has_head {
        let hint = "tie_word_embeddings is false, so the head is a tensor of its own; the download is incomplete";
        return Err(LoadError::MissingTensor { tensor: "lm_head.weight".to_owned(), hint: hint.to_owned() });
    }
    // Without a head in the file there is nothing else that could be the head.
    c.tie_word_embeddings = tied.unwrap_or(false) || !facts.has_head;
    let new = model_type == "bitnet" || is_ttt || is_v2;
    c.rms_norm_eps = to_f32(read_eps(&f)?.unwrap_or(if new { 1e-5 } else { 1e-6 }));
    c.max_position_embeddings = f.size("max_position_embeddings")?;
    let (theta, scaling) = rope::from_hf(&f, c.max_position_embeddings, c.head_dim)?;
    c.rope_theta = theta.unwrap_or(if new { 500_000.0 } else { 10_000.0 });
    c.rope_scaling = scaling;
    neutral::check_hf(f.0, &c)?;
    c.bos_token_id = f.tokens("bos_token_id")?.first().copied();
    c.eos_token_ids = f.tokens("eos_token_id")?;
    Ok(Reading {
        config: c,
        architecture: model_type,
        name: f.str("_name_or_path")?.filter(|s| !s.is_empty()).map(str::to_owned),
        scale: quantization.scale,
        dense: quantization.dense,
        qk: QkLayout::Half,
        generation: GenerationConfig::default(),
        notes: Vec::new(),
    })
}

/// One mixer for each layer, or a single word that holds for all.
fn read_mixers(f: &Fields<'_>, layers: usize) -> Result<Vec<Mixer>, LoadError> {
    const KEY: &str = "mixers";
    match f.0.get(KEY) {
        // The names are counted while they are read: no number in the file makes a list long.
        Some(Value::String(name)) if layers <= MAX_LAYERS => {
            bit_ttt::mixers(KEY, std::iter::repeat_n(name.as_str(), layers), layers)
        }
        Some(Value::String(_)) => Err(unsupported("num_hidden_layers", layers, "at most 4096 layers are supported")),
        Some(Value::Array(names)) => {
            let word = |v: &'_ Value| v.as_str().map(str::to_owned).ok_or_else(|| wrong(KEY, "names of mixers", v));
            let names = names.iter().map(word).collect::<Result<Vec<_>, _>>()?;
            bit_ttt::mixers(KEY, names.iter().map(String::as_str), layers)
        }
        Some(other) => Err(wrong(KEY, "a list of names, or one name for all layers", other)),
        None => Err(LoadError::MissingKey { key: KEY.to_owned(), needed_for: "the mixers of the layers" }),
    }
}

struct Quantization {
    scale: ScaleMeaning,
    dense: DensePolicy,
}

fn read_quantization(f: &Fields<'_>, is_bitnet: bool, has_scales: bool) -> Result<Quantization, LoadError> {
    const KEY: &str = "quantization_config";
    let Some(q) = f.0.get(KEY).filter(|v| !v.is_null()) else {
        // A stored scale multiplies in one kind of model and divides in another, and its value does not tell which.
        if has_scales {
            return Err(LoadError::MissingKey { key: format!("{KEY}.linear_class"), needed_for: SCALES });
        }
        // 1bitLLM's models have their own class and these two fields instead.
        let says_so = is_bitnet || f.get_size("weight_bits")? == Some(1);
        let dense = if says_so { DensePolicy::Absmean } else { DensePolicy::Refuse(NOT_BITNET) };
        return Ok(Quantization { scale: ScaleMeaning::Divide, dense });
    };
    let map = q.as_object().ok_or_else(|| wrong(KEY, "an object", q))?;
    let q = Fields(map);
    match q.str("quant_method")? {
        Some("bitnet") => {}
        other => {
            let reason = "only quant_method bitnet holds ternary weights";
            return Err(unsupported("quantization_config.quant_method", format!("{other:?}"), reason));
        }
    }
    if q.bool("use_rms_norm")? == Some(true) {
        let reason = "an additional norm inside every projection is not supported";
        return Err(unsupported("quantization_config.use_rms_norm", true, reason));
    }
    let dense = |name: &&str| ["proj", "mlp", "self_attn", "layers"].iter().any(|part| name.contains(part));
    if let Some(name) = q.strings("modules_to_not_convert").iter().find(|name| dense(name)) {
        let reason = "a projection that is not ternary is not supported";
        return Err(unsupported("quantization_config.modules_to_not_convert", name, reason));
    }
    // transformers' defaults where a field is absent: bitlinear, offline.
    let scale = match q.str("linear_class")? {
        Some("autobitlinear") => ScaleMeaning::Multiply,
        Some("bitlinear") | None => ScaleMeaning::Divide,
        Some(other) => {
            let reason = "known are bitlinear (weight_scale divides) and autobitlinear (weight_scale multiplies)";
            return Err(unsupported("quantization_config.linear_class", other, reason));
        }
    };
    let dense = match q.str("quantization_mode")? {
        Some("online") => DensePolicy::Absmean,
        Some("offline") | None => DensePolicy::Refuse(OFFLINE_DENSE),
        Some(other) => {
            return Err(unsupported("quantization_config.quantization_mode", other, "known are online and offline"));
        }
    };
    Ok(Quantization { scale, dense })
}

/// What is added to the mean square in every norm. A norm of another kind, or another name for the same, is not guessed.
fn read_eps(f: &Fields<'_>) -> Result<Option<f64>, LoadError> {
    let eps = f.f64("rms_norm_eps")?;
    for key in ["norm_eps", "rms_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"] {
        if let (None, Some(other)) = (eps, f.f64(key)?) {
            return Err(unsupported(key, other, "rms_norm_eps is read, and this file does not have it"));
        }
    }
    Ok(eps)
}

/// Typed access to a JSON object; `null` counts as absent.
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

pub(crate) fn wrong(key: &str, expected: &'static str, got: &Value) -> LoadError {
    let mut got = got.to_string();
    if let Some((at, _)) = got.char_indices().nth(60) {
        got.truncate(at);
        got.push_str("...");
    }
    LoadError::KeyType { key: key.to_owned(), expected, got }
}

impl TttFields for Fields<'_> {
    fn number(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.get_size(key)
    }

    fn float(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.f64(key)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.bool(key)
    }

    fn word(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.str(key)
    }
}

impl<'a> Fields<'a> {
    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => convert(v).map(Some).ok_or_else(|| wrong(key, expected, v)),
        }
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn get_size(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.typed(key, "an unsigned integer", Value::as_u64)?.map(|v| to_usize(key, v)).transpose()
    }

    fn size(&self, key: &str) -> Result<usize, LoadError> {
        let missing = || LoadError::MissingKey { key: key.to_owned(), needed_for: "the shape of the model" };
        self.get_size(key)?.ok_or_else(missing)
    }

    /// The strings of an array; anything else in it is ignored.
    fn strings(&self, key: &str) -> Vec<&'a str> {
        self.0.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// One token id, a list of them, or none.
    fn tokens(&self, key: &str) -> Result<Vec<u32>, LoadError> {
        let one = |v: &Value| {
            let id = v.as_u64().ok_or_else(|| wrong(key, "a token id or a list of them", v))?;
            to_token(key, id)
        };
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(one).collect(),
            Some(v) => Ok(vec![one(v)?]),
        }
    }
}
