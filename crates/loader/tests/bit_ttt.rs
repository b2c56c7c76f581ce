//! Files of models with test-time-training layers: both containers, in both directions, and rejected files.

mod common;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_model::{
    Engine, EngineOptions, KvType, Mixer, ModelConfig, ModelWeights, Norm, RopePairs, Sequence, SyntheticWeights,
    TttTensor, WeightSource,
};
use common::checkpoints::*;
use half::bf16;
use loader::convert::{ConvertOptions, ScaleRounding, Target, convert};
use loader::gguf::Gguf;
use loader::safetensors::Dtype;
use loader::synthetic::Spec;
use loader::{Checkpoint, LoadOptions};

/// Three layers, one of each kind, with everything that a TTT layer may have.
const SHAPE: &str = r#"{"vocab_size": 300, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "seed": 5,
    "mixers": ["ttt_linear", "attention", "ttt_mlp"],
    "ttt": {"mini_batch_size": 8, "share_qk": true, "use_gate": true, "pre_conv": true, "decay": true, "rope_pairs": "halves",
            "base_lr_mlp": 0.25, "conv_kernel": 3}}"#;

fn write(dir: &Path, shape: &str) -> PathBuf {
    let json = dir.join("shape.json");
    std::fs::write(&json, shape).unwrap();
    let spec = Spec::from_config_file(&json).unwrap();
    let path = dir.join("model.gguf");
    assert!(spec.write(&path, NonZeroUsize::MIN, &mut |_| ControlFlow::Continue(())).unwrap());
    assert_eq!(load(&path).config, spec.config);
    path
}

fn logits(weights: &ModelWeights) -> Vec<u32> {
    let engine = Engine::new(weights, &EngineOptions::default().threads(1)).unwrap();
    let mut sequence = Sequence::new(&engine, KvType::F32, None);
    let ids: Vec<u32> = (0..19).map(|i| i * 13 % 300).collect();
    sequence.feed_each(&ids).unwrap().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_form_becomes_every_other_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = write(dir.path(), SHAPE);
    let original = load(&source);
    let c = &original.config;
    assert_eq!(c.mixers, [Mixer::TttLinear, Mixer::Attention, Mixer::TttMlp]);
    assert_eq!((c.ttt.mini_batch_size, c.ttt.rope_pairs, c.ttt.base_lr_mlp), (8, RopePairs::Halves, 0.25));
    assert!(c.ttt.share_qk && c.ttt.use_gate && c.ttt.pre_conv && c.ttt.decay && c.sub_norms);
    assert_eq!(open(&source).architecture(), "bit-ttt");

    // Packed weights have bf16 scales; from there on nothing is rounded.
    let mut round = ConvertOptions::default();
    round.rounding = ScaleRounding::Nearest;
    let folder = dir.path().join("folder");
    let report = convert(&source, &folder, Target::HfPacked, &round, &mut |_| {}).unwrap();
    // Attention has seven projections; without keys and with a gate there are seven, too.
    assert_eq!(report.projections, 21);
    let packed = load(&folder);
    let bits = logits(&packed);
    assert_eq!(packed.config, original.config);
    for (first, second) in [(Target::I2S, Target::Tq2_0), (Target::Tq1_0, Target::HfPacked)] {
        let (one, two) = (dir.path().join(first.name()), dir.path().join(second.name()));
        convert(&folder, &one, first, &round, &mut |_| {}).unwrap();
        convert(&one, &two, second, &round, &mut |_| {}).unwrap();
        for path in [one, two] {
            let again = load(&path);
            assert_eq!(again.config, original.config, "{}", path.display());
            for (a, b) in original.layers.iter().zip(&again.layers) {
                assert_eq!(a.ttt, b.ttt, "{}", path.display());
            }
            if first == Target::I2S && path.ends_with("i2_s") {
                assert!(logits(&again) == bits, "the same weights in another container");
            }
        }
    }
}

