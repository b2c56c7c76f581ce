//! Changes to logits before the choice: penalties, biases, masks.

use crate::{Candidate, ModelError};

/// Changes the logits of the next token, given the text so far.
///
/// `tokens` is the prompt and what was generated after it; `logits` is `[vocab]`. A logit of minus infinity forbids its token.
/// Closures of this shape are processors:
///
/// ```
/// use bitnet_model::sampling::{Sampler, SamplingOptions};
/// let mut sampler = Sampler::new(SamplingOptions::greedy()).unwrap();
/// sampler.add(Box::new(|_: &[u32], logits: &mut [f32]| logits[2] = f32::NEG_INFINITY));
/// assert_eq!(sampler.sample(&[0.1, 0.2, 0.9], 0, &[]).unwrap(), 1);
/// ```
pub trait LogitsProcessor: Send {
    /// Changes `logits` in place.
    fn process(&mut self, tokens: &[u32], logits: &mut [f32]);
}

impl<F: FnMut(&[u32], &mut [f32]) + Send> LogitsProcessor for F {
    fn process(&mut self, tokens: &[u32], logits: &mut [f32]) {
        self(tokens, logits);
    }
}

/// Makes tokens of the recent text less probable: a positive logit is divided by the penalty, a negative one multiplied,
/// once for each different token among the last `last_n`.
///
/// Paper: arXiv:1909.05858, section 4.1 (for positive logits).
#[derive(Clone, Debug)]
pub struct RepeatPenalty {
    penalty: f32,
    last_n: usize,
    /// One bit per token of the vocabulary, all 0 between calls.
    seen: Vec<u64>,
}

impl RepeatPenalty {
    /// A penalty for tokens among the last `last_n`.
    ///
    /// # Errors
    /// [`ModelError::Sampling`] if `penalty` is not a number above 0.
    pub fn new(penalty: f32, last_n: usize) -> Result<Self, ModelError> {
        if penalty.is_finite() && penalty > 0.0 {
            return Ok(Self { penalty, last_n, seen: Vec::new() });
        }
        let must = "a number above 0 (1 is off)";
        Err(ModelError::Sampling { option: "repeat_penalty", value: penalty.to_string(), must })
    }
}

impl RepeatPenalty {
    fn apply(&self, logit: &mut f32) {
        *logit = if *logit > 0.0 { *logit / self.penalty } else { *logit * self.penalty };
    }

    fn recent<'a>(&self, tokens: &'a [u32]) -> &'a [u32] {
        &tokens[tokens.len().saturating_sub(self.last_n)..]
    }

    /// As [`LogitsProcessor::process`], for some of the tokens; each stands there once.
    pub(super) fn process_best(&self, tokens: &[u32], candidates: &mut [Candidate]) {
        let recent = self.recent(tokens);
        for c in candidates.iter_mut().filter(|c| recent.contains(&c.token)) {
            self.apply(&mut c.logit);
        }
    }
}

impl LogitsProcessor for RepeatPenalty {
    fn process(&mut self, tokens: &[u32], logits: &mut [f32]) {
        let words = logits.len().div_ceil(64);
        if self.seen.len() < words {
            self.seen.resize(words, 0);
        }
        let recent = self.recent(tokens);
        for &token in recent {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let (word, bit) = (&mut self.seen[token as usize / 64], 1 << (token % 64));
            if *word & bit == 0 {
                *word |= bit;
                self.apply(logit);
            }
        }
        for &token in recent {
            if let Some(word) = self.seen.get_mut(token as usize / 64) {
                *word = 0;
            }
        }
    }
}

/// Adds a constant to the logits of some tokens; minus infinity forbids a token.
#[derive(Clone, Debug)]
pub struct LogitBias {
    biases: Vec<(u32, f32)>,
}

impl LogitBias {
    /// Adds each bias to the logit of its token; tokens outside of the vocabulary are ignored.
    ///
    /// # Errors
    /// [`ModelError::Sampling`] if a bias is NaN or plus infinity.
    pub fn new(biases: impl IntoIterator<Item = (u32, f32)>) -> Result<Self, ModelError> {
        let biases: Vec<_> = biases.into_iter().collect();
        match biases.iter().find(|(_, b)| b.is_nan() || *b == f32::INFINITY) {
            None => Ok(Self { biases }),
            Some((token, bias)) => Err(ModelError::Sampling {
                option: "logit_bias",
                value: format!("{bias} for token {token}"),
                must: "a finite number, or minus infinity to forbid the token",
            }),
        }
    }
}

impl LogitsProcessor for LogitBias {
    fn process(&mut self, _tokens: &[u32], logits: &mut [f32]) {
        for (token, bias) in &self.biases {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalises_each_recent_token_once() {
        let mut penalty = RepeatPenalty::new(2.0, 3).unwrap();
        // Token 0 lies outside of the window, token 1 stands in it twice, token 99 outside of the vocabulary.
        let history = [0, 1, 99, 1];
        for _ in 0..2 {
            let mut logits = [4.0, 4.0, -4.0, 0.0];
            penalty.process(&history, &mut logits);
            assert_eq!(logits, [4.0, 2.0, -4.0, 0.0]);
        }
        let mut logits = [4.0, 4.0, -4.0, f32::NEG_INFINITY];
        penalty.process(&[2, 3, 3], &mut logits);
        assert_eq!(logits, [4.0, 4.0, -8.0, f32::NEG_INFINITY]);
        RepeatPenalty::new(2.0, 0).unwrap().process(&history, &mut logits);
        assert_eq!(logits, [4.0, 4.0, -8.0, f32::NEG_INFINITY]);
        RepeatPenalty::new(2.0, usize::MAX).unwrap().process(&history, &mut logits);
        assert_eq!(logits, [2.0, 2.0, -8.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn biases_add_and_forbid() {
        let mut bias = LogitBias::new([(1, -1.5), (2, f32::NEG_INFINITY), (7, 1.0)]).unwrap();
        let mut logits = [1.0, 1.0, 1.0];
        bias.process(&[], &mut logits);
        assert_eq!(logits, [1.0, -0.5, f32::NEG_INFINITY]);
        assert!(LogitBias::new([(1, f32::NAN)]).is_err());
        assert!(LogitBias::new([(1, f32::INFINITY)]).is_err());
    }
}
