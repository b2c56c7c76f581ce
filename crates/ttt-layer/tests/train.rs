//! Gradients written by hand against candle's autograd in f64, and the forward pass of training against that of
//! inference.

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Module;
use common::{Case, config, f64s};
use ternary_kernels::{Isa, Ops};
use ttt_layer::{
    InputGradients, Inputs, Projection, RowWise, Scratch, Tape, TttConfig, TttParameters, TttState, Workspace,
};

/// Two texts, the layer's inputs for them, and weights of a loss over its results.
struct Texts {
    config: TttConfig,
    case: Case,
    x: Tensor,
    /// The products with the projections but the last, side by side, `[n, columns]`.
    projected: Vec<f32>,
    /// Weights of the loss `sum(c y)`, `[n, D]`.
    c: Vec<f64>,
    tokens: usize,
}

const BATCH: usize = 2;

impl Texts {
    fn new(config: &TttConfig, tokens: usize, seed: u64) -> Self {
        let mut case = Case::new(config, DType::F64, seed);
        let x = case.input(BATCH, tokens);
        let n = BATCH * tokens;
        let c = (0..n * config.hidden_size).map(|i| (0.7 * i as f64).sin()).collect();
        let p = case.layer.projections();
        let all = [Some(&p.q), p.k.as_ref(), Some(&p.v), p.gate.as_ref()];
        let products: Vec<Vec<f64>> = all.into_iter().flatten().map(|l| f64s(&l.forward(&x).unwrap())).collect();
        let w = config.width();
        let projected =
            (0..n).flat_map(|t| products.iter().flat_map(move |p| p[t * w..(t + 1) * w].iter().map(|v| *v as f32)));
        let projected = projected.collect();
        Self { config: config.clone(), case, x, projected, c, tokens }
    }

    fn weight(&self, p: Projection) -> Vec<f64> {
        f64s(self.case.vars.data().lock().unwrap()[&format!("{}.weight", p.name())].as_tensor())
    }
}

/// `[n, k]` by `[k, m]`.
fn product(a: &[f64], b: &[f64], [n, k, m]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; n * m];
    for i in 0..n {
        for p in 0..k {
            for j in 0..m {
                out[i * m + j] += a[i * k + p] * b[p * m + j];
            }
        }
    }
    out
}

fn transposed(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| x[r * cols + c])).collect()
}

/// All gradients by name, the hand-written ones.
fn by_hand(t: &Texts, ops: Ops) -> BTreeMap<String, Vec<f64>> {
    let (c, n) = (&t.config, BATCH * t.tokens);
    let (w, hidden) = (c.width(), c.hidden_size);
    let flat = flat(&t.case.layer.parameters().unwrap());
    let rows = RowWise::with_ops(c, &TttParameters::from_flat(c, &flat).unwrap(), ops).unwrap();
    let x: Vec<f32> = f64s(&t.x).iter().map(|v| *v as f32).collect();
    let inputs = Inputs::side_by_side(c, &x, &t.projected);
    let (mut out, mut tape, mut work) = (vec![0.0; n * w], Tape::default(), Workspace::new(c));
    rows.forward_taped(&inputs, &[t.tokens; BATCH], &mut out, &mut tape, &mut work);
    let dout = product(&t.c, &t.weight(Projection::O), [n, hidden, w]);
    let dout: Vec<f32> = dout.iter().map(|v| *v as f32).collect();
    let columns = t.projected.len() / n;
    let (mut dx, mut dprojected, mut grads) =
        (vec![0.0; n * hidden], vec![f32::NAN; n * columns], vec![0.0; flat.len()]);
    let mut to = InputGradients { x: &mut dx, projected: &mut dprojected };
    rows.backward(&inputs, &[t.tokens; BATCH], &dout, &mut tape, &mut to, &mut grads, &mut work);

    let wide = |x: &[f32]| x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let mut all = BTreeMap::new();
    let mut dx = wide(&dx);
    for (i, p) in Projection::of(c).filter(|p| *p != Projection::O).enumerate() {
        let d: Vec<f64> = dprojected.chunks(columns).flat_map(|row| wide(&row[i * w..(i + 1) * w])).collect();
        all.insert(format!("{}.weight", p.name()), product(&transposed(&d, n, w), &f64s(&t.x), [w, n, hidden]));
        for (dx, d) in dx.iter_mut().zip(product(&d, &t.weight(p), [n, w, hidden])) {
            *dx += d;
        }
    }
    all.insert("x".into(), dx);
    let out: Vec<f64> = wide(&out);
    all.insert("o_proj.weight".into(), product(&transposed(&t.c, n, hidden), &out, [hidden, n, w]));
    let g = TttParameters::from_flat(c, &grads).unwrap();
    let names: &[&str] = if g.inner.len() == 2 { &["W1", "b1"] } else { &["W1", "b1", "W2", "b2"] };
    for (name, g) in names.iter().zip(&g.inner) {
        all.insert((*name).into(), wide(g));
    }
    for (name, g) in [
        ("learnable_ttt_lr_weight", &g.lr_weight),
        ("learnable_ttt_lr_bias", &g.lr_bias),
        ("learnable_token_idx", &g.token_idx),
        ("ttt_norm_weight", &g.norm_weight),
        ("ttt_norm_bias", &g.norm_bias),
        ("post_norm.weight", &g.post_norm_weight),
        ("post_norm.bias", &g.post_norm_bias),
    ] {
        all.insert(name.into(), wide(g));
    }
    if c.decay {
        all.insert("learnable_decay".into(), wide(&g.decay));
    }
    for (conv, name) in g.convs.iter().flatten().zip(["conv_q", "conv_k"]) {
        all.insert(format!("{name}.weight"), wide(&conv.weight));
        all.insert(format!("{name}.bias"), wide(&conv.bias));
    }
    all
}

