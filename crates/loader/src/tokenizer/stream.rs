//! Text from ids as they come: whole characters only.

use super::Tokenizer;

/// Turns ids into text one at a time.
///
/// A piece is given out as soon as its characters are complete: the bytes of a character that is spread over several
/// tokens (Japanese, emoji) are held back until it is whole. Bytes that can no longer become a character are given
/// out as U+FFFD. The pieces joined, with that of [`finish`](Self::finish), are [`Tokenizer::decode`] of all the ids. A text
/// that was cut from outside ends before a character that the cut divides: [`take_incomplete`](Self::take_incomplete).
///
/// Special tokens are left out unless [`with_special`](Self::with_special) asks for them.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    pending: Vec<u8>,
    skip_special: bool,
    strip_space: bool,
}

impl StreamDecoder {
    /// A decoder at the beginning of a text.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let strip_space = tokenizer.strip_space();
        Self { tokenizer: tokenizer.clone(), pending: Vec::new(), skip_special: true, strip_space }
    }

    /// The ids continue a text (a prompt): a space in front of the first word is kept, which a SentencePiece decoder
    /// would drop at the beginning of a text.
    pub fn continuing(mut self) -> Self {
        self.strip_space = false;
        self
    }

    /// Special tokens are written out by name.
    pub fn with_special(mut self) -> Self {
        self.skip_special = false;
        self
    }

    /// Takes the next id; gives the text that has become complete, never empty. An id without a token adds nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let mut text = String::new();
        self.push_into(id, &mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Like [`Self::push`], appending to `out`.
    pub fn push_into(&mut self, id: u32, out: &mut String) {
        if self.skip_special && self.tokenizer.is_special(id) {
            return;
        }
        let Some(mut bytes) = self.tokenizer.token_bytes(id) else { return };
        if self.strip_space && !bytes.is_empty() {
            self.strip_space = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend_from_slice(bytes);
        self.emit(out, false);
    }

    /// The bytes that are still held back, incomplete characters as U+FFFD; the decoder is then empty.
    pub fn finish(&mut self) -> Option<String> {
        let mut text = String::new();
        self.finish_into(&mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Like [`Self::finish`], appending to `out`.
    pub fn finish_into(&mut self, out: &mut String) {
        self.emit(out, true);
    }

    /// Takes the bytes that are still held back, at most 3: the beginning of a character, where a text was cut within it.
    /// The decoder is then empty, and gives out nothing for them.
    pub fn take_incomplete(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Moves complete characters from `pending` to `out`. An incomplete character at the end is at most 3 bytes.
    fn emit(&mut self, out: &mut String, all: bool) {
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
                    out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let bad_len = match error.error_len() {
                        Some(len) => len,
                        None if all => bad.len(),
                        None => {
                            rest = bad;
                            break;
                        }
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = bad.get(bad_len..).unwrap_or_default();
                }
            }
        }
        let done = self.pending.len().saturating_sub(rest.len());
        self.pending.drain(..done);
    }
}
