//! Sampling options that are given in part: recommendations of a model's files, settings of a request or a command
//! line.

use super::SamplingOptions;

/// Some of the [`SamplingOptions`]; `None` leaves an option unchanged.
///
/// ```
/// use bitnet_model::sampling::{SamplingOptions, SamplingOverrides};
/// let file = SamplingOverrides { top_k: Some(20), temperature: Some(0.6), ..Default::default() };
/// let caller = SamplingOverrides { temperature: Some(0.0), ..Default::default() };
/// let options = caller.apply(file.apply(SamplingOptions::default()));
/// assert_eq!((options.top_k, options.temperature), (20, 0.0));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingOverrides {
    /// See [`SamplingOptions::temperature`].
    pub temperature: Option<f32>,
    /// See [`SamplingOptions::top_k`].
    pub top_k: Option<usize>,
    /// See [`SamplingOptions::top_p`].
    pub top_p: Option<f32>,
    /// See [`SamplingOptions::min_p`].
    pub min_p: Option<f32>,
    /// See [`SamplingOptions::repeat_penalty`].
    pub repeat_penalty: Option<f32>,
    /// See [`SamplingOptions::repeat_last_n`].
    pub repeat_last_n: Option<usize>,
    /// See [`SamplingOptions::presence_penalty`].
    pub presence_penalty: Option<f32>,
    /// See [`SamplingOptions::frequency_penalty`].
    pub frequency_penalty: Option<f32>,
    /// See [`SamplingOptions::seed`].
    pub seed: Option<u64>,
}

impl SamplingOverrides {
    /// `options` with these overrides.
    #[must_use]
    pub fn apply(&self, options: SamplingOptions) -> SamplingOptions {
        // Both are destructured field by field, so that no new option is forgotten here.
        let Self {
            temperature,
            top_k,
            top_p,
            min_p,
            repeat_penalty,
            repeat_last_n,
            presence_penalty,
            frequency_penalty,
            seed,
        } = self;
        SamplingOptions {
            temperature: temperature.unwrap_or(options.temperature),
            top_k: top_k.unwrap_or(options.top_k),
            top_p: top_p.unwrap_or(options.top_p),
            min_p: min_p.unwrap_or(options.min_p),
            repeat_penalty: repeat_penalty.unwrap_or(options.repeat_penalty),
            repeat_last_n: repeat_last_n.unwrap_or(options.repeat_last_n),
            presence_penalty: presence_penalty.unwrap_or(options.presence_penalty),
            frequency_penalty: frequency_penalty.unwrap_or(options.frequency_penalty),
            seed: seed.unwrap_or(options.seed),
        }
    }
}
