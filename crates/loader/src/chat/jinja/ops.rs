//! Operators between values.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{BinOp, CmpOp};
use super::fail::{Fail, R, fail};
use super::meter;
use super::number::{self, Number};
use super::value::{Buf, Items, Kind, Range, Value};

/// A binary operator.
pub(super) fn binary(op: BinOp, a: &Value, b: &Value) -> R<Value> {
    meter::step()?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return number::arith(op, a, b).map(Value::from);
    }
    match (op, a, b) {
        (BinOp::Mod, Value::Str(template), args) => super::percent::percent(template, args),
        (_, Value::Undefined(_), _) => Err(a.undefined_error()),
        (_, _, Value::Undefined(_)) => Err(b.undefined_error()),
        (BinOp::Add, Value::Str(a), Value::Str(b)) => {
            let mut out = Buf::default();
            out.push_str(a)?;
            out.push_str(b)?;
            out.done().map(Value::Str)
        }
        (BinOp::Add, Value::Seq(x), Value::Seq(y))
            if x.kind == y.kind && matches!(x.kind, Kind::List | Kind::Tuple) =>
        {
            let mut items = Items::with_capacity(x.items.len() + y.items.len())?;
            items.extend(&x.items)?;
            items.extend(&y.items)?;
            items.done(x.kind)
        }
        (BinOp::Mul, Value::Str(_) | Value::Seq(_), count) if Number::of(count).is_some() => repeat(a, count),
        (BinOp::Mul, count, Value::Str(_) | Value::Seq(_)) if Number::of(count).is_some() => repeat(b, count),
        _ => {
            let symbol = match op {
                BinOp::Add => "+",
                BinOp::Sub => "-",
                BinOp::Mul => "*",
                BinOp::Div => "/",
                BinOp::FloorDiv => "//",
                BinOp::Mod => "%",
                BinOp::Pow => "** or pow()",
            };
            fail!("unsupported operand type(s) for {symbol}: '{}' and '{}'", a.type_name(), b.type_name())
        }
    }
}

fn repeat(value: &Value, count: &Value) -> R<Value> {
    let count = match count {
        Value::Int(count) => (*count).max(0),
        Value::Bool(b) => i128::from(*b),
        _ => fail!("can't multiply sequence by non-int of type '{}'", count.type_name()),
    };
    let count = usize::try_from(count).map_err(|_| Fail::Memory)?;
    match value {
        Value::Str(text) => {
            let mut out = Buf::default();
            out.repeat(text, count)?;
            out.done().map(Value::Str)
        }
        Value::Seq(seq) if matches!(seq.kind, Kind::List | Kind::Tuple) => {
            let total = seq.items.len().checked_mul(count).ok_or(Fail::Memory)?;
            let mut items = Items::with_capacity(total)?;
            for _ in 0..if total == 0 { 0 } else { count } {
                items.extend(&seq.items)?;
            }
            items.done(seq.kind)
        }
        other => fail!("unsupported operand type(s) for *: '{}' and 'int'", other.type_name()),
    }
}

/// `-value`, `+value`.
pub(super) fn negative(value: &Value, minus: bool) -> R<Value> {
    match (Number::of(value), minus) {
        (None, _) if value.is_undefined() => Err(value.undefined_error()),
        (None, _) => fail!("bad operand type for unary {}: '{}'", if minus { '-' } else { '+' }, value.type_name()),
        (Some(Number::Int(i)), true) => i.checked_neg().map(Value::Int).ok_or_else(number::too_large),
        (Some(Number::Float(f)), true) => Ok(Value::Float(-f)),
        (Some(number), false) => Ok(number.into()),
    }
}

/// `a == b`. Depth is bounded: values have no cycles, and a namespace is only equal to itself.
pub(super) fn equal(a: &Value, b: &Value) -> R<bool> {
    meter::step()?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return Ok(a.compare(b) == Some(Ordering::Equal));
    }
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            meter::work(if a.len() == b.len() { a.len() } else { 0 })?;
            **a == **b
        }
        (Value::Seq(a), Value::Seq(b)) => {
            if Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            if a.kind != b.kind || a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                match b.get(key)? {
                    Some(other) if equal(value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            let (n, m) = (a.len(), b.len());
            n == m && (n == 0 || (a.start == b.start && (n == 1 || a.step == b.step)))
        }
        _ => same(a, b),
    })
}

