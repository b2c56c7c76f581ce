//! From a path to a model with everything that belongs to it: the one entry point for whoever wants to run one.

use std::path::Path;

use bitnet_model::ModelWeights;
use ternary_kernels::SharedBytes;

use crate::chat::{ChatTemplate, ChoiceSources};
use crate::gguf::{Gguf, Metadata};
use crate::tokenizer::{GgufVocab, Tokenizer, TokenizerConfig};
use crate::{Checkpoint, GenerationConfig, LoadError, LoadOptions, ModelInfo};

/// A model with everything that came with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedModel {
    /// The weights, checked; they keep the file mapping alive.
    pub weights: ModelWeights,
    /// Facts about it.
    pub info: ModelInfo,
    /// Sampling defaults.
    pub generation: GenerationConfig,
    /// The tokenizer, if the files hold one or one was given.
    pub tokenizer: Option<Tokenizer>,
    /// The chat template, if there is one.
    pub chat_template: Option<ChatTemplate>,
    /// What was repaired or assumed, for the user to know; libraries never print.
    pub notes: Vec<String>,
}

/// Loads a GGUF file or a Hugging Face folder: weights, configuration, tokenizer, sampling defaults.
///
/// # Errors
/// Whatever is wrong with the files; see [`LoadError`].
pub fn load(path: &Path, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    complete(&Checkpoint::open(path, options)?, options)
}

/// As [`load`], of a whole GGUF file in memory; weights stay where they are.
///
/// # Errors
/// As [`load`].
pub fn load_bytes(bytes: SharedBytes, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    complete(&Checkpoint::from_bytes(bytes, options)?, options)
}

fn complete(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    let mut weights = checkpoint.weights()?;
    let mut notes = checkpoint.notes();
    let config = tokenizer_config(checkpoint)?;
    let tokenizer = tokenizer(checkpoint, options, config.as_ref(), &weights, &mut notes)?;
    let chat_template = chat_template(checkpoint, options, config.as_ref(), tokenizer.as_ref(), &mut notes)?;
    if let Some(t) = &tokenizer {
        let config = &mut weights.config;
        let known = config.eos_token_ids.clone();
        config.eos_token_ids.extend(t.eos().iter().filter(|id| !known.contains(id)));
        config.bos_token_id = config.bos_token_id.or(t.bos());
    }
    Ok(LoadedModel {
        info: checkpoint.info(),
        generation: checkpoint.generation().clone(),
        weights,
        tokenizer,
        chat_template,
        notes,
    })
}

/// The tokenizer alone, without weights: of a GGUF file (which may hold nothing else), a `tokenizer.json`, or a folder.
///
/// # Errors
/// [`LoadError::NoModel`] if a GGUF file has no vocabulary; whatever is wrong with the file.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer, LoadError> {
    let tokenizer = if path.is_dir() {
        Tokenizer::from_dir(path)
    } else if path.extension().is_some_and(|e| e == "json") {
        Tokenizer::from_file(path)
    } else {
        let found = gguf_tokenizer(&Gguf::open(path)?).map_err(|e| e.in_file(path))?;
        let reason = || "the GGUF file has no vocabulary (tokenizer.ggml.model)".to_owned();
        return found.ok_or_else(|| LoadError::NoModel { path: path.to_path_buf(), reason: reason() });
    };
    tokenizer.map_err(|e| LoadError::from(e).in_file(path))
}

/// Tokens that a tokenizer may have beyond the model's vocabulary: a padding token or two that somebody added. More of them
/// belong to another model.
const SURPLUS_TOKENS: usize = 16;

