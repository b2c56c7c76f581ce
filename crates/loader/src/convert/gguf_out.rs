//! Writing a GGUF file.

use std::borrow::Cow;
use std::path::Path;

use bitnet_model::{
    Activation, FloatMatrix, FloatType, Mixer, ModelConfig, ModelWeights, Norm, Projection, RopeScaling, Table,
};
use ternary_kernels::TernaryMatrix;

use super::verify::Checked;
use super::{ConvertOptions, Job, Progress, Target, verify, vocab};
use crate::config::{act, bit_ttt, inputs, rope, to_f32};
use crate::gguf::{GgmlType, GgufWriter, Metadata, TensorStream, Value, is_split_key};
use crate::loaded::GenerationConfig;
use crate::mmap::write_checked;
use crate::names::{Names, half_to_interleaved};
use crate::source::ggml_type;
use crate::{Checkpoint, LoadError};

/// Writes a file of `general.file_type` and with projections of a type as `types` says.
pub(super) fn write(job: &mut Job<'_>, output: &Path, types: (u32, GgmlType)) -> Result<Checked, LoadError> {
    let (file_type, ty) = types;
    let Job { source, weights, speech, target, options, .. } = *job;
    let (mut metadata, architecture) = match source.gguf() {
        // Everything that the file says stays.
        Some(file) => (file.metadata().clone(), file.architecture().to_owned()),
        None => {
            let architecture = architecture_for(&weights.config)?;
            (describe(source, &weights.config, architecture), architecture.to_owned())
        }
    };
    // The result is one file.
    metadata.retain(|k| !is_split_key(k));
    if architecture == "bitnet" && !act::GGUF_KEYS.iter().any(|k| metadata.get(&format!("bitnet.{k}")).is_some()) {
        // Models of this architecture compute either, so it is named even where the source left it to be found out.
        metadata.set(&format!("bitnet.{}", act::GGUF_KEYS[0]), weights.config.hidden_act.name());
    }
    if let Some(name) = options.name.as_deref() {
        metadata.set("general.name", name);
    }
    metadata.set("general.file_type", file_type);
    metadata.set("general.quantization_version", 2u32);
    vocab::put(&mut metadata, source, &weights.config, speech, options.tokenizer.as_deref(), job.notes)?;

    let mut writer = GgufWriter::with_metadata(metadata)?;
    let plan = plan(weights);
    for item in &plan {
        let (name, shape, ty) = match *item {
            Item::Table(name, m) => {
                (name.to_owned(), vec![m.rows() as u64, m.cols() as u64], ggml_type(m.float_type())?)
            }
            Item::Floats(ref name, ref shape, _) => {
                (name.clone(), shape.iter().map(|&d| d as u64).collect(), GgmlType::F32)
            }
            Item::Projection(l, p, w) => {
                let name = projection_name(&weights.config, l, p);
                (name, vec![w.rows() as u64, w.cols() as u64], ty)
            }
        };
        writer.announce(&name, &shape, ty)?;
    }
    let interleave = architecture == "llama";
    let bytes = writer.data_len();
    let data = |out: &mut dyn std::io::Write| {
        let mut stream = writer.start(out)?;
        for (done, item) in plan.iter().enumerate() {
            (job.progress)(Progress { done, total: plan.len() });
            put(&mut stream, item, &weights.config, target, options, interleave)?;
        }
        (job.progress)(Progress { done: plan.len(), total: plan.len() });
        stream.finish().map(|_| ())
    };
    write_checked(output, bytes, data, |(), file| {
        verify::read_back(weights, speech, (file, output), target, options.rounding)
    })
}

enum Item<'a> {
    Table(&'static str, &'a FloatMatrix),
    /// Of this name and shape.
    Floats(String, Vec<usize>, Cow<'a, [f32]>),
    Projection(usize, Projection, &'a TernaryMatrix),
}

fn projection_name(c: &ModelConfig, layer: usize, p: Projection) -> String {
    Names::Gguf.projection(layer, p, c.mixer(layer)) + ".weight"
}

/// Everything to write, in the order of the file.
fn plan<'a>(w: &'a ModelWeights) -> Vec<Item<'a>> {
    let c = &w.config;
    let norm = |n: Norm| {
        let mixer = n.layer().map_or(Mixer::Attention, |l| c.mixer(l));
        w.norm(n).map(|gain| {
            let name = Names::Gguf.norm(n, mixer).swap_remove(0);
            Item::Floats(name, vec![gain.len()], Cow::Borrowed(gain))
        })
    };
    // `convert` has refused others.
    let table = |name, t: &'a Table| t.as_float().map(|m| Item::Table(name, m));
    let mut plan: Vec<Item<'_>> = table("token_embd.weight", &w.embedding).into_iter().collect();
    plan.extend(w.head.as_ref().and_then(|head| table("output.weight", head)));
    plan.extend(norm(Norm::Final));
    let mut plain = c.clone();
    plain.rope_scaling = RopeScaling::None;
    if let Some(factors) = rope::factors(&c.rope_scaling, &plain.rope_frequencies()) {
        plan.push(Item::Floats(rope::FACTORS.to_owned(), vec![factors.len()], Cow::Owned(factors)));
    }
    for (l, layer) in w.layers.iter().enumerate() {
        plan.extend(c.layer_norms(l).filter_map(norm));
        let ttt = layer.ttt.iter().flat_map(|t| t.tensors());
        plan.extend(ttt.map(|(t, shape, values)| Item::Floats(Names::Gguf.ttt(l, t), shape, Cow::Borrowed(values))));
        plan.extend(layer.projections().map(|(p, m)| Item::Projection(l, p, m)));
    }
    plan
}

