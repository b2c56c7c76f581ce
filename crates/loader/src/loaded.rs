//! A loaded model and the options of loading. The one entry point is `load(path, options)`.

use std::path::PathBuf;

use bitnet_model::sampling::SamplingOverrides;

use crate::TlTiles;
use crate::packed::cache::PackedCache;

/// Options for loading a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// A `tokenizer.json` that overrides the file's own tokenizer, or supplies what it lacks.
    pub tokenizer: Option<PathBuf>,
    /// Order of the rows of q and k, if the file's architecture implies a wrong one.
    pub qk_layout: Option<QkLayout>,
    /// A chat template (Jinja source, or the name of a built-in one) that overrides the file's own.
    pub chat_template: Option<String>,
    /// Tile sizes of TL1 and TL2 tensors, which their files do not hold.
    pub tl: TlTiles,
    /// The folder in which packed weights are kept, so that the next start need not pack them; `None` keeps none.
    pub packed_cache: Option<PackedCache>,
    /// Whether packed weights move from the mapping of their file, whose memory all processes share, to huge pages of
    /// this process, while they are used already. `docs/formats/packed.md` says where tokens are read faster from there.
    pub huge_pages: bool,
    /// Whether everything is read on the calling thread. Otherwise another one reads a GGUF file's weights while this one reads the
    /// vocabulary, if the process has a second CPU.
    pub one_thread: bool,
}

/// Order of the rows of the q and k projections within a head (see the rotary embedding in `docs/glossary.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkLayout {
    /// As in Hugging Face: row `i` is paired with row `i + head_dim / 2`.
    Half,
    /// As in llama.cpp's files for architecture `llama`: row `2i` is paired with row `2i + 1`.
    Interleaved,
}

/// Sampling defaults that a model's files give (`generation_config.json`).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Whether to sample; `false` is greedy.
    pub do_sample: Option<bool>,
    /// Temperature.
    pub temperature: Option<f32>,
    /// Top-p.
    pub top_p: Option<f32>,
    /// Top-k.
    pub top_k: Option<usize>,
    /// Repetition penalty.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// These fields as options of the sampler.
    pub fn overrides(&self) -> SamplingOverrides {
        let Self { do_sample, temperature, top_p, top_k, repetition_penalty } = *self;
        SamplingOverrides {
            temperature: if do_sample == Some(false) { Some(0.0) } else { temperature },
            top_p,
            top_k,
            repeat_penalty: repetition_penalty,
            ..Default::default()
        }
    }
}

/// Kind of container that a model came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// One GGUF file.
    Gguf,
    /// A Hugging Face folder with safetensors.
    Safetensors,
}

/// Facts about a loaded model, for a person to read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Its path.
    pub path: PathBuf,
    /// Kind of container.
    pub container: Container,
    /// `general.architecture` of a GGUF file, `model_type` of a `config.json`.
    pub architecture: String,
    /// The model's name, if the file has one.
    pub name: Option<String>,
    /// Encoding of the ternary tensors in the file, `I2_S` for example; several are joined by `+`.
    pub ternary_format: String,
    /// Bytes of the weight files.
    pub file_bytes: u64,
}
