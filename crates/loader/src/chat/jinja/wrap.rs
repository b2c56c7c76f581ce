//! Filters that look at the words of a text.

use super::fail::{Fail, R, fail};
use super::lex::is_space;
use super::meter::{self, Held};
use super::strings;
use super::value::{Buf, Str, Value};

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Jinja's `title`: every word begins large.
pub(super) fn title(text: &str) -> R<Value> {
    let mut out = Buf::default();
    let separates = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut begins = true;
    for c in text.chars() {
        if separates(c) {
            out.push(c)?;
            begins = true;
        } else if std::mem::take(&mut begins) {
            c.to_uppercase().try_for_each(|c| out.push(c))?;
        } else {
            c.to_lowercase().try_for_each(|c| out.push(c))?;
        }
    }
    out.done().map(Value::Str)
}

/// The number of words.
pub(super) fn word_count(text: &str) -> R<Value> {
    meter::work(text.len())?;
    Ok(Value::Int(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count() as i128))
}

/// Takes out everything between `open` and `close`.
fn without(text: &str, open: &str, close: &str) -> R<Buf> {
    let (mut out, mut rest) = (Buf::default(), text);
    while let Some((before, after)) = rest.split_once(open) {
        let Some((_, tail)) = after.split_once(close) else { break };
        out.push_str(before)?;
        rest = tail;
    }
    out.push_str(rest)?;
    Ok(out)
}

/// Removes HTML tags, and decodes the most common entities.
pub(super) fn strip_tags(text: &str) -> R<Value> {
    let text = without(without(text, "<!--", "-->")?.as_str(), "<", ">")?;
    let mut joined = Buf::default();
    for (at, word) in text.as_str().split(is_space).filter(|word| !word.is_empty()).enumerate() {
        if at > 0 {
            joined.push(' ')?;
        }
        joined.push_str(word)?;
    }
    let (mut out, mut rest) = (Buf::default(), joined.as_str());
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before)?;
        let entity = after.split_once(';').filter(|(name, _)| name.len() < 10);
        let c = entity.and_then(|(name, tail)| {
            let c = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                "nbsp" => '\u{a0}',
                other => {
                    let code = other.strip_prefix('#')?;
                    let code = match code.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16),
                        None => code.parse(),
                    };
                    char::from_u32(code.ok()?)?
                }
            };
            Some((c, tail))
        });
        match c {
            Some((c, tail)) => {
                out.push(c)?;
                rest = tail;
            }
            None => {
                out.push('&')?;
                rest = after;
            }
        }
    }
    out.push_str(rest)?;
    out.done().map(Value::Str)
}

/// The first so many characters.
fn first_chars(text: &str, count: usize) -> &str {
    text.get(..text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)).unwrap_or_default()
}

/// `truncate`.
pub(super) fn truncate(text: &Str, length: i128, kill: bool, end: &str, leeway: i128) -> R<Value> {
    let ending = end.chars().count() as i128;
    if length < ending {
        fail!("expected length >= {ending}, got {length}");
    }
    if leeway < 0 {
        fail!("expected leeway >= 0, got {leeway}");
    }
    if text.count_chars()? as i128 <= length.saturating_add(leeway) {
        return Ok(Value::Str(text.clone()));
    }
    let mut head = first_chars(text, usize::try_from(length - ending).unwrap_or(usize::MAX));
    if !kill {
        head = head.rsplit_once(' ').map_or(head, |(before, _)| before);
    }
    let mut out = Buf::default();
    out.push_str(head)?;
    out.push_str(end)?;
    out.done().map(Value::Str)
}

/// `wordwrap`, which is Python's `textwrap` for every line.
pub(super) fn word_wrap(text: &str, width: i128, break_long: bool, with: &str, on_hyphens: bool) -> R<Value> {
    let mut out = Buf::default();
    for (at, line) in strings::lines(text, false).enumerate() {
        if at > 0 {
            out.push_str(with)?;
        }
        if width <= 0 {
            return Err(Fail::new(format!("invalid width {width} (must be > 0)")));
        }
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        wrap_line(&mut out, line, width, break_long, with, on_hyphens)?;
    }
    out.done().map(Value::Str)
}

