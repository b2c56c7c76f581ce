//! The layout, and the code for an instruction set that this CPU has in another encoding only. The other tests are in
//! `tests/group.rs`.

use half::f16;

use super::product::{Activations, Product};
use super::*;
use crate::{Int8Batch, Int8GroupBatch, Int16Batch, SharedBytes, Twos, reference};

/// Reproducible random numbers (xorshift64*).
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    state |= 1;
    move |below| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % below
    }
}

/// Compares the products of an instruction set with the definition.
pub(super) fn check_backend(product: &dyn Fn(&Product<'_>, &mut [f32])) {
    let mut next = numbers(5);
    for (rows, cols, group_len) in
        [(1usize, 1usize, 64), (17, 100, 64), (33, 300, 128), (40, 1000, 256), (16, 520, 192)]
    {
        for n in [1, 2, 3, 5, 13] {
            let levels: Vec<i8> = (0..rows * cols).map(|_| next(4) as i8 - 1).collect();
            let groups = cols.div_ceil(group_len);
            let d = (0..rows * groups).map(|_| f16::from_f32(next(1000) as f32 / 500.0)).collect();
            let scales = GroupScales::new(group_len, rows, cols, d).unwrap();
            let w = GroupKernel::selected().unwrap().pack_levels(rows, cols, &levels, &scales).unwrap();
            let steps: Vec<f32> = (0..n).map(|t| 1.5 + t as f32).collect();
            let codes: Vec<i16> = (0..n * cols).map(|_| (next(65279) as i32 - 32639) as i16).collect();
            let x = Int16Batch::from_codes(n, cols, &codes).unwrap();
            let expected = reference::group_product(cols, &levels, &scales, &codes, &vec![1.0; n]).unwrap();
            let mut out = vec![f32::NAN; n * rows];
            let view = x.view();
            let p = Product::new(&w, 0..rows, Activations::Int16(view), Some(view.scales()), &mut out).unwrap();
            product(&p, &mut out);
            assert_eq!(out, expected, "{rows} x {cols}, groups of {group_len}, {n} tokens");

            let codes8: Vec<i8> = codes.iter().map(|&q| (q % 128) as i8).collect();
            let x = Int8Batch::from_codes(n, cols, &codes8).unwrap();
            let codes: Vec<i16> = codes8.iter().map(|&q| i16::from(q)).collect();
            let expected = reference::group_product(cols, &levels, &scales, &codes, &steps).unwrap();
            let view = x.view();
            let p = Product::new(&w, 0..rows, Activations::Int8(view), Some(&steps), &mut out).unwrap();
            product(&p, &mut out);
            assert_eq!(out, expected, "int8: {rows} x {cols}, groups of {group_len}, {n} tokens");

            let steps: Vec<f32> = (0..n * groups).map(|_| next(1000) as f32 / 300.0).collect();
            let x = Int8GroupBatch::from_codes(n, cols, group_len, &codes8, &steps).unwrap();
            let expected = reference::group_product_int8(cols, &levels, &scales, &codes8, &steps).unwrap();
            let p = Product::new(&w, 0..rows, Activations::Int8Groups(x.view()), None, &mut out).unwrap();
            product(&p, &mut out);
            assert_eq!(out, expected, "int8 in groups: {rows} x {cols}, groups of {group_len}, {n} tokens");
        }
    }
}

#[test]
fn lines_are_as_described() {
    // Two rows of 3 groups of 128 columns, the last of which has 70: scales, 16 chunks, scales, 8 chunks.
    let (rows, cols) = (2, 326);
    let mut levels = vec![0i8; rows * cols];
    (levels[0], levels[17], levels[cols + 128], levels[cols + 256]) = (1, -1, 2, -1);
    let d: Vec<f16> = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(f16::from_f32).into();
    let scales = GroupScales::new(128, rows, cols, d.into()).unwrap();
    let w = GroupKernel::selected().unwrap().pack_levels(rows, cols, &levels, &scales).unwrap();
    assert_eq!((w.byte_len(), w.group_len(), w.panel_rows()), ((1 + 16 + 1 + 8) * 64, 128, 16));
    let lines = w.lines();
    let scale = |line: usize, i: usize| f16::from_le_bytes([lines[line][2 * i], lines[line][2 * i + 1]]).to_f32();
    assert_eq!([scale(0, 0), scale(0, 1), scale(0, 16), scale(0, 17)], [1.0, 4.0, 2.0, 5.0]);
    assert_eq!([scale(17, 0), scale(17, 1), scale(17, 2), scale(17, 16)], [3.0, 6.0, 0.0, 0.0]);
    assert_eq!(lines[1][0], 0b01_01_01_10); // row 0, column 0: +1
    assert_eq!(lines[2][1], 0b01_01_01_00); // row 0, column 17: -1
    assert_eq!(lines[9][4], 0b01_01_01_11); // row 1, column 128: +2
    assert_eq!(lines[18][4], 0b01_01_01_00); // row 1, column 256: -1
    let zeros = lines[1..17].iter().chain(&lines[18..]).flatten().filter(|&&b| b == 0x55).count();
    assert_eq!(zeros, 24 * 64 - 4);
}

#[test]
fn rows_are_decoded_from_packed_weights() {
    let mut next = numbers(3);
    for (rows, cols, group_len) in [(1usize, 1usize, 64), (35, 200, 64), (20, 129, 128), (17, 700, 256), (3, 0, 64)] {
        let levels: Vec<i8> = (0..rows * cols).map(|_| next(4) as i8 - 1).collect();
        let groups = cols.div_ceil(group_len);
        let d: Vec<f16> = (0..rows * groups).map(|_| f16::from_f32(next(1000) as f32 / 500.0)).collect();
        let scales = GroupScales::new(group_len, rows, cols, d.into()).unwrap();
        let w = GroupKernel::selected().unwrap().pack_levels(rows, cols, &levels, &scales).unwrap();
        let mut row = vec![f32::NAN; cols];
        for r in 0..rows {
            w.decode_row_f32(r, &mut row);
            for c in 0..cols {
                assert_eq!(row[c], f32::from(levels[r * cols + c]) * scales.row(r)[c / group_len].to_f32());
            }
        }
    }
}

/// Products that tables compute, and tokens and weights that they leave to multiplications: whole and partial tiles, groups that end in a
/// step and in the middle of two, a last group that is a part of one, weights of +2 and digits of -128 throughout.
#[test]
fn tables_equal_the_definition() {
    let mut next = numbers(9);
    for (rows, cols, group_len) in
        [(160usize, 64usize, 64usize), (163, 200, 64), (1041, 300, 128), (176, 520, 192), (161, 600, 256)]
    {
        for (n, most) in [(3, 3), (16, 3), (25, 3), (37, 3), (40, 4)] {
            let mut levels: Vec<i8> = (0..rows * cols).map(|_| next(most) as i8 - 1).collect();
            let mut codes: Vec<i16> = (0..n * cols).map(|_| (next(65279) as i32 - 32639) as i16).collect();
            levels[..3 * cols].fill(-1);
            codes[..cols].fill(128);
            codes[cols..2 * cols].fill(-32639);
            let groups = cols.div_ceil(group_len);
            let d: Vec<f16> = (0..rows * groups).map(|_| f16::from_f32(next(1000) as f32 / 500.0)).collect();
            let scales = GroupScales::new(group_len, rows, cols, d.into()).unwrap();
            let steps: Vec<f32> = (0..n * groups).map(|_| next(1000) as f32 / 300.0).collect();
            let codes8: Vec<i8> = codes.iter().map(|&q| (q % 128) as i8).collect();
            let wide8: Vec<i16> = codes8.iter().map(|&q| i16::from(q)).collect();
            let wanted = reference::group_product(cols, &levels, &scales, &codes, &vec![1.0; n]).unwrap();
            let wanted8 = reference::group_product(cols, &levels, &scales, &wide8, &steps[..n]).unwrap();
            let wanted_steps = reference::group_product_int8(cols, &levels, &scales, &codes8, &steps).unwrap();
            let x = Int16Batch::from_codes(n, cols, &codes).unwrap();
            let x8 = Int8Batch::from_codes(n, cols, &codes8).unwrap();
            let x_steps = Int8GroupBatch::from_codes(n, cols, group_len, &codes8, &steps).unwrap();
            for kernel in GroupKernel::available() {
                let what = format!("{}: {rows} x {cols}, groups of {group_len}, {n} tokens", kernel.name());
                let w = kernel.pack_levels(rows, cols, &levels, &scales).unwrap();
                let mut out = vec![f32::NAN; n * rows];
                kernel.product(&w, 0..rows, &x.view(), &mut out);
                assert_eq!(out, wanted, "{what}");
                kernel.product_int8(&w, 0..rows, &x8.view(), &steps[..n], &mut out);
                assert_eq!(out, wanted8, "int8, {what}");
                kernel.product_int8_groups(&w, 0..rows, &x_steps.view(), &mut out);
                assert_eq!(out, wanted_steps, "int8 in groups, {what}");
            }
        }
    }
}

#[test]
fn levels_of_two_are_found_wherever_they_are() {
    let (rows, cols) = (40usize, 300usize);
    let d: Vec<f16> = vec![f16::ONE; rows * cols.div_ceil(64)];
    // Scales whose bytes look like code 3.
    let scales = GroupScales::new(64, rows, cols, vec![f16::from_bits(0x7bff); d.len()].into()).unwrap();
    let kernel = GroupKernel::selected().unwrap();
    let mut levels = vec![1i8; rows * cols];
    assert!(!kernel.pack_levels(rows, cols, &levels, &scales).unwrap().has_twos());
    for at in [0, cols - 1, 17 * cols + 130, rows * cols - 1] {
        levels[at] = 2;
        let packed = kernel.pack_levels(rows, cols, &levels, &scales).unwrap();
        assert!(packed.has_twos(), "{at}");
        // Packed weights are not searched: the caller that packed them says so.
        let (layout, bytes) = (KernelLayout::Groups(64), SharedBytes::from(packed.bytes().to_vec()));
        for twos in [None, Some(Twos { row: at / cols, col: at % cols, count: 1 })] {
            let scales = Scales::Groups(scales.clone());
            let w = TernaryMatrix::from_packed(FileFormat::Q2_0, layout, (rows, cols), bytes.clone(), scales, twos);
            assert_eq!(kernel.prepack_groups(&w.unwrap(), 64).unwrap().has_twos(), twos.is_some());
        }
        levels[at] = 1;
    }
}
