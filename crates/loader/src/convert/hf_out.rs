//! Writing a Hugging Face folder with packed projections, or with floats.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use bitnet_model::config_json::{self, decimal};
use bitnet_model::{
    Architecture, DeltaTensor, FloatMatrix, FloatType, InputForms, LayerWeights, ModelConfig, ModelWeights, Norm,
    Pooling, Projection, Table,
};
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use ternary_kernels::{FileFormat, KernelError, Levels, ScaleRounding, Scales, TernaryMatrix};

use super::verify::{self, Checked};
use super::{Job, Progress, Target, gguf_out::is_plain, hf_words, unpacked};
use crate::architecture::rules;
use crate::config::from_hf::{MAX_CONFIG, POOLING_FILES};
use crate::config::{to_f32, unsupported};
use crate::files::{FileError, PendingFolder};
use crate::mmap::{read_bounded, write_atomically};
use crate::names::Names;
use crate::safetensors::{Dtype, NewTensor, SINGLE_NAME, write_file};
use crate::{Checkpoint, LoadError};

pub(super) const NAMES: Names = Names::Hf { prefix: "model." };
const QUANTIZATION: &str = "quantization_config";

/// Meaning of the stored scale, chosen so that all scales are exact if that is possible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinearClass {
    /// `weight = scale * trit`.
    AutoBitLinear,
    /// `weight = trit / scale`.
    BitLinear,
}

/// The storage of the projections.
enum Projections {
    /// Packed, with these scales in the order of the layers.
    Packed(LinearClass, Vec<bf16>),
    /// As floats.
    Floats,
}

pub(super) fn write(job: &mut Job<'_>, output: &Path) -> Result<Checked, LoadError> {
    let check = |job: &Job<'_>, folder: &Path| {
        verify::read_back(job.weights, job.speech, (folder, output), job.target, job.options.rounding)
    };
    let occupied = std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        write_into(job, output)?;
        return check(job, output);
    }
    let temporary = PendingFolder::create(output)?;
    write_into(job, temporary.temporary()).map_err(|e| as_will_be(e, temporary.temporary(), output))?;
    let checked = check(job, temporary.temporary())?;
    temporary.commit()?;
    Ok(checked)
}

/// Reports a full disk with the final name of the file.
fn as_will_be(error: LoadError, temporary: &Path, output: &Path) -> LoadError {
    match error {
        LoadError::File(FileError::Full { path, needed, written, source }) => {
            let path = path.strip_prefix(temporary).map_or_else(|_| path.clone(), |rest| output.join(rest));
            LoadError::File(FileError::Full { path, needed, written, source })
        }
        e => e,
    }
}

/// Writes all files of the folder, `config.json` near the end.
fn write_into(job: &mut Job<'_>, output: &Path) -> Result<(), LoadError> {
    let Job { source, weights, speech, options, .. } = *job;
    let (progress, notes) = (&mut *job.progress, &mut *job.notes);
    check_gains(weights)?;
    if weights.config.has_delta() && !Architecture::of_json(&weights.config).is_some_and(|a| a.formulas().mixers) {
        let reason = "folders of other programs' models with layers of the gated delta rule are not written; convert to GGUF instead";
        return Err(unsupported("mixers", bitnet_model::Mixer::GatedDelta.name(), reason));
    }
    let stored = if job.target == Target::HfUnpacked {
        unpacked::check(weights)?;
        Projections::Floats
    } else {
        let class = linear_class(weights);
        Projections::Packed(class, stored_scales(weights, class, options.rounding)?)
    };
    let total = count(weights, &stored);
    let mut done = 0..total;
    let progress = std::cell::RefCell::new(|| {
        done.next();
        progress(Progress { done: done.start, total });
    });
    write_atomically(&output.join(SINGLE_NAME), |out| {
        write_file(out, Some([("format".to_owned(), "pt".to_owned())].into()), tensors(weights, &stored, &progress))
    })?;
    hf_words::write(source, speech, output, options, notes)?;
    let config = config_json(source, &weights.config, &stored)?;
    write_json(&output.join("config.json"), &config)?;
    if let Some(pooling) = weights.config.pooling {
        write_json(&output.join(POOLING_FILES[0]), &pooling_json(pooling, &weights.config))?;
    }
    let generation = generation_json(source, &weights.config);
    write_json(&output.join("generation_config.json"), &generation)
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), LoadError> {
    write_atomically(path, |out| {
        writeln!(out, "{value:#}").map_err(|e| LoadError::Write { what: "JSON".to_owned(), source: e })
    })
}

