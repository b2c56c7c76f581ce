//! Tokenizers against the libraries that their files were made for.

use std::io::Read;
use std::path::Path;
use std::sync::{LazyLock, OnceLock};

use loader::tokenizer::{GgufVocab, Note, StreamDecoder, Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde_json::{Value, json};
use vocab::{gguf_of, json_of, small, testdata};

#[path = "common/vocab.rs"]
mod vocab;

fn unpacked(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).expect("packed file");
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(file).expect("zstd").read_to_end(&mut bytes).expect("zstd");
    bytes
}

fn shared(relative: &str) -> Option<Vec<u8>> {
    let path = test_support::shared_dir()?.join(relative);
    Some(if relative.ends_with(".zst") { unpacked(&path) } else { std::fs::read(path).expect("shared file") })
}

/// `(text, ids, decoded)` of a list of cases.
fn cases(file: &Value) -> Vec<(String, Vec<u32>, Option<String>)> {
    let cases = file["cases"].as_array().expect("cases");
    let case = |case: &Value| {
        let ids = case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect();
        (case["text"].as_str().expect("text").to_owned(), ids, case["decoded"].as_str().map(str::to_owned))
    };
    cases.iter().map(case).collect()
}

/// Reports all differing cases at once.
fn check(name: &str, tokenizer: &Tokenizer, cases: &[(String, Vec<u32>, Option<String>)]) {
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for (text, ids, decoded) in cases {
        let got = tokenizer.encode(text, false).expect("encode");
        if got != *ids {
            wrong.push(format!("{text:?}: {got:?}, expected {ids:?}"));
        }
        let expected = decoded.as_ref().unwrap_or(text);
        let got = tokenizer.decode(ids, false);
        if got != *expected {
            wrong.push(format!("{ids:?}: {got:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {} cases differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

struct Llama3 {
    json: Vec<u8>,
    from_json: Tokenizer,
    from_gguf: Tokenizer,
}

/// The vocabulary of 2B4T, read once: 128,256 tokens, 280,147 merges.
fn llama3() -> Option<&'static Llama3> {
    static LLAMA3: OnceLock<Option<Llama3>> = OnceLock::new();
    LLAMA3
        .get_or_init(|| {
            let json = shared("tokenizer/llama3/tokenizer.json.zst")?;
            let started = std::time::Instant::now();
            let from_json = Tokenizer::from_bytes(&json).expect("tokenizer.json");
            println!("tokenizer.json of Llama 3: {:?}", started.elapsed());
            // Like the official GGUF file: no pre-tokenizer, one EOS that is not the end of a turn.
            let vocab = GgufVocab {
                bos: Some(128_000),
                eos: Some(128_001),
                pad: Some(128_001),
                add_bos: Some(true),
                ..gguf_of(&json_of(&json), None)
            };
            let started = std::time::Instant::now();
            let from_gguf = Tokenizer::from_gguf_vocab(&vocab).expect("GGUF vocabulary");
            println!("GGUF vocabulary of Llama 3: {:?}", started.elapsed());
            Some(Llama3 { json, from_json, from_gguf })
        })
        .as_ref()
}

#[test]
fn llama3_equals_tiktoken() {
    let (Some(llama3), Some(fixture)) = (llama3(), shared("fixtures/tokenizer/llama3_cases.json")) else { return };
    let cases = cases(&json_of(&fixture));
    assert_eq!(cases.len(), 220);
    check("tokenizer.json", &llama3.from_json, &cases);
    check("GGUF", &llama3.from_gguf, &cases);
    assert_eq!(llama3.from_json.vocab_size(), 128_256);
    assert_eq!(llama3.from_gguf.vocab_size(), 128_256);
}

#[test]
fn the_official_file_is_repaired_with_notes() {
    let Some(llama3) = llama3() else { return };
    let tokenizer = &llama3.from_gguf;
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(128_000), [128_001, 128_009].as_slice()));
    let notes = tokenizer.notes();
    assert_eq!(notes.first(), Some(&Note::PreTokenizerAssumed { taken: "llama-bpe" }));
    assert_eq!(notes.get(1), Some(&Note::EndOfTurnAdded { token: "<|eot_id|>".into(), id: 128_009 }));
    assert_eq!(tokenizer.encode("Hello world", true).expect("encode"), [128_000, 9906, 1917]);
    assert_eq!(llama3.from_json.encode("Hello world", true).expect("encode"), [9906, 1917], "the file adds no BOS");
    assert_eq!(llama3.from_json.add_bos(), None);
}

#[test]
fn special_tokens_in_a_text_are_taken_only_where_asked_for() {
    let Some(llama3) = llama3() else { return };
    for tokenizer in [&llama3.from_json, &llama3.from_gguf] {
        let text = "Hi<|eot_id|>";
        assert_eq!(tokenizer.encode(text, false).expect("encode"), [13347, 128_009]);
        let plain = tokenizer.encode_text(text).expect("encode");
        assert!(!plain.contains(&128_009));
        assert_eq!(tokenizer.decode(&plain, true), text);
        assert_eq!(tokenizer.decode(&[13347, 128_009], true), "Hi");
        assert_eq!(tokenizer.id_of("<|eot_id|>"), Some(128_009));
        assert_eq!(tokenizer.id_of("Ġworld"), Some(1917));
        assert_eq!(tokenizer.token_bytes(1917), Some(b" world".as_slice()));
        assert_eq!(tokenizer.token_bytes(128_256), None);
    }
}

/// Text from the shared data, in every language there is.
fn real_text() -> Option<String> {
    let dir = test_support::shared_dir()?.join("data");
    let mut text = String::new();
    let mut folders = vec![dir];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for path in files {
        let bytes = if path.extension().is_some_and(|e| e == "zst") {
            unpacked(&path)
        } else {
            std::fs::read(path).expect("file")
        };
        text.extend(String::from_utf8_lossy(&bytes[..bytes.len().min(40_000)]).chars());
    }
    Some(text)
}

#[test]
fn llama3_equals_the_tokenizers_library_on_real_text() {
    let (Some(llama3), Some(text)) = (llama3(), real_text()) else { return };
    let oracle = tokenizers::Tokenizer::from_bytes(&llama3.json).expect("oracle");
    let expected = oracle.encode(text.as_str(), false).expect("encode");
    let started = std::time::Instant::now();
    let ids = llama3.from_json.encode(&text, false).expect("encode");
    println!("{} bytes in {:?}", text.len(), started.elapsed());
    assert!(ids.len() > 10_000, "{}", ids.len());
    assert_eq!(ids, expected.get_ids());
    assert_eq!(llama3.from_gguf.encode(&text, false).expect("encode"), ids);
    assert_eq!(llama3.from_json.decode(&ids, false), text);
}

#[test]
fn small_vocabularies_equal_the_tokenizers_library() {
    let Some(text) = real_text() else { return };
    for name in ["tinystories-bpe-2048", "tinystories-bpe-4096", "ja-en-bpe-8192"] {
        let Some(json) = shared(&format!("tokenizer/{name}.json.zst")) else { return };
        let ours = Tokenizer::from_bytes(&json).expect(name);
        let gguf = Tokenizer::from_gguf_vocab(&gguf_of(&json_of(&json), Some("gpt-2"))).expect(name);
        let oracle = tokenizers::Tokenizer::from_bytes(&json).expect(name);
        let expected = oracle.encode(text.as_str(), false).expect("encode");
        let ids = ours.encode(&text, false).expect("encode");
        assert!(ids == expected.get_ids(), "{name}");
        assert!(gguf.encode(&text, false).expect("encode") == ids, "{name} as GGUF");
        assert!(ours.decode(&ids, false) == oracle.decode(&ids, false).expect("decode"), "{name}");
    }
}

static SPM: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_sentencepiece(&testdata("spm.model")).expect("spm.model"));
static BPE: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes(&testdata("bpe.tokenizer.json")).expect("bpe.tokenizer.json"));

