//! Upper and lower case, and the kinds of characters, as in Python's `str`.

use std::sync::OnceLock;

use regex_automata::meta::Regex;

use super::fail::R;
use super::lex::is_space;
use super::meter::{self, Held};
use super::text::printable;
use super::value::{Buf, Value};

/// `str.lower`.
pub(super) fn lower(text: &str) -> R<Value> {
    meter::work(text.len())?;
    // The form of a sigma depends on the end of the word, so the whole text is needed; it grows to at most three times
    // its length.
    let _held = Held::new(text.len() * 3)?;
    Value::str(&text.to_lowercase())
}

/// `str.upper`.
pub(super) fn upper(text: &str) -> R<Value> {
    meter::work(text.len())?;
    let _held = Held::new(text.len() * 3)?;
    Value::str(&text.to_uppercase())
}

/// `str.casefold`.
pub(super) fn casefold(text: &str) -> R<Value> {
    let mut out = Buf::default();
    for c in text.chars() {
        match c {
            'ı' => out.push('ı')?,
            '\u{13a0}'..='\u{13f5}' => out.push(c)?,
            '\u{1e9e}' => out.push_str("ss")?,
            // Cherokee folds to its capitals.
            '\u{13f8}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => c.to_uppercase().try_for_each(|c| out.push(c))?,
            c if c.to_lowercase().ne(std::iter::once(c)) => c.to_lowercase().try_for_each(|c| out.push(c))?,
            c => c.to_uppercase().flat_map(char::to_lowercase).try_for_each(|c| out.push(c))?,
        }
    }
    out.done().map(Value::Str)
}

/// The title case of a character.
fn push_title(out: &mut Buf, c: char) -> R<()> {
    let digraph = match c {
        '\u{1c4}'..='\u{1c6}' => Some('\u{1c5}'),
        '\u{1c7}'..='\u{1c9}' => Some('\u{1c8}'),
        '\u{1ca}'..='\u{1cc}' => Some('\u{1cb}'),
        '\u{1f1}'..='\u{1f3}' => Some('\u{1f2}'),
        // Georgian has no title case.
        '\u{10d0}'..='\u{10ff}' => Some(c),
        _ => None,
    };
    if let Some(title) = digraph {
        return out.push(title);
    }
    if c == '\u{149}' {
        // The first half has no case, so the second one is the capital.
        return out.push_str("\u{2bc}N");
    }
    let mut upper = c.to_uppercase();
    upper.next().map_or(Ok(()), |first| out.push(first))?;
    upper.flat_map(char::to_lowercase).try_for_each(|c| out.push(c))
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> R<Value> {
    meter::work(text.len())?;
    let mut out = Buf::default();
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        push_title(&mut out, first)?;
    }
    let _held = Held::new(text.len() * 3)?;
    out.push_str(&chars.as_str().to_lowercase())?;
    out.done().map(Value::Str)
}

fn cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase() || matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}')
}

/// `str.title`.
pub(super) fn title(text: &str) -> R<Value> {
    let mut out = Buf::default();
    let mut inside = false;
    for c in text.chars() {
        if inside {
            c.to_lowercase().try_for_each(|c| out.push(c))?;
        } else {
            push_title(&mut out, c)?;
        }
        inside = cased(c);
    }
    out.done().map(Value::Str)
}

/// `str.swapcase`.
pub(super) fn swapcase(text: &str) -> R<Value> {
    let mut out = Buf::default();
    for c in text.chars() {
        if c.is_uppercase() {
            c.to_lowercase().try_for_each(|c| out.push(c))?;
        } else if c.is_lowercase() {
            c.to_uppercase().try_for_each(|c| out.push(c))?;
        } else {
            out.push(c)?;
        }
    }
    out.done().map(Value::Str)
}

/// Whether a text consists of characters of a class.
fn all(cell: &OnceLock<Option<Regex>>, pattern: &str, text: &str) -> bool {
    cell.get_or_init(|| Regex::new(pattern).ok()).as_ref().is_some_and(|regex| regex.is_match(text))
}

fn alpha(text: &str) -> bool {
    static LETTERS: OnceLock<Option<Regex>> = OnceLock::new();
    all(&LETTERS, r"\A\p{L}+\z", text)
}

fn decimal(text: &str) -> bool {
    static DIGITS: OnceLock<Option<Regex>> = OnceLock::new();
    all(&DIGITS, r"\A\p{Nd}+\z", text)
}

fn alphanumeric(text: &str) -> bool {
    static BOTH: OnceLock<Option<Regex>> = OnceLock::new();
    all(&BOTH, r"\A[\p{L}\p{N}]+\z", text)
}

/// Digits that are not decimal digits: superscripts, circled ones ...
fn other_digit(c: char) -> bool {
    matches!(u32::from(c),
        0xb2 | 0xb3 | 0xb9 | 0x1369..=0x1371 | 0x19da | 0x2070 | 0x2074..=0x2079 | 0x2080..=0x2089 | 0x2460..=0x2468
        | 0x2474..=0x247c | 0x2488..=0x2490 | 0x24ea | 0x24f5..=0x24fd | 0x24ff | 0x2776..=0x277e | 0x2780..=0x2788
        | 0x278a..=0x2792 | 0x10a40..=0x10a43 | 0x10e60..=0x10e68 | 0x11052..=0x1105a | 0x1f100..=0x1f10a)
}

/// Letters that are numbers in Chinese.
const NUMERALS: &str = "一二三四五六七八九十百千万萬亿億兆零〇壹贰叁肆伍陆柒捌玖拾佰仟貳參陸廿卅";

fn each(text: &str, fits: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(fits)
}

/// The methods `isalnum` ... `isupper`.
pub(super) fn is(text: &str, name: &str) -> R<bool> {
    // Characters beyond ASCII are looked up in tables.
    meter::work(if text.is_ascii() { text.len() } else { text.len().saturating_mul(16) })?;
    Ok(belongs(text, name))
}

fn belongs(text: &str, name: &str) -> bool {
    let one = |c: char, test: fn(&str) -> bool| test(c.encode_utf8(&mut [0; 4]));
    match name {
        "isalpha" => alpha(text),
        "isalnum" => alphanumeric(text),
        "isdecimal" => decimal(text),
        "isdigit" => each(text, |c| other_digit(c) || c.is_ascii_digit() || (!c.is_ascii() && one(c, decimal))),
        "isnumeric" => each(text, |c| c.is_numeric() || NUMERALS.contains(c)),
        "isspace" => each(text, is_space),
        "isprintable" => text.chars().all(printable),
        "isidentifier" => {
            let word = |c: char| c == '_' || c.is_alphanumeric();
            each(text, word) && text.chars().next().is_some_and(|c| !c.is_numeric())
        }
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(|c| cased(c) && !c.is_lowercase()),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(|c| cased(c) && !c.is_uppercase()),
        "istitle" => {
            let (mut found, mut inside) = (false, false);
            for c in text.chars() {
                if cased(c) {
                    // Inside of a word every letter is small, at its beginning it is not.
                    if c.is_lowercase() != inside {
                        return false;
                    }
                    found = true;
                }
                inside = cased(c);
            }
            found
        }
        _ => false,
    }
}