fn count(w: &ModelWeights, stored: &Projections) -> usize {
    // Outside the layers: embedding, final norm and head; if projections are packed, a scale for each.
    let outside = if w.head.is_some() { 3usize } else { 2 };
    let each = match stored {
        Projections::Packed(..) => 2,
        Projections::Floats => 1,
    };
    let layer = |(l, layer): (usize, &LayerWeights)| {
        let floats =
            [w.config.layer_norms(l).count(), w.config.layer_biases(l).count(), w.config.layer_ttt_tensors(l).count()];
        let floats = floats.into_iter().chain([w.config.layer_delta_tensors(l).count()]);
        floats.into_iter().fold(layer.projections().count().saturating_mul(each), usize::saturating_add)
    };
    w.layers.iter().enumerate().map(layer).fold(outside, usize::saturating_add)
}

/// The `A_log` of which a reader makes this factor of a decay, `-exp(A_log)`, if there is one; that nearest to it
/// otherwise, which is found when the file is read back.
fn log_of_decay(decay: f32) -> f32 {
    let log = to_f32(f64::from(-decay).ln());
    let mut candidates = vec![log];
    let (mut below, mut above) = (log, log);
    for _ in 0..8 {
        (below, above) = (below.next_down(), above.next_up());
        candidates.extend([below, above]);
    }
    candidates.into_iter().find(|log| to_f32(-f64::from(*log).exp()) == decay).unwrap_or(log)
}

/// A gain as files of the model's family hold it: some hold it less 1.
fn stored_gain<'a>(c: &ModelConfig, n: Norm, gain: &'a [f32]) -> Cow<'a, [f32]> {
    match Architecture::of_json(c).map_or(0.0, |a| (rules(a).gain_offset)(n)) {
        0.0 => Cow::Borrowed(gain),
        offset => Cow::Owned(gain.iter().map(|w| w - offset).collect()),
    }
}

/// Refuses gains that are lost in the form in which files of the model's family hold them.
fn check_gains(w: &ModelWeights) -> Result<(), LoadError> {
    let layers = (0..w.config.num_hidden_layers).flat_map(|l| w.config.layer_norms(l));
    for n in layers.chain([Norm::Final]) {
        let gain = w.norm(n).unwrap_or_default();
        let offset = Architecture::of_json(&w.config).map_or(0.0, |a| (rules(a).gain_offset)(n));
        let stored = stored_gain(&w.config, n, gain);
        if let Some((value, _)) = gain.iter().zip(stored.iter()).find(|(gain, stored)| **stored + offset != **gain) {
            let reason = "less 1, as files of this family hold it, it has no exact f32; convert to GGUF instead";
            return Err(unsupported(&w.config.norm_name(n), value, reason));
        }
    }
    Ok(())
}

fn is_bf16(v: f32) -> bool {
    bf16::from_f32(v).to_f32().to_bits() == v.to_bits()
}

/// The stored value for a scale that divides, if there is an exact one.
fn as_divisor(scale: f32) -> Option<bf16> {
    let d = bf16::from_f32(1.0 / scale);
    (d.is_finite() && 1.0 / d.to_f32() == scale).then_some(d)
}

pub(super) fn projections(w: &ModelWeights) -> impl Iterator<Item = (usize, Projection, &TernaryMatrix)> {
    w.layers.iter().enumerate().flat_map(|(l, layer)| layer.projections().map(move |(p, m)| (l, p, m)))
}

fn linear_class(w: &ModelWeights) -> LinearClass {
    let all = |f: fn(f32) -> bool| projections(w).all(|(_, _, m)| f(m.scales().at(0, 0)));
    if !all(is_bf16) && all(|s| as_divisor(s).is_some()) { LinearClass::BitLinear } else { LinearClass::AutoBitLinear }
}

/// The `weight_scale` of every projection, in the order of the layers.
fn stored_scales(w: &ModelWeights, class: LinearClass, rounding: ScaleRounding) -> Result<Vec<bf16>, LoadError> {
    let mut all = Vec::new();
    for (l, p, m) in projections(w) {
        let name = || NAMES.projection(l, p, w.config.mixer(l)) + ".weight_scale";
        let in_tensor = |source| LoadError::Ternary { tensor: name(), source };
        let scale = match m.scales() {
            Scales::Tensor(s) => *s,
            Scales::Rows(s) => {
                let first = s.first().copied().unwrap_or(1.0);
                if let Some((row, &second)) = s.iter().enumerate().find(|(_, v)| v.to_bits() != first.to_bits()) {
                    return Err(in_tensor(KernelError::OneScaleOnly {
                        format: FileFormat::HfPacked,
                        row,
                        first,
                        second,
                    }));
                }
                first
            }
            Scales::Groups(g) => {
                let format = FileFormat::HfPacked;
                return Err(in_tensor(KernelError::NoGroupScales { format, group_len: g.group_len() }));
            }
        };
        let stored = match class {
            LinearClass::BitLinear => as_divisor(scale),
            LinearClass::AutoBitLinear if is_bf16(scale) => Some(bf16::from_f32(scale)),
            // A scale that rounds to 0 or to infinity is not valid.
            LinearClass::AutoBitLinear if rounding == ScaleRounding::Nearest => {
                Some(bf16::from_f32(scale)).filter(|b| b.is_finite() && (b.to_f32() > 0.0 || scale == 0.0))
            }
            LinearClass::AutoBitLinear => None,
        };
        let format = FileFormat::HfPacked;
        all.push(
            stored.ok_or_else(|| {
                in_tensor(KernelError::InexactScale { format, stored_as: "bf16", row: 0, value: scale })
            })?,
        );
    }
    Ok(all)
}

