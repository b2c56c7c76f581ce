//! Short names of known ternary models.

use bitnet::{ActivationBits, ModelConfig};
use loader::synthetic::Spec;

/// A model of the Hugging Face hub that many people mean.
pub(crate) struct Known {
    /// The name that is typed.
    pub(crate) name: &'static str,
    /// `OWNER/REPO[:FILE]`.
    pub(crate) hub: &'static str,
    /// Description and purpose.
    pub(crate) what: &'static str,
    /// Its shape, if it is published.
    shape: fn() -> Option<ModelConfig>,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[
    known("2b4t", "microsoft/bitnet-b1.58-2B-4T-gguf:ggml-model-i2_s.gguf", "BitNet b1.58 2B4T: conversation", || {
        Some(Spec::b2b4t().config)
    }),
    known("bonsai-1.7b", "prism-ml/Ternary-Bonsai-1.7B-gguf:Ternary-Bonsai-1.7B-Q2_0.gguf", BONSAI_SMALL, || {
        Some(Spec::bonsai_1_7b().config)
    }),
    known("bonsai-4b", "prism-ml/Ternary-Bonsai-4B-gguf:Ternary-Bonsai-4B-Q2_0.gguf", BONSAI, || {
        Some(Spec::bonsai_4b().config)
    }),
    known("bonsai-8b", "prism-ml/Ternary-Bonsai-8B-gguf:Ternary-Bonsai-8B-Q2_0.gguf", BONSAI_LARGE, || {
        Some(Spec::bonsai_8b().config)
    }),
    known("bonsai-27b", "prism-ml/Ternary-Bonsai-27B-gguf", BONSAI_HYBRID, || Some(Spec::bonsai_27b().config)),
    known("bonsai-2-27b", "prism-ml/Ternary-Bonsai-2-27B-gguf", BONSAI_FOLDED, || Some(Spec::bonsai_27b().config)),
    known(
        "bitnet-embedding-0.6b",
        "microsoft/BitNet-embedding-0.6B:bitnet-embeddings-0.6b-bf16-i2_s.gguf",
        "texts as vectors: search, comparison; `bitnet embed`",
        || Some(Spec::bitnet_embedding_0_6b().config),
    ),
    known(
        "bitnet-embedding-270m",
        "microsoft/BitNet-embedding-270M:bitnet-embeddings-270m-bf16-i2_s.gguf",
        "texts as vectors, smaller; `bitnet embed`",
        || {
            let mut config = shape([262_144, 640, 2048, 18, 4, 1, 256], true);
            config.headless = true;
            Some(config)
        },
    ),
    known("bitcpm-0.5b", "openbmb/BitCPM-CANN-0.5B-gguf:bitcpm4-0.5b-tq2_0.gguf", BITCPM_SMALL, || {
        Some(groups(shape([73_448, 1024, 4096, 24, 16, 2, 64], true)))
    }),
    known("bitcpm-1b", "openbmb/BitCPM-CANN-1B-gguf:bitcpm4-1b-tq2_0.gguf", "BitCPM 1B: Chinese and English", || {
        Some(groups(shape([73_448, 2048, 6144, 28, 16, 2, 128], false)))
    }),
    known("bitcpm-3b", "openbmb/BitCPM-CANN-3B-gguf:bitcpm4-3b-tq2_0.gguf", "BitCPM 3B: Chinese and English", || {
        Some(groups(shape([73_448, 2560, 10_240, 32, 32, 2, 128], false)))
    }),
    known("bitcpm-8b", "openbmb/BitCPM-CANN-8B-gguf:bitcpm4-8b-tq2_0.gguf", "BitCPM 8B: Chinese and English", || {
        Some(groups(shape([73_448, 4096, 16_384, 32, 32, 2, 128], false)))
    }),
    known("hy-mt2-1.8b", "tencent/Hy-MT2-1.8B-1.25Bit-GGUF:Hy-MT2-1.8B-1.25Bit.gguf", TRANSLATOR, || {
        Some(groups(shape([120_818, 2048, 6144, 32, 16, 4, 128], true)))
    }),
    known("falcon-e-1b", "tiiuae/Falcon-E-1B-Instruct", "Falcon-E 1B: conversation", || None),
    known("falcon-e-3b", "tiiuae/Falcon-E-3B-Instruct", "Falcon-E 3B: conversation", || None),
    known("falcon3-1b", "tiiuae/Falcon3-1B-Instruct-1.58bit", "Falcon3 1B: conversation", || {
        Some(shape([131_072, 2048, 8192, 18, 8, 4, 256], false))
    }),
    known("falcon3-3b", "tiiuae/Falcon3-3B-Instruct-1.58bit", "Falcon3 3B: conversation", || {
        Some(shape([131_072, 3072, 9216, 22, 12, 4, 256], false))
    }),
    known("falcon3-7b", "tiiuae/Falcon3-7B-Instruct-1.58bit", "Falcon3 7B: conversation", || {
        Some(shape([131_072, 3072, 23_040, 28, 12, 4, 256], false))
    }),
    known("falcon3-10b", "tiiuae/Falcon3-10B-Instruct-1.58bit", "Falcon3 10B: conversation", || {
        Some(shape([131_072, 3072, 23_040, 40, 12, 4, 256], false))
    }),
    known("llama3-8b", "HF1BitLLM/Llama3-8B-1.58-100B-tokens", "Llama 3 8B: continues texts", || {
        Some(shape([128_256, 4096, 14_336, 32, 32, 8, 128], false))
    }),
    known(
        "bitnet-large",
        "1bitLLM/bitnet_b1_58-large",
        "0.7 billion weights: continues texts, for experiments",
        || Some(shape([32_002, 1536, 4096, 24, 16, 16, 96], true)),
    ),
    known("bitnet-3b", "1bitLLM/bitnet_b1_58-3B", "3.3 billion weights: continues texts, for experiments", || {
        Some(shape([32_002, 3200, 8640, 26, 32, 32, 100], true))
    }),
];

const BITCPM_SMALL: &str = "BitCPM 0.5B: Chinese and English, smallest";
const TRANSLATOR: &str = "Hy-MT2 1.8B: translates between 33 languages; 1.25 bits in the file";
const BONSAI_SMALL: &str = "Ternary-Bonsai 1.7B: conversation with little memory";
const BONSAI: &str = "Ternary-Bonsai 4B: conversation, thinks before it answers";
const BONSAI_LARGE: &str = "Ternary-Bonsai 8B: the best answers of those that fit a laptop";
const BONSAI_HYBRID: &str = "Ternary-Bonsai 27B: gated delta rule and attention; a long context costs little memory";
const BONSAI_FOLDED: &str = "Ternary-Bonsai 2 27B: the same with weights that are folded with Hadamard transforms";

/// Public ternary models that are not supported here, the reasons, and programs that support them.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[
    ("Hy-MT 1.8B, 2 bits", "four levels, none of them 0: not ternary; Tencent's llama.cpp (AngelSlim)"),
    ("Maple 20B-A1B", "mixture of experts; its makers' own programs"),
    ("microsoft/VibeVoice-ASR-BitNet", "speech; Microsoft's VibeASR.cpp"),
];

