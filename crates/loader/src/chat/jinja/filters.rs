//! Filters of single values: numbers and texts.

use super::args::{Passed, flag, index, int_or, required, text, text_or, width};
use super::case;
use super::fail::{R, fail};
use super::format::truncated;
use super::lex::is_space;
use super::number::{Number, parse_float, parse_int};
use super::ops::iterate;
use super::strings;
use super::text::to_str;
use super::value::{Buf, Items, Str, Value};
use super::wrap;

/// The filters, for the test `filter`.
pub(super) const NAMES: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// `value|name(...)`.
pub(super) fn call(name: &str, value: &Value, passed: Passed) -> R<Value> {
    super::meter::step()?;
    match name {
        "tojson" => super::json::tojson(value, passed),
        "default" | "d" => {
            let [default, boolean] = passed.bind(name, ["default_value", "boolean"])?;
            let takes = value.is_undefined() || (flag(boolean.as_ref()) && !value.truth());
            match (takes, default) {
                (false, _) => Ok(value.clone()),
                (true, Some(default)) => Ok(default),
                (true, None) => Value::str(""),
            }
        }
        "abs" | "float" | "int" | "round" | "filesizeformat" => number(name, value, passed),
        "attr" | "batch" | "count" | "dictsort" | "first" | "groupby" | "items" | "join" | "last" | "length"
        | "list" | "map" | "max" | "min" | "reject" | "rejectattr" | "reverse" | "select" | "selectattr" | "slice"
        | "sort" | "sum" | "unique" => super::filters_seq::call(name, value, passed),
        "pprint" | "urlize" | "random" => fail!("the filter '{name}' is not supported in chat templates"),
        _ => of_text(name, value, passed),
    }
}

fn number(name: &str, value: &Value, passed: Passed) -> R<Value> {
    match name {
        "abs" => {
            let [] = passed.bind(name, [])?;
            match Number::of(value) {
                Some(Number::Int(i)) => i.checked_abs().map(Value::Int).ok_or_else(super::number::too_large),
                Some(Number::Float(f)) => Ok(Value::Float(f.abs())),
                None if value.is_undefined() => Err(value.undefined_error()),
                None => fail!("bad operand type for abs(): '{}'", value.type_name()),
            }
        }
        "float" => {
            let [default] = passed.bind(name, ["default"])?;
            let found = match (value, Number::of(value)) {
                (_, Some(number)) => Some(number.float()),
                (Value::Str(text), _) => parse_float(text)?,
                (Value::Undefined(_), _) => return Err(value.undefined_error()),
                _ => None,
            };
            Ok(found.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
        }
        "int" => {
            let [default, base] = passed.bind(name, ["default", "base"])?;
            let base = int_or(base.as_ref(), 10)?;
            let Some(base) = u32::try_from(base).ok().filter(|base| *base == 0 || (2..=36).contains(base)) else {
                return Ok(default.unwrap_or(Value::Int(0)));
            };
            let found = match (value, Number::of(value)) {
                (Value::Undefined(_), _) => return Err(value.undefined_error()),
                (_, Some(Number::Float(f))) if !f.is_finite() => None,
                (_, Some(number)) => Some(truncated(number)?),
                (Value::Str(text), _) => match parse_int(text, base)? {
                    Some(found) => Some(found),
                    None => match parse_float(text)?.filter(|f| f.is_finite()) {
                        Some(f) => Some(truncated(Number::Float(f))?),
                        None => None,
                    },
                },
                _ => None,
            };
            Ok(found.map(Value::Int).or(default).unwrap_or(Value::Int(0)))
        }
        "round" => {
            let [precision, method] = passed.bind(name, ["precision", "method"])?;
            let precision = int_or(precision.as_ref(), 0)?;
            let method = text_or(method.as_ref(), "common")?;
            if value.is_undefined() {
                return Err(value.undefined_error());
            }
            let Some(number) = Number::of(value) else {
                fail!("type {} doesn't define __round__ method", value.type_name())
            };
            round(number, precision, &method)
        }
        _ => {
            let [binary] = passed.bind(name, ["binary"])?;
            let bytes = match (value, Number::of(value)) {
                (_, Some(number)) => number.float(),
                (Value::Str(text), _) => parse_float(text)?.unwrap_or(f64::NAN),
                _ => fail!("float() argument must be a string or a real number, not '{}'", value.type_name()),
            };
            file_size(bytes, flag(binary.as_ref()))
        }
    }
}

fn round(number: Number, precision: i128, method: &str) -> R<Value> {
    let precision = precision.clamp(-400, 400) as i32;
    match (number, method) {
        (Number::Int(i), "common") if precision >= 0 => Ok(Value::Int(i)),
        (Number::Int(i), "common") => {
            let Some(unit) = 10_i128.checked_pow(precision.unsigned_abs()) else { return Ok(Value::Int(0)) };
            let (quotient, rest) = super::number::int_divmod(i, unit)?;
            let up = rest * 2 > unit || (rest * 2 == unit && quotient % 2 != 0);
            Ok(Value::Int((quotient + i128::from(up)).saturating_mul(unit)))
        }
        (Number::Float(f), "common") if !f.is_finite() => Ok(Value::Float(f)),
        (Number::Float(f), "common") if precision >= 0 => {
            super::meter::steps(precision as usize)?;
            // Exact digits, halves to even, as Python's own conversion does.
            let text = format!("{f:.*}", precision as usize);
            Ok(Value::Float(text.parse().unwrap_or(f)))
        }
        (Number::Float(f), "common") => {
            let unit = 10_f64.powi(-precision);
            Ok(Value::Float((f / unit).round_ties_even() * unit))
        }
        (number, "ceil" | "floor") => {
            let unit = 10_f64.powi(precision);
            let scaled = number.float() * unit;
            let rounded = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
            Ok(Value::Float(rounded / unit))
        }
        _ => fail!("method must be common, ceil or floor"),
    }
}

fn file_size(bytes: f64, binary: bool) -> R<Value> {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let names = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    if bytes == 1.0 {
        return Value::str("1 Byte");
    }
    if bytes < base {
        return Value::str(&format!("{} Bytes", bytes as i128));
    }
    let mut unit = base;
    for (at, name) in names.iter().enumerate() {
        unit *= base;
        if bytes < unit || at + 1 == names.len() {
            return Value::str(&format!("{:.1} {name}", base * bytes / unit));
        }
    }
    Value::str("")
}

/// `escape` for HTML.
fn escape(out: &mut Buf, text: &str) -> R<()> {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;")?,
            '<' => out.push_str("&lt;")?,
            '>' => out.push_str("&gt;")?,
            '\'' => out.push_str("&#39;")?,
            '"' => out.push_str("&#34;")?,
            c => out.push(c)?,
        }
    }
    Ok(())
}

