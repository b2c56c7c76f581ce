//! Products of many tokens without dot products: tables of sums that the tokens of a tile share.
//!
//! A byte of the I2_S layout holds four weights of one row, so it has 81 values, and is multiplied with the same four
//! columns for every row of a panel. For a tile of [`TOKENS`] tokens, the 81 sums of those columns' activations are
//! computed once: an *entry* holds the sum of each token, [`TOKENS`] lanes of 16 bits. Every row then adds the entry
//! that its byte selects:
//!
//! ```text
//!                          token 0  1  2 ... 31
//! entry  0   -a -b -c -d   [                   ]     byte of row 0 = 1  ->  sums of row 0 += entry 1
//! entry  1    0 -b -c -d   [                   ]     byte of row 1 = 80 ->  sums of row 1 += entry 80
//!  ...                                                ...
//! entry 80    a  b  c  d   [                   ]     a to d: columns 16t + c + 0, 4, 8, 12
//! ```
//!
//! A lookup is two additions on 256 bits, or four on 128, and replaces 128 multiply-adds. An entry is computed from
//! another one by one addition. There is no multiplication, no shuffle, no horizontal sum: a CPU only needs additions
//! of 16 bits. The weights stay packed as for one token, and GEMV reads the same bytes.
//!
//! # Order
//! ```text
//! for each block of panels, for each tile of tokens:
//!     for each step of STEP_CHUNKS chunks:
//!         transpose the activations: a column of all tokens side by side
//!         widen the 16-bit sums first if this step could overflow them
//!         make the tables of the step, 16 of them
//!         for each row: 16 lookups, added to the row's 16-bit sums
//!     widen
//! ```
//! The tables, 83 KB, and the sums, up to 160 KB, stay in the level-2 cache; every row keeps its sums in registers for 16
//! lookups. Tables are made again for each block of panels, so a block has as many as that cache holds the sums of.
//!
//! # Exactness
//! No sum of a token exceeds the sum of the magnitudes of its activations. That sum is counted, and 16-bit sums are
//! widened before it exceeds `2^15 - 1`: after at least 256 columns, typically after a thousand.
//!
//! The idea is from Vec-LUT (arXiv 2512.06443). See `docs/adr/0031-tables-shared-by-tokens.md`.

use std::ops::Range;

use crate::PackedRows;
use crate::i2s::{Activations, Acts, CHUNK_BYTES, CHUNK_COLS, Chunk, PANEL_ROWS, Product, even_parts};
use crate::machine::second_level_cache;
use crate::panel_kernel::Layout;
use crate::simd;

mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse41;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use lanes::TokenLanes;

/// Tokens of a tile: the lanes of an entry.
pub(crate) const TOKENS: usize = 32;

/// Rows below which computing tables costs more than they save.
const ROWS_FROM: usize = 160;
/// Entries of a table, the sums of four activations times trits.
pub(crate) const ENTRIES: usize = 81;
/// Chunks of a step; the padding of rows is a multiple of it.
pub(crate) const STEP_CHUNKS: usize = 4;
/// Tables of a step, one for each byte of a row.
pub(crate) const TABLES: usize = STEP_CHUNKS * 4;
/// Columns of a step.
pub(crate) const STEP_COLS: usize = STEP_CHUNKS * CHUNK_COLS;
/// The largest number of panels whose 16-bit sums are kept at a time, 160 KB; [`block_rows`] are the rows that are.
pub(crate) const BLOCK_PANELS: usize = 160;
/// Panels of a block where the second-level cache is small.
const LEAST_PANELS: usize = 32;

// A step fits the 16-bit sums for any activations.
const _: () = assert!(STEP_COLS * 127 <= i16::MAX as usize);

/// Aligned to cache lines, so that an entry is one line.
#[repr(C, align(64))]
pub(crate) struct Lines<T>(pub(crate) T);

/// The activations of a step, for each column those of all tokens side by side.
pub(crate) type Columns = Lines<[[i8; TOKENS]; STEP_COLS]>;
/// Bytes of a panel in a step, each the number of an entry.
type Numbers = [[[u8; 4]; PANEL_ROWS]; STEP_CHUNKS];

/// How many of `n` tokens, the first ones, are multiplied by tables with `rows` rows; the others are multiplied as
/// usual. From `last_from` tokens on, the rest is a last tile.
pub(crate) fn tokens_of(rows: usize, n: usize, last_from: usize) -> usize {
    if rows < ROWS_FROM {
        return 0;
    }
    if n % TOKENS < last_from { n - n % TOKENS } else { n }
}

