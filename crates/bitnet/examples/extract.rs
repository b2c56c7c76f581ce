//! The meaning of utterances as values of a type: one function call each, including typing errors and Japanese.
//!
//! ```text
//! cargo run --release -p bitnet --example extract
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
    let asked = match args.next() {
        Some(model) => vec![(model, args.collect())],
        None => [
            ("models/intent/extractor.gguf", vec!["play sme jazz by miles davis"]),
            ("models/intent/extractor-ja.gguf", vec!["青空文庫って知ってる?", "青空文庫つて知ってるる？"]),
        ]
        .map(|(model, texts)| (model.to_owned(), texts.into_iter().map(str::to_owned).collect::<Vec<String>>()))
        .into(),
    };
    for (model, texts) in asked {
        let extractor = Extractor::load(model)?;
        for text in texts {
            match extractor.extract_as::<Request>(&text)? {
                Some(request) => println!("{text}: {} {:?}", request.intent, request.slots),
                None => println!("{text}: out of scope"),
            }
        }
    }
    Ok(())
}
