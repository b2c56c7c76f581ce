//! Documents of a file of tokens, which become the texts of batches as they are.

use super::{TokenFile, TrainError};

/// A document, or a part of one that is longer than a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its first token.
    pub(super) start: u64,
    /// Its tokens, at least two.
    pub(super) len: u32,
}

/// The documents of a file, which `end` ends, in their order. Longer ones than `t` predictions become parts of as many,
/// each of which begins with the last token of the one before, so that all but the first token are predicted. Documents
/// of one token predict nothing and are left out.
///
/// # Errors
/// A file that cannot be read; [`TrainError::NothingToLearn`] for one without a document of two tokens.
pub(super) fn pieces(file: &mut TokenFile, end: u32, t: usize) -> Result<Vec<Piece>, TrainError> {
    let (t, mut all, mut begin) = (t as u64, Vec::new(), 0);
    let mut add = |mut start: u64, end: u64| {
        while end - start > t + 1 {
            all.push(Piece { start, len: t as u32 + 1 });
            start += t;
        }
        if end - start >= 2 {
            all.push(Piece { start, len: (end - start) as u32 });
        }
    };
    file.find(|i, id| {
        if id == end {
            add(begin, i + 1);
            begin = i + 1;
        }
        false
    })?;
    add(begin, file.len());
    match all.is_empty() {
        false => Ok(all),
        true => Err(file.nothing("it holds no document of two tokens")),
    }
}
