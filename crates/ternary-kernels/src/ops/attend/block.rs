//! What one block contributes: the scores of its keys, weights made of them, and sums of its values.

use std::ops::Range;

use half::{bf16, f16};

use super::kernel::{Place, Scores, score, score_first, weigh, weights};
use super::rows::{Codes, Floats};
use super::{KV_BLOCK, KvData, KvRows, Partial, Queries};
use crate::ops::Ops;
use crate::ops::lanes::LANES;

/// Calls the function for the type of the rows: `$f32`, `$f16`, `$bf16`, `$i8` or `$i4`.
macro_rules! typed {
    ($rows:expr, |$typed:ident| $f32:expr, $f16:expr, $bf16:expr, $i8:expr, $i4:expr) => {{
        let KvRows { data, head_dim, stride, .. } = $rows;
        match data {
            KvData::F32(data) => {
                let $typed = Floats { data, stride, head_dim };
                $f32
            }
            KvData::F16(data) => {
                let $typed = Floats { data, stride, head_dim };
                $f16
            }
            KvData::Bf16(data) => {
                let $typed = Floats { data, stride, head_dim };
                $bf16
            }
            KvData::Int8 { codes, .. } => {
                let $typed = Codes { data: codes.as_chunks::<LANES>().0, stride: stride / LANES, head_dim };
                $i8
            }
            KvData::Int4 { nibbles, .. } => {
                let data = nibbles.as_chunks::<{ LANES / 2 }>().0;
                let $typed = Codes { data, stride: stride / LANES, head_dim };
                $i4
            }
        }
    }};
}

/// Row 0 where it is kept in 8 bits.
fn first_row<'a>(rows: &KvRows<'a>) -> Option<Codes<'a, [i8; LANES]>> {
    match rows.data {
        KvData::Int4 { first: Some((codes, _)), .. } => {
            let (data, _) = codes.as_chunks();
            Some(Codes { data, stride: data.len(), head_dim: rows.head_dim })
        }
        _ => None,
    }
}

// A function for each type of rows: one that holds all of them takes compilers far longer.
ops! {
    fn score_f32(q: &Queries<'_>, at: Place, keys: Floats<'_, f32>, scores: &mut [Scores]) = score;
    fn score_f16(q: &Queries<'_>, at: Place, keys: Floats<'_, f16>, scores: &mut [Scores]) = score;
    fn score_bf16(q: &Queries<'_>, at: Place, keys: Floats<'_, bf16>, scores: &mut [Scores]) = score;
    fn score_i8(q: &Queries<'_>, at: Place, keys: Codes<'_, [i8; LANES]>, scores: &mut [Scores]) = score;
    fn score_i4(q: &Queries<'_>, at: Place, keys: Codes<'_, [u8; LANES / 2]>, scores: &mut [Scores]) = score;
    fn score_first(q: &Queries<'_>, at: Place, keys: Codes<'_, [i8; LANES]>, scores: &mut [Scores]) = score_first;
    fn weights(q: &Queries<'_>, at: Place, steps: [Option<Scores>; 2], scores: &mut [Scores], out: &mut Partial) = weights;
    fn weigh_f32(
        q: &Queries<'_>, at: Place, range: Range<usize>, values: Floats<'_, f32>, weights: &[Scores], out: &mut Partial,
    ) = weigh;
    fn weigh_f16(
        q: &Queries<'_>, at: Place, range: Range<usize>, values: Floats<'_, f16>, weights: &[Scores], out: &mut Partial,
    ) = weigh;
    fn weigh_bf16(
        q: &Queries<'_>, at: Place, range: Range<usize>, values: Floats<'_, bf16>, weights: &[Scores], out: &mut Partial,
    ) = weigh;
    fn weigh_i8(
        q: &Queries<'_>, at: Place, range: Range<usize>, values: Codes<'_, [i8; LANES]>, weights: &[Scores], out: &mut Partial,
    ) = weigh;
    fn weigh_i4(
        q: &Queries<'_>, at: Place, range: Range<usize>, values: Codes<'_, [u8; LANES / 2]>, weights: &[Scores], out: &mut Partial,
    ) = weigh;
}

impl Ops {
    /// What one block contributes; see [`Ops::attend_block`].
    pub(super) fn block_with_scores(
        self,
        q: &Queries<'_>,
        block: usize,
        keys: KvRows<'_>,
        values: KvRows<'_>,
        scores: &mut [f32],
        out: &mut Partial,
    ) {
        assert!(
            keys.head_dim == q.head_dim && values.head_dim == q.head_dim,
            "attention: heads of {} (queries), {} (keys), {} (values)",
            q.head_dim,
            keys.head_dim,
            values.head_dim
        );
        q.check();
        out.reset(q.rows(), q.head_dim);
        let start = block.saturating_mul(KV_BLOCK);
        // The first row that sees the block, and what the last one sees.
        let first = start.saturating_sub(q.position).min(q.tokens) * q.group;
        if first == q.rows() {
            return;
        }
        let len = q.visible(q.rows() - 1, start);
        assert!(
            keys.len >= len && values.len >= len,
            "attention: block {block} has {} keys and {} values, {len} are visible",
            keys.len,
            values.len
        );
        let scores = scores.as_chunks_mut::<KV_BLOCK>().0;
        assert!(q.rows() <= scores.len(), "attention: {} queries exceed the capacity of {}", q.rows(), scores.len());
        let scores = &mut scores[..q.rows()];
        let at = Place { first, start };

        typed!(
            keys,
            |k| self.score_f32(q, at, k, scores),
            self.score_f16(q, at, k, scores),
            self.score_bf16(q, at, k, scores),
            self.score_i8(q, at, k, scores),
            self.score_i4(q, at, k, scores)
        );
        if let Some(key) = first_row(&keys) {
            self.score_first(q, at, key, scores);
        }
        self.weights(q, at, [keys.steps(), values.steps()], scores, out);
        let mut range = 0..KV_BLOCK;
        if let Some(value) = first_row(&values) {
            self.weigh_i8(q, at, 0..1, value, scores, out);
            range.start = 1;
        }
        typed!(
            values,
            |v| self.weigh_f32(q, at, range, v, scores, out),
            self.weigh_f16(q, at, range, v, scores, out),
            self.weigh_bf16(q, at, range, v, scores, out),
            self.weigh_i8(q, at, range, v, scores, out),
            self.weigh_i4(q, at, range, v, scores, out)
        );
    }
}
