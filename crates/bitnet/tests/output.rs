//! Information about tokens and texts besides the text itself, and options that steer and end a text.

use bitnet::{
    CancelToken, ChooseBy, Classifier, EmbedOptions, Error, FinishReason, GenerateOptions, KvType, Model, ModelError,
    Pooling, Speculation,
};

fn model() -> Model {
    let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
    Model::builder().threads(2).kv(KvType::F32).load(path).unwrap()
}

fn greedy(n: usize) -> GenerateOptions {
    GenerateOptions::default().temperature(0.0).max_tokens(n)
}

/// The logarithm of the softmax, written out.
fn log_softmax(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total = logits.iter().map(|&l| f64::from(l - max).exp()).sum::<f64>().ln() + f64::from(max);
    f64::from(logits[token as usize]) - total
}

/// Every score follows from the logits of the whole text, whatever else is scored with it.
#[test]
fn scores_are_those_of_the_whole_texts() {
    let model = model();
    let prompt = model.encode("Once upon a time there was a", true).unwrap();
    let ends = [
        " little girl who liked to play",
        " little dog",
        " little girl",
        "",
        " big",
        " little girl who liked cake. She",
    ];
    let ids: Vec<Vec<u32>> = ends.iter().map(|e| model.encode(e, false).unwrap()).collect();
    let vocab = model.config().vocab_size;
    let expected = |ids: &[u32]| -> Vec<f64> {
        let logits = model.logits(&[&prompt, ids].concat()).unwrap();
        let after = logits.chunks_exact(vocab).skip(prompt.len() - 1);
        ids.iter().zip(after).map(|(&id, row)| log_softmax(row, id)).collect()
    };
    let mut session = model.session();
    session.feed_ids(&prompt).unwrap();
    // All of them; those with a common beginning; one alone.
    for set in [&ids[..], &[ids[0].clone(), ids[2].clone(), ids[5].clone()], &ids[..1], &[]] {
        let scores = session.score_ids(set).unwrap();
        assert_eq!(scores.len(), set.len());
        for (score, ids) in scores.iter().zip(set) {
            assert_eq!((&score.ids, &score.logprobs), (ids, &expected(ids)));
        }
    }
    assert_eq!(session.tokens(), prompt);
    assert!(matches!(model.session().score_ids(&ids), Err(Error::Model(ModelError::EmptyPrompt))));
    assert!(matches!(session.score_ids(&[vec![9999]]), Err(Error::Model(ModelError::TokenOutOfRange { .. }))));
    // A session in the middle of its text has a token that the model has not read.
    let last = session.generate_ids(&[], greedy(3)).unwrap().finish().unwrap().ids;
    let after = session.score_ids(&ids[1..2]).unwrap();
    let mut whole = model.session();
    whole.feed_ids(&[&prompt[..], &last].concat()).unwrap();
    assert_eq!(after, whole.score_ids(&ids[1..2]).unwrap());
}

