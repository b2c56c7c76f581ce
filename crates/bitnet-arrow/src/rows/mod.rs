//! The work on rows: one file for each task.

mod choose;
mod embed;
mod extract;
mod generate;
mod score;

use std::num::NonZeroUsize;
use std::panic::resume_unwind;

use arrow_array::ArrayRef;
use arrow_schema::Field;
use bitnet::{Embedder, Error};

use crate::{MapError, MapOptions, OnError, Task, Watch};

/// The answer for a row; `None` for a row without a text.
pub(crate) type Row<T> = Option<Result<T, Error>>;

/// The answer, if there is one.
pub(crate) fn value<T>(row: &Row<T>) -> Option<&T> {
    row.as_ref()?.as_ref().ok()
}

/// A task for a model, checked.
pub(crate) trait Work: std::fmt::Debug + Send + Sync {
    /// The new columns.
    fn fields(&self) -> Vec<Field>;
    /// The answers for all `texts`.
    fn run(&self, texts: &[Option<&str>], context: &mut Context<'_, '_>) -> Result<Answers, MapError>;
}

/// The work of `task`, if `model` can do it.
pub(crate) fn work_of(model: Embedder, task: Task) -> Result<Box<dyn Work>, MapError> {
    let name = task.name();
    let wrong = |needs| MapError::WrongModel { task: name, needs };
    let language = "a language model, and this is an extractor";
    Ok(match (task, model) {
        (Task::Extract(task), Embedder::Extractor(extractor)) => Box::new(extract::Rows::new(extractor, task)?),
        (Task::Extract(_), Embedder::Model(_)) => {
            return Err(wrong("an extractor, and this is a language model: `choose` sorts texts with one"));
        }
        (Task::Embed(task), embedder) => Box::new(embed::Rows::new(embedder, task)?),
        (Task::Choose(task), Embedder::Model(model)) => Box::new(choose::Rows::new(&model, task)?),
        (Task::Score(task), Embedder::Model(model)) => Box::new(score::Rows::new(model, task)?),
        (Task::Generate(task), Embedder::Model(model)) => Box::new(generate::Rows::new(model, task)?),
        (Task::Choose(_) | Task::Score(_) | Task::Generate(_), Embedder::Extractor(_)) => return Err(wrong(language)),
    })
}

/// How rows are worked on.
pub(crate) struct Context<'c, 'w> {
    options: &'c MapOptions,
    watch: &'c mut Watch<'w>,
}

impl<'c, 'w> Context<'c, 'w> {
    pub(crate) fn new(options: &'c MapOptions, watch: &'c mut Watch<'w>) -> Self {
        Self { options, watch }
    }

    /// Rows that go through a language model together.
    fn together(&self) -> usize {
        self.options.together.max(1)
    }
    fn threads(&self) -> usize {
        NonZeroUsize::new(self.options.threads).unwrap_or_else(bitnet::available_cpus).get()
    }
    fn check(&self) -> Result<(), MapError> {
        self.watch.check()
    }
    /// Reports the number of finished rows.
    fn done(&mut self, rows: usize) {
        self.watch.done(rows);
    }
    /// Whether a failed row ends the call.
    fn stops(&self) -> bool {
        self.options.on_error == OnError::Stop
    }
    /// Whether one of `rows` has failed, and that ends the call.
    fn stops_at<T>(&self, rows: &[Row<T>]) -> bool {
        self.stops() && rows.iter().any(|row| matches!(row, Some(Err(_))))
    }
}

/// The new columns, and why rows failed.
pub(crate) struct Answers {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) reasons: Vec<Option<String>>,
}

/// Makes columns of the answers; [`MapError::Row`] for the first failed row if it ends the call.
fn answers<T>(
    mut rows: Vec<Row<T>>,
    context: &Context<'_, '_>,
    columns: impl FnOnce(&[Row<T>]) -> Result<Vec<ArrayRef>, MapError>,
) -> Result<Answers, MapError> {
    let failed = |row: &Row<T>| matches!(row, Some(Err(_)));
    if let Some(row) = rows.iter().position(failed).filter(|_| context.stops())
        && let Some(Err(source)) = rows.swap_remove(row)
    {
        return Err(MapError::Row { row, source: Box::new(source) });
    }
    let reason = |row: &Row<T>| row.as_ref().and_then(|row| row.as_ref().err()).map(Error::to_string);
    Ok(Answers { columns: columns(&rows)?, reasons: rows.iter().map(reason).collect() })
}

/// Rows of one thread between two looks at the watch.
const ROWS_PER_THREAD: usize = 256;

/// The answer for each text, on all threads. Only answers up to the first failed one are certain if that ends the call.
fn in_parallel<T: Send>(
    texts: &[Option<&str>],
    context: &mut Context<'_, '_>,
    answer: impl Fn(&str) -> Result<T, Error> + Sync,
) -> Result<Vec<Row<T>>, MapError> {
    let threads = context.threads();
    let each = |texts: &[Option<&str>]| texts.iter().map(|text| text.map(&answer)).collect::<Vec<Row<T>>>();
    let mut rows = Vec::with_capacity(texts.len());
    for slice in texts.chunks(ROWS_PER_THREAD.saturating_mul(threads)) {
        context.check()?;
        let share = slice.len().div_ceil(threads);
        let (own, others) = slice.split_at(share);
        let before = rows.len();
        std::thread::scope(|scope| {
            let each = &each;
            let running: Vec<_> = others
                .chunks(share)
                // Where the system gives no thread, this one does the work.
                .map(|part| (part, std::thread::Builder::new().spawn_scoped(scope, move || each(part)).ok()))
                .collect();
            rows.extend(each(own));
            for (part, thread) in running {
                match thread.map(std::thread::ScopedJoinHandle::join) {
                    Some(Ok(more)) => rows.extend(more),
                    Some(Err(panic)) => resume_unwind(panic),
                    None => rows.extend(each(part)),
                }
            }
        });
        context.done(rows.len());
        if context.stops_at(&rows[before..]) {
            break;
        }
    }
    Ok(rows)
}