#[test]
fn sentencepiece_model_equals_sentencepiece() {
    let file = json_of(&testdata("spm_cases.json"));
    let cases = cases(&file);
    // SentencePiece never finds special tokens in a text, so that is the encoding without them ...
    for (text, ids, _) in &cases {
        assert_eq!(SPM.encode_text(text).expect("encode"), *ids, "{text:?}");
    }
    // ... and makes no difference if the text contains none.
    let without: Vec<_> = cases.into_iter().filter(|(text, ..)| !text.contains("<s>")).collect();
    check("spm.model", &SPM, &without);
    assert_eq!((SPM.bos(), SPM.eos(), SPM.unk()), (Some(1), [2].as_slice(), Some(0)));
    assert_eq!(SPM.vocab_size() as u64, file["vocab_size"].as_u64().expect("size"));
}

#[test]
fn sentencepiece_as_tokenizer_json_equals_the_tokenizers_library() {
    let json = testdata("spm.tokenizer.json");
    let ours = Tokenizer::from_bytes(&json).expect("spm.tokenizer.json");
    let oracle = tokenizers::Tokenizer::from_bytes(&json).expect("oracle");
    assert_eq!((ours.bos(), ours.add_bos()), (Some(1), Some(true)));
    for (text, _, _) in cases(&json_of(&testdata("spm_cases.json"))) {
        for special in [false, true] {
            let expected = oracle.encode(text.as_str(), special).expect("encode");
            assert_eq!(ours.encode(&text, special).expect("encode"), expected.get_ids(), "{text:?}");
        }
    }
}

