//! Tokenizer files that would take all time or memory: rejected by name, or bounded in their cost.
//!
//! Generators double until the refusal comes; the step before it must still work. All of it runs on a small stack too.

use loader::tokenizer::{GgufVocab, Note, Tokenizer, TokenizerError};
use serde_json::{Value, json};
use vocab::{gguf_of, json_of, small, testdata};

#[path = "common/vocab.rs"]
mod vocab;

fn read(json: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_bytes(json.to_string().as_bytes())
}

fn with(key: &str, value: Value) -> Value {
    let mut json = small();
    json[key] = value;
    json
}

/// Runs on a thread whose stack is as small as any that this program starts, and smaller.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(run).expect("thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Doubles a size until the file is rejected, and returns the error; the previous size must load and encode.
fn doubled(what: &str, from: usize, make: impl Fn(usize) -> Value) -> TokenizerError {
    let mut size = from;
    let mut worked = false;
    loop {
        match read(&make(size)) {
            Ok(tokenizer) => {
                let _ = tokenizer.encode("abc a1 日本", true);
                worked = true;
            }
            Err(error) => {
                assert!(worked, "{what}: {size} is refused at once: {error}");
                return error;
            }
        }
        size *= 2;
        assert!(size < 1 << 24, "{what}: never refused");
    }
}

fn is_limit(error: &TokenizerError) -> bool {
    matches!(error, TokenizerError::Limit { .. })
}

#[test]
fn the_sample_files_are_refused_or_bounded() {
    let Some(dir) = test_support::shared_dir() else { return };
    let dir = dir.join("hostile");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("tokenizer-") {
            continue;
        }
        seen += 1;
        let started = std::time::Instant::now();
        match (name.as_str(), Tokenizer::from_file(&path)) {
            ("tokenizer-normalizer-bomb.json", read) => {
                let error = read.expect("loads").encode("a", false).expect_err("grows");
                assert!(matches!(error, TokenizerError::Growth { bytes: 1, .. }), "{error}");
            }
            ("tokenizer-normalizer-bomb-at-load.json", read) => {
                let error = read.expect_err("grows");
                assert!(matches!(error, TokenizerError::Growth { .. }), "{error}");
            }
            ("tokenizer-300-patterns.json", read) => assert!(is_limit(&read.expect_err("patterns"))),
            ("tokenizer-fixedlength-panic.json", read) => {
                assert!(read.expect_err("length 0").to_string().contains("length"));
            }
            ("tokenizer-same-ids.json", read) => {
                assert!(matches!(read.expect_err("ids"), TokenizerError::DuplicateId { id: 0, .. }));
            }
            (_, read) => assert!(read.is_err(), "{name}"),
        }
        assert!(started.elapsed().as_secs() < 10, "{name}: {:?}", started.elapsed());
    }
    assert!(seen >= 5 || std::env::var_os("CI").is_none(), "{seen}");
}

