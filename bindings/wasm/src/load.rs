//! How a model is loaded.

use std::sync::Arc;

use bitnet::{HeadMode, Kernel, KvType};
use serde::Deserialize;

use crate::Failure;

/// Options of loading.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LoadRequest {
    /// Name for people, if the file has none.
    pub(crate) name: Option<String>,
    /// Most tokens of a session.
    pub(crate) context: Option<usize>,
    /// Type of the KV cache.
    kv: Option<String>,
    /// How the head is computed: `auto`, `plain` or `coarse`.
    head: Option<String>,
    /// The kernel of ternary products, to compare them.
    kernel: Option<String>,
}

impl LoadRequest {
    /// Tokens of a session where none are asked for and the model would hold more.
    const CONTEXT: usize = 4096;

    pub(crate) fn read(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map_err(|e| Failure::form(&e))
    }

    pub(crate) fn kv(&self) -> Result<KvType, Failure> {
        let Some(name) = &self.kv else { return Ok(KvType::default()) };
        let known = KvType::ALL.map(KvType::name).join(", ");
        KvType::from_name(name)
            .ok_or_else(|| Failure::request("kv", format!("{name:?} is not a type of the cache; supported: {known}")))
    }

    pub(crate) fn head(&self) -> Result<HeadMode, Failure> {
        match self.head.as_deref() {
            None | Some("auto") => Ok(HeadMode::Auto),
            Some("plain") => Ok(HeadMode::Plain),
            Some("coarse") => Ok(HeadMode::Coarse),
            Some(other) => {
                let message = format!("{other:?} is not a way to compute the head; supported: auto, plain, coarse");
                Err(Failure::request("head", message))
            }
        }
    }

    pub(crate) fn kernel(&self) -> Result<Option<Arc<dyn Kernel>>, Failure> {
        let by_name =
            |name: &String| ternary_kernels::by_name(name).map_err(|e| Failure::request("kernel", e.to_string()));
        self.kernel.as_ref().map(by_name).transpose()
    }

    pub(crate) fn context(&self) -> usize {
        self.context.unwrap_or(Self::CONTEXT)
    }
}
