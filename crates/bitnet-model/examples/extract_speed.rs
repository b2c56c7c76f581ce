//! The time that an extractor takes for a call, on one thread, with random weights: in the shape of the shipped English
//! file, one layer, and in the usual shape of two.
//!
//! ```text
//! cargo run --release -p bitnet-model --example extract_speed
//! BITNET_ISA=avx2 cargo run --release -p bitnet-model --example extract_speed
//! ```

use bitnet_model::encoder::{Extractor, ExtractorConfig, ExtractorWeights, TaskConfig, Utterance};
use measure::Turns;

const CALLS: usize = 2000;

fn main() -> Result<(), bitnet_model::ModelError> {
    let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect();
    // As many as in SNIPS, and as in CLINC150.
    let tasks = vec![
        TaskConfig::new("slots", names("i", 7), names("s", 39)),
        TaskConfig::new("intents", names("i", 150), vec![]),
    ];
    for (layers, buckets) in [(1, 27_000), (2, 16_384)] {
        let config = ExtractorConfig { num_layers: layers, buckets, ..ExtractorConfig::new(tasks.clone()) };
        let extractor = Extractor::new(ExtractorWeights::synthetic(config, 1)?)?;
        println!("layers: {layers}; {}, {} KiB of weights", extractor.kernel(), extractor.byte_len() / 1024);
        time_calls(&extractor)?;
    }
    Ok(())
}

fn time_calls(extractor: &Extractor) -> Result<(), bitnet_model::ModelError> {
    let mut scratch = extractor.scratch();
    let mut utterance = Utterance::default();
    for text in [
        "stop",
        "play some jazz by miles davis on spotify right now",
        "青空文庫って知ってる?",
        &"one more word ".repeat(20),
    ] {
        utterance.read(text, extractor.config().features());
        let words = utterance.words().len();
        let (p50, p99) = quantiles(|| utterance.read(text, extractor.config().features()));
        println!("{words:>3} words, reading alone: p50 {p50:>7.1} us, p99 {p99:>7.1} us");
        for (task, config) in extractor.config().tasks.iter().enumerate() {
            let mut failed = None;
            let (p50, p99) =
                quantiles(|| failed = failed.take().or(extractor.extract_into(task, text, &mut scratch).err()));
            if let Some(error) = failed {
                return Err(error);
            }
            println!("{words:>3} words, task {:<13}: p50 {p50:>7.1} us, p99 {p99:>7.1} us", config.name);
        }
    }
    Ok(())
}

/// Microseconds that half of the calls, and 99 of 100, do not exceed.
fn quantiles(call: impl FnMut()) -> (f64, f64) {
    let samples = Turns::new(CALLS).warm_once().time_one(call).map(|seconds| seconds * 1e6);
    (samples.median(), samples.percentile(0.99))
}
