//! State that all requests share.

use std::sync::Arc;

use bitnet::Model;

use crate::Options;
use crate::budget::Budget;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::workers::Workers;

/// State that all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) name: String,
    pub(crate) created: u64,
    /// Most new tokens of a text.
    pub(crate) max_tokens: usize,
    /// Most tokens of a text that is to become a vector.
    pub(crate) max_embed_tokens: usize,
    pub(crate) options: Options,
    pub(crate) workers: Workers,
    /// Bytes of all bodies that were read and are not done with.
    pub(crate) body_bytes: Arc<Budget>,
    /// Bytes of the automata of all texts, those that wait included.
    pub(crate) constraint_bytes: Arc<Budget>,
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
}
