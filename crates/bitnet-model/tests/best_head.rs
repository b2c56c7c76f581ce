//! The best logits from a coarse pass equal those of the plain head, bit for bit, and so do the tokens chosen from
//! them.

use bitnet_model::sampling::{Sampler, SamplingOptions};
use bitnet_model::{
    Candidate, Engine, EngineOptions, FloatMatrix, FloatType, HeadMode, HeadRequest, KvType, LogitsWanted, ModelConfig,
    ModelError, ModelWeights, Prediction, Sequence, SequenceState, StepInput, StepOutput, SyntheticWeights,
};
use half::{bf16, f16};
use ternary_kernels::{Isa, SharedBytes};
use test_support::Random;

const VOCAB: usize = 1507;
const HIDDEN: usize = 144;

/// Rows that make the choice as hard as possible: equal ones, ones that differ in the last bit, huge, tiny and empty
/// ones, single values among zeros.
fn adversarial(seed: u64) -> Vec<f32> {
    let mut r = Random(seed);
    let mut w: Vec<f32> = (0..VOCAB * HIDDEN).map(|_| r.unit() / 8.0).collect();
    for i in 0..VOCAB {
        let from = (r.bits() as usize % VOCAB) * HIDDEN;
        let row = i * HIDDEN..(i + 1) * HIDDEN;
        match r.bits() % 16 {
            0 => w[row].fill(0.0),
            1..=4 => w.copy_within(from..from + HIDDEN, row.start),
            5..=6 => {
                w.copy_within(from..from + HIDDEN, row.start);
                let at = row.start + i % HIDDEN;
                w[at] = f32::from_bits(w[at].to_bits() ^ 0x1_0000);
            }
            7 => w[row].iter_mut().for_each(|w| *w *= 300.0),
            8 => w[row].iter_mut().for_each(|w| *w *= 1e-40),
            9 => {
                w[row.clone()].fill(0.0);
                w[row.start + i % HIDDEN] = 2.0;
            }
            10 => w[row.start + i % HIDDEN] = 50.0,
            _ => {}
        }
    }
    w
}

fn stored(ty: FloatType, w: &[f32]) -> FloatMatrix {
    let bytes: Vec<u8> = match ty {
        FloatType::F16 => w.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect(),
        FloatType::Bf16 => w.iter().flat_map(|&w| bf16::from_f32(w).to_le_bytes()).collect(),
        _ => w.iter().flat_map(|w| w.to_le_bytes()).collect(),
    };
    FloatMatrix::new(ty, VOCAB, HIDDEN, SharedBytes::from(bytes)).unwrap()
}

fn weights(ty: FloatType, w: &[f32]) -> ModelWeights {
    let mut c = ModelConfig::new(VOCAB, HIDDEN, 200, 2, 3, 1);
    c.head_dim = 48;
    c.max_position_embeddings = 300;
    c.tie_word_embeddings = false;
    let mut weights = ModelWeights::from_source(&SyntheticWeights::new(c, 11)).unwrap();
    weights.head = Some(stored(ty, w).into());
    weights
}

fn engine(weights: &ModelWeights, mode: HeadMode, threads: usize, isa: Isa) -> Engine {
    Engine::new(weights, &EngineOptions::default().threads(threads).isa(isa).head(mode)).unwrap()
}

fn best_isa() -> Isa {
    Isa::selected().unwrap()
}

/// Best first, of equal logits the lower token.
fn ranked(logits: &[f32]) -> Vec<Candidate> {
    let mut all: Vec<_> = logits.iter().enumerate().map(|(i, &logit)| Candidate { logit, token: i as u32 }).collect();
    all.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap().then(a.token.cmp(&b.token)));
    all
}

/// Checks an answer against all logits: it must contain what was requested, and nothing wrong or duplicate.
fn check(request: HeadRequest, got: Prediction<'_>, logits: &[f32]) {
    let Prediction::Best(got) = got else { panic!("{request:?} was answered with all logits") };
    let mut tokens: Vec<u32> = got.iter().map(|c| c.token).collect();
    for c in got {
        assert_eq!(c.logit.to_bits(), logits[c.token as usize].to_bits(), "{request:?}, token {}", c.token);
    }
    tokens.sort_unstable();
    assert!(tokens.windows(2).all(|w| w[0] < w[1]), "{request:?}: a token stands there twice");
    let all = ranked(logits);
    let wanted = match request {
        HeadRequest::Top(k) => k,
        HeadRequest::WithinMargin(below) => {
            all.iter().filter(|c| f64::from(c.logit) >= f64::from(all[0].logit) - below).count()
        }
        HeadRequest::Full => logits.len(),
    };
    for c in &all[..wanted] {
        assert!(tokens.binary_search(&c.token).is_ok(), "{request:?}: token {} with {} is missing", c.token, c.logit);
    }
}

const REQUESTS: [HeadRequest; 7] = [
    HeadRequest::Top(1),
    HeadRequest::Top(2),
    HeadRequest::Top(7),
    HeadRequest::Top(16),
    HeadRequest::WithinMargin(0.0),
    HeadRequest::WithinMargin(1.5),
    HeadRequest::WithinMargin(1e9),
];

