//! Texts that follow.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Field};
use bitnet::{Batch, Error, GenerateOptions, Message, Model, Output, Prepared, SequenceId};

use super::{Answers, Context, Row, Work, answers, value};
use crate::{Generate, MapError, columns};

#[derive(Debug)]
pub(super) struct Rows {
    model: Model,
    task: Generate,
}

/// A finished text, and why it ended.
type Found = (String, &'static str);

impl Rows {
    pub(super) fn new(model: Model, task: Generate) -> Result<Self, MapError> {
        let rows = Self { model, task };
        // Options that cannot be used are reported once, not for each row.
        Prepared::new(&rows.model, rows.options())?;
        rows.prompt("")?;
        Ok(rows)
    }

    fn options(&self) -> GenerateOptions {
        let Generate { sampling, max_tokens, stop, .. } = &self.task;
        let mut options = GenerateOptions::default().sampling(sampling.clone()).max_tokens(*max_tokens);
        options.stop.clone_from(stop);
        #[cfg(feature = "constrain")]
        options.constraint.clone_from(&self.task.constraint);
        options
    }

    fn prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let text = self.task.template.fill(text);
        match self.task.chat {
            false => self.model.encode(&text, self.model.adds_bos()),
            true => {
                let system = self.task.system.iter().map(|system| Message::system(system.as_str()));
                let messages: Vec<Message> = system.chain([Message::user(text)]).collect();
                self.model.encode_chat(&messages)
            }
        }
    }

    fn join(&self, batch: &mut Batch, text: &str) -> Result<SequenceId, Error> {
        let prompt = self.prompt(text)?;
        batch.join_prepared(self.model.session(), &prompt, Prepared::new(&self.model, self.options())?)
    }

    /// The texts for all rows, `together` at a time: one that ends makes room for the next.
    fn texts(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Vec<Row<Found>>, MapError> {
        let mut rows: Vec<Row<Found>> = texts.iter().map(|_| None).collect();
        let mut batch = Batch::new(&self.model);
        let mut open: BTreeMap<SequenceId, usize> = BTreeMap::new();
        let mut failures: BTreeMap<SequenceId, Error> = BTreeMap::new();
        let mut waiting = texts.iter().enumerate().filter_map(|(row, text)| text.map(|text| (row, text)));
        // Rows from here on are not needed: an earlier one has failed, and that ends the call.
        let mut end = texts.len();
        let mut done = texts.iter().filter(|text| text.is_none()).count();
        loop {
            context.check()?;
            while open.len() < context.together()
                && let Some((row, text)) = waiting.next().filter(|(row, _)| *row < end)
            {
                match self.join(&mut batch, text) {
                    Ok(id) => {
                        open.insert(id, row);
                    }
                    Err(error) => {
                        rows[row] = Some(Err(error));
                        done += 1;
                        end = if context.stops() { end.min(row) } else { end };
                    }
                }
            }
            if open.is_empty() {
                context.done(done);
                return Ok(rows);
            }
            failures.extend(batch.step().into_iter().filter_map(|(id, chunk)| Some((id, chunk.err()?))));
            let finished = batch.take_finished();
            for (id, _, output) in &finished {
                let Some(row) = open.remove(id) else { continue };
                rows[row] = Some(failures.remove(id).map_or_else(|| Ok(found(output)), Err));
                done += 1;
                if context.stops_at(&rows[row..=row]) {
                    end = end.min(row);
                }
            }
            if end < texts.len() {
                for (id, _) in open.extract_if(.., |_, row| *row > end) {
                    batch.leave(id);
                }
            }
            if !finished.is_empty() {
                context.done(done);
            }
        }
    }
}

fn found(output: &Output) -> Found {
    (output.text.clone().unwrap_or_default(), output.finish_reason.name())
}

impl Work for Rows {
    fn fields(&self) -> Vec<Field> {
        vec![Field::new("generated", DataType::Utf8, true), Field::new("finish_reason", DataType::Utf8, true)]
    }

    fn run(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Answers, MapError> {
        let rows = self.texts(texts, context)?;
        answers(rows, context, |rows| {
            let of = || rows.iter().map(value);
            Ok(vec![
                columns::utf8("generated", of().map(|found| found.map(|found| &*found.0)))?,
                columns::utf8("finish_reason", of().map(|found| found.map(|found| found.1)))?,
            ])
        })
    }
}
