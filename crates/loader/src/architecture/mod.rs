//! The table of architectures: how the files of each family of models are to be read and written.
//!
//! The formulas of a family, and its names, are in [`bitnet_model::Architecture`]. This module has the facts about
//! files: the order of rows, the meaning of float projections, the default activation, gains that are stored minus 1.
//! Each family has its own file; `docs/extending/architecture.md` has the list.

mod bit_ttt;
mod bitnet;
mod bitnet_b158;
mod bitnet_v2;
mod gemma3;
mod hunyuan;
mod llama;
mod minicpm;
mod qwen2;
mod qwen3;
pub(crate) mod qwen35;

use bitnet_model::{Activation, Architecture, ModelConfig, Norm};

use crate::LoadError;
use crate::config::{DensePolicy, unsupported};
use crate::loaded::QkLayout;

/// How the files of a family are read and written.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Order of the rows of q and k in GGUF files.
    pub(crate) gguf_qk: QkLayout,
    /// Projections that are floats in GGUF files.
    pub(crate) gguf_dense: DensePolicy,
    /// The default activation of a GGUF file; `None` if it is determined otherwise, or has to be named.
    pub(crate) gguf_activation: Option<Activation>,
    /// The key, after the architecture, under which a GGUF file names its activation; `None` if the architecture
    /// implies it.
    pub(crate) gguf_activation_key: Option<&'static str>,
    /// Whether type ids that mean several things have their BitNet meaning in GGUF files of this family.
    pub(crate) bitnet_type_ids: bool,
    /// Whether GGUF files hold the factors of LongRoPE in two tensors, as those of other programs do.
    pub(crate) longrope_tensors: bool,
    /// Values of missing scales, if the files of the family have scales.
    pub(crate) absent_scales: Option<fn(&ModelConfig) -> Scales>,
    /// Offset of the gains of a safetensors file; GGUF files hold the sums.
    pub(crate) gain_offset: fn(Norm) -> f32,
    /// The built-in chat template for models whose files have no template or a wrong one.
    pub(crate) template: Option<&'static str>,
}

/// Scales that a file of MiniCPM gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scales {
    /// Factor of embeddings.
    pub(crate) embedding: f32,
    /// Factor of the outputs that are added to the residual stream.
    pub(crate) residual: f32,
    /// Divisor of logits.
    pub(crate) logits: f32,
}

fn no_offset(_: Norm) -> f32 {
    0.0
}

const DENSE: &str = "a GGUF file of this architecture whose projections are not ternary is an ordinary model; ternary ones store \
                     I2_S, TQ1_0, TQ2_0 or another ternary type, or exact multiples of -1, 0 and 1";

/// The rules of LLaMA; the others are described by their differences from it.
const LLAMA: Rules = Rules {
    gguf_qk: QkLayout::Half,
    gguf_dense: DensePolicy::Refuse(DENSE),
    gguf_activation: Some(Activation::Silu),
    gguf_activation_key: None,
    bitnet_type_ids: false,
    longrope_tensors: false,
    absent_scales: None,
    gain_offset: no_offset,
    template: None,
};

/// The rules of a family.
pub(crate) fn rules(a: Architecture) -> &'static Rules {
    match a {
        Architecture::BitnetB158 => &bitnet_b158::RULES,
        Architecture::Bitnet => &bitnet::RULES,
        Architecture::BitnetV2 => &bitnet_v2::RULES,
        Architecture::BitTtt => &bit_ttt::RULES,
        Architecture::Llama => &llama::RULES,
        Architecture::Qwen2 => &qwen2::RULES,
        Architecture::Qwen3 => &qwen3::RULES,
        Architecture::HunYuanDense => &hunyuan::RULES,
        Architecture::Qwen35 => &qwen35::RULES,
        Architecture::Gemma3 => &gemma3::RULES,
        Architecture::MiniCpm => &minicpm::RULES,
    }
}

/// The family of that name, in either container.
pub(crate) fn named(name: &str) -> Option<Architecture> {
    Architecture::from_gguf(name).or_else(|| Architecture::from_json(name, []))
}

/// Whether colliding type ids have their BitNet meaning in a GGUF file of this architecture.
pub(crate) fn has_bitnet_type_ids(name: &str) -> bool {
    // Files of extractors are written here only.
    name == crate::extractor::ARCHITECTURE || Architecture::from_gguf(name).is_some_and(|a| rules(a).bitnet_type_ids)
}

/// Families with ternary models that are not supported: names in both containers, and the missing feature.
const REFUSED: [(&[&str], &str); 4] = [
    (
        &[crate::extractor::ARCHITECTURE],
        "this is an extractor (intents and slots of utterances), no language model: load it with Extractor::load, whose \
         embed makes vectors, or use `bitnet extract` and `bitnet embed`",
    ),
    (
        &["qwen35moe", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3next", "qwen3_next"],
        "mixtures of experts beside layers of the gated delta rule are not implemented; take a dense model of architecture \
         qwen35 or qwen3",
    ),
    (
        &["qwen3moe", "qwen3_moe", "qwen2moe", "qwen2_moe", "hunyuan-moe", "hunyuan_v1_moe", "hunyuan_vl", "minicpm3"],
        "mixtures of experts, pictures and compressed keys are not implemented; take a dense model of the same family",
    ),
    (
        &["gemma", "gemma2", "gemma3n", "gemma3", "gemma3n_text", "gemma-embedding"],
        "of this family only gemma3_text (gemma3 in GGUF files) without windows is implemented; convert the text model alone",
    ),
];

/// The error for an unknown family name, which `key` holds.
pub(crate) fn unknown(key: &str, name: &str) -> LoadError {
    if let Some((_, reason)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
        return unsupported(key, format!("{name:?}"), reason);
    }
    let names: Vec<&str> = match key {
        "model_type" => {
            let mut names: Vec<&str> = Architecture::ALL.iter().map(|a| a.model_type()).collect();
            names.dedup();
            names
        }
        _ => Architecture::ALL.iter().flat_map(|a| a.gguf_names()).copied().collect(),
    };
    unsupported(key, format!("{name:?}"), &format!("supported are {}, with ternary weights", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_refused_are_told_what_is_missing() {
        for (name, word) in [("qwen35moe", "experts"), ("hunyuan-moe", "dense"), ("gpt2", "bitnet-b1.58")] {
            let error = unknown("general.architecture", name).to_string();
            assert!(error.contains(name) && error.contains(word), "{error}");
            assert_eq!(Architecture::from_gguf(name), None);
        }
        for (name, word) in [("qwen3_next", "experts"), ("hunyuan_v1_moe", "dense"), ("gpt2", "gemma3_text")] {
            let error = unknown("model_type", name).to_string();
            assert!(error.contains(name) && error.contains(word), "{error}");
            assert_eq!(Architecture::from_json(name, []), None);
        }
    }

    #[test]
    fn every_family_has_a_place_in_the_table() {
        for a in Architecture::ALL {
            assert_eq!(named(a.gguf_name()), Some(a));
            // Files of architecture bitnet and bitnet-v2 name their activation.
            let named_by_key = rules(a).gguf_activation.is_none();
            assert_eq!(named_by_key, matches!(a, Architecture::Bitnet | Architecture::BitnetV2), "{a:?}");
            assert_eq!(rules(a).absent_scales.is_some(), a.formulas().scales, "{a:?}");
        }
    }
}
