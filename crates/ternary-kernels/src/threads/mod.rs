//! Threads that share a phase, and the disjoint output columns that they write.

mod split;
pub mod team;

pub use split::{ColsMut, SplitCols, split_cols};
pub use team::Team;
