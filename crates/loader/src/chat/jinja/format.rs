//! Python's format specifications: `[[fill]align][sign][#][0][width][grouping][.precision][type]`.

use super::fail::{R, fail};
use super::number::{Number, float_repr};
use super::text::{printable, repr_text, to_str, write_repr};
use super::value::{Buf, Str, Value};

/// Most digits after the point that anyone may ask for.
const MAX_PRECISION: usize = 1000;

/// The format of a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    pub(super) align: Option<char>,
    /// `+`, a space, or nothing.
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) zero: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

/// Digits at the beginning as a number, and the rest.
pub(super) fn leading_number(text: &str) -> R<(Option<usize>, &str)> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.get(..text.len() - rest.len()).unwrap_or_default();
    if digits.is_empty() {
        return Ok((None, rest));
    }
    match digits.parse::<u32>() {
        Ok(number) => Ok((Some(number as usize), rest)),
        Err(_) => fail!("Too many decimal digits in format string"),
    }
}

impl Spec {
    /// Reads a specification.
    pub(super) fn parse(text: &str) -> R<Self> {
        let mut spec = Self::default();
        let mut rest = text;
        let aligns = |c: char| matches!(c, '<' | '>' | '=' | '^');
        let mut chars = rest.chars();
        match (chars.next(), chars.next()) {
            (Some(fill), Some(align)) if aligns(align) => {
                (spec.fill, spec.align) = (Some(fill), Some(align));
                rest = chars.as_str();
            }
            (Some(align), _) if aligns(align) => {
                spec.align = Some(align);
                rest = rest.get(1..).unwrap_or_default();
            }
            _ => {}
        }
        if let Some(sign) = rest.chars().next().filter(|c| matches!(c, '+' | '-' | ' ')) {
            spec.sign = Some(sign).filter(|sign| *sign != '-');
            rest = rest.get(1..).unwrap_or_default();
        }
        if let Some(after) = rest.strip_prefix('#') {
            (spec.alternate, rest) = (true, after);
        }
        if let Some(after) = rest.strip_prefix('0') {
            (spec.zero, rest) = (true, after);
        }
        let width;
        (width, rest) = leading_number(rest)?;
        spec.width = width.unwrap_or(0);
        if let Some(grouping) = rest.chars().next().filter(|c| matches!(c, ',' | '_')) {
            spec.grouping = Some(grouping);
            rest = rest.get(1..).unwrap_or_default();
        }
        if let Some(after) = rest.strip_prefix('.') {
            (spec.precision, rest) = leading_number(after)?;
            if spec.precision.is_none() {
                fail!("Format specifier missing precision");
            }
        }
        let mut chars = rest.chars();
        spec.kind = chars.next();
        if chars.next().is_some() {
            fail!("Invalid format specifier '{}'", super::lex::cut(text));
        }
        Ok(spec)
    }

    fn precision(&self, default: usize) -> R<usize> {
        match self.precision {
            Some(precision) if precision > MAX_PRECISION => fail!("a precision above {MAX_PRECISION} is not supported"),
            Some(precision) => {
                // Long fractions take long to compute.
                super::meter::steps(precision)?;
                Ok(precision)
            }
            None => Ok(default),
        }
    }

    /// Writes a text in the width; `body` begins with `prefix`, and zeros go between it and the rest.
    fn pad(&self, out: &mut Buf, prefix: &str, body: &str, default_align: char) -> R<()> {
        let length = prefix.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(length);
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let align = self.align.unwrap_or(if self.zero { '=' } else { default_align });
        let left = match align {
            '<' | '=' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        out.fill(fill, left)?;
        out.push_str(prefix)?;
        if align == '=' {
            out.fill(fill, missing)?;
        }
        out.push_str(body)?;
        out.fill(fill, if align == '=' { 0 } else { missing - left })
    }

    /// Writes a text.
    pub(super) fn text(&self, out: &mut Buf, text: &str) -> R<()> {
        super::meter::work(text.len())?;
        let end = self.precision.and_then(|count| text.char_indices().nth(count)).map_or(text.len(), |(at, _)| at);
        // A text has no sign before which zeros could go.
        let align = self.align.filter(|align| *align != '=').or(Some('<'));
        Self { align, ..self.clone() }.pad(out, "", text.get(..end).unwrap_or_default(), '<')
    }

    fn sign(&self, negative: bool) -> String {
        if negative { "-".to_owned() } else { self.sign.map(String::from).unwrap_or_default() }
    }

    /// Separators between groups of digits; zeros that fill the width are grouped too.
    fn grouped(&self, digits: &str, tail: &str, every: usize, prefix: usize) -> R<String> {
        let Some(separator) = self.grouping else { return Ok(format!("{digits}{tail}")) };
        let mut digits = digits.to_owned();
        if self.zero && self.align.is_none() {
            if self.width > 10_000 {
                fail!("a width above 10000 is not supported for grouped digits");
            }
            super::meter::work(self.width)?;
            let grouped = |count: usize| count + count.saturating_sub(1) / every;
            let mut count = digits.len();
            while grouped(count + 1) + tail.len() + prefix <= self.width {
                count += 1;
            }
            digits = "0".repeat(count - digits.len()) + &digits;
        }
        let count = digits.len();
        let mut out = String::new();
        for (at, c) in digits.chars().enumerate() {
            if at > 0 && (count - at).is_multiple_of(every) {
                out.push(separator);
            }
            out.push(c);
        }
        Ok(out + tail)
    }

    /// Writes an integer.
    pub(super) fn int(&self, out: &mut Buf, value: i128) -> R<()> {
        let magnitude = value.unsigned_abs();
        let (digits, base, every) = match self.kind {
            None | Some('d' | 'n' | 'i' | 'u') => (magnitude.to_string(), "", 3),
            Some('x') => (format!("{magnitude:x}"), "0x", 4),
            Some('X') => (format!("{magnitude:X}"), "0X", 4),
            Some('o') => (format!("{magnitude:o}"), "0o", 4),
            Some('b') => (format!("{magnitude:b}"), "0b", 4),
            Some('c') => {
                let c = u32::try_from(value).ok().and_then(char::from_u32);
                let Some(c) = c else { fail!("%c arg not in range(0x110000)") };
                return self.pad(out, "", &c.to_string(), '<');
            }
            Some(_) => return self.float(out, value as f64),
        };
        if self.precision.is_some() {
            fail!("Precision not allowed in integer format specifier");
        }
        let prefix = self.sign(value < 0) + if self.alternate { base } else { "" };
        let digits = self.grouped(&digits, "", every, prefix.len())?;
        self.pad(out, &prefix, &digits, '>')
    }

    /// Writes a float.
    pub(super) fn float(&self, out: &mut Buf, value: f64) -> R<()> {
        let (magnitude, kind) = (value.abs(), self.kind);
        let upper = matches!(kind, Some('E' | 'F' | 'G'));
        let mut body = if value.is_nan() {
            "nan".to_owned()
        } else if value.is_infinite() {
            "inf".to_owned()
        } else {
            match kind.map(|c| c.to_ascii_lowercase()) {
                Some('f') => format!("{magnitude:.*}", self.precision(6)?),
                Some('%') => format!("{:.*}%", self.precision(6)?, magnitude * 100.0),
                Some('e') => scientific(magnitude, self.precision(6)?),
                Some('g' | 'n') => general(magnitude, self.precision(6)?, self.alternate),
                None if self.precision.is_some() => {
                    let text = general(magnitude, self.precision(6)?, false);
                    if text.contains(['.', 'e']) { text } else { text + ".0" }
                }
                None => float_repr(magnitude),
                Some(other) => fail!("Unknown format code '{other}' for object of type 'float'"),
            }
        };
        if upper {
            body = body.to_uppercase();
        }
        let whole = body.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, tail) = body.split_at(whole);
        let prefix = self.sign(value.is_sign_negative() && !value.is_nan());
        let body = self.grouped(digits, tail, 3, prefix.len())?;
        self.pad(out, &prefix, &body, '>')
    }