#[test]
fn bpe_equals_the_tokenizers_library() {
    let json = testdata("bpe.tokenizer.json");
    let cases = cases(&json_of(&testdata("bpe_cases.json")));
    check("bpe.tokenizer.json", &BPE, &cases);
    for pre in [Some("llama-bpe"), Some("llama3"), None] {
        let gguf = Tokenizer::from_gguf_vocab(&gguf_of(&json_of(&json), pre)).expect("GGUF");
        check("GGUF", &gguf, &cases);
    }
}

#[test]
fn adversarial_texts_take_linear_time() {
    let million = 1_000_000;
    let texts = [
        " ".repeat(million),
        format!("{}a", " ".repeat(million)),
        "a".repeat(million),
        "\n ".repeat(million / 2),
        "'".repeat(million),
        "あ".repeat(million / 3),
        "<|eot_id|".repeat(million / 9),
    ];
    let started = std::time::Instant::now();
    for text in &texts {
        for tokenizer in [&*SPM, &*BPE].into_iter().chain(llama3().map(|llama3| &llama3.from_gguf)) {
            let ids = tokenizer.encode(text, false).expect("encode");
            assert_eq!(tokenizer.decode(&ids, false), *text);
        }
    }
    // A quadratic step would take hours; the bound only has to be far from both.
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
}

#[test]
fn one_tokenizer_serves_many_threads() {
    fn assert_send_sync<T: Send + Sync + Clone>(_: &T) {}
    assert_send_sync(&*BPE);
    let text = "Once upon a time, 12345 日本語 👩‍👩‍👧 ".repeat(50);
    let expected = BPE.encode(&text, false).expect("encode");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (text, expected, tokenizer) = (&text, &expected, BPE.clone());
            scope.spawn(move || assert_eq!(tokenizer.encode(text, false).expect("encode"), *expected));
        }
    });
}

/// Every kind of vocabulary with the ids that it has.
fn streamed_equals_decoded(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) {
    let mut stream = tokenizer.stream();
    if !skip_special {
        stream = stream.with_special();
    }
    let mut text = String::new();
    let mut bytes = Vec::new();
    for &id in ids {
        if let Some(piece) = stream.push(id) {
            assert!(!piece.is_empty());
            text.push_str(&piece);
        }
        if !(skip_special && tokenizer.is_special(id)) {
            bytes.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        }
    }
    text.push_str(&stream.finish().unwrap_or_default());
    assert_eq!(stream.finish(), None);
    assert_eq!(text, tokenizer.decode(ids, skip_special));
    let whole = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text == whole || Some(text.as_str()) == whole.strip_prefix(' '), "{text:?} {whole:?}");
}

