//! Tests of the engine with the model within the program and with one of attention.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use super::*;

fn engine(folder: &Path) -> (Engine, Arc<Mutex<Vec<Failure>>>) {
    let memory = Arc::new(Memory::open(folder).unwrap());
    let troubles = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&troubles);
    (Engine::start(Some(memory), Box::new(move |failure| kept.lock().unwrap().push(failure))), troubles)
}

fn load(engine: &Engine, source: Source) {
    engine.wait(move |worker| worker.load(&source, 1)).unwrap();
}

fn attention() -> Source {
    Source::Path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tinystories-5m.gguf"))
}

fn begin(engine: &Engine, session: &str, text: &str, more: &str) -> Receiver<News> {
    let (news, told) = channel();
    let request = format!(
        r#"{{"id": "g1", "session": "{session}", "prompt": {{"kind": "text", "text": {}}}, "sampling": {{"temperature": 0}}{more}}}"#,
        serde_json::to_string(text).unwrap()
    );
    let request: GenerateRequest = serde_json::from_str(&request).unwrap();
    let listener: Listener = Box::new(move |item| {
        let _ = news.send(item);
    });
    let job = move |worker: &mut Worker| {
        worker.generate(&request, listener);
        Ok(())
    };
    engine.wait(job).unwrap();
    told
}

/// Text and outcome.
fn finish(told: Receiver<News>) -> Result<(String, Outcome), Failure> {
    let mut all = String::new();
    for news in told {
        match news {
            News::Text { text, .. } => all.push_str(&text),
            News::Done { result } => return Ok((all, result)),
            News::Failed { error } => return Err(error),
            News::Reading { .. } | News::Memory { .. } => {}
        }
    }
    panic!("the news ended without an end")
}

fn generate(engine: &Engine, session: &str, text: &str) -> (String, Outcome) {
    finish(begin(engine, session, text, r#", "maxTokens": 24"#)).unwrap()
}

fn binding(session: &str) -> Vec<Binding> {
    vec![Binding { conversation: "c".into(), tip: "t".into(), session: session.into() }]
}

/// An engine with a conversation "c" of the model within the program, in `folder`.
fn told(folder: &Path) -> Engine {
    let (engine, _) = self::engine(folder);
    load(&engine, Source::Builtin);
    let session = engine.wait(Worker::open).unwrap();
    generate(&engine, &session, "Once");
    engine.wait(move |w| w.bind(binding(&session))).unwrap();
    engine
}

/// The same texts as one session without an interruption has: the program ends in between, and another session of the
/// same state goes on.
fn remembers(source: &Source) {
    let folder = tempfile::tempdir().unwrap();
    let start = "Once upon a time there was a little dog";
    let (first, second, third) = {
        let (engine, _) = engine(folder.path());
        load(&engine, source.clone());
        let session = engine.wait(Worker::open).unwrap();
        let (first, outcome) = generate(&engine, &session, start);
        assert_eq!((outcome.reason, outcome.new_tokens), ("length", 24));
        engine
            .wait({
                let id = session.clone();
                move |w| w.bind(binding(&id))
            })
            .unwrap();
        engine.close();
        assert_eq!(engine.wait(Worker::open).unwrap_err().code, "closing");
        // Without an interruption.
        let (uninterrupted, _) = self::engine(tempfile::tempdir().unwrap().path());
        load(&uninterrupted, source.clone());
        let session = uninterrupted.wait(Worker::open).unwrap();
        assert_eq!(generate(&uninterrupted, &session, start).0, first);
        let all = format!("{start}{first} And then");
        let (second, outcome) = generate(&uninterrupted, &session, &all);
        assert!(outcome.cached_tokens > 24, "{outcome:?}");
        (first, second, all)
    };
    let (engine, troubles) = engine(folder.path());
    load(&engine, source.clone());
    let recalled = engine.wait(|w| w.recall("c")).unwrap().unwrap();
    assert_eq!(recalled.tip, "t");
    let (text, outcome) = generate(&engine, &recalled.session, &third);
    assert_eq!(text, second);
    // Nothing of the text so far is read again, but the last token, which was not read yet.
    assert!(outcome.cached_tokens + 1 >= recalled.tokens, "{outcome:?} {recalled:?}");
    assert!(!first.is_empty() && troubles.lock().unwrap().is_empty());
}

#[test]
fn a_state_of_constant_size_is_remembered() {
    remembers(&Source::Builtin);
}

#[test]
fn keys_and_values_are_remembered() {
    remembers(&attention());
}

#[test]
fn a_state_of_another_model_is_not_used_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let engine = told(folder.path());
    load(&engine, attention());
    assert_eq!(engine.wait(|w| w.recall("c")).unwrap(), None);
    load(&engine, Source::Builtin);
    let back = engine.wait(|w| w.recall("c")).unwrap().unwrap();
    // Under a name that another model would look for, with a whole file: the model itself refuses it.
    let bytes = engine.wait(move |w| w.save(&back.session)).unwrap().0;
    load(&engine, attention());
    let (memory, other) = engine.wait(move |w| Ok((w.memory.clone().unwrap(), fingerprint(&w.model()?.0)))).unwrap();
    let about = About { conversation: "c".into(), tip: "t".into(), tokens: 1, model: "x".into(), fingerprint: other };
    memory.keep_state(&about, &bytes).unwrap();
    let refused = engine.wait(|w| w.recall("c")).unwrap_err();
    assert_eq!(refused.code, "session");
    assert!(refused.message.contains("model"), "{refused}");
    assert_eq!(engine.wait(|w| w.recall("c")).unwrap(), None);
}

#[test]
fn a_damaged_state_is_an_error_once_and_then_gone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = told(folder.path());
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "state"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let refused = engine.wait(|w| w.recall("c")).unwrap_err();
    assert_eq!(refused.code, "session");
    assert!(refused.message.contains("damaged"), "{refused}");
    assert_eq!(engine.wait(|w| w.recall("c")).unwrap(), None);
}

