//! A converted model talks as its source does: the same ids for texts and for chats.

mod common;

use std::path::{Path, PathBuf};

use common::edit::{Edit, stories_folder, try_load};
use loader::chat::{Message, RenderOptions};
use loader::convert::{ConvertOptions, ConvertReport, ScaleRounding, Target, convert};
use loader::gguf::{Gguf, Value};
use loader::{LoadError, LoadedModel};
use serde_json::json;

const BOS: &str = "<|begin_of_text|>";
const EOT: &str = "<|eot_id|>";
/// A template that writes the end-of-text token that it receives, in tokens.
const TELLS_EOS: &str = "{{ bos_token }}{% if eos_token == '<|eot_id|>' %}1{% elif eos_token == '<|end_of_text|>' %}1 2 3\
                         {% else %}1 2 3 4 5{% endif %}{{ messages[0].content }}";

fn to(source: &Path, out: &Path, target: Target) -> Result<ConvertReport, LoadError> {
    convert(source, out, target, &ConvertOptions::default(), &mut |_| {})
}

/// The ids of a prompt as encoded by `run`, of a text within others, and of a chat.
fn talk(m: &LoadedModel) -> (Vec<u32>, Vec<u32>, Option<Vec<u32>>, Vec<u32>) {
    let t = m.tokenizer.as_ref().expect("a tokenizer");
    let text = "Once upon a time, 12345 <|eot_id|> naïve 東京 \r\n  x<|begin_of_text|>";
    let bos = m.weights.config.bos_token_id.filter(|_| t.add_bos().unwrap_or(true));
    let prompt = bos.into_iter().chain(t.encode(text, false).unwrap()).collect();
    let chat = m.chat_template.as_ref().map(|template| {
        template.encode(t, &[Message::user("Who <|eot_id|> are you?")], &RenderOptions::default()).unwrap()
    });
    let mut eos = m.weights.config.eos_token_ids.clone();
    eos.sort();
    (prompt, t.encode_text(text).unwrap(), chat, eos)
}

/// Converts to every form and from there to every other, and compares the results of `talk`.
fn all_ways(source: &Path, dir: &Path) {
    let expected = talk(&try_load(source).unwrap());
    let gguf = dir.join("a.gguf");
    to(source, &gguf, Target::I2S).unwrap();
    assert_eq!(talk(&try_load(&gguf).unwrap()), expected, "to GGUF");
    let hf = dir.join("b");
    to(source, &hf, Target::HfPacked).unwrap();
    assert_eq!(talk(&try_load(&hf).unwrap()), expected, "to a folder");
    let back = dir.join("c");
    to(&gguf, &back, Target::HfPacked).unwrap();
    assert_eq!(talk(&try_load(&back).unwrap()), expected, "to GGUF, to a folder");
    let again = dir.join("d.gguf");
    to(&back, &again, Target::Tq2_0).unwrap();
    assert_eq!(talk(&try_load(&again).unwrap()), expected, "to GGUF, to a folder, to GGUF");
}

