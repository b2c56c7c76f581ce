//! The 1bitLLM models, and other models that converters write under the same name: SiLU or squared ReLU, so the
//! activation is always named.

use super::{LLAMA, Rules};
use crate::config::DensePolicy;

pub(super) static RULES: Rules = Rules {
    gguf_dense: DensePolicy::Absmean,
    gguf_activation: None,
    gguf_activation_key: Some("hidden_activation"),
    bitnet_type_ids: true,
    template: Some("bitnet-2b4t"),
    ..LLAMA
};
