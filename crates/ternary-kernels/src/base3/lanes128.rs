//! Base 3 on registers of 128 bits, NEON and WebAssembly SIMD: unpacked by lookups, then as I2_S.

use super::{GROUP_CHUNKS, Group, code};
use crate::i2s::Chunk;
use crate::i2s::lanes128::Lanes128;

/// Unpacks `groups` to the chunks of their columns.
#[inline(always)]
fn unpack<S: Lanes128>(s: S, groups: &[Group], out: &mut [Chunk]) {
    let (fields, flip) = (table(s, &code::FIELDS), table(s, &code::FLIP));
    let (six, three) = (s.splat(63), s.splat(3));
    let (upper, escapes) = (s.splat(0xf0), s.splat(192));
    for (group, [first @ .., last]) in groups.iter().zip(out.as_chunks_mut::<GROUP_CHUNKS>().0) {
        // 16 bytes of each quarter at a time.
        for i in 0..4 {
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

/// Declares a kernel that unpacks with `$lanes` and multiplies with the functions of I2_S that are named.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $kernel:ident, name = $name:literal, token = $token:ty,
        lanes = |$cpu:ident| $lanes:expr, features = $features:literal, tokens = $max:expr,
        code_sums = |$w:ident, $x:ident| $code_sums:expr, tiles = |$product:ident, $t:ident, $acc:ident| $tiles:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $kernel {
            /// Proof that the functions compiled for the instruction set may be called.
            cpu: $token,
        }

        impl $kernel {
            pub(crate) const NAME: &str = $name;
                    pub(crate) fn new(cpu: $token) -> Self {
                Self { cpu }
            }
        }

        #[allow(unused_unsafe, reason = "where the whole build has the features, the calls are safe")]
        const _: () = {
            use crate::base3::{Base3, Group};
            use crate::i2s::{Activations, Acts, BLOCK_CHUNKS, CHUNK_COLS, Chunk, PANEL_ROWS, Product, Tile};
            use crate::{
                Int4Matrix, Int8Batch, Int8Matrix, Int8Vector, KernelError, Packed, PackedRows, TernaryMatrix,
            };

            #[target_feature(enable = $features)]
            fn unpack($cpu: $token, groups: &[Group], out: &mut [Chunk]) {
                crate::base3::lanes128::unpack($lanes, groups, out);
            }
            #[target_feature(enable = $features)]
            #[allow(unused_variables, reason = "not every product needs the token")]
            fn code_sums($cpu: $token, $w: &[Chunk], $x: &[Acts]) -> [i32; PANEL_ROWS] {
                $code_sums
            }
            #[target_feature(enable = $features)]
            #[allow(unused_variables, reason = "not every product needs the token")]
            fn tiles($cpu: $token, $product: &Product<'_>, $t: &Tile<'_>, $acc: &mut [i32]) {
                $tiles
            }

            impl crate::Kernel for $kernel {
                fn name(&self) -> &str {
                    Self::NAME
                }
                fn panel_rows(&self) -> usize {
                    PANEL_ROWS
                }
                fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
                    crate::base3::prepack(Self::NAME, w)
                }
                fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
                    let sum = [x.sum()];
                    let Some(product) = Base3::new(w, &x.as_matrix(&sum), acc) else { return };
                    product.gemv(
                        // SAFETY: the token proves that this CPU has what the function is compiled for.
                        |groups, chunks| unsafe { unpack(self.cpu, groups, chunks) },
                        // SAFETY: likewise.
                        |chunks, x| unsafe { code_sums(self.cpu, chunks, x) },
                        acc,
                    );
                }
                fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
                    self.in_tiles(w, x.into(), acc);
                }
                fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, _: &mut Int8Batch, acc: &mut [i32]) {
                    self.in_tiles(w, x.into(), acc);
                }
            }

            impl $kernel {
                fn in_tiles(&self, w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
                    let Some(product) = Base3::new(w, x, acc) else { return };
                    let mut acts = [[0; CHUNK_COLS]; $max * BLOCK_CHUNKS];
                    product.gemm(
                        1,
                        $max,
                        &mut acts,
                        // SAFETY: the token proves that this CPU has what the function is compiled for.
                        |groups, chunks| unsafe { unpack(self.cpu, groups, chunks) },
                        // SAFETY: likewise.
                        |t| unsafe { tiles(self.cpu, &product.io, &t, acc) },
                    );
                }
            }
        };
    };
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use crate::i2s::{lanes128, neon};
    use crate::isa::{Neon, NeonDot, NeonI8mm};

    kernel!(
        /// The kernel for NEON alone.
        Base3Neon,
        name = "base3_neon",
        token = Neon,
        lanes = |cpu| cpu,
        features = "neon",
        tokens = lanes128::MAX_TOKENS,
        code_sums = |w, x| lanes128::code_sums::<_, 4, 1>(cpu, w, x.as_chunks().0)[0],
        tiles = |product, t, acc| lanes128::tiles(cpu, product, t, acc)
    );
    kernel!(
        /// The kernel for NEON with the dot-product extension.
        Base3NeonDot,
        name = "base3_neondot",
        token = NeonDot,
        lanes = |cpu| cpu.neon(),
        features = "neon,dotprod",
        tokens = neon::MAX_TOKENS,
        code_sums = |w, x| neon::dot_sums::<1>(w, x.as_chunks().0)[0],
        tiles = |product, t, acc| neon::dot_tiles(product, t, acc)
    );
    kernel!(
        /// The kernel for NEON with the dot-product and the matrix-multiplication extension.
        Base3NeonI8mm,
        name = "base3_neoni8mm",
        token = NeonI8mm,
        lanes = |cpu| cpu.neon(),
        features = "neon,dotprod,i8mm",
        tokens = neon::MAX_TOKENS,
        code_sums = |w, x| neon::dot_sums::<1>(w, x.as_chunks().0)[0],
        tiles = |product, t, acc| neon::i8mm_tiles(product, t, acc)
    );
}
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Base3Neon, Base3NeonDot, Base3NeonI8mm};

#[cfg(target_arch = "wasm32")]
mod wasm {
    use crate::i2s::lanes128;
    use crate::isa::Simd128;

    kernel!(
        /// The kernel for WebAssembly SIMD.
        Base3Simd128,
        name = "base3_simd128",
        token = Simd128,
        lanes = |cpu| cpu,
        features = "simd128",
        tokens = lanes128::MAX_TOKENS,
        code_sums = |w, x| lanes128::code_sums::<_, 4, 1>(cpu, w, x.as_chunks().0)[0],
        tiles = |product, t, acc| lanes128::tiles(cpu, product, t, acc)
    );
}
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::Base3Simd128;
