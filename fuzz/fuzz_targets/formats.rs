//! Bytes of every ternary file format: whatever they hold, they are refused, or they decode to trits that encode to
//! the same trits again and multiply like the definition.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ternary_kernels::{FileFormat, Int8Batch, ScaleRounding, SharedBytes, TernaryMatrix, kernels_available, reference};

fuzz_target!(|data: &[u8]| {
    let [format, rows, cols, bytes @ ..] = data else { return };
    let format = FileFormat::ALL[usize::from(*format) % FileFormat::ALL.len()];
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
