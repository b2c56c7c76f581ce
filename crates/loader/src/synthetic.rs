//! Models of random weights in the shape of a real one, as GGUF files: for measuring speed and memory where the real
//! weights cannot be had. What they write is noise; what they cost is what the real model costs.
//!
//! Every value is a function of the seed, the tensor's name and its place, so a file is the same wherever and with
//! however many threads it is made.

use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_model::{ActivationBits, InputForms, ModelConfig, Norm, SyntheticWeights, config_json};
use half::f16;
use serde_json::{Map, Value as Json};

use crate::LoadError;
use crate::config::{TensorFacts, from_hf};
use crate::convert::{architecture_for, put_config};
use crate::gguf::{GgmlType, GgufWriter, Metadata};
use crate::mmap::{read_bounded, write_atomically};
use crate::names::Names;

/// Rows of I2_S are whole blocks of this many weights.
const I2S_BLOCK: usize = 128;
/// Bytes that one thread makes at a time.
const PIECE: usize = 1 << 20;
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

    /// The shape of BitNet b1.58 2B4T: 30 layers, hidden 2560, feed-forward 6912, 20 heads, 5 key/value heads,
    /// vocabulary 128256, tied head; 2.08 G ternary weights and 328 M in half precision.
    pub fn b2b4t() -> Self {
        let mut config = ModelConfig::new(128_256, 2560, 6912, 30, 20, 5);
        config.bos_token_id = Some(128_000);
        config.eos_token_ids = vec![128_001, 128_009];
        Self::new("2b4t", config, 0)
    }

    /// The same as a model of BitNet v2: Hadamard transforms before the output and the down projection, activations of four bits
    /// everywhere. The weights are those of [`Spec::b2b4t`].
    ///
    /// ```
    /// use loader::synthetic::Spec;
    /// let forms = Spec::b2b4t_v2().config.inputs;
    /// assert_eq!((forms.output.hadamard, forms.down.hadamard), (Some(512), Some(256)));
    /// ```
    pub fn b2b4t_v2() -> Self {
        let mut config = Self::b2b4t().config;
        config.inputs = InputForms::bitnet_v2(&config, ActivationBits::Four);
        Self::new("2b4t-v2", config, 0)
    }

    /// Names of the shapes that need no file.
    pub const NAMES: [&str; 2] = ["2b4t", "2b4t-v2"];

    /// The shape of that name, one of [`Spec::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "2b4t" => Some(Self::b2b4t()),
            "2b4t-v2" => Some(Self::b2b4t_v2()),
            _ => None,
        }
    }

    /// The shape in a file like a `config.json`; `seed`, if it has one, is the seed. A file without `model_type` means
    /// `bitnet`, with `mixers` `bit-ttt`, with `input_forms` `bitnet-v2`; without `max_position_embeddings` 4096, without `tie_word_embeddings` a tied head.
    ///
    /// # Errors
    /// [`LoadError::Json`], and what the configuration of a model is refused for.
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
        // What is made is ternary, whatever the file says about how a checkpoint would store it.
        map.remove("quantization_config");
        let seed = map.get("seed").and_then(Json::as_u64).unwrap_or(0);
        let facts = TensorFacts { has_head: true, ..TensorFacts::default() };
        let bytes = serde_json::to_vec(&map).map_err(json)?;
        let config = from_hf::read(&bytes, None, None, &facts)?.config;
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
    /// As [`Spec::write`], for a shape that I2_S cannot hold.
    pub fn data_bytes(&self) -> Result<u64, LoadError> {
        Ok(self.writer()?.0.data_len())
    }

    /// Writes the model to `path`: I2_S projections, f16 embedding and head, f32 norms, no vocabulary. The file appears
    /// under its name only when it is complete; missing folders are made. `progress` hears how many bytes are done; where
    /// it breaks nothing remains, and the result is `false`.
    ///
    /// # Errors
    /// [`LoadError::PartialBlock`] for rows that are no whole number of I2_S blocks, [`LoadError::KeyValue`] for formulas
    /// that no GGUF architecture stands for; [`LoadError::Io`] and [`LoadError::Write`].
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
        metadata.set("general.file_type", 40u32);
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
            if t.contents.ty() == GgmlType::I2S && !cols.is_multiple_of(I2S_BLOCK) {
                let (block, cols) = (I2S_BLOCK as u64, cols as u64);
                return Err(LoadError::PartialBlock { tensor: t.name.clone(), ty: "I2_S", block, cols });
            }
            writer.announce(&t.name, &t.shape, t.contents.ty())?;
        }
        Ok((writer, plan))
    }

    fn plan(&self) -> Vec<Tensor> {
        let c = &self.config;
        let table = |name: &str| Tensor {
            name: name.to_owned(),
            shape: vec![c.vocab_size as u64, c.hidden_size as u64],
            contents: Contents::Table { values: c.vocab_size * c.hidden_size },
        };
        let norm = |n: Norm| Tensor {
            name: Names::Gguf.norm(n, c).swap_remove(0),
            shape: vec![c.norm_len(n) as u64],
            contents: Contents::Norm { values: c.norm_len(n) },
        };
        let mut plan = vec![table("token_embd.weight")];
        if !c.tie_word_embeddings {
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
            plan.extend(c.layer_projections(layer).map(|p| {
                let (rows, cols) = c.projection_shape(layer, p);
                Tensor {
                    name: Names::Gguf.projection(layer, p, c.mixer(layer)) + ".weight",
                    shape: vec![rows as u64, cols as u64],
                    // A product with `cols` uniform trits has variance 2/3 cols; this brings it back to 1.
                    contents: Contents::Trits { bytes: rows * cols / 4, scale: (1.5 / cols as f32).sqrt() },
                }
            }));
        }
        plan
    }
}

