//! Arguments of calls, and how functions take them.

use std::sync::Arc;

use super::fail::{R, fail};
use super::text::to_str;
use super::value::{Str, Value};

/// Arguments of a call.
#[derive(Debug, Default, Clone)]
pub(super) struct Passed {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Passed {
    /// Distributes the arguments over parameters of these names.
    pub(super) fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> R<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            fail!("{function}() takes at most {N} argument(s) ({} given)", self.positional.len());
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let slot = names.iter().position(|known| *known == &*name).and_then(|at| bound.get_mut(at));
            match slot {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => fail!("{function}() got multiple values for argument '{name}'"),
                None => fail!("{function}() got an unexpected keyword argument '{name}'"),
            }
        }
        Ok(bound)
    }

    /// Distributes arguments that have no names.
    pub(super) fn only<const N: usize>(self, function: &str) -> R<[Option<Value>; N]> {
        if !self.named.is_empty() {
            fail!("{function}() takes no keyword arguments");
        }
        self.bind(function, [""; N])
    }
}

/// An argument that must be given.
pub(super) fn required(value: Option<Value>, function: &str, name: &str) -> R<Value> {
    match value {
        Some(value) => Ok(value),
        None => fail!("{function}() missing 1 required argument: '{name}'"),
    }
}

/// An integer, accepted where Python requires one.
pub(super) fn index(value: &Value) -> R<i128> {
    match value {
        Value::Int(i) => Ok(*i),
        Value::Bool(b) => Ok(i128::from(*b)),
        Value::Undefined(_) => Err(value.undefined_error()),
        other => fail!("'{}' object cannot be interpreted as an integer", other.type_name()),
    }
}

/// An integer argument; absent or `None` is the default.
pub(super) fn int_or(value: Option<&Value>, default: i128) -> R<i128> {
    match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => index(value),
    }
}

/// A count, for widths: negative ones become 0, huge ones are rejected by the memory account.
pub(super) fn width(count: i128) -> usize {
    usize::try_from(count.max(0)).unwrap_or(usize::MAX / 4).min(usize::MAX / 4)
}

/// A text argument.
pub(super) fn text(value: &Value, what: &str) -> R<Str> {
    match value {
        Value::Str(text) => Ok(text.clone()),
        Value::Undefined(_) => Err(value.undefined_error()),
        other => fail!("{what} must be str, not {}", other.type_name()),
    }
}

/// `str()` of an argument, or a default.
pub(super) fn text_or(value: Option<&Value>, default: &str) -> R<Str> {
    value.map_or_else(|| Str::new(default), to_str)
}

/// The truth of an argument; absent is false.
pub(super) fn flag(value: Option<&Value>) -> bool {
    value.is_some_and(Value::truth)
}
