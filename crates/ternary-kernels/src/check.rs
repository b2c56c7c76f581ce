//! Compares a kernel with the oracle, here and now: what `bitnet doctor` runs on a user's machine.

use crate::{Int4Batch, Int8Batch, Int8Vector, Kernel, KernelError, Scales, TernaryMatrix, reference};

/// A product in which a kernel and the oracle differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Output features, M.
    pub rows: usize,
    /// Input features, K.
    pub cols: usize,
    /// Tokens, N.
    pub tokens: usize,
    /// Bits of an activation, 8 or 4.
    pub bits: u32,
    /// First differing token and row.
    pub at: (usize, usize),
    /// The oracle's sum.
    pub expected: i32,
    /// The kernel's sum.
    pub got: i32,
}

/// What [`self_check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Products that were compared.
    pub products: usize,
    /// The first that differs.
    pub mismatch: Option<Mismatch>,
}

/// Shapes `(rows, cols)`: odd ones, and those of BitNet b1.58 2B4T with fewer rows.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (7, 64), (16, 100), (17, 704), (33, 2560), (16, 6912), (40, 6912), (3, 4095)];

/// Runs `kernel` on random and on extreme inputs (all codes +-127 against weights of one sign, where narrow
/// accumulators overflow) of several shapes and token counts, in 8 and in 4 bits, and compares each sum with the oracle's: equal,
/// or within the kernel's own error bound if it is not exact.
///
/// # Errors
/// What the kernel's own packing refuses.
pub fn self_check(kernel: &dyn Kernel) -> Result<CheckReport, KernelError> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 32
    };
    let mut products = 0;
    let mut widened = Int8Batch::with_capacity(0, 0);
    for (rows, cols) in SHAPES {
        for extreme in [false, true] {
            let trits: Vec<i8> = (0..rows * cols)
                .map(|i| if extreme { if (i / cols) % 2 == 0 { 1 } else { -1 } } else { (next() % 3) as i8 - 1 })
                .collect();
            let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0))?;
            let packed = kernel.prepack(&w)?;
            for tokens in [1, 2, 5, 13] {
                for (bits, least, most) in [(8, -127, 127), (4, -8, 7)] {
                    let extreme_code = |i: usize| if (i / cols).is_multiple_of(2) { most } else { least };
                    let span = (i32::from(most) - i32::from(least) + 1) as u64;
                    let codes: Vec<i8> =
                        (0..tokens * cols)
                            .map(|i| {
                                if extreme {
                                    extreme_code(i)
                                } else {
                                    (i32::from(least) + (next() % span) as i32) as i8
                                }
                            })
                            .collect();
                    let expected = reference::gemm(&w, &codes, tokens)?;
                    let mut got = vec![i32::MIN; tokens * rows];
                    let x = Int8Batch::from_codes(tokens, cols, &codes)?;
                    if bits == 4 {
                        let x = Int4Batch::from_codes(tokens, cols, &codes)?;
                        crate::gemm_a4(kernel, &packed, &x.view(), &mut widened, &mut got)?;
                    } else {
                        match tokens {
                            1 => crate::gemv(kernel, &packed, &x.view().row(0), &mut got)?,
                            _ => crate::gemm(kernel, &packed, &x.view(), &mut got)?,
                        }
                    }
                    products += 1;
                    let bounds: Vec<u32> = (0..tokens).map(|t| bound(kernel, &x.view().row(t))).collect();
                    let differs = |(i, (a, b)): (usize, (&i32, &i32))| (a.abs_diff(*b) > bounds[i / rows]).then_some(i);
                    if let Some(i) = expected.iter().zip(&got).enumerate().find_map(differs) {
                        let (at, expected, got) = ((i / rows, i % rows), expected[i], got[i]);
                        let mismatch = Mismatch { rows, cols, tokens, bits, at, expected, got };
                        return Ok(CheckReport { products, mismatch: Some(mismatch) });
                    }
                }
            }
        }
    }
    Ok(CheckReport { products, mismatch: None })
}

/// What results of token `x` may differ by.
fn bound(kernel: &dyn Kernel, x: &Int8Vector<'_>) -> u32 {
    if kernel.exact() { 0 } else { kernel.error_bound(x).unsigned_abs() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Int8Matrix, Packed, PackedRows};
    use std::sync::Arc;

    #[test]
    fn every_kernel_of_this_machine_passes() {
        for kernel in crate::registry().iter().filter_map(crate::Entry::kernel) {
            assert_eq!(self_check(kernel.as_ref()).unwrap().mismatch, None, "{}", kernel.name());
        }
    }

    /// A kernel that is wrong by one where a row is long, as a narrow accumulator is.
    #[derive(Debug)]
    struct Wrong(Arc<dyn Kernel>);
    impl Kernel for Wrong {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn panel_rows(&self) -> usize {
            self.0.panel_rows()
        }
        fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
            self.0.prepack(w)
        }
        fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
            self.0.gemv(w, x, acc);
            if w.cols() > 4096 {
                acc[0] -= 1;
            }
        }
        fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
            self.0.gemm(w, x, acc);
        }
    }

    #[test]
    fn a_wrong_kernel_is_named_with_the_product() {
        let report = self_check(&Wrong(crate::by_name("i2s_scalar").unwrap())).unwrap();
        let m = report.mismatch.unwrap();
        assert_eq!((m.cols, m.tokens, m.expected - m.got), (6912, 1, 1));
    }
}
