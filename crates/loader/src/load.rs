//! From a path to a complete model: the entry point for running a model.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use bitnet_model::{ModelConfig, ModelWeights};
use ternary_kernels::{SharedBytes, available_cpus};

use crate::chat::{ChatError, ChatTemplate, Choice, ChoiceSources};
use crate::config::from_gguf::EOS_LIST;
use crate::gguf::{Gguf, Metadata, Value};
use crate::packed::PackedWeights;
use crate::packed::cache::Slot;
use crate::tokenizer::{GgufVocab, NamedTemplate, Tokenizer, TokenizerConfig, TokenizerError};
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
    /// The chat template, if there is one that can be used.
    pub chat_template: Option<ChatTemplate>,
    /// The reason why the files' chat template cannot be used, if so; everything except chats works without it.
    pub chat_template_error: Option<Arc<ChatError>>,
    /// Notes for the user on what was repaired or assumed; libraries never print.
    pub notes: Vec<String>,
    /// Its place in the cache of packed weights.
    pub(crate) slot: Option<Arc<Slot>>,
    /// The packed weights.
    pub(crate) packed: Option<Arc<PackedWeights>>,
    pub(crate) huge_pages: bool,
}

/// Loads a GGUF file or a Hugging Face folder: weights, configuration, tokenizer, sampling defaults.
///
/// # Errors
/// Any error in the files; see [`LoadError`].
pub fn load(path: &Path, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    match Slot::of(Checkpoint::open(path, options)?, options) {
        Ok(slot) => {
            slot.find();
            let loaded = complete(slot.checkpoint(), options)?;
            Ok(LoadedModel { slot: Some(Arc::new(slot)), ..loaded })
        }
        Err(checkpoint) => complete(&checkpoint, options),
    }
}

/// Like [`load`], for a whole GGUF file in memory; weights are used in place.
///
/// # Errors
/// The errors of [`load`].
pub fn load_bytes(bytes: SharedBytes, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    complete(&Checkpoint::from_bytes(bytes, options)?, options)
}

fn complete(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    let (mut weights, read) = std::thread::scope(|scope| match begin_weights(scope, checkpoint, options) {
        // A vocabulary takes about as long as checking the weights, and neither needs the other. It consists of thousands of small
        // pieces, so it is read here: for other threads than the first one, the allocator asks the system for each page.
        Some((thread, gguf)) => {
            let read = gguf_tokenizer(gguf.metadata());
            let weights = thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            Ok::<_, LoadError>((weights, Some(read)))
        }
        None => Ok((checkpoint.weights()?, None)),
    })?;
    let mut notes = checkpoint.notes();
    let (tokenizer, choice) = words(checkpoint, options, read, &mut weights.config, &mut notes)?;
    Ok(LoadedModel {
        info: checkpoint.info(),
        generation: checkpoint.generation().clone(),
        weights,
        tokenizer,
        chat_template: choice.template,
        chat_template_error: choice.broken,
        notes,
        slot: None,
        packed: checkpoint.packed().map(|(packed, _)| packed),
        huge_pages: options.huge_pages,
    })
}

/// The tokenizer in a GGUF file, if it has one.
type Own = Result<Option<Tokenizer>, LoadError>;

/// Lets a thread of `scope` read the weights of a GGUF file, so that the calling one can read the file's own tokenizer; `None` if that
/// is not needed, or there is neither a CPU nor a thread for it, or it is not wanted.
fn begin_weights<'s, 'e>(
    scope: &'s Scope<'s, 'e>,
    checkpoint: &'e Checkpoint,
    options: &LoadOptions,
) -> Option<(ScopedJoinHandle<'s, Result<ModelWeights, LoadError>>, &'e Gguf)> {
    let gguf = checkpoint.gguf()?;
    if options.one_thread || options.tokenizer.is_some() || available_cpus().get() == 1 {
        return None;
    }
    let thread = std::thread::Builder::new().name("weights".to_owned());
    let read = move || {
        let weights = checkpoint.weights();
        // The vocabulary takes longer.
        gguf.touch();
        weights
    };
    Some((thread.spawn_scoped(scope, read).ok()?, gguf))
}

/// Tokenizer and chat template; `read` is the tokenizer of a GGUF file if it has been read. The special ids of the tokenizer join those of
/// the model's `config`.
pub(crate) fn words(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    read: Option<Own>,
    config: &mut ModelConfig,
    notes: &mut Vec<String>,
) -> Result<(Option<Tokenizer>, Choice), LoadError> {
    let beside = tokenizer_config(checkpoint)?;
    let tokenizer = tokenizer(checkpoint, options, read, beside.as_ref(), config, notes)?;
    let choice = chat_template(checkpoint, options, beside.as_ref(), tokenizer.as_ref(), notes)?;
    if let Some(t) = &tokenizer {
        let known = config.eos_token_ids.clone();
        config.eos_token_ids.extend(t.eos().iter().filter(|id| !known.contains(id)));
        // The tokenizer decides which token begins a text, if any.
        config.bos_token_id = t.bos();
    }
    Ok((tokenizer, choice))
}

