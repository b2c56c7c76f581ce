//! Bytes of every ternary file format: whatever they hold, they are refused or decode to trits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ternary_kernels::{FileFormat, SharedBytes, TernaryMatrix};

fuzz_target!(|data: &[u8]| {
    let [rows, cols, bytes @ ..] = data else { return };
    let (rows, cols) = (usize::from(*rows), usize::from(*cols));
    if let Ok(w) = TernaryMatrix::from_bytes(FileFormat::Trits, rows, cols, SharedBytes::from(bytes.to_vec()), None) {
        assert!(w.to_trits().iter().all(|t| (-1..=1).contains(t)));
    }
});
