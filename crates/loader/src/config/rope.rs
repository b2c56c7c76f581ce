//! Scaled rotary embeddings in GGUF files: their keys and tensors, computed or rejected by name.
//!
//! A scaling with a factor of 1 scales nothing, whatever its type. The `config.json` is read and written by
//! [`bitnet_model::config_json`].

use bitnet_model::config_json::{DYNAMIC, UNKNOWN_SCALING};
use bitnet_model::{Architecture, ModelConfig, RopeScaling};

use super::{to_f32, to_usize, unsupported};
use crate::LoadError;
use crate::architecture::rules;
use crate::gguf::{Metadata, Value};

/// The tensor with one factor for each frequency.
pub(crate) const FACTORS: &str = "rope_freqs.weight";
/// The tensors of LongRoPE: the factors up to the original context, and beyond.
pub(crate) const SHORT: &str = "rope_factors_short.weight";
pub(crate) const LONG: &str = "rope_factors_long.weight";
/// All of them.
pub(crate) const TENSORS: [&str; 3] = [FACTORS, SHORT, LONG];

/// Contents of the tensors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tensors {
    pub(crate) factors: Option<Vec<f32>>,
    pub(crate) short: Option<Vec<f32>>,
    pub(crate) long: Option<Vec<f32>>,
}

/// The scaling of a GGUF file, and a note on the choice.
pub(crate) fn from_gguf(
    m: &Metadata,
    architecture: &str,
    tensors: Tensors,
    context: usize,
) -> Result<(RopeScaling, Option<String>), LoadError> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let kind_key = key("scaling.type");
    let kind = m.str(&kind_key)?.map(|k| k.trim().to_ascii_lowercase()).filter(|k| !k.is_empty());
    // The older key is read if the newer one is missing or 0, as in llama.cpp.
    let mut factor = None;
    for name in ["scaling.factor", "scale_linear"] {
        let key = key(name);
        let value = number(m, &key)?.filter(|f| *f != 0.0 && factor.is_none());
        factor = value.map(|f| positive(&key, f).map(|f| (key, f))).transpose()?.or(factor);
    }
    let original = || -> Result<Option<usize>, LoadError> {
        let key = key("scaling.original_context_length");
        m.u64(&key)?.filter(|n| *n > 0).map(|n| to_usize(&key, n)).transpose()
    };
    // Two names of one factor for attention, in addition to that of the scaling itself.
    let given = |name: &str| -> Result<Option<f64>, LoadError> {
        let key = key(name);
        number(m, &key)?.filter(|f| *f != 0.0).map(|f| positive(&key, f)).transpose()
    };
    let attention = || -> Result<Option<f64>, LoadError> {
        Ok(match (given("scaling.attn_factor")?, given("scaling.yarn_attn_factor")?) {
            (Some(a), Some(b)) => Some(a * b),
            (a, b) => a.or(b),
        })
    };
    let real = factor.filter(|f| f.1 != 1.0);
    let lists = match (tensors.short, tensors.long) {
        (None, None) => None,
        (Some(short), Some(long)) => Some((short, long)),
        (short, _) => {
            let tensor = if short.is_none() { SHORT } else { LONG }.to_owned();
            return Err(LoadError::MissingTensor { tensor, hint: "longrope has two lists of factors".to_owned() });
        }
    };
    let scaling = match (kind.as_deref(), real, lists) {
        (Some("none"), _, None) | (_, None, None) => RopeScaling::None,
        (None | Some("longrope" | "su"), _, Some((short, long))) => {
            let original = original()?.unwrap_or(context);
            // Converters that write no factor leave it to the formula.
            let stretched = context as f64 / original as f64;
            let factor = attention()?.unwrap_or_else(|| RopeScaling::longrope_attention(stretched, original));
            RopeScaling::longrope(short, long, original, factor)
        }
        (Some(other), _, Some(_)) => {
            return Err(unsupported(&kind_key, other, &format!("{SHORT} says longrope; the file contradicts itself")));
        }
        // Without a type it is linear.
        (None | Some("linear"), Some((_, factor)), None) => RopeScaling::Linear { factor },
        (Some("yarn"), Some((_, factor)), None) => {
            let missing = || LoadError::MissingKey {
                key: key("scaling.original_context_length"),
                needed_for: "yarn, the scaling of the rotary embedding",
            };
            let [fast, slow] = RopeScaling::YARN_BETAS;
            RopeScaling::Yarn {
                factor,
                original_context: original()?.ok_or_else(missing)?,
                attention_factor: RopeScaling::yarn_attention(factor, 1.0) * attention()?.unwrap_or(1.0),
                beta_fast: given("scaling.yarn_beta_fast")?.unwrap_or(fast),
                beta_slow: given("scaling.yarn_beta_slow")?.unwrap_or(slow),
            }
        }
        (Some("longrope" | "su"), Some(_), None) => {
            let hint = "longrope has two lists of factors".to_owned();
            return Err(LoadError::MissingTensor { tensor: SHORT.to_owned(), hint });
        }
        (Some("dynamic"), Some(_), None) => return Err(unsupported(&kind_key, "dynamic", DYNAMIC)),
        (Some(other), Some(_), None) => return Err(unsupported(&kind_key, other, UNKNOWN_SCALING)),
    };
    let note = match &scaling {
        RopeScaling::LongRope { short, long, original_context, .. } if short != long => {
            let which = if context > *original_context { "long" } else { "short" };
            Some(format!("of the two lists of LongRoPE factors the {which} one holds for texts of every length"))
        }
        _ => None,
    };
    match tensors.factors.filter(|f| f.iter().any(|f| *f != 1.0)) {
        None => Ok((scaling, note)),
        Some(factors) if scaling == RopeScaling::None => Ok((RopeScaling::Factors(factors), note)),
        Some(_) => {
            Err(unsupported(&kind_key, "present", &format!("{FACTORS} scales as well; one of both is supported")))
        }
    }
}

