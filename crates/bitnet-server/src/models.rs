//! The models that a server is given: in memory, or to be loaded when a request names them.

use std::fmt;
use std::sync::Arc;

use bitnet::Model;

/// Why a model cannot be loaded; its text reaches the client that named the model.
pub type LoadFailure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Load = Arc<dyn Fn() -> Result<Model, LoadFailure> + Send + Sync>;

/// The models of a server. The first one answers requests that name none.
///
/// ```no_run
/// use bitnet_server::{Models, Options, Server};
/// let mut models = Models::from(bitnet::Model::load("small.gguf")?);
/// let bytes = std::fs::metadata("large.gguf")?.len();
/// models.add_on_demand("large", bytes, || Ok(bitnet::Model::load("large.gguf")?));
/// Server::bind(models, Options::default())?.run_until_signal()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Models {
    pub(crate) list: Vec<Listed>,
}

/// A model in the list.
pub(crate) struct Listed {
    /// Its name for clients; `None` for that of its file.
    pub(crate) name: Option<String>,
    /// The model, if it is in memory.
    pub(crate) model: Option<Model>,
    /// How it is loaded; without that it stays in memory.
    pub(crate) load: Option<Load>,
    /// Bytes of its files.
    pub(crate) bytes: u64,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, model, bytes, .. } = self;
        f.debug_struct("Listed").field("name", name).field("here", &model.is_some()).field("bytes", bytes).finish()
    }
}

impl Models {
    /// None as yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a model that stays in memory.
    pub fn add(&mut self, name: impl Into<String>, model: Model) {
        let bytes = model.info().file_bytes;
        self.list.push(Listed { name: Some(name.into()), model: Some(model), load: None, bytes });
    }

    /// Adds a model that is loaded when a request names it, and may leave memory for others
    /// ([`Options::memory_limit`](crate::Options::memory_limit)). `bytes` are those of its files, by which its memory is
    /// estimated before it is loaded.
    pub fn add_on_demand(
        &mut self,
        name: impl Into<String>,
        bytes: u64,
        load: impl Fn() -> Result<Model, LoadFailure> + Send + Sync + 'static,
    ) {
        self.list.push(Listed { name: Some(name.into()), model: None, load: Some(Arc::new(load)), bytes });
    }

    /// Like [`Models::add_on_demand`], for a model that is in memory from the begin.
    pub fn add_loaded(
        &mut self,
        name: impl Into<String>,
        model: Model,
        load: impl Fn() -> Result<Model, LoadFailure> + Send + Sync + 'static,
    ) {
        let bytes = model.info().file_bytes;
        self.list.push(Listed { name: Some(name.into()), model: Some(model), load: Some(Arc::new(load)), bytes });
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl From<Model> for Models {
    /// One model, which stays in memory and is called as its file is.
    fn from(model: Model) -> Self {
        let bytes = model.info().file_bytes;
        Self { list: vec![Listed { name: None, model: Some(model), load: None, bytes }] }
    }
}

/// The default name of a model: the file's name without its extension, or the folder's.
pub(crate) fn default_name(model: &Model) -> String {
    let info = model.info();
    // A model in memory has no file.
    let file = info.path.exists().then(|| info.path.file_name()).flatten().map(|name| name.to_string_lossy());
    let of_file = file.map(|name| name.strip_suffix(".gguf").unwrap_or(&name).to_owned());
    of_file.or_else(|| info.name.clone()).unwrap_or_else(|| "bitnet".into())
}
