//! Bytes of every ternary file format: they are refused, or they decode to trits that encode to the same trits again
//! and multiply like the definition.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ternary_kernels::{
    FileFormat, GroupKernel, Int8Batch, Isa, KernelError, Levels, ScaleRounding, Scales, SharedBytes, TernaryMatrix,
    TlTile, kernels_available, reference,
};

/// The format that a byte stands for; the tiled ones with sizes of all kinds, most of which fit some shape.
fn format_of(byte: u8) -> FileFormat {
    let all = FileFormat::ALL;
    let n = usize::from(byte) % (2 * all.len());
    let Some(k) = n.checked_sub(all.len()) else { return all[n] };
    let bits = usize::from(byte) / (2 * all.len());
    let tile = TlTile { bm: 32 << (bits % 3), bk: [24, 48, 32, 96, 64, 0][bits % 6], bmm: 32 << (bits % 2) };
    if k % 2 == 0 { FileFormat::Tl1(tile) } else { FileFormat::Tl2(tile) }
}

/// All weights with their scales, `[rows, cols]`.
fn values(w: &TernaryMatrix) -> Vec<f32> {
    let mut all = vec![0.0; w.rows() * w.cols()];
    let mut trits = vec![0; w.cols()];
    for (r, row) in all.chunks_exact_mut(w.cols().max(1)).enumerate() {
        w.decode_row_f32(r, &mut trits, row);
    }
    all
}

/// Whether the values are equal; 0 and -0 are.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

fuzz_target!(|data: &[u8]| {
    let [format, rows, cols, bytes @ ..] = data else { return };
    let format = format_of(*format);
    // The lower bits choose a multiple of 64, so that every format gets lengths it accepts.
    let (rows, cols) = (usize::from(*rows), usize::from(*cols));
    let cols = if cols < 64 { cols * 64 } else { cols };
    // Most inputs would have a wrong length, so longer inputs are cut to the right one.
    let bytes = match format.byte_len(rows, cols) {
        Ok(len) => bytes.get(..len).unwrap_or(bytes),
        Err(_) => bytes,
    };
    let Ok(w) = TernaryMatrix::from_bytes(format, rows, cols, SharedBytes::from(bytes.to_vec()), None) else { return };
    let trits = w.to_trits();
    let top = if w.levels() == Levels::Four { 2 } else { 1 };
    assert!(trits.iter().all(|t| (-1..=top).contains(t)));
    assert_eq!(w.twos().map_or(0, |t| t.count), trits.iter().filter(|t| **t == 2).count());
    let values = values(&w);
    for other in FileFormat::ALL.iter().copied().chain([format]) {
        if let Ok(again) = other.encode(&w, ScaleRounding::Exact) {
            let beside = (!other.holds_scale()).then(|| w.scales().clone());
            let again = TernaryMatrix::from_bytes(other, rows, cols, SharedBytes::from(again), beside)
                .expect("what was encoded can be read");
            // A group of scale 0 may have lost its trits.
            assert!(same(&self::values(&again), &values), "{format} as {other}");
        }
    }
    let group = GroupKernel::for_isa(Isa::Scalar).expect("every CPU is a CPU");
    let packed = group.prepack(&w).expect("every shape can be packed");
    let mut row = vec![0.0; cols];
    for (r, values) in values.chunks_exact(cols.max(1)).enumerate() {
        packed.decode_row_f32(r, &mut row);
        assert!(same(&row, values), "{format}, row {r} of the group kernels");
    }
    let codes: Vec<i8> = (0..cols).map(|i| (i * 37 % 255) as i8).map(|v| v.max(-127)).collect();
    let x = Int8Batch::from_codes(1, cols, &codes).expect("codes lie in -127..=127");
    let mut acc = vec![0; rows];
    for kernel in kernels_available() {
        let packed = match kernel.prepack(&w) {
            Ok(packed) => packed,
            Err(KernelError::GroupsUnsupported { .. }) if matches!(w.scales(), Scales::Groups(_)) => continue,
            Err(KernelError::Twos { .. }) if w.levels() == Levels::Four => continue,
            Err(e) => panic!("{}: every shape can be packed: {e}", kernel.name()),
        };
        ternary_kernels::gemv(kernel.as_ref(), &packed, &x.view().row(0), &mut acc).expect("shapes agree");
        assert_eq!(acc, reference::gemv(&w, &codes).expect("shapes agree"), "{}", kernel.name());
    }
});
