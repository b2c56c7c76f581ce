//! Products and operations on buffers of exactly the required length, at odd addresses and at the end of an allocation:
//! the address sanitizer and valgrind, which runs only this file, detect any access beyond it. Results are compared,
//! too.

mod common;

use common::{Rng, batch, expected_sets_are, matrix};
use half::f16;
use ternary_kernels::ops::{AttendScratch, KvData, KvRows, Queries};
use ternary_kernels::{
    ColsMut, Entry, GroupKernel, GroupScales, Int4Batch, Int8Batch, Int16Batch, Isa, Ops, Packed, SharedBytes,
    TernaryMatrix, reference, registry,
};

/// Bytes at the end of an allocation, `offset` from its beginning.
fn at_the_end(offset: usize, bytes: &[u8]) -> SharedBytes {
    let all = [&vec![0; offset], bytes].concat().into_boxed_slice();
    let len = all.len();
    SharedBytes::new(all).slice(offset..len).unwrap()
}

/// All products of every kernel, including rounded tables, with weights and results in exact buffers.
fn products(w: &TernaryMatrix, n: usize, rng: &mut Rng) {
    let (rows, cols) = (w.rows(), w.cols());
    let (codes, codes4) = (rng.codes(n * cols), rng.int4_codes(n * cols));
    let (x, x4) = (batch(n, cols, &codes), Int4Batch::from_codes(n, cols, &codes4).unwrap());
    let (expected, expected4) = (reference::gemm(w, &codes, n).unwrap(), reference::gemm(w, &codes4, n).unwrap());
    let mut widened = Int8Batch::with_capacity(0, 0);
    for kernel in registry().iter().filter_map(Entry::kernel) {
        let packed = kernel.prepack(w).unwrap();
        let view = packed.all();
        for offset in [1, 7, 64] {
            let bytes = at_the_end(offset, view.bytes());
            let (name, height) = (kernel.name(), packed.panel_rows());
            let moved = Packed::from_shared(name, rows, cols, height, view.panel_bytes(), bytes).unwrap();
            let what = format!("{name}: {rows} x {cols}, {n} tokens, offset {offset}");
            let mut acc = vec![i32::MIN; n * rows].into_boxed_slice();
            kernel.gemm(&moved.all(), &x.view(), &mut acc);
            for (i, (a, e)) in acc.iter().zip(&expected).enumerate() {
                let bound = kernel.error_bound(&x.view().row(i / rows)).unsigned_abs();
                assert!(a.abs_diff(*e) <= bound, "gemm {what}: {a} instead of {e}");
            }
            let mut one = vec![i32::MIN; rows].into_boxed_slice();
            kernel.gemv(&moved.all(), &x.view().row(n - 1), &mut one);
            assert_eq!(one[..], acc[(n - 1) * rows..], "gemv {what}");
            kernel.gemm_a4(&moved.all(), &x4.view(), &mut widened, &mut acc);
            assert_eq!(acc[..], expected4, "int4 gemm {what}");
            kernel.gemv_a4(&moved.all(), &x4.view().row(n - 1), &mut widened, &mut one);
            assert_eq!(one[..], expected4[(n - 1) * rows..], "int4 gemv {what}");
        }
    }
}

#[test]
fn products_stay_within_their_buffers() {
    let mut rng = Rng::new(21);
    for (rows, cols, n) in [(1, 1, 1), (16, 48, 2), (17, 63, 3), (33, 100, 5), (5, 257, 13), (40, 128, 66)] {
        products(&matrix(rows, cols, &rng.trits(rows * cols)), n, &mut rng);
    }
    expected_sets_are(&Isa::available().collect::<Vec<_>>());
}

/// Products of every group kernel, with exact buffers.
fn group_products((rows, cols, group_len): (usize, usize, usize), n: usize, rng: &mut Rng) {
    let levels: Vec<i8> = (0..rows * cols).map(|_| rng.below(4) as i8 - 1).collect();
    let d = (0..rows * cols.div_ceil(group_len)).map(|_| f16::from_f32(rng.below(1000) as f32 / 100.0)).collect();
    let scales = GroupScales::new(group_len, rows, cols, d).unwrap();
    let codes: Vec<i16> = (0..n * cols).map(|_| (rng.below(65279) as i32 - 32639) as i16).collect();
    let x = Int16Batch::from_codes(n, cols, &codes).unwrap();
    let expected = reference::group_product(cols, &levels, &scales, &codes, &vec![1.0; n]).unwrap();
    for kernel in GroupKernel::available() {
        let packed = kernel.pack_levels(rows, cols, &levels, &scales).unwrap();
        for offset in [1, 7, 64] {
            let moved = packed.with_bytes(at_the_end(offset, packed.bytes())).unwrap();
            let what = format!("{}: {rows} x {cols}, {n} tokens, offset {offset}", kernel.name());
            let mut out = vec![f32::NAN; n * rows].into_boxed_slice();
            kernel.product(&moved, 0..rows, &x.view(), &mut out);
            assert_eq!(out[..], expected, "{what}");
            let mut one = vec![f32::NAN; rows].into_boxed_slice();
            kernel.product(&moved, 0..rows, &x.view().rows(n - 1..n), &mut one);
            assert_eq!(one[..], expected[(n - 1) * rows..], "one token of {what}");
            let mut row = vec![f32::NAN; cols].into_boxed_slice();
            moved.decode_row_f32(rows - 1, &mut row);
        }
    }
}

