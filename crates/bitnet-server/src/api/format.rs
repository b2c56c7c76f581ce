//! From news of texts to the bytes of an answer: what every interface has to tell.

use std::fmt::Debug;

use bitnet::{FinishReason, TokenLogprob};

use super::ApiError;
use crate::engine::{End, Progress, Usage};

/// A whole text.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) end: Option<End>,
}

/// The form of an answer: one for each interface.
pub(crate) trait Format: Debug + Send {
    /// The probabilities of the tokens of each prompt, if they were requested.
    fn scored(&mut self, _: Vec<Vec<TokenLogprob>>) {}

    /// The whole answer, in parts.
    fn whole(self: Box<Self>, collected: Vec<Collected>) -> Box<dyn Iterator<Item = String> + Send>;

    /// The content type of a stream.
    fn stream_type(&self) -> &'static str;

    /// Bytes that say nothing, for a connection that would be silent.
    fn nothing(&self) -> &'static str;

    /// The beginning of a stream of `count` texts.
    fn begin(&mut self, count: usize, out: &mut String);

    /// More of a text.
    fn piece(&mut self, choice: usize, text: &str, logprob: Option<TokenLogprob>, out: &mut String);

    /// A text has ended.
    fn done(&mut self, choice: usize, end: &End, out: &mut String);

    /// How far a text is, if that was requested.
    fn progress(&mut self, choice: usize, progress: &Progress, out: &mut String);

    /// All texts have ended; each has its usage.
    fn all_done(&mut self, usage: &[Usage], out: &mut String);

    /// There will be nothing more.
    fn failed(&mut self, error: &ApiError, out: &mut String);
}

/// The name of a reason, which is the same in both interfaces.
pub(crate) fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        _ => "stop",
    }
}

/// A logarithm of a probability that JSON can represent; OpenAI's value for an impossible token.
pub(crate) fn finite(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}
