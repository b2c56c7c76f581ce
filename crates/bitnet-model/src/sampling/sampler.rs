//! The sampler: its request to the head, filters without a full sort, and the draw.

use std::cmp::Ordering;

use super::noise::{Noise, gumbel, gumbel_bound};
use super::penalties::Penalties;
use super::{LogitsProcessor, SamplingOptions};
use crate::{Candidate, HeadRequest, ModelError, Prediction};

/// Chooses tokens from logits, as described in [the module](super).
///
/// Its only state is buffers, which are allocated at the first call and reused, and the state of its processors.
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
    penalties: Option<Penalties>,
    processors: Vec<Box<dyn LogitsProcessor>>,
    /// Logits as changed by the processors.
    changed: Vec<f32>,
    candidates: Vec<Candidate>,
    /// Largest logit of each block of the vocabulary.
    maxima: Vec<f32>,
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
        let penalties = Penalties::new(&options);
        Ok(Self {
            options,
            penalties,
            processors: Vec::new(),
            changed: Vec::new(),
            candidates: Vec::new(),
            maxima: Vec::new(),
        })
    }

    /// Adds a processor, which runs after the existing ones.
    pub fn add(&mut self, processor: Box<dyn LogitsProcessor>) -> &mut Self {
        self.processors.push(processor);
        self
    }

    /// Sets the beginning of the text that presence and frequency penalties count: after the prompt. 0 at first.
    pub fn begin_new_text(&mut self, at: usize) {
        if let Some(penalties) = &mut self.penalties {
            penalties.begin_new_text(at);
        }
    }

    /// The options.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The logits that [`Sampler::choose`] needs for the token after `history` tokens. This is the only place that
    /// decides it.
    ///
    /// Greedy choice and `top_k` need the best tokens; the steps after `top_k` use only those. If penalties lower the
    /// logits of at most `n` tokens of the text, the `k` best after them are among the `k + n` best before them: of
    /// those, at least `k` keep their logits and their ranks before all others. `min_p` alone needs the tokens close to
    /// the best one. Everything else needs the whole vocabulary: only a temperature, `top_p` alone, processors, which
    /// may do anything, and penalties that raise logits.
    ///
    /// ```
    /// use bitnet_model::HeadRequest;
    /// use bitnet_model::sampling::{Sampler, SamplingOptions};
    /// let request = |o: SamplingOptions| Sampler::new(o).unwrap().request(1000);
    /// let o = SamplingOptions::default;
    /// assert_eq!(request(SamplingOptions::greedy()), HeadRequest::Top(1));
    /// assert_eq!(request(o().with_top_k(40)), HeadRequest::Top(40));
    /// assert_eq!(request(o().with_top_k(40).with_repeat_penalty(1.1, 64)), HeadRequest::Top(104));
    /// assert!(matches!(request(o().with_top_p(1.0).with_min_p(0.1)), HeadRequest::WithinMargin(_)));
    /// assert_eq!(request(o().with_top_p(0.9)), HeadRequest::Full);
    /// ```
    pub fn request(&self, history: usize) -> HeadRequest {
        /// A penalty searches the candidates for each token of the recent text: no more than this.
        const MOST_PENALISED: usize = 256;
        let o = &self.options;
        let penalised = self.penalties.as_ref().map_or(Some(0), |p| p.most_lowered(history));
        let Some(penalised) = penalised.filter(|n| *n <= MOST_PENALISED && self.processors.is_empty()) else {
            return HeadRequest::Full;
        };
        let k = if o.is_greedy() { 1 } else { o.top_k };
        if k > 0 {
            HeadRequest::Top(k.saturating_add(penalised))
        } else if o.min_p > 0.0 && o.top_p >= 1.0 && penalised == 0 {
            HeadRequest::WithinMargin(-distance(o, f64::from(o.min_p).ln()))
        } else {
            HeadRequest::Full
        }
    }

    /// The token at `position` of the text, given the prediction for it (the answer to [`Sampler::request`] or to a
    /// request that covers it) and `history`, the tokens before it. The best logits lead to the same token as all
    /// logits.
    ///
    /// # Errors
    /// The errors of [`Sampler::sample`].
    pub fn choose(&mut self, p: Prediction<'_>, position: u64, history: &[u32]) -> Result<u32, ModelError> {
        match p {
            Prediction::Full(logits) => self.sample(logits, position, history),
            Prediction::Best(candidates) => self.sample_best(candidates, position, history),
        }
    }

    fn sample_best(&mut self, best: &[Candidate], position: u64, history: &[u32]) -> Result<u32, ModelError> {
        self.candidates.clear();
        self.candidates.extend_from_slice(best);
        let c = &mut self.candidates;
        if let Some(penalties) = &self.penalties {
            penalties.process_best(history, c);
        }
        let best = best_of(c, position)?;
        if self.options.is_greedy() {
            return Ok(best.token);
        }
        let scale = if best.logit == f32::INFINITY {
            certain(c);
            Scale::new(&self.options, 0.0)
        } else {
            c.retain(|c| c.logit > f32::NEG_INFINITY);
            Scale::new(&self.options, best.logit)
        };
        filter(&self.options, scale, None, c);
        Ok(draw(c, scale, best.token, Noise::new(self.options.seed, position)))
    }

    /// The token at `position` of the text, given its `logits` `[vocab]` and `history`, the tokens before it.
    ///
    /// Plus infinity, which a processor may set, leaves only the tokens with it, with equal probability.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] if a logit is NaN; [`ModelError::Sampling`] if no logit is above minus infinity.
    pub fn sample(&mut self, logits: &[f32], position: u64, history: &[u32]) -> Result<u32, ModelError> {
        let logits = if self.penalties.is_none() && self.processors.is_empty() {
            logits
        } else {
            self.changed.clear();
            self.changed.extend_from_slice(logits);
            for processor in &mut self.processors {
                processor.process(history, &mut self.changed);
            }
            if let Some(penalties) = &mut self.penalties {
                penalties.process(history, &mut self.changed);
            }
            &self.changed
        };
        let best = best(logits, position)?;
        if self.options.is_greedy() {
            return Ok(best.token);
        }
        let scale = gather(&self.options, best, logits, &mut self.candidates, &mut self.maxima);
        Ok(draw(&self.candidates, scale, best.token, Noise::new(self.options.seed, position)))
    }
}

