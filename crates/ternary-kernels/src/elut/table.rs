//! Building the tables of one token: for each group of activations, the sums of all combinations of levels.

use super::code::{Digits, ENTRIES, Groups, MAX_GROUP};

/// Groups of a chunk: two nibbles of two lanes.
pub(super) const CHUNK_GROUPS: usize = 4;

/// The tables of one chunk, entries as bytes: `[nibble][plane][lane][entry]`. Two planes hold the digits of the
/// entries; entries that fit a byte have one plane.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Tables<const PLANES: usize>(pub(super) [[[[u8; ENTRIES]; 2]; PLANES]; 2]);

/// The tables of one chunk, entries as 16-bit values, by group.
pub(super) type WideTables = [[i16; ENTRIES]; CHUNK_GROUPS];

/// The sums of all combinations of one group.
#[inline(always)]
fn sums(groups: &Groups, x: &[i8]) -> [i16; ENTRIES] {
    let mut sums = [0i16; ENTRIES];
    for (levels, &x) in groups.levels.iter().zip(x) {
        for e in 0..ENTRIES {
            // At most 1984: the level set was checked.
            sums[e] = sums[e].wrapping_add(levels[e].wrapping_mul(i16::from(x)));
        }
    }
    sums
}

/// Calls `put(chunk, group, sums)` for each group of the chunks that start at the beginning of `x`. Columns beyond `x`
/// count as 0.
#[inline(always)]
fn for_groups(groups: &Groups, x: &[i8], chunks: usize, mut put: impl FnMut(usize, usize, [i16; ENTRIES])) {
    let mut at = 0;
    for c in 0..chunks {
        for g in 0..CHUNK_GROUPS {
            let of = match x.get(at..at + groups.len) {
                Some(x) => sums(groups, x),
                None => {
                    let mut padded = [0; MAX_GROUP];
                    let rest = x.get(at..).unwrap_or(&[]);
                    padded[..rest.len()].copy_from_slice(rest);
                    sums(groups, &padded[..groups.len])
                }
            };
            put(c, g, of);
            at += groups.len;
        }
    }
}

/// How an entry is stored in a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entries {
    /// Exact, as two digits.
    Digits(Digits),
    /// Exact, at most 127.
    Bytes,
    /// The nearest multiple of this step, divided by it: at most 127.
    Rounded(i32),
}

/// The step of rounded tables for a token: the smallest whole number for which its largest possible entry is at most
/// 127.
pub(super) fn step(groups: [Option<&Groups>; 2], cols: [usize; 2], max_level: i32, x: &[i8]) -> i32 {
    let mut largest = 0;
    let mut at = 0;
    for (groups, cols) in groups.into_iter().zip(cols) {
        let Some(groups) = groups else { continue };
        let x = &x[at.min(x.len())..(at + cols).min(x.len())];
        for group in x.chunks(groups.len) {
            largest = group.iter().map(|q| i32::from(*q).abs()).sum::<i32>().max(largest);
        }
        at += cols;
    }
    (largest * max_level + 126) / 127
}

/// The entry divided by `step`, rounded to the nearest whole number, half to even.
#[inline(always)]
fn rounded(entry: i16, step: f32) -> i16 {
    /// 1.5 * 2^23: floats of this size are whole numbers, so adding it rounds, half to even as in IEEE 754, and leaves
    /// the number in the lower bits.
    const WHOLE: f32 = 12_582_912.0;
    // A quotient that ends in a half is exact, and no other quotient is so close to a half that it rounds the wrong
    // way.
    (f32::from(entry) / step + WHOLE).to_bits() as i16
}

