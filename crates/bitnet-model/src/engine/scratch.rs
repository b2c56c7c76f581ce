//! Buffers of a forward step, allocated once.

use ternary_kernels::ops::{AttendScratch, RopeTable};
use ternary_kernels::{AlignedBuf, Int8Batch};

use super::attention::{self, AttentionScratch, Plan};
use super::delta::DeltaScratch;
use super::fold;
use super::head::BestScratch;
use super::quantized::Quantized;
use super::ttt::TttScratch;
use crate::{InputForm, InputForms, ModelConfig};

/// Most tokens that pass through the layers together; longer inputs are cut. It bounds the scratch memory and does
/// not change any result.
pub(super) const MAX_ROWS: usize = 256;

/// What a product needs besides its operands.
#[derive(Debug)]
pub(super) struct ProductScratch {
    /// Integer products of one block of output rows, `[n, row_block]`.
    pub(super) acc: AlignedBuf<i32>,
    /// Int4 activations as int8, for kernels that want them so; grown by them.
    pub(super) widened: Int8Batch,
}

/// What one thread needs for itself.
#[derive(Debug)]
pub(super) struct ThreadScratch {
    pub(super) product: ProductScratch,
    /// Outputs of the gate for one block of rows, `[n, row_block]`.
    pub(super) gate: AlignedBuf<f32>,
    /// Outputs of the up projection for the same block.
    pub(super) up: AlignedBuf<f32>,
    /// Attention's result for one token, `[heads * head_dim]`; the normalised residual row `[hidden]` where projections have
    /// norms of their own.
    pub(super) row: AlignedBuf<f32>,
}

/// What a forward step needs.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Tokens that fit, at most [`MAX_ROWS`]; grown on demand.
    rows: usize,
    /// Output rows of one kernel call.
    row_block: usize,
    /// Activations of a group, where they have a scale for each.
    group_len: usize,
    /// Residual stream, `[n, hidden]`.
    pub(super) x: AlignedBuf<f32>,
    /// Queries, `[n, heads * head_dim]`; behind them in each row the gates of the output, where attention has some.
    pub(super) q: AlignedBuf<f32>,
    /// Output of the mixer, `[n, heads * head_dim]`; that of attention in an order of its own, see
    /// [`super::attention::gather_row`].
    pub(super) attn: AlignedBuf<f32>,
    /// Keys, `[n, kv_heads * head_dim]`; for test-time-training layers `[n, heads * head_dim]`.
    pub(super) k: AlignedBuf<f32>,
    /// Values, as keys.
    pub(super) v: AlignedBuf<f32>,
    /// Feed-forward activations, `[n, ffn]`.
    pub(super) u: AlignedBuf<f32>,
    /// What a block adds to the residual stream, `[n, hidden]`, where that is normalised or scaled first.
    pub(super) branch: AlignedBuf<f32>,
    /// Residual rows after the final norm, `[16, hidden]`.
    pub(super) normed: AlignedBuf<f32>,
    /// The same, quantised, in a model with a ternary head.
    pub(super) head_input: Option<Quantized>,
    /// For the best logits.
    pub(super) best: BestScratch,
    /// Sines and cosines of the positions met so far.
    pub(super) rope: RopeTable,
    /// Quantised inputs: one for all projections that read the same row, or one for each of up to three where they have
    /// norms of their own.
    pub(super) quantized: Vec<Quantized>,
    pub(super) threads: Vec<ThreadScratch>,
    /// Attention's working memory of each thread.
    pub(super) attend: Vec<AttendScratch>,
    /// What the parts of attention leave behind.
    pub(super) attention: Vec<AttentionScratch>,
    /// The parts of attention.
    pub(super) plan: Plan,
    /// Of test-time-training layers, if the model has any.
    pub(super) ttt: Option<TttScratch>,
    /// Of layers of the gated delta rule, if the model has any.
    pub(super) delta: Option<DeltaScratch>,
    /// What has to be put back into states of test-time-training layers if a step of several texts fails.
    pub(super) undo: Vec<f32>,
}

