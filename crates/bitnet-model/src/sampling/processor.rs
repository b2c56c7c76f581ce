//! Changes to logits before the choice: penalties, biases, masks.

use crate::ModelError;

/// Changes the logits of the next token, given the text so far.
///
/// `tokens` is the prompt and the generated text after it; `logits` is `[vocab]`. A logit of minus infinity forbids its
/// token. Closures with this signature are processors:
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

/// Adds a constant to the logits of some tokens; minus infinity forbids a token.
#[derive(Clone, Debug)]
pub struct LogitBias {
    biases: Vec<(u32, f32)>,
}

impl LogitBias {
    /// Adds each bias to the logit of its token; tokens outside the vocabulary are ignored.
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
    fn biases_add_and_forbid() {
        let mut bias = LogitBias::new([(1, -1.5), (2, f32::NEG_INFINITY), (7, 1.0)]).unwrap();
        let mut logits = [1.0, 1.0, 1.0];
        bias.process(&[], &mut logits);
        assert_eq!(logits, [1.0, -0.5, f32::NEG_INFINITY]);
        assert!(LogitBias::new([(1, f32::NAN)]).is_err());
        assert!(LogitBias::new([(1, f32::INFINITY)]).is_err());
    }
}