fn of_text(name: &str, value: &Value, passed: Passed) -> R<Value> {
    let this = to_str(value)?;
    super::meter::work(this.len())?;
    let strict = |what: &str| match value {
        Value::Str(_) => Ok(()),
        Value::Undefined(_) => Err(value.undefined_error()),
        other => fail!("{what}() needs a text, not {}", other.type_name()),
    };
    match name {
        "string" | "safe" | "lower" | "upper" | "capitalize" | "title" | "e" | "escape" | "forceescape"
        | "wordcount" | "striptags" => {
            let [] = passed.bind(name, [])?;
            match name {
                "string" | "safe" => Ok(Value::Str(this)),
                "lower" => case::lower(&this),
                "upper" => case::upper(&this),
                "capitalize" => case::capitalize(&this),
                "title" => wrap::title(&this),
                "wordcount" => wrap::word_count(&this),
                "striptags" => wrap::strip_tags(&this),
                _ => {
                    let mut out = Buf::default();
                    escape(&mut out, &this)?;
                    out.done().map(Value::Str)
                }
            }
        }
        "trim" => {
            let [chars] = passed.bind(name, ["chars"])?;
            strings::strip(&this, chars.as_ref(), true, true)
        }
        "center" => {
            let [wide] = passed.bind(name, ["width"])?;
            strings::justify(&this, width(int_or(wide.as_ref(), 80)?), ' ', "center")
        }
        "replace" => {
            let [old, new, count] = passed.bind(name, ["old", "new", "count"])?;
            let (old, new) = (required(old, name, "old")?, required(new, name, "new")?);
            strings::replace(&this, &to_str(&old)?, &to_str(&new)?, int_or(count.as_ref(), -1)?)
        }
        "format" => {
            if !passed.named.is_empty() && !passed.positional.is_empty() {
                fail!("can't handle positional and keyword arguments at the same time");
            }
            let args = if passed.named.is_empty() {
                Value::tuple(passed.positional)?
            } else {
                let mut dict = super::dict::Dict::default();
                passed.named.iter().try_for_each(|(key, value)| dict.insert(Value::str(key)?, value.clone()))?;
                dict.done()?
            };
            super::percent::percent(&this, &args)
        }
        "indent" => {
            let [wide, first, blank] = passed.bind(name, ["width", "first", "blank"])?;
            match value {
                Value::Str(_) => {}
                Value::Undefined(_) => return Err(value.undefined_error()),
                other => fail!("unsupported operand type(s) for +: '{}' and 'str'", other.type_name()),
            }
            let indention = match wide {
                Some(Value::Str(text)) => text,
                other => {
                    let mut spaces = Buf::default();
                    let count = other.map_or(Ok(4), |count| index(&count))?;
                    spaces.fill(' ', width(count))?;
                    spaces.done()?
                }
            };
            indent(&this, &indention, flag(first.as_ref()), flag(blank.as_ref()))
        }
        // It has no length, so nothing is cut.
        "truncate" if value.is_undefined() => Ok(value.clone()),
        "truncate" => {
            strict(name)?;
            let [length, kill, end, leeway] = passed.bind(name, ["length", "killwords", "end", "leeway"])?;
            let end = text_or(end.as_ref(), "...")?;
            wrap::truncate(&this, int_or(length.as_ref(), 255)?, flag(kill.as_ref()), &end, int_or(leeway.as_ref(), 5)?)
        }
        "wordwrap" => {
            strict(name)?;
            let [wide, long, with, hyphens] =
                passed.bind(name, ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
            let with = match with {
                None | Some(Value::None) => Str::new("\n")?,
                Some(with) => text(&with, "wrapstring")?,
            };
            let or_true = |value: Option<Value>| value.is_none_or(|value| value.truth());
            wrap::word_wrap(&this, int_or(wide.as_ref(), 79)?, or_true(long), &with, or_true(hyphens))
        }
        "urlencode" => {
            let [] = passed.bind(name, [])?;
            url_encode(value)
        }
        "xmlattr" => {
            let [space] = passed.bind(name, ["autospace"])?;
            xml_attributes(value, space.is_none_or(|space| space.truth()))
        }
        _ => fail!("No filter named '{}'.", super::lex::cut(name)),
    }
}

fn indent(this: &str, indention: &str, first: bool, blank: bool) -> R<Value> {
    let mut out = Buf::default();
    if first {
        out.push_str(indention)?;
    }
    // Jinja adds a line end first, so that a last empty line is one too.
    let mut text = Buf::default();
    text.push_str(this)?;
    text.push('\n')?;
    for (at, line) in strings::lines(text.as_str(), false).enumerate() {
        super::meter::step()?;
        if at > 0 {
            out.push('\n')?;
            if blank || !line.is_empty() {
                out.push_str(indention)?;
            }
        }
        out.push_str(line)?;
    }
    out.done().map(Value::Str)
}

fn quote_url(out: &mut Buf, text: &str, query: bool) -> R<()> {
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(b))?,
            b'/' if !query => out.push('/')?,
            b' ' if query => out.push('+')?,
            b => out.push_str(&format!("%{b:02X}"))?,
        }
    }
    Ok(())
}

