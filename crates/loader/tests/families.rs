//! Further families: both containers of each give one configuration and one set of norms; unsupported features are
//! rejected by name.

mod common;

use std::path::{Path, PathBuf};

use bitnet_model::{Activation, Architecture, ModelConfig, Norm, Pooling, RopeScaling, WeightSource};
use common::edit::Edit;
use loader::gguf::{Array, StringArray, Value};
use loader::{Checkpoint, LoadOptions};
use serde_json::{Map, Value as Json, json};

/// A variant of the fixtures, if they are present.
fn variant(name: &str) -> Option<PathBuf> {
    let dir = test_support::shared_dir()?.join("fixtures/families").join(name);
    dir.is_dir().then_some(dir)
}

fn open(path: &Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path, &LoadOptions::default()).map_err(|e| e.to_string())
}

/// The GGUF files of a variant.
fn ggufs(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "gguf")).collect()
}

/// Without special tokens, on which containers of these fixtures differ (the tokenizer decides).
fn shape(c: &ModelConfig) -> ModelConfig {
    let mut c = c.clone();
    (c.bos_token_id, c.eos_token_ids) = (None, Vec::new());
    c
}

/// The common properties of all models of a family, in the shape of a fixture.
fn expected(a: Architecture, [vocab, hidden, ffn, layers, heads, kv]: [usize; 6]) -> ModelConfig {
    let mut c = ModelConfig::new(vocab, hidden, ffn, layers, heads, kv);
    (c.head_dim, c.rms_norm_eps, c.rope_theta) = (64, 1e-6, 1e6);
    (c.sub_norms, c.hidden_act) = (false, a.formulas().activation.unwrap());
    (c.head_norms, c.output_norms) = (a != Architecture::MiniCpm, a == Architecture::Gemma3);
    c
}

fn qwen3_group() -> Vec<(&'static str, ModelConfig)> {
    let mut g128 = expected(Architecture::Qwen3, [512, 256, 256, 2, 6, 2]);
    (g128.max_position_embeddings, g128.rope_scaling) = (256, RopeScaling::yarn(4.0, 64));
    let mut g64 = expected(Architecture::Qwen3, [512, 192, 320, 2, 4, 1]);
    (g64.rope_theta, g64.tie_word_embeddings) = (1e4, false);
    (g64.max_position_embeddings, g64.rope_scaling) = (4096, RopeScaling::yarn(4.0, 1024));
    let mut g256 = expected(Architecture::Qwen3, [512, 256, 512, 2, 4, 2]);
    (g256.max_position_embeddings, g256.rope_scaling) = (128, RopeScaling::yarn(4.0, 32));
    vec![("qwen3_group/g128_tied", g128), ("qwen3_group/g64_untied", g64), ("qwen3_group/g256_tq2", g256)]
}

fn embeddings() -> Vec<(&'static str, ModelConfig)> {
    let embedding = |a, sizes, pooling, hidden: usize, theta| {
        let mut c = expected(a, sizes);
        (c.projection_norms, c.headless, c.pooling) = (true, true, Some(pooling));
        (c.max_position_embeddings, c.rope_theta) = (2048, theta);
        if a == Architecture::Gemma3 {
            c.embedding_scale = (hidden as f32).sqrt();
        }
        c
    };
    let (q, g) = (Architecture::Qwen3, Architecture::Gemma3);
    vec![
        ("bitnet_embedding_qwen3/mean_gqa", embedding(q, [512, 128, 256, 2, 4, 2], Pooling::Mean, 128, 1e6)),
        ("bitnet_embedding_qwen3/last_mqa", embedding(q, [384, 128, 128, 2, 2, 1], Pooling::Last, 128, 5e5)),
        ("bitnet_embedding_gemma3/mean_h128", embedding(g, [512, 128, 256, 2, 2, 1], Pooling::Mean, 128, 1e4)),
        ("bitnet_embedding_gemma3/last_h384", embedding(g, [384, 384, 128, 1, 2, 1], Pooling::Last, 384, 1e4)),
    ]
}

fn minicpm() -> Vec<(&'static str, ModelConfig)> {
    let mut c = expected(Architecture::MiniCpm, [64, 256, 256, 2, 4, 2]);
    (c.rms_norm_eps, c.rope_theta, c.max_position_embeddings) = (1e-5, 1e4, 512);
    (c.embedding_scale, c.residual_scale, c.logit_divisor) = (12.0, 0.35, 2.0);
    c.tie_word_embeddings = false;
    vec![("minicpm/longrope_tq2", c)]
}

