//! Filters of sequences.

use super::args::{Passed, flag, index, required, text, text_or};
use super::attr::{attr_only, item};
use super::checks;
use super::dict::Key;
use super::fail::{Fail, R, fail};
use super::meter::Held;
use super::ops::{binary, equal, iterate, order, sort};
use super::text::{to_str, write_str};
use super::value::{Buf, ITEM, Items, Kind, Range, Value};

/// `value|name(...)`.
pub(super) fn call(name: &str, value: &Value, passed: Passed) -> R<Value> {
    match name {
        "length" | "count" => {
            let [] = passed.bind(name, [])?;
            length(value).map(|count| Value::Int(count as i128))
        }
        "first" | "last" => {
            let [] = passed.bind(name, [])?;
            ends(value, name == "last")
        }
        "list" => {
            let [] = passed.bind(name, [])?;
            iterate(value)?.list()
        }
        "attr" => {
            let [attribute] = passed.bind(name, ["name"])?;
            attr_only(value, &to_str(&required(attribute, name, "name")?)?)
        }
        "items" => {
            let [] = passed.bind(name, [])?;
            match value {
                Value::Undefined(_) => Items::default().generator(),
                Value::Dict(dict) => pairs(dict.entries())?.generator(),
                _ => fail!("Can only get item pairs from a mapping."),
            }
        }
        "reverse" => {
            let [] = passed.bind(name, [])?;
            reverse(value)
        }
        "join" => {
            let [separator, attribute] = passed.bind(name, ["d", "attribute"])?;
            let separator = text_or(separator.as_ref(), "")?;
            let getter = Getter::new(attribute.as_ref(), None, false)?;
            let mut out = Buf::default();
            for (at, item) in iterate(value)?.as_slice().iter().enumerate() {
                if at > 0 {
                    out.push_str(&separator)?;
                }
                write_str(&mut out, &getter.get(item)?)?;
            }
            out.done().map(Value::Str)
        }
        "sum" => {
            let [attribute, start] = passed.bind(name, ["attribute", "start"])?;
            let getter = Getter::new(attribute.as_ref(), None, false)?;
            let mut total = start.unwrap_or(Value::Int(0));
            if matches!(total, Value::Str(_)) {
                fail!("sum() can't sum strings [use ''.join(seq) instead]");
            }
            for item in iterate(value)?.as_slice() {
                total = binary(super::ast::BinOp::Add, &total, &getter.get(item)?)?;
            }
            Ok(total)
        }
        "batch" => {
            let [count, fill] = passed.bind(name, ["linecount", "fill_with"])?;
            batch(value, index(&required(count, name, "linecount")?)?, fill)
        }
        "slice" => {
            let [count, fill] = passed.bind(name, ["slices", "fill_with"])?;
            slices(value, index(&required(count, name, "slices")?)?, fill)
        }
        "map" => map(value, passed),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, value, passed),
        _ => ordered(name, value, passed),
    }
}

/// The pairs of a dictionary.
pub(super) fn pairs(entries: &[(Value, Value)]) -> R<Items> {
    let mut items = Items::with_capacity(entries.len())?;
    for (key, value) in entries {
        items.push(Value::tuple(vec![key.clone(), value.clone()])?)?;
    }
    Ok(items)
}

/// `len(value)`.
pub(super) fn length(value: &Value) -> R<usize> {
    Ok(match value {
        Value::Undefined(_) => 0,
        Value::Str(text) => text.count_chars()?,
        Value::Seq(seq) => seq.items.len(),
        Value::Dict(dict) => dict.len(),
        Value::Range(range) => usize::try_from(range.len()).unwrap_or(usize::MAX),
        Value::Loop(state) => state.items.len(),
        other => fail!("object of type '{}' has no len()", other.type_name()),
    })
}

