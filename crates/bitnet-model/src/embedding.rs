//! Texts as vectors: the hidden states behind the last layer, pooled.

use crate::ModelError;
use crate::engine::{Engine, HeadRequest, KvType, LogitsWanted, SequenceState, StepInput, StepOutput};

/// Tokens that pass together, unless one text alone is longer.
const TOKENS_AT_ONCE: usize = 256;

/// How the hidden states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all tokens.
    #[default]
    Mean,
    /// The last token's, which has read all others.
    Last,
}

/// The vector of each text, `[hidden]` f32 each: its hidden states behind the last layer and the norm before the head, pooled;
/// with `normalize` at length 1. Many short texts share a pass over the weights, and each vector is the same, bit for bit, as
/// if its text had gone alone.
///
/// ```
/// use bitnet_model::embedding::{Pooling, embed};
/// # use bitnet_model::*;
/// # let weights = ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(96, 64, 128, 2, 2, 1), 7))?;
/// # let engine = Engine::new(&weights, &EngineOptions::default().threads(1))?;
/// let vectors = embed(&engine, &[&[1, 2, 3], &[4]], KvType::F16, Pooling::Mean, true)?;
/// assert_eq!((vectors.len(), vectors[0].len()), (2, 64));
/// # Ok::<(), ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::EmptyPrompt`] for a text without tokens, and those of [`Engine::step`].
pub fn embed(
    engine: &Engine,
    texts: &[&[u32]],
    kv: KvType,
    pooling: Pooling,
    normalize: bool,
) -> Result<Vec<Vec<f32>>, ModelError> {
    if texts.iter().any(|t| t.is_empty()) {
        return Err(ModelError::EmptyPrompt);
    }
    let mut vectors = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |t: &&&[u32]| {
            tokens += t.len();
            tokens <= TOKENS_AT_ONCE
        };
        let (group, behind) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        group_into(engine, group, kv, pooling, &mut vectors)?;
        rest = behind;
    }
    if normalize {
        vectors.iter_mut().for_each(|v| scale_to_one(v));
    }
    Ok(vectors)
}

/// The vectors of texts that pass together.
fn group_into(
    engine: &Engine,
    texts: &[&[u32]],
    kv: KvType,
    pooling: Pooling,
    vectors: &mut Vec<Vec<f32>>,
) -> Result<(), ModelError> {
    let limit = engine.config().context_limit().unwrap_or(usize::MAX);
    let hidden = engine.config().hidden_size;
    let mut states: Vec<SequenceState> = texts.iter().map(|_| SequenceState::new(engine, kv, limit)).collect();
    for (state, text) in states.iter().zip(texts) {
        engine.check(state, text)?;
    }
    let mut pools: Vec<Pool> = texts.iter().map(|_| Pool::new(pooling, hidden)).collect();
    let mut out = StepOutput::default().keep_hidden();
    let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
    // One part, but for a text that is longer than a pass.
    for start in (0..longest).step_by(TOKENS_AT_ONCE) {
        let part = |t: &'_ [u32]| start.min(t.len())..(start + TOKENS_AT_ONCE).min(t.len());
        let mut inputs: Vec<StepInput<'_>> = states
            .iter_mut()
            .zip(texts)
            .map(|(state, text)| StepInput {
                state,
                tokens: &text[part(text)],
                wanted: LogitsWanted::None,
                head: HeadRequest::default(),
            })
            .collect();
        out.clear();
        engine.step(&mut inputs, &mut out)?;
        let mut rows = out.hidden().chunks_exact(hidden);
        for (pool, text) in pools.iter_mut().zip(texts) {
            rows.by_ref().take(part(text).len()).for_each(|row| pool.add(engine, row));
        }
    }
    vectors.extend(pools.into_iter().map(Pool::finish));
    Ok(())
}

/// One text's vector in the making.
struct Pool {
    pooling: Pooling,
    normed: Vec<f32>,
    /// In f64 and in the order of the tokens, so that it does not depend on how they were cut into passes.
    sum: Vec<f64>,
    tokens: usize,
}

impl Pool {
    fn new(pooling: Pooling, hidden: usize) -> Self {
        Self { pooling, normed: vec![0.0; hidden], sum: vec![0.0; hidden], tokens: 0 }
    }

    fn add(&mut self, engine: &Engine, row: &[f32]) {
        engine.final_norm(row, &mut self.normed);
        self.tokens += 1;
        if self.pooling == Pooling::Mean {
            self.sum.iter_mut().zip(&self.normed).for_each(|(s, v)| *s += f64::from(*v));
        }
    }

    fn finish(self) -> Vec<f32> {
        match self.pooling {
            Pooling::Mean => self.sum.iter().map(|s| (s / self.tokens as f64) as f32).collect(),
            Pooling::Last => self.normed,
        }
    }
}

fn scale_to_one(v: &mut [f32]) {
    let length = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
