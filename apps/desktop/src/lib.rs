//! A desktop companion: a small character that converses, computed in this process. `run` is the program; the rest is
//! public for its tests.
//!
//! - [`engine`]: the thread that computes; it knows no window.
//! - [`memory`]: what is remembered, as files.
//! - [`settings`], [`plan`]: what is set, and a model's memory before it is loaded.
//! - `commands`: what the page may ask for, each a few lines. `window`, `tray`, `start`: the desktop.

#![forbid(unsafe_code)]

mod commands;
pub mod engine;
mod failure;
pub mod memory;
pub mod plan;
pub mod settings;
mod shared;
mod start;
mod tray;
mod window;

pub use failure::Failure;
pub use start::run;
