//! Writing a GGUF file.

use std::borrow::Cow;
use std::path::Path;

use bitnet_model::{
    Architecture, FloatMatrix, FloatType, ModelConfig, ModelWeights, Norm, Presence, Projection, Table, config_json,
};
use half::f16;
use ternary_kernels::{FileFormat, ScalePlace, Scales, TernaryMatrix};

use super::verify::Checked;
use super::{ConvertOptions, Job, Progress, Target, verify, vocab};
use crate::architecture::{qwen35, rules};
use crate::config::from_gguf::{ACTIVATION_KEYS, ATTENTION_SCALE, POOLING, SCALES, pooling_number};
use crate::config::{bit_ttt, fold, inputs, rope, to_f32, unsupported};
use crate::gguf::{GgmlType, GgufWriter, Metadata, TensorStream, TensorType, Value, is_split_key};
use crate::heads;
use crate::loaded::{GenerationConfig, QkLayout};
use crate::mmap::write_checked;
use crate::names::{Names, half_to_interleaved};
use crate::packed;
use crate::source::ggml_type;
use crate::{Checkpoint, LoadError};

/// The key for the alignment of tensors.
const ALIGNMENT: &str = "general.alignment";

/// Writes a file with the `general.file_type` and the type of projections in `types`.
pub(super) fn write(job: &mut Job<'_>, output: &Path, types: (u32, GgmlType)) -> Result<Checked, LoadError> {
    let (file_type, ty) = types;
    let (mut metadata, architecture) = header(job, Some(file_type))?;
    let Job { source, weights, speech, target, options, .. } = *job;
    if source.is_packed() {
        // Its tensors begin at pages.
        metadata.retain(|k| k != ALIGNMENT);
    }
    let mut writer = GgufWriter::with_metadata(metadata)?;
    let plan = plan(weights, architecture, target);
    for item in &plan {
        let (name, shape, ty) = match *item {
            Item::Table(name, m) => {
                (name.to_owned(), vec![m.rows() as u64, m.cols() as u64], ggml_type(m.float_type())?)
            }
            Item::TernaryTable(name, w, format) => {
                let none = || no_type(name, format);
                let ty = GgmlType::of(format).ok_or_else(none)?;
                (name.to_owned(), vec![w.rows() as u64, w.cols() as u64], ty)
            }
            Item::Floats(ref name, ref shape, ref values) => {
                (name.clone(), shape.iter().map(|&d| d as u64).collect(), float_type(source, name, values))
            }
            Item::Projection(l, p, w) => {
                let name = projection_name(&weights.config, l, p);
                (name, vec![w.rows() as u64, w.cols() as u64], ty)
            }
        };
        writer.announce(&name, &shape, ty)?;
    }
    let layout = rules(architecture).gguf_qk;
    let bytes = writer.data_len();
    let data = |out: &mut dyn std::io::Write| {
        let mut stream = writer.start(out)?;
        for (done, item) in plan.iter().enumerate() {
            (job.progress)(Progress { done, total: plan.len() });
            put(&mut stream, item, source, &weights.config, (target, options, layout))?;
        }
        (job.progress)(Progress { done: plan.len(), total: plan.len() });
        stream.finish().map(|_| ())
    };
    write_checked(output, bytes, data, |(), file| {
        verify::read_back(weights, speech, (file, output), target, options.rounding)
    })
}

/// The metadata of the result, and the family under which it is written.
fn header(job: &mut Job<'_>, file_type: Option<u32>) -> Result<(Metadata, Architecture), LoadError> {
    let Job { source, weights, speech, options, .. } = *job;
    let (mut metadata, architecture) = match source.gguf() {
        // All metadata of the file are kept.
        Some(file) => (file.metadata().clone(), source.family()),
        None => {
            let architecture = architecture_for(&weights.config)?;
            (describe(source, &weights.config, architecture), architecture)
        }
    };
    // The result is one file.
    metadata.retain(|k| !is_split_key(k) && !packed::is_key(k));
    let name = metadata.str("general.architecture")?.unwrap_or_default().to_owned();
    if let Some(key) = rules(architecture).gguf_activation_key
        && !ACTIVATION_KEYS.iter().any(|k| metadata.get(&format!("{name}.{k}")).is_some())
    {
        // Models of this architecture may compute either, so it is named even if the source did not name it.
        metadata.set(&format!("{name}.{key}"), weights.config.hidden_act.name());
    }
    if let Some(name) = options.name.as_deref() {
        metadata.set("general.name", name);
    }
    if let Some(number) = file_type {
        metadata.set("general.file_type", number);
    }
    metadata.set("general.quantization_version", 2u32);
    vocab::put(&mut metadata, source, &weights.config, speech, options.tokenizer.as_deref(), job.notes)?;
    Ok((metadata, architecture))
}

