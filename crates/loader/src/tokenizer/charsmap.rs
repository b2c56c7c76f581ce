//! SentencePiece's normalisation rules (`precompiled_charsmap`).
//!
//! The bytes hold the length of a double-array trie, the trie, and the replacements, each ended by a zero. They come
//! from a file: every index is checked, and indices out of range match nothing.

use unicode_segmentation::UnicodeSegmentation;

use super::error::TokenizerError;
use super::normalize::Out;

/// The rules.
#[derive(Debug)]
pub(super) struct Charsmap {
    trie: Vec<u32>,
    replacements: String,
}

fn bad(reason: &'static str) -> TokenizerError {
    TokenizerError::Library { stage: "reading precompiled_charsmap", reason: reason.to_owned() }
}

impl Charsmap {
    /// Reads the rules.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] for malformed bytes.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| bad("it is cut off"))?;
        let len = u32::from_le_bytes(*len) as usize / 4 * 4;
        let (trie, replacements) = rest.split_at_checked(len).ok_or_else(|| bad("its trie is cut off"))?;
        let (units, _) = trie.as_chunks::<4>();
        let trie = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = std::str::from_utf8(replacements).map_err(|_| bad("its replacements are not UTF-8"))?;
        Ok(Self { trie, replacements: replacements.to_owned() })
    }

    /// Like [`Self::new`], from base64.
    ///
    /// # Errors
    /// The errors of [`Self::new`].
    pub(super) fn from_base64(text: &str) -> Result<Self, TokenizerError> {
        let digits = text.trim_end_matches('=');
        if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
            return Err(bad("it is not base64"));
        }
        let (mut bytes, mut word, mut bits) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0u32);
        for digit in digits.bytes() {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err(bad("it is not base64")),
            };
            word = (word << 6) | u32::from(value);
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push((word >> bits) as u8);
                word &= (1 << bits) - 1;
            }
        }
        Self::new(&bytes)
    }

    /// Replacement by the shortest rule that begins a text.
    fn replacement(&self, text: &str) -> Option<&str> {
        let unit = |at: usize| self.trie.get(at).copied();
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(unit(0)?);
        for &byte in text.as_bytes() {
            if byte == 0 {
                return None;
            }
            at ^= usize::from(byte);
            let found = unit(at)?;
            if found & (1 << 31 | 0xff) != u32::from(byte) {
                return None;
            }
            at ^= offset(found);
            if found >> 8 & 1 == 1 {
                let start = (unit(at)? & 0x7fff_ffff) as usize;
                let tail = self.replacements.get(start..)?;
                return Some(tail.split_once('\0').map_or(tail, |(replacement, _)| replacement));
            }
        }
        None
    }

    /// Applies the rules: to whole graphemes of less than six bytes, then to single characters.
    ///
    /// # Errors
    /// The errors of [`Out::push_str`].
    pub(super) fn apply(&self, text: &str, out: &mut Out<'_>) -> Result<(), TokenizerError> {
        for grapheme in text.graphemes(true) {
            if grapheme.len() < 6
                && let Some(replacement) = self.replacement(grapheme)
            {
                out.push_str(replacement)?;
                continue;
            }
            let mut buffer = [0; 4];
            for c in grapheme.chars() {
                let part = c.encode_utf8(&mut buffer);
                match self.replacement(part) {
                    Some(replacement) => out.push_str(replacement)?,
                    None => out.push(c)?,
                }
            }
        }
        Ok(())
    }
}
