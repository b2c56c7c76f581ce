//! Counter-based noise: a pure function of seed, position and token.

/// Increment of SplitMix64, the odd integer closest to `2^64 / golden ratio`.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014; constants "mix13" of Stafford): a bijection of 64 bits in
/// which every input bit affects every output bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The draws of one position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise {
    key: u64,
}

impl Noise {
    pub(super) fn new(seed: u64, position: u64) -> Self {
        Self { key: mix(mix(seed.wrapping_add(GOLDEN)) ^ position.wrapping_mul(GOLDEN)) }
    }

    /// 64 uniform bits of `token`: number `token` of the SplitMix64 stream that starts at the key.
    pub(super) fn bits(self, token: u32) -> u64 {
        mix(self.key.wrapping_add(GOLDEN.wrapping_mul(u64::from(token) + 1)))
    }
}

/// `-ln(-ln(1 - v))` with `v = (bits / 2^12 + 1/2) / 2^52`, which is strictly between 0 and 1.
pub(super) fn gumbel(bits: u64) -> f64 {
    // Integers below 2^52 plus a half are exact in f64.
    let v = ((bits >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    -(-(-v).ln_1p()).ln()
}

/// An upper bound of [`gumbel`] without a logarithm: `-ln(1 - v) >= v`, so
/// `gumbel <= -ln v <= (leading zeros + 1) ln 2`.
pub(super) fn gumbel_bound(bits: u64) -> f64 {
    f64::from(bits.leading_zeros() + 1) * std::f64::consts::LN_2
}

/// Standard Gumbel noise of `token` at `position` of the text, for `seed`.
///
/// With `mix` the finaliser of SplitMix64 and `G = 0x9e3779b97f4a7c15`, all modulo `2^64`:
/// `key = mix(mix(seed + G) ^ (position * G))`, `bits = mix(key + G * (token + 1))`,
/// `v = (floor(bits / 2^12) + 1/2) / 2^52`, and the noise is `-ln(-ln(1 - v))`. It is between -3.61 and 36.74. The
/// definition is part of the interface: changing it would change every sampled text. The logarithms are those of the
/// platform's mathematics library, which may differ in the last bit of an f64.
pub fn gumbel_noise(seed: u64, position: u64, token: u32) -> f64 {
    gumbel(Noise::new(seed, position).bits(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream of SplitMix64 from state 0, as published with the algorithm.
    #[test]
    fn is_splitmix64() {
        let zero = Noise { key: 0 };
        assert_eq!([zero.bits(0), zero.bits(1)], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn stays_within_its_bounds() {
        let (low, high) = (gumbel(u64::MAX), gumbel(0));
        assert!((-3.61..-3.60).contains(&low), "{low}");
        assert!((36.73..36.74).contains(&high), "{high}");
        let edges = (0..64).flat_map(|s| [1u64 << s, (1u64 << s) - 1, !0 >> s]);
        for bits in edges.chain((0..10_000).map(|i| Noise::new(3, 5).bits(i))) {
            let (g, bound) = (gumbel(bits), gumbel_bound(bits));
            assert!(g.is_finite() && g <= bound, "{bits:#x}: {g} exceeds {bound}");
        }
    }

    /// Mean and variance are Euler's constant and pi^2 / 6; the mean of n draws has a deviation of sqrt(1.645 / n).
    #[test]
    fn is_standard_gumbel() {
        let n = 200_000;
        for draws in [
            (0..n).map(|i| gumbel_noise(1, 2, i)).collect::<Vec<f64>>(),
            (0..n).map(|i| gumbel_noise(1, u64::from(i), 2)).collect(),
            (0..n).map(|i| gumbel_noise(u64::from(i), 1, 2)).collect(),
        ] {
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / f64::from(n);
            assert!((mean - 0.577_216).abs() < 5.0 * (1.645 / f64::from(n)).sqrt(), "mean {mean}");
            // The fourth central moment of the distribution is 14.6, so the variance has a deviation of sqrt((14.6 -
            // 2.7) / n).
            assert!((variance - 1.644_934).abs() < 5.0 * (11.9 / f64::from(n)).sqrt(), "variance {variance}");
        }
    }
}
