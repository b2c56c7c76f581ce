//! Tokenizers: files of tokenizer.json with one part that grows.

use serde_json::{Map, Value, json};

use super::{Variant, either, grows, joined, refused};

/// A small byte-level tokenizer: 256 bytes, two control tokens.
struct File {
    vocab: Map<String, Value>,
    merges: Vec<String>,
    added: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
}

/// The characters that stand for bytes in byte-level vocabularies.
fn byte_names() -> Vec<char> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    (0..256u32)
        .map(|b| {
            let code = if printable(b) { b } else { next };
            next += u32::from(!printable(b));
            char::from_u32(code).unwrap_or('?')
        })
        .collect()
}

fn added(id: usize, content: &str, normalized: bool) -> Value {
    let special = !normalized;
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": special})
}

impl File {
    fn new() -> Self {
        let mut vocab = Map::new();
        for (i, name) in ["<s>", "</s>"].into_iter().enumerate() {
            vocab.insert(name.to_owned(), json!(i));
        }
        for (i, name) in byte_names().into_iter().enumerate() {
            vocab.insert(name.to_string(), json!(i + 2));
        }
        Self {
            vocab,
            merges: Vec::new(),
            added: vec![added(0, "<s>", false), added(1, "</s>", false)],
            normalizer: Value::Null,
            pre_tokenizer: json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
            post_processor: Value::Null,
            decoder: json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        }
    }

    fn text(self) -> String {
        let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": self.vocab, "merges": self.merges});
        self.with_model(model)
    }

    fn with_model(&self, model: Value) -> String {
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added, "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer, "post_processor": self.post_processor, "decoder": self.decoder, "model": model})
        .to_string()
    }
}

fn normalized_by(n: usize, step: impl Fn(usize) -> Value) -> String {
    let mut file = File::new();
    file.normalizer = json!({"type": "Sequence", "normalizers": (0..n).map(step).collect::<Vec<_>>()});
    file.text()
}

fn split_by(n: usize, step: impl Fn(usize) -> Value) -> String {
    let mut file = File::new();
    let mut steps: Vec<Value> = (0..n).map(step).collect();
    steps.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}));
    file.pre_tokenizer = json!({"type": "Sequence", "pretokenizers": steps});
    file.text()
}

fn by_regex(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

/// A unigram model of single letters and `extra` pieces.
fn unigram(extra: impl IntoIterator<Item = String>) -> String {
    let mut vocab: Vec<Value> = vec![json!(["<unk>", 0.0])];
    vocab.extend((b'a'..=b'z').map(|c| json!([char::from(c).to_string(), -3.0])));
    vocab.extend(extra.into_iter().map(|t| json!([t, -5.0])));
    let mut file = File::new();
    file.added = vec![added(0, "<unk>", false)];
    file.pre_tokenizer = Value::Null;
    file.decoder = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never", "split": false});
    file.with_model(json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false}))
}

/// `value` nested `n` times.
fn within(n: usize, value: Value, wrap: impl Fn(&str) -> String) -> String {
    (0..n).fold(value.to_string(), |inside, _| wrap(&inside))
}

/// A file in which `"marker"` is replaced by a text: deep JSON is not built as a value.
fn with_text(mut file: File, part: fn(&mut File) -> &mut Value, text: &str) -> String {
    *part(&mut file) = json!("marker");
    file.text().replacen("\"marker\"", text, 1)
}