#[test]
fn both_containers_of_every_family_give_the_configuration_of_the_reference() {
    for (name, mut c) in qwen3_group().into_iter().chain(embeddings()).chain(minicpm()) {
        let Some(dir) = variant(name) else { return };
        let mut read = 0;
        for file in ggufs(&dir) {
            let checkpoint = open(&file).unwrap();
            if name.starts_with("minicpm") {
                // The factors are a tensor.
                let RopeScaling::Factors(factors) = &checkpoint.config().rope_scaling else { panic!("{name}") };
                assert_eq!(factors.len(), 32);
                c.rope_scaling = checkpoint.config().rope_scaling.clone();
            }
            assert_eq!(shape(checkpoint.config()), c, "{}", file.display());
            assert_eq!(Architecture::of(&c), Some(checkpoint.family()), "{name}");
            assert_eq!(checkpoint.notes(), Vec::<String>::new(), "{}", file.display());
            read += 1;
        }
        assert!(read > 0, "{name}");
        if dir.join("model.safetensors").is_file() {
            assert_eq!(shape(open(&dir).unwrap().config()), c, "{name}");
        }
    }
}

#[test]
fn norms_of_both_containers_are_the_same_multipliers() {
    for (name, _) in qwen3_group().into_iter().chain(embeddings()) {
        let Some(dir) = variant(name) else { return };
        if !dir.join("model.safetensors").is_file() {
            continue;
        }
        let (hf, gguf) = (open(&dir).unwrap(), open(&ggufs(&dir)[0]).unwrap());
        let c = hf.config();
        let norms = (0..c.num_hidden_layers).flat_map(|l| c.layer_norms(l)).chain([Norm::Final]);
        for norm in norms {
            let (a, b) = (hf.norm(norm).unwrap(), gguf.norm(norm).unwrap());
            assert_eq!(a.len(), c.norm_len(norm), "{name} {norm:?}");
            assert_eq!(a, b, "{name} {norm:?}");
        }
    }
}

#[test]
fn the_factors_of_minicpm_are_those_of_its_tensor() {
    let Some(dir) = variant("minicpm/longrope_tq2") else { return };
    let file = dir.join("longrope_tq2.TQ2_0.gguf");
    let RopeScaling::Factors(factors) = open(&file).unwrap().config().rope_scaling.clone() else { panic!() };
    let edit = Edit::open(&file);
    let long = edit.tensors.iter().find(|t| t.0 == "rope_factors_long.weight").unwrap();
    let stored: Vec<f32> = long.3.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(factors, stored);
    assert!(factors.iter().any(|f| *f != 1.0));
}

/// A GGUF file of a variant, changed; returns the error if it is rejected.
fn changed(name: &str, change: impl FnOnce(Edit) -> Edit) -> Option<Result<(ModelConfig, Vec<String>), String>> {
    let file = ggufs(&variant(name)?).remove(0);
    let dir = tempfile::tempdir().unwrap();
    let path = change(Edit::open(&file)).write(&dir.path().join("m.gguf"));
    Some(open(&path).map(|c| (c.config().clone(), c.notes())))
}

#[track_caller]
fn refused(result: Option<Result<(ModelConfig, Vec<String>), String>>, words: &[&str]) {
    match result {
        None => {}
        Some(Ok(_)) => panic!("{words:?} was accepted"),
        Some(Err(e)) => assert!(words.iter().all(|w| e.contains(w)), "{e}"),
    }
}

const GEMMA: &str = "bitnet_embedding_gemma3/mean_h128";
const QWEN: &str = "bitnet_embedding_qwen3/mean_gqa";
const MINICPM: &str = "minicpm/longrope_tq2";