/// [`Kernel::least_rows`](crate::Kernel::least_rows) of a kernel that, if it uses tables (`last_from` is given),
/// computes them in each call for its rows.
pub(crate) fn least_rows(last_from: Option<usize>, n: usize) -> usize {
    match (n, last_from) {
        (1, _) => 32,
        (n, Some(last_from)) if tokens_of(ROWS_FROM, n, last_from) > 0 => 640,
        (_, _) => 128,
    }
}

/// [`Kernel::block_rows`](crate::Kernel::block_rows) of a kernel that uses tables: so many that making the tables hardly counts, and
/// fewer where the tables of a step and the sums would not fit half of the second-level cache. `panels` are [`StepWeights::PANELS`].
pub(crate) fn block_rows(panels: usize) -> usize {
    rows_beside_tables(TOKENS * size_of::<i16>(), panels)
}

/// Rows whose sums of `row_bytes` each fit half of the second-level cache together with the tables of a step, at most `panels`
/// panels of them.
pub(crate) fn rows_beside_tables(row_bytes: usize, panels: usize) -> usize {
    const TABLE_BYTES: usize = TABLES * ENTRIES * TOKENS * size_of::<i16>();
    let fit = (second_level_cache() / 2).saturating_sub(TABLE_BYTES) / row_bytes;
    (fit / PANEL_ROWS).clamp(LEAST_PANELS, panels) * PANEL_ROWS
}

