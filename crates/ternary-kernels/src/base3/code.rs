//! The byte that encodes five trits, chosen so that two lookups of 64 entries unpack it.
//!
//! Digits are trits + 1. The lower six bits of a byte are `u = 7 q + p`: `q = t0 + 3 t1` is one of nine pairs, `p` one
//! of seven combinations of `t2` and `t3`; the upper two bits are `h`. All 63 values of `u` with `h` from 0 to 2 hold
//! the seven combinations of `t2` and `t3` with `t4 = h`; the two combinations that are missing, `t3 = 0` with `t2` 1
//! or 2, are the *escapes*, with `h = 3`:
//!
//! | `p` | 0 | 1 | 2 | 3 | 4 | 5 | 6 |
//! |---|---|---|---|---|---|---|---|
//! | `t2 t3`, `t4 = h` (h < 3) | 0 0 | 0 1 | 1 1 | 2 1 | 0 2 | 1 2 | 2 2 |
//! | `t2 t3 t4` (h = 3) | none | 1 0 2 | 2 0 2 | 1 0 0 | 1 0 1 | 2 0 1 | 2 0 0 |
//!
//! That is all 9 * 27 = 243 combinations. The order of the escapes is not arbitrary: with `b` the fields of the row
//! above and `d` a correction that is 0 if nothing is to be corrected, each field is one bitwise operation,
//!
//! ```text
//! b = FIELDS[v & 63]                                 t0 | t1 << 2 | t2 << 4 | t3 << 6, correct if h < 3
//! d = if v >= 192 { FIX[v & 63] } else { 0 }
//! t2 = (b ^ d) & 0x30    t3 = (b & !d) & 0xc0        t4 = (v & !d) & 0xc0
//! ```
//!
//! as the upper bits of `d` are `3 ^ t4`: they turn `h = 3` to `t4`, and clear `t3` in every escape above. A register
//! of 64 bytes is a table of 64 entries for AVX-512 (`vpermb`, which reads the lower six bits of an index) and NEON
//! (`tbl` of four registers), and no instruction is spent on masks or selections.

/// Fields of each `u` that is not an escape, `t0 | t1 << 2 | t2 << 4 | t3 << 6`: a byte of the I2_S layout. Entry 63,
/// which no encoder writes, is four zero weights.
#[allow(dead_code, reason = "not every instruction set reads it")]
pub(super) static FIELDS: [u8; 64] = {
    let mut table = [0x55; 64];
    let mut u = 0;
    while u < 63 {
        let ([t0, t1, t2, t3], _) = digits(u as u8);
        table[u] = t0 | t1 << 2 | t2 << 4 | t3 << 6;
        u += 1;
    }
    table
};

/// The correction `d` of each `u` that is an escape: bits 4 and 5 change `t2`, bits 6 and 7 are `3 ^ t4`.
#[allow(dead_code, reason = "not every instruction set reads it")]
pub(super) static FIX: [u8; 64] = {
    let mut table = [0; 64];
    let mut u = 0;
    while u < 63 {
        if u % 7 != 0 {
            let ([_, _, t2, _], t4) = digits(u as u8 | 0xc0);
            table[u] = (t2 << 4 ^ FIELDS[u] & 0x30) | (3 ^ t4) << 6;
        }
        u += 1;
    }
    table
};

/// Like [`FIX`], for instruction sets that select with masks: `FIELDS[u] ^ (FLIP[u] & 0xf0)` are the fields of an
/// escape and `FLIP[u] & 3` is `3 ^ t4`.
#[allow(dead_code, reason = "not every instruction set reads it")]
pub(super) static FLIP: [u8; 64] = {
    let mut table = [0; 64];
    let mut u = 0;
    while u < 63 {
        if u % 7 != 0 {
            let ([_, _, t2, t3], t4) = digits(u as u8 | 0xc0);
            table[u] = ((t2 << 4 | t3 << 6) ^ FIELDS[u] & 0xf0) | (3 ^ t4);
        }
        u += 1;
    }
    table
};

/// The bytes of four times five digits: byte `i` of the result encodes byte `i` of each argument. All four are computed
/// together, as no intermediate result leaves its byte.
#[inline(always)]
pub(super) const fn encode([t0, t1, t2, t3]: [u32; 4], t4: u32) -> u32 {
    const ONES: u32 = 0x0101_0101;
    // 1 where a digit is not 0.
    let some2 = (t2 | t2 >> 1) & ONES;
    let some3 = (t3 | t3 >> 1) & ONES;
    let none4 = !(t4 | t4 >> 1) & ONES;
    let escape = some2 & !some3;
    // 0 where `t3` is 0, else 3 t3 + t2 - 2.
    let plain = 3 * t3 + (t2 & (3 * some3)) - 2 * some3;
    // 3 t2 for `t4 = 0`, t2 + 3 for 1, t2 for 2.
    let other = t2 + ((t2 << 1) & (6 * none4)) + 3 * (t4 & ONES);
    let h = t4 | (3 * escape);
    7 * (t0 + 3 * t1) + plain + (other & (7 * escape)) + (h << 6)
}

/// The definition: digits `t0` to `t3`, and `t4`, of a byte. Bytes that are not an encoding yield arbitrary digits.
pub(super) const fn digits(byte: u8) -> ([u8; 4], u8) {
    let (u, h) = (byte % 64, byte / 64);
    let (q, p) = (u / 7 % 9, u % 7);
    let (t0, t1) = (q % 3, q / 3);
    // `t3 = 1` for p in 1..4, 2 for p in 4..7.
    let (t2, t3) = if p == 0 { (0, 0) } else { ((p - 1) % 3, (p - 1) / 3 + 1) };
    if h < 3 {
        return ([t0, t1, t2, t3], h);
    }
    let (t2, t4) = match p {
        1 => (1, 2),
        2 => (2, 2),
        3 => (1, 0),
        4 => (1, 1),
        5 => (2, 1),
        _ => (2, 0),
    };
    ([t0, t1, t2, 0], t4)
}
