//! Rotary position embeddings that are stretched for contexts longer than those of training.

use ternary_kernels::RopeTable;

use super::ModelConfig;
use crate::ModelError;

/// A change of the frequencies of the rotary position embedding.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeScaling {
    /// No change.
    #[default]
    None,
    /// Positions, and so every frequency, are divided by `factor`.
    Linear {
        /// A positive number.
        factor: f64,
    },
    /// As in Llama 3.1: slow frequencies are divided by `factor`, fast ones stay, those between are mixed.
    Llama3 {
        /// A positive number.
        factor: f64,
        /// Waves that fit fewer times than this into `original_context` are slow.
        low_freq_factor: f64,
        /// Waves that fit more often than this into `original_context` are fast.
        high_freq_factor: f64,
        /// Tokens of the context before it was stretched.
        original_context: usize,
    },
    /// Each frequency is divided by its own factor, `[head_dim / 2]`: GGUF files store these as a tensor.
    Factors(Vec<f32>),
    /// YaRN (arXiv:2309.00071): slow frequencies are divided by `factor`, fast ones stay, those between are mixed;
    /// cosine and sine are multiplied by `attention_factor`. It applies at every position.
    Yarn {
        /// A positive number.
        factor: f64,
        /// Tokens of the context before it was stretched.
        original_context: usize,
        /// Factor of cosine and sine; `1 + 0.1 ln(factor)` unless a file says otherwise.
        attention_factor: f64,
        /// Waves that fit more often than this into `original_context` are fast; 32 in the paper.
        beta_fast: f64,
        /// Waves that fit fewer times than this into `original_context` are slow; 1 in the paper.
        beta_slow: f64,
    },
    /// LongRoPE (arXiv:2402.13753): each frequency is divided by its factor in one of two lists, `[head_dim / 2]` each,
    /// and cosine and sine are multiplied by `attention_factor`. The model's context selects the list, as in llama.cpp:
    /// the long one if `max_position_embeddings` is above `original_context`.
    LongRope {
        /// Factors for contexts up to `original_context`.
        short: Vec<f32>,
        /// Factors for longer contexts.
        long: Vec<f32>,
        /// Tokens of the context before it was stretched.
        original_context: usize,
        /// Factor of cosine and sine.
        attention_factor: f64,
    },
}

impl ModelConfig {
    /// The frequencies of the rotary embedding, `[rotary_width / 2]`, in f32 as in the published implementations.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        let plain = || RopeTable::new(0, self.rotary_width(), self.rope_theta as f32).frequencies().to_vec();
        match &self.rope_scaling {
            RopeScaling::None => plain(),
            RopeScaling::Linear { factor } => plain().iter().map(|f| f / *factor as f32).collect(),
            RopeScaling::Llama3 { .. } => plain().iter().map(|f| self.rope_scaling.llama3(*f)).collect(),
            RopeScaling::Factors(factors) => plain().iter().zip(factors).map(|(f, factor)| f / factor).collect(),
            RopeScaling::Yarn { .. } => self.yarn(&plain()),
            RopeScaling::LongRope { short, long, original_context, .. } => {
                let factors = if self.max_position_embeddings > *original_context { long } else { short };
                plain().iter().zip(factors).map(|(f, factor)| f / factor).collect()
            }
        }
    }

    /// Factor of the rotary embedding's cosine and sine, for q and for k; scores grow by its square.
    ///
    /// ```
    /// use bitnet_model::{ModelConfig, RopeScaling};
    /// let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
    /// assert_eq!(c.rope_attention_factor(), 1.0);
    /// c.rope_scaling = RopeScaling::yarn(4.0, 8192);
    /// assert_eq!(c.rope_attention_factor(), 1.138_629_4);
    /// ```
    pub fn rope_attention_factor(&self) -> f32 {
        match &self.rope_scaling {
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {
                1.0
            }
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                *attention_factor as f32
            }
        }
    }

    /// YaRN's mixture of the `plain` frequencies and the divided ones; the places of the bounds are computed in f64,
    /// the mixture in f32, as in the published implementations.
    fn yarn(&self, plain: &[f32]) -> Vec<f32> {
        let RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, .. } = self.rope_scaling else {
            return plain.to_vec();
        };
        let (dim, context) = (self.rotary_width() as f64, original_context as f64);
        // The index, among the pairs, of the wave that fits `turns` times into the original context.
        let place = |turns: f64| dim * (context / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.rope_theta.ln());
        let low = place(beta_fast).floor().max(0.0) as f32;
        // All published implementations use the bound of whole heads, not of pairs.
        let high = place(beta_slow).ceil().min(dim - 1.0) as f32;
        let span = (high - low).max(0.001);
        let mixed = |(i, f): (usize, &f32)| {
            let kept = 1.0 - ((i as f32 - low) / span).clamp(0.0, 1.0);
            (f / factor as f32) * (1.0 - kept) + f * kept
        };
        plain.iter().enumerate().map(mixed).collect()
    }

    pub(super) fn validate_rope(&self) -> Result<(), ModelError> {
        let bad = |value: String, must| Err(ModelError::Config { field: "rope_scaling", value, must });
        let positive = |x: f64| x.is_finite() && x > 0.0;
        match &self.rope_scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } if !positive(*factor) => {
                bad(format!("a factor of {factor}"), "a positive factor")
            }
            RopeScaling::Linear { .. } => Ok(()),
            RopeScaling::Llama3 { low_freq_factor: low, high_freq_factor: high, original_context, .. } => {
                if !(positive(*low) && positive(*high) && low < high) {
                    return bad(format!("{low} to {high}"), "low_freq_factor below high_freq_factor, both positive");
                }
                match original_context {
                    0 => bad("an original context of 0".to_owned(), "an original context of at least one token"),
                    _ => Ok(()),
                }
            }
            RopeScaling::Factors(factors) => self.check_factors(factors),
            &RopeScaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => {
                if !(positive(factor) && positive(attention_factor)) {
                    let value = format!("a factor of {factor} with an attention factor of {attention_factor}");
                    return bad(value, "positive factors");
                }
                if !(positive(beta_slow) && positive(beta_fast) && beta_slow < beta_fast) {
                    return bad(format!("{beta_slow} to {beta_fast}"), "beta_slow below beta_fast, both positive");
                }
                match original_context {
                    0 => bad("an original context of 0".to_owned(), "an original context of at least one token"),
                    _ => Ok(()),
                }
            }
            RopeScaling::LongRope { short, long, original_context, attention_factor } => {
                self.check_factors(short)?;
                self.check_factors(long)?;
                if !positive(*attention_factor) {
                    return bad(format!("an attention factor of {attention_factor}"), "a positive factor");
                }
                match original_context {
                    0 => bad("an original context of 0".to_owned(), "an original context of at least one token"),
                    _ => Ok(()),
                }
            }
        }
    }

    fn check_factors(&self, factors: &[f32]) -> Result<(), ModelError> {
        let bad = |value: String, must| Err(ModelError::Config { field: "rope_scaling", value, must });
        if factors.len() != self.rotary_width() / 2 {
            return bad(format!("{} factors", factors.len()), "one factor for every two rotated elements of a head");
        }
        match factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
            Some(factor) => bad(format!("a factor of {factor}"), "positive factors"),
            None => Ok(()),
        }
    }
}