#[test]
fn what_gguf_files_say_and_nothing_computes_is_refused_by_name() {
    refused(changed(GEMMA, |e| e.set("gemma3.attention.sliding_window", 512u32)), &["sliding_window"]);
    refused(changed(GEMMA, |e| e.set("gemma3.final_logit_softcapping", 30f32)), &["final_logit_softcapping"]);
    refused(changed(QWEN, |e| e.set("qwen3.pooling_type", 4u32)), &["pooling_type", "mean"]);
    refused(changed(QWEN, |e| e.set("qwen3.attention.scale", 0.5f32)), &["attention.scale"]);
    refused(changed(QWEN, |e| e.set("qwen3.embedding_scale", 2f32)), &["embedding_scale"]);
    refused(changed(QWEN, |e| e.set("prism.hadamard.version", 1u32)), &["prism.hadamard", "Hadamard"]);
    refused(changed(QWEN, |e| e.set("qwen3.rope.dimension_count", 32u32)), &["rope.dimension_count"]);
    refused(changed(QWEN, |e| e.architecture("qwen35moe")), &["qwen35moe", "experts"]);
    refused(changed(QWEN, |e| e.architecture("hunyuan-moe")), &["hunyuan-moe", "experts"]);
    refused(changed(QWEN, |e| e.architecture("gpt2")), &["gpt2", "minicpm"]);
    let scaled = |kind: &'static str| {
        move |e: Edit| e.set("qwen3.rope.scaling.type", kind).set("qwen3.rope.scaling.factor", 4f32)
    };
    refused(changed(QWEN, scaled("yarn")), &["original_context_length"]);
    refused(changed(QWEN, scaled("dynamic")), &["dynamic", "yarn"]);
    refused(changed(QWEN, scaled("other")), &["other", "yarn"]);
    let ext = |e: Edit| scaled("yarn")(e).set("qwen3.rope.scaling.original_context_length", 64u32);
    refused(changed(QWEN, move |e| ext(e).set("qwen3.rope.scaling.yarn_ext_factor", 0.5f32)), &["yarn_ext_factor"]);
    let alone = |mut e: Edit| {
        e.tensors.retain(|t| t.0 != "rope_factors_long.weight");
        e
    };
    refused(changed(MINICPM, alone), &["rope_factors_long"]);
    refused(changed(MINICPM, |e| e.set("minicpm.rope.scaling.type", "linear")), &["rope_factors_short"]);
}

#[test]
fn what_gguf_files_say_beside_the_fixtures_is_read() {
    let yarn = |e: Edit| {
        e.set("qwen3.rope.scaling.type", "yarn")
            .set("qwen3.rope.scaling.factor", 4f32)
            .set("qwen3.rope.scaling.original_context_length", 64u32)
    };
    let read = |change: fn(Edit) -> Edit| changed(QWEN, move |e| change(yarn(e))).map(|r| r.unwrap().0.rope_scaling);
    let Some(plain) = read(|e| e) else { return };
    assert_eq!(plain, RopeScaling::yarn(4.0, 64));
    let Some(RopeScaling::Yarn { attention_factor, beta_fast, beta_slow, .. }) = read(|e| {
        e.set("qwen3.rope.scaling.attn_factor", 2f32)
            .set("qwen3.rope.scaling.yarn_beta_fast", 16f32)
            .set("qwen3.rope.scaling.yarn_beta_slow", 2f32)
    }) else {
        panic!()
    };
    assert_eq!((attention_factor, beta_fast, beta_slow), (2.0 * RopeScaling::yarn_attention(4.0, 1.0), 16.0, 2.0));
    // A window that sees the whole context does not count, nor does a scale of the usual size.
    let wide = changed(GEMMA, |e| e.set("gemma3.attention.sliding_window", 4096u32)).unwrap();
    assert!(wide.is_ok(), "{wide:?}");
    let scale = |s: f32| changed(GEMMA, |e| e.set("gemma3.attention.scale", s)).unwrap().unwrap().0.attention_scale;
    assert_eq!((scale(0.125), scale(0.0625)), (None, Some(0.0625)));
    // Without a pooling key the norms of projections still imply that there is no head.
    let bare = changed(QWEN, |e| e.remove("qwen3.pooling_type")).unwrap().unwrap().0;
    assert!(bare.headless && bare.pooling.is_none());
    // Old files of MiniCPM have no keys for their scales.
    let old = |e: Edit| {
        ["embedding_scale", "residual_scale", "logit_scale"].iter().fold(e, |e, k| e.remove(&format!("minicpm.{k}")))
    };
    let c = changed(MINICPM, old).unwrap().unwrap().0;
    assert_eq!((c.embedding_scale, c.residual_scale, c.logit_divisor), (12.0, (1.4 / 2f64.sqrt()) as f32, 1.0));
    // Two lists that differ: the long one applies if the context is longer than the original one, with a note.
    let two = |mut e: Edit| {
        let long = e.tensors.iter_mut().find(|t| t.0 == "rope_factors_long.weight").unwrap();
        long.3 = 3f32.to_le_bytes().repeat(32);
        e.set("minicpm.rope.scaling.original_context_length", 128u32)
    };
    let (c, notes) = changed(MINICPM, two).unwrap().unwrap();
    let RopeScaling::LongRope { original_context, attention_factor, .. } = c.rope_scaling else { panic!("{c:?}") };
    assert_eq!((original_context, attention_factor), (128, (1.0 + 4f64.ln() / 128f64.ln()).sqrt()));
    assert!(notes.iter().any(|n| n.contains("long")), "{notes:?}");
    assert_eq!(c.rope_frequencies()[0], 1.0 / 3.0);
}

