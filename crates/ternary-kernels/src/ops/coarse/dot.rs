//! Integer sums of the rows of a panel: the choice of the body for the instruction set, and the portable body.

use super::input::Digits;
use super::{CoarseBatch, PANEL, Unit};
#[cfg(any(target_arch = "x86_64", target_arch = "wasm32"))]
use crate::ops::Backend;
use crate::ops::Ops;

/// Per row of a panel, the sums of code times `h` and of code times `l`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) high: [i32; PANEL],
    pub(super) low: [i32; PANEL],
}

pub(super) const ZERO: Sums = Sums { high: [0; PANEL], low: [0; PANEL] };

impl Ops {
    /// The sums of a panel for every row of activations.
    pub(super) fn coarse_dots(self, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]) {
        #[cfg(target_arch = "x86_64")]
        {
            use super::dot_x86;
            if self.isa() == crate::Isa::AvxVnni
                && let Some(token) = crate::Cpu::get().avx_vnni()
            {
                return dot_x86::vnni256::dots(token, panel, x, out);
            }
            match self.backend {
                Backend::Portable => {}
                Backend::Sse41(token) => return super::dot_sse41::dots(token, panel, x, out),
                Backend::Avx2(token) => return dot_x86::avx2::dots(token, panel, x, out),
                Backend::Avx512(token) => return dot_x86::avx512::dots(token, panel, x, out),
            }
        }
        #[cfg(target_arch = "wasm32")]
        if let Backend::Simd128(token) = self.backend {
            return super::dot_wasm::dots(token, panel, x, out);
        }
        for (t, out) in out.iter_mut().enumerate() {
            *out = dots(panel, x.digits(t));
        }
    }
}

/// The sums of a panel for one row of activations.
pub(super) fn dots(panel: &[Unit], x: &[Digits]) -> Sums {
    let mut sums = ZERO;
    for (unit, digits) in panel.iter().zip(x) {
        for j in 0..4 {
            let mut codes = [0u8; 64];
            for (b, code) in codes.iter_mut().enumerate() {
                let nibble = unit[64 * (j / 2) + b] >> (4 * (j % 2)) & 15;
                *code = nibble | (unit[128 + b] >> (2 * j) & 3) << 4;
            }
            let (h, l) = (&digits[4 * j..][..4], &digits[16 + 4 * j..][..4]);
            for (r, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
                for (i, &code) in codes.iter().enumerate() {
                    sums.high[r] += i32::from(code) * i32::from(h[i] as i8);
                    sums.low[r] += i32::from(code) * i32::from(l[i] as i8);
                }
            }
        }
    }
    sums
}