const fn known(name: &'static str, hub: &'static str, what: &'static str, shape: fn() -> Option<ModelConfig>) -> Known {
    Known { name, hub, what, shape }
}

/// Vocabulary, hidden, feed-forward, layers, heads, key/value heads, width of a head.
fn shape(numbers: [usize; 7], tied: bool) -> ModelConfig {
    let [vocab, hidden, ffn, layers, heads, kv_heads, head_dim] = numbers;
    let mut config = ModelConfig::new(vocab, hidden, ffn, layers, heads, kv_heads);
    (config.head_dim, config.tie_word_embeddings) = (head_dim, tied);
    config
}

/// `config` with a scale per group of weights and 16 bits for activations.
fn groups(mut config: ModelConfig) -> ModelConfig {
    config.inputs = config.inputs.with_bits(ActivationBits::Sixteen);
    config
}

impl Known {
    /// Its shape, if it is published.
    pub(crate) fn config(&self) -> Option<ModelConfig> {
        (self.shape)()
    }

    /// `OWNER/REPO`.
    pub(crate) fn repo(&self) -> &'static str {
        self.hub.split_once(':').map_or(self.hub, |(repo, _)| repo)
    }
}

/// The model with this short name, in any case.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.name.eq_ignore_ascii_case(name))
}

/// The short name of a repository.
#[cfg_attr(not(feature = "hub"), allow(dead_code))] // Without the hub nothing is listed from its cache.
pub(crate) fn of_repo(repo: &str) -> Option<&'static str> {
    KNOWN.iter().find(|k| k.repo() == repo).map(|k| k.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within a tenth of the size in the name.
    #[test]
    fn shapes_have_as_many_weights_as_their_names_say() {
        for (name, billions) in [
            ("2b4t", 2.4),
            ("bonsai-1.7b", 1.7),
            ("bonsai-4b", 4.0),
            ("bonsai-8b", 8.2),
            ("falcon3-1b", 1.7),
            ("falcon3-3b", 3.2),
            ("falcon3-7b", 7.5),
            ("falcon3-10b", 10.3),
            ("llama3-8b", 8.0),
            ("bitnet-large", 0.73),
            ("bitnet-3b", 3.3),
            ("bitnet-embedding-0.6b", 0.6),
            ("bitnet-embedding-270m", 0.27),
            // By the sizes of their bf16 files, which include the embedding.
            ("bitcpm-0.5b", 0.435),
            ("bitcpm-1b", 1.625),
            ("bitcpm-3b", 3.605),
            ("bitcpm-8b", 8.18),
            ("hy-mt2-1.8b", 1.8),
        ] {
            let known = KNOWN.iter().find(|k| k.name == name).unwrap();
            let config = known.config().unwrap();
            config.validate().unwrap();
            let share = config.parameters() as f64 / 1e9 / billions;
            assert!((0.9..1.1).contains(&share), "{name}: {} parameters", config.parameters());
        }
    }

    #[test]
    fn every_repository_has_its_name() {
        for known in KNOWN {
            assert!(find(&known.name.to_uppercase()).is_some());
            assert_eq!(of_repo(known.repo()), Some(known.name));
        }
        assert!(find("no-such-model").is_none() && of_repo("o/n").is_none());
    }
}
