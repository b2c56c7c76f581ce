//! Layouts of packed weights: lengths, decoding, and bytes that are not codes.

use std::sync::Arc;

use half::f16;

use super::*;
use crate::{
    FileFormat, GroupKernel, GroupScales, Int8Batch, Int16Batch, Scales, SharedBytes, TernaryMatrix, gemm, gemv,
    kernels_available,
};

/// Pseudo-random bytes.
fn noise(n: usize, seed: u64) -> impl Iterator<Item = u8> {
    (0..n as u64).map(move |i| {
        let x = (i ^ seed << 32).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
    })
}

fn trits(rows: usize, cols: usize) -> Vec<i8> {
    noise(rows * cols, 7).map(|b| (b % 3) as i8 - 1).collect()
}

/// `packed` as if it had been read from a file.
fn stored(layout: KernelLayout, w: &TernaryMatrix, bytes: &[u8]) -> TernaryMatrix {
    let bytes = SharedBytes::from(bytes.to_vec());
    TernaryMatrix::from_packed(w.format(), layout, (w.rows(), w.cols()), bytes, w.scales().clone(), w.twos()).unwrap()
}

const SHAPES: [(usize, usize); 6] = [(1, 1), (16, 64), (17, 80), (33, 81), (5, 300), (48, 640)];

#[test]
fn packed_weights_become_the_trits_again_and_the_same_packed_weights() {
    for (rows, cols) in SHAPES {
        let trits = trits(rows, cols);
        let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(0.5)).unwrap();
        for kernel in kernels_available() {
            let Some(layout) = KernelLayout::of_kernel(kernel.name()) else { continue };
            let packed = kernel.prepack(&w).unwrap();
            assert_eq!(layout.byte_len(rows, cols), Ok(packed.byte_len()), "{layout} {rows} x {cols}");
            let again = stored(layout, &w, packed.all().bytes());
            assert_eq!(again.to_trits(), trits, "{layout} {rows} x {cols}");
            again.check_packed().unwrap();
            // Every kernel makes the same of it as of the trits; kernels of the layout use the bytes unchanged.
            for other in kernels_available() {
                let (a, b) = (other.prepack(&w).unwrap(), other.prepack(&again).unwrap());
                assert_eq!(a.all().bytes(), b.all().bytes(), "{} to {}", kernel.name(), other.name());
                let shared = b.all().bytes().as_ptr() == again.packed_bytes(layout).unwrap().as_ptr();
                assert_eq!(shared, KernelLayout::of_kernel(other.name()) == Some(layout), "{}", other.name());
            }
            // Rows in another order are read from the same bytes.
            let order: Vec<u32> = (0..rows as u32).rev().collect();
            let turned = again.with_row_order(&order).unwrap();
            assert!(turned.packed_bytes(layout).is_none());
            assert_eq!(turned.to_trits(), w.with_row_order(&order).unwrap().to_trits());
        }
    }
}

#[test]
fn group_layouts_become_the_levels_again() {
    let kernel = GroupKernel::selected().unwrap();
    for (rows, cols) in [(1, 64), (17, 300), (33usize, 128usize)] {
        for group_len in [64, 128, 256] {
            let groups = cols.div_ceil(group_len);
            let scales: Arc<[f16]> = (0..rows * groups).map(|i| f16::from_f32(0.25 + (i % 7) as f32)).collect();
            let scales = GroupScales::new(group_len, rows, cols, scales).unwrap();
            let codes: Vec<i8> = noise(rows * cols, 3).map(|b| (b % 4) as i8 - 1).collect();
            for scales in [Scales::Groups(scales), Scales::Tensor(0.5)] {
                let w = TernaryMatrix::from_codes(rows, cols, &codes, scales).unwrap();
                let packed = kernel.prepack(&w).unwrap();
                let layout = KernelLayout::Groups(packed.group_len());
                assert_eq!(layout.byte_len(rows, cols), Ok(packed.byte_len()));
                let again = stored(layout, &w, packed.bytes());
                assert_eq!(again.to_trits(), w.to_trits());
                let shared = kernel.prepack(&again).unwrap();
                assert_eq!(shared.bytes().as_ptr(), again.packed_bytes(layout).unwrap().as_ptr());
                let cut = kernel.prepack_groups(&again, 64).unwrap();
                assert_eq!(cut.bytes(), kernel.prepack_groups(&w, 64).unwrap().bytes());
                let (mut a, mut b) = (vec![0.0; rows], vec![0.0; rows]);
                let x = Int16Batch::from_codes(1, cols, &vec![3; cols]).unwrap();
                kernel.product(&packed, 0..rows, &x.view(), &mut a);
                kernel.product(&shared, 0..rows, &x.view(), &mut b);
                assert_eq!(a, b);
            }
        }
    }
}

