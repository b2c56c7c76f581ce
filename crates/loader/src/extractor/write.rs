//! Writing, and reading back before the file gets its name.

use std::io::Write;
use std::path::Path;

use bitnet_model::encoder::{EncoderNorm, ExtractorWeights, HeadTensor, direction_tensor_name};
use half::f16;
use ternary_kernels::{FileFormat, ScaleRounding, TernaryMatrix};

use super::read::reshaped_for_blocks;
use super::{ARCHITECTURE, CONFIG_KEY, FORMAT, FORMAT_KEY, config, read};
use crate::LoadError;
use crate::gguf::{GgmlType, GgufWriter};
use crate::mmap::{write_atomically, write_checked};
use crate::safetensors::{Dtype, NewTensor, SINGLE_NAME, write_file};

/// One tensor to be written.
enum Item<'a> {
    Features,
    Floats(&'a [f32]),
    Ternary(&'a TernaryMatrix),
}

/// All tensors with names and shapes, in the order of a file.
fn items(w: &ExtractorWeights) -> Vec<(String, Vec<usize>, Item<'_>)> {
    let c = &w.config;
    let mut all = vec![("features.weight".to_owned(), vec![c.buckets, c.hidden_size], Item::Features)];
    for (i, layer) in w.layers.iter().enumerate() {
        for norm in EncoderNorm::ALL {
            let values = layer.norm(norm);
            all.push((format!("blk.{i}.{}.weight", norm.name()), vec![values.len()], Item::Floats(values)));
        }
        for ((_, matrix), (_, name)) in layer.projections().zip(c.mixer(i).projections()) {
            let shape = vec![matrix.rows(), matrix.cols()];
            all.push((format!("blk.{i}.{name}.weight"), shape, Item::Ternary(matrix)));
        }
        for (d, values) in layer.directions.iter().enumerate() {
            let tensors = c.direction_tensors(i, d);
            let mut rest = values.as_slice();
            for (name, shape) in &tensors {
                // The lengths were checked.
                let values = rest.split_off(..shape.iter().product()).unwrap_or_default();
                all.push((direction_tensor_name(i, d, name), shape.clone(), Item::Floats(values)));
            }
        }
    }
    all.push(("output_norm.weight".to_owned(), vec![w.final_norm.len()], Item::Floats(&w.final_norm)));
    for (task, weights) in c.tasks.iter().zip(&w.tasks) {
        for which in HeadTensor::of(task) {
            all.push((which.name(task), which.shape(c, task), Item::Floats(weights.tensor(which))));
        }
    }
    all
}

/// Whether f16 holds all of them exactly; the files are smaller then.
fn fit_half(values: &[f32]) -> bool {
    values.iter().all(|v| f16::from_f32(*v).to_f32().to_bits() == v.to_bits())
}

fn put_floats(out: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    match fit_half(values) {
        true => values.iter().try_for_each(|v| out.write_all(&f16::from_f32(*v).to_le_bytes())),
        false => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
    }
}

/// The bytes of a matrix in `format`; it has one scale, which was checked.
fn put_ternary(out: &mut dyn Write, w: &TernaryMatrix, format: FileFormat) -> std::io::Result<()> {
    let bytes = match reshaped_for_blocks(format, w.rows(), w.cols()) {
        None => format.encode(w, ScaleRounding::Exact),
        Some((rows, cols)) => TernaryMatrix::from_trits(rows, cols, &w.to_trits(), w.scales().clone())
            .and_then(|w| format.encode(&w, ScaleRounding::Exact)),
    };
    out.write_all(&bytes.map_err(std::io::Error::other)?)
}

/// Rows of codes in blocks of their scale and 32 codes.
fn put_blocks(out: &mut dyn Write, w: &ExtractorWeights) -> std::io::Result<()> {
    for (row, scale) in w.features.codes().chunks(w.config.hidden_size.max(1)).zip(w.features.scales()) {
        for block in row.chunks(32) {
            out.write_all(&f16::from_f32(*scale).to_le_bytes())?;
            out.write_all(bytemuck::cast_slice(block))?;
        }
    }
    Ok(())
}

/// Writes one GGUF file, all or nothing: features in Q8_0, matrices in I2_S, floats in F16 where that is exact and in
/// F32 otherwise. It is read back and compared before it gets its name.
///
/// # Errors
/// Weights that do not belong together ([`LoadError::Model`]); any failure to write the file.
pub fn write_gguf(path: &Path, weights: &ExtractorWeights) -> Result<(), LoadError> {
    weights.check()?;
    let mut writer = GgufWriter::new();
    let metadata = writer.metadata_mut();
    metadata.set("general.architecture", ARCHITECTURE);
    metadata.set(FORMAT_KEY, FORMAT);
    metadata.set(CONFIG_KEY, config::config_to_json(&weights.config)?.as_str());
    let items = items(weights);
    for (name, shape, item) in &items {
        let ty = match item {
            Item::Features => GgmlType::Q8_0,
            Item::Floats(values) if fit_half(values) => GgmlType::F16,
            Item::Floats(_) => GgmlType::F32,
            Item::Ternary(_) => GgmlType::I2S,
        };
        let shape: Vec<u64> = shape.iter().map(|d| *d as u64).collect();
        writer.announce(name, &shape, ty)?;
    }
    let bytes = writer.data_len();
    let data = |out: &mut dyn Write| {
        let mut stream = writer.start(out)?;
        for (name, _, item) in &items {
            stream.tensor(name, |out| match item {
                Item::Features => put_blocks(out, weights),
                Item::Floats(values) => put_floats(out, values),
                Item::Ternary(matrix) => put_ternary(out, matrix, FileFormat::I2S),
            })?;
        }
        stream.finish().map(|_| ())
    };
    write_checked(path, bytes, data, |(), file| expect_same(path, weights, &read(file)?))
}

/// Writes `config.json` and `model.safetensors` into `folder`, which is created if it is missing: features in I8 with
/// F32 scales, matrices in packed U8 with an F32 scale, floats as [`write_gguf`] does. The files are read back and
/// compared.
///
/// # Errors
/// The errors of [`write_gguf`].
pub fn write_safetensors(folder: &Path, weights: &ExtractorWeights) -> Result<(), LoadError> {
    weights.check()?;
    let json = config::config_to_json(&weights.config)?;
    std::fs::create_dir_all(folder).map_err(LoadError::io("create", folder))?;
    write_atomically(&folder.join(SINGLE_NAME), |out| {
        write_file(out, Some([("format".to_owned(), "pt".to_owned())].into()), tensors(weights))
    })?;
    write_atomically(&folder.join("config.json"), |out| {
        writeln!(out, "{json}").map_err(|source| LoadError::Write { what: "config.json".to_owned(), source })
    })?;
    expect_same(folder, weights, &read(folder)?)
}

fn tensors(weights: &ExtractorWeights) -> Vec<NewTensor<'_>> {
    let mut all = Vec::new();
    for (name, shape, item) in items(weights) {
        match item {
            Item::Features => {
                all.push(NewTensor {
                    name: "features.scale".to_owned(),
                    dtype: Dtype::F32,
                    shape: vec![weights.features.buckets()],
                    write: Box::new(|out| {
                        weights.features.scales().iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
                    }),
                });
                let codes = bytemuck::cast_slice(weights.features.codes());
                all.push(NewTensor { name, dtype: Dtype::I8, shape, write: Box::new(|out| out.write_all(codes)) });
            }
            Item::Floats(values) => {
                let dtype = if fit_half(values) { Dtype::F16 } else { Dtype::F32 };
                all.push(NewTensor { name, dtype, shape, write: Box::new(|out| put_floats(out, values)) });
            }
            Item::Ternary(matrix) => {
                let scale = matrix.scales().at(0, 0);
                all.push(NewTensor {
                    name: format!("{name}_scale"),
                    dtype: Dtype::F32,
                    shape: vec![1],
                    write: Box::new(move |out| out.write_all(&scale.to_le_bytes())),
                });
                all.push(NewTensor {
                    name,
                    dtype: Dtype::U8,
                    shape: vec![matrix.rows().div_ceil(4), matrix.cols()],
                    write: Box::new(|out| put_ternary(out, matrix, FileFormat::HfPacked)),
                });
            }
        }
    }
    // Wide values first, so that every tensor is aligned for its type.
    all.sort_by_key(|t| std::cmp::Reverse(t.dtype.bitsize()));
    all
}

