//! Threads that share a phase, and the disjoint columns of an output that they write.

mod split;
pub mod team;

pub use split::{ColsMut, SplitCols, split_cols};
pub use team::Team;
