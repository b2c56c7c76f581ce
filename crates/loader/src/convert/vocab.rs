//! A `tokenizer.json` as the vocabulary of a GGUF file.
//!
//! Byte-level BPE with a pre-tokenizer that GGUF programs have a name for becomes `tokenizer.ggml.*`; anything else goes
//! whole into `tokenizer.huggingface.json`, the key that the GGUF specification has for it.

use std::path::Path;

use bitnet_model::ModelConfig;
use serde_json::{Map, Value as Json};

use crate::config::from_hf::MAX_CONFIG;
use crate::gguf::{Array, Metadata, StringArray};
use crate::mmap::read_bounded;
use crate::{Checkpoint, LoadError};

/// Largest `tokenizer.json` accepted, bytes.
const MAX_TOKENIZER: u64 = 256 << 20;
/// The key for a whole `tokenizer.json`.
pub(crate) const WHOLE: &str = "tokenizer.huggingface.json";

/// The split pattern of Llama 3, as its `tokenizer.json` writes it.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Puts the tokenizer into `metadata`: `override_file`, or the source's own.
pub(super) fn put(
    metadata: &mut Metadata,
    source: &Checkpoint,
    config: &ModelConfig,
    override_file: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<(), LoadError> {
    let own = source.folder().map(|f| f.join("tokenizer.json")).filter(|f| f.is_file());
    let Some(file) = override_file.map(Path::to_path_buf).or(own) else {
        if source.gguf().is_none() {
            put_ids(metadata, config);
            notes.push("the source has no tokenizer.json, so the result has no tokenizer; pass --tokenizer".to_owned());
        }
        return Ok(());
    };
    let bytes = read_bounded(&file, "tokenizer.json", MAX_TOKENIZER)?;
    let json: Json = serde_json::from_slice(&bytes)
        .map_err(|source| LoadError::Json { what: "tokenizer.json", source }.in_file(&file))?;
    // One of two vocabularies would be wrong. A chat template belongs to the model and stays.
    metadata.retain(|k| !k.starts_with("tokenizer.") || k == "tokenizer.chat_template");
    put_ids(metadata, config);
    match export(&json, config.vocab_size) {
        Some(v) => {
            metadata.set("tokenizer.ggml.model", "gpt2");
            metadata.set("tokenizer.ggml.pre", v.pre);
            metadata.set("tokenizer.ggml.tokens", v.tokens);
            metadata.set("tokenizer.ggml.token_type", crate::gguf::Value::Array(Array::I32(v.types)));
            metadata.set("tokenizer.ggml.merges", v.merges);
        }
        None => {
            // The bytes parsed as JSON, so they are UTF-8.
            metadata.set(WHOLE, String::from_utf8_lossy(&bytes).as_ref());
            let note = format!(
                "{} has no counterpart in tokenizer.ggml keys; it was stored whole as {WHOLE}, which not every program reads",
                file.display()
            );
            notes.push(note);
        }
    }
    if let Some(add) = adds_bos(&json, config.bos_token_id) {
        metadata.set("tokenizer.ggml.add_bos_token", add);
    }
    let folder = source.folder();
    if let Some(folder) = folder {
        put_template(metadata, folder)?;
    }
    Ok(())
}

/// The special ids of the configuration.
fn put_ids(metadata: &mut Metadata, config: &ModelConfig) {
    if let Some(bos) = config.bos_token_id {
        metadata.set("tokenizer.ggml.bos_token_id", bos);
    }
    // Three keys is what there is for ids that end a text.
    for (key, id) in ["eos", "eot", "eom"].iter().zip(&config.eos_token_ids) {
        metadata.set(&format!("tokenizer.ggml.{key}_token_id"), *id);
    }
}

fn put_template(metadata: &mut Metadata, folder: &Path) -> Result<(), LoadError> {
    let file = folder.join("chat_template.jinja");
    if file.is_file() {
        let bytes = read_bounded(&file, "a chat template", MAX_CONFIG)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| LoadError::NotUtf8 { what: "the chat template".to_owned(), offset: 0 }.in_file(&file))?;
        metadata.set("tokenizer.chat_template", text.as_str());
        return Ok(());
    }
    let file = folder.join("tokenizer_config.json");
    if !file.is_file() {
        return Ok(());
    }
    let bytes = read_bounded(&file, "tokenizer_config.json", MAX_TOKENIZER)?;
    let map: Map<String, Json> = serde_json::from_slice(&bytes)
        .map_err(|source| LoadError::Json { what: "tokenizer_config.json", source }.in_file(&file))?;
    if let Some(text) = map.get("chat_template").and_then(Json::as_str) {
        metadata.set("tokenizer.chat_template", text);
    }
    if let Some(add) = map.get("add_bos_token").and_then(Json::as_bool) {
        metadata.set("tokenizer.ggml.add_bos_token", add);
    }
    Ok(())
}

struct Exported {
    pre: &'static str,
    tokens: StringArray,
    types: Vec<i32>,
    merges: StringArray,
}