/// Refuses a file that does not hold what was written.
fn expect_same(path: &Path, written: &ExtractorWeights, read: &ExtractorWeights) -> Result<(), LoadError> {
    let bits = |a: &[f32], b: &[f32]| a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()));
    let matrix = |a: &TernaryMatrix, b: &TernaryMatrix| a.scales() == b.scales() && a.to_trits() == b.to_trits();
    let mut parts = vec![
        ("configuration".to_owned(), written.config == read.config),
        ("features.weight".to_owned(), written.features == read.features),
        ("output_norm.weight".to_owned(), bits(&written.final_norm, &read.final_norm)),
    ];
    for (i, (a, b)) in written.layers.iter().zip(&read.layers).enumerate() {
        let norm = |n: EncoderNorm| (format!("blk.{i}.{}.weight", n.name()), bits(a.norm(n), b.norm(n)));
        parts.extend(EncoderNorm::ALL.map(norm));
        let pairs = a.projections().zip(b.projections()).zip(written.config.mixer(i).projections());
        parts.extend(pairs.map(|(((_, a), (_, b)), (_, name))| (format!("blk.{i}.{name}.weight"), matrix(a, b))));
        let directions = a.directions.iter().zip(&b.directions).enumerate();
        parts.extend(directions.map(|(d, (a, b))| (direction_tensor_name(i, d, "*"), bits(a, b))));
    }
    for ((task, a), b) in written.config.tasks.iter().zip(&written.tasks).zip(&read.tasks) {
        parts.extend(HeadTensor::ALL.map(|t| (t.name(task), bits(a.tensor(t), b.tensor(t)))));
    }
    match parts.into_iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((tensor, _)) => Err(LoadError::ReadBack { path: path.to_path_buf(), tensor, what: "values".to_owned() }),
    }
}
