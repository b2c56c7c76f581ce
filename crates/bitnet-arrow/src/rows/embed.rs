//! Vectors.

use arrow_schema::Field;
use bitnet::{EmbedOptions, Embedder, Error, Model};

use super::{Answers, Context, Row, Work, answers, in_parallel};
use crate::{Embed, MapError, Template, columns};

/// Rows that a language model reads in one go: several passes over the weights, each of several texts.
const ROWS: usize = 128;
/// Tokens of a pass.
const TOKENS: usize = 256;

#[derive(Debug)]
pub(super) struct Rows {
    embedder: Embedder,
    options: EmbedOptions,
    template: Template,
}

impl Rows {
    pub(super) fn new(embedder: Embedder, task: Embed) -> Result<Self, MapError> {
        let Embed { options, template } = task;
        match (&embedder, options.pooling) {
            (Embedder::Extractor(_), Some(pooling)) => Err(Error::Pooling { pooling: pooling.name() }.into()),
            // Without a tokenizer no row would have an answer.
            (Embedder::Model(model), _) if model.tokenizer().is_none() => Err(Error::NoTokenizer.into()),
            _ => Ok(Self { embedder, options, template }),
        }
    }

    fn alone(&self, text: &str) -> Result<Vec<f32>, Error> {
        let mut vectors = self.embedder.embed_all([self.template.fill(text)], self.options)?;
        Ok(vectors.pop().unwrap_or_default())
    }

    /// The vectors of texts that go through the model together.
    fn together(
        &self,
        model: &Model,
        texts: &[Option<&str>],
        context: &Context<'_, '_>,
    ) -> Result<Vec<Row<Vec<f32>>>, MapError> {
        let encode = |text: &str| model.encode_for_embedding(&self.template.fill(text));
        let ids: Result<Vec<_>, _> = texts.iter().flatten().map(|text| encode(text)).collect();
        let vectors = match ids.and_then(|ids| model.embedding(ids, self.options)) {
            Ok(mut embedding) => loop {
                if embedding.is_finished() {
                    break Some(embedding.finish());
                }
                context.check()?;
                if embedding.step(TOKENS).is_err() {
                    break None;
                }
            },
            Err(_) => None,
        };
        // One of them fails: alone, each shows whether the error is its own. The vectors are the same.
        let Some(vectors) = vectors else {
            return Ok(texts.iter().map(|text| text.map(|text| self.alone(text))).collect());
        };
        let mut vectors = vectors.into_iter();
        Ok(texts.iter().map(|text| text.and_then(|_| vectors.next()).map(Ok)).collect())
    }
}

impl Work for Rows {
    fn fields(&self) -> Vec<Field> {
        vec![Field::new("embedding", columns::vector_type(self.embedder.dimensions()), true)]
    }

    fn run(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Answers, MapError> {
        let rows = match &self.embedder {
            Embedder::Extractor(_) => in_parallel(texts, context, |text| self.alone(text))?,
            Embedder::Model(model) => {
                let mut rows = Vec::with_capacity(texts.len());
                for slice in texts.chunks(ROWS) {
                    context.check()?;
                    let more = self.together(model, slice, context)?;
                    let stops = context.stops_at(&more);
                    rows.extend(more);
                    context.done(rows.len());
                    if stops {
                        break;
                    }
                }
                rows
            }
        };
        answers(rows, context, |rows| Ok(vec![columns::vectors(rows, self.embedder.dimensions())?]))
    }
}