pub(super) const VARIANTS: &[Variant] = &[
    grows("replace-bomb", 64, |n| normalized_by(n, |_| replace("a", "aa"))),
    grows("replace-long", 1 << 20, |n| normalized_by(1, |_| replace("a", &"b".repeat(n)))),
    grows("replace-by-regex", 64, |n| {
        normalized_by(n, |_| json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}))
    }),
    grows("replace-nothing", 64, |n| {
        normalized_by(n, |_| json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "aa"}))
    }),
    grows("prepend", 1 << 12, |n| {
        normalized_by(n, |_| json!({"type": "Prepend", "prepend": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}))
    }),
    grows("many-normalizers", 1 << 14, |n| normalized_by(n, |_| json!({"type": "NFKC"}))),
    grows("nested-normalizers", 1 << 12, |n| {
        let text = within(n, json!({"type": "NFKC"}), |inside| {
            format!(r#"{{"type": "Sequence", "normalizers": [{inside}]}}"#)
        });
        with_text(File::new(), |f| &mut f.normalizer, &text)
    }),
    grows("nested-pretokenizers", 1 << 12, |n| {
        let text = within(
            n,
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
            |inside| format!(r#"{{"type": "Sequence", "pretokenizers": [{inside}]}}"#),
        );
        with_text(File::new(), |f| &mut f.pre_tokenizer, &text)
    }),
    grows("patterns", 1 << 12, |n| split_by(n, |_| by_regex("\\p{L}{1,50}"))),
    grows("patterns-that-differ", 1 << 12, |n| split_by(n, |i| by_regex(&format!("\\p{{L}}{{1,{}}}", i % 64 + 1)))),
    grows("patterns-replaced", 1 << 12, |n| {
        normalized_by(
            n,
            |i| json!({"type": "Replace", "pattern": {"Regex": format!("\\p{{L}}{{{}}}", i % 64 + 9)}, "content": "b"}),
        )
    }),
    either("pattern-repeated", 1 << 30, |n| split_by(1, |_| by_regex(&format!("\\p{{L}}{{1,{n}}}")))),
    either("pattern-deep", 1 << 14, |n| split_by(1, |_| by_regex(&format!("{}a{}", "(".repeat(n), ")".repeat(n))))),
    either("pattern-backtracks", 1 << 8, |n| split_by(1, |_| by_regex(&format!("(?:a|a|aa){{{n},}}(?=b)c")))),
    either("pattern-looks-ahead", 1 << 12, |n| split_by(1, |_| by_regex(&"(?=a*)".repeat(n)))),
    grows("added", 1 << 15, |n| {
        let mut file = File::new();
        file.added.extend((0..n).map(|i| added(258 + i, &format!("<|extra {i}|>"), false)));
        file.text()
    }),
    grows("added-long", 1 << 14, |n| {
        let mut file = File::new();
        let long = "x".repeat(1500);
        file.added.extend((0..n).map(|i| added(258 + i, &format!("<|{i} {long}|>"), false)));
        file.text()
    }),
    grows("added-normalized", 1 << 12, |n| {
        let mut file = File::new();
        file.normalizer = json!({"type": "Sequence", "normalizers": [replace("a", "aa"), replace("a", "aa")]});
        file.added.extend((0..n).map(|i| added(258 + i, &format!("a{i}{}", "a".repeat(i % 100)), true)));
        file.text()
    }),
    grows("unigram-long", 1 << 17, |n| unigram(["a".repeat(n)])),
    grows("unigram-many", 1 << 15, |n| unigram((0..n).map(|i| format!("word{i}")))),
    grows("unigram-prefixes", 1 << 11, |n| unigram((1..=n).map(|i| "a".repeat(i + 1)))),
    grows("merges-chain", 1 << 11, |n| {
        let mut file = File::new();
        let mut word = "a".to_owned();
        for i in 0..n {
            file.merges.push(format!("{word} a"));
            word.push('a');
            file.vocab.insert(word.clone(), json!(258 + i));
        }
        file.text()
    }),
    either("merges-that-double", 24, |n| {
        let mut file = File::new();
        let mut word = "a".to_owned();
        for i in 0..n {
            file.merges.push(format!("{word} {word}"));
            word = word.repeat(2);
            file.vocab.insert(word.clone(), json!(258 + i));
        }
        file.text()
    }),
    either("large-ids", 30, |n| {
        let mut file = File::new();
        file.vocab.insert("zz".into(), json!(258u64 + (1 << n)));
        file.text()
    }),
    either("large-added-ids", 31, |n| {
        let mut file = File::new();
        file.added.push(added(258 + (1 << n), "<|far|>", false));
        file.text()
    }),
    either("fixed-length", 1 << 30, |n| split_by(1, |_| json!({"type": "FixedLength", "length": n - 1}))),
    either("post-processor", 1 << 14, |n| {
        let mut file = File::new();
        let single: Vec<Value> = (0..n)
            .map(|_| json!({"SpecialToken": {"id": "<s>", "type_id": 0}}))
            .chain([json!({"Sequence": {"id": "A", "type_id": 0}})])
            .collect();
        file.post_processor = json!({"type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}});
        file.text()
    }),
    either("strip-decoder", 1 << 30, |n| {
        let mut file = File::new();
        file.decoder = json!({"type": "Strip", "content": " ", "start": n, "stop": n});
        file.text()
    }),
    either("long-names", 1 << 22, |n| {
        let mut file = File::new();
        file.vocab.insert(joined(n, "", |_| "q".to_owned()), json!(258));
        file.text()
    }),
    refused("same-ids", |_| {
        let mut file = File::new();
        for (_, id) in file.vocab.iter_mut() {
            *id = json!(0);
        }
        file.text()
    }),
    refused("two-with-one-id", |_| {
        let mut file = File::new();
        file.vocab.insert("zz".into(), json!(17));
        file.text()
    }),
    refused("fixed-length-of-nothing", |_| split_by(1, |_| json!({"type": "FixedLength", "length": 0}))),
    refused("unknown-type", |_| split_by(1, |_| json!({"type": "Nonsense"}))),
    refused("empty", |_| "{}".to_owned()),
];
