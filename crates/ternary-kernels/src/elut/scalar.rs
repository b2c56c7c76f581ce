//! Look-up tables in portable Rust: tables of whole entries, one lookup after the other.

use super::table::{CHUNK_GROUPS, WideTables, build_wide};
use super::{BLOCK_CHUNKS, Chunk, PANEL_ROWS, Product, RunBuffer};

/// Chunks whose tables are kept at a time: 8 KiB.
const RUN: usize = 64;

/// Computes all of `product`.
pub(super) fn run(product: &Product<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let mut tables = [[[0; 16]; CHUNK_GROUPS]; RUN];
    let mut buffer: RunBuffer = [0; _];
    for t in 0..product.tokens {
        let entries = product.entries(t);
        for section in product.sections() {
            for run in section.runs(RUN) {
                let tables = &mut tables[..run.chunks];
                build_wide(&run.groups, entries, product.columns(t, &run, &mut buffer), tables);
                for p in 0..product.panel_count() {
                    let mut all = [0; PANEL_ROWS];
                    // Rows of padding would cost as much as real ones.
                    let sums = &mut all[..product.rows_of(p)];
                    if run.groups.mirror {
                        let blocks = product.blocks(p, &run).iter().zip(tables.as_chunks::<BLOCK_CHUNKS>().0);
                        for ([chunks @ .., signs], tables) in blocks {
                            for (c, (chunk, tables)) in chunks.iter().zip(tables).enumerate() {
                                mirrored(chunk, signs, 2 * c, tables, sums);
                            }
                        }
                    } else {
                        for (chunk, tables) in product.chunks(p, &run).iter().zip(tables.iter()) {
                            plain(chunk, tables, sums);
                        }
                    }
                    product.add(p, t, &all, 1, acc);
                }
            }
        }
    }
}

/// The two bytes of a row.
#[inline(always)]
fn bytes(line: &Chunk, r: usize) -> [u8; 2] {
    let at = 32 * (r / 16) + r % 16;
    [line[at], line[at + 16]]
}

#[inline]
fn plain(chunk: &Chunk, tables: &WideTables, sums: &mut [i32]) {
    for (r, sum) in sums.iter_mut().enumerate() {
        let [a, b] = bytes(chunk, r).map(usize::from);
        let first = i32::from(tables[0][a & 15]) + i32::from(tables[1][b & 15]);
        *sum += first + i32::from(tables[2][a >> 4]) + i32::from(tables[3][b >> 4]);
    }
}

/// An entry to subtract has a bit in `signs`, `before` bits from the top.
#[inline]
fn mirrored(chunk: &Chunk, signs: &Chunk, before: usize, tables: &WideTables, sums: &mut [i32]) {
    for (r, sum) in sums.iter_mut().enumerate() {
        for (lane, (index, signs)) in bytes(chunk, r).into_iter().zip(bytes(signs, r)).enumerate() {
            for (nibble, index) in [index & 15, index >> 4].into_iter().enumerate() {
                let entry = i32::from(tables[2 * nibble + lane][usize::from(index)]);
                // All bits set or none: x ^ -1 is -x - 1.
                let opposite = -i32::from(signs >> (7 - before - nibble) & 1);
                *sum += (entry ^ opposite) - opposite;
            }
        }
    }
}