/// White space that wraps.
fn wraps(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// The end of the chunk that begins at `start`: white space, a word, or the part of one up to a hyphen.
fn chunk_end(text: &[char], start: usize, on_hyphens: bool) -> usize {
    let at = |index: usize| text.get(index).copied();
    let run = |from: usize, fits: &dyn Fn(char) -> bool| {
        text.get(from..).map_or(from, |rest| from + rest.iter().take_while(|c| fits(**c)).count())
    };
    if at(start).is_some_and(wraps) {
        return run(start, &wraps);
    }
    if !on_hyphens {
        return run(start, &|c| !wraps(c));
    }
    let punctuated = |c: char| is_word(c) || "!\"'&.,?".contains(c);
    let letter = |c: char| is_word(c) && !c.is_numeric();
    let is = |index: Option<usize>, fits: &dyn Fn(char) -> bool| index.and_then(at).is_some_and(fits);
    // Two dashes or more between words.
    let dashes = |from: usize| {
        // The preceding character is checked first: inside a run of dashes it fails without a scan of the whole run.
        if !is(from.checked_sub(1), &punctuated) {
            return None;
        }
        let end = run(from, &|c| c == '-');
        (end >= from + 2 && at(end).is_some_and(is_word)).then_some(end)
    };
    if let Some(end) = dashes(start) {
        return end;
    }
    for end in start + 1..=text.len() {
        if at(end).is_none_or(wraps) || dashes(end).is_some() {
            return end;
        }
        if at(end) != Some('-') {
            continue;
        }
        let before = |back: usize| end.checked_sub(back);
        let hyphenated = (is(before(1), &letter) && is(before(2), &letter))
            || (is(before(1), &punctuated) && is(before(2), &|c| c == '-') && is(before(3), &letter));
        let next = if at(end + 2) == Some('-') { end + 3 } else { end + 2 };
        if hyphenated && at(end + 1).is_some_and(letter) && at(next).is_some_and(letter) {
            return end + 1;
        }
    }
    text.len()
}

fn wrap_line(out: &mut Buf, line: &str, width: usize, break_long: bool, with: &str, on_hyphens: bool) -> R<()> {
    let _held = Held::new(line.len().saturating_mul(4))?;
    let text: Vec<char> = line.chars().collect();
    let blank = |chunk: &[char]| chunk.iter().all(|c| is_space(*c));
    let push = |out: &mut Buf, chars: &[char]| chars.iter().try_for_each(|c| out.push(*c));
    let (mut at, mut lines) = (0, 0_usize);
    let mut chunk = 0..0;
    // Chunks are made as they are needed; one that is too long is cut in place.
    let next = |at: usize| at..if at < text.len() { chunk_end(&text, at, on_hyphens) } else { at };
    while at < text.len() {
        meter::step()?;
        if chunk.start != at {
            chunk = next(at);
        }
        if lines > 0 && blank(text.get(chunk.clone()).unwrap_or_default()) {
            at = chunk.end;
            chunk = next(at);
        }
        // The line contains the chunks between these, and its last chunk begins at `last`.
        let (start, mut last) = (at, at);
        while at < text.len() && at - start + (chunk.end - at) <= width {
            meter::work(chunk.end - at)?;
            last = at;
            at = chunk.end;
            chunk = next(at);
        }
        if at < text.len() && chunk.end - at > width {
            let left = width - (at - start);
            if break_long {
                let mut end = left;
                let whole = text.get(at..chunk.end).unwrap_or_default();
                if on_hyphens && whole.len() > left {
                    let hyphen = whole.get(..left).and_then(|head| head.iter().rposition(|c| *c == '-'));
                    let sound = |hyphen: &usize| {
                        *hyphen > 0 && whole.get(..*hyphen).is_some_and(|head| head.iter().any(|c| *c != '-'))
                    };
                    end = hyphen.filter(sound).map_or(left, |hyphen| hyphen + 1);
                }
                if end > 0 {
                    last = at;
                    at += end;
                    chunk = at..chunk.end;
                }
            } else if at == start {
                last = at;
                at = chunk.end;
                chunk = next(at);
            }
        }
        let mut end = at;
        if end > start && blank(text.get(last..end).unwrap_or_default()) {
            end = last;
        }
        if end > start {
            if lines > 0 {
                out.push_str(with)?;
            }
            push(out, text.get(start..end).unwrap_or_default())?;
            lines += 1;
        }
    }
    Ok(())
}
