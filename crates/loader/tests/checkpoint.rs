//! The same model from every container and form is the same model, bit for bit.

mod common;

use bitnet_model::{Activation, Projection, WeightSource};
use common::checkpoints::*;
use loader::{LoadOptions, QkLayout};
use proptest::strategy::Strategy;

/// f16 holds every bf16 value of normal size; below 2^-14 it is within half of 2^-24.
const F16_EMBEDDING: Allow = Allow { scale: 0.0, embedding: 1.0 / (1u32 << 25) as f32 };

#[test]
fn gguf_files_hold_the_weights_of_the_packed_checkpoint() {
    let Some(shared) = test_support::shared_dir() else { return };
    let mut compared = 0;
    for case in ["gqa_tied_768", "mha_untied_640", "silu_gqa_512"] {
        let packed = load(&shared.join(format!("fixtures/bitnet/{case}/packed")));
        for form in ["I2_S", "TQ1_0", "TQ2_0"] {
            let path = shared.join(format!("fixtures/gguf/{case}.{form}.gguf"));
            if path.is_file() {
                let c = open(&path);
                assert_same(&packed, &c.weights().unwrap(), F16_EMBEDDING, &format!("{case} {form}"));
                assert!(c.info().ternary_format.contains(form), "{}", c.info().ternary_format);
                compared += 1;
            }
        }
    }
    for model in ["tiny_ternary", "tinystories_5m"] {
        let packed = load(&shared.join(format!("models/{model}/packed")));
        let gguf = load(&shared.join(format!("models/{model}/model.I2_S.gguf")));
        assert_same(&packed, &gguf, F16_EMBEDDING, model);
        compared += 1;
    }
    assert_eq!(compared, 9);
}

#[test]
fn master_weights_quantise_to_the_packed_checkpoint() {
    let Some(shared) = test_support::shared_dir() else { return };
    for case in
        ["fixtures/bitnet/stable_tiny", "fixtures/bitnet/silu_gqa_512", "models/tiny_ternary", "models/tinystories_5m"]
    {
        let packed = load(&shared.join(case).join("packed"));
        let master = open(&shared.join(case).join("master"));
        let weights = master.weights().unwrap();
        // The packed form rounds the scale to bf16, which stores 7 bits after the leading one: half an ulp is at most
        // 2^-8 of the value.
        assert_same(&weights, &packed, Allow { scale: 1.0 / 256.0, embedding: 0.0 }, case);
        assert!(master.notes().iter().any(|n| n.contains("absmean")), "{:?}", master.notes());
        assert!(open(&shared.join(case).join("packed")).notes().is_empty());
    }
}

#[test]
fn the_linear_class_decides_what_the_scale_means() {
    let Some(shared) = test_support::shared_dir() else { return };
    let folder = shared.join("fixtures/bitnet/stable_tiny/packed_bitlinear");
    let divided = load(&folder);
    let stored = loader::safetensors::Safetensors::open(&folder).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight_scale";
    let bytes = &stored.get(name).unwrap().bytes;
    let stored = half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    assert_eq!(divided.layers[0].projection(Projection::Q).scales().at(0, 0), 1.0 / stored);
}

#[test]
fn a_small_checkpoint_is_read_as_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let w = load(&folder(dir.path(), &small_config(), &small_tensors()));
    assert_eq!(w.config.hidden_act, Activation::Relu2);
    assert_eq!((w.config.bos_token_id, &w.config.eos_token_ids[..]), (Some(1), &[2, 3][..]));
    for (n, p) in Projection::OF_ATTENTION.into_iter().enumerate() {
        let (rows, cols) = shape(p);
        let m = w.layers[0].projection(p);
        assert_eq!(m.to_trits(), (0..rows * cols).map(|i| trit(n, i)).collect::<Vec<_>>());
        assert_eq!(m.scales().at(0, 0), 0.5 + n as f32 / 8.0);
    }
}