/// A copy of a variant's folder with these fields in its `config.json`, and these additional files.
fn folder(name: &str, fields: Json, files: &[(&str, Json)]) -> Option<Result<(ModelConfig, Vec<String>), String>> {
    let from = variant(name)?;
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: Map<String, Json> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in fields.as_object().unwrap() {
        match value {
            Json::String(s) if s == "(absent)" => drop(config.remove(key)),
            _ => drop(config.insert(key.clone(), value.clone())),
        }
    }
    std::fs::write(&path, Json::Object(config).to_string()).unwrap();
    for (name, json) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if json.is_null() {
            std::fs::remove_file(path).unwrap()
        } else {
            std::fs::write(path, json.to_string()).unwrap()
        }
    }
    // Next to a GGUF file the folder would be read as that file.
    for gguf in ggufs(dir.path()) {
        std::fs::remove_file(gguf).unwrap();
    }
    Some(open(dir.path()).map(|c| (c.config().clone(), c.notes())))
}

#[test]
fn what_folders_say_and_nothing_computes_is_refused_by_name() {
    let qwen = |fields| folder("qwen3_group/g128_tied", fields, &[]);
    refused(qwen(json!({"model_type": "qwen3_5_text"})), &["linear_key_head_dim", "gated delta rule"]);
    refused(qwen(json!({"model_type": "hunyuan_v1_moe"})), &["hunyuan_v1_moe"]);
    refused(qwen(json!({"sliding_window": 16, "use_sliding_window": true})), &["sliding_window"]);
    refused(qwen(json!({"attention_bias": true})), &["attention_bias"]);
    refused(qwen(json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})), &["dynamic", "yarn"]);
    refused(qwen(json!({"rope_scaling": {"rope_type": "ntk", "factor": 2.0}})), &["ntk"]);
    let yarn = |more: Json| {
        let mut scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        qwen(json!({"rope_scaling": scaling}))
    };
    refused(yarn(json!({"original_max_position_embeddings": null})), &["original_max_position_embeddings"]);
    refused(yarn(json!({"truncate": false})), &["truncate"]);
    refused(yarn(json!({"mscale": 0.7})), &["mscale"]);
    let of = |more| match yarn(more).map(|r| r.unwrap().0.rope_scaling) {
        Some(RopeScaling::Yarn { attention_factor, .. }) => Some(attention_factor),
        _ => None,
    };
    if variant("qwen3_group/g128_tied").is_some() {
        assert_eq!(of(json!({"attention_factor": 1.5})), Some(1.5));
        let both = of(json!({"mscale": 2.0, "mscale_all_dim": 1.0})).unwrap();
        assert_eq!(both, RopeScaling::yarn_attention(4.0, 2.0) / RopeScaling::yarn_attention(4.0, 1.0));
    }
    let gemma = |fields| folder(GEMMA, fields, &[]);
    let local = json!(["full_attention", "sliding_attention"]);
    refused(gemma(json!({"sliding_window": 512, "layer_types": local})), &["sliding_window"]);
    refused(gemma(json!({"layer_types": "(absent)"})), &["layer_types"]);
    refused(gemma(json!({"hidden_activation": "gelu"})), &["gelu_pytorch_tanh"]);
    let scalar = gemma(json!({"query_pre_attn_scalar": 256})).map(|r| r.unwrap().0.attention_scale);
    assert!(scalar.is_none_or(|s| s == Some(0.0625)));
}

