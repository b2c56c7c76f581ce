//! A `tokenizer.json` as the vocabulary of a GGUF file.
//!
//! Byte-level BPE with a pre-tokenizer that GGUF programs have a name for becomes `tokenizer.ggml.*`; anything else
//! goes whole into `tokenizer.huggingface.json`, the key that the GGUF specification has for it.

use std::path::Path;

use bitnet_model::ModelConfig;
use serde_json::Value as Json;

use super::speech::{Speech, default_template, differing_text, plain, templates_of};
use crate::config::from_gguf::EOS_LIST;
use crate::gguf::{Array, Metadata, StringArray, Value};
use crate::load::{TEMPLATE, gguf_tokenizer};
use crate::mmap::read_bounded;
use crate::tokenizer::{GgufVocab, NamedTemplate, Tokenizer, TokenizerConfig};
use crate::{Checkpoint, LoadError};

/// Largest `tokenizer.json` accepted, bytes.
const MAX_TOKENIZER: u64 = 256 << 20;
/// The key for a whole `tokenizer.json`.
pub(super) const WHOLE: &str = "tokenizer.huggingface.json";

/// The split pattern of Llama 3, as its `tokenizer.json` writes it.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Puts the tokenizer into `metadata`: `override_file`, or the source's own.
pub(super) fn put(
    metadata: &mut Metadata,
    source: &Checkpoint,
    config: &ModelConfig,
    speech: Option<&Speech>,
    override_file: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<(), LoadError> {
    let own = |name: &str| source.folder().map(|f| f.join(name)).filter(|f| f.is_file());
    let file = override_file.map(Path::to_path_buf).or_else(|| own("tokenizer.json"));
    if let Some(file) = &file {
        // One of two vocabularies would be wrong. A chat template belongs to the model and is kept.
        metadata.retain(|k| !k.starts_with("tokenizer.") || k.starts_with(TEMPLATE));
        put_json(metadata, file, config, speech, notes)?;
    } else if source.gguf().is_some() {
        return Ok(());
    } else if let Some(file) = own("tokenizer.model") {
        let bytes = read_bounded(&file, "tokenizer.model", MAX_TOKENIZER)?;
        let vocab = Tokenizer::vocab_of_sentencepiece(&bytes).map_err(|e| LoadError::from(e).in_file(&file))?;
        put_sentencepiece(metadata, vocab);
    } else {
        notes.push("the source has no tokenizer, so the result has none; pass --tokenizer".to_owned());
    }
    put_ids(metadata, config, notes);
    if let Some(tokenizer) = speech.and_then(|s| s.tokenizer.as_ref()) {
        let flags = [("add_bos_token", tokenizer.add_bos()), ("add_eos_token", tokenizer.add_eos())];
        for (key, flag) in flags.into_iter().filter_map(|(k, f)| Some((k, f?))) {
            metadata.set(&format!("tokenizer.ggml.{key}"), Value::Bool(flag));
        }
        let known = |id: &u32| (*id as usize) < config.vocab_size;
        for (key, id) in [("unknown", tokenizer.unk()), ("padding", tokenizer.pad())] {
            if let Some(id) = id.filter(known) {
                metadata.set(&format!("tokenizer.ggml.{key}_token_id"), id);
            }
        }
    }
    if let Some(folder) = source.folder() {
        put_templates(metadata, &templates_of(folder)?);
    }
    Ok(())
}

/// A `tokenizer.json`: as a vocabulary in GGUF's own keys if that gives the same ids, otherwise as a whole.
fn put_json(
    metadata: &mut Metadata,
    file: &Path,
    config: &ModelConfig,
    speech: Option<&Speech>,
    notes: &mut Vec<String>,
) -> Result<(), LoadError> {
    let bytes = read_bounded(file, "tokenizer.json", MAX_TOKENIZER)?;
    let json: Json = serde_json::from_slice(&bytes)
        .map_err(|source| LoadError::Json { what: "tokenizer.json", source }.in_file(file))?;
    if let Some(v) = export(&json, config.vocab_size) {
        metadata.set("tokenizer.ggml.model", "gpt2");
        metadata.set("tokenizer.ggml.pre", v.pre);
        metadata.set("tokenizer.ggml.tokens", v.tokens);
        metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(v.types)));
        metadata.set("tokenizer.ggml.merges", v.merges);
        let Some(own) = speech.and_then(|s| s.tokenizer.as_ref()) else { return Ok(()) };
        let exported = gguf_tokenizer(metadata).ok().flatten();
        if exported.is_some_and(|t| same_words(own, &t)) {
            return Ok(());
        }
        metadata.retain(|k| !k.starts_with("tokenizer.ggml."));
    }
    // The bytes parsed as JSON, so they are UTF-8.
    metadata.set(WHOLE, String::from_utf8_lossy(&bytes).as_ref());
    let note = format!(
        "{} has no counterpart in tokenizer.ggml keys; it was stored whole as {WHOLE}, which not every program reads",
        file.display()
    );
    notes.push(note);
    Ok(())
}