#[test]
fn the_metadata_is_what_the_documentation_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = Gguf::open(&write(dir.path(), SHAPE)).unwrap();
    let m = file.metadata();
    let mixers: Vec<&str> = m.strings("bit-ttt.mixers").unwrap().unwrap().iter().collect();
    assert_eq!(mixers, ["ttt_linear", "attention", "ttt_mlp"]);
    assert_eq!(m.str("bit-ttt.feed_forward_activation").unwrap(), Some("relu2"));
    assert_eq!(m.u64("bit-ttt.ttt.mini_batch_size").unwrap(), Some(8));
    assert_eq!(m.u64("bit-ttt.ttt.conv_kernel").unwrap(), Some(3));
    assert_eq!(m.f64("bit-ttt.ttt.base_lr_linear").unwrap(), Some(1.0));
    assert_eq!(m.f64("bit-ttt.ttt.base_lr_mlp").unwrap(), Some(0.25));
    assert_eq!(m.bool("bit-ttt.ttt.share_qk").unwrap(), Some(true));
    assert_eq!(m.str("bit-ttt.ttt.rope_pairs").unwrap(), Some("halves"));
    assert!(file.tensor("blk.0.ttt_q.weight").is_some() && file.tensor("blk.0.ttt_k.weight").is_none());
    assert_eq!(file.tensor("blk.2.ttt_w1.weight").unwrap().shape(), [4, 64, 256]);
    assert_eq!(file.tensor("blk.2.ttt_conv_k.weight").unwrap().shape(), [256, 1, 3]);
    assert_eq!(file.tensor("blk.1.attn_k.weight").unwrap().shape(), [128, 256]);
}

#[test]
fn one_word_stands_for_all_layers_and_attention_alone_is_no_other_model() {
    let shape = |mixers: &str| {
        let start = SHAPE.find("\"mixers\"").unwrap();
        let end = SHAPE.find("\"ttt\":").unwrap();
        format!("{}\"mixers\": {mixers},{}", &SHAPE[..start], &SHAPE[end..])
    };
    let dir = tempfile::tempdir().unwrap();
    let c = load(&write(dir.path(), &shape("\"ttt_linear\""))).config;
    assert_eq!(c.mixers, [Mixer::TttLinear; 3]);
    assert_eq!((c.context_limit(), c.kv_values_per_token()), (None, 0));
    let c = load(&write(dir.path(), &shape("[\"attention\", \"attention\", \"attention\"]"))).config;
    assert!(c.mixers.is_empty() && c.ttt == ModelConfig::new(1, 1, 1, 1, 1, 1).ttt);
    let spec = Spec::from_config_file(&{
        let path = dir.path().join("bad.json");
        std::fs::write(&path, shape("\"lstm\"")).unwrap();
        path
    });
    let message = spec.unwrap_err().to_string();
    assert!(message.contains("lstm") && message.contains("ttt_linear"), "{message}");
}

/// Master weights as a trainer writes them: projections f32, the rest in f32 or bf16.
fn master(dir: &Path, narrow: bool, change: impl FnOnce(&mut serde_json::Value, &mut Vec<Tensor>)) -> SyntheticWeights {
    let mut c = ModelConfig::new(40, 64, 96, 2, 2, 1);
    c.mixers = vec![Mixer::TttMlp, Mixer::Attention];
    c.ttt.use_gate = true;
    let source = SyntheticWeights::new(c.clone(), 3);
    let mut json = serde_json::json!({
        "architectures": ["BitTttForCausalLM"], "model_type": "bit-ttt", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40,
        "max_position_embeddings": 4096, "tie_word_embeddings": true, "mixers": ["ttt_mlp", "attention"],
        "ttt": {"use_gate": true},
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"
        }
    });
    let floats = |name: String, shape: &[usize], values: &[f32]| -> Tensor {
        let bytes = match narrow {
            true => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            false => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        (name, if narrow { Dtype::BF16 } else { Dtype::F32 }, shape.to_vec(), bytes)
    };
    let table = source.embedding().unwrap();
    let mut rows = vec![0.0; 40 * 64];
    rows.chunks_exact_mut(64).enumerate().for_each(|(r, row)| table.row_into(r, row));
    let mut all = vec![floats("model.embed_tokens.weight".into(), &[40, 64], &rows)];
    let norm = |n: Norm| floats(c.norm_name(n), &[c.norm_len(n)], &source.norm(n).unwrap());
    all.push(norm(Norm::Final));
    for l in 0..2 {
        all.extend(c.layer_norms(l).map(norm));
        for (t, shape) in c.layer_ttt_tensors(l) {
            all.push(floats(c.ttt_tensor_name(l, t), &shape, &source.ttt_tensor(l, t).unwrap()));
        }
        for p in c.layer_projections(l) {
            let (rows, cols) = c.projection_shape(l, p);
            // All magnitudes differ, so that these are master weights.
            let values: Vec<f32> = (0..rows * cols).map(|i| f32::from(trit(l, i)) + i as f32 * 1e-6).collect();
            all.push(floats(c.projection_name(l, p) + ".weight", &[rows, cols], &values));
        }
    }
    change(&mut json, &mut all);
    std::fs::create_dir_all(dir).unwrap();
    write_tensors(&dir.join("model.safetensors"), &all);
    std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
    source
}

