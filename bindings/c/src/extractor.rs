//! Extractors: intent and slots of an utterance.

use std::ffi::c_char;
use std::ptr;

use bitnet::{Extraction, Extractor};
use serde_json::{Value, json};

use crate::border::{Kind, give};
use crate::buffer::{Bytes, bitnet_bytes, bitnet_floats};
use crate::status::{bitnet_error, bitnet_status};

/// A small encoder that names intent and slots of an utterance. It does not change, and any number of threads may use it.
pub struct bitnet_extractor(());

impl Kind for bitnet_extractor {
    const NAME: &'static str = "bitnet_extractor";
    const TAG: [u8; 8] = *b"bn:extrc";
    type Inner = Extractor;
}

/// Loads an extractor: a GGUF file, or a folder with config.json and model.safetensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_extractor_load(
    path: *const c_char,
    path_len: usize,
    out: *mut *mut bitnet_extractor,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        out.set(give(Extractor::load(c.text("path", path, path_len)?)?));
        Ok(())
    })
}

/// Loads an extractor from a whole GGUF file in memory, which is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_extractor_load_bytes(
    data: *const u8,
    len: usize,
    out: *mut *mut bitnet_extractor,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        out.set(give(Extractor::from_bytes(c.slice("data", data, len)?.to_vec())?));
        Ok(())
    })
}

/// Frees an extractor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_extractor_free(extractor: *mut bitnet_extractor) {
    border!(else (), |c| {
        c.free(extractor);
        Ok(())
    });
}

/// The tasks of an extractor as JSON: a list of objects with `name`, `intents` and `slots`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_extractor_info(
    extractor: *const bitnet_extractor,
    out: *mut *mut bitnet_bytes,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let tasks = &c.handle(extractor)?.config().tasks;
        let tasks = tasks.iter().map(|t| json!({"name": t.name, "intents": t.intents, "slots": t.slots}));
        out.set(give(Bytes::text(&Value::from_iter(tasks).to_string())));
        Ok(())
    })
}

/// Intent and slots of a text, by the task called `task`, or by the first one if that is empty. JSON: `intent`, `confidence`
/// (0 to 1), `out_of_scope`, `slots` (a list of objects with `name`, `value`, and `start` and `end` in bytes), `cut` (whether the
/// text is longer than what is read).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_extractor_extract(
    extractor: *const bitnet_extractor,
    task: *const c_char,
    task_len: usize,
    text: *const c_char,
    text_len: usize,
    out: *mut *mut bitnet_bytes,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let (task, text) = (c.text("task", task, task_len)?, c.text("text", text, text_len)?);
        let extractor = c.handle(extractor)?;
        let found = match task {
            "" => extractor.extract(text)?,
            name => extractor.task(name)?.extract(text)?,
        };
        out.set(give(Bytes::text(&answer(&found).to_string())));
        Ok(())
    })
}

fn answer(found: &Extraction) -> Value {
    let slots = found.slots.iter();
    let slots = slots.map(|s| json!({"name": s.name, "value": s.value, "start": s.range.start, "end": s.range.end}));
    json!({
        "intent": found.intent,
        "confidence": found.confidence,
        "out_of_scope": found.out_of_scope,
        "slots": Value::from_iter(slots),
        "cut": found.cut,
    })
}

/// The vector of a text, of length 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_extractor_embed(
    extractor: *const bitnet_extractor,
    text: *const c_char,
    text_len: usize,
    out: *mut *mut bitnet_floats,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let text = c.text("text", text, text_len)?;
        out.set(give(c.handle(extractor)?.embed(text)?));
        Ok(())
    })
}
