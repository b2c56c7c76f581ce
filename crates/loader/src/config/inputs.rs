//! How a GGUF file describes the steps of activations before a product: BitNet v2's Hadamard transforms and int4.
//!
//! These files have their own type, so that programs which do not support it reject them instead of computing nonsense;
//! a file of another type with such keys contradicts itself. See `docs/formats/bitnet_v2.md`.

use bitnet_model::{ActivationBits, InputForm, InputForms, Presence, Projection};

use super::{to_usize, unsupported};
use crate::LoadError;
use crate::gguf::Metadata;

const BLOCK: &str = "hadamard_block";
const BITS: &str = "activation_bits";
const NEEDED: &str = "how activations become codes";

/// The statement of a file about one projection at the place `key`.
fn entry(projection: Projection, key: &str, block: u64, bits: u64) -> Result<(Projection, InputForm), LoadError> {
    let hadamard = match to_usize(key, block)? {
        0 => None,
        block => Some(block),
    };
    let reason = "activations have 16, 8 or 4 bits";
    let bits = ActivationBits::from_number(bits).ok_or_else(|| unsupported(&format!("{key}.{BITS}"), bits, reason))?;
    Ok((projection, InputForm { hadamard, bits }))
}

/// The forms in the metadata of a GGUF file.
pub(crate) fn from_gguf(metadata: &Metadata, architecture: &str, presence: Presence) -> Result<InputForms, LoadError> {
    let ours = |k: &str| k.ends_with(&format!(".{BLOCK}")) || k.ends_with(&format!(".{BITS}"));
    match (metadata.iter().find(|(k, _)| ours(k)), presence) {
        (None, Presence::Never | Presence::ByFile) => return Ok(InputForms::default()),
        (Some((key, value)), Presence::Never) => {
            let reason = "an architecture of bitnet-v2 or bit-ttt has these; the file contradicts itself";
            return Err(unsupported(key, value, reason));
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
