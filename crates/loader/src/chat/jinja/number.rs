//! Numbers: how Python reads, writes and computes them.

use super::fail::{Fail, R, fail};
use super::lex::is_space;
use super::value::Value;

/// `repr` of a float: the shortest digits that give it back, with an exponent from 1e16 on and below 1e-4.
pub(super) fn float_repr(f: f64) -> String {
    if f.is_nan() {
        return "nan".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{f:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if f != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = format!("{f}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// Digits without underscores, which must be between digits.
fn without_underscores(text: &str) -> Option<String> {
    let good = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    good.then(|| text.replace('_', ""))
}

/// `int(text, base)`; `None` if Python raises `ValueError`.
pub(super) fn parse_int(text: &str, base: u32) -> R<Option<i128>> {
    super::meter::work(text.len())?;
    let text = text.trim_matches(is_space);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let (mut base, mut digits) = (base, digits);
    for (letter, radix) in [('x', 16), ('o', 8), ('b', 2)] {
        let rest = digits.strip_prefix('0').and_then(|rest| rest.strip_prefix([letter, letter.to_ascii_uppercase()]));
        if let Some(rest) = rest.filter(|_| base == radix || base == 0) {
            (base, digits) = (radix, rest.strip_prefix('_').unwrap_or(rest));
            break;
        }
    }
    if base == 0 {
        base = 10;
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0' && b != b'_') {
            return Ok(None);
        }
    }
    let Some(digits) = without_underscores(digits) else { return Ok(None) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let value = i128::from_str_radix(&digits, base).map_err(|_| too_large())?;
    Ok(Some(if negative { -value } else { value }))
}

/// `float(text)`; `None` if Python raises `ValueError`.
pub(super) fn parse_float(text: &str) -> R<Option<f64>> {
    super::meter::work(text.len())?;
    let text = text.trim_matches(is_space);
    let around = |at: usize| {
        let bytes = text.as_bytes();
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        digit(at.checked_sub(1)) && digit(Some(at + 1))
    };
    if text.match_indices('_').any(|(at, _)| !around(at)) {
        return Ok(None);
    }
    Ok(text.replace('_', "").parse().ok())
}

/// The error of integers beyond 128 bits.
pub(super) fn too_large() -> Fail {
    Fail::new("an integer is larger than 128 bits")
}

/// A number of one of Python's types.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Int(i128::from(*b))),
            Value::Int(i) => Some(Self::Int(*i)),
            Value::Float(f) => Some(Self::Float(*f)),
            _ => None,
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Float(f) => f,
        }
    }

    /// Python's order; `None` with NaN.
    pub(super) fn compare(self, other: Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Int(a), Self::Float(b)) if b.fract() == 0.0 && b.abs() < 1e38 => Some(a.cmp(&(b as i128))),
            (Self::Float(a), Self::Int(b)) if a.fract() == 0.0 && a.abs() < 1e38 => Some((a as i128).cmp(&b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(i) => Self::Int(i),
            Number::Float(f) => Self::Float(f),
        }
    }
}

fn zero(what: &str) -> Fail {
    Fail::new(format!("{what} by zero"))
}

/// `a // b` and `a % b` of integers, rounded down.
pub(super) fn int_divmod(a: i128, b: i128) -> R<(i128, i128)> {
    if b == 0 {
        return Err(zero("integer division or modulo"));
    }
    let (quotient, rest) = (a.checked_div(b).ok_or_else(too_large)?, a.checked_rem(b).ok_or_else(too_large)?);
    Ok(if rest != 0 && (rest < 0) != (b < 0) { (quotient - 1, rest + b) } else { (quotient, rest) })
}

/// `a // b` and `a % b` of floats, rounded down.
fn float_divmod(a: f64, b: f64) -> R<(f64, f64)> {
    if b == 0.0 {
        return Err(zero("float floor division"));
    }
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    } else if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    }
    let floor = if quotient == 0.0 {
        0.0_f64.copysign(a / b)
    } else if quotient - quotient.floor() > 0.5 {
        quotient.floor() + 1.0
    } else {
        quotient.floor()
    };
    Ok((floor, rest))
}

/// An operator of numbers.
pub(super) fn arith(op: super::ast::BinOp, a: Number, b: Number) -> R<Number> {
    use super::ast::BinOp;
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        let int = |result: Option<i128>| result.map(Number::Int).ok_or_else(too_large);
        return match op {
            BinOp::Add => int(a.checked_add(b)),
            BinOp::Sub => int(a.checked_sub(b)),
            BinOp::Mul => int(a.checked_mul(b)),
            BinOp::Div if b == 0 => Err(zero("division")),
            BinOp::Div => Ok(Number::Float(a as f64 / b as f64)),
            BinOp::FloorDiv => Ok(Number::Int(int_divmod(a, b)?.0)),
            BinOp::Mod => Ok(Number::Int(int_divmod(a, b)?.1)),
            BinOp::Pow if b < 0 && a == 0 => Err(Fail::new("0.0 cannot be raised to a negative power")),
            BinOp::Pow if b < 0 => Ok(Number::Float((a as f64).powf(b as f64))),
            BinOp::Pow => match (a, u32::try_from(b)) {
                (0 | 1, _) => Ok(Number::Int(if b == 0 { 1 } else { a })),
                (-1, _) => Ok(Number::Int(if b % 2 == 0 { 1 } else { -1 })),
                (_, Ok(b)) => int(a.checked_pow(b)),
                (_, Err(_)) => Err(too_large()),
            },
        };
    }
    let (a, b) = (a.float(), b.float());
    Ok(Number::Float(match op {
        BinOp::Add => a + b,
        BinOp::Sub => a - b,
        BinOp::Mul => a * b,
        BinOp::Div if b == 0.0 => return Err(zero("float division")),
        BinOp::Div => a / b,
        BinOp::FloorDiv => float_divmod(a, b)?.0,
        BinOp::Mod => float_divmod(a, b)?.1,
        BinOp::Pow if a == 0.0 && b < 0.0 => fail!("0.0 cannot be raised to a negative power"),
        BinOp::Pow if a < 0.0 && b.fract() != 0.0 => fail!("complex numbers are not supported"),
        BinOp::Pow => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                fail!("(34, 'Numerical result out of range')");
            }
            power
        }
    }))
}