#[test]
fn base_models_without_prefix_and_generation_configs_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let bare: Vec<Tensor> =
        small_tensors().into_iter().map(|t| (t.0.trim_start_matches("model.").to_owned(), t.1, t.2, t.3)).collect();
    let path = folder(dir.path(), &small_config(), &bare);
    let generation = r#"{"eos_token_id": [3, 9], "temperature": 0.6, "top_p": 0.9, "do_sample": true}"#;
    std::fs::write(path.join("generation_config.json"), generation).unwrap();
    let c = open(&path);
    c.weights().unwrap();
    assert_eq!(c.config().eos_token_ids, [2, 3, 9]);
    assert_eq!((c.generation().temperature, c.generation().do_sample), (Some(0.6), Some(true)));
}

#[test]
fn dense_projections_that_are_ternary_keep_their_scale() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = small_tensors();
    let base = projection_name(Projection::Down);
    tensors.retain(|t| !t.0.starts_with(&base));
    tensors.push(bf16_tensor(&format!("{base}.weight"), &[HIDDEN, FFN], |i| f32::from(trit(6, i)) * 0.75));
    let w = load(&folder(dir.path(), &small_config(), &tensors));
    let m = w.layers[0].projection(Projection::Down);
    // absmean would have given 0.75 times the share of non-zero weights.
    assert_eq!(m.scales().at(0, 0), 0.75);
    assert_eq!(m.to_trits()[..40], (0..40).map(|i| trit(6, i)).collect::<Vec<_>>());
}

#[test]
fn merged_projections_are_taken_apart() {
    let dir = tempfile::tempdir().unwrap();
    let separate = load(&folder(&dir.path().join("separate"), &small_config(), &small_tensors()));
    let mut tensors = small_tensors();
    let merges: [(&str, &[Projection]); 2] = [
        ("model.layers.0.self_attn.qkv_proj", &[Projection::Q, Projection::K, Projection::V]),
        ("model.layers.0.mlp.gate_up_proj", &[Projection::Gate, Projection::Up]),
    ];
    for (merged, parts) in merges {
        let mut trits = Vec::new();
        let mut scales = Vec::new();
        for p in parts {
            let m = separate.layers[0].projection(*p);
            trits.extend(m.to_trits());
            scales.push(m.scales().at(0, 0));
            let base = projection_name(*p);
            tensors.retain(|t| !t.0.starts_with(&base));
        }
        let cols = HIDDEN;
        let rows = trits.len() / cols;
        let m = ternary_kernels::TernaryMatrix::from_trits(rows, cols, &trits, ternary_kernels::Scales::Tensor(1.0));
        let packed = ternary_kernels::FileFormat::HfPacked.encode(&m.unwrap(), Default::default()).unwrap();
        tensors.push((format!("{merged}.weight"), loader::safetensors::Dtype::U8, vec![rows / 4, cols], packed));
        tensors.push(bf16_tensor(&format!("{merged}.weight_scale"), &[scales.len()], |i| scales[i]));
    }
    let merged = load(&folder(&dir.path().join("merged"), &small_config(), &tensors));
    assert_same(&separate, &merged, EXACT, "merged");
}

#[test]
fn the_order_of_q_and_k_can_be_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let path = folder(dir.path(), &small_config(), &small_tensors());
    let mut options = LoadOptions::default();
    options.qk_layout = Some(QkLayout::Interleaved);
    let other = loader::Checkpoint::open(&path, &options).unwrap().weights().unwrap();
    let half = load(&path);
    for (p, changes) in [(Projection::Q, true), (Projection::K, true), (Projection::V, false)] {
        let (a, b) = (half.layers[0].projection(p), other.layers[0].projection(p));
        assert_eq!(a.to_trits() != b.to_trits(), changes, "{p:?}");
        if changes {
            let (mut x, mut y) = (vec![0; HIDDEN], vec![0; HIDDEN]);
            a.decode_row(1, &mut x);
            b.decode_row(16, &mut y);
            assert_eq!(x, y, "stored row 1 turns with stored row 0, so it is row 0 + 32/2");
        }
    }
}

