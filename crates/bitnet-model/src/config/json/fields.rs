//! Typed access to the fields of a JSON object, and the errors of a field.

use serde_json::{Map, Value};

use crate::ModelError;

/// A problem in a `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// A missing field.
    #[error("{key} is missing; it is needed for {needed_for}")]
    Missing {
        /// The field.
        key: String,
        /// Its purpose.
        needed_for: &'static str,
    },
    /// A field of another type.
    #[error("{key} is {got}; expected {expected}")]
    Type {
        /// The field.
        key: String,
        /// The expected value.
        expected: &'static str,
        /// The value that was found, shortened.
        got: String,
    },
    /// A value that is not supported, or contradicts another one.
    #[error("{key} is {value}: {reason}")]
    Value {
        /// The field.
        key: String,
        /// Its value.
        value: String,
        /// The reason, and the way out.
        reason: String,
    },
    /// An invalid configuration.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// [`JsonError::Value`].
pub(super) fn unsupported(key: &str, value: impl std::fmt::Display, reason: &str) -> JsonError {
    JsonError::Value { key: key.to_owned(), value: value.to_string(), reason: reason.to_owned() }
}

/// [`JsonError::Type`], with the first 60 characters of the value.
pub fn wrong(key: &str, expected: &'static str, got: &Value) -> JsonError {
    let mut got = got.to_string();
    if let Some((at, _)) = got.char_indices().nth(60) {
        got.truncate(at);
        got.push_str("...");
    }
    JsonError::Type { key: key.to_owned(), expected, got }
}

/// A JSON object whose fields are read by type; `null` counts as missing.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, JsonError> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => convert(v).map(Some).ok_or_else(|| wrong(key, expected, v)),
        }
    }

    /// A field that is present and not `null`.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A string.
    ///
    /// # Errors
    /// [`JsonError::Type`]; likewise for the methods that follow.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, JsonError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`JsonError::Type`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>, JsonError> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    /// A number.
    ///
    /// # Errors
    /// [`JsonError::Type`].
    pub fn f64(&self, key: &str) -> Result<Option<f64>, JsonError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// An object.
    ///
    /// # Errors
    /// [`JsonError::Type`].
    pub fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, JsonError> {
        self.typed(key, "an object", Value::as_object)
    }

    /// A size.
    ///
    /// # Errors
    /// [`JsonError::Type`]; [`JsonError::Value`] for one that this machine cannot address.
    pub fn get_size(&self, key: &str) -> Result<Option<usize>, JsonError> {
        let number = self.typed(key, "an unsigned integer", Value::as_u64)?;
        let fits =
            |n| usize::try_from(n).map_err(|_| unsupported(key, n, "it does not fit this machine's address space"));
        number.map(fits).transpose()
    }

    /// A required size.
    ///
    /// # Errors
    /// The errors of [`Fields::get_size`]; [`JsonError::Missing`].
    pub fn size(&self, key: &str) -> Result<usize, JsonError> {
        let missing = || JsonError::Missing { key: key.to_owned(), needed_for: "the shape of the model" };
        self.get_size(key)?.ok_or_else(missing)
    }

    /// The strings of an array; other elements are ignored.
    pub fn strings(&self, key: &str) -> Vec<&'a str> {
        self.0.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// One token id, a list of them, or none.
    ///
    /// # Errors
    /// [`JsonError::Type`]; [`JsonError::Value`] for an id of more than 32 bits.
    pub fn tokens(&self, key: &str) -> Result<Vec<u32>, JsonError> {
        let one = |v: &Value| {
            let id = v.as_u64().ok_or_else(|| wrong(key, "a token id or a list of them", v))?;
            u32::try_from(id).map_err(|_| unsupported(key, id, "token ids have 32 bits"))
        };
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(one).collect(),
            Some(v) => Ok(vec![one(v)?]),
        }
    }
}

/// A number for JSON, with its shortest decimal form, not as the f64 nearest to it.
pub fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
