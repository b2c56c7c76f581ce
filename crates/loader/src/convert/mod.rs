//! From any readable checkpoint to any writable form. Trits are always kept; scales are kept exactly, rejected, or
//! rounded if the caller allows it. The result is read back and compared before the conversion counts as done.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod gguf_out;
mod hf_out;
mod hf_words;
mod speech;
mod unpacked;
mod verify;
mod vocab;

pub(crate) use gguf_out::{architecture_for, put_config};
use std::path::{Path, PathBuf};

use bitnet_model::{EngineOptions, FloatType, ModelConfig, ModelWeights, Table};
use speech::Speech;
use ternary_kernels::FileFormat;
pub use ternary_kernels::ScaleRounding;

use crate::gguf::GgmlType;
use crate::loaded::LoadOptions;
use crate::{Checkpoint, LoadError};

/// A form that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// GGUF with I2_S projections: rows of multiples of 128, one f32 scale per tensor.
    I2S,
    /// GGUF with TQ1_0 projections: rows of multiples of 256, f16 scales.
    Tq1_0,
    /// GGUF with TQ2_0 projections: rows of multiples of 256, f16 scales.
    Tq2_0,
    /// GGUF with Q2_0 projections: rows of multiples of 64, an f16 scale for each 64 weights.
    Q2_0,
    /// GGUF with PQ2_0 projections: rows of multiples of 128, an f16 scale for each 128 weights.
    Pq2_0,
    /// GGUF with PTQ1_0 projections: rows of multiples of 128, an f16 scale for each 128 weights.
    Ptq1_0,
    /// A packed file: GGUF with projections as the kernels read them, of any rows and scales. It is mapped and not packed when it
    /// is loaded; other programs do not read it.
    Packed,
    /// A Hugging Face folder with packed uint8 projections: rows of any length, one bf16 scale per tensor.
    HfPacked,
    /// A Hugging Face folder with projections as floats, trit times scale: a scale for each group of 64 weights or more
    /// of a row, or one for each row (rows of multiples of 64, scales that fit an f16), or one per tensor. Programs
    /// that support the family but not ternary weights can read it.
    HfUnpacked,
}

impl Target {
    /// All targets.
    pub const ALL: [Target; 9] = [
        Target::I2S,
        Target::Tq1_0,
        Target::Tq2_0,
        Target::Q2_0,
        Target::Pq2_0,
        Target::Ptq1_0,
        Target::Packed,
        Target::HfPacked,
        Target::HfUnpacked,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::I2S => "i2_s",
            Target::Tq1_0 => "tq1_0",
            Target::Tq2_0 => "tq2_0",
            Target::Q2_0 => "q2_0",
            Target::Pq2_0 => "pq2_0",
            Target::Ptq1_0 => "ptq1_0",
            Target::Packed => "packed",
            Target::HfPacked => "hf-packed",
            Target::HfUnpacked => "hf-unpacked",
        }
    }

    /// Contents of the target and the rows it takes: one line for a person who chooses.
    pub fn about(self) -> &'static str {
        match self {
            Target::I2S => "GGUF, 2 bits per weight; rows must be multiples of 128, one scale per tensor",
            Target::Tq1_0 => {
                "GGUF, 1.69 bits per weight; rows must be multiples of 256, scales of 256 weights fit 16 bits"
            }
            Target::Tq2_0 => "GGUF, 2.06 bits per weight; as tq1_0",
            Target::Q2_0 => {
                "GGUF, 2.25 bits per weight; rows must be multiples of 64, scales of 64 weights fit 16 bits"
            }
            Target::Pq2_0 => {
                "GGUF, 2.13 bits per weight; rows must be multiples of 128, scales of 128 weights fit 16 bits"
            }
            Target::Ptq1_0 => "GGUF, 1.75 bits per weight; as pq2_0",
            Target::Packed => {
                "as this program computes with it: starts without packing; any rows and scales, for bitnet alone"
            }
            Target::HfPacked => "a Hugging Face folder with packed uint8 weights, one scale per tensor",
            Target::HfUnpacked => {
                "a Hugging Face folder with weights as f16 or f32, trit times scale; scales of groups of 64 weights or more"
            }
        }
    }

    /// The target with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The storage of the projections; for floats or packed weights, the format that holds the same shapes.
    pub fn format(self) -> FileFormat {
        match self {
            Target::I2S => FileFormat::I2S,
            Target::Tq1_0 => FileFormat::Tq1_0,
            Target::Tq2_0 => FileFormat::Tq2_0,
            Target::Q2_0 => FileFormat::Q2_0,
            Target::Pq2_0 => FileFormat::Pq2_0,
            Target::Ptq1_0 => FileFormat::Ptq1_0,
            Target::Packed | Target::HfPacked | Target::HfUnpacked => FileFormat::HfPacked,
        }
    }

    /// Whether a folder is written, not a file.
    pub fn is_folder(self) -> bool {
        matches!(self, Target::HfPacked | Target::HfUnpacked)
    }

    /// `general.file_type` of a GGUF file, in the numbering of the programs that have the format. Nothing reads it
    /// here: the numbers differ from fork to fork.
    fn file_type(self) -> Option<u32> {
        match self {
            Target::I2S => Some(40),
            Target::Tq1_0 => Some(36),
            Target::Tq2_0 => Some(37),
            Target::Q2_0 => Some(41),
            Target::Pq2_0 => Some(142),
            Target::Ptq1_0 => Some(143),
            Target::Packed | Target::HfPacked | Target::HfUnpacked => None,
        }
    }
}

