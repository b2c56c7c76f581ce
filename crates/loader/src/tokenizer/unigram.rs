//! Unigram vocabularies: of all ways to write a word in pieces, the one with the best sum of scores.
//!
//! The pieces are sorted; from each position of the word the range of pieces with the same beginning narrows byte by
//! byte. That takes no memory beyond the vocabulary, and a position costs at most the length of the longest piece,
//! which [`UNIGRAM_PIECE`] bounds.

use std::collections::HashMap;

use super::error::TokenizerError;
use super::limits::UNIGRAM_PIECE;
use super::spm::byte_of;

/// Penalty of an unknown character below the score of the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// The bytes in `bytes`.
    start: u32,
    len: u32,
    id: u32,
    score: f64,
}

/// A unigram vocabulary.
#[derive(Debug)]
pub(super) struct Unigram {
    bytes: Vec<u8>,
    /// Sorted by their bytes, without duplicates.
    pieces: Vec<Piece>,
    /// The index of the first piece whose first byte is at least this.
    by_byte: Box<[u32; 257]>,
    unknown_score: f64,
    unk: Option<u32>,
    /// The `<0x..>` tokens, if the vocabulary falls back on bytes.
    fallback: Option<Box<[Option<u32>; 256]>>,
}

/// The best way to write the word up to a position.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f64,
    start: u32,
    /// The piece that ends here, or [`Best::UNKNOWN`].
    piece: u32,
}

impl Best {
    const UNKNOWN: u32 = u32::MAX;
    const UNREACHED: u32 = u32::MAX - 1;
}

impl Unigram {
    /// Builds the table from pieces with scores in the order of the ids; those that `hidden` names are not found in
    /// texts.
    ///
    /// # Errors
    /// [`TokenizerError::BadScore`] for a NaN, [`TokenizerError::PieceTooLong`], [`TokenizerError::IdOutOfRange`] for
    /// the unknown token.
    pub(super) fn new(
        tokens: &[(String, f64)],
        unk: Option<u32>,
        byte_fallback: bool,
        hidden: impl Fn(u32) -> bool,
    ) -> Result<Self, TokenizerError> {
        if let Some(unk) = unk {
            super::check_id(|| "unk_id".to_owned(), unk, tokens.len() as u64)?;
        }
        // Of two equal pieces the last one counts, as in the `tokenizers` library.
        let mut last: HashMap<&str, (u32, f64)> = HashMap::with_capacity(tokens.len());
        let mut worst = f64::INFINITY;
        let mut bytes_of = Box::new([None; 256]);
        for ((token, score), id) in tokens.iter().zip(0u32..) {
            if score.is_nan() {
                return Err(TokenizerError::BadScore { id: id as usize });
            }
            worst = worst.min(*score);
            if let Some(slot) = byte_of(token).and_then(|byte| bytes_of.get_mut(usize::from(byte))) {
                *slot = Some(id);
            }
            if token.is_empty() || hidden(id) {
                continue;
            }
            if token.len() > UNIGRAM_PIECE {
                return Err(TokenizerError::PieceTooLong { id, bytes: token.len(), limit: UNIGRAM_PIECE });
            }
            last.insert(token, (id, *score));
        }
        let mut sorted: Vec<(&str, (u32, f64))> = last.into_iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut bytes = Vec::with_capacity(sorted.iter().map(|(token, _)| token.len()).sum());
        let mut pieces = Vec::with_capacity(sorted.len());
        for (token, (id, score)) in sorted {
            pieces.push(Piece { start: bytes.len() as u32, len: token.len() as u32, id, score });
            bytes.extend_from_slice(token.as_bytes());
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(TokenizerError::Limit {
                what: "the pieces of the unigram vocabulary (bytes)",
                got: bytes.len() as u64,
                limit: u64::from(u32::MAX),
            });
        }
        let mut new = Self {
            bytes,
            pieces,
            by_byte: Box::new([0; 257]),
            unknown_score: worst - UNKNOWN_PENALTY,
            unk,
            fallback: byte_fallback.then_some(bytes_of),
        };
        let mut by_byte = Box::new([0; 257]);
        for (byte, slot) in (0u32..).zip(by_byte.iter_mut()) {
            *slot = new.pieces.partition_point(|piece| new.text(piece).first().is_some_and(|c| u32::from(*c) < byte))
                as u32;
        }
        new.by_byte = by_byte;
        Ok(new)
    }

    fn text(&self, piece: &Piece) -> &[u8] {
        let start = piece.start as usize;
        self.bytes.get(start..start + piece.len as usize).unwrap_or_default()
    }

