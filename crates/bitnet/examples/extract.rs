//! The meaning of utterances as values of a type: one function call each, including typing errors and Japanese.
//!
//! ```text
//! cargo run --release -p bitnet --example extract -- models/intent/extractor.gguf "add clem burke to my playlst"
//! ```

use std::collections::BTreeMap;

use bitnet::Extractor;

/// The type that the application uses; an enum of the intents would work as well.
#[derive(Debug, serde::Deserialize)]
struct Request {
    intent: String,
    slots: BTreeMap<String, Vec<String>>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("which extractor? give a GGUF file or a folder")?;
    let extractor = Extractor::load(path)?;
    let mut texts: Vec<String> = args.collect();
    if texts.is_empty() {
        texts = ["play sme jazz by miles davis", "青空文庫って知ってる?"].map(Into::into).into();
    }
    for text in &texts {
        match extractor.extract_as::<Request>(text)? {
            Some(request) => println!("{text}: {} {:?}", request.intent, request.slots),
            None => println!("{text}: out of scope"),
        }
    }
    Ok(())
}
