//! Stretched rotary embeddings: what the keys of both containers say of them, computed or refused by name.
//!
//! A scaling with a factor of 1 scales nothing, whatever its type. Of the others `linear` and `llama3` are computed, and lists of
//! factors, one for each frequency.

use bitnet_model::RopeScaling;
use serde_json::{Value as Json, json};

use super::from_hf::{Fields, wrong};
use super::{decimal, to_f32, to_usize, unsupported};
use crate::LoadError;
use crate::gguf::{Metadata, Value};

/// The tensor with one factor for each frequency.
pub(crate) const FACTORS: &str = "rope_freqs.weight";

const REASON: &str =
    "this scaling of rotary embeddings is not supported; known are linear and llama3, and any with a factor of 1";

/// What the keys of a GGUF file say; `factors` are the values of its tensor of that name.
pub(crate) fn from_gguf(m: &Metadata, architecture: &str, factors: Option<Vec<f32>>) -> Result<RopeScaling, LoadError> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let kind_key = key("scaling.type");
    let kind = m.str(&kind_key)?.map(|k| k.trim().to_ascii_lowercase()).filter(|k| !k.is_empty());
    // The older key is read where the newer one is absent or 0, as llama.cpp does.
    let mut factor = None;
    for name in ["scaling.factor", "scale_linear"] {
        let key = key(name);
        let value = match m.get(&key).and_then(Value::to_u64) {
            Some(whole) => Some(whole as f64),
            None => m.f64(&key)?,
        };
        let value = value.filter(|f| *f != 0.0 && factor.is_none());
        factor = value.map(|f| positive(&key, f).map(|f| (key, f))).transpose()?.or(factor);
    }
    let real = factor.filter(|f| f.1 != 1.0);
    let scaling = match (kind.as_deref(), real) {
        (_, None) | (Some("none"), _) => RopeScaling::None,
        // Without a type it is linear.
        (None | Some("linear"), Some((_, factor))) => RopeScaling::Linear { factor },
        (Some(other), Some(_)) => return Err(unsupported(&kind_key, other, REASON)),
    };
    match factors.filter(|f| f.iter().any(|f| *f != 1.0)) {
        None => Ok(scaling),
        Some(factors) if scaling == RopeScaling::None => Ok(RopeScaling::Factors(factors)),
        Some(_) => {
            Err(unsupported(&kind_key, "linear", &format!("{FACTORS} scales as well; one of both is supported")))
        }
    }
}

/// The keys of a GGUF file for a scaling; lists of factors are a tensor.
pub(crate) fn to_gguf(m: &mut Metadata, scaling: &RopeScaling, architecture: &str) {
    if let RopeScaling::Linear { factor } = *scaling {
        m.set(&format!("{architecture}.rope.scaling.type"), "linear");
        // 32 bits are what other programs expect; a factor that does not fit keeps its 64 rather than change.
        let narrow = to_f32(factor);
        let value = if f64::from(narrow) == factor { Value::F32(narrow) } else { Value::F64(factor) };
        m.set(&format!("{architecture}.rope.scaling.factor"), value);
    }
}

/// The factors to store in a GGUF file: what each frequency is divided by.
pub(crate) fn factors(scaling: &RopeScaling, plain: &[f32]) -> Option<Vec<f32>> {
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
        _ => None,
    }
}

/// Base and scaling in a `config.json`, in the old form (`rope_theta` beside `rope_scaling`) and in the new one
/// (`rope_parameters`).
pub(crate) fn from_hf(
    f: &Fields<'_>,
    context: usize,
    head_dim: usize,
) -> Result<(Option<f64>, RopeScaling), LoadError> {
    let mut theta = f.f64("rope_theta")?;
    let mut found: Option<(&str, RopeScaling)> = None;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(value) = f.0.get(key).filter(|v| !v.is_null()) else { continue };
        let map = value.as_object().ok_or_else(|| wrong(key, "an object", value))?;
        // Newest configurations may have one object for each type of layer; others than full attention are refused elsewhere.
        let map = match map.get("full_attention") {
            Some(Json::Object(inner)) => inner,
            _ => map,
        };
        let r = Fields(map);
        theta = r.f64("rope_theta")?.or(theta);
        if let Some(part) = r.f64("partial_rotary_factor")?
            && part != 1.0
        {
            return Err(unsupported("partial_rotary_factor", part, "only rotation of whole heads is supported"));
        }
        let scaling = scaling(key, &r, context, head_dim)?;
        match &found {
            Some((other, before))
                if *before != scaling && *before != RopeScaling::None && scaling != RopeScaling::None =>
            {
                let reason = format!("{other:?} says something else; the file contradicts itself");
                return Err(unsupported(key, value, &reason));
            }
            Some((_, before)) if *before != RopeScaling::None => {}
            _ => found = Some((key, scaling)),
        }
    }
    Ok((theta, found.map(|f| f.1).unwrap_or_default()))
}

