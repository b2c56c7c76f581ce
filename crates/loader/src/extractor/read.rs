//! Reading: every tensor that the configuration asks for, of its shape and type, and no other.

use std::collections::HashSet;
use std::path::Path;

use bitnet_model::encoder::{
    EncoderLayer, EncoderNorm, ExtractorConfig, ExtractorWeights, FeatureTable, HeadTensor, TaskConfig, TaskWeights,
    direction_tensor_name, encoder_projection_shape,
};
use bitnet_model::{FloatType, Projection};
use half::f16;
use ternary_kernels::{FileFormat, Scales, SharedBytes, TernaryMatrix};

use super::{ARCHITECTURE, CONFIG_KEY, FORMAT_KEY, MAX_CONFIG, config};
use crate::LoadError;
use crate::gguf::{GgmlType, Gguf, locate};
use crate::mmap::read_bounded;
use crate::safetensors::{Dtype, Safetensors, StTensor};
use crate::source::widen;

/// The tensors of either container.
enum Tensors {
    Gguf(Gguf),
    Folder(Safetensors),
}

/// Reads the extractor at `path`: a GGUF file, or a folder with `config.json` and `model.safetensors`.
///
/// # Errors
/// [`LoadError::NotAnExtractor`] for a language model; any error of the container; tensors that are
/// missing, of another shape or type than the configuration asks for, or that it does not know; numbers that are not
/// finite.
pub fn read(path: &Path) -> Result<ExtractorWeights, LoadError> {
    if !path.is_dir() {
        // A pipe or a device is named before anything waits for it.
        crate::files::regular(path, "an extractor")?;
    }
    if let Some(file) = locate(path)? {
        return of_gguf(Gguf::open(&file)?).map_err(|e| e.in_file(&file));
    }
    let tensors = Safetensors::open(path)?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let file = folder.join("config.json");
    let json = read_bounded(&file, "config.json", MAX_CONFIG)?;
    let config = config::config_from_json(&json).map_err(|e| e.in_file(&file))?;
    collect(&Tensors::Folder(tensors), config).map_err(|e| e.in_file(path))
}

/// Reads an extractor from a whole GGUF file in memory, one for example one embedded in a program.
///
/// # Errors
/// The errors of [`read`].
pub fn read_bytes(bytes: SharedBytes) -> Result<ExtractorWeights, LoadError> {
    of_gguf(Gguf::from_bytes(bytes)?)
}

fn of_gguf(file: Gguf) -> Result<ExtractorWeights, LoadError> {
    if file.architecture() != ARCHITECTURE {
        return Err(LoadError::NotAnExtractor { architecture: file.architecture().to_owned() });
    }
    let metadata = file.metadata();
    let needed_for = "an extractor";
    let missing = |key: &str| LoadError::MissingKey { key: key.to_owned(), needed_for };
    let format = metadata.u64(FORMAT_KEY)?.ok_or_else(|| missing(FORMAT_KEY))?;
    super::check_format(FORMAT_KEY, format)?;
    let json = metadata.str(CONFIG_KEY)?.ok_or_else(|| missing(CONFIG_KEY))?;
    if json.len() as u64 > MAX_CONFIG {
        return Err(LoadError::FileTooLarge { what: CONFIG_KEY, len: json.len() as u64, max: MAX_CONFIG });
    }
    let config = config::config_from_json(json.as_bytes())?;
    collect(&Tensors::Gguf(file), config)
}

/// The weights that `config` asks for.
fn collect(tensors: &Tensors, config: ExtractorConfig) -> Result<ExtractorWeights, LoadError> {
    refuse_others(tensors, &config)?;
    let features = tensors.features(config.buckets, config.hidden_size)?;
    let layer = |i: usize| -> Result<EncoderLayer, LoadError> {
        let norm =
            |which: EncoderNorm| tensors.floats(&format!("blk.{i}.{}.weight", which.name()), &[which.len(&config)]);
        let matrix = |which: Projection| {
            let name = config.mixer(i).projections().find(|(p, _)| *p == which).map_or("", |(_, name)| name);
            tensors.ternary(&format!("blk.{i}.{name}"), encoder_projection_shape(&config, which))
        };
        let has = |which: Projection| config.mixer(i).projections().any(|(p, _)| p == which);
        let optional = |which: Projection| has(which).then(|| matrix(which)).transpose();
        let direction = |d: usize| -> Result<Vec<f32>, LoadError> {
            let mut all = Vec::new();
            for (name, shape) in config.direction_tensors(i, d) {
                all.extend(tensors.floats(&direction_tensor_name(i, d, name), &shape)?);
            }
            Ok(all)
        };
        Ok(EncoderLayer {
            attn_norm: norm(EncoderNorm::Attn)?,
            q: matrix(Projection::Q)?,
            k: optional(Projection::K)?,
            v: matrix(Projection::V)?,
            out_gate: optional(Projection::OutGate)?,
            directions: [direction(0)?, direction(1)?],
            attn_sub_norm: norm(EncoderNorm::AttnSub)?,
            o: matrix(Projection::O)?,
            ffn_norm: norm(EncoderNorm::Ffn)?,
            gate: matrix(Projection::Gate)?,
            up: matrix(Projection::Up)?,
            ffn_sub_norm: norm(EncoderNorm::FfnSub)?,
            down: matrix(Projection::Down)?,
        })
    };
    let layers = (0..config.num_layers).map(layer).collect::<Result<_, _>>()?;
    let final_norm = tensors.floats("output_norm.weight", &[config.hidden_size])?;
    let head = |task: &TaskConfig| -> Result<TaskWeights, LoadError> {
        let has: Vec<HeadTensor> = HeadTensor::of(task).collect();
        let tensor = |which: HeadTensor| match has.contains(&which) {
            true => tensors.floats(&which.name(task), &which.shape(&config, task)),
            false => Ok(Vec::new()),
        };
        Ok(TaskWeights {
            intent_weight: tensor(HeadTensor::IntentWeight)?,
            intent_bias: tensor(HeadTensor::IntentBias)?,
            tags_weight: tensor(HeadTensor::TagsWeight)?,
            tags_bias: tensor(HeadTensor::TagsBias)?,
            transitions: tensor(HeadTensor::Transitions)?,
        })
    };
    let tasks = config.tasks.iter().map(head).collect::<Result<_, _>>()?;
    let weights = ExtractorWeights { config, features, layers, final_norm, tasks };
    weights.check()?;
    Ok(weights)
}