/// A whole or a decimal number.
fn number(m: &Metadata, key: &str) -> Result<Option<f64>, LoadError> {
    match m.get(key).and_then(Value::to_u64) {
        Some(whole) => Ok(Some(whole as f64)),
        None => m.f64(key),
    }
}

/// The keys of a GGUF file for a scaling; lists of factors are tensors.
pub(crate) fn to_gguf(m: &mut Metadata, scaling: &RopeScaling, architecture: &str) {
    let mut set = |name: &str, value: Value| m.set(&format!("{architecture}.rope.scaling.{name}"), value);
    // Other programs expect 32 bits; a number that does not fit keeps its 64 bits, so that it does not change.
    let float = |x: f64| {
        let narrow = to_f32(x);
        if f64::from(narrow) == x { Value::F32(narrow) } else { Value::F64(x) }
    };
    let size = |n: usize| u32::try_from(n).map_or(Value::U64(n as u64), Value::U32);
    match *scaling {
        RopeScaling::Linear { factor } => {
            set("type", Value::String("linear".into()));
            set("factor", float(factor));
        }
        RopeScaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => {
            set("type", Value::String("yarn".into()));
            set("factor", float(factor));
            set("original_context_length", size(original_context));
            let usual = RopeScaling::yarn_attention(factor, 1.0);
            if to_f32(attention_factor) != to_f32(usual) {
                set("attn_factor", float(attention_factor / usual));
            }
            if [beta_fast, beta_slow] != RopeScaling::YARN_BETAS {
                set("yarn_beta_fast", float(beta_fast));
                set("yarn_beta_slow", float(beta_slow));
            }
        }
        RopeScaling::LongRope { original_context, attention_factor, .. } => {
            set("type", Value::String("longrope".into()));
            set("original_context_length", size(original_context));
            set("attn_factor", float(attention_factor));
        }
        // Described by tensors, or nothing to describe.
        RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {}
    }
}

/// The tensors to store in a GGUF file.
pub(crate) fn to_tensors(c: &ModelConfig, a: Architecture) -> Vec<(&'static str, Vec<f32>)> {
    if let RopeScaling::LongRope { short, long, .. } = &c.rope_scaling {
        return vec![(SHORT, short.clone()), (LONG, long.clone())];
    }
    let mut plain = c.clone();
    plain.rope_scaling = RopeScaling::None;
    match factors(&c.rope_scaling, &plain.rope_frequencies()) {
        Some(factors) if rules(a).longrope_tensors => vec![(SHORT, factors.clone()), (LONG, factors)],
        Some(factors) => vec![(FACTORS, factors)],
        None => Vec::new(),
    }
}

/// The factors to store in a GGUF file: the divisor of each frequency.
fn factors(scaling: &RopeScaling, plain: &[f32]) -> Option<Vec<f32>> {
    match scaling {
        RopeScaling::Factors(factors) => Some(factors.clone()),
        &RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context } => {
            let context = original_context as f64;
            let of = |frequency: &f32| {
                let wave = std::f64::consts::TAU / f64::from(*frequency);
                let smooth = (context / wave - low) / (high - low);
                match wave {
                    w if w < context / high => 1.0,
                    w if w > context / low => factor,
                    _ => 1.0 / ((1.0 - smooth) / factor + smooth),
                }
            };
            Some(plain.iter().map(|f| to_f32(of(f))).collect())
        }
        RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. } => {
            None
        }
    }
}

fn positive(key: &str, factor: f64) -> Result<f64, LoadError> {
    match factor.is_finite() && factor > 0.0 {
        true => Ok(factor),
        false => Err(unsupported(key, factor, "it must be a positive number")),
    }
}

/// Whether two scalings turn by the same angles, up to the rounding of a factor to 32 bits.
pub(crate) fn same(a: &[f32], b: &[f32]) -> bool {
    let close = |x: f32, y: f32| (x - y).abs() <= x.abs() * 4.0 * f32::EPSILON;
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| close(*x, *y))
}