#[test]
fn every_reference_gguf_file_holds_its_checkpoint() {
    let manifest = std::fs::read(test_support::testdata("gguf/manifest.json")).unwrap();
    let manifest: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&manifest).unwrap();
    let (mut compared, mut tables) = (0, 0);
    for (file, facts) in &manifest {
        let field = |k: &str| facts[k].as_str().unwrap();
        let case = test_support::testdata(&format!("bitnet/{}", field("case")));
        let c = open(&test_support::testdata(&format!("gguf/{file}")));
        let weights = c.weights().unwrap();
        assert_eq!(c.architecture(), field("architecture"), "{file}");
        assert!(c.info().ternary_format.contains(field("ternary")), "{file}: {}", c.info().ternary_format);
        assert_eq!(weights.embedding.type_name().to_uppercase(), field("embedding").replace("_K", "K"), "{file}");
        // The llama checkpoints store 1/scale, rounded to f32, and reading it rounds the inverse again: 2^-24 each.
        let scale = if field("case").starts_with("llama") { 1.0 / (1u32 << 23) as f32 } else { 0.0 };
        if case.join("packed").is_dir() {
            assert_same(&load(&case.join("packed")), &weights, Allow { scale, ..F16_EMBEDDING }, file);
            compared += 1;
        }
        let expected = loader::safetensors::Safetensors::open(&case.join("expected.safetensors")).unwrap();
        if let Some(rows) = expected.get("embed_rows") {
            let rows: Vec<f32> = rows.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            for (r, row) in rows.chunks(weights.config.hidden_size).enumerate() {
                let mut got = vec![0.0; row.len()];
                weights.embedding.row_into(r, &mut got);
                // Three roundings at most (scale, minimum, difference), of numbers up to the largest of the row.
                let most = row.iter().fold(0f32, |m, v| m.max(v.abs())) * 2.0;
                let worst = row.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 3.0 * most / (1 << 24) as f32, "{file}: {worst} of {most}");
                tables += 1;
            }
        }
    }
    assert!(compared >= 6 && tables >= 16, "{compared} {tables}");
}

