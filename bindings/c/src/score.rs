//! How probable texts are, and which of several is the most probable.

use std::ffi::c_char;

use bitnet::ChooseBy;

use crate::failure::Failure;
use crate::model::bitnet_model;
use crate::options::bitnet_str;
use crate::status::{bitnet_error, bitnet_status};

/// Texts are compared by their probability. Of two that begin alike the shorter one wins: end such texts with a line feed or a
/// full stop.
pub const BITNET_BY_TOTAL: u32 = 0;
/// Texts are compared by the mean log-probability of their tokens.
pub const BITNET_BY_TOKEN: u32 = 1;
/// Texts are compared by their log-probability divided by their bytes.
pub const BITNET_BY_BYTE: u32 = 2;

/// The natural logarithm of the probability of each text after a prompt. `logprobs` has room for `count` numbers, and so has
/// `tokens`, which may be NULL and receives the number of tokens of each text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_score(
    model: *const bitnet_model,
    prompt: *const c_char,
    prompt_len: usize,
    texts: *const bitnet_str,
    count: usize,
    logprobs: *mut f64,
    tokens: *mut usize,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let prompt = c.text("prompt", prompt, prompt_len)?;
        let texts = c.texts("texts", texts, count)?;
        let logprobs = c.outs("logprobs", logprobs, texts.len(), 0.0)?;
        let tokens = if tokens.is_null() { Vec::new() } else { c.outs("tokens", tokens, texts.len(), 0)? };
        let scores = c.handle(model)?.score(prompt, texts)?;
        logprobs.iter().zip(&scores).for_each(|(place, score)| place.set(score.total()));
        tokens.iter().zip(&scores).for_each(|(place, score)| place.set(score.ids.len()));
        Ok(())
    })
}

/// Which of several texts is the most probable one after a prompt, compared by one of BITNET_BY_*. `index` receives its
/// number, counted from 0. `probabilities`, which may be NULL, has room for `count` numbers: the share of each text, which add
/// up to 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_choose(
    model: *const bitnet_model,
    prompt: *const c_char,
    prompt_len: usize,
    texts: *const bitnet_str,
    count: usize,
    by: u32,
    index: *mut usize,
    probabilities: *mut f64,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let index = c.out("index", index, 0)?;
        let prompt = c.text("prompt", prompt, prompt_len)?;
        let texts = c.texts("texts", texts, count)?;
        let shares = if probabilities.is_null() {
            Vec::new()
        } else {
            c.outs("probabilities", probabilities, texts.len(), 0.0)?
        };
        let by = match by {
            BITNET_BY_TOTAL => ChooseBy::Total,
            BITNET_BY_TOKEN => ChooseBy::PerToken,
            BITNET_BY_BYTE => ChooseBy::PerByte,
            other => return Err(Failure::argument(format!("by is {other}; it must be 0 to 2"))),
        };
        let choice = c.handle(model)?.choose(prompt, texts, by)?;
        index.set(choice.index);
        shares.iter().zip(&choice.probabilities).for_each(|(place, share)| place.set(*share));
        Ok(())
    })
}
