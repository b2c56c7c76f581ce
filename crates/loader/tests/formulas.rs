//! Formulas in configurations: computed, or rejected by name, never ignored.

mod common;

use bitnet_model::{Activation, ModelConfig, RopeScaling};
use common::checkpoints::{folder, small_config, small_tensors};
use common::edit::{Edit, refusal, stories_folder, try_load};
use loader::gguf::{Array, Value};
use serde_json::{Value as Json, json};

const A: &str = "bitnet-b1.58";

fn gguf(edit: &Edit) -> Result<(ModelConfig, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let loaded = try_load(&edit.write(&dir.path().join("m.gguf"))).map_err(|e| e.to_string())?;
    Ok((loaded.weights.config, loaded.notes))
}

/// The small folder with these fields; errors as text.
fn hf(fields: Json) -> Result<ModelConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small_config();
    for (key, value) in fields.as_object().unwrap() {
        config[key.as_str()] = value.clone();
    }
    let c = loader::Checkpoint::open(&folder(dir.path(), &config, &small_tensors()), &Default::default());
    c.and_then(|c| c.weights()).map(|w| w.config).map_err(|e| e.to_string())
}

#[track_caller]
fn refused<T>(result: Result<T, String>, key: &str) {
    match result {
        Ok(_) => panic!("{key} was accepted"),
        Err(e) => assert!(e.contains(key), "{e}"),
    }
}

#[test]
fn a_gguf_scaling_of_one_scales_nothing() {
    let plain = gguf(&Edit::stories()).unwrap();
    for kind in ["linear", "yarn", "dynamic", "llama3", "longrope", "none", ""] {
        for factor in [Some(1.0f32), Some(0.0), None] {
            let mut edit = Edit::stories().set(&format!("{A}.rope.scaling.type"), kind);
            if let Some(factor) = factor {
                edit = edit.set(&format!("{A}.rope.scaling.factor"), factor);
            }
            assert_eq!(gguf(&edit).unwrap(), plain, "{kind} {factor:?}");
        }
    }
    let bitnet = Edit::stories().architecture("bitnet").set("bitnet.rope.scaling.type", "linear");
    gguf(&bitnet.set("bitnet.rope.scaling.factor", 1.0f32)).unwrap();
    // Whole numbers are numbers, too.
    let whole = Edit::stories().set(&format!("{A}.rope.scaling.type"), "linear");
    assert_eq!(gguf(&whole.set(&format!("{A}.rope.scaling.factor"), 1u32)).unwrap(), plain);
}

