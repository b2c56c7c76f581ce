//! Perplexity of a text under a model.

use std::ops::ControlFlow;

use crate::engine::{Engine, KvType};
use crate::sampling::LogProbs;
use crate::{ModelError, Sequence};

/// Result of [`perplexity`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// Mean negative log-likelihood of the predicted tokens, in nats.
    pub nats_per_token: f64,
    /// Number of predicted tokens.
    pub tokens: usize,
}

impl Perplexity {
    /// `exp` of the mean negative log-likelihood.
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token.exp()
    }

    /// The combined result of several parts.
    pub fn of_all(parts: &[Perplexity]) -> Self {
        let tokens = parts.iter().map(|p| p.tokens).sum();
        let nats: f64 = parts.iter().filter(|p| p.tokens > 0).map(|p| p.nats_per_token * p.tokens as f64).sum();
        Self { nats_per_token: nats / tokens as f64, tokens }
    }
}

/// Logits computed at once, which bounds the memory.
const LOGITS_AT_ONCE: usize = 1 << 22;

/// Perplexity of `tokens` in windows of `window`: window `i` reads `t[iN .. iN+N-1]` and predicts `t[iN+1 .. iN+N]`;
/// nothing is carried from one window to the next, and the last one is shorter. `progress` receives the number of
/// predicted tokens and the total, and may break, which returns the result so far.
///
/// # Errors
/// [`ModelError::EmptyPrompt`] for fewer than two tokens, [`ModelError::Sampling`] for a window of 0; the errors of
/// [`Engine::step`].
pub fn perplexity(
    engine: &Engine,
    tokens: &[u32],
    window: usize,
    kv: KvType,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Perplexity, ModelError> {
    let (mut nats, mut done) = (0.0, 0);
    each_prediction(engine, tokens, window, kv, progress, &mut |_, n| {
        nats += n;
        done += 1;
    })?;
    Ok(Perplexity { nats_per_token: nats / done as f64, tokens: done })
}

/// Like [`perplexity`], separately for each stretch of `stretch` positions in a window: the decrease of the loss from
/// the first positions to the last shows whether a model uses what it has read. The last stretch may be shorter.
///
/// # Errors
/// The errors of [`perplexity`]; [`ModelError::Sampling`] for stretches of 0 positions.
pub fn perplexity_by_position(
    engine: &Engine,
    tokens: &[u32],
    [window, stretch]: [usize; 2],
    kv: KvType,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Perplexity>, ModelError> {
    if stretch == 0 {
        return Err(ModelError::Sampling { option: "stretch", value: "0".into(), must: "at least 1" });
    }
    let mut stretches: Vec<Perplexity> = Vec::new();
    each_prediction(engine, tokens, window, kv, progress, &mut |place, n| {
        let at = place / stretch;
        if at >= stretches.len() {
            stretches.resize(at + 1, Perplexity { nats_per_token: 0.0, tokens: 0 });
        }
        // Sums until all predictions are done.
        stretches[at].nats_per_token += n;
        stretches[at].tokens += 1;
    })?;
    stretches.iter_mut().for_each(|s| s.nats_per_token /= s.tokens as f64);
    Ok(stretches)
}

/// Reports, for every prediction, its position in its window, counted from 0, and its negative log-likelihood.
fn each_prediction(
    engine: &Engine,
    tokens: &[u32],
    window: usize,
    kv: KvType,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    see: &mut dyn FnMut(usize, f64),
) -> Result<(), ModelError> {
    if window == 0 {
        return Err(ModelError::Sampling { option: "window", value: "0".into(), must: "at least 1" });
    }
    if tokens.len() < 2 {
        return Err(ModelError::EmptyPrompt);
    }
    let (inputs, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    let vocab = engine.config().vocab_size;
    let at_once = (LOGITS_AT_ONCE / vocab).clamp(1, window);
    let mut sequence = Sequence::new(engine, kv, Some(window));
    let mut done = 0;
    for (inputs, targets) in inputs.chunks(window).zip(targets.chunks(window)) {
        sequence.rewind(0)?;
        let mut place = 0;
        for (inputs, targets) in inputs.chunks(at_once).zip(targets.chunks(at_once)) {
            let logits = sequence.feed_each(inputs)?;
            for (row, &target) in logits.chunks_exact(vocab).zip(targets) {
                see(place, negative_log_likelihood(row, target, place)?);
                place += 1;
            }
        }
        done += targets.len();
        if progress(done, tokens.len() - 1).is_break() {
            break;
        }
    }
    Ok(())
}

/// `-log softmax(logits)[target]`, computed in f64.
fn negative_log_likelihood(logits: &[f32], target: u32, position: usize) -> Result<f64, ModelError> {
    let nll = -LogProbs::new(logits, position)?.of(target);
    if nll.is_finite() { Ok(nll) } else { Err(ModelError::Diverged { what: "the logits", position }) }
}
