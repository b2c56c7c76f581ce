//! The state of a model with test-time training learns: inner losses over the mini-batches of a text.
//!
//! ```text
//! cargo run --release -p bitnet --features tiny-model --example state_learns -- TEXT [--model FILE] [--texts N]
//!     [--tokens N] [--svg FILE]
//! ```
//!
//! A layer's state is a small model that learns to predict a value from a key. Its loss on a token before it learns from that
//! token is averaged over the heads and over the texts (pieces of the file of so many tokens, each read from an empty
//! state). Dashed: the same layer with its state held still.

use bitnet::{KvType, Model, Sequence};
use measure::plot::{Curve, Frame, svg};

/// For each layer the mean inner loss of each mini-batch.
fn losses(model: &Model, texts: &[&[u32]]) -> Result<Vec<Vec<f64>>, bitnet::Error> {
    let (heads, b) = (model.config().num_attention_heads, model.config().ttt.mini_batch_size);
    let mut means: Vec<Vec<f64>> = Vec::new();
    for text in texts {
        let layers = Sequence::new(model.engine(), KvType::F32, None).feed_watched(text)?;
        means.resize(layers.len(), vec![0.0; text.len() / b]);
        for (mean, layer) in means.iter_mut().zip(layers) {
            for (mean, batch) in mean.iter_mut().zip(layer.chunks_exact(b * heads)) {
                *mean += batch.iter().map(|l| f64::from(*l)).sum::<f64>() / (batch.len() * texts.len()) as f64;
            }
        }
    }
    Ok(means)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut text, mut path, mut count, mut tokens, mut picture) = (None, None, 64, 512, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--model" => path = Some(value()?),
            "--texts" => count = value()?.parse()?,
            "--tokens" => tokens = value()?.parse()?,
            "--svg" => picture = Some(value()?),
            _ => text = Some(arg),
        }
    }
    let text = std::fs::read_to_string(text.ok_or("which text?")?)?;
    let load = |updates: bool| -> Result<Model, Box<dyn std::error::Error>> {
        let builder = Model::builder().inner_updates(updates);
        #[cfg(feature = "tiny-model")]
        if path.is_none() {
            return Ok(builder.load_bytes(bitnet::TINY_MODEL)?);
        }
        Ok(builder.load(path.as_ref().ok_or("which model?")?)?)
    };
    let model = load(true)?;
    if !model.config().has_ttt() {
        return Err("this model has no layers of test-time training".into());
    }
    let ids = model.encode(&text, false)?;
    let texts: Vec<&[u32]> = ids.chunks_exact(tokens).take(count).collect();
    let (learning, still) = (losses(&model, &texts)?, losses(&load(false)?, &texts)?);

    println!(
        "inner loss by mini-batch, {} texts of {tokens} tokens; in parentheses with the state held still",
        texts.len()
    );
    let b = model.config().ttt.mini_batch_size;
    for batch in 0..tokens / b {
        let row = learning.iter().zip(&still).map(|(l, s)| format!("{:9.3} ({:.3})", l[batch], s[batch]));
        println!("{:>6}{}", batch * b, row.collect::<String>());
    }
    if let Some(picture) = picture {
        let mut curves = Vec::new();
        for (layer, (learning, still)) in learning.iter().zip(&still).enumerate() {
            for (losses, dashed) in [(learning, false), (still, true)] {
                let points = losses.iter().enumerate().map(|(i, l)| ((i * b) as f64, *l)).collect();
                let name = format!("layer {layer}{}", if dashed { ", held still" } else { "" });
                curves.push(Curve { name, points, dashed, colour: layer });
            }
        }
        let frame =
            Frame { title: "The state learns while it reads", x: "tokens read before", y: "inner loss", log_x: false };
        std::fs::write(picture, svg(&frame, &curves)?)?;
    }
    Ok(())
}
