//! Base 3 on registers of 128 bits, SSE4.1, NEON and WebAssembly SIMD: unpacked by lookups, then as I2_S.

use super::{GROUP_CHUNKS, Group, code};
use crate::i2s::Chunk;
use crate::i2s::lanes128::Lanes128;
use crate::isa::compiled;
use crate::panel_kernel::Unpack;

/// Unpacks `groups` to the chunks of their columns.
#[inline(always)]
fn unpack<S: Lanes128>(s: S, groups: &[Group], out: &mut [Chunk]) {
    let (fields, flip) = (table(s, &code::FIELDS), table(s, &code::FLIP));
    let (six, three) = (s.splat(63), s.splat(3));
    let (upper, escapes) = (s.splat(0xf0), s.splat(192));
    for (group, [first @ .., last]) in groups.iter().zip(out.as_chunks_mut::<GROUP_CHUNKS>().0) {
        // 16 bytes of each quarter at a time.
        for i in 0..4 {
            s.prefetch(&group[i]);
            let mut fifth = s.splat(0);
            for q in (0..4).rev() {
                let v = s.load(&group[q].as_chunks().0[i]);
                let four = s.lookup(fields, s.and(v, six));
                // Below 192 the difference wraps to 64 and above, which looks up 0.
                let flip = s.lookup(flip, s.sub(v, escapes));
                s.store(s.xor(four, s.and(flip, upper)), &mut first[q].as_chunks_mut().0[i]);
                fifth = s.or(s.shl2(fifth), s.xor(s.shr6(v), s.and(flip, three)));
            }
            s.store(fifth, &mut last.as_chunks_mut().0[i]);
        }
    }
}

#[inline(always)]
fn table<S: Lanes128>(s: S, entries: &[u8; 64]) -> [S::B; 4] {
    let (parts, _) = entries.as_chunks();
    [s.load(&parts[0]), s.load(&parts[1]), s.load(&parts[2]), s.load(&parts[3])]
}

/// Makes back ends of tokens that are, or contain, a [`Lanes128`].
macro_rules! unpack {
    ($($token:ident as |$cpu:ident| $lanes:expr;)+) => {$(
        impl Unpack for crate::isa::$token {
            fn unpack(self, groups: &[Group], out: &mut [Chunk]) {
                compiled!($token, self => |$cpu, groups: &[Group], out: &mut [Chunk]| { unpack($lanes, groups, out) });
            }
        }
    )+};
}

#[cfg(target_arch = "x86_64")]
unpack! {
    Sse41 as |cpu| cpu;
}
#[cfg(target_arch = "aarch64")]
unpack! {
    Neon as |cpu| cpu;
    NeonDot as |cpu| cpu.neon();
    NeonI8mm as |cpu| cpu.neon();
}
#[cfg(target_arch = "wasm32")]
unpack! {
    Simd128 as |cpu| cpu;
}