#[test]
fn folders_talk_as_before_in_every_form() {
    let config = |v: serde_json::Value| ("tokenizer_config.json", v.to_string());
    let plain = json!({});
    /// A name, the tokenizer_config.json, and additional files.
    type Case<'a> = (&'a str, serde_json::Value, Vec<(&'a str, String)>);
    let cases: Vec<Case<'_>> = vec![
        ("no tokenizer_config.json", plain.clone(), vec![]),
        (
            "end of text of tokenizer_config.json",
            plain.clone(),
            vec![config(
                json!({"bos_token": BOS, "add_bos_token": false, "eos_token": EOT, "chat_template": TELLS_EOS}),
            )],
        ),
        (
            "jinja file and add_bos_token",
            plain.clone(),
            vec![
                ("chat_template.jinja", "{{ messages[0].content }}".into()),
                config(json!({"bos_token": BOS, "add_bos_token": true})),
            ],
        ),
        (
            "jinja file and no bos",
            plain.clone(),
            vec![("chat_template.jinja", TELLS_EOS.into()), config(json!({"add_bos_token": false}))],
        ),
        ("bos_token is null", plain.clone(), vec![config(json!({"bos_token": null, "chat_template": TELLS_EOS}))]),
        (
            "named templates",
            plain.clone(),
            vec![config(json!({"chat_template": [
                {"name": "default", "template": "D D D {{ bos_token }}{{ messages[0].content }}"}, {"name": "rag", "template": "R"}]}))],
        ),
        (
            "one template of another name",
            plain.clone(),
            vec![config(json!({"chat_template": [{"name": "rag", "template": "R {{ messages[0].content }}"}]}))],
        ),
        (
            "templates of a folder",
            plain.clone(),
            vec![
                ("chat_template.jinja", "{{ messages[0].content }}".into()),
                ("additional_chat_templates/tool_use.jinja", "T".into()),
            ],
        ),
        ("four ends of text", json!({"eos_token_id": [7, 2, 1, 9]}), vec![config(json!({"chat_template": TELLS_EOS}))]),
        (
            "ends of generation_config.json",
            plain.clone(),
            vec![
                ("generation_config.json", json!({"eos_token_id": [9, 2]}).to_string()),
                config(json!({"chat_template": TELLS_EOS})),
            ],
        ),
        (
            "another beginning of text",
            json!({"bos_token_id": 5}),
            vec![config(json!({"bos_token": BOS, "chat_template": TELLS_EOS}))],
        ),
        ("no special tokens", json!({"bos_token_id": null, "eos_token_id": null}), vec![]),
        (
            "end of text after a text",
            plain,
            vec![config(json!({"bos_token": BOS, "eos_token": EOT, "add_eos_token": true, "pad_token": EOT}))],
        ),
    ];
    for (what, fields, files) in cases {
        println!("{what}");
        let dir = tempfile::tempdir().unwrap();
        let Some(source) = stories_folder(&dir.path().join("source"), &fields, &files) else { return };
        all_ways(&source, dir.path());
    }
}

#[test]
fn named_templates_are_kept_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let templates = json!([{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}]);
    let files = [("tokenizer_config.json", json!({"chat_template": templates}).to_string())];
    let Some(source) = stories_folder(&dir.path().join("s"), &json!({}), &files) else { return };
    let gguf = dir.path().join("m.gguf");
    to(&source, &gguf, Target::I2S).unwrap();
    let file = Gguf::open(&gguf).unwrap();
    let m = file.metadata();
    assert_eq!(m.str("tokenizer.chat_template").unwrap(), Some("D"));
    assert_eq!(m.str("tokenizer.chat_template.tool_use").unwrap(), Some("T"));
    let names: Vec<&str> = m.strings("tokenizer.chat_templates").unwrap().unwrap().iter().collect();
    assert_eq!(names, ["tool_use"]);
    let back = dir.path().join("back");
    to(&gguf, &back, Target::HfPacked).unwrap();
    let text = std::fs::read_to_string(back.join("tokenizer_config.json")).unwrap();
    assert!(text.contains("tool_use") && text.contains("\"default\""), "{text}");
}

#[test]
fn more_than_three_ends_of_text_are_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(source) = stories_folder(&dir.path().join("s"), &json!({"eos_token_id": [1, 2, 7, 9, 11]}), &[]) else {
        return;
    };
    let gguf = dir.path().join("m.gguf");
    let report = to(&source, &gguf, Target::I2S).unwrap();
    assert!(report.notes.iter().any(|n| n.contains("eos_token_ids") && n.contains("9, 11")), "{:?}", report.notes);
    let file = Gguf::open(&gguf).unwrap();
    assert_eq!(file.metadata().get("tokenizer.ggml.eom_token_id"), Some(&Value::U32(7)));
    assert_eq!(try_load(&gguf).unwrap().weights.config.eos_token_ids, [1, 2, 7, 9, 11]);
}

