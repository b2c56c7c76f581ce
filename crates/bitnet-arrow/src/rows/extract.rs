//! Intent and slots.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float32Array};
use arrow_schema::{DataType, Field};
use bitnet::{Extraction, Extractor};

use super::{Answers, Context, Row, Work, answers, in_parallel, value};
use crate::{Extract, MapError, columns};

#[derive(Debug)]
pub(super) struct Rows {
    extractor: Extractor,
    task: String,
}

impl Rows {
    pub(super) fn new(extractor: Extractor, task: Extract) -> Result<Self, MapError> {
        let first = || extractor.config().tasks.first().map(|task| task.name.clone());
        let task = task.task.or_else(first).unwrap_or_default();
        extractor.task(&task)?;
        Ok(Self { extractor, task })
    }
}

impl Work for Rows {
    fn fields(&self) -> Vec<Field> {
        vec![
            Field::new("intent", DataType::Utf8, true),
            Field::new("probability", DataType::Float32, true),
            Field::new("out_of_scope", DataType::Boolean, true),
            Field::new("slots", columns::slots_type(), true),
            Field::new("cut", DataType::Boolean, true),
        ]
    }

    fn run(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Answers, MapError> {
        let task = self.extractor.task(&self.task)?;
        let rows = in_parallel(texts, context, |text| task.extract(text))?;
        answers(rows, context, |rows: &[Row<Extraction>]| {
            let of = || rows.iter().map(value);
            let columns: Vec<ArrayRef> = vec![
                columns::utf8("intent", of().map(|found| found.map(|found| &*found.intent)))?,
                Arc::new(of().map(|found| found.map(|found| found.confidence)).collect::<Float32Array>()),
                Arc::new(of().map(|found| found.map(|found| found.out_of_scope)).collect::<BooleanArray>()),
                columns::slots(rows)?,
                Arc::new(of().map(|found| found.map(|found| found.cut)).collect::<BooleanArray>()),
            ];
            Ok(columns)
        })
    }
}
