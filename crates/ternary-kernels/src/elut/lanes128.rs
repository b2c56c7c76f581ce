//! Look-up tables on registers of 128 bits, SSSE3 (`pshufb`), NEON (`tbl`) and WebAssembly SIMD (`swizzle`): a chunk is
//! four of them.

use super::lanes::{Lanes, compiled_runs};
use super::{Chunk, PANEL_ROWS};
use crate::i2s::lanes128::Lanes128;

/// Four registers as one chunk.
#[derive(Clone, Copy)]
pub(super) struct Four<S>(pub(super) S);

#[cfg(target_arch = "x86_64")]
compiled_runs!(Four<crate::isa::Sse41>, tokens = 2, Sse41 = |lanes| lanes.0);
#[cfg(target_arch = "aarch64")]
compiled_runs!(Four<crate::isa::Neon>, tokens = 2, Neon = |lanes| lanes.0);
#[cfg(target_arch = "wasm32")]
compiled_runs!(Four<crate::isa::Simd128>, tokens = 2, Simd128 = |lanes| lanes.0);

impl<S: Lanes128> Lanes for Four<S> {
    /// Rows 0 to 15 of lane 0, of lane 1, rows 16 to 31 of lane 0, of lane 1.
    type V = [S::B; 4];
    /// The table of each lane.
    type T = [S::B; 2];
    /// All bits of the bytes to negate.
    type M = [S::B; 4];
    /// Like `V`, with two registers of eight rows for each one of sixteen.
    type W = [[S::H; 2]; 4];

    #[inline(always)]
    fn load(self, x: &Chunk) -> Self::V {
        let (parts, _) = x.as_chunks();
        [self.0.load(&parts[0]), self.0.load(&parts[1]), self.0.load(&parts[2]), self.0.load(&parts[3])]
    }
    #[inline(always)]
    fn zero(self) -> Self::V {
        [self.0.splat(0); 4]
    }
    #[inline(always)]
    fn table(self, x: &[[u8; 16]; 2]) -> Self::T {
        [self.0.load(&x[0]), self.0.load(&x[1])]
    }
    #[inline(always)]
    fn low(self, v: Self::V) -> Self::V {
        let fifteen = self.0.splat(15);
        each(|i| self.0.and(v[i], fifteen))
    }
    #[inline(always)]
    fn high(self, v: Self::V) -> Self::V {
        each(|i| self.0.shr4(v[i]))
    }
    #[inline(always)]
    fn lookup(self, table: Self::T, index: Self::V) -> Self::V {
        each(|i| self.0.lookup16(table[i % 2], index[i]))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| self.0.add(a[i], b[i]))
    }
    #[inline(always)]
    fn mask(self, v: Self::V) -> Self::M {
        each(|i| self.0.negative(v[i]))
    }
    #[inline(always)]
    fn oppose(self, v: Self::V, mask: Self::M) -> Self::V {
        // All bits flipped, minus -1.
        each(|i| self.0.sub(self.0.xor(v[i], mask[i]), mask[i]))
    }
    #[inline(always)]
    fn zero_wide(self) -> Self::W {
        [[self.0.zero_h(); 2]; 4]
    }
    #[inline(always)]
    fn widen(self, wide: Self::W, low: Self::V, high: Self::V, base: u8) -> Self::W {
        each(|i| self.0.add_digits(wide[i], low[i], high[i], base))
    }
    #[inline(always)]
    fn rows(self, wide: Self::W) -> [i32; PANEL_ROWS] {
        let mut out = [0; PANEL_ROWS];
        for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for eight in 0..2 {
                let mut lanes = [[0i16; 8]; 2];
                self.0.store_h(wide[2 * half][eight], &mut lanes[0]);
                self.0.store_h(wide[2 * half + 1][eight], &mut lanes[1]);
                for i in 0..8 {
                    out[8 * eight + i] = i32::from(lanes[0][i]) + i32::from(lanes[1][i]);
                }
            }
        }
        out
    }
}

/// Four values. Written out, so that no closure call remains.
#[inline(always)]
fn each<T>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}
