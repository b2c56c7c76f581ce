//! Level sets, groups and table entries: the contents of a look-up table, and the entry that a group of weights
//! selects.

use crate::KernelError;

/// The maximum number of levels of a set.
pub(super) const MAX_LEVELS: usize = 16;
/// The maximum number of weights of a group: `2^5` combinations of two levels, half of them stored.
pub(super) const MAX_GROUP: usize = 5;
/// Entries of a table: as many as one shuffle instruction looks up on every instruction set.
pub(super) const ENTRIES: usize = 16;

/// Groups of equal length, and the entries of their tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// Weights of a group.
    pub(super) len: usize,
    /// Whether one of each pair of opposite combinations is stored.
    pub(super) mirror: bool,
    /// Entries in use.
    pub(super) entries: usize,
    /// Levels of each weight of a group, by entry: entry `e` is the sum of `levels[j][e] * x[j]`. 0 for an unused
    /// entry.
    pub(super) levels: [[i16; ENTRIES]; MAX_GROUP],
}

impl Groups {
    /// Combinations of all levels; `None` if they do not fit a table.
    fn new(levels: &[i8], len: usize, mirror: bool) -> Option<Self> {
        let combinations = u32::try_from(len).ok().and_then(|len| levels.len().checked_pow(len))?;
        let skipped = if mirror { combinations / 2 } else { 0 };
        let entries = combinations - skipped;
        if len == 0 || len > MAX_GROUP || entries > ENTRIES {
            return None;
        }
        let mut groups = Self { len, mirror, entries, levels: [[0; ENTRIES]; MAX_GROUP] };
        for e in 0..entries {
            let mut rest = skipped + e;
            for j in (0..len).rev() {
                groups.levels[j][e] = i16::from(levels[rest % levels.len()]);
                rest /= levels.len();
            }
        }
        Some(groups)
    }

    /// The entry of a group of codes, and whether it is negated. The first code is the most significant digit.
    #[inline]
    pub(super) fn index(&self, codes: &[u8], levels: usize) -> (u8, bool) {
        let number = codes.iter().fold(0, |number, &c| number * levels + usize::from(c));
        if !self.mirror {
            return (number as u8, false);
        }
        // The numbers of opposite combinations add up to that of the last one.
        let combinations = levels.pow(self.len as u32);
        let half = combinations / 2;
        match number >= half {
            true => ((number - half) as u8, false),
            false => ((combinations - 1 - number - half) as u8, true),
        }
    }
}

/// How exact entries are split into two signed bytes, `entry = low + base * high`, so small that the lookups of
/// [`Digits::chunks`] chunks can be added in 8 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digits {
    /// Odd, so that digits lie in `-half..=half` and their negations too.
    pub(super) base: u8,
    /// The largest digit of either place.
    pub(super) half: u8,
    /// Chunks after which 8-bit sums are added to the 16-bit sums.
    pub(super) chunks: usize,
}

/// Digits for entries up to 480 (all ternary ones) and up to 1984. A chunk adds two digits to a lane.
const DIGITS: [Digits; 2] = [Digits { base: 31, half: 15, chunks: 4 }, Digits { base: 63, half: 31, chunks: 2 }];
const _: () = {
    let mut i = 0;
    while i < DIGITS.len() {
        let Digits { base, half, chunks } = DIGITS[i];
        assert!(base == 2 * half + 1 && half as usize * 2 * chunks <= 127);
        i += 1;
    }
};

impl Digits {
    /// The largest entry that two digits hold.
    const fn max(&self) -> i32 {
        self.half as i32 * (self.base as i32 + 1)
    }
}

/// A level set with its grouping: everything about a format that packing, tables and products need.
#[derive(Clone, Debug)]
pub(super) struct Code {
    levels: Vec<i8>,
    /// The groups of a row's blocks, if opposite combinations share entries.
    pub(super) mirrored: Option<Groups>,
    /// The groups of the columns that fill no block, or of all columns.
    pub(super) plain: Groups,
    /// The largest absolute level.
    pub(super) max_level: i32,
    pub(super) digits: Digits,
    /// The code of weight 0, or of any weight if there is no level 0: padding is multiplied with activations of 0.
    pub(super) padding: u8,
}

impl Code {
    /// The code of `levels`, ascending, in groups of `len`. Opposite combinations share entries if the table would be
    /// too small otherwise and the levels allow it.
    pub(super) fn new(levels: &[i8], len: usize) -> Result<Self, KernelError> {
        let refuse = |reason| Err(KernelError::LevelSet { levels: levels.to_vec(), group: len, reason });
        if levels.len() < 2 || levels.len() > MAX_LEVELS || !levels.is_sorted_by(|a, b| a < b) {
            return refuse("a set has 2 to 16 levels in ascending order");
        }
        let symmetric = levels.iter().zip(levels.iter().rev()).all(|(a, b)| i16::from(*a) == -i16::from(*b));
        let (mirrored, plain) = match (Groups::new(levels, len, false), Groups::new(levels, len, true)) {
            (Some(plain), _) => (None, plain),
            (None, Some(mirrored)) if symmetric => {
                let plain = (1..len).rev().find_map(|len| Groups::new(levels, len, false));
                (Some(mirrored), plain.expect("a single weight of at most 16 levels has at most 16 combinations"))
            }
            (None, Some(_)) => {
                return refuse("a group has more than 16 combinations, and the levels are not symmetric");
            }
            (None, None) => return refuse("a group has more combinations than fit a table of 16 entries"),
        };
        let max_level = levels.iter().map(|l| i32::from(*l).abs()).max().unwrap_or(0);
        let max_entry = max_level * 127 * len as i32;
        let Some(&digits) = DIGITS.iter().find(|d| max_entry <= d.max()) else {
            return refuse("the largest level times the length of a group exceeds 15");
        };
        let padding = levels.iter().position(|l| *l == 0).unwrap_or(0) as u8;
        Ok(Self { levels: levels.to_vec(), mirrored, plain, max_level, digits, padding })
    }

