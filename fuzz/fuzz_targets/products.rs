//! Products of arbitrary shapes with arbitrary contents: every exact kernel gives the definition's integers, every
//! other one stays within its bound, and a level set is refused or multiplied exactly.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ternary_kernels::{
    Elut, Entry, Int4Batch, Int8Batch, Isa, Kernel, Scales, TernaryMatrix, gemm, gemm_a4, gemv, reference, registry,
};

/// Shape, contents and a level set, cut from the input.
struct Input<'a> {
    rows: usize,
    cols: usize,
    n: usize,
    bytes: &'a [u8],
}

impl Input<'_> {
    /// The `i`-th of endless bytes.
    fn at(&self, i: usize) -> u8 {
        // The input again and again, each time a little different.
        self.bytes[i % self.bytes.len()].wrapping_add((i / self.bytes.len()) as u8)
    }
    fn activations(&self) -> Vec<i8> {
        (0..self.n * self.cols).map(|i| (self.at(i) as i8).max(-127)).collect()
    }
}

fuzz_target!(|data: &[u8]| {
    let [rows, cols, more, n, levels, group, bytes @ ..] = data else { return };
    if bytes.is_empty() {
        return;
    }
    // Rows of several lengths of a run of tables, and of all remainders.
    let cols = usize::from(*cols) + 256 * usize::from(more % 8);
    let input = Input { rows: usize::from(rows % 70), cols, n: usize::from(n % 7), bytes };
    ternary(&input);
    int4(&input);
    sets(&input, *levels, usize::from(group % 6));
});

fn ternary(input: &Input<'_>) {
    let &Input { rows, cols, n, .. } = input;
    let trits: Vec<i8> = (0..rows * cols).map(|i| (input.at(i) % 3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).expect("trits");
    let codes = input.activations();
    let x = Int8Batch::from_codes(n, cols, &codes).expect("codes lie in -127..=127");
    let expected = reference::gemm(&w, &codes, n).expect("shapes agree");
    for kernel in registry().iter().filter_map(Entry::kernel) {
        let packed = kernel.prepack(&w).expect("every shape can be packed");
        let bounds: Vec<u32> = (0..n).map(|t| kernel.error_bound(&x.view().row(t)).unsigned_abs()).collect();
        let near =
            |t: usize, acc: &[i32]| acc.iter().zip(&expected[t * rows..]).all(|(a, e)| a.abs_diff(*e) <= bounds[t]);
        let mut acc = vec![i32::MIN; n * rows];
        gemm(kernel.as_ref(), &packed, &x.view(), &mut acc).expect("shapes agree");
        for t in 0..n {
            assert!(near(t, &acc[t * rows..][..rows]), "{}: gemm {rows} x {cols}, token {t}", kernel.name());
        }
        if n > 0 {
            let mut one = vec![i32::MIN; rows];
            gemv(kernel.as_ref(), &packed, &x.view().row(n - 1), &mut one).expect("shapes agree");
            assert_eq!(one, acc[(n - 1) * rows..], "{}: gemv {rows} x {cols}", kernel.name());
        }
    }
}

/// Int4 activations, which every kernel multiplies exactly.
fn int4(input: &Input<'_>) {
    let &Input { rows, cols, n, .. } = input;
    let trits: Vec<i8> = (0..rows * cols).map(|i| (input.at(i) % 3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).expect("trits");
    let codes: Vec<i8> = input.activations().iter().map(|c| c >> 4).collect();
    let x = Int4Batch::from_codes(n, cols, &codes).expect("codes lie in -8..=7");
    let expected = reference::gemm(&w, &codes, n).expect("shapes agree");
    let mut widened = Int8Batch::with_capacity(0, 0);
    for kernel in registry().iter().filter_map(Entry::kernel) {
        let packed = kernel.prepack(&w).expect("every shape can be packed");
        let mut acc = vec![i32::MIN; n * rows];
        gemm_a4(kernel.as_ref(), &packed, &x.view(), &mut widened, &mut acc).expect("shapes agree");
        assert_eq!(acc, expected, "{}: int4 {rows} x {cols}, {n} tokens", kernel.name());
    }
}

/// A set of levels made from the bytes, refused or exact on every instruction set.
fn sets(input: &Input<'_>, count: u8, group: usize) {
    let &Input { rows, cols, n, .. } = input;
    let mut levels: Vec<i8> = (0..usize::from(count % 18)).map(|i| input.at(i) as i8 % 20).collect();
    if count >= 128 {
        // Symmetric sets are rare otherwise.
        levels = levels.iter().flat_map(|l| [*l, -*l]).collect();
    }
    levels.sort_unstable();
    levels.dedup();
    for isa in Isa::available() {
        let Ok(kernel) = Elut::for_isa(&levels, group, isa) else { continue };
        let codes: Vec<u8> = (0..rows * cols).map(|i| input.at(i) % levels.len() as u8).collect();
        let packed = kernel.pack(rows, cols, &codes).expect("codes below the number of levels");
        let activations = input.activations();
        let x = Int8Batch::from_codes(n, cols, &activations).expect("codes lie in -127..=127");
        let mut acc = vec![i32::MIN; n * rows];
        gemm(&kernel, &packed, &x.view(), &mut acc).expect("shapes agree");
        for (i, a) in acc.iter().enumerate() {
            let (t, r) = (i / rows, i % rows);
            let weight = |k: usize| i32::from(levels[usize::from(codes[r * cols + k])]);
            let sum: i32 = (0..cols).map(|k| weight(k) * i32::from(activations[t * cols + k])).sum();
            assert_eq!(*a, sum, "{}: {rows} x {cols}, token {t}, row {r}", kernel.name());
        }
    }
}
