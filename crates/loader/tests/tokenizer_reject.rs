//! Damaged and unsupported vocabularies are rejected, each with its reason.

use std::collections::HashMap;

use loader::tokenizer::{GgufVocab, Tokenizer, TokenizerError};
use serde_json::{Value, json};
use vocab::{gguf_of, small, testdata};

#[path = "common/vocab.rs"]
mod vocab;

fn refused(json: &Value) -> TokenizerError {
    Tokenizer::from_bytes(json.to_string().as_bytes()).expect_err("must be refused")
}

#[test]
fn bad_tokenizer_json_is_refused() {
    assert!(matches!(Tokenizer::from_bytes(b"{").expect_err("cut off"), TokenizerError::Json { .. }));
    assert!(matches!(Tokenizer::from_bytes(b"\xff").expect_err("no UTF-8"), TokenizerError::Json { .. }));
    let change = |change: &dyn Fn(&mut Value)| {
        let mut json = small();
        change(&mut json);
        refused(&json)
    };
    // The `tokenizers` library panics on this one: the concatenation is longer than any token.
    let error = change(&|json| {
        let longest = json["model"]["vocab"].as_object().expect("vocab").keys().max_by_key(|k| k.len()).cloned();
        json["model"]["merges"] = json!([[longest, longest]]);
    });
    assert!(matches!(error, TokenizerError::BadMerge { index: 0, .. }), "{error}");
    let error = change(&|json| json["model"]["merges"] = json!(["a b c"]));
    assert!(matches!(error, TokenizerError::Json { .. }), "{error}");
    let error = change(&|json| json["model"]["vocab"]["zzz"] = json!(4_000_000_000u32));
    assert!(matches!(error, TokenizerError::IdOutOfRange { id: 4_000_000_000, .. }), "{error}");
    let error = change(&|json| json["model"]["type"] = json!("WordPiece"));
    assert!(matches!(error, TokenizerError::UnsupportedModel { .. }), "{error}");
    let error = change(&|json| json["model"]["unk_token"] = json!("<none>"));
    assert!(matches!(error, TokenizerError::MissingToken { .. }), "{error}");
    let error = change(&|json| json["model"]["continuing_subword_prefix"] = json!("##"));
    assert!(matches!(error, TokenizerError::UnsupportedStage { stage: "model", .. }), "{error}");
    let error = change(&|json| json["decoder"] = json!({"type": "WordPiece"}));
    assert!(matches!(error, TokenizerError::UnsupportedStage { stage: "decoder", .. }), "{error}");
    let error = change(&|json| json["decoder"] = Value::Null);
    assert!(matches!(error, TokenizerError::UnsupportedStage { stage: "decoder", .. }), "{error}");
    let error = change(&|json| json["post_processor"] = json!({"type": "New"}));
    assert!(matches!(error, TokenizerError::UnsupportedStage { stage: "post_processor", .. }), "{error}");
    let error = change(&|json| json["pre_tokenizer"] = json!({"type": "New"}));
    assert!(matches!(error, TokenizerError::Json { .. }), "{error}");
    let error = change(&|json| json["normalizer"] = json!({"type": "New"}));
    assert!(matches!(error, TokenizerError::Json { .. }), "{error}");
    let error = change(&|json| {
        json["model"]["vocab"] = json!({});
        json["model"]["merges"] = json!([]);
        json["added_tokens"] = json!([]);
    });
    assert!(matches!(error, TokenizerError::EmptyVocabulary), "{error}");
}

#[test]
fn bad_gguf_vocabularies_are_refused() {
    let good = gguf_of(&small(), Some("llama-bpe"));
    assert!(Tokenizer::from_gguf_vocab(&good).is_ok());
    let change = |change: &dyn Fn(&mut GgufVocab)| {
        let mut vocab = good.clone();
        change(&mut vocab);
        Tokenizer::from_gguf_vocab(&vocab).expect_err("must be refused")
    };
    let error = change(&|vocab| vocab.pre = Some("new-pre".into()));
    assert!(error.to_string().contains("--tokenizer FILE"), "{error}");
    assert!(matches!(error, TokenizerError::UnknownPreTokenizer { .. }));
    let error = change(&|vocab| vocab.model = "no_vocab".into());
    assert!(matches!(error, TokenizerError::UnsupportedModel { .. }), "{error}");
    assert!(matches!(change(&|vocab| vocab.tokens.clear()), TokenizerError::EmptyVocabulary));
    let error = change(&|vocab| vocab.token_types.truncate(3));
    assert!(matches!(error, TokenizerError::LengthMismatch { got: 3, .. }), "{error}");
    let error = change(&|vocab| vocab.scores = vec![0.0]);
    assert!(matches!(error, TokenizerError::LengthMismatch { got: 1, .. }), "{error}");
    let size = good.tokens.len() as u64;
    let error = change(&|vocab| vocab.eos = Some(size as u32));
    assert!(matches!(error, TokenizerError::IdOutOfRange { id, limit, .. } if (id, limit) == (size, size)), "{error}");
    let error = change(&|vocab| vocab.merges[1] = "ab".into());
    assert!(matches!(error, TokenizerError::BadMerge { index: 1, .. }), "{error}");
    let error = change(&|vocab| vocab.merges[0] = "a \u{2581}".into());
    assert!(matches!(error, TokenizerError::BadMerge { index: 0, .. }), "{error}");
    let error = change(&|vocab| vocab.model = "llama".into());
    assert!(matches!(error, TokenizerError::LengthMismatch { got: 0, .. }), "{error}");
    let error = change(&|vocab| {
        vocab.model = "llama".into();
        vocab.scores = vec![f32::NAN; vocab.tokens.len()];
    });
    assert!(matches!(error, TokenizerError::BadScore { id: 0 }), "{error}");
}

#[test]
fn hostile_bytes_never_panic() {
    let json = testdata("bpe.tokenizer.json");
    let model = testdata("spm.model");
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut outcomes: HashMap<bool, usize> = HashMap::new();
    for round in 0..300 {
        let mut bytes = if round % 2 == 0 { json.clone() } else { model.clone() };
        for _ in 0..=random() % 8 {
            let at = random() % bytes.len();
            bytes[at] = random() as u8;
        }
        if random() % 4 == 0 {
            bytes.truncate(random() % bytes.len());
        }
        let read = if round % 2 == 0 { Tokenizer::from_bytes(&bytes) } else { Tokenizer::from_sentencepiece(&bytes) };
        if let Ok(tokenizer) = &read {
            let _ = tokenizer.encode("Once upon a time 日本", true);
            let _ = tokenizer.decode(&(0..tokenizer.vocab_size() as u32).collect::<Vec<_>>(), false);
        }
        *outcomes.entry(read.is_ok()).or_default() += 1;
    }
    println!("{outcomes:?}");
}
