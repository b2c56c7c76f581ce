//! Inner losses of a text, read in pieces between the tokens of other texts.

use bitnet::{Model, ModelError, Sequence};
use tokio::sync::oneshot;

use super::{Failure, Reading};

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
    model: Model,
    ids: Vec<u32>,
    /// The part that was read; its state takes memory only once the text has its turn.
    sequence: Option<Sequence>,
    points: Vec<LossPoint>,
    /// `None` once it was sent. The job is cancelled when it is closed.
    answer: Option<Answer>,
}

impl Losses {
    /// The text `ids` of a model with test-time-training layers. Nothing is computed before the first step.
    pub(crate) fn new(model: &Model, ids: Vec<u32>, answer: Answer) -> Self {
        Self { model: model.clone(), ids, sequence: None, points: Vec::new(), answer: Some(answer) }
    }

    fn read_so_far(&self) -> usize {
        self.sequence.as_ref().map_or(0, Sequence::len)
    }

    fn read(&mut self, tokens: usize) -> Result<(), ModelError> {
        let config = self.model.config();
        let (batch, heads) = (config.ttt.mini_batch_size.max(1), config.num_attention_heads);
        let from = self.read_so_far();
        let whole = (tokens / batch).max(1) * batch;
        let piece = self.ids.get(from..self.ids.len().min(from + whole)).unwrap_or_default();
        let new = || Sequence::new(self.model.engine(), self.model.kv_type(), None);
        let losses = self.sequence.get_or_insert_with(new).feed_watched(piece)?;
        let in_batch = batch * heads;
        for (i, at) in (from..from + piece.len()).step_by(batch).enumerate() {
            let mean = |layer: &Vec<f32>| {
                let part = layer.chunks(in_batch).nth(i).unwrap_or_default();
                part.iter().sum::<f32>() / part.len().max(1) as f32
            };
            self.points.push(LossPoint { at, layers: losses.iter().map(mean).collect() });
        }
        Ok(())
    }
}

impl Reading for Losses {
    fn tokens_left(&self) -> usize {
        self.ids.len() - self.read_so_far()
    }

    fn is_gone(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::is_closed)
    }

    /// Reads whole mini-batches.
    fn step(&mut self, tokens: usize) -> bool {
        let result = self.read(tokens);
        let ended = result.is_err() || self.tokens_left() == 0;
        if ended && let Some(answer) = self.answer.take() {
            let points = std::mem::take(&mut self.points);
            // The client may be gone.
            let _ = answer.send(result.map(|()| points).map_err(|e| Failure::Model(e.into())));
        }
        ended
    }

    fn fail(&mut self, failure: Failure) {
        if let Some(answer) = self.answer.take() {
            // The client may be gone.
            let _ = answer.send(Err(failure));
        }
    }
}
