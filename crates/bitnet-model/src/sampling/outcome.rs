//! How a generation is stopped from outside, how it ended, and what it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model produced a token that ends the text, or a stop string appeared.
    Stop,
    /// The limit of new tokens or the end of the context was reached.
    Length,
    /// Someone cancelled.
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

/// Cost of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerationStats {
    /// Tokens of the prompt, those found in the cache included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already and needed no computation.
    pub cached_tokens: usize,
    /// Tokens generated, the stop token included if it was reached.
    pub new_tokens: usize,
    /// Forward passes of one token after the prompt. The first new token comes from the prompt's own pass and the last
    /// one needs none, so this is one less than [`new_tokens`](Self::new_tokens).
    pub decode_steps: usize,
    /// Time spent on the prompt.
    pub prefill: Duration,
    /// Time spent on the tokens after the first, sampling included.
    pub decode: Duration,
}

impl GenerationStats {
    /// Tokens of the prompt computed per second; 0 where nothing was computed.
    pub fn prefill_tok_s(&self) -> f64 {
        rate(self.prompt_tokens.saturating_sub(self.cached_tokens), self.prefill)
    }

    /// Tokens decoded per second; 0 where nothing was decoded.
    pub fn decode_tok_s(&self) -> f64 {
        rate(self.decode_steps, self.decode)
    }
}

fn rate(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
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
    fn rates_are_finite() {
        let mut stats = GenerationStats::default();
        assert_eq!((stats.prefill_tok_s(), stats.decode_tok_s()), (0.0, 0.0));
        stats.prompt_tokens = 12;
        stats.cached_tokens = 2;
        stats.prefill = Duration::from_millis(500);
        stats.decode_steps = 3;
        stats.decode = Duration::from_secs(2);
        assert_eq!((stats.prefill_tok_s(), stats.decode_tok_s()), (20.0, 1.5));
    }

    #[test]
    fn names_are_those_of_the_output() {
        let names = [FinishReason::Stop, FinishReason::Length, FinishReason::Cancelled].map(|r| r.to_string());
        assert_eq!(names, ["stop", "length", "cancelled"]);
    }
}