fn put<W: std::io::Write>(
    stream: &mut TensorStream<W>,
    item: &Item<'_>,
    c: &ModelConfig,
    target: Target,
    options: &ConvertOptions,
    interleave: bool,
) -> Result<(), LoadError> {
    match *item {
        Item::Table(name, m) => stream.tensor(name, |o| o.write_all(m.bytes())),
        Item::Floats(ref name, _, ref values) => {
            stream.tensor(name, |o| values.iter().try_for_each(|v| o.write_all(&v.to_le_bytes())))
        }
        Item::Projection(l, p, stored) => {
            let name = projection_name(c, l, p);
            let in_tensor = |source| LoadError::Ternary { tensor: name.clone(), source };
            let heads = match p {
                Projection::Q => Some(c.num_attention_heads),
                Projection::K => Some(c.num_key_value_heads),
                _ => None,
            };
            let reordered = match heads {
                Some(heads) if interleave => {
                    let order = half_to_interleaved(heads, c.head_dim);
                    Some(stored.with_row_order(&order).map_err(in_tensor)?)
                }
                _ => None,
            };
            let w = reordered.as_ref().unwrap_or(stored);
            let bytes = target.format().encode(w, options.rounding).map_err(in_tensor)?;
            stream.tensor(&name, |o| o.write_all(&bytes))
        }
    }
}

/// The architecture under which programs compute what this configuration says.
pub(crate) fn architecture_for(c: &ModelConfig) -> Result<&'static str, LoadError> {
    if c.has_ttt() {
        return Ok(bit_ttt::ARCHITECTURE);
    }
    match (c.hidden_act, c.sub_norms) {
        _ if !c.inputs.are_plain() => Ok(inputs::GGUF_ARCHITECTURE),
        (Activation::Relu2, true) => Ok("bitnet-b1.58"),
        (Activation::Silu, true) => Ok("bitnet"),
        (Activation::Silu, false) => Ok("llama"),
        (act, sub) => Err(LoadError::KeyValue {
            key: "hidden_act".to_owned(),
            value: format!("{} {} sub-norms", act.name(), if sub { "with" } else { "without" }),
            reason: "no GGUF architecture stands for this; convert to hf-packed instead".to_owned(),
        }),
    }
}

/// Metadata for a checkpoint that has none of GGUF's own.
fn describe(source: &Checkpoint, c: &ModelConfig, architecture: &str) -> Metadata {
    let mut m = Metadata::default();
    let folder = source.folder().and_then(|f| f.canonicalize().ok());
    let name = folder.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
    m.set("general.architecture", architecture);
    if let Some(name) = source.info().name.as_deref().or(name) {
        m.set("general.name", name);
    }
    put_shape(&mut m, c, architecture);
    sampling(&mut m, source.generation());
    m
}

/// The keys that say what shape the model has.
pub(crate) fn put_shape(m: &mut Metadata, c: &ModelConfig, architecture: &str) {
    let mut size = |key: &str, v: usize| match u32::try_from(v) {
        Ok(v) => m.set(&format!("{architecture}.{key}"), v),
        Err(_) => m.set(&format!("{architecture}.{key}"), v as u64),
    };
    size("vocab_size", c.vocab_size);
    size("context_length", c.max_position_embeddings);
    size("embedding_length", c.hidden_size);
    size("block_count", c.num_hidden_layers);
    size("feed_forward_length", c.intermediate_size);
    size("attention.head_count", c.num_attention_heads);
    size("attention.head_count_kv", c.num_key_value_heads);
    size("rope.dimension_count", c.head_dim);
    if c.num_attention_heads.saturating_mul(c.head_dim) != c.hidden_size {
        size("attention.key_length", c.head_dim);
        size("attention.value_length", c.head_dim);
    }
    if architecture == inputs::GGUF_ARCHITECTURE {
        m.set(&format!("{architecture}.hidden_act"), c.hidden_act.name());
    }
    if !c.inputs.are_plain() {
        inputs::to_gguf(m, &c.inputs, architecture);
    }
    m.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), c.rms_norm_eps);
    // 32 bits are what other programs expect; a base that does not fit keeps its 64 rather than change.
    let theta = to_f32(c.rope_theta);
    let theta = if f64::from(theta) == c.rope_theta { Value::F32(theta) } else { Value::F64(c.rope_theta) };
    m.set(&format!("{architecture}.rope.freq_base"), theta);
    rope::to_gguf(m, &c.rope_scaling, architecture);
    if architecture == "bitnet" {
        m.set(&format!("{architecture}.{}", act::GGUF_KEYS[0]), c.hidden_act.name());
    }
    if architecture == bit_ttt::ARCHITECTURE {
        bit_ttt::put(m, c);
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
