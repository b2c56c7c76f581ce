//! Qwen 3: norms of the heads of q and k; also the backbone of BitNet embedding models.

use super::{LLAMA, Rules};

pub(super) static RULES: Rules = Rules { template: Some("chatml"), ..LLAMA };
