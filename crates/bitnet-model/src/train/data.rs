//! Tokens on disk, and the order in which they are learned.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::documents::{Piece, pieces};
use super::random::{Random, permute};
use super::{Batch, GIVEN, TrainError};
use crate::files;

/// Bytes of a token in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenWidth {
    /// 2 bytes, ids below 65536.
    U16,
    /// 4 bytes.
    U32,
}

impl TokenWidth {
    /// Bytes.
    pub fn bytes(self) -> usize {
        match self {
            TokenWidth::U16 => 2,
            TokenWidth::U32 => 4,
        }
    }

    /// The narrowest width for ids below `vocab`.
    pub fn for_vocab(vocab: usize) -> Self {
        if vocab <= 1 << 16 { TokenWidth::U16 } else { TokenWidth::U32 }
    }

    /// By the name's ending: `.u16` or `.u32`.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "u16" => Some(TokenWidth::U16),
            "u32" => Some(TokenWidth::U32),
            _ => None,
        }
    }
}

/// A file of token ids that is read in pieces.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    file: File,
    width: TokenWidth,
    len: u64,
    /// Whether windows have an additional token before the first prediction.
    records: bool,
    /// The token after which a text of its own begins.
    document_end: Option<u32>,
}

impl TokenFile {
    /// Opens a file of ids of this width.
    ///
    /// # Errors
    /// A file that cannot be read, or whose length is not a whole number of ids.
    pub fn open(path: &Path, width: TokenWidth) -> Result<Self, TrainError> {
        let (file, bytes) = files::open(path, "a list of token ids")?;
        let unit = width.bytes() as u64;
        if !bytes.is_multiple_of(unit) {
            let problem = format!("{bytes} bytes are not a whole number of {unit}-byte ids");
            return Err(TrainError::File { path: path.to_path_buf(), problem });
        }
        Ok(Self { path: path.to_path_buf(), file, width, len: bytes / unit, records: false, document_end: None })
    }

    /// Tokens.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends tokens `start..start + n` to `out`.
    ///
    /// # Errors
    /// A range that exceeds the file; a file that cannot be read.
    pub fn read(&mut self, start: u64, n: usize, out: &mut Vec<u32>) -> Result<(), TrainError> {
        if start.checked_add(n as u64).is_none_or(|end| end > self.len) {
            let problem = format!("{n} tokens from token {start} on were requested, but there are {}", self.len);
            return Err(TrainError::File { path: self.path.clone(), problem });
        }
        let mut bytes = vec![0; n * self.width.bytes()];
        let at = SeekFrom::Start(start * self.width.bytes() as u64);
        self.file
            .seek(at)
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(TrainError::io("read", &self.path))?;
        match self.width {
            TokenWidth::U16 => out.extend(bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b)))),
            TokenWidth::U32 => out.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b))),
        }
        Ok(())
    }

    /// Opens a file of records, each of which is a window of whole examples.
    ///
    /// # Errors
    /// The errors of [`TokenFile::open`]; a length that is not a whole number of records of `t + 1` ids.
    pub fn open_examples(path: &Path, t: usize) -> Result<Self, TrainError> {
        let mut file = Self::open(path, TokenWidth::U32)?;
        if !file.len.is_multiple_of(t as u64 + 1) {
            let problem = format!(
                "{} ids are not a whole number of windows of {t} predictions; it was made for another --context",
                file.len
            );
            return Err(TrainError::File { path: path.to_path_buf(), problem });
        }
        file.records = true;
        Ok(file)
    }

    /// Documents end with this token: in windows, what follows it is a text of its own ([`Batch::apart`]).
    pub fn set_document_end(&mut self, end: Option<u32>) {
        self.document_end = end;
    }

    /// Whether a document ends within the file with the token `end`, before the last token.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn has_document_end(&mut self, end: u32) -> Result<bool, TrainError> {
        let last = self.len.saturating_sub(1);
        self.find(|i, id| id == end && i < last)
    }

    /// The error for data that teach nothing.
    pub(super) fn nothing(&self, problem: &'static str) -> TrainError {
        TrainError::NothingToLearn { path: self.path.clone(), problem }
    }

    /// Whether a token with its place is as asked; the file is read in pieces.
    pub(super) fn find(&mut self, mut asked: impl FnMut(u64, u32) -> bool) -> Result<bool, TrainError> {
        const PIECE: usize = 1 << 16;
        let mut at = 0;
        let mut ids = Vec::new();
        while at < self.len {
            ids.clear();
            let n = PIECE.min((self.len - at).try_into().unwrap_or(PIECE));
            self.read(at, n, &mut ids)?;
            if ids.iter().zip(at..).any(|(id, i)| asked(i, *id)) {
                return Ok(true);
            }
            at += n as u64;
        }
        Ok(false)
    }

    /// Rejects data without a token to learn in windows of `t` predictions: all are given, or each begins a window or a
    /// document.
    pub(super) fn teaches(&mut self, t: usize) -> Result<(), TrainError> {
        let (record, records, end) = (self.stride(t), self.records, self.document_end);
        let mut before = None;
        let learned = |i: u64, id: u32| {
            let begins = i == 0 || (records && i.is_multiple_of(record)) || (end.is_some() && before == end);
            before = Some(id);
            id & GIVEN == 0 && !begins
        };
        match self.find(learned)? {
            true => Ok(()),
            false => Err(self.nothing("every token in it is given, or the first one of a document")),
        }
    }

    /// Its documents, in parts of `t` predictions at most.
    fn pieces(&mut self, t: usize) -> Result<Vec<Piece>, TrainError> {
        match self.document_end {
            Some(end) => pieces(self, end, t),
            None => Err(self.nothing("no token is named that ends its documents")),
        }
    }

    /// A batch of `b` windows of `t` predictions.
    pub(super) fn batch(&self, ids: Vec<u32>, b: usize, t: usize) -> Result<Batch, TrainError> {
        let batch = Batch::new(ids, b, t)?;
        Ok(match self.document_end {
            Some(end) => batch.apart(end),
            None => batch,
        })
    }

    /// The distance between the beginnings of consecutive windows of `t` predictions.
    pub(super) fn stride(&self, t: usize) -> u64 {
        t as u64 + u64::from(self.records)
    }

    /// The windows of the file from its beginning, without the incomplete one at the end.
    pub(super) fn windows(&self, t: usize) -> u64 {
        let shared = u64::from(!self.records);
        self.len.saturating_sub(shared) / self.stride(t.max(1))
    }
}