fn ends(value: &Value, last: bool) -> R<Value> {
    let found = match value {
        Value::Undefined(_) => None,
        Value::Str(text) => {
            let c = if last { text.chars().next_back() } else { text.chars().next() };
            c.map(|c| Value::str(c.encode_utf8(&mut [0; 4]))).transpose()?
        }
        Value::Seq(seq) => if last { seq.items.last() } else { seq.items.first() }.cloned(),
        Value::Dict(dict) => {
            if last { dict.entries().last() } else { dict.entries().first() }.map(|(key, _)| key.clone())
        }
        Value::Range(range) if range.len() > 0 => Some(Value::Int(range.get(if last { range.len() - 1 } else { 0 }))),
        Value::Range(_) => None,
        Value::Gen(generator) if !last => generator.items.borrow_mut().pop_front(),
        other if last => fail!("'{}' object is not reversible", other.type_name()),
        other => fail!("'{}' object is not iterable", other.type_name()),
    };
    match found {
        Some(found) => Ok(found),
        None => Value::missing(
            "",
            if last { "no last item, sequence was empty" } else { "no first item, sequence was empty" },
        ),
    }
}

fn reverse(value: &Value) -> R<Value> {
    if let Value::Str(text) = value {
        let mut out = Buf::default();
        text.chars().rev().try_for_each(|c| out.push(c))?;
        return out.done().map(Value::Str);
    }
    let Ok(mut items) = iterate(value) else { fail!("argument must be iterable") };
    items.as_mut_slice().reverse();
    // A generator cannot be reversed in place, so Jinja makes a list of it.
    if matches!(value, Value::Gen(_)) { items.list() } else { items.generator() }
}

fn batch(value: &Value, count: i128, fill: Option<Value>) -> R<Value> {
    let count = usize::try_from(count).unwrap_or(0);
    let (mut out, mut part) = (Items::default(), Items::default());
    for item in iterate(value)?.as_slice() {
        if part.as_slice().len() == count {
            out.push(std::mem::take(&mut part).list()?)?;
        }
        part.push(item.clone())?;
    }
    if !part.as_slice().is_empty() {
        if let Some(fill) = fill.filter(|fill| !matches!(fill, Value::None)) {
            while part.as_slice().len() < count {
                part.push(fill.clone())?;
            }
        }
        out.push(part.list()?)?;
    }
    out.generator()
}

fn slices(value: &Value, count: i128, fill: Option<Value>) -> R<Value> {
    let items = iterate(value)?;
    let items = items.as_slice();
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        if count == 0 {
            fail!("integer division or modulo by zero");
        }
        return Items::default().generator();
    };
    let (each, extra) = (items.len() / count, items.len() % count);
    let (mut out, mut rest) = (Items::default(), items);
    for at in 0..count {
        let (head, tail) = rest.split_at((each + usize::from(at < extra)).min(rest.len()));
        rest = tail;
        let mut part = Items::with_capacity(head.len())?;
        part.extend(head)?;
        if let Some(fill) = &fill
            && at >= extra
            && !matches!(fill, Value::None)
        {
            part.push(fill.clone())?;
        }
        out.push(part.list()?)?;
    }
    out.generator()
}

/// Most names in an attribute.
const MAX_PATH: usize = 100;

/// Looks up `attribute='a.b'`.
struct Getter {
    parts: Vec<Value>,
    default: Option<Value>,
    lower: bool,
}

impl Getter {
    fn new(attribute: Option<&Value>, default: Option<Value>, lower: bool) -> R<Self> {
        let default = default.filter(|default| !matches!(default, Value::None));
        let parts = match attribute {
            None | Some(Value::None) => Vec::new(),
            Some(Value::Str(path)) if path.bytes().filter(|b| matches!(b, b'.' | b',')).count() >= MAX_PATH => {
                return Err(Fail::Deep { what: "parts of an attribute", limit: MAX_PATH });
            }
            Some(Value::Str(path)) => path.split('.').map(part).collect::<R<_>>()?,
            Some(other) => vec![other.clone()],
        };
        Ok(Self { parts, default, lower })
    }

    fn get(&self, value: &Value) -> R<Value> {
        let mut found = value.clone();
        for part in &self.parts {
            found = item(&found, part)?;
            if let Some(default) = &self.default
                && found.is_undefined()
            {
                found = default.clone();
            }
        }
        match found {
            Value::Str(text) if self.lower => super::case::lower(&text),
            found => Ok(found),
        }
    }
}

fn part(name: &str) -> R<Value> {
    match name.parse::<u32>() {
        Ok(index) if name.bytes().all(|b| b.is_ascii_digit()) => Ok(Value::Int(i128::from(index))),
        _ => Value::str(name),
    }
}

