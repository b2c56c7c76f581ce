//! Loss by position: the loss of models on a text that is longer than those of their training.
//!
//! ```text
//! cargo run --release -p bitnet --example positions -- TEXT --models MODEL[,MODEL] [--window 2048] [--stretch 128]
//!     [--between ID] [--limit TOKENS] [--frozen] [--svg FILE]
//! ```
//!
//! The text is divided into windows, and losses of the same position in a window are averaged over all windows.
//! `--between` puts a token where the text has a line `<|endoftext|>`; otherwise such lines are left out. If a model of
//! attention has no positions for a window, the window is shortened for it. A model may be named, as in
//! `small=model.gguf`.

use std::ops::ControlFlow;

use bitnet::{KvType, Model, Perplexity, perplexity_by_position};
use measure::plot::{Curve, Frame, svg};

const END: &str = "<|endoftext|>";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut text, mut models, mut picture, mut between) = (None, Vec::new(), None, None);
    let (mut window, mut stretch, mut limit, mut frozen) = (2048, 128, usize::MAX, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--models" => models = value()?.split(',').map(str::to_owned).collect(),
            "--window" => window = value()?.parse()?,
            "--stretch" => stretch = value()?.parse()?,
            "--limit" => limit = value()?.parse()?,
            "--between" => between = Some(value()?.parse::<u32>()?),
            "--frozen" => frozen = true,
            "--svg" => picture = Some(value()?),
            _ => text = Some(arg),
        }
    }
    let text = std::fs::read_to_string(text.ok_or("which text?")?)?;
    let mut curves = Vec::new();
    for (colour, model) in models.iter().enumerate() {
        let (name, path) = model.split_once('=').unwrap_or((model.as_str(), model.as_str()));
        for updates in if frozen { vec![true, false] } else { vec![true] } {
            let model = Model::builder().inner_updates(updates).load(path)?;
            if !updates && !model.config().has_ttt() {
                continue;
            }
            let mut ids = Vec::new();
            for document in text.split(END) {
                ids.extend(model.encode(document.trim(), false)?);
                ids.extend(between);
            }
            ids.truncate(limit);
            let window = window.min(model.context());
            let go_on = &mut |_, _| ControlFlow::Continue(());
            let losses = perplexity_by_position(model.engine(), &ids, [window, stretch], KvType::F32, go_on)?;
            let name = format!("{name}{}", if updates { "" } else { ", no inner updates" });
            let all = Perplexity::of_all(&losses);
            println!("{name}: {:.4} nats over {} tokens in windows of {window}", all.nats_per_token, all.tokens);
            for (i, p) in losses.iter().enumerate() {
                println!("{:>8} {:>8.4} {:>8}", i * stretch, p.nats_per_token, p.tokens);
            }
            let middle = |i: usize| (i as f64 + 0.5) * stretch as f64;
            curves.push(Curve {
                points: losses.iter().enumerate().map(|(i, p)| (middle(i), p.nats_per_token)).collect(),
                colour,
                dashed: !updates,
                name,
            });
        }
    }
    if let Some(path) = picture {
        let frame = Frame { title: "Loss by position", x: "tokens read before", y: "nats per token", log_x: false };
        std::fs::write(path, svg(&frame, &curves)?)?;
    }
    Ok(())
}
