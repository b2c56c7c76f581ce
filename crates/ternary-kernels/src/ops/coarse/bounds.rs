//! From integer sums to bounds, in one arithmetic for all instruction sets.

use super::dot::Sums;
use super::input::InputFacts;
use super::{Facts, PANEL};
use crate::ops::lanes::Simd;

ops! {
    /// `U` of the rows of a panel for one of the activations; returns the largest.
    pub(super) fn coarse_panel_bounds(facts: &Facts, sums: &Sums, x: &InputFacts, out: &mut [f32; PANEL]) -> f32 = panel_bounds;
}

/// Covers the loss by subnormal results of the exact product and of `B` itself.
const LEAST: f32 = f32::from_bits((127 - 120) << 23);

#[inline(always)]
fn panel_bounds<S: Simd>(s: S, facts: &Facts, sums: &Sums, x: &InputFacts, out: &mut [f32; PANEL]) -> f32 {
    let high = s.to_f(s.sub_i(s.load_i(&sums.high), s.splat_i(x.zero_high)));
    let low = s.to_f(s.sub_i(s.load_i(&sums.low), s.splat_i(x.zero_low)));
    let scale = s.mul(s.load(&facts.scale), s.splat(x.step));
    let estimate = s.mul(scale, s.fma(high, s.splat(256.0), low));
    let small = s.fma(s.splat(x.rest), s.load(&facts.norm), s.splat(LEAST));
    let bound = s.add(estimate, s.fma(s.splat(x.norm), s.load(&facts.error), small));
    s.store(bound, out);
    s.max_lane(bound)
}
