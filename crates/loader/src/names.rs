//! Names of tensors in Hugging Face checkpoints and in GGUF files.
//!
//! | what | Hugging Face | GGUF |
//! |---|---|---|
//! | embedding | `model.embed_tokens` | `token_embd` |
//! | layer N | `model.layers.N.` | `blk.N.` |
//! | input norm | `input_layernorm` | `attn_norm` |
//! | q, k, v, o of attention | `self_attn.{q,k,v,o}_proj` | `attn_{q,k,v,output}` |
//! | q, k, v merged | `self_attn.qkv_proj` | `attn_qkv` |
//! | attention sub-norm | `self_attn.attn_sub_norm`, `self_attn.inner_attn_ln` (1bitLLM) | `attn_sub_norm` |
//! | norm before the feed-forward block | `post_attention_layernorm` | `ffn_norm` |
//! | gate, up, down | `mlp.{gate,up,down}_proj` | `ffn_{gate,up,down}` |
//! | gate and up merged | `mlp.gate_up_proj` | `ffn_gate_up` |
//! | feed-forward sub-norm | `mlp.ffn_sub_norm`, `mlp.ffn_layernorm` (1bitLLM) | `ffn_sub_norm` |
//! | norms of the heads of q, k | `self_attn.{q,k}_norm`, `self_attn.{query,key}_layernorm` (HunYuan) | `attn_{q,k}_norm` |
//! | norm of a projection's input | `self_attn.q_proj.norm`, ... | `attn_q_norm_in`, ... |
//! | Gemma: norms of outputs | `post_attention_layernorm`, `post_feedforward_layernorm` | `post_attention_norm`, `post_ffw_norm` |
//! | Gemma: norm before the feed-forward block | `pre_feedforward_layernorm` | `ffn_norm` |
//! | Qwen 3.5: norm before the feed-forward block | `post_attention_layernorm` | `post_attention_norm` |
//! | gated delta rule: q, k and v; gate; o | `linear_attn.{in_proj_qkv,in_proj_z,out_proj}` | `attn_qkv`, `attn_gate`, `ssm_out` |
//! | gated delta rule: decay, rate, norm | `linear_attn.{in_proj_a,in_proj_b,norm}` | `ssm_{alpha,beta,norm}` |
//! | gated delta rule: convolution | `linear_attn.conv1d` | `ssm_conv1d` |
//! | gated delta rule: sub-norm | `linear_attn.attn_sub_norm` | `ssm_sub_norm` |
//! | gated delta rule: factor and bias of decays | `linear_attn.{A_log,dt_bias}` | `ssm_a`, `ssm_dt.bias` |
//! | biases of q, k, v | `self_attn.{q,k,v}_proj.bias` | `attn_{q,k,v}.bias` |
//! | final norm | `model.norm` | `output_norm` |
//! | TTT layer: q, k, v, gate, o | `ttt.{q,k,v,g,o}_proj` | `ttt_{q,k,v,gate,output}` |
//! | TTT layer: sub-norm | `ttt.attn_sub_norm` | `ttt_sub_norm` |
//! | TTT layer: norm before the convolution | `conv.norm` | `ttt_conv_norm` |
//! | head (absent where it is the embedding) | `lm_head` | `output` |
//! | scale of a projection | `weight_scale` | `scale` |
//!
//! All end in `.weight`, except the scales, the biases and `A_log`. The other tensors of a TTT layer are in
//! `docs/formats/bit_ttt.md`.

use std::collections::HashSet;

use bitnet_model::{DeltaTensor, Mixer, ModelConfig, Norm, Projection, TttTensor};