#[test]
fn the_best_logits_are_those_of_the_plain_head() {
    for (seed, ty) in [(1, FloatType::F32), (2, FloatType::F16), (3, FloatType::Bf16), (4, FloatType::F16)] {
        let weights = weights(ty, &adversarial(seed));
        let plain = engine(&weights, HeadMode::Plain, 1, best_isa());
        let mut reference = Sequence::new(&plain, KvType::F32, None);
        let ids: Vec<u32> = (0..24).map(|i| (i * i * 13 + 5) % VOCAB as u32).collect();
        let all = reference.feed_each(&ids).unwrap();
        let mut rescored: Option<Vec<usize>> = None;
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let coarse = engine(&weights, HeadMode::Coarse, threads, isa);
                assert!(coarse.coarse_head_bytes().is_some() && plain.coarse_head_bytes().is_none());
                let mut counts = Vec::new();
                for request in REQUESTS {
                    let mut s = Sequence::new(&coarse, KvType::F32, None);
                    for (i, id) in ids.iter().enumerate() {
                        s.feed_with(&[*id], request, None).unwrap();
                        check(request, s.prediction(), &all[i * VOCAB..(i + 1) * VOCAB]);
                        counts.push(s.rescored().unwrap());
                    }
                }
                assert_eq!(*rescored.get_or_insert_with(|| counts.clone()), counts, "{isa}, {threads} threads");
            }
        }
    }
}

/// Several sequences with different requests, more than fit one pass, some of them for every position.
#[test]
fn requests_of_a_batch_do_not_mix() {
    let weights = weights(FloatType::F16, &adversarial(5));
    let coarse = engine(&weights, HeadMode::Coarse, 2, best_isa());
    let plain = engine(&weights, HeadMode::Plain, 2, best_isa());
    let texts: Vec<Vec<u32>> =
        (0..40).map(|i| (0..=i % 5).map(|j| (i * 37 + j * 11) % VOCAB as u32).collect()).collect();
    let request = |i: usize| match i % 9 {
        i @ 0..7 => REQUESTS[i],
        7 => HeadRequest::Full,
        // Too many to be worth a coarse pass: answered with all.
        _ => HeadRequest::Top(VOCAB / 2),
    };
    let mut states: Vec<SequenceState> = texts.iter().map(|_| SequenceState::new(&coarse, KvType::F32, 300)).collect();
    let mut out = StepOutput::default();
    for _ in 0..2 {
        out.clear();
        states.iter_mut().for_each(|s| s.rewind(0).unwrap());
        let mut inputs: Vec<StepInput<'_>> = states
            .iter_mut()
            .zip(&texts)
            .enumerate()
            .map(|(i, (state, tokens))| StepInput {
                state,
                tokens,
                wanted: if i % 4 == 0 { LogitsWanted::All } else { LogitsWanted::Last },
                head: request(i),
            })
            .collect();
        coarse.step(&mut inputs, &mut out).unwrap();
    }
    let mut position = 0;
    for (i, text) in texts.iter().enumerate() {
        let all = Sequence::new(&plain, KvType::F32, None).feed_each(text).unwrap();
        let rows: Vec<&[f32]> = all.chunks_exact(VOCAB).collect();
        let wanted = if i % 4 == 0 { &rows[..] } else { &rows[rows.len() - 1..] };
        for logits in wanted {
            match (i % 9 < 7, out.prediction(position)) {
                (true, got) => check(request(i), got, logits),
                (false, Prediction::Full(got)) => assert_eq!(got, *logits),
                (false, got) => panic!("{:?} was answered with {got:?}", request(i)),
            }
            assert!(out.answers(position).covers(request(i)));
            position += 1;
        }
    }
    assert_eq!(position, out.len());
}

/// Every option for which the best logits suffice, and some that need all: the same text with either head.
#[test]
fn texts_are_those_of_the_plain_head() {
    let o = SamplingOptions::default;
    let options = [
        SamplingOptions::greedy(),
        SamplingOptions::greedy().with_repeat_penalty(1.3, 16),
        o().with_top_k(1),
        o().with_top_k(9).with_top_p(1.0),
        o().with_top_k(12).with_top_p(0.8).with_temperature(1.3),
        o().with_top_k(12).with_min_p(0.2).with_top_p(1.0),
        o().with_top_k(10).with_repeat_penalty(1.2, 5),
        o().with_top_p(1.0).with_min_p(0.05),
        o().with_top_p(1.0).with_min_p(0.3).with_temperature(2.5),
        o().with_top_p(1.0).with_min_p(1.0),
        o().with_top_p(0.9),
        o().with_top_p(1.0).with_min_p(0.1).with_repeat_penalty(1.1, 8),
        o().with_top_k(5).with_repeat_penalty(0.7, 8),
    ];
    for (seed, ty) in [(6, FloatType::F16), (7, FloatType::Bf16)] {
        let weights = weights(ty, &adversarial(seed));
        let engines = [HeadMode::Plain, HeadMode::Coarse].map(|mode| engine(&weights, mode, 2, best_isa()));
        for (i, options) in options.iter().enumerate() {
            let mut coarse_steps = 0;
            for draw in 0..3 {
                let [plain, coarse] = engines.each_ref().map(|engine| {
                    let mut sampler = Sampler::new(options.clone().with_seed(draw)).unwrap();
                    let mut s = Sequence::new(engine, KvType::F16, None);
                    let mut next = 17;
                    for _ in 0..40 {
                        let request = sampler.request(s.len() + 1);
                        s.feed_with(&[next], request, None).unwrap();
                        coarse_steps += usize::from(s.rescored().is_some());
                        next = sampler.choose(s.prediction(), s.len() as u64, s.tokens()).unwrap();
                    }
                    s.tokens().to_vec()
                });
                assert_eq!(plain, coarse, "{options:?}");
            }
            // Only the options decide whether the whole head is read; the penalty on many tokens is too wide here.
            assert_eq!(coarse_steps > 0, i < 10, "{options:?}");
        }
    }
}

