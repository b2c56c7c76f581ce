//! The families of models: their names in files, and the formulas of each that no file states.
//!
//! One table for all readers and writers of configurations: loader, converter, trainer, synthetic models. The loader's
//! `architecture` module defines how their tensors are stored; `docs/extending/architecture.md` lists what a further
//! family needs.

use super::{Activation, ActivationBits, DeltaOptions, InputForm, Mixer, ModelConfig};

/// A family of models. Readers and writers match on it exhaustively, so a further family does not compile until they
/// handle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// BitNet b1.58 2B4T: squared ReLU, sub-norms.
    BitnetB158,
    /// The 1bitLLM models: SiLU, sub-norms.
    Bitnet,
    /// BitNet v2: Hadamard transforms and 4-bit activations (arXiv:2504.18415).
    BitnetV2,
    /// Layers of test-time training or of the gated delta rule in BitNet models: this project's own.
    BitTtt,
    /// LLaMA with ternary weights.
    Llama,
    /// Qwen 2: LLaMA with biases of q, k and v.
    Qwen2,
    /// Qwen 3: LLaMA with norms of the heads of q and k; also BitNet embedding models of that backbone.
    Qwen3,
    /// HunYuan, dense (Hy-MT): LLaMA with norms of the heads of q and k after the rotary embedding.
    HunYuanDense,
    /// Qwen 3.5: layers of the gated delta rule, and gated attention in every fourth one.
    Qwen35,
    /// Gemma 3 without windows, as in BitNet embedding models.
    Gemma3,
    /// MiniCPM: LLaMA with scales of embedding, residual branches and logits.
    MiniCpm,
}

/// Whether models of a family have some feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No model has it.
    Never,
    /// The files of a model say whether it has it, by a key or by their tensors.
    ByFile,
    /// Every model has it.
    Always,
}

impl Presence {
    /// Whether a model has the feature, if its file says `file`.
    pub fn decide(self, file: bool) -> bool {
        match self {
            Presence::Never => false,
            Presence::ByFile => file,
            Presence::Always => true,
        }
    }

    fn allows(self, value: bool) -> bool {
        self.decide(value) == value
    }
}

/// Formulas of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Formulas {
    /// The activation that the name of the family implies; `None` if a file must name it.
    pub activation: Option<Activation>,
    /// Norms before the output and the down projection.
    pub sub_norms: Presence,
    /// Norms of the heads of q and k.
    pub head_norms: bool,
    /// Whether the norms of heads come after the rotary embedding.
    pub head_norms_after_rope: bool,
    /// A norm of each projection's input.
    pub projection_norms: Presence,
    /// Norms of the outputs of attention and the feed-forward block.
    pub output_norms: bool,
    /// Biases of q, k and v.
    pub qkv_bias: bool,
    /// Whether a token's embedding is multiplied by the square root of its length.
    pub embedding_root: bool,
    /// Whether files give scales of embedding, residual branches and logits.
    pub scales: bool,
    /// Whether files give a separate scale of attention.
    pub attention_scale: bool,
    /// Hadamard transforms and bits of activations.
    pub forms: Presence,
    /// Whether files give a mixer for each layer.
    pub mixers: bool,
    /// Whether layers use the gated delta rule, except every n-th one.
    pub delta: bool,
    /// Whether the output of attention has a gate, whose rows are stored among those of the queries.
    pub gated_attention: bool,
    /// Whether files say which part of a head the rotary embedding rotates.
    pub partial_rotary: bool,
    /// Whether files may say that a signed Hadamard transform is folded into the weights.
    pub fold: bool,
    /// Whether there are models without a head.
    pub embeds: bool,
}

impl Formulas {
    /// Whether a file without a head belongs to a model without one, rather than to a model whose head is the
    /// embedding: files do not say it, but a model that pools vectors does not generate tokens.
    pub fn seems_headless(&self, no_own_head: bool, has_pooling: bool, has_projection_norms: bool) -> bool {
        self.embeds && no_own_head && (has_pooling || has_projection_norms)
    }
}

/// LLaMA; the others are described by their differences from it.
const LLAMA: Formulas = Formulas {
    activation: Some(Activation::Silu),
    sub_norms: Presence::ByFile,
    head_norms: false,
    head_norms_after_rope: false,
    projection_norms: Presence::Never,
    output_norms: false,
    qkv_bias: false,
    embedding_root: false,
    scales: false,
    attention_scale: false,
    forms: Presence::Never,
    mixers: false,
    delta: false,
    gated_attention: false,
    partial_rotary: false,
    fold: false,
    embeds: false,
};

