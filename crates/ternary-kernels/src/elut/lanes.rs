//! The product with look-up tables, written once over the shuffle of an instruction set.
//!
//! # Algorithm
//! ```text
//! for each block of N tokens:
//!     for each run of chunks whose tables stay in the first-level cache:             (1)
//!         for each token: build the tables of the run                                (2)
//!         for each panel of 32 rows:
//!             wide = 0                                     64 lanes of 16 bits, two for each row
//!             for each FLUSH chunks:
//!                 low = high = 0                           64 lanes of 8 bits
//!                 for each nibble of a chunk:
//!                     low  += shuffle(table of low digits, nibble)                   (3)
//!                     high += shuffle(table of high digits, nibble)
//!                 wide += low + base * high
//!             acc[row] += both lanes of the row in `wide`                            (4)
//! ```
//! 1. And few enough for the 16 bits of `wide`: [`Code::max_entry`] times two nibbles times chunks below 2^15.
//! 2. On the stack; a kernel does not allocate.
//! 3. An entry of up to 480 needs more than 8 bits. The usual way looks up both of its bytes and combines them to 16
//!    bits for each lookup. Here an entry is two *signed digits*, `low + 31 * high`, each at most 15, so that eight of
//!    each can be added in 8 bits before anything is widened. It also means that negating an entry negates each of its
//!    bytes.
//! 4. Sums are exact, so their order is free, and results do not depend on tokens, threads or instruction set.
//!
//! Int4 activations need no digits: a sum of a group fits a byte, and with groups of trits four of them can be added in
//! 8 bits. So tables have one plane, an index is looked up once, and the bytes of both nibbles take the places of both
//! digits, with base 1. Rounded tables work like that with entries up to 127, which are widened at once.

use super::table::{Entries, Tables, build};
use super::{BLOCK_CHUNKS, Block, CHUNK_BYTES, Chunk, PANEL_ROWS, Product, RunBuffer, Stored};
use crate::simd;

/// The most chunks whose tables are kept at a time: 8 KiB for each token. Exact tables of int8 activations are kept for
/// half as many chunks.
pub(super) const MAX_RUN: usize = 128;

/// An instruction set's operations on one chunk of 64 bytes. `self` is a proof token, so the methods are safe.
pub(super) trait Lanes: Copy {
    /// The bytes of a chunk.
    type V: Copy;
    /// A table for each of the two lanes, repeated in the order of the lanes.
    type T: Copy;
    /// A mask of the bytes to negate.
    type M: Copy;
    /// 64 i16.
    type W: Copy;

    fn load(self, x: &Chunk) -> Self::V;
    fn zero(self) -> Self::V;
    fn table(self, x: &[[u8; 16]; 2]) -> Self::T;
    /// The lower four bits of each byte.
    fn low(self, v: Self::V) -> Self::V;
    /// The upper four bits of each byte.
    fn high(self, v: Self::V) -> Self::V;
    fn lookup(self, table: Self::T, index: Self::V) -> Self::V;
    /// Adds bytes; there is no overflow.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// The top bit of each byte.
    fn mask(self, v: Self::V) -> Self::M;
    /// Negates the bytes that the mask selects.
    fn oppose(self, v: Self::V, mask: Self::M) -> Self::V;
    fn zero_wide(self) -> Self::W;
    /// `wide + low + base * high`, bytes as i8.
    fn widen(self, wide: Self::W, low: Self::V, high: Self::V, base: u8) -> Self::W;
    /// The sum of both lanes of each row.
    fn rows(self, wide: Self::W) -> [i32; PANEL_ROWS];
}

/// [`runs`] compiled for an instruction set, each instance separately.
pub(super) trait Compiled: Lanes {
    /// Tokens at a time: 2 or 4, as many as fit the registers.
    const MAX_TOKENS: usize;

    /// [`runs`].
    fn runs<const N: usize, const P: usize, const FLUSH: usize, const RUN: usize>(
        self,
        product: &Product<'_>,
        first: usize,
        acc: &mut [i32],
    );
}

