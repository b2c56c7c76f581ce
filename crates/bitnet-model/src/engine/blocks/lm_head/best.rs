//! The best logits, from a coarse plane of the head and few of its rows.
//!
//! With `U` the upper bounds of [`coarse`](ternary_kernels::ops::coarse) and `L` the logits:
//!
//! 1. `U` of every row, all threads;
//! 2. `L` of a few rows with the largest `U` (found from the largest `U` of each block of 64 rows, without reading the
//!    others);
//! 3. `T`, a lower bound of all wanted logits: of the `L` known so far the `k`-th largest, or the largest minus the
//!    requested distance;
//! 4. `L` of every other row with `U >= T`.
//!
//! **Why that is enough.** At least `k` rows have `L >= T`. A row that is not computed has `L <= U < T`, so `k` rows
//! have a larger logit, and it is not among the `k` best, for any token and any rule for ties. Likewise, the largest
//! logit is at least the largest known one, so a row with `L < T` is farther below it than requested. The choice of
//! rows depends only on the bounds, not on the number of threads.

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::ops::coarse::{BLOCK_ROWS, CoarseBatch, CoarsePlane};
use ternary_kernels::team::{pieces, share};
use ternary_kernels::{AlignedBuf, Team, split_cols};

use super::output::{Candidate, HeadRequest, StepOutput};
use super::rows::{FinalNorm, Stored};
use crate::FloatMatrix;
use crate::engine::context::Context;
use crate::float_matrix::FloatRows;

/// Rows that are computed in step 2 in addition to the necessary ones: a better `T` saves more of them in step 4.
const EXTRA_ROWS: usize = 8;

/// Pieces of the coarse pass on the stack: enough for sixteen threads.
const INLINE_PIECES: usize = 512;

/// A row of the head to be computed for one of the rows of activations.
#[derive(Clone, Copy, Debug)]
struct Pick {
    input: u32,
    row: u32,
    logit: f32,
}

/// The state of the head between steps.
#[derive(Debug)]
pub(super) struct BestScratch {
    inputs: CoarseBatch,
    /// Upper bounds, `[n, padded vocab]`.
    upper: AlignedBuf<f32>,
    /// The largest of each block, `[n, blocks]`.
    maxima: AlignedBuf<f32>,
    /// Numbers whose k-th largest is searched for.
    ranked: Vec<f32>,
    /// Position in the output of each row of activations.
    positions: Vec<usize>,
    picks: Vec<Pick>,
}

impl BestScratch {
    /// Scratch for rows of `hidden` activations.
    pub(super) fn new(hidden: usize) -> Self {
        Self {
            inputs: CoarseBatch::new(hidden),
            upper: AlignedBuf::zeroed(0),
            maxima: AlignedBuf::zeroed(0),
            ranked: Vec::new(),
            positions: Vec::new(),
            picks: Vec::new(),
        }
    }
}

/// A head with its coarse plane.
pub(super) struct Best<'a> {
    pub(super) plane: &'a CoarsePlane,
    pub(super) head: &'a FloatMatrix,
    pub(super) norm: &'a FinalNorm,
}

