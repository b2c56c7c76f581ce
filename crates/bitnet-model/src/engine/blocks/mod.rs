//! The blocks of a layer, and the LM head: each has its weights, its buffers, and a `forward`.

pub(super) mod attention;
pub(super) mod branch;
pub(super) mod delta;
pub(super) mod feed_forward;
mod head_line;
pub(super) mod lm_head;
pub(super) mod ttt;