    /// The id of a piece.
    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        let at = self.pieces.binary_search_by(|piece| self.text(piece).cmp(text.as_bytes())).ok()?;
        self.pieces.get(at).map(|piece| piece.id)
    }

    /// The id of the `<0x..>` token of that name.
    pub(super) fn id_of_byte(&self, name: &str) -> Option<u32> {
        *self.fallback.as_ref()?.get(usize::from(byte_of(name)?))?
    }

    /// Calls `found` with the length and the place of every piece that `text` begins with, the shortest first.
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let Some(first) = text.first().map(|c| usize::from(*c)) else { return };
        let bound = |byte: usize| self.by_byte.get(byte).map_or(0, |at| *at as usize);
        let (mut low, mut high) = (bound(first), bound(first + 1));
        for (depth, &byte) in text.iter().enumerate() {
            let at = |piece: &Piece| self.text(piece).get(depth).copied();
            let range = self.pieces.get(low..high).unwrap_or_default();
            if let [piece] = range {
                // One is left: compared at once, not byte by byte.
                if text.starts_with(self.text(piece)) {
                    found(piece.len as usize, low as u32);
                }
                return;
            }
            // All of them are equal up to here, so the last one shows whether any needs to be left out.
            if range.last().is_none_or(|piece| at(piece) < Some(byte)) {
                return;
            }
            if range.last().and_then(at) != Some(byte) {
                high = low + range.partition_point(|piece| at(piece) <= Some(byte));
            }
            if range.first().and_then(at) != Some(byte) {
                low += range.partition_point(|piece| at(piece) < Some(byte));
            }
            let Some(piece) = self.pieces.get(low).filter(|_| low < high) else { return };
            if piece.len as usize == depth + 1 {
                found(depth + 1, low as u32);
                low += 1;
                if low == high {
                    return;
                }
            }
        }
    }

    /// Appends the ids of one word.
    ///
    /// # Errors
    /// [`TokenizerError::NoUnknown`] if a character is not in the vocabulary and it has no unknown token.
    pub(super) fn encode(&self, word: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let unreached = Best { score: 0.0, start: 0, piece: Best::UNREACHED };
        let mut best = vec![unreached; word.len() + 1];
        let mut rest = word;
        while let Some(c) = rest.chars().next() {
            let start = word.len() - rest.len();
            let so_far = best.get(start).map_or(0.0, |best| best.score);
            let single = c.len_utf8();
            let mut has_single = false;
            let mut offer = |len: usize, score: f64, piece: u32| {
                if let Some(best) = best.get_mut(start + len) {
                    let score = score + so_far;
                    if best.piece == Best::UNREACHED || score > best.score {
                        *best = Best { score, start: start as u32, piece };
                    }
                }
            };
            self.prefixes(rest.as_bytes(), |len, at| {
                has_single |= len == single;
                offer(len, self.pieces.get(at as usize).map_or(0.0, |piece| piece.score), at);
            });
            if !has_single {
                offer(single, self.unknown_score, Best::UNKNOWN);
            }
            rest = rest.get(single..).unwrap_or_default();
        }
        let first = out.len();
        let mut end = word.len();
        while let Some(&Best { start, piece, .. }) = best.get(end).filter(|_| end > 0) {
            let mut start = start as usize;
            match self.pieces.get(piece as usize) {
                Some(piece) if Some(piece.id) != self.unk => out.push(piece.id),
                _ => {
                    // A run of unknown characters is looked up, and written, as one.
                    while let Some(before) = best.get(start).filter(|before| start > 0 && self.is_unknown(before)) {
                        start = before.start as usize;
                    }
                    self.write_unknown(word.get(start..end).unwrap_or_default(), out)?;
                }
            }
            if start >= end {
                break;
            }
            end = start;
        }
        if let Some(new) = out.get_mut(first..) {
            new.reverse();
        }
        Ok(())
    }

    fn is_unknown(&self, best: &Best) -> bool {
        match self.pieces.get(best.piece as usize) {
            Some(piece) => Some(piece.id) == self.unk,
            None => best.piece == Best::UNKNOWN,
        }
    }

    /// Appends the ids of a run of unknown characters, the last one first.
    fn write_unknown(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if let Some(id) = self.id_of(text) {
            out.push(id);
            return Ok(());
        }
        if let Some(ids) = &self.fallback {
            let id = |byte: u8| ids.get(usize::from(byte)).copied().flatten();
            if text.bytes().all(|byte| id(byte).is_some()) {
                out.extend(text.bytes().rev().filter_map(id));
                return Ok(());
            }
        }
        out.push(self.unk.ok_or_else(|| TokenizerError::NoUnknown { text: text.chars().take(8).collect() })?);
        Ok(())
    }
}
