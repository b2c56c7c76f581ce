//! Ctrl-C: the first one asks the work to end, the second one ends the process.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use bitnet::CancelToken;

use crate::error::INTERRUPTED;

/// The work that can end in an orderly way right now.
static CURRENT: Mutex<Option<CancelToken>> = Mutex::new(None);

/// Takes over Ctrl-C. Where that is impossible the system's default stays: the process ends at the first one.
pub(crate) fn install() {
    let handler = || {
        let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(token) if !token.is_cancelled() => token.cancel(),
            _ => {
                // There may be a progress bar or a half-written line.
                let _ = writeln!(std::io::stderr());
                std::process::exit(i32::from(INTERRUPTED));
            }
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::debug!(%error, "Ctrl-C keeps its default effect");
    }
}

/// Work that Ctrl-C ends in an orderly way while this lives.
pub(crate) struct Graceful {
    token: CancelToken,
}

impl Graceful {
    /// From now on the first Ctrl-C cancels [`Graceful::token`].
    pub(crate) fn begin() -> Self {
        let token = CancelToken::default();
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Self { token }
    }

    /// The generation that Ctrl-C cancels.
    pub(crate) fn token(&self) -> &CancelToken {
        &self.token
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn cancelled(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Drop for Graceful {
    fn drop(&mut self) {
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
