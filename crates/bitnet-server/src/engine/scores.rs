//! Probabilities of the tokens of a text, read in pieces between the tokens of other texts.

use bitnet::{Scoring, TokenLogprob};
use tokio::sync::oneshot;

use super::{Failure, Reading};

/// A token whose logits are all computed counts for so many that are only read: the head is a large matrix.
pub(crate) const HEAD_COST: usize = 4;

/// The receiver of the probabilities.
pub(crate) type Answer = oneshot::Sender<Result<Vec<TokenLogprob>, Failure>>;

/// A text whose probabilities are requested.
#[derive(Debug)]
pub(crate) struct Scores {
    /// `None` once it has ended.
    scoring: Option<Scoring>,
    /// The job is cancelled when it is closed.
    answer: Option<Answer>,
}

impl Scores {
    pub(crate) fn new(scoring: Scoring, answer: Answer) -> Self {
        Self { scoring: Some(scoring), answer: Some(answer) }
    }

    fn end(&mut self, result: Result<Vec<TokenLogprob>, Failure>) {
        if let Some(answer) = self.answer.take() {
            // The client may be gone.
            let _ = answer.send(result);
        }
    }
}

impl Reading for Scores {
    fn tokens_left(&self) -> usize {
        self.scoring.as_ref().map_or(0, Scoring::tokens_left)
    }

    fn is_gone(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::is_closed)
    }

    fn step(&mut self, tokens: usize) -> bool {
        let Some(scoring) = &mut self.scoring else { return true };
        if let Err(error) = scoring.step(tokens / HEAD_COST) {
            self.end(Err(Failure::Model(error)));
            return true;
        }
        if scoring.tokens_left() > 0 {
            return false;
        }
        let scored = self.scoring.take().map(Scoring::finish).unwrap_or_default();
        self.end(Ok(scored));
        true
    }

    fn fail(&mut self, failure: Failure) {
        self.end(Err(failure));
    }
}
