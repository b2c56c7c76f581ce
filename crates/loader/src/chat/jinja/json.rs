//! `tojson` as transformers defines it: `json.dumps` without escapes for HTML.

use super::MAX_DEPTH;
use super::args::{Passed, flag, index, text};
use super::fail::{Fail, R, fail};
use super::meter;
use super::number::float_repr;
use super::value::{Buf, Kind, Str, Value};

/// The format of JSON.
#[derive(Debug)]
struct Style {
    ascii: bool,
    /// Indentation of one level.
    indent: Option<Str>,
    between: Str,
    colon: Str,
    sorted: bool,
}

/// The filter `tojson(value, ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(value: &Value, passed: Passed) -> R<Value> {
    let [ascii, indent, separators, sorted] =
        passed.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text),
        Some(count) => {
            let mut spaces = Buf::default();
            spaces.fill(' ', super::args::width(index(&count)?))?;
            Some(spaces.done()?)
        }
    };
    let (between, colon) = match separators {
        None | Some(Value::None) => (Str::new(if indent.is_some() { "," } else { ", " })?, Str::new(": ")?),
        Some(Value::Seq(pair)) => match pair.items.as_slice() {
            [between, colon] => (text(between, "a separator")?, text(colon, "a separator")?),
            _ => fail!("separators must be a pair of texts"),
        },
        Some(_) => fail!("separators must be a pair of texts"),
    };
    let style = Style { ascii: flag(ascii.as_ref()), indent, between, colon, sorted: flag(sorted.as_ref()) };
    let mut out = Buf::default();
    write(&mut out, value, &style, 0)?;
    out.done().map(Value::Str)
}

fn line(out: &mut Buf, style: &Style, depth: usize) -> R<()> {
    let Some(indent) = &style.indent else { return Ok(()) };
    out.push('\n')?;
    out.repeat(indent, depth)
}

fn float(f: f64) -> String {
    match () {
        () if f.is_nan() => "NaN".to_owned(),
        () if f == f64::INFINITY => "Infinity".to_owned(),
        () if f == f64::NEG_INFINITY => "-Infinity".to_owned(),
        () => float_repr(f),
    }
}

fn write(out: &mut Buf, value: &Value, style: &Style, depth: usize) -> R<()> {
    if depth > MAX_DEPTH {
        return Err(Fail::Deep { what: "lists and dictionaries", limit: MAX_DEPTH });
    }
    meter::step()?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::Float(f) => out.push_str(&float(*f)),
        Value::Str(text) => quoted(out, text, style.ascii),
        Value::Seq(seq) if matches!(seq.kind, Kind::List | Kind::Tuple) => {
            if seq.items.is_empty() {
                return out.push_str("[]");
            }
            out.push('[')?;
            for (at, item) in seq.items.iter().enumerate() {
                if at > 0 {
                    out.push_str(&style.between)?;
                }
                line(out, style, depth + 1)?;
                write(out, item, style, depth + 1)?;
            }
            line(out, style, depth)?;
            out.push(']')
        }
        Value::Dict(dict) => {
            if dict.len() == 0 {
                return out.push_str("{}");
            }
            let _held = meter::Held::new(dict.len() * 4 * super::value::ITEM)?;
            let mut entries: Vec<(Value, Value)> = dict.entries().to_vec();
            if style.sorted {
                super::ops::sort(&mut entries, false)?;
            }
            out.push('{')?;
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push_str(&style.between)?;
                }
                line(out, style, depth + 1)?;
                match key {
                    Value::Str(key) => quoted(out, key, style.ascii)?,
                    Value::None => out.push_str("\"null\"")?,
                    Value::Bool(b) => out.push_str(if *b { "\"true\"" } else { "\"false\"" })?,
                    Value::Int(i) => out.push_str(&format!("\"{i}\""))?,
                    Value::Float(f) => out.push_str(&format!("\"{}\"", float(*f)))?,
                    other => fail!("keys must be str, int, float, bool or None, not {}", other.type_name()),
                }
                out.push_str(&style.colon)?;
                write(out, value, style, depth + 1)?;
            }
            line(out, style, depth)?;
            out.push('}')
        }
        other => fail!("Object of type {} is not JSON serializable", other.type_name()),
    }
}

fn quoted(out: &mut Buf, text: &str, ascii: bool) -> R<()> {
    meter::work(text.len())?;
    out.push('"')?;
    let mut rest = text;
    // Whole stretches at once: most characters stay as they are.
    let special = |c: char| matches!(c, '"' | '\\' | '\0'..='\u{1f}') || (ascii && (!c.is_ascii() || c == '\u{7f}'));
    while let Some(at) = rest.find(special) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before)?;
        let c = tail.chars().next().unwrap_or_default();
        match c {
            '"' => out.push_str("\\\"")?,
            '\\' => out.push_str("\\\\")?,
            '\n' => out.push_str("\\n")?,
            '\r' => out.push_str("\\r")?,
            '\t' => out.push_str("\\t")?,
            '\u{8}' => out.push_str("\\b")?,
            '\u{c}' => out.push_str("\\f")?,
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"))?;
                }
            }
        }
        rest = tail.get(c.len_utf8()..).unwrap_or_default();
    }
    out.push_str(rest)?;
    out.push('"')
}