#[test]
fn texts_are_cut_with_the_prompt_and_the_best_is_chosen() {
    let model = model();
    let prompt = "The boy was thirsty. He drank a glass of";
    let texts = [" stone", " water", " shoes"];
    let choice = model.choose(prompt, texts, ChooseBy::Total).unwrap();
    assert_eq!(choice.index, 1, "{choice:?}");
    assert!((choice.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12 && choice.probability() > 0.5);
    // The same in a session that has read the prompt, because these texts begin with tokens of their own.
    let mut session = model.session();
    session.feed(prompt).unwrap();
    assert_eq!(session.choose(texts, ChooseBy::Total).unwrap(), choice);
    // A text that changes the prompt's last token is scored with that token, as all others are.
    let scores = model.score("I like wat", ["er", "ching birds"]).unwrap();
    let ids = |t: &str| model.encode(t, true).unwrap();
    let (water, watching) = (ids("I like water"), ids("I like watching birds"));
    let common = water.iter().zip(&watching).zip(&ids("I like wat")).take_while(|((a, b), c)| a == b && b == c).count();
    assert_eq!((&scores[0].ids[..], &scores[1].ids[..]), (&water[common..], &watching[common..]));
    assert!(matches!(model.choose(prompt, [""; 0], ChooseBy::Total), Err(Error::NothingToChoose)));
    for (by, score) in [(ChooseBy::PerToken, scores[0].per_token()), (ChooseBy::PerByte, scores[0].total() / 2.0)] {
        assert_eq!(scores[0].by(by), score);
    }
}

#[test]
fn a_classifier_reads_its_template_once_and_is_calibrated() {
    let model = model();
    let labels = [" happy", " sad"];
    let mut moods = Classifier::new(&model, "{text} The girl was very", labels).unwrap();
    let happy = moods.classify("It was her birthday and she got a big cake.").unwrap();
    let sad = moods.classify("She lost her toy and cried and cried.").unwrap();
    assert!(happy.probabilities[0] > sad.probabilities[0]);
    let again = moods.classify("It was her birthday and she got a big cake.").unwrap();
    assert_eq!(again, happy);
    moods.calibrate("").unwrap();
    // The neutral text itself is then undecided.
    assert_eq!(moods.classify("").unwrap().probabilities, [0.5, 0.5]);
    // Together, and one that does not fit among them.
    let long = "a dog ".repeat(model.context().min(4000));
    let texts = ["She lost her toy.", "She found her lost toy. She ran home.", "", long.as_str(), "She lost her cat."];
    let all = moods.classify_all(texts);
    for (text, together) in texts.iter().zip(&all) {
        match (moods.classify(text), together) {
            (Ok(alone), Ok(together)) => assert_eq!(alone, *together, "{text}"),
            (Err(alone), Err(together)) => assert_eq!(alone.to_string(), together.to_string()),
            (alone, together) => panic!("{alone:?} {together:?}"),
        }
    }
    assert_eq!(all[3].is_err(), model.context() < 4000);
    assert!(moods.classify_all([""; 0]).is_empty());
    assert!(matches!(Classifier::new(&model, "no place", labels), Err(Error::Template { .. })));
    assert!(matches!(Classifier::new(&model, "{text}", [""; 0]), Err(Error::NothingToChoose)));
}

/// Log-probabilities are those without processors, with drafts or without.
#[test]
fn each_token_tells_how_probable_it_was() {
    let model = model();
    let prompt = model.encode("One day, a cat and a dog. One day, a cat", true).unwrap();
    for speculation in [Speculation::Off, Speculation::PromptLookup { max_draft: 5 }] {
        let forbid = |_: &[u32], logits: &mut [f32]| logits[20..200].fill(f32::NEG_INFINITY);
        let options = greedy(25).logprobs(2).speculation(speculation).processor(forbid);
        let mut session = model.session();
        let output = session.generate_ids(&prompt, options).unwrap().finish().unwrap();
        let mut fresh = model.session();
        fresh.feed_ids(&prompt).unwrap();
        let score = &fresh.score_ids(std::slice::from_ref(&output.ids)).unwrap()[0];
        let told: Vec<f64> = output.logprobs.iter().map(|l| l.logprob.unwrap()).collect();
        assert_eq!(told, score.logprobs, "{speculation:?}");
        assert!(
            output
                .logprobs
                .iter()
                .all(|l| l.top.len() == 2 && l.top[0].1 >= l.top[1].1 && l.top[0].1 >= l.logprob.unwrap())
        );
        assert!(output.logprobs.iter().zip(&output.ids).all(|(l, id)| l.token == *id));
    }
    assert!(model.session().generate_ids(&prompt, greedy(3)).unwrap().finish().unwrap().logprobs.is_empty());
}

#[test]
fn biases_and_closures_steer_and_end() {
    let model = model();
    let first =
        |options: GenerateOptions| model.session().generate("The cat", options).unwrap().finish().unwrap().ids[0];
    let usual = first(greedy(1));
    assert_ne!(first(greedy(1).logit_bias(usual, f32::NEG_INFINITY)), usual);
    assert_eq!(first(greedy(1).logit_bias(77, 1e4)), 77);
    let refused = model.session().generate("The cat", greedy(1).logit_bias(1, f32::NAN)).map(drop);
    assert!(matches!(refused, Err(Error::Model(ModelError::Sampling { option: "logit_bias", .. }))));

    let two = greedy(400).stop_when(|_, text| text.matches('.').count() == 2);
    let output = model.session().generate("Once upon a time", two).unwrap().finish().unwrap();
    assert_eq!((output.finish_reason, output.text.unwrap().matches('.').count()), (FinishReason::Stop, 2));
    let seven = greedy(400).stop_when(|ids, _| ids.len() == 7);
    assert_eq!(model.session().generate("Once", seven).unwrap().finish().unwrap().ids.len(), 7);
}

#[test]
fn vectors_are_pooled_hidden_states() {
    let model = model();
    let text: Vec<u32> = (0..300).map(|i| 5 + i * 7 % 900).collect();
    let plain = EmbedOptions::default().normalize(false);
    let of = |texts: &[Vec<u32>], options: EmbedOptions| model.embed_ids(texts, options).unwrap();
    // The last token's state of every beginning, averaged, is the mean.
    let prefixes: Vec<Vec<u32>> = (1..=40).map(|n| text[..n].to_vec()).collect();
    let last = of(&prefixes, plain.pooling(Pooling::Last));
    let mean: Vec<f32> =
        (0..last[0].len()).map(|i| (last.iter().map(|v| f64::from(v[i])).sum::<f64>() / 40.0) as f32).collect();
    assert_eq!(of(&prefixes[39..], plain)[0], mean);
    // Together, alone, and in passes of several hundred tokens.
    let many = [text[..3].to_vec(), text.clone(), text[..30].to_vec()];
    for options in [plain, EmbedOptions::default(), EmbedOptions::default().pooling(Pooling::Last)] {
        let together = of(&many, options);
        for (i, one) in many.iter().enumerate() {
            assert_eq!(of(std::slice::from_ref(one), options)[0], together[i]);
        }
    }
    // In steps of any size.
    for (options, tokens) in
        [(plain, 1), (EmbedOptions::default(), 7), (plain.pooling(Pooling::Last), 64), (plain, 1000)]
    {
        let mut embedding = model.embedding(many.to_vec(), options).unwrap();
        let mut steps = 0;
        while !embedding.is_finished() {
            let before = embedding.tokens_left();
            embedding.step(tokens).unwrap();
            assert!((1..=tokens).contains(&(before - embedding.tokens_left())));
            steps += 1;
        }
        assert!(steps >= 333_usize.div_ceil(tokens) && !embedding.is_under_way());
        assert_eq!(embedding.finish(), of(&many, options));
    }
    let mut outside = model.embedding(vec![vec![5], vec![u32::MAX]], plain).unwrap();
    assert!(matches!(outside.step(64), Err(Error::Model(ModelError::TokenOutOfRange { .. }))));
    let unit = of(&many, EmbedOptions::default());
    let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    // Each component is rounded to f32, by half a unit in its last place.
    assert!(unit.iter().all(|v| (length(v) - 1.0).abs() < 1e-6));
    assert!(matches!(model.embed_ids(&[vec![]], plain), Err(Error::Model(ModelError::EmptyPrompt))));
    let words = model.embed(["a big dog", "a large dog", "they went home and slept"], EmbedOptions::default()).unwrap();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    assert!(cosine(&words[0], &words[1]) > cosine(&words[0], &words[2]));
}

/// Any end of a text within a character: the text has whole characters, and the bytes of the divided one are told.
#[test]
fn a_text_that_is_cut_within_a_character_ends_before_it() {
    const SEED: u64 = 1;
    let path = test_support::workspace_dir().join("models/tiny-ja-ttt.gguf");
    let model = Model::builder().threads(1).load(path).unwrap();
    let (tokenizer, prompt) = (model.tokenizer().unwrap(), "吾輩は猫である。");
    let options = || GenerateOptions::default().seed(SEED);
    let whole = model.session().generate(prompt, options().max_tokens(12)).unwrap().finish().unwrap();
    assert_eq!((whole.ids.len(), whole.finish_reason), (12, FinishReason::Length));
    let mut divided = 0;
    for n in 1..=12 {
        let limited = model.session().generate(prompt, options().max_tokens(n)).unwrap().finish().unwrap();
        let stop = options().stop_when(move |ids, _| ids.len() == n);
        let stopped = model.session().generate(prompt, stop).unwrap().finish().unwrap();
        let cancel = CancelToken::new();
        let mut session = model.session();
        let mut generation = session.generate(prompt, options().cancel(&cancel)).unwrap();
        let mut pieces: Vec<String> = generation.by_ref().take(n).map(|chunk| chunk.unwrap().text).collect();
        cancel.cancel();
        pieces.extend(generation.by_ref().map(|chunk| chunk.unwrap().text));
        let cancelled = generation.finish().unwrap();
        assert_eq!(Some(pieces.concat()), cancelled.text);
        let reasons = [FinishReason::Length, FinishReason::Stop, FinishReason::Cancelled];
        for (output, reason) in [limited, stopped, cancelled].into_iter().zip(reasons) {
            assert_eq!((&output.ids[..], output.finish_reason), (&whole.ids[..n], reason));
            let text = output.text.unwrap();
            assert!(!text.contains('\u{fffd}'), "{n} tokens, {reason:?}: {text}");
            // Text and bytes are all of the tokens.
            let rest = String::from_utf8_lossy(&output.incomplete);
            assert_eq!(text + &rest, tokenizer.decode(&output.ids, true), "{n} tokens, {reason:?}");
            divided += usize::from(!rest.is_empty());
        }
    }
    assert!(divided >= 6, "{divided} texts were cut within a character");
}

/// The tokens of a text have the probabilities of its logits, whatever the pieces in which it is read.
#[test]
fn a_text_is_scored_in_pieces() {
    let model = model();
    let ids = model.encode("Once upon a time there was a little girl who liked to play.", true).unwrap();
    let logits = model.logits(&ids).unwrap();
    let vocab = model.config().vocab_size;
    let rows = logits.chunks_exact(vocab).zip(&ids[1..]);
    let expected: Vec<f64> = rows.map(|(row, id)| log_softmax(row, *id)).collect();
    for (piece, top) in [(1, 0), (3, 2), (1000, 1)] {
        let mut scoring = model.scoring(ids.clone(), top).unwrap();
        let mut steps = 0;
        while scoring.tokens_left() > 0 {
            scoring.step(piece).unwrap();
            steps += 1;
        }
        assert_eq!(steps, (ids.len() - 1).div_ceil(piece));
        let tokens = scoring.finish();
        assert_eq!(tokens.iter().map(|t| t.token).collect::<Vec<_>>(), ids);
        assert_eq!((tokens[0].logprob, tokens[0].top.len()), (None, 0));
        assert_eq!(tokens[1..].iter().map(|t| t.logprob.unwrap()).collect::<Vec<_>>(), expected);
        assert!(tokens[1..].iter().all(|t| t.top.len() == top));
    }
    let mut one = model.scoring(vec![5], 3).unwrap();
    one.step(9).unwrap();
    assert_eq!((one.tokens_left(), one.finish().len()), (0, 1));
    assert!(matches!(model.scoring(Vec::new(), 0), Err(Error::Model(ModelError::EmptyPrompt))));
    assert!(matches!(model.scoring(vec![1; 100_000], 0), Err(Error::Model(ModelError::ContextFull { .. }))));
}
