//! A model's shape in the format of a Hugging Face `config.json`, which configuration files and checkpoints use as
//! well.

use serde_json::{Value, json};

use super::TrainError;
use crate::ModelConfig;
use crate::config::json as config_json;
use crate::config::{ActivationBits, Architecture};
use config_json::{Fields, JsonError, JsonFacts};

/// Parts of a shape that are not in a `config.json`: the transforms of BitNet v2, and the bits of all activations.
const HADAMARD: &str = "hadamard";
const BITS: &str = "activation_bits";

/// A model's shape from the keys of a Hugging Face `config.json`; missing values are those of BitNet b1.58 2B4T.
/// `hadamard` and `activation_bits`, or `input_forms`, define how activations become codes; `weight_group_size` is how
/// many weights of a row share a scale, and implies activations of 16 bits; `mixers` is a name for all layers
/// (`attention`, `ttt_linear`, `ttt_mlp`) or a list of one for each, `ttt` holds the constants of test-time-training
/// layers.
///
/// # Errors
/// [`TrainError::Shape`] for a key that is missing or has a value of the wrong kind; [`TrainError::Model`] for an
/// invalid model.
pub fn model_from_json(v: &Value) -> Result<ModelConfig, TrainError> {
    let mut map = v.as_object().cloned().unwrap_or_default();
    config_json::refuse_unknown_ttt(&map)?;
    if config_json::is_own_shape(&map) {
        // The family follows from the features of the shape: the type of another program does not count.
        map.remove("model_type");
    }
    config_json::complete_shape(&mut map);
    let f = Fields(&map);
    let name = f.str("model_type")?.unwrap_or_default();
    let reason = "no such family is known";
    let unknown = || JsonError::Value { key: "model_type".into(), value: name.into(), reason: reason.into() };
    let architecture = Architecture::from_json(name, []).ok_or_else(unknown)?;
    // Parameters are created according to the configuration, so there is a head unless it is tied.
    let facts = JsonFacts { has_head: true, ..JsonFacts::default() };
    let mut c = config_json::read(&map, architecture, &facts)?;
    if f.bool(HADAMARD)?.unwrap_or(false) {
        c.inputs = c.inputs.with_hadamard(&c);
    }
    if let Some(bits) = f.get(BITS) {
        let groups = c.weight_group.is_some();
        let trained = |b: &ActivationBits| (*b == ActivationBits::Sixteen) == groups;
        let known = bits.as_u64().and_then(ActivationBits::from_number).filter(trained);
        let must = if groups { "16, with weight_group_size" } else { "8 or 4; 16 is for weight_group_size" };
        let wrong = || TrainError::Option { option: BITS, value: bits.to_string(), must };
        c.inputs = c.inputs.with_bits(known.ok_or_else(wrong)?);
    }
    c.validate()?;
    Ok(c)
}

/// The `config.json` of a model with float master weights that are quantised when they are read.
///
/// # Errors
/// [`TrainError::Shape`] for formulas that no family's `config.json` can say.
pub fn model_to_json(c: &ModelConfig) -> Result<Value, TrainError> {
    let mut map = config_json::write(c)?;
    map.insert("sub_norms".to_owned(), json!(c.sub_norms));
    map.insert("torch_dtype".to_owned(), json!("float32"));
    if c.weight_group.is_none() {
        // Other programs know this method with one scale per matrix only.
        let online = json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"});
        map.insert("quantization_config".to_owned(), online);
    }
    Ok(Value::Object(map))
}

impl From<JsonError> for TrainError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Model(error) => Self::Model(error),
            other => Self::Shape(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::{Activation, Mixer};

    fn shape() -> Map<String, Value> {
        let v = json!({"vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                       "num_attention_heads": 4});
        v.as_object().cloned().unwrap()
    }

    #[test]
    fn what_is_absent_is_as_in_2b4t() {
        let c = model_from_json(&Value::Object(shape())).unwrap();
        assert_eq!(c, ModelConfig::new(96, 64, 128, 2, 4, 4));
    }

    #[test]
    fn shapes_of_all_mixtures_survive_a_checkpoint() {
        let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
        for (act, sub_norms, tied) in
            [(Activation::Relu2, true, true), (Activation::Silu, false, false), (Activation::Relu2, false, true)]
        {
            (c.hidden_act, c.sub_norms, c.tie_word_embeddings) = (act, sub_norms, tied);
            for (mixers, bits) in [
                (vec![], ActivationBits::Eight),
                (vec![Mixer::TttMlp, Mixer::Attention], ActivationBits::Four),
                (vec![], ActivationBits::Four),
            ] {
                c.mixers = mixers;
                c.inputs = crate::InputForms::default().with_bits(bits);
                let json = model_to_json(&c).unwrap();
                assert_eq!(model_from_json(&json).unwrap(), c, "{json}");
            }
        }
    }

    #[test]
    fn shapes_with_groups_survive_a_checkpoint() {
        for (family, head_norms) in [("qwen3", true), ("bitnet", false)] {
            let mut map = shape();
            map.extend([("model_type".to_owned(), family.into()), ("head_dim".to_owned(), 32.into())]);
            let plain = model_from_json(&Value::Object(map.clone())).unwrap();
            assert_eq!(plain.inputs, crate::InputForms::default());
            map.insert("weight_group_size".to_owned(), 64.into());
            let c = model_from_json(&Value::Object(map)).unwrap();
            assert_eq!((c.weight_group, c.head_dim, c.head_norms), (Some(64), 32, head_norms));
            assert!(c.inputs.all().iter().all(|f| f.bits == ActivationBits::Sixteen));
            let json = model_to_json(&c).unwrap();
            assert_eq!(model_from_json(&json).unwrap(), c, "{json}");
        }
    }

    #[test]
    fn groups_that_cannot_be_are_said_by_name() {
        let with = |more: Value| {
            let mut map = shape();
            map.insert("weight_group_size".to_owned(), 64.into());
            map.extend(more.as_object().cloned().unwrap());
            model_from_json(&Value::Object(map)).map_err(|e| e.to_string())
        };
        with(json!({})).unwrap();
        with(json!({"activation_bits": 16})).unwrap();
        let cases = [
            (json!({"weight_group_size": 32}), "weight_group_size"),
            (json!({"hidden_size": 96}), "hidden_size"),
            (json!({"head_dim": 8}), "head_dim"),
            (json!({"intermediate_size": 100}), "intermediate_size"),
            (json!({"activation_bits": 8}), "16, with weight_group_size"),
            (json!({"hadamard": true}), "Hadamard"),
            (json!({"mixers": "ttt_linear"}), "mixers"),
        ];
        for (more, word) in cases {
            let error = with(more.clone()).unwrap_err();
            assert!(error.contains(word), "{more}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_trained_is_said_by_name() {
        let with = |key: &str, value: Value| {
            let mut map = shape();
            map.insert(key.to_owned(), value);
            model_from_json(&Value::Object(map)).unwrap_err().to_string()
        };
        assert!(with("activation_bits", 16.into()).contains("8 or 4"));
        assert!(with("ttt", json!({"mini_batch": 4})).contains("mini_batch"));
        assert!(with("model_type", "gpt2".into()).contains("gpt2"));
        assert!(with("hidden_act", "gelu".into()).contains("hidden_act"));
        assert!(with("hidden_size", Value::Null).contains("hidden_size"));
    }
}
