//! Methods of `str`.

use super::args::{Passed, flag, index, int_or, required, text, width};
use super::case;
use super::fail::{Fail, R, fail};
use super::lex::is_space;
use super::meter;
use super::ops::iterate;
use super::value::{Buf, Items, Kind, Str, Value};

/// Calls a method of a text.
pub(super) fn call(this: &Str, name: &'static str, passed: Passed) -> R<Value> {
    meter::work(this.len() + 16)?;
    match name {
        "format" => return super::percent::format(this, &passed),
        "format_map" => {
            let [map] = passed.only("format_map")?;
            let Some(Value::Dict(dict)) = map else { fail!("format_map() argument must be a mapping") };
            let named = dict.entries().iter().filter_map(|(key, value)| match key {
                Value::Str(key) => Some(((**key).into(), value.clone())),
                _ => None,
            });
            return super::percent::format(this, &Passed { positional: Vec::new(), named: named.collect() });
        }
        "split" | "rsplit" => {
            let [separator, limit] = passed.bind(name, ["sep", "maxsplit"])?;
            return split(this, separator, int_or(limit.as_ref(), -1)?, name == "rsplit");
        }
        "splitlines" => {
            let [keep] = passed.bind(name, ["keepends"])?;
            let mut items = Items::default();
            for line in lines(this, flag(keep.as_ref())) {
                items.push(Value::str(line)?)?;
            }
            return items.list();
        }
        "expandtabs" => {
            let [size] = passed.bind(name, ["tabsize"])?;
            return expand_tabs(this, width(int_or(size.as_ref(), 8)?));
        }
        "encode" | "maketrans" | "translate" => fail!("str.{name}() is not supported"),
        _ => {}
    }
    let args: [Option<Value>; 3] = passed.only(name)?;
    let given = args.iter().flatten().count();
    let limits = match name {
        "replace" => 2..=3,
        "count" | "find" | "index" | "rfind" | "rindex" | "startswith" | "endswith" => 1..=3,
        "center" | "ljust" | "rjust" => 1..=2,
        "join" | "partition" | "rpartition" | "removeprefix" | "removesuffix" | "zfill" => 1..=1,
        "strip" | "lstrip" | "rstrip" => 0..=1,
        _ => 0..=0,
    };
    if !limits.contains(&given) {
        fail!("str.{name}() takes {} to {} arguments ({given} given)", limits.start(), limits.end());
    }
    let [first, second, third] = args;
    let bool = |b: bool| Ok(Value::Bool(b));
    match name {
        "lower" => case::lower(this),
        "upper" => case::upper(this),
        "casefold" => case::casefold(this),
        "capitalize" => case::capitalize(this),
        "title" => case::title(this),
        "swapcase" => case::swapcase(this),
        "strip" => strip(this, first.as_ref(), true, true),
        "lstrip" => strip(this, first.as_ref(), true, false),
        "rstrip" => strip(this, first.as_ref(), false, true),
        "startswith" | "endswith" => starts(this, &required(first, name, "prefix")?, second, third, name == "endswith"),
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let part = text(&required(first, name, "sub")?, "the argument")?;
            search(this, &part, second, third, name)
        }
        "replace" => {
            let old = text(&required(first, name, "old")?, "replace() argument 1")?;
            let new = text(&required(second, name, "new")?, "replace() argument 2")?;
            replace(this, &old, &new, int_or(third.as_ref(), -1)?)
        }
        "center" | "ljust" | "rjust" => {
            let wide = width(index(&required(first, name, "width")?)?);
            let fill = second.map(|fill| text(&fill, "the fill character")).transpose()?;
            let fill = match fill.as_deref().map(|fill| (fill.chars().next(), fill.chars().count())) {
                None => ' ',
                Some((Some(fill), 1)) => fill,
                Some(_) => fail!("The fill character must be exactly one character long"),
            };
            justify(this, wide, fill, name)
        }
        "zfill" => {
            let wide = width(index(&required(first, name, "width")?)?);
            let missing = wide.saturating_sub(this.count_chars()?);
            let body = this.strip_prefix(['+', '-']).unwrap_or(this);
            let mut out = Buf::default();
            out.push_str(this.get(..this.len() - body.len()).unwrap_or_default())?;
            out.fill('0', missing)?;
            out.push_str(body)?;
            out.done().map(Value::Str)
        }
        "join" => {
            let items = iterate(&required(first, name, "iterable")?)?;
            let mut out = Buf::default();
            for (at, item) in items.as_slice().iter().enumerate() {
                let Value::Str(part) = item else {
                    fail!("sequence item {at}: expected str instance, {} found", item.type_name());
                };
                if at > 0 {
                    out.push_str(this)?;
                }
                out.push_str(part)?;
            }
            out.done().map(Value::Str)
        }
        "partition" | "rpartition" => {
            let separator = text(&required(first, name, "sep")?, "the separator")?;
            if separator.is_empty() {
                fail!("empty separator");
            }
            let found = if name == "partition" { this.find(&*separator) } else { this.rfind(&*separator) };
            let parts = match found {
                Some(at) => [
                    this.get(..at).unwrap_or_default(),
                    &separator,
                    this.get(at + separator.len()..).unwrap_or_default(),
                ],
                None if name == "partition" => [&**this, "", ""],
                None => ["", "", &**this],
            };
            Value::tuple(parts.into_iter().map(Value::str).collect::<R<_>>()?)
        }
        "removeprefix" | "removesuffix" => {
            let part = text(&required(first, name, "affix")?, "the argument")?;
            let rest = if name == "removeprefix" { this.strip_prefix(&*part) } else { this.strip_suffix(&*part) };
            rest.map_or_else(|| Ok(Value::Str(this.clone())), Value::str)
        }
        "isascii" => bool(this.is_ascii()),
        _ => bool(case::is(this, name)?),
    }
}

