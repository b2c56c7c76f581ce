//! Models over Arrow tables: a [`RecordBatch`](arrow_array::RecordBatch) with a column of texts in, the same batch with
//! typed columns out.
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, cast::AsArray};
//! use bitnet_arrow::{Extract, MapOptions, Mapper};
//! # let task = bitnet::TaskConfig::new("home", vec!["light_on".into(), "light_off".into()], vec!["room".into()]);
//! # let config = bitnet::ExtractorConfig { buckets: 64, hidden_size: 32, ..bitnet::ExtractorConfig::new(vec![task]) };
//! # let extractor = bitnet::Extractor::from_weights(bitnet::ExtractorWeights::synthetic(config, 7)?)?;
//!
//! // let extractor = bitnet::Extractor::load("home.gguf")?;
//! let mapper = Mapper::new(extractor, Extract::default(), MapOptions::default())?;
//! let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("kitchen light to 40"), None]));
//! let batch = RecordBatch::try_from_iter([("text", texts)])?;
//! let answers = mapper.map(&batch)?;
//! let intents = answers.column_by_name("intent").unwrap().as_string::<i32>();
//! assert!(intents.value(0).starts_with("light_"));
//! assert!(intents.is_null(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Mapper`] is a model with a [`Task`] and [`MapOptions`]; it is made once, cheap to clone and shared between threads.
//! [`Mapper::output_fields`] says which columns come out before there is a row. [`Mapper::map`] appends them to a batch,
//! [`Mapper::columns`] makes them of a column of texts alone, for functions of query engines.
//!
//! - A null stays null, in all new columns.
//! - A row that fails is null, too, and has its reason in the column `error`; or it ends the call ([`OnError`]).
//! - Results depend on the text alone: not on the other rows, on how a table is cut into batches, or on threads. Texts
//!   that are drawn ([`Generate::sampling`]) have the same seed in each row: they are those of a session alone.
//! - Rows of a batch go through a model together where one pass over its weights can serve several; extractors have a row
//!   per thread. Memory is that of the batch and of [`MapOptions::together`] texts.
//! - [`Mapper::map_with`] reports progress and can be cancelled.

#![forbid(unsafe_code)]

mod columns;
mod error;
mod mapper;
mod options;
mod rows;
mod task;
mod template;
mod texts;

pub use error::MapError;
pub use mapper::Mapper;
pub use options::{MapOptions, OnError, Watch};
pub use task::{Choose, Embed, Extract, Generate, Score, Task};
pub use template::Template;

/// The example of the document runs.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/map.md")]
struct Document;

/// The example of the crate's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
