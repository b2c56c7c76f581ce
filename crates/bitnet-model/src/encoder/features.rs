//! From words to the rows of the feature table whose sum represents them.
//!
//! # Definition
//! It is part of the format of extractors and never changes; another one would be another value of a key of the file.
//!
//! - **Folding.** A word's characters are decomposed (NFKD), spaces and characters that cannot be seen (joiners, soft
//!   hyphens, variation selectors) left out, each made lower case, and joined to the one before where both have a
//!   composed form; the apostrophes U+2019 and U+02BC become `'`. That is NFKC without the reordering of marks:
//!   full-width letters and half-width kana become the usual ones. At most 32 characters are kept.
//! - **Hash.** FNV-1a of 32 bits (offset `0x811C9DC5`, prime `0x01000193`) over one byte that names the kind and the
//!   UTF-8 bytes of the characters, then the finaliser of MurmurHash3 (`h ^= h >> 16; h *= 0x85EBCA6B; h ^= h >> 13;
//!   h *= 0xC2B2AE35; h ^= h >> 16`). The row is `hash % buckets`.
//! - **Features** of a word, in this order, at most 64:
//!   1. `w`: the folded word.
//!   2. `s`: its shape, before it was made lower case: `X` for upper case, `x` for lower case, `0` for numbers, `H`
//!      for Han, `h` for Hiragana, `k` for Katakana, `o` for other letters, `.` for the rest; marks are left out, and
//!      of more than four of a kind in a row four stay.
//!   3. of words of letters and of signs, as far as [`FeatureConfig::reach`] goes, the folded word with another one, a
//!      space between: `p`, the word before and this one; `q`, this one and the word after; then `P` and `Q`, the same
//!      with the words two places away. `<` stands for a word before the first, `>` for one after the last.
//!      `q` and `Q` are missing where an encoder reads [forward only](FeatureConfig::after).
//!   4. of words of letters, where [`FeatureConfig::runs`] says so, `n`: runs of 3, then of 4, of 5 and of 2 characters
//!      of `<word>`; the `>` is missing where the word was cut at 32.
//!   5. of single characters, instead of 3 and 4: `l`: the character before and the word; `r`: the word and the
//!      character after; `b`: both. The character before is the last one of the folded word before, `<` where there
//!      is none; the one after is the first one of the folded word after, or `>`.

use std::ops::Range;

use unicode_normalization_alignments::char::{compose, decompose_compatible};

use super::words::{Word, WordKind, split_words};

/// Features of a word at most.
pub const MAX_FEATURES: usize = 64;

/// Characters of a folded word at most.
const MAX_CHARS: usize = 32;

/// Lengths of runs of characters, the most telling first.
const RUNS: [usize; 4] = [3, 4, 5, 2];

/// Letters of pairs with the words before and after, by their distance.
const PAIRS: [[u8; 2]; MAX_REACH] = [*b"pq", *b"PQ"];

/// Words on each side that a word makes pairs with, at most.
pub(super) const MAX_REACH: usize = 2;

/// Which features words have, and in how many rows they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeatureConfig {
    /// Rows of the table of features, 1 at least.
    pub buckets: usize,
    /// Whether words of letters have runs of their characters; without them a word with a typing error is a new word.
    pub runs: bool,
    /// How many words on each side a word makes pairs with, 0 to 2.
    pub reach: usize,
    /// Whether words have features of what stands behind them (`q`, `Q`, `r` and `b`).
    pub after: bool,
}

impl FeatureConfig {
    /// The usual features in this many rows: runs, and pairs with the words next to a word.
    pub fn new(buckets: usize) -> Self {
        Self { buckets, runs: true, reach: 1, after: true }
    }
}

/// FNV-1a of 32 bits that goes on character by character.
#[derive(Clone, Copy)]
struct Hash(u32);

impl Hash {
    /// The beginning of a feature of this kind.
    fn new(kind: u8) -> Self {
        Self(0x811C_9DC5).byte(kind)
    }

    fn byte(self, b: u8) -> Self {
        Self((self.0 ^ u32::from(b)).wrapping_mul(0x0100_0193))
    }

    fn char(self, c: char) -> Self {
        c.encode_utf8(&mut [0; 4]).bytes().fold(self, Self::byte)
    }

    fn chars(self, chars: &[char]) -> Self {
        chars.iter().fold(self, |h, c| h.char(*c))
    }