#[test]
fn pooling_is_read_from_every_file_that_may_say_it() {
    let none = ("pooling_config.json", Json::Null);
    let first = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
    let of = |files: &[(&str, Json)]| folder(QWEN, json!({}), files).map(|r| r.map(|(c, _)| c.pooling));
    let Some(plain) = of(&[]) else { return };
    assert_eq!(plain, Ok(Some(Pooling::Mean)));
    assert_eq!(of(std::slice::from_ref(&none)), Some(Ok(None)));
    assert_eq!(of(&[none.clone(), ("1_Pooling/config.json", first.clone())]), Some(Ok(Some(Pooling::First))));
    let word = json!({"pooling_mode": "lasttoken"});
    assert_eq!(of(&[none.clone(), ("1_Pooling/config.json", word)]), Some(Ok(Some(Pooling::Last))));
    let modules =
        |kind: &str, path: &str| json!([{"type": format!("sentence_transformers.models.{kind}"), "path": path}]);
    let elsewhere = [none.clone(), ("pool/config.json", first), ("modules.json", modules("Pooling", "pool"))];
    assert_eq!(of(&elsewhere), Some(Ok(Some(Pooling::First))));
    let out = [none.clone(), ("modules.json", modules("Pooling", "../pool"))];
    assert_eq!(of(&out), Some(Ok(None)));
    let dense = of(&[("modules.json", modules("Dense", "2_Dense"))]).unwrap().unwrap_err();
    assert!(dense.contains("Dense"), "{dense}");
    let two = json!({"pooling_mode_cls_token": true, "pooling_mode_lasttoken": true});
    let two = of(&[("pooling_config.json", two)]).unwrap().unwrap_err();
    assert!(two.contains("pooling_mode_lasttoken"), "{two}");
    let max = of(&[("pooling_config.json", json!({"pooling_mode_max_tokens": true}))]).unwrap().unwrap_err();
    assert!(max.contains("pooling_mode_max_tokens"), "{max}");
}

/// Qwen 2 has no fixture: a small model of it is made of one of Qwen 3, whose norms of heads become biases.
#[test]
fn biases_are_read_and_every_one_is_needed() {
    let to_qwen2 = |mut e: Edit| {
        e.tensors.retain(|t| !t.0.contains("q_norm") && !t.0.contains("k_norm") && !t.0.contains("norm_in"));
        let mut e = e.architecture("qwen2");
        for (l, name, len) in (0..2).flat_map(|l| [(l, "q", 256), (l, "k", 128), (l, "v", 128)]) {
            let values: Vec<f32> = (0..len).map(|i| i as f32 + l as f32).collect();
            e = e.floats(&format!("blk.{l}.attn_{name}.bias"), &values);
        }
        e
    };
    let Some(dir) = variant(QWEN) else { return };
    let file = ggufs(&dir).remove(0);
    let temporary = tempfile::tempdir().unwrap();
    let path = to_qwen2(Edit::open(&file)).write(&temporary.path().join("m.gguf"));
    let c = open(&path).unwrap();
    assert_eq!(c.family(), Architecture::Qwen2);
    assert!(c.config().qkv_bias && !c.config().head_norms && c.config().hidden_act == Activation::Silu);
    for (p, len) in c.config().layer_biases(1) {
        let bias = c.bias(1, p).unwrap();
        assert_eq!(bias, (0..len).map(|i| i as f32 + 1.0).collect::<Vec<f32>>());
    }
    let mut less = to_qwen2(Edit::open(&file));
    less.tensors.retain(|t| t.0 != "blk.1.attn_v.bias");
    let c = open(&less.write(&temporary.path().join("less.gguf"))).unwrap();
    let error = c.bias(1, bitnet_model::Projection::V).unwrap_err().to_string();
    assert!(error.contains("blk.1.attn_v.bias"), "{error}");
    // A bias that the family does not have is not ignored.
    let extra = changed(QWEN, |e| e.floats("blk.0.attn_q.bias", &[0.5; 256]));
    refused(extra, &["blk.0.attn_q.bias"]);
    let other = changed(QWEN, |e| e.set("qwen3.attention.value_length", Value::U32(32)));
    refused(other, &["value_length"]);
}

