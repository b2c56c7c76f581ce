//! Inner losses of a text, read in pieces between the tokens of other texts.

use bitnet::{KvType, Model, ModelError, Sequence};
use tokio::sync::oneshot;

use super::Failure;

/// The inner loss over one mini-batch of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LossPoint {
    /// Position of its first token.
    pub(crate) at: usize,
    /// For each test-time-training layer the mean over the tokens and heads.
    pub(crate) layers: Vec<f32>,
}

/// The receiver of the losses.
pub(crate) type Answer = oneshot::Sender<Result<Vec<LossPoint>, Failure>>;

/// A text whose inner losses are requested, and how far it was read.
#[derive(Debug)]
pub(crate) struct Losses {
    sequence: Sequence,
    ids: Vec<u32>,
    /// Tokens of a mini-batch, and heads of a layer.
    batch: usize,
    heads: usize,
    points: Vec<LossPoint>,
    /// `None` once it was sent. The job is cancelled when it is closed.
    answer: Option<Answer>,
}

impl Losses {
    /// The text `ids` of a model with test-time-training layers. Nothing is computed before the first step.
    pub(crate) fn new(model: &Model, ids: Vec<u32>, answer: Answer) -> Self {
        let config = model.config();
        Self {
            sequence: Sequence::new(model.engine(), KvType::F16, None),
            ids,
            batch: config.ttt.mini_batch_size.max(1),
            heads: config.num_attention_heads,
            points: Vec::new(),
            answer: Some(answer),
        }
    }

    /// Tokens that are to be read.
    pub(crate) fn tokens_left(&self) -> usize {
        self.ids.len() - self.sequence.len()
    }

    /// Whether the client is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::is_closed)
    }

    /// Reads about `tokens` tokens, whole mini-batches; whether the answer was sent.
    pub(crate) fn step(&mut self, tokens: usize) -> bool {
        let result = self.read(tokens);
        let ended = result.is_err() || self.tokens_left() == 0;
        if ended && let Some(answer) = self.answer.take() {
            let points = std::mem::take(&mut self.points);
            // The client may be gone.
            let _ = answer.send(result.map(|()| points).map_err(|e| Failure::Model(e.into())));
        }
        ended
    }

    fn read(&mut self, tokens: usize) -> Result<(), ModelError> {
        let from = self.sequence.len();
        let whole = (tokens / self.batch).max(1) * self.batch;
        let piece = self.ids.get(from..self.ids.len().min(from + whole)).unwrap_or_default();
        let losses = self.sequence.feed_watched(piece)?;
        let in_batch = self.batch * self.heads;
        for (i, at) in (from..from + piece.len()).step_by(self.batch).enumerate() {
            let mean = |layer: &Vec<f32>| {
                let part = layer.chunks(in_batch).nth(i).unwrap_or_default();
                part.iter().sum::<f32>() / part.len().max(1) as f32
            };
            self.points.push(LossPoint { at, layers: losses.iter().map(mean).collect() });
        }
        Ok(())
    }

    /// Ends it without a result.
    pub(crate) fn fail(mut self, failure: Failure) {
        if let Some(answer) = self.answer.take() {
            // The client may be gone.
            let _ = answer.send(Err(failure));
        }
    }
}
