//! Conversions between all forms: nothing is lost, or the conversion is rejected.

mod common;

use std::path::{Path, PathBuf};

use bitnet_model::{Projection, WeightSource};
use common::checkpoints::*;
use loader::convert::{ConvertOptions, ConvertReport, Progress, ScaleRounding, Target, convert};
use loader::gguf::Gguf;
use loader::{LoadError, LoadOptions};

fn run(input: &Path, output: &Path, target: Target) -> Result<ConvertReport, LoadError> {
    convert(input, output, target, &ConvertOptions::default(), &mut |_| {})
}

fn target_path(dir: &Path, name: &str, target: Target) -> PathBuf {
    let ending = if target.is_folder() { "" } else { ".gguf" };
    dir.join(format!("{name}-{}{ending}", target.name()))
}

#[test]
fn every_form_becomes_every_other_and_back() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let packed = shared.join("fixtures/bitnet/gqa_tied_768/packed");
    let original = load(&packed);
    for first in Target::ALL {
        let one = target_path(dir.path(), "one", first);
        let report = run(&packed, &one, first).unwrap();
        assert_eq!((report.projections, report.rounded), (21, 0));
        assert_same(&original, &load(&one), EXACT, first.name());
        for second in Target::ALL {
            let two = target_path(dir.path(), &format!("{}-two", first.name()), second);
            run(&one, &two, second).unwrap();
            assert_same(&original, &load(&two), EXACT, &format!("{} {}", first.name(), second.name()));
        }
    }
}

#[test]
fn conversions_write_the_bytes_of_the_reference_files() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let packed = shared.join("fixtures/bitnet/gqa_tied_768/packed");
    for (target, name) in [(Target::I2S, "I2_S"), (Target::Tq1_0, "TQ1_0"), (Target::Tq2_0, "TQ2_0")] {
        let ours = target_path(dir.path(), "ours", target);
        run(&packed, &ours, target).unwrap();
        let reference = Gguf::open(&shared.join(format!("fixtures/gguf/gqa_tied_768.{name}.gguf"))).unwrap();
        let ours = Gguf::open(&ours).unwrap();
        let mut compared = 0;
        for t in reference.tensors().iter().filter(|t| t.tensor_type().to_string() == name) {
            let (expected, got) = (reference.data(t).unwrap().1, ours.data(ours.tensor(t.name()).unwrap()).unwrap().1);
            // Blocks of zeros have scale 0 there and the tensor's scale here; both decode to zeros.
            assert!(expected[..] == got[..], "{name} {}", t.name());
            compared += 1;
        }
        assert_eq!(compared, 21, "{name}");
        for key in ["bitnet-b1.58.rope.freq_base", "bitnet-b1.58.attention.head_count_kv", "general.file_type"] {
            assert_eq!(reference.metadata().get(key), ours.metadata().get(key), "{key}");
        }
    }
    let hf = target_path(dir.path(), "ours", Target::HfPacked);
    run(&shared.join("fixtures/gguf/gqa_tied_768.I2_S.gguf"), &hf, Target::HfPacked).unwrap();
    let (a, b) = (
        loader::safetensors::Safetensors::open(&packed).unwrap(),
        loader::safetensors::Safetensors::open(&hf).unwrap(),
    );
    assert_eq!(a.len(), b.len());
    for (name, t) in a.iter().filter(|(n, _)| n.contains("proj")) {
        let other = b.get(name).unwrap();
        assert_eq!((t.dtype, &t.shape, &t.bytes[..]), (other.dtype, &other.shape, &other.bytes[..]), "{name}");
    }
}

fn kind(e: &LoadError) -> String {
    format!("{:?}", e.root())
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_leaves_nothing_behind() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        // Rows of 640 and of 64.
        ("mha_untied_640/packed", Target::Tq1_0, "UnsupportedShape", "ffn"),
        ("stable_tiny/packed", Target::I2S, "UnsupportedShape", "proj"),
        // Scales of master weights have all bits of an f32.
        ("silu_gqa_512/master", Target::Tq2_0, "InexactScale", "blk.0.attn_q.weight"),
        ("silu_gqa_512/master", Target::HfPacked, "InexactScale", "q_proj.weight_scale"),
    ];
    for (case, target, variant, _says) in cases {
        let out = target_path(dir.path(), "no", target);
        let e = run(&shared.join("fixtures/bitnet").join(case), &out, target).expect_err(case);
        assert!(kind(&e).contains(variant), "{case}: {e:?}");
        assert!(e.to_string().contains("proj") || e.to_string().contains("blk.0"), "{e}");
        assert!(!out.exists());
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(left.iter().all(|f| !f.to_string_lossy().contains("partial")), "{left:?}");
}