/// `a is b`, for values that have an identity; small values are the same when they are equal.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Str(a), Value::Str(b)) => a.same(b) || **a == **b,
        (Value::Seq(a), Value::Seq(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Range(a), Value::Range(b)) => Rc::ptr_eq(a, b),
        (Value::Gen(a), Value::Gen(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => a.ptr_eq(b),
        (Value::Method(a), Value::Method(b)) => Rc::ptr_eq(a, b),
        (Value::Global(a), Value::Global(b)) => a == b,
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}

/// The order of two values; `None` if one is NaN. `symbol` is for the message.
pub(super) fn order(a: &Value, b: &Value, symbol: &str) -> R<Option<Ordering>> {
    meter::step()?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return Ok(a.compare(b));
    }
    match (a, b) {
        (Value::Undefined(_), _) => Err(a.undefined_error()),
        (_, Value::Undefined(_)) => Err(b.undefined_error()),
        (Value::Str(a), Value::Str(b)) => {
            meter::work(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Value::Seq(x), Value::Seq(y)) if x.kind == y.kind && matches!(x.kind, Kind::List | Kind::Tuple) => {
            for (a, b) in x.items.iter().zip(&y.items) {
                if !equal(a, b)? {
                    return order(a, b, symbol);
                }
            }
            Ok(Some(x.items.len().cmp(&y.items.len())))
        }
        _ => fail!("'{symbol}' not supported between instances of '{}' and '{}'", a.type_name(), b.type_name()),
    }
}

/// A comparison.
pub(super) fn compare(op: CmpOp, a: &Value, b: &Value) -> R<bool> {
    Ok(match op {
        CmpOp::Eq => equal(a, b)?,
        CmpOp::Ne => !equal(a, b)?,
        CmpOp::In => contains(b, a)?,
        CmpOp::NotIn => !contains(b, a)?,
        CmpOp::Lt => order(a, b, "<")? == Some(Ordering::Less),
        CmpOp::Gt => order(a, b, ">")? == Some(Ordering::Greater),
        CmpOp::Le => order(a, b, "<=")?.is_some_and(Ordering::is_le),
        CmpOp::Ge => order(a, b, ">=")?.is_some_and(Ordering::is_ge),
    })
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value) -> R<bool> {
    match (container, item) {
        (Value::Str(text), Value::Str(part)) => {
            meter::work(text.len() + part.len())?;
            Ok(text.contains(&**part))
        }
        (Value::Str(_), other) => {
            fail!("'in <string>' requires string as left operand, not {}", other.type_name())
        }
        (Value::Dict(dict), key) => Ok(dict.get(key)?.is_some()),
        (Value::Seq(seq), item) => any_equal(&seq.items, item),
        (Value::Range(range), item) => Ok(match Number::of(item) {
            Some(Number::Int(i)) => position(range, i).is_some(),
            Some(Number::Float(f)) => f.fract() == 0.0 && f.abs() < 1e38 && position(range, f as i128).is_some(),
            None => false,
        }),
        (Value::Undefined(_), _) => Ok(false),
        (Value::Gen(generator), item) => {
            while let Some(next) = { generator.items.borrow_mut().pop_front() } {
                if equal(&next, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (other, _) => fail!("argument of type '{}' is not iterable", other.type_name()),
    }
}

fn any_equal(items: &[Value], item: &Value) -> R<bool> {
    for known in items {
        if equal(known, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The position of an integer in a range.
pub(super) fn position(range: &Range, item: i128) -> Option<i128> {
    let index = item.checked_sub(range.start)?.checked_div(range.step)?;
    ((0..range.len()).contains(&index) && range.get(index) == item).then_some(index)
}

/// The items of anything that can be iterated.
pub(super) fn iterate(value: &Value) -> R<Items> {
    let mut items = Items::default();
    match value {
        Value::Undefined(_) => {}
        Value::Str(text) => {
            for c in text.chars() {
                items.push(Value::str(c.encode_utf8(&mut [0; 4]))?)?;
            }
        }
        Value::Seq(seq) => {
            items = Items::with_capacity(seq.items.len())?;
            items.extend(&seq.items)?;
        }
        Value::Dict(dict) => {
            items = Items::with_capacity(dict.len())?;
            dict.entries().iter().try_for_each(|(key, _)| items.push(key.clone()))?;
        }
        Value::Range(range) => {
            for index in 0..range.len() {
                items.push(Value::Int(range.get(index)))?;
            }
        }
        Value::Gen(generator) => {
            while let Some(item) = { generator.items.borrow_mut().pop_front() } {
                items.push(item)?;
            }
        }
        other => fail!("'{}' object is not iterable", other.type_name()),
    }
    Ok(items)
}

/// Sorts values by their keys, as Python's `sorted` does: stable, also in reverse.
pub(super) fn sort(pairs: &mut Vec<(Value, Value)>, reverse: bool) -> R<()> {
    meter::steps(pairs.len())?;
    // A merge sort from the bottom: comparisons can fail, which the standard library's do not.
    let mut width = 1;
    while width < pairs.len() {
        let mut merged = Vec::with_capacity(pairs.len());
        for run in pairs.chunks(2 * width) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let (Some(a), Some(b)) = (left.first(), right.first()) {
                let takes_right = match reverse {
                    false => order(&b.0, &a.0, "<")? == Some(Ordering::Less),
                    true => order(&a.0, &b.0, "<")? == Some(Ordering::Less),
                };
                let (from, item) = if takes_right { (&mut right, b) } else { (&mut left, a) };
                merged.push(item.clone());
                *from = from.get(1..).unwrap_or_default();
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        *pairs = merged;
        width *= 2;
    }
    Ok(())
}
