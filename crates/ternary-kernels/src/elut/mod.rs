//! Look-up tables: every combination of a few weights is computed once per token, and all rows look it up.
//!
//! `docs/kernels.md` explains the idea with pictures. A *level set* is the values that a weight can have (-1, 0, +1 for
//! ternary ones), a *group* some consecutive weights of a row. For each group of activations there is a table with the
//! sums of all combinations of levels; a group of weights is the index of its combination. If the set is symmetric, two
//! opposite combinations share one entry, and one bit holds the sign (*mirror consolidation*). A table has 16 entries,
//! because that is what shuffle instructions look up.
//!
//! | levels, group | entries | bits per weight | name |
//! |---|---|---|---|
//! | -1 0 1, 2 | 9 | 2 | TL1 |
//! | -1 0 1, 3 | 14 and a sign | 1 2/3 | TL2 |
//! | four, 2 | 16 | 2 | |
//! | five symmetric ones, 2 | 13 and a sign | 2 1/2 | |
//! | two, 4 | 16 | 1 | |
//!
//! Paper: arXiv 2502.11880, section 3 and appendix (element-wise look-up tables).
//!
//! # Kernel layout
//! Rows are taken 32 at a time (a *panel*). A *chunk* holds four groups of each row, 64 bytes:
//!
//! ```text
//! byte      0 .. 15   16 .. 31   32 .. 47   48 .. 63
//! row       0 .. 15    0 .. 15   16 .. 31   16 .. 31
//! lane          0          1          0          1
//!
//! lower four bits: group `lane` of the chunk; upper four bits: group `2 + lane`
//! ```
//!
//! So all bytes of a lane use one table, and lanes alternate as in a register of 256 or 512 bits to which two tables of
//! 16 bytes were broadcast. With mirror consolidation four chunks and a line of signs make a *block*, 320 bytes; bit
//! `7 - 2c - h` of byte `i` of the signs belongs to byte `i` of chunk `c`, `h` = 0 for the lower four bits:
//!
//! ```text
//! panel:  [ chunk chunk chunk chunk signs ] [ chunk chunk chunk chunk signs ] ...  [ chunk ] ...
//!           mirrored blocks, as many as the columns fill                             plain groups, the rest
//! ```
//!
//! The columns that fill no block are stored as plain groups, the longest whose combinations fit a table: a row of 2560
//! trits is 53 blocks of 48 in triples and 16 in pairs. The last plain chunk is padded with weight 0.
//!
//! ```
//! use ternary_kernels::{Scales, TernaryMatrix};
//! let w = TernaryMatrix::from_trits(1, 8, &[1, -1, 0, 0, 1, 1, 0, 1], Scales::Tensor(1.0)).unwrap();
//! let packed = ternary_kernels::by_name("tl1_scalar").unwrap().prepack(&w).unwrap();
//! assert_eq!(packed.byte_len(), 64); // one panel of one chunk
//! let bytes = packed.all().bytes();
//! assert_eq!(bytes[0], 8 << 4 | 6); // groups 2 and 0: (1, 1) is 3 * 2 + 2, (1, -1) is 3 * 2 + 0
//! assert_eq!(bytes[16], 5 << 4 | 4); // groups 3 and 1: (0, 1) and (0, 0)
//! assert_eq!(bytes[1], 0); // a row of padding, computed and dropped
//! ```

use crate::PackedRows;
use crate::i2s::{Activations, even_parts};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod code;
#[allow(dead_code, reason = "used only with a shuffle instruction")]
mod lanes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "wasm32"))]
mod lanes128;
mod pack;
mod path;
mod public;
mod scalar;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use path::Path;
pub use public::Elut;

use crate::activations::int4::{self, GROUP_BYTES, GROUP_COLS};
use code::{Code, Groups};
use table::{CHUNK_GROUPS, Entries};

const PANEL_ROWS: usize = 32;
const CHUNK_BYTES: usize = 64;
const BLOCK_CHUNKS: usize = 4;

/// Four groups of the rows of a panel.
type Chunk = [u8; CHUNK_BYTES];
/// Chunks and the signs of their groups.
type Block = [Chunk; BLOCK_CHUNKS + 1];

/// Columns of one kind of groups in a panel.
#[derive(Clone, Copy, Debug)]
struct Section {
    groups: Groups,
    /// First column.
    col: usize,
    /// First byte in a panel.
    byte: usize,
    chunks: usize,
}

impl Section {
    /// The columns that it covers, padding included.
    fn cols(&self) -> usize {
        self.chunks * CHUNK_GROUPS * self.groups.len
    }

