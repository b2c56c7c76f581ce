//! A grammar with a placeholder for a text allows the same as the grammar with the text in it.

use bitnet::{Constraint, ConstraintError, Error, GenerateOptions, KvType, Model};
use proptest::prelude::*;

fn model() -> Model {
    Model::builder().threads(1).kv(KvType::F32).load_bytes(bitnet::TINY_MODEL).unwrap()
}

/// The text, and the largest logit that was left at each step: another mask gives another of these somewhere.
fn generate(model: &Model, constraint: Constraint, seed: u64) -> Result<(String, Vec<u64>), String> {
    let allowed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = allowed.clone();
    let options =
        GenerateOptions::default().temperature(2.0).seed(seed).max_tokens(48).constraint(constraint).processor(
            move |tokens: &[u32], logits: &mut [f32]| {
                // Prefers different tokens each time, whatever the model prefers.
                for (i, logit) in logits.iter_mut().enumerate() {
                    *logit =
                        ((i as u64 * 2_654_435_761 + tokens.len() as u64 * 40_503 + seed * 97) % 1009) as f32 / 100.0;
                }
                seen.lock().unwrap().push(tokens.len() as u64);
            },
        );
    let text = match model.session().generate("Once", options).and_then(|g| g.finish()) {
        Ok(output) => format!("{:?}", output.ids),
        Err(Error::Constraint(ConstraintError::Unfinished { text, .. })) => format!("{text:?}..."),
        Err(error) => return Err(error.to_string()),
    };
    let steps = allowed.lock().unwrap().clone();
    Ok((text, steps))
}

const GRAMMARS: &[&str] = &[
    "start: \"{\\\"a\\\":\\\"\" VALUE \"\\\"}\"\nVALUE: %regex { \"substring_words\": @TEXT }",
    "start: \"<\" T \">\" (\",\" T){0,2}\nT: %regex {\"substring_chars\": @TEXT}",
    // Next to other lexemes, ambiguous ones among them.
    "start: (A | \"the\" | /[a-z]+/) \"!\" A\nA: %regex {\"substring_chars\": @TEXT}",
    "start: %regex {\"substring_words\": @TEXT} \" and \" %regex {\"substring_chars\": @TEXT}",
    // As a part of another terminal, which is compiled again.
    "start: T\nT: \"(\" A \")\"\nA: %regex {\"substring_words\": @TEXT}",
    "start: A \".\"\nA: %regex {\"substring_chars\": @TEXT} & /.{0,9}/",
];

fn check(model: &Model, grammar: &str, text: &str, seed: u64) {
    let json = serde_json::Value::from(text).to_string();
    let replaced = generate(model, Constraint::lark(grammar.replace("@TEXT", &json)), seed);
    let given = generate(model, Constraint::lark(grammar).with_text("TEXT", text), seed);
    assert!(replaced.is_ok(), "{grammar:?} {text:?}: {replaced:?}");
    assert_eq!(given, replaced, "{grammar:?} {text:?}");
}

#[test]
fn texts_that_are_not_ordinary() {
    let model = model();
    for grammar in GRAMMARS {
        for text in [
            "",
            "a",
            "aaaa",
            "the",
            "the the",
            "say \"hi\" \\ there",
            "青空文庫って知ってる?",
            "\u{10f000}",
            "é\n\u{1}x",
            "weather in Oslo, please",
        ] {
            check(&model, grammar, text, 3);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_text(which in 0..GRAMMARS.len(), text in "[a-c \"\\\\é]{0,24}|\\PC{0,12}", seed in 0u64..1000) {
        thread_local!(static MODEL: Model = model());
        MODEL.with(|model| check(model, GRAMMARS[which], &text, seed));
    }
}

#[test]
fn texts_and_places_belong_together() {
    let model = model();
    let of = |c: Constraint| generate(&model, c, 1).unwrap_err();
    assert!(of(Constraint::lark(GRAMMARS[0])).contains("`@TEXT` is missing"));
    assert!(
        of(Constraint::lark(GRAMMARS[0]).with_text("OTHER", "x").with_text("TEXT", "y")).contains("no place `@OTHER`")
    );
    assert!(of(Constraint::regex("a").with_text("TEXT", "x")).contains("only a grammar"));
    let long = "ab ".repeat(20_000);
    assert!(of(Constraint::lark(GRAMMARS[0]).with_text("TEXT", &long)).contains("pieces"));
    // In JSON a text is written with JSON's escapes.
    let quoted = Constraint::lark(GRAMMARS[1]).with_text_in_json("TEXT", "a \"b\"");
    assert_eq!(
        generate(&model, quoted, 1),
        generate(&model, Constraint::lark(GRAMMARS[1]).with_text("TEXT", "a \\\"b\\\""), 1)
    );
}
