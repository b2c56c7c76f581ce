//! Generation with a callback.

use std::ffi::{c_char, c_void};

use bitnet::{Chunk, FinishReason};

use crate::border::Caller;
use crate::failure::Failure;
use crate::options::{bitnet_generate_options, bitnet_result, bitnet_str};
use crate::prompt::Prompt;
use crate::session::bitnet_session;
use crate::status::{bitnet_error, bitnet_status};

/// A step of a generation, as the library hands it out. Later versions may add fields at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bitnet_piece {
    /// Text that is certain by now: whole characters, nothing that could still become part of a stop text. Often empty. A NUL
    /// follows.
    pub text: bitnet_str,
    /// The token that was chosen; -1 in a last piece that only brings text which had been held back.
    pub token: i64,
}

impl bitnet_piece {
    /// No piece.
    pub(crate) const NONE: Self = Self { text: bitnet_str::NONE, token: -1 };
}

/// Receives each piece of a generation as soon as it is there. The piece is valid during the call. Any value other than 0
/// ends the generation (BITNET_FINISH_CANCELLED). It runs on the thread that generates; it must not throw and must not jump
/// out, and the session that generates is busy for it.
pub type bitnet_on_piece = Option<extern "C" fn(user: *mut c_void, piece: *const bitnet_piece) -> i32>;

/// A piece with its text.
#[derive(Debug)]
pub(crate) struct Piece {
    /// With a NUL at the end.
    text: Vec<u8>,
    token: Option<u32>,
}

impl Piece {
    pub(crate) fn new(chunk: Chunk) -> Self {
        let mut text = chunk.text.into_bytes();
        text.push(0);
        Self { text, token: chunk.token }
    }

    /// As C sees it, for as long as this lives.
    pub(crate) fn view(&self) -> bitnet_piece {
        let text = bitnet_str { data: self.text.as_ptr().cast(), len: self.text.len() - 1 };
        bitnet_piece { text, token: self.token.map_or(-1, i64::from) }
    }
}

/// Arguments of a generation with a callback, besides session and prompt.
struct Request {
    options: *const bitnet_generate_options,
    on_piece: bitnet_on_piece,
    user: *mut c_void,
    result: *mut bitnet_result,
}

fn generate(
    c: Caller<'_>,
    session: *mut bitnet_session,
    prompt: &Prompt<'_>,
    request: &Request,
) -> Result<(), Failure> {
    let report = c.report(request.result)?;
    let cell = c.handle(session)?;
    let options = bitnet_generate_options::read(c, &cell.model, request.options)?;
    let result = cell.with(|session| {
        let mut generation = prompt.begin(session, options)?;
        let mut stopped = false;
        for chunk in generation.by_ref() {
            let piece = Piece::new(chunk?);
            let view = piece.view();
            if request.on_piece.is_some_and(|on_piece| on_piece(request.user, &raw const view) != 0) {
                stopped = true;
                break;
            }
        }
        let finish = generation.finish_reason().or(stopped.then_some(FinishReason::Cancelled));
        Ok(bitnet_result::of(&generation.stats(), finish))
    })?;
    if let Some(report) = report {
        report.set(result);
    }
    Ok(())
}

/// Continues the session with a prompt and generates. Each piece goes to `on_piece`, which may be NULL, with `user`. In an
/// empty session the token that begins a text is added, if the model's files say so. An empty prompt continues the text.
/// `options` and `result` may be NULL. After an error the session holds what was read and generated before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_generate(
    session: *mut bitnet_session,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const bitnet_generate_options,
    on_piece: bitnet_on_piece,
    user: *mut c_void,
    result: *mut bitnet_result,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let prompt = Prompt::Text(c.text("prompt", prompt, prompt_len)?);
        generate(c, session, &prompt, &Request { options, on_piece, user, result })
    })
}

/// Like bitnet_generate(), with tokens as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_generate_tokens(
    session: *mut bitnet_session,
    tokens: *const u32,
    tokens_len: usize,
    options: *const bitnet_generate_options,
    on_piece: bitnet_on_piece,
    user: *mut c_void,
    result: *mut bitnet_result,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let prompt = Prompt::Tokens(c.slice("tokens", tokens, tokens_len)?);
        generate(c, session, &prompt, &Request { options, on_piece, user, result })
    })
}

/// Generates the answer to a conversation, through the model's chat template. `messages` is JSON: a list of objects with
/// `role` and `content`, or an object with such a list as `messages`, and optionally `tools`, `documents` and variables of the
/// template. It is the whole conversation; what the session holds of its beginning is not read again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_chat(
    session: *mut bitnet_session,
    messages: *const c_char,
    messages_len: usize,
    options: *const bitnet_generate_options,
    on_piece: bitnet_on_piece,
    user: *mut c_void,
    result: *mut bitnet_result,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let prompt = Prompt::chat(c.text("messages", messages, messages_len)?)?;
        generate(c, session, &prompt, &Request { options, on_piece, user, result })
    })
}
