//! Properties of the sampler, compared with a naive implementation and with the documented distributions.

use proptest::prelude::*;

use super::*;

fn sampler(options: &SamplingOptions) -> Sampler {
    Sampler::new(options.clone()).unwrap()
}

fn plain(seed: u64) -> SamplingOptions {
    SamplingOptions::default().with_temperature(1.0).with_top_p(1.0).with_seed(seed)
}

fn candidates(logits: &[f32]) -> Vec<Candidate> {
    let all = logits.iter().enumerate().map(|(i, &logit)| Candidate { logit, token: i as u32 });
    all.filter(|c| c.logit > f32::NEG_INFINITY).collect()
}

fn gathered(options: &SamplingOptions, logits: &[f32]) -> Vec<Candidate> {
    let mut c = Vec::new();
    gather(options, best(logits, 0).unwrap(), logits, &mut c, &mut Vec::new());
    c
}

/// The tokens that pass the filters, with their probabilities: sorted completely, in floats. `None` if a sum is so
/// close to `top_p` that rounding decides.
fn naive(options: &SamplingOptions, logits: &[f32]) -> Option<Vec<(u32, f64)>> {
    let mut c = candidates(logits);
    c.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
    if options.top_k > 0 {
        c.truncate(options.top_k);
    }
    let (max, t) = (f64::from(best(logits, 0).unwrap().logit), f64::from(options.temperature));
    let weight = |c: &Candidate| ((f64::from(c.logit) - max) / t).exp();
    let total: f64 = c.iter().map(weight).sum();
    let (top_p, min_p) = (f64::from(options.top_p), f64::from(options.min_p));
    let mut sum = 0.0;
    let mut kept = Vec::new();
    for x in &c {
        let reached = sum / total - top_p;
        if top_p < 1.0 && !kept.is_empty() {
            if reached.abs() < 1e-12 {
                return None;
            }
            if reached >= 0.0 {
                break;
            }
        }
        sum += weight(x);
        kept.push((x.token, weight(x)));
    }
    if min_p > 0.0 && kept.iter().any(|(_, w)| *w != 1.0 && (w / min_p - 1.0).abs() < 1e-12) {
        return None;
    }
    kept.retain(|(_, w)| *w >= min_p);
    let total: f64 = kept.iter().map(|(_, w)| w).sum();
    Some(kept.into_iter().map(|(token, w)| (token, w / total)).collect())
}

/// Draws at positions `0..n` and compares the counts with `expected` by Pearson's statistic, whose distribution is
/// chi-square; the limit is its mean plus six standard deviations (`k + 6 sqrt(2 k)` for k degrees of freedom), beyond
/// the 0.999999 quantile for every k used here.
fn assert_distribution(options: &SamplingOptions, logits: &[f32], n: u64) {
    let expected = naive(options, logits).unwrap();
    let mut s = sampler(options);
    let mut counts = vec![0u64; logits.len()];
    for position in 0..n {
        counts[s.sample(logits, position, &[]).unwrap() as usize] += 1;
    }
    let mut statistic = 0.0;
    for (token, p) in &expected {
        let mean = p * n as f64;
        assert!(mean >= 5.0, "the statistic needs five expected draws of token {token}, not {mean}");
        statistic += (counts[*token as usize] as f64 - mean).powi(2) / mean;
        counts[*token as usize] = 0;
    }
    assert!(counts.iter().all(|c| *c == 0), "tokens outside of the filters were drawn");
    let freedom = (expected.len() - 1) as f64;
    let limit = freedom + 6.0 * (2.0 * freedom).sqrt();
    assert!(statistic <= limit, "{options:?}: chi-square {statistic:.1} exceeds {limit:.1} ({freedom} degrees)");
}

#[test]
fn draws_follow_the_softmax() {
    let logits: Vec<f32> = (0..24).map(|i| ((i * 37) % 24) as f32 * 0.15).collect();
    for seed in [0, 1, u64::MAX] {
        assert_distribution(&plain(seed), &logits, 40_000);
        assert_distribution(&plain(seed).with_temperature(0.5), &logits, 40_000);
        assert_distribution(&plain(seed).with_temperature(3.0), &logits, 40_000);
    }
}

