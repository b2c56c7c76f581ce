//! The probabilities of possible continuations of a text.
//!
//! The common beginning of all continuations is read once; the remaining parts go through the model together.

use crate::engine::{Engine, HeadRequest, LogitsWanted, StepInput, StepOutput};
use crate::sampling::LogProbs;
use crate::{ModelError, Sequence};

/// Logits computed at once, which bounds the memory.
const LOGITS_AT_ONCE: usize = 1 << 22;
/// Forks of the text are made for at most this many bytes at a time, or for one continuation.
const STATE_BYTES_AT_ONCE: usize = 1 << 28;

/// The natural logarithm of the probability of each token of each continuation of `text`, given all tokens before it.
/// `text` does not change.
///
/// The results do not depend on the other continuations, bit for bit.
///
/// ```
/// use bitnet_model::scoring::log_probs;
/// # use bitnet_model::*;
/// # let weights = ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(96, 64, 128, 2, 2, 1), 7))?;
/// # let engine = Engine::new(&weights, &EngineOptions::default().threads(1))?;
/// let mut text = Sequence::new(&engine, KvType::F16, None);
/// text.feed(&[1, 2, 3])?;
/// let scores = log_probs(&text, &[&[4, 5, 6], &[4, 7]])?;
/// assert_eq!((scores[0].len(), scores[1].len()), (3, 2));
/// assert_eq!(scores[0][0], scores[1][0]); // the same token after the same text
/// # Ok::<(), ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::EmptyPrompt`] if `text` is empty; a token outside the vocabulary, a continuation that does not fit;
/// [`ModelError::Diverged`] if the logits are not finite.
pub fn log_probs(text: &Sequence, continuations: &[&[u32]]) -> Result<Vec<Vec<f64>>, ModelError> {
    if text.is_empty() {
        return Err(ModelError::EmptyPrompt);
    }
    let engine = text.engine().clone();
    for c in continuations {
        text.check(c)?;
    }
    let Some(first) = continuations.first() else { return Ok(Vec::new()) };
    let common = continuations.iter().skip(1).fold(first.len(), |n, c| same(&first[..n], c));
    // The last token of a continuation is never read: nothing follows it.
    let shortest = continuations.iter().map(|c| c.len()).min().unwrap_or(0);
    let shared = common.min(shortest.saturating_sub(1));
    let mut base = text.fork();
    base.require(HeadRequest::Full)?;
    let mut scores: Vec<Vec<f64>> = continuations.iter().map(|c| Vec::with_capacity(c.len())).collect();
    let at_once = tokens_at_once(&engine);
    for part in first[..shared].chunks(at_once) {
        // The prediction before the part, and the predictions after all but the last token of the part.
        let before = base.len();
        let last = base.logits().to_vec();
        let rows = base.feed_each(part)?;
        let vocab = engine.config().vocab_size;
        let logits = std::iter::once(&last[..]).chain(rows.chunks_exact(vocab));
        for ((&token, logits), position) in part.iter().zip(logits).zip(before..) {
            let p = LogProbs::new(logits, position)?.of(token);
            scores.iter_mut().for_each(|s| s.push(p));
        }
    }
    let next = base.logits().to_vec();
    let next = LogProbs::new(&next, base.len())?;
    for (score, c) in scores.iter_mut().zip(continuations) {
        score.extend(c.get(shared).map(|&token| next.of(token)));
    }
    let each = base.state().fork_bytes().max(1);
    let group = (STATE_BYTES_AT_ONCE / each).max(1);
    for (scores, continuations) in scores.chunks_mut(group).zip(continuations.chunks(group)) {
        let rests: Vec<&[u32]> = continuations.iter().map(|c| c.get(shared..).unwrap_or_default()).collect();
        together(&engine, &base, &rests, scores, at_once)?;
    }
    Ok(scores)
}

/// Tokens whose logits are computed at once.
fn tokens_at_once(engine: &Engine) -> usize {
    (LOGITS_AT_ONCE / engine.config().vocab_size).clamp(1, 256)
}

/// Appends to `scores` the predictions after the first token of each of `rests`; each has a copy of `base`.
fn together(
    engine: &Engine,
    base: &Sequence,
    rests: &[&[u32]],
    scores: &mut [Vec<f64>],
    at_once: usize,
) -> Result<(), ModelError> {
    // Nothing is read for a continuation with one remaining token.
    let mut forks: Vec<Sequence> = rests
        .iter()
        .map(|r| if r.len() > 1 { base.fork() } else { Sequence::new(engine, base.state().kv_type(), None) })
        .collect();
    let mut read = vec![0; rests.len()];
    let mut out = StepOutput::default();
    loop {
        // A share of the pass for each unfinished continuation.
        let open = rests.iter().zip(&read).filter(|(r, n)| **n + 1 < r.len()).count();
        if open == 0 {
            return Ok(());
        }
        let share = (at_once / open).max(1);
        let takes: Vec<usize> =
            rests.iter().zip(&read).map(|(r, n)| r.len().saturating_sub(n + 1).min(share)).collect();
        let mut inputs: Vec<StepInput<'_>> = forks
            .iter_mut()
            .zip(rests)
            .zip(read.iter().zip(&takes))
            .filter(|(_, (_, take))| **take > 0)
            .map(|((fork, rest), (n, take))| fork.step_input(&rest[*n..n + take], LogitsWanted::All, HeadRequest::Full))
            .collect();
        out.clear();
        engine.step(&mut inputs, &mut out)?;
        drop(inputs);
        let mut rows = out.logits().chunks_exact(engine.config().vocab_size);
        for ((rest, score), (n, take)) in rests.iter().zip(&mut *scores).zip(read.iter_mut().zip(&takes)) {
            for (&token, logits) in rest.get(*n + 1..).unwrap_or_default().iter().zip(rows.by_ref().take(*take)) {
                score.push(LogProbs::new(logits, base.len() + score.len())?.of(token));
            }
            *n += take;
        }
    }
}

/// The length of the common beginning.
fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
