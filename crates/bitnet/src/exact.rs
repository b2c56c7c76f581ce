//! Tokens that spell a text byte by byte, at any place in a text.

use loader::tokenizer::{Tokenizer, TokenizerError};

/// Tokens whose bytes are just those of `text`; `None` if the tokenizer has no such spelling (because it changes
/// letters, for example). Special tokens that are written out in it are text like any other.
pub(crate) fn encode_exact(tokenizer: &Tokenizer, text: &str) -> Result<Option<Vec<u32>>, TokenizerError> {
    let ids = tokenizer.encode_text(text)?;
    if spell(tokenizer, &ids, text.as_bytes()) {
        return Ok(Some(ids));
    }
    // Vocabularies of SentencePiece add a space before a text: here it is before a line feed, which is removed again.
    let ids = tokenizer.encode_text(&format!("\n{text}"))?;
    let mut before = Vec::new();
    for (i, &id) in ids.iter().enumerate() {
        before.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        if before.ends_with(b"\n") {
            let rest = &ids[i + 1..];
            return Ok(spell(tokenizer, rest, text.as_bytes()).then(|| rest.to_vec()));
        }
    }
    Ok(None)
}

/// Whether `ids` spell `bytes`.
fn spell(tokenizer: &Tokenizer, ids: &[u32], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    ids.iter().all(|&id| {
        let after = tokenizer.token_bytes(id).and_then(|token| rest.strip_prefix(token));
        rest = after.unwrap_or_default();
        after.is_some()
    }) && rest.is_empty()
}