fn scaling(key: &str, r: &Fields<'_>, context: usize, head_dim: usize) -> Result<RopeScaling, LoadError> {
    let field = |name: &str| format!("{key}.{name}");
    let kind = |name: &str| -> Result<Option<String>, LoadError> {
        let kind = r.str(name)?.map(|k| k.trim().to_ascii_lowercase());
        Ok(kind.filter(|k| !matches!(k.as_str(), "" | "none" | "default" | "null")))
    };
    let (new, old) = (kind("rope_type")?, kind("type")?);
    if let (Some(new), Some(old)) = (&new, &old)
        && new != old
        && (new.as_str(), old.as_str()) != ("longrope", "su")
    {
        return Err(unsupported(key, format!("{new} and {old}"), "the two names of its type disagree"));
    }
    let kind = new.or(old);
    let number = |name: &str| r.f64(name)?.map(|v| positive(&field(name), v)).transpose();
    let need = |name: &str| {
        number(name)?.ok_or_else(|| LoadError::MissingKey { key: field(name), needed_for: "the rotary embedding" })
    };
    let factor = number("factor")?;
    // What scales beside the frequencies, or in another way.
    for name in ["attention_factor", "alpha", "mscale_all_dim", "mscale"] {
        let matters = name == "attention_factor" || name == "alpha" || factor.is_some_and(|f| f != 1.0);
        if let Some(value) = r.f64(name)?.filter(|v| *v != 1.0 && matters) {
            return Err(unsupported(&field(name), value, "it scales attention, which is not supported"));
        }
    }
    if let Some(sections) = r.0.get("mrope_section").filter(|v| !v.is_null()) {
        return Err(unsupported(
            &field("mrope_section"),
            sections,
            "positions of several dimensions are not supported",
        ));
    }
    let unit = |name: &str| -> Result<Option<Vec<f32>>, LoadError> { list(r, name, &field(name), head_dim) };
    match kind.as_deref() {
        Some("longrope" | "su") => {
            let (short, long) = (unit("short_factor")?, unit("long_factor")?);
            if short != long {
                return Err(unsupported(key, "longrope", "short and long factors that differ are not supported"));
            }
            let original = match r.get_size("original_max_position_embeddings")? {
                Some(n) if n > 0 => Some(context as f64 / n as f64),
                _ => None,
            };
            if r.f64("attention_factor")?.is_none() && original.or(factor).is_some_and(|f| f > 1.0) {
                return Err(unsupported(key, "longrope", "it scales attention, which is not supported"));
            }
            Ok(short.filter(|f| f.iter().any(|f| *f != 1.0)).map_or(RopeScaling::None, RopeScaling::Factors))
        }
        None => match factor {
            None | Some(1.0) => Ok(RopeScaling::None),
            Some(factor) => {
                Err(unsupported(key, format!("a factor of {factor}"), "it has no type that says how to scale"))
            }
        },
        Some("linear") => match factor {
            None | Some(1.0) => Ok(RopeScaling::None),
            Some(factor) => Ok(RopeScaling::Linear { factor }),
        },
        Some("llama3") => match need("factor")? {
            1.0 => Ok(RopeScaling::None),
            factor => Ok(RopeScaling::Llama3 {
                factor,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_context: to_usize(
                    &field("original_max_position_embeddings"),
                    r.get_size("original_max_position_embeddings")?.unwrap_or(context) as u64,
                )?,
            }),
        },
        Some(other) => match factor {
            Some(1.0) => Ok(RopeScaling::None),
            _ => Err(unsupported(key, other, REASON)),
        },
    }
}

/// A list of one positive number for each frequency.
fn list(r: &Fields<'_>, name: &str, key: &str, head_dim: usize) -> Result<Option<Vec<f32>>, LoadError> {
    let Some(value) = r.0.get(name).filter(|v| !v.is_null()) else { return Ok(None) };
    let numbers: Option<Vec<f32>> =
        value.as_array().and_then(|a| a.iter().map(|v| v.as_f64().map(to_f32)).collect::<Option<_>>());
    match numbers {
        Some(all) if all.len() == head_dim / 2 => Ok(Some(all)),
        Some(all) => Err(unsupported(
            key,
            format!("{} numbers", all.len()),
            "there must be one for every two elements of a head",
        )),
        None => Err(wrong(key, "a list of numbers", value)),
    }
}

fn positive(key: &str, factor: f64) -> Result<f64, LoadError> {
    match factor.is_finite() && factor > 0.0 {
        true => Ok(factor),
        false => Err(unsupported(key, factor, "it must be a positive number")),
    }
}

/// The object `rope_scaling` of a `config.json`; `None` where nothing is scaled.
pub(crate) fn to_hf(scaling: &RopeScaling, context: usize) -> Option<Json> {
    let mut map = match scaling {
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_context,
        }),
        RopeScaling::Factors(factors) => {
            let factors: Vec<f64> = factors.iter().map(|f| decimal(*f)).collect();
            json!({
                "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": factors,
                "long_factor": factors, "original_max_position_embeddings": context,
            })
        }
        _ => return None,
    };
    // The name that older programs look for.
    let kind = map.get("rope_type").cloned();
    if let (Some(kind), Some(map)) = (kind, map.as_object_mut()) {
        map.insert("type".to_owned(), kind);
    }
    Some(map)
}

/// Whether two scalings turn by the same angles, up to the rounding of a factor to 32 bits.
pub(crate) fn same(a: &[f32], b: &[f32]) -> bool {
    let close = |x: f32, y: f32| (x - y).abs() <= x.abs() * 4.0 * f32::EPSILON;
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| close(*x, *y))
}
