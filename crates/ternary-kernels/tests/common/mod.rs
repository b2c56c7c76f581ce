//! Helpers for the tests of this crate: deterministic matrices and activations.
#![allow(dead_code)] // Each test file uses some of them.

use proptest::prelude::ProptestConfig;
use ternary_kernels::{Int8Batch, Isa, Scales, TernaryMatrix};

/// Whether an emulator runs the tests, about twenty times slower: large cases are reduced then.
pub(crate) fn emulated() -> bool {
    std::env::var_os("BITNET_EMULATED").is_some_and(|v| !v.is_empty())
}

/// This many random cases, or `PROPTEST_CASES` if that is less.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    ProptestConfig::with_cases(asked.min(usual))
}

/// With `BITNET_EXPECT_ISA=a,b`, an instruction set that did not run is a failure.
pub(crate) fn expected_sets_are(run: &[Isa]) {
    let names: Vec<_> = run.iter().map(|i| i.name()).collect();
    let expected = std::env::var("BITNET_EXPECT_ISA").unwrap_or_default();
    for name in expected.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        assert!(names.contains(&name), "BITNET_EXPECT_ISA names {name}, but the tests ran {}", names.join(" "));
    }
}

/// A small generator of reproducible random numbers (xorshift64*).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Below `n`, from the better upper bits.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }
    pub(crate) fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(3) as i8 - 1).collect()
    }
    /// Codes in -8..=7.
    pub(crate) fn int4_codes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(16) as i8 - 8).collect()
    }
    /// Codes in -127..=127.
    pub(crate) fn codes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.below(255) as i16 - 127) as i8).collect()
    }
}

pub(crate) fn matrix(rows: usize, cols: usize, trits: &[i8]) -> TernaryMatrix {
    TernaryMatrix::from_trits(rows, cols, trits, Scales::Tensor(1.0)).expect("trits of the right length")
}

pub(crate) fn batch(n: usize, k: usize, codes: &[i8]) -> Int8Batch {
    Int8Batch::from_codes(n, k, codes).expect("codes of the right length")
}

/// CRC-32 as in zlib.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
