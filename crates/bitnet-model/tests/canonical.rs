//! One canonical arithmetic: a token's logits do not depend on what passes through the model with it.

use bitnet_model::sampling::CancelToken;
use bitnet_model::{
    Activation, ActivationBits, Engine, EngineOptions, HeadRequest, InputForm, InputForms, KvType, LogitsWanted,
    ModelConfig, ModelWeights, Sequence, SequenceState, StepInput, StepOutput, SyntheticWeights,
};
use ternary_kernels::Isa;

fn config() -> ModelConfig {
    // Heads of 48 and widths that are not multiples of a vector, to test every tail.
    let mut c = ModelConfig::new(173, 144, 200, 3, 3, 1);
    c.head_dim = 48;
    c.max_position_embeddings = 700;
    c
}

fn weights() -> ModelWeights {
    ModelWeights::from_source(&SyntheticWeights::new(config(), 11)).unwrap()
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i + 7 * i) % 173) as u32).collect()
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn any_cut_any_thread_count_any_isa_gives_the_same_bits() {
    let weights = weights();
    let ids = tokens(330);
    for kv in KvType::ALL {
        let mut first: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            for threads in [1, 3] {
                let engine = Engine::new(&weights, &EngineOptions::default().threads(threads).isa(isa)).unwrap();
                for cuts in [&[330][..], &[1, 2, 61, 1, 65, 200], &[256, 74], &[329, 1]] {
                    let mut s = Sequence::new(&engine, kv, None);
                    let (mut at, mut logits) = (0, Vec::new());
                    for &cut in cuts {
                        logits.extend(s.feed_each(&ids[at..at + cut]).unwrap());
                        at += cut;
                    }
                    assert_eq!(bits(s.logits()), bits(&logits[329 * 173..]));
                    let logits = bits(&logits);
                    match &first {
                        None => first = Some(logits),
                        Some(f) => assert!(*f == logits, "{} {isa} {threads} threads, cuts {cuts:?}", kv.name()),
                    }
                }
            }
        }
    }
}