impl Best<'_> {
    /// Whether `request` can be answered in this way, and faster than by reading the whole head.
    pub(super) fn serves(&self, request: HeadRequest) -> bool {
        match request {
            HeadRequest::Full => false,
            // From one row in each block of 64 on, reading single rows costs as much as reading all.
            HeadRequest::Top(k) => 0 < k && k + EXTRA_ROWS <= self.plane.blocks(),
            HeadRequest::WithinMargin(margin) => margin >= 0.0,
        }
    }

    /// Answers the requests for the given rows of the residual stream, `(row, position in the output)`, at most
    /// [`CoarseBatch::MAX`]. Rows that cannot be bounded are added to `full`.
    pub(super) fn run(
        &self,
        context: &Context<'_>,
        (best, normed): (&mut BestScratch, &mut [f32]),
        residual: &[f32],
        rows: &[(usize, usize)],
        full: &mut Vec<(usize, usize)>,
        out: &mut StepOutput,
    ) {
        let Self { plane, head, norm } = self;
        let (ops, team, hidden) = (context.ops, context.team, context.config.hidden_size);
        best.inputs.clear();
        best.positions.clear();
        for &(row, position) in rows {
            let at = best.inputs.len() * hidden;
            let x = norm.rows(context, residual, std::iter::once(row), &mut normed[at..at + hidden]);
            match best.inputs.push(ops, x) {
                true => best.positions.push(position),
                false => full.push((row, position)),
            }
        }
        let n = best.inputs.len();
        if n == 0 {
            return;
        }
        let x = &normed[..n * hidden];
        let (blocks, padded) = (plane.blocks(), plane.blocks() * BLOCK_ROWS);
        if best.upper.len() < n * padded {
            best.upper = AlignedBuf::zeroed(n * padded);
            best.maxima = AlignedBuf::zeroed(n * blocks);
        }
        let (upper, maxima) = (&mut best.upper[..n * padded], &mut best.maxima[..n * blocks]);
        bound_all(ops, team, plane, &best.inputs, upper, maxima);
        let known = Bounds { upper, maxima, padded, blocks, rows: plane.rows() };

        best.picks.clear();
        let mut firsts = SmallVec::<[(f32, usize); CoarseBatch::MAX]>::new();
        for (t, &position) in best.positions.iter().enumerate() {
            let first = match out.request(position) {
                HeadRequest::Top(k) => k + EXTRA_ROWS,
                _ => 1 + EXTRA_ROWS,
            };
            best.ranked.clear();
            best.ranked.extend_from_slice(known.maxima(t));
            let floor = kth_largest(&mut best.ranked, first);
            known.pick(t, floor, None, &mut best.picks);
            firsts.push((floor, best.picks.len()));
        }
        rescore(ops, team, head, x, &mut best.picks);
        let first_picks = best.picks.len();

        // The end of each row's second picks, and the threshold of its candidates.
        let mut seconds = SmallVec::<[(f32, usize); CoarseBatch::MAX]>::new();
        let mut start = 0;
        for (t, &position) in best.positions.iter().enumerate() {
            let (floor, end) = firsts[t];
            let least = threshold(out.request(position), &best.picks[start..end], &mut best.ranked);
            known.pick(t, least, Some(floor), &mut best.picks);
            seconds.push((least, best.picks.len()));
            start = end;
        }
        let (done, todo) = best.picks.split_at_mut(first_picks);
        rescore(ops, team, head, x, todo);
        let (mut first, mut second) = (0, 0);
        for (t, &position) in best.positions.iter().enumerate() {
            let (first_end, (least, second_end)) = (firsts[t].1, seconds[t]);
            let second_end = second_end - first_picks;
            if first == first_end && second == second_end {
                // A plane from a damaged file may bound every row by NaN or minus infinity.
                full.extend(rows.iter().filter(|(_, p)| *p == position));
                continue;
            }
            let picks = done[first..first_end].iter().chain(&todo[second..second_end]);
            // NaN is kept, so that the sampler sees it.
            let candidates = picks
                .filter(|p| p.logit.is_nan() || p.logit >= least)
                .map(|p| Candidate { token: p.row, logit: p.logit });
            out.set_best(position, candidates, first_end - first + second_end - second);
            (first, second) = (first_end, second_end);
        }
    }
}

/// Upper bounds of all rows for all inputs.
fn bound_all(ops: Ops, team: &Team, plane: &CoarsePlane, inputs: &CoarseBatch, upper: &mut [f32], maxima: &mut [f32]) {
    let (n, blocks) = (inputs.len(), plane.blocks());
    let parts = pieces(team.threads(), blocks, 1, (n * blocks * BLOCK_ROWS).saturating_mul(plane.cols()));
    let cuts: SmallVec<[_; INLINE_PIECES]> = (0..parts).map(|p| share(blocks, p, parts)).collect();
    let rows: SmallVec<[_; INLINE_PIECES]> = cuts.iter().map(|c| c.start * BLOCK_ROWS..c.end * BLOCK_ROWS).collect();
    let upper = split_cols(upper, n, blocks * BLOCK_ROWS, &rows);
    let mut jobs: SmallVec<[_; INLINE_PIECES]> = upper.zip(split_cols(maxima, n, blocks, &cuts)).collect();
    team.run_parts(&mut jobs, |p, (upper, maxima)| {
        ops.coarse_bounds(plane, inputs, cuts[p].clone(), upper, maxima);
    });
}

