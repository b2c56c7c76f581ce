//! Choices among texts.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array};
use arrow_schema::{DataType, Field};
use bitnet::{Choice, Classifier, Error, Model};

use super::{Answers, Context, Row, Work, answers, value};
use crate::{Choose, MapError, columns};

#[derive(Debug)]
pub(super) struct Rows {
    classifier: Classifier,
}

impl Rows {
    pub(super) fn new(model: &Model, task: Choose) -> Result<Self, MapError> {
        if model.tokenizer().is_none() {
            return Err(Error::NoTokenizer.into());
        }
        let Choose { choices, template, by } = task;
        Ok(Self { classifier: Classifier::new(model, template.to_string(), choices)?.by(by) })
    }
}

impl Work for Rows {
    fn fields(&self) -> Vec<Field> {
        vec![Field::new("choice", DataType::Utf8, true), Field::new("probability", DataType::Float32, true)]
    }

    fn run(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Answers, MapError> {
        let mut classifier = self.classifier.clone();
        let mut rows: Vec<Row<Choice>> = Vec::with_capacity(texts.len());
        for slice in texts.chunks(context.together()) {
            context.check()?;
            let mut choices = classifier.classify_all(slice.iter().copied().flatten()).into_iter();
            let before = rows.len();
            rows.extend(slice.iter().map(|text| text.and_then(|_| choices.next())));
            context.done(rows.len());
            if context.stops_at(&rows[before..]) {
                break;
            }
        }
        answers(rows, context, |rows| {
            let of = || rows.iter().map(value);
            let names: Vec<&str> = self.classifier.labels().iter().map(|label| label.trim()).collect();
            let columns: Vec<ArrayRef> = vec![
                columns::utf8("choice", of().map(|choice| choice.map(|choice| names[choice.index])))?,
                Arc::new(of().map(|choice| choice.map(|c| c.probability() as f32)).collect::<Float32Array>()),
            ];
            Ok(columns)
        })
    }
}
