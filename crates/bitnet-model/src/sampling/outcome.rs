//! Cancelling a generation from outside, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The reason why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model produced a token that ends the text, or a stop string appeared.
    Stop,
    /// The limit of new tokens or the end of the context was reached.
    Length,
    /// The generation was cancelled.
    Cancelled,
}

impl FinishReason {
    /// `stop`, `length` or `cancelled`: the name in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Cancels a generation from any thread: clones share one flag, which is set once and never reset.
///
/// ```
/// use bitnet_model::sampling::CancelToken;
/// let token = CancelToken::new();
/// let other = token.clone();
/// std::thread::spawn(move || other.cancel()).join().unwrap();
/// assert!(token.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every holder of a clone to stop before its next token.
    pub fn cancel(&self) {
        // The flag guards no other data, so no ordering is needed.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether someone has cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_output() {
        let names = [FinishReason::Stop, FinishReason::Length, FinishReason::Cancelled].map(|r| r.to_string());
        assert_eq!(names, ["stop", "length", "cancelled"]);
    }
}
