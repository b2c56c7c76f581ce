//! The layer as candle operations: differentiable through everything, on any device.

mod conv;
pub(crate) mod inner;
mod math;
mod parameters;
mod rope;

use candle_core::{Result as CandleResult, Tensor};
use candle_nn::{Init, Module, VarBuilder};

pub use conv::CausalConv;
use inner::InnerModel;
pub use inner::{FastWeights, Form, Views};
use math::{gelu, layer_norm};
pub(crate) use parameters::floats;
use rope::Rope;

use crate::TttError;
use crate::config::{Projection, TttConfig};

/// A TTT layer whose projections are any linear layers `L`.
///
/// `y = O((gelu(G x) *) LN(inner loop over Q x, K x, V x))`, `x` and `y` are `[B, T, D]`. Gradients reach every
/// parameter, the first inner weights and the learning rates included, through all mini-batches: nothing is detached.
///
/// ```
/// use candle_core::{Module, DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap, linear_no_bias};
/// use ttt_layer::{Kind, TttConfig, TttLayer};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = TttConfig::new(Kind::Linear, 2, 8); // 2 heads of 8
/// let layer = TttLayer::new(&config, vb, |_, inputs, outputs, vb| linear_no_bias(inputs, outputs, vb))?;
/// let x = Tensor::randn(0f32, 1., (1, 37, 16), &Device::Cpu)?; // 37 tokens: two mini-batches and five tokens
/// assert_eq!(layer.forward(&x)?.dims(), [1, 37, 16]);
/// # Ok::<(), ttt_layer::TttError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TttLayer<L> {
    config: TttConfig,
    projections: Projections<L>,
    pub(crate) convs: Option<[CausalConv; 2]>,
    pub(crate) inner: InnerModel,
    /// `W1`, `b1`, `W2`, `b2` of the first mini-batch, `[h, rows, columns]`.
    pub(crate) first: Vec<Tensor>,
    /// `[h, D]`
    pub(crate) lr_weight: Tensor,
    /// `[h]`
    pub(crate) lr_bias: Tensor,
    /// Gain and bias `[w]` of the norm after the inner loop.
    pub(crate) post_norm: (Tensor, Tensor),
    rope: Rope,
}

/// The linear layers of one TTT layer.
#[derive(Clone, Debug)]
pub struct Projections<L> {
    /// Queries (and keys if they share a projection).
    pub q: L,
    /// Keys; `None` if queries and keys share a projection.
    pub k: Option<L>,
    /// Values.
    pub v: L,
    /// The gate, if there is one.
    pub gate: Option<L>,
    /// The output.
    pub o: L,
}