#[test]
fn draws_follow_the_filtered_softmax() {
    let logits: Vec<f32> = (0..24).map(|i| ((i * 37) % 24) as f32 * 0.15).collect();
    let n = 40_000;
    assert_distribution(&plain(3).with_top_k(5), &logits, n);
    assert_distribution(&plain(3).with_top_p(0.6), &logits, n);
    assert_distribution(&plain(3).with_min_p(0.3), &logits, n);
    assert_distribution(&plain(3).with_top_k(12).with_top_p(0.8).with_min_p(0.2).with_temperature(0.8), &logits, n);
}

/// Different seeds at one position are as independent as different positions of one seed.
#[test]
fn seeds_differ() {
    let logits = [0.0f32; 16];
    let mut counts = [0f64; 16];
    for seed in 0..16_000 {
        counts[sampler(&plain(seed)).sample(&logits, 5, &[]).unwrap() as usize] += 1.0;
    }
    let statistic: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
    assert!(statistic <= 15.0 + 6.0 * 30f64.sqrt(), "chi-square {statistic}");
}

/// Another sampler that draws in another order, with other draws in between, gives the same tokens.
#[test]
fn a_draw_depends_on_seed_position_and_logits_only() {
    let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
    let options = SamplingOptions::default().with_seed(11);
    let mut s = sampler(&options);
    let forwards: Vec<u32> = (0..200).map(|p| s.sample(&logits, p, &[]).unwrap()).collect();
    let mut other = sampler(&options);
    let mut noise = sampler(&options.clone().with_seed(12));
    for p in (0..200).rev() {
        other.sample(&logits[..50], p + 1000, &[]).unwrap();
        noise.sample(&logits, p, &[]).unwrap();
        assert_eq!(other.sample(&logits, p, &[]).unwrap(), forwards[p as usize], "position {p}");
    }
    let elsewhere: Vec<u32> = (0..200).map(|p| noise.sample(&logits, p, &[]).unwrap()).collect();
    assert_ne!(elsewhere, forwards);
}

/// The first draws of one seed, computed by a separate program from the documented formula. If this fails, sampled
/// texts have changed for every user.
#[test]
fn draws_are_frozen() {
    let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.5).collect();
    let mut s = sampler(&plain(42));
    let drawn: Vec<u32> = (0..16).map(|p| s.sample(&logits, p, &[]).unwrap()).collect();
    assert_eq!(drawn, [4, 27, 25, 47, 47, 0, 25, 41, 6, 25, 20, 41, 32, 40, 1, 19]);
}

#[test]
fn extreme_logits() {
    let (inf, max) = (f32::INFINITY, f32::MAX);
    for options in [
        SamplingOptions::greedy(),
        plain(1),
        SamplingOptions::default(),
        plain(1).with_temperature(f32::MIN_POSITIVE),
        plain(1).with_temperature(1e-45),
        plain(1).with_temperature(max),
        plain(1).with_top_p(0.0),
        plain(1).with_min_p(1.0),
        plain(1).with_top_k(usize::MAX),
    ] {
        let mut s = sampler(&options);
        for position in [0, 1, u64::MAX] {
            let mut one = |logits: &[f32]| s.sample(logits, position, &[]).unwrap();
            assert_eq!(one(&[-3.0]), 0, "{options:?}");
            assert_eq!(one(&[-max]), 0);
            assert_eq!(one(&[-inf, -inf, -max, -inf]), 2, "a mask that leaves one token");
            assert_eq!(one(&[0.0, inf, max]), 1, "plus infinity is certain");
            if options.temperature < max {
                assert_eq!(one(&[0.0, max, -max]), 1);
            }
        }
        assert!(matches!(s.sample(&[], 0, &[]), Err(ModelError::Sampling { option: "logits", .. })));
        assert!(matches!(s.sample(&[-inf; 3], 0, &[]), Err(ModelError::Sampling { option: "logits", .. })));
        for place in 0..3 {
            let mut logits = [0.0, inf, -inf];
            logits[place] = f32::NAN;
            let diverged = s.sample(&logits, 9, &[]);
            assert!(matches!(diverged, Err(ModelError::Diverged { what: "a logit", position: 9 })), "{diverged:?}");
        }
    }
}

/// Several certain tokens are equally likely.
#[test]
fn plus_infinities_share_the_probability() {
    let mut s = sampler(&SamplingOptions::default());
    let logits = [f32::MAX, f32::INFINITY, 0.0, f32::INFINITY, f32::NEG_INFINITY];
    let ones = (0..1000).filter(|p| match s.sample(&logits, *p, &[]).unwrap() {
        1 => true,
        3 => false,
        other => panic!("token {other}"),
    });
    // Six standard deviations of 1000 fair throws.
    assert!(ones.count().abs_diff(500) < 95);
}