/// Best first; of equal logits (0 and -0 are equal) the lower id. Logits are not NaN.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
}

/// The error if there is nothing to choose from.
fn none(value: &str) -> ModelError {
    ModelError::Sampling {
        option: "logits",
        value: value.into(),
        must: "one value per token, at least one of them above minus infinity (a mask may have forbidden every token)",
    }
}

fn diverged(position: u64) -> ModelError {
    ModelError::Diverged { what: "a logit", position: position as usize }
}

/// The best of some tokens.
fn best_of(c: &[Candidate], position: u64) -> Result<Candidate, ModelError> {
    if c.iter().any(|c| c.logit.is_nan()) {
        return Err(diverged(position));
    }
    match c.iter().min_by(|a, b| rank(a, b)) {
        None => Err(none("empty")),
        Some(best) if best.logit == f32::NEG_INFINITY => Err(none("minus infinity everywhere")),
        Some(best) => Ok(*best),
    }
}

/// Keeps only the certain tokens (plus infinity), with finite logits.
fn certain(c: &mut Vec<Candidate>) {
    c.retain(|c| c.logit == f32::INFINITY);
    c.iter_mut().for_each(|c| c.logit = 0.0);
}

/// The distance from the largest logit of tokens whose probability is `exp(floor)` relative to the best one, or
/// slightly more, so that rounding cannot lose one.
fn distance(options: &SamplingOptions, floor: f64) -> f64 {
    floor * f64::from(options.temperature) * (1.0 + 1e-6)
}

