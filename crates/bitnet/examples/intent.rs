//! The meaning of an utterance as a value: a function call to a small model in this process, without a server and
//! without async.
//!
//! ```text
//! cargo run --release -p bitnet --features constrain --example intent -- "play sme jazz by miles davis"
//! ```

use std::collections::BTreeMap;

use bitnet::{Constraint, GenerateOptions, Model};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
const SLOTS: &str = include_str!("../../../models/intent/slots.lark");

/// Intent of an English utterance.
#[derive(Debug, Serialize, Deserialize)]
struct Meaning {
    intent: String,
    slots: BTreeMap<String, String>,
}

/// The most probable answer that the grammar allows: only JSON, known names, and values from the text.
fn ask<T: DeserializeOwned>(
    model: &Model,
    grammar: &Constraint,
    task: &str,
    text: &str,
) -> Result<T, Box<dyn std::error::Error>> {
    // All of the grammar but the text is compiled at the first call and kept.
    let constraint = grammar.clone().with_text_in_json("TEXT", text);
    let options = GenerateOptions::default().temperature(0.0).max_tokens(160).constraint(constraint);
    let answer = model.session().generate(&format!("{task}{text}\n"), options)?.finish()?;
    Ok(serde_json::from_str(&answer.text.unwrap_or_default())?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::load(format!("{MODELS}/intent/intent.gguf"))?;
    let slots = Constraint::lark(SLOTS);
    for text in std::env::args().skip(1) {
        let text = text.replace(char::is_whitespace, " ");
        let meaning: Meaning = ask(&model, &slots, "slots\n", &text)?;
        println!("{}", serde_json::to_string(&meaning)?);
    }
    Ok(())
}