/// Implements [`Compiled`] for `$lanes`, which hold the token `$token` as `$proof`. Every instance of [`runs`] is a
/// separate function, which compiles faster than one function with all of them.
#[allow(unused_macros, reason = "used only with a shuffle instruction")]
macro_rules! compiled_runs {
    ($lanes:ty, tokens = $most:literal, $token:ident = |$l:ident| $proof:expr) => {
        impl crate::elut::lanes::Compiled for $lanes {
            const MAX_TOKENS: usize = $most;

            fn runs<const N: usize, const P: usize, const FLUSH: usize, const RUN: usize>(
                self,
                product: &crate::elut::Product<'_>,
                first: usize,
                acc: &mut [i32],
            ) {
                let $l = self;
                let proof = $proof;
                $crate::isa::compiled!(
                    $token,
                    proof => <const N: usize, const P: usize, const FLUSH: usize, const RUN: usize>
                    |_cpu, $l: $lanes, product: &crate::elut::Product<'_>, first: usize, acc: &mut [i32]| {
                        crate::elut::lanes::runs::<_, N, P, FLUSH, RUN>($l, product, first, acc);
                    }
                );
            }
        }
    };
}
#[allow(unused_imports, reason = "used only with a shuffle instruction")]
pub(super) use compiled_runs;

/// Computes all of `product`.
pub(super) fn run<S: Compiled>(s: S, product: &Product<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let mut first = 0;
    while first < product.tokens {
        let left = product.tokens - first;
        first += if S::MAX_TOKENS >= 4 && left >= 4 {
            tokens::<S, 4>(s, product, first, acc)
        } else if left >= 2 {
            tokens::<S, 2>(s, product, first, acc)
        } else {
            tokens::<S, 1>(s, product, first, acc)
        };
    }
}

/// Computes `N` tokens from `first`; returns `N`.
fn tokens<S: Compiled, const N: usize>(s: S, product: &Product<'_>, first: usize, acc: &mut [i32]) -> usize {
    match (product.stored, product.code.digits.chunks) {
        (Stored::Digits, 4) => s.runs::<N, 2, 4, 64>(product, first, acc),
        (Stored::Digits, _) => s.runs::<N, 2, 2, 64>(product, first, acc),
        (Stored::Bytes, _) if 4 * product.largest() <= 127 => s.runs::<N, 1, 4, MAX_RUN>(product, first, acc),
        (Stored::Bytes | Stored::Rounded, _) => s.runs::<N, 1, 1, MAX_RUN>(product, first, acc),
    }
    N
}

/// All sections for `N` tokens from `first`, at most `RUN` chunks at a time. Tables have `P` planes, and every `FLUSH`
/// chunks the 8-bit sums are full.
#[inline(always)]
pub(super) fn runs<S: Lanes, const N: usize, const P: usize, const FLUSH: usize, const RUN: usize>(
    s: S,
    product: &Product<'_>,
    first: usize,
    acc: &mut [i32],
) {
    const { assert!(RUN.is_multiple_of(BLOCK_CHUNKS) && RUN <= MAX_RUN) };
    let mut tables = [[Tables::<P>([[[[0; 16]; 2]; P]; 2]); N]; RUN];
    let mut buffer: RunBuffer = [0; _];
    // The factor of the second of two bytes that are looked up.
    let base = if P == 2 { product.code.digits.base } else { 1 };
    let entries: [Entries; N] = std::array::from_fn(|n| product.entries(first + n));
    for section in product.sections() {
        for run in section.runs(product.run_chunks(RUN)) {
            let tables = &mut tables[..run.chunks];
            for n in 0..N {
                let out = tables.iter_mut().map(|t| &mut t[n]);
                build(&run.groups, entries[n], product.columns(first + n, &run, &mut buffer), out);
            }
            for p in 0..product.panel_count() {
                let wide = if run.groups.mirror {
                    mirrored::<S, N, P, FLUSH>(s, product.blocks(p, &run), tables, base, product.panel_bytes)
                } else {
                    plain::<S, N, P, FLUSH>(s, product.chunks(p, &run), tables, base, product.panel_bytes)
                };
                for n in 0..N {
                    let factor = if let Entries::Rounded(step) = entries[n] { step } else { 1 };
                    product.add(p, first + n, &s.rows(wide[n]), factor, acc);
                }
            }
        }
    }
}

