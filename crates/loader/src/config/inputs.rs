//! How a file says what happens to activations before a product: BitNet v2's Hadamard transforms and int4.
//!
//! Files that say so have a type of their own, so that programs which know nothing of it refuse them instead of computing
//! nonsense; and a file of another type that says so contradicts itself. See `docs/formats/bitnet_v2.md`.

use bitnet_model::{ActivationBits, InputForm, InputForms, Projection};
use serde_json::{Map, Value};

use super::{to_usize, unsupported};
use crate::LoadError;
use crate::gguf::Metadata;

/// `model_type` in a `config.json`.
pub(crate) const HF_TYPE: &str = "bitnet-v2";
/// The class in a `config.json`.
pub(crate) const HF_CLASS: &str = "BitNetV2ForCausalLM";
/// `general.architecture` in a GGUF file.
pub(crate) const GGUF_ARCHITECTURE: &str = "bitnet-v2";

/// The object in a `config.json` with one entry for each projection.
pub(crate) const HF_KEY: &str = InputForms::JSON_KEY;
const BLOCK: &str = "hadamard_block";
const BITS: &str = "activation_bits";
const NEEDED: &str = "how activations become codes";

/// What a file says of one projection at the place `key`.
fn entry(projection: Projection, key: &str, block: u64, bits: u64) -> Result<(Projection, InputForm), LoadError> {
    let hadamard = match to_usize(key, block)? {
        0 => None,
        block => Some(block),
    };
    let reason = "activations have 8 or 4 bits";
    let bits = ActivationBits::from_number(bits).ok_or_else(|| unsupported(&format!("{key}.{BITS}"), bits, reason))?;
    Ok((projection, InputForm { hadamard, bits }))
}

/// Whether the type of a file asks for forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A file of this type has none.
    Never,
    /// It may have them.
    Maybe,
    /// It is of this type because it has them.
    Always,
}

impl Asked {
    pub(crate) fn by(must: bool, may: bool) -> Self {
        match (must, may) {
            (true, _) => Self::Always,
            (false, true) => Self::Maybe,
            (false, false) => Self::Never,
        }
    }
}

/// The forms in a `config.json`.
pub(crate) fn from_hf(map: &Map<String, Value>, asked: Asked) -> Result<InputForms, LoadError> {
    let value = map.get(HF_KEY).filter(|v| !v.is_null());
    let value = match (value, asked) {
        (None, Asked::Never | Asked::Maybe) => return Ok(InputForms::default()),
        (None, Asked::Always) => return Err(LoadError::MissingKey { key: HF_KEY.into(), needed_for: NEEDED }),
        (Some(v), Asked::Maybe | Asked::Always) => v,
        (Some(_), Asked::Never) => {
            let reason = format!("a model_type of {HF_TYPE} or bit-ttt has these; the file contradicts itself");
            return Err(unsupported(HF_KEY, "present", &reason));
        }
    };
    Ok(InputForms::from_json(value)?)
}

/// The forms in the metadata of a GGUF file.
pub(crate) fn from_gguf(metadata: &Metadata, architecture: &str, asked: Asked) -> Result<InputForms, LoadError> {
    let ours = |k: &str| k.ends_with(&format!(".{BLOCK}")) || k.ends_with(&format!(".{BITS}"));
    match (metadata.iter().find(|(k, _)| ours(k)), asked) {
        (None, Asked::Never | Asked::Maybe) => return Ok(InputForms::default()),
        (Some((key, value)), Asked::Never) => {
            let reason =
                format!("an architecture of {GGUF_ARCHITECTURE} or bit-ttt has these; the file contradicts itself");
            return Err(unsupported(key, value, &reason));
        }
        _ => {}
    }
    let mut entries = Vec::new();
    for p in InputForms::NAMED {
        let key = gguf_key(architecture, p);
        let number = |part: &str| {
            let key = format!("{key}.{part}");
            metadata.u64(&key)?.ok_or(LoadError::MissingKey { key, needed_for: NEEDED })
        };
        entries.push(entry(p, &key, number(BLOCK)?, number(BITS)?)?);
    }
    Ok(InputForms::together(&entries)?)
}

/// Writes the keys that [`from_gguf`] reads.
pub(crate) fn to_gguf(m: &mut Metadata, forms: &InputForms, architecture: &str) {
    for p in InputForms::NAMED {
        let (key, form) = (gguf_key(architecture, p), forms.of(p));
        // Blocks divide widths, which are checked to be far below 2^32.
        m.set(&format!("{key}.{BLOCK}"), u32::try_from(form.hadamard.unwrap_or(0)).unwrap_or(u32::MAX));
        m.set(&format!("{key}.{BITS}"), form.bits.number());
    }
}

fn gguf_key(architecture: &str, p: Projection) -> String {
    format!("{architecture}.{}", p.name())
}
