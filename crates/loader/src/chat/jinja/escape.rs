//! Escapes in string literals: those of Python.

/// The text that a literal means.
///
/// # Errors
/// A message if an escape is cut off or does not name a character.
pub(super) fn unescape(literal: &str) -> Result<String, String> {
    let mut out = String::with_capacity(literal.len());
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let Some(c) = after.chars().next() else { return Err("\\ at end of string".to_owned()) };
        let tail = after.get(c.len_utf8()..).unwrap_or_default();
        rest = tail;
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let length = after.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                rest = after.get(length..).unwrap_or_default();
                let code = u32::from_str_radix(after.get(..length).unwrap_or_default(), 8);
                out.extend(code.ok().and_then(char::from_u32));
            }
            'x' => rest = code(tail, 2, 'x', &mut out)?,
            'u' => rest = code(tail, 4, 'u', &mut out)?,
            'U' => rest = code(tail, 8, 'U', &mut out)?,
            'N' => return Err("\\N{...} escapes are not supported".to_owned()),
            c if c.is_ascii() => out.extend(['\\', c]),
            // Python first turns a character beyond ASCII into an escape, and the preceding backslash applies to its
            // backslash.
            c => out.push_str(&match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Reads so many hexadecimal digits and gives the rest.
fn code<'a>(text: &'a str, digits: usize, letter: char, out: &mut String) -> Result<&'a str, String> {
    let hex = text.get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let code = code.ok_or_else(|| format!("truncated \\{letter} escape"))?;
    out.push(char::from_u32(code).ok_or_else(|| format!("\\{letter} escape {code:x} is not a single character"))?);
    Ok(text.get(digits..).unwrap_or_default())
}