impl Architecture {
    /// All families. If several compute the same, files are written as the first one.
    pub const ALL: [Architecture; 11] = [
        Architecture::BitnetB158,
        Architecture::Bitnet,
        Architecture::BitnetV2,
        Architecture::BitTtt,
        Architecture::Llama,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::HunYuanDense,
        Architecture::Qwen35,
        Architecture::Gemma3,
        Architecture::MiniCpm,
    ];

    /// Names in GGUF files (`general.architecture`); the first is the one that is written.
    pub fn gguf_names(self) -> &'static [&'static str] {
        match self {
            Architecture::BitnetB158 => &["bitnet-b1.58", "bitnet-25"],
            Architecture::Bitnet => &["bitnet"],
            Architecture::BitnetV2 => &["bitnet-v2"],
            Architecture::BitTtt => &["bit-ttt"],
            Architecture::Llama => &["llama"],
            Architecture::Qwen2 => &["qwen2"],
            Architecture::Qwen3 => &["qwen3"],
            Architecture::HunYuanDense => &["hunyuan-dense"],
            Architecture::Qwen35 => &["qwen35"],
            Architecture::Gemma3 => &["gemma3"],
            Architecture::MiniCpm => &["minicpm"],
        }
    }

    /// The name that is written to GGUF files.
    pub fn gguf_name(self) -> &'static str {
        self.gguf_names()[0]
    }

    /// `model_type` in a `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::BitnetB158 => "bitnet",
            // Recognised by a class, see `Architecture::from_json`.
            Architecture::Bitnet => "llama",
            Architecture::BitnetV2 => "bitnet-v2",
            Architecture::BitTtt => "bit-ttt",
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::HunYuanDense => "hunyuan_v1_dense",
            Architecture::Qwen35 => "qwen3_5_text",
            Architecture::Gemma3 => "gemma3_text",
            Architecture::MiniCpm => "minicpm",
        }
    }

    /// The class in a `config.json`, for a model with or without a head.
    pub fn class(self, headless: bool) -> &'static str {
        match (self, headless) {
            (Architecture::BitnetB158, _) => "BitNetForCausalLM",
            (Architecture::Bitnet, _) => "BitnetForCausalLM",
            (Architecture::BitnetV2, _) => "BitNetV2ForCausalLM",
            (Architecture::BitTtt, _) => "BitTttForCausalLM",
            (Architecture::Llama, _) => "LlamaForCausalLM",
            (Architecture::Qwen2, false) => "Qwen2ForCausalLM",
            (Architecture::Qwen2, true) => "Qwen2Model",
            (Architecture::Qwen3, false) => "Qwen3ForCausalLM",
            (Architecture::Qwen3, true) => "Qwen3Model",
            (Architecture::HunYuanDense, _) => "HunYuanDenseV1ForCausalLM",
            (Architecture::Qwen35, _) => "Qwen3_5ForCausalLM",
            (Architecture::Gemma3, false) => "Gemma3ForCausalLM",
            (Architecture::Gemma3, true) => "Gemma3TextModel",
            (Architecture::MiniCpm, _) => "MiniCPMForCausalLM",
        }
    }

    /// The family with this name in a GGUF file.
    pub fn from_gguf(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.gguf_names().contains(&name))
    }

    /// The family of a `config.json` with this `model_type` (empty if there is none) and these classes. 1bitLLM's
    /// models have a BitNet class and the type `llama`, or none.
    pub fn from_json<'a>(model_type: &str, classes: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let bitnet = Self::is_bitnet_class(classes);
        match model_type {
            "llama" | "" if bitnet => Some(Architecture::Bitnet),
            _ => Self::ALL.into_iter().find(|a| *a != Architecture::Bitnet && a.model_type() == model_type),
        }
    }

    /// Whether one of these classes is a BitNet class, whatever the type.
    pub fn is_bitnet_class<'a>(classes: impl IntoIterator<Item = &'a str>) -> bool {
        classes.into_iter().any(|c| c.to_ascii_lowercase().starts_with("bitnet"))
    }

    /// Whether models with this name in a `config.json` are BitNet models, so that float weights are to be quantised.
    pub fn is_bitnet(self) -> bool {
        match self {
            Architecture::BitnetB158 | Architecture::Bitnet | Architecture::BitnetV2 | Architecture::BitTtt => true,
            Architecture::Llama
            | Architecture::Qwen2
            | Architecture::Qwen3
            | Architecture::HunYuanDense
            | Architecture::Qwen35
            | Architecture::Gemma3
            | Architecture::MiniCpm => false,
        }
    }

    /// Formulas of the family.
    pub fn formulas(self) -> Formulas {
        match self {
            Architecture::BitnetB158 => {
                Formulas { activation: Some(Activation::Relu2), sub_norms: Presence::Always, ..LLAMA }
            }
            Architecture::Bitnet => LLAMA,
            Architecture::BitnetV2 => Formulas { activation: None, forms: Presence::Always, ..LLAMA },
            Architecture::BitTtt => Formulas { activation: None, forms: Presence::ByFile, mixers: true, ..LLAMA },
            Architecture::Llama => LLAMA,
            Architecture::Qwen2 => Formulas { qkv_bias: true, sub_norms: Presence::Never, embeds: true, ..LLAMA },
            Architecture::Qwen3 => Formulas {
                head_norms: true,
                sub_norms: Presence::Never,
                projection_norms: Presence::ByFile,
                embeds: true,
                ..LLAMA
            },
            Architecture::HunYuanDense => {
                Formulas { head_norms: true, head_norms_after_rope: true, sub_norms: Presence::Never, ..LLAMA }
            }
            Architecture::Qwen35 => Formulas {
                head_norms: true,
                sub_norms: Presence::Never,
                delta: true,
                gated_attention: true,
                partial_rotary: true,
                fold: true,
                ..LLAMA
            },
            Architecture::Gemma3 => Formulas {
                activation: Some(Activation::GeluTanh),
                sub_norms: Presence::Never,
                head_norms: true,
                projection_norms: Presence::ByFile,
                output_norms: true,
                embedding_root: true,
                attention_scale: true,
                embeds: true,
                ..LLAMA
            },
            Architecture::MiniCpm => Formulas { sub_norms: Presence::Never, scales: true, ..LLAMA },
        }
    }

    /// Sets everything in `c` that the family implies.
    pub fn imply(self, c: &mut ModelConfig) {
        let f = self.formulas();
        c.head_norms = f.head_norms;
        c.head_norms_after_rope = f.head_norms_after_rope;
        c.output_norms = f.output_norms;
        c.qkv_bias = f.qkv_bias;
        c.gated_attention = f.gated_attention;
        if f.embedding_root {
            c.embedding_scale = (c.hidden_size as f64).sqrt() as f32;
        }
    }

    /// A small model of the family, for tests of readers and writers.
    #[doc(hidden)]
    pub fn example(self) -> ModelConfig {
        let f = self.formulas();
        let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
        c.hidden_act = f.activation.unwrap_or(Activation::Silu);
        c.sub_norms = f.sub_norms == Presence::Always || self == Architecture::Bitnet;
        self.imply(&mut c);
        if f.scales {
            (c.embedding_scale, c.residual_scale, c.logit_divisor) = (12.0, 0.35, 2.0);
        }
        if f.mixers {
            c.mixers = vec![Mixer::TttLinear, Mixer::Attention];
        }
        if f.delta {
            c.mixers = ModelConfig::every(c.num_hidden_layers, 2);
            c.delta = DeltaOptions { conv_kernel: 4, state_size: 16, key_heads: 2, value_heads: 4 };
            c.rotary_dim = Some(4);
        }
        if f.forms == Presence::Always {
            c.inputs = super::InputForms::bitnet_v2(&c, ActivationBits::Four);
        }
        c
    }

    /// Whether a file of this family can state everything that `c` computes, apart from the activation.
    fn says(self, c: &ModelConfig) -> bool {
        let f = self.formulas();
        // All fields are listed, so that none is forgotten.
        let ModelConfig {
            vocab_size: _,
            hidden_size,
            intermediate_size: _,
            num_hidden_layers: _,
            num_attention_heads: _,
            num_key_value_heads: _,
            head_dim: _,
            hidden_act: _,
            rms_norm_eps: _,
            rope_theta: _,
            rope_scaling: _,
            max_position_embeddings: _,
            tie_word_embeddings,
            sub_norms,
            head_norms,
            head_norms_after_rope,
            projection_norms,
            output_norms,
            qkv_bias,
            embedding_scale,
            residual_scale,
            logit_divisor,
            attention_scale,
            headless,
            pooling,
            bos_token_id: _,
            eos_token_ids: _,
            mixers,
            ttt: _,
            inputs,
            weight_group: _,
            delta: _,
            gated_attention,
            rotary_dim,
            fold,
        } = c;
        let embedding = if f.embedding_root { (*hidden_size as f64).sqrt() as f32 } else { 1.0 };
        let ones = (*residual_scale, *logit_divisor) == (1.0, 1.0);
        f.sub_norms.allows(*sub_norms)
            && f.head_norms == *head_norms
            && f.head_norms_after_rope == *head_norms_after_rope
            && f.projection_norms.allows(*projection_norms)
            && f.output_norms == *output_norms
            && f.qkv_bias == *qkv_bias
            && (f.scales || *embedding_scale == embedding && ones)
            && (f.attention_scale || attention_scale.is_none())
            && f.seems_headless(*tie_word_embeddings, pooling.is_some(), *projection_norms) == *headless
            && f.forms.allows(!inputs.are_implied())
            // An option of the engine, which no file contains.
            && inputs.all().iter().all(|form| form.bits != ActivationBits::EightByGroup)
            // The type of files with a mixer for each layer is for models that have another than attention.
            && f.mixers == mixers.iter().any(|m| m.ttt_kind().is_some() || *m == Mixer::GatedDelta && !f.delta)
            && f.gated_attention == *gated_attention
            && (f.partial_rotary || rotary_dim.is_none())
            && (f.fold || fold.is_none())
    }

    /// The family whose GGUF files can state everything that `c` computes.
    pub fn of(c: &ModelConfig) -> Option<Self> {
        let stands_for = |a: &Self| a.formulas().activation.is_none_or(|act| act == c.hidden_act);
        // Files of architecture `bitnet` may lack sub-norms, but that is what `llama` is for.
        let own = |a: &Self| *a != Architecture::Bitnet || c.sub_norms;
        // Its files state an interval of attention layers.
        let order = |a: &Self| !a.formulas().delta || c.attention_interval().is_some();
        Self::ALL.into_iter().find(|a| a.says(c) && stands_for(a) && own(a) && order(a))
    }

    /// The family whose `config.json` can state everything that `c` computes; it always names the activation.
    pub fn of_json(c: &ModelConfig) -> Option<Self> {
        // No checkpoint of this family says that its weights are folded.
        Self::ALL.into_iter().find(|a| a.says(c) && *a != Architecture::Bitnet && c.fold.is_none())
    }
}

