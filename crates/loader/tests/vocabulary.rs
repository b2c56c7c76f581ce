//! A tokenizer.json that went into a GGUF file gives the same ids from there.

mod common;

use std::io::Read;
use std::path::{Path, PathBuf};

use common::checkpoints::*;
use loader::convert::{ConvertOptions, Target, convert};
use loader::tokenizer::Tokenizer;

const TEXTS: [&str; 9] = [
    "Once upon a time, there was a little girl named Lily. She didn't like  spaces.",
    "  leading and trailing   ",
    "don't DON'T we'll we've\n\n\ttabs\r\n",
    "1234567 3.14159 2025-01-01",
    "Größe, naïve, 日本語のテキスト, 한국어, العربية",
    "\u{1F600}\u{1F468}\u{200D}\u{1F469}",
    "<|begin_of_text|>special<|eot_id|> text<|end_of_text|>",
    "",
    "a\u{301}\u{fffd}\0\u{7f}",
];

/// A small model whose vocabulary has room for `tokens` tokens, with this tokenizer, as a GGUF file.
fn through_gguf(dir: &Path, tokenizer: &Path, tokens: usize) -> (PathBuf, Vec<String>) {
    let mut config = small_config();
    let (hidden, ffn) = (128usize, 128usize);
    config["hidden_size"] = hidden.into();
    config["intermediate_size"] = ffn.into();
    config["vocab_size"] = tokens.into();
    let mut tensors = vec![
        bf16_tensor("model.embed_tokens.weight", &[tokens, hidden], |_| 0.5),
        bf16_tensor("model.norm.weight", &[hidden], |_| 1.0),
        bf16_tensor("model.layers.0.input_layernorm.weight", &[hidden], |_| 1.0),
        bf16_tensor("model.layers.0.post_attention_layernorm.weight", &[hidden], |_| 1.0),
        bf16_tensor("model.layers.0.self_attn.attn_sub_norm.weight", &[hidden], |_| 1.0),
        bf16_tensor("model.layers.0.mlp.ffn_sub_norm.weight", &[ffn], |_| 1.0),
    ];
    for p in bitnet_model::Projection::OF_ATTENTION {
        let rows = if matches!(p, bitnet_model::Projection::K | bitnet_model::Projection::V) { 64 } else { 128 };
        tensors.push(bf16_tensor(&(projection_name(p) + ".weight"), &[rows, hidden], |i| f32::from(trit(1, i))));
    }
    let source = folder(&dir.join("hf"), &config, &tensors);
    let out = dir.join("model.gguf");
    let mut options = ConvertOptions::default();
    options.tokenizer = Some(tokenizer.to_path_buf());
    let report = convert(&source, &out, Target::I2S, &options, &mut |_| {}).unwrap();
    (out, report.notes)
}

fn same_ids(json: &Tokenizer, gguf: &Tokenizer, what: &str) {
    for text in TEXTS {
        let (a, b) = (json.encode(text, false).unwrap(), gguf.encode(text, false).unwrap());
        assert_eq!(a, b, "{what}: {text:?}");
        assert_eq!(json.decode(&a, false), gguf.decode(&b, false), "{what}: {text:?}");
    }
}

#[test]
fn byte_level_vocabularies_become_gguf_keys() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let llama3 = dir.path().join("llama3.json");
    let mut text = Vec::new();
    let packed = std::fs::File::open(shared.join("tokenizer/llama3/tokenizer.json.zst")).unwrap();
    ruzstd::decoding::StreamingDecoder::new(packed).unwrap().read_to_end(&mut text).unwrap();
    std::fs::write(&llama3, text).unwrap();
    let stories = shared.join("models/tinystories_5m/packed/tokenizer.json");
    for (file, tokens, pre) in [(&stories, 2048, "gpt-2"), (&llama3, 128_256, "llama-bpe")] {
        let (out, notes) = through_gguf(dir.path(), file, tokens);
        assert_eq!(notes, [""; 0]);
        let m = open(&out);
        let m = m.gguf().unwrap().metadata();
        assert_eq!(m.str("tokenizer.ggml.pre").unwrap(), Some(pre));
        assert!(m.get("tokenizer.huggingface.json").is_none());
        let (json, gguf) = (loader::load_tokenizer(file).unwrap(), loader::load_tokenizer(&out).unwrap());
        same_ids(&json, &gguf, pre);
        assert_eq!(json.add_bos(), gguf.add_bos(), "{pre}");
    }
}

#[test]
fn other_vocabularies_are_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = test_support::testdata("tokenizer/spm.tokenizer.json");
    let json = loader::load_tokenizer(&file).unwrap();
    let (out, notes) = through_gguf(dir.path(), &file, json.vocab_size());
    assert!(notes.iter().any(|n| n.contains("tokenizer.huggingface.json")), "{notes:?}");
    same_ids(&json, &loader::load_tokenizer(&out).unwrap(), "whole");
    let back = dir.path().join("back");
    convert(&out, &back, Target::HfPacked, &ConvertOptions::default(), &mut |_| {}).unwrap();
    same_ids(&json, &loader::load_tokenizer(&back).unwrap(), "back");
}

#[test]
fn files_without_a_vocabulary_say_so() {
    let file = test_support::testdata("gguf/llama_tiny.I2_S.gguf");
    let e = loader::load_tokenizer(&file).unwrap_err();
    assert!(e.to_string().contains("no vocabulary"), "{e}");
    assert!(loader::load(&file, &Default::default()).unwrap().tokenizer.is_none());
}
