//! Statistics of repeated measurements.

/// Values of one quantity, measured repeatedly. The statistics of no values are NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The middle value; of an even number of values, the mean of the middle two.
    pub fn median(&self) -> f64 {
        let n = self.len();
        if n == 0 { f64::NAN } else { (self.sorted[(n - 1) / 2] + self.sorted[n / 2]) / 2.0 }
    }

    /// The smallest value that at least the share `share` (0 to 1) of all values does not exceed: the nearest-rank
    /// percentile, always a value that was measured.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The smallest value.
    pub fn least(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest value.
    pub fn most(&self) -> f64 {
        self.sorted.last().copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the largest value.
    pub fn range(&self) -> [f64; 2] {
        [self.least(), self.most()]
    }

    /// The sum of all values; 0 if there are none.
    pub fn sum(&self) -> f64 {
        self.sorted.iter().sum()
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> f64 {
        self.sum() / self.len() as f64
    }

    /// `f` of every value, to convert units.
    pub fn map(&self, f: impl FnMut(f64) -> f64) -> Self {
        self.sorted.iter().copied().map(f).collect()
    }
}

impl From<Vec<f64>> for Samples {
    fn from(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_the_middle_or_the_mean_of_two() {
        assert_eq!(Samples::from(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples::from(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Samples::from(vec![7.0]).median(), 7.0);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Samples = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| values.percentile(share)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(Samples::from(vec![3.0]).percentile(0.5), 3.0);
    }

    #[test]
    fn ranges_sums_and_means() {
        let values = Samples::from(vec![2.0, 4.0, 1.0, 1.0]);
        assert_eq!((values.range(), values.sum(), values.mean(), values.len()), ([1.0, 4.0], 8.0, 2.0, 4));
        // Reciprocals turn the order around.
        assert_eq!(values.map(|s| 1.0 / s).range(), [0.25, 1.0]);
    }

    #[test]
    fn statistics_of_nothing_are_nan() {
        let none = Samples::default();
        let all = [none.median(), none.percentile(0.5), none.least(), none.most(), none.mean()];
        assert!(none.is_empty() && all.iter().all(|x| x.is_nan()));
    }
}