#[test]
fn gguf_scalings_are_computed_or_refused() {
    let scaled = |key: &str, kind: Option<&str>, factor: f32| {
        let mut edit = Edit::stories().set(&format!("{A}.rope.{key}"), factor);
        if let Some(kind) = kind {
            edit = edit.set(&format!("{A}.rope.scaling.type"), kind);
        }
        gguf(&edit).map(|g| g.0.rope_scaling)
    };
    let linear = Ok(RopeScaling::Linear { factor: 4.0 });
    assert_eq!(scaled("scaling.factor", Some("linear"), 4.0), linear);
    assert_eq!(scaled("scaling.factor", None, 4.0), linear);
    assert_eq!(scaled("scale_linear", None, 4.0), linear);
    assert_eq!(scaled("scale_linear", Some("none"), 4.0), Ok(RopeScaling::None));
    for kind in ["yarn", "dynamic", "longrope", "llama3", "other"] {
        refused(scaled("scaling.factor", Some(kind), 4.0), kind);
    }
    refused(scaled("scaling.factor", None, -4.0), "rope.scaling.factor");
    refused(scaled("scaling.factor", None, f32::NAN), "rope.scaling.factor");
    refused(scaled("scaling.attn_factor", None, 1.2), "rope.scaling.attn_factor");
    // The newer key takes precedence if both are present.
    let both = Edit::stories().set(&format!("{A}.rope.scaling.factor"), 2.0f32);
    let both = gguf(&both.set(&format!("{A}.rope.scale_linear"), 4.0f32)).unwrap();
    assert_eq!(both.0.rope_scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn factors_of_frequencies_are_read_from_their_tensor() {
    let factors: Vec<f32> = (0..32).map(|i| 1.0 + i as f32 / 4.0).collect();
    let with = |values: &[f32]| gguf(&Edit::stories().floats("rope_freqs.weight", values));
    assert_eq!(with(&factors).unwrap().0.rope_scaling, RopeScaling::Factors(factors.clone()));
    assert_eq!(with(&[1.0; 32]).unwrap().0.rope_scaling, RopeScaling::None);
    refused(with(&factors[..31]), "rope_scaling");
    let both = Edit::stories().floats("rope_freqs.weight", &factors).set(&format!("{A}.rope.scaling.factor"), 4.0f32);
    refused(gguf(&both), "rope_freqs");
}

#[test]
fn scalings_of_a_folder_are_neutral_computed_or_refused() {
    let plain = hf(json!({})).unwrap();
    for key in ["rope_scaling", "rope_parameters"] {
        for scaling in [
            json!(null),
            json!({}),
            json!({"type": "linear", "factor": 1.0}),
            json!({"rope_type": "linear", "factor": 1}),
            json!({"type": "linear"}),
            json!({"type": null, "factor": 1.0}),
            json!({"factor": 1.0}),
            json!({"type": "yarn", "factor": 1.0, "original_max_position_embeddings": 64, "mscale": 0.7}),
            json!({"rope_type": "dynamic", "factor": 1.0}),
            json!({"rope_type": "llama3", "factor": 1.0}),
            json!({"rope_type": "longrope", "factor": 1.0}),
            json!({"type": "su", "short_factor": vec![1.0; 16], "long_factor": vec![1.0; 16]}),
            json!({"rope_type": "default"}),
            json!({"type": "none"}),
            json!({"rope_type": "default", "rope_theta": 10000.0}),
            json!({"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
        ] {
            assert_eq!(hf(json!({key: scaling})).as_ref(), Ok(&plain), "{key}: {scaling}");
        }
        let scaled = |v: Json| hf(json!({key: v})).map(|c| c.rope_scaling);
        assert_eq!(scaled(json!({"type": "linear", "factor": 4})), Ok(RopeScaling::Linear { factor: 4.0 }));
        assert_eq!(
            scaled(json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 64})),
            Ok(RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 })
        );
        let two = json!({"rope_type": "longrope", "short_factor": vec![2.0; 16], "long_factor": vec![2.0; 16], "attention_factor": 1.0});
        assert_eq!(scaled(two), Ok(RopeScaling::Factors(vec![2.0; 16])));
        for (wrong, says) in [
            (json!({"type": "yarn", "factor": 4.0}), "yarn"),
            (json!({"type": "yarn"}), "yarn"),
            (json!({"type": "dynamic", "factor": 2.0}), "dynamic"),
            (json!({"factor": 4.0}), "factor"),
            (json!({"type": "linear", "factor": -1.0}), "factor"),
            (json!({"type": "linear", "factor": "4"}), "factor"),
            (json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
            (
                json!({"rope_type": "longrope", "short_factor": vec![2.0; 3], "long_factor": vec![2.0; 3], "factor": 1.0}),
                "short_factor",
            ),
            (json!({"rope_type": "yarn", "factor": 1.0, "attention_factor": 1.3}), "attention_factor"),
            (json!({"rope_type": "default", "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (json!({"rope_type": "linear", "type": "yarn", "factor": 2.0}), "disagree"),
            (json!({"mrope_section": [4, 4, 8]}), "mrope_section"),
            (json!(7), key),
        ] {
            refused(scaled(wrong), says);
        }
    }
    let both = json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}});
    refused(hf(both), "contradicts");
}

#[test]
fn the_activation_is_the_one_that_the_file_names() {
    for (name, act) in [
        ("relu2", Activation::Relu2),
        ("relu_sqr", Activation::Relu2),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
    ] {
        for key in ["hidden_activation", "hidden_act"] {
            for architecture in ["bitnet", "bitnet-b1.58"] {
                let edit = Edit::stories().architecture(architecture).set(&format!("{architecture}.{key}"), name);
                assert_eq!(gguf(&edit).unwrap().0.hidden_act, act, "{architecture} {key} {name}");
            }
        }
        assert_eq!(hf(json!({"hidden_act": name})).unwrap().hidden_act, act);
        assert_eq!(hf(json!({"hidden_act": null, "hidden_activation": name})).unwrap().hidden_act, act);
    }
    let bitnet = || Edit::stories().architecture("bitnet");
    let (config, notes) = gguf(&bitnet()).unwrap();
    assert_eq!(config.hidden_act, Activation::Silu);
    assert!(notes.iter().any(|n| n.contains("bitnet.hidden_activation")), "{notes:?}");
    refused(gguf(&bitnet().set("bitnet.hidden_activation", "gelu")), "bitnet.hidden_activation");
    refused(gguf(&Edit::stories().set(&format!("{A}.hidden_activation"), "gelu_new")), "gelu_new");
    let two = bitnet().set("bitnet.hidden_activation", "silu").set("bitnet.hidden_act", "relu2");
    refused(gguf(&two), "contradicts");
    refused(hf(json!({"hidden_activation": "gelu"})), "hidden_activation");
}

#[test]
fn a_file_of_architecture_bitnet_with_the_vocabulary_of_2b4t_must_name_its_activation() {
    // Only the header is read: neither tensors nor the vocabulary are present.
    let sized = |ffn: u32| {
        let mut edit = Edit::stories().architecture("bitnet");
        edit.metadata.retain(|k| !k.starts_with("tokenizer."));
        edit.tensors.retain(|t| t.0 == "output_norm.weight");
        for (key, value) in [
            ("vocab_size", 128_256u32),
            ("embedding_length", 2560),
            ("feed_forward_length", ffn),
            ("block_count", 30),
            ("attention.head_count", 20),
            ("attention.head_count_kv", 5),
            ("rope.dimension_count", 128),
        ] {
            edit = edit.set(&format!("bitnet.{key}"), value);
        }
        edit
    };
    let open = |edit: Edit| {
        let dir = tempfile::tempdir().unwrap();
        let c = loader::Checkpoint::open(&edit.write(&dir.path().join("m.gguf")), &Default::default());
        c.map(|c| (bitnet_model::WeightSource::config(&c).hidden_act, c.notes())).map_err(|e| e.to_string())
    };
    let (act, notes) = open(sized(6912)).unwrap();
    assert_eq!(act, Activation::Relu2);
    assert!(notes.iter().any(|n| n.contains("bitnet.hidden_activation")), "{notes:?}");
    refused(open(sized(4096)), "bitnet.hidden_activation");
    assert_eq!(open(sized(4096).set("bitnet.hidden_activation", "silu")).unwrap().0, Activation::Silu);
}

#[test]
fn gguf_keys_that_would_change_the_result_are_neutral_or_refused() {
    let plain = gguf(&Edit::stories()).unwrap();
    let neutral: [(&str, Value); 22] = [
        ("attention.scale", Value::F32(0.125)),
        ("attention.scale", Value::F32(0.0)),
        ("logit_scale", Value::F32(1.0)),
        ("embedding_scale", Value::F32(1.0)),
        ("residual_scale", Value::F32(0.0)),
        ("attn_logit_softcapping", Value::F32(0.0)),
        ("attention.sliding_window", Value::U32(512)),
        ("attention.sliding_window", Value::U32(0)),
        ("expert_count", Value::U32(0)),
        ("attention.causal", Value::Bool(true)),
        ("attention.clamp_kqv", Value::F32(0.0)),
        ("attention.key_length", Value::U32(64)),
        ("attention.value_length", Value::U32(64)),
        ("attention.head_count_kv", Value::Array(Array::U32(vec![2; 6]))),
        ("rope.dimension_sections", Value::Array(Array::I32(vec![0; 4]))),
        ("use_parallel_residual", Value::Bool(false)),
        ("attention.max_alibi_bias", Value::F32(0.0)),
        ("attention.layer_norm_epsilon", Value::F32(1e-5)),
        ("rope.scaling.original_context_length", Value::U32(2048)),
        ("rope.scaling.finetuned", Value::Bool(false)),
        ("tensor_data_layout", Value::String("Meta AI original pth".into())),
        ("nextn_predict_layers", Value::U32(0)),
    ];
    for (key, value) in neutral {
        assert_eq!(gguf(&Edit::stories().set(&format!("{A}.{key}"), value.clone())).unwrap(), plain, "{key} {value}");
    }
    let wrong: [(&str, Value); 23] = [
        ("attention.scale", Value::F32(0.2)),
        ("attention.output_scale", Value::F32(2.0)),
        ("logit_scale", Value::F32(0.0625)),
        ("embedding_scale", Value::F32(12.0)),
        ("residual_scale", Value::F32(0.22)),
        ("attn_logit_softcapping", Value::F32(50.0)),
        ("final_logit_softcapping", Value::F32(30.0)),
        ("attention.sliding_window", Value::U32(128)),
        ("expert_count", Value::U32(8)),
        ("attention.causal", Value::Bool(false)),
        ("attention.clamp_kqv", Value::F32(8.0)),
        ("attention.value_length", Value::U32(32)),
        ("rope.dimension_count", Value::U32(32)),
        ("rope.dimension_sections", Value::Array(Array::I32(vec![16, 24, 24, 0]))),
        ("use_parallel_residual", Value::Bool(true)),
        ("attention.max_alibi_bias", Value::F32(8.0)),
        ("attention.layer_norm_epsilon", Value::F32(1e-3)),
        ("ssm.state_size", Value::U32(16)),
        ("nextn_predict_layers", Value::U32(1)),
        ("tensor_data_layout", Value::String("other".into())),
        ("rope.scaling.alpha", Value::F32(1000.0)),
        ("attention.q_lora_rank", Value::U32(64)),
        ("swin_norm", Value::Bool(true)),
    ];
    for (key, value) in wrong {
        let key = format!("{A}.{key}");
        refused(gguf(&Edit::stories().set(&key, value)), &key);
    }
    refused(gguf(&Edit::stories().set("general.type", "adapter")), "general.type");
    // Unknown keys are reported.
    let (config, notes) = gguf(&Edit::stories().set(&format!("{A}.new_thing"), 3u32)).unwrap();
    assert_eq!(config, plain.0);
    assert!(notes.iter().any(|n| n.contains("new_thing")), "{notes:?}");
    // Keys of another architecture, and of training, have no effect.
    assert_eq!(gguf(&Edit::stories().set("other.logit_scale", 3.0f32).set("training.steps", 3u32)).unwrap(), plain);
}

#[test]
fn fields_of_a_folder_that_would_change_the_result_are_neutral_or_refused() {
    let plain = hf(json!({})).unwrap();
    for fields in [
        json!({"attention_bias": false, "mlp_bias": false, "sliding_window": null}),
        json!({"sliding_window": 16, "use_sliding_window": false}),
        json!({"sliding_window": 128}),
        json!({"sliding_window": 16, "layer_types": ["full_attention"]}),
        json!({"layer_types": ["full_attention"]}),
        json!({"attn_logit_softcapping": null, "final_logit_softcapping": null}),
        json!({"partial_rotary_factor": 1.0, "head_dim": 32}),
        json!({"query_pre_attn_scalar": 32, "attention_multiplier": 0.17677669529663687}),
        json!({"logits_scaling": 1, "embedding_multiplier": 1.0, "residual_multiplier": 1.0}),
        json!({"num_experts": 0, "num_local_experts": null}),
        json!({"input_bits": 8, "use_cache": true, "pretraining_tp": 2, "attention_dropout": 0.1}),
        json!({"layer_norm_eps": 1e-12, "clip_qkv": null, "no_rope_layers": [1]}),
    ] {
        assert_eq!(hf(fields.clone()).as_ref(), Ok(&plain), "{fields}");
    }
    for (fields, says) in [
        (json!({"attention_bias": true}), "attention_bias"),
        (json!({"mlp_bias": true}), "mlp_bias"),
        (json!({"sliding_window": 16}), "sliding_window"),
        (json!({"sliding_window": 16, "use_sliding_window": true}), "sliding_window"),
        (json!({"sliding_window": 16, "layer_types": ["sliding_attention"]}), "sliding_window"),
        (json!({"layer_types": ["linear_attention"]}), "layer_types"),
        (json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping"),
        (json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"query_pre_attn_scalar": 256}), "query_pre_attn_scalar"),
        (json!({"attention_multiplier": 0.015625}), "attention_multiplier"),
        (json!({"logits_scaling": 8.0}), "logits_scaling"),
        (json!({"logit_scale": 0.0625}), "logit_scale"),
        (json!({"scale_emb": 12}), "scale_emb"),
        (json!({"scale_depth": 1.4}), "scale_depth"),
        (json!({"dim_model_base": 256}), "dim_model_base"),
        (json!({"num_local_experts": 8}), "num_local_experts"),
        (json!({"clip_qkv": 8.0}), "clip_qkv"),
        (json!({"input_bits": 4}), "input_bits"),
        (json!({"use_qk_norm": true}), "use_qk_norm"),
        (json!({"no_rope_layers": [0]}), "no_rope_layers"),
        (json!({"position_embedding_type": "alibi"}), "position_embedding_type"),
        (json!({"rms_norm_eps": null, "layer_norm_eps": 1e-3}), "layer_norm_eps"),
        (json!({"tie_word_embeddings": false}), "lm_head.weight"),
        (
            json!({"quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                           "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.up_proj"]}}),
            "modules_to_not_convert",
        ),
    ] {
        refused(hf(fields.clone()), says);
    }
}

#[test]
fn packed_weights_need_a_word_on_their_scale() {
    for config in [json!(null), json!({})] {
        let result = hf(json!({"quantization_config": config}));
        refused(result, "quantization_config");
    }
    // A class is not enough, nor is a separate scale of ternary floats.
    let dir = tempfile::tempdir().unwrap();
    let fields = json!({"quantization_config": null});
    let Some(folder) = stories_folder(&dir.path().join("f"), &fields, &[]) else { return };
    let message = refusal(&folder);
    assert!(message.contains("linear_class") && message.contains("autobitlinear"), "{message}");
}

#[test]
fn paths_are_named_once() {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = stories_folder(&dir.path().join("f"), &json!({}), &[]) else { return };
    let name = folder.display().to_string();
    let times = |message: &str| message.matches(&name).count();
    let broken = |file: &str, text: &str| {
        let old = std::fs::read(folder.join(file)).ok();
        std::fs::write(folder.join(file), text).unwrap();
        let message = refusal(&folder);
        match old {
            Some(old) => std::fs::write(folder.join(file), old).unwrap(),
            None => std::fs::remove_file(folder.join(file)).unwrap(),
        }
        message
    };
    for (file, text) in [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "["),
        ("generation_config.json", "7"),
        ("model.safetensors", "x"),
        ("chat_template.jinja", "\u{1}{% for %}"),
    ] {
        if let Ok(message) = std::panic::catch_unwind(|| broken(file, text)) {
            assert_eq!(times(&message), 1, "{file}: {message}");
        }
    }
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    std::fs::create_dir(folder.join("tokenizer_config.json")).unwrap();
    std::fs::write(folder.join("tokenizer.model"), "x").unwrap();
    let message = refusal(&folder);
    assert_eq!(times(&message), 1, "{message}");
}
