//! Texts as vectors: the hidden states after the last layer, pooled.

use std::collections::VecDeque;

use crate::ModelError;
pub use crate::config::Pooling;
use crate::engine::{Engine, HeadRequest, KvType, LogitsWanted, SequenceState, StepInput, StepOutput};

/// Tokens per pass in [`embed`].
const TOKENS_AT_ONCE: usize = 256;

/// The vector of each text, `[hidden]` f32 each: its hidden states after the last layer and the norm before the head,
/// pooled; scaled to length 1 with `normalize`. Without a `pooling`, that of the model's file is used, or the mean.
/// Many short texts share a pass over the weights, and each vector is the same, bit for bit, as that of the text alone.
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
/// [`ModelError::EmptyPrompt`] for a text without tokens, and the errors of [`Engine::step`].
pub fn embed(
    engine: &Engine,
    texts: &[&[u32]],
    kv: KvType,
    pooling: impl Into<Option<Pooling>>,
    normalize: bool,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut embedding = Embedding::new(texts.iter().map(|t| t.to_vec()), kv, pooling, normalize)?;
    while !embedding.is_finished() {
        embedding.step(engine, TOKENS_AT_ONCE)?;
    }
    Ok(embedding.finish())
}

/// Texts that become vectors, one pass over the weights at a time: between passes the caller may do something else, or
/// give up. The vectors are those of [`embed`], bit for bit, for any division into passes.
///
/// ```
/// use bitnet_model::embedding::{Embedding, Pooling, embed};
/// # use bitnet_model::*;
/// # let weights = ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(96, 64, 128, 2, 2, 1), 7))?;
/// # let engine = Engine::new(&weights, &EngineOptions::default().threads(1))?;
/// let mut embedding = Embedding::new([vec![1, 2, 3], vec![4]], KvType::F16, Pooling::Mean, true)?;
/// while !embedding.is_finished() {
///     embedding.step(&engine, 2)?;
/// }
/// assert_eq!(embedding.finish(), embed(&engine, &[&[1, 2, 3], &[4]], KvType::F16, Pooling::Mean, true)?);
/// # Ok::<(), ModelError>(())
/// ```
#[derive(Debug)]
pub struct Embedding {
    kv: KvType,
    /// `None` for the pooling of the model.
    pooling: Option<Pooling>,
    normalize: bool,
    /// Texts that have not begun.
    waiting: VecDeque<Vec<u32>>,
    /// A text that was read in part.
    under_way: Option<Text>,
    vectors: Vec<Vec<f32>>,
    tokens_left: usize,
    out: StepOutput,
}

/// A text that is being read.
#[derive(Debug)]
struct Text {
    ids: Vec<u32>,
    read: usize,
    state: SequenceState,
    pool: Pool,
}

impl Embedding {
    /// Starts with these texts; nothing is computed yet. Without a `pooling`, that of the model's file is used, or the
    /// mean.
    ///
    /// # Errors
    /// [`ModelError::EmptyPrompt`] for a text without tokens.
    pub fn new(
        texts: impl IntoIterator<Item = Vec<u32>>,
        kv: KvType,
        pooling: impl Into<Option<Pooling>>,
        normalize: bool,
    ) -> Result<Self, ModelError> {
        let waiting: VecDeque<Vec<u32>> = texts.into_iter().collect();
        if waiting.iter().any(Vec::is_empty) {
            return Err(ModelError::EmptyPrompt);
        }
        Ok(Self {
            kv,
            pooling: pooling.into(),
            normalize,
            vectors: Vec::with_capacity(waiting.len()),
            tokens_left: waiting.iter().map(Vec::len).sum(),
            waiting,
            under_way: None,
            out: StepOutput::default().keep_hidden(),
        })
    }

