//! Bytes of every ternary file format: whatever they hold, they are refused, or they decode to trits that encode to
//! the same trits again and multiply like the definition.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ternary_kernels::{
    FileFormat, Int8Batch, ScaleRounding, SharedBytes, TernaryMatrix, TlTile, kernels_available, reference,
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

fuzz_target!(|data: &[u8]| {
    let [format, rows, cols, bytes @ ..] = data else { return };
    let format = format_of(*format);
    // The lower bits choose a multiple of 64, so that every format gets lengths it accepts.
    let (rows, cols) = (usize::from(*rows), usize::from(*cols));
    let cols = if cols < 64 { cols * 64 } else { cols };
    // Most inputs would have a wrong length, so the right one is cut from them where they are long enough.
    let bytes = match format.byte_len(rows, cols) {
        Ok(len) => bytes.get(..len).unwrap_or(bytes),
        Err(_) => bytes,
    };
    let Ok(w) = TernaryMatrix::from_bytes(format, rows, cols, SharedBytes::from(bytes.to_vec()), None) else { return };
    let trits = w.to_trits();
    assert!(trits.iter().all(|t| (-1..=1).contains(t)));
    if let Ok(again) = format.encode(&w, ScaleRounding::Exact) {
        let again = TernaryMatrix::from_bytes(format, rows, cols, SharedBytes::from(again), None)
            .expect("what was encoded can be read");
        assert_eq!(again.to_trits(), trits);
    }
    let codes: Vec<i8> = (0..cols).map(|i| (i * 37 % 255) as i8).map(|v| v.max(-127)).collect();
    let x = Int8Batch::from_codes(1, cols, &codes).expect("codes lie in -127..=127");
    let mut acc = vec![0; rows];
    for kernel in kernels_available() {
        let packed = kernel.prepack(&w).expect("every shape can be packed");
        ternary_kernels::gemv(kernel.as_ref(), &packed, &x.view().row(0), &mut acc).expect("shapes agree");
        assert_eq!(acc, reference::gemv(&w, &codes).expect("shapes agree"), "{}", kernel.name());
    }
});
