//! AVX-VNNI: a panel is two registers of 8 rows, `vpdpbusd` multiplies 8 rows by 4 columns.
//!
//! As in `i2s::vnni256`, the body is a macro over the intrinsic, so that tests can run it in its EVEX form on CPUs that
//! have only that.

use std::arch::x86_64::*;

use super::lanes::{Lanes, product};
use super::{Chunk, MAX_GROUP_CHUNKS, avx2};
use crate::i2s::Acts;
use crate::i2s::avx2::broadcast;
use crate::isa::{Avx2, AvxVnni, proven};

/// Declares lanes that multiply with `$dot`, and the product that uses them.
macro_rules! lanes {
    ($(#[$doc:meta])* $lanes:ident, $product:ident, token = $token:ident, dot = $dot:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $lanes(#[allow(dead_code, reason = "a proof")] pub(super) $token, pub(super) Avx2);

        impl Lanes<2> for $lanes {
            // Sums of 32 bits hold a group of any length.
            const FLUSH: usize = MAX_GROUP_CHUNKS;
            const FLUSH_QUADRUPLE: usize = MAX_GROUP_CHUNKS;
            avx2::eight_rows!();

            #[inline(always)]
            fn float(self) -> Avx2 {
                self.1
            }
            #[inline(always)]
            fn dot<const J: i32>(self, sum: __m256i, codes: __m256i, x: &Acts) -> __m256i {
                proven!(self, $dot(sum, codes, broadcast(x, J as usize)))
            }
            #[inline(always)]
            fn rows(self, sum: __m256i) -> __m256i {
                sum
            }
        }

        product!(
            $product,
            lanes = $lanes,
            registers = 2,
            $token = |lanes| lanes.0,
            panels = 1,
            tokens = 2,
            tiles = [(1, 2, 1, true), (1, 2, 2, false)]
        );
    };
}

lanes!(
    /// Proof of AVX-VNNI, which includes AVX2.
    AvxVnniLanes,
    product,
    token = AvxVnni,
    dot = _mm256_dpbusd_avx_epi32
);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::isa::Avx512Vnni;

    lanes!(
        /// The same body with the EVEX encoding of its instruction.
        EvexTwin,
        product_evex,
        token = Avx512Vnni,
        dot = _mm256_dpbusd_epi32
    );

    #[test]
    fn the_body_equals_the_definition_in_its_evex_form() {
        let cpu = crate::Cpu::get();
        let Some((vnni, avx2)) = cpu.avx512_vnni().zip(cpu.avx2()) else {
            eprintln!("skipped: this CPU has no AVX-512 VNNI");
            return;
        };
        crate::group::tests::check_backend(&|product, out| product_evex(EvexTwin(vnni, avx2), product, out));
    }
}