/// Refuses tensors that the configuration does not ask for: leaving them out could change what is computed.
fn refuse_others(tensors: &Tensors, config: &ExtractorConfig) -> Result<(), LoadError> {
    let mut known: HashSet<String> = ["features.weight", "features.scale", "output_norm.weight"].map(Into::into).into();
    for i in 0..config.num_layers {
        known.extend(EncoderNorm::ALL.map(|norm| format!("blk.{i}.{}.weight", norm.name())));
        for (_, name) in config.mixer(i).projections() {
            known.extend([format!("blk.{i}.{name}.weight"), format!("blk.{i}.{name}.weight_scale")]);
        }
        for d in 0..config.directions.count() {
            let tensors = config.direction_tensors(i, d);
            known.extend(tensors.iter().map(|(name, _)| direction_tensor_name(i, d, name)));
        }
    }
    for task in &config.tasks {
        known.extend(HeadTensor::of(task).map(|tensor| tensor.name(task)));
    }
    let names: Vec<&str> = match tensors {
        Tensors::Gguf(file) => file.tensors().iter().map(|t| t.name()).collect(),
        Tensors::Folder(all) => all.iter().map(|(name, _)| name).collect(),
    };
    match names.into_iter().find(|name| !known.contains(*name)) {
        Some(name) => Err(LoadError::UnexpectedTensor { tensor: name.to_owned(), layers: config.num_layers }),
        None => Ok(()),
    }
}

fn expect_shape(tensor: &str, expected: &[usize], got: &[u64]) -> Result<(), LoadError> {
    let expected: Vec<u64> = expected.iter().map(|d| *d as u64).collect();
    if expected == got {
        return Ok(());
    }
    Err(LoadError::TensorShape { tensor: tensor.to_owned(), expected, got: got.to_vec() })
}

fn wrong_type(tensor: &str, ty: String, reason: &'static str) -> LoadError {
    LoadError::UnsupportedType { tensor: tensor.to_owned(), ty, type_id: None, reason }
}

impl Tensors {
    /// Type and bytes of a tensor of a GGUF file, of this shape.
    fn gguf(file: &Gguf, name: &str, shape: &[usize]) -> Result<(GgmlType, SharedBytes), LoadError> {
        let info = file.tensor(name).ok_or_else(|| missing(name))?;
        expect_shape(name, shape, &info.shape())?;
        file.data(info)
    }