/// The I64 tensors of a safetensors file whose names end so.
fn ids(path: &Path, suffix: &str) -> Vec<(String, Vec<u32>)> {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let map: Map<String, Json> = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let mut all = Vec::new();
    for (name, t) in map.iter().filter(|(name, _)| name.ends_with(suffix)) {
        let offsets = [0, 1].map(|i| 8 + header + t["data_offsets"][i].as_u64().unwrap() as usize);
        let values = bytes[offsets[0]..offsets[1]].as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32);
        all.push((name.clone(), values.collect()));
    }
    all.sort();
    all
}

#[test]
fn tokenizers_of_both_containers_give_the_ids_of_the_reference() {
    for (name, _) in embeddings() {
        let Some(dir) = variant(name) else { return };
        let meta: Json = serde_json::from_slice(&std::fs::read(dir.join("meta.json")).unwrap()).unwrap();
        let expected = ids(&dir.join("expected.safetensors"), ".ids");
        assert_eq!(expected.len(), 3, "{name}");
        let mut files = ggufs(&dir);
        // A folder of Gemma does not state whether BOS begins a text; a tokenizer with a folder does.
        if dir.join("model.safetensors").is_file() {
            files.push(dir.clone());
        }
        for file in files {
            let loaded = loader::load(&file, &LoadOptions::default()).unwrap();
            let tokenizer = loaded.tokenizer.unwrap();
            for ((text, expected), i) in expected.iter().zip(0..) {
                let got = tokenizer.encode(meta["texts"][i].as_str().unwrap(), true).unwrap();
                assert_eq!(&got, expected, "{} {text}", file.display());
            }
        }
    }
    for name in ["qwen3_group/g128_tied", "qwen3_group/g256_tq2"] {
        let Some(dir) = variant(name) else { return };
        let meta: Json = serde_json::from_slice(&std::fs::read(dir.join("meta.json")).unwrap()).unwrap();
        let expected = ids(&dir.join("expected.safetensors"), "input_ids");
        let mut files = ggufs(&dir);
        files.extend(dir.join("tokenizer.json").is_file().then(|| dir.clone()));
        for file in files {
            let tokenizer = loader::load_tokenizer(&file).unwrap();
            let got = tokenizer.encode(meta["text"].as_str().unwrap(), true).unwrap();
            assert_eq!(got, expected[0].1, "{}", file.display());
            assert!(tokenizer.is_eos(511), "{name}: <|im_end|> ends a text");
        }
    }
}

#[test]
fn chats_of_qwen_are_chatml() {
    let Some(dir) = variant("qwen3_group/g128_tied") else { return };
    let tokenizer = loader::load_tokenizer(&ggufs(&dir)[0]).unwrap();
    let sources = |architecture| {
        let mut sources = loader::chat::ChoiceSources::default();
        (sources.architecture, sources.tokenizer) = (Some(architecture), Some(&tokenizer));
        sources
    };
    for architecture in ["qwen3", "qwen2"] {
        let choice = loader::chat::ChatTemplate::choose(sources(architecture)).unwrap();
        assert_eq!(choice.template.unwrap().builtin_name(), Some("chatml"), "{architecture}");
    }
}

/// HunYuan's folder and file of the repository: one configuration, whose base has grown with `alpha`, and the same norms.
#[test]
fn both_containers_of_hunyuan_give_one_model_whose_base_grew_with_alpha() {
    let dir = test_support::testdata("families/hunyuan/tiny");
    let (hf, gguf) = (open(&dir).unwrap(), open(&ggufs(&dir)[0]).unwrap());
    let mut c = ModelConfig::new(48, 128, 128, 2, 2, 1);
    (c.sub_norms, c.head_norms, c.head_norms_after_rope) = (false, true, true);
    (c.hidden_act, c.max_position_embeddings) = (Activation::Silu, 256);
    c.rope_theta = f64::from((10_000.0 * 1000f64.powf(64.0 / 62.0)) as f32);
    (c.bos_token_id, c.eos_token_ids) = (Some(1), vec![2]);
    // Scales of groups imply activations of 16 bits, which follow from the weights, not from the configuration.
    let plain = |c: &ModelConfig| {
        let mut c = c.clone();
        c.inputs = Default::default();
        c
    };
    assert_eq!(plain(gguf.config()), c);
    assert_eq!(plain(hf.config()), c);
    assert_eq!((hf.family(), gguf.family()), (Architecture::HunYuanDense, Architecture::HunYuanDense));
    assert!(hf.notes().is_empty() && gguf.notes().is_empty(), "{:?} {:?}", hf.notes(), gguf.notes());
    for norm in (0..2).flat_map(|l| c.layer_norms(l)) {
        assert_eq!(hf.norm(norm).unwrap(), gguf.norm(norm).unwrap(), "{norm:?}");
    }
}

