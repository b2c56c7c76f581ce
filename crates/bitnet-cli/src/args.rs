//! Options that several commands share.

use std::path::PathBuf;
use std::str::FromStr;

use bitnet::{ActivationBits, HeadMode, Isa, KvType, LoadOptions, ProjectionGroup, QkLayout};
use clap::Args;
use loader::TlTiles;

use crate::choices;
use crate::model_spec::ModelSpec;

/// The model, and overrides for its files.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// GGUF file, Hugging Face folder, a short name, hf:OWNER/REPO[:FILE], synthetic:NAME or synthetic:FILE.json
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL", hide_env = true, value_parser = ModelSpec::parser())]
    pub(crate) model: Option<ModelSpec>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// Options that override or complete a model's files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct FileArgs {
    /// A tokenizer.json that overrides the model's tokenizer, or supplies what it lacks
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Row order of q and k, for files whose metadata is wrong
    #[arg(long, value_name = "ORDER", value_parser = choices::qk_layout())]
    pub(crate) qk_layout: Option<QkLayout>,
    /// Tile sizes of a TL1 or TL2 file: a preset of bitnet.cpp (bitnet_b1_58-3B, bitnet_b1_58-large, Llama3-8B-1.58),
    /// its kernel_config.ini, or [MxK:]bm=N,bk=N,bmm=N; may be given several times
    #[arg(long, value_name = "TILES", value_parser = parse_tiles)]
    pub(crate) tl: Vec<TlTiles>,
    /// Do not keep packed weights of large models in bitnet's cache, and use none from there: `bitnet list` shows them
    #[arg(long)]
    pub(crate) no_packed_cache: bool,
    /// Copy packed weights from the mapped file, whose memory processes share, to huge pages of this process in the
    /// background; decoding is faster from there on some older kernels
    #[arg(long)]
    pub(crate) huge_pages: bool,
}

impl FileArgs {
    /// Options for reading a model's files.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let mut options = LoadOptions::default();
        options.tokenizer = self.tokenizer.clone();
        options.qk_layout = self.qk_layout;
        options.huge_pages = self.huge_pages;
        options.tl = self.tl.iter().cloned().fold(TlTiles::default(), TlTiles::and);
        options
    }
}

/// Options for computing.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct EngineArgs {
    /// Number of threads [default: one per core available to this process]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Instruction set [default: the best on this CPU; `bitnet doctor` lists them]
    #[arg(long, value_name = "NAME", value_parser = parse_isa)]
    pub(crate) isa: Option<Isa>,
    /// Kernel for ternary products: a kernel, a format, or GROUP=NAME for one projection group (qkv, o, gate-up, down);
    /// repeatable. `default` ignores what `bitnet tune` stored [default: what `tune` stored, else the best for the
    /// model's size; `bitnet doctor` lists the kernels]
    #[arg(long, value_name = "[GROUP=]NAME", conflicts_with = "isa")]
    pub(crate) kernel: Vec<KernelArg>,
    /// Type of the KV cache: f32 is exact, the others are smaller
    #[arg(long, value_name = "TYPE", value_parser = choices::kv())]
    pub(crate) kv: Option<KvType>,
    /// LM-head strategy for greedy and top-k sampling; does not change the text [default: auto]
    #[arg(long, value_name = "HOW", value_parser = choices::head())]
    pub(crate) head: Option<HeadMode>,
    /// Precision of the activations of models whose weights have a scale per group; fewer bits need fewer
    /// multiplications, and change the most likely token now and then [default: as the model was trained]
    #[arg(long, value_name = "BITS", value_parser = choices::activations())]
    pub(crate) activations: Option<ActivationBits>,
    /// Disable the inner updates of test-time-training layers, for ablations
    #[arg(long)]
    pub(crate) no_adapt: bool,
}

/// Options for choosing tokens. The defaults are the recommendations of the model's files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Randomness: 0 always picks the most likely token, 1 samples from the model's probabilities
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Sample from the K most likely tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Sample from the most likely tokens whose probabilities add up to P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Sample from tokens with at least P times the probability of the most likely one
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,
    /// Penalty factor for tokens that occurred before; 1 is off
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub(crate) repeat_penalty: Option<f32>,
    /// Subtract P from the logit of every token that is already in the generated text; 0 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Subtract P from a token's logit for each time that it occurs in the generated text; 0 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Random seed; the same seed gives the same text [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Maximum number of new tokens [default: until the model stops or the context is full; without a context limit, as
    /// many as the model was trained for]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Stop at this text, which is not printed; repeatable
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Continue after an end-of-text token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Speculative decoding: draft up to N tokens from repeated text and verify them in one pass. Changes the speed,
    /// not the text. 0 is off [default: 7 for models larger than the CPU cache]
    #[arg(long, value_name = "N")]
    pub(crate) draft: Option<usize>,
}

fn parse_tiles(text: &str) -> Result<TlTiles, String> {
    TlTiles::from_argument(text).map_err(|e| e.to_string())
}

pub(crate) fn parse_isa(name: &str) -> Result<Isa, String> {
    Isa::from_name(name).map_err(|e| e.to_string())
}

/// A kernel, as typed: its name, or a projection group and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelArg {
    /// The group; `None` is all.
    pub(crate) group: Option<ProjectionGroup>,
    /// The kernel's name.
    pub(crate) name: String,
}

impl FromStr for KernelArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((group, name)) = text.split_once('=') else { return Ok(Self { group: None, name: text.to_owned() }) };
        let known = || ProjectionGroup::ALL.map(ProjectionGroup::name).join(", ");
        let group = ProjectionGroup::from_name(group)
            .ok_or_else(|| format!("unknown projection group {group:?}; expected one of: {}", known()))?;
        Ok(Self { group: Some(group), name: name.to_owned() })
    }
}

/// Token ids, as typed: `1,2,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ids(pub(crate) Vec<u32>);

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|p| !p.is_empty());
        let parse = |p: &str| p.parse().map_err(|_| format!("invalid token id {p:?}; ids are numbers, as in 1,2,3"));
        parts.map(parse).collect::<Result<_, _>>().map(Ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_for_all_or_for_one_group() {
        let arg = |group, name: &str| Ok(KernelArg { group, name: name.to_owned() });
        assert_eq!("i2s_scalar".parse(), arg(None, "i2s_scalar"));
        assert_eq!("down=base3_scalar".parse(), arg(Some(ProjectionGroup::Down), "base3_scalar"));
        assert!("head=i2s_scalar".parse::<KernelArg>().unwrap_err().contains("gate-up"));
    }

    #[test]
    fn ids_are_parsed_or_refused() {
        assert_eq!("1,2,3".parse(), Ok(Ids(vec![1, 2, 3])));
        assert_eq!("1, 2 3\n".parse(), Ok(Ids(vec![1, 2, 3])));
        assert_eq!("".parse(), Ok(Ids(vec![])));
        assert!("1,x".parse::<Ids>().unwrap_err().contains("\"x\""));
        assert!("-1".parse::<Ids>().is_err());
        assert!("4294967296".parse::<Ids>().is_err());
    }
}