/// The best token. Several lanes side by side, since a single chain of comparisons would cost more than a small head.
fn best(logits: &[f32], position: u64) -> Result<Candidate, ModelError> {
    const LANES: usize = 32;
    // Numbers instead of flags: LLVM 22 makes a wrong test of whether one of 32 flags is set, for WebAssembly with SIMD.
    let (mut maxima, mut nans) = ([f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for ((max, nan), &l) in maxima.iter_mut().zip(&mut nans).zip(chunk) {
            *max = if l > *max { l } else { *max };
            *nan |= u32::from(l.is_nan());
        }
    }
    let max = rest.iter().chain(&maxima).fold(f32::NEG_INFINITY, |m, &l| if l > m { l } else { m });
    if rest.iter().any(|l| l.is_nan()) || nans.iter().fold(0, |any, nan| any | nan) != 0 {
        return Err(diverged(position));
    }
    // Zeros of either sign are equal, as in the ranks.
    let chunk = chunks.iter().position(|c| c.iter().fold(false, |is, &l| is | (l == max))).unwrap_or(chunks.len());
    match logits[chunk * LANES..].iter().position(|&l| l == max) {
        None => Err(none("empty")),
        Some(_) if max == f32::NEG_INFINITY => Err(none("minus infinity everywhere")),
        Some(at) => Ok(Candidate { logit: max, token: (chunk * LANES + at) as u32 }),
    }
}

/// Logits relative to the largest one, at the temperature.
#[derive(Clone, Copy)]
struct Scale {
    max: f32,
    temperature: f64,
    /// `log2(e) / temperature`.
    log2: f64,
}

impl Scale {
    /// One unit of [`Scale::weight`]; sums over the largest vocabulary, `2^24` tokens, fit 64 bits.
    const UNIT: f64 = 1.0 / (1u64 << 38) as f64;

    fn new(options: &SamplingOptions, max: f32) -> Self {
        let temperature = f64::from(options.temperature);
        Self { max, temperature, log2: std::f64::consts::LOG2_E / temperature }
    }

    /// `(logit - max) / temperature`, at most 0: the logarithm of the probability relative to that of the best token.
    /// Both are finite, so in f64 their difference is.
    fn offset(self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.max)) / self.temperature
    }

    /// Probability relative to that of the best token, `exp(offset)`, in units of `2^-38`, to within one unit. `max` is
    /// finite.
    ///
    /// Sums of integers do not depend on their order, and the exponential consists of additions and multiplications, so
    /// filters decide equally on every machine; without a branch or a call the compiler can vectorise it.
    fn weight(self, logit: f32) -> u64 {
        /// `1.5 * 2^52`: adding it leaves the nearest integer in the low bits of the sum.
        const ROUNDER: f64 = 6_755_399_441_055_744.0;
        // Below 2^-100 the result is 0 anyway.
        let y = ((f64::from(logit) - f64::from(self.max)) * self.log2).max(-100.0);
        let shifted = y + ROUNDER;
        // exp(x) with |x| <= ln(2) / 2 by its Taylor series; the first omitted term is below 2^-42.
        let x = (y - (shifted - ROUNDER)) * std::f64::consts::LN_2;
        let tail = 1. / 5040. + x * (1. / 40_320. + x * (1. / 362_880. + x * (1. / 3_628_800.)));
        let head = 1.
            + x * (1. + x * (1. / 2. + x * (1. / 6. + x * (1. / 24. + x * (1. / 120. + x * (1. / 720. + x * tail))))));
        let exponent = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(1023 + 38);
        let scaled = head * f64::from_bits(exponent << 52);
        (scaled + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits())
    }
}

