//! The facade with models whose layers are not attention: the caller need not know.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use bitnet::{Batch, GenerateOptions, Model, Output};
use loader::synthetic::Spec;

/// A model of two layers with these mixers; without a vocabulary, so tokens are given as they are.
fn model(mixers: &str, threads: usize) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("shape.json");
    let shape = format!(
        r#"{{"vocab_size": 200, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 700, "mixers": {mixers}, "ttt": {{"use_gate": true}}}}"#
    );
    std::fs::write(&json, shape).unwrap();
    let (spec, path) = (Spec::from_config_file(&json).unwrap(), dir.path().join("model.gguf"));
    assert!(spec.write(&path, NonZeroUsize::MIN, &mut |_| ControlFlow::Continue(())).unwrap());
    Model::builder().threads(threads).load(&path).unwrap()
}

const MODELS: [&str; 3] =
    [r#"["ttt_linear", "ttt_mlp"]"#, r#"["attention", "ttt_linear"]"#, r#"["attention", "attention"]"#];

fn options(n: usize) -> GenerateOptions {
    let mut options = GenerateOptions::default().temperature(0.9).seed(3).max_tokens(n);
    options.ignore_eos = true;
    options
}

fn alone(model: &Model, prompt: &[u32]) -> Output {
    model.session().generate_ids(prompt, options(40)).unwrap().finish().unwrap()
}

const PROMPT: [u32; 9] = [1, 5, 9, 1, 5, 9, 1, 5, 2];

#[test]
fn sessions_go_on_go_back_and_generate_together_whatever_the_layers() {
    for mixers in MODELS {
        let model = model(mixers, 1);
        let whole = alone(&model, &PROMPT).ids;
        let mut session = model.session();
        let mut ids = session.generate_ids(&PROMPT, options(11)).unwrap().finish().unwrap().ids;
        let mut fork = session.fork();
        let saved = session.save().unwrap();
        for _ in 0..2 {
            ids.extend(session.generate_ids(&[], options(7)).unwrap().finish().unwrap().ids);
        }
        assert_eq!(ids, whole[..25], "{mixers}");
        let rest = options(40 - 11);
        assert_eq!(fork.generate_ids(&[], rest).unwrap().finish().unwrap().ids, whole[11..], "{mixers}");
        let mut restored = model.restore_session(&saved).unwrap();
        assert_eq!(restored.generate_ids(&[], options(29)).unwrap().finish().unwrap().ids, whole[11..], "{mixers}");

        // Back to the prompt, and to the same tokens by name.
        session.rewind(PROMPT.len()).unwrap();
        assert_eq!(session.generate_ids(&[], options(40)).unwrap().finish().unwrap().ids, whole, "{mixers}");
        for _ in 0..2 {
            let again = session.generate_from(&PROMPT, options(40)).unwrap().finish().unwrap();
            assert_eq!(again.ids, whole, "{mixers}");
        }
        // A continuation of everything that was read need not be read again.
        let mut session = model.session();
        session.feed_ids(&PROMPT).unwrap();
        let longer: Vec<u32> = PROMPT.iter().copied().chain([7, 8]).collect();
        let output = session.generate_from(&longer, options(5)).unwrap().finish().unwrap();
        assert_eq!((output.stats.reused_tokens, output.stats.prompt_tokens), (PROMPT.len(), 2), "{mixers}");
        assert_eq!(output.ids, alone(&model, &longer).ids[..5]);

        let mut batch = Batch::new(&model);
        let texts: Vec<Vec<u32>> = vec![PROMPT.to_vec(), vec![3], (0..90).collect()];
        let tickets: Vec<_> = texts.iter().map(|t| batch.join(model.session(), t, options(40)).unwrap()).collect();
        while !batch.is_finished() {
            batch.step().into_iter().for_each(|(_, chunk)| drop(chunk.unwrap()));
        }
        for (ticket, text) in tickets.into_iter().zip(&texts) {
            assert_eq!(batch.leave(ticket).unwrap().1.ids, alone(&model, text).ids, "{mixers}");
        }
        // A session that holds the whole prompt, or more, joins with the remaining tokens, possibly none.
        for more in [&[][..], &[4, 4]] {
            let mut session = model.session();
            session.feed_ids(&[&PROMPT[..], more].concat()).unwrap();
            let known = session.keep_prefix(&PROMPT).unwrap();
            let ticket = batch.join(session, &PROMPT[known..], options(40)).unwrap();
            while !batch.is_finished() {
                batch.step().into_iter().for_each(|(_, chunk)| drop(chunk.unwrap()));
            }
            assert_eq!(batch.leave(ticket).unwrap().1.ids, whole, "{mixers}");
        }
    }
}

#[test]
fn a_session_tells_how_much_memory_it_takes() {
    let [pure, hybrid, attention] = MODELS.map(|mixers| model(mixers, 1));
    let bytes = |model: &Model, n: usize| {
        let mut session = model.session();
        session.feed_ids(&vec![1; n]).unwrap();
        assert_eq!(session.state().bytes(), session.state().kv_bytes() + session.state().ttt_bytes());
        (session.state().kv_bytes(), session.state().ttt_bytes())
    };
    let state = pure.config().state_bytes().unwrap();
    assert_eq!((bytes(&pure, 1), bytes(&pure, 600)), ((0, state), (0, state)));
    assert!(bytes(&hybrid, 600).0 > bytes(&hybrid, 1).0);
    assert_eq!(bytes(&hybrid, 600).1, hybrid.config().state_bytes().unwrap());
    assert_eq!(bytes(&attention, 600).1, 0);
    assert_eq!((pure.context(), hybrid.context()), (usize::MAX, 700));
}

#[test]
fn a_text_that_nothing_ends_has_a_length_all_the_same() {
    for mixers in MODELS {
        let model = model(mixers, 1);
        let mut options = options(0);
        options.max_tokens = None;
        let mut session = model.session();
        let output = session.generate_ids(&PROMPT, options).unwrap().finish().unwrap();
        let room = if model.context() == usize::MAX { 700 } else { 700 - PROMPT.len() };
        assert_eq!((output.ids.len(), output.finish_reason), (room, bitnet::FinishReason::Length), "{mixers}");
    }
}