#[inline(always)]
fn plain<S: Lanes, const N: usize, const P: usize, const FLUSH: usize>(
    s: S,
    chunks: &[Chunk],
    tables: &[[Tables<P>; N]],
    base: u8,
    panel_bytes: usize,
) -> [S::W; N] {
    let mut wide = [s.zero_wide(); N];
    let (whole, rest) = chunks.as_chunks::<FLUSH>();
    let (whole_tables, rest_tables) = tables.as_chunks::<FLUSH>();
    for (chunks, tables) in whole.iter().zip(whole_tables) {
        let mut sums = [[s.zero(); 2]; N];
        for (chunk, tables) in chunks.iter().zip(tables) {
            // The same columns of the next panel: a run is too short for the hardware prefetcher.
            simd::prefetch(chunk.as_ptr().wrapping_byte_add(panel_bytes));
            add_chunk(s, chunk, None, tables, &mut sums);
        }
        flush(s, &sums, &mut wide, base);
    }
    for (chunk, tables) in rest.iter().zip(rest_tables) {
        let mut sums = [[s.zero(); 2]; N];
        add_chunk(s, chunk, None, tables, &mut sums);
        flush(s, &sums, &mut wide, base);
    }
    wide
}

#[inline(always)]
fn mirrored<S: Lanes, const N: usize, const P: usize, const FLUSH: usize>(
    s: S,
    blocks: &[Block],
    tables: &[[Tables<P>; N]],
    base: u8,
    panel_bytes: usize,
) -> [S::W; N] {
    const { assert!(BLOCK_CHUNKS.is_multiple_of(FLUSH)) };
    let mut wide = [s.zero_wide(); N];
    for (block, tables) in blocks.iter().zip(tables.as_chunks::<BLOCK_CHUNKS>().0) {
        for line in block {
            simd::prefetch(line.as_ptr().wrapping_byte_add(panel_bytes));
        }
        let [chunks @ .., signs] = block;
        let mut signs = s.load(signs);
        for (chunks, tables) in chunks.as_chunks::<FLUSH>().0.iter().zip(tables.as_chunks::<FLUSH>().0) {
            let mut sums = [[s.zero(); 2]; N];
            for (chunk, tables) in chunks.iter().zip(tables) {
                let low = s.mask(signs);
                signs = s.add(signs, signs);
                let high = s.mask(signs);
                signs = s.add(signs, signs);
                add_chunk(s, chunk, Some([low, high]), tables, &mut sums);
            }
            flush(s, &sums, &mut wide, base);
        }
    }
    wide
}

/// Adds the lookups of one chunk to `sums`: the low and the high digits, or those of the lower and of the upper
/// nibbles.
#[inline(always)]
fn add_chunk<S: Lanes, const N: usize, const P: usize>(
    s: S,
    chunk: &Chunk,
    opposite: Option<[S::M; 2]>,
    tables: &[Tables<P>; N],
    sums: &mut [[S::V; 2]; N],
) {
    let v = s.load(chunk);
    let index = [s.low(v), s.high(v)];
    for n in 0..N {
        for (nibble, tables) in tables[n].0.iter().enumerate() {
            for (plane, table) in tables.iter().enumerate() {
                let entry = s.lookup(s.table(table), index[nibble]);
                let entry = match opposite {
                    Some(mask) => s.oppose(entry, mask[nibble]),
                    None => entry,
                };
                let place = if P == 2 { plane } else { nibble };
                sums[n][place] = s.add(sums[n][place], entry);
            }
        }
    }
}

#[inline(always)]
fn flush<S: Lanes, const N: usize>(s: S, sums: &[[S::V; 2]; N], wide: &mut [S::W; N], base: u8) {
    for n in 0..N {
        wide[n] = s.widen(wide[n], sums[n][0], sums[n][1], base);
    }
}

const _: () = assert!(CHUNK_BYTES == 2 * PANEL_ROWS);
