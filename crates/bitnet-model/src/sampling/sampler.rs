//! The sampler: filters without a full sort, and the draw.

use std::cmp::Ordering;

use super::noise::{Noise, gumbel, gumbel_bound};
use super::{LogitsProcessor, RepeatPenalty, SamplingOptions};
use crate::ModelError;

/// Chooses tokens from logits. [The module](super) says how.
///
/// Its only state are buffers, which are allocated at the first call and reused, and whatever its processors remember.
///
/// ```
/// use bitnet_model::sampling::{Sampler, SamplingOptions};
/// let mut sampler = Sampler::new(SamplingOptions::default().with_seed(42)).unwrap();
/// let logits = [1.0, 2.0, 0.5, 1.8];
/// let token = sampler.sample(&logits, 17, &[3, 1]).unwrap();
/// assert_eq!(sampler.sample(&logits, 17, &[3, 1]).unwrap(), token); // same seed, same position: same draw
/// ```
pub struct Sampler {
    options: SamplingOptions,
    penalty: Option<RepeatPenalty>,
    processors: Vec<Box<dyn LogitsProcessor>>,
    /// Logits as changed by the processors.
    changed: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let processors = self.processors.len();
        f.debug_struct("Sampler")
            .field("options", &self.options)
            .field("processors", &processors)
            .finish_non_exhaustive()
    }
}

impl Sampler {
    /// A sampler with these options.
    ///
    /// # Errors
    /// [`ModelError::Sampling`] if an option is out of its range.
    pub fn new(options: SamplingOptions) -> Result<Self, ModelError> {
        options.validate()?;
        let penalty = if options.repeat_penalty == 1.0 || options.repeat_last_n == 0 {
            None
        } else {
            Some(RepeatPenalty::new(options.repeat_penalty, options.repeat_last_n)?)
        };
        Ok(Self { options, penalty, processors: Vec::new(), changed: Vec::new(), candidates: Vec::new() })
    }

    /// Adds a processor, which runs after those that are already there.
    pub fn add(&mut self, processor: Box<dyn LogitsProcessor>) -> &mut Self {
        self.processors.push(processor);
        self
    }

    /// The options.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The token at `position` of the text, given its `logits` `[vocab]` and `history`, the tokens before it.
    ///
    /// Plus infinity, which a processor may set, leaves only the tokens that have it, with equal probability.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] if a logit is NaN; [`ModelError::Sampling`] if no logit is above minus infinity.
    pub fn sample(&mut self, logits: &[f32], position: u64, history: &[u32]) -> Result<u32, ModelError> {
        let logits = if self.penalty.is_none() && self.processors.is_empty() {
            logits
        } else {
            self.changed.clear();
            self.changed.extend_from_slice(logits);
            if let Some(penalty) = &mut self.penalty {
                penalty.process(history, &mut self.changed);
            }
            for processor in &mut self.processors {
                processor.process(history, &mut self.changed);
            }
            &self.changed
        };
        let best = best(logits, position)?;
        if self.options.is_greedy() {
            return Ok(best.token);
        }
        let scale = Scale { max: best.logit, temperature: f64::from(self.options.temperature) };
        self.candidates.clear();
        let all = logits.iter().enumerate().map(|(i, &logit)| Candidate { logit, token: i as u32 });
        self.candidates.extend(all.filter(|c| scale.offset(c.logit) > f64::NEG_INFINITY));
        filter(&self.options, scale, &mut self.candidates);
        Ok(draw(&self.candidates, scale, best, Noise::new(self.options.seed, position)))
    }
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    logit: f32,
    token: u32,
}

/// Best first; of equal logits (0 and -0 are equal) the lower id. Logits are no NaN.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
}

/// The best token.
fn best(logits: &[f32], position: u64) -> Result<Candidate, ModelError> {
    let none = |value: &str| ModelError::Sampling {
        option: "logits",
        value: value.into(),
        must: "one value per token, at least one of them above minus infinity (a mask may have forbidden every token)",
    };
    let mut best = Candidate { logit: f32::NEG_INFINITY, token: 0 };
    let mut nan = false;
    for (i, &logit) in logits.iter().enumerate() {
        nan |= logit.is_nan();
        if logit > best.logit {
            best = Candidate { logit, token: i as u32 };
        }
    }
    match best.logit {
        _ if nan => Err(ModelError::Diverged { what: "a logit", position: position as usize }),
        _ if logits.is_empty() => Err(none("empty")),
        f32::NEG_INFINITY => Err(none("minus infinity everywhere")),
        _ => Ok(best),
    }
}

/// Logits relative to the largest one, at the temperature.
#[derive(Clone, Copy)]
struct Scale {
    max: f32,
    temperature: f64,
}

impl Scale {
    /// `(logit - max) / temperature`, at most 0; the logarithm of the probability relative to the best token's.
    fn offset(self, logit: f32) -> f64 {
        // The difference of two infinities would be NaN; in f64 no other difference of f32 overflows.
        if logit == self.max { 0.0 } else { (f64::from(logit) - f64::from(self.max)) / self.temperature }
    }

    /// Probability relative to the best token's, in units of `2^-52`. Sums of integers do not depend on their order.
    fn weight(self, logit: f32) -> u128 {
        (self.offset(logit).exp() * (1u64 << 52) as f64) as u128
    }
}

/// Applies top-k, top-p and min-p; leaves `c` in no particular order. The result does not depend on the order of `c`.
fn filter(options: &SamplingOptions, scale: Scale, c: &mut Vec<Candidate>) {
    if 0 < options.top_k && options.top_k < c.len() {
        c.select_nth_unstable_by(options.top_k - 1, rank);
        c.truncate(options.top_k);
    }
    if options.top_p < 1.0 {
        nucleus(options.top_p, scale, c);
    }
    if options.min_p > 0.0 {
        let floor = f64::from(options.min_p).ln();
        c.retain(|c| scale.offset(c.logit) >= floor);
    }
}

/// Keeps the fewest best candidates whose share of the probability reaches `top_p`.
///
/// The nucleus is usually small against the vocabulary, so the candidates are sorted in growing pieces from the top, and
/// only until the share is reached.
fn nucleus(top_p: f32, scale: Scale, c: &mut Vec<Candidate>) {
    let total: u128 = c.iter().map(|c| scale.weight(c.logit)).sum();
    let goal = total as f64 * f64::from(top_p);
    let (mut sorted, mut piece, mut mass) = (0, 64, 0u128);
    while sorted < c.len() {
        let rest = &mut c[sorted..];
        let n = piece.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n - 1, rank);
        }
        rest[..n].sort_unstable_by(rank);
        for candidate in &rest[..n] {
            mass += scale.weight(candidate.logit);
            sorted += 1;
            if mass as f64 >= goal {
                c.truncate(sorted);
                return;
            }
        }
        piece *= 4;
    }
}

/// The candidate with the largest `offset + noise`, of equal ones the lowest id. `best` is one of the candidates.
fn draw(candidates: &[Candidate], scale: Scale, best: Candidate, noise: Noise) -> u32 {
    // Beginning with the most probable token lets the bound pass over most others without a logarithm.
    let mut winner = (gumbel(noise.bits(best.token)), best.token);
    for c in candidates {
        let (offset, bits) = (scale.offset(c.logit), noise.bits(c.token));
        if offset + gumbel_bound(bits) < winner.0 {
            continue;
        }
        let score = offset + gumbel(bits);
        if score > winner.0 || (score == winner.0 && c.token < winner.1) {
            winner = (score, c.token);
        }
    }
    winner.1
}

#[cfg(test)]
mod tests;
