//! Options for choosing the next token.

use crate::ModelError;

/// Options for choosing the next token. [The module](super) describes each step and their order.
///
/// The default draws at temperature 0.7 from the most probable 95 % (`top_p`), with seed 0 and everything else off: the
/// settings of the authors of BitNet b1.58 2B4T, and reproducible unless another seed is requested.
///
/// ```
/// use bitnet_model::sampling::SamplingOptions;
/// let o = SamplingOptions::default().with_temperature(0.9).with_top_k(40).with_seed(7);
/// o.validate().unwrap();
/// assert!(o.with_top_p(1.5).validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SamplingOptions {
    /// Divides the logits; below 1 sharpens, above 1 flattens. 0 is greedy: always the most probable token.
    pub temperature: f32,
    /// Only the `top_k` most probable tokens; 0 is all.
    pub top_k: usize,
    /// Only the fewest most probable tokens whose probabilities sum to `top_p`; 1 is all.
    pub top_p: f32,
    /// Only tokens at least `min_p` times as probable as the most probable one; 0 is all.
    pub min_p: f32,
    /// The logit of a token in the recent text is divided by this if positive, and multiplied if negative; 1 is off.
    pub repeat_penalty: f32,
    /// The number of last tokens that the repeat penalty applies to; `usize::MAX` is all.
    pub repeat_last_n: usize,
    /// Subtracted from the logits of tokens that occur in the new text, without the prompt; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted once for each occurrence of a token in the new text; 0 is off.
    pub frequency_penalty: f32,
    /// Selects the noise. The same seed, model and prompt give the same text.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// Always the most probable token, of equal ones the lowest id; the seed does not matter.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether no draw is needed because the best token is always chosen.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Sets the [`temperature`](Self::temperature).
    #[must_use]
    pub fn with_temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }
    /// Sets [`top_k`](Self::top_k).
    #[must_use]
    pub fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }
    /// Sets [`top_p`](Self::top_p).
    #[must_use]
    pub fn with_top_p(self, top_p: f32) -> Self {
        Self { top_p, ..self }
    }
    /// Sets [`min_p`](Self::min_p).
    #[must_use]
    pub fn with_min_p(self, min_p: f32) -> Self {
        Self { min_p, ..self }
    }
    /// Sets the [`repeat_penalty`](Self::repeat_penalty) and the number of last tokens that it applies to,
    /// [`last_n`](Self::repeat_last_n).
    #[must_use]
    pub fn with_repeat_penalty(self, penalty: f32, last_n: usize) -> Self {
        Self { repeat_penalty: penalty, repeat_last_n: last_n, ..self }
    }
    /// Sets the [`presence_penalty`](Self::presence_penalty).
    #[must_use]
    pub fn with_presence_penalty(self, penalty: f32) -> Self {
        Self { presence_penalty: penalty, ..self }
    }
    /// Sets the [`frequency_penalty`](Self::frequency_penalty).
    #[must_use]
    pub fn with_frequency_penalty(self, penalty: f32) -> Self {
        Self { frequency_penalty: penalty, ..self }
    }
    /// Sets the [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// [`ModelError::Sampling`] naming the option and its requirement.
    pub fn validate(&self) -> Result<(), ModelError> {
        let share = |v: f32| (0.0..=1.0).contains(&v);
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0, "a number of at least 0"),
            ("top_p", self.top_p, share(self.top_p), "between 0 and 1"),
            ("min_p", self.min_p, share(self.min_p), "between 0 and 1"),
            ("repeat_penalty", self.repeat_penalty, self.repeat_penalty > 0.0, "a number above 0 (1 is off)"),
            ("presence_penalty", self.presence_penalty, true, "a number (0 is off)"),
            ("frequency_penalty", self.frequency_penalty, true, "a number (0 is off)"),
        ];
        for (option, value, in_range, must) in checks {
            if !(value.is_finite() && in_range) {
                return Err(ModelError::Sampling { option, value: value.to_string(), must });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_option_out_of_range() {
        let d = SamplingOptions::default;
        d().validate().unwrap();
        SamplingOptions::greedy().validate().unwrap();
        for bad in [-0.1, f32::NAN, f32::INFINITY] {
            let cases = [
                ("temperature", d().with_temperature(bad)),
                ("top_p", d().with_top_p(bad)),
                ("min_p", d().with_min_p(bad)),
                ("repeat_penalty", d().with_repeat_penalty(bad, 64)),
            ];
            for (name, options) in cases {
                match options.validate() {
                    Err(ModelError::Sampling { option, .. }) => assert_eq!(option, name),
                    other => panic!("{name} = {bad}: {other:?}"),
                }
            }
        }
        assert!(d().with_presence_penalty(f32::NAN).validate().is_err());
        assert!(d().with_frequency_penalty(f32::INFINITY).validate().is_err());
        d().with_presence_penalty(-2.0).with_frequency_penalty(2.0).validate().unwrap();
        assert!(d().with_top_p(1.1).validate().is_err());
        assert!(d().with_min_p(1.1).validate().is_err());
        assert!(d().with_repeat_penalty(0.0, 64).validate().is_err());
        let message = d().with_top_p(2.0).validate().unwrap_err().to_string();
        assert_eq!(message, "sampling option top_p is 2; it must be between 0 and 1");
    }
}
