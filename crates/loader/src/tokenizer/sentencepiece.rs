//! Reads SentencePiece's `tokenizer.model`, a protocol buffer, into the same struct that GGUF files fill.
//!
//! Only the relevant fields are read: the pieces, and from the settings of trainer and normaliser the kind of model,
//! the special ids, and the treatment of spaces. Unknown fields are skipped, as the format requires.

use super::error::TokenizerError;
use super::gguf::GgufVocab;
use super::limits::at_most;

/// Pieces of a model: an empty one takes two bytes of the file, and a hundred in memory.
const MAX_PIECES: usize = 4 << 20;

/// The value of a field.
enum Value<'b> {
    Number(u64),
    Float(f32),
    Bytes(&'b [u8]),
}

impl Value<'_> {
    /// A boolean or an enumeration; the format writes negative numbers as 64-bit two's complement.
    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(value) => Some(value.cast_signed()),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

fn malformed(reason: &'static str) -> TokenizerError {
    TokenizerError::Library { stage: "reading tokenizer.model", reason: reason.to_owned() }
}

/// The fields of a message, in order.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], TokenizerError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| malformed("a field is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, TokenizerError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number has more than 64 bits"))
    }

    fn field(&mut self) -> Result<(u64, Value<'b>), TokenizerError> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Number(0)
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| malformed("a field is cut off"))?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Float(f32::from_le_bytes(bytes.try_into().map_err(|_| malformed("a field is cut off"))?))
            }
            _ => return Err(malformed("it is not a protocol buffer")),
        };
        Ok((key >> 3, value))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u64, Value<'b>), TokenizerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Reads the bytes of a model.
pub(super) fn read(bytes: &[u8]) -> Result<GgufVocab, TokenizerError> {
    let mut vocab =
        GgufVocab { add_space_prefix: Some(true), remove_extra_whitespaces: Some(true), ..GgufVocab::default() };
    // Defaults of the format: a unigram model with these special ids.
    let (mut kind, mut unk, mut bos, mut eos, mut pad) = (1, 0, 1, 2, -1);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(piece)) => {
                let (mut text, mut score, mut piece_kind) = (String::new(), 0.0, 1);
                for field in Fields(piece) {
                    match field? {
                        (1, value) => text = value.text().ok_or_else(|| malformed("a piece is not UTF-8"))?.to_owned(),
                        (2, Value::Float(value)) => score = value,
                        (3, value) => piece_kind = value.number().and_then(|n| i32::try_from(n).ok()).unwrap_or(1),
                        _ => {}
                    }
                }
                at_most("the pieces of tokenizer.model", vocab.tokens.len() + 1, MAX_PIECES)?;
                vocab.tokens.push(text);
                vocab.scores.push(score);
                vocab.token_types.push(piece_kind);
            }
            (2, Value::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    let (number, value) = field?;
                    let target = match number {
                        3 => &mut kind,
                        40 => &mut unk,
                        41 => &mut bos,
                        42 => &mut eos,
                        43 => &mut pad,
                        _ => continue,
                    };
                    *target = value.number().unwrap_or(*target);
                }
            }
            (3, Value::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    match field? {
                        (2, Value::Bytes(map)) if !map.is_empty() => vocab.precompiled_charsmap = Some(map.to_owned()),
                        (3, value) => vocab.add_space_prefix = value.number().map(|flag| flag != 0),
                        (4, value) => vocab.remove_extra_whitespaces = value.number().map(|flag| flag != 0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    vocab.model = match kind {
        1 => "t5",
        2 => "llama",
        _ => "SentencePiece word or char",
    }
    .to_owned();
    // An id that the vocabulary lacks means that there is no such token.
    let id = |id: i64| u32::try_from(id).ok().filter(|id| (*id as usize) < vocab.tokens.len());
    let ids = (id(unk), id(bos), id(eos), id(pad));
    (vocab.unk, vocab.bos, vocab.eos, vocab.pad) = ids;
    Ok(vocab)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_bytes_are_errors() {
        for bytes in [&[0x0a, 0x05, 0x01][..], &[0xff; 12], &[0x0b], &[0x0a, 0x02, 0x0a, 0xff]] {
            assert!(read(bytes).is_err(), "{bytes:x?}");
        }
        assert_eq!(read(&[]).expect("an empty message").tokens.len(), 0);
    }
}