/// The product of the first [`tokens_of`] tokens by `tables`, which is [`product`] compiled for the instruction set,
/// and of the rest, if any, by `multiply`.
pub(crate) fn split<L: Layout>(
    last_from: usize,
    w: &PackedRows<'_>,
    x: Activations<'_>,
    acc: &mut [i32],
    tables: impl FnOnce(&L::Product<'_>, &mut [i32]),
    multiply: impl FnOnce(Activations<'_>, &mut [i32]),
) {
    let n = x.shape().2.len();
    let shared = tokens_of(w.rows(), n, last_from);
    if shared == 0 {
        return multiply(x, acc);
    }
    // The lengths that this split relies on; `Product` checks those of the parts.
    assert_eq!(acc.len(), n * w.rows(), "accumulators");
    let (first, rest) = acc.split_at_mut(shared * w.rows());
    if let Some(product) = L::product(w, x.rows(0..shared), first) {
        tables(&product, first);
    }
    if shared < n {
        multiply(x.rows(shared..n), rest);
    }
}

/// Where the weights of a step come from.
pub(crate) trait StepWeights {
    /// The largest number of panels that are made ready at a time.
    const PANELS: usize;

    /// Makes ready those of `panels`, at most [`StepWeights::PANELS`], for the step that begins at chunk `start`. Steps of the same panels
    /// follow each other from chunk 0 on.
    fn prepare(&mut self, panels: &Range<usize>, start: usize);
    /// The [`STEP_CHUNKS`] chunks of panel `p` from `start` on.
    fn step(&self, p: usize, start: usize) -> &[Chunk];
}

/// Weights in the I2_S layout: those of the product itself.
pub(crate) struct InPlace<'a>(pub(crate) &'a Product<'a>);

impl StepWeights for InPlace<'_> {
    const PANELS: usize = BLOCK_PANELS;

    fn prepare(&mut self, _panels: &Range<usize>, _start: usize) {}
    fn step(&self, p: usize, start: usize) -> &[Chunk] {
        let step = &self.0.panel(p)[start..start + STEP_CHUNKS];
        prefetch_panel(step, self.0.chunks());
        step
    }
}

/// Prefetches the piece of a panel a few panels after that of `piece`; a panel is `len` elements.
///
/// A step reads a small piece of each panel, kilobytes apart, and the weights of a block do not stay in the second-level cache
/// until the next tile of tokens. Hardware prefetchers do not follow such reads: without this a prompt of 2B4T on one thread
/// of AVX2 takes 1.35 times as long.
#[inline(always)]
pub(crate) fn prefetch_panel<T>(piece: &[T], len: usize) {
    const PANELS_AHEAD: usize = 4;
    let ahead = piece.as_ptr().wrapping_add(PANELS_AHEAD * len).cast::<u8>();
    for line in (0..size_of_val(piece)).step_by(64) {
        simd::prefetch(ahead.wrapping_add(line));
    }
}

/// `acc[t * rows + r]` for all tokens of the product; `P` registers of `s` are [`TOKENS`] lanes.
#[inline(always)]
pub(crate) fn product<S: TokenLanes, const P: usize, W: StepWeights>(
    s: S,
    product: &Product<'_>,
    weights: &mut W,
    acc: &mut [i32],
) {
    const { assert!(P * S::LANES == TOKENS && LEAST_PANELS <= W::PANELS && W::PANELS <= BLOCK_PANELS) };
    let mut tables = Lines([[[S::ZERO; P]; ENTRIES]; TABLES]);
    let mut sums = Lines([[[S::ZERO; P]; PANEL_ROWS]; BLOCK_PANELS]);
    let mut columns = Lines([[0; TOKENS]; STEP_COLS]);
    for panels in even_parts(0..product.panel_count(), block_rows(W::PANELS) / PANEL_ROWS) {
        for first in (0..product.tokens()).step_by(TOKENS) {
            let tokens = first..product.tokens().min(first + TOKENS);
            // Magnitudes of the activations in the 16-bit sums; whether there are such sums; whether they are the
            // first.
            let (mut magnitudes, mut narrow, mut first) = ([0u32; TOKENS], false, true);
            for start in (0..product.chunks()).step_by(STEP_CHUNKS) {
                let copy = |c: usize, acts: &mut [Acts; TOKENS]| {
                    product.interleave(tokens.clone(), start + c..start + c + 1, acts);
                };
                let step = turn(s, copy, &mut columns);
                let full = magnitudes.iter().zip(&step).any(|(m, s)| m + s > i16::MAX as u32);
                if full && narrow {
                    widen(s, product, &sums.0, panels.clone(), tokens.clone(), first, acc);
                    (magnitudes, narrow, first) = ([0; TOKENS], false, false);
                }
                magnitudes.iter_mut().zip(step).for_each(|(m, s)| *m += s);
                make_tables(s, &columns, &mut tables.0);
                weights.prepare(&panels, start);
                look_up(s, |p| weights.step(p, start), panels.clone(), &tables.0, narrow, &mut sums.0);
                narrow = true;
            }
            widen(s, product, &sums.0, panels.clone(), tokens, first, acc);
        }
    }
}

/// Transposes the activations of a step; `copy` copies those of one of its chunks, a row for each lane, and rows that it
/// leaves out are zero. Returns the sum of magnitudes of each lane.
#[inline(always)]
pub(crate) fn turn<S: TokenLanes>(
    s: S,
    copy: impl Fn(usize, &mut [Acts; TOKENS]),
    columns: &mut Columns,
) -> [u32; TOKENS] {
    let mut magnitudes = [0; TOKENS];
    let mut acts: [Acts; TOKENS] = [[0; CHUNK_COLS]; TOKENS];
    for (c, columns) in columns.0.as_chunks_mut::<CHUNK_COLS>().0.iter_mut().enumerate() {
        copy(c, &mut acts);
        for (sum, acts) in magnitudes.iter_mut().zip(&acts) {
            *sum += acts.iter().map(|&q| u32::from((q as i8).unsigned_abs())).sum::<u32>();
        }
        for (half, acts) in acts.as_chunks::<16>().0.iter().enumerate() {
            let turned = turn_16(s, acts);
            for (column, turned) in columns.iter_mut().zip(turned) {
                let column: &mut [u8] = bytemuck::cast_slice_mut(column);
                s.store_bytes(turned, &mut column.as_chunks_mut().0[half]);
            }
        }
    }
    magnitudes
}

/// Transposes sixteen rows. A round of a perfect shuffle rotates the bits of an element's index by one, so four rounds
/// swap the row and the column.
#[inline(always)]
fn turn_16<S: TokenLanes>(s: S, rows: &[[u8; 16]; 16]) -> [S::Bytes; 16] {
    let mut v = [s.load_bytes(&rows[0]); 16];
    for i in 0..16 {
        v[i] = s.load_bytes(&rows[i]);
    }
    for _ in 0..4 {
        let from = v;
        for i in 0..8 {
            [v[2 * i], v[2 * i + 1]] = s.zip_bytes(from[i], from[i + 8]);
        }
    }
    v
}

/// Like [`turn_16`], for eight rows of eight numbers of 16 bits.
#[inline(always)]
fn turn_8<S: TokenLanes>(s: S, mut v: [S::Bytes; 8]) -> [S::Bytes; 8] {
    for _ in 0..3 {
        let from = v;
        for i in 0..4 {
            [v[2 * i], v[2 * i + 1]] = s.zip_pairs(from[i], from[i + 4]);
        }
    }
    v
}

/// The tables of a step: entry `d0 + 3 d1 + 9 d2 + 27 d3` of table `4i + c` is the sum of `(dj - 1)` times the
/// activations of column `16i + 4j + c`.
#[inline(always)]
pub(crate) fn make_tables<S: TokenLanes, const P: usize>(
    s: S,
    columns: &Columns,
    tables: &mut [[[S::Memory; P]; ENTRIES]; TABLES],
) {
    for (t, table) in tables.iter_mut().enumerate() {
        let at = t / 4 * CHUNK_COLS + t % 4;
        let mut x = [[s.zero(); P]; 4];
        for (j, x) in x.iter_mut().enumerate() {
            let column: &[S::Narrow] = bytemuck::cast_slice(&columns.0[at + 4 * j]);
            for (p, x) in x.iter_mut().enumerate() {
                *x = s.widen(&column[p]);
            }
        }
        let mut third = [s.zero(); P];
        for x in &x {
            for p in 0..P {
                third[p] = s.sub(third[p], x[p]);
            }
        }
        for d3 in 0..3 {
            let mut second = third;
            for d2 in 0..3 {
                let mut first = second;
                for d1 in 0..3 {
                    let at = 27 * d3 + 9 * d2 + 3 * d1;
                    for p in 0..P {
                        let middle = s.add(first[p], x[0][p]);
                        s.store(first[p], &mut table[at][p]);
                        s.store(middle, &mut table[at + 1][p]);
                        s.store(s.add(middle, x[0][p]), &mut table[at + 2][p]);
                        first[p] = s.add(first[p], x[1][p]);
                    }
                }
                for p in 0..P {
                    second[p] = s.add(second[p], x[2][p]);
                }
            }
            for p in 0..P {
                third[p] = s.add(third[p], x[3][p]);
            }
        }
    }
}

/// Adds the entries of all rows of `panels` to their sums, or sets the sums if there are none yet (`add` is false).
/// `weights` are the [`STEP_CHUNKS`] chunks of a panel for the step.
#[inline(always)]
pub(crate) fn look_up<'w, S: TokenLanes, const P: usize>(
    s: S,
    weights: impl Fn(usize) -> &'w [Chunk],
    panels: Range<usize>,
    tables: &[[[S::Memory; P]; ENTRIES]; TABLES],
    add: bool,
    sums: &mut [[[S::Memory; P]; PANEL_ROWS]],
) {
    for (p, sums) in panels.zip(sums) {
        let numbers = numbers(weights(p));
        for (r, sums) in sums.iter_mut().enumerate() {
            let mut v = [s.zero(); P];
            if add {
                for p in 0..P {
                    v[p] = s.load(&sums[p]);
                }
            }
            for i in 0..STEP_CHUNKS {
                let four = u32::from_le_bytes(numbers[i][r]);
                for c in 0..4 {
                    // SAFETY: `numbers` are below `ENTRIES` for any weights.
                    let entry = unsafe { tables[4 * i + c].get_unchecked((four >> (8 * c) & 0xff) as usize) };
                    for p in 0..P {
                        v[p] = s.add(v[p], s.load(&entry[p]));
                    }
                }
            }
            for p in 0..P {
                s.store(v[p], &mut sums[p]);
            }
        }
    }
}

