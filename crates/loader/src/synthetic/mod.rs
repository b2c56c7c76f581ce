//! Models of random weights in the shape of a real one, as GGUF files: for measuring speed and memory without the real
//! weights. Their output is noise; their costs are those of the real model.
//!
//! Every value is a function of the seed, the tensor's name and its place, so a file is the same wherever and with
//! however many threads it is made.

mod contents;
mod shapes;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_model::{ActivationBits, ModelConfig, Norm, SyntheticWeights, config_json};
use serde_json::{Map, Value as Json};

use crate::LoadError;
use crate::config::{TensorFacts, from_hf};
use crate::convert::{architecture_for, put_config};
use crate::gguf::{GgmlType, GgufWriter, Metadata};
use crate::mmap::{read_bounded, write_atomically};
use crate::names::Names;
use contents::{Contents, GOLDEN};

/// Rows of I2_S and of PQ2_0 are whole blocks of this many weights.
const BLOCK: usize = 128;
/// Changes whenever the same seed would give another file.
const GENERATION: u32 = 1;

/// The shape of a synthetic model, and the seed of its weights.
///
/// ```
/// use loader::synthetic::Spec;
/// let spec = Spec::b2b4t();
/// assert_eq!(spec.config.ternary_weights(), 2_084_044_800);
/// assert_eq!(spec.file_name(), "synthetic-2b4t-0-v1.gguf");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Spec {
    /// A short name, part of the file's name.
    pub name: String,
    /// Shape and formulas.
    pub config: ModelConfig,
    /// Seed of the weights.
    pub seed: u64,
}

impl Spec {
    /// A model of this shape.
    pub fn new(name: impl Into<String>, config: ModelConfig, seed: u64) -> Self {
        Self { name: name.into(), config, seed }
    }

    /// The shape in a file like a `config.json`; `seed`, if it has one, is the seed. A file without `model_type` means
    /// `bitnet`, with `mixers` `bit-ttt`, with `input_forms` `bitnet-v2`; without `max_position_embeddings` 4096,
    /// without `tie_word_embeddings` a tied head.
    ///
    /// # Errors
    /// [`LoadError::Json`], and the errors of an invalid configuration.
    pub fn from_config_file(path: &Path) -> Result<Self, LoadError> {
        let bytes = read_bounded(path, "the shape of a synthetic model", from_hf::MAX_CONFIG)?;
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("model");
        Self::from_json(stem, &bytes).map_err(|e| e.in_file(path))
    }

    fn from_json(name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let json = |source| LoadError::Json { what: "the shape of a synthetic model", source };
        let mut map: Map<String, Json> = serde_json::from_slice(bytes).map_err(json)?;
        match map.contains_key("architectures") {
            true => {
                map.entry("max_position_embeddings").or_insert(4096.into());
                map.entry("tie_word_embeddings").or_insert(true.into());
            }
            false => config_json::complete_shape(&mut map),
        }
        // The result is ternary, whatever the file says about the storage of a checkpoint.
        map.remove("quantization_config");
        let seed = map.get("seed").and_then(Json::as_u64).unwrap_or(0);
        let facts = TensorFacts { has_head: true, ..TensorFacts::default() };
        let bytes = serde_json::to_vec(&map).map_err(json)?;
        let config = from_hf::read(&bytes, None, &facts)?.config;
        config.validate()?;
        Ok(Self::new(name, config, seed))
    }