#[test]
fn what_hunyuan_may_say_and_nothing_computes_is_refused_by_name() {
    let dir = test_support::testdata("families/hunyuan/tiny");
    let with = |change: fn(&mut Map<String, Json>)| {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
        let mut config: Map<String, Json> =
            serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(copy.path().join("config.json"), Json::Object(config).to_string()).unwrap();
        Some(open(copy.path()).map(|c| (c.config().clone(), c.notes())))
    };
    fn set(c: &mut Map<String, Json>, key: &str, value: Json) {
        c.insert(key.to_owned(), value);
    }
    refused(with(|c| set(c, "use_qk_norm", json!(false))), &["use_qk_norm"]);
    refused(with(|c| set(c, "use_cla", json!(true))), &["use_cla"]);
    refused(with(|c| set(c, "num_experts", json!(16))), &["num_experts"]);
    refused(with(|c| set(c, "attention_bias", json!(true))), &["attention_bias"]);
    // Without `alpha` it is the scaling that changes with the length of a text.
    refused(with(|c| set(c, "rope_scaling", json!({"type": "dynamic", "factor": 4.0}))), &["dynamic"]);
    refused(with(|c| set(c, "rope_scaling", json!({"type": "linear", "factor": 4.0, "alpha": 9.0}))), &["alpha"]);
    let two = |c: &mut Map<String, Json>| {
        c.insert("rope_parameters".to_owned(), json!({"rope_type": "dynamic", "alpha": 50.0}));
    };
    refused(with(two), &["alpha", "contradicts"]);
    assert!(with(|c| set(c, "num_experts", json!(1))).unwrap().is_ok());
    // Another family's alpha means another model.
    refused(with(|c| set(c, "model_type", json!("qwen3"))), &["alpha"]);
}

const DELTA: &str = "qwen35/hadamard_b128";

/// Hybrids of the gated delta rule: both containers give the same configuration and the same full-precision tensors.
#[test]
fn both_containers_of_a_hybrid_agree() {
    let Some(dir) = variant("qwen35/g64_hd64") else { return };
    let folder = open(&dir).unwrap();
    let file = open(&ggufs(&dir)[0]).unwrap();
    let (a, b) = (shape(folder.config()), shape(file.config()));
    assert_eq!(a, b);
    assert_eq!((a.attention_interval(), a.rotary_dim, a.gated_attention), (Some(3), Some(32), true));
    for l in 0..2 {
        for (t, _) in a.layer_delta_tensors(l) {
            assert_eq!(folder.delta_tensor(l, t).unwrap(), file.delta_tensor(l, t).unwrap(), "{l} {t:?}");
        }
        for norm in a.layer_norms(l) {
            assert_eq!(folder.norm(norm).unwrap(), file.norm(norm).unwrap(), "{norm:?}");
        }
    }
}