/// The entry numbers of the bytes of one panel, all below [`ENTRIES`]: four digits to base 3 instead of base 4.
#[inline(always)]
fn numbers(chunks: &[Chunk]) -> Numbers {
    let mut out = [[0; CHUNK_BYTES]; STEP_CHUNKS];
    for (out, chunk) in out.iter_mut().zip(chunks) {
        for (out, byte) in out.iter_mut().zip(chunk) {
            let pairs = byte - (byte >> 2 & 0x33);
            // Only a byte with a code of 3, which this crate never writes, exceeds the last entry.
            *out = (pairs - 7 * (pairs >> 4)).min(ENTRIES as u8 - 1);
        }
    }
    bytemuck::cast(out)
}

/// Sets `acc` to the 16-bit sums of `panels` and `tokens`, or adds them (`set` is false).
#[inline(always)]
fn widen<S: TokenLanes, const P: usize>(
    s: S,
    product: &Product<'_>,
    sums: &[[[S::Memory; P]; PANEL_ROWS]; BLOCK_PANELS],
    panels: Range<usize>,
    tokens: Range<usize>,
    set: bool,
    acc: &mut [i32],
) {
    for (p, sums) in panels.zip(sums) {
        for (eight, first) in tokens.clone().step_by(8).enumerate() {
            let mut turned = [[[0i16; 8]; 2]; 8];
            for half in 0..2 {
                let mut v = [s.load_bytes(&[0; 16]); 8];
                for i in 0..8 {
                    let row: &[[u8; 16]] = bytemuck::cast_slice(sums[8 * half + i].as_slice());
                    v[i] = s.load_bytes(&row[eight]);
                }
                for (turned, v) in turned.iter_mut().zip(turn_8(s, v)) {
                    s.store_bytes(v, bytemuck::cast_mut(&mut turned[half]));
                }
            }
            for (t, turned) in (first..tokens.end).zip(&turned) {
                product.put(p, t, bytemuck::cast_ref(turned), set, acc);
            }
        }
    }
}
