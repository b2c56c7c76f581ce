//! The configuration in the `config.json` of a Hugging Face folder.

use bitnet_model::config_json::{self, Fields, JsonFacts, wrong};
use bitnet_model::{Architecture, Pooling};
use serde_json::{Map, Value};

use super::{DensePolicy, Reading, ScaleMeaning, TensorFacts, neutral, to_f32, unsupported};
use crate::LoadError;
use crate::architecture::unknown;
use crate::loaded::{GenerationConfig, QkLayout};

/// Largest `config.json` and `generation_config.json` accepted, bytes.
pub(crate) const MAX_CONFIG: u64 = 16 << 20;

const OFFLINE_DENSE: &str = "quantization_mode is offline, so projections must be packed uint8 weights or exact multiples \
                             of -1, 0 and 1; these are neither, and quantising them would make another model";
const SCALES: &str = "knowing what the weight_scale of packed weights means: autobitlinear (as in bitnet-b1.58-2B-4T) multiplies \
                      by it, bitlinear (as in Falcon3-1.58bit) divides; take config.json from the original repository";
pub(crate) const NOT_BITNET: &str = "neither quantization_config nor the architecture says that this is a BitNet model, so its \
                          float weights are not quantised: that would ruin an ordinary model";

fn parse(bytes: &[u8], what: &'static str) -> Result<Map<String, Value>, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Json { what, source })
}

/// Adds the contents of a `generation_config.json` (its bytes) to those of the `config.json`.
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

/// Reads `config.json` (its bytes); `pooling` comes from accompanying files.
pub(crate) fn read(json: &[u8], pooling: Option<Pooling>, facts: &TensorFacts) -> Result<Reading, LoadError> {
    let mut notes = Vec::new();
    let map = text_model(parse(json, "config.json")?, &mut notes)?;
    let f = Fields(&map);
    let model_type = f.str("model_type")?.unwrap_or("").to_owned();
    let classes = f.strings("architectures");
    let family = Architecture::from_json(&model_type, classes.iter().copied())
        .ok_or_else(|| unknown("model_type", &model_type))?;
    let json_facts = JsonFacts {
        has_head: facts.has_head,
        has_sub_norms: facts.has_sub_norms,
        has_projection_norms: facts.has_projection_norms,
        pooling,
    };
    let is_bitnet = family.is_bitnet() || Architecture::is_bitnet_class(classes.iter().copied());
    // Norms of single projections are those of BitNet models, whose float weights are masters.
    let masters = is_bitnet
        || facts.has_projection_norms && family.formulas().projection_norms.decide(true)
        || map.contains_key(config_json::WEIGHT_GROUP);
    let quantization = read_quantization(&f, masters, facts.has_scales)?;
    let c = config_json::read(&map, family, &json_facts)?;
    if f.bool("tie_word_embeddings")? == Some(false) && !facts.has_head && !c.headless {
        let hint = "tie_word_embeddings is false, so the head must be a separate tensor; the download is incomplete";
        return Err(LoadError::MissingTensor { tensor: "lm_head.weight".to_owned(), hint: hint.to_owned() });
    }
    neutral::check_hf(&map, family, &c)?;
    Ok(Reading {
        config: c,
        architecture: model_type,
        family,
        name: f.str("_name_or_path")?.filter(|s| !s.is_empty()).map(str::to_owned),
        scale: quantization.scale,
        dense: quantization.dense,
        qk: QkLayout::Half,
        generation: GenerationConfig::default(),
        notes,
    })
}

/// The configuration of the text model within that of a multimodal one; others as they are.
fn text_model(map: Map<String, Value>, notes: &mut Vec<String>) -> Result<Map<String, Value>, LoadError> {
    const TEXT: &str = "text_config";
    if Fields(&map).str("model_type")? != Some(MULTIMODAL) {
        return Ok(map);
    }
    let Some(inner) = Fields(&map).object(TEXT)? else {
        return Err(LoadError::MissingKey { key: TEXT.to_owned(), needed_for: "the shape of the text model" });
    };
    let mut text = inner.clone();
    text.entry("model_type").or_insert_with(|| Architecture::Qwen35.model_type().into());
    for key in ["tie_word_embeddings", "quantization_config", "_name_or_path", "eos_token_id", "bos_token_id"] {
        if let (None, Some(outer)) = (text.get(key).filter(|v| !v.is_null()), map.get(key)) {
            text.insert(key.to_owned(), outer.clone());
        }
    }
    notes.push("of a model of texts and images the text model is read".to_owned());
    Ok(text)
}

