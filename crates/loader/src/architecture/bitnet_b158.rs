//! BitNet b1.58 2B4T: squared ReLU, sub-norms; `bitnet-b1.58` and `bitnet-25`.

use bitnet_model::Activation;

use super::{LLAMA, Rules};
use crate::config::DensePolicy;

pub(super) static RULES: Rules = Rules {
    gguf_dense: DensePolicy::Absmean,
    gguf_activation: Some(Activation::Relu2),
    bitnet_type_ids: true,
    template: Some("bitnet-2b4t"),
    ..LLAMA
};
