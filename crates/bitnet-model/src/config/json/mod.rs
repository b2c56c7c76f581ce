//! The only reader and the only writer of a model's `config.json`, for checkpoints, training runs and shapes of
//! synthetic models.

mod delta;
mod fields;
mod inputs;
mod rope;
mod ttt;

pub use fields::{Fields, JsonError, decimal, wrong};
pub use rope::{DYNAMIC, UNKNOWN_SCALING};
use serde_json::{Map, Value, json};
pub use ttt::{named_mixers, refuse_unknown_ttt};

use self::fields::unsupported;
use super::architecture::{Architecture, Presence};
use super::{Activation, ActivationBits, InputForms, ModelConfig, Pooling};

/// The keys under which a `config.json` may name the activation; the first one is the usual one.
pub const ACTIVATION_KEYS: [&str; 4] = ["hidden_act", "hidden_activation", "activation_function", "mlp_hidden_act"];
const SUB_NORMS: &str = "sub_norms";
/// How many weights of a row share a scale if float weights are quantised: a key of this project, for training and its
/// results.
pub const WEIGHT_GROUP: &str = "weight_group_size";
/// Fields of MiniCPM: scale of the embedding, scale of the depth, and the width from which the divisor of the logits
/// follows.
const MINICPM: [&str; 3] = ["scale_emb", "scale_depth", "dim_model_base"];
const QUERY_SCALAR: &str = "query_pre_attn_scalar";

/// Names of activations in files of both containers.
const ACTIVATIONS: [(&str, Activation); 11] = [
    ("relu2", Activation::Relu2),
    ("relu^2", Activation::Relu2),
    ("relu_sqr", Activation::Relu2),
    ("relu_squared", Activation::Relu2),
    ("squared_relu", Activation::Relu2),
    ("sqrelu", Activation::Relu2),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("swiglu", Activation::Silu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_tanh", Activation::GeluTanh),
];

/// The activation with this name; `key` is the field that names it.
///
/// # Errors
/// [`JsonError::Value`] for a name that is not supported. `gelu` alone is the form with the error function.
pub fn activation(key: &str, name: &str) -> Result<Activation, JsonError> {
    let lower = name.trim().to_ascii_lowercase();
    let known = ACTIVATIONS.iter().find(|(n, _)| *n == lower);
    known.map(|k| k.1).ok_or_else(|| unsupported(key, name, "supported are relu2, silu and gelu_pytorch_tanh"))
}

/// The activation named by some of these keys; it is an error if several disagree.
///
/// # Errors
/// The errors of [`activation`], and the errors of the entries.
pub fn named_activation<'a, E: From<JsonError>>(
    named: impl Iterator<Item = Result<(String, Option<&'a str>), E>>,
) -> Result<Option<Activation>, E> {
    let mut found: Option<(String, Activation)> = None;
    for entry in named {
        let (key, Some(name)) = entry? else { continue };
        let act = activation(&key, name)?;
        match &found {
            Some((other, before)) if *before != act => {
                let reason = format!("{other:?} says {}; the file contradicts itself", before.name());
                return Err(unsupported(&key, name, &reason).into());
            }
            Some(_) => {}
            None => found = Some((key, act)),
        }
    }
    Ok(found.map(|f| f.1))
}

/// Facts from a file's tensors and from its accompanying files.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonFacts {
    /// Whether there is a head.
    pub has_head: bool,
    /// Whether any layer has a sub-norm.
    pub has_sub_norms: bool,
    /// Whether any projection has a norm of its input.
    pub has_projection_norms: bool,
    /// How the hidden states become a vector.
    pub pooling: Option<Pooling>,
}

/// Defaults of absent fields in files of a family.
struct Absent {
    /// `None` if the activation must be named.
    activation: Option<Activation>,
    eps: f64,
    theta: f64,
    /// `None` for the share of a head.
    head_dim: Option<usize>,
    /// Whether models without the field `sub_norms` have them, whatever their tensors are.
    sub_norms: bool,
}

/// The defaults of the classes that wrote the files.
fn absent(a: Architecture) -> Absent {
    let llama =
        Absent { activation: Some(Activation::Silu), eps: 1e-6, theta: 10_000.0, head_dim: None, sub_norms: false };
    let bitnet = Absent { eps: 1e-5, theta: 500_000.0, ..llama };
    match a {
        Architecture::BitnetB158 => Absent { activation: Some(Activation::Relu2), sub_norms: true, ..bitnet },
        Architecture::Bitnet => Absent { sub_norms: true, ..llama },
        Architecture::BitnetV2 => Absent { activation: None, ..bitnet },
        Architecture::BitTtt => Absent { activation: Some(Activation::Relu2), sub_norms: true, ..bitnet },
        Architecture::Llama | Architecture::Qwen2 | Architecture::MiniCpm => llama,
        Architecture::Qwen3 => Absent { head_dim: Some(128), ..llama },
        Architecture::HunYuanDense => Absent { eps: 1e-5, ..llama },
        Architecture::Qwen35 => Absent { head_dim: Some(256), ..llama },
        Architecture::Gemma3 => {
            Absent { activation: Some(Activation::GeluTanh), theta: 1e6, head_dim: Some(256), ..llama }
        }
    }
}