impl super::InputForms {
    /// Whether files need not state the forms: int8, or the 16 bits that weights with a scale per group imply.
    pub fn are_implied(&self) -> bool {
        let sixteen = InputForm { hadamard: None, bits: ActivationBits::Sixteen };
        self.are_plain() || self.all().iter().all(|form| *form == sixteen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(change: impl FnOnce(&mut ModelConfig)) -> ModelConfig {
        let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
        change(&mut c);
        c.validate().unwrap();
        c
    }

    #[test]
    fn every_family_is_found_by_its_names() {
        for a in Architecture::ALL {
            a.gguf_names().iter().for_each(|name| assert_eq!(Architecture::from_gguf(name), Some(a)));
            assert_eq!(Architecture::from_json(a.model_type(), [a.class(false)]), Some(a));
        }
        assert_eq!(Architecture::from_json("", ["BitnetForCausalLM"]), Some(Architecture::Bitnet));
        for unknown in ["", "qwen35moe", "gpt2"] {
            assert_eq!(Architecture::from_json(unknown, []), None);
            assert_eq!(Architecture::from_gguf(unknown), None);
        }
    }

    #[test]
    fn what_a_family_implies_leads_back_to_it() {
        for a in Architecture::ALL {
            let c = a.example();
            c.validate().unwrap();
            assert_eq!(Architecture::of(&c), Some(a), "{a:?}");
        }
    }

    #[test]
    fn what_no_family_computes_has_none() {
        let none = |change: fn(&mut ModelConfig)| {
            let c = shape(change);
            assert_eq!(Architecture::of(&c), None, "{c:?}");
        };
        none(|c| c.sub_norms = false);
        none(|c| c.output_norms = true);
        none(|c| c.head_norms = true);
        none(|c| (c.head_norms, c.head_norms_after_rope) = (true, true));
        none(|c| c.qkv_bias = true);
        none(|c| c.projection_norms = true);
        none(|c| c.headless = true);
        none(|c| c.attention_scale = Some(0.5));
        none(|c| c.gated_attention = true);
        none(|c| c.rotary_dim = Some(8));
        none(|c| c.fold = Some(crate::Fold::new(64).with_signs(vec![1; 64]).with_signs(vec![1; 128])));
        let relu = shape(|c| c.sub_norms = false);
        assert_eq!(Architecture::of_json(&relu), Some(Architecture::Llama));
        let sixteen = shape(|c| c.inputs = c.inputs.with_bits(ActivationBits::Sixteen));
        assert_eq!(Architecture::of(&sixteen), Some(Architecture::BitnetB158));
    }
}