/// Upper bounds, and the blocks with the large ones.
struct Bounds<'a> {
    upper: &'a [f32],
    maxima: &'a [f32],
    padded: usize,
    blocks: usize,
    rows: usize,
}

impl Bounds<'_> {
    fn maxima(&self, t: usize) -> &[f32] {
        &self.maxima[t * self.blocks..(t + 1) * self.blocks]
    }

    /// Adds the rows whose bounds for input `t` are at least `from` and, if it is given, below `to`.
    fn pick(&self, t: usize, from: f32, to: Option<f32>, picks: &mut Vec<Pick>) {
        let below = |u: f32| to.is_none_or(|to| u < to);
        for (block, &max) in self.maxima(t).iter().enumerate() {
            if max < from {
                continue;
            }
            let first = block * BLOCK_ROWS;
            let upper = &self.upper[t * self.padded + first..][..BLOCK_ROWS.min(self.rows - first)];
            for (i, &u) in upper.iter().enumerate() {
                if u >= from && below(u) {
                    picks.push(Pick { input: t as u32, row: (first + i) as u32, logit: 0.0 });
                }
            }
        }
    }
}

/// The `k`-th largest, or minus infinity if there are fewer. `values` are reordered; none of them is NaN.
fn kth_largest(values: &mut [f32], k: usize) -> f32 {
    if k == 0 || k > values.len() {
        return f32::NEG_INFINITY;
    }
    *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// A lower bound of every wanted logit, given the logits of some rows.
fn threshold(request: HeadRequest, known: &[Pick], ranked: &mut Vec<f32>) -> f32 {
    // A NaN ends this text: nothing more has to be computed to find it.
    if known.iter().any(|p| p.logit.is_nan()) {
        return f32::INFINITY;
    }
    ranked.clear();
    ranked.extend(known.iter().map(|p| p.logit));
    match request {
        HeadRequest::Top(k) => kth_largest(ranked, k),
        HeadRequest::WithinMargin(margin) => {
            let largest = f64::from(kth_largest(ranked, 1));
            // `inf - inf` must not become NaN.
            let exact = if largest.is_infinite() { largest } else { largest - margin };
            let near = exact as f32;
            if f64::from(near) > exact { near.next_down() } else { near }
        }
        HeadRequest::Full => f32::NEG_INFINITY,
    }
}

/// The logits of the picked rows, all threads.
fn rescore(ops: Ops, team: &Team, head: &FloatMatrix, x: &[f32], picks: &mut [Pick]) {
    match head.plain() {
        FloatRows::F32(w) => rescore_rows(ops, team, w, head.cols(), x, picks),
        FloatRows::F16(w) => rescore_rows(ops, team, w, head.cols(), x, picks),
        FloatRows::Bf16(w) => rescore_rows(ops, team, w, head.cols(), x, picks),
        FloatRows::Blocks => unreachable!("no plane is made of a block-quantised head"),
    }
    head.touched(picks.len());
}

fn rescore_rows<W: Stored + Sync>(ops: Ops, team: &Team, w: &[W], hidden: usize, x: &[f32], picks: &mut [Pick]) {
    // Each row comes from another place in memory: a few of them are worth a piece.
    let chunk = picks.len().div_ceil(team.threads()).clamp(1, 16);
    team.for_each_chunk(picks, chunk, |_, picks| {
        for pick in picks {
            let (input, row) = (pick.input as usize, pick.row as usize);
            pick.logit = W::dot(ops, &x[input * hidden..][..hidden], &w[row * hidden..][..hidden]);
        }
    });
}