/// For any bytes of a file, every kernel computes some numbers.
#[test]
fn bytes_that_are_no_weights_are_harmless() {
    for (rows, cols) in SHAPES {
        let x = Int8Batch::from_codes(3, cols, &vec![127; 3 * cols]).unwrap();
        let codes = Int16Batch::from_codes(1, cols, &vec![crate::INT16_MAX; cols]).unwrap();
        let layouts = [KernelLayout::I2s, KernelLayout::Base3].into_iter().chain([64, 256].map(KernelLayout::Groups));
        for layout in layouts {
            let len = layout.byte_len(rows, cols).unwrap();
            for fill in [None, Some(0), Some(0xff), Some(0x3f)] {
                let bytes: Vec<u8> = noise(len, 11).map(|b| fill.unwrap_or(b)).collect();
                let shape = (rows, cols);
                let w = TernaryMatrix::from_packed(
                    FileFormat::Trits,
                    layout,
                    shape,
                    bytes.into(),
                    Scales::Tensor(1.0),
                    None,
                );
                let w = w.unwrap();
                assert!(w.to_trits().iter().all(|t| (-1..=1).contains(t)));
                for kernel in kernels_available() {
                    let packed = kernel.prepack(&w).unwrap();
                    let mut acc = vec![0; 3 * rows];
                    gemm(kernel.as_ref(), &packed, &x.view(), &mut acc).unwrap();
                    gemv(kernel.as_ref(), &packed, &x.view().row(0), &mut acc[..rows]).unwrap();
                }
                for kernel in GroupKernel::available() {
                    let packed = kernel.prepack(&w).unwrap();
                    kernel.product(&packed, 0..rows, &codes.view(), &mut vec![0.0; rows]);
                    packed.decode_row_f32(rows - 1, &mut vec![0.0; cols]);
                }
            }
        }
    }
}

#[test]
fn codes_that_no_weight_has_are_found() {
    let w = TernaryMatrix::from_trits(3, 80, &trits(3, 80), Scales::Tensor(1.0)).unwrap();
    for (name, bad) in [("i2s_scalar", 0xff), ("base3_scalar", 0xff)] {
        let kernel = crate::by_name(name).unwrap();
        let layout = KernelLayout::of_kernel(name).unwrap();
        let mut bytes = kernel.prepack(&w).unwrap().all().bytes().to_vec();
        stored(layout, &w, &bytes).check_packed().unwrap();
        bytes[4] = bad;
        let error = stored(layout, &w, &bytes).check_packed().unwrap_err();
        assert!(matches!(error, KernelError::InvalidCode { row: 1, .. }), "{name}: {error}");
    }
}

#[test]
fn wrong_lengths_and_scales_are_refused() {
    let new = |layout, shape, len, scales| {
        TernaryMatrix::from_packed(FileFormat::Trits, layout, shape, vec![0; len].into(), scales, None).map(|_| ())
    };
    let ok = Scales::Tensor(1.0);
    assert_eq!(new(KernelLayout::I2s, (16, 64), 256, ok.clone()), Ok(()));
    for len in [0, 255, 257] {
        assert!(matches!(new(KernelLayout::I2s, (16, 64), len, ok.clone()), Err(KernelError::ShapeMismatch { .. })));
    }
    let huge = new(KernelLayout::Base3, (usize::MAX, 1 << 20), 0, ok.clone());
    assert!(matches!(huge, Err(KernelError::TooLarge { .. })));
    assert!(matches!(new(KernelLayout::I2s, (1, usize::MAX), 0, ok.clone()), Err(KernelError::RowTooLong { .. })));
    assert!(matches!(new(KernelLayout::Groups(63), (1, 1), 0, ok), Err(KernelError::GroupLength { .. })));
    assert!(new(KernelLayout::I2s, (16, 64), 256, Scales::Tensor(f32::NAN)).is_err());
    assert!(new(KernelLayout::I2s, (16, 64), 256, Scales::Rows(vec![1.0; 15].into())).is_err());
}

/// Files outlive programs: if this fails, increase [`KernelLayout::VERSION`].
#[test]
fn the_layouts_of_this_version() {
    assert_eq!(KernelLayout::VERSION, 1);
    let hash = |bytes: &[u8]| bytes.iter().fold(0xCBF2_9CE4u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    let w = TernaryMatrix::from_trits(18, 150, &trits(18, 150), Scales::Tensor(1.0)).unwrap();
    let of = |name: &str| hash(crate::by_name(name).unwrap().prepack(&w).unwrap().all().bytes());
    let groups = GroupKernel::for_isa(crate::Isa::Scalar).unwrap().prepack(&w).unwrap();
    assert_eq!(
        [of("i2s_scalar"), of("base3_scalar"), hash(groups.bytes())],
        [1_515_280_934, 3_413_458_774, 2_920_356_374]
    );
}