    fn finish(self) -> u32 {
        let mut h = self.0;
        h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
        h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
        h ^ (h >> 16)
    }
}

/// A text as an extractor reads it: its words and the rows of their features. Buffers are kept from text to text.
///
/// ```
/// use bitnet_model::encoder::{FeatureConfig, Utterance};
/// let mut utterance = Utterance::default();
/// utterance.read("Play ＪＡＺＺ", FeatureConfig::new(16384));
/// assert_eq!(utterance.words().len(), 2);
/// let wide = utterance.features(1).to_vec();
/// utterance.read("play JAZZ", FeatureConfig::new(16384));
/// assert_eq!(utterance.features(1), wide);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utterance {
    words: Vec<Word>,
    cut: bool,
    /// Folded characters of all words.
    chars: Vec<char>,
    folded: Vec<Folded>,
    rows: Vec<u32>,
    /// End of the features of each word in `rows`.
    ends: Vec<usize>,
}

/// A folded word.
#[derive(Clone, Debug)]
struct Folded {
    chars: Range<usize>,
    shape: u32,
    /// Whether characters were left out at the end.
    cut: bool,
}

impl Utterance {
    /// Reads `text`; the rows of features lie below the buckets of `config`.
    pub fn read(&mut self, text: &str, config: FeatureConfig) {
        self.cut = split_words(text, &mut self.words);
        self.chars.clear();
        self.folded.clear();
        self.rows.clear();
        self.ends.clear();
        for word in &self.words {
            self.folded.push(fold(&text[word.range.clone()], &mut self.chars));
        }
        for i in 0..self.words.len() {
            self.push_features(i, config);
            self.ends.push(self.rows.len());
        }
    }

    /// The words, at most [`MAX_WORDS`](super::MAX_WORDS).
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Whether the text has more words, which are not read.
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// Rows of the features of word `i`, 1 to [`MAX_FEATURES`] of them; one that occurs twice counts twice.
    ///
    /// # Panics
    /// If there is no such word.
    pub fn features(&self, i: usize) -> &[u32] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.rows[start..self.ends[i]]
    }

    fn push_features(&mut self, i: usize, config: FeatureConfig) {
        // At most 2^32 - 1, so that the quotient is defined.
        let buckets = u32::try_from(config.buckets).unwrap_or(u32::MAX).max(1);
        let Self { words, chars, folded, rows, .. } = self;
        let word_at = |i: usize| &chars[folded[i].chars.clone()];
        let word = word_at(i);
        let first = rows.len();
        let mut push = |hash: Hash| {
            if rows.len() - first < MAX_FEATURES {
                rows.push(hash.finish() % buckets);
            }
        };
        push(Hash::new(b'w').chars(word));
        push(Hash(folded[i].shape));
        if words[i].kind != WordKind::Character {
            let pair = |kind: u8, a: &[char], b: &[char]| Hash::new(kind).chars(a).char(' ').chars(b);
            for (distance, kinds) in PAIRS.iter().enumerate().take(config.reach) {
                let before = i.checked_sub(distance + 1).map_or(&['<'][..], word_at);
                let after = Some(i + distance + 1).filter(|i| *i < words.len()).map_or(&['>'][..], word_at);
                push(pair(kinds[0], before, word));
                if config.after {
                    push(pair(kinds[1], word, after));
                }
            }
        }
        match words[i].kind {
            WordKind::Letters if config.runs => {
                let end: &[char] = if folded[i].cut { &[] } else { &['>'] };
                let len = 1 + word.len() + end.len();
                let at = |k: usize| if k == 0 { '<' } else { word.get(k - 1).copied().unwrap_or('>') };
                for run in RUNS {
                    for start in 0..(len + 1).saturating_sub(run) {
                        push((start..start + run).fold(Hash::new(b'n'), |h, k| h.char(at(k))));
                    }
                }
            }
            WordKind::Character => {
                let before = i.checked_sub(1).and_then(|i| word_at(i).last()).copied();
                let after = folded.get(i + 1).and_then(|f| chars[f.chars.clone()].first()).copied();
                let (before, after) = (before.unwrap_or('<'), after.unwrap_or('>'));
                push(Hash::new(b'l').char(before).chars(word));
                if config.after {
                    push(Hash::new(b'r').chars(word).char(after));
                    push(Hash::new(b'b').char(before).chars(word).char(after));
                }
            }
            WordKind::Letters | WordKind::Sign => (),
        }
    }
}

