//! The error type of this crate.

/// The reason why a table could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum MapError {
    /// Something about the model or the task's options, before any row.
    #[error(transparent)]
    Bitnet(#[from] bitnet::Error),
    /// The table lacks the column of texts.
    #[error("there is no column {column:?} (option `column`); the table has {}", list(have))]
    NoColumn {
        column: String,
        /// The columns of the table.
        have: Vec<String>,
    },
    /// The column of texts has another type.
    #[error(
        "the column {column:?} holds {found}, and texts are needed (Utf8, LargeUtf8, Utf8View, or a dictionary of them)"
    )]
    NotText {
        column: String,
        /// Its type.
        found: String,
    },
    /// A new column has the name of one that exists.
    #[error("the table has a column {column:?} already; give the new columns a prefix (option `prefix`)")]
    Clash { column: String },
    /// A task for a model of the other kind.
    #[error("the task `{task}` needs {needs}")]
    WrongModel {
        task: &'static str,
        /// Kind of model that it needs.
        needs: &'static str,
    },
    /// A template without a place for the text, or with several.
    #[error("the template {template:?} must hold {{text}} once, where the text goes")]
    Template { template: String },
    /// A template with something after the text, for a task that reads on from it.
    #[error("the template {template:?} of the task `{task}` must end with {{text}}: what is scored comes last")]
    TextNotLast { task: &'static str, template: String },
    /// A model that has no token for the beginning of a text, and no text before those that are scored.
    #[error(
        "nothing predicts the first token of a text: this model has no beginning-of-text token, so the template needs a \
         text before {{text}}"
    )]
    NoBeginning,
    /// A row failed, and [`OnError::Stop`](crate::OnError::Stop) asks to stop there.
    #[error("row {row}: {source}")]
    Row {
        /// The first row of the batch that fails, counted from 0.
        row: usize,
        source: Box<bitnet::Error>,
    },
    /// The results of a batch do not fit into one array.
    #[error("the column {column:?} of one batch would have more than 2 GiB; use smaller batches")]
    TooLarge { column: &'static str },
    /// The call was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A batch that cannot be made.
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
}

fn list(columns: &[String]) -> String {
    match columns {
        [] => "no columns".to_owned(),
        all => all.join(", "),
    }
}