    /// The section in runs of at most `most` chunks, whole blocks where there are blocks.
    fn runs(self, most: usize) -> impl Iterator<Item = Section> {
        let unit = if self.groups.mirror { BLOCK_CHUNKS } else { 1 };
        even_parts(0..self.chunks / unit, most / unit).map(move |range| {
            let (from, to) = (range.start * unit, range.end * unit);
            Section {
                col: self.col + from * CHUNK_GROUPS * self.groups.len,
                byte: self.byte + bytes_of(from, self.groups.mirror),
                chunks: to - from,
                ..self
            }
        })
    }
}

/// Bytes of `chunks` chunks with their signs.
fn bytes_of(chunks: usize, mirror: bool) -> usize {
    chunks * CHUNK_BYTES + if mirror { chunks / BLOCK_CHUNKS * CHUNK_BYTES } else { 0 }
}

impl Code {
    /// How a row of `cols` weights is divided: mirrored blocks, then plain chunks.
    fn sections(&self, cols: usize) -> [Option<Section>; 2] {
        let block_cols = |m: &Groups| BLOCK_CHUNKS * CHUNK_GROUPS * m.len;
        let mirrored = self.mirrored.map(|groups| {
            let chunks = cols / block_cols(&groups) * BLOCK_CHUNKS;
            Section { groups, col: 0, byte: 0, chunks }
        });
        let (col, byte) = mirrored.map_or((0, 0), |m| (m.cols(), bytes_of(m.chunks, true)));
        let chunks = (cols - col).div_ceil(CHUNK_GROUPS * self.plain.len);
        [mirrored, Some(Section { groups: self.plain, col, byte, chunks })]
    }

    fn panel_bytes(&self, cols: usize) -> usize {
        self.sections(cols).iter().flatten().map(|s| bytes_of(s.chunks, s.groups.mirror)).sum()
    }
}

/// How entries are stored, and so how many planes tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// Exact, two digits each: int8 activations.
    Digits,
    /// Exact, one byte each: int4 activations, for which no group of any level set has a sum above 127.
    Bytes,
    /// Rounded to a multiple of the token's step, one byte each.
    Rounded,
}

/// The operands of a product, with all lengths checked.
struct Product<'a> {
    code: &'a Code,
    stored: Stored,
    bytes: &'a [u8],
    panel_bytes: usize,
    rows: usize,
    x: Activations<'a>,
    cols: usize,
    tokens: usize,
}

/// Columns of the longest run: the most chunks of any instruction set, of the longest groups.
const MAX_RUN_COLS: usize = lanes::MAX_RUN * CHUNK_GROUPS * code::MAX_GROUP;
/// Room for the int4 activations of a run as int8; a run may begin and end within a group of nibbles.
type RunBuffer = [i8; MAX_RUN_COLS + 2 * GROUP_COLS];

