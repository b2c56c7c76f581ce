//! Constrained texts are valid, whatever the model or a processor prefers.

use std::collections::BTreeMap;

use bitnet::{
    Batch, CancelToken, Constraint, ConstraintError, Error, FinishReason, GenerateOptions, KvType, Message, Model,
    ModelError, Output, schemars::JsonSchema,
};
use serde::Deserialize;
use serde_json::{Value, json};

fn model() -> Model {
    Model::builder().threads(1).kv(KvType::F32).load_bytes(bitnet::TINY_MODEL).unwrap()
}

fn options(seed: u64) -> GenerateOptions {
    GenerateOptions::default().temperature(1.5).seed(seed).max_tokens(400)
}

/// Prefers forbidden tokens: different ones each time, above all the end of the text.
fn adversary(seed: u32) -> impl FnMut(&[u32], &mut [f32]) + Send + 'static {
    move |tokens, logits| {
        let n = logits.len() as u32;
        for (i, logit) in logits.iter_mut().enumerate() {
            let noise = (i as u32 ^ seed).wrapping_mul(2_654_435_761).wrapping_add(tokens.len() as u32 * 40_503) >> 16;
            *logit = match i % 7 {
                0 => f32::INFINITY,
                1 => 1e30,
                _ => (noise % n) as f32,
            };
        }
        logits[0] = f32::INFINITY;
    }
}

fn run(model: &Model, prompt: &str, options: GenerateOptions) -> Result<Output, Error> {
    model.session().generate(prompt, options)?.finish()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "intent": { "enum": ["weather", "music", "set an alarm \u{2603}"] },
            "sure": { "type": "boolean" },
            "count": { "type": "integer", "minimum": 0, "maximum": 120 },
            "topics": { "type": "array", "items": { "type": "string", "maxLength": 6 }, "maxItems": 3 },
            "note": { "anyOf": [{ "type": "null" }, { "type": "string", "maxLength": 4 }] }
        },
        "required": ["intent", "sure", "count", "topics", "note"],
        "additionalProperties": false
    })
}

/// Written out, not by the engine that made the text.
fn validate(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let object = value.as_object().unwrap();
    assert_eq!(object.keys().collect::<Vec<_>>(), ["intent", "sure", "count", "topics", "note"]);
    assert!(["weather", "music", "set an alarm \u{2603}"].contains(&value["intent"].as_str().unwrap()));
    assert!(value["sure"].is_boolean());
    assert!((0..=120).contains(&value["count"].as_i64().unwrap()));
    let short = |v: &Value, n: usize| v.as_str().unwrap().chars().count() <= n;
    let topics = value["topics"].as_array().unwrap();
    assert!(topics.len() <= 3 && topics.iter().all(|t| short(t, 6)));
    assert!(value["note"].is_null() || short(&value["note"], 4));
}

#[test]
fn json_is_what_the_schema_says_whatever_the_model_prefers() {
    let model = model();
    let constraint = Constraint::json_schema(&schema());
    let mut forced = 0;
    for seed in 0..12 {
        let free = options(seed).constraint(constraint.clone());
        let output = run(&model, "Say it: ", free).unwrap();
        validate(output.text.as_deref().unwrap());
        assert_eq!(
            (output.finish_reason, model.decode(&output.ids).unwrap()),
            (FinishReason::Stop, output.text.unwrap())
        );
        forced += output.stats.forced_tokens;

        let against = options(seed).constraint(constraint.clone()).processor(adversary(seed as u32));
        validate(run(&model, "Say it: ", against).unwrap().text.as_deref().unwrap());
        let mut without_end = options(seed).constraint(constraint.clone());
        without_end.ignore_eos = true;
        validate(run(&model, "Say it: ", without_end).unwrap().text.as_deref().unwrap());
    }
    assert!(forced > 12 * 10, "{forced} tokens were not computed");
}

