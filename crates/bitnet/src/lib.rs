//! Ternary (1.58-bit) language models in process: load, generate, chat. Synchronous; no server, no Python, no C++.
//!
//! ```no_run
//! use bitnet::{GenerateOptions, Model};
//!
//! # fn main() -> Result<(), bitnet::Error> {
//! let model = Model::load("model.gguf")?;
//! let mut session = model.session();
//! for chunk in session.generate("Once upon a time", GenerateOptions::default().max_tokens(100))? {
//!     print!("{}", chunk?.text);
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Model`] is immutable, cheap to clone and shared between threads; a [`Session`] is one text and owns its cache.
//! Generation is a plain iterator, or a callback that returns [`std::ops::ControlFlow`]; dropping it ends it, and a
//! [`CancelToken`] ends it from another thread.
//!
//! [`Session::choose`] and [`Session::score`] compare texts that could follow, [`Classifier`] sorts texts into classes,
//! [`Model::embed`] makes vectors of them. An [`Extractor`] is a model of another kind: it names intent and slots of an
//! utterance. An [`Embedder`] opens either kind and makes vectors.
//!
//! With the feature `constrain`, texts follow a grammar: `Session::generate_json` returns values of a type.
//!
//! [`tune`] measures which kernels are the fastest for a model on this machine, and [`store_tuning`] has them used from
//! then on. [`kernel`] has what a kernel of one's own is made of.
//!
//! This crate is the whole surface of a program that uses models. What makes and takes apart files of models (`loader`),
//! layers and engine (`bitnet-model`) and products (`ternary-kernels`) are crates of their own; a program that needs more
//! of one than is shown here depends on it in the same version, and its types are those of this crate.

#![forbid(unsafe_code)]

mod batch;
mod classify;
mod clock;
#[cfg(feature = "constrain")]
mod constrain;
mod embed;
mod embedder;
mod error;
mod estimate;
mod exact;
mod extractor;
mod generate;
mod generation_state;
mod kernels;
mod logprobs;
mod model;
mod score;
mod scoring;
mod session;

pub use bitnet_model::perplexity::{Perplexity, perplexity, perplexity_by_position};
pub use bitnet_model::sampling::{
    CancelToken, FinishReason, LogitBias, LogitsProcessor, Sampler, SamplingOptions, SamplingOverrides,
};
pub use bitnet_model::sequence::Speculation;
pub use bitnet_model::{
    Activation, ActivationBits, Engine, HeadMode, HeadRequest, InputForm, InputForms, KvType, ModelConfig, ModelError,
    Prediction, Projection, ProjectionGroup, RopeScaling, Sequence, SequenceState, Snapshots,
};
pub use loader::chat::{ChatError, Message, RenderOptions};
pub use loader::{Container, LoadError, LoadOptions, LoadedModel, ModelInfo, QkLayout};
pub use ternary_kernels::tune::{TuneOptions, TuneReport};
pub use ternary_kernels::{Isa, Kernel, KernelError, available_cpus};

pub use batch::{Batch, Prepared, SequenceId};
pub use classify::Classifier;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use clock::set_clock;
#[cfg(feature = "constrain")]
pub use constrain::{Constraint, ConstraintError, ConstraintLimits};
pub use embed::{EmbedOptions, Embedding, Pooling};
pub use embedder::Embedder;
pub use error::Error;
pub use estimate::MemoryEstimate;
pub use extractor::{
    Directions, EncoderMixer, Extraction, Extractor, ExtractorConfig, ExtractorScratch, ExtractorTask,
    ExtractorWeights, RankedIntent, Slot, TaskConfig,
};
pub use generate::{Chunk, GenerateOptions, Generation, Output, Stats, StopWhen, WhenFull};
pub use kernels::{ChosenBy, LayerKernel, UseTuning, kernels_for, store_tuning, tune};
pub use logprobs::TokenLogprob;
pub use model::{Model, ModelBuilder};
pub use score::{Choice, ChooseBy, Score};
pub use scoring::Scoring;
pub use session::Session;

/// A ternary model with Test-Time-Training layers that tells simple stories in English, as a GGUF file with its
/// tokenizer, 3.9 MB, packed for the kernels, which read it in place; `models/README.md` in this crate describes it and its origin.
#[cfg(feature = "tiny-model")]
pub static TINY_MODEL: &[u8] = &ALIGNED.bytes;

/// At a cache line, as a mapping of the file would be: what is read in place must not be copied first.
#[cfg(feature = "tiny-model")]
const ALIGNED: &Aligned<[u8]> = &Aligned { bytes: *include_bytes!("../models/tiny-stories-ttt.gguf") };

#[cfg(feature = "tiny-model")]
#[repr(align(64))]
struct Aligned<T: ?Sized> {
    bytes: T,
}

/// Training on this computer.
#[cfg(feature = "train")]
pub use bitnet_model::train;

/// Schemas of types, for [`Session::generate_json`]; a derive without a separate dependency on this crate needs
/// `#[schemars(crate = "bitnet::schemars")]`.
#[cfg(feature = "constrain")]
pub use schemars;

/// The types for writing a kernel, for [`ModelBuilder::kernel`]; docs/own-kernel.md of the repository writes one.
pub mod kernel {
    pub use ternary_kernels::{
        AlignedBuf, Int4Matrix, Int4Vector, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows,
        Scales, TernaryMatrix, by_name, kernels_available,
    };
}

/// The layers of BitNet as candle modules.
#[cfg(feature = "candle")]
pub use bitnet_model::nn;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The examples of the documents run.
#[cfg(all(doctest, feature = "constrain", feature = "tiny-model"))]
#[doc = include_str!("../../../README.ja.md")]
#[doc = include_str!("../../../docs/quick-start.md")]
#[doc = include_str!("../../../docs/embedding.md")]
#[doc = include_str!("../../../docs/extract.md")]
#[doc = include_str!("../../../docs/output.md")]
#[doc = include_str!("../../../docs/sessions.md")]
#[doc = include_str!("../../../docs/own-kernel.md")]
#[doc = include_str!("../../../docs/ttt.md")]
struct Documents;

/// The examples about candle run.
#[cfg(all(doctest, feature = "candle"))]
#[doc = include_str!("../../../docs/candle.md")]
struct Candle;

/// The example of the crate's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