#[test]
fn chains_of_steps_end() {
    on_a_small_stack(|| {
        let sequence = |steps: Vec<Value>| with("normalizer", json!({"type": "Sequence", "normalizers": steps}));
        let lower = json!({"type": "Lowercase"});
        assert!(is_limit(&doubled("steps", 2, |n| sequence(vec![lower.clone(); n]))));
        let nested = |n: usize| {
            let inner = json!({"type": "NFC"});
            (0..n).fold(inner, |inner, _| json!({"type": "Sequence", "normalizers": [inner]}))
        };
        assert!(is_limit(&doubled("nesting", 2, |n| with("normalizer", nested(n)))));
        let split = json!({"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": false});
        let cuts = |n| json!({"type": "Sequence", "pretokenizers": vec![split.clone(); n]});
        assert!(is_limit(&doubled("patterns", 2, |n| with("pre_tokenizer", cuts(n)))));
        let cls = |n: usize| {
            let special = json!({"SpecialToken": {"id": "<|eot_id|>", "type_id": 0}});
            let mut single = vec![special; n];
            single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
            json!({"type": "TemplateProcessing", "single": single,
                   "special_tokens": {"<|eot_id|>": {"id": "<|eot_id|>", "ids": [511]}}})
        };
        assert!(is_limit(&doubled("affixes", 2, |n| with("post_processor", cls(n)))));
        let deep = format!(r#"{{"x": {}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert!(is_limit(&Tokenizer::from_bytes(deep.as_bytes()).expect_err("deep")));
    });
}

#[test]
fn texts_grow_only_so_much() {
    on_a_small_stack(|| {
        let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let regex = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"Regex": from}, "content": to});
        let grows = |what: &str, key: &str, value: Value, text: &str| {
            let error = read(&with(key, value)).expect(what).encode(text, false).expect_err(what);
            let grown = matches!(error, TokenizerError::Growth { .. } | TokenizerError::TooMuchWork { .. });
            assert!(grown, "{what}: {error}");
        };
        let chain = |step: Value, n: usize| json!({"type": "Sequence", "normalizers": vec![step; n]});
        grows("literals", "normalizer", chain(replace("a", "aaaaaaaaaa"), 12), "a");
        grows("patterns", "normalizer", chain(regex("a", "aaaaaaaaaa"), 12), "a");
        grows("empty matches", "normalizer", chain(regex("", "ab"), 40), "a");
        grows("prepend", "normalizer", json!({"type": "Prepend", "prepend": "x".repeat(1 << 20)}), "a");
        grows("bytes", "normalizer", chain(json!({"type": "ByteLevel"}), 40), &"é".repeat(1000));
        grows("NFKD", "normalizer", json!({"type": "NFKD"}), &"\u{fdfa}".repeat(100_000));
        let mark = json!({"type": "Metaspace", "replacement": "x", "prepend_scheme": "always", "split": false});
        let each = json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false});
        let steps: Vec<Value> = (0..60).map(|i| if i % 2 == 0 { each.clone() } else { mark.clone() }).collect();
        let cuts = json!({"type": "Sequence", "pretokenizers": steps});
        grows("pre-tokenizer", "pre_tokenizer", cuts, &"ab".repeat(1000));
        // Real normalisers are far below the limit.
        let json = with("normalizer", chain(json!({"type": "NFKD"}), 1));
        let ids = read(&json).expect("loads").encode(&"\u{fdfa}".repeat(100), false).expect("encodes");
        assert!(ids.len() >= 100);
        // Many parts share one allowance.
        let mut json = with("normalizer", json!({"type": "Prepend", "prepend": "x".repeat(1000)}));
        json["added_tokens"].as_array_mut().expect("added").iter_mut().for_each(|t| t["normalized"] = json!(false));
        let error = read(&json).expect("loads").encode(&"a<|eot_id|>".repeat(1000), false).expect_err("parts");
        assert!(matches!(error, TokenizerError::Growth { .. }), "{error}");
    });
}

#[test]
fn patterns_are_bounded() {
    on_a_small_stack(|| {
        let cut = |pattern: &str| {
            let split =
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            with(
                "pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": [split,
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}),
            )
        };
        let groups = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
        assert!(is_limit(&doubled("groups", 2, |n| cut(&groups(n)))));
        let ahead = |n: usize| format!("{}a{}", "(?=".repeat(n), ")".repeat(n));
        assert!(is_limit(&doubled("look-ahead", 2, |n| cut(&ahead(n)))));
        let classes = |n: usize| format!("{}a{}", "[".repeat(n), "]".repeat(n));
        assert!(is_limit(&doubled("classes", 2, |n| cut(&classes(n)))));
        assert!(is_limit(&doubled("counts", 2, |n| cut(&format!("(?:ab){{{n}}}")))));
        assert!(is_limit(&doubled("length", 2, |n| cut(&"ab|".repeat(n)))));
        // Exponential, cubic, and quadratic from match to match.
        for (pattern, text) in [
            ("(?:a|aa)*c", "a".repeat(100)),
            ("(?:a*)*b", "a".repeat(5000)),
            ("(?=a*a*a*b)x|a", "a".repeat(5000)),
            ("a(?=.*b)", "a".repeat(100_000)),
            ("a*b|a", "a".repeat(100_000)),
            ("(?:a|b)*c", "ab".repeat(50_000)),
        ] {
            let started = std::time::Instant::now();
            let error = read(&cut(pattern)).expect(pattern).encode(&text, false).expect_err(pattern);
            assert!(matches!(error, TokenizerError::PatternTooCostly { .. }), "{pattern}: {error}");
            assert!(started.elapsed().as_secs() < 60, "{pattern}: {:?}", started.elapsed());
        }
        // The patterns of real files work on long texts.
        for pattern in [r"\d{1,3}(?=(?:\d{3})*\b)", r"\s+(?!\S)|\s", "(?<=[.!?])x|[^x]", r"\p{L}+(?!\p{N})"] {
            let tokenizer = read(&cut(pattern)).expect(pattern);
            let text = "Once upon a time, 1234567 cats.\n".repeat(3000);
            let ids = tokenizer.encode(&text, false).expect(pattern);
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
        for (pattern, words) in [(r"(a)\1", "references"), ("(?<=a+)b", "look-behind"), ("(?R)", "not supported")] {
            let error = read(&cut(pattern)).expect_err(pattern).to_string();
            assert!(error.contains(words) && error.contains("split pattern"), "{error}");
        }
    });
}

