//! Buffers of a forward step, allocated once.

use ternary_kernels::ops::RopeTable;
use ternary_kernels::{AlignedBuf, Int8Batch};

use super::attention::{AttentionScratch, Plan};
use super::head::BestScratch;
use super::quantized::Quantized;
use super::ttt::TttScratch;
use crate::ModelConfig;

/// Most tokens that pass through the layers together; longer inputs are cut. It bounds the scratch memory and does
/// not change any result.
pub(super) const MAX_ROWS: usize = 256;

/// What one thread needs for itself.
#[derive(Debug)]
pub(super) struct ThreadScratch {
    /// Integer products of one block of output rows, `[n, row_block]`.
    pub(super) acc: AlignedBuf<i32>,
    /// The same of a second projection (gate and up go together).
    pub(super) acc2: AlignedBuf<i32>,
    /// Dequantised outputs of one token.
    pub(super) y: AlignedBuf<f32>,
    /// The same of a second projection.
    pub(super) y2: AlignedBuf<f32>,
    /// Attention's result for one token, `[heads * head_dim]`.
    pub(super) row: AlignedBuf<f32>,
    /// Int4 activations as int8, for kernels that want them so; grown by them.
    pub(super) widened: Int8Batch,
}

/// What a forward step needs.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Tokens that fit, at most [`MAX_ROWS`]; grown on demand.
    rows: usize,
    /// Output rows of one kernel call.
    row_block: usize,
    /// Residual stream, `[n, hidden]`.
    pub(super) x: AlignedBuf<f32>,
    /// Queries, `[n, heads * head_dim]`.
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
    /// Residual rows after the final norm, `[16, hidden]`.
    pub(super) normed: AlignedBuf<f32>,
    /// For the best logits.
    pub(super) best: BestScratch,
    /// Sines and cosines of the positions met so far.
    pub(super) rope: RopeTable,
    /// Quantised inputs of a projection.
    pub(super) quantized: Quantized,
    pub(super) threads: Vec<ThreadScratch>,
    /// Attention's working memory of each thread.
    pub(super) attention: Vec<AttentionScratch>,
    /// Which thread does what of attention.
    pub(super) plan: Plan,
    /// Of test-time-training layers, if the model has any.
    pub(super) ttt: Option<TttScratch>,
    /// What has to be put back into states of test-time-training layers if a step of several texts fails.
    pub(super) undo: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(c: &ModelConfig, threads: usize, row_block: usize) -> Self {
        let empty = AlignedBuf::<f32>::zeroed(0);
        let thread = || ThreadScratch {
            acc: AlignedBuf::zeroed(0),
            acc2: AlignedBuf::zeroed(0),
            y: AlignedBuf::zeroed(row_block),
            y2: AlignedBuf::zeroed(row_block),
            row: AlignedBuf::zeroed(c.num_attention_heads * c.head_dim),
            widened: Int8Batch::with_capacity(0, 0),
        };
        Self {
            rows: 0,
            row_block,
            x: empty.clone(),
            q: empty.clone(),
            attn: empty.clone(),
            k: empty.clone(),
            v: empty.clone(),
            u: empty.clone(),
            normed: empty,
            best: BestScratch::new(c.hidden_size),
            rope: RopeTable::from_frequencies(0, c.rope_frequencies()),
            quantized: Quantized::with_capacity(0, 0, &c.inputs, threads),
            threads: (0..threads).map(|_| thread()).collect(),
            attention: (0..threads).map(|_| AttentionScratch::new(c)).collect(),
            plan: Plan::default(),
            ttt: TttScratch::new(c, threads),
            undo: Vec::new(),
        }
    }

    /// Bytes of the buffers of the layers without the quantised inputs.
    pub(super) fn byte_len(&self) -> usize {
        let rows = [&self.x, &self.q, &self.attn, &self.k, &self.v, &self.u, &self.normed];
        let of_rows: usize = rows.iter().map(|b| size_of_val(&b[..])).sum();
        let of_threads = self.threads.iter().map(|t| {
            let floats = t.y.len() + t.y2.len() + t.row.len();
            4 * (t.acc.len() + t.acc2.len() + floats) + t.widened.view().codes().len()
        });
        of_rows + of_threads.sum::<usize>()
    }

    /// Makes room for `n` tokens.
    pub(super) fn reserve(&mut self, c: &ModelConfig, n: usize) {
        if n <= self.rows {
            return;
        }
        let n = n.next_power_of_two().min(MAX_ROWS);
        let q = c.num_attention_heads * c.head_dim;
        let kv = if c.has_ttt() { q } else { c.num_key_value_heads * c.head_dim };
        self.x = AlignedBuf::zeroed(n * c.hidden_size);
        self.q = AlignedBuf::zeroed(n * q);
        self.attn = AlignedBuf::zeroed(n * q);
        self.k = AlignedBuf::zeroed(n * kv);
        self.v = AlignedBuf::zeroed(n * kv);
        self.u = AlignedBuf::zeroed(n * c.intermediate_size);
        self.normed = AlignedBuf::zeroed(super::head::TOKENS * c.hidden_size);
        let widest = c.hidden_size.max(c.intermediate_size).max(q);
        self.quantized = Quantized::with_capacity(n, widest, &c.inputs, self.threads.len());
        for t in &mut self.threads {
            t.acc = AlignedBuf::zeroed(n * self.row_block);
            t.acc2 = AlignedBuf::zeroed(n * self.row_block);
        }
        if let Some(ttt) = &mut self.ttt {
            ttt.reserve(c, n);
        }
        self.rows = n;
    }
}
