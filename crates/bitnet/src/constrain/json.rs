//! JSON: schemas of types, and values of them out of a model.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Constraint, ConstraintError};
use crate::{Error, FinishReason, GenerateOptions, Generation, Message, Session};

/// Says how JSON is spaced, unless the schema says it itself. White space of any length, the engine's default, lets a model
/// that has nothing to say go on with it for ever.
pub(super) fn with_spaces(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        let options = object.entry("x-guidance").or_insert_with(|| json!({}));
        if let Some(options) = options.as_object_mut() {
            let spaced = [
                ("whitespace_flexible", json!(false)),
                ("item_separator", json!(", ")),
                ("key_separator", json!(": ")),
            ];
            for (key, value) in spaced {
                options.entry(key).or_insert(value);
            }
        }
    }
    schema
}

/// The schema of what `T` can be read from, without fields that the type would ignore.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = with_spaces(generator.into_root_schema_for::<T>().to_value());
    if !is_flattened(&schema) {
        close(&mut schema);
    }
    // The variants of an enum exclude each other for the type that reads them, whether or not that can be proven of the schema.
    if let Some(options) = schema.get_mut("x-guidance").and_then(Value::as_object_mut) {
        options.insert("coerce_one_of".into(), true.into());
    }
    schema
}

/// Whether an object has fields in several parts of the schema, as with `#[serde(flatten)]`: then no part may exclude the others'.
fn is_flattened(schema: &Value) -> bool {
    match schema {
        Value::Array(all) => all.iter().any(is_flattened),
        Value::Object(map) => {
            let parts = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|part| map.contains_key(*part));
            (parts && map.contains_key("properties")) || map.values().any(is_flattened)
        }
        _ => false,
    }
}

/// Lets no object have other fields than those that its schema names: a model that has nothing to say would go on with them.
fn close(schema: &mut Value) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(close),
        Value::Object(map) => {
            map.values_mut().for_each(close);
            // Where it is an object, this is a schema and not a field of this name.
            if map.get("properties").is_some_and(Value::is_object) {
                map.entry("additionalProperties").or_insert(false.into());
            }
        }
        _ => {}
    }
}

impl Session {
    /// Continues the session with `prompt` and generates a value: JSON that `T` can be read from, whatever the model would
    /// rather say. `Vec`s and `String`s without bounds end where the model ends them, so `max_tokens` should leave room; a value that
    /// does not fit is an error, never half a value.
    ///
    /// ```
    /// # #[cfg(feature = "tiny-model")] {
    /// use bitnet::{GenerateOptions, Model, schemars::JsonSchema};
    ///
    /// #[derive(serde::Deserialize, JsonSchema)]
    /// struct Animal {
    ///     kind: Kind,
    ///     #[schemars(range(min = 0, max = 200))]
    ///     age: u8,
    /// }
    /// #[derive(serde::Deserialize, JsonSchema)]
    /// enum Kind { Cat, Dog }
    ///
    /// let model = Model::tiny()?;
    /// let animal: Animal = model.session().generate_json("Ben has a cat. ", GenerateOptions::default().max_tokens(60))?;
    /// assert!(matches!(animal.kind, Kind::Cat | Kind::Dog) && animal.age <= 200);
    /// # }
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::generate`]; [`ConstraintError::Unfinished`] where the value was cut off, [`ConstraintError::Grammar`] for a type
    /// whose schema is not supported, [`ConstraintError::Type`] where `T` refuses what its schema allows.
    pub fn generate_json<T: DeserializeOwned + JsonSchema>(
        &mut self,
        prompt: &str,
        options: GenerateOptions,
    ) -> Result<T, Error> {
        value(self.generate(prompt, options.constraint(Constraint::json_of::<T>()))?)
    }

    /// As [`Session::generate_json`], as the reply to a conversation.
    ///
    /// # Errors
    /// As [`Session::chat`] and [`Session::generate_json`].
    pub fn chat_json<T: DeserializeOwned + JsonSchema>(
        &mut self,
        messages: &[Message],
        options: GenerateOptions,
    ) -> Result<T, Error> {
        value(self.chat(messages, options.constraint(Constraint::json_of::<T>()))?)
    }
}

fn value<T: DeserializeOwned>(generation: Generation<'_>) -> Result<T, Error> {
    let output = generation.finish()?;
    let text = output.text.ok_or(Error::NoTokenizer)?;
    if output.finish_reason == FinishReason::Cancelled {
        return Err(ConstraintError::Unfinished { reason: output.finish_reason, text }.into());
    }
    serde_json::from_str(&text).map_err(|source| ConstraintError::Type { text, source }.into())
}