/// The borders of lines, as `str.splitlines` sees them.
fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The lines of a text, with or without their ends.
pub(super) fn lines(text: &str, keep: bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = rest.find(is_line_end).unwrap_or(rest.len());
        let tail = rest.get(at..).unwrap_or_default();
        let end = match tail.starts_with("\r\n") {
            true => 2,
            false => tail.chars().next().map_or(0, char::len_utf8),
        };
        let line = rest.get(..if keep { at + end } else { at });
        rest = rest.get(at + end..).unwrap_or_default();
        line
    })
}

fn expand_tabs(this: &str, size: usize) -> R<Value> {
    let (mut out, mut column) = (Buf::default(), 0_usize);
    for c in this.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                let count = size - column % size;
                out.fill(' ', count)?;
                column += count;
            }
            '\n' | '\r' => {
                out.push(c)?;
                column = 0;
            }
            c => {
                out.push(c)?;
                column += 1;
            }
        }
    }
    out.done().map(Value::Str)
}

/// `strip`: white space, or any of the given characters.
pub(super) fn strip(this: &Str, chars: Option<&Value>, left: bool, right: bool) -> R<Value> {
    let set = match chars {
        None | Some(Value::None) => None,
        Some(value) => Some(text(value, "strip arg")?),
    };
    if let Some(set) = &set {
        meter::work(this.len().saturating_mul(set.len() / 16))?;
    }
    let strips = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
    let mut rest: &str = this;
    if left {
        rest = rest.trim_start_matches(strips);
    }
    if right {
        rest = rest.trim_end_matches(strips);
    }
    if rest.len() == this.len() { Ok(Value::Str(this.clone())) } else { Value::str(rest) }
}

/// The part of a text between two positions in characters, and its beginning in bytes.
fn part(this: &Str, start: Option<Value>, end: Option<Value>) -> R<Option<(&str, usize)>> {
    let count = this.count_chars()? as i128;
    let clamp = |value: Option<Value>, default: i128| -> R<i128> {
        let at = int_or(value.as_ref(), default)?;
        Ok(if at < 0 { at.saturating_add(count).max(0) } else { at })
    };
    let (start, end) = (clamp(start, 0)?, clamp(end, count)?.min(count));
    if start > end {
        return Ok(None);
    }
    let byte = |at: i128| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if this.ascii() { at } else { this.char_indices().nth(at).map_or(this.len(), |(at, _)| at) }
    };
    let (start, end) = (byte(start), byte(end));
    Ok(this.get(start..end).map(|part| (part, start)))
}

