//! A model with a task.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bitnet::Embedder;

use crate::rows::{Context, Work, work_of};
use crate::texts::{is_text, texts};
use crate::{MapError, MapOptions, OnError, Task, Watch, columns};

/// The column of reasons.
const ERROR: &str = "error";

/// A model with a task and options; see [the crate](crate). Cheap to clone and shared between threads.
#[derive(Clone, Debug)]
pub struct Mapper {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    task: &'static str,
    work: Box<dyn Work>,
    options: MapOptions,
    fields: Vec<Field>,
}

impl Mapper {
    /// Loads a GGUF file or a folder of a model or an extractor, with the defaults of [`Embedder::load`], for a task: one
    /// of [`Task`], or the type of one.
    ///
    /// # Errors
    /// Any error in the files, and the errors of [`Mapper::new`].
    pub fn load(path: impl AsRef<Path>, task: impl Into<Task>, options: MapOptions) -> Result<Self, MapError> {
        Self::new(Embedder::load(path)?, task, options)
    }

    /// A task for a [`Model`](bitnet::Model) or an [`Extractor`](bitnet::Extractor) that was loaded before.
    ///
    /// # Errors
    /// [`MapError::WrongModel`] for a task that this kind of model does not have; [`MapError::Bitnet`] for an option of
    /// the task that cannot be used; [`MapError::TextNotLast`], [`MapError::NoBeginning`].
    pub fn new(model: impl Into<Embedder>, task: impl Into<Task>, options: MapOptions) -> Result<Self, MapError> {
        let task = task.into();
        let name = task.name();
        let work = work_of(model.into(), task)?;
        let mut fields = work.fields();
        if options.on_error == OnError::Null {
            fields.push(Field::new(ERROR, DataType::Utf8, true));
        }
        for field in &mut fields {
            *field = field.clone().with_name(format!("{}{}", options.prefix, field.name()));
        }
        Ok(Self { inner: Arc::new(Inner { task: name, work, options, fields }) })
    }

    /// The name of the task.
    pub fn task(&self) -> &'static str {
        self.inner.task
    }
    /// The options.
    pub fn options(&self) -> &MapOptions {
        &self.inner.options
    }

    /// The new columns, in their order, with their prefix. With [`OnError::Null`] the last is `error` (Utf8).
    pub fn output_fields(&self) -> &[Field] {
        &self.inner.fields
    }

    /// The schema of the result for tables of this schema: their columns, and the new ones.
    ///
    /// # Errors
    /// [`MapError::NoColumn`], [`MapError::NotText`], [`MapError::Clash`].
    pub fn output_schema(&self, input: &Schema) -> Result<SchemaRef, MapError> {
        let column = &self.inner.options.column;
        let Some((_, field)) = input.column_with_name(column) else {
            let have = input.fields().iter().map(|f| f.name().clone()).collect();
            return Err(MapError::NoColumn { column: column.clone(), have });
        };
        if !is_text(field.data_type()) {
            return Err(MapError::NotText { column: column.clone(), found: field.data_type().to_string() });
        }
        let new = &self.inner.fields;
        if let Some(field) = new.iter().find(|f| input.column_with_name(f.name()).is_some()) {
            return Err(MapError::Clash { column: field.name().clone() });
        }
        let all = input.fields().iter().cloned().chain(new.iter().cloned().map(Arc::new));
        Ok(Arc::new(Schema::new_with_metadata(all.collect::<Vec<_>>(), input.metadata().clone())))
    }

    /// The columns of `batch` and the new ones.
    ///
    /// # Errors
    /// The errors of [`Mapper::output_schema`]; [`MapError::Row`] for a row that fails, with [`OnError::Stop`];
    /// [`MapError::TooLarge`].
    pub fn map(&self, batch: &RecordBatch) -> Result<RecordBatch, MapError> {
        self.map_with(batch, Watch::default())
    }

    /// Like [`Mapper::map`], watched.
    ///
    /// # Errors
    /// The errors of [`Mapper::map`]; [`MapError::Cancelled`].
    pub fn map_with(&self, batch: &RecordBatch, watch: Watch<'_>) -> Result<RecordBatch, MapError> {
        let schema = self.output_schema(batch.schema_ref())?;
        let at = batch.schema_ref().index_of(&self.inner.options.column)?;
        let mut all = batch.columns().to_vec();
        all.extend(self.columns(batch.column(at).as_ref(), watch)?);
        Ok(RecordBatch::try_new(schema, all)?)
    }

    /// The new columns for a column of texts, those of [`Mapper::output_fields`]: for functions of query engines, which have
    /// no table.
    ///
    /// # Errors
    /// [`MapError::NotText`]; the errors of [`Mapper::map_with`].
    pub fn columns(&self, column: &dyn Array, mut watch: Watch<'_>) -> Result<Vec<ArrayRef>, MapError> {
        let options = &self.inner.options;
        let texts = texts(column, &options.column)?;
        let mut context = Context::new(options, &mut watch);
        let answers = self.inner.work.run(&texts, &mut context)?;
        let mut all = answers.columns;
        if options.on_error == OnError::Null {
            all.push(columns::utf8(ERROR, answers.reasons.iter().map(Option::as_deref))?);
        }
        Ok(all)
    }
}