/// Folds `word`, appends its characters to `chars`.
fn fold(word: &str, chars: &mut Vec<char>) -> Folded {
    let first = chars.len();
    let (mut shape, mut last, mut run) = (Hash::new(b's'), '\0', 0);
    let mut cut = false;
    for c in word.chars() {
        if cut {
            break;
        }
        decompose_compatible(c, |d| {
            if d.is_whitespace() || is_unseen(d) {
                return;
            }
            let d = if matches!(d, '\u{2019}' | '\u{2BC}') { '\'' } else { d };
            if let Some(s) = shape_of(d) {
                run = if s == last { run + 1 } else { 1 };
                last = s;
                if run <= 4 {
                    shape = shape.char(s);
                }
            }
            for lower in d.to_lowercase() {
                let joined = chars[first..].last().and_then(|before| compose(*before, lower));
                match joined {
                    Some(joined) => {
                        chars.pop();
                        chars.push(joined);
                    }
                    None if chars.len() - first == MAX_CHARS => cut = true,
                    None => chars.push(lower),
                }
            }
        });
    }
    Folded { chars: first..chars.len(), shape: shape.0, cut }
}

/// Joiners, soft hyphens, variation selectors and tags.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0020}'..='\u{E007F}'
            | '\u{E0100}'..='\u{E01EF}'
    )
}