/// The folder where synthetic models are kept: `$XDG_CACHE_HOME/bitnet`, `%LOCALAPPDATA%\bitnet` on Windows,
/// `~/.cache/bitnet`, or one among the temporary files where none of these is known.
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

enum Contents {
    /// I2_S: four codes in each of `bytes` bytes, then the scale.
    Trits { bytes: usize, scale: f32 },
    /// f16, uniform in +-1/8: rows of length about `sqrt(hidden) / 14`.
    Table { values: usize },
    /// f32, near 1.
    Norm { values: usize },
    /// f32, uniform with this mean and deviation.
    Floats { values: usize, mean: f32, deviation: f32 },
}

impl Contents {
    fn ty(&self) -> GgmlType {
        match self {
            Contents::Trits { .. } => GgmlType::I2S,
            Contents::Table { .. } => GgmlType::F16,
            Contents::Norm { .. } | Contents::Floats { .. } => GgmlType::F32,
        }
    }

    fn write(
        &self,
        seed: u64,
        threads: NonZeroUsize,
        out: &mut dyn Write,
        tell: &mut dyn FnMut(usize) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        match *self {
            Contents::Trits { bytes, scale } => {
                let codes = byte_table();
                // 16 bits choose among the 81 bytes that four trits can make: no two differ in probability by more than
                // one part in 800.
                let fill = |first: usize, piece: &mut [u8]| {
                    each_hash(seed, first, piece, 4, |hash, bytes| {
                        for (byte, h) in bytes.iter_mut().zip(hash.to_le_bytes().chunks_exact(2)) {
                            let h = u32::from(u16::from_le_bytes([h[0], h[1]]));
                            *byte = codes[((h * 81) >> 16) as usize];
                        }
                    });
                };
                pieces(bytes, threads, out, &fill, tell)?;
                let mut tail = [0; 32];
                tail[..4].copy_from_slice(&scale.to_le_bytes());
                out.write_all(&tail)?;
                tell(tail.len())
            }
            Contents::Table { values } => {
                let numbers: Vec<[u8; 2]> =
                    (0..256).map(|b| f16::from_f32((b as f32 - 127.5) / 1024.0).to_le_bytes()).collect();
                let fill = |first: usize, piece: &mut [u8]| {
                    each_hash(seed, first, piece, 16, |hash, bytes| {
                        for (pair, h) in bytes.chunks_exact_mut(2).zip(hash.to_le_bytes()) {
                            pair.copy_from_slice(&numbers[usize::from(h)]);
                        }
                    });
                };
                pieces(values * 2, threads, out, &fill, tell)
            }
            Contents::Norm { values } => {
                for i in 0..values as u64 {
                    let gain = 1.0 + ((hash(seed, i) >> 60) as f32 - 7.5) / 64.0;
                    out.write_all(&gain.to_le_bytes())?;
                }
                tell(values * 4)
            }
            Contents::Floats { values, mean, deviation } => {
                let fill = |first: usize, piece: &mut [u8]| {
                    each_hash(seed, first, piece, 4, |hash, bytes| {
                        let uniform = (hash >> 40) as f32 / (1 << 23) as f32 - 1.0;
                        bytes.copy_from_slice(&(mean + deviation * 3f32.sqrt() * uniform).to_le_bytes());
                    });
                };
                pieces(values * 4, threads, out, &fill, tell)
            }
        }
    }
}

/// Makes `bytes` bytes piece by piece, `threads` pieces at a time, and writes them in order. `fill` gets a piece and
/// where it begins.
fn pieces(
    bytes: usize,
    threads: NonZeroUsize,
    out: &mut dyn Write,
    fill: &(dyn Fn(usize, &mut [u8]) + Sync),
    tell: &mut dyn FnMut(usize) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; bytes.min(PIECE * threads.get())];
    for first in (0..bytes).step_by(buffer.len().max(1)) {
        let part = &mut buffer[..(bytes - first).min(PIECE * threads.get())];
        std::thread::scope(|scope| {
            let mut all = part.chunks_mut(PIECE).enumerate();
            let own = all.next();
            for (i, piece) in all {
                scope.spawn(move || fill(first + i * PIECE, piece));
            }
            if let Some((_, piece)) = own {
                fill(first, piece);
            }
        });
        out.write_all(part)?;
        tell(part.len())?;
    }
    Ok(())
}

