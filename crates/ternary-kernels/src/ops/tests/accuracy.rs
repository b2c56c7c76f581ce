//! Errors against f64, with bounds from the rounding of each step (u = 2^-24, first order).

use super::*;

/// Roundings of one product in a sum of `k`: a chain in its lane, three accumulators, four tree levels.
fn chain(k: usize) -> f64 {
    (k.div_ceil(64) + 2 + 4) as f64
}

#[test]
fn dots_against_f64() {
    let mut random = Random(20);
    for &k in SIZES {
        let (x, w) = (random.activations(k), random.activations(k));
        let products: Vec<f64> = x.iter().zip(&w).map(|(x, w)| f64::from(*x) * f64::from(*w)).collect();
        let bound = chain(k) * U * products.iter().map(|p| p.abs()).sum::<f64>();
        let error = (f64::from(portable().dot(&x, &w)) - products.iter().sum::<f64>()).abs();
        assert!(error <= bound, "{k}: {error:e} > {bound:e}");
    }
}

#[test]
fn norms_against_f64() {
    let mut random = Random(21);
    for &k in &SIZES[1..] {
        let (x, gain) = (random.activations(k), random.activations(k));
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / k as f64;
        let inv = 1.0 / (mean + f64::from(1e-5f32)).sqrt();
        // The roundings of the sum, of the mean and of adding eps count half under the root; then root, quotient and
        // two products.
        let relative = ((chain(k) + 2.0) / 2.0 + 2.0 + 2.0) * U;
        let mut out = vec![0.0; k];
        portable().rms_norm(&x, &gain, 1e-5, &mut out);
        for i in 0..k {
            let want = f64::from(x[i]) * inv * f64::from(gain[i]);
            assert!((f64::from(out[i]) - want).abs() <= relative * want.abs(), "{k}, {i}: {} against {want}", out[i]);
        }
    }
}

/// Distance of `got` from `want` in units in the last place of f32 at `want`.
fn ulps(got: f32, want: f64) -> f64 {
    let exponent = (want.to_bits() >> 52) as i32 - 1023;
    (f64::from(got) - want).abs() / 2f64.powi(exponent.max(-126) - 23)
}

#[test]
fn exp_against_f64() {
    // Every 997th float, which is prime to all powers of 2, between the limits beyond which the result is 0 or
    // infinite.
    let x: Vec<f32> = (0..u32::MAX)
        .step_by(997)
        .map(f32::from_bits)
        .filter(|x| *x > -104.5 && *x < 89.5)
        .chain([0.0, -0.0, 88.722_83, 88.722_84, -87.336_55, -103.972_08, -103.97, f32::MIN_POSITIVE])
        .collect();
    let mut out = vec![0.0; x.len()];
    all_ops().last().unwrap().exp(&x, &mut out);
    let mut worst = (0.0, 0.0);
    for (&x, &e) in x.iter().zip(&out) {
        let want = f64::from(x).exp();
        if want >= f64::from(f32::MAX) * (1.0 + U / 2.0) {
            assert_eq!(e, f32::INFINITY, "exp({x})");
            continue;
        }
        let error = ulps(e, want);
        if error > worst.0 {
            worst = (error, x);
        }
    }
    println!("exp: at most {} ulp, at {:e}", worst.0, worst.1);
    // The documented bound, found over all f32.
    assert!(worst.0 < 0.892, "{worst:?}");
}

#[test]
fn softmax_against_f64() {
    let mut random = Random(22);
    for &k in &SIZES[1..] {
        let x: Vec<f32> = (0..k).map(|_| random.activation() * 5.0).collect();
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let e: Vec<f64> = x.iter().map(|x| (f64::from(*x) - f64::from(max)).exp()).collect();
        // The difference from the maximum is rounded before `exp`, which is then within one ulp, so 2 u.
        let own: Vec<f64> = x.iter().map(|x| f64::from(max - x) + 2.0).collect();
        let sum: f64 = e.iter().sum();
        let of_sum = e.iter().zip(&own).map(|(e, o)| e * o).sum::<f64>() / sum + chain(k);
        let mut got = x.clone();
        portable().softmax_in_place(&mut got);
        for i in 0..k {
            let (want, bound) = (e[i] / sum, (own[i] + of_sum + 1.0) * U);
            assert!((f64::from(got[i]) - want).abs() <= bound * want, "{k}, {i}: {} against {want}", got[i]);
        }
    }
}

#[test]
fn silu_against_f64() {
    let (x, mut out): (Vec<f32>, _) = ((-8000..8000).map(|i| i as f32 / 100.0).collect(), vec![0.0; 16_000]);
    portable().silu_mul(&x, &vec![1.0; x.len()], &mut out);
    for (&x, &got) in x.iter().zip(&out) {
        let want = f64::from(x) / (1.0 + (-f64::from(x)).exp());
        // exp within one ulp, the sum with 1, the quotient.
        assert!((f64::from(got) - want).abs() <= 4.0 * U * want.abs(), "silu({x}) = {got}, not {want}");
    }
}

#[test]
fn rope_tables_against_f64() {
    let table = crate::RopeTable::new(4096, 128, 500_000.0);
    assert_eq!((table.len(), table.frequencies().len()), (4096, 64));
    // 500000^0 and 500000^-1/2 to f32.
    assert_eq!(table.frequencies()[0], 1.0);
    assert_eq!(table.frequencies()[32], 1.0 / 500_000f64.sqrt() as f32);
    for position in [0, 1, 17, 4095] {
        for (i, &frequency) in table.frequencies().iter().enumerate() {
            let exact = 500_000f64.powf(-(2.0 * i as f64) / 128.0);
            // 2 i / 128 is exact; the power and its inverse are rounded.
            assert!((f64::from(frequency) - exact).abs() <= 2.0 * U * exact);
            let angle = f64::from(position as f32 * frequency);
            assert!((f64::from(table.cos(position)[i]) - angle.cos()).abs() <= U);
            assert!((f64::from(table.sin(position)[i]) - angle.sin()).abs() <= U);
        }
    }
    let mut grown = crate::RopeTable::new(3, 128, 500_000.0);
    grown.grow(18);
    grown.grow(5);
    assert_eq!((grown.len(), grown.cos(17), grown.sin(17)), (18, table.cos(17), table.sin(17)));
}
