//! The facade with the model that is in the repository.

use std::ops::ControlFlow;

use bitnet::{
    CancelToken, Error, FinishReason, GenerateOptions, HeadMode, KvType, Message, Model, ModelError, SamplingOptions,
};

fn model() -> Model {
    Model::builder().threads(2).load(test_support::workspace_dir().join("models/tinystories-5m.gguf")).unwrap()
}

fn greedy(n: usize) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).max_tokens(n)
}

fn story(model: &Model, options: GenerateOptions) -> bitnet::Output {
    model.session().generate("Once upon a time", options).unwrap().finish().unwrap()
}

#[test]
fn pieces_callback_and_result_are_the_same_text() {
    let model = model();
    let whole = story(&model, greedy(40));
    let text = whole.text.clone().unwrap();
    assert_eq!((whole.ids.len(), whole.finish_reason, whole.stats.new_tokens), (40, FinishReason::Length, 40));
    assert_eq!(model.decode(&whole.ids).unwrap(), text);

    let mut session = model.session();
    let pieces: Vec<_> = session.generate("Once upon a time", greedy(40)).unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces.iter().map(|c| c.text.as_str()).collect::<String>(), text);
    assert_eq!(pieces.iter().filter_map(|c| c.token).collect::<Vec<_>>(), whole.ids);

    let mut heard = String::new();
    let hear = |piece: &str| {
        heard.push_str(piece);
        ControlFlow::Continue(())
    };
    let output = model.session().generate_with("Once upon a time", greedy(40), hear).unwrap();
    assert_eq!((heard, output.text), (text.clone(), Some(text)));
}

#[test]
fn a_seed_decides_the_text_whatever_the_threads() {
    let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
    let sampled = |threads: usize, seed: u64| {
        let model = Model::builder().threads(threads).load(&path).unwrap();
        story(&model, GenerateOptions::default().temperature(1.0).seed(seed).max_tokens(30)).ids
    };
    assert_eq!(sampled(1, 5), sampled(3, 5));
    assert_ne!(sampled(1, 5), sampled(1, 6));
}

#[test]
fn stop_texts_never_leak_and_end_the_generation() {
    let model = model();
    let text = story(&model, greedy(60)).text.unwrap();
    // A stop text that begins and ends inside of tokens.
    let at = text.len() / 2;
    let stop = &text[at..at + 5];
    let first = text.find(stop).unwrap();
    let output = story(&model, greedy(60).stop(stop));
    assert_eq!(output.finish_reason, FinishReason::Stop);
    assert_eq!(output.text.as_deref(), Some(&text[..first]));
    let mut session = model.session();
    let pieces = session.generate("Once upon a time", greedy(60).stop(stop)).unwrap();
    let streamed: String = pieces.map(|c| c.unwrap().text).collect();
    assert_eq!(streamed, text[..first]);
}

#[test]
fn a_session_goes_on_where_it_ended() {
    let model = model();
    let whole = story(&model, greedy(30)).ids;
    let mut session = model.session();
    let mut ids = session.generate("Once upon a time", greedy(11)).unwrap().finish().unwrap().ids;
    ids.extend(session.generate_ids(&[], greedy(19)).unwrap().finish().unwrap().ids);
    assert_eq!(ids, whole);

    // The same tokens again: all but the last are kept, and the text is the same.
    let prompt = model.encode("Once upon a time", true).unwrap();
    let again = session.generate_from(&prompt, greedy(30)).unwrap().finish().unwrap();
    assert_eq!((again.ids, again.stats.reused_tokens, again.stats.prompt_tokens), (whole, prompt.len() - 1, 1));
}

#[test]
fn generation_ends_by_token_from_another_thread_by_break_and_by_drop() {
    let model = model();
    let cancel = CancelToken::new();
    let from_outside = cancel.clone();
    let mut count = 0;
    let count_and_cancel = |_: &str| {
        count += 1;
        if count == 3 {
            let token = from_outside.clone();
            std::thread::spawn(move || token.cancel()).join().unwrap();
        }
        ControlFlow::Continue(())
    };
    let output =
        model.session().generate_with("Once upon a time", greedy(400).cancel(&cancel), count_and_cancel).unwrap();
    assert_eq!(output.finish_reason, FinishReason::Cancelled);
    assert!(output.ids.len() < 10);

    let stop_at_once = |_: &str| ControlFlow::Break(());
    let output = model.session().generate_with("Once upon a time", greedy(400), stop_at_once).unwrap();
    assert_eq!(output.finish_reason, FinishReason::Cancelled);

    let mut session = model.session();
    let mut generation = session.generate("Once upon a time", greedy(400)).unwrap();
    let first = generation.next().unwrap().unwrap().token.unwrap();
    drop(generation);
    assert_eq!(session.tokens().last(), Some(&first));
}

#[test]
fn processors_change_what_is_chosen() {
    let model = model();
    let usual = story(&model, greedy(1)).ids[0];
    let forbid = move |_: &[u32], logits: &mut [f32]| logits[usual as usize] = f32::NEG_INFINITY;
    assert_ne!(story(&model, greedy(1).processor(forbid)).ids[0], usual);
}

