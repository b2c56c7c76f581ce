//! Base and scaling of the rotary embedding in a `config.json`: computed, or rejected by name.
//!
//! A scaling with a factor of 1 scales nothing, whatever its type.

use serde_json::{Map, Value, json};

use super::super::{ModelConfig, RopeScaling};
use super::fields::{Fields, JsonError, decimal, unsupported, wrong};

/// Error for a scaling that is not supported.
pub const UNKNOWN_SCALING: &str = "this scaling of rotary embeddings is not supported; supported: linear, llama3, yarn and \
    longrope, and any with a factor of 1";
/// Dynamic scaling changes the frequencies as a text grows, so that keys in the cache would have to be rotated again.
pub const DYNAMIC: &str = "it changes with the length of the text, which is not supported; set the scaling to yarn or linear with a \
                           fixed factor, or remove it and stay within the original context";
const NEEDED: &str = "the rotary embedding";
const YARN: &str = "yarn, the scaling of the rotary embedding";

/// The base that HunYuan's `alpha` stands for: `base * alpha^(d / (d - 2))`, for heads of `d` elements. Rounded to the
/// f32 that GGUF files store, so that both containers give the same bits.
pub(super) fn alpha_base(base: f64, alpha: f64, head_dim: usize) -> f64 {
    let d = head_dim as f64;
    f64::from((base * alpha.powf(d / (d - 2.0))) as f32)
}

/// Keys that files of a family may have in addition to base and scaling.
#[derive(Clone, Copy)]
pub(super) struct Reads {
    /// Type `dynamic` with an `alpha`: a larger base, the same for texts of every length.
    pub(super) alpha: bool,
    /// The share of a head that is rotated; and positions of several dimensions, all of which are equal in a text.
    pub(super) part: bool,
}

/// Contents of a file.
pub(super) struct Read {
    pub(super) theta: Option<f64>,
    pub(super) scaling: RopeScaling,
    /// `alpha` of HunYuan.
    pub(super) alpha: Option<f64>,
    /// Elements of a head that are rotated, if not all.
    pub(super) turned: Option<usize>,
}

/// Base and scaling, in the old form (`rope_theta` and `rope_scaling`) and in the new one (`rope_parameters`).
pub(super) fn read(f: &Fields<'_>, context: usize, head_dim: usize, reads: Reads) -> Result<Read, JsonError> {
    let mut theta = f.f64("rope_theta")?;
    let mut alpha = None;
    let mut part = if reads.part { f.f64(PART)? } else { None };
    let mut found: Option<(&str, RopeScaling)> = None;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(map) = f.object(key)? else { continue };
        // The newest configurations may have one object for each type of layer; types other than full attention are
        // rejected elsewhere.
        let map = match map.get("full_attention") {
            Some(Value::Object(inner)) => inner,
            _ => map,
        };
        let r = Fields(map);
        theta = r.f64("rope_theta")?.or(theta);
        match r.f64(PART)? {
            Some(share) if reads.part => part = Some(share),
            Some(share) if share != 1.0 => {
                return Err(unsupported(PART, share, "only rotation of whole heads is supported"));
            }
            _ => {}
        }
        let section = Section { key, r, context, head_dim, partial: reads.part };
        if reads.alpha
            && let Some(given) = section.alpha()?
        {
            if alpha.is_some_and(|other| other != given) {
                return Err(unsupported(
                    &section.field("alpha"),
                    given,
                    "the file gives another one; it contradicts itself",
                ));
            }
            alpha = Some(given);
            continue;
        }
        let scaling = section.scaling()?;
        match &found {
            Some((other, before))
                if *before != scaling && *before != RopeScaling::None && scaling != RopeScaling::None =>
            {
                let reason = format!("{other:?} says something else; the file contradicts itself");
                return Err(unsupported(key, Value::Object(map.clone()), &reason));
            }
            Some((_, before)) if *before != RopeScaling::None => {}
            _ => found = Some((key, scaling)),
        }
    }
    let width = part.map(|share| turned(share, head_dim)).transpose()?;
    let scaling = found.map(|f| f.1).unwrap_or_default();
    Ok(Read { theta, scaling, alpha, turned: width.filter(|w| *w != head_dim) })
}

/// The share of a head that the rotary embedding rotates.
const PART: &str = "partial_rotary_factor";

/// That share in elements, rounded down as in the class; a share that came from a division of elements is not rounded.
fn turned(share: f64, head_dim: usize) -> Result<usize, JsonError> {
    match share > 0.0 && share <= 1.0 {
        true => Ok((head_dim as f64 * share + 1e-6) as usize),
        false => Err(unsupported(PART, share, "it must be above 0 and at most 1")),
    }
}

