//! Test-time-training layers; `docs/formats/bit_ttt.md`.

use bitnet_model::Activation;

use super::{LLAMA, Rules};
use crate::config::DensePolicy;

pub(super) static RULES: Rules = Rules {
    gguf_dense: DensePolicy::Absmean,
    gguf_activation: Some(Activation::Relu2),
    gguf_activation_key: Some("feed_forward_activation"),
    bitnet_type_ids: true,
    ..LLAMA
};