#[test]
fn what_does_not_fit_is_refused_with_a_way_out() {
    let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
    let model = Model::builder().threads(1).context(12).kv(KvType::F32).load(path).unwrap();
    let mut session = model.session();
    match session.generate_ids(&[1; 13], greedy(1)) {
        Err(Error::Model(ModelError::ContextFull { limit: 12, used: 0, more: 13 })) => {}
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert!(matches!(
        session.generate_ids(&[9999], greedy(1)),
        Err(Error::Model(ModelError::TokenOutOfRange { id: 9999, .. }))
    ));
    assert!(matches!(session.generate_ids(&[], greedy(1)), Err(Error::Model(ModelError::EmptyPrompt))));
    // Until the context is full, and no further.
    let mut options = GenerateOptions::default().temperature(0.0);
    options.ignore_eos = true;
    let output = session.generate_ids(&[1; 10], options).unwrap().finish().unwrap();
    assert_eq!((output.finish_reason, session.remaining()), (FinishReason::Length, 0));
}

#[test]
fn chat_goes_through_the_template() {
    let model = model();
    let messages = [Message::system("Be kind."), Message::user("Tell me a story.")];
    let ids = model.encode_chat(&messages).unwrap();
    let text = model.tokenizer().unwrap().decode(&ids, false);
    assert!(text.ends_with("System: Be kind.<|eot_id|>User: Tell me a story.<|eot_id|>Assistant: "), "{text:?}");
    let mut session = model.session();
    assert!(!session.chat(&messages, greedy(5)).unwrap().finish().unwrap().ids.is_empty());
}

/// The trained model, with the head read in full and with a coarse pass first: the text is the same, and the statistics
/// show the mode.
#[test]
fn the_way_to_the_best_tokens_changes_no_text() {
    let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
    let [plain, coarse] =
        [HeadMode::Plain, HeadMode::Coarse].map(|mode| Model::builder().threads(2).head(mode).load(&path).unwrap());
    let with = |s: SamplingOptions| GenerateOptions::default().sampling(s).max_tokens(60);
    let o = || SamplingOptions::default().with_seed(3);
    let vocab = plain.config().vocab_size;
    for (options, few) in [
        (SamplingOptions::greedy(), true),
        (o().with_top_k(12), true),
        (o().with_top_k(10).with_top_p(1.0).with_min_p(0.1).with_temperature(1.2), true),
        (o().with_top_p(1.0).with_min_p(0.05), true),
        (o(), false),
        (o().with_top_p(1.0).with_temperature(1.0), false),
    ] {
        let [a, b] = [&plain, &coarse].map(|m| story(m, with(options.clone())));
        assert_eq!((&a.ids, a.stats.coarse_tokens), (&b.ids, 0), "{options:?}");
        assert_eq!(b.stats.coarse_tokens, if few { b.ids.len() } else { 0 }, "{options:?}");
        let rows = b.stats.rescored_per_token();
        assert_eq!(few, rows >= 1.0 && rows < vocab as f64 / 4.0, "{options:?}: {rows} rows of {vocab}");
    }
}

/// Penalties of new tokens leave the prompt alone, so the head of a long prompt is asked for no more than the best.
#[test]
fn a_long_prompt_needs_no_more_of_the_head_than_a_short_one() {
    let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
    let model = Model::builder().head(HeadMode::Coarse).load(&path).unwrap();
    let sampling = SamplingOptions::greedy().with_presence_penalty(0.5);
    let options = || GenerateOptions::default().sampling(sampling.clone()).max_tokens(4);
    let prompt = "Once upon a time there was a dog. ".repeat(32);
    let mut session = model.session();
    let alone = session.generate(&prompt, options()).unwrap().finish().unwrap();
    assert!(alone.stats.prompt_tokens > 256 && alone.stats.coarse_tokens == alone.ids.len(), "{:?}", alone.stats);
    let mut batch = bitnet::Batch::new(&model);
    let ids = model.encode(&prompt, model.adds_bos()).unwrap();
    let id = batch.join(model.session(), &ids, options()).unwrap();
    while !batch.is_finished() {
        batch.step().into_iter().for_each(|(_, chunk)| drop(chunk.unwrap()));
    }
    let (_, together) = batch.leave(id).unwrap();
    assert_eq!((&together.ids, together.stats.coarse_tokens), (&alone.ids, alone.ids.len()), "{:?}", together.stats);
}

/// The logits that were requested with the prompt serve the first token only if the next generation needs no more.
#[test]
fn a_session_goes_on_with_other_options() {
    let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
    let [plain, coarse] =
        [HeadMode::Plain, HeadMode::Coarse].map(|mode| Model::builder().head(mode).load(&path).unwrap());
    let text = |model: &Model| {
        let mut session = model.session();
        session.generate("The cat", greedy(0)).unwrap().finish().unwrap();
        let more = GenerateOptions::default().temperature(1.0).seed(9).max_tokens(5);
        session.generate_ids(&[], more).unwrap().finish().unwrap();
        session.generate_ids(&[], greedy(5)).unwrap().finish().unwrap();
        let banned = session.tokens()[3];
        let never = GenerateOptions::default()
            .temperature(0.0)
            .max_tokens(5)
            .processor(move |_: &[u32], l: &mut [f32]| l[banned as usize] = f32::NEG_INFINITY);
        session.generate_ids(&[], never).unwrap().finish().unwrap();
        (session.feed_ids(&[]).unwrap().to_vec(), session.tokens().to_vec())
    };
    assert_eq!(text(&plain), text(&coarse));
}
