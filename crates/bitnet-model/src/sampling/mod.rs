//! From logits to a token: penalties and masks, the filters top-k, top-p and min-p, and a reproducible draw.
//!
//! # Steps from the logits to the token, in order
//! 1. Every [`LogitsProcessor`] in the order in which it was added; then the repeat penalty, then the presence and the
//!    frequency penalty.
//! 2. Temperature 0 (greedy): the largest logit, of equal ones the lowest id. The steps below do not apply.
//! 3. Division by the temperature. All further steps use the probabilities of the actual draw, as in transformers
//!    (llama.cpp divides last by default, so the same `top_p` keeps fewer tokens there at high temperatures).
//! 5. `top_p`: of those, the fewest best tokens whose share of the probability reaches `top_p`.
//! 6. `min_p`: of those, the tokens at least `min_p` times as probable as the best.
//! 7. The draw.
//!
//! Steps 4 to 6 keep at least the best token.
//!
//! # The draw
//! Gumbel-max: the token with the largest `logit / temperature + g(seed, position, token)`, where the `g` are standard
//! Gumbel noise ([`gumbel_noise`]); its distribution is exactly the softmax over the remaining tokens. The noise is a
//! pure function, not the state of a generator, so it does not matter how many draws were made before, in which order,
//! in which batch, or whether a speculated token was discarded: the same seed gives the same text.

mod logprob;
mod noise;
mod options;
mod outcome;
mod overrides;
mod penalties;
mod processor;
mod sampler;

pub use logprob::LogProbs;
pub use noise::gumbel_noise;
pub use options::SamplingOptions;
pub use outcome::{CancelToken, FinishReason};
pub use overrides::SamplingOverrides;
pub use processor::{LogitBias, LogitsProcessor};
pub use sampler::Sampler;
