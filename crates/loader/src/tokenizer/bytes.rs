//! The bytes of each token: one flat table for every kind of vocabulary.
//!
//! In byte-level vocabularies a character stands for a byte: printable bytes stand for themselves, the others are moved
//! to U+0100 and above, in order.

use super::spm::{PieceKind, SPACE, byte_of};

/// The byte that a character stands for.
fn stood_for(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The character that stands for a byte.
pub(super) fn stand_in(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte) - 0x7f,
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or_default()
}

/// The bytes that a token of a byte-level vocabulary stands for; `None` if it contains another character.
pub(super) fn from_byte_level(token: &str) -> Option<Vec<u8>> {
    // Collecting into an option would not reserve the room, for a hundred thousand tokens.
    let mut bytes = Vec::with_capacity(token.chars().count());
    append_byte_level(token, &mut bytes).then_some(bytes)
}

/// Appends the bytes that a token of a byte-level vocabulary stands for, or those before another character; returns whether
/// there is none.
fn append_byte_level(token: &str, bytes: &mut Vec<u8>) -> bool {
    // Most tokens are words: graphic characters stand for themselves.
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bytes.extend_from_slice(token.as_bytes());
        return true;
    }
    for c in token.chars() {
        let Some(byte) = stood_for(c) else { return false };
        bytes.push(byte);
    }
    true
}

/// How the text of a token becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Every character stands for a byte.
    ByteLevel,
    /// `▁` is a space and `<0x..>` a byte.
    SentencePiece,
}

/// The bytes and the kind of every id.
#[derive(Debug, Default)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    /// `(start, len)` in `bytes`; ids without a token have `present == false`.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    start: usize,
    len: u32,
    present: bool,
    special: bool,
}

impl TokenTable {
    /// A table for ids `0 .. size`, all absent.
    pub(super) fn new(size: usize) -> Self {
        Self { bytes: Vec::new(), entries: vec![Entry::default(); size] }
    }

    /// Sets an id by the text of its token. Special and user-defined tokens are spelled as they are.
    pub(super) fn set(&mut self, id: u32, text: &str, kind: PieceKind, spelling: Spelling) {
        let special = matches!(kind, PieceKind::Control | PieceKind::Unknown);
        let start = self.bytes.len();
        match spelling {
            Spelling::ByteLevel => {
                let stands = !special && kind != PieceKind::UserDefined;
                if !(stands && append_byte_level(text, &mut self.bytes)) {
                    self.bytes.truncate(start);
                    self.bytes.extend_from_slice(text.as_bytes());
                }
            }
            Spelling::SentencePiece => match byte_of(text).filter(|_| !special) {
                Some(byte) => self.bytes.push(byte),
                None if special => self.bytes.extend_from_slice(text.as_bytes()),
                None => self.bytes.extend_from_slice(text.replace(SPACE, " ").as_bytes()),
            },
        }
        let len = u32::try_from(self.bytes.len().saturating_sub(start)).unwrap_or(u32::MAX);
        if let Some(entry) = self.entries.get_mut(id as usize) {
            *entry = Entry { start, len, present: true, special };
        }
    }

    /// The number of ids, present or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of a token; `None` for an id without a token.
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let entry = self.entries.get(id as usize).filter(|entry| entry.present)?;
        self.bytes.get(entry.start..entry.start.saturating_add(entry.len as usize))
    }

    /// Whether a token steers the model rather than being text.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.entries.get(id as usize).is_some_and(|entry| entry.special)
    }

    /// Makes an id special.
    pub(super) fn mark_special(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.special = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_a_bijection() {
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=u8::MAX {
            let c = stand_in(byte);
            assert!(seen.insert(c), "{byte:#x}");
            assert_eq!(stood_for(c), Some(byte));
        }
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert_eq!(seen, alphabet.into_iter().collect());
        assert_eq!(from_byte_level("Ġthe").as_deref(), Some(b" the".as_slice()));
        assert_eq!(from_byte_level("a b"), None);
    }
}