/// The model that a `config.json` of family `a` describes; see [`Architecture::from_json`].
///
/// # Errors
/// A field that is missing, of another type, or not supported. [`ModelConfig::validate`] may still reject the result.
pub fn read(map: &Map<String, Value>, a: Architecture, facts: &JsonFacts) -> Result<ModelConfig, JsonError> {
    let (f, formulas, absent) = (Fields(map), a.formulas(), absent(a));
    let heads = f.size("num_attention_heads")?;
    let kv_heads = f.get_size("num_key_value_heads")?.unwrap_or(heads);
    let mut c = ModelConfig::new(
        f.size("vocab_size")?,
        f.size("hidden_size")?,
        f.size("intermediate_size")?,
        f.size("num_hidden_layers")?,
        heads,
        kv_heads,
    );
    c.head_dim = f.get_size("head_dim")?.or(absent.head_dim).unwrap_or(c.head_dim);
    if a == Architecture::HunYuanDense {
        hunyuan(&f)?;
    }
    let named = ACTIVATION_KEYS.iter().map(|key| f.str(key).map(|name| ((*key).to_owned(), name)));
    let missing = || JsonError::Missing { key: "hidden_act".into(), needed_for: "the formulas of the model" };
    c.hidden_act = named_activation(named)?.or(absent.activation).ok_or_else(missing)?;
    let said = f.bool(SUB_NORMS)?;
    c.sub_norms = match formulas.sub_norms {
        Presence::Never => false,
        Presence::ByFile | Presence::Always => said.unwrap_or(absent.sub_norms || facts.has_sub_norms),
    };
    a.imply(&mut c);
    c.projection_norms = formulas.projection_norms.decide(facts.has_projection_norms);
    c.inputs = inputs::read(map, formulas.forms)?;
    c.weight_group = f.get_size(WEIGHT_GROUP)?;
    if c.weight_group.is_some() && c.inputs.are_plain() {
        // As in files with groups, 16-bit activations follow from groups.
        c.inputs = c.inputs.with_bits(ActivationBits::Sixteen);
    }
    if formulas.mixers {
        c.mixers = ttt::mixers(&f, c.num_hidden_layers)?;
        if c.has_ttt() {
            c.ttt = ttt::options(&f)?;
        }
        if c.has_delta() {
            c.delta = ttt::delta_options(&f, &c)?;
        }
    }
    c.pooling = facts.pooling;
    c.headless = formulas.seems_headless(!facts.has_head, facts.pooling.is_some(), c.projection_norms);
    let tied = f.bool("tie_word_embeddings")?;
    // Without a head in the file, only the embedding can be the head.
    c.tie_word_embeddings = tied.unwrap_or(false) || !facts.has_head;
    c.rms_norm_eps = read_eps(&f)?.unwrap_or(absent.eps) as f32;
    c.max_position_embeddings = f.size("max_position_embeddings")?;
    let reads = rope::Reads { alpha: a == Architecture::HunYuanDense, part: formulas.partial_rotary };
    let rope::Read { theta, scaling, alpha, turned } = rope::read(&f, c.max_position_embeddings, c.head_dim, reads)?;
    c.rope_theta = theta.unwrap_or(absent.theta);
    if let Some(alpha) = alpha {
        c.rope_theta = rope::alpha_base(c.rope_theta, alpha, c.head_dim);
    }
    (c.rope_scaling, c.rotary_dim) = (scaling, turned);
    if formulas.delta {
        delta::read(&f, &mut c)?;
    }
    if formulas.scales {
        read_scales(&f, &mut c)?;
    }
    if formulas.attention_scale
        && let Some(scalar) = f.f64(QUERY_SCALAR)?.filter(|s| *s != c.head_dim as f64)
    {
        c.attention_scale = Some(scalar.powf(-0.5) as f32);
    }
    c.bos_token_id = f.tokens("bos_token_id")?.first().copied();
    c.eos_token_ids = f.tokens("eos_token_id")?;
    Ok(c)
}

