//! Hashes for the tables of a vocabulary.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hashes spellings, eight bytes with one multiplication. Reading a vocabulary looks up some spellings for each of up to 280,000 merges,
/// and the default hasher takes six times as many instructions. Its keys are random, too: no file can be made whose tokens all meet
/// in one place of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spellings {
    state: u64,
    factor: u64,
}

impl Default for Spellings {
    fn default() -> Self {
        let random = RandomState::new();
        // An odd factor loses no bits.
        Self { state: random.hash_one(0u8), factor: random.hash_one(1u8) | 1 }
    }
}

impl BuildHasher for Spellings {
    type Hasher = SpellingHasher;

    fn build_hasher(&self) -> SpellingHasher {
        SpellingHasher(*self)
    }
}

/// The hash of one spelling.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpellingHasher(Spellings);

impl SpellingHasher {
    /// Both halves of a product of 128 bits: each bit of the word and of the keys changes many of the result.
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0.state ^ word) * u128::from(self.0.factor);
        self.0.state = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for SpellingHasher {
    fn finish(&self) -> u64 {
        self.0.state
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            // Seven bytes at most, and their number, so that trailing zeros count.
            let mut last = [0; 8];
            last[7] = rest.len() as u8;
            last.iter_mut().zip(rest).for_each(|(last, byte)| *last = *byte);
            self.mix(u64::from_le_bytes(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn spellings_have_hashes_of_their_own() {
        let keys = Spellings::default();
        // Short ones, which differ in few bits, and long ones, which differ in one place.
        let mut spellings: Vec<Vec<u8>> = (0..4096u16).map(|i| i.to_le_bytes().to_vec()).collect();
        spellings.extend((0..64).map(|i| (0..64).map(|j| u8::from(i == j)).collect::<Vec<_>>()));
        let hashes: HashSet<u64> = spellings.iter().map(|s| keys.hash_one(s.as_slice())).collect();
        assert_eq!(hashes.len(), spellings.len());
        // The low bits choose the place in a table: not many meet in one.
        let mut places = [0; 256];
        spellings.iter().for_each(|s| places[keys.hash_one(s.as_slice()) as usize % 256] += 1);
        assert!(places.iter().all(|&n| n < 64), "{places:?}");
    }

    #[test]
    fn the_same_spelling_has_the_same_hash_and_each_table_its_own_keys() {
        let (a, b) = (Spellings::default(), Spellings::default());
        assert_eq!(a.hash_one("once upon a time"), a.hash_one(String::from("once upon a time")));
        assert_ne!(a.hash_one("once"), b.hash_one("once"));
        assert_ne!(a.hash_one("a"), a.hash_one("a\0"));
    }
}
