//! LLaMA with ternary weights: q and k are stored with neighbouring rows turning together.

use super::{LLAMA, Rules};
use crate::loaded::QkLayout;

pub(super) static RULES: Rules = Rules { gguf_qk: QkLayout::Interleaved, ..LLAMA };
