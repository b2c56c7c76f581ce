//! A model in memory.

use bitnet::{LoadOptions, UseTuning};
use bitnet_backend::{Facts, Info};
use ternary_kernels::SharedBytes;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::load::LoadRequest;
use crate::{Failure, Session, Upload, memory};

/// A model, from the bytes of a GGUF file.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Model {
    inner: bitnet::Model,
    name: Option<String>,
}

#[wasm_bindgen]
impl Model {
    /// Takes the file and makes a model of it; tables stay where they are in the file. `options` is JSON: `name`,
    /// `context`, `kv`.
    ///
    /// # Errors
    /// `model` for a file that is damaged, incomplete or no language model; `out-of-memory`, before anything is packed,
    /// with the bytes needed and left; `request` for an option.
    #[wasm_bindgen(constructor)]
    pub fn new(file: Upload, options: &str) -> Result<Self, Failure> {
        let request = LoadRequest::read(options)?;
        let (kv, context) = (request.kv()?, request.context());
        let loaded = loader::load_bytes(SharedBytes::new(file.complete()?), &LoadOptions::default())?;
        memory::reserve("the model", memory::beyond_file(&loaded.weights.config, kv, context))?;
        let builder = bitnet::Model::builder().threads(1).kv(kv).head(request.head()?).tuning(UseTuning::No);
        // Layers without keys and values have no limit, and need none.
        let limited = loaded.weights.config.context_limit().is_some();
        let builder = if limited { builder.context(context) } else { builder };
        let builder = match request.kernel()? {
            Some(kernel) => builder.kernel(kernel),
            None => builder,
        };
        Ok(Self { inner: builder.build(loaded)?, name: request.name })
    }

    /// Facts about it: `ModelInfo` as JSON.
    pub fn info(&self) -> Result<String, Failure> {
        let name = self.name.as_deref().unwrap_or(&self.inner.info().architecture);
        let info = Info::of(&self.inner, Facts { name, place: "wasm ", inner_loss: true });
        serde_json::to_string(&info).map_err(|e| Failure::new("internal", e.to_string()))
    }

    /// Remarks on what was repaired or assumed.
    pub fn notes(&self) -> Vec<String> {
        self.inner.notes().to_vec()
    }

    /// A new, empty session.
    pub fn open(&self) -> Session {
        Session::new(self.inner.session())
    }

    /// The session that [`Session::save`] made these bytes of.
    ///
    /// # Errors
    /// `session` for bytes that are damaged or of another model.
    pub fn restore(&self, bytes: &[u8]) -> Result<Session, Failure> {
        let restored = self.inner.restore_session(bytes);
        restored.map(Session::new).map_err(|e| Failure { code: "session".to_owned(), ..Failure::from(e) })
    }

    /// Tokens of a text, with the token that begins one if the model has it.
    ///
    /// # Errors
    /// `request` without a tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        Ok(self.inner.encode(text, self.inner.adds_bos())?)
    }
}
