//! Attributes and items of values, as Jinja's sandbox looks them up.

use std::rc::Rc;

use super::fail::{R, fail};
use super::number::Number;
use super::text::to_str;
use super::value::{Items, Kind, Range, Str, Value};

const STR: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const DICT: &[&str] = &["copy", "get", "items", "keys", "values"];
/// Methods that would change a dictionary or a list, which the sandbox forbids.
const DICT_UNSAFE: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];
const LIST: &[&str] = &["copy", "count", "index"];
const LIST_UNSAFE: &[&str] = &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const TUPLE: &[&str] = &["count", "index"];
const INT: &[&str] = &["bit_length", "bit_count", "is_integer", "conjugate"];
const FLOAT: &[&str] = &["is_integer", "conjugate"];
const CYCLER: &[&str] = &["next", "reset"];
const LOOP: &[&str] = &["cycle", "changed"];

fn method(value: &Value, name: &str, known: &[&'static str]) -> R<Option<Value>> {
    match known.iter().find(|known| **known == name) {
        Some(known) => Value::method(value, known).map(Some),
        None => Ok(None),
    }
}

fn unsafe_method(value: &Value, name: &str, known: &[&'static str]) -> R<Option<Value>> {
    if !known.contains(&name) {
        return Ok(None);
    }
    Value::missing(if matches!(value, Value::Dict(_)) { "safe dict object" } else { "safe list object" }, name)
        .map(Some)
}

/// The name of a value that lacks an attribute, in Jinja's messages.
fn described(value: &Value) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "bool object",
        Value::Int(_) => "int object",
        Value::Float(_) => "float object",
        Value::Str(_) => "str object",
        Value::Dict(_) => "dict object",
        Value::Seq(seq) if seq.kind == Kind::List => "list object",
        Value::Seq(seq) if seq.kind == Kind::Tuple => "tuple object",
        Value::Namespace(_) => "jinja2.utils.Namespace object",
        other => other.type_name(),
    }
}

/// Looks up an attribute as Python's `getattr` does.
fn own(value: &Value, name: &str) -> R<Option<Value>> {
    if name.starts_with('_') {
        return Ok(None);
    }
    Ok(match value {
        Value::Str(_) => method(value, name, STR)?,
        Value::Dict(_) => match method(value, name, DICT)? {
            Some(found) => Some(found),
            None => unsafe_method(value, name, DICT_UNSAFE)?,
        },
        Value::Seq(seq) => match seq.kind {
            Kind::List => match method(value, name, LIST)? {
                Some(found) => Some(found),
                None => unsafe_method(value, name, LIST_UNSAFE)?,
            },
            Kind::Tuple => match (name, seq.items.as_slice()) {
                // The pairs that `groupby` gives.
                ("grouper", [key, Value::Seq(_)]) => Some(key.clone()),
                ("list", [_, list @ Value::Seq(_)]) => Some(list.clone()),
                _ => method(value, name, TUPLE)?,
            },
            _ => None,
        },
        Value::Bool(_) | Value::Int(_) => match (name, Number::of(value)) {
            ("real" | "numerator", Some(number)) => Some(number.into()),
            ("imag", _) => Some(Value::Int(0)),
            ("denominator", _) => Some(Value::Int(1)),
            _ => method(value, name, INT)?,
        },
        Value::Float(f) => match name {
            "real" => Some(Value::Float(*f)),
            "imag" => Some(Value::Float(0.0)),
            _ => method(value, name, FLOAT)?,
        },
        Value::Range(range) => match name {
            "start" => Some(Value::Int(range.start)),
            "stop" => Some(Value::Int(range.stop)),
            "step" => Some(Value::Int(range.step)),
            _ => method(value, name, TUPLE)?,
        },
        Value::Namespace(namespace) => namespace.upgrade().and_then(|namespace| {
            let attrs = namespace.attrs.borrow();
            attrs.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.clone())
        }),
        Value::Cycler(cycler) if name == "current" => cycler.items.get(cycler.position.get()).cloned(),
        Value::Cycler(_) => method(value, name, CYCLER)?,
        Value::Macro(declared) if name == "name" && !declared.name.is_empty() => Some(Value::str(&declared.name)?),
        Value::Loop(state) => {
            let (index, count) = (state.index.get(), state.items.len());
            let int = |i: usize| Some(Value::Int(i as i128));
            match name {
                "index" => int(index + 1),
                "index0" => int(index),
                "revindex" => int(count - index),
                "revindex0" => int(count - index - 1),
                "first" => Some(Value::Bool(index == 0)),
                "last" => Some(Value::Bool(index + 1 == count)),
                "length" => int(count),
                "depth" => int(state.level + 1),
                "depth0" => int(state.level),
                "previtem" => index
                    .checked_sub(1)
                    .and_then(|at| state.items.get(at))
                    .cloned()
                    .or(Some(Value::missing("", "there is no previous item")?)),
                "nextitem" => {
                    state.items.get(index + 1).cloned().or(Some(Value::missing("", "there is no next item")?))
                }
                _ => method(value, name, LOOP)?,
            }
        }
        _ => None,
    })
}

/// `value.name`.
pub(super) fn attr(value: &Value, name: &str) -> R<Value> {
    super::meter::step()?;
    if value.is_undefined() {
        return Err(value.undefined_error());
    }
    if let Some(found) = own(value, name)? {
        return Ok(found);
    }
    if let Value::Dict(dict) = value
        && let Some(found) = dict.get_str(name)?
    {
        return Ok(found.clone());
    }
    Value::missing(described(value), name)
}