impl Scratch {
    /// Buffers without room for tokens: output rows of the largest kernel call, activations of a group where they have scales; `head` is what a ternary head reads, where there is one.
    pub(super) fn new(
        c: &ModelConfig,
        threads: usize,
        (row_block, group_len): (usize, usize),
        head: Option<InputForm>,
    ) -> Self {
        let head_input = head.map(|form| {
            let forms = InputForms::default().with_bits(form.bits);
            Quantized::with_capacity(super::head::TOKENS, c.hidden_size, &forms, (threads, group_len))
        });
        let empty = AlignedBuf::<f32>::zeroed(0);
        let thread = || ThreadScratch {
            product: ProductScratch { acc: AlignedBuf::zeroed(0), widened: Int8Batch::with_capacity(0, 0) },
            gate: empty.clone(),
            up: empty.clone(),
            row: AlignedBuf::zeroed(row_len(c)),
        };
        Self {
            rows: 0,
            row_block,
            group_len,
            x: empty.clone(),
            q: empty.clone(),
            attn: empty.clone(),
            k: empty.clone(),
            v: empty.clone(),
            u: empty.clone(),
            branch: empty.clone(),
            normed: empty.clone(),
            head_input,
            best: BestScratch::new(c.hidden_size),
            rope: RopeTable::from_frequencies(0, c.rope_frequencies()).with_magnitude(c.rope_attention_factor()),
            quantized: inputs(c, 0, (threads, group_len)),
            threads: (0..threads).map(|_| thread()).collect(),
            attend: (0..threads).map(|_| attention::attend_scratch(c)).collect(),
            attention: Vec::new(),
            plan: Plan::default(),
            ttt: TttScratch::new(c, threads),
            delta: DeltaScratch::new(c, threads),
            undo: Vec::new(),
        }
    }

    /// Bytes of the buffers of the layers without the quantised inputs.
    pub(super) fn byte_len(&self) -> usize {
        let rows = [&self.x, &self.q, &self.attn, &self.k, &self.v, &self.u, &self.branch, &self.normed];
        let of_rows: usize = rows.iter().map(|b| size_of_val(&b[..])).sum();
        let of_threads = self.threads.iter().map(|t| {
            let floats = t.gate.len() + t.up.len() + t.row.len();
            4 * (t.product.acc.len() + floats) + t.product.widened.view().codes().len()
        });
        of_rows + of_threads.sum::<usize>() + self.delta.as_ref().map_or(0, DeltaScratch::byte_len)
    }

    /// Makes room for `n` tokens.
    pub(super) fn reserve(&mut self, c: &ModelConfig, n: usize) {
        // Which thread meets a kernel that needs room is chance: what one has needed, all have from the next step on.
        let mut rest = &mut self.threads[..];
        while let Some((first, others)) = rest.split_first_mut() {
            for other in &mut *others {
                first.product.widened.reserve_like(&other.product.widened);
                other.product.widened.reserve_like(&first.product.widened);
            }
            rest = others;
        }
        if n <= self.rows {
            return;
        }
        let n = n.next_power_of_two().min(MAX_ROWS);
        let q = c.num_attention_heads * c.head_dim;
        let kv = if c.has_ttt() { q } else { c.num_key_value_heads * c.head_dim };
        self.x = AlignedBuf::zeroed(n * c.hidden_size);
        self.q = AlignedBuf::zeroed(n * c.query_rows());
        self.attn = AlignedBuf::zeroed(n * q);
        self.k = AlignedBuf::zeroed(n * kv);
        self.v = AlignedBuf::zeroed(n * kv);
        self.u = AlignedBuf::zeroed(n * c.intermediate_size);
        self.normed = AlignedBuf::zeroed(super::head::TOKENS * c.hidden_size);
        if !adds_plainly(c) {
            self.branch = AlignedBuf::zeroed(n * c.hidden_size);
        }
        self.quantized = inputs(c, n, (self.threads.len(), self.group_len));
        for t in &mut self.threads {
            t.product.acc = AlignedBuf::zeroed(n * self.row_block);
            t.gate = AlignedBuf::zeroed(n * self.row_block);
            t.up = AlignedBuf::zeroed(n * self.row_block);
        }
        if let Some(ttt) = &mut self.ttt {
            ttt.reserve(c, n);
        }
        if let Some(delta) = &mut self.delta {
            delta.reserve(c, n);
        }
        self.rows = n;
    }
}

/// Whether what a block computes is added to the residual stream as it is.
pub(super) fn adds_plainly(c: &ModelConfig) -> bool {
    !c.output_norms && c.residual_scale == 1.0
}

/// Floats of [`ThreadScratch::row`].
fn row_len(c: &ModelConfig) -> usize {
    let heads = c.num_attention_heads * c.head_dim;
    if c.projection_norms { heads.max(c.hidden_size) } else { heads }
}

/// Room for the inputs of `n` tokens; threads, and activations of a group.
fn inputs(c: &ModelConfig, n: usize, threads: (usize, usize)) -> Vec<Quantized> {
    let widest = c.input_widths().into_iter().fold(c.num_attention_heads * c.head_dim, usize::max);
    let more = if c.projection_norms { 2 } else { 0 };
    let widths = std::iter::once(widest).chain(std::iter::repeat_n(c.hidden_size, more));
    let forms = fold::forms(c);
    widths.map(|k| Quantized::with_capacity(n, if n == 0 { 0 } else { k }, &forms, threads)).collect()
}
