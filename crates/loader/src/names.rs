//! Names of tensors in Hugging Face checkpoints and in GGUF files.
//!
//! | what | Hugging Face | GGUF |
//! |---|---|---|
//! | embedding | `model.embed_tokens` | `token_embd` |
//! | layer N | `model.layers.N.` | `blk.N.` |
//! | input norm | `input_layernorm` | `attn_norm` |
//! | q, k, v, o | `self_attn.{q,k,v,o}_proj` | `attn_{q,k,v,output}` |
//! | q, k, v merged | `self_attn.qkv_proj` | `attn_qkv` |
//! | attention sub-norm | `self_attn.attn_sub_norm`, `self_attn.inner_attn_ln` (1bitLLM) | `attn_sub_norm` |
//! | norm before the feed-forward block | `post_attention_layernorm` | `ffn_norm` |
//! | gate, up, down | `mlp.{gate,up,down}_proj` | `ffn_{gate,up,down}` |
//! | gate and up merged | `mlp.gate_up_proj` | `ffn_gate_up` |
//! | feed-forward sub-norm | `mlp.ffn_sub_norm`, `mlp.ffn_layernorm` (1bitLLM) | `ffn_sub_norm` |
//! | final norm | `model.norm` | `output_norm` |
//! | head (absent where it is the embedding) | `lm_head` | `output` |
//! | scale beside a projection | `weight_scale` | `scale` |
//!
//! All end in `.weight`, except the scales.

use std::collections::HashSet;

use bitnet_model::{Norm, Projection};

/// Which names a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// GGUF.
    Gguf,
    /// Hugging Face; base models lack the prefix `model.`.
    Hf {
        /// `model.` or nothing.
        prefix: &'static str,
    },
}

/// Projections that may be rows of one tensor, in the order of the rows.
pub(crate) const GROUPS: [&[Projection]; 2] =
    [&[Projection::Q, Projection::K, Projection::V], &[Projection::Gate, Projection::Up]];

impl Names {
    pub(crate) fn embedding(self) -> String {
        match self {
            Names::Gguf => "token_embd.weight".into(),
            Names::Hf { prefix } => format!("{prefix}embed_tokens.weight"),
        }
    }

    pub(crate) fn head(self) -> String {
        match self {
            Names::Gguf => "output.weight".into(),
            // Beside the base model, so without its prefix.
            Names::Hf { .. } => "lm_head.weight".into(),
        }
    }

    fn layer(self, layer: usize) -> String {
        match self {
            Names::Gguf => format!("blk.{layer}."),
            Names::Hf { prefix } => format!("{prefix}layers.{layer}."),
        }
    }

    /// The names that a norm may have, the usual one first.
    pub(crate) fn norm(self, norm: Norm) -> Vec<String> {
        let (layer, gguf, hf): (usize, &str, &[&str]) = match norm {
            Norm::Input(l) => (l, "attn_norm", &["input_layernorm"]),
            Norm::AttnSub(l) => (l, "attn_sub_norm", &["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"]),
            Norm::PostAttention(l) => (l, "ffn_norm", &["post_attention_layernorm"]),
            Norm::FfnSub(l) => (l, "ffn_sub_norm", &["mlp.ffn_sub_norm", "mlp.ffn_layernorm"]),
            Norm::Final => {
                return vec![match self {
                    Names::Gguf => "output_norm.weight".into(),
                    Names::Hf { prefix } => format!("{prefix}norm.weight"),
                }];
            }
        };
        let names = match self {
            Names::Gguf => &[gguf][..],
            Names::Hf { .. } => hf,
        };
        names.iter().map(|n| format!("{}{n}.weight", self.layer(layer))).collect()
    }

    /// A projection's name without `.weight`.
    pub(crate) fn projection(self, layer: usize, p: Projection) -> String {
        self.layer(layer) + &self.short(p)
    }

    /// A projection's name within a layer.
    pub(crate) fn short(self, p: Projection) -> String {
        match self {
            Names::Gguf => match p {
                Projection::Q => "attn_q",
                Projection::K => "attn_k",
                Projection::V => "attn_v",
                Projection::O => "attn_output",
                Projection::Gate => "ffn_gate",
                Projection::Up => "ffn_up",
                Projection::Down => "ffn_down",
            }
            .to_owned(),
            Names::Hf { .. } => match p {
                Projection::Gate | Projection::Up | Projection::Down => format!("mlp.{}", p.name()),
                _ => format!("self_attn.{}", p.name()),
            },
        }
    }

