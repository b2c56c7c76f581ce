//! Options of a mapper, and how a call is watched.

use bitnet::CancelToken;

use crate::MapError;

/// The effect of a row that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// Its new columns are null, and the column `error` has the reason.
    #[default]
    Null,
    /// [`MapError::Row`] for the first such row; there is no column `error`.
    Stop,
}

/// Options of a [`Mapper`](crate::Mapper).
///
/// ```
/// use bitnet_arrow::MapOptions;
/// let options = MapOptions::default().column("utterance").prefix("bitnet_");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapOptions {
    /// Name of the column of texts; `text` by default.
    pub column: String,
    /// Put before the name of each new column; empty by default.
    pub prefix: String,
    /// The effect of a row that fails.
    pub on_error: OnError,
    /// Rows that go through a language model together at most: a pass over the weights serves that many. 16 by default.
    pub together: usize,
    /// Threads for extractors; 0, the default, takes the CPUs that the process may use. Language models have those that
    /// they were loaded with.
    pub threads: usize,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self { column: "text".into(), prefix: String::new(), on_error: OnError::Null, together: 16, threads: 0 }
    }
}

impl MapOptions {
    /// Sets the name of the column of texts.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>) -> Self {
        self.column = name.into();
        self
    }
    /// Sets the prefix of new columns.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }
    /// Sets the effect of a row that fails.
    #[must_use]
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }
    /// Sets the number of rows that go through a language model together.
    #[must_use]
    pub fn together(mut self, rows: usize) -> Self {
        self.together = rows;
        self
    }
    /// Sets the number of threads for extractors.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

/// Reports the progress of a call, and cancels it.
///
/// ```
/// use bitnet_arrow::Watch;
/// let cancel = bitnet::CancelToken::new();
/// let watch = Watch::default().cancel(&cancel).progress(|rows| println!("{rows} rows of this batch are done"));
/// ```
#[derive(Default)]
pub struct Watch<'a> {
    cancel: Option<CancelToken>,
    progress: Option<Box<dyn FnMut(usize) + 'a>>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

impl<'a> Watch<'a> {
    /// Ends a call with [`MapError::Cancelled`] when `token` is cancelled.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }
    /// Tells `f` the number of finished rows of the batch, now and then, on the thread of the call.
    #[must_use]
    pub fn progress(mut self, f: impl FnMut(usize) + 'a) -> Self {
        self.progress = Some(Box::new(f));
        self
    }

    /// [`MapError::Cancelled`] if it was.
    pub(crate) fn check(&self) -> Result<(), MapError> {
        match &self.cancel {
            Some(token) if token.is_cancelled() => Err(MapError::Cancelled),
            _ => Ok(()),
        }
    }
    pub(crate) fn done(&mut self, rows: usize) {
        if let Some(f) = &mut self.progress {
            f(rows);
        }
    }
}