/// The parameters one after the other.
fn flat(p: &TttParameters) -> Vec<f32> {
    let mut all = p.inner.concat();
    for part in
        [&p.lr_weight, &p.lr_bias, &p.token_idx, &p.norm_weight, &p.norm_bias, &p.post_norm_weight, &p.post_norm_bias]
    {
        all.extend_from_slice(part);
    }
    all.extend_from_slice(&p.decay);
    for conv in p.convs.iter().flatten() {
        all.extend_from_slice(&conv.weight);
        all.extend_from_slice(&conv.bias);
    }
    all
}

/// All gradients by name, candle's.
fn by_autograd(t: &Texts) -> BTreeMap<String, Vec<f64>> {
    let x = Var::from_tensor(&t.x).unwrap();
    let y = t.case.layer.forward(x.as_tensor()).unwrap();
    let c = Tensor::from_vec(t.c.clone(), y.dims(), &Device::Cpu).unwrap();
    let grads = (y * c).unwrap().sum_all().unwrap().backward().unwrap();
    let lock = t.case.vars.data().lock().unwrap();
    let mut all: BTreeMap<_, _> =
        lock.iter().map(|(name, var)| (name.clone(), f64s(grads.get(var).unwrap()))).collect();
    all.insert("x".into(), f64s(grads.get(&x).unwrap()));
    all
}

/// Every part of a layer in small sizes, whole and incomplete mini-batches, and the sizes of a model: each tensor's
/// gradient as a whole within 1e-4. The forward pass is in f32: rounding, 6e-8, is carried through four mini-batches by
/// standardised rows, whose inverse deviations here are below ten.
#[test]
fn gradients_are_those_of_autograd() {
    let mut cases: Vec<_> = (0..32).map(|v| (config(v, 2, 4, 3), 8)).collect();
    cases.extend([(config(6, 2, 16, 16), 40), (config(7, 1, 32, 5), 15), (config(0, 3, 6, 4), 1)]);
    cases.extend([(config(22, 2, 16, 16), 70), (config(23, 1, 32, 5), 15)]);
    for (i, (config, tokens)) in cases.into_iter().enumerate() {
        let t = Texts::new(&config, tokens, 70 + i as u64);
        let want = by_autograd(&t);
        let got = by_hand(&t, Ops::selected().unwrap());
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        for (name, want) in &want {
            let got = &got[name];
            assert_eq!(got.len(), want.len(), "{name}");
            let square = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
            let size = square(&mut want.iter().copied());
            // One token alone does not learn; its update still changes its own output.
            let error = square(&mut got.iter().zip(want).map(|(g, w)| g - w));
            assert!(error <= 1e-4 * size + 1e-6, "case {i}, {config:?}, {name}: error {error}, size {size}");
        }
    }
}

/// The forward pass has the bits of inference, and gradients have the same bits on every instruction set.
#[test]
fn the_forward_pass_is_that_of_inference() {
    for variant in [0, 3, 6, 15, 22, 31] {
        let config = config(variant, 2, 20, 5);
        let t = Texts::new(&config, 13, 7 + variant as u64);
        let (w, hidden) = (config.width(), config.hidden_size);
        let rows = RowWise::new(&config, &t.case.layer.parameters().unwrap()).unwrap();
        let x: Vec<f32> = f64s(&t.x).iter().map(|v| *v as f32).collect();
        let mut out = vec![0.0; BATCH * 13 * w];
        let inputs = Inputs::side_by_side(&config, &x, &t.projected);
        rows.forward_taped(&inputs, &[13; BATCH], &mut out, &mut Tape::default(), &mut Workspace::new(&config));
        let columns = t.projected.len() / (BATCH * 13);
        for i in 0..BATCH {
            let part = |x: &'_ [f32], k: usize| x[i * 13 * k..(i + 1) * 13 * k].to_vec();
            let (x, projected) = (part(&x, hidden), part(&t.projected, columns));
            let mut alone = vec![0.0; 13 * w];
            let inputs = Inputs::side_by_side(&config, &x, &projected);
            rows.forward(&mut TttState::new(&rows), &inputs, &mut alone, &mut [Scratch::new(&config)], None);
            assert!(alone == part(&out, w), "variant {variant}, text {i}");
        }
        let first = by_hand(&t, Ops::for_isa(Isa::Scalar).unwrap());
        for isa in Isa::available() {
            assert!(first == by_hand(&t, Ops::for_isa(isa).unwrap()), "variant {variant}, {isa:?}");
        }
    }
}