/// Writes a packed file: the contents of any GGUF file, with the matrices as the kernels read them.
pub(super) fn write_packed(job: &mut Job<'_>, output: &Path) -> Result<Checked, LoadError> {
    let (mut metadata, architecture) = header(job, None)?;
    let Job { source, weights, speech, target, options, .. } = *job;
    let packed = packed::write::Plan::new(weights, &options.engine, true)?;
    metadata.set(ALIGNMENT, packed::ALIGNMENT);
    packed.describe(&mut metadata);
    let mut writer = GgufWriter::with_metadata(metadata)?;
    let is_plain = |item: &Item<'_>| match item {
        Item::Table(..) | Item::Floats(..) => true,
        Item::TernaryTable(..) | Item::Projection(..) => false,
    };
    let plan: Vec<Item<'_>> = plan(weights, architecture, target).into_iter().filter(is_plain).collect();
    for item in &plan {
        match item {
            Item::Table(name, m) => {
                writer.announce(name, &[m.rows() as u64, m.cols() as u64], ggml_type(m.float_type())?)?;
            }
            Item::Floats(name, shape, values) => {
                let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
                writer.announce(name, &shape, float_type(source, name, values))?;
            }
            Item::TernaryTable(..) | Item::Projection(..) => (),
        }
    }
    packed.announce(&mut writer)?;
    let layout = rules(architecture).gguf_qk;
    let (bytes, total) = (writer.data_len(), plan.len().saturating_add(packed.len()));
    let data = |out: &mut dyn std::io::Write| {
        let mut stream = writer.start(out)?;
        let mut done = 0usize;
        let mut step = || {
            done = done.saturating_add(1);
            (job.progress)(Progress { done, total });
        };
        for item in &plan {
            put(&mut stream, item, source, &weights.config, (target, options, layout))?;
            step();
        }
        packed.put(&mut stream, &mut step)?;
        stream.finish().map(|_| ())
    };
    write_checked(output, bytes, data, |(), file| {
        verify::read_back(weights, speech, (file, output), target, options.rounding)
    })
}