proptest! {
    #[test]
    fn pieces_joined_are_the_decoded_text(raw in prop::collection::vec(any::<u32>(), 0..40), skip in any::<bool>()) {
        for tokenizer in [&*SPM, &*BPE].into_iter().chain(llama3().map(|llama3| &llama3.from_json)) {
            // Also one id beyond the vocabulary.
            let ids: Vec<u32> = raw.iter().map(|id| id % (tokenizer.vocab_size() as u32 + 1)).collect();
            streamed_equals_decoded(tokenizer, &ids, skip);
            // Small ids are single bytes in all of them: characters cut everywhere.
            let ids: Vec<u32> = raw.iter().map(|id| id % 262).collect();
            streamed_equals_decoded(tokenizer, &ids, skip);
        }
    }

    #[test]
    fn text_survives_encoding(text in r"(\PC{0,3}|[ \t\n]{0,3}|[a-z]{0,5}|<\|eot_id\|>|[あ漢👩‍👧é]{0,2}){0,10}") {
        for tokenizer in [&*SPM, &*BPE] {
            let ids = tokenizer.encode(&text, false).expect("encode");
            prop_assert_eq!(tokenizer.decode(&ids, false), text.as_str());
            let ids = tokenizer.encode_text(&text).expect("encode");
            prop_assert_eq!(tokenizer.decode(&ids, true), text.as_str());
        }
    }

    #[test]
    fn decode_equals_the_tokenizers_library(raw in prop::collection::vec(any::<u32>(), 0..40)) {
        static ORACLE: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| {
            tokenizers::Tokenizer::from_bytes(testdata("bpe.tokenizer.json")).expect("oracle")
        });
        let ids: Vec<u32> = raw.iter().map(|id| id % BPE.vocab_size() as u32).collect();
        for skip in [false, true] {
            prop_assert_eq!(BPE.decode(&ids, skip), ORACLE.decode(&ids, skip).expect("decode"));
        }
    }
}

#[test]
fn characters_over_several_tokens_come_whole() {
    let text = "日本語 👩‍👩‍👧‍👦 née";
    for tokenizer in [&*SPM, &*BPE] {
        let mut stream = tokenizer.stream();
        let ids = tokenizer.encode(text, false).expect("encode");
        let pieces: Vec<String> = ids.iter().filter_map(|id| stream.push(*id)).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
        assert!(pieces.len() < ids.len(), "some character is spread over tokens");
        assert_eq!(stream.finish(), None);
    }
    // Cut in the middle of a character: shown at the end only.
    let ids = BPE.encode("🧿", false).expect("encode");
    let (last, first) = ids.split_last().expect("several tokens");
    let mut stream = StreamDecoder::new(&BPE);
    assert!(!first.is_empty() && first.iter().all(|id| stream.push(*id).is_none()), "{last} completes it");
    let mut cut = stream.clone();
    assert_eq!(stream.finish().as_deref(), Some("\u{fffd}"));
    // Or not at all.
    let bytes = cut.take_incomplete();
    assert!((1..4).contains(&bytes.len()) && "🧿".as_bytes().starts_with(&bytes));
    assert_eq!((cut.finish(), cut.take_incomplete()), (None, Vec::new()));
}

#[test]
fn a_continued_text_keeps_its_first_space() {
    let ids = SPM.encode("Hello", false).expect("encode");
    let stream = |mut stream: StreamDecoder| {
        let mut text: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
        text.extend(stream.finish());
        text
    };
    assert_eq!(stream(SPM.stream()), "Hello");
    assert_eq!(stream(SPM.stream().continuing()), " Hello");
}

#[test]
fn folders_are_refined_by_their_other_files() {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("tokenizer.json"), testdata("bpe.tokenizer.json")).expect("write");
    let plain = Tokenizer::from_dir(dir.path()).expect("folder");
    assert_eq!((plain.bos(), plain.add_bos()), (None, None));
    let config = r#"{"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "add_bos_token": true}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), config).expect("write");
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("folder");
    let id = |token| tokenizer.id_of(token).expect("token");
    assert_eq!(tokenizer.bos(), Some(id("<|begin_of_text|>")));
    assert_eq!(tokenizer.eos(), [id("<|end_of_text|>"), id("<|eot_id|>")]);
    assert_eq!(tokenizer.encode("", true).expect("encode"), [id("<|begin_of_text|>")]);
    let generation = format!(r#"{{"eos_token_id": [{}]}}"#, id("<|eot_id|>"));
    std::fs::write(dir.path().join("generation_config.json"), generation).expect("write");
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("folder");
    assert_eq!((tokenizer.eos(), tokenizer.notes()), ([id("<|eot_id|>")].as_slice(), [].as_slice()));
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"bos_token": "<none>"}"#).expect("write");
    let error = Tokenizer::from_dir(dir.path()).expect_err("no such token");
    assert!(matches!(&error, TokenizerError::MissingToken { token, .. } if token == "<none>"), "{error}");

    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("tokenizer.model"), testdata("spm.model")).expect("write");
    assert_eq!(Tokenizer::from_dir(dir.path()).expect("folder").vocab_size(), 512);
    let error = Tokenizer::from_dir(dir.path().join("absent")).expect_err("no folder");
    assert!(matches!(error, TokenizerError::Read { .. }), "{error}");
}

