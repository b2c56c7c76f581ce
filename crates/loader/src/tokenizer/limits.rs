//! Limits of a tokenizer's file, and of a text under it.
//!
//! Files are untrusted. Everything that a file can make large is either proportional to the file itself or bounded
//! here, and rejected with name and number if it is larger. Texts are counted by a [`Meter`].

use super::error::TokenizerError;

/// Nesting of a `tokenizer.json`; real ones have 8 levels.
pub(super) const JSON_DEPTH: usize = 32;
/// Values in the JSON of all stages together (everything but the model and the added tokens).
pub(super) const STAGE_VALUES: usize = 65_536;
/// Steps of the normalizer and of the pre-tokenizer, each.
pub(super) const STEPS: usize = 64;
/// Bytes of all patterns of a file together.
pub(super) const PATTERN_BYTES: usize = 64 << 10;
/// Instructions of all patterns of a file together, counted repetitions written out.
pub(super) const PATTERN_CODE: usize = 65_536;
/// Ranges of characters of all patterns of a file together.
pub(super) const PATTERN_RANGES: usize = 1 << 18;
/// Groups within groups of a pattern.
pub(super) const PATTERN_DEPTH: usize = 24;
/// Bytes of all added tokens together, as they are searched for.
pub(super) const ADDED_BYTES: usize = 2 << 20;
/// Bytes of one piece of a unigram vocabulary: every position of a text is compared with this many bytes at most.
pub(super) const UNIGRAM_PIECE: usize = 512;
/// Ids that a post-processor puts around a text.
pub(super) const AFFIX_IDS: usize = 256;
/// Longest text in bytes: positions are 32-bit, and a space may grow to three bytes.
pub(super) const TEXT_BYTES: usize = 1 << 30;
/// The maximum growth factor of a normalised text.
pub(super) const GROWTH: usize = 8;
/// The growth that is always allowed, even for a short text.
const GROWTH_FREE: usize = 4096;
/// Bytes that all steps together read and write for one byte of the text.
const WORK_PER_BYTE: u64 = 256;
const WORK_FREE: u64 = 4 << 20;
/// Steps of the backtracking engine for one byte of the text, over all patterns.
const FUEL_PER_BYTE: u64 = 256;
const FUEL_FREE: u64 = 1 << 20;

/// Rejects values above their limit.
pub(super) fn at_most(what: &'static str, got: usize, limit: usize) -> Result<(), TokenizerError> {
    match got > limit {
        true => Err(TokenizerError::Limit { what, got: got as u64, limit: limit as u64 }),
        false => Ok(()),
    }
}

/// Counts the cost of one text, over all of its parts and all steps.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes of the text.
    bytes: usize,
    /// Bytes that are left for the text as the steps leave it.
    room: usize,
    work: u64,
    fuel: u64,
}

impl Meter {
    /// For a text of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let room = bytes.saturating_mul(GROWTH).saturating_add(GROWTH_FREE).min(u32::MAX as usize - 1);
        let n = bytes as u64;
        Self {
            bytes,
            room,
            work: n.saturating_mul(WORK_PER_BYTE).saturating_add(WORK_FREE),
            fuel: n.saturating_mul(FUEL_PER_BYTE).saturating_add(FUEL_FREE),
        }
    }

    /// A part of the text has become `bytes` of words.
    pub(super) fn used(&mut self, bytes: usize) {
        self.room = self.room.saturating_sub(bytes);
    }

    /// A step has read or written `bytes`.
    ///
    /// # Errors
    /// [`TokenizerError::TooMuchWork`].
    pub(super) fn worked(&mut self, bytes: usize) -> Result<(), TokenizerError> {
        // A constant for each call: very many tiny parts are work as well.
        match self.work.checked_sub(bytes as u64 + 8) {
            Some(left) => self.work = left,
            None => return Err(TokenizerError::TooMuchWork { bytes: self.bytes }),
        }
        Ok(())
    }

    /// A text of that length, by one step, would be too long.
    ///
    /// # Errors
    /// [`TokenizerError::Growth`].
    pub(super) fn fits(&self, bytes: usize) -> Result<(), TokenizerError> {
        match bytes > self.room {
            true => Err(TokenizerError::Growth { bytes: self.bytes, times: GROWTH }),
            false => Ok(()),
        }
    }

    /// Budget left for patterns.
    pub(super) fn fuel(&mut self) -> &mut u64 {
        &mut self.fuel
    }
}