/// Only the tokenizer: of a GGUF file (which may contain nothing else), a `tokenizer.json`, or a folder.
///
/// # Errors
/// [`LoadError::NoModel`] if a GGUF file has no vocabulary; any error in the file.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer, LoadError> {
    let tokenizer = if path.is_dir() {
        Tokenizer::from_dir(path)
    } else if path.extension().is_some_and(|e| e == "json") {
        Tokenizer::from_file(path)
    } else {
        let found = gguf_tokenizer(Gguf::open(path)?.metadata()).map_err(|e| e.in_file(path))?;
        let reason = || "the GGUF file has no vocabulary (tokenizer.ggml.model)".to_owned();
        return found.ok_or_else(|| LoadError::NoModel { path: path.to_path_buf(), reason: reason() });
    };
    tokenizer.map_err(|e| LoadError::from(e).in_file(path))
}

/// Tokens that a tokenizer may have beyond the model's vocabulary: a few padding tokens that were added later. A
/// tokenizer with more belongs to another model.
const SURPLUS_TOKENS: usize = 16;

/// The tokenizer of the user, else that of the files; with the special tokens of the configuration.
fn tokenizer(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    read: Option<Own>,
    config: Option<&TokenizerConfig>,
    model: &ModelConfig,
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>, LoadError> {
    let in_file = |file: &Path, e| LoadError::from(e).in_file(file);
    let tokenizer = if let Some(file) = &options.tokenizer {
        Some(Tokenizer::from_file(file).map_err(|e| in_file(file, e))?)
    } else if let Some(gguf) = checkpoint.gguf() {
        read.unwrap_or_else(|| gguf_tokenizer(gguf.metadata())).map_err(|e| e.in_file(checkpoint.path()))?
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
    let says_none = config.is_some_and(|c| c.bos_token_is_null);
    let says_eos = config.is_some_and(|c| c.eos_token.is_some());
    let own = checkpoint.gguf().is_some() && options.tokenizer.is_none();
    // Converters of embedding models state that an EOS ends a text; their source folders leave it to the program.
    let ends = model.headless && !own && tokenizer.add_eos().is_none();
    tokenizer = with_model_ids(tokenizer, model, !says_none, (ends || !says_eos) && !own)
        .map_err(|e| in_file(checkpoint.path(), e))?;
    // Gemma's tokenizer begins every text with BOS, and a folder with only `tokenizer.model` cannot state it.
    if checkpoint.family() == bitnet_model::Architecture::Gemma3
        && !(own || says_none || tokenizer.bos().is_none())
        && tokenizer.add_bos().is_none()
    {
        let add = TokenizerConfig { add_bos_token: Some(true), ..TokenizerConfig::default() };
        tokenizer = tokenizer.with_config(&add).map_err(|e| in_file(checkpoint.path(), e))?;
    }
    if ends && !tokenizer.eos().is_empty() {
        let add = TokenizerConfig { add_eos_token: Some(true), ..TokenizerConfig::default() };
        tokenizer = tokenizer.with_config(&add).map_err(|e| in_file(checkpoint.path(), e))?;
        notes.push(
            "the files do not say whether a text ends with EOS; it is added, as embedding models need it".to_owned(),
        );
    }
    let vocab = model.vocab_size;
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

/// Special ids that the files of the tokenizer leave open, as the model's configuration has them. The first id that
/// ends a text is the one that templates write out.
fn with_model_ids(
    mut tokenizer: Tokenizer,
    model: &ModelConfig,
    bos: bool,
    eos: bool,
) -> Result<Tokenizer, TokenizerError> {
    let size = tokenizer.vocab_size();
    let known = |id: &u32| (*id as usize) < size;
    if bos && tokenizer.bos().is_none() {
        tokenizer = tokenizer.with_bos(model.bos_token_id.filter(known))?;
    }
    if eos {
        let ids: Vec<u32> = model.eos_token_ids.iter().chain(tokenizer.eos()).copied().filter(known).collect();
        tokenizer = tokenizer.with_eos(ids)?;
    }
    Ok(tokenizer)
}

/// The `tokenizer_config.json` of a folder, with the template of an accompanying `chat_template.jinja`.
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
) -> Result<Choice, LoadError> {
    let mut named = None;
    let gguf = match checkpoint.gguf() {
        Some(file) => {
            let m = file.metadata();
            let default = m.str(TEMPLATE).map_err(|e| e.in_file(checkpoint.path()))?;
            if default.is_none() {
                // Several without a default, or a single one under another name.
                let all = TokenizerConfig { chat_templates: gguf_templates(m), ..TokenizerConfig::default() };
                named = Some(all).filter(|all| !all.chat_templates.is_empty());
            }
            default
        }
        None => None,
    };
    let config = config.or(named.as_ref());
    let sources = ChoiceSources {
        user: options.chat_template.as_deref(),
        config,
        gguf,
        architecture: Some(checkpoint.architecture()),
        tokenizer,
    };
    let choice = ChatTemplate::choose(sources).map_err(|e| LoadError::from(e).in_file(checkpoint.path()))?;
    notes.extend(choice.notes.iter().map(ToString::to_string));
    Ok(choice)
}

/// The key of a GGUF file's chat template; others have a point and their name after it.
pub(crate) const TEMPLATE: &str = "tokenizer.chat_template";

/// All chat templates of a GGUF file: `default`, and those that have names.
pub(crate) fn gguf_templates(m: &Metadata) -> Vec<NamedTemplate> {
    let template = |(key, value): (&str, &Value)| {
        let name = match key.strip_prefix(TEMPLATE)? {
            "" => "default",
            named => named.strip_prefix('.')?,
        };
        Some(NamedTemplate { name: name.to_owned(), template: value.as_str()?.to_owned() })
    };
    m.iter().filter_map(template).collect()
}

/// The tokenizer in a GGUF file's metadata, if there is one.
pub(crate) fn gguf_tokenizer(m: &Metadata) -> Result<Option<Tokenizer>, LoadError> {
    if let Some(json) = m.str("tokenizer.huggingface.json")? {
        let tokenizer = Tokenizer::from_bytes(json.as_bytes())?;
        let flags = TokenizerConfig {
            add_bos_token: m.bool("tokenizer.ggml.add_bos_token")?,
            add_eos_token: m.bool("tokenizer.ggml.add_eos_token")?,
            ..TokenizerConfig::default()
        };
        return Ok(Some(with_ids(tokenizer.with_config(&flags)?, m)?));
    }
    match m.str("tokenizer.ggml.model")? {
        None | Some("no_vocab" | "none") => Ok(None),
        Some(model) => {
            let list = |name: &str| -> Result<Vec<&str>, LoadError> {
                Ok(m.strings(&format!("tokenizer.ggml.{name}"))?.map(|list| list.iter().collect()).unwrap_or_default())
            };
            let tokenizer =
                Tokenizer::from_gguf_lists(&vocab_without_lists(m, model)?, &list("tokens")?, &list("merges")?)?;
            // These keys are read with the vocabulary; only the list of further ids remains.
            Ok(Some(if m.get(EOS_LIST).is_some() { with_ids(tokenizer, m)? } else { tokenizer }))
        }
    }
}

/// Adds the special ids of a GGUF file's keys, as far as the vocabulary has them.
fn with_ids(tokenizer: Tokenizer, m: &Metadata) -> Result<Tokenizer, LoadError> {
    let known = |id: &u32| (*id as usize) < tokenizer.vocab_size();
    let mut ids = Vec::new();
    for key in ["eos", "eot", "eom"] {
        ids.extend(crate::config::from_gguf::token(m, &format!("tokenizer.ggml.{key}_token_id"))?);
    }
    ids.extend(m.i32s(EOS_LIST)?.unwrap_or_default().into_iter().filter_map(|id| u32::try_from(id).ok()));
    ids.extend(tokenizer.eos());
    let bos = crate::config::from_gguf::token(m, "tokenizer.ggml.bos_token_id")?.filter(known);
    Ok(tokenizer.with_eos(ids.into_iter().filter(known))?.with_bos(bos.or(tokenizer.bos()))?)
}

/// The `tokenizer.ggml.*` keys.
pub(crate) fn vocab(m: &Metadata, model: &str) -> Result<GgufVocab, LoadError> {
    let strings = |name: &str| -> Result<Vec<String>, LoadError> {
        let list = m.strings(&format!("tokenizer.ggml.{name}"))?;
        Ok(list.map(|a| a.iter().map(str::to_owned).collect()).unwrap_or_default())
    };
    let (tokens, merges) = (strings("tokens")?, strings("merges")?);
    Ok(GgufVocab { tokens, merges, ..vocab_without_lists(m, model)? })
}

/// The `tokenizer.ggml.*` keys without tokens and merges.
fn vocab_without_lists(m: &Metadata, model: &str) -> Result<GgufVocab, LoadError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let id = |name: &str| crate::config::from_gguf::token(m, &key(name));
    let flag = |name: &str| m.bool(&key(name));
    Ok(GgufVocab {
        model: model.to_owned(),
        pre: m.str(&key("pre"))?.map(str::to_owned),
        tokens: Vec::new(),
        scores: m.f32s(&key("scores"))?.unwrap_or_default().to_vec(),
        token_types: m.i32s(&key("token_type"))?.unwrap_or_default(),
        merges: Vec::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_reads_weights_where_one_is_to_do_everything() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bitnet/models/tiny-stories-ttt.gguf");
        for one_thread in [true, false] {
            let options = LoadOptions { one_thread, ..LoadOptions::default() };
            let checkpoint = Checkpoint::open(&path, &options).unwrap();
            let thread = std::thread::scope(|scope| begin_weights(scope, &checkpoint, &options).is_some());
            assert_eq!(thread, !one_thread && available_cpus().get() > 1);
            let tokens = |loaded: LoadedModel| loaded.tokenizer.map(|t| t.vocab_size());
            assert_eq!(tokens(load(&path, &options).unwrap()), Some(2048));
        }
    }
}