/// The type of models of texts and images whose text model is of a family that is read.
const MULTIMODAL: &str = "qwen3_5";

struct Quantization {
    scale: ScaleMeaning,
    dense: DensePolicy,
}

fn read_quantization(f: &Fields<'_>, is_bitnet: bool, has_scales: bool) -> Result<Quantization, LoadError> {
    const KEY: &str = "quantization_config";
    let Some(q) = f.0.get(KEY).filter(|v| !v.is_null()) else {
        // A stored scale multiplies in one kind of model and divides in another, and its value does not show which.
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
    // transformers' defaults: bitlinear, offline.
    let scale = match q.str("linear_class")? {
        Some("autobitlinear") => ScaleMeaning::Multiply,
        Some("bitlinear") | None => ScaleMeaning::Divide,
        Some(other) => {
            let reason = "expected bitlinear (weight_scale divides) or autobitlinear (weight_scale multiplies)";
            return Err(unsupported("quantization_config.linear_class", other, reason));
        }
    };
    let dense = match q.str("quantization_mode")? {
        Some("online") => DensePolicy::Absmean,
        Some("offline") | None => DensePolicy::Refuse(OFFLINE_DENSE),
        Some(other) => {
            return Err(unsupported("quantization_config.quantization_mode", other, "expected online or offline"));
        }
    };
    Ok(Quantization { scale, dense })
}

/// Files next to a `config.json` that define the pooling of the hidden states, in order of precedence; the list of
/// modules of sentence-transformers may name another folder.
pub(crate) const POOLING_FILES: [&str; 2] = ["pooling_config.json", "1_Pooling/config.json"];
/// The list of modules of sentence-transformers.
pub(crate) const MODULES: &str = "modules.json";

/// The folder of the pooling module in a list of modules. Unsupported modules that would change a vector are rejected.
pub(crate) fn pooling_folder(json: &[u8]) -> Result<Option<String>, LoadError> {
    let modules: Vec<Map<String, Value>> =
        serde_json::from_slice(json).map_err(|source| LoadError::Json { what: MODULES, source })?;
    let mut found = None;
    for module in &modules {
        let f = Fields(module);
        let kind = f.str("type")?.unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" => found = Some(f.str("path")?.unwrap_or("1_Pooling").to_owned()),
            _ => {
                let reason =
                    "supported are Transformer, Pooling and Normalize; vectors would differ without this module";
                return Err(unsupported("modules.json", kind, reason));
            }
        }
    }
    Ok(found)
}

/// The pooling in a file of the pooling module.
pub(crate) fn pooling(json: &[u8]) -> Result<Option<Pooling>, LoadError> {
    let map: Map<String, Value> =
        serde_json::from_slice(json).map_err(|source| LoadError::Json { what: "pooling_config.json", source })?;
    let f = Fields(&map);
    let named = |key: &str, name: &str| {
        Pooling::from_name(name)
            .ok_or_else(|| unsupported(key, name, "supported are mean, cls (first token) and last token"))
    };
    let mut found: Option<(&str, Pooling)> = None;
    for (key, _) in map.iter().filter(|(key, on)| key.starts_with("pooling_mode_") && **on == Value::Bool(true)) {
        let name = match key.as_str() {
            "pooling_mode_mean_tokens" => "mean",
            "pooling_mode_cls_token" => "cls",
            "pooling_mode_lasttoken" => "last",
            other => other,
        };
        let pooling = named(key, name)?;
        if let Some((other, _)) = found {
            return Err(unsupported(key, true, &format!("{other} is as well; one kind of pooling is supported")));
        }
        found = Some((key, pooling));
    }
    match (found, f.str("pooling_mode")?) {
        (None, Some(word)) => Ok(Some(named("pooling_mode", if word == "lasttoken" { "last" } else { word })?)),
        (found, _) => Ok(found.map(|f| f.1)),
    }
}
