//! How fast one layer reads: microseconds per token and thread, without the projections.
//!
//! `cargo run --release -p ttt-layer --example throughput [KIND]`, where `KIND` is `linear` or `mlp`

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap, linear_no_bias};
use measure::Turns;
use ttt_layer::{Inputs, Kind, RowWise, Rows, Scratch, TttConfig, TttError, TttLayer, TttState};

fn main() -> Result<(), TttError> {
    let only = std::env::args().nth(1);
    println!("{:<8} {:>5} {:>5} {:>8} {:>10} {:>12}", "kind", "heads", "d", "tokens", "us/token", "state bytes");
    for (kind, heads, head_dim) in
        [(Kind::Linear, 4, 64), (Kind::Linear, 8, 32), (Kind::Linear, 12, 64), (Kind::Mlp, 4, 64), (Kind::Mlp, 8, 32)]
    {
        if only.as_deref().is_some_and(|only| only != kind.name()) {
            continue;
        }
        for tokens in [1, 16, 256] {
            let config = TttConfig::new(kind, heads, head_dim);
            let us = measure(&config, tokens)?;
            let bytes = config.state_bytes()?;
            println!("{:<8} {heads:>5} {head_dim:>5} {tokens:>8} {us:>10.3} {bytes:>12}", kind.name());
        }
    }
    Ok(())
}

/// Microseconds per token, the median of nine runs.
fn measure(config: &TttConfig, tokens: usize) -> Result<f64, TttError> {
    let vb = VarMap::new();
    let vb = VarBuilder::from_varmap(&vb, DType::F32, &Device::Cpu);
    let layer = TttLayer::new(config, vb, |_, i, o, vb| linear_no_bias(i, o, vb))?;
    let rows = RowWise::new(config, &layer.parameters()?)?;
    let mut state = TttState::new(&rows);
    let w = config.width();
    let noise = |seed: f32| (0..tokens * w).map(|i| (seed * i as f32).sin()).collect::<Vec<f32>>();
    let (x, q, k, v) = (noise(0.37), noise(1.31), noise(2.17), noise(0.91));
    let inputs = Inputs { x: &x, q: Rows::new(&q, w), k: Rows::new(&k, w), v: Rows::new(&v, w), gate: None };
    let mut out = vec![0.0; tokens * w];
    let mut scratch = [Scratch::new(config)];
    let calls = 4096 / tokens;
    let samples = Turns::new(9).warm_once().time_one(|| {
        for _ in 0..calls {
            rows.forward(&mut state, &inputs, &mut out, &mut scratch, None);
        }
    });
    Ok(1e6 * samples.median() / (calls * tokens) as f64)
}