/// The state of a text that is being written is saved, too: the program may be killed at any time.
#[test]
fn a_state_is_saved_while_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = engine(folder.path());
    load(&engine, Source::Builtin);
    let session = engine.wait(Worker::open).unwrap();
    // Only a tilde may end it, which the model never writes.
    let endless = r#", "maxTokens": 100000, "constraint": {"kind": "regex", "regex": "[^~]*~"}"#;
    let told = begin(&engine, &session, "Once upon a time", endless);
    // It writes.
    let wrote = told.iter().find(|news| matches!(news, News::Text { .. }));
    assert!(wrote.is_some());
    engine.wait(move |w| w.bind(binding(&session))).unwrap();
    let memory = engine.wait(|w| Ok(w.memory.clone().unwrap())).unwrap();
    assert!(memory.states()[0].0.tokens > 0);
    for name in ["another", "g1"] {
        engine
            .wait(move |w| {
                w.cancel(name);
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(finish(told).unwrap().1.reason, "cancelled");
}

#[test]
fn forgetting_is_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let engine = told(folder.path());
    engine.wait(|w| w.forget(Some("c"))).unwrap();
    // Not even the end of the program brings it back.
    engine.close();
    let memory = Memory::open(folder.path()).err();
    drop(engine);
    assert!(memory.is_none());
    assert!(Memory::open(folder.path()).unwrap().states().is_empty());
}

#[test]
fn forks_saves_and_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = engine(folder.path());
    let no_model = engine.wait(Worker::open).unwrap_err();
    assert_eq!((no_model.code, no_model.message.as_str()), ("request", "no model is loaded"));
    load(&engine, Source::Builtin);
    let session = engine.wait(Worker::open).unwrap();
    let (text, _) = generate(&engine, &session, "The cat");
    let fork = engine
        .wait({
            let id = session.clone();
            move |w| w.fork(&id)
        })
        .unwrap();
    let (bytes, tokens) = engine
        .wait({
            let id = session.clone();
            move |w| w.save(&id)
        })
        .unwrap();
    let restored = engine.wait(move |w| w.restore(&bytes)).unwrap();
    assert!(tokens > 24);
    let all = format!("The cat{text} So");
    let next: Vec<String> = [session, fork, restored].iter().map(|id| generate(&engine, id, &all).0).collect();
    assert_eq!((&next[0], &next[0]), (&next[1], &next[2]));
    let unknown = finish(begin(&engine, "d99", "x", "")).unwrap_err();
    assert_eq!((unknown.code, unknown.param), ("request", Some("session")));
    let wrong = finish(begin(&engine, "d1", "x", r#", "constraint": {"kind": "schema", "schema": "{"}"#)).unwrap_err();
    assert_eq!(wrong.code, "constraint");
    let bytes = engine.wait(|w| w.restore(b"no session")).unwrap_err();
    assert_eq!(bytes.code, "session");
    let ids =
        engine.wait(|w| w.bind(vec![Binding { conversation: "../x".into(), tip: "t".into(), session: "d1".into() }]));
    assert_eq!(ids.unwrap_err().code, "request");
    let file = engine.wait(|w| w.load(&Source::Path("/nowhere.gguf".into()), 1)).unwrap_err();
    assert_eq!(file.code, "model");
    // A panic ends the sessions, not the program.
    assert_eq!(engine.wait::<()>(|_| panic!("on purpose")).unwrap_err().code, "internal");
    load(&engine, Source::Builtin);
    engine.wait(Worker::open).unwrap();
}

#[test]
fn a_text_can_be_constrained() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = engine(folder.path());
    load(&engine, Source::Builtin);
    let session = engine.wait(Worker::open).unwrap();
    let more = r#", "constraint": {"kind": "regex", "regex": "(yes|no)"}"#;
    let (text, _) = finish(begin(&engine, &session, "Is it?", more)).unwrap();
    assert!(["yes", "no"].contains(&text.as_str()), "{text:?}");
}

#[test]
fn small_states_are_saved_soon_and_large_ones_rarely() {
    let s = |n| Some(Duration::from_secs(n));
    const MIB: usize = 1 << 20;
    assert!(is_due(MIB, true, None) && is_due(MIB, true, s(3)) && !is_due(MIB, true, s(2)));
    assert!(!is_due(16 * MIB, true, None) && is_due(16 * MIB, false, s(0)));
    assert!(!is_due(64 * MIB, false, s(29)) && is_due(64 * MIB, false, s(30)));
}
