//! Qwen 2: biases of q, k and v.

use super::{LLAMA, Rules};

pub(super) static RULES: Rules = Rules { template: Some("chatml"), ..LLAMA };