/// SentencePiece's rules that the reference vocabulary does not exercise.
#[test]
fn user_defined_unused_and_unknown_pieces() {
    let pieces: &[(&str, f32, i32)] = &[
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("a", -4.0, 1),
        ("b", -5.0, 1),
        ("c", -6.0, 1),
        ("ab", -1.0, 5),
        ("abc", -2.0, 1),
        ("\u{2581}", -3.0, 1),
        ("ca", 0.0, 4),
    ];
    let vocab = GgufVocab {
        model: "llama".into(),
        tokens: pieces.iter().map(|piece| piece.0.to_owned()).collect(),
        scores: pieces.iter().map(|piece| piece.1).collect(),
        token_types: pieces.iter().map(|piece| piece.2).collect(),
        bos: Some(1),
        add_bos: Some(true),
        ..GgufVocab::default()
    };
    let tokenizer = Tokenizer::from_gguf_vocab(&vocab).expect("vocabulary");
    let ids = |text: &str| tokenizer.encode(text, false).expect("encode");
    assert_eq!(ids("ab"), [7, 2, 3], "an unused piece is split");
    assert_eq!(ids("abc"), [7, 6], "but may stand on the way to a longer one");
    assert_eq!(ids("abca"), [7, 2, 3, 8], "a user-defined piece is never joined");
    assert_eq!(ids("xya"), [7, 0, 2], "a run of unknown characters is one token");
    assert_eq!(ids("a<s>a"), [7, 2, 1, 7, 2], "a space in front of each part");
    assert_eq!(ids(""), [] as [u32; 0]);
    assert_eq!(tokenizer.encode("a", true).expect("encode"), [1, 7, 2]);
    let vocab = GgufVocab { add_space_prefix: Some(false), remove_extra_whitespaces: Some(true), ..vocab };
    let tokenizer = Tokenizer::from_gguf_vocab(&vocab).expect("vocabulary");
    assert_eq!(tokenizer.encode("  a   a ", false).expect("encode"), [2, 7, 2]);
}

/// Normalisers and pre-tokenizers that are not of the byte-level kind go through the `tokenizers` library.
#[test]
fn rarer_stages_equal_the_tokenizers_library() {
    let byte_level = |add_prefix_space: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
    let split = |pattern: Value, behavior: &str| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false});
    let changes: Vec<(&str, Value, Value)> = vec![
        ("NFC", json!({"type": "NFC"}), byte_level(false, true)),
        ("prefix space", Value::Null, byte_level(true, true)),
        (
            "Falcon 3",
            Value::Null,
            sequence(vec![
                json!({"type": "Punctuation", "behavior": "Contiguous"}),
                byte_level(false, true),
                json!({"type": "Digits", "individual_digits": false}),
                split(json!({"Regex": "[0-9][0-9][0-9]"}), "Isolated"),
            ]),
        ),
        (
            "literal",
            Value::Null,
            sequence(vec![split(json!({"String": "a"}), "MergedWithNext"), byte_level(false, false)]),
        ),
        (
            "look-around",
            Value::Null,
            sequence(vec![split(json!({"Regex": "e(?=r)|\\s+"}), "Isolated"), byte_level(false, false)]),
        ),
    ];
    let texts = ["e\u{301}te\u{301} 12345, there  were\tère\n", "<|eot_id|> aber", " a", "", "日本 ²３ x_y!?"];
    for (name, normalizer, pre) in changes {
        let mut json = small();
        json["normalizer"] = normalizer;
        json["pre_tokenizer"] = pre;
        json["added_tokens"]
            .as_array_mut()
            .expect("added")
            .push(json!({"id": BPE.vocab_size(), "content": "there", "single_word": true,
            "lstrip": true, "rstrip": false, "normalized": true, "special": false}));
        let bytes = json.to_string();
        let ours = Tokenizer::from_bytes(bytes.as_bytes()).expect(name);
        let oracle = tokenizers::Tokenizer::from_bytes(bytes.as_bytes()).expect(name);
        for text in texts {
            let expected = oracle.encode(text, false).expect("encode");
            assert_eq!(ours.encode(text, false).expect("encode"), expected.get_ids(), "{name}: {text:?}");
        }
    }
}

