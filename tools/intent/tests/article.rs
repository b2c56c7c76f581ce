//! The question that this project began with, "青空文庫って知ってる?", and a request in English, each as it is and in ten
//! versions with typing errors, asked of the shipped extractors. Values are copied as they were typed.

use bitnet::Extractor;
use bitnet::train::for_each_example;
use test_support::{testdata, workspace_dir};

fn shipped(name: &str) -> Extractor {
    Extractor::load(workspace_dir().join("models/intent").join(name)).expect("a shipped model")
}

#[test]
fn the_question_of_the_article_is_about_its_library() {
    let extractor = shipped("extractor-ja.gguf");
    for (question, topic) in [
        ("青空文庫って知ってる?", "青空文庫"),
        ("青空文庫って知ってる？", "青空文庫"),
        ("青空文庫つて知ってる?", "青空文庫"),
        ("青空文庫って知つてる？", "青空文庫"),
        ("青空文庫って知ってるる?", "青空文庫"),
        ("青空文庫て知ってる", "青空文庫"),
        ("青空文庫っって知ってる?", "青空文庫"),
        ("青空文庫ってしってる", "青空文庫"),
        ("青空文庫ってk知ってる?", "青空文庫"),
        ("青空文庫って知てる?", "青空文庫"),
        ("青空文文庫って知ってる?", "青空文文庫"),
    ] {
        let found = extractor.extract(question).unwrap();
        assert_eq!((found.slot("topic"), found.slots.len()), (Some(topic), 1), "{question}");
    }
}

#[test]
fn music_is_played_however_it_is_typed() {
    let extractor = shipped("extractor.gguf");
    for (text, genre, artist) in [
        ("play some jazz by miles davis", "jazz", "miles davis"),
        ("play sme jazz by miles davis", "jazz", "miles davis"),
        ("plya some jazz by miles davis", "jazz", "miles davis"),
        ("play some jazz by miles davsi", "jazz", "miles davsi"),
        ("play some jaz by miles davis", "jaz", "miles davis"),
        ("play some jazzz by miles davis", "jazzz", "miles davis"),
        ("pay some jazz by mles davis", "jazz", "mles davis"),
        ("PLAY SOME JAZZ BY MILES DAVIS", "JAZZ", "MILES DAVIS"),
        ("play soem jazz by milse davis", "jazz", "milse davis"),
        ("play some jazz by miles dvis", "jazz", "miles dvis"),
        ("okay some jazz by miles davis", "jazz", "miles davis"),
    ] {
        let found = extractor.extract(text).unwrap();
        assert_eq!(found.intent, "PlayMusic", "{text}");
        assert_eq!((found.slot("genre"), found.slot("artist")), (Some(genre), Some(artist)), "{text}");
        assert_eq!(found.slots.len(), 2, "{text}");
    }
}

/// Right topics of 50 questions with new topics and new patterns, clean and with errors, those that the language model is
/// asked in `shipped.rs`. Products are exact integers and floats have one order, so the counts are the same on every CPU.
#[test]
fn topics_are_found_as_often_as_recorded() {
    let extractor = shipped("extractor-ja.gguf");
    let mut right = Vec::new();
    for_each_example(&testdata("intent/japanese.jsonl"), &mut |example| {
        let found = extractor.extract(example.prompt.trim_end_matches('\n')).unwrap();
        let topic: serde_json::Value = serde_json::from_str(example.completion).unwrap();
        right.push(found.slots.len() == 1 && found.slot("topic") == topic["topic"].as_str());
        Ok(())
    })
    .unwrap();
    let counts = [&right[..50], &right[50..]].map(|part| part.iter().filter(|r| **r).count());
    assert_eq!(counts, [48, 44], "clean and with errors");
}