/// Whether the reader of family `a` uses this field, which must have its default in other families.
pub fn reads(a: Architecture, key: &str) -> bool {
    let f = a.formulas();
    f.scales && MINICPM.contains(&key)
        || f.attention_scale && key == QUERY_SCALAR
        || f.delta && key == delta::LAYER_TYPES
        || f.partial_rotary && key == "partial_rotary_factor"
        || a == Architecture::HunYuanDense && HUNYUAN.iter().any(|(name, _)| *name == key)
}

/// Whether a value of a field is supported.
type Fits = fn(&Value) -> bool;

/// Fields of HunYuan and their only supported values: norms of the heads, one expert (that is, none), separate keys for
/// each layer.
const HUNYUAN: [(&str, Fits); 4] = [
    ("use_qk_norm", |v| v.as_bool() == Some(true)),
    ("num_experts", |v| v.as_u64().is_some_and(|n| n <= 1)),
    ("use_cla", |v| v.as_bool() == Some(false)),
    ("use_mixed_mlp_moe", |v| v.as_bool() == Some(false)),
];

/// Rejects settings of HunYuan models that the class of the dense ones does not compute.
fn hunyuan(f: &Fields<'_>) -> Result<(), JsonError> {
    for (key, fits) in HUNYUAN {
        if let Some(value) = f.get(key).filter(|v| !v.is_null() && !fits(v)) {
            let reason = "only dense models with norms of the heads of q and k, and with keys of each layer's own, are supported";
            return Err(unsupported(key, value, reason));
        }
    }
    Ok(())
}

/// Epsilon of every norm. Other kinds of norm and other names are not guessed.
fn read_eps(f: &Fields<'_>) -> Result<Option<f64>, JsonError> {
    let eps = f.f64("rms_norm_eps")?;
    for key in ["norm_eps", "rms_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"] {
        if let (None, Some(other)) = (eps, f.f64(key)?) {
            return Err(unsupported(key, other, "rms_norm_eps is read, and this file does not have it"));
        }
    }
    Ok(eps)
}

fn read_scales(f: &Fields<'_>, c: &mut ModelConfig) -> Result<(), JsonError> {
    let need = |key: &str| {
        let missing = || JsonError::Missing { key: key.to_owned(), needed_for: "the formulas of MiniCPM" };
        f.f64(key)?.ok_or_else(missing)
    };
    let [embedding, depth, base] = MINICPM;
    c.embedding_scale = need(embedding)? as f32;
    c.residual_scale = (need(depth)? / (c.num_hidden_layers as f64).sqrt()) as f32;
    c.logit_divisor = (c.hidden_size as f64 / need(base)?) as f32;
    Ok(())
}

/// The `config.json` of a model, without the fields that describe how its tensors are stored.
///
/// # Errors
/// [`JsonError::Value`] for formulas that no family's `config.json` can state.
pub fn write(c: &ModelConfig) -> Result<Map<String, Value>, JsonError> {
    let a = Architecture::of_json(c).ok_or_else(|| {
        let what = c.beyond_bitnet().unwrap_or("this mixture of norms and scales");
        unsupported("the model", format!("with {what}"), "no model_type of a config.json stands for its formulas")
    })?;
    // All fields are listed, so that none is forgotten.
    let ModelConfig {
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        hidden_act,
        rms_norm_eps,
        rope_theta,
        rope_scaling: _, // `rope::to_json`
        max_position_embeddings,
        tie_word_embeddings,
        sub_norms,
        // Stated by the type, by tensors, or by accompanying files.
        head_norms: _,
        head_norms_after_rope: _,
        projection_norms: _,
        output_norms: _,
        qkv_bias: _,
        headless,
        pooling: _,
        embedding_scale,
        residual_scale,
        logit_divisor,
        attention_scale,
        bos_token_id,
        eos_token_ids,
        mixers: _, // `ttt::put`
        ttt: _,
        inputs,
        weight_group,
        delta: _, // `delta::put`
        gated_attention: _,
        rotary_dim: _, // `rope::put_part`
        fold: _,       // none, or there is no family
    } = c;
    let eos = match eos_token_ids.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    };
    let fields = [
        ("architectures", json!([a.class(*headless)])),
        ("model_type", json!(a.model_type())),
        ("vocab_size", json!(vocab_size)),
        ("hidden_size", json!(hidden_size)),
        ("intermediate_size", json!(intermediate_size)),
        ("num_hidden_layers", json!(num_hidden_layers)),
        ("num_attention_heads", json!(num_attention_heads)),
        ("num_key_value_heads", json!(num_key_value_heads)),
        ("head_dim", json!(head_dim)),
        ("hidden_act", json!(hidden_act.name())),
        ("rms_norm_eps", json!(decimal(*rms_norm_eps))),
        ("rope_theta", json!(rope_theta)),
        ("max_position_embeddings", json!(max_position_embeddings)),
        ("tie_word_embeddings", json!(tie_word_embeddings)),
        ("bos_token_id", json!(bos_token_id)),
        ("eos_token_id", eos),
    ];
    let mut map: Map<String, Value> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    if let Some(scaling) = rope::to_json(c) {
        put("rope_scaling", Value::Object(scaling));
    }
    if !inputs.are_implied() {
        put(InputForms::JSON_KEY, inputs.to_json());
    }
    if let Some(len) = weight_group {
        put(WEIGHT_GROUP, json!(len));
    }
    let f = a.formulas();
    if f.scales {
        let depth = f64::from(*residual_scale) * (*num_hidden_layers as f64).sqrt();
        put(MINICPM[0], json!(decimal(*embedding_scale)));
        put(MINICPM[1], json!(depth));
        put(MINICPM[2], json!(*hidden_size as f64 / f64::from(*logit_divisor)));
    }
    if f.attention_scale {
        let scalar = attention_scale.map_or(json!(head_dim), |scale| json!(f64::from(scale).powi(-2)));
        put(QUERY_SCALAR, scalar);
        // Without it the class assumes windows.
        put("layer_types", json!(vec!["full_attention"; *num_hidden_layers]));
    }
    if a == Architecture::HunYuanDense {
        put(HUNYUAN[0].0, json!(true));
    }
    if f.delta {
        delta::put(&mut map, c);
    }
    rope::put_part(&mut map, c);
    if f.mixers {
        ttt::put(&mut map, c);
    }
    if f.mixers || *sub_norms != absent(a).sub_norms && f.sub_norms != Presence::Never {
        map.insert(SUB_NORMS.to_owned(), json!(sub_norms));
    }
    Ok(map)
}

