//! `text % values`, and `text.format(values)`.

use super::args::{Passed, index, width};
use super::attr::{attr, item};
use super::fail::{R, fail};
use super::format::{Spec, ascii, converted, leading_number, repr, truncated};
use super::number::Number;
use super::text::to_str;
use super::value::{Buf, Kind, Str, Value};

/// `template % args`.
pub(super) fn percent(template: &str, args: &Value) -> R<Value> {
    let single = std::slice::from_ref(args);
    let (values, mapping) = match args {
        Value::Seq(seq) if seq.kind == Kind::Tuple => (seq.items.as_slice(), None),
        Value::Dict(dict) => (single, Some(dict)),
        _ => (single, None),
    };
    let mut rest_of_values = values.iter();
    let mut next = || match rest_of_values.next() {
        Some(value) => Ok(value.clone()),
        None => fail!("not enough arguments for format string"),
    };
    let mut out = Buf::default();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before)?;
        rest = after;
        let mut named = None;
        if let Some(tail) = rest.strip_prefix('(') {
            let (mut depth, mut end) = (1_usize, None);
            for (at, c) in tail.char_indices() {
                depth = match c {
                    '(' => depth + 1,
                    ')' => depth - 1,
                    _ => depth,
                };
                if depth == 0 {
                    end = Some(at);
                    break;
                }
            }
            let Some(end) = end else { fail!("incomplete format key") };
            let key = tail.get(..end).unwrap_or_default();
            let Some(dict) = mapping else { fail!("format requires a mapping") };
            let Some(value) = dict.get_str(key)? else {
                fail!("KeyError: {}", super::format::quoted(key)?.to_string())
            };
            named = Some(value.clone());
            rest = tail.get(end + 1..).unwrap_or_default();
        }
        let mut spec = Spec::default();
        let flags = rest.len() - rest.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        let mut left = false;
        for flag in rest.get(..flags).unwrap_or_default().chars() {
            match flag {
                '-' => left = true,
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                _ => spec.zero = true,
            }
        }
        rest = rest.get(flags..).unwrap_or_default();
        if let Some(tail) = rest.strip_prefix('*') {
            let wide = index(&next()?)?;
            left |= wide < 0;
            (spec.width, rest) = (width(wide.saturating_abs()), tail);
        } else {
            let number;
            (number, rest) = leading_number(rest)?;
            spec.width = number.unwrap_or(0);
        }
        if let Some(tail) = rest.strip_prefix('.') {
            if let Some(tail) = tail.strip_prefix('*') {
                (spec.precision, rest) = (Some(width(index(&next()?)?)), tail);
            } else {
                let number;
                (number, rest) = leading_number(tail)?;
                spec.precision = Some(number.unwrap_or(0));
            }
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let Some(kind) = rest.chars().next() else { fail!("incomplete format") };
        rest = rest.get(kind.len_utf8()..).unwrap_or_default();
        if left {
            (spec.align, spec.zero) = (Some('<'), false);
        }
        if kind == '%' {
            out.push('%')?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next()?,
        };
        one(&mut out, spec, kind, &value)?;
    }
    out.push_str(rest)?;
    // Any value that can be indexed may be a mapping of names, and may stay unused.
    let indexed = matches!(args, Value::Undefined(_)) || matches!(args, Value::Seq(seq) if seq.kind == Kind::List);
    if mapping.is_none() && !indexed && rest_of_values.next().is_some() {
        fail!("not all arguments converted during string formatting");
    }
    out.done().map(Value::Str)
}

/// Writes one value after `%`.
fn one(out: &mut Buf, mut spec: Spec, kind: char, value: &Value) -> R<()> {
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' => to_str(value)?,
                'r' => repr(value)?,
                _ => ascii(value)?,
            };
            (spec.align, spec.zero) = (spec.align.or(Some('>')), false);
            spec.text(out, &text)
        }
        'c' => {
            spec.align = spec.align.or(Some('>'));
            spec.zero = false;
            match value {
                Value::Str(text) if text.chars().count() == 1 => spec.text(out, text),
                Value::Int(_) | Value::Bool(_) => {
                    spec.kind = Some('c');
                    spec.int(out, index(value)?)
                }
                _ => fail!("%c requires int or char"),
            }
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let number = match (Number::of(value), kind) {
                (Some(Number::Float(_)), 'x' | 'X' | 'o') | (None, _) => {
                    let wants = if "xXo".contains(kind) { "an integer" } else { "a real number" };
                    fail!("%{kind} format: {wants} is required, not {}", value.type_name())
                }
                (Some(number), _) => truncated(number)?,
            };
            spec.kind = Some(if "iu".contains(kind) { 'd' } else { kind });
            if let Some(digits) = spec.precision.take() {
                // At least so many digits.
                let mut body = Buf::default();
                let plain = Spec { kind: spec.kind, ..Spec::default() };
                plain.int(&mut body, i128::try_from(number.unsigned_abs()).unwrap_or(i128::MAX))?;
                let missing = digits.saturating_sub(body.as_str().len());
                let mut text = Buf::default();
                if number < 0 {
                    text.push('-')?;
                } else if let Some(sign) = spec.sign {
                    text.push(sign)?;
                }
                text.fill('0', missing)?;
                text.push_str(body.as_str())?;
                spec.align = spec.align.or(Some('>'));
                spec.zero = false;
                return spec.text(out, text.as_str());
            }
            spec.int(out, number)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match Number::of(value) {
            Some(number) => {
                spec.kind = Some(kind);
                spec.float(out, number.float())
            }
            None => fail!("must be real number, not {}", value.type_name()),
        },
        other => fail!("unsupported format character '{other}'"),
    }
}

