//! The official decoder as candle layers.

use candle_core::{D, DType, Result as CandleResult, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder, linear_no_bias};

use super::OfficialConfig;
use crate::TttError;
use crate::layer::{CausalConv, Form, TttLayer};

/// `g x / sqrt(mean(x^2) + eps)` over the last dimension.
#[derive(Clone, Debug)]
pub(super) struct RmsNorm {
    pub(super) gain: Tensor,
    pub(super) eps: f32,
}

impl RmsNorm {
    fn new(n: usize, eps: f32, vb: VarBuilder) -> CandleResult<Self> {
        Ok(Self { gain: vb.get_with_hints(n, "weight", Init::Const(1.0))?, eps })
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.eps))?.sqrt()?;
        x.broadcast_div(&rms)?.broadcast_mul(&self.gain)
    }
}

/// `down(silu(gate x) * up x)`
#[derive(Clone, Debug)]
pub(super) struct SwiGlu {
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Module for SwiGlu {
    fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        self.down.forward(&(self.gate.forward(x)?.silu()? * self.up.forward(x)?)?)
    }
}

/// One layer: `h += conv(norm(h))` if it has a convolution; `h += TTT(norm(h)); h += SwiGLU(norm(h))`.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) conv: Option<(RmsNorm, CausalConv)>,
    pub(super) seq_norm: RmsNorm,
    pub(super) ttt: TttLayer<Linear>,
    pub(super) ffn_norm: RmsNorm,
    pub(super) mlp: SwiGlu,
}

/// Activations of one layer, `[B, T, D]`.
#[derive(Clone, Debug)]
pub struct BlockTrace {
    /// Input of the TTT layer.
    pub ttt_in: Tensor,
    /// Output of the TTT layer.
    pub ttt_out: Tensor,
    /// The residual stream after the layer.
    pub out: Tensor,
}

/// The language model of the official code: embedding, blocks, norm, head. Full precision, no cache: each call computes
/// all positions in the dual form.
#[derive(Clone, Debug)]
pub struct OfficialModel {
    pub(super) config: OfficialConfig,
    pub(super) embedding: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: RmsNorm,
    /// `None` if the head is the embedding.
    pub(super) head: Option<Tensor>,
}

impl OfficialModel {
    /// The model whose tensors are under `vb` in the names of the official checkpoints, or are created there.
    ///
    /// ```no_run
    /// use candle_core::{DType, Device};
    /// use candle_nn::VarBuilder;
    /// use ttt_layer::official::{OfficialConfig, OfficialModel};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = OfficialConfig::from_json(&std::fs::read("ttt-125m/config.json")?)?;
    /// let bytes = std::fs::read("ttt-125m/model.safetensors")?;
    /// let model = OfficialModel::new(&config, VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TttError::Config`]; errors of candle: no such tensor, another shape.
    pub fn new(config: &OfficialConfig, vb: VarBuilder) -> Result<Self, TttError> {
        let ttt = config.layer()?;
        let (hidden, ffn, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        let root = vb.pp("model");
        let table = (config.vocab_size, hidden);
        let init = Init::Randn { mean: 0.0, stdev: 0.02 };
        let embedding = root.pp("embed_tokens").get_with_hints(table, "weight", init)?;
        let mut blocks = Vec::new();
        for i in 0..config.num_hidden_layers {
            let vb = root.pp("layers").pp(i);
            let (conv, mlp) = (vb.pp("conv"), vb.pp("mlp"));
            let pre_conv = if config.pre_conv {
                let norm = RmsNorm::new(hidden, eps, conv.pp("norm"))?;
                Some((norm, CausalConv::new(hidden, config.conv_kernel, conv.pp("conv"))?))
            } else {
                None
            };
            blocks.push(Block {
                conv: pre_conv,
                seq_norm: RmsNorm::new(hidden, eps, vb.pp("seq_norm"))?,
                ttt: TttLayer::new(&ttt, vb.pp("seq_modeling_block"), |_, i, o, vb| linear_no_bias(i, o, vb))?,
                ffn_norm: RmsNorm::new(hidden, eps, vb.pp("ffn_norm"))?,
                mlp: SwiGlu {
                    gate: linear_no_bias(hidden, ffn, mlp.pp("gate_proj"))?,
                    up: linear_no_bias(hidden, ffn, mlp.pp("up_proj"))?,
                    down: linear_no_bias(ffn, hidden, mlp.pp("down_proj"))?,
                },
            });
        }
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(vb.pp("lm_head").get_with_hints(table, "weight", init)?)
        };
        let norm = RmsNorm::new(hidden, eps, root.pp("norm"))?;
        Ok(Self { config: config.clone(), embedding, blocks, norm, head })
    }

    /// Shape and constants.
    pub fn config(&self) -> &OfficialConfig {
        &self.config
    }

    /// The TTT layers.
    pub fn ttt_layers(&self) -> impl Iterator<Item = &TttLayer<Linear>> {
        self.blocks.iter().map(|b| &b.ttt)
    }

    /// Logits `[B, T, V]` of `ids` `[B, T]` (u32).
    ///
    /// # Errors
    /// Errors of candle, for a token outside of the vocabulary for example.
    pub fn forward(&self, ids: &Tensor) -> CandleResult<Tensor> {
        Ok(self.forward_traced(ids, Form::Dual)?.0)
    }

    /// Like [`OfficialModel::forward`], in either form, with the activations of every layer.
    ///
    /// # Errors
    /// The errors of [`OfficialModel::forward`].
    pub fn forward_traced(&self, ids: &Tensor, form: Form) -> CandleResult<(Tensor, Vec<BlockTrace>)> {
        self.run(ids, form, None)
    }

    /// Like [`OfficialModel::forward`]; `shift` `[B, T, D]` is added to the output of the first TTT layer. If it is a
    /// variable of zeros, its gradient is that of the layer's output.
    ///
    /// # Errors
    /// The errors of [`OfficialModel::forward`].
    pub fn forward_shifted(&self, ids: &Tensor, shift: &Tensor) -> CandleResult<Tensor> {
        Ok(self.run(ids, Form::Dual, Some(shift))?.0)
    }

    fn run(&self, ids: &Tensor, form: Form, mut shift: Option<&Tensor>) -> CandleResult<(Tensor, Vec<BlockTrace>)> {
        let (batch, tokens) = ids.dims2()?;
        let hidden = self.config.hidden_size;
        let rows = self.embedding.index_select(&ids.flatten_all()?.to_dtype(DType::U32)?, 0)?;
        let mut h = rows.reshape((batch, tokens, hidden))?;
        let mut traces = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            if let Some((norm, conv)) = &block.conv {
                h = (&h + conv.forward(&norm.forward(&h)?)?)?;
            }
            let ttt_in = block.seq_norm.forward(&h)?;
            let mut ttt_out = block.ttt.forward_as(&ttt_in, form)?;
            if let Some(shift) = shift.take() {
                ttt_out = (ttt_out + shift)?;
            }
            h = (h + &ttt_out)?;
            h = (&h + block.mlp.forward(&block.ffn_norm.forward(&h)?)?)?;
            traces.push(BlockTrace { ttt_in, ttt_out, out: h.clone() });
        }
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        Ok((self.norm.forward(&h)?.broadcast_matmul(&head.t()?)?, traces))
    }
}
