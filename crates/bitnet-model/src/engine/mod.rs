//! CPU inference: preallocated buffers, plain slices, integer kernels, one thread team.
//!
//! [`Engine`] holds a model's weights packed for the chosen kernel; [`Sequence`](crate::Sequence) holds the state of
//! one text. A forward step runs the layers one after the other ([`forward`]); within a layer the threads of the team
//! share the output rows of each projection and the heads of attention, or each takes whole texts ([`schedule`]). See
//! `docs/ARCHITECTURE.md`.
//!
//! **One canonical arithmetic.** The value of a token depends only on the tokens before it: not on the number of tokens
//! that pass together, not on the number of threads. Integer products are exact; every float reduction runs within one
//! token, in an order fixed by [`ternary_kernels::ops`].
//!
//! **Imports point in one direction**: sizes and buffers, then [`blocks`], then [`network`] and [`forward`], then
//! [`schedule`], then the interface for callers ([`handle`], [`step`]). This file only names the parts.

mod blocks;
mod cache;
mod context;
mod fingerprint;
mod fold;
mod forward;
mod handle;
mod handoff;
mod input;
mod kernels;
mod layer_states;
mod limits;
mod linear;
mod network;
mod options;
mod packed;
mod packed_matrix;
mod quantized;
mod schedule;
mod segment;
mod state;
mod step;
mod table;
mod workspace;

pub use blocks::lm_head::{Candidate, HeadMode, HeadRequest, Prediction, StepOutput};
pub use cache::KvType;
pub use handle::Engine;
pub use input::{LogitsWanted, StepInput};
pub use kernels::ProjectionGroup;
pub(crate) use layer_states::Snapshot;
pub use options::EngineOptions;
pub use packed::Packer;
pub use packed_matrix::PackedMatrix;
pub use state::SequenceState;