    /// The name, without `.weight`, of the tensor that holds all projections of group `group` of [`GROUPS`].
    pub(crate) fn merged(self, layer: usize, group: usize) -> String {
        let short = match (self, group) {
            (Names::Gguf, 0) => "attn_qkv",
            (Names::Gguf, _) => "ffn_gate_up",
            (Names::Hf { .. }, 0) => "self_attn.qkv_proj",
            (Names::Hf { .. }, _) => "mlp.gate_up_proj",
        };
        self.layer(layer) + short
    }

    /// What follows a projection's name for its scale.
    pub(crate) fn scale_suffix(self) -> &'static str {
        match self {
            Names::Gguf => ".scale",
            Names::Hf { .. } => ".weight_scale",
        }
    }

    /// Every name that a model of `layers` layers may use.
    pub(crate) fn all(self, layers: usize) -> HashSet<String> {
        let mut all: HashSet<String> = [self.embedding(), self.head()].into();
        all.extend(self.norm(Norm::Final));
        for l in 0..layers {
            for n in [Norm::Input(l), Norm::AttnSub(l), Norm::PostAttention(l), Norm::FfnSub(l)] {
                all.extend(self.norm(n));
            }
            let bases = Projection::ALL.iter().map(|p| self.projection(l, *p));
            for base in bases.chain((0..GROUPS.len()).map(|g| self.merged(l, g))) {
                all.insert(base.clone() + ".weight");
                all.insert(base + self.scale_suffix());
            }
        }
        all
    }

    /// Tensors that old programs stored although they follow from the configuration.
    pub(crate) fn is_redundant(name: &str) -> bool {
        name.ends_with("rotary_emb.inv_freq") || name.ends_with(".attention.masked_bias")
    }
}

/// `llama.cpp` writes q and k of architecture `llama` with the halves of each head interleaved, so that neighbouring
/// rows turn together: row `i + half * d/2` of a head (`half` 0 or 1) becomes row `2 i + half`.
///
/// The order that undoes it, for `TernaryMatrix::with_row_order`: row `r` of the result is row `order[r]` of the file.
pub(crate) fn interleaved_to_half(heads: usize, head_dim: usize) -> Vec<u32> {
    order(heads, head_dim, |half, i| 2 * i + half)
}

/// The inverse of [`interleaved_to_half`].
pub(crate) fn half_to_interleaved(heads: usize, head_dim: usize) -> Vec<u32> {
    let mut inverse = vec![0; heads * head_dim];
    for (r, from) in (0u32..).zip(interleaved_to_half(heads, head_dim)) {
        inverse[from as usize] = r;
    }
    inverse
}

fn order(heads: usize, head_dim: usize, row: impl Fn(usize, usize) -> usize) -> Vec<u32> {
    let half = head_dim / 2;
    let mut order = Vec::with_capacity(heads * head_dim);
    for h in 0..heads {
        for r in 0..head_dim {
            // Rows of a model fit u32: the configuration bounds heads and head_dim at 4096 each.
            order.push((h * head_dim + row(r / half, r % half)) as u32);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_paired_as_the_rotary_embedding_needs() {
        // Reference: interleaved row 2i is half row i, row 2i + 1 is half row i + d/2, within each head.
        assert_eq!(interleaved_to_half(2, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(interleaved_to_half(1, 6), [0, 2, 4, 1, 3, 5]);
        assert_eq!(half_to_interleaved(1, 6), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn names_of_both_containers_correspond_one_to_one() {
        let (gguf, hf) = (Names::Gguf.all(2), Names::Hf { prefix: "model." }.all(2));
        // The two names of 1bitLLM for the sub-norms of each layer are the only surplus.
        assert_eq!(hf.len(), gguf.len() + 4);
        for name in
            ["model.layers.1.mlp.down_proj.weight_scale", "model.layers.0.self_attn.qkv_proj.weight", "lm_head.weight"]
        {
            assert!(hf.contains(name), "{name}");
        }
        for name in ["blk.1.ffn_down.scale", "blk.0.attn_output.weight", "output_norm.weight", "token_embd.weight"] {
            assert!(gguf.contains(name), "{name}");
        }
        assert!(!gguf.contains("blk.2.attn_q.weight"));
    }
}
