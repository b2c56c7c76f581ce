//! JSON as values.

use serde_json::Value as Json;

use super::MAX_DEPTH;
use super::dict::Dict;
use super::fail::{Fail, R};
use super::value::{Items, Value};

/// The value of a piece of JSON at nesting depth `depth`.
pub(super) fn from_json(json: &Json, depth: usize) -> R<Value> {
    if depth >= MAX_DEPTH {
        return Err(Fail::Deep { what: "lists and objects of the conversation", limit: MAX_DEPTH });
    }
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(f)) => Value::Float(f),
            (None, None) => Value::None,
        },
        Json::String(text) => Value::str(text)?,
        Json::Array(items) => {
            let mut list = Items::with_capacity(items.len())?;
            for item in items {
                list.push(from_json(item, depth + 1)?)?;
            }
            list.list()?
        }
        Json::Object(map) => {
            let mut dict = Dict::default();
            for (key, value) in map {
                dict.insert(Value::str(key)?, from_json(value, depth + 1)?)?;
            }
            dict.done()?
        }
    })
}

/// About how many bytes a piece of JSON has. Not recursive: the caller's stack may be small.
pub(super) fn size(json: &Json) -> usize {
    let (mut total, mut todo) = (0_usize, vec![json]);
    while let Some(json) = todo.pop() {
        total = total.saturating_add(8);
        match json {
            Json::String(text) => total = total.saturating_add(text.len()),
            Json::Array(items) => todo.extend(items),
            Json::Object(map) => {
                for (key, value) in map {
                    total = total.saturating_add(key.len());
                    todo.push(value);
                }
            }
            _ => {}
        }
    }
    total
}
