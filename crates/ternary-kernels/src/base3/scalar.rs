//! Base 3 in portable Rust: unpacked by tables, then multiplied like I2_S.

use super::{GROUP_CHUNKS, Group, code};
use crate::i2s::{CHUNK_BYTES, Chunk};
use crate::isa::Portable;
use crate::panel_kernel::Unpack;

/// The first four digits of each byte, two bits each.
static FOUR: [u8; 256] = {
    let mut table = [0; 256];
    let mut v = 0;
    while v < 256 {
        let ([t0, t1, t2, t3], _) = code::digits(v as u8);
        table[v] = t0 | t1 << 2 | t2 << 4 | t3 << 6;
        v += 1;
    }
    table
};

/// The last digit of each byte.
static LAST: [u8; 256] = {
    let mut table = [0; 256];
    let mut v = 0;
    while v < 256 {
        table[v] = code::digits(v as u8).1;
        v += 1;
    }
    table
};

impl Unpack for Portable {
    fn unpack(self, groups: &[Group], out: &mut [Chunk]) {
        unpack(groups, out);
    }
}

/// Unpacks `groups` to the chunks of their columns.
pub(super) fn unpack(groups: &[Group], out: &mut [Chunk]) {
    for (group, [first @ .., last]) in groups.iter().zip(out.as_chunks_mut::<GROUP_CHUNKS>().0) {
        *last = [0; CHUNK_BYTES];
        for (s, (quarter, chunk)) in group.iter().zip(first).enumerate() {
            for i in 0..CHUNK_BYTES {
                let v = usize::from(quarter[i]);
                chunk[i] = FOUR[v];
                last[i] |= LAST[v] << (2 * s);
            }
        }
    }
}
