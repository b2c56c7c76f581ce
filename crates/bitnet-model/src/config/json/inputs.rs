//! Forms of inputs as JSON, in a `config.json` and in a training run; see `docs/formats/bitnet_v2.md`.

use serde_json::{Map, Value, json};

use super::super::architecture::Presence;
use super::super::{ActivationBits, InputForm, InputForms, Projection};
use super::fields::{JsonError, unsupported};
use crate::ModelError;

/// The key of a `config.json`.
const KEY: &str = "input_forms";
const BLOCK: &str = "hadamard_block";
const BITS: &str = "activation_bits";

impl InputForms {
    /// The key of the forms in a `config.json`.
    pub const JSON_KEY: &str = KEY;

    /// An object with one entry for each projection that every layer has.
    ///
    /// ```
    /// use bitnet_model::InputForms;
    /// let json = InputForms::default().to_json();
    /// assert_eq!(json["o_proj"]["activation_bits"], 8);
    /// assert_eq!(InputForms::from_json(&json).unwrap(), InputForms::default());
    /// ```
    pub fn to_json(&self) -> Value {
        let one = |p: Projection| {
            let form = self.of(p);
            (p.name().to_owned(), json!({BLOCK: form.hadamard.unwrap_or(0), BITS: form.bits.number()}))
        };
        Value::Object(Self::NAMED.into_iter().map(one).collect())
    }

    /// The forms of an object as [`InputForms::to_json`] writes it.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a projection or a number that is missing or unknown, and the errors of
    /// [`InputForms::together`].
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        let bad = |value: String, must| Err(ModelError::Config { field: KEY, value, must });
        let Some(map) = json.as_object() else {
            return bad(json.to_string(), "an object with an entry for each projection");
        };
        let mut entries = Vec::new();
        for (name, value) in map {
            let Some(p) = Projection::ALL.into_iter().find(|p| p.name() == name) else {
                return bad(format!("for {name:?}"), "for projections of a layer; none has this name");
            };
            let number = |part: &str| value.get(part).and_then(Value::as_u64);
            let Some(block) = number(BLOCK).and_then(|n| usize::try_from(n).ok()) else {
                return bad(
                    format!("{value} for {name}"),
                    "with a hadamard_block that is an unsigned integer, 0 for none",
                );
            };
            let Some(bits) = number(BITS).and_then(ActivationBits::from_number) else {
                return bad(format!("{value} for {name}"), "with activation_bits of 16, 8 or 4");
            };
            entries.push((p, InputForm { hadamard: Some(block).filter(|b| *b > 0), bits }));
        }
        if let Some(p) = Self::NAMED.into_iter().find(|p| !entries.iter().any(|(q, _)| q == p)) {
            return bad(format!("without {}", p.name()), "complete: an entry for each projection");
        }
        Self::together(&entries)
    }
}

/// The forms in a `config.json` of a family that never, sometimes or always has them.
pub(super) fn read(map: &Map<String, Value>, presence: Presence) -> Result<InputForms, JsonError> {
    let value = map.get(KEY).filter(|v| !v.is_null());
    match (value, presence) {
        (None, Presence::Never | Presence::ByFile) => Ok(InputForms::default()),
        (None, Presence::Always) => {
            Err(JsonError::Missing { key: KEY.to_owned(), needed_for: "how activations become codes" })
        }
        (Some(v), Presence::ByFile | Presence::Always) => Ok(InputForms::from_json(v)?),
        (Some(_), Presence::Never) => {
            let reason = "a model_type of bitnet-v2 or bit-ttt has these; the file contradicts itself";
            Err(unsupported(KEY, "present", reason))
        }
    }
}