impl<'a> Product<'a> {
    /// Checks all lengths; if there is nothing to multiply, sets `acc` to zero and returns `None`. Int4 activations are
    /// never rounded, even if `rounded` is set.
    fn new(
        code: &'a Code,
        rounded: bool,
        w: &PackedRows<'a>,
        x: Activations<'a>,
        acc: &mut [i32],
    ) -> Option<Product<'a>> {
        let panel_bytes = code.panel_bytes(w.cols());
        let (k, padded, sums) = x.shape();
        assert_eq!(w.panel_bytes(), panel_bytes, "look-up tables: weights in another layout");
        assert_eq!(w.bytes().len(), w.rows().div_ceil(PANEL_ROWS) * panel_bytes, "bytes of the weights");
        assert_eq!(k, w.cols(), "activations per token");
        assert!(padded >= k, "padding");
        assert_eq!(acc.len(), sums.len() * w.rows(), "accumulators");
        if panel_bytes == 0 || acc.is_empty() {
            acc.fill(0);
            return None;
        }
        let stored = match x {
            Activations::Int4(_) => Stored::Bytes,
            Activations::Int8(_) if rounded => Stored::Rounded,
            Activations::Int8(_) => Stored::Digits,
        };
        Some(Product { code, stored, bytes: w.bytes(), panel_bytes, rows: w.rows(), x, cols: k, tokens: sums.len() })
    }

    fn panel_count(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Rows of panel `p` without the padding.
    fn rows_of(&self, p: usize) -> usize {
        PANEL_ROWS.min(self.rows - p * PANEL_ROWS)
    }

    /// Activations of token `t` from the first column of `run` on: as many as the run has, or fewer if the row and its
    /// padding end earlier. Int4 activations are widened into `buffer`.
    #[inline(always)]
    fn columns<'b>(&self, t: usize, run: &Section, buffer: &'b mut RunBuffer) -> &'b [i8]
    where
        'a: 'b,
    {
        match self.x {
            Activations::Int8(x) => x.codes()[t * x.stride()..][..x.stride()].get(run.col..).unwrap_or(&[]),
            Activations::Int4(x) => {
                let (groups, _) = x.nibbles()[t * x.stride()..][..x.stride()].as_chunks::<GROUP_BYTES>();
                let (first, skipped) = (run.col / GROUP_COLS, run.col % GROUP_COLS);
                let wanted = (skipped + run.cols()).div_ceil(GROUP_COLS);
                let groups = groups.get(first..).unwrap_or(&[]);
                let (halves, _) = buffer.as_chunks_mut::<{ GROUP_COLS / 2 }>();
                let mut len = 0;
                for (group, [low, high]) in groups.iter().take(wanted).zip(halves.as_chunks_mut().0) {
                    *low = int4::low(group).map(|c| c as i8);
                    *high = int4::high(group).map(|c| c as i8);
                    len += GROUP_COLS;
                }
                buffer.get(skipped..len).unwrap_or(&[])
            }
        }
    }

    fn sections(&self) -> impl Iterator<Item = Section> {
        self.code.sections(self.cols).into_iter().flatten()
    }

    /// How entries are stored in the tables of token `t`.
    fn entries(&self, t: usize) -> Entries {
        match (self.stored, self.x) {
            (Stored::Rounded, Activations::Int8(x)) => {
                Entries::Rounded(self.code.step(&x.codes()[t * x.stride()..][..self.cols]))
            }
            (Stored::Digits, _) => Entries::Digits(self.code.digits),
            _ => Entries::Bytes,
        }
    }

    /// The largest absolute value that a lookup adds to 16-bit sums.
    fn largest(&self) -> i32 {
        match self.stored {
            Stored::Digits => self.code.max_entry(),
            Stored::Bytes => self.code.max_entry_int4(),
            Stored::Rounded => 127,
        }
    }

    /// Chunks whose lookups are added in 16 bits, at most `most` and whole blocks. A chunk adds two entries to a lane.
    fn run_chunks(&self, most: usize) -> usize {
        let fits = i16::MAX as usize / (2 * self.largest() as usize).max(1);
        fits.min(most) / BLOCK_CHUNKS * BLOCK_CHUNKS
    }

    /// The bytes of `run` in panel `p`.
    fn panel(&self, p: usize, run: &Section) -> &'a [u8] {
        &self.bytes[p * self.panel_bytes + run.byte..][..bytes_of(run.chunks, run.groups.mirror)]
    }

    /// The plain chunks of `run` in panel `p`.
    fn chunks(&self, p: usize, run: &Section) -> &'a [Chunk] {
        self.panel(p, run).as_chunks().0
    }

    /// The mirrored blocks of `run` in panel `p`.
    fn blocks(&self, p: usize, run: &Section) -> &'a [Block] {
        self.panel(p, run).as_chunks().0.as_chunks().0
    }

    /// Adds `factor * sums` to the rows of panel `p` for token `t`.
    #[inline]
    fn add(&self, p: usize, t: usize, sums: &[i32; PANEL_ROWS], factor: i32, acc: &mut [i32]) {
        let out = &mut acc[t * self.rows + p * PANEL_ROWS..][..self.rows_of(p)];
        match out.as_mut_array::<PANEL_ROWS>() {
            // The constant length lets the compiler emit vector instructions.
            Some(out) => out.iter_mut().zip(sums).for_each(|(a, s)| *a += factor * s),
            None => out.iter_mut().zip(sums).for_each(|(a, s)| *a += factor * s),
        }
    }
}

impl Code {
    /// The step of rounded tables for a token, `[k]` activations.
    fn step(&self, x: &[i8]) -> i32 {
        let sections = self.sections(x.len());
        let groups = sections.each_ref().map(|s| s.as_ref().map(|s| &s.groups));
        let cols = sections.each_ref().map(|s| s.map_or(0, |s| s.cols()));
        table::step(groups, cols, self.max_level, x)
    }

    /// The largest error of a product with rounded tables, for a token of `[k]` activations: each group of weights uses
    /// an entry that was rounded to a multiple of the step, so it is off by at most half a step, and both are whole
    /// numbers.
    fn error_bound(&self, x: &[i8]) -> i32 {
        let groups: usize =
            self.sections(x.len()).iter().flatten().map(|s| s.cols().min(x.len() - s.col).div_ceil(s.groups.len)).sum();
        (self.step(x) / 2).saturating_mul(i32::try_from(groups).unwrap_or(i32::MAX))
    }
}