enum Item<'a> {
    Table(&'static str, &'a FloatMatrix),
    /// In this format.
    TernaryTable(&'static str, &'a TernaryMatrix, FileFormat),
    /// Floats of this name and shape.
    Floats(String, Vec<usize>, Cow<'a, [f32]>),
    Projection(usize, Projection, &'a TernaryMatrix),
}

fn projection_name(c: &ModelConfig, layer: usize, p: Projection) -> String {
    Names::Gguf.projection(layer, p, c.mixer(layer)) + ".weight"
}

/// The type of norms and of other floats: F32, which every program reads, but F16 if the source is a GGUF file that
/// stores them so and their values allow it, as in embedding models.
fn float_type(source: &Checkpoint, name: &str, values: &[f32]) -> GgmlType {
    let stored = source.gguf().and_then(|file| file.tensor(name)).map(|t| t.tensor_type());
    let exact = |v: &f32| f16::from_f32(*v).to_f32().to_bits() == v.to_bits();
    if stored == Some(TensorType::Known(GgmlType::F16)) && values.iter().all(exact) {
        GgmlType::F16
    } else {
        GgmlType::F32
    }
}

fn no_type(tensor: &str, format: FileFormat) -> LoadError {
    let reason = "GGUF files have no such type";
    LoadError::UnsupportedType { tensor: tensor.to_owned(), ty: format.name().to_owned(), type_id: None, reason }
}

/// The format of a ternary embedding or head: that of the projections if it can hold one scale per group. Otherwise,
/// for example for projections with one scale per tensor, the format with the longest groups that divide those of the
/// table.
fn table_format(w: &TernaryMatrix, target: Target) -> FileFormat {
    let format = target.format();
    let group_len = match w.scales() {
        Scales::Tensor(_) | Scales::Rows(_) => return format,
        Scales::Groups(g) => g.group_len(),
    };
    if matches!(format.info().scale, ScalePlace::Block(_)) {
        return format;
    }
    let holds =
        |f: &FileFormat| group_len.is_multiple_of(f.info().weights) && w.cols().is_multiple_of(f.info().weights);
    [FileFormat::Tq2_0, FileFormat::Pq2_0].into_iter().find(holds).unwrap_or(FileFormat::Q2_0)
}

/// Everything to write, in the order of the file.
fn plan<'a>(w: &'a ModelWeights, a: Architecture, target: Target) -> Vec<Item<'a>> {
    let c = &w.config;
    let norm = |n: Norm| {
        w.norm(n).map(|gain| {
            let name = Names::Gguf.norm(n, c).swap_remove(0);
            Item::Floats(name, vec![gain.len()], Cow::Borrowed(gain))
        })
    };
    let table = |name, t: &'a Table| match t {
        Table::Float(m) => Item::Table(name, m),
        Table::Ternary(w) => Item::TernaryTable(name, w, table_format(w, target)),
    };
    let mut plan = vec![table("token_embd.weight", &w.embedding)];
    plan.extend(w.head.as_ref().map(|head| table("output.weight", head)));
    plan.extend(norm(Norm::Final));
    for (name, values) in rope::to_tensors(c, a) {
        plan.push(Item::Floats(name.to_owned(), vec![values.len()], Cow::Owned(values)));
    }
    for (l, layer) in w.layers.iter().enumerate() {
        plan.extend(c.layer_norms(l).filter_map(norm));
        let ttt = layer.ttt.iter().flat_map(|t| t.tensors());
        plan.extend(ttt.map(|(t, shape, values)| Item::Floats(Names::Gguf.ttt(l, t), shape, Cow::Borrowed(values))));
        let delta = layer.delta.iter().flat_map(|d| d.tensors().map(move |t| (&d.config, t)));
        plan.extend(delta.map(|(config, (t, shape, values))| {
            let stored = match heads::tensor_rows(config, t) {
                Some((order, len)) => Cow::Owned(heads::reordered(values, &heads::inverse(&order), len)),
                None => Cow::Borrowed(values),
            };
            Item::Floats(Names::Gguf.delta(l, t), shape, stored)
        }));
        plan.extend(c.layer_biases(l).filter_map(|(p, len)| {
            let order = reordered(c, p, rules(a).gguf_qk).map(|order| half_to_interleaved(order, c.head_dim));
            let bias = layer.bias(p)?;
            let stored = match order {
                Some(order) => Cow::Owned(order.iter().filter_map(|r| bias.get(*r as usize).copied()).collect()),
                None => Cow::Borrowed(bias),
            };
            Some(Item::Floats(Names::Gguf.bias(l, p, c.mixer(l)), vec![len], stored))
        }));
        plan.extend(layer.projections().map(|(p, m)| Item::Projection(l, p, m)));
    }
    plan
}

/// The heads of a projection whose rows a file of this layout has in another order.
fn reordered(c: &ModelConfig, p: Projection, layout: QkLayout) -> Option<usize> {
    match (layout, p) {
        (QkLayout::Interleaved, Projection::Q) => Some(c.num_attention_heads),
        (QkLayout::Interleaved, Projection::K) => Some(c.num_key_value_heads),
        (QkLayout::Half | QkLayout::Interleaved, _) => None,
    }
}