#[test]
fn group_products_stay_within_their_buffers() {
    let mut rng = Rng::new(22);
    for (rows, cols, group_len, n) in
        [(1, 1, 64, 1), (16, 48, 128, 2), (17, 65, 64, 3), (33, 300, 128, 5), (5, 257, 256, 13), (40, 580, 192, 26)]
    {
        group_products((rows, cols, group_len), n, &mut rng);
    }
}

/// Numbers from the second element of an allocation to its end.
struct Exact(Box<[f32]>);

impl Exact {
    fn new(rng: &mut Rng, len: usize) -> Self {
        Self((0..=len).map(|_| rng.below(2001) as f32 / 1000.0 - 1.0).collect())
    }
    fn get(&self) -> &[f32] {
        &self.0[1..]
    }
    fn get_mut(&mut self) -> &mut [f32] {
        &mut self.0[1..]
    }
}

/// Runs every kind of operation on `k` numbers; returns the bits of the results.
fn operations(ops: Ops, k: usize) -> Vec<u32> {
    let rng = &mut Rng::new(k as u64 + 1);
    let (a, b, rows) = (Exact::new(rng, k), Exact::new(rng, k), Exact::new(rng, 5 * k));
    let halves: Box<[f16]> = b.0.iter().map(|&b| f16::from_f32(b)).collect();
    let mut y = Exact::new(rng, k);
    let mut all = vec![ops.dot(a.get(), b.get()), ops.dot_f16(a.get(), &halves[1..])];
    let mut keep = |y: &Exact| all.extend(y.get());
    ops.relu2_mul(a.get(), b.get(), y.get_mut());
    keep(&y);
    ops.silu_mul(a.get(), b.get(), y.get_mut());
    keep(&y);
    ops.rms_norm(a.get(), b.get(), 1e-5, y.get_mut());
    keep(&y);
    ops.axpy(0.3, b.get(), y.get_mut());
    keep(&y);
    ops.exp(a.get(), y.get_mut());
    keep(&y);
    if k > 0 {
        let mut sums = Exact::new(rng, 5);
        ops.dots(rows.get(), a.get(), sums.get_mut());
        keep(&sums);
    }
    let integers: Box<[i32]> = (0..=k as i32).collect();
    ops.scale_i32(&integers[1..], 0.1, y.get_mut());
    keep(&y);
    let (mut int8, mut int4) = (Int8Batch::with_capacity(1, k), Int4Batch::with_capacity(1, k));
    let mut int16 = Int16Batch::with_capacity(1, k);
    int16.reset(1, k);
    ops.quantize_int16(a.get(), int16.row_mut(0)).unwrap();
    ops.rms_norm_quantize_int16(a.get(), b.get(), 1e-5, int16.row_mut(0)).unwrap();
    all.extend(int16.view().sums(0).iter().map(|&s| s as f32));
    int8.reset(1, k);
    int4.reset(1, k);
    ops.rms_norm_quantize(a.get(), b.get(), 1e-5, int8.row_mut(0)).unwrap();
    ops.quantize_int4(a.get(), int4.row_mut(0)).unwrap();
    all.extend(int8.view().sums().iter().chain(int4.view().sums()).map(|&s| s as f32));
    if k > 0 {
        // Three tokens of two heads, and as many keys and values.
        let queries = Exact::new(rng, 6 * k);
        let (keys, values) = (Exact::new(rng, 3 * k), Exact::new(rng, 3 * k));
        let rows = |x| KvRows::new(KvData::F32(x), 3, k, k);
        let queries = Queries {
            data: queries.get(),
            tokens: 3,
            token_stride: 2 * k,
            group: 2,
            head_dim: k,
            position: 0,
            scale: 0.5,
        };
        let (mut out, mut scratch) = (Exact::new(rng, 6 * k), AttendScratch::new(2, k));
        let mut view = ColsMut::new(out.get_mut(), 3, 2 * k);
        ops.attend(&queries, rows(keys.get()), rows(values.get()), &mut scratch, &mut view);
        all.extend(out.get());
    }
    all.into_iter().map(f32::to_bits).collect()
}

#[test]
fn operations_stay_within_their_buffers() {
    for k in [0, 1, 15, 17, 63, 100, 130] {
        let expected = operations(Ops::for_isa(Isa::Scalar).unwrap(), k);
        for isa in Isa::available() {
            assert_eq!(operations(Ops::for_isa(isa).unwrap(), k), expected, "{k} numbers, {isa}");
        }
    }
}
