//! An HTTP server over [`bitnet`] with two interfaces: OpenAI's (`/v1/chat/completions`, `/v1/completions`,
//! `/v1/embeddings`, `/v1/models`) and Ollama's (`/api/chat`, `/api/generate`, `/api/embed`, `/api/tags` ...), both with
//! streaming, and `/health` and `/metrics`. With the feature `page` it can serve a page for browsers at `/`
//! ([`Options::page`]).
//!
//! One thread owns all texts and takes them through the model together, a token of each in one pass; connections are
//! served asynchronously and pass their requests to it through a bounded queue. The text of a request does not depend
//! on other texts: with the same seed it is that of [`bitnet::Session`], bit for bit.
//!
//! ```no_run
//! use bitnet_server::{Options, Server};
//!
//! let model = bitnet::Model::load("model.gguf")?;
//! Server::bind(model, Options::default())?.run_until_signal()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Server`] listens by itself; [`Service`] is the same without sockets, as an `axum` router for a program with its
//! own server. Requests and answers are described in `docs/server.md`.

#![forbid(unsafe_code)]

mod api;
mod api_error;
mod body;
mod budget;
mod cors;
mod dialect;
mod engine;
mod error;
mod gate;
mod metrics;
mod models;
mod net;
mod options;
#[cfg(feature = "page")]
mod page;
mod pool;
mod routes;
mod server;
mod service;
mod shelf;
mod state;
mod workers;

pub use error::ServerError;
pub use models::{LoadFailure, Models};
pub use options::{ApiKey, Options};
pub use server::{Handle, Server};
pub use service::Service;

/// The examples of the document compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/server.md")]
struct Document;

/// The example of the crate's page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