fn tensors<'a>(
    w: &'a ModelWeights,
    stored: &Projections,
    progress: &'a std::cell::RefCell<impl FnMut() + 'a>,
) -> Vec<NewTensor<'a>> {
    let tick = move || (progress.borrow_mut())();
    let table = |name: String, t: &'a Table| {
        let dtype = match t {
            Table::Float(m) => match m.float_type() {
                FloatType::F16 => Dtype::F16,
                FloatType::Bf16 => Dtype::BF16,
                // Blocks dequantise to f32 exactly; that is the only exact form here.
                _ => Dtype::F32,
            },
            // A weight is its scale, which is an f16, or the negative of it, or 0; the reader recognises it.
            Table::Ternary(w) => match (w.scales(), w.levels()) {
                (Scales::Groups(_), Levels::Three) => Dtype::F16,
                _ => Dtype::F32,
            },
        };
        NewTensor {
            name,
            dtype,
            shape: vec![t.rows(), t.cols()],
            write: Box::new(move |o| {
                tick();
                match t {
                    Table::Float(m) => write_table(m, o),
                    Table::Ternary(w) => write_ternary(w, dtype == Dtype::F16, o),
                }
            }),
        }
    };
    let floats = |name: String, shape: Vec<usize>, values: Cow<'a, [f32]>, narrow: bool| NewTensor {
        name,
        dtype: if narrow { Dtype::BF16 } else { Dtype::F32 },
        shape,
        write: Box::new(move |o| {
            tick();
            values.iter().try_for_each(|v| match narrow {
                true => o.write_all(&bf16::from_f32(*v).to_le_bytes()),
                false => o.write_all(&v.to_le_bytes()),
            })
        }),
    };
    let norm = |n: Norm| {
        let name = NAMES.norm(n, &w.config).swap_remove(0);
        w.norm(n).map(|gain| {
            let stored = stored_gain(&w.config, n, gain);
            let narrow = stored.iter().all(|v| is_bf16(*v));
            floats(name, vec![gain.len()], stored, narrow)
        })
    };
    let mut all = vec![table(NAMES.embedding(), &w.embedding)];
    all.extend(norm(Norm::Final));
    all.extend(w.head.as_ref().map(|h| table(NAMES.head(), h)));
    for (l, layer) in w.layers.iter().enumerate() {
        all.extend(w.config.layer_norms(l).filter_map(norm));
        all.extend(w.config.layer_biases(l).filter_map(|(p, len)| {
            let name = NAMES.bias(l, p, w.config.mixer(l));
            layer.bias(p).map(|bias| floats(name, vec![len], Cow::Borrowed(bias), false))
        }));
        // The initial values of the inner steps of such a layer stay f32 even if they happen to fit f16.
        let ttt = layer.ttt.iter().flat_map(|t| t.tensors());
        all.extend(ttt.map(|(t, shape, values)| floats(NAMES.ttt(l, t), shape, Cow::Borrowed(values), false)));
        let delta = layer.delta.iter().flat_map(|d| d.tensors());
        all.extend(delta.map(|(t, mut shape, values)| {
            let stored = match t {
                DeltaTensor::Decay => Cow::Owned(values.iter().map(|decay| log_of_decay(*decay)).collect()),
                _ => Cow::Borrowed(values),
            };
            if t == DeltaTensor::Conv {
                // A convolution by channels has one input each.
                shape.insert(1, 1);
            }
            floats(NAMES.delta(l, t), shape, stored, false)
        }));
    }
    let scales: &[bf16] = match stored {
        Projections::Packed(_, scales) => scales,
        Projections::Floats => {
            all.extend(projections(w).map(|(l, p, m)| {
                let half = unpacked::fits_half(m);
                NewTensor {
                    name: NAMES.projection(l, p, w.config.mixer(l)) + ".weight",
                    dtype: if half { Dtype::F16 } else { Dtype::F32 },
                    shape: vec![m.rows(), m.cols()],
                    write: Box::new(move |o| {
                        tick();
                        write_ternary(m, half, o)
                    }),
                }
            }));
            &[]
        }
    };
    for ((l, p, m), &scale) in projections(w).zip(scales) {
        let base = NAMES.projection(l, p, w.config.mixer(l));
        all.push(NewTensor {
            name: format!("{base}.weight_scale"),
            dtype: Dtype::BF16,
            shape: vec![1],
            write: Box::new(move |o| {
                tick();
                o.write_all(&scale.to_le_bytes())
            }),
        });
        all.push(NewTensor {
            name: format!("{base}.weight"),
            dtype: Dtype::U8,
            shape: vec![m.rows().div_ceil(4), m.cols()],
            write: Box::new(move |o| {
                tick();
                // One scale per tensor and any shape were checked before, so this cannot fail.
                let bytes = FileFormat::HfPacked.encode(m, ScaleRounding::Exact).map_err(std::io::Error::other)?;
                o.write_all(&bytes)
            }),
        });
    }
    // Wide values first, so that every tensor is aligned for its type.
    all.sort_by_key(|t| std::cmp::Reverse(t.dtype.bitsize()));
    all
}

