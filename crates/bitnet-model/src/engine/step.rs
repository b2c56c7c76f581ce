//! The forward step: tokens of one or several sequences through all layers.

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{ColsMut, Int8Batch, Int8RowMut, KernelError, Team, split_cols};

use super::attention::{self, Segment};
use super::cache::KvCache;
use super::linear::Linear;
use super::scratch::{MAX_ROWS, Scratch, ThreadScratch};
use super::{Engine, HeadRequest, Inner, Layer, StepOutput, Workspace, head};
use crate::{Activation, ModelConfig, ModelError};

/// Which positions of a [`StepInput`] the logits are computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: the tokens only enter the cache.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
}

/// Tokens that continue one sequence.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The sequence's keys and values; the new tokens' are added.
    pub cache: &'a mut KvCache,
    /// The new tokens.
    pub tokens: &'a [u32],
    /// Which positions to compute logits for.
    pub wanted: LogitsWanted,
    /// Which logits of these positions.
    pub head: HeadRequest,
}

/// Parts of a phase, one per thread, on the stack for up to this many threads.
const INLINE_PARTS: usize = 16;

impl Engine {
    /// Feeds tokens of several sequences through the model in one pass over the weights, and appends what the inputs want
    /// to know about their positions to `out`, in the order of the inputs.
    ///
    /// The result for each sequence is the same, bit for bit, as if it had been fed alone, token by token.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] and [`ModelError::ContextFull`] before anything is computed;
    /// [`ModelError::Diverged`] if an activation is not finite. After an error the caches hold the tokens they held before.
    pub fn step(&self, inputs: &mut [StepInput<'_>], out: &mut StepOutput) -> Result<(), ModelError> {
        inputs.iter().try_for_each(|input| self.check(input.cache, input.tokens))?;
        let before: SmallVec<[usize; INLINE_PARTS]> = inputs.iter().map(|i| i.cache.len()).collect();
        let mut ws = self.lock();
        let result = self.inner.step(&mut ws, inputs, out);
        if result.is_err() {
            for (input, len) in inputs.iter_mut().zip(before) {
                input.cache.truncate(len);
            }
        }
        result
    }
}

impl Engine {
    /// Whether `tokens` may follow what `cache` holds.
    pub(crate) fn check(&self, cache: &KvCache, tokens: &[u32]) -> Result<(), ModelError> {
        self.check_tokens(tokens)?;
        let (limit, used, more) = (cache.limit(), cache.len(), tokens.len());
        if used.saturating_add(more) > limit {
            return Err(ModelError::ContextFull { limit, used, more });
        }
        Ok(())
    }
}

impl Engine {
    /// Whether `tokens` are in the vocabulary.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), ModelError> {
        let vocab = self.config().vocab_size;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            Some(&id) => Err(ModelError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Cuts the inputs into blocks of at most [`MAX_ROWS`] tokens: many short inputs share one, a long one fills several.
    fn step(&self, ws: &mut Workspace, inputs: &mut [StepInput<'_>], out: &mut StepOutput) -> Result<(), ModelError> {
        let (mut input, mut done) = (0, 0);
        while input < inputs.len() {
            let mut block = SmallVec::<[Segment<'_>; INLINE_PARTS]>::new();
            let mut rows = 0;
            let mut rest = &mut inputs[input..];
            while let [first, others @ ..] = rest {
                let todo = &first.tokens[done..];
                let take = todo.len().min(MAX_ROWS - rows);
                if take == 0 && !todo.is_empty() {
                    break;
                }
                first.cache.reserve(first.cache.len() + take);
                let last = take == todo.len();
                let wanted = match first.wanted {
                    LogitsWanted::Last if last && take > 0 => rows + take - 1..rows + take,
                    LogitsWanted::All => rows..rows + take,
                    _ => rows..rows,
                };
                let (head, tokens) = (first.head, &todo[..take]);
                block.push(Segment { cache: first.cache, tokens, first_row: rows, wanted, head });
                rows += take;
                if !last {
                    done += take;
                    break;
                }
                (input, done) = (input + 1, 0);
                rest = others;
            }
            self.block(ws, &mut block, rows, out)?;
        }
        Ok(())
    }

    /// One pass over the weights for `n` rows.
    fn block(
        &self,
        ws: &mut Workspace,
        segments: &mut [Segment<'_>],
        n: usize,
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        if n == 0 {
            return Ok(());
        }
        let c = &self.config;
        let Workspace { team, scratch: s } = ws;
        s.reserve(c, n);
        let longest = segments.iter().map(|g| g.cache.len() + g.tokens.len()).max().unwrap_or(0);
        if longest > s.rope.len() {
            s.rope.grow(longest.next_power_of_two());
        }
        for segment in segments.iter() {
            for (i, &token) in segment.tokens.iter().enumerate() {
                let row = segment.first_row + i;
                self.embedding.row_into(token as usize, &mut s.x[row * c.hidden_size..][..c.hidden_size]);
            }
        }
        s.plan.make(segments, c.num_key_value_heads, attention::tile_tokens(c), team.threads());
        for (l, layer) in self.layers.iter().enumerate() {
            self.attention_block(team, s, layer, l, segments, n)
                .map_err(|(what, row)| position_error(segments, what, row))?;
            self.feed_forward_block(team, s, layer, n).map_err(|(what, row)| position_error(segments, what, row))?;
        }
        head::run(self, team, s, segments, out);
        for segment in segments.iter_mut() {
            let n = segment.tokens.len();
            segment.cache.advance(n);
        }
        Ok(())
    }

    fn attention_block(
        &self,
        team: &Team,
        s: &mut Scratch,
        layer: &Layer,
        l: usize,
        segments: &mut [Segment<'_>],
        n: usize,
    ) -> Result<(), (&'static str, usize)> {
        let (c, ops) = (&self.config, self.ops);
        quantize_rows(
            ops,
            team,
            &s.x[..n * c.hidden_size],
            n,
            Some((&layer.input_norm, c.rms_norm_eps)),
            &mut s.quantized,
        )
        .map_err(|row| ("the input of attention", row))?;
        // q, k and v in one pass: each thread computes its share of the rows of all three.
        let parts = team.threads();
        let outputs =
            |linear: &Linear| (0..parts).map(|p| linear.split(p, parts)).collect::<SmallVec<[_; INLINE_PARTS]>>();
        let (bq, bk, bv) = (outputs(&layer.q), outputs(&layer.k), outputs(&layer.v));
        let q = split_cols(&mut s.q[..n * layer.q.rows()], n, layer.q.rows(), &bq);
        let k = split_cols(&mut s.k[..n * layer.k.rows()], n, layer.k.rows(), &bk);
        let v = split_cols(&mut s.v[..n * layer.v.rows()], n, layer.v.rows(), &bv);
        let mut jobs: SmallVec<[_; INLINE_PARTS]> =
            q.zip(k).zip(v).zip(&mut s.threads).map(|(((q, k), v), t)| (q, k, v, t)).collect();
        let x = &s.quantized;
        team.run_parts(&mut jobs, |p, (q, k, v, scratch)| {
            store(ops, &layer.q, p, parts, x, scratch, q);
            store(ops, &layer.k, p, parts, x, scratch, k);
            store(ops, &layer.v, p, parts, x, scratch, v);
        });
        drop(jobs);
        attention::run(c, ops, team, s, l, segments);
        let sub_norm = layer.attn_sub_norm.as_ref().map(|g| (g, c.rms_norm_eps));
        quantize_attention(c, ops, team, s, n, sub_norm).map_err(|row| ("the output of attention", row))?;
        add_projection(ops, team, &layer.o, &s.quantized, &mut s.threads, &mut s.x[..n * c.hidden_size], n);
        Ok(())
    }

    fn feed_forward_block(
        &self,
        team: &Team,
        s: &mut Scratch,
        layer: &Layer,
        n: usize,
    ) -> Result<(), (&'static str, usize)> {
        let (c, ops) = (&self.config, self.ops);
        quantize_rows(
            ops,
            team,
            &s.x[..n * c.hidden_size],
            n,
            Some((&layer.post_attention_norm, c.rms_norm_eps)),
            &mut s.quantized,
        )
        .map_err(|row| ("the input of the feed-forward block", row))?;
        // Gate and up in one pass, with the activation between them applied while both are in cache.
        let parts = team.threads();
        let bounds: SmallVec<[_; INLINE_PARTS]> = (0..parts).map(|p| layer.gate.split(p, parts)).collect();
        let u = split_cols(&mut s.u[..n * c.intermediate_size], n, c.intermediate_size, &bounds);
        let mut jobs: SmallVec<[_; INLINE_PARTS]> = u.zip(&mut s.threads).collect();
        let x = &s.quantized;
        team.run_parts(&mut jobs, |p, (u, scratch)| {
            let rows = layer.gate.split(p, parts);
            gated(ops, c.hidden_act, layer, rows, x, scratch, u);
        });
        drop(jobs);
        let sub_norm = layer.ffn_sub_norm.as_ref().map(|g| (g, c.rms_norm_eps));
        quantize_rows(ops, team, &s.u[..n * c.intermediate_size], n, sub_norm, &mut s.quantized)
            .map_err(|row| ("the output of the feed-forward activation", row))?;
        add_projection(ops, team, &layer.down, &s.quantized, &mut s.threads, &mut s.x[..n * c.hidden_size], n);
        Ok(())
    }
}

fn position_of(segments: &[Segment<'_>], row: usize) -> usize {
    let holds = |s: &&Segment<'_>| (s.first_row..s.first_row + s.tokens.len()).contains(&row);
    segments.iter().find(holds).map_or(0, |s| s.cache.len() + row - s.first_row)
}

fn position_error(segments: &[Segment<'_>], what: &'static str, row: usize) -> ModelError {
    ModelError::Diverged { what, position: position_of(segments, row) }
}

/// Normalises (where a gain is given) and quantises each of the `n` rows of `x`; the error is the row that is not finite.
fn quantize_rows(
    ops: Ops,
    team: &Team,
    x: &[f32],
    n: usize,
    norm: Option<(&Vec<f32>, f32)>,
    out: &mut Int8Batch,
) -> Result<(), usize> {
    let width = x.len() / n;
    out.reset(n, width);
    // One row is not worth waking a thread for.
    let chunk = n.div_ceil(team.threads());
    let mut parts: SmallVec<[_; INLINE_PARTS]> =
        out.chunks_mut(chunk).zip(x.chunks(chunk * width)).map(|(q, x)| (q, x, None)).collect();
    team.run_parts(&mut parts, |p, (rows, x, bad)| {
        for (i, (row, x)) in rows.rows_mut().zip(x.chunks_exact(width)).enumerate() {
            if quantize_row(ops, x, norm, row).is_err() && bad.is_none() {
                *bad = Some(p * chunk + i);
            }
        }
    });
    parts.iter().find_map(|(_, _, bad)| *bad).map_or(Ok(()), Err)
}

fn quantize_row(ops: Ops, x: &[f32], norm: Option<(&Vec<f32>, f32)>, out: Int8RowMut<'_>) -> Result<(), KernelError> {
    match norm {
        Some((gain, eps)) => ops.rms_norm_quantize(x, gain, eps, out),
        None => ops.quantize_int8(x, out),
    }
}

/// As [`quantize_rows`], for the result of attention.
fn quantize_attention(
    c: &ModelConfig,
    ops: Ops,
    team: &Team,
    s: &mut Scratch,
    n: usize,
    norm: Option<(&Vec<f32>, f32)>,
) -> Result<(), usize> {
    let Scratch { attn, plan, quantized, threads, .. } = s;
    let width = c.num_attention_heads * c.head_dim;
    quantized.reset(n, width);
    let chunk = n.div_ceil(team.threads());
    let mut parts: SmallVec<[_; INLINE_PARTS]> =
        quantized.chunks_mut(chunk).zip(threads).map(|(q, scratch)| (q, scratch, None)).collect();
    team.run_parts(&mut parts, |p, (rows, scratch, bad)| {
        for (i, row) in rows.rows_mut().enumerate() {
            attention::gather_row(c, plan, attn, p * chunk + i, &mut scratch.row);
            if quantize_row(ops, &scratch.row, norm, row).is_err() && bad.is_none() {
                *bad = Some(p * chunk + i);
            }
        }
    });
    parts.iter().find_map(|(_, _, bad)| *bad).map_or(Ok(()), Err)
}

/// This thread's rows of a projection, stored.
fn store(
    ops: Ops,
    w: &Linear,
    part: usize,
    parts: usize,
    x: &Int8Batch,
    scratch: &mut ThreadScratch,
    out: &mut ColsMut<'_, f32>,
) {
    let rows = w.split(part, parts);
    let first = rows.start;
    w.run(ops, rows, x, scratch, |t, block, y| {
        out.row_mut(t)[block.start - first..block.end - first].copy_from_slice(y);
    });
}

/// `x += projection`, all threads.
fn add_projection(
    ops: Ops,
    team: &Team,
    w: &Linear,
    input: &Int8Batch,
    threads: &mut [ThreadScratch],
    x: &mut [f32],
    n: usize,
) {
    let parts = team.threads();
    let bounds: SmallVec<[_; INLINE_PARTS]> = (0..parts).map(|p| w.split(p, parts)).collect();
    let mut jobs: SmallVec<[_; INLINE_PARTS]> = split_cols(x, n, w.rows(), &bounds).zip(threads).collect();
    team.run_parts(&mut jobs, |p, (x, scratch)| {
        let first = w.split(p, parts).start;
        w.run(ops, w.split(p, parts), input, scratch, |t, block, y| {
            ops.add_assign(&mut x.row_mut(t)[block.start - first..block.end - first], y);
        });
    });
}

/// `u = act(gate) * up` for this thread's rows.
fn gated(
    ops: Ops,
    act: Activation,
    layer: &Layer,
    rows: std::ops::Range<usize>,
    x: &Int8Batch,
    scratch: &mut ThreadScratch,
    u: &mut ColsMut<'_, f32>,
) {
    let (n, first) = (x.view().n(), rows.start);
    for block in layer.gate.blocks(rows) {
        let len = block.len();
        let (gate, up) = (&mut scratch.acc[..n * len], &mut scratch.acc2[..n * len]);
        layer.gate.product(block.clone(), x, gate);
        layer.up.product(block.clone(), x, up);
        for (t, ((gate, up), &s)) in gate.chunks_exact(len).zip(up.chunks_exact(len)).zip(x.scales()).enumerate() {
            let (g, v) = (&mut scratch.y[..len], &mut scratch.y2[..len]);
            layer.gate.dequantize(ops, block.clone(), s, gate, g);
            layer.up.dequantize(ops, block.clone(), s, up, v);
            let out = &mut u.row_mut(t)[block.start - first..block.end - first];
            match act {
                Activation::Relu2 => ops.relu2_mul(g, v, out),
                Activation::Silu => ops.silu_mul(g, v, out),
            }
        }
    }
}