    /// `format(value, spec)`.
    pub(super) fn write(&self, out: &mut Buf, value: &Value) -> R<()> {
        let numeric = matches!(self.kind, Some(c) if "bcdeEfFgGnoxX%".contains(c));
        match value {
            Value::Bool(b) if numeric => self.int(out, i128::from(*b)),
            Value::Int(i) => self.int(out, *i),
            Value::Float(_) if matches!(self.kind, Some('d' | 'x' | 'X' | 'o' | 'b' | 'c')) => {
                fail!("Unknown format code '{}' for object of type 'float'", self.kind.unwrap_or_default())
            }
            Value::Float(f) => self.float(out, *f),
            other if !matches!(self.kind, None | Some('s')) => {
                let kind = self.kind.unwrap_or_default();
                fail!("Unknown format code '{kind}' for object of type '{}'", other.type_name())
            }
            other => self.text(out, &to_str(other)?),
        }
    }
}

/// `d.ddde+XX`.
fn scientific(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// `%g`: so many significant digits, in the shorter of both forms.
fn general(magnitude: f64, precision: usize, keep_zeros: bool) -> String {
    let precision = precision.max(1);
    let text = scientific(magnitude, precision - 1);
    let (digits, tail) = text.split_once('e').unwrap_or((&text, "+00"));
    let exponent: i32 = tail.parse().unwrap_or(0);
    let trimmed = |digits: &str| match digits.contains('.') && !keep_zeros {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        return format!("{}e{tail}", trimmed(digits));
    }
    let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
    trimmed(&format!("{magnitude:.decimals$}"))
}

/// `ascii(value)`.
pub(super) fn ascii(value: &Value) -> R<Str> {
    let mut repr = Buf::default();
    write_repr(&mut repr, value, 0)?;
    let mut out = Buf::default();
    for c in repr.as_str().chars() {
        if c.is_ascii() {
            out.push(c)?;
        } else {
            out.push_str(&match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?;
        }
    }
    out.done()
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> R<Str> {
    let mut out = Buf::default();
    write_repr(&mut out, value, 0)?;
    out.done()
}

/// Converts a value according to a conversion letter (`r`, `s`, `a`).
pub(super) fn converted(value: &Value, conversion: char) -> R<Value> {
    Ok(Value::Str(match conversion {
        'r' => repr(value)?,
        's' => to_str(value)?,
        'a' => ascii(value)?,
        other if printable(other) => fail!("Unknown conversion specifier '{other}'"),
        _ => fail!("Unknown conversion specifier"),
    }))
}

/// A quoted text for a message.
pub(super) fn quoted(text: &str) -> R<Str> {
    let mut out = Buf::default();
    repr_text(&mut out, text)?;
    out.done()
}

/// A number as `%d` takes it.
pub(super) fn truncated(number: Number) -> R<i128> {
    match number {
        Number::Int(i) => Ok(i),
        Number::Float(f) if f.is_nan() => fail!("cannot convert float NaN to integer"),
        Number::Float(f) if f.is_infinite() => fail!("cannot convert float infinity to integer"),
        Number::Float(f) if f.abs() >= 1.7e38 => Err(super::number::too_large()),
        Number::Float(f) => Ok(f as i128),
    }
}