fn map(value: &Value, mut passed: Passed) -> R<Value> {
    if !value.truth() {
        return Items::default().generator();
    }
    let mut out = Items::default();
    if passed.positional.is_empty() && passed.named.iter().any(|(name, _)| &**name == "attribute") {
        let [attribute, default] = passed.bind("map", ["attribute", "default"])?;
        let getter = Getter::new(attribute.as_ref(), default, false)?;
        for item in iterate(value)?.as_slice() {
            out.push(getter.get(item)?)?;
        }
        return out.generator();
    }
    if passed.positional.is_empty() {
        fail!("map requires a filter argument");
    }
    let name = text(&passed.positional.remove(0), "the name of a filter")?;
    for item in iterate(value)?.as_slice() {
        out.push(super::filters::call(&name, item, passed.clone())?)?;
    }
    out.generator()
}

fn select(name: &str, value: &Value, mut passed: Passed) -> R<Value> {
    if !value.truth() {
        return Items::default().generator();
    }
    let keeps = name.starts_with("select");
    let mut getter = Getter::new(None, None, false)?;
    if name.ends_with("attr") {
        if passed.positional.is_empty() {
            fail!("Missing parameter for attribute name");
        }
        getter = Getter::new(Some(&passed.positional.remove(0)), None, false)?;
    }
    let test = match passed.positional.is_empty() {
        true => None,
        false => Some(text(&passed.positional.remove(0), "the name of a test")?),
    };
    let mut out = Items::default();
    for item in iterate(value)?.as_slice() {
        let found = getter.get(item)?;
        let fits = match &test {
            None => found.truth(),
            Some(test) => checks::call(test, &found, passed.clone())?,
        };
        if fits == keeps {
            out.push(item.clone())?;
        }
    }
    out.generator()
}

/// Values with the keys by which they are sorted.
fn keyed(value: &Value, key: impl Fn(&Value) -> R<Value>) -> R<(Vec<(Value, Value)>, Held)> {
    let items = iterate(value)?;
    // The pairs, and their copy while they are merged.
    let held = Held::new(items.as_slice().len().saturating_mul(4 * ITEM))?;
    let mut pairs = Vec::with_capacity(items.as_slice().len());
    for item in items.as_slice() {
        super::meter::step()?;
        pairs.push((key(item)?, item.clone()));
    }
    Ok((pairs, held))
}

fn values(pairs: &[(Value, Value)]) -> R<Items> {
    let mut items = Items::with_capacity(pairs.len())?;
    pairs.iter().try_for_each(|(_, value)| items.push(value.clone()))?;
    Ok(items)
}