#[test]
fn scales_round_where_that_is_allowed() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let master = shared.join("fixtures/bitnet/silu_gqa_512/master");
    let exact = load(&master);
    for target in [Target::Tq1_0, Target::Tq2_0, Target::HfPacked] {
        let out = target_path(dir.path(), "rounded", target);
        let mut options = ConvertOptions::default();
        options.rounding = ScaleRounding::Nearest;
        let report = convert(&master, &out, target, &options, &mut |_| {}).unwrap();
        assert_eq!(report.rounded, 14, "no scale of this model is exact in 16 bits");
        // bf16 stores 7 bits after the leading one, so half an ulp is at most 2^-8 of the value.
        assert_same(&exact, &load(&out), Allow { scale: 1.0 / 256.0, embedding: 0.0 }, target.name());
    }
    let out = target_path(dir.path(), "exact", Target::I2S);
    assert_eq!(run(&master, &out, Target::I2S).unwrap().rounded, 0);
    assert_same(&exact, &load(&out), EXACT, "I2_S holds f32 scales");
}

#[test]
fn scales_that_divide_are_kept_exactly() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let packed = shared.join("fixtures/bitnet/stable_tiny/packed_bitlinear");
    run(&packed, dir.path(), Target::HfPacked).unwrap();
    assert_same(&load(&packed), &load(dir.path()), EXACT, "bitlinear");
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(config.contains("\"bitlinear\""), "{config}");
}

#[test]
fn ids_sampling_and_tokenizer_come_along() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(shared.join("models/tinystories_5m/packed").join(name), source.join(name)).unwrap();
    }
    let generation = r#"{"eos_token_id": [1, 2], "temperature": 0.6, "top_k": 40}"#;
    std::fs::write(source.join("generation_config.json"), generation).unwrap();
    let template = "{{ messages[0].content }}";
    std::fs::write(source.join("tokenizer_config.json"), serde_json::json!({"chat_template": template}).to_string())
        .unwrap();

    let gguf = dir.path().join("model.gguf");
    let mut steps = Vec::new();
    convert(&source, &gguf, Target::I2S, &ConvertOptions::default(), &mut |p| steps.push(p)).unwrap();
    let total = 2 + 6 * 11;
    assert_eq!(steps.first(), Some(&Progress { done: 0, total }));
    assert_eq!(steps.last(), Some(&Progress { done: total, total }));

    let c = open(&gguf);
    assert_eq!((c.config().bos_token_id, &c.config().eos_token_ids[..]), (Some(0), &[1, 2][..]));
    assert_eq!((c.generation().temperature, c.generation().top_k), (Some(0.6), Some(40)));
    let m = c.gguf().unwrap().metadata();
    assert_eq!(m.str("tokenizer.ggml.model").unwrap(), Some("gpt2"));
    assert_eq!(m.str("tokenizer.ggml.pre").unwrap(), Some("gpt-2"));
    assert_eq!(m.str("tokenizer.chat_template").unwrap(), Some(template));
    let tokens = m.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!((tokens.len(), tokens.get(0)), (2048, Some("<|begin_of_text|>")));
    assert_eq!(m.strings("tokenizer.ggml.merges").unwrap().unwrap().len(), 1789);
    // Through GGUF again, everything stays, and back in a folder.
    let again = dir.path().join("again.gguf");
    run(&gguf, &again, Target::Tq2_0).unwrap();
    assert_eq!(open(&again).gguf().unwrap().metadata().strings("tokenizer.ggml.tokens").unwrap(), Some(tokens));
    let back = dir.path().join("back");
    run(&gguf, &back, Target::HfPacked).unwrap();
    assert!(back.join("tokenizer.json").is_file());
    let c = open(&back);
    assert_eq!((c.config().bos_token_id, &c.config().eos_token_ids[..]), (Some(0), &[1, 2][..]));
    assert_eq!(c.generation().temperature, Some(0.6));
    // A tokenizer given by hand replaces the file's own.
    let mut options = ConvertOptions::default();
    options.tokenizer = Some(shared.join("models/tiny_ternary/tokenizer.json"));
    convert(&gguf, &gguf, Target::I2S, &options, &mut |_| {}).unwrap();
    let c = open(&gguf);
    assert_eq!(
        c.gguf().unwrap().metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap().get(0),
        Some("<|endoftext|>")
    );
}

