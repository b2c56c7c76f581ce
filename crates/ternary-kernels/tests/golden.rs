//! File formats against bytes made by independent software.

mod common;

use common::{crc32, matrix};
use safetensors::SafeTensors;
use ternary_kernels::{FileFormat, Int8Batch, ScaleRounding, Scales, TernaryMatrix, TlTile};
use ternary_kernels::{kernels_available, quantize};

/// `T(r, c) = (7r + 5c + floor(c / 4) (r + 1) + floor(c^2 / 11)) mod 3 - 1`, the matrix of the golden vectors.
fn golden_trits(rows: usize, cols: usize) -> Vec<i8> {
    let trit = |r: usize, c: usize| ((7 * r + 5 * c + c / 4 * (r + 1) + c * c / 11) % 3) as i8 - 1;
    (0..rows * cols).map(|i| trit(i / cols, i % cols)).collect()
}

/// Encodes, checks that decoding restores the trits, and returns the bytes.
fn encoded(format: FileFormat, w: &TernaryMatrix) -> Vec<u8> {
    let bytes = format.encode(w, ScaleRounding::Exact).unwrap();
    let beside = (!format.holds_scale()).then(|| w.scales().clone());
    let back = TernaryMatrix::from_bytes(format, w.rows(), w.cols(), bytes.clone().into(), beside).unwrap();
    assert_eq!(back.to_trits(), w.to_trits(), "{format}");
    assert_eq!(back.scales(), w.scales(), "{format}");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_golden_matrix_is_the_documented_one() {
    let t = golden_trits(4, 128);
    assert_eq!(t[..12], [-1, 1, 0, -1, 0, 0, 0, 0, 1, -1, 0, 1]);
    assert_eq!(t[128..140], [0, -1, 1, 0, -1, -1, -1, -1, 1, -1, 0, 1]);
}

#[test]
fn golden_bytes_of_every_format() {
    let trits = golden_trits(4, 128);
    let w = TernaryMatrix::from_trits(4, 128, &trits, Scales::Tensor(1.5)).unwrap();

    let i2_s = encoded(FileFormat::I2S, &w);
    assert_eq!(i2_s.len(), 160);
    assert_eq!(hex(&i2_s[..16]), "00aa5500404a494992126286618618a1");
    assert_eq!(hex(&i2_s[128..132]), "0000c03f");
    assert_eq!(crc32(&i2_s), 0x4789_9636);

    let hf = encoded(FileFormat::HfPacked, &w);
    assert_eq!((hf.len(), hex(&hf[..16]).as_str()), (128, "2492492461616161aa0055aa49922492"));
    assert_eq!(crc32(&hf), 0x48d5_4152);

    // The first 256 elements, rows 0 and 1, as one row.
    let row = TernaryMatrix::from_trits(1, 256, &trits[..256], Scales::Tensor(1.5)).unwrap();
    let d = half::f16::from_f32(1.5).to_le_bytes();
    let tq2 = encoded(FileFormat::Tq2_0, &row);
    assert_eq!((tq2.len(), hex(&tq2[..16]).as_str()), (66, "00aa550001a16161868489924992244a"));
    assert_eq!((crc32(&tq2[..64]), &tq2[64..]), (0x80d5_ffc9, &d[..]));

    let tq1 = encoded(FileFormat::Tq1_0, &row);
    assert_eq!((tq1.len(), hex(&tq1[..16]).as_str()), (54, "02fd8102566f6c6cd02396bd94bb31e7"));
    assert_eq!(hex(&tq1[48..52]), "fa36be6c");
    assert_eq!((crc32(&tq1[..52]), &tq1[52..]), (0x5938_784b, &d[..]));

    let block = TernaryMatrix::from_trits(1, 64, &trits[..64], Scales::Tensor(1.5)).unwrap();
    let iq1 = encoded(FileFormat::Iq1Bn, &block);
    assert_eq!((&iq1[..2], hex(&iq1[2..]).as_str()), (&d[..], "66474a3f726b10726be91ccb16"));
    let iq2 = encoded(FileFormat::Iq2Bn, &block);
    assert_eq!((hex(&iq2[..4]).as_str(), hex(&iq2[4..]).as_str()), ("0000c03f", "88661188818181811614294229429422"));
}

/// Checksums of the tiled formats over their weights, made with numpy from the functions of bitnet.cpp's converter.
#[test]
fn golden_bytes_of_the_tiled_formats() {
    let w = TernaryMatrix::from_trits(320, 224, &golden_trits(320, 224), Scales::Tensor(1.5)).unwrap();
    let tl1 = encoded(FileFormat::Tl1(TlTile { bm: 160, bk: 32, bmm: 32 }), &w);
    assert_eq!((tl1.len(), hex(&tl1[..16]).as_str()), (17_920 + 32, "23377223377223377223377223377223"));
    assert_eq!((crc32(&tl1[..17_920]), &tl1[17_920..17_924]), (0x2743_9539, &1.5f32.to_le_bytes()[..]));

    let tl2 = encoded(FileFormat::Tl2(TlTile { bm: 160, bk: 96, bmm: 32 }), &w);
    assert_eq!(hex(&tl2[..16]), "69248d69248d6924248d69248d69248d");
    assert_eq!(crc32(&tl2[..15_360]), 0xefa3_49c9);
    // Padding up to the length that the readers of these files expect, then the scale.
    assert_eq!(tl2.len(), 18_368 + 32);
    assert!(tl2[15_360..18_368].iter().all(|&b| b == 0));
    assert_eq!(tl2[18_368..18_372], 1.5f32.to_le_bytes());
}

/// A shared file of reference vectors; `None`, with a message, if it is missing.
fn shared(relative: &str) -> Option<Vec<u8>> {
    let path = test_support::shared_dir()?.join(relative);
    Some(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

fn i8s(file: &SafeTensors<'_>, name: &str) -> (usize, usize, Vec<i8>) {
    let t = file.tensor(name).unwrap();
    (t.shape()[0], t.shape()[1], bytemuck::cast_slice(t.data()).to_vec())
}

fn f32s(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn gguf_encodings_equal_those_of_independent_writers() {
    let Some(bytes) = shared("fixtures/gguf/units.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (rows, cols, trits) = i8s(&file, "ternary");
    let scale = f32s(&file, "scale")[0];
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(scale)).unwrap();
    for (format, name) in [(FileFormat::I2S, "I2_S"), (FileFormat::Tq1_0, "TQ1_0"), (FileFormat::Tq2_0, "TQ2_0")] {
        let expected = file.tensor(name).unwrap().data();
        assert_eq!(encoded(format, &w), expected, "{format}");
        let read = TernaryMatrix::from_bytes(format, rows, cols, expected.to_vec().into(), None).unwrap();
        assert_eq!((read.to_trits(), read.scales()), (trits.clone(), &Scales::Tensor(scale)), "{format}");
    }
}

/// Blocks of random floats quantised by ggml: a row of one block has one scale, a row of two blocks has two.
#[test]
fn blocks_of_random_floats_decode_as_the_independent_reader_does() {
    let Some(bytes) = shared("fixtures/gguf/units.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (format, name) in [(FileFormat::Tq1_0, "float.TQ1_0"), (FileFormat::Tq2_0, "float.TQ2_0")] {
        let data = file.tensor(name).unwrap().data();
        let expected = f32s(&file, &format!("{name}.dequant"));
        let w = TernaryMatrix::from_bytes(format, 2, 256, data.to_vec().into(), None).unwrap();
        for (i, (t, e)) in w.to_trits().iter().zip(&expected).enumerate() {
            assert_eq!(f32::from(*t) * w.scales().at(i / 256, 0), *e, "{format}, element {i}");
        }
        // The same two blocks as one row of 512.
        let row = TernaryMatrix::from_bytes(format, 1, 512, data.to_vec().into(), None).unwrap();
        let (mut trits, mut values) = ([0; 512], [0.0; 512]);
        row.decode_row_f32(0, &mut trits, &mut values);
        assert_eq!(values[..], expected[..], "{format}");
        assert!(matches!(row.scales(), Scales::Groups(g) if g.group_len() == 256), "{:?}", row.scales());
    }
}

#[test]
fn hf_packing_equals_that_of_transformers() {
    let Some(bytes) = shared("fixtures/units/units.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<_> = file.names().into_iter().filter_map(|n| n.strip_suffix(".packed")).collect();
    assert_eq!(names.len(), 3);
    for name in names {
        let (rows, cols, trits) = i8s(&file, &format!("{name}.ternary"));
        let w = matrix(rows, cols, &trits);
        assert_eq!(encoded(FileFormat::HfPacked, &w), file.tensor(&format!("{name}.packed")).unwrap().data(), "{name}");
    }
}

/// Quantised weights, quantised activations and their integer products, against float64 from the formulas.
#[test]
fn quantisers_and_products_equal_those_of_the_formulas() {
    let Some(bytes) = shared("fixtures/units/units.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut products = 0;
    for name in file.names().into_iter().filter_map(|n| n.strip_suffix(".acc_i32")) {
        let (rows, cols, ternary) = i8s(&file, &format!("{name}.ternary"));
        let w = f32s(&file, &format!("{name}.w"));
        let (trits, _) = quantize::absmean_quantize(&w, rows, cols).unwrap();
        assert_eq!(trits, ternary, "{name}");
        // Their scale is the float64 mean rounded to f32, and so is ours.
        assert_eq!(quantize::absmean(&w), f32s(&file, &format!("{name}.w_scale"))[0], "{name}");

        let (n, k, codes) = i8s(&file, &format!("{name}.codes"));
        assert_eq!(k, cols);
        if name.contains("_a8_") {
            check_codes(&f32s(&file, &format!("{name}.z")), &codes, &f32s(&file, &format!("{name}.act_scale")), name);
        }
        let acc = file.tensor(&format!("{name}.acc_i32")).unwrap();
        let expected: Vec<i32> = acc.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
        let (w, x) = (matrix(rows, cols, &trits), Int8Batch::from_codes(n, k, &codes).unwrap());
        for kernel in kernels_available() {
            let mut got = vec![0; n * rows];
            ternary_kernels::gemm(&*kernel, &kernel.prepack(&w).unwrap(), &x.view(), &mut got).unwrap();
            assert_eq!(got, expected, "{name}, {}", kernel.name());
            products += 1;
        }
    }
    assert!(products >= 15, "{products} products");
    let (_, _, codes) = i8s(&file, "edge_a8.codes");
    check_codes(&f32s(&file, "edge_a8.x"), &codes, &f32s(&file, "edge_a8.scale"), "edge_a8");
}

/// `steps` are the dequantising steps `1 / s`, one per row of `x`.
fn check_codes(x: &[f32], codes: &[i8], steps: &[f32], name: &str) {
    let k = x.len() / steps.len();
    for (t, (x, expected)) in x.chunks(k).zip(codes.chunks(k)).enumerate() {
        let mut got = vec![0; k];
        let (s, sum) = quantize::absmax_int8(x, &mut got);
        assert_eq!(got, expected, "{name}, token {t}");
        assert_eq!(sum, expected.iter().map(|&q| i32::from(q)).sum::<i32>(), "{name}, token {t}");
        // Two roundings here and one there, each of at most half an ulp: 3 * 2^-24.
        assert!((s * steps[t] - 1.0).abs() <= 2.0 * f32::EPSILON, "{name}, token {t}: {s} * {}", steps[t]);
    }
}