#[test]
fn unigram_and_metaspace_equal_the_tokenizers_library() {
    let pieces =
        [("<unk>", 0.0), ("<s>", 0.0), ("\u{2581}", -2.0), ("a", -3.0), ("b", -3.5), ("ab", -4.0), ("\u{2581}a", -3.2)];
    let json = |scheme: &str| {
        json!({
            "added_tokens": [{"id": 1, "content": "<s>", "special": true, "normalized": false, "single_word": false,
                "lstrip": false, "rstrip": false}],
            "normalizer": null, "post_processor": null,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true},
            "decoder": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false},
        })
        .to_string()
    };
    for scheme in ["first", "always", "never"] {
        let bytes = json(scheme);
        let ours = Tokenizer::from_bytes(bytes.as_bytes()).expect(scheme);
        let oracle = tokenizers::Tokenizer::from_bytes(bytes.as_bytes()).expect(scheme);
        for text in ["ab a", " ab", "a<s>ab<s> b", "x a", "aabab  b"] {
            let expected = oracle.encode(text, false).expect("encode");
            let ids = ours.encode(text, false).expect("encode");
            assert_eq!(ids, expected.get_ids(), "{scheme}: {text:?}");
            assert_eq!(ours.decode(&ids, true), oracle.decode(&ids, true).expect("decode"), "{scheme}: {text:?}");
        }
    }
    // The same pieces as a GGUF file of the unigram kind.
    let vocab = GgufVocab {
        model: "t5".into(),
        tokens: pieces.iter().map(|piece| piece.0.to_owned()).collect(),
        scores: pieces.iter().map(|piece| piece.1 as f32).collect(),
        token_types: vec![2, 3, 1, 1, 1, 1, 1],
        unk: Some(0),
        ..GgufVocab::default()
    };
    let gguf = Tokenizer::from_gguf_vocab(&vocab).expect("GGUF");
    let oracle = Tokenizer::from_bytes(json("always").as_bytes()).expect("oracle");
    for text in ["ab a", "aabab  b"] {
        assert_eq!(gguf.encode(text, false).expect("encode"), oracle.encode(text, false).expect("encode"));
    }
}

/// A word that is a token is taken whole by Llama 3's vocabularies, even if no merges lead to it.
#[test]
fn whole_words_come_before_merges_where_the_vocabulary_says_so() {
    let mut json = small();
    let whole = BPE.vocab_size() as u32;
    json["model"]["vocab"]["zzq"] = json!(whole);
    for ignore_merges in [true, false] {
        json["model"]["ignore_merges"] = json!(ignore_merges);
        let bytes = json.to_string();
        let ours = Tokenizer::from_bytes(bytes.as_bytes()).expect("tokenizer.json");
        let ids = ours.encode("zzq", false).expect("encode");
        assert_eq!(ids == [whole], ignore_merges);
        let oracle = tokenizers::Tokenizer::from_bytes(bytes.as_bytes()).expect("oracle");
        assert_eq!(ids, oracle.encode("zzq", false).expect("encode").get_ids());
        let pre = if ignore_merges { "llama-bpe" } else { "gpt-2" };
        let gguf = Tokenizer::from_gguf_vocab(&gguf_of(&json, Some(pre))).expect("GGUF");
        assert_eq!(gguf.encode("zzq", false).expect("encode"), ids);
    }
}