/// Calls `f` with one hash for each `width` bytes of `piece`, which begins at byte `first`, a multiple of `width`.
fn each_hash(seed: u64, first: usize, piece: &mut [u8], width: usize, f: impl Fn(u64, &mut [u8])) {
    for (i, bytes) in piece.chunks_mut(width).enumerate() {
        f(hash(seed, (first / width + i) as u64), bytes);
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Number `i` of the SplitMix64 sequence that begins at `seed`.
fn hash(seed: u64, i: u64) -> u64 {
    let z = seed.wrapping_add((i + 1).wrapping_mul(GOLDEN));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// The 81 bytes that hold four codes of 0, 1 and 2.
fn byte_table() -> [u8; 81] {
    std::array::from_fn(|i| {
        let code = |power: usize| (i / power % 3) as u8;
        code(1) | code(3) << 2 | code(9) << 4 | code(27) << 6
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, LoadOptions};
    use bitnet_model::Projection;

    const SHAPE: &str = r#"{"vocab_size": 300, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "seed": 5}"#;

    fn write(spec: &Spec, threads: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join(spec.file_name());
        let mut last = 0;
        let done = spec.write(&path, NonZeroUsize::new(threads).unwrap(), &mut |n| {
            assert!(n > last);
            last = n;
            ControlFlow::Continue(())
        });
        assert!(done.unwrap());
        // Paddings between tensors are not counted.
        assert!(last <= spec.data_bytes().unwrap() && last * 100 > spec.data_bytes().unwrap() * 99);
        (dir, path)
    }

    #[test]
    fn a_file_is_the_same_with_any_number_of_threads_and_loads() {
        let mut spec = Spec::from_json("shape", SHAPE.as_bytes()).unwrap();
        assert_eq!(spec.seed, 5);
        // An embedding of more than one piece per thread.
        spec.config.vocab_size = 6000;
        let (_one, a) = write(&spec, 1);
        let (_three, b) = write(&spec, 3);
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());

        let weights = Checkpoint::open(&a, &LoadOptions::default()).unwrap().weights().unwrap();
        assert_eq!(weights.config, spec.config);
        let w = weights.layers[1].projection(Projection::Down);
        let (mut row, mut counts) = (vec![0; 640], [0usize; 3]);
        for r in 0..w.rows() {
            w.decode_row(r, &mut row);
            row.iter().for_each(|t| counts[(t + 1) as usize] += 1);
        }
        // 163840 draws: each third has a standard deviation of 191; five of them.
        for n in counts {
            assert!(n.abs_diff(163_840 / 3) < 955, "{counts:?}");
        }
    }

    #[test]
    fn shapes_have_names_and_files_of_their_own() {
        let mut files = Vec::new();
        for name in Spec::NAMES {
            let spec = Spec::named(name).unwrap();
            assert_eq!(spec.name, name);
            spec.config.validate().unwrap();
            files.push(spec.file_name());
        }
        files.dedup();
        assert_eq!(files.len(), Spec::NAMES.len());
        assert_eq!(Spec::named("2b4t-v3"), None);
    }

    #[test]
    fn seeds_and_tensors_differ() {
        let spec = Spec::from_json("shape", SHAPE.as_bytes()).unwrap();
        let other = Spec { seed: 6, ..spec.clone() };
        assert_ne!(spec.file_name(), other.file_name());
        assert_ne!(spec.seed_of("a"), other.seed_of("a"));
        assert_ne!(spec.seed_of("a"), spec.seed_of("b"));
        let longer = SHAPE.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
        assert_ne!(spec.file_name(), Spec::from_json("shape", longer.as_bytes()).unwrap().file_name());
    }

    #[test]
    fn a_cancelled_file_leaves_nothing() {
        let spec = Spec::from_json("shape", SHAPE.as_bytes()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        assert!(!spec.write(&path, NonZeroUsize::MIN, &mut |_| ControlFlow::Break(())).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let refused = |from: &str, to: &str| {
            let text = SHAPE.replace(from, to);
            assert_ne!(text, SHAPE);
            Spec::from_json("s", text.as_bytes()).and_then(|s| s.data_bytes()).unwrap_err()
        };
        let odd = refused("\"hidden_size\": 256", "\"hidden_size\": 192");
        assert!(matches!(odd, LoadError::PartialBlock { block: 128, cols: 192, .. }), "{odd}");
        assert!(matches!(refused("\"vocab_size\": 300, ", ""), LoadError::MissingKey { .. }));
        assert!(matches!(refused("\"seed\": 5}", ""), LoadError::Json { .. }));
    }
}