#[test]
fn a_prediction_that_was_asked_for_less_is_made_again() {
    let weights = weights(FloatType::F16, &adversarial(8));
    let coarse = engine(&weights, HeadMode::Coarse, 1, best_isa());
    let mut s = Sequence::new(&coarse, KvType::F16, None);
    s.require(HeadRequest::Full).unwrap();
    assert!(matches!(s.prediction(), Prediction::Full([])));
    let all = s.feed(&[3, 1, 4]).unwrap().to_vec();
    s.rewind(0).unwrap();
    s.feed_with(&[3, 1, 4], HeadRequest::Top(4), None).unwrap();
    assert!(s.logits().is_empty());
    s.require(HeadRequest::Top(2)).unwrap();
    check(HeadRequest::Top(4), s.prediction(), &all);
    s.require(HeadRequest::WithinMargin(0.5)).unwrap();
    check(HeadRequest::WithinMargin(0.5), s.prediction(), &all);
    s.require(HeadRequest::Full).unwrap();
    assert_eq!((s.logits(), s.tokens()), (&all[..], &[3, 1, 4][..]));
    s.require(HeadRequest::Top(9)).unwrap();
    assert!(matches!(s.prediction(), Prediction::Full(_)), "all logits answer everything");
}

#[test]
fn values_that_are_no_numbers_end_a_text_as_they_do_with_the_plain_head() {
    let choose = |w: &[f32], mode: HeadMode, options: SamplingOptions| {
        let engine = engine(&weights(FloatType::F32, w), mode, 2, best_isa());
        let mut sampler = Sampler::new(options).unwrap();
        let mut s = Sequence::new(&engine, KvType::F32, None);
        s.feed_with(&[5, 6], sampler.request(2), None).unwrap();
        sampler.choose(s.prediction(), 2, s.tokens())
    };
    let greedy = SamplingOptions::greedy;
    let near = || SamplingOptions::default().with_top_p(1.0).with_min_p(0.1);
    for options in [greedy(), near(), SamplingOptions::default().with_top_k(8)] {
        // NaN, in a row that would never be chosen.
        let mut w = adversarial(9);
        w[1000 * HIDDEN + 7] = f32::NAN;
        for mode in [HeadMode::Plain, HeadMode::Coarse] {
            let error = choose(&w, mode, options.clone()).unwrap_err();
            assert!(matches!(error, ModelError::Diverged { what: "a logit", position: 2 }), "{mode:?}: {error}");
        }
        // Infinity in more rows than are computed first: equally certain, or impossible, as with the plain head.
        let mut w = adversarial(9);
        (0..40).for_each(|i| w[(30 * i + 11) * HIDDEN + i] = f32::INFINITY);
        let plain = choose(&w, HeadMode::Plain, options.clone()).unwrap();
        assert_eq!(choose(&w, HeadMode::Coarse, options.clone()).unwrap(), plain);
        // All rows alike: every one of them is among the best.
        let w = vec![0.25; VOCAB * HIDDEN];
        let plain = choose(&w, HeadMode::Plain, options.clone()).unwrap();
        assert_eq!(choose(&w, HeadMode::Coarse, options).unwrap(), plain);
    }
}

#[test]
fn small_heads_and_packed_heads_have_no_plane_of_their_own_accord() {
    let c = ModelConfig::new(300, 64, 128, 1, 2, 1);
    let small = ModelWeights::from_source(&SyntheticWeights::new(c, 1)).unwrap();
    assert_eq!(engine(&small, HeadMode::Auto, 1, best_isa()).coarse_head_bytes(), None);
    let coarse = engine(&small, HeadMode::Coarse, 1, best_isa());
    // Five blocks of 64 rows, four panels each, a unit of 192 bytes for each 16 of 64 columns and one more.
    assert_eq!(coarse.coarse_head_bytes(), Some(5 * 4 * 5 * 192));
    // More than one row per block: answered with all logits.
    let mut s = Sequence::new(&coarse, KvType::F32, None);
    s.feed_with(&[1], HeadRequest::Top(5), None).unwrap();
    assert!(matches!(s.prediction(), Prediction::Full(l) if l.len() == 300));
}
