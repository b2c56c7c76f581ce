//! Random numbers that are the same on every machine.

/// SplitMix64 from a seed (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in -1..1, with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Nearly normal, with mean 0 and deviation 1: twelve uniform numbers added.
    pub fn normal(&mut self) -> f32 {
        let sum: i64 = (0..12).map(|_| (self.bits() >> 40) as i64).sum();
        (sum as f64 / (1u64 << 24) as f64 - 6.0) as f32
    }

    /// `n` numbers of [`Random::normal`].
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }

    /// In -8..8, mostly small, as activations are.
    pub fn activation(&mut self) -> f32 {
        self.unit() * 8.0 * self.unit().abs()
    }

    /// `n` numbers of [`Random::activation`].
    pub fn activations(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.activation()).collect()
    }

    /// `n` integers of all magnitudes.
    pub fn integers(&mut self, n: usize) -> Vec<i32> {
        (0..n).map(|_| (self.bits() as i32) >> (self.bits() % 30)).collect()
    }

    /// `n` trits: -1, 0 or 1.
    pub fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(3) as i8 - 1).collect()
    }

    /// `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream from state 0, as published with the algorithm.
    #[test]
    fn it_is_splitmix64() {
        let mut random = Random(0);
        let first = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!([(); 3].map(|()| random.bits()), first);
    }

    #[test]
    fn numbers_are_in_their_ranges() {
        let mut random = Random(1);
        let unit: Vec<f32> = (0..1000).map(|_| random.unit()).collect();
        assert!(unit.iter().all(|x| (-1.0..1.0).contains(x)));
        let normal = random.normals(4000);
        let mean = normal.iter().sum::<f32>() / 4000.0;
        let variance = normal.iter().map(|x| x * x).sum::<f32>() / 4000.0;
        // Five standard errors: 5 / sqrt(4000) and 5 sqrt(2 / 4000).
        assert!(mean.abs() < 0.08 && (variance - 1.0).abs() < 0.12, "{mean} {variance}");
        assert!(random.trits(99).iter().all(|t| (-1..=1).contains(t)));
        assert!(random.activations(99).iter().all(|x| x.abs() <= 8.0));
    }
}
