//! `str()` and `repr()` of values.

use super::MAX_DEPTH;
use super::fail::{Fail, R};
use super::meter;
use super::number::float_repr;
use super::value::{Buf, Global, Kind, Str, Value};

/// `str(value)`.
pub(super) fn to_str(value: &Value) -> R<Str> {
    if let Value::Str(text) = value {
        return Ok(text.clone());
    }
    let mut out = Buf::default();
    write_str(&mut out, value)?;
    out.done()
}

/// Writes `str(value)`.
pub(super) fn write_str(out: &mut Buf, value: &Value) -> R<()> {
    match value {
        Value::Str(text) => out.push_str(text),
        Value::Undefined(_) => Ok(()),
        other => write_repr(out, other, 0),
    }
}

/// Writes `repr(value)`. `depth` is how many containers are around it: namespaces can hold themselves.
pub(super) fn write_repr(out: &mut Buf, value: &Value, depth: usize) -> R<()> {
    if depth > MAX_DEPTH {
        return Err(Fail::Deep { what: "lists, dictionaries and namespaces", limit: MAX_DEPTH });
    }
    meter::step()?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::Float(f) => out.push_str(&float_repr(*f)),
        Value::Str(text) => repr_text(out, text),
        Value::Seq(seq) => {
            let (open, close) = match seq.kind {
                Kind::List => ("[", "]"),
                Kind::Tuple if seq.items.len() == 1 => ("(", ",)"),
                Kind::Tuple => ("(", ")"),
                Kind::Keys => ("dict_keys([", "])"),
                Kind::Values => ("dict_values([", "])"),
                Kind::Pairs => ("dict_items([", "])"),
            };
            out.push_str(open)?;
            for (at, item) in seq.items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ")?;
                }
                write_repr(out, item, depth + 1)?;
            }
            out.push_str(close)
        }
        Value::Dict(dict) => {
            out.push_str("{")?;
            for (at, (key, value)) in dict.entries().iter().enumerate() {
                if at > 0 {
                    out.push_str(", ")?;
                }
                write_repr(out, key, depth + 1)?;
                out.push_str(": ")?;
                write_repr(out, value, depth + 1)?;
            }
            out.push_str("}")
        }
        Value::Range(range) if range.step == 1 => out.push_str(&format!("range({}, {})", range.start, range.stop)),
        Value::Range(range) => out.push_str(&format!("range({}, {}, {})", range.start, range.stop, range.step)),
        Value::Namespace(namespace) => {
            out.push_str("<Namespace {")?;
            let namespace = namespace.upgrade();
            // No borrow is held while values are written: they may be the namespace itself.
            let count = namespace.as_ref().map_or(0, |namespace| namespace.attrs.borrow().len());
            for at in 0..count {
                let entry = namespace.as_ref().and_then(|namespace| namespace.attrs.borrow().get(at).cloned());
                let Some((name, value)) = entry else { break };
                if at > 0 {
                    out.push_str(", ")?;
                }
                repr_text(out, &name)?;
                out.push_str(": ")?;
                write_repr(out, &value, depth + 1)?;
            }
            out.push_str("}>")
        }
        Value::Gen(_) => out.push_str("<generator object>"),
        Value::Method(method) => out.push_str(&format!("<built-in method {}>", method.name)),
        Value::Global(global) => out.push_str(match global {
            Global::Dict => "<class 'dict'>",
            Global::Namespace => "<class 'jinja2.utils.Namespace'>",
            Global::Cycler => "<class 'jinja2.utils.Cycler'>",
            Global::Joiner => "<class 'jinja2.utils.Joiner'>",
            Global::Range | Global::Raise | Global::Now => "<function>",
        }),
        Value::Macro(declared) if declared.name.is_empty() => out.push_str("<Macro anonymous>"),
        Value::Macro(declared) => {
            out.push_str("<Macro ")?;
            repr_text(out, &declared.name)?;
            out.push_str(">")
        }
        Value::Loop(state) => out.push_str(&format!("<LoopContext {}/{}>", state.index.get() + 1, state.items.len())),
        Value::Cycler(_) => out.push_str("<jinja2.utils.Cycler object>"),
        Value::Joiner(_) => out.push_str("<jinja2.utils.Joiner object>"),
    }
}

/// `repr` of a text: quoted, and everything escaped that does not print.
pub(super) fn repr_text(out: &mut Buf, text: &str) -> R<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\")?,
            '\n' => out.push_str("\\n")?,
            '\r' => out.push_str("\\r")?,
            '\t' => out.push_str("\\t")?,
            c if c == quote => out.push_str(&format!("\\{c}"))?,
            ' '..='~' => out.push(c)?,
            c if {
                // Looked up in tables.
                meter::step()?;
                printable(c)
            } =>
            {
                out.push(c)?;
            }
            c => out.push_str(&match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?,
        }
    }
    out.push(quote)
}

/// Python's `str.isprintable` of one character.
pub(super) fn printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // The escaping of the standard library handles printable characters; after a letter it leaves combining marks
        // unescaped.
        c => {
            let mut text = String::from("a");
            text.push(c);
            text.escape_debug().nth(1) == Some(c)
        }
    }
}