/// Builds byte tables of the columns that `x` begins with; `out` yields the tables of each chunk.
#[inline(always)]
pub(super) fn build<'t, const PLANES: usize>(
    groups: &Groups,
    entries: Entries,
    x: &[i8],
    out: impl ExactSizeIterator<Item = &'t mut Tables<PLANES>>,
) {
    let (base, half, step) = match entries {
        Entries::Digits(Digits { base, half, .. }) => (u16::from(base), u16::from(half), None),
        Entries::Bytes => (1, 0, None),
        Entries::Rounded(step) => (1, 0, Some(step.max(1) as f32)),
    };
    // n / base = (n * reciprocal) >> (16 + shift), exact for every possible n; see the test.
    let shift = base.ilog2();
    let reciprocal = (1u32 << (16 + shift)).div_ceil(u32::from(base)) as u16;
    let mut out = out;
    let chunks = out.len();
    let mut tables: Option<&mut Tables<PLANES>> = None;
    for_groups(groups, x, chunks, |_, g, sums| {
        if g == 0 {
            tables = out.next();
        }
        let Some(Tables(tables)) = &mut tables else { return };
        let (nibble, lane) = (g / 2, g % 2);
        if PLANES == 1 {
            tables[nibble][0][lane] = match step {
                Some(step) => sums.map(|s| rounded(s, step) as u8),
                None => sums.map(|s| s as u8),
            };
        } else {
            for e in 0..ENTRIES {
                // Shifted so that nothing is negative: floor((entry + half) / base), between -half and half.
                let n = (sums[e] as u16).wrapping_add(half + half * base);
                let high = ((u32::from(n) * u32::from(reciprocal)) >> 16) as u16 >> shift;
                let low = n.wrapping_sub(high.wrapping_mul(base)).wrapping_sub(half);
                tables[nibble][0][lane][e] = low as u8;
                tables[nibble][1][lane][e] = high.wrapping_sub(half) as u8;
            }
        }
    });
}

/// Builds tables of 16-bit entries; rounded ones are multiplied by their step again.
#[inline(always)]
pub(super) fn build_wide(groups: &Groups, entries: Entries, x: &[i8], out: &mut [WideTables]) {
    for_groups(groups, x, out.len(), |c, g, sums| {
        out[c][g] = match entries {
            Entries::Digits(_) | Entries::Bytes => sums,
            Entries::Rounded(step) => sums.map(|s| rounded(s, step.max(1) as f32) * step.max(1) as i16),
        };
    });
}

#[cfg(test)]
mod tests {
    use super::super::code::Code;
    use super::*;

    fn signed(byte: u8) -> i32 {
        i32::from(byte as i8)
    }

    /// Every possible entry equals its digits, and both are in their range.
    #[test]
    fn digits_are_exact() {
        for (levels, len) in [(&[-1i8, 0, 1][..], 3), (&[-15, 15], 1), (&[-7, -1, 1, 7], 2), (&[-3, -1, 1, 3], 2)] {
            let code = Code::new(levels, len).unwrap();
            let groups = code.mirrored.unwrap_or(code.plain);
            let d = code.digits;
            for a in -127..=127i8 {
                for b in [-127, -126, -64, -1, 0, 1, 3, 50, 126, 127i8] {
                    let x = [a, b, b.wrapping_neg(), a.wrapping_neg(), b, a, a, b, a, b, b, a];
                    let mut tables = [Tables::<2>([[[[0; ENTRIES]; 2]; 2]; 2])];
                    build(&groups, Entries::Digits(d), &x, tables.iter_mut());
                    let mut wide = [[[0; ENTRIES]; CHUNK_GROUPS]];
                    build_wide(&groups, Entries::Digits(d), &x, &mut wide);
                    for g in 0..CHUNK_GROUPS {
                        for e in 0..groups.entries {
                            let weights = (0..len).map(|j| i32::from(groups.levels[j][e]));
                            let expected: i32 = weights.zip(&x[g * len..]).map(|(w, &x)| w * i32::from(x)).sum();
                            let planes = tables[0].0[g / 2];
                            let (low, high) = (signed(planes[0][g % 2][e]), signed(planes[1][g % 2][e]));
                            assert_eq!(low + i32::from(d.base) * high, expected);
                            assert!(low.abs() <= i32::from(d.half) && high.abs() <= i32::from(d.half));
                            assert_eq!(i32::from(wide[0][g][e]), expected);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_half_to_even() {
        for step in 1..=16 {
            for entry in -1984..=1984i16 {
                let got = i32::from(rounded(entry, step as f32));
                let twice = 2 * (i32::from(entry) - got * step);
                assert!(twice.abs() < step || (twice.abs() == step && got % 2 == 0), "{entry} / {step} is not {got}");
            }
        }
    }
}
