//! The official model token by token, on plain numbers and with a state of constant size.

use candle_nn::Linear;
use ternary_kernels::Ops;

use super::model::{OfficialModel, RmsNorm};
use crate::layer::floats;
use crate::parameters::ConvParameters;
use crate::{ConvRows, Inputs, Projection, RowWise, Rows, Scratch, TttError, TttState};

/// A matrix `[out, in]` in full precision.
#[derive(Clone, Debug)]
struct Matrix {
    w: Vec<f32>,
    cols: usize,
}

impl Matrix {
    fn new(linear: &Linear) -> Result<Self, TttError> {
        let (_, cols) = linear.weight().dims2()?;
        Ok(Self { w: floats(linear.weight())?, cols })
    }

    fn rows(&self) -> usize {
        self.w.len() / self.cols
    }

    /// `out[t, r] = sum_i x[t, i] w[r, i]`, each a separate dot product.
    fn forward(&self, ops: Ops, x: &[f32], out: &mut Vec<f32>) {
        let (n, rows) = (x.len() / self.cols, self.rows());
        out.clear();
        out.resize(n * rows, 0.0);
        let mut column = vec![0.0; n];
        for (r, w) in self.w.chunks_exact(self.cols).enumerate() {
            ops.dots(x, w, &mut column);
            for (t, y) in column.iter().enumerate() {
                out[t * rows + r] = *y;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Gain(Vec<f32>, f32);

impl Gain {
    fn new(norm: &RmsNorm) -> Result<Self, TttError> {
        Ok(Self(floats(&norm.gain)?, norm.eps))
    }

    fn forward(&self, ops: Ops, x: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.resize(x.len(), 0.0);
        let n = self.0.len();
        for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            ops.rms_norm(x, &self.0, self.1, out);
        }
    }
}

#[derive(Clone, Debug)]
struct Block {
    conv: Option<(Gain, ConvRows)>,
    seq_norm: Gain,
    q: Matrix,
    k: Option<Matrix>,
    v: Matrix,
    gate: Option<Matrix>,
    o: Matrix,
    ttt: RowWise,
    ffn_norm: Gain,
    ffn_gate: Matrix,
    ffn_up: Matrix,
    ffn_down: Matrix,
}

/// The official model for inference: full precision, the row-wise form in every layer. Logits do not depend on how a
/// text is cut into calls, to the last bit.
#[derive(Clone, Debug)]
pub struct Decoder {
    ops: Ops,
    hidden: usize,
    embedding: Vec<f32>,
    blocks: Vec<Block>,
    norm: Gain,
    head: Matrix,
}

/// The states of all layers for one text. A clone is a fork.
#[derive(Clone, Debug)]
pub struct DecoderState {
    /// One for each layer.
    pub layers: Vec<TttState>,
}

impl Decoder {
    /// The decoder with a model's weights.
    ///
    /// # Errors
    /// Errors of candle; [`TttError::Kernel`] for an instruction set that this CPU lacks.
    pub fn new(model: &OfficialModel) -> Result<Self, TttError> {
        let hidden = model.config.hidden_size;
        let mut blocks = Vec::with_capacity(model.blocks.len());
        for b in &model.blocks {
            let (config, p) = (b.ttt.config(), b.ttt.projections());
            let conv = match &b.conv {
                Some((norm, conv)) => {
                    let parameters = ConvParameters { weight: floats(conv.weight())?, bias: floats(conv.bias())? };
                    Some((Gain::new(norm)?, ConvRows::new(&parameters, hidden, config.conv_kernel)?))
                }
                None => None,
            };
            blocks.push(Block {
                conv,
                seq_norm: Gain::new(&b.seq_norm)?,
                q: Matrix::new(&p.q)?,
                k: p.k.as_ref().map(Matrix::new).transpose()?,
                v: Matrix::new(&p.v)?,
                gate: p.gate.as_ref().map(Matrix::new).transpose()?,
                o: Matrix::new(&p.o)?,
                ttt: RowWise::new(config, &b.ttt.parameters()?)?,
                ffn_norm: Gain::new(&b.ffn_norm)?,
                ffn_gate: Matrix::new(&b.mlp.gate)?,
                ffn_up: Matrix::new(&b.mlp.up)?,
                ffn_down: Matrix::new(&b.mlp.down)?,
            });
        }
        Ok(Self {
            ops: Ops::selected()?,
            hidden,
            embedding: floats(&model.embedding)?,
            blocks,
            norm: Gain::new(&model.norm)?,
            head: Matrix { w: floats(model.head.as_ref().unwrap_or(&model.embedding))?, cols: hidden },
        })
    }

    /// The state before the first token.
    pub fn start(&self) -> DecoderState {
        DecoderState { layers: self.blocks.iter().map(|b| TttState::new(&b.ttt)).collect() }
    }

    /// The layers, to restore their states.
    pub fn layers(&self) -> impl Iterator<Item = &RowWise> {
        self.blocks.iter().map(|b| &b.ttt)
    }

    /// Reads `tokens` and returns the logits of all of them, `[n, V]`.
    ///
    /// # Errors
    /// [`TttError::Token`] for a token outside of the vocabulary; nothing was read then.
    ///
    /// # Panics
    /// If `state` is another decoder's.
    pub fn push(&self, state: &mut DecoderState, tokens: &[u32]) -> Result<Vec<f32>, TttError> {
        assert_eq!(state.layers.len(), self.blocks.len(), "a state of another decoder");
        let (ops, vocab_size) = (self.ops, self.embedding.len() / self.hidden);
        let mut h = Vec::with_capacity(tokens.len() * self.hidden);
        for &token in tokens {
            let start = token as usize * self.hidden;
            let row = self.embedding.get(start..start + self.hidden);
            h.extend_from_slice(row.ok_or(TttError::Token { token, vocab_size })?);
        }
        let mut buffers: [Vec<f32>; 7] = Default::default();
        for (block, state) in self.blocks.iter().zip(&mut state.layers) {
            block.forward(ops, state, &mut h, &mut buffers);
        }
        let [x, logits, ..] = &mut buffers;
        self.norm.forward(ops, &h, x);
        self.head.forward(ops, x, logits);
        Ok(std::mem::take(logits))
    }
}

impl Block {
    fn forward(&self, ops: Ops, state: &mut TttState, h: &mut [f32], [x, q, k, v, gate, o, y]: &mut [Vec<f32>; 7]) {
        let hidden = self.seq_norm.0.len();
        if let Some((norm, conv)) = &self.conv {
            norm.forward(ops, h, x);
            y.clear();
            y.resize(h.len(), 0.0);
            conv.forward(ops, state.parts_mut().1, Rows::new(x, hidden), y);
            ops.add_assign(h, y);
        }
        self.seq_norm.forward(ops, h, x);
        self.q.forward(ops, x, q);
        if let Some(w) = &self.k {
            w.forward(ops, x, k);
        }
        self.v.forward(ops, x, v);
        if let Some(w) = &self.gate {
            w.forward(ops, x, gate);
        }
        let config = self.ttt.config();
        let w = config.width();
        let has = |p| Projection::of(config).any(|q| q == p);
        let inputs = Inputs {
            x,
            q: Rows::new(q, w),
            k: Rows::new(if has(Projection::K) { k } else { q }, w),
            v: Rows::new(v, w),
            gate: has(Projection::Gate).then(|| Rows::new(gate, w)),
        };
        o.clear();
        o.resize(q.len(), 0.0);
        self.ttt.forward(state, &inputs, o, &mut [Scratch::new(config)], None);
        self.o.forward(ops, o, y);
        ops.add_assign(h, y);

        self.ffn_norm.forward(ops, h, x);
        self.ffn_gate.forward(ops, x, q);
        self.ffn_up.forward(ops, x, k);
        v.clear();
        v.resize(q.len(), 0.0);
        ops.silu_mul(q, k, v);
        self.ffn_down.forward(ops, v, y);
        ops.add_assign(h, y);
    }
}
