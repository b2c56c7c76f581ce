//! Speculation and batches: other ways to the same text.

use bitnet::{
    Batch, Error, FinishReason, GenerateOptions, Model, ModelError, Output, Prepared, SequenceId, Speculation,
};

fn model(threads: usize) -> Model {
    Model::builder().threads(threads).load(test_support::workspace_dir().join("models/tinystories-5m.gguf")).unwrap()
}

const PROMPTS: [&str; 4] = [
    "Once upon a time",
    "The cat sat on the mat. The dog sat on the mat. The cat sat on the mat. The dog sat on",
    "Tom said: \"I like red apples and green pears.\" Mia said: \"I like red apples and green pears.\" Tom said: \"I like",
    "x",
];

fn options(temperature: f32, seed: u64) -> GenerateOptions {
    let mut options = GenerateOptions::default().temperature(temperature).seed(seed).max_tokens(60);
    options.ignore_eos = true;
    options
}

fn alone(model: &Model, prompt: &str, options: GenerateOptions) -> Output {
    model.session().generate(prompt, options).unwrap().finish().unwrap()
}

#[test]
fn drafts_change_no_token() {
    let model = model(2);
    let (mut drafted, mut accepted) = (0, 0);
    for prompt in PROMPTS {
        for (temperature, seed) in [(0.0, 0), (0.8, 1), (0.8, 2)] {
            let plain = alone(&model, prompt, options(temperature, seed).speculation(Speculation::Off));
            assert_eq!((plain.stats.drafted, plain.stats.accepted), (0, 0));
            for max_draft in [1, 3, 7, 40] {
                let how = Speculation::PromptLookup { max_draft };
                let output = alone(&model, prompt, options(temperature, seed).speculation(how));
                assert_eq!(
                    (&output.ids, &output.text),
                    (&plain.ids, &plain.text),
                    "{prompt}, {temperature}, {max_draft}"
                );
                drafted += output.stats.drafted;
                accepted += output.stats.accepted;
            }
        }
    }
    assert!(0 < accepted && accepted < drafted, "{accepted} of {drafted}");
}

#[test]
fn a_generation_ended_amid_guesses_leaves_a_whole_session() {
    let model = model(1);
    let prompt = PROMPTS[1];
    let whole = alone(&model, prompt, options(0.0, 0).speculation(Speculation::Off)).ids;
    for n in 1..24 {
        let mut session = model.session();
        let first: Vec<u32> = {
            let how = Speculation::PromptLookup { max_draft: 7 };
            let mut generation = session.generate(prompt, options(0.0, 0).speculation(how)).unwrap();
            (0..n).map(|_| generation.next().unwrap().unwrap().token.unwrap()).collect()
        };
        assert_eq!(first, whole[..n]);
        assert_eq!(session.tokens()[session.len() - n..], whole[..n]);
        let mut fork = session.fork();
        let rest = session.generate_ids(&[], options(0.0, 0).max_tokens(60 - n)).unwrap().finish().unwrap();
        assert_eq!(rest.ids, whole[n..]);
        // Rewinds to the middle of the generated text, and continues differently.
        fork.rewind(fork.len() - n / 2).unwrap();
        let mut plain = model.session();
        let text = fork.tokens().to_vec();
        let a = fork.generate_ids(&whole[..3], options(0.7, 3)).unwrap().finish().unwrap();
        plain.feed_ids(&text).unwrap();
        let b =
            plain.generate_ids(&whole[..3], options(0.7, 3).speculation(Speculation::Off)).unwrap().finish().unwrap();
        assert_eq!(a.ids, b.ids, "{n}");
    }
}

#[test]
fn a_batch_gives_each_session_its_own_text() {
    let model = model(2);
    let long = PROMPTS[1].repeat(8);
    let mut prompts: Vec<&str> = PROMPTS.to_vec();
    prompts.push(&long);
    let how = |i: usize| options(if i.is_multiple_of(2) { 0.0 } else { 0.9 }, i as u64).max_tokens(10 + 7 * i);
    let expected: Vec<Output> = prompts.iter().enumerate().map(|(i, p)| alone(&model, p, how(i))).collect();

    let mut batch = Batch::new(&model);
    assert!(batch.step().is_empty() && batch.is_finished());
    let mut tickets = Vec::new();
    let mut heard = vec![String::new(); prompts.len()];
    let mut rounds = 0;
    while tickets.len() < prompts.len() || !batch.is_finished() {
        // One more joins every third step.
        if rounds % 3 == 0 && tickets.len() < prompts.len() {
            let i = tickets.len();
            let ids = model.encode(prompts[i], model.adds_bos()).unwrap();
            tickets.push(batch.join(model.session(), &ids, how(i)).unwrap());
        }
        for (ticket, chunk) in batch.step() {
            let i = tickets.iter().position(|t| *t == ticket).unwrap();
            heard[i].push_str(&chunk.unwrap().text);
        }
        rounds += 1;
    }
    for (i, ticket) in tickets.iter().enumerate() {
        let (mut session, output) = batch.leave(*ticket).unwrap();
        assert_eq!((&output.ids, &output.text), (&expected[i].ids, &expected[i].text), "{i}");
        assert_eq!(Some(&heard[i]), output.text.as_ref());
        // It continues alone as if it had never been in the batch.
        let on = session.generate_ids(&[], options(0.0, 0).max_tokens(5)).unwrap().finish().unwrap();
        let mut other = model.session();
        let mut generation = other.generate(prompts[i], how(i)).unwrap();
        generation.by_ref().for_each(drop);
        drop(generation);
        assert_eq!(on.ids, other.generate_ids(&[], options(0.0, 0).max_tokens(5)).unwrap().finish().unwrap().ids);
    }
    assert!(batch.is_empty() && batch.leave(tickets[0]).is_none());
}