#[test]
fn added_tokens_are_bounded() {
    on_a_small_stack(|| {
        let added = |count: usize, len: usize, normalized: bool| {
            let mut json = small();
            let size = json["model"]["vocab"].as_object().expect("vocab").len() + 64;
            let list = json["added_tokens"].as_array_mut().expect("added");
            list.extend((0..count).map(|i| {
                json!({"id": size + i, "content": format!("<{i}>{}", "y".repeat(len)), "special": false,
                       "normalized": normalized, "single_word": false, "lstrip": false, "rstrip": false})
            }));
            json
        };
        for normalized in [false, true] {
            assert!(is_limit(&doubled("long tokens", 64, |n| added(64, n, normalized))));
            assert!(is_limit(&doubled("many tokens", 1024, |n| added(n, 64, normalized))));
        }
        assert!(is_limit(&doubled("one token", 1 << 16, |n| added(1, n, false))));
        // White space that is a token and swallows white space is looked at once.
        let mut json = small();
        let id = json["model"]["vocab"].as_object().expect("vocab").len() + 64;
        json["added_tokens"].as_array_mut().expect("added").push(json!({"id": id, "content": " ", "special": false,
            "normalized": false, "single_word": false, "lstrip": true, "rstrip": false}));
        let ids = read(&json).expect("loads").encode(&" ".repeat(300_000), false).expect("encodes");
        assert_eq!(ids.len(), 300_000);
    });
}

#[test]
fn ids_are_checked() {
    let change = |change: &dyn Fn(&mut Value)| {
        let mut json = small();
        change(&mut json);
        read(&json)
    };
    let all_zero = change(&|json| {
        json["model"]["vocab"].as_object_mut().expect("vocab").values_mut().for_each(|id| *id = json!(0));
    });
    assert!(matches!(all_zero, Err(TokenizerError::DuplicateId { id: 0, .. })));
    let error = change(&|json| json["added_tokens"][1]["id"] = json["added_tokens"][0]["id"].clone());
    assert!(matches!(error, Err(TokenizerError::DuplicateId { .. })));
    for id in [1_000_000u64, u64::from(u32::MAX), u64::MAX] {
        assert!(change(&|json| json["added_tokens"][0]["id"] = json!(id)).is_err(), "{id}");
        assert!(change(&|json| json["model"]["vocab"]["zzz"] = json!(id)).is_err(), "{id}");
    }
    // An added token in the place of another is known to occur: it is noted.
    let tokenizer = change(&|json| {
        let id = json["model"]["vocab"].as_object().expect("vocab").values().next().cloned();
        json["added_tokens"]
            .as_array_mut()
            .expect("added")
            .push(json!({"id": id, "content": "<new>", "special": true}));
    });
    let notes = tokenizer.expect("loads").notes().to_vec();
    assert!(matches!(notes.as_slice(), [Note::AddedReplaces { count: 1, .. }]), "{notes:?}");
}

fn unigram(pieces: &[(String, f64)]) -> Value {
    json!({
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never", "split": true},
        "decoder": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false},
    })
}