#[test]
fn master_weights_are_quantised_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let source = master(dir.path(), false, |_, _| {});
    let weights = load(dir.path());
    assert_eq!(weights.config, *source.config());
    assert_eq!(weights.layers[0].projections().count(), 8);
    let ttt = weights.layers[0].ttt.as_ref().unwrap();
    for (t, _) in weights.config.layer_ttt_tensors(0) {
        assert_eq!(ttt.tensor(t).unwrap(), source.ttt_tensor(0, t).unwrap(), "{}", t.path());
    }
    let narrow = dir.path().join("narrow");
    master(&narrow, true, |_, _| {});
    let ttt = load(&narrow).layers[0].ttt.clone().unwrap();
    let expected: Vec<f32> =
        source.ttt_tensor(0, TttTensor::W1).unwrap().iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
    assert_eq!(ttt.tensor(TttTensor::W1).unwrap(), expected);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut serde_json::Value, &mut Vec<Tensor>), says: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        master(dir.path(), false, |json, tensors| change(json, tensors));
        let error = Checkpoint::open(dir.path(), &LoadOptions::default()).and_then(|c| c.weights()).unwrap_err();
        let message = error.to_string();
        assert!(says.iter().all(|s| message.contains(s)), "{message}: {says:?}");
    };
    let tensor = |t: &mut Vec<Tensor>, name: &str| t.iter().position(|t| t.0.ends_with(name)).unwrap();
    refused(&|_, t| t.retain(|t| !t.0.ends_with("ttt.W2")), &["model.layers.0.ttt.W2", "test-time-training"]);
    refused(&|_, t| t.retain(|t| !t.0.ends_with("ttt.g_proj.weight")), &["model.layers.0.ttt.g_proj.weight"]);
    refused(
        &|_, t| {
            let at = tensor(t, "ttt.b1");
            t[at].2 = vec![2, 128, 1];
        },
        &["ttt.b1", "[2, 1, 128]", "[2, 128, 1]"],
    );
    refused(
        &|_, t| {
            let at = tensor(t, "learnable_token_idx");
            t[at].3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        },
        &["layer 0 ttt.learnable_token_idx", "not a finite number"],
    );
    refused(
        &|_, t| {
            let at = tensor(t, "ttt.q_proj.weight");
            t[at].0 = "model.layers.0.self_attn.q_proj.weight".into();
        },
        &["model.layers.0.self_attn.q_proj.weight"],
    );
    refused(&|json, _| json["mixers"] = "ttt_linear".into(), &["ttt.W2"]);
    refused(&|json, _| json["mixers"] = serde_json::json!(["ttt_mlp"]), &["mixers", "1 names"]);
    refused(&|json, _| json["mixers"] = serde_json::json!(["ttt_mlp", 7]), &["mixers"]);
    refused(&|json, _| json["mixers"] = serde_json::Value::Null, &["mixers"]);
    refused(
        &|json, _| {
            json.as_object_mut().unwrap().remove("mixers");
        },
        &["mixers", "mixers of the layers"],
    );
    refused(&|json, _| json["ttt"]["mini_batch_size"] = 0.into(), &["mini_batch_size"]);
    refused(&|json, _| json["ttt"]["mini_batch_size"] = (1u64 << 40).into(), &["mini_batch_size"]);
    refused(&|json, _| json["ttt"]["rope_pairs"] = "thirds".into(), &["rope_pairs", "thirds", "halves"]);
    refused(&|json, _| json["ttt"]["share_qk"] = 1.into(), &["share_qk"]);
    refused(&|json, _| json["ttt"] = 5.into(), &["ttt", "an object"]);
    refused(
        &|json, _| {
            json["num_hidden_layers"] = (1u64 << 40).into();
            json["mixers"] = "ttt_mlp".into();
        },
        &["num_hidden_layers"],
    );
}