/// At the highest temperature every token that is not forbidden occurs.
#[test]
fn flat_at_infinite_temperature() {
    let mut s = sampler(&plain(1).with_temperature(f32::MAX));
    let drawn: std::collections::BTreeSet<u32> =
        (0..200).map(|p| s.sample(&[100.0, f32::NEG_INFINITY, 0.0, -100.0], p, &[]).unwrap()).collect();
    assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 2, 3]);
}

#[test]
fn processors_run_in_order_also_when_greedy() {
    let mut s = sampler(&SamplingOptions::greedy().with_repeat_penalty(4.0, 8));
    let logits = [1.0, 2.0, 1.5];
    assert_eq!(s.sample(&logits, 0, &[]).unwrap(), 1);
    assert_eq!(s.sample(&logits, 0, &[1]).unwrap(), 2, "2 / 4 is less than 1.5");
    s.add(Box::new(super::super::LogitBias::new([(0, 1.0)]).unwrap()));
    assert_eq!(s.sample(&logits, 0, &[1]).unwrap(), 0, "1 + 1 exceeds 1.5");
    s.add(Box::new(|tokens: &[u32], logits: &mut [f32]| logits[0] -= tokens.len() as f32));
    assert_eq!(s.sample(&logits, 0, &[1]).unwrap(), 2, "and less 1 does not");
    assert_eq!(logits, [1.0, 2.0, 1.5], "the caller's logits are not changed");
}

/// After the first call no buffer grows or is reallocated.
#[test]
fn buffers_are_reused() {
    let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32 * 1e-3).collect();
    let history: Vec<u32> = (0..100).collect();
    let options = SamplingOptions::default().with_top_k(60).with_min_p(0.1).with_repeat_penalty(1.1, 64);
    let mut s = sampler(&options);
    let buffers = |s: &Sampler| {
        let (a, b, c) = (&s.changed, &s.candidates, &s.maxima);
        (a.as_ptr(), a.capacity(), b.as_ptr(), b.capacity(), c.as_ptr(), c.capacity())
    };
    s.sample(&logits, 0, &history).unwrap();
    let first = buffers(&s);
    for p in 1..50 {
        s.sample(&logits, p, &history).unwrap();
        assert_eq!(buffers(&s), first);
    }
}

#[test]
fn weights_are_exponentials() {
    for temperature in [0.05, 0.7, 1.0, 30.0] {
        let options = plain(0).with_temperature(temperature);
        let scale = Scale::new(&options, 3.0);
        for i in 0..20_000 {
            let logit = 3.0 - i as f32 * 2e-3;
            let (got, want) = (scale.weight(logit) as f64 * Scale::UNIT, scale.offset(logit).exp());
            assert!((got - want).abs() <= Scale::UNIT, "{logit} at {temperature}: {got}, expected {want}");
        }
        assert_eq!(scale.weight(3.0), 1 << 38);
        assert_eq!([scale.weight(f32::MIN), scale.weight(f32::NEG_INFINITY)], [0, 0]);
    }
}

/// A vocabulary of the real size, where the partial sorts take several rounds.
#[test]
fn large_vocabularies_match_the_naive_filter() {
    let logits: Vec<f32> = (0..128_256u64).map(|i| gumbel_like(i) * 2.0).collect();
    for options in [
        plain(0).with_top_p(0.9),
        plain(0).with_top_p(0.999),
        plain(0).with_top_k(40),
        plain(0).with_top_k(1000).with_top_p(0.5),
        plain(0).with_temperature(0.3).with_top_p(0.95),
        plain(0).with_min_p(0.05),
    ] {
        let c = gathered(&options, &logits);
        assert_same_tokens(&c, &naive(&options, &logits).unwrap());
    }
}

/// Reproducible numbers with a long upper tail, like logits.
fn gumbel_like(i: u64) -> f32 {
    gumbel(Noise::new(99, i).bits(0)) as f32
}

fn assert_same_tokens(c: &[Candidate], expected: &[(u32, f64)]) {
    let mut got: Vec<u32> = c.iter().map(|c| c.token).collect();
    let mut want: Vec<u32> = expected.iter().map(|(t, _)| *t).collect();
    got.sort_unstable();
    want.sort_unstable();
    assert_eq!(got, want);
}

