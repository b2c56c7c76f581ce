//! BitNet v2: Hadamard transforms and 4-bit activations; `docs/formats/bitnet_v2.md`.

use super::{LLAMA, Rules};
use crate::config::DensePolicy;

pub(super) static RULES: Rules = Rules {
    gguf_dense: DensePolicy::Absmean,
    gguf_activation: None,
    gguf_activation_key: Some("hidden_act"),
    bitnet_type_ids: true,
    ..LLAMA
};