/// Collects the tokens that pass the filters, in no particular order, and returns the scale of their logits.
fn gather(
    options: &SamplingOptions,
    best: Candidate,
    logits: &[f32],
    c: &mut Vec<Candidate>,
    maxima: &mut Vec<f32>,
) -> Scale {
    let every = || logits.iter().enumerate().map(|(i, &logit)| Candidate { logit, token: i as u32 });
    c.clear();
    if best.logit == f32::INFINITY {
        c.extend(every());
        certain(c);
        let scale = Scale::new(options, 0.0);
        filter(options, scale, None, c);
        return scale;
    }
    let scale = Scale::new(options, best.logit);
    let top_k = 0 < options.top_k && options.top_k < logits.len();
    let mut floor = f64::NEG_INFINITY;
    let mut total = None;
    if options.top_p < 1.0 && !top_k {
        total = Some(logits.iter().map(|&l| scale.weight(l)).sum());
        // Tokens below the floor are so improbable that all of them together have less than the share 1 - top_p, even
        // if the best token alone counts as the whole; so the best ones that reach top_p are above it. (Not if rounding
        // could interfere.)
        let tail = (1.0 - f64::from(options.top_p)) / (2 * logits.len()) as f64;
        floor = if tail > 4.0 * Scale::UNIT { tail.ln() } else { floor };
    }
    if options.min_p > 0.0 && !top_k {
        floor = floor.max(f64::from(options.min_p).ln());
    }
    let floor = if top_k {
        f64::from(bound_of_kth(logits, options.top_k, maxima))
    } else {
        // The smallest logit with that offset, or a little less.
        f64::from(scale.max) + distance(options, floor)
    };
    // Forbidden tokens are never candidates.
    let floor = floor.max(f64::from(f32::MIN));
    c.extend(every().filter(|c| f64::from(c.logit) >= floor));
    filter(options, scale, total, c);
    scale
}

/// A number that at least `k` logits reach: the k-th largest of the maxima of blocks. Finding it reads most logits only
/// once, and few logits are above it.
fn bound_of_kth(logits: &[f32], k: usize, maxima: &mut Vec<f32>) -> f32 {
    let blocks = logits.chunks(64);
    if k == 0 || k > blocks.len() {
        return f32::NEG_INFINITY;
    }
    maxima.clear();
    maxima.extend(blocks.map(|b| b.iter().fold(f32::NEG_INFINITY, |m, &l| if l > m { l } else { m })));
    *maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Applies top-k, top-p and min-p to candidates, whose weights sum to `total` if that is known; leaves them in no
/// particular order. The result does not depend on their order. Logits are finite.
fn filter(options: &SamplingOptions, scale: Scale, total: Option<u64>, c: &mut Vec<Candidate>) {
    if 0 < options.top_k && options.top_k < c.len() {
        c.select_nth_unstable_by(options.top_k - 1, rank);
        c.truncate(options.top_k);
    }
    if options.top_p < 1.0 {
        let total = total.unwrap_or_else(|| c.iter().map(|c| scale.weight(c.logit)).sum());
        nucleus(total as f64 * f64::from(options.top_p), scale, c);
    }
    if options.min_p > 0.0 {
        let floor = f64::from(options.min_p).ln();
        c.retain(|c| scale.offset(c.logit) >= floor);
    }
}

/// Keeps the fewest best candidates whose weights reach `goal`, at least one.
///
/// The nucleus is usually small compared with the vocabulary, so the candidates are sorted in growing pieces from the
/// top, and only until the goal is reached.
fn nucleus(goal: f64, scale: Scale, c: &mut Vec<Candidate>) {
    let (mut sorted, mut piece, mut mass) = (0, 64, 0u64);
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

/// The candidate with the largest `offset + noise`, of equal ones the lowest id. `best` is the most probable of them.
fn draw(candidates: &[Candidate], scale: Scale, best: u32, noise: Noise) -> u32 {
    // Starting with the most probable token, the bound excludes most others without a logarithm.
    let mut winner = (gumbel(noise.bits(best)), best);
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
