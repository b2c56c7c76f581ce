//! Layers with parameters from a seed.
#![allow(dead_code)]

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, VarMap, linear_no_bias};
use ternary_kernels::{ColsMut, Ops, Team};
pub(crate) use test_support::Random;
use ttt_layer::{Inputs, Kind, RopePairs, RowWise, Rows, Scratch, TttConfig, TttLayer, TttState};

/// A layer whose every parameter is drawn from a seed, position weights below zero among them.
pub(crate) struct Case {
    pub(crate) layer: TttLayer<Linear>,
    pub(crate) vars: VarMap,
    pub(crate) random: Random,
}

/// Every combination of the parts of a layer, in small sizes, by number.
pub(crate) fn config(variant: usize, heads: usize, head_dim: usize, b: usize) -> TttConfig {
    let mut config = TttConfig::new(if variant & 1 == 0 { Kind::Linear } else { Kind::Mlp }, heads, head_dim);
    config.mini_batch_size = b;
    config.share_qk = variant & 2 != 0;
    config.use_gate = variant & 4 != 0;
    config.rope_pairs = if variant & 8 == 0 { RopePairs::Neighbours } else { RopePairs::Halves };
    config.decay = variant & 16 != 0;
    config.conv_kernel = 1 + variant % 5;
    // The hidden size need not be that of the heads.
    config.hidden_size = config.width() + 2 * (variant & 1);
    // Rows of few elements may have next to no variance, and then every rounding counts; the vectors that others made
    // hold the official 1e-6.
    config.norm_eps = 1e-2;
    config
}

impl Case {
    pub(crate) fn new(config: &TttConfig, dtype: DType, seed: u64) -> Self {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, dtype, &Device::Cpu);
        let layer = TttLayer::new(config, vb, |_, i, o, vb| linear_no_bias(i, o, vb)).unwrap();
        let mut random = Random(seed);
        let lock = vars.data().lock().unwrap();
        let mut names: Vec<_> = lock.keys().cloned().collect();
        names.sort();
        for name in names {
            let var = &lock[&name];
            let mut values = random.normals(var.elem_count());
            let spread = match name.as_str() {
                "W1" | "W2" | "q_proj.weight" | "k_proj.weight" | "v_proj.weight" | "o_proj.weight" => {
                    1.0 / (*var.dims().iter().rev().take(2).max().unwrap() as f32).sqrt()
                }
                _ => 0.3,
            };
            let centre = if name == "ttt_norm_weight" || name == "post_norm.weight" { 1.0 } else { 0.0 };
            values.iter_mut().for_each(|v| *v = *v * spread + centre);
            let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
            var.set(&values.to_dtype(dtype).unwrap()).unwrap();
        }
        drop(lock);
        Self { layer, vars, random }
    }

    /// Input of `tokens` tokens, `[batch, tokens, D]`.
    pub(crate) fn input(&mut self, batch: usize, tokens: usize) -> Tensor {
        let hidden = self.layer.config().hidden_size;
        let x = self.random.normals(batch * tokens * hidden);
        let x = Tensor::from_vec(x, (batch, tokens, hidden), &Device::Cpu).unwrap();
        x.to_dtype(self.layer.first_weights(1).unwrap().0[0].dtype()).unwrap()
    }
}

pub(crate) fn f32s(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn f64s(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference; infinite if a value is NaN.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| {
        if d <= m {
            m
        } else if d.is_nan() {
            f64::INFINITY
        } else {
            d
        }
    })
}

/// The row-wise form of a layer, and its inputs for one text.
pub(crate) struct Text {
    pub(crate) rows: RowWise,
    pub(crate) x: Vec<f32>,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) gate: Option<Vec<f32>>,
}

impl Text {
    pub(crate) fn new(layer: &TttLayer<Linear>, x: &Tensor, ops: Ops) -> Self {
        let p = layer.projections();
        let project = |l: &Linear| f32s(&l.forward(x).unwrap());
        Self {
            rows: RowWise::with_ops(layer.config(), &layer.parameters().unwrap(), ops).unwrap(),
            q: project(&p.q),
            k: project(p.k.as_ref().unwrap_or(&p.q)),
            v: project(&p.v),
            gate: p.gate.as_ref().map(project),
            x: f32s(x),
        }
    }

    /// Reads the tokens `from..to`; returns the input of the output projection, `[to - from, w]`.
    pub(crate) fn read(&self, state: &mut TttState, from: usize, to: usize, team: Option<&Team>) -> Vec<f32> {
        let c = self.rows.config();
        let mut out = vec![f32::NAN; (to - from) * c.width()];
        let mut scratch = vec![Scratch::new(c); team.map_or(1, Team::threads)];
        self.with_inputs(from, to, |inputs| self.rows.forward(state, inputs, &mut out, &mut scratch, team));
        out
    }

    /// Like [`Text::read`], but a mini-batch that ends with the last token is not completed.
    pub(crate) fn read_open(&self, state: &mut TttState, from: usize, to: usize) {
        let (c, n) = (self.rows.config(), to - from);
        let mut out = vec![f32::NAN; n * c.width()];
        let mut out = ColsMut::new(&mut out, n, c.width());
        let position = state.position();
        self.with_inputs(from, to, |inputs| {
            let (heads, scratch) = (state.parts_mut().0, &mut Scratch::new(c));
            self.rows.forward_heads(0..c.num_heads, heads, position, inputs, &mut out, scratch);
        });
        state.advance(n);
    }

    /// Reads all tokens; the second result are the inner losses, `[n, h]`.
    pub(crate) fn read_with_losses(&self, state: &mut TttState) -> (Vec<f32>, Vec<f32>) {
        let c = self.rows.config();
        let tokens = self.x.len() / c.hidden_size;
        let mut out = vec![f32::NAN; tokens * c.width()];
        let mut losses = Vec::new();
        self.with_inputs(0, tokens, |inputs| {
            losses = self.rows.forward_with_losses(state, inputs, &mut out, &mut Scratch::new(c));
        });
        (out, losses)
    }

    fn with_inputs(&self, from: usize, to: usize, f: impl FnOnce(&Inputs<'_>)) {
        let c = self.rows.config();
        let (hidden, w) = (c.hidden_size, c.width());
        // Queries, keys and values in one buffer, as engines have them.
        let mut qkv = Vec::new();
        for t in from..to {
            for x in [&self.q, &self.k, &self.v] {
                qkv.extend_from_slice(&x[t * w..(t + 1) * w]);
            }
        }
        f(&Inputs {
            x: &self.x[from * hidden..to * hidden],
            q: Rows::columns(&qkv, 3 * w, 0..w),
            k: Rows::columns(&qkv, 3 * w, w..2 * w),
            v: Rows::columns(&qkv, 3 * w, 2 * w..3 * w),
            gate: self.gate.as_ref().map(|g| Rows::new(&g[from * w..to * w], w)),
        });
    }
}