/// Whether a shape belongs to a BitNet model, by its `model_type` or because it has none.
pub fn is_own_shape(map: &Map<String, Value>) -> bool {
    map.get("model_type")
        .and_then(Value::as_str)
        .is_none_or(|name| Architecture::from_json(name, []).is_some_and(|a| a.is_bitnet() || a == Architecture::Llama))
}

/// Completes a hand-written shape of a model: missing values are those of BitNet b1.58 2B4T, and the type follows from
/// the named ones. The shape may be of any family that its `model_type` names.
pub fn complete_shape(map: &mut Map<String, Value>) {
    let has = |map: &Map<String, Value>, key: &str| map.get(key).is_some_and(|v| !v.is_null());
    let own = is_own_shape(map);
    if own {
        let a = match (has(map, "mixers"), has(map, InputForms::JSON_KEY)) {
            (true, _) => Architecture::BitTtt,
            (false, true) => Architecture::BitnetV2,
            (false, false) => Architecture::BitnetB158,
        };
        if !has(map, "model_type") {
            map.insert("model_type".to_owned(), a.model_type().into());
        }
        if !ACTIVATION_KEYS.iter().any(|key| has(map, key)) {
            map.insert(ACTIVATION_KEYS[0].to_owned(), Activation::Relu2.name().into());
        }
    }
    let mut default = |key: &str, value: Value| {
        if !has(map, key) {
            map.insert(key.to_owned(), value);
        }
    };
    if own {
        default(SUB_NORMS, true.into());
    }
    default("max_position_embeddings", 4096.into());
    default("tie_word_embeddings", true.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_family_is_read_as_it_was_written_or_refused() {
        for a in Architecture::ALL {
            let base = a.example();
            let changed = base.each_field_changed();
            for (field, c) in std::iter::once(("nothing", base)).chain(changed) {
                let map = match write(&c) {
                    Ok(map) if c.validate().is_ok() => map,
                    _ => {
                        assert_ne!(field, "nothing", "{a:?}");
                        continue;
                    }
                };
                let classes = Fields(&map).strings("architectures");
                let family =
                    Architecture::from_json(Fields(&map).str("model_type").unwrap().unwrap(), classes).unwrap();
                let facts = JsonFacts {
                    has_head: !c.tie_word_embeddings,
                    has_sub_norms: c.sub_norms,
                    has_projection_norms: c.projection_norms,
                    pooling: c.pooling,
                };
                assert_eq!(read(&map, family, &facts).unwrap(), c, "{a:?} with another {field}: {map:?}");
            }
        }
    }

    #[test]
    fn the_example_of_every_family_has_a_config_json() {
        for a in Architecture::ALL {
            assert!(write(&a.example()).is_ok(), "{a:?}");
        }
    }

    #[test]
    fn what_no_type_stands_for_is_refused_by_name() {
        let mut c = Architecture::Llama.example();
        c.output_norms = true;
        let error = write(&c).unwrap_err().to_string();
        assert!(error.contains("outputs of attention"), "{error}");
    }
}