/// Options of a conversion.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// Treatment of scales that the target cannot hold exactly.
    pub rounding: ScaleRounding,
    /// Writes embedding and head in half precision, rounded if they have more. The result then predicts slightly
    /// differently.
    pub f16_tables: bool,
    /// A `tokenizer.json` to put into the result instead of the source's tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Name of the model in a GGUF file (`general.name`), instead of the source's name for it or that of its folder.
    pub name: Option<String>,
    /// Options for reading the source.
    pub load: LoadOptions,
    /// The engine that a packed file is made for.
    pub engine: EngineOptions,
}

/// The progress of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tensors written.
    pub done: usize,
    /// Tensors in all.
    pub total: usize,
}

/// Result of a conversion.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConvertReport {
    /// Bytes of the weight file that was written.
    pub bytes: u64,
    /// Projections compared with the source after writing.
    pub projections: usize,
    /// Projections whose scale was rounded.
    pub rounded: usize,
    /// Notes on what was repaired, assumed or left out.
    pub notes: Vec<String>,
}

/// Converts the checkpoint at `input` and writes it to `output`: a GGUF file, or a folder for [`Target::HfPacked`] and
/// [`Target::HfUnpacked`]. What was written is read again, every trit, scale, norm and embedding row is compared with
/// the source, and so are the ids that both make of texts and of chats, and only then it gets its name. Into a folder
/// that holds something already, files are written one by one, each when it is complete, `config.json` last, and
/// compared after that.
///
/// # Errors
/// The errors of the source; [`LoadError::Ternary`] around [`ternary_kernels::KernelError::UnsupportedShape`],
/// `InexactScale`, `OneScaleOnly`, `MixedScales`, `NoGroupScales` or `Twos` for weights that the target cannot hold;
/// [`LoadError::ReadBack`]; failures to write.
pub fn convert(
    input: &Path,
    output: &Path,
    target: Target,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<ConvertReport, LoadError> {
    let source = Checkpoint::open(input, &options.load)?;
    let mut weights = source.weights()?;
    check_packed(&source, &weights)?;
    if options.f16_tables {
        let rounded = |t: &Table| match t {
            Table::Float(m) if m.float_type() != FloatType::F16 => m.to_f16().map(Table::Float),
            Table::Float(_) | Table::Ternary(_) => Ok(t.clone()),
        };
        weights.embedding = rounded(&weights.embedding)?;
        weights.head = weights.head.as_ref().map(rounded).transpose()?;
    }
    check_shapes(&source, &weights, target)?;
    let mut notes = source.notes();
    let speech = speech(&source, &mut weights.config, options, &mut notes);
    let speech = speech.as_ref();
    let mut job = Job { source: &source, weights: &weights, speech, target, options, progress, notes: &mut notes };
    // A folder has no type of tensors.
    let checked = match target.file_type().zip(GgmlType::of(target.format())) {
        None if target == Target::Packed => gguf_out::write_packed(&mut job, output)?,
        None => hf_out::write(&mut job, output)?,
        Some(types) => gguf_out::write(&mut job, output, types)?,
    };
    let file = if target.is_folder() { output.join(crate::safetensors::SINGLE_NAME) } else { output.to_path_buf() };
    let bytes = file.metadata().map_err(LoadError::io("inspect", &file))?.len();
    Ok(ConvertReport { bytes, projections: checked.projections, rounded: checked.rounded, notes })
}

/// A conversion under way.
struct Job<'a> {
    source: &'a Checkpoint,
    weights: &'a ModelWeights,
    /// The tokenizer and templates of the source, if they can be read.
    speech: Option<&'a Speech>,
    target: Target,
    options: &'a ConvertOptions,
    progress: &'a mut dyn FnMut(Progress),
    notes: &'a mut Vec<String>,
}

/// The tokenizer and templates of the source; its special ids become those of `config`. Weights can be converted
/// without it.
fn speech(
    source: &Checkpoint,
    config: &mut ModelConfig,
    options: &ConvertOptions,
    notes: &mut Vec<String>,
) -> Option<Speech> {
    let mut load = LoadOptions::default();
    load.tokenizer.clone_from(&options.tokenizer);
    match Speech::of(source, &load, config) {
        Ok(speech) => {
            if speech.tokenizer.is_some() {
                (config.bos_token_id, config.eos_token_ids) = (speech.bos, speech.eos.clone());
            }
            Some(speech)
        }
        Err(e) => {
            notes.push(format!("the tokenizer of the source cannot be read, so prompts were not compared: {e}"));
            None
        }
    }
}

/// Rejects invalid packed weights: they are not checked when a model is loaded.
fn check_packed(source: &Checkpoint, weights: &ModelWeights) -> Result<(), LoadError> {
    for (l, layer) in weights.layers.iter().enumerate() {
        for (p, w) in layer.projections() {
            let in_tensor = |e| LoadError::Ternary { tensor: source.projection_name(l, p), source: e };
            w.check_packed().map_err(|e| in_tensor(e).in_file(source.path()))?;
        }
    }
    for w in [Some(&weights.embedding), weights.head.as_ref()].into_iter().flatten().filter_map(Table::as_ternary) {
        let in_tensor = |e| LoadError::Ternary { tensor: "embedding or head".to_owned(), source: e };
        w.check_packed().map_err(|e| in_tensor(e).in_file(source.path()))?;
    }
    Ok(())
}

/// Refuses rows that the target cannot hold before anything is written.
fn check_shapes(source: &Checkpoint, weights: &ModelWeights, target: Target) -> Result<(), LoadError> {
    for layer in 0..weights.layers.len() {
        for p in weights.config.layer_projections(layer) {
            let (rows, cols) = weights.config.projection_shape(layer, p);
            if let Err(e) = target.format().byte_len(rows, cols) {
                let tensor = source.projection_name(layer, p);
                return Err(LoadError::Ternary { tensor, source: e }.in_file(source.path()));
            }
        }
    }
    Ok(())
}