    /// Whether all texts were read.
    pub fn is_finished(&self) -> bool {
        self.tokens_left == 0
    }
    /// Tokens that remain to be read.
    pub fn tokens_left(&self) -> usize {
        self.tokens_left
    }
    /// Whether a text was read in part, so that its state occupies memory.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// One pass over the weights: reads at most `tokens` tokens, of one text or of several short ones.
    /// [`Embedding::tokens_left`] decreases by the number of tokens read.
    ///
    /// # Errors
    /// The errors of [`Engine::step`]. After an error the embedding cannot continue.
    pub fn step(&mut self, engine: &Engine, tokens: usize) -> Result<(), ModelError> {
        let tokens = tokens.max(1);
        let mut texts: Vec<Text> = self.under_way.take().into_iter().collect();
        let mut left = tokens - texts.iter().map(|t| part(&t.ids, t.read, tokens).len()).sum::<usize>();
        // Texts that fit go together, possibly with the end of a longer one; only the beginning of a longer one goes
        // alone.
        while let Some(ids) = self.waiting.pop_front_if(|t| texts.is_empty() || t.len() <= left) {
            left = left.saturating_sub(ids.len());
            texts.push(self.begin(engine, ids)?);
        }
        if texts.is_empty() {
            return Ok(());
        }
        let mut inputs: Vec<StepInput<'_>> = texts
            .iter_mut()
            .map(|text| StepInput {
                state: &mut text.state,
                tokens: part(&text.ids, text.read, tokens),
                wanted: LogitsWanted::None,
                head: HeadRequest::default(),
            })
            .collect();
        self.out.clear();
        engine.step(&mut inputs, &mut self.out)?;
        drop(inputs);
        let mut rows = self.out.hidden().chunks_exact(engine.config().hidden_size);
        for mut text in texts {
            let read = part(&text.ids, text.read, tokens).len();
            rows.by_ref().take(read).for_each(|row| text.pool.add(engine, row));
            text.read += read;
            self.tokens_left -= read;
            match text.read == text.ids.len() {
                true => self.vectors.push(text.pool.finish(self.normalize)),
                false => self.under_way = Some(text),
            }
        }
        Ok(())
    }

    /// The vectors of the texts that were read, in their order.
    pub fn finish(self) -> Vec<Vec<f32>> {
        self.vectors
    }

    fn begin(&self, engine: &Engine, ids: Vec<u32>) -> Result<Text, ModelError> {
        let limit = engine.config().context_limit().unwrap_or(usize::MAX);
        let state = SequenceState::new(engine, self.kv, limit);
        engine.check(&state, &ids)?;
        let pooling = self.pooling.or(engine.config().pooling).unwrap_or_default();
        Ok(Text { ids, read: 0, state, pool: Pool::new(pooling, engine.config().hidden_size) })
    }
}

/// The next part of a text of which `read` tokens were read, at most `most` tokens.
fn part(ids: &[u32], read: usize, most: usize) -> &[u32] {
    let rest = ids.get(read..).unwrap_or_default();
    &rest[..rest.len().min(most)]
}

/// The partial vector of a text.
#[derive(Debug)]
struct Pool {
    pooling: Pooling,
    normed: Vec<f32>,
    /// In f64 and in the order of the tokens, so that it does not depend on the division into passes.
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
        match self.pooling {
            Pooling::Mean => self.sum.iter_mut().zip(&self.normed).for_each(|(s, v)| *s += f64::from(*v)),
            Pooling::First if self.tokens == 1 => {
                self.sum.iter_mut().zip(&self.normed).for_each(|(s, v)| *s = f64::from(*v));
            }
            Pooling::First | Pooling::Last => {}
        }
    }

    fn finish(self, normalize: bool) -> Vec<f32> {
        let mut vector = match self.pooling {
            Pooling::Mean => self.sum.iter().map(|s| (s / self.tokens as f64) as f32).collect(),
            Pooling::First => self.sum.iter().map(|s| *s as f32).collect(),
            Pooling::Last => self.normed,
        };
        if normalize {
            scale_to_one(&mut vector);
        }
        vector
    }
}

fn scale_to_one(v: &mut [f32]) {
    let length = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
