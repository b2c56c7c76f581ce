//! Reads and writes ternary checkpoints: GGUF files and Hugging Face folders.
#![deny(unsafe_code)]

mod architecture;
pub mod chat;
mod config;
pub mod convert;
mod error;
pub mod extractor;
pub mod gguf;
mod heads;
#[cfg(feature = "hub")]
pub mod hub;
mod load;
mod loaded;
pub mod mmap;
mod names;
pub mod packed;
pub mod safetensors;
mod source;
pub mod synthetic;
mod tl;
pub mod tokenizer;
pub mod tuning;

/// Files read within bounds and written all or nothing: the one home for both, see [`bitnet_model::files`].
pub use bitnet_model::files;

pub use error::LoadError;
pub use load::{LoadedModel, load, load_bytes, load_tokenizer};
pub use loaded::{Container, GenerationConfig, LoadOptions, ModelInfo, QkLayout};
pub use packed::cache::PackedCache;
pub use source::Checkpoint;
pub use tl::TlTiles;

/// The example of the crate's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
