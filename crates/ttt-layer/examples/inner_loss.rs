//! The layer learns while it reads: inner losses over the mini-batches of a text.
//!
//! `cargo run --release -p ttt-layer --example inner_loss`
//!
//! The text is 24 symbols in random order, 512 tokens of them. Keys and values are noise that depends on the symbol, so
//! a model that remembers which value came with which key does better from the second time on. Nothing was trained:
//! inner weights begin at random, and the decrease of the loss is what the state alone has learned. The second column
//! is the same layer with an inner learning rate of almost zero.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap, linear_no_bias};
use ttt_layer::{Inputs, Kind, RowWise, Rows, Scratch, TttConfig, TttError, TttLayer, TttState};

const SYMBOLS: u64 = 24;
const TOKENS: usize = 512;
const HEAD_DIM: usize = 32;
const HEADS: usize = 2;

/// Uniform in -1..1 (splitmix64 of a seed).
fn noise(seed: u64) -> f32 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Mean inner loss of each mini-batch.
fn losses(kind: Kind, base_lr: f32) -> Result<Vec<f32>, TttError> {
    let mut config = TttConfig::new(kind, HEADS, HEAD_DIM);
    config.base_lr = base_lr;
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let layer = TttLayer::new(&config, vb, |_, i, o, vb| linear_no_bias(i, o, vb))?;
    let rows = RowWise::new(&config, &layer.parameters()?)?;
    let w = config.width();
    let table = |salt: u64| -> Vec<f32> {
        let symbol = |t: usize| (noise(t as u64) * 1e6).abs() as u64 % SYMBOLS;
        (0..TOKENS * w).map(|i| noise(salt + symbol(i / w) * 1000 + (i % w) as u64)).collect()
    };
    let (x, k, v) = (table(1 << 20), table(2 << 20), table(3 << 20));
    let inputs = Inputs { x: &x, q: Rows::new(&k, w), k: Rows::new(&k, w), v: Rows::new(&v, w), gate: None };
    let mut out = vec![0.0; TOKENS * w];
    let losses = rows.forward_with_losses(&mut TttState::new(&rows), &inputs, &mut out, &mut Scratch::new(&config));
    let per_batch = config.mini_batch_size * HEADS;
    Ok(losses.chunks_exact(per_batch).map(|batch| batch.iter().sum::<f32>() / per_batch as f32).collect())
}

fn main() -> Result<(), TttError> {
    for (kind, base_lr) in [(Kind::Linear, 8.0), (Kind::Mlp, 2.0)] {
        let (learning, frozen) = (losses(kind, base_lr)?, losses(kind, 1e-9)?);
        println!("TTT-{}, inner loss by mini-batch: learning, and not", kind.name());
        let scale = frozen.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        for (i, (loss, still)) in learning.iter().zip(&frozen).enumerate() {
            let bar = "#".repeat((loss / scale * 50.0) as usize);
            println!("{i:>4} {loss:>8.3} {still:>8.3}  {bar}");
        }
    }
    Ok(())
}