    /// A file name that differs wherever the contents do.
    pub fn file_name(&self) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = self.name.chars().map(safe).collect();
        let shape = match *self == Self::b2b4t() {
            true => String::new(),
            // The rest of the configuration is in the name as a hash.
            false => format!("-{:016x}", fnv(format!("{:?}", self.config).bytes())),
        };
        format!("synthetic-{name}{shape}-{}-v{GENERATION}.gguf", self.seed)
    }

    /// Bytes of tensor data that [`Spec::write`] will write.
    ///
    /// # Errors
    /// The errors of [`Spec::write`], for a shape that the format cannot hold.
    pub fn data_bytes(&self) -> Result<u64, LoadError> {
        Ok(self.writer()?.0.data_len())
    }

    /// Writes the model to `path`: I2_S projections, f16 embedding and head, f32 norms, no vocabulary; PQ2_0 for all
    /// matrices if activations have 16 bits. The file appears under its name only when it is complete; missing folders
    /// are created. `progress` is called with the bytes written so far; if it breaks, nothing remains, and the result
    /// is `false`.
    ///
    /// # Errors
    /// [`LoadError::PartialBlock`] for rows that are not a whole number of blocks, [`LoadError::KeyValue`] for formulas
    /// that no GGUF architecture supports; [`LoadError::Io`] and [`LoadError::Write`].
    pub fn write(
        &self,
        path: &Path,
        threads: NonZeroUsize,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<bool, LoadError> {
        let (writer, plan) = self.writer()?;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(LoadError::io("create", folder))?;
        }
        let mut cancelled = false;
        let result = write_atomically(path, |out| {
            let mut stream = writer.start(out)?;
            let mut done = 0;
            for tensor in &plan {
                let seed = self.seed_of(&tensor.name);
                stream.tensor(&tensor.name, |out| {
                    let mut tell = |bytes: usize| {
                        done += bytes as u64;
                        cancelled = progress(done).is_break();
                        if cancelled { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
                    };
                    tensor.contents.write(seed, threads, out, &mut tell)
                })?;
            }
            stream.finish().map(|_| ())
        });
        match result {
            Err(_) if cancelled => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Whether matrices have a scale per group: models of activations of 16 bits have.
    fn has_groups(&self) -> bool {
        self.config.inputs.mixer.bits == ActivationBits::Sixteen
    }

    fn seed_of(&self, name: &str) -> u64 {
        fnv(name.bytes()) ^ self.seed.wrapping_mul(GOLDEN)
    }

    /// The writer with everything announced, and the tensors in their order.
    fn writer(&self) -> Result<(GgufWriter, Vec<Tensor>), LoadError> {
        let c = &self.config;
        c.validate()?;
        let architecture = architecture_for(c)?;
        let mut metadata = Metadata::default();
        metadata.set("general.architecture", architecture.gguf_name());
        metadata.set("general.name", format!("synthetic {}", self.name).as_str());
        metadata.set("general.file_type", if self.has_groups() { 142u32 } else { 40u32 });
        metadata.set("general.quantization_version", 2u32);
        put_config(&mut metadata, c, architecture);
        metadata.set("tokenizer.ggml.model", "no_vocab");
        if let Some(id) = c.bos_token_id {
            metadata.set("tokenizer.ggml.bos_token_id", id);
        }
        for (key, id) in ["eos", "eot", "eom"].iter().zip(&c.eos_token_ids) {
            metadata.set(&format!("tokenizer.ggml.{key}_token_id"), *id);
        }
        let plan = self.plan();
        let mut writer = GgufWriter::with_metadata(metadata)?;
        for t in &plan {
            let cols = *t.shape.last().unwrap_or(&1) as usize;
            let ty = t.contents.ty();
            if matches!(ty, GgmlType::I2S | GgmlType::Pq2_0) && !cols.is_multiple_of(BLOCK) {
                let (block, cols) = (BLOCK as u64, cols as u64);
                return Err(LoadError::PartialBlock { tensor: t.name.clone(), ty: ty.name(), block, cols });
            }
            writer.announce(&t.name, &t.shape, t.contents.ty())?;
        }
        Ok((writer, plan))
    }

    fn plan(&self) -> Vec<Tensor> {
        let c = &self.config;
        let groups = self.has_groups();
        let values = c.vocab_size * c.hidden_size;
        let table = |name: &str| Tensor {
            name: name.to_owned(),
            shape: vec![c.vocab_size as u64, c.hidden_size as u64],
            contents: match groups {
                // As large as the values of a table in half precision.
                true => Contents::Groups { weights: values, scale: 3f32.sqrt().recip() / 8.0 * 1.5f32.sqrt() },
                false => Contents::Table { values },
            },
        };
        let norm = |n: Norm| Tensor {
            name: Names::Gguf.norm(n, c).swap_remove(0),
            shape: vec![c.norm_len(n) as u64],
            // The norms of published embedding models are in half precision.
            contents: Contents::Norm { values: c.norm_len(n), half: c.projection_norms },
        };
        let mut plan = vec![table("token_embd.weight")];
        if !(c.tie_word_embeddings || c.headless) {
            plan.push(table("output.weight"));
        }
        plan.push(norm(Norm::Final));
        for layer in 0..c.num_hidden_layers {
            plan.extend(c.layer_norms(layer).map(norm));
            plan.extend(c.layer_ttt_tensors(layer).map(|(t, shape)| {
                let (mean, deviation) = SyntheticWeights::ttt_range(t);
                Tensor {
                    name: Names::Gguf.ttt(layer, t),
                    contents: Contents::Floats { values: shape.iter().product(), mean, deviation },
                    shape: shape.into_iter().map(|d| d as u64).collect(),
                }
            }));
            plan.extend(c.layer_delta_tensors(layer).map(|(t, shape)| {
                let (mean, deviation) = SyntheticWeights::delta_range(t);
                Tensor {
                    name: Names::Gguf.delta(layer, t),
                    contents: Contents::Floats { values: shape.iter().product(), mean, deviation },
                    shape: shape.into_iter().map(|d| d as u64).collect(),
                }
            }));
            plan.extend(c.layer_projections(layer).map(|p| {
                let (rows, cols) = c.projection_shape(layer, p);
                // A product with `cols` uniform trits has variance 2/3 cols; this brings it back to 1.
                let scale = (1.5 / cols as f32).sqrt();
                Tensor {
                    name: Names::Gguf.projection(layer, p, c.mixer(layer)) + ".weight",
                    shape: vec![rows as u64, cols as u64],
                    contents: match groups {
                        true => Contents::Groups { weights: rows * cols, scale },
                        false => Contents::Trits { bytes: rows * cols / 4, scale },
                    },
                }
            }));
        }
        plan
    }
}

/// The folder in which synthetic models are kept: `$XDG_CACHE_HOME/bitnet`, `%LOCALAPPDATA%\bitnet` on Windows,
/// `~/.cache/bitnet`, or a temporary folder if none of these is known.
pub fn cache_dir() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let local = || var("LOCALAPPDATA").filter(|_| cfg!(windows));
    let home = || var("HOME").map(|h| h.join(".cache"));
    // The XDG specification ignores relative paths.
    let base = var("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(local).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("bitnet")
}

/// A tensor to write.
struct Tensor {
    name: String,
    /// Slowest dimension first.
    shape: Vec<u64>,
    contents: Contents,
}

/// FNV-1a.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

#[cfg(test)]
mod tests;