/// A text that is cut off is an error, and the text generated before it is the beginning of a valid one.
#[test]
fn half_a_text_is_an_error() {
    let model = model();
    let constraint = Constraint::json_schema(&schema());
    let whole = run(&model, "Say it: ", options(3).constraint(constraint.clone())).unwrap();
    for max in 0..whole.ids.len() {
        let cut = options(3).max_tokens(max).constraint(constraint.clone());
        match run(&model, "Say it: ", cut) {
            Err(Error::Constraint(ConstraintError::Unfinished { reason: FinishReason::Length, text })) => {
                assert!(whole.text.as_ref().unwrap().starts_with(&text), "{text}");
            }
            other => panic!("{max}: {other:?}"),
        }
    }
    let exact = options(3).max_tokens(whole.ids.len()).constraint(constraint.clone());
    assert_eq!(run(&model, "Say it: ", exact).unwrap().text, whole.text);
    // As an iterator, the error comes after the pieces.
    let mut session = model.session();
    let cut = options(3).max_tokens(5).constraint(constraint.clone());
    let pieces: Vec<_> = session.generate("Say it: ", cut).unwrap().collect();
    assert_eq!((pieces.len(), pieces.iter().filter(|p| p.is_ok()).count()), (6, 5));
    // Cancelled from outside it is not a value either.
    let token = CancelToken::new();
    token.cancel();
    let cancelled = model.session().generate_json::<Thing>("Say it: ", options(1).cancel(&token));
    assert!(matches!(cancelled, Err(Error::Constraint(ConstraintError::Unfinished { .. }))), "{cancelled:?}");
    // If the text may end, a limit is not an error.
    let digits = options(1).max_tokens(4).constraint(Constraint::regex("[0-9]+"));
    let output = run(&model, "Count: ", digits).unwrap();
    assert!(!output.text.as_ref().unwrap().is_empty() && output.text.unwrap().chars().all(|c| c.is_ascii_digit()));
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
struct Thing {
    #[schemars(length(max = 8))]
    name: String,
    kind: Kind,
    #[schemars(range(min = -5, max = 5))]
    size: i8,
    #[schemars(length(max = 2))]
    parts: Vec<Part>,
    weight: Option<bool>,
    marks: BTreeMap<Corner, bool>,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
enum Kind {
    Small,
    Named(#[schemars(length(max = 5))] String),
    Round { wide: bool },
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
struct Part {
    good: bool,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
enum Corner {
    Left,
    Right,
}

#[test]
fn values_of_types_come_out() {
    let model = model();
    for seed in 0..6 {
        let thing: Thing = model.session().generate_json("A thing. ", options(seed)).unwrap();
        assert!((-5..=5).contains(&thing.size) && thing.parts.len() <= 2 && thing.name.chars().count() <= 8);
        let n: Vec<u8> =
            model.session().generate_json("A thing. ", options(seed).processor(adversary(5))).unwrap_or_default();
        assert!(n.len() < 400);
    }
    let template = "{% for m in messages %}{{ m.content }} {% endfor %}";
    let talking = Model::builder().threads(1).chat_template(template).load_bytes(bitnet::TINY_MODEL).unwrap();
    let said: bool = talking.session().chat_json(&[Message::user("Is it good?")], options(2)).unwrap();
    assert!([true, false].contains(&said));
    // A type may reject what its schema allows.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(try_from = "u8")]
    struct Never;
    impl TryFrom<u8> for Never {
        type Error = String;
        fn try_from(_: u8) -> Result<Self, String> {
            Err("never".into())
        }
    }
    let refused = model.session().generate_json::<Never>("A thing. ", options(1));
    assert!(matches!(refused, Err(Error::Constraint(ConstraintError::Type { .. }))), "{refused:?}");
}

#[test]
fn expressions_and_grammars_are_followed() {
    let model = model();
    let date = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        parts.len() == 3
            && [4, 2, 2].iter().zip(&parts).all(|(n, p)| p.len() == *n && p.bytes().all(|b| b.is_ascii_digit()))
    };
    let balanced = |text: &str| {
        let mut depth = 0i32;
        text.bytes().all(|b| {
            depth += if b == b'(' { 1 } else { -1 };
            b"()".contains(&b) && depth >= 0
        }) && depth == 0
    };
    for seed in 0..5 {
        let output = run(&model, "On ", options(seed).constraint(Constraint::regex(r"\d{4}-\d{2}-\d{2}"))).unwrap();
        assert!(date(output.text.as_deref().unwrap()), "{output:?}");
        let grammar = "start: group\ngroup: \"(\" group? \")\"";
        let against = options(seed).constraint(Constraint::lark(grammar)).processor(adversary(9));
        match run(&model, "Nested: ", against) {
            Ok(output) => assert!(balanced(output.text.as_deref().unwrap()), "{output:?}"),
            Err(Error::Constraint(ConstraintError::Unfinished { text, .. })) => {
                assert!(text.starts_with('('), "{text}")
            }
            Err(error) => panic!("{error}"),
        }
        // Characters of several tokens, and a space in front.
        let japanese =
            run(&model, "これは", options(seed).constraint(Constraint::regex(" (青空文庫|走れメロス)です"))).unwrap();
        assert!([" 青空文庫です", " 走れメロスです"].contains(&japanese.text.as_deref().unwrap()));
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_a_reason() {
    let model = model();
    let reason = |options: GenerateOptions| match run(&model, "x", options) {
        Err(error @ Error::Constraint(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let with = |c: Constraint| options(1).constraint(c);
    assert!(reason(with(Constraint::regex("(unclosed"))).contains("cannot be used"));
    assert!(reason(with(Constraint::lark("no start rule"))).contains("cannot be used"));
    let unknown = json!({ "type": "array", "uniqueItems": true });
    assert!(reason(with(Constraint::json_schema(&unknown))).contains("uniqueItems"));
    assert!(reason(with(Constraint::json_schema(&json!({ "type": "colour" })))).contains("cannot be used"));
    assert!(reason(with(Constraint::regex("a")).stop("b")).contains("a stop text"));
    assert!(reason(with(Constraint::regex("a")).stop_when(|_, _| true)).contains("stop_when"));
    // A processor that forbids all that is allowed leaves nothing, and not something else.
    let nothing = with(Constraint::regex("a")).processor(|_: &[u32], l: &mut [f32]| l.fill(f32::NEG_INFINITY));
    let error = run(&model, "x", nothing.logit_bias(3, 1.0));
    assert!(matches!(error, Err(Error::Model(ModelError::Sampling { .. })) | Ok(_)), "{error:?}");
}

/// Forced tokens are those that the model would have been left with anyway, and the session goes on after them as after
/// any.
#[test]
fn forced_tokens_are_part_of_the_session() {
    let model = model();
    let constraint = Constraint::regex("The quick brown fox jumps over the (lazy|happy) dog\\.");
    let mut session = model.session();
    let output =
        session.generate("Well: ", options(4).logprobs(1).constraint(constraint.clone())).unwrap().finish().unwrap();
    assert!(output.stats.forced_tokens > 10 && output.stats.forced_tokens < output.ids.len());
    assert_eq!(output.logprobs.iter().filter(|l| l.logprob.is_none()).count(), output.stats.forced_tokens);
    let mut fresh = model.session();
    let ids = [model.encode("Well: ", true).unwrap(), output.ids.clone()].concat();
    assert_eq!(session.tokens(), ids);
    fresh.feed_ids(&ids).unwrap();
    assert_eq!(session.feed_ids(&[7]).unwrap(), fresh.feed_ids(&[7]).unwrap());
    // Left in the middle, with tokens that nothing has read yet.
    let mut left = model.session();
    left.generate("Well: ", options(4).constraint(constraint.clone())).unwrap().take(4).for_each(|c| drop(c.unwrap()));
    let saved = left.save().unwrap();
    let mut again = model.restore_session(&saved).unwrap();
    assert_eq!(again.tokens(), &ids[..left.len()]);
    assert_eq!(left.feed_ids(&[7]).unwrap(), again.feed_ids(&[7]).unwrap());
    // In a batch with a free text.
    let mut batch = Batch::new(&model);
    let prompt = model.encode("Well: ", true).unwrap();
    let one = batch.join(model.session(), &prompt, options(4).constraint(constraint)).unwrap();
    let two = batch.join(model.session(), &prompt, options(4).max_tokens(20)).unwrap();
    while !batch.is_finished() {
        batch.step().into_iter().for_each(|(_, chunk)| drop(chunk.unwrap()));
    }
    assert_eq!(batch.leave(one).unwrap().1.ids, output.ids);
    assert_eq!(batch.leave(two).unwrap().1.ids, run(&model, "Well: ", options(4).max_tokens(20)).unwrap().ids);
}