/// The vocabulary in GGUF's terms; `None` where GGUF has no terms for it.
fn export(json: &Json, vocab_size: usize) -> Option<Exported> {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    const USER_DEFINED: i32 = 4;
    const UNUSED: i32 = 5;
    let model = json.get("model")?;
    let is_false = |v: Option<&Json>| v.is_none_or(|v| v.is_null() || v == &Json::Bool(false));
    let empty = |v: Option<&Json>| v.is_none_or(|v| v.is_null() || v.as_str() == Some(""));
    let plain = model.get("type").and_then(Json::as_str).is_none_or(|t| t == "BPE")
        && is_false(model.get("byte_fallback"))
        && empty(model.get("unk_token"))
        && empty(model.get("continuing_subword_prefix"))
        && empty(model.get("end_of_word_suffix"))
        && model.get("dropout").is_none_or(Json::is_null)
        && json.get("normalizer").is_none_or(Json::is_null);
    let ignore_merges = model.get("ignore_merges").and_then(Json::as_bool).unwrap_or(false);
    let pre = match (pre_tokenizer(json.get("pre_tokenizer")?)?, ignore_merges) {
        (Pre::Gpt2, false) => "gpt-2",
        (Pre::Llama3, true) => "llama-bpe",
        (Pre::Llama3, false) => "smaug-bpe",
        (Pre::Gpt2, true) => return None,
    };
    if !plain {
        return None;
    }
    let vocab = model.get("vocab")?.as_object()?;
    let added = json.get("added_tokens").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    // Ids without a token are legal where the embedding has more rows than the tokenizer has tokens.
    let mut tokens: Vec<Option<(&str, i32)>> = vec![None; vocab_size];
    for (token, id) in vocab {
        *tokens.get_mut(usize::try_from(id.as_u64()?).ok()?)? = Some((token, NORMAL));
    }
    for token in added {
        let id = usize::try_from(token.get("id")?.as_u64()?).ok()?;
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        // Tokens that swallow the spaces around them have no counterpart.
        if ["lstrip", "rstrip", "single_word"].iter().any(|k| token.get(k) == Some(&Json::Bool(true))) {
            return None;
        }
        let kind = if special { CONTROL } else { USER_DEFINED };
        *tokens.get_mut(id)? = Some((token.get("content")?.as_str()?, kind));
    }
    let mut merges = StringArray::default();
    for merge in model.get("merges")?.as_array()? {
        match merge {
            Json::String(s) => merges.push(s),
            Json::Array(pair) => {
                let [a, b] = pair.as_slice() else { return None };
                merges.push(&format!("{} {}", a.as_str()?, b.as_str()?));
            }
            _ => return None,
        }
    }
    let types = tokens.iter().map(|t| t.map_or(UNUSED, |t| t.1)).collect();
    let mut texts = StringArray::default();
    for (id, token) in tokens.iter().enumerate() {
        match token {
            Some((text, _)) => texts.push(text),
            None => texts.push(&format!("[PAD{id}]")),
        }
    }
    Some(Exported { pre, tokens: texts, types, merges })
}

enum Pre {
    Gpt2,
    Llama3,
}

fn pre_tokenizer(json: &Json) -> Option<Pre> {
    let field = |v: &Json, k: &str| v.get(k).and_then(Json::as_bool);
    let byte_level = |v: &Json, regex: bool| {
        v.get("type").and_then(Json::as_str) == Some("ByteLevel")
            && field(v, "add_prefix_space") == Some(false)
            && field(v, "use_regex").unwrap_or(true) == regex
    };
    if byte_level(json, true) {
        return Some(Pre::Gpt2);
    }
    let [split, bytes] = json.get("pretokenizers")?.as_array()?.as_slice() else { return None };
    let is_llama3 = split.get("type").and_then(Json::as_str) == Some("Split")
        && split.get("behavior").and_then(Json::as_str) == Some("Isolated")
        && field(split, "invert") != Some(true)
        && split.pointer("/pattern/Regex").and_then(Json::as_str) == Some(LLAMA3);
    (is_llama3 && byte_level(bytes, false)).then_some(Pre::Llama3)
}

/// Whether the post-processor puts the beginning-of-text token in front; `None` where there is no post-processor that
/// could say so.
fn adds_bos(json: &Json, bos: Option<u32>) -> Option<bool> {
    fn templates<'a>(v: &'a Json, found: &mut Vec<&'a Json>) {
        match v.get("type").and_then(Json::as_str) {
            Some("TemplateProcessing") => found.push(v),
            Some("Sequence") => {
                v.get("processors").and_then(Json::as_array).into_iter().flatten().for_each(|p| templates(p, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    templates(json.get("post_processor")?, &mut found);
    let template = found.first()?;
    let first = template.get("single")?.as_array()?.first()?.pointer("/SpecialToken/id");
    let Some(name) = first.and_then(Json::as_str) else { return Some(false) };
    let ids = template.get("special_tokens")?.get(name)?.get("ids")?.as_array()?;
    Some(ids.first().and_then(Json::as_u64) == bos.map(u64::from))
}