#[test]
fn what_cannot_join_is_refused_and_disturbs_no_other() {
    let model = model(1);
    let mut batch = Batch::new(&model);
    let good = batch.join(model.session(), &[5, 6, 7], options(0.0, 0).max_tokens(3)).unwrap();
    let other = self::model(1);
    assert!(matches!(
        batch.join(other.session(), &[5], options(0.0, 0)),
        Err(Error::Model(ModelError::ForeignSequence))
    ));
    assert!(matches!(batch.join(model.session(), &[], options(0.0, 0)), Err(Error::Model(ModelError::EmptyPrompt))));
    let vocab = model.config().vocab_size as u32;
    let outside = batch.join(model.session(), &[vocab], options(0.0, 0));
    assert!(matches!(outside, Err(Error::Model(ModelError::TokenOutOfRange { .. }))), "{outside:?}");
    let long = vec![5; model.context() + 1];
    let outside = batch.join(model.session(), &long, options(0.0, 0));
    assert!(matches!(outside, Err(Error::Model(ModelError::ContextFull { .. }))), "{outside:?}");
    // A processor that forbids every token is an error of its own session.
    let never = |_: &[u32], logits: &mut [f32]| logits.fill(f32::NEG_INFINITY);
    let bad = batch.join(model.session(), &[5, 6], options(0.0, 0).processor(never)).unwrap();
    let mut errors = 0;
    while !batch.is_finished() {
        errors += batch.step().into_iter().filter(|(t, c)| c.is_err() && *t == bad).count();
    }
    assert_eq!(errors, 1);
    let (_, output) = batch.leave(good).unwrap();
    assert_eq!((output.ids.len(), output.finish_reason), (3, FinishReason::Length));
}

/// Each text has its own options: probabilities, stops, biases, processors.
#[test]
fn every_option_is_its_own_texts() {
    let model = model(2);
    let how = |i: usize| {
        let base = options(0.8, i as u64).max_tokens(25 + i);
        match i {
            0 => base.logprobs(3),
            1 => base.stop("e").stop("zzz"),
            2 => base.logit_bias(5, -30.0).logit_bias(40, 3.0).logprobs(0),
            3 => base.processor(|tokens: &[u32], logits: &mut [f32]| {
                tokens.iter().rev().take(5).for_each(|t| logits[*t as usize] -= 4.0);
            }),
            4 => base.stop_when(|ids, _| ids.len() == 9),
            _ => base.max_tokens(0),
        }
    };
    let mut batch = Batch::new(&model);
    let ids = model.encode(PROMPTS[0], model.adds_bos()).unwrap();
    let joined: Vec<SequenceId> = (0..6)
        .map(|i| {
            // Options are checked on another thread.
            let (model, how) = (&model, &how);
            let prepared = std::thread::scope(|s| s.spawn(|| Prepared::new(model, how(i)).unwrap()).join().unwrap());
            batch.join_prepared(model.session(), &ids, prepared).unwrap()
        })
        .collect();
    let mut finished = Vec::new();
    while !batch.is_empty() {
        batch.step().into_iter().for_each(|(_, chunk)| drop(chunk.unwrap()));
        let taken = batch.take_finished();
        assert!(taken.is_sorted_by_key(|t| t.0));
        finished.extend(taken);
    }
    assert_eq!(finished.len(), 6);
    for (ticket, _, output) in finished {
        let i = joined.iter().position(|t| *t == ticket).unwrap();
        let own = alone(&model, PROMPTS[0], how(i));
        assert_eq!((&output.ids, &output.text, output.finish_reason), (&own.ids, &own.text, own.finish_reason), "{i}");
        assert_eq!(output.logprobs, own.logprobs, "{i}");
    }
    let refused = Prepared::new(&model, options(-1.0, 0)).map(drop);
    assert!(matches!(refused, Err(Error::Model(ModelError::Sampling { option: "temperature", .. }))));
    let foreign = Prepared::new(&self::model(1), options(0.0, 0)).unwrap();
    let refused = batch.join_prepared(model.session(), &[5], foreign);
    assert!(matches!(refused, Err(Error::Model(ModelError::ForeignSequence))));
}

/// A session that holds the beginning of a text joins with the rest, and even with nothing left to read.
#[test]
fn what_a_session_holds_is_not_read_again_in_a_batch() {
    let model = model(1);
    let ids = model.encode(PROMPTS[1], model.adds_bos()).unwrap();
    for held in [1, 7, ids.len() - 1, ids.len()] {
        for elsewhere in [&[][..], &[9, 9, 9]] {
            let mut session = model.session();
            session.feed_ids(&[&ids[..held], elsewhere].concat()).unwrap();
            assert_eq!(session.common_prefix(&ids), held);
            let known = session.keep_prefix(&ids).unwrap();
            assert_eq!(known, held.min(ids.len() - 1));
            let mut batch = Batch::new(&model);
            let ticket = batch.join(session, &ids[known..], options(0.9, 4)).unwrap();
            while !batch.is_finished() {
                batch.step().into_iter().for_each(|(_, chunk)| drop(chunk.unwrap()));
            }
            let (_, output) = batch.leave(ticket).unwrap();
            assert_eq!(output.ids, alone(&model, PROMPTS[1], options(0.9, 4)).ids, "{held} {elsewhere:?}");
            assert_eq!(output.stats.prompt_tokens, ids.len() - known);
        }
    }
}