#[test]
fn reference_refusals_are_refused() {
    let list = std::fs::read(test_support::testdata("refusals/refusals.json")).unwrap();
    let list: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&list).unwrap();
    assert!(list.len() >= 15);
    let mut wrong = Vec::new();
    for (file, facts) in &list {
        let path = test_support::testdata(&format!("refusals/{file}"));
        let reason = facts["reason"].as_str().unwrap();
        let used =
            loader::Checkpoint::open(&path, &LoadOptions::default()).and_then(|c| c.projection(0, Projection::K));
        match used.err() {
            None if reason.contains("or keep each row's") => {}
            None => wrong.push(format!("{file} was accepted: {reason}")),
            Some(e) => {
                let message = e.to_string();
                let named = message.contains(facts["tensor"].as_str().unwrap()) || message.contains("architecture");
                if !named {
                    wrong.push(format!("{file}: {message}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn merged_and_renamed_master_weights_are_read() {
    let case = |name: &str| test_support::testdata(&format!("bitnet/{name}"));
    let allow = Allow { scale: 1.0 / 256.0, embedding: 0.0 };
    assert_same(&load(&case("merged_tiny/master")), &load(&case("merged_tiny/packed")), allow, "merged_tiny");
    let onebit = load(&case("onebit_tiny/master"));
    assert!(onebit.config.sub_norms && onebit.config.hidden_act == Activation::Silu);
    load(&case("sharded_tiny/packed"));
}

struct Case {
    what: &'static str,
    change: fn(&mut serde_json::Value, &mut Vec<Tensor>),
    variant: &'static str,
    says: &'static str,
}

fn tensor<'a>(all: &'a mut [Tensor], ends: &str) -> &'a mut Tensor {
    all.iter_mut().find(|t| t.0.ends_with(ends)).unwrap()
}

#[test]
fn bad_checkpoints_are_refused_with_their_reason() {
    let cases = [
        Case {
            what: "code 3",
            change: |_, t| tensor(t, "q_proj.weight").3[5] |= 0b11,
            variant: "Ternary",
            says: "q_proj.weight",
        },
        Case {
            what: "NaN scale",
            change: |_, t| {
                *tensor(t, "v_proj.weight_scale") =
                    bf16_tensor("model.layers.0.self_attn.v_proj.weight_scale", &[1], |_| f32::NAN)
            },
            variant: "NotFinite",
            says: "v_proj.weight_scale",
        },
        Case {
            what: "scale 0 that divides",
            change: |c, t| {
                c["quantization_config"]["linear_class"] = "bitlinear".into();
                *tensor(t, "v_proj.weight_scale") =
                    bf16_tensor("model.layers.0.self_attn.v_proj.weight_scale", &[1], |_| 0.0);
            },
            variant: "NotFinite",
            says: "v_proj.weight_scale",
        },
        Case {
            what: "two scales for one projection",
            change: |_, t| {
                *tensor(t, "o_proj.weight_scale") =
                    bf16_tensor("model.layers.0.self_attn.o_proj.weight_scale", &[2], |_| 1.0)
            },
            variant: "TensorShape",
            says: "o_proj.weight_scale",
        },
        Case {
            what: "no scale",
            change: |_, t| t.retain(|t| !t.0.ends_with("up_proj.weight_scale")),
            variant: "MissingTensor",
            says: "up_proj.weight_scale",
        },
        Case {
            what: "no sub-norm",
            change: |_, t| t.retain(|t| !t.0.ends_with("ffn_sub_norm.weight")),
            variant: "MissingTensor",
            says: "ffn_sub_norm",
        },
        Case {
            what: "other width",
            change: |c, _| c["intermediate_size"] = 128.into(),
            variant: "TensorShape",
            says: "gate_proj",
        },
        Case {
            what: "one layer too few",
            change: |c, _| c["num_hidden_layers"] = 2.into(),
            variant: "MissingTensor",
            says: "layers.1",
        },
        Case {
            what: "an additional norm",
            change: |_, t| t.push(bf16_tensor("model.layers.0.self_attn.q_norm.weight", &[32], |_| 1.0)),
            variant: "UnexpectedTensor",
            says: "q_norm",
        },
        Case {
            what: "a bias",
            change: |_, t| t.push(bf16_tensor("model.layers.0.self_attn.q_proj.bias", &[64], |_| 1.0)),
            variant: "UnexpectedTensor",
            says: "q_proj.bias",
        },
        Case {
            what: "NaN in a norm",
            change: |_, t| {
                *tensor(t, "model.norm.weight") = bf16_tensor("model.norm.weight", &[HIDDEN], |_| f32::INFINITY)
            },
            variant: "Model",
            says: "inf",
        },
        Case {
            what: "float weights in an offline checkpoint",
            change: |_, t| {
                let base = projection_name(Projection::Up);
                t.retain(|t| !t.0.starts_with(&base));
                t.push(bf16_tensor(&format!("{base}.weight"), &[FFN, HIDDEN], |i| i as f32));
            },
            variant: "UnsupportedType",
            says: "offline",
        },
        Case {
            what: "an ordinary llama",
            change: |c, t| {
                c["model_type"] = "llama".into();
                c["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
                c.as_object_mut().unwrap().remove("quantization_config");
                let base = projection_name(Projection::Q);
                t.retain(|t| !t.0.starts_with(&base) && !t.0.ends_with("weight_scale"));
                t.push(bf16_tensor(&format!("{base}.weight"), &[HIDDEN, HIDDEN], |i| i as f32));
            },
            variant: "UnsupportedType",
            says: "ordinary model",
        },
        Case {
            what: "master weights with a NaN",
            change: |c, t| {
                c["quantization_config"]["quantization_mode"] = "online".into();
                let base = projection_name(Projection::Up);
                t.retain(|t| !t.0.starts_with(&base));
                t.push(bf16_tensor(
                    &format!("{base}.weight"),
                    &[FFN, HIDDEN],
                    |i| if i == 77 { f32::NAN } else { 1.0 },
                ));
            },
            variant: "NotFinite",
            says: "position 77",
        },
        Case {
            what: "other model type",
            change: |c, _| c["model_type"] = "gpt2".into(),
            variant: "KeyValue",
            says: "llama",
        },
        Case {
            what: "other linear class",
            change: |c, _| c["quantization_config"]["linear_class"] = "x".into(),
            variant: "KeyValue",
            says: "autobitlinear",
        },
        Case {
            what: "other quantisation",
            change: |c, _| c["quantization_config"]["quant_method"] = "gptq".into(),
            variant: "KeyValue",
            says: "bitnet",
        },
        Case {
            what: "norm inside projections",
            change: |c, _| c["quantization_config"]["use_rms_norm"] = true.into(),
            variant: "KeyValue",
            says: "use_rms_norm",
        },
        Case {
            what: "scaled rope",
            change: |c, _| c["rope_scaling"] = serde_json::json!({"rope_type": "dynamic", "factor": 8.0}),
            variant: "KeyValue",
            says: "dynamic",
        },
        Case { what: "activation", change: |c, _| c["hidden_act"] = "gelu".into(), variant: "KeyValue", says: "relu2" },
        Case { what: "bias", change: |c, _| c["attention_bias"] = true.into(), variant: "KeyValue", says: "bias" },
        Case {
            what: "text for a size",
            change: |c, _| c["hidden_size"] = "64".into(),
            variant: "KeyType",
            says: "hidden_size",
        },
        Case {
            what: "negative size",
            change: |c, _| c["vocab_size"] = (-1).into(),
            variant: "KeyType",
            says: "vocab_size",
        },
        Case {
            what: "no size",
            change: |c, _| drop(c.as_object_mut().unwrap().remove("num_attention_heads")),
            variant: "MissingKey",
            says: "num_attention_heads",
        },
        Case {
            what: "no heads",
            change: |c, _| c["num_attention_heads"] = 0.into(),
            variant: "Model",
            says: "num_attention_heads",
        },
        Case {
            what: "a billion layers",
            change: |c, _| c["num_hidden_layers"] = 1_000_000_000.into(),
            variant: "Model",
            says: "num_hidden_layers",
        },
        Case {
            what: "eos beyond",
            change: |c, _| c["eos_token_id"] = 40.into(),
            variant: "Model",
            says: "eos_token_id",
        },
    ];
    let mut wrong = Vec::new();
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let (mut config, mut tensors) = (small_config(), small_tensors());
        (case.change)(&mut config, &mut tensors);
        let Some(e) = fails(&folder(dir.path(), &config, &tensors)) else {
            wrong.push(format!("{}: accepted", case.what));
            continue;
        };
        let (debug, message) = (format!("{:?}", e.root()), e.to_string());
        if !debug.starts_with(case.variant) || !message.contains(case.says) {
            wrong.push(format!("{}: {debug} / {message}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Opens and reads everything; only a panic fails.
fn exercise(path: &std::path::Path) {
    if let Ok(c) = loader::Checkpoint::open(path, &LoadOptions::default()) {
        let _ = c.weights();
        let _ = (c.info(), c.notes());
    }
    let _ = loader::load(path, &LoadOptions::default());
    let _ = loader::load_tokenizer(path);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 192, failure_persistence: None, ..Default::default() })]

    /// Headers and data of whole models, changed in a few places.
    #[test]
    fn changed_files_never_panic(
        which in 0usize..4,
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..6),
        everywhere in proptest::prelude::any::<bool>(),
    ) {
        let names = ["gguf/llama_tiny.I2_S.gguf", "gguf/sharded_tiny.IQ1_BN.gguf", "gguf/llama_256.TQ2_0.gguf", "tokenizer/bpe.gguf"];
        let mut bytes = std::fs::read(test_support::testdata(names[which])).unwrap();
        let reach = if everywhere { bytes.len() } else { bytes.len().min(2048) };
        for (at, value) in changes {
            let at = at.index(reach);
            bytes[at] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        exercise(&path);
    }

    /// Sizes of a configuration replaced by other numbers.
    #[test]
    fn changed_configurations_never_panic(
        key in 0usize..8,
        value in proptest::prop_oneof![0u64..300, proptest::prelude::Just(u64::MAX), proptest::prelude::any::<u64>(), (0u32..40).prop_map(|s| 1u64 << s)],
    ) {
        let keys = [
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
            "head_dim", "max_position_embeddings",
        ];
        let dir = tempfile::tempdir().unwrap();
        let mut config = small_config();
        config[keys[key]] = value.into();
        exercise(&folder(dir.path(), &config, &small_tensors()));
    }
}