/// The tokenizer that the user gives, else that of the files; with the special tokens that the configuration knows.
fn tokenizer(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    config: Option<&TokenizerConfig>,
    weights: &ModelWeights,
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>, LoadError> {
    let in_file = |file: &Path, e| LoadError::from(e).in_file(file);
    let tokenizer = if let Some(file) = &options.tokenizer {
        Some(Tokenizer::from_file(file).map_err(|e| in_file(file, e))?)
    } else if let Some(gguf) = checkpoint.gguf() {
        gguf_tokenizer(gguf).map_err(|e| e.in_file(checkpoint.path()))?
    } else {
        checkpoint
            .folder()
            .filter(|f| ["tokenizer.json", "tokenizer.model"].iter().any(|name| f.join(name).is_file()))
            .map(Tokenizer::from_dir)
            .transpose()
            .map_err(|e| in_file(checkpoint.path(), e))?
    };
    let Some(mut tokenizer) = tokenizer else { return Ok(None) };
    if let Some(config) = config {
        tokenizer = tokenizer.with_config(config).map_err(|e| in_file(checkpoint.path(), e))?;
    }
    let vocab = weights.config.vocab_size;
    let tokens = tokenizer.vocab_size();
    if tokens > vocab.saturating_add(SURPLUS_TOKENS) {
        return Err(LoadError::TokenizerTooLarge { tokens, vocab }.in_file(checkpoint.path()));
    }
    if tokens > vocab {
        notes.push(format!(
            "the tokenizer has {tokens} tokens, the model {vocab}: a text that needs one of the others is an error"
        ));
    }
    let tokenizer = tokenizer.with_end_of_turn();
    notes.extend(tokenizer.notes().iter().map(ToString::to_string));
    Ok(Some(tokenizer))
}

/// The `tokenizer_config.json` of a folder, with the template of a `chat_template.jinja` beside it.
fn tokenizer_config(checkpoint: &Checkpoint) -> Result<Option<TokenizerConfig>, LoadError> {
    let Some(folder) = checkpoint.folder() else { return Ok(None) };
    TokenizerConfig::from_dir(folder).map_err(|e| LoadError::from(e).in_file(folder))
}

fn chat_template(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    config: Option<&TokenizerConfig>,
    tokenizer: Option<&Tokenizer>,
    notes: &mut Vec<String>,
) -> Result<Option<ChatTemplate>, LoadError> {
    let gguf = match checkpoint.gguf() {
        Some(file) => file.metadata().str("tokenizer.chat_template").map_err(|e| e.in_file(checkpoint.path()))?,
        None => None,
    };
    let sources = ChoiceSources {
        user: options.chat_template.as_deref(),
        config,
        gguf,
        architecture: Some(checkpoint.architecture()),
        tokenizer,
    };
    let choice = ChatTemplate::choose(sources).map_err(|e| LoadError::from(e).in_file(checkpoint.path()))?;
    notes.extend(choice.notes.iter().map(ToString::to_string));
    Ok(choice.template)
}

/// The tokenizer in a GGUF file's metadata, if there is one.
fn gguf_tokenizer(file: &Gguf) -> Result<Option<Tokenizer>, LoadError> {
    let m = file.metadata();
    if let Some(json) = m.str("tokenizer.huggingface.json")? {
        return Ok(Some(Tokenizer::from_bytes(json.as_bytes())?));
    }
    match m.str("tokenizer.ggml.model")? {
        None | Some("no_vocab" | "none") => Ok(None),
        Some(model) => Ok(Some(Tokenizer::from_gguf_vocab(&vocab(m, model)?)?)),
    }
}

/// The `tokenizer.ggml.*` keys.
fn vocab(m: &Metadata, model: &str) -> Result<GgufVocab, LoadError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let strings = |name: &str| -> Result<Vec<String>, LoadError> {
        Ok(m.strings(&key(name))?.map(|a| a.iter().map(str::to_owned).collect()).unwrap_or_default())
    };
    let id = |name: &str| crate::config::from_gguf::token(m, &key(name));
    let flag = |name: &str| m.bool(&key(name));
    Ok(GgufVocab {
        model: model.to_owned(),
        pre: m.str(&key("pre"))?.map(str::to_owned),
        tokens: strings("tokens")?,
        scores: m.f32s(&key("scores"))?.unwrap_or_default().to_vec(),
        token_types: m.i32s(&key("token_type"))?.unwrap_or_default(),
        merges: strings("merges")?,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        eot: id("eot_token_id")?,
        eom: id("eom_token_id")?,
        unk: id("unknown_token_id")?,
        pad: id("padding_token_id")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
        precompiled_charsmap: m.u8s(&key("precompiled_charsmap"))?,
    })
}
