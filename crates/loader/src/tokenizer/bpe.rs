//! Byte-pair encoding by a list of merges, as `tokenizer.json` and GGUF's `gpt2` vocabularies hold it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::hash::Spellings;
use super::merge::{Merge, Merger, Symbol};

/// Hashes the pairs of ids of the merge table: 64 bits in, two multiplications out. The default hasher takes a third
/// of the time of a load (280,000 merges), and resists attacks that would only slow down the attacker's own file.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // The finaliser of splitmix64 (public domain), applied to the running state.
        let mut x = self.0.rotate_left(5) ^ value;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = x ^ (x >> 31);
    }
}

fn pair_key(left: u32, right: u32) -> u64 {
    (u64::from(left) << 32) | u64::from(right)
}

/// The alphabet of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Raw bytes: the 256 stand-in characters of byte-level vocabularies have been translated back to bytes.
    Bytes,
    /// Characters, as written in the file.
    Chars,
}

/// The options of a byte-pair vocabulary, named as in `tokenizer.json`.
#[derive(Debug, Clone)]
pub(super) struct BpeOptions {
    pub(super) alphabet: Alphabet,
    /// A whole word that is a token is taken as it is, without merging (Llama 3).
    pub(super) ignore_merges: bool,
    /// The token for text outside the vocabulary; without one such bytes are left out.
    pub(super) unk: Option<u32>,
    /// Runs of unknown symbols become one token.
    pub(super) fuse_unk: bool,
    /// Unknown characters are written as `<0x..>` tokens.
    pub(super) byte_fallback: bool,
}

/// A byte-pair vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    /// Token (raw bytes or text, by the alphabet) to id.
    vocab: HashMap<Box<[u8]>, u32, Spellings>,
    merges: HashMap<u64, Merge, BuildHasherDefault<PairHasher>>,
    /// Ids of single bytes: of the alphabet, or of the `<0x..>` tokens.
    bytes: Box<[Option<u32>; 256]>,
    options: BpeOptions,
    /// Special tokens: text never becomes one of them, whatever the merges are.
    special: HashSet<u32>,
    /// The merges that make special tokens.
    halves: HashMap<u32, [u32; 2]>,
}

impl Bpe {
    /// Builds the tables. `tokens` gives every token as it is to be looked up; `merges` the ids of left, right and
    /// joined token of each merge, best first. What merges make into one of the `special` tokens comes out in its
    /// halves: special tokens cannot be forged by text.
    pub(super) fn new(
        tokens: impl Iterator<Item = (Box<[u8]>, u32)>,
        merges: impl Iterator<Item = [u32; 3]>,
        options: BpeOptions,
        special: HashSet<u32>,
    ) -> Self {
        let most = tokens.size_hint().1.unwrap_or_default();
        let mut vocab: HashMap<Box<[u8]>, u32, Spellings> =
            HashMap::with_capacity_and_hasher(most, Spellings::default());
        for (token, id) in tokens {
            // Of two equal tokens the first one counts.
            vocab.entry(token).or_insert(id);
        }
        let mut bytes = Box::new([None; 256]);
        for (byte, slot) in (0..=u8::MAX).zip(bytes.iter_mut()) {
            *slot = match options.alphabet {
                Alphabet::Bytes => vocab.get([byte].as_slice()).copied(),
                Alphabet::Chars => vocab.get(format!("<0x{byte:02X}>").as_bytes()).copied(),
            };
        }
        let mut table: HashMap<u64, Merge, BuildHasherDefault<PairHasher>> =
            HashMap::with_capacity_and_hasher(merges.size_hint().0, BuildHasherDefault::default());
        let mut halves = HashMap::new();
        for ([left, right, id], rank) in merges.zip(0u32..) {
            // Of two equal merges the last one counts, as in the `tokenizers` library.
            table.insert(pair_key(left, right), Merge { rank, id });
            if special.contains(&id) && left != id && right != id {
                halves.insert(id, [left, right]);
            }
        }
        Self { vocab, merges: table, bytes, options, special, halves }
    }