fn url_encode(value: &Value) -> R<Value> {
    let mut out = Buf::default();
    let pairs: Items = match value {
        Value::Dict(dict) => {
            let mut items = Items::default();
            for (key, value) in dict.entries() {
                items.push(Value::tuple(vec![key.clone(), value.clone()])?)?;
            }
            items
        }
        Value::Seq(_) | Value::Gen(_) | Value::Undefined(_) => iterate(value)?,
        other => {
            quote_url(&mut out, &to_str(other)?, false)?;
            return out.done().map(Value::Str);
        }
    };
    for (at, pair) in pairs.as_slice().iter().enumerate() {
        let pair = iterate(pair)?;
        let [key, value] = pair.as_slice() else { fail!("urlencode needs pairs") };
        if at > 0 {
            out.push('&')?;
        }
        quote_url(&mut out, &to_str(key)?, true)?;
        out.push('=')?;
        quote_url(&mut out, &to_str(value)?, true)?;
    }
    out.done().map(Value::Str)
}

fn xml_attributes(value: &Value, space: bool) -> R<Value> {
    let Value::Dict(dict) = value else { fail!("'{}' object has no attribute 'items'", value.type_name()) };
    let mut out = Buf::default();
    for (key, value) in dict.entries() {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key = to_str(key)?;
        if key.contains(|c: char| (c.is_ascii() && is_space(c)) || matches!(c, '/' | '>' | '=')) {
            fail!("Invalid character in attribute name: {}", &*super::format::quoted(&key)?);
        }
        if space || !out.as_str().is_empty() {
            out.push(' ')?;
        }
        escape(&mut out, &key)?;
        out.push_str("=\"")?;
        escape(&mut out, &to_str(value)?)?;
        out.push('"')?;
    }
    out.done().map(Value::Str)
}