/// Transforms in blocks of 16 and 8, and int4 for some or for all projections.
#[test]
fn models_with_hadamard_transforms_and_int4_are_canonical_too() {
    let ids = tokens(70);
    for down_only in [false, true] {
        let mut c = config();
        c.inputs = InputForms::bitnet_v2(&c, ActivationBits::Four);
        assert_eq!((c.inputs.output.hadamard, c.inputs.down.hadamard), (Some(16), Some(8)));
        if down_only {
            (c.inputs.mixer, c.inputs.feed_forward) = (InputForm::default(), InputForm::default());
            c.inputs.output.bits = ActivationBits::Eight;
        }
        let weights = ModelWeights::from_source(&SyntheticWeights::new(c, 12)).unwrap();
        let mut first: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            for threads in [1, 3] {
                let engine = Engine::new(&weights, &EngineOptions::default().threads(threads).isa(isa)).unwrap();
                for cuts in [&[70][..], &[1, 2, 20, 1, 46]] {
                    let mut s = Sequence::new(&engine, KvType::F32, None);
                    let (mut at, mut logits) = (0, Vec::new());
                    for &cut in cuts {
                        logits.extend(s.feed_each(&ids[at..at + cut]).unwrap());
                        at += cut;
                    }
                    let logits = bits(&logits);
                    match &first {
                        None => first = Some(logits),
                        Some(f) => assert!(*f == logits, "{isa} {threads} threads, cuts {cuts:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn token_by_token_equals_one_prefill() {
    let engine = Engine::new(&weights(), &EngineOptions::default().threads(2)).unwrap();
    let ids = tokens(70);
    let mut whole = Sequence::new(&engine, KvType::F32, None);
    let all = whole.feed_each(&ids).unwrap();
    let mut single = Sequence::new(&engine, KvType::F32, None);
    for (i, id) in ids.iter().enumerate() {
        let logits = single.feed(&[*id]).unwrap();
        assert_eq!(bits(logits), bits(&all[i * 173..(i + 1) * 173]), "token {i}");
    }
}

#[test]
fn sequences_that_step_together_equal_single_ones() {
    for whole in [false, true] {
        let engine = Engine::new(&weights(), &EngineOptions::default().threads(2).sequence_parallel(whole)).unwrap();
        step_together(&engine);
    }
}

fn step_together(engine: &Engine) {
    let texts: Vec<Vec<u32>> = [5, 1, 300, 64].iter().enumerate().map(|(i, &n)| tokens(n + i)[i..].to_vec()).collect();
    // Every type of keys and values with all others: one pass may contain texts of several types.
    for shift in 0..KvType::ALL.len() {
        let kv = |i: usize| KvType::ALL[(i + shift) % KvType::ALL.len()];
        let mut states: Vec<SequenceState> = (0..texts.len()).map(|i| SequenceState::new(engine, kv(i), 700)).collect();
        let mut together = StepOutput::default();
        for round in 0..3u32 {
            let next = [round + 1; 1];
            let mut inputs: Vec<StepInput<'_>> = states
                .iter_mut()
                .zip(&texts)
                .map(|(state, text)| StepInput {
                    state,
                    tokens: if round == 0 { text } else { &next },
                    wanted: LogitsWanted::Last,
                    head: HeadRequest::Full,
                })
                .collect();
            together.clear();
            engine.step(&mut inputs, &mut together).unwrap();
        }
        for (i, text) in texts.iter().enumerate() {
            let mut s = Sequence::new(engine, kv(i), None);
            s.feed(text).unwrap();
            s.feed(&[2]).unwrap();
            let (alone, own) = (s.feed(&[3]).unwrap(), &together.logits()[i * 173..(i + 1) * 173]);
            assert_eq!(bits(alone), bits(own), "sequence {i}, {}", kv(i).name());
        }
    }
}

#[test]
fn refused_input_changes_nothing() {
    let engine = Engine::new(&weights(), &EngineOptions::default().threads(1)).unwrap();
    let mut s = Sequence::new(&engine, KvType::F32, Some(10));
    s.feed(&[1, 2, 3]).unwrap();
    let before = bits(s.logits());
    assert!(s.feed(&[4, 173]).unwrap_err().to_string().contains("173"));
    assert!(s.feed(&[0; 8]).unwrap_err().to_string().contains("10 tokens"));
    assert_eq!((s.len(), bits(s.logits())), (3, before));
    let long = s.feed(&[4, 5]).map(bits).unwrap();
    s.rewind(3).unwrap();
    assert_eq!(s.feed(&[4, 5]).map(bits).unwrap(), long);
}

/// Tokens that were appended to a text without being read, a feed that is cancelled, and what is known after each.
#[test]
fn a_text_is_the_same_whenever_it_is_read() {
    let options = EngineOptions::default().threads(2).sequence_parallel(false);
    let engine = Engine::new(&weights(), &options).unwrap();
    let ids = tokens(600);
    let whole = Sequence::new(&engine, KvType::F16, None).feed(&ids).map(bits).unwrap();

    let cancel = CancelToken::new();
    cancel.cancel();
    let mut s = Sequence::new(&engine, KvType::F16, None);
    assert!(!s.feed_with(&ids, HeadRequest::Full, Some(&cancel)).unwrap());
    assert_eq!((s.tokens(), s.logits().len()), (&ids[..256], 0));
    assert_eq!(s.feed(&ids[256..]).map(bits).unwrap(), whole);

    s.rewind(590).unwrap();
    ids[590..].iter().for_each(|id| s.force(*id).unwrap());
    s.force(7).unwrap();
    assert_eq!((s.len(), s.state().len(), s.logits().len()), (601, 590, 0));
    // The last one is removed before it is read; a fork and a file keep the others.
    s.rewind(600).unwrap();
    let mut saved = Sequence::restore(&engine, None, &s.fork().save().unwrap()).unwrap();
    assert_eq!((saved.tokens(), saved.state().len()), (s.tokens(), 599));
    for text in [&mut s.fork(), &mut saved, &mut s] {
        assert_eq!(text.feed(&[]).map(bits).unwrap(), whole);
        assert_eq!(text.keep_prefix(&ids[..300]).unwrap(), 299);
    }
}

#[test]
fn silu_without_sub_norms_and_untied_heads_run_too() {
    let mut c = config();
    (c.hidden_act, c.sub_norms, c.tie_word_embeddings) = (Activation::Silu, false, false);
    let weights = ModelWeights::from_source(&SyntheticWeights::new(c, 3)).unwrap();
    let engine = Engine::new(&weights, &EngineOptions::default().threads(2)).unwrap();
    let logits = Sequence::new(&engine, KvType::F32, None).feed_each(&tokens(20)).unwrap();
    assert!(logits.iter().all(|l| l.is_finite()) && logits.iter().any(|l| l.abs() > 0.1));
}