use crate::config::rope;

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
const GROUPS: [&[Projection]; 2] =
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

    /// The names that a norm may have in a model, the usual one first.
    pub(crate) fn norm(self, norm: Norm, config: &ModelConfig) -> Vec<String> {
        let mixer = norm.layer().map_or(Mixer::Attention, |l| config.mixer(l));
        let Some(layer) = norm.layer() else {
            return vec![match self {
                Names::Gguf => "output_norm.weight".into(),
                Names::Hf { prefix } => format!("{prefix}norm.weight"),
            }];
        };
        let names = match self {
            Names::Gguf => vec![
                match norm {
                    Norm::PreConv(_) => "ttt_conv_norm",
                    Norm::Input(_) => "attn_norm",
                    Norm::AttnSub(_) if mixer == Mixer::Attention => "attn_sub_norm",
                    Norm::AttnSub(_) if mixer == Mixer::GatedDelta => "ssm_sub_norm",
                    Norm::AttnSub(_) => "ttt_sub_norm",
                    Norm::PostAttention(_) if config.gated_attention => "post_attention_norm",
                    Norm::PostAttention(_) => "ffn_norm",
                    Norm::FfnSub(_) => "ffn_sub_norm",
                    Norm::HeadQ(_) => "attn_q_norm",
                    Norm::HeadK(_) => "attn_k_norm",
                    Norm::MixerOut(_) => "post_attention_norm",
                    Norm::FfnOut(_) => "post_ffw_norm",
                    Norm::ProjectionIn(_, p) => return vec![self.projection(layer, p, mixer) + "_norm_in.weight"],
                    Norm::Final => "output_norm",
                }
                .to_owned(),
            ],
            Names::Hf { .. } => {
                // 1bitLLM's models have other names for the sub-norms.
                let other = match norm {
                    Norm::AttnSub(_) if mixer == Mixer::Attention => Some("self_attn.inner_attn_ln"),
                    Norm::FfnSub(_) => Some("mlp.ffn_layernorm"),
                    _ => None,
                };
                std::iter::once(config.norm_path(norm)).chain(other.map(str::to_owned)).collect()
            }
        };
        names.iter().map(|n| format!("{}{n}.weight", self.layer(layer))).collect()
    }

    /// The name, without `.weight`, of a projection in a layer with this mixer.
    pub(crate) fn projection(self, layer: usize, p: Projection, mixer: Mixer) -> String {
        let short = match self {
            Names::Gguf => {
                let block = match mixer.ttt_kind() {
                    Some(_) => "ttt",
                    None => "attn",
                };
                match p {
                    Projection::O if mixer == Mixer::GatedDelta => "ssm_out".into(),
                    Projection::Qkv => "attn_qkv".into(),
                    Projection::Q => format!("{block}_q"),
                    Projection::K => format!("{block}_k"),
                    Projection::V => format!("{block}_v"),
                    Projection::OutGate => format!("{block}_gate"),
                    Projection::O => format!("{block}_output"),
                    Projection::Gate => "ffn_gate".into(),
                    Projection::Up => "ffn_up".into(),
                    Projection::Down => "ffn_down".into(),
                }
            }
            Names::Hf { .. } => p.path(mixer),
        };
        self.layer(layer) + &short
    }

    /// The full name of a projection's bias in a layer with this mixer.
    pub(crate) fn bias(self, layer: usize, p: Projection, mixer: Mixer) -> String {
        self.projection(layer, p, mixer) + ".bias"
    }

    /// Whether a tensor is the norm of a single projection's input.
    pub(crate) fn is_projection_norm(self, name: &str) -> bool {
        match self {
            Names::Gguf => name.ends_with("_norm_in.weight"),
            Names::Hf { .. } => name.ends_with("_proj.norm.weight"),
        }
    }

    /// The full name of a full-precision tensor of a TTT layer.
    pub(crate) fn ttt(self, layer: usize, t: TttTensor) -> String {
        let short = match self {
            Names::Gguf => t.gguf_name(),
            Names::Hf { .. } => t.path(),
        };
        self.layer(layer) + short
    }

    /// The full name of a full-precision tensor of a layer of the gated delta rule.
    pub(crate) fn delta(self, layer: usize, t: DeltaTensor) -> String {
        let short = match self {
            Names::Gguf => t.gguf_name(),
            Names::Hf { .. } => t.path(),
        };
        self.layer(layer) + short
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

    /// Suffix of a projection's name for its scale.
    pub(crate) fn scale_suffix(self) -> &'static str {
        match self {
            Names::Gguf => ".scale",
            Names::Hf { .. } => ".weight_scale",
        }
    }

    /// Every name that a model of this configuration may use in its first `layers` layers.
    pub(crate) fn all(self, config: &ModelConfig, layers: usize) -> HashSet<String> {
        let mut all: HashSet<String> = [self.embedding(), self.head()].into();
        all.extend(self.norm(Norm::Final, config));
        if self == Names::Gguf {
            all.extend(rope::TENSORS.map(str::to_owned));
        }
        for l in 0..layers {
            let mixer = config.mixer(l);
            // Unexpected sub-norms are rejected elsewhere.
            for n in config.layer_norms(l).chain([Norm::AttnSub(l), Norm::FfnSub(l)]) {
                all.extend(self.norm(n, config));
            }
            all.extend(config.layer_biases(l).map(|(p, _)| self.bias(l, p, mixer)));
            all.extend(config.layer_ttt_tensors(l).map(|(t, _)| self.ttt(l, t)));
            all.extend(config.layer_delta_tensors(l).map(|(t, _)| self.delta(l, t)));
            let bases = config.layer_projections(l).map(|p| self.projection(l, p, mixer));
            for base in bases.chain(self.groups(mixer).map(|(g, _)| self.merged(l, g))) {
                all.insert(base.clone() + ".weight");
                all.insert(base + self.scale_suffix());
            }
        }
        all
    }

    /// The groups of projections that may be rows of one tensor in a layer with this mixer, with their numbers.
    pub(crate) fn groups(self, mixer: Mixer) -> impl Iterator<Item = (usize, &'static [Projection])> {
        // Merged tensors come from other programs, which only support attention.
        let own = move |g: &usize| mixer == Mixer::Attention || *g > 0;
        GROUPS.into_iter().enumerate().filter(move |(g, _)| own(g))
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
        let mut c = ModelConfig::new(10, 8, 8, 4, 2, 2);
        c.mixers = vec![Mixer::Attention, Mixer::Attention, Mixer::TttMlp, Mixer::TttLinear];
        (c.ttt.share_qk, c.ttt.use_gate, c.ttt.pre_conv, c.ttt.decay) = (true, true, true, true);
        let (gguf, hf) = (Names::Gguf.all(&c, 4), Names::Hf { prefix: "model." }.all(&c, 4));
        // The two names of 1bitLLM for the sub-norms of attention, one for those of other layers, are the only surplus;
        // GGUF has the factors of the rotary embedding, in three tensors.
        assert_eq!(hf.len(), gguf.len() + 2 * 2 + 2 - 3);
        for name in [
            "model.layers.1.mlp.down_proj.weight_scale",
            "model.layers.0.self_attn.qkv_proj.weight",
            "lm_head.weight",
            "model.layers.2.ttt.W2",
            "model.layers.3.ttt.learnable_decay",
            "model.layers.3.ttt.learnable_ttt_lr_weight",
            "model.layers.3.ttt.g_proj.weight",
            "model.layers.3.ttt.attn_sub_norm.weight",
            "model.layers.2.conv.norm.weight",
            "model.layers.2.conv.conv.bias",
        ] {
            assert!(hf.contains(name), "{name}");
        }
        for name in [
            "blk.1.ffn_down.scale",
            "blk.0.attn_output.weight",
            "output_norm.weight",
            "token_embd.weight",
            "blk.2.ttt_w2.bias",
            "blk.3.ttt_gate.weight",
            "blk.3.ttt_conv_norm.weight",
            "blk.3.ttt_token_idx",
            "blk.3.ttt_decay",
        ] {
            assert!(gguf.contains(name), "{name}");
        }
        // Neither layers that there are not, nor tensors of another mixer.
        for name in ["blk.4.attn_q.weight", "blk.2.attn_q.weight", "blk.3.ttt_w2.bias", "blk.3.ttt_k.weight"] {
            assert!(!gguf.contains(name), "{name}");
        }
    }
}
