//! Five base-3 digits in a byte, as TQ1_0, PTQ1_0 and IQ1_BN store them.
//!
//! The digits (trit + 1) make a value `v` in 0..243, and the byte is `ceil(256 v / 243)`, so that `byte / 256` is just
//! above `v / 243`: a fixed-point fraction. Multiplied by 3 it carries its first digit out at the top, and the rest
//! stays in the byte; so digit `n` from the top is `(3 * (byte * 3^n mod 256)) >> 8`. Every byte decodes to digits in
//! 0..=2; the 13 bytes that are not an encoding decode like the next lower one.

/// `3^n` for `n` in 0..5.
pub(super) const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The byte of value `v` in 0..243.
pub(super) const fn byte_of(v: u8) -> u8 {
    assert!(v < 243);
    (v as u16 * 256).div_ceil(243) as u8
}

/// Digit `n`, in 0..5, from the top.
#[inline]
pub(super) const fn digit(byte: u8, n: usize) -> u8 {
    ((byte.wrapping_mul(POWERS[n]) as u16 * 3) >> 8) as u8
}

/// Trits of each byte, the lowest digit first; the last three entries are padding, so that an entry has eight bytes.
pub(super) static LOW_FIRST: [[i8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut j = 0;
        while j < 5 {
            table[byte][j] = digit(byte as u8, 4 - j) as i8 - 1;
            j += 1;
        }
        byte += 1;
    }
    table
};

/// Decodes `W` bytes whose digit `n` belongs to the weights `n * W..(n + 1) * W`; digits beyond `out` are dropped.
#[inline]
pub(super) fn decode_group<const W: usize>(bytes: &[u8], out: &mut [i8]) {
    for (n, out) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = digit(byte, n) as i8 - 1;
        }
    }
}

/// The inverse of [`decode_group`]; digits missing in `trits` are 0.
pub(super) fn encode_group<const W: usize>(trits: &[i8], bytes: &mut [u8]) {
    for (m, byte) in bytes.iter_mut().enumerate() {
        let digit = |n: usize| trits.get(n * W + m).map_or(0, |t| (t + 1) as u8);
        *byte = byte_of((0..5).fold(0, |v, n| 3 * v + digit(n)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_decodes_to_its_digits() {
        for v in 0..243u8 {
            let digits: Vec<u8> = (0..5).map(|n| digit(byte_of(v), n)).collect();
            let value = digits.iter().fold(0u32, |acc, &d| 3 * acc + u32::from(d));
            assert_eq!((value, digits.iter().max() < Some(&3)), (u32::from(v), true));
        }
    }

    #[test]
    fn every_byte_decodes_as_the_next_lower_encoding() {
        let encodings: Vec<u8> = (0..243).map(byte_of).collect();
        for byte in 0..=255u8 {
            let lower = encodings.iter().rfind(|&&e| e <= byte).unwrap();
            for n in 0..5 {
                assert_eq!(digit(byte, n), digit(*lower, n), "byte {byte}, digit {n}");
            }
        }
    }
}