impl<L: Module> TttLayer<L> {
    /// A layer whose parameters are under `vb` in the names of the official checkpoints (`W1`, `b1`, `q_proj`,
    /// `learnable_ttt_lr_weight` ...) or are created there; `linear(projection, inputs, outputs, vb)` makes the
    /// projections.
    ///
    /// # Errors
    /// [`TttError::Config`]; errors of candle: no such tensor, another shape.
    pub fn new(
        config: &TttConfig,
        vb: VarBuilder,
        mut linear: impl FnMut(Projection, usize, usize, VarBuilder) -> CandleResult<L>,
    ) -> Result<Self, TttError> {
        config.validate()?;
        let (h, d, w) = (config.num_heads, config.head_dim, config.width());
        let mut make = |p: Projection| {
            let (inputs, outputs) = p.shape(config);
            linear(p, inputs, outputs, vb.pp(p.name()))
        };
        let projections = Projections {
            q: make(Projection::Q)?,
            k: if config.share_qk { None } else { Some(make(Projection::K)?) },
            v: make(Projection::V)?,
            gate: if config.use_gate { Some(make(Projection::Gate)?) } else { None },
            o: make(Projection::O)?,
        };
        let conv = |name| CausalConv::new(w, config.conv_kernel, vb.pp(name));
        let convs = if config.share_qk { Some([conv("conv_q")?, conv("conv_k")?]) } else { None };
        let small = Init::Randn { mean: 0.0, stdev: 0.02 };
        let (zero, one) = (Init::Const(0.0), Init::Const(1.0));
        let mut first = Vec::new();
        for (name, [rows, cols]) in config.inner_shapes() {
            let init = if rows == 1 { zero } else { small };
            first.push(vb.get_with_hints((h, rows, cols), name, init)?);
        }
        let post = vb.pp("post_norm");
        Ok(Self {
            projections,
            convs,
            inner: InnerModel {
                kind: config.kind,
                gain: vb.get_with_hints((h, d), "ttt_norm_weight", one)?,
                bias: vb.get_with_hints((h, d), "ttt_norm_bias", zero)?,
                nu: vb.get_with_hints(config.mini_batch_size, "learnable_token_idx", zero)?,
                decay: match config.decay {
                    // A time of 64 mini-batches: the sigmoid of the logarithm of 63.
                    true => Some(vb.get_with_hints((h, 1), "learnable_decay", Init::Const(63f64.ln()))?.reshape(h)?),
                    false => None,
                },
                eps: config.norm_eps,
            },
            first,
            lr_weight: vb
                .get_with_hints((h, 1, config.hidden_size), "learnable_ttt_lr_weight", small)?
                .reshape((h, config.hidden_size))?,
            lr_bias: vb.get_with_hints((h, 1), "learnable_ttt_lr_bias", zero)?.reshape(h)?,
            post_norm: (post.get_with_hints(w, "weight", one)?, post.get_with_hints(w, "bias", zero)?),
            rope: Rope::new(config, vb.device())?,
            config: config.clone(),
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &TttConfig {
        &self.config
    }

    /// The projections.
    pub fn projections(&self) -> &Projections<L> {
        &self.projections
    }

    /// The inner weights that every sequence begins with, for `batch` sequences.
    ///
    /// # Errors
    /// Any error of candle.
    pub fn first_weights(&self, batch: usize) -> CandleResult<FastWeights> {
        let repeat = |w: &Tensor| {
            let (h, rows, cols) = w.dims3()?;
            w.unsqueeze(0)?.broadcast_as((batch, h, rows, cols))?.contiguous()
        };
        Ok(FastWeights(self.first.iter().map(repeat).collect::<CandleResult<_>>()?))
    }

    /// Inputs of the inner loop from `x` `[B, T, D]`, whose first token begins a mini-batch.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn views(&self, x: &Tensor) -> CandleResult<Views> {
        let (batch, tokens, _) = x.dims3()?;
        let (h, d) = (self.config.num_heads, self.config.head_dim);
        let heads = |x: &Tensor| x.reshape((batch, tokens, h, d))?.transpose(1, 2)?.contiguous();
        let p = &self.projections;
        let shared = p.q.forward(x)?;
        let (q, k) = match (&self.convs, &p.k) {
            (Some([conv_q, conv_k]), _) => (conv_q.forward(&shared)?, conv_k.forward(&shared)?),
            (None, Some(k_proj)) => {
                let k = k_proj.forward(x)?;
                (shared, k)
            }
            (None, None) => (shared.clone(), shared),
        };
        let gate = x.broadcast_matmul(&self.lr_weight.t()?)?.broadcast_add(&self.lr_bias)?;
        let scale = f64::from(self.config.base_lr) / d as f64;
        Ok(Views {
            q: self.rope.apply(&heads(&q)?, 0)?,
            k: self.rope.apply(&heads(&k)?, 0)?,
            v: heads(&p.v.forward(x)?)?,
            lr: (candle_nn::ops::sigmoid(&gate)? * scale)?.transpose(1, 2)?.contiguous()?,
        })
    }

    /// `t_n = max(0, 1 / (n + 1) + nu_n)` of the tokens of a mini-batch as they are read, `[b]`.
    ///
    /// # Errors
    /// Any error of candle.
    pub fn position_weights(&self) -> CandleResult<Tensor> {
        self.inner.position_weights()
    }

    /// The inner loop over all tokens of `views`, the first of which begins a mini-batch with the weights `start`:
    /// `f(q_n; W_n)` `[B, h, T, d]` and the weights of the last token. They begin the next call if `T` is a multiple of
    /// `b`.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn inner_loop(&self, views: &Views, start: &FastWeights, form: Form) -> CandleResult<(Tensor, FastWeights)> {
        self.inner.run(views, start, &self.first, form)
    }

    /// The part after the inner loop: norm, gate, output projection. `inner` is `[B, h, T, d]`, the result
    /// `[B, T, D]`.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn finish(&self, x: &Tensor, inner: &Tensor) -> CandleResult<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        let o = inner.transpose(1, 2)?.reshape((batch, tokens, self.config.width()))?;
        let mut o = layer_norm(&o, &self.post_norm.0, &self.post_norm.1, self.config.norm_eps)?;
        if let Some(gate) = &self.projections.gate {
            o = (gelu(&gate.forward(x)?)? * o)?;
        }
        self.projections.o.forward(&o)
    }

    /// The layer over `x` `[B, T, D]` in one of its forms.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn forward_as(&self, x: &Tensor, form: Form) -> CandleResult<Tensor> {
        let views = self.views(x)?;
        let (out, _) = self.inner_loop(&views, &self.first_weights(x.dim(0)?)?, form)?;
        self.finish(x, &out)
    }
}

impl<L: Module> Module for TttLayer<L> {
    /// The dual form.
    fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        self.forward_as(x, Form::Dual)
    }
}