fn any_options() -> impl Strategy<Value = SamplingOptions> {
    let share = || prop_oneof![Just(0f32), Just(1f32), 0f32..=1.0];
    (0.05f32..3.0, 0usize..12, share(), share(), any::<u64>())
        .prop_map(|(t, k, p, m, seed)| plain(seed).with_temperature(t).with_top_k(k).with_top_p(p).with_min_p(m))
}

/// Logits with ties and forbidden tokens, at least one of them allowed.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![4 => -20f32..20.0, 2 => (-3i8..=3).prop_map(f32::from), 1 => Just(f32::NEG_INFINITY)];
    prop::collection::vec(one, 1..700)
        .prop_filter("every token forbidden", |l| l.iter().any(|v| *v > f32::NEG_INFINITY))
}

proptest! {
    #[test]
    fn filters_keep_what_the_naive_ones_keep(options in any_options(), logits in any_logits(), position: u64) {
        let Some(expected) = naive(&options, &logits) else { return Ok(()) };
        let c = gathered(&options, &logits);
        assert_same_tokens(&c, &expected);
        let token = sampler(&options).sample(&logits, position, &[]).unwrap();
        prop_assert!(expected.iter().any(|(t, _)| *t == token));
    }

    /// The bound that skips logarithms changes no draw, compared with the full definition.
    #[test]
    fn draw_is_the_largest_sum(options in any_options(), logits in any_logits(), position: u64) {
        let scale = Scale::new(&options, best(&logits, 0).unwrap().logit);
        let mut c = gathered(&options, &logits);
        c.sort_unstable_by_key(|c| c.token);
        let score = |c: &Candidate| scale.offset(c.logit) + super::super::gumbel_noise(options.seed, position, c.token);
        let want = c[1..].iter().fold(c[0], |b, c| if score(c) > score(&b) { *c } else { b });
        prop_assert_eq!(sampler(&options).sample(&logits, position, &[]).unwrap(), want.token);
    }

    #[test]
    fn candidates_may_come_in_any_order(
        options in any_options(),
        (c, shuffled) in any_logits().prop_map(|l| candidates(&l)).prop_flat_map(|c| (Just(c.clone()), Just(c).prop_shuffle())),
        position: u64,
    ) {
        let best = *c.iter().min_by(|a, b| rank(a, b)).unwrap();
        let scale = Scale::new(&options, best.logit);
        let [a, b] = [c, shuffled].map(|mut c| {
            filter(&options, scale, None, &mut c);
            draw(&c, scale, best.token, Noise::new(options.seed, position))
        });
        prop_assert_eq!(a, b);
    }

    /// The best logits that a sampler requests lead to the same token as all logits, whatever else comes with them.
    #[test]
    fn the_best_logits_are_enough(
        options in any_options(),
        penalty in prop_oneof![Just(1f32), 1f32..2.0],
        greedy: bool,
        logits in any_logits(),
        history in prop::collection::vec(0u32..700, 0..6),
        more in 0usize..9,
        position: u64,
    ) {
        let top_p = if options.top_k == 0 { 1.0 } else { options.top_p };
        let temperature = if greedy { 0.0 } else { options.temperature };
        let options = options.with_top_p(top_p).with_temperature(temperature).with_repeat_penalty(penalty, 4);
        let mut all: Vec<Candidate> =
            logits.iter().enumerate().map(|(i, &logit)| Candidate { logit, token: i as u32 }).collect();
        all.sort_by(rank);
        let mut s = sampler(&options);
        let wanted = match s.request(history.len()) {
            HeadRequest::Full => return Ok(()),
            HeadRequest::Top(k) if k >= all.len() => return Ok(()),
            HeadRequest::Top(k) => k,
            HeadRequest::WithinMargin(below) => {
                let max = f64::from(all[0].logit);
                all.iter().filter(|c| f64::from(c.logit) >= max - below).count()
            }
        };
        all.truncate(wanted + more);
        let want = s.choose(Prediction::Full(&logits), position, &history);
        let got = s.choose(Prediction::Best(&all), position, &history);
        prop_assert_eq!(got.map_err(|e| e.to_string()), want.map_err(|e| e.to_string()));
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest(logits in any_logits(), options in any_options(), position: u64) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let want = logits.iter().position(|v| *v == max).unwrap() as u32;
        for options in [
            SamplingOptions::greedy(),
            options.clone().with_top_k(1),
            options.clone().with_temperature(0.0),
            options.clone().with_top_k(0).with_top_p(0.0),
        ] {
            prop_assert_eq!(sampler(&options).sample(&logits, position, &[]).unwrap(), want);
        }
    }
}
