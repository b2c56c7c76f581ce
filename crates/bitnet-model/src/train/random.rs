//! Random numbers as a function of a seed: the same on every machine, without state to save.

/// A generator of the splitmix64 family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// A separate stream for each pair of seed and name: drawing from one stream changes no other.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut mixed = Self(seed);
        let mut state = mixed.next_u64();
        for byte in name.bytes() {
            state = Self(state ^ u64::from(byte)).next_u64();
        }
        Self(state)
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0; the bias is below `n / 2^64`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, from the sum of twelve uniform numbers minus 6: mean 0, variance 1, without a transcendental
    /// function that could differ between platforms; the tails end at 6.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// The position of index `i` of `0..n` in a permutation of `0..n` that `seed` selects: four rounds of a Feistel network
/// over the next even number of bits, repeated until the result is below `n`. Needs no memory, for any `n`.
pub(super) fn permute(i: u64, n: u64, seed: u64) -> u64 {
    debug_assert!(i < n);
    let half = (u64::BITS - n.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut x = i;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..4u64 {
            let mixed = Random(seed ^ right.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ (round << 56)).next_u64();
            (left, right) = (right, left ^ (mixed & mask));
        }
        x = (left << half) | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_permutations_and_differ() {
        for n in [1u64, 2, 3, 7, 64, 1000] {
            let mut seen: Vec<u64> = (0..n).map(|i| permute(i, n, 5)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
        let order = |seed| (0..100).map(|i| permute(i, 100, seed)).collect::<Vec<_>>();
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = Random::new(1, "x");
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|v| v * v).sum::<f64>() / f64::from(n);
        // Five standard errors: 1 / sqrt(n) for the mean, sqrt(2 / n) at most for the variance.
        assert!(mean.abs() < 0.036 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_ne!(Random::new(1, "x").next_u64(), Random::new(1, "y").next_u64());
    }
}