/// Whether both split texts into the same words; tokens around a text have other keys.
fn same_words(a: &Tokenizer, b: &Tokenizer) -> bool {
    let bare = |t: &Tokenizer| {
        let mut flags = TokenizerConfig::default();
        (flags.add_bos_token, flags.add_eos_token) = (Some(false), Some(false));
        t.with_config(&flags)
    };
    let around = |t: &Tokenizer| {
        let ids = t.encode("", true).unwrap_or_default();
        let bos = t.add_bos() == Some(true);
        let eos = t.add_eos() == Some(true);
        let plain: Vec<u32> =
            t.bos().filter(|_| bos).into_iter().chain(t.eos().first().copied().filter(|_| eos)).collect();
        ids == plain
    };
    match (bare(a), bare(b)) {
        // GGUF's keys can only say whether the two special tokens are added around a text.
        (Ok(x), Ok(y)) => around(a) && differing_text(&x, &y).is_none(),
        _ => false,
    }
}

fn put_sentencepiece(metadata: &mut Metadata, vocab: GgufVocab) {
    metadata.set("tokenizer.ggml.model", vocab.model.as_str());
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.tokens", vocab.tokens.iter().collect::<StringArray>());
    metadata.set("tokenizer.ggml.scores", Value::Array(Array::F32(vocab.scores)));
    metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(vocab.token_types)));
    let flags =
        [("add_space_prefix", vocab.add_space_prefix), ("remove_extra_whitespaces", vocab.remove_extra_whitespaces)];
    for (key, flag) in flags.into_iter().filter_map(|(k, f)| Some((k, f?))) {
        metadata.set(&format!("tokenizer.ggml.{key}"), Value::Bool(flag));
    }
    if let Some(map) = vocab.precompiled_charsmap {
        metadata.set("tokenizer.ggml.precompiled_charsmap", Value::Array(Array::U8(map)));
    }
}

/// The special ids of the configuration.
fn put_ids(metadata: &mut Metadata, config: &ModelConfig, notes: &mut Vec<String>) {
    if let Some(bos) = config.bos_token_id {
        metadata.set("tokenizer.ggml.bos_token_id", bos);
    }
    // Other programs have three keys for ids that end a text.
    const KEYS: [&str; 3] = ["eos", "eot", "eom"];
    for (key, id) in KEYS.iter().zip(&config.eos_token_ids) {
        metadata.set(&format!("tokenizer.ggml.{key}_token_id"), *id);
    }
    if let Some(more) = config.eos_token_ids.get(KEYS.len()..).filter(|more| !more.is_empty()) {
        metadata.set(EOS_LIST, Value::Array(Array::U32(config.eos_token_ids.clone())));
        let more: Vec<String> = more.iter().map(u32::to_string).collect();
        notes.push(format!(
            "other programs have keys for three ids that end a text; {} are in {EOS_LIST}, which only this one reads",
            more.join(", ")
        ));
    }
}

/// The default template, and each that has a name under the keys that converters use.
fn put_templates(metadata: &mut Metadata, templates: &[NamedTemplate]) {
    if let Some(text) = default_template(templates) {
        metadata.set(TEMPLATE, text);
    }
    let named: Vec<&NamedTemplate> = templates.iter().filter(|t| t.name != "default" && !t.name.is_empty()).collect();
    if named.is_empty() || templates.len() == 1 {
        return;
    }
    for t in &named {
        metadata.set(&format!("{TEMPLATE}.{}", plain(&t.name)), t.template.as_str());
    }
    let names = named.iter().map(|t| plain(&t.name)).collect::<StringArray>();
    metadata.set(&format!("{TEMPLATE}s"), names);
}

struct Exported {
    pre: &'static str,
    tokens: StringArray,
    types: Vec<i32>,
    merges: StringArray,
}

/// The vocabulary in GGUF's keys; `None` if they cannot describe it.
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
    // Ids without a token are legal if the embedding has more rows than the tokenizer has tokens.
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
