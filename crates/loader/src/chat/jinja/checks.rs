//! Tests: `value is name(...)`.

use super::args::{Passed, required};
use super::ast::{BinOp, CmpOp};
use super::case;
use super::fail::{R, fail};
use super::ops::{binary, compare, equal, same};
use super::text::to_str;
use super::value::{Kind, Value};

/// The tests, for the test `test`.
const NAMES: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Whether a value passes a test.
pub(super) fn call(name: &str, value: &Value, passed: Passed) -> R<bool> {
    super::meter::step()?;
    let operator = match name {
        "eq" | "==" | "equalto" => Some(CmpOp::Eq),
        "ne" | "!=" => Some(CmpOp::Ne),
        "lt" | "<" | "lessthan" => Some(CmpOp::Lt),
        "le" | "<=" => Some(CmpOp::Le),
        "gt" | ">" | "greaterthan" => Some(CmpOp::Gt),
        "ge" | ">=" => Some(CmpOp::Ge),
        "in" => Some(CmpOp::In),
        _ => None,
    };
    if let Some(operator) = operator {
        let [other] = passed.bind(name, ["other"])?;
        return compare(operator, value, &required(other, name, "other")?);
    }
    if matches!(name, "divisibleby" | "sameas") {
        let [other] = passed.bind(name, ["num"])?;
        let other = required(other, name, "num")?;
        return match name {
            "sameas" => Ok(same(value, &other)),
            _ => equal(&binary(BinOp::Mod, value, &other)?, &Value::Int(0)),
        };
    }
    let [] = passed.bind(name, [])?;
    let parity = |rest: i128| equal(&binary(BinOp::Mod, value, &Value::Int(2))?, &Value::Int(rest));
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::Seq(_)
                | Value::Dict(_)
                | Value::Range(_)
                | Value::Gen(_)
                | Value::Loop(_)
        ),
        "sequence" => match value {
            Value::Undefined(_) | Value::Str(_) | Value::Dict(_) | Value::Range(_) => true,
            Value::Seq(seq) => matches!(seq.kind, Kind::List | Kind::Tuple),
            _ => false,
        },
        "callable" => matches!(
            value,
            // Jinja's Undefined has the method, though it only fails.
            Value::Undefined(_)
                | Value::Method(_)
                | Value::Global(_)
                | Value::Macro(_)
                | Value::Loop(_)
                | Value::Joiner(_)
        ),
        "escaped" => false,
        "lower" => case::is(&to_str(value)?, "islower")?,
        "upper" => case::is(&to_str(value)?, "isupper")?,
        "odd" => parity(1)?,
        "even" => parity(0)?,
        "filter" => super::filters::NAMES.contains(&&*to_str(value)?),
        "test" => NAMES.contains(&&*to_str(value)?),
        _ => fail!("No test named '{}'.", super::lex::cut(name)),
    })
}
