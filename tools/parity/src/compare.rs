//! Comparisons. All of them treat NaN as infinitely wrong.

/// The largest absolute difference; infinite if the lengths differ or something is not a number.
pub(crate) fn max_abs(got: &[f32], expected: &[f32]) -> f32 {
    if got.len() != expected.len() || got.is_empty() {
        return f32::INFINITY;
    }
    let worst = got.iter().zip(expected).map(|(g, e)| (g - e).abs());
    worst.fold(0.0, |a, d| if d <= a { a } else { if d.is_nan() { f32::INFINITY } else { d } })
}

/// The largest absolute value.
pub(crate) fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a: f32, v| a.max(v.abs()))
}

/// Standard deviation.
pub(crate) fn std(values: &[f32]) -> f32 {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    variance.sqrt() as f32
}

/// Index of the largest value, the first of equals.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}

/// Length of the difference as a share of the expected length; infinite if the lengths differ or something is not a
/// number.
pub(crate) fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let off: f64 = got.iter().zip(expected).map(|(g, e)| square(f64::from(*g) - f64::from(*e))).sum();
    let all: f64 = expected.iter().map(|e| square(f64::from(*e))).sum();
    let share = (off / all.max(f64::MIN_POSITIVE)).sqrt();
    if got.len() != expected.len() || share.is_nan() { f64::INFINITY } else { share }
}

/// Positions where two slices of equal length differ; all of them if the lengths differ.
pub(crate) fn differing<T: PartialEq>(got: &[T], expected: &[T]) -> usize {
    if got.len() != expected.len() {
        return got.len().max(expected.len());
    }
    got.iter().zip(expected).filter(|(g, e)| g != e).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_never_close() {
        assert_eq!(max_abs(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert_eq!(max_abs(&[f32::NAN, 2.0], &[1.5, 2.0]), f32::INFINITY);
        assert_eq!(max_abs(&[2.0, f32::NAN, 2.0], &[1.5, 2.0, 2.0]), f32::INFINITY);
        assert_eq!(max_abs(&[1.0], &[1.0, 2.0]), f32::INFINITY);
        assert_eq!(max_abs(&[], &[]), f32::INFINITY);
    }

    #[test]
    fn a_relative_length_is_that_of_the_difference() {
        assert_eq!(relative_l2(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative_l2(&[3.0, 9.0], &[3.0, 4.0]), 1.0);
        assert_eq!(relative_l2(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative_l2(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }

    #[test]
    fn deviation_largest_and_differing() {
        assert_eq!(std(&[1.0, 3.0]), 1.0);
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(differing(&[1, 2, 3], &[1, 0, 0]), 2);
        assert_eq!(differing(&[1], &[1, 2]), 2);
        assert_eq!(magnitude(&[1.0, -3.0]), 3.0);
    }
}
