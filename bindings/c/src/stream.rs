//! Generation that the caller pulls, piece by piece.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::ptr;
use std::sync::{Arc, Mutex, TryLockError};

use bitnet::{Batch, Chunk, GenerateOptions, Prepared, SequenceId, Stats};

use crate::border::{Caller, Kind, give};
use crate::failure::Failure;
use crate::generate::{Piece, bitnet_piece};
use crate::options::{bitnet_generate_options, bitnet_result};
use crate::prompt::Prompt;
use crate::session::{Cell, Slot, bitnet_session};
use crate::status::{bitnet_error, bitnet_status};

/// A generation whose pieces are taken one by one. Its session is busy until the last piece was taken or the stream is freed.
pub struct bitnet_stream(());

impl Kind for bitnet_stream {
    const NAME: &'static str = "bitnet_stream";
    const TAG: [u8; 8] = *b"bn:strem";
    type Inner = Mutex<Stream>;
}

/// A generation. The session is in a batch of one, which owns it: an iterator would borrow it from its handle.
#[derive(Debug)]
pub(crate) struct Stream {
    cell: Arc<Cell>,
    running: Option<(Batch, SequenceId)>,
    /// Chunks of the last step that were not taken, and the error after them.
    waiting: VecDeque<Chunk>,
    failed: Option<Failure>,
    /// The piece that was handed out last.
    piece: Option<Piece>,
    reused: usize,
    result: bitnet_result,
}

impl Stream {
    fn new(cell: &Arc<Cell>, prompt: &Prompt<'_>, options: GenerateOptions) -> Result<Self, Failure> {
        let prepared = Prepared::new(&cell.model, options)?;
        cell.with_slot(|slot| {
            let mut session = slot.session.take().ok_or_else(Slot::busy)?;
            // A refusal leaves the session as it was.
            let spare = session.fork();
            let mut batch = Batch::new(&cell.model);
            let joined = prompt.rest(&mut session).and_then(|(ids, reused)| {
                let id = batch.join_prepared(session, &ids, prepared)?;
                Ok((id, reused))
            });
            let (id, reused) = match joined {
                Ok(joined) => joined,
                Err(failure) => {
                    slot.session = Some(spare);
                    return Err(failure);
                }
            };
            let result = bitnet_result::of(&Stats::default(), None);
            let (waiting, piece) = (VecDeque::new(), None);
            let running = Some((batch, id));
            Ok(Self { cell: cell.clone(), running, waiting, failed: None, piece, reused, result })
        })
    }

    /// The next piece; nothing after the last.
    fn next(&mut self) -> Result<Option<bitnet_piece>, Failure> {
        loop {
            if let Some(chunk) = self.waiting.pop_front() {
                return Ok(Some(self.piece.insert(Piece::new(chunk)).view()));
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            let Some((batch, _)) = &mut self.running else {
                return Ok(None);
            };
            for (_, chunk) in batch.step() {
                match chunk {
                    Ok(chunk) => self.waiting.push_back(chunk),
                    Err(error) => self.failed = Some(error.into()),
                }
            }
            if batch.is_finished() || self.failed.is_some() {
                self.end();
            }
        }
    }

    /// Gives the session back.
    fn end(&mut self) {
        if let Some((mut batch, id)) = self.running.take()
            && let Some((session, output)) = batch.leave(id)
        {
            let mut stats = output.stats;
            stats.reused_tokens = self.reused;
            self.result = bitnet_result::of(&stats, Some(output.finish_reason));
            self.cell.give_back(session);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `f` with a stream, unless another call does.
fn with<R>(stream: &Mutex<Stream>, f: impl FnOnce(&mut Stream) -> Result<R, Failure>) -> Result<R, Failure> {
    match stream.try_lock() {
        Ok(mut stream) => f(&mut stream),
        Err(TryLockError::WouldBlock) => Err(Failure::busy("this stream is used by another call; wait for its end")),
        Err(TryLockError::Poisoned(_)) => Err(Failure::panic("an earlier call with this stream ended by a panic")),
    }
}

fn open(
    c: Caller<'_>,
    session: *mut bitnet_session,
    prompt: &Prompt<'_>,
    options: *const bitnet_generate_options,
) -> Result<*mut bitnet_stream, Failure> {
    let cell = c.handle(session)?;
    let options = bitnet_generate_options::read(c, &cell.model, options)?;
    Ok(give(Mutex::new(Stream::new(cell, prompt, options)?)))
}

/// Begins to generate after a prompt, as bitnet_generate() does; nothing is computed before the first piece is taken. The text
/// is the same. `options` may be NULL. After an error the session is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_stream_new(
    session: *mut bitnet_session,
    prompt: *const c_char,
    prompt_len: usize,
    options: *const bitnet_generate_options,
    out: *mut *mut bitnet_stream,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let prompt = Prompt::Text(c.text("prompt", prompt, prompt_len)?);
        out.set(open(c, session, &prompt, options)?);
        Ok(())
    })
}

/// Begins to answer a conversation, as bitnet_chat() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_stream_chat(
    session: *mut bitnet_session,
    messages: *const c_char,
    messages_len: usize,
    options: *const bitnet_generate_options,
    out: *mut *mut bitnet_stream,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let out = c.out("out", out, ptr::null_mut())?;
        let prompt = Prompt::chat(c.text("messages", messages, messages_len)?)?;
        out.set(open(c, session, &prompt, options)?);
        Ok(())
    })
}

/// Takes the next piece, for which it computes. BITNET_STATUS_END after the last: then the session may be used again. The
/// text of the piece is valid until the next call with the stream. After an error there are no further pieces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_stream_next(
    stream: *mut bitnet_stream,
    piece: *mut bitnet_piece,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let place = c.out("piece", piece, bitnet_piece::NONE)?;
        match with(c.handle(stream)?, Stream::next)? {
            Some(piece) => {
                place.set(piece);
                Ok(bitnet_status::Ok)
            }
            None => Ok(bitnet_status::End),
        }
    })
}

/// Facts about the generation, after its last piece; before that only `size` and zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_stream_result(
    stream: *const bitnet_stream,
    result: *mut bitnet_result,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let report = c.report(result)?.ok_or_else(|| Failure::null("result"))?;
        report.set(with(c.handle(stream)?, |stream| Ok(stream.result))?);
        Ok(())
    })
}

/// Frees a stream. If it has not come to its end, the session holds what was read and generated until now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_stream_free(stream: *mut bitnet_stream) {
    border!(else (), |c| {
        c.free(stream);
        Ok(())
    });
}