#[test]
fn gguf_vocabularies_become_files_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let sources: Vec<PathBuf> = vec![
        Edit::stories().write(&dir.path().join("bpe.gguf")),
        Edit::stories().set("tokenizer.chat_template", TELLS_EOS).write(&dir.path().join("template.gguf")),
        Edit::stories().set("tokenizer.ggml.add_bos_token", Value::Bool(false)).write(&dir.path().join("no-bos.gguf")),
        Edit::stories().set("tokenizer.ggml.add_bos_token", Value::Bool(true)).write(&dir.path().join("bos.gguf")),
        Edit::stories().set("tokenizer.ggml.pre", "qwen2").write(&dir.path().join("qwen2.gguf")),
        Edit::stories().set("tokenizer.ggml.pre", "llama-bpe").write(&dir.path().join("llama.gguf")),
        Edit::stories().set("tokenizer.ggml.pre", "falcon").write(&dir.path().join("falcon.gguf")),
        test_support::testdata("gguf/defects_2b4t.I2_S.gguf"),
    ];
    for (n, source) in sources.iter().enumerate() {
        println!("{}", source.display());
        let folder = dir.path().join(format!("folder-{n}"));
        // This test is not about the weights, not all of which have scales that fit 16 bits.
        let mut options = ConvertOptions::default();
        options.rounding = ScaleRounding::Nearest;
        convert(source, &folder, Target::HfPacked, &options, &mut |_| {}).unwrap();
        assert!(folder.join("tokenizer.json").is_file());
        assert_eq!(talk(&try_load(&folder).unwrap()), talk(&try_load(source).unwrap()), "{}", source.display());
    }
    // SentencePiece becomes the file that it came from.
    let source = test_support::testdata("gguf/llama_spm.F16.gguf");
    let folder = dir.path().join("spm");
    let mut options = ConvertOptions::default();
    options.rounding = ScaleRounding::Nearest;
    convert(&source, &folder, Target::HfPacked, &options, &mut |_| {}).unwrap();
    assert!(folder.join("tokenizer.model").is_file());
    assert_eq!(talk(&try_load(&folder).unwrap()), talk(&try_load(&source).unwrap()));
    let again = dir.path().join("spm-again");
    to(&folder, &again, Target::HfPacked).unwrap();
    assert_eq!(talk(&try_load(&again).unwrap()), talk(&try_load(&source).unwrap()));
}

#[test]
fn a_sentencepiece_model_of_a_folder_becomes_the_vocabulary_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let Some(source) = stories_folder(&dir.path().join("s"), &json!({"bos_token_id": 1, "eos_token_id": 2}), &[])
    else {
        return;
    };
    std::fs::remove_file(source.join("tokenizer.json")).unwrap();
    std::fs::copy(test_support::testdata("tokenizer/spm.model"), source.join("tokenizer.model")).unwrap();
    all_ways(&source, dir.path());
    let file = Gguf::open(&dir.path().join("a.gguf")).unwrap();
    assert!(file.metadata().get("tokenizer.ggml.scores").is_some());
}

#[test]
fn a_tokenizer_that_gguf_has_no_keys_for_talks_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let files =
        [("tokenizer_config.json", json!({"bos_token": BOS, "eos_token": EOT, "add_bos_token": true}).to_string())];
    let Some(source) = stories_folder(&dir.path().join("s"), &json!({}), &files) else { return };
    let path = source.join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    tokenizer["normalizer"] = json!({"type": "NFKC"});
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    all_ways(&source, dir.path());
    let file = Gguf::open(&dir.path().join("a.gguf")).unwrap();
    assert!(file.metadata().get("tokenizer.huggingface.json").is_some());
}

#[test]
fn a_template_that_cannot_be_used_is_kept_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let broken = "{% trans %}x{% endtrans %}";
    let files = [("tokenizer_config.json", json!({"chat_template": broken}).to_string())];
    let Some(source) = stories_folder(&dir.path().join("s"), &json!({}), &files) else { return };
    let gguf = dir.path().join("m.gguf");
    to(&source, &gguf, Target::I2S).unwrap();
    assert_eq!(Gguf::open(&gguf).unwrap().metadata().str("tokenizer.chat_template").unwrap(), Some(broken));
}

#[test]
fn stretched_rotary_embeddings_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for (n, scaling) in [
        json!({"type": "linear", "factor": 4.0}),
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 128}),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = dir.path().join(n.to_string());
        let Some(source) = stories_folder(&dir.join("s"), &json!({"rope_scaling": scaling}), &[]) else { return };
        all_ways(&source, &dir);
        let angles = |path: &Path| try_load(path).unwrap().weights.config.rope_frequencies();
        let expected = angles(&source);
        for other in ["a.gguf", "b", "c", "d.gguf"] {
            let got = angles(&dir.join(other));
            let worst = expected.iter().zip(&got).map(|(x, y)| (x - y).abs() / x).fold(0.0, f32::max);
            assert!(worst <= 4.0 * f32::EPSILON, "{other}: {worst}");
        }
    }
}