/// Adds that share if it is not a whole head.
pub(super) fn put_part(map: &mut Map<String, Value>, c: &ModelConfig) {
    if let Some(width) = c.rotary_dim {
        map.insert(PART.to_owned(), json!(width as f64 / c.head_dim as f64));
    }
}

/// One of the two objects.
struct Section<'a> {
    key: &'a str,
    r: Fields<'a>,
    context: usize,
    head_dim: usize,
    /// Whether positions may have several dimensions, all of which are equal in a text.
    partial: bool,
}

impl Section<'_> {
    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.key)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, JsonError> {
        match self.r.f64(name)? {
            Some(v) if !(v.is_finite() && v > 0.0) => {
                Err(unsupported(&self.field(name), v, "it must be a positive number"))
            }
            v => Ok(v),
        }
    }

    fn need<T>(&self, name: &str, value: Option<T>) -> Result<T, JsonError> {
        value.ok_or_else(|| JsonError::Missing { key: self.field(name), needed_for: NEEDED })
    }

    /// The type, in lower case; `None` if nothing is scaled.
    fn kind(&self) -> Result<Option<String>, JsonError> {
        let kind = |name: &str| -> Result<Option<String>, JsonError> {
            let kind = self.r.str(name)?.map(|k| k.trim().to_ascii_lowercase());
            Ok(kind.filter(|k| !matches!(k.as_str(), "" | "none" | "default" | "null")))
        };
        let (new, old) = (kind("rope_type")?, kind("type")?);
        if let (Some(new), Some(old)) = (&new, &old)
            && new != old
            && (new.as_str(), old.as_str()) != ("longrope", "su")
        {
            return Err(unsupported(self.key, format!("{new} and {old}"), "the two names of its type disagree"));
        }
        Ok(new.or(old))
    }

    /// `alpha` of type `dynamic`, which its class uses instead of any factor; `None` if the object has another type.
    fn alpha(&self) -> Result<Option<f64>, JsonError> {
        let alpha = self.number("alpha")?;
        Ok(alpha.filter(|_| self.kind().is_ok_and(|kind| kind.as_deref() == Some("dynamic")) && self.head_dim > 2))
    }

    fn scaling(&self) -> Result<RopeScaling, JsonError> {
        let kind = self.kind()?;
        let factor = self.number("factor")?;
        let computes_attention = matches!(kind.as_deref(), Some("yarn" | "longrope" | "su"));
        // Fields that scale more than the frequencies, or in another way.
        for name in ["attention_factor", "alpha", "mscale_all_dim", "mscale"] {
            let scaled = factor.is_some_and(|f| f != 1.0);
            let matters = match name {
                "alpha" => true,
                "attention_factor" => !computes_attention || !scaled && kind.as_deref() == Some("yarn"),
                _ => scaled && kind.as_deref() != Some("yarn"),
            };
            if let Some(value) = self.r.f64(name)?.filter(|v| *v != 1.0 && matters) {
                return Err(unsupported(&self.field(name), value, "it scales attention, which is not supported here"));
            }
        }
        if let Some(sections) = self.r.get("mrope_section").filter(|_| !self.partial) {
            let reason = "positions of several dimensions are not supported";
            return Err(unsupported(&self.field("mrope_section"), sections, reason));
        }
        match (kind.as_deref(), factor) {
            (Some("longrope" | "su"), factor) => self.longrope(factor),
            (_, Some(1.0)) => Ok(RopeScaling::None),
            (None | Some("linear"), None) => Ok(RopeScaling::None),
            (None, Some(factor)) => {
                Err(unsupported(self.key, format!("a factor of {factor}"), "it has no type that says how to scale"))
            }
            (Some("linear"), Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some("llama3"), factor) => Ok(RopeScaling::Llama3 {
                factor: self.need("factor", factor)?,
                low_freq_factor: self.need("low_freq_factor", self.number("low_freq_factor")?)?,
                high_freq_factor: self.need("high_freq_factor", self.number("high_freq_factor")?)?,
                original_context: self.r.get_size("original_max_position_embeddings")?.unwrap_or(self.context),
            }),
            (Some("yarn"), factor) => self.yarn(factor),
            (Some("dynamic"), _) => Err(unsupported(self.key, "dynamic", DYNAMIC)),
            (Some(other), _) => Err(unsupported(self.key, other, UNKNOWN_SCALING)),
        }
    }

    fn yarn(&self, factor: Option<f64>) -> Result<RopeScaling, JsonError> {
        let missing = |name: &str| JsonError::Missing { key: self.field(name), needed_for: YARN };
        let factor = factor.ok_or_else(|| missing("factor"))?;
        // Programs disagree whether a missing length means the context or the original one, so it is not guessed.
        let name = "original_max_position_embeddings";
        let original_context = self.r.get_size(name)?.ok_or_else(|| missing(name))?;
        if self.r.bool("truncate")? == Some(false) {
            return Err(unsupported(
                &self.field("truncate"),
                false,
                "bounds of YaRN that are not whole are not supported",
            ));
        }
        // The paper's factor for attention, and DeepSeek's quotient of two.
        let of = |scale: f64| RopeScaling::yarn_attention(factor, scale);
        let attention_factor =
            match (self.number("attention_factor")?, self.r.f64("mscale")?, self.r.f64("mscale_all_dim")?) {
                (Some(given), _, _) => given,
                (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => of(m) / of(all),
                (None, Some(m), None) if m != 0.0 && m != 1.0 => {
                    return Err(unsupported(
                        &self.field("mscale"),
                        m,
                        "without mscale_all_dim it is read differently by programs",
                    ));
                }
                _ => of(1.0),
            };
        Ok(RopeScaling::Yarn {
            factor,
            original_context,
            attention_factor,
            beta_fast: self.number("beta_fast")?.unwrap_or(RopeScaling::YARN_BETAS[0]),
            beta_slow: self.number("beta_slow")?.unwrap_or(RopeScaling::YARN_BETAS[1]),
        })
    }

    fn longrope(&self, factor: Option<f64>) -> Result<RopeScaling, JsonError> {
        let (short, long) = (self.list("short_factor")?, self.list("long_factor")?);
        let (short, long) = match (short, long) {
            (None, None) => match factor {
                None | Some(1.0) => return Ok(RopeScaling::None),
                Some(_) => return Err(JsonError::Missing { key: self.field("short_factor"), needed_for: NEEDED }),
            },
            (short, long) => (self.need("short_factor", short)?, self.need("long_factor", long)?),
        };
        let original = self.r.get_size("original_max_position_embeddings")?.filter(|n| *n > 0);
        let stretched = original.map(|n| self.context as f64 / n as f64).or(factor).unwrap_or(1.0);
        let original_context = original.unwrap_or(self.context);
        let attention_factor = match self.number("attention_factor")? {
            Some(given) => given,
            None => RopeScaling::longrope_attention(stretched, original_context),
        };
        Ok(RopeScaling::longrope(short, long, original_context, attention_factor))
    }

    /// A list of one number for each frequency.
    fn list(&self, name: &str) -> Result<Option<Vec<f32>>, JsonError> {
        let Some(value) = self.r.get(name) else { return Ok(None) };
        let numbers: Option<Vec<f32>> =
            value.as_array().and_then(|a| a.iter().map(|v| v.as_f64().map(|v| v as f32)).collect::<Option<_>>());
        match numbers {
            Some(all) if all.len() == self.head_dim / 2 => Ok(Some(all)),
            Some(all) => {
                let reason = "there must be one for every two elements of a head";
                Err(unsupported(&self.field(name), format!("{} numbers", all.len()), reason))
            }
            None => Err(wrong(&self.field(name), "a list of numbers", value)),
        }
    }
}

/// The object `rope_scaling` for a model; `None` if nothing is scaled.
pub(super) fn to_json(c: &ModelConfig) -> Option<Map<String, Value>> {
    let list = |factors: &[f32]| factors.iter().map(|f| decimal(*f)).collect::<Vec<f64>>();
    let value = match &c.rope_scaling {
        RopeScaling::None => return None,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_context,
        }),
        RopeScaling::Factors(factors) => json!({
            "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": list(factors),
            "long_factor": list(factors), "original_max_position_embeddings": c.max_position_embeddings,
        }),
        RopeScaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => json!({
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original_context,
            "attention_factor": attention_factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
        }),
        RopeScaling::LongRope { short, long, original_context, attention_factor } => json!({
            "rope_type": "longrope", "attention_factor": attention_factor, "short_factor": list(short),
            "long_factor": list(long), "original_max_position_embeddings": original_context,
        }),
    };
    let Value::Object(mut map) = value else { return None };
    // The name that older programs read.
    if let Some(kind) = map.get("rope_type").cloned() {
        map.insert("type".to_owned(), kind);
    }
    Some(map)
}