#[test]
fn giant_pieces_take_linear_time() {
    on_a_small_stack(|| {
        let base = || vec![("<unk>".to_owned(), 0.0), ("a".to_owned(), -3.0), ("b".to_owned(), -3.0)];
        let giant = |n: usize| {
            let mut pieces = base();
            pieces.push(("a".repeat(n), -1.0));
            unigram(&pieces)
        };
        let error = doubled("giant piece", 2, giant);
        assert!(matches!(error, TokenizerError::PieceTooLong { limit: 512, .. }), "{error}");
        // All lengths up to the limit, on a text that has them all everywhere.
        let mut pieces = base();
        pieces.extend((2..=512).map(|n| ("a".repeat(n), -(n as f64))));
        let tokenizer = read(&unigram(&pieces)).expect("loads");
        let text = "a".repeat(100_000);
        let ids = tokenizer.encode(&text, false).expect("encodes");
        assert_eq!(tokenizer.decode(&ids, false), text);
        // Byte-pair vocabularies: a giant token, and the merges that lead to it.
        for pre in ["gpt-2", "llama-bpe"] {
            let tokens: Vec<String> = (0..17).map(|i| "a".repeat(1 << i)).collect();
            let merges = (0..16).map(|i| format!("{0} {0}", "a".repeat(1 << i))).collect();
            let vocab =
                GgufVocab { model: "gpt2".into(), pre: Some(pre.into()), tokens, merges, ..GgufVocab::default() };
            let ids = Tokenizer::from_gguf_vocab(&vocab).expect("loads").encode(&"a".repeat(1 << 18), false);
            assert_eq!(ids.expect("encodes"), [16; 4]);
        }
        let tokens: Vec<String> =
            ["\u{2581}", "<unk>"].map(str::to_owned).into_iter().chain((0..17).map(|i| "a".repeat(1 << i))).collect();
        let vocab = GgufVocab {
            model: "llama".into(),
            scores: (0..tokens.len()).map(|i| -(i as f32)).collect(),
            token_types: (0..tokens.len()).map(|i| if i == 1 { 2 } else { 1 }).collect(),
            tokens,
            ..GgufVocab::default()
        };
        let ids = Tokenizer::from_gguf_vocab(&vocab).expect("loads").encode(&"a".repeat(1 << 18), false);
        assert_eq!(ids.expect("encodes").len(), 5);
    });
}

/// Our unigram against the library's, on vocabularies with nested, duplicate, unknown and multi-byte pieces.
#[test]
fn unigram_equals_the_tokenizers_library() {
    let alphabet = ["a", "b", "ab", "ba", "aab", "\u{e9}", "\u{e9}a", "日", "日本", "\u{2581}", "\u{2581}a", "x"];
    let mut seed = 7u64;
    let mut random = move |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    for round in 0..60 {
        let mut pieces = vec![("<unk>".to_owned(), 0.0)];
        for _ in 0..3 + random(14) {
            let text: String = (0..=random(3)).map(|_| alphabet[random(alphabet.len())]).collect();
            pieces.push((text, -(random(8) as f64) / 2.0));
        }
        let json = unigram(&pieces).to_string();
        let ours = Tokenizer::from_bytes(json.as_bytes()).expect("ours");
        let oracle = tokenizers::Tokenizer::from_bytes(json.as_bytes()).expect("oracle");
        for _ in 0..40 {
            let text: String =
                (0..random(12)).map(|_| ["a", "b", " ", "\u{e9}", "日", "本", "x", "y"][random(8)]).collect();
            let expected = oracle.encode(text.as_str(), false).expect("encode");
            assert_eq!(ours.encode(&text, false).expect("encode"), expected.get_ids(), "{round}: {text:?} {pieces:?}");
        }
    }
}

