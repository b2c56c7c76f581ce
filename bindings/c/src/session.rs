//! Sessions.

use std::ptr;
use std::sync::{Arc, Mutex, TryLockError};

use bitnet::{Model, Session};

use crate::border::{Kind, give};
use crate::buffer::{Bytes, bitnet_bytes, bitnet_tokens};
use crate::failure::Failure;
use crate::model::bitnet_model;
use crate::status::{bitnet_error, bitnet_status};

/// One text with a model: prompts and what was generated, with the model's state for them.
pub struct bitnet_session(());

impl Kind for bitnet_session {
    const NAME: &'static str = "bitnet_session";
    const TAG: [u8; 8] = *b"bn:sessn";
    type Inner = Arc<Cell>;
}

/// The session behind a handle, which a stream shares.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) model: Model,
    slot: Mutex<Slot>,
}

#[derive(Debug)]
pub(crate) struct Slot {
    /// Nothing while a stream has it.
    pub(crate) session: Option<Session>,
    /// The logits that were handed out last.
    logits: Vec<f32>,
}

impl Cell {
    pub(crate) fn new(session: Session) -> Arc<Self> {
        let model = session.model().clone();
        Arc::new(Self { model, slot: Mutex::new(Slot { session: Some(session), logits: Vec::new() }) })
    }

    /// Runs `f` with the slot, unless another call does.
    pub(crate) fn with_slot<R>(&self, f: impl FnOnce(&mut Slot) -> Result<R, Failure>) -> Result<R, Failure> {
        match self.slot.try_lock() {
            Ok(mut slot) => f(&mut slot),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::busy("this session is used by another call; wait for its end, or fork the session before"))
            }
            Err(TryLockError::Poisoned(_)) => Err(Failure::panic("an earlier call with this session ended by a panic")),
        }
    }

    /// Runs `f` with the session, unless another call or a stream does.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Session) -> Result<R, Failure>) -> Result<R, Failure> {
        self.with_slot(|slot| f(slot.session()?))
    }

    /// Takes the session of a stream back.
    pub(crate) fn give_back(&self, session: Session) {
        // The slot is empty, so others look at it and leave it at once.
        let mut slot = self.slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.session = Some(session);
    }
}

impl Slot {
    pub(crate) fn session(&mut self) -> Result<&mut Session, Failure> {
        self.session.as_mut().ok_or_else(Self::busy)
    }
    pub(crate) fn busy() -> Failure {
        Failure::busy("a stream generates in this session; read it to its end, or free it")
    }
}

/// A new, empty session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_new(
    model: *const bitnet_model,
    out: *mut *mut bitnet_session,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        out.set(give(Cell::new(c.handle(model)?.session())));
        Ok(())
    })
}

/// Frees a session. A stream of it goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_free(session: *mut bitnet_session) {
    border!(else (), |c| {
        c.free(session);
        Ok(())
    });
}

/// A copy that continues independently; both share the memory of their common beginning until one of them changes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_fork(
    session: *const bitnet_session,
    out: *mut *mut bitnet_session,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let fork = c.handle(session)?.with(|session| Ok(session.fork()))?;
        out.set(give(Cell::new(fork)));
        Ok(())
    })
}

/// The number of tokens so far, prompts and generated ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_len(
    session: *const bitnet_session,
    len: *mut usize,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let len = c.out("len", len, 0)?;
        len.set(c.handle(session)?.with(|session| Ok(session.len()))?);
        Ok(())
    })
}

/// The tokens so far, prompts and generated ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_tokens(
    session: *const bitnet_session,
    out: *mut *mut bitnet_tokens,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        out.set(give(c.handle(session)?.with(|session| Ok(session.tokens().to_vec()))?));
        Ok(())
    })
}

/// Forgets every token from number `len` on, as if it had never been there; 0 empties the session. Layers whose state cannot
/// go back read the tokens since a kept state again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_rewind(
    session: *mut bitnet_session,
    len: usize,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| { c.handle(session)?.with(|session| Ok(session.rewind(len)?)) })
}

/// Reads tokens without generating. `logits` receives the scores of all tokens of the vocabulary as the next one, `logits_len`
/// how many these are; both may be NULL. The scores are the session's: they are valid until the next call with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_feed(
    session: *mut bitnet_session,
    tokens: *const u32,
    tokens_len: usize,
    logits: *mut *const f32,
    logits_len: *mut usize,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let logits = c.out_or_null("logits", logits, ptr::null())?;
        let logits_len = c.out_or_null("logits_len", logits_len, 0)?;
        let tokens = c.slice("tokens", tokens, tokens_len)?;
        c.handle(session)?.with_slot(|slot| {
            // Of its own, so that they stay where they are whatever becomes of the session.
            slot.logits = slot.session()?.feed_ids(tokens)?.to_vec();
            if let Some(logits) = logits {
                logits.set(slot.logits.as_ptr());
            }
            if let Some(len) = logits_len {
                len.set(slot.logits.len());
            }
            Ok(())
        })
    })
}

/// The session as bytes, from which bitnet_session_load() continues it with the same model, in this process or another.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_save(
    session: *mut bitnet_session,
    out: *mut *mut bitnet_bytes,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let bytes = c.handle(session)?.with(|session| Ok(session.save()?))?;
        out.set(give(Bytes::new(bytes)));
        Ok(())
    })
}

/// The session that bitnet_session_save() made these bytes of. Bytes that are damaged, or of another model, are refused
/// (BITNET_STATUS_SAVED_SESSION).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_session_load(
    model: *const bitnet_model,
    data: *const u8,
    len: usize,
    out: *mut *mut bitnet_session,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let bytes = c.slice("data", data, len)?;
        out.set(give(Cell::new(c.handle(model)?.restore_session(bytes)?)));
        Ok(())
    })
}
