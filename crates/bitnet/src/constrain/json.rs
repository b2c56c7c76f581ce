//! JSON: schemas of types, and values of them out of a model.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::source::{Kind, Source};
use super::{Constraint, ConstraintError, write};
use crate::{Error, FinishReason, GenerateOptions, Generation, Message, Session};

/// A schema as a source. It sets the spacing of JSON, unless the schema does: with white space of any length, the
/// engine's default, a model may write white space forever. If variants of a type are `exclusive` for their reader, the
/// schema need not prove it.
pub(super) fn source(schema: &Value, exclusive: bool) -> String {
    let Some(object) = schema.as_object() else { return write::json(schema) };
    let mut options = object.get("x-guidance").cloned().unwrap_or_else(|| json!({}));
    if let Some(options) = options.as_object_mut() {
        let defaults =
            [("whitespace_flexible", json!(false)), ("item_separator", json!(", ")), ("key_separator", json!(": "))];
        for (key, value) in defaults {
            options.entry(key).or_insert(value);
        }
        if exclusive {
            options.insert("coerce_one_of".into(), true.into());
        }
    }
    write::object(object.iter().filter(|(key, _)| *key != "x-guidance").chain([(&"x-guidance".to_owned(), &options)]))
}

/// Types whose schemas are kept.
const TYPES: usize = 256;

/// The identity of a type: the functions that make its schema and its name, and its name for the compiler. Types need
/// not be `'static`, so `TypeId` is not available; two types whose functions are the same code have the same schema.
type TypeKey = (usize, usize, &'static str);

/// The source for values of `T`; made once, because making a schema takes longer than finding its compiled form.
pub(super) fn source_of<T: JsonSchema>() -> Source {
    static KEPT: LazyLock<Mutex<HashMap<TypeKey, Source>>> = LazyLock::new(Mutex::default);
    let key = (T::json_schema as *const () as usize, T::schema_name as *const () as usize, std::any::type_name::<T>());
    if let Some(source) = KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return source.clone();
    }
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let schema = generator.into_root_schema_for::<T>().to_value();
    let made = Source::new(Kind::Json, source(&schema, true));
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= TYPES {
        kept.clear();
    }
    kept.insert(key, made.clone());
    made
}

impl Session {
    /// Continues the session with `prompt` and generates a value: JSON from which `T` can be read, whatever the model
    /// prefers. `Vec`s and `String`s without bounds end where the model ends them, so `max_tokens` should leave room; a
    /// value that does not fit is an error, never half a value.
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
    /// The errors of [`Session::generate`]; [`ConstraintError::Unfinished`] if the value was cut off,
    /// [`ConstraintError::Grammar`] for a type whose schema is not supported, [`ConstraintError::Type`] if `T` rejects
    /// what its schema allows.
    pub fn generate_json<T: DeserializeOwned + JsonSchema>(
        &mut self,
        prompt: &str,
        options: GenerateOptions,
    ) -> Result<T, Error> {
        value(self.generate(prompt, options.constraint(Constraint::json_of::<T>()))?)
    }

    /// Like [`Session::generate_json`], as the reply to a conversation.
    ///
    /// # Errors
    /// The errors of [`Session::chat`] and [`Session::generate_json`].
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
    serde_json::from_str(&text).map_err(|source| ConstraintError::Type { text, source: source.into() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_type_is_made_once() {
        fn first() -> Source {
            #[derive(JsonSchema)]
            #[allow(dead_code, reason = "only its schema matters")]
            struct Same {
                a: u8,
            }
            source_of::<Same>()
        }
        fn second() -> Source {
            #[derive(JsonSchema)]
            #[allow(dead_code, reason = "only its schema matters")]
            struct Same {
                b: String,
            }
            source_of::<Same>()
        }
        assert!(std::sync::Arc::ptr_eq(&first().text, &first().text));
        // Types of one name are not one type.
        assert!(first() != second() && second().text.contains("\"b\""));
        assert!(source_of::<Vec<u8>>() != source_of::<Vec<i8>>());
        assert!(source_of::<Option<&str>>() == source_of::<Option<&str>>());
    }
}
