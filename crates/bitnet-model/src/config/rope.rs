//! Rotary position embeddings that are stretched for contexts longer than those of training.

use ternary_kernels::RopeTable;

use super::ModelConfig;
use crate::ModelError;

/// How the frequencies of the rotary position embedding are changed.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// Positions are divided by `factor`: every frequency is.
    Linear {
        /// A positive number.
        factor: f64,
    },
    /// As Llama 3.1: slow frequencies are divided by `factor`, fast ones stay, those between are mixed.
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
    /// Each frequency is divided by its own factor, `[head_dim / 2]`: what GGUF files hold as a tensor.
    Factors(Vec<f32>),
}

impl ModelConfig {
    /// The frequencies of the rotary embedding, `[head_dim / 2]`, in f32 as the published implementations compute them.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        let plain = || RopeTable::new(0, self.head_dim, self.rope_theta as f32).frequencies().to_vec();
        match &self.rope_scaling {
            RopeScaling::None => plain(),
            RopeScaling::Linear { factor } => plain().iter().map(|f| f / *factor as f32).collect(),
            RopeScaling::Llama3 { .. } => plain().iter().map(|f| self.rope_scaling.llama3(*f)).collect(),
            RopeScaling::Factors(factors) => plain().iter().zip(factors).map(|(f, factor)| f / factor).collect(),
        }
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
            RopeScaling::Factors(factors) => {
                if factors.len() != self.head_dim / 2 {
                    return bad(format!("{} factors", factors.len()), "one factor for every two elements of a head");
                }
                match factors.iter().find(|f| !positive(f64::from(**f))) {
                    Some(factor) => bad(format!("a factor of {factor}"), "positive factors"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl RopeScaling {
    /// Step by step as transformers computes it in f32, so that the last bits agree.
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
