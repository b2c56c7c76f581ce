//! Looks at the shape of a `tokenizer.json` before it is parsed.
//!
//! The parser builds a tree of everything but the model and the added tokens: 32 bytes and more for every value,
//! however short, and one call for every level. So levels and values are counted first, in one pass without a stack.

use super::error::TokenizerError;
use super::limits::{JSON_DEPTH, STAGE_VALUES, at_most};

/// Counts levels, and values outside of `model` and `added_tokens`. What is not JSON is left to the parser.
///
/// # Errors
/// [`TokenizerError::Limit`].
pub(super) fn check(bytes: &[u8]) -> Result<(), TokenizerError> {
    let (mut depth, mut values) = (0usize, 0usize);
    // Whether the current value belongs to a stage, and the last text at the top level, which may be its key.
    let (mut counted, mut key) = (true, None);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let start = at + 1;
                at = start;
                while let Some(&byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if byte == b'\\' { 2 } else { 1 };
                }
                if depth == 1 {
                    key = bytes.get(start..at);
                }
            }
            b':' if depth == 1 => counted = !matches!(key, Some(b"model" | b"added_tokens")),
            b',' if counted => values += 1,
            b'{' | b'[' => {
                depth += 1;
                values += usize::from(counted);
                at_most("levels of tokenizer.json", depth, JSON_DEPTH)?;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at_most("values of the stages of tokenizer.json", values, STAGE_VALUES)?;
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_values_of_the_stages_are_counted() {
        assert!(check(br#"{"model": {"vocab": {"a]": 0, "\"{": 1}}, "x": [1, 2]}"#).is_ok());
        let deep = |n: usize| format!(r#"{{"normalizer": {}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(check(deep(JSON_DEPTH - 1).as_bytes()).is_ok());
        assert!(check(deep(JSON_DEPTH).as_bytes()).is_err());
        assert!(check("[".repeat(10_000_000).as_bytes()).is_err());
        let wide = |key: &str| format!(r#"{{"{key}": [{}0]}}"#, "0,".repeat(STAGE_VALUES));
        assert!(check(wide("model").as_bytes()).is_ok());
        for key in ["normalizer", "mod\\u0065l", "other"] {
            assert!(check(wide(key).as_bytes()).is_err(), "{key}");
        }
    }
}
