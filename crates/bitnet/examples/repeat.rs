//! The gain of speculative decoding if a text repeats its prompt, as in extraction or rewriting: the time of one token
//! with and without it.
//!
//! `cargo run --release -p bitnet --example repeat -- model.gguf [TOKENS]`. So that any model can be measured, a
//! processor makes it copy the prompt; it needs all logits, with drafts and without.

use bitnet::{Error, GenerateOptions, Model, Speculation};

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "models/tinystories-5m.gguf".into());
    let n = args.next().and_then(|n| n.parse().ok()).unwrap_or(64);
    let model = Model::load(path)?;
    let vocab = model.config().vocab_size;
    let prompt: Vec<u32> = (0..n).map(|i| (i * 7919 % vocab) as u32).collect();
    let mut plain = None;
    for max_draft in [0, 3, 7, 15] {
        let copy = {
            let prompt = prompt.clone();
            move |text: &[u32], logits: &mut [f32]| logits[prompt[text.len() % prompt.len()] as usize] = f32::MAX
        };
        let mut options = GenerateOptions::default().temperature(0.0).max_tokens(n).processor(copy);
        options.ignore_eos = true;
        options.speculation = Speculation::PromptLookup { max_draft };
        let output = model.session().generate_ids(&prompt, options)?.finish()?;
        assert_eq!(output.ids, prompt, "the same text, however it is made");
        let rate = output.stats.decode_tok_s();
        let times = rate / *plain.get_or_insert(rate);
        println!("at most {max_draft:2} draft tokens: {rate:7.1} tokens/s, {times:.2} times as fast as without");
    }
    Ok(())
}
