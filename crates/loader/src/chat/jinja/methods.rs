//! Methods of values other than texts.

use std::rc::Rc;

use super::args::{Passed, int_or, required};
use super::fail::{R, fail};
use super::filters_seq::view;
use super::number::Number;
use super::ops::{equal, position};
use super::value::{Kind, Method, Value};

/// Calls a bound method.
pub(super) fn call(method: &Rc<Method>, passed: Passed) -> R<Value> {
    let name = method.name;
    match &method.this {
        Value::Str(text) => super::strings::call(text, name, passed),
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = passed.only(name)?;
                let found = dict.get(&required(key, name, "key")?)?.cloned();
                Ok(found.or(default).unwrap_or(Value::None))
            }
            "copy" => {
                let [] = passed.only(name)?;
                dict.copy()?.done()
            }
            _ => {
                let [] = passed.only(name)?;
                let kind = match name {
                    "keys" => Kind::Keys,
                    "values" => Kind::Values,
                    _ => Kind::Pairs,
                };
                view(dict.entries(), kind)
            }
        },
        Value::Seq(seq) => match name {
            "count" => {
                let [item] = passed.only(name)?;
                let item = required(item, name, "value")?;
                let mut count = 0;
                for known in &seq.items {
                    count += i128::from(equal(known, &item)?);
                }
                Ok(Value::Int(count))
            }
            "index" => {
                let [item, start, stop] = passed.only(name)?;
                let item = required(item, name, "value")?;
                let length = seq.items.len() as i128;
                let clamp = |at: i128| if at < 0 { at.saturating_add(length).max(0) } else { at };
                let (start, stop) = (clamp(int_or(start.as_ref(), 0)?), clamp(int_or(stop.as_ref(), length)?));
                for (at, known) in (0_i128..).zip(&seq.items) {
                    if at >= start && at < stop && equal(known, &item)? {
                        return Ok(Value::Int(at));
                    }
                }
                fail!("{} is not in list", &*super::format::repr(&item)?)
            }
            _ => {
                let [] = passed.only(name)?;
                Ok(method.this.clone())
            }
        },
        Value::Range(range) => {
            let [item] = passed.only(name)?;
            let at = match Number::of(&required(item, name, "value")?) {
                Some(Number::Int(i)) => position(range, i),
                _ => None,
            };
            match (name, at) {
                ("count", at) => Ok(Value::Int(i128::from(at.is_some()))),
                (_, Some(at)) => Ok(Value::Int(at)),
                (_, None) => fail!("the value is not in range"),
            }
        }
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => {
            let [] = passed.only(name)?;
            Ok(match (name, Number::of(&method.this)) {
                ("bit_length", Some(Number::Int(i))) => Value::Int(i128::from(128 - i.unsigned_abs().leading_zeros())),
                ("bit_count", Some(Number::Int(i))) => Value::Int(i128::from(i.unsigned_abs().count_ones())),
                ("is_integer", Some(Number::Float(f))) => Value::Bool(f.fract() == 0.0),
                ("is_integer", _) => Value::Bool(true),
                (_, Some(number)) => number.into(),
                (_, None) => Value::None,
            })
        }
        Value::Cycler(cycler) => {
            let [] = passed.only(name)?;
            let at = cycler.position.get();
            if name == "reset" {
                cycler.position.set(0);
                return Ok(Value::None);
            }
            cycler.position.set((at + 1) % cycler.items.len().max(1));
            Ok(cycler.items.get(at).cloned().unwrap_or(Value::None))
        }
        Value::Loop(state) if name == "cycle" => {
            if !passed.named.is_empty() || passed.positional.is_empty() {
                fail!("no items for cycling given");
            }
            let at = state.index.get() % passed.positional.len();
            Ok(passed.positional.get(at).cloned().unwrap_or(Value::None))
        }
        Value::Loop(state) => {
            if !passed.named.is_empty() {
                fail!("changed() takes no keyword arguments");
            }
            let last = state.changed.take();
            let mut changed = last.as_ref().is_none_or(|last| last.len() != passed.positional.len());
            for (a, b) in last.iter().flatten().zip(&passed.positional) {
                changed = changed || !equal(a, b)?;
            }
            state.changed.replace(Some(if changed { passed.positional } else { last.unwrap_or_default() }));
            Ok(Value::Bool(changed))
        }
        other => fail!("'{}' object has no method {name}", other.type_name()),
    }
}