    /// The level set, ascending.
    pub(super) fn levels(&self) -> &[i8] {
        &self.levels
    }

    /// The largest absolute entry of any table.
    pub(super) fn max_entry(&self) -> i32 {
        let len = self.mirrored.map_or(self.plain.len, |m| m.len);
        self.max_level * 127 * len as i32
    }

    /// The largest absolute entry for int4 activations, at most 120.
    pub(super) fn max_entry_int4(&self) -> i32 {
        let len = self.mirrored.map_or(self.plain.len, |m| m.len);
        self.max_level * 8 * len as i32
    }

    /// The longest row whose sums fit an i32, for rounded tables too: at most `127.5 * max_level` for each column.
    pub(super) fn max_cols(&self) -> usize {
        (1 << 24) / self.max_level.max(1) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_and_pairs_of_trits_are_those_of_the_formats() {
        let tl1 = Code::new(&[-1, 0, 1], 2).unwrap();
        assert!(tl1.mirrored.is_none());
        assert_eq!((tl1.plain.entries, tl1.digits.chunks), (9, 4));
        // 3 (w0 + 1) + (w1 + 1)
        assert_eq!(tl1.plain.index(&[0, 2], 3), (2, false));
        assert_eq!(tl1.plain.levels[0][..9], [-1, -1, -1, 0, 0, 0, 1, 1, 1]);
        assert_eq!(tl1.plain.levels[1][..9], [-1, 0, 1, -1, 0, 1, -1, 0, 1]);

        let tl2 = Code::new(&[-1, 0, 1], 3).unwrap();
        let triples = tl2.mirrored.unwrap();
        assert_eq!((triples.entries, tl2.plain.len, tl2.plain.entries, tl2.digits.chunks), (14, 2, 9, 4));
        for number in 0..27usize {
            let codes = [number / 9, number / 3 % 3, number % 3].map(|c| c as u8);
            let v = number as i32 - 13; // 9 w0 + 3 w1 + w2
            assert_eq!(triples.index(&codes, 3), (v.unsigned_abs() as u8, v < 0));
        }
        // Entry 5 is b0 - b1 - b2, entry 11 is b0 + b1 - b2.
        assert_eq!([0, 1, 2].map(|j| triples.levels[j][5]), [1, -1, -1]);
        assert_eq!([0, 1, 2].map(|j| triples.levels[j][11]), [1, 1, -1]);
    }

    #[test]
    fn sizes_of_other_sets() {
        let size = |levels: &[i8], len| {
            let code = Code::new(levels, len).unwrap();
            let groups = code.mirrored.unwrap_or(code.plain);
            (groups.entries, groups.mirror, code.plain.len, code.digits.chunks)
        };
        assert_eq!(size(&[-2, -1, 0, 1], 2), (16, false, 2, 2));
        assert_eq!(size(&[-2, -1, 0, 1, 2], 2), (13, true, 1, 2));
        assert_eq!(size(&[-1, 1], 4), (16, false, 4, 2));
        assert_eq!(size(&[-1, 1], 5), (16, true, 4, 2));
        assert_eq!(size(&[-7, -1, 1, 7], 2), (16, false, 2, 2));
    }

    /// A set without a level 0 can have opposite combinations, too.
    #[test]
    fn opposite_combinations_share_an_entry() {
        for (levels, len) in [(&[-1i8, 0, 1][..], 3), (&[-2, -1, 0, 1, 2], 2), (&[-1, 1], 5)] {
            let groups = Code::new(levels, len).unwrap().mirrored.unwrap();
            for number in 0..levels.len().pow(len as u32) {
                let codes: Vec<u8> =
                    (0..len as u32).rev().map(|j| (number / levels.len().pow(j) % levels.len()) as u8).collect();
                let (entry, opposite) = groups.index(&codes, levels.len());
                for (j, &c) in codes.iter().enumerate() {
                    let stored = groups.levels[j][usize::from(entry)];
                    let level = if opposite { -stored } else { stored };
                    assert_eq!(level, i16::from(levels[usize::from(c)]), "{levels:?}, {codes:?}");
                }
            }
        }
    }

    #[test]
    fn impossible_sets_are_refused() {
        let refused = |levels: &[i8], len| matches!(Code::new(levels, len), Err(KernelError::LevelSet { .. }));
        assert!(refused(&[1], 2) && refused(&[1, 0], 2) && refused(&[0, 0], 2) && refused(&[], 1));
        assert!(refused(&[-1, 0, 1], 0) && refused(&[-1, 0, 1], 4) && refused(&[-1, 1], usize::MAX));
        assert!(refused(&[-1, 0, 2], 3), "not symmetric");
        assert!(refused(&[-8, 8], 2), "too large for 16-bit sums");
        assert!(refused(&[-128, 127], 1));
        assert!(!refused(&[-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7], 1));
    }
}