fn put<W: std::io::Write>(
    stream: &mut TensorStream<W>,
    item: &Item<'_>,
    source: &Checkpoint,
    c: &ModelConfig,
    (target, options, layout): (Target, &ConvertOptions, QkLayout),
) -> Result<(), LoadError> {
    match *item {
        Item::Table(name, m) => stream.tensor(name, |o| o.write_all(m.bytes())),
        Item::TernaryTable(name, w, format) => {
            let in_tensor = |source| LoadError::Ternary { tensor: name.to_owned(), source };
            let bytes = format.encode(w, options.rounding).map_err(in_tensor)?;
            stream.tensor(name, |o| o.write_all(&bytes))
        }
        Item::Floats(ref name, _, ref values) => {
            let half = float_type(source, name, values) == GgmlType::F16;
            stream.tensor(name, |o| {
                values.iter().try_for_each(|v| match half {
                    true => o.write_all(&f16::from_f32(*v).to_le_bytes()),
                    false => o.write_all(&v.to_le_bytes()),
                })
            })
        }
        Item::Projection(l, p, stored) => {
            let name = projection_name(c, l, p);
            let in_tensor = |source| LoadError::Ternary { tensor: name.clone(), source };
            let reordered = match reordered(c, p, layout) {
                Some(heads) => {
                    let order = half_to_interleaved(heads, c.head_dim);
                    Some(stored.with_row_order(&order).map_err(in_tensor)?)
                }
                None => None,
            };
            let rows = heads::rows(c, l, p, Names::Gguf).map(|order| heads::inverse(&order));
            let turned = rows.map(|order| stored.with_row_order(&order)).transpose().map_err(in_tensor)?;
            let columns = heads::columns(c, l, p, Names::Gguf);
            let moved = columns.map(|(order, len)| heads::permuted(stored, &heads::inverse(&order), len));
            let moved = moved.transpose().map_err(in_tensor)?;
            let w = reordered.as_ref().or(turned.as_ref()).or(moved.as_ref()).unwrap_or(stored);
            let bytes = target.format().encode(w, options.rounding).map_err(in_tensor)?;
            stream.tensor(&name, |o| o.write_all(&bytes))
        }
    }
}

/// The architecture under which programs compute this configuration.
pub(crate) fn architecture_for(c: &ModelConfig) -> Result<Architecture, LoadError> {
    if let Some(len) = c.weight_group {
        let reason = "it says how float weights become ternary, but a GGUF file's are ternary already; remove it";
        return Err(unsupported(config_json::WEIGHT_GROUP, len, reason));
    }
    Architecture::of(c).ok_or_else(|| LoadError::KeyValue {
        key: "hidden_act".to_owned(),
        value: match c.beyond_bitnet() {
            Some(what) => format!("{} with {what}", c.hidden_act.name()),
            None => format!("{} {} sub-norms", c.hidden_act.name(), if c.sub_norms { "with" } else { "without" }),
        },
        reason: "no GGUF architecture supports this; convert to hf-packed instead".to_owned(),
    })
}

/// Metadata for a checkpoint without GGUF metadata.
fn describe(source: &Checkpoint, c: &ModelConfig, a: Architecture) -> Metadata {
    let mut m = Metadata::default();
    let folder = source.folder().and_then(|f| f.canonicalize().ok());
    let name = folder.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
    m.set("general.architecture", a.gguf_name());
    if let Some(name) = source.info().name.as_deref().or(name) {
        m.set("general.name", name);
    }
    put_config(&mut m, c, a);
    sampling(&mut m, source.generation());
    m
}

