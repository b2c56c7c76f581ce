//! Vocabularies that the tests of tokenizers share.

use loader::tokenizer::GgufVocab;
use serde_json::{Value, json};

pub(crate) fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

pub(crate) fn testdata(name: &str) -> Vec<u8> {
    std::fs::read(test_support::testdata("tokenizer").join(name)).expect("reference file")
}

/// The GGUF keys that a converter makes of a byte-level tokenizer.json.
pub(crate) fn gguf_of(json: &Value, pre: Option<&str>) -> GgufVocab {
    let vocab = json["model"]["vocab"].as_object().expect("vocab");
    let added = json["added_tokens"].as_array().expect("added tokens");
    let count = vocab.values().chain(added.iter().map(|token| &token["id"])).filter_map(Value::as_u64).max();
    let count = count.expect("ids") as usize + 1;
    let (mut tokens, mut types) = (vec![String::new(); count], vec![1; count]);
    for (token, id) in vocab {
        tokens[id.as_u64().expect("id") as usize] = token.clone();
    }
    for token in added {
        let id = token["id"].as_u64().expect("id") as usize;
        tokens[id] = token["content"].as_str().expect("content").to_owned();
        types[id] = if token["special"] == json!(true) { 3 } else { 4 };
    }
    let merge = |merge: &Value| match merge {
        Value::String(merge) => merge.clone(),
        pair => format!("{} {}", pair[0].as_str().expect("left"), pair[1].as_str().expect("right")),
    };
    GgufVocab {
        model: "gpt2".into(),
        pre: pre.map(str::to_owned),
        tokens,
        token_types: types,
        merges: json["model"]["merges"].as_array().expect("merges").iter().map(merge).collect(),
        ..GgufVocab::default()
    }
}

pub(crate) fn small() -> Value {
    json_of(&testdata("bpe.tokenizer.json"))
}
