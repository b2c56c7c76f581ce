//! Schemas, patterns and grammars: a text that follows them, or an error; never a panic, and never for long.
#![no_main]

use std::sync::OnceLock;

use bitnet::{Constraint, GenerateOptions, Model};
use libfuzzer_sys::fuzz_target;

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::builder().threads(1).load_bytes(bitnet::TINY_MODEL).expect("the small model loads"))
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, source)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(source) else { return };
    let constraint = match kind % 3 {
        0 => Constraint::lark(text),
        1 => Constraint::regex(text),
        _ => match serde_json::from_str(text) {
            Ok(schema) => Constraint::json_schema(&schema),
            Err(_) => return,
        },
    };
    let options = GenerateOptions::default().temperature(0.0).max_tokens(3).constraint(constraint);
    // A refusal is as good as a text.
    let _ = model().session().generate("Once", options).map(|generation| generation.finish());
});