#[test]
fn a_model_without_sub_norms_becomes_a_llama_file_with_interleaved_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small_config();
    config["model_type"] = "llama".into();
    config["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
    config["hidden_act"] = "silu".into();
    // 128 columns everywhere, as I2_S needs.
    let (hidden, ffn) = (128usize, 128usize);
    config["hidden_size"] = hidden.into();
    config["intermediate_size"] = ffn.into();
    let kv = 64;
    let mut tensors = vec![
        bf16_tensor("model.embed_tokens.weight", &[VOCAB, hidden], |i| (i % 17) as f32 / 8.0),
        bf16_tensor("model.norm.weight", &[hidden], |_| 1.0),
        bf16_tensor("model.layers.0.input_layernorm.weight", &[hidden], |_| 1.0),
        bf16_tensor("model.layers.0.post_attention_layernorm.weight", &[hidden], |_| 1.0),
    ];
    for (n, p) in Projection::OF_ATTENTION.into_iter().enumerate() {
        let rows = if matches!(p, Projection::K | Projection::V) { kv } else { hidden };
        let name = projection_name(p) + ".weight";
        tensors.push(bf16_tensor(&name, &[rows, hidden], |i| f32::from(trit(n, i)) * 0.25));
    }
    let source = folder(&dir.path().join("hf"), &config, &tensors);
    let gguf = dir.path().join("llama.gguf");
    run(&source, &gguf, Target::I2S).unwrap();
    assert_same(&load(&source), &load(&gguf), EXACT, "llama");
    let c = open(&gguf);
    assert_eq!(c.architecture(), "llama");
    // The file itself: row 1 of a head is row 32 of the model (heads of 64).
    let file = c.gguf().unwrap();
    let (_, bytes) = file.data(file.tensor("blk.0.attn_q.weight").unwrap()).unwrap();
    let stored =
        ternary_kernels::TernaryMatrix::from_bytes(ternary_kernels::FileFormat::I2S, hidden, hidden, bytes, None)
            .unwrap();
    let (mut x, mut y) = (vec![0; hidden], vec![0; hidden]);
    stored.decode_row(1, &mut x);
    load(&source).layers[0].projection(Projection::Q).decode_row(32, &mut y);
    assert_eq!(x, y);
    let back = dir.path().join("back");
    run(&gguf, &back, Target::HfPacked).unwrap();
    assert_same(&load(&source), &load(&back), EXACT, "back");
}

#[test]
fn a_file_is_called_as_is_asked() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bitnet/models/tiny-stories-ttt.gguf");
    let dir = tempfile::tempdir().unwrap();
    let mut options = ConvertOptions::default();
    let mut called = |name: Option<&str>| {
        options.name = name.map(str::to_owned);
        let path = dir.path().join(format!("{name:?}.gguf"));
        convert(&source, &path, Target::I2S, &options, &mut |_| {}).unwrap();
        loader::load(&path, &LoadOptions::default()).unwrap().info.name
    };
    assert_eq!(called(None).as_deref(), Some("tiny-stories-ttt"));
    assert_eq!(called(Some("bo 坊")).as_deref(), Some("bo 坊"));
}

#[test]
fn tables_are_rounded_to_half_precision_where_that_is_asked_for() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bitnet/models/tiny-stories-ttt.gguf");
    let dir = tempfile::tempdir().unwrap();
    let mut options = ConvertOptions::default();
    let mut to = |name: &str, f16_tables| {
        options.f16_tables = f16_tables;
        let path = dir.path().join(name);
        let report = convert(&source, &path, Target::I2S, &options, &mut |_| {}).unwrap();
        (report.bytes, load(&path).embedding)
    };
    let (whole, kept) = to("kept.gguf", false);
    let (half, rounded) = to("rounded.gguf", true);
    assert_eq!((kept.type_name().as_str(), rounded.type_name().as_str()), ("F32", "F16"));
    assert_eq!(whole - half, (kept.rows() * kept.cols() * 2) as u64);
    let (mut x, mut y) = (vec![0.0; kept.cols()], vec![0.0; kept.cols()]);
    for r in 0..kept.rows() {
        kept.row_into(r, &mut x);
        rounded.row_into(r, &mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| half::f16::from_f32(*x).to_f32() == *y), "row {r}");
    }
}
