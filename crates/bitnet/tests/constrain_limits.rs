//! Sources that are too deep, too large or too expensive on purpose: each is answered or rejected, on a small stack.

use std::time::{Duration, Instant};

use bitnet::{Constraint, ConstraintError, ConstraintLimits, Error, GenerateOptions, KvType, Model};
use serde_json::{Map, Value, json};

fn model() -> Model {
    Model::builder().threads(1).kv(KvType::F32).load_bytes(bitnet::TINY_MODEL).unwrap()
}

/// Runs `f` on a small stack.
fn small<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(256 << 10).spawn(f).unwrap().join().unwrap()
}

fn generate(model: &Model, constraint: Constraint, max_tokens: usize) -> Result<String, ConstraintError> {
    let options = GenerateOptions::default().temperature(1.0).seed(1).max_tokens(max_tokens).constraint(constraint);
    match model.session().generate("Once", options).and_then(|g| g.finish()) {
        Ok(output) => Ok(output.text.unwrap_or_default()),
        Err(Error::Constraint(ConstraintError::Unfinished { text, .. })) => Ok(text),
        Err(Error::Constraint(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

/// A chain of definitions, each made from the name of the next.
fn chain(n: usize, link: impl Fn(Value) -> Value) -> Constraint {
    let name = |i: usize| json!({"$ref": format!("#/$defs/a{i}")});
    let mut all: Map<String, Value> = (0..n).map(|i| (format!("a{i}"), link(name(i + 1)))).collect();
    all.insert(format!("a{n}"), json!({"type": "integer"}));
    Constraint::json_schema(&json!({"$defs": all, "$ref": "#/$defs/a0"}))
}

fn map(n: usize, one: impl Fn(usize) -> (String, Value)) -> Value {
    Value::Object((0..n).map(one).collect())
}

fn lark_chain(n: usize, name: &str) -> Constraint {
    let links: String = (0..n).map(|i| format!("{name}{i}: {name}{}\n", i + 1)).collect();
    Constraint::lark(format!("start: {name}0\n{links}{name}{n}: \"a\"\n"))
}

type Kind = (&'static str, fn(usize) -> Constraint);

/// Kinds of sources by their size; each is rejected from some size on.
const KINDS: &[Kind] = &[
    ("$ref", |n| chain(n, |next| next)),
    ("properties", |n| chain(n, |next| json!({"type": "object", "properties": {"x": next}, "required": ["x"]}))),
    ("items", |n| chain(n, |next| json!({"type": "array", "items": next, "minItems": 1, "maxItems": 1}))),
    ("allOf", |n| chain(n, |next| json!({"allOf": [next]}))),
    ("anyOf", |n| chain(n, |next| json!({"anyOf": [next, {"type": "null"}]}))),
    ("oneOf", |n| chain(n, |next| json!({"oneOf": [next]}))),
    ("$ref with type", |n| {
        chain(n, |mut next| {
            next["type"] = "integer".into();
            next
        })
    }),
    ("merged twice", |n| {
        chain(n, |next| {
            let merged = json!({"type": "object", "allOf": [next]});
            json!({"type": "object", "properties": {"a": merged, "b": merged}})
        })
    }),
    ("inline", |n| {
        let mut schema = json!({"type": "integer"});
        for _ in 0..n.min(4096) {
            schema = json!({"type": "array", "items": schema});
        }
        Constraint::json_schema(&schema)
    }),
    ("const, deep", |n| {
        let mut value = json!(1);
        for _ in 0..n.min(4096) {
            value = json!([value]);
        }
        Constraint::json_schema(&json!({"const": value}))
    }),
    ("const, keys", |n| Constraint::json_schema(&json!({"const": map(n, |i| (format!("k{i}"), json!(i)))}))),
    ("enum of texts", |n| {
        let all: Vec<String> = (0..n).map(|i| format!("the word number {i}")).collect();
        Constraint::json_schema(&json!({"enum": all}))
    }),
    ("enum of objects", |n| {
        let all: Vec<Value> = (0..n).map(|i| json!({"a": i, "b": [i]})).collect();
        Constraint::json_schema(&json!({"enum": all}))
    }),
    ("required", |n| {
        let all: Vec<String> = (0..n).map(|i| format!("k{i}")).collect();
        Constraint::json_schema(&json!({"type": "object", "required": all}))
    }),
    ("optional properties", |n| {
        Constraint::json_schema(
            &json!({"type": "object", "properties": map(n, |i| (format!("k{i}"), json!({"type": "null"})))}),
        )
    }),
    ("minProperties", |n| {
        let all = map(n, |i| (format!("k{i}"), json!({"type": "null"})));
        Constraint::json_schema(&json!({"type": "object", "properties": all, "minProperties": 1}))
    }),
    ("patternProperties", |n| {
        Constraint::json_schema(
            &json!({"type": "object", "patternProperties": map(n, |i| (format!("^k{i}_"), json!({"type": "null"})))}),
        )
    }),
    ("patterns", |n| {
        let all = map(n, |i| (format!("k{i}"), json!({"type": "string", "pattern": format!("^[a-z]{{{i}}}$")})));
        Constraint::json_schema(&json!({"type": "object", "properties": all}))
    }),
    ("patterns at once", |n| {
        let all: Vec<Value> =
            (0..n).map(|i| json!({"type": "string", "pattern": format!("^(.{{{}}})*$", i + 2)})).collect();
        Constraint::json_schema(&json!({"allOf": all}))
    }),
    ("choices of choices", |n| {
        let choice = json!({"anyOf": (0..4).map(|i| json!({"const": i})).collect::<Vec<_>>()});
        Constraint::json_schema(&json!({"allOf": vec![choice; n]}))
    }),
    ("enum and properties", |n| {
        let all = map(n, |i| (format!("k{i}"), json!({"type": "null"})));
        Constraint::json_schema(&json!({"properties": all, "enum": (0..n).collect::<Vec<_>>()}))
    }),
    ("oneOf of objects", |n| {
        let of = |i: usize| json!({"type": "object", "properties": {"a": {"const": "a"}, "kind": {"const": format!("k{i}")}}, "required": ["a", "kind"]});
        Constraint::json_schema(&json!({"oneOf": (0..n).map(of).collect::<Vec<_>>()}))
    }),
    ("multipleOf", |n| Constraint::json_schema(&json!({"type": "integer", "multipleOf": 2 * n + 1}))),
    ("several multipleOf", |n| {
        let all: Vec<Value> = (0..n).map(|i| json!({"type": "integer", "multipleOf": 2 * i + 3})).collect();
        Constraint::json_schema(&json!({"allOf": all}))
    }),
    ("minLength", |n| Constraint::json_schema(&json!({"type": "string", "minLength": n}))),
    ("a long text", |n| Constraint::json_schema(&json!({"const": "x".repeat(n)}))),
    ("rules", |n| lark_chain(n, "r")),
    ("terminals", |n| lark_chain(n, "T")),
    ("groups of a grammar", |n| Constraint::lark(format!("start: {}\"a\"{}", "(".repeat(n), ")".repeat(n)))),
    ("optional groups", |n| Constraint::lark(format!("start: {}\"a\"{}", "[".repeat(n), "]".repeat(n)))),
    ("grammars in grammars", |n| {
        Constraint::lark(format!("start: {}\"a\"{}", "%lark { start: ".repeat(n), "\n}".repeat(n)))
    }),
    ("templates", |n| Constraint::lark(format!("start: {}b{}", "a{".repeat(n), "}".repeat(n)))),
    ("conditions", |n| {
        Constraint::lark(format!(
            "start: x::0\nx::_: \"a\" x::incr(_) %if {}lt(_, 3){}\n | \"b\"",
            "not(".repeat(2 * n),
            ")".repeat(2 * n)
        ))
    }),
    ("alternatives", |n| {
        let all: Vec<String> = (0..n).map(|i| format!("\"word {i}\" \"x\"")).collect();
        Constraint::lark(format!("start: {}", all.join(" | ")))
    }),
    ("optional in a rule", |n| Constraint::lark(format!("start: {}\nA: \"a\"", "A? ".repeat(n)))),
    ("optional in a terminal", |n| Constraint::lark(format!("start: T\nT: {}\nA: \"a\"", "A? ".repeat(n)))),
    ("repeated in a rule", |n| Constraint::lark(format!("start: (A{{1,{n}}}){{1,{n}}} \"b\"{{{n}}}\nA: \"a\""))),
    ("& of a terminal", |n| {
        let all: Vec<String> = (0..n).map(|i| format!("/(.{{{}}})*/", 2 * i + 3)).collect();
        Constraint::lark(format!("start: T\nT: {}", all.join(" & ")))
    }),
    ("& of long counts", |n| {
        Constraint::lark(format!("start: T\nT: /(.{{{n}}})*/ & /(.{{{}}})+a/ & ~/.*b.{{{n}}}/", n + 1))
    }),
    ("substring", |n| Constraint::lark(format!("start: %regex {{\"substring_chars\": \"{}\"}}", "abc".repeat(n)))),
    ("groups of a pattern", |n| Constraint::regex(&format!("{}a{}", "(".repeat(n), ")".repeat(n)))),
    ("optional in a pattern", |n| Constraint::regex(&"a?".repeat(n))),
    ("any character, optional", |n| Constraint::regex(&".?".repeat(n))),
    ("counts", |n| Constraint::regex(&format!("(ab{{{n}}}){{{n}}}"))),
    ("classes", |n| {
        let of = |i: usize| format!("[\\w--{}]", char::from_u32(0x4e00 + (i % 20_000) as u32).unwrap());
        Constraint::regex(&(0..n).map(of).collect::<String>())
    }),
    ("any case", |n| Constraint::regex(&format!("(?i){}", "straße".repeat(n)))),
];

/// For each kind: up to some size it is answered, from there on rejected by an error that names a limit; nothing panics
/// or takes long.
#[test]
fn every_kind_is_answered_or_refused() {
    let model = model();
    for (name, make) in KINDS {
        let mut answered = 0;
        let mut longest = Duration::ZERO;
        let mut refused = None;
        for exponent in 0..21 {
            let n = 1usize << exponent;
            let (model, make, name) = (model.clone(), *make, *name);
            let began = Instant::now();
            // To drop a deep value takes a deep stack, and that is the test's.
            let constraint =
                std::thread::Builder::new().stack_size(64 << 20).spawn(move || make(n)).unwrap().join().unwrap();
            let outcome = small(move || generate(&model, constraint, 3));
            let took = began.elapsed();
            longest = longest.max(took);
            assert!(took < Duration::from_secs(30), "{name}, {n}: {took:?}");
            match outcome {
                Ok(_) => answered = n,
                Err(error @ ConstraintError::Limit { .. }) => {
                    let said = error.to_string();
                    assert!(said.contains("the limit is") && said.lines().count() == 1 && said.len() < 500, "{said}");
                    refused = Some((n, said));
                    break;
                }
                Err(error) if name == "templates" => {
                    assert!(error.to_string().contains("templates"), "{error}");
                    refused = Some((n, error.to_string()));
                    answered = 1;
                    break;
                }
                Err(error) => panic!("{name}, {n}: {error}"),
            }
        }
        let Some((n, error)) = refused else { panic!("{name}: nothing is too much") };
        println!("{name}: {answered} answered, {longest:?} at most, {n}: {error}");
        assert!(answered > 0, "{name}: {error}");
    }
}

/// Ordinary sources still work.
#[test]
fn ordinary_sources_are_answered() {
    let model = model();
    let mut deep = json!({"type": "integer"});
    for _ in 0..64 {
        deep = json!({"type": "object", "properties": {"x": deep, "y": {"type": "string", "maxLength": 3}}, "required": ["x"]});
    }
    let words: Vec<String> = (0..5000).map(|i| format!("the word number {i}")).collect();
    let wide = map(600, |i| {
        (format!("property_{i}"), json!({"type": ["string", "null"], "description": "one of many", "maxLength": 20}))
    });
    let names: Vec<String> = (0..300).map(|i| format!("property_{i}")).collect();
    for (name, constraint) in [
        ("deep", Constraint::json_schema(&deep)),
        ("words", Constraint::json_schema(&json!({"type": "string", "enum": words}))),
        ("wide", Constraint::json_schema(&json!({"type": "object", "properties": wide, "required": names}))),
        ("free", Constraint::json_schema(&json!({"type": "object"}))),
        (
            "all formats",
            Constraint::json_schema(&json!({"type": "array", "maxItems": 2, "items": {"anyOf":
            (&["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"].map(|f| json!({"type": "string", "format": f}))[..])}})),
        ),
        (
            "numbers",
            Constraint::json_schema(&json!({"type": "object", "properties": {
            "a": {"type": "number", "minimum": -1.5, "maximum": 99.25, "multipleOf": 0.01}, "b": {"type": "integer", "multipleOf": 1000},
            "c": {"type": "integer", "minimum": 0, "multipleOf": 60}, "d": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["a", "b", "c", "d"]})),
        ),
        (
            "expression",
            Constraint::lark(
                "start: sum\nsum: product (\"+\" product)*\nproduct: atom (\"*\" atom)*\natom: NUMBER | \"(\" sum \")\"\nNUMBER: /[0-9]+/\n%ignore / /",
            ),
        ),
        ("words of a pattern", Constraint::regex(r"(?i)\w+( \w+){0,20}[.!?]")),
    ] {
        let model = model.clone();
        let began = Instant::now();
        small(move || generate(&model, constraint, 40)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(began.elapsed() < Duration::from_secs(30), "{name}");
    }
}

/// Limits are a matter of the one who makes the constraint.
#[test]
fn limits_can_be_set() {
    let model = model();
    let many = |n: usize| Constraint::json_schema(&json!({"const": vec![0; n]}));
    let limits = ConstraintLimits { values: 10, ..ConstraintLimits::default() };
    assert!(generate(&model, many(20), 2).is_ok());
    let refused = generate(&model, many(20).limits(limits), 2).unwrap_err();
    assert!(matches!(refused, ConstraintError::Limit { name: "values", limit: 10, .. }), "{refused}");
    assert!(generate(&model, many(20), 2).is_ok());
    let limits = ConstraintLimits { step_fuel: 1, ..ConstraintLimits::default() };
    let refused = generate(&model, Constraint::regex("[a-z ]+(x|yy)[0-9]{3}").limits(limits), 20).unwrap_err();
    assert!(matches!(refused, ConstraintError::Limit { name: "step_fuel", limit: 1, .. }), "{refused}");
}

/// The same constraint gives the same text from the cache, refusals included, and for clones of the model.
#[test]
fn the_second_call_gives_the_same() {
    let model = model();
    let schema = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "n": {"type": "integer", "minimum": 0, "maximum": 999}}, "required": ["name", "n"]});
    let other = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer", "minimum": 0, "maximum": 999}}, "required": ["name", "n"]});
    let first = generate(&model, Constraint::json_schema(&schema), 60).unwrap();
    for _ in 0..3 {
        assert_eq!(generate(&model.clone(), Constraint::json_schema(&schema), 60).unwrap(), first);
        generate(&model, Constraint::json_schema(&other), 60).unwrap();
        let refused = generate(&model, Constraint::regex("(?=a)b"), 5).unwrap_err().to_string();
        assert!(refused.contains("look-around"), "{refused}");
    }
    // Two at once, each with a state of its own.
    let options = |seed| {
        GenerateOptions::default()
            .temperature(1.5)
            .seed(seed)
            .max_tokens(60)
            .constraint(Constraint::json_schema(&schema))
    };
    let alone: Vec<_> =
        (0..2).map(|s| model.session().generate("Once", options(s)).unwrap().finish().unwrap().text).collect();
    let (mut a, mut b) = (model.session(), model.session());
    let (mut a, mut b) = (a.generate("Once", options(0)).unwrap(), b.generate("Once", options(1)).unwrap());
    let (mut texts, mut open) = ([String::new(), String::new()], true);
    while open {
        open = false;
        for (text, generation) in texts.iter_mut().zip([&mut a, &mut b]) {
            if let Some(chunk) = generation.next() {
                text.push_str(&chunk.unwrap().text);
                open = true;
            }
        }
    }
    assert_eq!(texts.map(Some).to_vec(), alone);
}

#[test]
fn objects_have_the_properties_that_they_name() {
    let model = model();
    let schema = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99, "minimum": 0}}, "required": ["name", "age"]});
    for seed in 0..5 {
        let options = GenerateOptions::default().temperature(1.5).seed(seed).max_tokens(200);
        let output = model
            .session()
            .generate("Say: ", options.constraint(Constraint::json_schema(&schema)))
            .unwrap()
            .finish()
            .unwrap();
        let value: Value = serde_json::from_str(&output.text.unwrap()).unwrap();
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "age"]);
    }
    let notes = Constraint::json_schema(&json!({"type": "string", "format": "path"})).notes().unwrap();
    assert!(notes.len() == 1 && notes[0].contains("path"), "{notes:?}");
}

/// The requests that once took a server down.
#[test]
fn known_attacks_are_answered_or_refused() {
    let Some(shared) = test_support::shared_dir() else { return };
    let folder = shared.join("hostile");
    let model = model();
    for name in [
        "ref-chain",
        "obj-chain",
        "lark-rules",
        "schema-multipleof",
        "schema-multipleof-5",
        "lark-regex-and",
        "regex-long-optional",
        "lark-optionals",
    ] {
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{name}.json"))) else { continue };
        let body: Value = serde_json::from_str(&text).unwrap();
        let constraint = if let Some(grammar) = body["grammar"].as_str() {
            Constraint::lark(grammar)
        } else if let Some(pattern) = body["regex"].as_str() {
            Constraint::regex(pattern)
        } else {
            Constraint::json_schema(&body["response_format"]["json_schema"]["schema"])
        };
        let model = model.clone();
        let began = Instant::now();
        let outcome = small(move || generate(&model, constraint, 8));
        println!("{name}: {:?} {outcome:?}", began.elapsed());
        assert!(matches!(outcome, Ok(_) | Err(ConstraintError::Limit { .. })), "{name}: {outcome:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{name}");
    }
}