    /// The id of a token in the spelling of the alphabet.
    pub(super) fn id_of(&self, token: &[u8]) -> Option<u32> {
        self.vocab.get(token).copied()
    }

    /// The alphabet of words.
    pub(super) fn alphabet(&self) -> Alphabet {
        self.options.alphabet
    }

    /// Appends the ids of one word. Words are shorter than 4 GiB (the caller has checked the text).
    pub(super) fn encode_word(&self, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        if self.options.ignore_merges
            && let Some(&id) = self.vocab.get(word.as_bytes())
            && !self.special.contains(&id)
        {
            out.push(id);
            return;
        }
        merger.clear();
        match self.options.alphabet {
            Alphabet::Bytes => {
                let mut unknown = Unknown::new(&self.options);
                for (start, &byte) in word.as_bytes().iter().enumerate() {
                    match self.bytes.get(usize::from(byte)).copied().flatten() {
                        Some(id) => {
                            unknown.flush(merger);
                            merger.push(id, start as u32, 1, true);
                        }
                        None => unknown.add(merger, start as u32, 1),
                    }
                }
                unknown.flush(merger);
            }
            Alphabet::Chars => {
                let mut unknown = Unknown::new(&self.options);
                let mut buffer = [0; 4];
                for (start, c) in word.char_indices() {
                    let encoded = c.encode_utf8(&mut buffer).as_bytes();
                    let start = start as u32;
                    if let Some(&id) = self.vocab.get(encoded) {
                        unknown.flush(merger);
                        merger.push(id, start, encoded.len() as u32, true);
                    } else if let Some(ids) = self.fallback(encoded) {
                        unknown.flush(merger);
                        for (offset, id) in (0u32..).zip(ids) {
                            merger.push(id, start.saturating_add(offset), 1, true);
                        }
                    } else {
                        unknown.add(merger, start, encoded.len() as u32);
                    }
                }
                unknown.flush(merger);
            }
        }
        if merger.len() > 1 {
            merger.run(|left: &Symbol, right: &Symbol| self.merges.get(&pair_key(left.id, right.id)).copied());
        }
        if self.halves.is_empty() {
            out.extend(merger.symbols().map(|symbol| symbol.id));
            return;
        }
        let mut stack = Vec::new();
        for symbol in merger.symbols() {
            stack.push(symbol.id);
            while let Some(id) = stack.pop() {
                match self.halves.get(&id) {
                    // A half is shorter than the whole, so this ends.
                    Some([left, right]) => stack.extend([*right, *left]),
                    None => out.push(id),
                }
            }
        }
    }

    /// The `<0x..>` tokens of a character, if the vocabulary has all of them.
    fn fallback<'a>(&'a self, encoded: &'a [u8]) -> Option<impl Iterator<Item = u32> + 'a> {
        let id = |byte: &u8| self.bytes.get(usize::from(*byte)).copied().flatten();
        (self.options.byte_fallback && encoded.iter().all(|byte| id(byte).is_some()))
            .then(move || encoded.iter().filter_map(id))
    }
}

/// A run of symbols that the vocabulary cannot write.
struct Unknown {
    unk: Option<u32>,
    fuse: bool,
    pending: Option<(u32, u32)>,
}

impl Unknown {
    fn new(options: &BpeOptions) -> Self {
        Self { unk: options.unk, fuse: options.fuse_unk, pending: None }
    }

    fn add(&mut self, merger: &mut Merger, start: u32, len: u32) {
        self.pending = match self.pending {
            Some((first, run)) if self.fuse => Some((first, run.saturating_add(len))),
            _ => {
                self.flush(merger);
                Some((start, len))
            }
        };
    }

    fn flush(&mut self, merger: &mut Merger) {
        if let (Some((start, len)), Some(unk)) = (self.pending.take(), self.unk) {
            merger.push(unk, start, len, true);
        }
    }
}