/// Every kind of normaliser and pre-tokenizer against the library.
#[test]
fn all_stages_equal_the_tokenizers_library() {
    let texts = [
        "Hello  World, 12a34!? e\u{301}te\u{301} \u{c9}cole \u{fb01}n \u{1e9e}\u{130}",
        " \t leading\u{3000}and trailing \n",
        "日本語とEnglish混在ー한국어 \u{e20}\u{e32}\u{e29}\u{e32} 中文。Yes",
        "\u{200b}a\u{feff}b\u{fffd}c\u{7f}d\u{2581}e \u{b2}\u{2167}\u{661}",
        "aaa-bbb--ccc---",
        "",
        " ",
        "q\u{323}\u{307}\u{327} \u{ac00}\u{1100}\u{1161}",
    ];
    let regex = |p: &str| json!({"Regex": p});
    let split = |pattern: Value, behavior: &str, invert: bool| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert});
    let mut normalizers = vec![Value::Null];
    for kind in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"] {
        normalizers.push(json!({"type": kind}));
    }
    for (left, right) in [(true, true), (true, false), (false, true)] {
        normalizers.push(json!({"type": "Strip", "strip_left": left, "strip_right": right}));
    }
    normalizers.push(json!({"type": "Prepend", "prepend": "ab"}));
    normalizers.push(json!({"type": "Replace", "pattern": {"String": "a"}, "content": "bb"}));
    normalizers.push(json!({"type": "Replace", "pattern": regex("[a-c]+"), "content": "-"}));
    normalizers.push(json!({"type": "Replace", "pattern": regex(" {2,}"), "content": " "}));
    normalizers.push(
        json!({"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]}),
    );
    let mut cuts = vec![Value::Null];
    for kind in ["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"] {
        cuts.push(json!({"type": kind}));
    }
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] {
        cuts.push(json!({"type": "Punctuation", "behavior": behavior}));
        for invert in [false, true] {
            for pattern in [regex("-"), regex("a*"), regex(r"\w+"), json!({"String": "a"}), regex("a(?=b)|-")] {
                cuts.push(split(pattern, behavior, invert));
            }
        }
    }
    cuts.push(json!({"type": "Digits", "individual_digits": true}));
    cuts.push(json!({"type": "Digits", "individual_digits": false}));
    cuts.push(json!({"type": "FixedLength", "length": 3}));
    for scheme in ["always", "first", "never"] {
        for splits in [true, false] {
            cuts.push(
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": splits}),
            );
        }
    }
    cuts.push(json!({"type": "Sequence", "pretokenizers": [{"type": "UnicodeScripts"}, {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first"}]}));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let check = |json: &Value| {
        let text = json.to_string();
        let ours = Tokenizer::from_bytes(text.as_bytes()).expect("ours");
        let oracle = tokenizers::Tokenizer::from_bytes(text.as_bytes()).expect("oracle");
        for text in texts {
            let expected = oracle.encode(text, false).expect("encode");
            let (n, p) = (&json["normalizer"], &json["pre_tokenizer"]);
            assert_eq!(ours.encode(text, false).expect("encode"), expected.get_ids(), "{text:?} {n} {p}");
        }
    };
    for normalizer in &normalizers {
        for cut in [&Value::Null, &bytes] {
            let mut json = with("normalizer", normalizer.clone());
            json["pre_tokenizer"] = cut.clone();
            check(&json);
        }
    }
    for cut in &cuts {
        let mut json = small();
        let last = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let steps = if cut.is_null() { vec![last] } else { vec![cut.clone(), last] };
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
        check(&json);
    }
}

/// The `tokenizers` package of Python gives these words; the Rust crate, with another engine, has one more at the
/// beginning.
#[test]
fn empty_matches_are_replaced_once() {
    let replace = json!({"type": "Replace", "pattern": {"Regex": "a*"}, "content": "-"});
    let plain = read(&small()).expect("plain");
    let replaced = read(&with("normalizer", replace)).expect("replaces");
    for (text, expected) in [("Hello", "-H-e-l-l-o-"), ("aab", "-b-"), ("baa", "-b-"), ("b a", "-b- -"), ("", "")] {
        let expected = plain.encode(expected, false).expect("encode");
        assert_eq!(replaced.encode(text, false).expect("encode"), expected, "{text:?}");
    }
}

#[test]
fn byte_level_vocabularies_need_merges() {
    let json = small();
    let vocab = GgufVocab { merges: Vec::new(), ..gguf_of(&json, Some("gpt-2")) };
    let error = Tokenizer::from_gguf_vocab(&vocab).expect_err("no merges");
    assert!(matches!(error, TokenizerError::NoMerges) && error.to_string().contains("--tokenizer"), "{error}");
}

#[test]
fn merges_may_make_user_defined_and_control_tokens() {
    let json = small();
    let good = gguf_of(&json, Some("gpt-2"));
    let text = "The little mill stood at the end of the lane. Once upon a time";
    let merged = good.merges.iter().map(|merge| merge.replace(' ', "")).find(|merged| text.contains(merged.as_str()));
    let merged = merged.expect("a merge of letters");
    let id = good.tokens.iter().position(|token| *token == merged).expect("token");
    for (kind, special) in [(4, false), (3, true)] {
        let mut vocab = good.clone();
        vocab.token_types[id] = kind;
        let tokenizer = Tokenizer::from_gguf_vocab(&vocab).expect("loads");
        assert_eq!(tokenizer.is_special(id as u32), special);
        let ids = tokenizer.encode_text(text).expect("encode");
        assert_eq!(ids.contains(&(id as u32)), !special, "a control token cannot be written as text");
        assert_eq!(tokenizer.decode(&ids, true), text, "nothing is lost");
    }
}

#[test]
fn optional_ids_beyond_the_vocabulary_are_told() {
    let good = gguf_of(&small(), Some("gpt-2"));
    let size = good.tokens.len();
    let vocab = GgufVocab { pad: Some(size as u32), ..good };
    let tokenizer = Tokenizer::from_gguf_vocab(&vocab).expect("loads");
    assert_eq!(tokenizer.pad(), None);
    assert_eq!(tokenizer.notes().first(), Some(&Note::SpecialBeyond { what: "padding", id: size as u32, size }));
    // An unknown token that does not exist is an error when a text needs it.
    let vocab = GgufVocab {
        model: "llama".into(),
        tokens: ["\u{2581}", "a"].map(str::to_owned).to_vec(),
        scores: vec![-1.0, -2.0],
        unk: Some(2),
        ..GgufVocab::default()
    };
    let tokenizer = Tokenizer::from_gguf_vocab(&vocab).expect("loads");
    assert_eq!(tokenizer.encode("a", false).expect("encode"), [0, 1]);
    assert!(matches!(tokenizer.encode("b", false), Err(TokenizerError::NoUnknown { .. })));
}

/// Converters write user-defined tokens with plain spaces; they are found in the unchanged text.
#[test]
fn user_defined_tokens_with_plain_spaces_are_found() {
    let pieces: &[(&str, i32)] =
        &[("<unk>", 2), ("\u{2581}", 1), ("a", 1), ("b", 1), ("x", 1), ("\u{2581}a", 1), ("\u{2581}x", 1), ("a b", 4)];
    let vocab = GgufVocab {
        model: "llama".into(),
        tokens: pieces.iter().map(|piece| piece.0.to_owned()).collect(),
        scores: (0..pieces.len()).map(|i| -(i as f32)).collect(),
        token_types: pieces.iter().map(|piece| piece.1).collect(),
        ..GgufVocab::default()
    };
    let tokenizer = Tokenizer::from_gguf_vocab(&vocab).expect("vocabulary");
    let ids = |text: &str| tokenizer.encode(text, false).expect("encode");
    assert_eq!(ids("a b"), [7]);
    assert_eq!(ids("x a b"), [6, 1, 7]);
    assert_eq!(ids("a  b"), [5, 1, 1, 3]);
    assert_eq!(tokenizer.decode(&[6, 7], true), "xa b");
}

#[test]
fn special_tokens_of_unigram_vocabularies_cannot_be_written_as_text() {
    let mut json = unigram(&["<unk>", "<s>", "<", "s", ">", "a"].map(|piece| (piece.to_owned(), -1.0)));
    json["added_tokens"] = json!([{"id": 1, "content": "<s>", "special": true, "normalized": false}]);
    let tokenizer = read(&json).expect("loads");
    assert_eq!(tokenizer.encode("a<s>", false).expect("encode"), [5, 1]);
    assert_eq!(tokenizer.encode_text("a<s>").expect("encode"), [5, 2, 3, 4]);
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().expect("folder");
    let fifo = dir.path().join("tokenizer.json");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    for path in [std::path::Path::new("/dev/zero"), std::path::Path::new("/"), &fifo] {
        if path == fifo && !made.as_ref().is_ok_and(|status| status.success()) {
            continue;
        }
        let error = Tokenizer::from_file(path).expect_err("no file");
        assert!(error.to_string().contains("regular file"), "{error}");
    }
}

/// Damaged SentencePiece rules are errors or match nothing.
#[test]
fn damaged_rules_of_sentencepiece_never_panic() {
    let model = json_of(&testdata("spm_cases.json"));
    let texts: Vec<&str> =
        model["cases"].as_array().expect("cases").iter().filter_map(|c| c["text"].as_str()).collect();
    let mut seed = 3u64;
    for _ in 0..200 {
        let mut bytes: Vec<u8> = vec![0, 1, 0, 0];
        for _ in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push((seed >> 40) as u8 & if bytes.len() < 260 { 0xff } else { 0x7f });
        }
        let vocab = GgufVocab {
            model: "t5".into(),
            tokens: ["<unk>", "a"].map(str::to_owned).to_vec(),
            scores: vec![0.0, -1.0],
            unk: Some(0),
            precompiled_charsmap: Some(bytes),
            ..GgufVocab::default()
        };
        if let Ok(tokenizer) = Tokenizer::from_gguf_vocab(&vocab) {
            texts.iter().for_each(|text| drop(tokenizer.encode(text, false)));
        }
    }
}