/// The source of the fields of `str.format`.
struct Fields<'a> {
    passed: &'a Passed,
    /// The next number of `{}`, or that fields have numbers of their own.
    numbered: Option<Numbering>,
}

#[derive(Clone, Copy, PartialEq)]
enum Numbering {
    Automatic(usize),
    Manual,
}

/// `template.format(...)`.
pub(super) fn format(template: &str, passed: &Passed) -> R<Value> {
    let mut out = Buf::default();
    write_format(&mut out, template, &mut Fields { passed, numbered: None }, 3)?;
    out.done().map(Value::Str)
}

fn write_format(out: &mut Buf, template: &str, fields: &mut Fields<'_>, depth: usize) -> R<()> {
    let Some(depth) = depth.checked_sub(1) else { fail!("Max string recursion exceeded") };
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before)?;
        let (brace, tail) = tail.split_at(1);
        if let Some(after) = tail.strip_prefix(brace) {
            out.push_str(brace)?;
            rest = after;
            continue;
        }
        if brace == "}" {
            fail!("Single '}}' encountered in format string");
        }
        let (mut open, mut end) = (1_usize, None);
        for (at, c) in tail.char_indices() {
            open = match c {
                '{' => open + 1,
                '}' => open - 1,
                _ => open,
            };
            if open == 0 {
                end = Some(at);
                break;
            }
        }
        let Some(end) = end else { fail!("expected '}}' before end of string") };
        let field = tail.get(..end).unwrap_or_default();
        rest = tail.get(end + 1..).unwrap_or_default();
        let at = field.find(['!', ':']).unwrap_or(field.len());
        let (name, tail) = field.split_at(at);
        let mut value = lookup(name, fields)?;
        let mut tail = tail;
        if let Some(after) = tail.strip_prefix('!') {
            let Some(conversion) = after.chars().next() else {
                fail!("end of string while looking for conversion specifier")
            };
            value = converted(&value, conversion)?;
            tail = after.get(conversion.len_utf8()..).unwrap_or_default();
        }
        let mut spec = Buf::default();
        write_format(&mut spec, tail.strip_prefix(':').unwrap_or_default(), fields, depth)?;
        if spec.as_str().is_empty() {
            super::text::write_str(out, &value)?;
        } else {
            Spec::parse(spec.as_str())?.write(out, &value)?;
        }
    }
    out.push_str(rest)
}

/// The value that a field names: `0`, `name`, `name.attr[key]`.
fn lookup(name: &str, fields: &mut Fields<'_>) -> R<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let manual = first.parse::<usize>().ok();
    let position = match (manual, fields.numbered) {
        (Some(_), Some(Numbering::Automatic(_))) => {
            fail!("cannot switch from automatic field numbering to manual field specification")
        }
        (Some(at), _) => {
            fields.numbered = Some(Numbering::Manual);
            Some(at)
        }
        (None, Some(Numbering::Manual)) if first.is_empty() => {
            fail!("cannot switch from manual field specification to automatic field numbering")
        }
        (None, numbered) if first.is_empty() => {
            let at = if let Some(Numbering::Automatic(at)) = numbered { at } else { 0 };
            fields.numbered = Some(Numbering::Automatic(at + 1));
            Some(at)
        }
        (None, _) => None,
    };
    let value = match position {
        Some(at) => fields.passed.positional.get(at).cloned(),
        None => fields.passed.named.iter().find(|(known, _)| **known == *first).map(|(_, value)| value.clone()),
    };
    let mut value = match (value, position) {
        (Some(value), _) => value,
        (None, Some(at)) => fail!("Replacement index {at} out of range for positional args tuple"),
        (None, None) => fail!("KeyError: '{}'", super::lex::cut(first)),
    };
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix('.') {
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            value = attr(&value, tail.get(..end).unwrap_or_default())?;
            rest = tail.get(end..).unwrap_or_default();
        } else if let Some((key, tail)) = rest.strip_prefix('[').and_then(|tail| tail.split_once(']')) {
            let key = match key.parse::<u32>() {
                Ok(at) => Value::Int(i128::from(at)),
                Err(_) => Value::Str(Str::new(key)?),
            };
            value = item(&value, &key)?;
            rest = tail;
        } else {
            fail!("Only '.' or '[' may follow ']' in format field specifier");
        }
    }
    Ok(value)
}