    /// A tensor of a folder, of this shape.
    fn folder<'a>(all: &'a Safetensors, name: &str, shape: &[usize]) -> Result<&'a StTensor, LoadError> {
        let tensor = all.get(name).ok_or_else(|| missing(name))?;
        let got: Vec<u64> = tensor.shape.iter().map(|d| *d as u64).collect();
        expect_shape(name, shape, &got)?;
        Ok(tensor)
    }

    /// F32, F16 or BF16 as f32.
    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let reason = "norms, heads and scales are F32, F16 or BF16";
        let (ty, bytes) = match self {
            Self::Gguf(file) => {
                let (ty, bytes) = Self::gguf(file, name, shape)?;
                let float = match ty {
                    GgmlType::F32 => FloatType::F32,
                    GgmlType::F16 => FloatType::F16,
                    GgmlType::BF16 => FloatType::Bf16,
                    other => return Err(wrong_type(name, other.name().to_owned(), reason)),
                };
                (float, bytes)
            }
            Self::Folder(all) => {
                let tensor = Self::folder(all, name, shape)?;
                let float = match tensor.dtype {
                    Dtype::F32 => FloatType::F32,
                    Dtype::F16 => FloatType::F16,
                    Dtype::BF16 => FloatType::Bf16,
                    other => return Err(wrong_type(name, format!("{other:?}"), reason)),
                };
                (float, tensor.bytes.clone())
            }
        };
        widen(ty, &bytes).ok_or_else(|| LoadError::TensorBytes {
            tensor: name.to_owned(),
            ty: ty.name(),
            expected: shape.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64)),
            got: bytes.len() as u64,
        })
    }

    /// The ternary matrix `[rows, cols]` called `base`.
    fn ternary(&self, base: &str, (rows, cols): (usize, usize)) -> Result<TernaryMatrix, LoadError> {
        let name = format!("{base}.weight");
        let (format, bytes, scales) = match self {
            Self::Gguf(file) => {
                let (ty, bytes) = Self::gguf(file, &name, &[rows, cols])?;
                let reason = "the matrices of an extractor are ternary: I2_S, TQ1_0 or TQ2_0";
                (ty.file_format().ok_or_else(|| wrong_type(&name, ty.name().to_owned(), reason))?, bytes, None)
            }
            Self::Folder(all) => {
                let tensor = Self::folder(all, &name, &[rows.div_ceil(4), cols])?;
                if tensor.dtype != Dtype::U8 {
                    let reason = "the matrices of an extractor are packed ternary, U8";
                    return Err(wrong_type(&name, format!("{:?}", tensor.dtype), reason));
                }
                let scale = self.floats(&format!("{base}.weight_scale"), &[1])?.first().copied().unwrap_or(f32::NAN);
                (FileFormat::HfPacked, tensor.bytes.clone(), Some(Scales::Tensor(scale)))
            }
        };
        let matrix = match reshaped_for_blocks(format, rows, cols) {
            None => TernaryMatrix::from_bytes(format, rows, cols, bytes, scales),
            Some((r, c)) => TernaryMatrix::from_bytes(format, r, c, bytes, scales)
                .and_then(|w| TernaryMatrix::from_trits(rows, cols, &w.to_trits(), w.scales().clone())),
        };
        matrix.map_err(|source| LoadError::Ternary { tensor: name, source })
    }

    /// The table of features: Q8_0 blocks with one scale for each row, or codes and scales.
    fn features(&self, buckets: usize, width: usize) -> Result<FeatureTable, LoadError> {
        let name = "features.weight";
        let (codes, scales) = match self {
            Self::Gguf(file) => {
                let (ty, bytes) = Self::gguf(file, name, &[buckets, width])?;
                if ty != GgmlType::Q8_0 {
                    return Err(wrong_type(name, ty.name().to_owned(), "the features of an extractor are Q8_0"));
                }
                from_blocks(&bytes, width)?
            }
            Self::Folder(all) => {
                let tensor = Self::folder(all, name, &[buckets, width])?;
                if tensor.dtype != Dtype::I8 {
                    return Err(wrong_type(name, format!("{:?}", tensor.dtype), "the features of an extractor are I8"));
                }
                let codes = tensor.bytes.iter().map(|b| b.cast_signed()).collect();
                (codes, self.floats("features.scale", &[buckets])?)
            }
        };
        Ok(FeatureTable::new(buckets, width, codes, scales)?)
    }
}

/// The shape of a packed matrix whose rows are not whole blocks of I2_S: the bytes are those of the flattened
/// matrix, so another number of columns changes none of them. A matrix of an extractor is whole blocks, since its sides
/// are multiples of 32.
pub(super) fn reshaped_for_blocks(format: FileFormat, rows: usize, cols: usize) -> Option<(usize, usize)> {
    const BLOCK: usize = 128;
    let weights = rows.checked_mul(cols).filter(|n| n.is_multiple_of(BLOCK))?;
    (format == FileFormat::I2S && !cols.is_multiple_of(BLOCK)).then_some((weights / BLOCK, BLOCK))
}

/// Codes and scales of rows of `width` values in blocks of a scale (f16) and 32 codes.
fn from_blocks(bytes: &[u8], width: usize) -> Result<(Vec<i8>, Vec<f32>), LoadError> {
    let (blocks, _) = bytes.as_chunks::<34>();
    let mut codes = Vec::with_capacity(blocks.len().saturating_mul(32));
    let mut scales = Vec::new();
    for (row, blocks) in blocks.chunks((width / 32).max(1)).enumerate() {
        let scale = |block: &[u8; 34]| f16::from_le_bytes([block[0], block[1]]);
        let first = blocks.first().map_or(f16::ZERO, scale);
        if blocks.iter().any(|block| scale(block).to_bits() != first.to_bits()) {
            return Err(LoadError::FeatureBlocks { row });
        }
        codes.extend(blocks.iter().flat_map(|block| block.iter().skip(2)).map(|b| b.cast_signed()));
        scales.push(first.to_f32());
    }
    Ok((codes, scales))
}

fn missing(tensor: &str) -> LoadError {
    let hint = "the file is damaged, or its configuration belongs to another extractor".to_owned();
    LoadError::MissingTensor { tensor: tensor.to_owned(), hint }
}