/// Draws windows of `t + 1` tokens: each epoch is a permutation of consecutive windows, with a different offset each
/// time, so that windows begin elsewhere; records of examples have no offset. The next window depends only on seed and
/// position.
///
/// Or draws documents, each epoch in another order, as many as make up a batch: nothing is cut that fits into a window,
/// and nothing filled up.
#[derive(Debug)]
pub struct Sampler {
    file: TokenFile,
    t: usize,
    seed: u64,
    /// Windows or documents drawn so far.
    pub position: u64,
    /// Documents to draw, if windows do not cut them.
    pieces: Option<Vec<Piece>>,
}

impl Sampler {
    /// Draws from `file`.
    ///
    /// # Errors
    /// [`TrainError::TooShort`] for less than one window, [`TrainError::NothingToLearn`] if all tokens are given.
    pub fn new(mut file: TokenFile, t: usize, seed: u64) -> Result<Self, TrainError> {
        let needed = t as u64 + 1;
        if t == 0 || file.len() < needed {
            return Err(TrainError::TooShort { path: file.path, tokens: file.len, needed });
        }
        file.teaches(t)?;
        Ok(Self { file, t, seed, position: 0, pieces: None })
    }

    /// Draws whole documents from `file`, which has to have an end of documents
    /// ([`TokenFile::set_document_end`]); longer ones than `t` predictions in parts of as many.
    ///
    /// # Errors
    /// The errors of [`Sampler::new`]; [`TrainError::NothingToLearn`] without an end of documents, or without a document
    /// that predicts anything.
    pub fn of_documents(file: TokenFile, t: usize, seed: u64) -> Result<Self, TrainError> {
        let mut sampler = Self::new(file, t, seed)?;
        sampler.pieces = Some(sampler.file.pieces(t)?);
        Ok(sampler)
    }

    /// From now on windows have `t` predictions, at least 1 and not more than at first; an epoch begins.
    pub(super) fn set_window(&mut self, t: usize) -> Result<(), TrainError> {
        if self.pieces.is_some() && t != self.t {
            self.pieces = Some(self.file.pieces(t)?);
        }
        (self.t, self.position) = (t, 0);
        Ok(())
    }

    /// The file.
    pub(super) fn into_file(self) -> TokenFile {
        self.file
    }

    /// Windows or documents of an epoch.
    pub fn epoch_len(&self) -> u64 {
        if let Some(pieces) = &self.pieces {
            return pieces.len() as u64;
        }
        // With any offset below `t` all of these are in the file; a file of one window has no room for offsets.
        let spare = u64::from(!self.file.records);
        (self.file.windows(self.t).saturating_sub(spare)).max(1)
    }

    /// The next `b` windows, or documents of about as many tokens.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn next_batch(&mut self, b: usize) -> Result<Batch, TrainError> {
        if let Some(pieces) = &self.pieces {
            let (n, room) = (pieces.len() as u64, b * self.t);
            let (mut ids, mut lens) = (Vec::with_capacity(room), Vec::new());
            loop {
                let (epoch, index) = (self.position / n, self.position % n);
                let order = Random::new(self.seed ^ epoch.wrapping_mul(0x9e37_79b9), "documents").next_u64();
                let Piece { start, len } = pieces[permute(index, n, order) as usize];
                // The number of tokens that is nearest: on average it is that of whole windows.
                let len = len as usize;
                if !ids.is_empty() && ids.len() + len / 2 > room {
                    return Batch::of_texts(ids, &lens);
                }
                self.file.read(start, len, &mut ids)?;
                lens.push(len);
                self.position += 1;
            }
        }
        let (n, stride) = (self.epoch_len(), self.file.stride(self.t));
        let mut ids = Vec::with_capacity(b * (self.t + 1));
        for _ in 0..b {
            let (epoch, index) = (self.position / n, self.position % n);
            let mut random = Random::new(self.seed ^ epoch.wrapping_mul(0x9e37_79b9), "epoch");
            let offset = match self.file.records {
                true => 0,
                false => random.below((self.file.len() - 1 - n * stride).min(stride - 1) + 1),
            };
            let window = permute(index, n, random.next_u64());
            self.file.read(offset + window * stride, self.t + 1, &mut ids)?;
            self.position += 1;
        }
        self.file.batch(ids, b, self.t)
    }
}