/// The kind of a character in the shape of a word; none for marks.
fn shape_of(c: char) -> Option<char> {
    Some(match c {
        '\u{3041}'..='\u{3096}' | '\u{309D}'..='\u{309F}' => 'h',
        '\u{30A1}'..='\u{30FA}' | '\u{30FC}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' => 'k',
        '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{3007}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' => 'H',
        '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}' => 'H',
        _ if super::words::is_mark(c) => return None,
        _ if c.is_uppercase() => 'X',
        _ if c.is_lowercase() => 'x',
        _ if c.is_numeric() => '0',
        _ if c.is_alphabetic() => 'o',
        _ => '.',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Utterance {
        let mut utterance = Utterance::default();
        utterance.read(text, FeatureConfig::new(1 << 22));
        utterance
    }

    fn features(text: &str) -> Vec<u32> {
        let utterance = read(text);
        assert_eq!(utterance.words().len(), 1, "{text:?}");
        utterance.features(0).to_vec()
    }

    #[test]
    fn widths_cases_and_compositions_are_folded() {
        assert_eq!(features("ｃａｆｅ\u{301}"), features("café"));
        // Only the shape knows about upper case.
        let (upper, lower) = (features("CAFÉ"), features("café"));
        assert_eq!((upper[0], &upper[2..]), (lower[0], &lower[2..]));
        assert_ne!(upper[1], lower[1]);
        assert_eq!(features("ﾎﾞ"), features("ボ"));
        assert_eq!(features("か\u{3099}"), features("が"));
        assert_eq!(features("co\u{AD}op"), features("coop"));
        assert_ne!(features("coop"), features("coup"));
    }

    #[test]
    fn a_word_has_its_runs_of_characters() {
        // `<ab>`: word, shape, two pairs, two runs of 3, one of 4, none of 5, three of 2.
        let ab = features("ab");
        assert_eq!(ab.len(), 10);
        let hash = |kind: u8, text: &str| text.chars().fold(Hash::new(kind), Hash::char).finish() % (1 << 22);
        let expected = [
            (b'w', "ab"),
            (b's', "xx"),
            (b'p', "< ab"),
            (b'q', "ab >"),
            (b'n', "<ab"),
            (b'n', "ab>"),
            (b'n', "<ab>"),
            (b'n', "<a"),
            (b'n', "ab"),
            (b'n', "b>"),
        ];
        assert_eq!(ab, expected.map(|(kind, text)| hash(kind, text)));
        assert_eq!(features("x")[1], hash(b's', "x"));
        assert_eq!(features("McDonald2000s")[1], hash(b's', "XxXxxxx0000x"));
        assert_eq!(features("!"), [hash(b'w', "!"), hash(b's', "."), hash(b'p', "< !"), hash(b'q', "! >")]);
        // A word that is cut has no end.
        let long = features(&"a".repeat(100));
        assert_eq!(long.len(), MAX_FEATURES);
        assert_eq!(long[0], hash(b'w', &"a".repeat(32)));
        assert!(!long.contains(&hash(b'n', "aa>")) && features("aaa").contains(&hash(b'n', "aa>")));
    }

    #[test]
    fn characters_know_their_neighbours() {
        let utterance = read("Go東へ!");
        let hash = |kind: u8, text: &str| text.chars().fold(Hash::new(kind), Hash::char).finish() % (1 << 22);
        let east = [(b'w', "東"), (b's', "H"), (b'l', "o東"), (b'r', "東へ"), (b'b', "o東へ")];
        assert_eq!(utterance.features(1), east.map(|(kind, text)| hash(kind, text)));
        let to = [(b'w', "へ"), (b's', "h"), (b'l', "東へ"), (b'r', "へ!"), (b'b', "東へ!")];
        assert_eq!(utterance.features(2), to.map(|(kind, text)| hash(kind, text)));
        assert_eq!(
            features("ア")[2..],
            [(b'l', "<ア"), (b'r', "ア>"), (b'b', "<ア>")].map(|(kind, text)| hash(kind, text))
        );
    }

    #[test]
    fn words_make_pairs_as_far_as_they_reach() {
        let hash = |kind: u8, text: &str| text.chars().fold(Hash::new(kind), Hash::char).finish() % (1 << 22);
        let mut utterance = Utterance::default();
        let of = |utterance: &mut Utterance, reach| {
            utterance.read("Ann\u{2019}s car!", FeatureConfig { reach, runs: false, after: true, buckets: 1 << 22 });
            (0..4).map(|i| utterance.features(i).to_vec()).collect::<Vec<_>>()
        };
        let word = |w: &str, s: &str| vec![hash(b'w', w), hash(b's', s)];
        let none = [word("ann", "Xxx"), word("'s", ".x"), word("car", "xxx"), word("!", ".")];
        assert_eq!(of(&mut utterance, 0), none);
        let near = of(&mut utterance, 1);
        assert_eq!(near[1][2..], [hash(b'p', "ann 's"), hash(b'q', "'s car")]);
        assert_eq!(near[3][2..], [hash(b'p', "car !"), hash(b'q', "! >")]);
        let far = of(&mut utterance, 2);
        assert_eq!(far[1][..4], near[1]);
        assert_eq!(far[1][4..], [hash(b'P', "< 's"), hash(b'Q', "'s !")]);
        assert_eq!(far[2][4..], [hash(b'P', "ann car"), hash(b'Q', "car >")]);
    }

    #[test]
    fn read_forward_a_word_has_no_feature_of_what_follows() {
        let of = |text: &str, after| {
            let mut utterance = Utterance::default();
            utterance.read(text, FeatureConfig { reach: 2, after, ..FeatureConfig::new(1 << 22) });
            (0..utterance.words().len()).map(|i| utterance.features(i).to_vec()).collect::<Vec<_>>()
        };
        for (text, more) in [("play so", "play so what, please"), ("Go東", "Go東へ!"), ("a", "a b")] {
            let (short, long) = (of(text, false), of(more, false));
            assert_eq!(short[..], long[..short.len()], "{text}");
            assert_ne!(of(text, true)[..], of(more, true)[..short.len()], "{text}");
            // The features that are missing are the only difference.
            for (few, all) in long.iter().zip(of(more, true)) {
                assert!(few.iter().all(|f| all.contains(f)) && few.len() < all.len());
            }
        }
    }

    #[test]
    fn every_text_has_bounded_features() {
        for text in [
            "\u{FDFA}".repeat(300),
            "e\u{301}\u{301}".repeat(5000),
            "👩\u{200D}👩".repeat(400),
            "\u{FE0F}".into(),
            "ǅ".repeat(40),
        ] {
            let utterance = read(&text);
            for i in 0..utterance.words().len() {
                assert!((1..=MAX_FEATURES).contains(&utterance.features(i).len()));
            }
            assert!(utterance.chars.len() <= super::super::MAX_WORDS * MAX_CHARS);
        }
    }

    /// Files depend on these numbers.
    #[test]
    fn the_hash_is_what_files_depend_on() {
        // Computed by other software.
        let mut utterance = Utterance::default();
        utterance.read("Ab 東", FeatureConfig::new(16384));
        assert_eq!(utterance.features(0), [1867, 8531, 9803, 1832, 15659, 9394, 1561, 2536, 2228, 15762]);
        assert_eq!(utterance.features(1), [15656, 11016, 11845, 15763, 9030]);
    }
}
