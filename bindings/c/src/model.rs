//! Models.

use std::ffi::c_char;
use std::ptr;

use bitnet::{EmbedOptions, Model};
use serde_json::{Value, json};

use crate::border::{Kind, give};
use crate::buffer::{Bytes, bitnet_bytes, bitnet_floats, bitnet_tokens};
use crate::options::bitnet_load_options;
use crate::status::{bitnet_error, bitnet_status};

/// A model: weights that are ready to compute with, tokenizer, chat template. It does not change, and any number of threads
/// may use it.
pub struct bitnet_model(());

impl Kind for bitnet_model {
    const NAME: &'static str = "bitnet_model";
    const TAG: [u8; 8] = *b"bn:model";
    type Inner = Model;
}

/// Loads a GGUF file or a Hugging Face folder. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_load(
    path: *const c_char,
    path_len: usize,
    options: *const bitnet_load_options,
    out: *mut *mut bitnet_model,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let path = c.text("path", path, path_len)?;
        out.set(give(bitnet_load_options::builder(c, options)?.load(path)?));
        Ok(())
    })
}

/// Loads a whole GGUF file in memory, which is copied. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_load_bytes(
    data: *const u8,
    len: usize,
    options: *const bitnet_load_options,
    out: *mut *mut bitnet_model,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let bytes = c.slice("data", data, len)?.to_vec();
        out.set(give(bitnet_load_options::builder(c, options)?.load_bytes(bytes)?));
        Ok(())
    })
}

/// The small model within the library: it tells simple stories in English, without any file. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_builtin(
    options: *const bitnet_load_options,
    out: *mut *mut bitnet_model,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        out.set(give(bitnet_load_options::builder(c, options)?.load_bytes(bitnet::TINY_MODEL)?));
        Ok(())
    })
}

/// Frees a model. Sessions and streams of it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_free(model: *mut bitnet_model) {
    border!(else (), |c| {
        c.free(model);
        Ok(())
    });
}

/// Facts about a model as JSON: `name` and `context` (null if there is none), `architecture`, `format` of the weights,
/// `parameters`, `vocabulary`, `hidden`, `layers`, `bos` (null if there is none), `eos` (a list), `tokenizer`, `chat`,
/// `predicts` (false for an embedding model), `kv`, `threads`, `isa`, `weight_bytes` in memory, `notes` on what was repaired or
/// assumed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_info(
    model: *const bitnet_model,
    out: *mut *mut bitnet_bytes,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        out.set(give(Bytes::text(&info(c.handle(model)?).to_string())));
        Ok(())
    })
}

fn info(model: &Model) -> Value {
    let (config, engine, files) = (model.config(), model.engine(), model.info());
    let weights = engine.packed_bytes() + engine.head_bytes() + engine.coarse_head_bytes().unwrap_or(0);
    json!({
        "name": files.name,
        "architecture": files.architecture,
        "format": files.ternary_format,
        "parameters": config.parameters(),
        "vocabulary": config.vocab_size,
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "context": Some(model.context()).filter(|tokens| *tokens != usize::MAX),
        "bos": config.bos_token_id,
        "eos": config.eos_token_ids,
        "tokenizer": model.tokenizer().is_some(),
        "chat": model.tokenizer().is_some() && model.chat_template().is_some(),
        "predicts": !config.headless,
        "kv": model.kv_type().name(),
        "threads": engine.threads(),
        "isa": engine.isa().to_string(),
        "weight_bytes": weights,
        "notes": model.notes(),
    })
}

/// Tokens of a text; with `add_bos` other than 0, the token that begins a text in front, if the model has one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_tokenize(
    model: *const bitnet_model,
    text: *const c_char,
    text_len: usize,
    add_bos: i32,
    out: *mut *mut bitnet_tokens,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let text = c.text("text", text, text_len)?;
        out.set(give(c.handle(model)?.encode(text, add_bos != 0)?));
        Ok(())
    })
}

/// Text of tokens; special ones are left out, and tokens outside of the vocabulary, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_detokenize(
    model: *const bitnet_model,
    tokens: *const u32,
    tokens_len: usize,
    out: *mut *mut bitnet_bytes,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let tokens = c.slice("tokens", tokens, tokens_len)?;
        out.set(give(Bytes::text(&c.handle(model)?.decode(tokens)?)));
        Ok(())
    })
}

/// The vector of a text: hidden states pooled as the model's files say, of length 1, so that the dot product of two is the
/// cosine of their angle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_model_embed(
    model: *const bitnet_model,
    text: *const c_char,
    text_len: usize,
    out: *mut *mut bitnet_floats,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let text = c.text("text", text, text_len)?;
        let vectors = c.handle(model)?.embed([text], EmbedOptions::default())?;
        out.set(give(vectors.into_iter().next().unwrap_or_default()));
        Ok(())
    })
}
