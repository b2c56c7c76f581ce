//! Compares a kernel with the oracle on the user's machine, for `bitnet doctor`.

use half::f16;

use crate::{
    GroupKernel, GroupScales, INT16_MAX, Int4Batch, Int8Batch, Int8Vector, Int16Batch, Kernel, KernelError, Scales,
    TernaryMatrix, reference,
};

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

/// The result of [`self_check`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Products that were compared.
    pub products: usize,
    /// The first that differs.
    pub mismatch: Option<Mismatch>,
}

/// Shapes `(rows, cols)`: unusual ones, and those of BitNet b1.58 2B4T with fewer rows.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (7, 64), (16, 100), (17, 704), (33, 2560), (16, 6912), (40, 6912), (3, 4095)];

/// A product in which a group kernel differs from its definition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupMismatch {
    /// Output features, M.
    pub rows: usize,
    /// Input features, K.
    pub cols: usize,
    /// Weights of a group.
    pub group_len: usize,
    /// Tokens, N.
    pub tokens: usize,
    /// Bits of an activation, 16 or 8.
    pub bits: u32,
    /// First differing token and row.
    pub at: (usize, usize),
    /// The definition's result.
    pub expected: f32,
    /// The kernel's result.
    pub got: f32,
}

impl std::fmt::Display for GroupMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, cols, group_len, tokens, bits, at: (token, row), expected, got } = self;
        write!(
            f,
            "{rows} x {cols} in groups of {group_len}, {tokens} tokens of {bits} bits: {got} instead of {expected} at token \
             {token}, row {row}"
        )
    }
}

/// The result of [`self_check_group`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupReport {
    /// Products that were compared.
    pub products: usize,
    /// The first that differs.
    pub mismatch: Option<GroupMismatch>,
}

/// Reproducible random numbers (SplitMix64).
fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 32
    }
}

/// Runs `kernel` on random and on extreme inputs (all codes equal and all levels equal, which overflows narrow
/// accumulators) of several shapes, group lengths and token counts, with 16 and with 8 bits, and compares each result
/// with the definition, bit for bit.
///
/// # Errors
/// The errors of the kernel's packing.
pub fn self_check_group(kernel: &GroupKernel) -> Result<GroupReport, KernelError> {
    check_group(&|w, x, out| kernel.product(w, 0..w.rows(), &x.view(), out), kernel)
}

/// Like [`self_check_group`] with `product` instead of the kernel's 16-bit product.
fn check_group(
    product: &dyn Fn(&crate::GroupPacked, &Int16Batch, &mut [f32]),
    kernel: &GroupKernel,
) -> Result<GroupReport, KernelError> {
    let mut next = numbers(1);
    let mut products = 0;
    for (i, (rows, cols)) in SHAPES.into_iter().enumerate() {
        for extreme in [false, true] {
            let group_len = [64, 128, 256, 192][i % 4];
            let mut level = |i: usize| if extreme { [2, -1][i / cols % 2] } else { (next() % 4) as i8 - 1 };
            let levels: Vec<i8> = (0..rows * cols).map(&mut level).collect();
            let d =
                (0..rows * cols.div_ceil(group_len)).map(|_| f16::from_f32((next() % 1000) as f32 / 999.0)).collect();
            let scales = GroupScales::new(group_len, rows, cols, d)?;
            let packed = kernel.pack_levels(rows, cols, &levels, &scales)?;
            for tokens in [1, 2, 5, 13] {
                for (bits, most) in [(16, i32::from(INT16_MAX)), (8, 127)] {
                    let mut code = |i: usize| match extreme {
                        true => [most, -most][i / cols % 2],
                        false => (next() % (2 * most as u64 + 1)) as i32 - most,
                    };
                    let codes: Vec<i16> = (0..tokens * cols).map(|i| code(i) as i16).collect();
                    let ones = vec![1.0; tokens];
                    let expected = reference::group_product(cols, &levels, &scales, &codes, &ones)?;
                    let mut got = vec![f32::NAN; tokens * rows];
                    if bits == 16 {
                        product(&packed, &Int16Batch::from_codes(tokens, cols, &codes)?, &mut got);
                    } else {
                        let codes: Vec<i8> = codes.iter().map(|&q| q as i8).collect();
                        let x = Int8Batch::from_codes(tokens, cols, &codes)?;
                        kernel.product_int8(&packed, 0..rows, &x.view(), &ones, &mut got);
                    }
                    products += 1;
                    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
                    if let Some(i) = expected.iter().zip(&got).position(differs) {
                        let (at, expected, got) = ((i / rows, i % rows), expected[i], got[i]);
                        let mismatch = GroupMismatch { rows, cols, group_len, tokens, bits, at, expected, got };
                        return Ok(GroupReport { products, mismatch: Some(mismatch) });
                    }
                }
            }
        }
    }
    Ok(GroupReport { products, mismatch: None })
}

/// Runs `kernel` on random and on extreme inputs (all codes +-127 against weights of one sign, which overflows narrow
/// accumulators) of several shapes and token counts, with 8 and with 4 bits, and compares each sum with the oracle's:
/// they must be equal, or, for a kernel that is not exact, within its own error bound.
///
/// # Errors
/// The errors of the kernel's packing.
pub fn self_check(kernel: &dyn Kernel) -> Result<CheckReport, KernelError> {
    let mut next = numbers(0x9E37_79B9_7F4A_7C15);
    let mut products = 0;
    let mut widened = Int8Batch::with_capacity(0, 0);
    // The last shapes have enough rows and tokens for tables that tokens share.
    let few = |(rows, cols)| (rows, cols, &[1, 2, 5, 13][..]);
    for (rows, cols, tokens) in SHAPES.map(few).into_iter().chain([(163, 300, &[33][..])]) {
        for extreme in [false, true] {
            let trits: Vec<i8> = (0..rows * cols)
                .map(|i| if extreme { if (i / cols) % 2 == 0 { 1 } else { -1 } } else { (next() % 3) as i8 - 1 })
                .collect();
            let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0))?;
            let packed = kernel.prepack(&w)?;
            for &tokens in tokens {
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

/// The largest allowed difference of results of token `x`.
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

    #[test]
    fn every_group_kernel_of_this_machine_passes() {
        for kernel in GroupKernel::available() {
            let report = self_check_group(&kernel).unwrap();
            assert_eq!((report.mismatch, report.products), (None, 128), "{}", kernel.name());
        }
    }

    #[test]
    fn a_wrong_group_kernel_is_named_with_the_product() {
        let kernel = GroupKernel::for_isa(crate::Isa::Scalar).unwrap();
        let wrong = |w: &crate::GroupPacked, x: &Int16Batch, out: &mut [f32]| {
            kernel.product(w, 0..w.rows(), &x.view(), out);
            if w.cols() == 6912 && x.n() == 5 {
                // One unit in the last place.
                out[w.rows() + 3] = f32::from_bits(out[w.rows() + 3].to_bits() + 1);
            }
        };
        let m = check_group(&wrong, &kernel).unwrap().mismatch.unwrap();
        assert_eq!((m.cols, m.tokens, m.bits, m.at), (6912, 5, 16, (1, 3)));
        assert!(m.to_string().starts_with("16 x 6912 in groups of 128, 5 tokens of 16 bits: "), "{m}");
    }

    /// A kernel that is off by one in long rows, like one with a narrow accumulator.
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