/// The weights as floats: f16 if `half` is set, else f32.
fn write_ternary(w: &TernaryMatrix, half: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let (mut trits, mut row) = (vec![0; w.cols()], vec![0.0; w.cols()]);
    for r in 0..w.rows() {
        w.decode_row_f32(r, &mut trits, &mut row);
        row.iter().try_for_each(|v| match half {
            true => out.write_all(&f16::from_f32(*v).to_le_bytes()),
            false => out.write_all(&v.to_le_bytes()),
        })?;
    }
    Ok(())
}

fn write_table(m: &FloatMatrix, out: &mut dyn Write) -> std::io::Result<()> {
    if is_plain(m) {
        return out.write_all(m.bytes());
    }
    let mut row = vec![0f32; m.cols()];
    for r in 0..m.rows() {
        m.row_into(r, &mut row);
        row.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?;
    }
    Ok(())
}

fn config_json(source: &Checkpoint, c: &ModelConfig, stored: &Projections) -> Result<Value, LoadError> {
    let mut map = Map::new();
    if let Some(folder) = source.folder() {
        let path = folder.join("config.json");
        let bytes = read_bounded(&path, "config.json", MAX_CONFIG)?;
        map = serde_json::from_slice(&bytes).map_err(|source| LoadError::Json { what: "config.json", source })?;
        // Fields that do not apply to the result, or are written differently.
        for key in ["weight_bits", "input_bits", "auto_map", "rope_scaling", "rope_parameters", "_name_or_path"] {
            map.remove(key);
        }
        config_json::ACTIVATION_KEYS.iter().for_each(|key| drop(map.remove(*key)));
    }
    for key in [InputForms::JSON_KEY, config_json::WEIGHT_GROUP, QUANTIZATION] {
        map.remove(key);
    }
    map.extend(config_json::write(c)?);
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("attention_bias", json!(false));
    let class = match stored {
        Projections::Packed(LinearClass::AutoBitLinear, _) => "autobitlinear",
        Projections::Packed(LinearClass::BitLinear, _) => "bitlinear",
        Projections::Floats => {
            // Nothing is packed, and floats of 32 bits may be among them.
            put("torch_dtype", json!("float32"));
            return Ok(Value::Object(map));
        }
    };
    put("torch_dtype", json!("bfloat16"));
    put(QUANTIZATION, json!({"quant_method": "bitnet", "linear_class": class, "quantization_mode": "offline"}));
    Ok(Value::Object(map))
}

/// The pooling of the hidden states in the format of sentence-transformers.
fn pooling_json(pooling: Pooling, c: &ModelConfig) -> Value {
    json!({
        "word_embedding_dimension": c.hidden_size,
        "pooling_mode_cls_token": pooling == Pooling::First,
        "pooling_mode_mean_tokens": pooling == Pooling::Mean,
        "pooling_mode_lasttoken": pooling == Pooling::Last,
    })
}

fn generation_json(source: &Checkpoint, c: &ModelConfig) -> Value {
    let g = source.generation();
    let mut map = Map::new();
    let decimal = |v: f32| json!(decimal(v));
    map.insert("bos_token_id".into(), json!(c.bos_token_id));
    map.insert("eos_token_id".into(), json!(c.eos_token_ids));
    let options = [
        ("do_sample", g.do_sample.map(|v| json!(v))),
        ("temperature", g.temperature.map(decimal)),
        ("top_p", g.top_p.map(decimal)),
        ("top_k", g.top_k.map(|v| json!(v))),
        ("repetition_penalty", g.repetition_penalty.map(decimal)),
    ];
    map.extend(options.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))));
    Value::Object(map)
}
