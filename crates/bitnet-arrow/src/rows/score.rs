//! Probabilities of texts.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, UInt32Array};
use arrow_schema::{DataType, Field};
use bitnet::{Error, Model, Session};

use super::{Answers, Context, Row, Work, answers, value};
use crate::{MapError, Score, Template};

#[derive(Debug)]
pub(super) struct Rows {
    model: Model,
    template: Template,
    /// The tokens before each text.
    before: Vec<u32>,
}

/// The probability of a text, and the number of its tokens.
type Found = (f64, u32);

impl Rows {
    pub(super) fn new(model: Model, task: Score) -> Result<Self, MapError> {
        let template = task.template;
        if !template.after().is_empty() {
            return Err(MapError::TextNotLast { task: "score", template: template.to_string() });
        }
        let before = model.encode(template.before(), model.adds_bos())?;
        if before.is_empty() {
            return Err(MapError::NoBeginning);
        }
        Ok(Self { model, template, before })
    }

    /// Tokens of `text` after those before it; `None` if a token spans the end of the latter.
    fn tokens(&self, text: &str) -> Result<Option<Vec<u32>>, Error> {
        let whole = self.model.encode(&self.template.fill(text), self.model.adds_bos())?;
        Ok(whole.strip_prefix(&self.before[..]).map(<[u32]>::to_vec))
    }

    fn found(score: &bitnet::Score) -> Found {
        // The sum of nothing is minus zero.
        (score.total() + 0.0, u32::try_from(score.ids.len()).unwrap_or(u32::MAX))
    }

    /// The probability of a text whose tokens span the place where it begins.
    fn alone(&self, text: &str) -> Result<Found, Error> {
        let scores = self.model.score(self.template.before(), [text])?;
        Ok(scores.first().map(Self::found).unwrap_or_default())
    }

    /// The probabilities of texts, in one pass for all.
    fn together(&self, session: &mut Session, texts: &[Option<&str>]) -> Vec<Row<Found>> {
        let mut rows: Vec<Row<Found>> = texts.iter().map(|_| None).collect();
        let (mut places, mut ids) = (Vec::new(), Vec::new());
        for (place, text) in texts.iter().enumerate() {
            let Some(text) = text else { continue };
            match self.tokens(text) {
                Ok(Some(tokens)) => {
                    places.push(place);
                    ids.push(tokens);
                }
                Ok(None) => rows[place] = Some(self.alone(text)),
                Err(error) => rows[place] = Some(Err(error)),
            }
        }
        match session.score_ids(&ids) {
            Ok(scores) => {
                places.iter().zip(&scores).for_each(|(place, score)| rows[*place] = Some(Ok(Self::found(score))));
            }
            // One of them fails: alone, each shows whether the error is its own. The numbers are the same.
            Err(_) => {
                for (place, ids) in places.iter().zip(ids) {
                    let scores = session.score_ids(&[ids]);
                    rows[*place] = Some(scores.map(|scores| scores.first().map(Self::found).unwrap_or_default()));
                }
            }
        }
        rows
    }
}

impl Work for Rows {
    fn fields(&self) -> Vec<Field> {
        vec![Field::new("logprob", DataType::Float64, true), Field::new("tokens", DataType::UInt32, true)]
    }

    fn run(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Answers, MapError> {
        let mut session = self.model.session();
        session.feed_ids(&self.before)?;
        let mut rows = Vec::with_capacity(texts.len());
        for slice in texts.chunks(context.together()) {
            context.check()?;
            let more = self.together(&mut session, slice);
            let stops = context.stops_at(&more);
            rows.extend(more);
            context.done(rows.len());
            if stops {
                break;
            }
        }
        answers(rows, context, |rows| {
            let of = || rows.iter().map(value);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(of().map(|found| found.map(|found| found.0)).collect::<Float64Array>()),
                Arc::new(of().map(|found| found.map(|found| found.1)).collect::<UInt32Array>()),
            ];
            Ok(columns)
        })
    }
}