/// `value|attr(name)`: no item is looked up.
pub(super) fn attr_only(value: &Value, name: &str) -> R<Value> {
    if value.is_undefined() {
        return Err(value.undefined_error());
    }
    match own(value, name)? {
        Some(found) => Ok(found),
        None => Value::missing(described(value), name),
    }
}

/// An index of a sequence of this length; negative ones count from its end.
fn place(index: i128, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(length as i128)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

/// `value[key]`.
pub(super) fn item(value: &Value, key: &Value) -> R<Value> {
    super::meter::step()?;
    let at = match key {
        Value::Int(i) => Some(*i),
        Value::Bool(b) => Some(i128::from(*b)),
        _ => None,
    };
    let found = match (value, at) {
        (Value::Undefined(_), _) => return Err(value.undefined_error()),
        // A key that cannot be hashed is not there.
        (Value::Dict(dict), _) if !matches!(key, Value::Dict(_)) => dict.get(key).ok().flatten().cloned(),
        (Value::Seq(seq), Some(at)) if matches!(seq.kind, Kind::List | Kind::Tuple) => {
            place(at, seq.items.len()).and_then(|at| seq.items.get(at)).cloned()
        }
        (Value::Range(range), Some(at)) => {
            place(at, usize::try_from(range.len()).unwrap_or(0)).map(|at| Value::Int(range.get(at as i128)))
        }
        (Value::Str(text), Some(at)) => match place(at, text.count_chars()?) {
            None => None,
            Some(at) if text.ascii() => text.get(at..=at).map(Value::str).transpose()?,
            Some(at) => {
                super::meter::work(at)?;
                text.chars().nth(at).map(|c| Value::str(c.encode_utf8(&mut [0; 4]))).transpose()?
            }
        },
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    if let Value::Str(name) = key {
        if let Some(found) = own(value, name)? {
            return Ok(found);
        }
        return Value::missing(described(value), name);
    }
    let name = to_str(key)?;
    Value::missing(described(value), &name)
}

/// The first and the last position of a slice and its step, as `slice.indices` gives them.
fn bounds(parts: [Option<i128>; 3], length: usize) -> R<(i128, i128, i128)> {
    let length = length as i128;
    let step = parts[2].unwrap_or(1);
    if step == 0 {
        fail!("slice step cannot be zero");
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |index: i128| if index < 0 { (index.saturating_add(length)).max(low) } else { index.min(high) };
    let (start, stop) = if step > 0 { (low, high) } else { (high, low) };
    Ok((parts[0].map_or(start, clamp), parts[1].map_or(stop, clamp), step))
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, parts: [Option<Value>; 3]) -> R<Value> {
    let mut numbers = [None; 3];
    for (number, part) in numbers.iter_mut().zip(&parts) {
        *number = match part {
            None | Some(Value::None) => None,
            Some(Value::Int(i)) => Some(*i),
            Some(Value::Bool(b)) => Some(i128::from(*b)),
            Some(undefined @ Value::Undefined(_)) => return Err(undefined.undefined_error()),
            // `getitem` catches Python's TypeError.
            Some(_) => return Value::missing(described(value), "that slice"),
        };
    }
    let range = |length: usize| {
        let (start, stop, step) = bounds(numbers, length)?;
        // A step beyond any length changes nothing but could overflow.
        Ok(Range { start, stop, step: step.clamp(-(1 << 62), 1 << 62) })
    };
    match value {
        Value::Undefined(_) => Err(value.undefined_error()),
        Value::Str(text) => {
            let range = range(text.count_chars()?)?;
            slice_text(text, &range).map(Value::Str)
        }
        Value::Seq(seq) if matches!(seq.kind, Kind::List | Kind::Tuple) => {
            let range = range(seq.items.len())?;
            let mut items = Items::with_capacity(usize::try_from(range.len()).unwrap_or(0))?;
            for at in 0..range.len() {
                let at = usize::try_from(range.get(at)).unwrap_or(usize::MAX);
                if let Some(item) = seq.items.get(at) {
                    items.push(item.clone())?;
                }
            }
            items.done(seq.kind)
        }
        Value::Range(whole) => {
            let part = range(usize::try_from(whole.len()).unwrap_or(0))?;
            let (start, step) = (whole.get(part.start), whole.step * part.step);
            Ok(Value::Range(Rc::new(Range { start, stop: whole.get(part.stop), step })))
        }
        other => Value::missing(described(other), "slices"),
    }
}

fn slice_text(text: &Str, range: &Range) -> R<Str> {
    let count = usize::try_from(range.len()).unwrap_or(0);
    let start = usize::try_from(range.start).unwrap_or(0);
    super::meter::work(text.len())?;
    if range.step == 1 {
        if count == text.count_chars()? {
            return Ok(text.clone());
        }
        let byte = |at: usize| match text.ascii() {
            true => at.min(text.len()),
            false => text.char_indices().nth(at).map_or(text.len(), |(at, _)| at),
        };
        let from = byte(start);
        let tail = text.get(from..).unwrap_or_default();
        let end = if text.ascii() { count } else { tail.char_indices().nth(count).map_or(tail.len(), |(at, _)| at) };
        return Str::new(tail.get(..end.min(tail.len())).unwrap_or_default());
    }
    let mut out = super::value::Buf::default();
    if text.ascii() {
        for at in 0..range.len() {
            let at = usize::try_from(range.get(at)).unwrap_or(usize::MAX);
            out.push_str(text.get(at..=at).unwrap_or_default())?;
        }
    } else {
        let _held = super::meter::Held::new(text.len() * 4)?;
        let chars: Vec<char> = text.chars().collect();
        for at in 0..range.len() {
            let at = usize::try_from(range.get(at)).unwrap_or(usize::MAX);
            chars.get(at).map_or(Ok(()), |c| out.push(*c))?;
        }
    }
    out.done()
}
