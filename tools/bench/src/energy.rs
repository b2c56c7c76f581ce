//! Energy by the model of the BitNet b1.58 report: a fixed number of picojoules for each addition and each
//! multiplication. It counts arithmetic only; it leaves out the cost of moving bytes and all other work of a CPU.
//!
//! A ternary product costs an int8 addition for each weight; attention and the head are counted as f16 products. With
//! the report's own case, 512 tokens that all look at 512, this gives the report's 0.028 J for the layers of 2B4T.

use bitnet_model::ModelConfig;

/// Picojoules of an int8 addition at 7 nm.
const INT8_ADD: f64 = 0.007;
/// Picojoules of an f16 multiplication and an f16 addition at 7 nm.
const F16_MUL_ADD: f64 = 0.34 + 0.16;

/// Operations of one token and their energy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Computed {
    /// Weights of the projections, each of which is added once.
    pub(crate) weights: u64,
    /// Products of attention: each query with each key, each weight with each value.
    pub(crate) attention: u64,
    /// Products of the head.
    pub(crate) head: u64,
}

impl Computed {
    /// One token that looks at `context` tokens, itself included.
    pub(crate) fn token(c: &ModelConfig, context: u64) -> Self {
        let (layers, hidden) = (c.num_hidden_layers as u64, c.hidden_size as u64);
        Self {
            weights: c.ternary_weights(),
            attention: 2 * layers * hidden * context,
            head: c.vocab_size as u64 * hidden,
        }
    }

    /// Joules of the layers with ternary weights.
    pub(crate) fn ternary_joules(self) -> f64 {
        (self.weights as f64 * INT8_ADD + self.attention as f64 * F16_MUL_ADD) * 1e-12
    }

    /// Joules of the same layers with f16 weights.
    pub(crate) fn dense_joules(self) -> f64 {
        (self.weights + self.attention) as f64 * F16_MUL_ADD * 1e-12
    }

    /// Joules of the head in f16.
    pub(crate) fn head_joules(self) -> f64 {
        self.head as f64 * F16_MUL_ADD * 1e-12
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::shape;

    #[test]
    fn the_reports_own_figures_come_out() {
        let rounded = |joules: f64| (joules * 1e3).round() / 1e3;
        assert_eq!(rounded(512.0 * Computed::token(&shape(), 512).ternary_joules()), 0.028);
        // LLaMA 3.2 1B of the same table: 16 layers, hidden 2048, feed-forward 8192, 32 and 8 heads.
        let llama = ModelConfig::new(128_256, 2048, 8192, 16, 32, 8);
        assert_eq!(rounded(512.0 * Computed::token(&llama, 512).dense_joules()), 0.258);
    }
}
