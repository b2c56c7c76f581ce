//! The fields of a request, taken one by one: errors name their field, and unknown fields are rejected.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::ApiError;

/// A JSON object whose fields are taken.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// Prefix of a name: `messages[0].`, for example.
    prefix: String,
}

/// Type of a value, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl Fields {
    /// The fields of the body of a request.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        if !super::weight::fits(body) {
            let message = "the body holds more lists, objects and values than its length justifies";
            return Err(ApiError::invalid(message).status(StatusCode::PAYLOAD_TOO_LARGE).code("request_too_large"));
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            let message = match error.to_string() {
                deep if deep.starts_with("recursion limit") => "the body is JSON in more than 127 levels".to_owned(),
                other => format!("the body is not valid JSON: {other}"),
            };
            ApiError::invalid(message).code("invalid_json")
        })?;
        match value {
            Value::Object(map) => Ok(Self { map, prefix: String::new() }),
            other => Err(ApiError::invalid(format!("the body must be a JSON object, not {}", kind(&other)))),
        }
    }

    /// The fields of an object called `name`.
    pub(crate) fn of_value(value: Value, name: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, prefix: format!("{name}.") }),
            other => Err(ApiError::field(name, format!("it must be an object, not {}", kind(&other)))),
        }
    }

    /// The full name of a field.
    pub(crate) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// An error about a field.
    pub(crate) fn wrong(&self, field: &str, message: impl std::fmt::Display) -> ApiError {
        ApiError::field(self.name(field), message)
    }

    /// The text of a field, which stays.
    pub(crate) fn peek_text(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        let text = self.text(field)?;
        if let Some(text) = &text {
            self.fill(field, text.clone().into());
        }
        Ok(text)
    }

    /// Sets a field that is missing.
    pub(crate) fn fill(&mut self, field: &str, value: Value) {
        self.map.entry(field).or_insert(value);
    }

    /// Takes a field; null counts as missing.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|v| !v.is_null())
    }

    /// Takes a field and converts its value with `read`; `must` describes valid values.
    fn typed<T>(
        &mut self,
        field: &str,
        must: impl std::fmt::Display,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let got = match &value {
            Value::Number(n) => n.to_string(),
            other => kind(other).to_owned(),
        };
        read(&value).map(Some).ok_or_else(|| self.wrong(field, format!("it must be {must}, not {got}")))
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let must = format!("a number from {} to {}", range.start(), range.end());
        self.typed(field, must, |v| v.as_f64().filter(|v| range.contains(v)))
    }

    /// Takes an integer.
    pub(crate) fn integer(&mut self, field: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ApiError> {
        let must = format!("an integer from {} to {}", range.start(), range.end());
        self.typed(field, must, |v| usize::try_from(v.as_u64()?).ok().filter(|v| range.contains(v)))
    }

    /// Takes a seed: any integer.
    pub(crate) fn seed(&mut self, field: &str) -> Result<Option<u64>, ApiError> {
        self.typed(field, "an integer", |v| v.as_u64().or_else(|| v.as_i64().map(i64::cast_unsigned)))
    }

    /// Takes any number.
    pub(crate) fn any_number(&mut self, field: &str) -> Result<Option<f64>, ApiError> {
        self.typed(field, "a number", Value::as_f64)
    }

    /// Takes an integer of any sign, possibly written with a fraction of 0.
    pub(crate) fn whole(&mut self, field: &str) -> Result<Option<i64>, ApiError> {
        // Integers beyond 2^53 are not exact as floats.
        let exact = |v: &f64| v.fract() == 0.0 && v.abs() < 9e15;
        self.typed(field, "an integer", |v| v.as_i64().or_else(|| v.as_f64().filter(exact).map(|v| v as i64)))
    }

    /// Takes a boolean; false if it is missing.
    pub(crate) fn boolean(&mut self, field: &str) -> Result<bool, ApiError> {
        self.boolean_or(field, false)
    }

    /// Takes a boolean; `missing` if it is missing.
    pub(crate) fn boolean_or(&mut self, field: &str, missing: bool) -> Result<bool, ApiError> {
        Ok(self.typed(field, "true or false", Value::as_bool)?.unwrap_or(missing))
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        self.typed(field, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// Takes fields that change nothing here.
    pub(crate) fn ignore(&mut self, fields: &[&str]) {
        for field in fields {
            self.map.remove(*field);
        }
    }

    /// Takes fields that are not supported. They may have the values that ask for nothing.
    pub(crate) fn refuse(&mut self, fields: &[(&str, &[Value])]) -> Result<(), ApiError> {
        for (field, nothing) in fields {
            let empty = |v: &Value| match v {
                Value::Array(all) => all.is_empty(),
                Value::Object(all) => all.is_empty(),
                _ => false,
            };
            if let Some(value) = self.take(field)
                && !nothing.contains(&value)
                && !empty(&value)
            {
                return Err(ApiError::unsupported(self.name(field), "this server does not support it; leave it out"));
            }
        }
        Ok(())
    }

    /// Leaves the fields that were not taken, as an interface does whose clients know each other's fields.
    pub(crate) fn leave(self) {
        for field in self.map.keys() {
            tracing::debug!(field = %self.name(field), "an unknown field is ignored");
        }
    }

    /// Refuses the fields that were not taken. Null counts as missing: clients send back what they received, with every
    /// field that their version knows.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((field, _)) => Err(ApiError::unsupported(self.name(field), "this server does not know this field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::of_value(value, "a").unwrap()
    }

    #[test]
    fn fields_are_taken_or_refused_by_name() {
        let mut f = fields(json!({"t": 0.5, "n": 3, "b": true, "s": "x", "none": null, "seed": -1, "tools": []}));
        assert_eq!(f.number("t", 0.0..=1.0).unwrap(), Some(0.5));
        assert_eq!(f.integer("n", 1..=3).unwrap(), Some(3));
        assert!(f.boolean("b").unwrap() && !f.boolean("c").unwrap());
        assert_eq!(f.text("s").unwrap().as_deref(), Some("x"));
        assert_eq!(f.text("none").unwrap(), None);
        assert_eq!(f.seed("seed").unwrap(), Some(u64::MAX));
        f.refuse(&[("tools", &[]), ("absent", &[])]).unwrap();
        f.finish().unwrap();

        let mut f = fields(json!({"n": -3, "whole": 4.0, "big": 1e300, "part": 0.5, "t": -1e9, "yes": true}));
        assert_eq!(
            (f.whole("n").unwrap(), f.whole("whole").unwrap(), f.whole("none").unwrap()),
            (Some(-3), Some(4), None)
        );
        assert!(f.whole("big").is_err() && f.whole("part").is_err());
        assert_eq!(f.any_number("t").unwrap(), Some(-1e9));
        assert!(f.boolean_or("yes", false).unwrap() && f.boolean_or("none", true).unwrap());
        f.leave();

        let message = |e: ApiError| e.json()["error"]["message"].as_str().unwrap().to_owned();
        let mut f = fields(json!({"t": 3, "n": 2.5, "b": "yes", "s": 1, "tools": [1], "odd": 1}));
        assert_eq!(message(f.number("t", 0.0..=2.0).unwrap_err()), "a.t: it must be a number from 0 to 2, not 3");
        assert_eq!(message(f.integer("n", 1..=3).unwrap_err()), "a.n: it must be an integer from 1 to 3, not 2.5");
        assert_eq!(message(f.boolean("b").unwrap_err()), "a.b: it must be true or false, not a string");
        assert_eq!(message(f.text("s").unwrap_err()), "a.s: it must be a string, not 1");
        assert!(message(f.refuse(&[("tools", &[])]).unwrap_err()).starts_with("a.tools"));
        assert!(message(f.finish().unwrap_err()).starts_with("a.odd"));
    }
}