#[test]
fn folds_that_are_not_understood_in_every_detail_are_refused() {
    let Some(Ok((config, notes))) = changed(DELTA, |e| e) else { return };
    let fold = config.fold.unwrap();
    assert_eq!((fold.block, fold.head, fold.embedding), (128, true, true));
    assert_eq!([128, 256, 384].map(|n| fold.signs(n).map(<[i8]>::len)), [Some(128), Some(256), Some(384)]);
    assert!(notes.is_empty(), "{notes:?}");
    let key = |name: &str| format!("prism.hadamard.{name}");
    let with = |name: &'static str, value: Value| changed(DELTA, move |e| e.set(&key(name), value));
    refused(with("version", Value::U32(2)), &["version", "2"]);
    refused(with("transform", Value::String("dct".into())), &["transform", "sylvester"]);
    refused(with("axis", Value::String("output".into())), &["axis", "input-last-dimension"]);
    refused(with("sign_mode", Value::String("random".into())), &["sign_mode", "identity"]);
    refused(with("block_size", Value::U32(100)), &["block"]);
    refused(with("block_size", Value::U32(256)), &["block", "128"]);
    refused(with("gdn_v_grouped", Value::Bool(false)), &["gdn_v_grouped"]);
    refused(with("sign_widths", Value::Array(Array::I32(vec![128, 256]))), &["sign_values"]);
    refused(with("sign_values", Value::Array(Array::I8(vec![1; 700]))), &["sign_values"]);
    refused(with("sign_values", Value::Array(Array::I8(vec![2; 768]))), &["sign_values", "2"]);
    refused(with("scale", Value::F32(1.0)), &["prism.hadamard.scale"]);
    let list = |names: &[&str]| Value::from(names.iter().collect::<StringArray>());
    refused(with("weight_names", list(&["blk.0.attn_qkv.weight"])), &["weight_names", "only some"]);
    refused(with("inverse_weight_names", list(&["output.weight"])), &["inverse_weight_names", "token_embd"]);
    let also = |name: &'static str| {
        changed(DELTA, move |e| {
            let listed = e.metadata.strings(&key("weight_names")).unwrap().unwrap();
            let mut all: Vec<String> = listed.iter().map(str::to_owned).collect();
            all.push(name.to_owned());
            let all: StringArray = all.iter().collect();
            e.set(&key("weight_names"), Value::from(all))
        })
    };
    refused(also("blk.0.ffn_gat.weight"), &["ffn_gat", "no such tensor"]);
    refused(also("blk.0.ssm_alpha.weight"), &["ssm_alpha", "not transformed"]);
    for name in ["version", "transform", "axis", "sign_mode", "weight_names", "sign_widths", "gdn_v_grouped"] {
        refused(changed(DELTA, move |e| e.remove(&key(name))), &[name, "missing"]);
    }
    // Without any of the keys only the name is a hint.
    let bare = |e: Edit| {
        let all = ["block_size", "version", "transform", "axis", "sign_mode", "sign_widths", "sign_values"];
        let more = ["weight_names", "inverse_weight_names", "gdn_v_grouped"];
        let e = all.iter().chain(&more).fold(e, |e, name| e.remove(&key(name)));
        e.set("general.name", "Ternary Bonsai 2 27B")
    };
    let Some(Ok((config, notes))) = changed(DELTA, bare) else { panic!() };
    assert!(config.fold.is_none() && notes.iter().any(|n| n.contains("prism.hadamard")), "{notes:?}");
    let identity = changed(DELTA, |e| e.set(&key("sign_mode"), "identity")).unwrap().unwrap().0.fold.unwrap();
    assert!(identity.all_signs().flatten().all(|s| *s == 1));
}

#[test]
fn hybrids_that_nothing_computes_are_refused_by_name() {
    let with = |name: &'static str, value: Value| changed(DELTA, move |e| e.set(&format!("qwen35.{name}"), value));
    refused(with("full_attention_interval", Value::U32(0)), &["full_attention_interval"]);
    refused(with("ssm.inner_size", Value::U32(128)), &["ssm.inner_size", "ssm.state_size"]);
    refused(with("ssm.state_size", Value::U32(65)), &["ssm.inner_size"]);
    refused(with("ssm.dt_b_c_rms", Value::Bool(true)), &["ssm.dt_b_c_rms"]);
    refused(with("rope.dimension_count", Value::U32(15)), &["rotary_dim"]);
    refused(changed(DELTA, |e| e.remove("qwen35.ssm.group_count")), &["ssm.group_count"]);
}

/// Layers that predict further tokens are left out with a note, whether the number of layers counts them or not.
#[test]
fn layers_that_predict_further_tokens_are_not_read() {
    for blocks in [2u32, 3] {
        let Some(read) = changed(DELTA, |mut e| {
            for name in ["nextn.eh_proj.weight", "attn_norm.weight"] {
                let mut tensor = e.tensors.iter().find(|t| t.0 == "output_norm.weight").unwrap().clone();
                tensor.0 = format!("blk.2.{name}");
                e.tensors.push(tensor);
            }
            e.set("qwen35.block_count", blocks).set("qwen35.nextn_predict_layers", 1u32)
        }) else {
            return;
        };
        let (config, notes) = read.unwrap();
        assert_eq!(config.num_hidden_layers, 2);
        assert_eq!(notes.iter().filter(|n| n.contains("nextn")).count(), 1, "{notes:?}");
    }
}
