//! Long calls that Ctrl-C ends.
//!
//! Python runs the handlers of signals only on its main thread and only when that thread asks for them. So what may take
//! long computes on another thread, and the calling thread asks every few milliseconds.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bitnet::CancelToken;
use pyo3::prelude::*;

/// Time between two looks for signals.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Runs the handlers of signals that have come, from a thread that is detached from the interpreter. An interpreter that
/// ends has none.
fn look() -> PyResult<()> {
    Python::try_attach(|py| py.check_signals()).unwrap_or(Ok(()))
}

/// Computes what `cancel` ends early. The result is there in any case, also with the exception of a handler.
pub(crate) fn cancellable<T: Send>(
    py: Python<'_>,
    cancel: &CancelToken,
    work: impl FnOnce() -> T + Send,
) -> (T, PyResult<()>) {
    py.detach(|| {
        std::thread::scope(|scope| {
            let (alive, done) = channel::<()>();
            let worker = scope.spawn(move || {
                // Dropped at the end, and also when `work` panics: the other end then has nothing to wait for.
                let _alive = alive;
                work()
            });
            let mut signal = Ok(());
            while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(LOOK) {
                if signal.is_ok() {
                    signal = look();
                }
                if signal.is_err() {
                    cancel.cancel();
                }
            }
            match worker.join() {
                Ok(result) => (result, signal),
                Err(panic) => resume_unwind(panic),
            }
        })
    })
}

/// Computes what cannot be ended early: after an exception of a handler, the call ends at once, and the rest of the
/// computation is for nothing.
///
/// # Errors
/// The exception of a handler.
pub(crate) fn abandonable<T: Send + 'static>(py: Python<'_>, work: impl FnOnce() -> T + Send + 'static) -> PyResult<T> {
    py.detach(|| {
        let (sender, results) = channel();
        let worker = std::thread::spawn(move || {
            // Nothing waits for it after a signal.
            let _ = sender.send(work());
        });
        loop {
            match results.recv_timeout(LOOK) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => look()?,
                // The thread ended without a result.
                Err(RecvTimeoutError::Disconnected) => match worker.join() {
                    Err(panic) => resume_unwind(panic),
                    Ok(()) => return Err(crate::errors::kinds::BitnetError::new_err("a computation has ended early")),
                },
            }
        }
    })
}
