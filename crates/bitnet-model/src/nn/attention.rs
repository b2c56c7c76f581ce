//! Causal self-attention with grouped key and value heads.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::Module;

use super::{BitLinear, RmsNorm, RotaryTables, Trace};
use crate::ModelConfig;

/// The attention block: `o_proj(norm(softmax(Q K^T / sqrt(d) + mask) V))`.
///
/// Query head `i` reads key and value head `i / (heads / kv_heads)`; the sub-norm, if the model has one, is applied to
/// the concatenated heads. Scores and softmax are f32.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Queries, `[heads * head_dim, hidden]`.
    pub q_proj: BitLinear,
    /// Keys, `[kv_heads * head_dim, hidden]`.
    pub k_proj: BitLinear,
    /// Values, `[kv_heads * head_dim, hidden]`.
    pub v_proj: BitLinear,
    /// Output, `[hidden, heads * head_dim]`.
    pub o_proj: BitLinear,
    /// Norm before the output projection.
    pub sub_norm: Option<RmsNorm>,
    /// Norms of each head of q and of each head of k, before the rotary embedding; gains `[head_dim]`.
    pub head_norms: Option<[RmsNorm; 2]>,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Attention {
    /// The block of `config`'s shape with these parts.
    pub fn new(
        config: &ModelConfig,
        [q_proj, k_proj, v_proj, o_proj]: [BitLinear; 4],
        sub_norm: Option<RmsNorm>,
    ) -> Self {
        Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            sub_norm,
            head_norms: None,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// Adds norms of the heads of q and of k.
    #[must_use]
    pub fn with_head_norms(mut self, norms: Option<[RmsNorm; 2]>) -> Self {
        self.head_norms = norms;
        self
    }

    /// `x` is `[b, t, hidden]`, after the input norm; the result has its shape. Position `i` sees positions `0..=i`.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn forward(&self, x: &Tensor, rotary: &RotaryTables) -> Result<Tensor> {
        self.forward_traced(x, rotary, &mut Trace::off())
    }

    pub(super) fn forward_traced(&self, x: &Tensor, rotary: &RotaryTables, trace: &mut Trace) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let (kv, d) = (self.kv_heads, self.head_dim);
        let group = self.heads / kv;
        let q = trace.see("self_attn.q_proj", self.q_proj.forward(x)?)?;
        let k = trace.see("self_attn.k_proj", self.k_proj.forward(x)?)?;
        let v = trace.see("self_attn.v_proj", self.v_proj.forward(x)?)?;
        let split = |y: Tensor, heads: usize| y.reshape((b, t, heads, d))?.transpose(1, 2)?.contiguous();
        let (mut q, mut k) = (split(q, self.heads)?, split(k, kv)?);
        if let Some([q_norm, k_norm]) = &self.head_norms {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        let q = rotary.apply(&q)?.to_dtype(DType::F32)?;
        let k = rotary.apply(&k)?.to_dtype(DType::F32)?;
        let v = split(v, kv)?.to_dtype(DType::F32)?;

        // The query heads of a group are rows of one matrix, so keys and values need not be repeated.
        let q = q.reshape((b, kv, group * t, d))?;
        let scores = (q.matmul(&k.t()?)? * (d as f64).powf(-0.5))?.reshape((b, self.heads, t, t))?;
        let scores = scores.broadcast_add(&causal_mask(t, x.device())?)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let mixed = weights.reshape((b, kv, group * t, t))?.matmul(&v)?.reshape((b, self.heads, t, d))?;
        let mut out = mixed.transpose(1, 2)?.reshape((b, t, self.heads * d))?.to_dtype(x.dtype())?;
        if let Some(norm) = &self.sub_norm {
            out = trace.see("self_attn.attn_sub_norm", norm.forward(&out)?)?;
        }
        trace.see("self_attn.o_proj", self.o_proj.forward(&out)?)
    }
}

/// `[t, t]` f32: 0 where column <= row, minus infinity elsewhere.
fn causal_mask(t: usize, device: &Device) -> Result<Tensor> {
    let row = |r: usize| (0..t).map(move |c| if c <= r { 0.0 } else { f32::NEG_INFINITY });
    Tensor::from_vec((0..t).flat_map(row).collect::<Vec<f32>>(), (t, t), device)
}
