//! The cost of keys and values in fewer bits: the loss of a model, how often its likeliest token is that of f32, and the distance of its
//! logits from those of f32.
//!
//! ```text
//! cargo run --release -p bitnet --example kv_error -- MODEL TEXT [--window 256] [--limit TOKENS]
//! ```
//!
//! The text is divided into windows that are read for themselves. The distance is the root of the mean square of the differences over
//! that of the logits of f32, whose mean is taken off.

use bitnet::{KvType, Model, Sequence};

/// Sums over all positions.
#[derive(Clone, Copy, Default)]
struct Sums {
    nats: f64,
    same: usize,
    differences: f64,
    squares: f64,
}

fn best(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap_or(0)
}

/// Minus the logarithm of the probability of `token`.
fn nats(logits: &[f32], token: u32) -> f64 {
    let most = f64::from(logits[best(logits)]);
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - most).exp()).sum();
    sum.ln() + most - f64::from(logits[token as usize])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut files, mut window, mut limit) = (Vec::new(), 256, usize::MAX);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--window" => window = value()?.parse()?,
            "--limit" => limit = value()?.parse()?,
            _ => files.push(arg),
        }
    }
    let [model, text] = &files[..] else { return Err("a model and a text, please".into()) };
    let model = Model::builder().load(model)?;
    let mut ids = model.encode(&std::fs::read_to_string(text)?, false)?;
    ids.truncate(limit);
    let vocab = model.config().vocab_size;
    let mut all = [Sums::default(); KvType::ALL.len()];
    let mut positions = 0;
    for part in ids.chunks(window + 1).filter(|part| part.len() > 1) {
        let (read, next) = (&part[..part.len() - 1], &part[1..]);
        positions += next.len();
        let exact = Sequence::new(model.engine(), KvType::F32, None).feed_each(read)?;
        for (sums, kv) in all.iter_mut().zip(KvType::ALL) {
            let logits = Sequence::new(model.engine(), kv, None).feed_each(read)?;
            for ((got, want), token) in logits.chunks(vocab).zip(exact.chunks(vocab)).zip(next) {
                let mean = want.iter().map(|l| f64::from(*l)).sum::<f64>() / vocab as f64;
                sums.nats += nats(got, *token);
                sums.same += usize::from(best(got) == best(want));
                for (got, want) in got.iter().zip(want) {
                    sums.differences += (f64::from(*got) - f64::from(*want)).powi(2);
                    sums.squares += (f64::from(*want) - mean).powi(2);
                }
            }
        }
    }
    println!("{positions} positions in windows of {window}");
    for (sums, kv) in all.iter().zip(KvType::ALL) {
        println!(
            "{:>5}: {:.5} nats, likeliest token as with f32 in {:.3} %, distance of logits {:.5}",
            kv.name(),
            sums.nats / positions as f64,
            100.0 * sums.same as f64 / positions as f64,
            (sums.differences / sums.squares).sqrt(),
        );
    }
    Ok(())
}
