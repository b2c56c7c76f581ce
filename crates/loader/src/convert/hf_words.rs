//! The tokenizer and the chat templates of a Hugging Face folder: copied from a folder, or made from the contents of a
//! GGUF file.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::ConvertOptions;
use super::hf_out::write_json;
use super::speech::{MORE_TEMPLATES, Speech, more_templates};
use super::vocab::WHOLE;
use crate::load::vocab;
use crate::mmap::{read_bounded, write_atomically};
use crate::tokenizer::{GgufVocab, Tokenizer};
use crate::{Checkpoint, LoadError};

/// Files that belong to a tokenizer, copied unchanged.
const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
    "added_tokens.json",
];

/// Largest tokenizer file copied, bytes.
const MAX_TOKENIZER: u64 = 256 << 20;

/// Writes the files that turn texts and chats into ids.
pub(super) fn write(
    source: &Checkpoint,
    speech: Option<&Speech>,
    output: &Path,
    options: &ConvertOptions,
    notes: &mut Vec<String>,
) -> Result<(), LoadError> {
    let put = |name: &str, bytes: &[u8]| {
        write_atomically(&output.join(name), |out| {
            out.write_all(bytes).map_err(|e| LoadError::Write { what: name.to_owned(), source: e })
        })
    };
    let mut has_tokenizer = false;
    if let Some(folder) = source.folder() {
        for name in TOKENIZER_FILES {
            let from = folder.join(name);
            if from.is_file() {
                put(name, &read_bounded(&from, "a tokenizer file", MAX_TOKENIZER)?)?;
                has_tokenizer |= name == "tokenizer.json" || name == "tokenizer.model";
            }
        }
        let more = more_templates(folder)?;
        if !more.is_empty() {
            let beside = output.join(MORE_TEMPLATES);
            std::fs::create_dir_all(&beside).map_err(LoadError::io("create", &beside))?;
            for from in more {
                let name = from.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                put(&format!("{MORE_TEMPLATES}/{name}"), &read_bounded(&from, "a chat template", MAX_TOKENIZER)?)?;
            }
        }
    }
    let mut own = None;
    if let Some(file) = &options.tokenizer {
        put("tokenizer.json", &read_bounded(file, "tokenizer.json", MAX_TOKENIZER)?)?;
        has_tokenizer = true;
    } else if let Some(m) = source.gguf().map(|g| g.metadata()) {
        let model = m.str("tokenizer.ggml.model")?.filter(|model| !matches!(*model, "no_vocab" | "none"));
        if let Some(whole) = m.str(WHOLE)? {
            put("tokenizer.json", whole.as_bytes())?;
            has_tokenizer = true;
        } else if let Some(model) = model {
            let vocab = vocab(m, model)?;
            if let Some((name, bytes)) = vocab.to_file() {
                put(name, &bytes)?;
                has_tokenizer = true;
            }
            own = Some(vocab);
        }
    }
    if source.gguf().is_some()
        && let Some(speech) = speech
    {
        write_json(&output.join("tokenizer_config.json"), &tokenizer_config(speech, own.as_ref()))?;
    }
    if !has_tokenizer {
        let why = match own {
            Some(_) => "a tokenizer.json cannot hold that of the source",
            None => "the source has none",
        };
        notes.push(format!("no tokenizer.json was written, because {why}; pass --tokenizer to add one"));
    }
    Ok(())
}

/// The `tokenizer_config.json` for the contents of a GGUF file.
fn tokenizer_config(speech: &Speech, vocab: Option<&GgufVocab>) -> Value {
    let mut map = Map::new();
    if let Some(tokenizer) = &speech.tokenizer {
        let class = match vocab.map(|v| v.model.as_str()) {
            Some("llama") => "LlamaTokenizer",
            Some("t5") => "T5Tokenizer",
            _ => "PreTrainedTokenizerFast",
        };
        map.insert("tokenizer_class".into(), json!(class));
        let ids = [
            ("bos_token", tokenizer.bos()),
            ("eos_token", tokenizer.eos().first().copied()),
            ("unk_token", tokenizer.unk()),
            ("pad_token", tokenizer.pad()),
        ];
        for (key, id) in ids {
            // A token that cannot be found by its name is left to the ids of config.json.
            match id.map(|id| name_of(tokenizer, vocab, id)) {
                Some(Some(name)) => drop(map.insert(key.into(), json!(name))),
                Some(None) => {}
                None => drop(map.insert(key.into(), Value::Null)),
            }
        }
        for (key, flag) in [("add_bos_token", tokenizer.add_bos()), ("add_eos_token", tokenizer.add_eos())] {
            if let Some(flag) = flag {
                map.insert(key.into(), json!(flag));
            }
        }
    }
    match speech.templates.as_slice() {
        [] => {}
        [only] => drop(map.insert("chat_template".into(), json!(only.template))),
        all => {
            let all: Vec<Value> = all.iter().map(|t| json!({"name": t.name, "template": t.template})).collect();
            map.insert("chat_template".into(), Value::Array(all));
        }
    }
    Value::Object(map)
}

fn name_of(tokenizer: &Tokenizer, vocab: Option<&GgufVocab>, id: u32) -> Option<String> {
    let name = match vocab {
        Some(v) => v.spelling(id)?.to_owned(),
        None => String::from_utf8(tokenizer.token_bytes(id)?.to_vec()).ok()?,
    };
    (tokenizer.id_of(&name) == Some(id)).then_some(name)
}
