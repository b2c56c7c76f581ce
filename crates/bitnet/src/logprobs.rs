//! Log-probabilities of generated tokens, as the model gives them before anything changes its logits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_model::sampling::{LogProbs, LogitsProcessor};

/// The probability of a generated token according to the model, before processors, penalties and temperature.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability; `None` for a token that nothing else could follow and so was not
    /// computed.
    pub logprob: Option<f64>,
    /// The most probable tokens at its place and the logarithms of their probabilities, the most probable first.
    pub top: Vec<(u32, f64)>,
}

/// Logits by the position of the token that is sampled from them; several while a draft is verified.
type Kept = VecDeque<(usize, Vec<f32>)>;

/// Keeps the logits of each position until its token is known.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    top: usize,
    kept: Arc<Mutex<Kept>>,
}

impl Recorder {
    pub(crate) fn new(top: usize) -> Self {
        Self { top, kept: Arc::default() }
    }

    /// The probabilities kept for `position`, which now holds `token`.
    pub(crate) fn take(&self, position: usize, token: u32) -> TokenLogprob {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|k| k.0 >= position);
        let logits = match kept.front() {
            Some(k) if k.0 == position => kept.pop_front().map(|k| k.1).unwrap_or_default(),
            _ => Vec::new(),
        };
        match LogProbs::new(&logits, position) {
            Ok(p) => TokenLogprob { token, logprob: Some(p.of(token)), top: p.best(self.top) },
            Err(_) => TokenLogprob { token, logprob: None, top: Vec::new() },
        }
    }
}

impl LogitsProcessor for Recorder {
    fn process(&mut self, tokens: &[u32], logits: &mut [f32]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A position may come again after an error.
        kept.retain(|k| k.0 < tokens.len());
        kept.push_back((tokens.len(), logits.to_vec()));
    }
}
