//! Sizes that all parts of a forward step share, and its only kind of failure.

/// The maximum number of tokens that pass through the layers together; longer inputs are split. It bounds the scratch
/// memory and does not change any result.
pub(super) const MAX_ROWS: usize = 256;

/// Parts of a phase, one per thread, on the stack for up to this many threads.
pub(super) const INLINE_PARTS: usize = 16;

/// A row that is not finite: the operation and the row.
pub(super) type NonFinite = (&'static str, usize);