impl RopeScaling {
    /// YaRN with the constants of its paper: `beta_fast` 32, `beta_slow` 1, an attention factor of `1 + 0.1
    /// ln(factor)`.
    pub fn yarn(factor: f64, original_context: usize) -> Self {
        let [beta_fast, beta_slow] = Self::YARN_BETAS;
        Self::Yarn {
            factor,
            original_context,
            attention_factor: Self::yarn_attention(factor, 1.0),
            beta_fast,
            beta_slow,
        }
    }

    /// `beta_fast` and `beta_slow` of YaRN's paper.
    pub const YARN_BETAS: [f64; 2] = [32.0, 1.0];

    /// YaRN's factor for attention, `1 + 0.1 scale ln(factor)`; the paper's scale is 1.
    pub fn yarn_attention(factor: f64, scale: f64) -> f64 {
        if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 }
    }

    /// LongRoPE with these lists. If both agree and attention is not scaled, there is nothing to choose: then it is
    /// [`RopeScaling::Factors`], and no scaling if every factor is 1.
    pub fn longrope(short: Vec<f32>, long: Vec<f32>, original_context: usize, attention_factor: f64) -> Self {
        match short == long && attention_factor == 1.0 {
            true if short.iter().all(|f| *f == 1.0) => Self::None,
            true => Self::Factors(short),
            false => Self::LongRope { short, long, original_context, attention_factor },
        }
    }

    /// LongRoPE's factor for attention in a context `stretched` times the original one: `sqrt(1 + ln(stretched) /
    /// ln(original))`.
    pub fn longrope_attention(stretched: f64, original_context: usize) -> f64 {
        match stretched > 1.0 && original_context > 1 {
            true => (1.0 + stretched.ln() / (original_context as f64).ln()).sqrt(),
            false => 1.0,
        }
    }

    /// Step by step as in transformers, in f32, so that the last bits agree.
    fn llama3(&self, frequency: f32) -> f32 {
        let &Self::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context } = self else {
            return frequency;
        };
        let (context, factor) = (original_context as f64, factor as f32);
        let wave = frequency.recip() * std::f64::consts::TAU as f32;
        if wave > (context / low) as f32 {
            return frequency / factor;
        }
        if wave < (context / high) as f32 {
            return frequency;
        }
        let smooth = (wave.recip() * context as f32 - low as f32) / (high - low) as f32;
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