/// Filters that compare items.
fn ordered(name: &str, value: &Value, passed: Passed) -> R<Value> {
    match name {
        "sort" => {
            let [reverse, case, attribute] = passed.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let lower = !flag(case.as_ref());
            let getters: Vec<Getter> = match &attribute {
                Some(names @ Value::Str(text)) => {
                    // Rejects names with too many parts.
                    Getter::new(Some(names), None, lower)?;
                    let names = text;
                    let each = |name: &str| Getter::new(Some(&Value::str(name)?), None, lower);
                    names.split(',').map(each).collect::<R<_>>()?
                }
                other => vec![Getter::new(other.as_ref(), None, lower)?],
            };
            let key = |item: &Value| Value::list(getters.iter().map(|getter| getter.get(item)).collect::<R<_>>()?);
            let (mut pairs, _held) = keyed(value, key)?;
            sort(&mut pairs, flag(reverse.as_ref()))?;
            values(&pairs)?.list()
        }
        "dictsort" => {
            let [case, by, reverse] = passed.bind(name, ["case_sensitive", "by", "reverse"])?;
            let Value::Dict(dict) = value else {
                if value.is_undefined() {
                    return Err(value.undefined_error());
                }
                fail!("'{}' object has no attribute 'items'", value.type_name())
            };
            let by = text_or(by.as_ref(), "key")?;
            let position = match &*by {
                "key" => 0,
                "value" => 1,
                _ => fail!("You can only sort by either \"key\" or \"value\""),
            };
            let getter = Getter { parts: vec![Value::Int(position)], default: None, lower: !flag(case.as_ref()) };
            let (mut pairs, _held) = keyed(&pairs(dict.entries())?.list()?, |pair| getter.get(pair))?;
            sort(&mut pairs, flag(reverse.as_ref()))?;
            values(&pairs)?.list()
        }
        "unique" => {
            let [case, attribute] = passed.bind(name, ["case_sensitive", "attribute"])?;
            let getter = Getter::new(attribute.as_ref(), None, !flag(case.as_ref()))?;
            let (pairs, _held) = keyed(value, |item| getter.get(item))?;
            let mut seen = std::collections::HashSet::new();
            let (mut out, mut held) = (Items::default(), Held::default());
            for (key, item) in pairs {
                let key = Key::of(&key)?;
                held.grow(key.bytes() + ITEM)?;
                if seen.insert(key) {
                    out.push(item)?;
                }
            }
            out.generator()
        }
        "min" | "max" => {
            let [case, attribute] = passed.bind(name, ["case_sensitive", "attribute"])?;
            let getter = Getter::new(attribute.as_ref(), None, !flag(case.as_ref()))?;
            let (pairs, _held) = keyed(value, |item| getter.get(item))?;
            let mut pairs = pairs.into_iter();
            let Some(mut best) = pairs.next() else {
                return Value::missing("", "no aggregated item, sequence was empty");
            };
            for pair in pairs {
                let (a, b) = if name == "min" { (&pair.0, &best.0) } else { (&best.0, &pair.0) };
                if order(a, b, "<")? == Some(std::cmp::Ordering::Less) {
                    best = pair;
                }
            }
            Ok(best.1)
        }
        "groupby" => group(value, passed),
        _ => fail!("No filter named '{}'.", super::lex::cut(name)),
    }
}

fn group(value: &Value, passed: Passed) -> R<Value> {
    let [attribute, default, case] = passed.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = required(attribute, "groupby", "attribute")?;
    let lower = !flag(case.as_ref());
    let getter = Getter::new(Some(&attribute), default.clone(), lower)?;
    let plain = Getter::new(Some(&attribute), default, false)?;
    let (mut pairs, _held) = keyed(value, |item| getter.get(item))?;
    sort(&mut pairs, false)?;
    let mut out = Items::default();
    let mut rest = pairs.as_slice();
    while let Some((key, first)) = rest.first() {
        let mut members = Items::default();
        let mut count = 0;
        for (other, item) in rest {
            if !equal(key, other)? {
                break;
            }
            members.push(item.clone())?;
            count += 1;
        }
        // A NaN is not even equal to itself.
        let count = count.max(1);
        rest = rest.get(count..).unwrap_or_default();
        let shown = if lower { plain.get(first)? } else { key.clone() };
        out.push(Value::tuple(vec![shown, members.list()?])?)?;
    }
    out.list()
}

/// `range(...)`.
pub(super) fn range(passed: Passed) -> R<Value> {
    let args: [Option<Value>; 3] = passed.only("range")?;
    let mut numbers = args.iter().flatten().map(index);
    let (first, second, third) =
        (numbers.next().transpose()?, numbers.next().transpose()?, numbers.next().transpose()?);
    let range = match (first, second) {
        (None, _) => fail!("range expected at least 1 argument, got 0"),
        (Some(stop), None) => Range { start: 0, stop, step: 1 },
        (Some(start), Some(stop)) => Range { start, stop, step: third.unwrap_or(1) },
    };
    if range.step == 0 {
        fail!("range() arg 3 must not be zero");
    }
    let far = |i: i128| i.unsigned_abs() > 1 << 100;
    if far(range.start) || far(range.stop) || far(range.step) {
        return Err(super::number::too_large());
    }
    if range.len() > 100_000 {
        fail!("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    }
    Ok(Value::Range(std::rc::Rc::new(range)))
}

/// A view of a dictionary: its keys, its values, its pairs.
pub(super) fn view(entries: &[(Value, Value)], kind: Kind) -> R<Value> {
    if kind == Kind::Pairs {
        return pairs(entries)?.done(kind);
    }
    let mut items = Items::with_capacity(entries.len())?;
    for (key, value) in entries {
        items.push(if kind == Kind::Keys { key.clone() } else { value.clone() })?;
    }
    items.done(kind)
}