/// The keys that describe the computation of a model of this family: everything that [`crate::config::from_gguf`] reads
/// and cannot see from the tensors.
pub(crate) fn put_config(m: &mut Metadata, c: &ModelConfig, a: Architecture) {
    let (name, formulas, rules) = (a.gguf_name(), a.formulas(), rules(a));
    let mut size = |key: &str, v: usize| match u32::try_from(v) {
        Ok(v) => m.set(&format!("{name}.{key}"), v),
        Err(_) => m.set(&format!("{name}.{key}"), v as u64),
    };
    size("vocab_size", c.vocab_size);
    size("context_length", c.max_position_embeddings);
    size("embedding_length", c.hidden_size);
    size("block_count", c.num_hidden_layers);
    size("feed_forward_length", c.intermediate_size);
    size("attention.head_count", c.num_attention_heads);
    size("attention.head_count_kv", c.num_key_value_heads);
    size("rope.dimension_count", c.rotary_width());
    if c.num_attention_heads.saturating_mul(c.head_dim) != c.hidden_size {
        size("attention.key_length", c.head_dim);
        size("attention.value_length", c.head_dim);
    }
    if let Some(pooling) = c.pooling {
        size(POOLING, pooling_number(pooling));
    }
    let activation = |m: &mut Metadata| {
        if let Some(key) = rules.gguf_activation_key {
            m.set(&format!("{name}.{key}"), c.hidden_act.name());
        }
    };
    let early = formulas.forms == Presence::Always;
    if early {
        activation(m);
    }
    if !c.inputs.are_implied() {
        inputs::to_gguf(m, &c.inputs, name);
    }
    m.set(&format!("{name}.attention.layer_norm_rms_epsilon"), c.rms_norm_eps);
    // Other programs expect 32 bits; a base that does not fit keeps its 64 bits, so that it does not change.
    let theta = to_f32(c.rope_theta);
    let theta = if f64::from(theta) == c.rope_theta { Value::F32(theta) } else { Value::F64(c.rope_theta) };
    m.set(&format!("{name}.rope.freq_base"), theta);
    rope::to_gguf(m, &c.rope_scaling, name);
    if formulas.scales {
        for (key, value) in SCALES.iter().zip([c.embedding_scale, c.residual_scale, c.logit_divisor]) {
            m.set(&format!("{name}.{key}"), value);
        }
    }
    if let Some(scale) = c.attention_scale {
        m.set(&format!("{name}.{ATTENTION_SCALE}"), scale);
    }
    if !early {
        activation(m);
    }
    if formulas.mixers {
        bit_ttt::put(m, c);
    }
    if formulas.delta {
        qwen35::put(m, c);
        fold::put(m, c);
    }
}

fn sampling(m: &mut Metadata, g: &GenerationConfig) {
    // Greedy is temperature 0 there.
    let temperature = if g.do_sample == Some(false) { Some(0.0) } else { g.temperature };
    for (key, value) in [("temp", temperature), ("top_p", g.top_p), ("penalty_repeat", g.repetition_penalty)] {
        if let Some(v) = value {
            m.set(&format!("general.sampling.{key}"), v);
        }
    }
    if let Some(k) = g.top_k.and_then(|k| i32::try_from(k).ok()) {
        m.set("general.sampling.top_k", Value::I32(k));
    }
}

/// Whether the embedding is stored as plain floats.
pub(super) fn is_plain(m: &FloatMatrix) -> bool {
    matches!(m.float_type(), FloatType::F32 | FloatType::F16 | FloatType::Bf16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test may.
mod tests {
    use super::*;
    use crate::config::{TensorFacts, from_gguf};

    #[test]
    fn every_field_of_every_family_is_read_as_it_was_written_or_refused() {
        for a in Architecture::ALL {
            let base = a.example();
            let changed = base.each_field_changed();
            for (field, mut c) in std::iter::once(("nothing", base)).chain(changed) {
                // Special tokens are written with the vocabulary.
                (c.bos_token_id, c.eos_token_ids) = (None, Vec::new());
                let family = match architecture_for(&c) {
                    Ok(family) if c.validate().is_ok() => family,
                    _ => {
                        assert_ne!(field, "nothing", "{a:?}");
                        continue;
                    }
                };
                let mut m = Metadata::default();
                m.set("general.architecture", family.gguf_name());
                put_config(&mut m, &c, family);
                let mut facts = TensorFacts {
                    has_head: !c.tie_word_embeddings,
                    has_sub_norms: c.sub_norms,
                    has_projection_norms: c.projection_norms,
                    ..TensorFacts::default()
                };
                for (name, values) in rope::to_tensors(&c, family) {
                    let list = match name {
                        rope::SHORT => &mut facts.rope.short,
                        rope::LONG => &mut facts.rope.long,
                        _ => &mut facts.rope.factors,
                    };
                    *list = Some(values);
                }
                let read = from_gguf::read(&m, facts).unwrap();
                assert_eq!(read.config, c, "{a:?} with another {field}");
                assert_eq!(read.notes, Vec::<String>::new(), "{a:?} with another {field}");
            }
        }
    }
}
