//! SentencePiece vocabularies of the BPE kind, as GGUF's `llama` model holds them: pieces with scores, no merges.
//!
//! Two neighbours may be joined if their concatenation is a piece, the best score first, and among equal scores the
//! leftmost. Spaces are written as `▁` (U+2581) and one is added before the text. Text without a piece becomes `<0x..>`
//! tokens, one per byte, or the unknown token.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};

use super::error::TokenizerError;
use super::limits::{ADDED_BYTES, at_most};
use super::merge::{Merge, Merger, Symbol};

/// Replacement of a space.
pub(super) const SPACE: char = '\u{2581}';

/// The kinds of tokens that GGUF and SentencePiece know (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl PieceKind {
    /// The kind of a `token_type`; a value without meaning counts as a normal token.
    pub(super) fn from_gguf(kind: i32) -> Self {
        match kind {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// The byte that a `<0x..>` token stands for.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && hex.bytes().all(|c| c.is_ascii_hexdigit())).then(|| u8::from_str_radix(hex, 16).ok())?
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    id: u32,
    /// Position among the distinct scores, the best first: equal scores have equal ranks.
    rank: u32,
    unused: bool,
}

/// A SentencePiece vocabulary.
#[derive(Debug)]
pub(super) struct Spm {
    pieces: HashMap<Box<str>, Piece>,
    longest: usize,
    /// Some piece is unused, so that merges must be remembered.
    has_unused: bool,
    bytes: Box<[Option<u32>; 256]>,
    unk: Option<u32>,
    /// Pieces that are always taken whole, the longest one if several fit.
    user_defined: Option<AhoCorasick>,
    /// Some piece holds a space after something else, so that merges may cross from word to word.
    crosses_words: bool,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
}

/// The preparation of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpmOptions {
    pub(super) unk: Option<u32>,
    pub(super) add_space_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

impl Spm {
    /// Builds the tables from `(text, score, kind)` in the order of the ids.
    ///
    /// # Errors
    /// [`TokenizerError::BadScore`] for a NaN; [`TokenizerError::Limit`] for too many bytes of user-defined pieces.
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = (&'a str, f32, PieceKind)> + Clone,
        options: SpmOptions,
    ) -> Result<Self, TokenizerError> {
        let mut scores = Vec::new();
        for (id, (_, score, _)) in tokens.clone().enumerate() {
            if score.is_nan() {
                return Err(TokenizerError::BadScore { id });
            }
            // Zero has one sign, so that equal scores are equal ranks.
            scores.push(score + 0.0);
        }
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.dedup();
        let mut pieces: HashMap<Box<str>, Piece> = HashMap::with_capacity(scores.len());
        let mut bytes = Box::new([None; 256]);
        let mut user_defined = Vec::new();
        let mut longest = 0;
        let mut has_unused = false;
        let mut crosses_words = false;
        for ((text, score, kind), id) in tokens.zip(0u32..) {
            match kind {
                PieceKind::Control | PieceKind::Unknown => continue,
                PieceKind::Byte => {
                    if let Some(slot) = byte_of(text).and_then(|byte| bytes.get_mut(usize::from(byte))) {
                        *slot = Some(id);
                    }
                    continue;
                }
                PieceKind::UserDefined if !text.is_empty() => user_defined.push(text),
                PieceKind::Normal | PieceKind::Unused | PieceKind::UserDefined => {}
            }
            let rank = scores.partition_point(|other| *other > score) as u32;
            longest = longest.max(text.len());
            has_unused |= kind == PieceKind::Unused;
            crosses_words |= text.trim_start_matches(SPACE).contains(SPACE);
            pieces.entry(text.into()).or_insert(Piece { id, rank, unused: kind == PieceKind::Unused });
        }
        at_most("the user-defined tokens (bytes)", user_defined.iter().map(|text| text.len()).sum(), ADDED_BYTES)?;
        let user_defined = match user_defined.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .start_kind(StartKind::Anchored)
                    .kind(Some(AhoCorasickKind::ContiguousNFA))
                    .build(&user_defined)
                    .map_err(|e| TokenizerError::Library { stage: "user-defined tokens", reason: e.to_string() })?,
            ),
        };
        Ok(Self {
            pieces,
            longest,
            has_unused,
            bytes,
            unk: options.unk,
            user_defined,
            crosses_words,
            add_space_prefix: options.add_space_prefix,
            remove_extra_whitespaces: options.remove_extra_whitespaces,
        })
    }

    /// The id of a piece, a space written as `▁`.
    pub(super) fn id_of(&self, piece: &str) -> Option<u32> {
        self.pieces.get(piece).map(|piece| piece.id)
    }

    /// The text as the pieces write it: a space in front, and every space as `▁`.
    fn prepare(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len().saturating_add(text.len() / 2).saturating_add(4));
        let trimmed = if self.remove_extra_whitespaces { text.trim_matches(' ') } else { text };
        if trimmed.is_empty() {
            return out;
        }
        if self.add_space_prefix {
            out.push(SPACE);
        }
        let mut after_space = false;
        for c in trimmed.chars() {
            let space = c == ' ';
            if space && after_space && self.remove_extra_whitespaces {
                continue;
            }
            after_space = space;
            out.push(if space { SPACE } else { c });
        }
        out
    }

    /// Appends the ids of a text without control tokens. The text is shorter than 1 GiB (the caller has checked it), so
    /// that positions fit 32 bits even if spaces have grown to three bytes.
    ///
    /// # Errors
    /// [`TokenizerError::NoUnknown`].
    pub(super) fn encode(&self, text: &str, merger: &mut Merger, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let text = self.prepare(text);
        let mut after_unknown = false;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            // A word with the spaces before it: no merge goes further, and the buffers stay small.
            let end = match self.crosses_words {
                true => rest.len(),
                false => {
                    let spaces = rest.len() - rest.trim_start_matches(SPACE).len();
                    rest.get(spaces..).and_then(|word| word.find(SPACE)).map_or(rest.len(), |at| spaces + at)
                }
            };
            let Some((part, tail)) = rest.split_at_checked(end) else { break };
            self.encode_part(part, merger, &mut after_unknown, out)?;
            rest = tail;
        }
        Ok(())
    }

    fn encode_part(
        &self,
        text: &str,
        merger: &mut Merger,
        after_unknown: &mut bool,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        merger.clear();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let whole = self.user_defined.as_ref().and_then(|set| {
                set.find(Input::new(rest).anchored(Anchored::Yes)).map(|found| found.end()).filter(|&len| len > 0)
            });
            let len = whole.unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
            merger.push(Symbol::NO_ID, at as u32, len as u32, whole.is_none());
            at = at.saturating_add(len);
        }
        // The parts of unused pieces: these may occur in between, but are split at the end.
        let mut parts: HashMap<(u32, u32), u32> = HashMap::new();
        let span = |start: u32, len: u32| {
            let start = start as usize;
            text.get(start..start.saturating_add(len as usize)).unwrap_or_default()
        };
        let lookup = |left: &Symbol, right: &Symbol| {
            let len = left.len.saturating_add(right.len);
            if len as usize > self.longest {
                return None;
            }
            self.pieces.get(span(left.start, len))
        };
        if self.has_unused {
            let unused = std::cell::RefCell::new(&mut parts);
            merger.run(|left, right| {
                let piece = lookup(left, right)?;
                if piece.unused {
                    let len = left.len.saturating_add(right.len);
                    unused.borrow_mut().insert((left.start, len), left.len);
                }
                Some(Merge { rank: piece.rank, id: piece.id })
            });
        } else {
            merger.run(|left, right| lookup(left, right).map(|piece| Merge { rank: piece.rank, id: piece.id }));
        }
        let mut stack = Vec::new();
        for symbol in merger.symbols() {
            stack.push((symbol.start, symbol.len));
            while let Some((start, len)) = stack.pop() {
                let piece = self.pieces.get(span(start, len));
                if let (Some(Piece { unused: true, .. }), Some(&left)) = (piece, parts.get(&(start, len))) {
                    stack.push((start.saturating_add(left), len.saturating_sub(left)));
                    stack.push((start, left));
                    continue;
                }
                match piece {
                    Some(piece) => {
                        out.push(piece.id);
                        *after_unknown = false;
                    }
                    None => self.write_unknown(span(start, len), after_unknown, out)?,
                }
            }
        }
        Ok(())
    }

    /// Bytes if the vocabulary has all of them, else one unknown token for a whole run.
    fn write_unknown(&self, text: &str, after_unknown: &mut bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let id = |byte: u8| self.bytes.get(usize::from(byte)).copied().flatten();
        if text.bytes().all(|byte| id(byte).is_some()) {
            out.extend(text.bytes().filter_map(id));
            *after_unknown = false;
        } else {
            if !*after_unknown {
                out.push(self.unk.ok_or_else(|| TokenizerError::NoUnknown { text: text.to_owned() })?);
            }
            *after_unknown = true;
        }
        Ok(())
    }
}
