//! Loads a model and tells a story, in as little code as possible.
//!
//! ```text
//! cargo run --release -p bitnet --example story -- models/tinystories-5m.gguf "Once upon a time"
//! ```

use std::io::Write;

use bitnet::{Error, GenerateOptions, Model};

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "models/tinystories-5m.gguf".into());
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());

    let model = Model::load(path)?;
    let mut session = model.session();
    print!("{prompt}");
    let mut story = session.generate(&prompt, GenerateOptions::default().max_tokens(200))?;
    for chunk in story.by_ref() {
        print!("{}", chunk?.text);
        let _ = std::io::stdout().flush();
    }
    let stats = story.stats();
    println!("\n\n{} tokens, {:.0} tokens/s", stats.new_tokens, stats.decode_tok_s());
    Ok(())
}