fn starts(this: &Str, affix: &Value, start: Option<Value>, end: Option<Value>, at_end: bool) -> R<Value> {
    let found = part(this, start, end)?;
    let fits = |affix: &Value| {
        let affix = text(affix, if at_end { "endswith first arg" } else { "startswith first arg" })?;
        Ok(found.is_some_and(|(part, _)| if at_end { part.ends_with(&*affix) } else { part.starts_with(&*affix) }))
    };
    if let Value::Seq(seq) = affix
        && seq.kind == Kind::Tuple
    {
        for affix in &seq.items {
            meter::step()?;
            if fits(affix)? {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    fits(affix).map(Value::Bool)
}

fn search(this: &Str, sub: &str, start: Option<Value>, end: Option<Value>, name: &str) -> R<Value> {
    let found = part(this, start, end)?;
    if name == "count" {
        let count = found.map_or(0, |(part, _)| match sub.is_empty() {
            true => part.chars().count() + 1,
            false => part.matches(sub).count(),
        });
        return Ok(Value::Int(count as i128));
    }
    let at = found.and_then(|(part, offset)| {
        let at = if name.starts_with('r') { part.rfind(sub) } else { part.find(sub) };
        at.map(|at| at + offset)
    });
    match at {
        Some(at) if this.ascii() => Ok(Value::Int(at as i128)),
        Some(at) => Ok(Value::Int(this.get(..at).unwrap_or_default().chars().count() as i128)),
        None if name.ends_with("index") => Err(Fail::new("substring not found")),
        None => Ok(Value::Int(-1)),
    }
}

/// `str.replace`; a negative count is all.
pub(super) fn replace(this: &Str, old: &str, new: &str, count: i128) -> R<Value> {
    meter::work(this.len())?;
    let mut left = if count < 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
    if left == 0 || !this.contains(old) {
        return Ok(Value::Str(this.clone()));
    }
    let mut out = Buf::default();
    let mut last = 0;
    for (at, found) in this.match_indices(old) {
        let Some(next) = left.checked_sub(1) else { break };
        left = next;
        out.push_str(this.get(last..at).unwrap_or_default())?;
        out.push_str(new)?;
        last = at + found.len();
    }
    out.push_str(this.get(last..).unwrap_or_default())?;
    out.done().map(Value::Str)
}

/// `center`, `ljust`, `rjust`.
pub(super) fn justify(this: &Str, wide: usize, fill: char, name: &str) -> R<Value> {
    let missing = wide.saturating_sub(this.count_chars()?);
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & wide & 1),
    };
    let mut out = Buf::default();
    out.fill(fill, left)?;
    out.push_str(this)?;
    out.fill(fill, missing - left)?;
    out.done().map(Value::Str)
}

fn split(this: &Str, separator: Option<Value>, limit: i128, from_end: bool) -> R<Value> {
    let limit = if limit < 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut items = Items::default();
    let mut rest: &str = this;
    match separator {
        None | Some(Value::None) => {
            loop {
                rest = if from_end { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
                if rest.is_empty() {
                    break;
                }
                if items.as_slice().len() == limit {
                    // The other end keeps its white space.
                    items.push(Value::str(rest)?)?;
                    break;
                }
                let word = if from_end {
                    let at =
                        rest.char_indices().rev().find(|(_, c)| is_space(*c)).map_or(0, |(at, c)| at + c.len_utf8());
                    let (before, word) = rest.split_at(at);
                    rest = before;
                    word
                } else {
                    let (word, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
                    rest = after;
                    word
                };
                items.push(Value::str(word)?)?;
            }
        }
        Some(separator) => {
            let separator = text(&separator, "the separator")?;
            if separator.is_empty() {
                fail!("empty separator");
            }
            while items.as_slice().len() < limit {
                let cut = if from_end { rest.rsplit_once(&*separator) } else { rest.split_once(&*separator) };
                let Some((before, after)) = cut else { break };
                let (piece, remainder) = if from_end { (after, before) } else { (before, after) };
                items.push(Value::str(piece)?)?;
                rest = remainder;
            }
            items.push(Value::str(rest)?)?;
        }
    }
    if from_end {
        items.as_mut_slice().reverse();
    }
    items.list()
}
