//! Models with test-time-training layers: one canonical arithmetic, forks, failures, and both paths agree.

use std::ops::ControlFlow;

use Mixer::{Attention, TttLinear, TttMlp};
use bitnet_model::nn::CandleModel;
use bitnet_model::perplexity::perplexity;
use bitnet_model::sampling::{Sampler, SamplingOptions};
use bitnet_model::sequence::{self, BatchInput, Speculation};
use bitnet_model::{
    Engine, EngineOptions, FloatMatrix, HeadRequest, KvType, LogitsWanted, Mixer, ModelConfig, ModelError,
    ModelWeights, Norm, Prediction, Projection, RopePairs, Sequence, SequenceState, StateDamage, StepInput, StepOutput,
    SyntheticWeights, Table, TttTensor, WeightSource,
};
use candle_core::Device;
use ternary_kernels::{Isa, TernaryMatrix};

const VOCAB: usize = 61;

/// Heads of 24, four tokens per mini-batch.
fn config(mixers: &[Mixer]) -> ModelConfig {
    let mut c = ModelConfig::new(VOCAB, 72, 100, mixers.len(), 3, 1);
    c.mixers = mixers.to_vec();
    c.ttt.mini_batch_size = 4;
    c
}

/// With a shared projection, a gate, a convolution, and states that forget.
fn full(mixers: &[Mixer]) -> ModelConfig {
    let mut c = config(mixers);
    (c.ttt.share_qk, c.ttt.use_gate, c.ttt.pre_conv, c.ttt.decay) = (true, true, true, true);
    c
}

fn cases() -> [(&'static str, ModelConfig); 5] {
    let mut halves = config(&[TttMlp]);
    (halves.ttt.rope_pairs, halves.ttt.use_gate) = (RopePairs::Halves, true);
    [
        ("linear", config(&[TttLinear, TttLinear])),
        ("mlp", halves),
        ("full linear", full(&[TttLinear])),
        ("hybrid", config(&[TttLinear, Attention, TttMlp])),
        ("full hybrid", full(&[Attention, TttMlp, TttLinear])),
    ]
}

fn weights(c: &ModelConfig, seed: u64) -> ModelWeights {
    ModelWeights::from_source(&SyntheticWeights::new(c.clone(), seed)).unwrap()
}

fn engine(weights: &ModelWeights, threads: usize) -> Engine {
    Engine::new(weights, &EngineOptions::default().threads(threads)).unwrap()
}

/// Threads that share every product, and threads that take whole texts.
fn both_ways(weights: &ModelWeights, threads: usize) -> [Engine; 2] {
    [false, true]
        .map(|w| Engine::new(weights, &EngineOptions::default().threads(threads).sequence_parallel(w)).unwrap())
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i + 7 * i) % VOCAB) as u32).collect()
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn any_cut_any_thread_count_any_isa_gives_the_same_bits() {
    // More than one block of rows, with splits inside mini-batches.
    const N: usize = 270;
    let ids = tokens(N);
    for (name, c) in cases() {
        let weights = weights(&c, 11);
        let mut first: Option<Vec<u32>> = None;
        let best_isa = Isa::selected().unwrap();
        // The number of threads and the instruction set are independent.
        let each = Isa::available().map(|isa| (isa, 1, false));
        let threads = [2, 3, 5].into_iter().flat_map(|threads| [(best_isa, threads, false), (best_isa, threads, true)]);
        for (isa, threads, whole) in each.chain(threads) {
            let options = EngineOptions::default().threads(threads).isa(isa).sequence_parallel(whole);
            let engine = Engine::new(&weights, &options).unwrap();
            for cuts in [&[N][..], &[1, 2, 61, 1, 65, 140], &[257, 13]] {
                let mut s = Sequence::new(&engine, KvType::F32, None);
                let (mut at, mut logits) = (0, Vec::new());
                for &cut in cuts {
                    logits.extend(s.feed_each(&ids[at..at + cut]).unwrap());
                    at += cut;
                }
                let logits = bits(&logits);
                assert_eq!(bits(s.logits()), logits[(N - 1) * VOCAB..]);
                match &first {
                    None => first = Some(logits),
                    Some(f) => {
                        assert!(*f == logits, "{name} {isa} {threads} threads, whole texts {whole}, cuts {cuts:?}")
                    }
                }
            }
        }
    }
}

#[test]
fn token_by_token_equals_one_prefill_and_a_fork_goes_its_own_way() {
    for ((name, c), whole) in cases().into_iter().flat_map(|case| [(case.clone(), 0), (case, 1)]) {
        let engine = &both_ways(&weights(&c, 3), 2)[whole];
        let ids = tokens(30);
        let all = Sequence::new(engine, KvType::F32, None).feed_each(&ids).unwrap();
        let mut s = Sequence::new(engine, KvType::F32, None);
        let mut fork = None;
        for (i, id) in ids.iter().enumerate() {
            if i == 10 {
                fork = Some(s.fork());
            }
            assert_eq!(bits(s.feed(&[*id]).unwrap()), bits(&all[i * VOCAB..(i + 1) * VOCAB]), "{name} token {i}");
        }
        let mut fork = fork.unwrap();
        assert_ne!(bits(fork.feed(&[9, 9, 9]).unwrap()), bits(&all[12 * VOCAB..13 * VOCAB]), "{name}");
        assert_eq!(fork.len(), 13);
    }
}

#[test]
fn states_have_constant_size_and_no_limit_where_nothing_is_attention() {
    let pure = engine(&weights(&config(&[TttLinear, TttMlp]), 1), 1);
    let mut s = Sequence::new(&pure, KvType::F16, None);
    let before = s.state().ttt_bytes();
    assert_eq!(before, pure.config().state_bytes().unwrap());
    // Heads of d = 24 with b = 4: W, b, rows and gradients of each matrix.
    let linear = 24 * 24 + 24 + 2 * 4 * 24;
    let mlp = 8 * 24 * 24 + 5 * 24 + 2 * 4 * 5 * 24;
    assert_eq!(before, 3 * (linear + mlp) * 4);
    s.feed(&tokens(50)).unwrap();
    assert_eq!((s.state().ttt_bytes(), s.state().kv_bytes()), (before, 0));
    assert!(s.remaining() > pure.config().max_position_embeddings);

    let mut c = config(&[TttLinear, Attention]);
    c.max_position_embeddings = 20;
    let hybrid = engine(&weights(&c, 1), 1);
    let mut s = Sequence::new(&hybrid, KvType::F16, None);
    let error = s.feed(&tokens(21)).unwrap_err();
    assert!(matches!(error, ModelError::ContextFull { limit: 20, used: 0, more: 21 }), "{error}");
    s.feed(&tokens(20)).unwrap();
    // Keys and values of the only layer that is attention: one head of 24.
    assert!(s.state().kv_bytes() >= 20 * 2 * 24 * 2 && s.state().kv_bytes() <= 256 * 2 * 24 * 2);
}

#[test]
fn going_back_reads_again_and_a_state_alone_refuses_it() {
    let engine = engine(&weights(&full(&[TttLinear, Attention]), 5), 2);
    let ids = tokens(11);
    let mut state = SequenceState::new(&engine, KvType::F32, 20);
    let (tokens, head) = (&ids[..], HeadRequest::Full);
    let mut input = [StepInput { state: &mut state, tokens, wanted: LogitsWanted::Last, head }];
    let mut out = StepOutput::default();
    engine.step(&mut input, &mut out).unwrap();
    let whole = bits(out.logits());
    assert!(!state.can_rewind());
    let error = state.rewind(10).unwrap_err();
    assert!(matches!(error, ModelError::CannotRewind { len: 11, to: 10 }), "{error}");
    // Nothing has changed, and a rewind to the same length is fine.
    state.rewind(11).unwrap();
    out.clear();
    assert!(engine.predict(&state, head, &mut out).unwrap());
    assert_eq!(bits(out.logits()), whole);
    state.rewind(0).unwrap();
    assert!(state.is_empty());

    let mut s = Sequence::new(&engine, KvType::F32, None);
    assert_eq!(bits(s.feed(&ids).unwrap()), whole);
    s.rewind(0).unwrap();
    assert!(s.is_empty() && s.logits().is_empty());
    assert_eq!(bits(s.feed(&ids).unwrap()), whole);
    s.rewind(7).unwrap();
    assert_eq!((s.len(), s.tokens()), (7, &ids[..7]));
    assert_eq!(bits(s.feed(&ids[7..]).unwrap()), whole);
    // It keeps a common beginning with another text only as a whole.
    assert_eq!(s.keep_prefix(&[&ids[..], &[1]].concat()).unwrap(), 11);
    assert_eq!(s.keep_prefix(&ids[..9]).unwrap(), 0);
}

#[test]
fn what_was_asked_for_less_is_answered_without_reading_again() {
    for (_, c) in cases() {
        let engine = engine(&weights(&c, 7), 2);
        let ids = tokens(9);
        let all = Sequence::new(&engine, KvType::F32, None).feed(&ids).unwrap().to_vec();
        let mut s = Sequence::new(&engine, KvType::F32, None);
        s.require(HeadRequest::Full).unwrap();
        assert!(s.logits().is_empty());
        // Cancelled after all tokens were read: the prediction after them is not known.
        let mut none = StepOutput::default();
        let mut fork = s.fork();
        let mut input = [BatchInput { sequence: &mut fork, tokens: &ids, head: None }];
        sequence::step(&engine, &mut input, &mut none).unwrap();
        assert!(fork.logits().is_empty());
        assert_eq!(bits(fork.feed(&[]).unwrap()), bits(&all));
        assert_eq!(fork.len(), ids.len());
        s.feed_with(&ids, HeadRequest::Top(1), None).unwrap();
        s.require(HeadRequest::Full).unwrap();
        assert!(matches!(s.prediction(), Prediction::Full(l) if bits(l) == bits(&all)));
    }
}

#[test]
fn texts_that_step_together_equal_single_ones_and_guesses_change_nothing() {
    for ((name, c), whole) in cases().into_iter().flat_map(|case| [(case.clone(), 0), (case, 1)]) {
        let engine = both_ways(&weights(&c, 9), 3)[whole].clone();
        let texts: Vec<Vec<u32>> = [5, 1, 280, 64, 3].iter().map(|&n| tokens(n)).collect();
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| Sequence::new(&engine, KvType::F32, None)).collect();
        let mut out = StepOutput::default();
        for round in 0..6u32 {
            let next = [round + 1];
            let mut inputs: Vec<BatchInput<'_>> = sequences
                .iter_mut()
                .zip(&texts)
                .map(|(sequence, text)| {
                    let tokens = if round == 0 { &text[..] } else { &next };
                    BatchInput { sequence, tokens, head: Some(HeadRequest::Full) }
                })
                .collect();
            sequence::step(&engine, &mut inputs, &mut out).unwrap();
        }
        for (i, text) in texts.iter().enumerate() {
            let mut s = Sequence::new(&engine, KvType::F32, None);
            s.feed(text).unwrap();
            let last = bits(s.feed(&[2, 3, 4, 5, 6]).unwrap());
            assert_eq!(last, bits(sequences[i].feed(&[]).unwrap()), "{name}, text {i}");
        }

        let generate = |speculation| {
            let mut d = Sequence::new(&engine, KvType::F32, None);
            let mut sampler = Sampler::new(SamplingOptions::greedy()).unwrap();
            d.feed_with(&[1, 2, 3, 1, 2, 3, 1, 2], sampler.request(8), None).unwrap();
            let text: Vec<u32> = (0..20).map(|_| d.next_token(&mut sampler, speculation).unwrap()).collect();
            (text, d.take_counts().drafted)
        };
        let guessed = generate(Speculation::PromptLookup { max_draft: 4 });
        assert_eq!(guessed, generate(Speculation::Off), "{name}");
        assert_eq!(guessed.1, 0, "{name}: wrong guesses could not be taken back");
    }
}

/// Weights with which one token's row becomes infinite after the embedding, so that a step with it fails after earlier
/// layers have read it.
struct Explosive(SyntheticWeights);

const BAD: u32 = 60;

impl WeightSource for Explosive {
    type Error = ModelError;
    fn config(&self) -> &ModelConfig {
        self.0.config()
    }
    /// Only the embedding writes the first element of the residual stream.
    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let w = self.0.projection(layer, which)?;
        if layer > 0 || !matches!(which, Projection::O | Projection::Down) {
            return Ok(w);
        }
        let mut trits = w.to_trits();
        trits[..w.cols()].fill(0);
        Ok(TernaryMatrix::from_trits(w.rows(), w.cols(), &trits, w.scales().clone())?)
    }
    /// The last layer turns large values into infinity.
    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        let mut gain = self.0.norm(which)?;
        if which == Norm::Input(1) {
            gain[0] = 3e38;
        }
        Ok(gain)
    }
    fn ttt_tensor(&self, layer: usize, which: TttTensor) -> Result<Vec<f32>, ModelError> {
        self.0.ttt_tensor(layer, which)
    }
    /// Only the bad token is large in its first element.
    fn embedding(&self) -> Result<Table, ModelError> {
        let (stored, hidden) = (self.0.embedding()?, self.config().hidden_size);
        let mut rows = vec![0.0; VOCAB * hidden];
        for (r, row) in rows.chunks_exact_mut(hidden).enumerate() {
            stored.row_into(r, row);
            row[0] = if r == BAD as usize { 1e3 } else { 0.0 };
        }
        FloatMatrix::from_f32(VOCAB, hidden, &rows).map(Table::Float)
    }
    fn head(&self) -> Result<Table, ModelError> {
        self.0.head()
    }
}

/// A model of two layers whose second one fails for the token [`BAD`], after the first has read it.
fn explosive(c: &ModelConfig) -> [Engine; 2] {
    let mut c = c.clone();
    c.sub_norms = false;
    both_ways(&ModelWeights::from_source(&Explosive(SyntheticWeights::new(c, 1))).unwrap(), 2)
}

#[test]
fn the_first_bad_token_of_a_long_text_is_named_whatever_the_threads() {
    for mixers in [[TttLinear, TttMlp], [TttMlp, TttLinear]] {
        let mut c = config(&mixers);
        (c.ttt.share_qk, c.ttt.use_gate) = (true, true);
        for engine in explosive(&c) {
            for bad in [&[3][..], &[40, 200], &[64, 65], &[130, 299], &[299]] {
                let mut ids: Vec<u32> = tokens(300).into_iter().map(|t| t % BAD).collect();
                bad.iter().for_each(|at| ids[*at] = BAD);
                for start in [0, 5] {
                    let mut s = Sequence::new(&engine, KvType::F32, None);
                    s.feed(&tokens(start)).unwrap();
                    match s.feed(&ids) {
                        Err(ModelError::Diverged { position, .. }) => assert_eq!(position, start + bad[0]),
                        other => panic!("{other:?}"),
                    }
                    if start > 0 {
                        assert!(matches!(s.feed(&[1]), Err(ModelError::StateLost)));
                        s.rewind(0).unwrap();
                    }
                    assert!(s.is_empty(), "a text that had not begun is as it was");
                    let whole = bits(s.feed(&ids[..bad[0]]).unwrap());
                    let mut fresh = Sequence::new(&engine, KvType::F32, None);
                    assert_eq!(whole, bits(fresh.feed(&ids[..bad[0]]).unwrap()));
                }
            }
        }
    }
}

#[test]
fn a_failed_step_costs_no_other_text_its_state() {
    for (pending, mixers) in [(1, [TttLinear, TttMlp]), (3, [TttMlp, TttLinear]), (2, [TttLinear, Attention])] {
        for c in [config(&mixers), full(&mixers)] {
            let mut c = c;
            // A convolution before the second layer would carry the bad element to later tokens.
            c.ttt.pre_conv = false;
            for engine in explosive(&c) {
                lost_and_kept(&engine, pending, &mixers);
            }
        }
    }
}

/// One step with a good and a bad text.
fn lost_and_kept(engine: &Engine, pending: usize, mixers: &[Mixer]) {
    let start = tokens(4 + pending);
    let start: Vec<u32> = start.into_iter().map(|t| t % BAD).collect();
    let make = || {
        let mut d = Sequence::new(engine, KvType::F32, None);
        d.feed_with(&start, HeadRequest::Top(1), None).unwrap();
        d
    };
    let (mut good, mut bad) = (make(), make());
    let (mut expected, mut out) = (make(), StepOutput::default());
    let head = Some(HeadRequest::Full);
    // Tokens that end the open mini-batch, and one that does not.
    for more in [&[5, 6, 7, 8, 9][..], &[10]] {
        let mut inputs = [
            BatchInput { sequence: &mut good, tokens: more, head },
            BatchInput { sequence: &mut bad, tokens: &[3, BAD], head },
        ];
        let error = sequence::step(engine, &mut inputs, &mut out).unwrap_err();
        assert!(matches!(error, ModelError::Diverged { .. }), "{error}");
        assert_eq!((good.len(), bad.len()), (start.len(), start.len()));
        assert_eq!(bits(good.feed(&[]).unwrap()), bits(expected.feed(&[]).unwrap()), "known before the step");
    }
    good.feed_with(&[5, 6, 7, 8, 9, 1, 2], HeadRequest::Full, None).unwrap();
    expected.feed_with(&[5, 6, 7, 8, 9, 1, 2], HeadRequest::Full, None).unwrap();
    assert_eq!(bits(good.feed(&[]).unwrap()), bits(expected.feed(&[]).unwrap()), "{mixers:?} {pending}");

    // Alone, the text loses its state and returns an error, until it starts again.
    let error = bad.feed_with(&[BAD], HeadRequest::Full, None).unwrap_err();
    assert!(matches!(error, ModelError::Diverged { .. }), "{error}");
    for _ in 0..2 {
        let error = bad.feed_with(&[1], HeadRequest::Full, None).unwrap_err();
        assert!(matches!(error, ModelError::StateLost), "{error}");
    }
    bad.rewind(0).unwrap();
    bad.feed_with(&start, HeadRequest::Full, None).unwrap();
    assert_eq!(bits(bad.feed(&[]).unwrap()), bits(make().feed(&[]).unwrap()));
}

#[test]
fn perplexity_starts_over_with_every_window() {
    let engine = engine(&weights(&full(&[TttLinear, TttMlp]), 2), 1);
    let ids = tokens(24);
    let p = perplexity(&engine, &ids, 10, KvType::F32, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let mut nats = 0.0;
    for (inputs, targets) in ids[..23].chunks(10).zip(ids[1..].chunks(10)) {
        let logits = Sequence::new(&engine, KvType::F32, None).feed_each(inputs).unwrap();
        for (row, target) in logits.chunks(VOCAB).zip(targets) {
            let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
            nats += sum.ln() - f64::from(row[*target as usize]);
        }
    }
    assert_eq!(p.tokens, 23);
    assert!((p.nats_per_token - nats / 23.0).abs() < 1e-9, "{} and {}", p.nats_per_token, nats / 23.0);
}

fn damage(engine: &Engine, bytes: &[u8]) -> StateDamage {
    match Sequence::restore(engine, None, bytes) {
        Err(ModelError::SavedSequence(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_saved_sequence_goes_on_and_a_damaged_one_is_refused() {
    for (name, c) in cases() {
        let weights = weights(&c, 13);
        let engine = engine(&weights, 1);
        for kv in [KvType::F32, KvType::F16] {
            let mut s = Sequence::new(&engine, kv, None);
            for n in [0, 1, 5, 9] {
                s.feed(&tokens(n)).unwrap();
                let bytes = s.save().unwrap();
                // Another engine with the same weights, with any kernel.
                let same = Engine::new(&weights, &EngineOptions::default().threads(1).isa(Isa::Scalar)).unwrap();
                let mut restored = Sequence::restore(&same, None, &bytes).unwrap();
                assert_eq!((restored.tokens(), restored.state().kv_type()), (s.tokens(), kv));
                assert_eq!(restored.save().unwrap(), bytes);
                restored.require(HeadRequest::Full).unwrap();
                assert_eq!(bits(restored.logits()), bits(s.logits()), "{name} {n}");
                let mut fork = s.fork();
                assert_eq!(bits(restored.feed(&[7, 8]).unwrap()), bits(fork.feed(&[7, 8]).unwrap()), "{name} {n}");
            }
        }
    }
    let c = full(&[TttLinear, Attention]);
    let engine = engine(&weights(&c, 13), 1);
    let mut s = Sequence::new(&engine, KvType::F16, None);
    s.feed(&tokens(3)).unwrap();
    let good = s.save().unwrap();
    for at in (0..good.len()).step_by(97).chain(0..48) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let what = damage(&engine, &bytes);
        let expected = match at {
            0..8 => matches!(what, StateDamage::Mark),
            8..12 => matches!(what, StateDamage::Version { reads: 2, .. }),
            16..24 => matches!(what, StateDamage::OtherModel),
            24..32 | 36..40 => matches!(what, StateDamage::Size { .. } | StateDamage::Checksum),
            12..16 => matches!(what, StateDamage::Size { .. } | StateDamage::Checksum),
            _ => what == StateDamage::Checksum,
        };
        assert!(expected, "byte {at}: {what:?}");
    }
    for len in [0, 7, 20, 39, 40, good.len() - 1] {
        damage(&engine, &good[..len]);
    }
    let other = Engine::new(&weights(&c, 14), &EngineOptions::default().threads(1)).unwrap();
    assert_eq!(damage(&other, &good), StateDamage::OtherModel);
    let error = Sequence::restore(&engine, Some(2), &good).unwrap_err();
    assert!(matches!(error, ModelError::ContextFull { limit: 2, more: 3, .. }), "{error}");

    // The last chosen token is kept, too.
    let mut d = s;
    let mut sampler = Sampler::new(SamplingOptions::greedy()).unwrap();
    d.next_token(&mut sampler, Speculation::Off).unwrap();
    let mut restored = Sequence::restore(&engine, None, &d.save().unwrap()).unwrap();
    assert_eq!(restored.tokens(), d.tokens());
    let mut next = |d: &mut Sequence| d.next_token(&mut sampler, Speculation::Off).unwrap();
    assert_eq!(next(&mut restored), next(&mut d));
}

/// Bytes that are not a saved sequence although their checksum is correct: an error or a sequence, never a panic.
#[test]
fn saved_bytes_with_a_right_checksum_cannot_harm() {
    let fnv = |bytes: &[u8]| {
        bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3))
    };
    let mut c = full(&[TttLinear, Attention]);
    // Small, so that a change often hits something meaningful.
    (c.hidden_size, c.num_attention_heads, c.head_dim, c.ttt.mini_batch_size) = (8, 2, 4, 2);
    let engine = engine(&weights(&c, 13), 1);
    let mut s = Sequence::new(&engine, KvType::F16, None);
    s.feed(&tokens(3)).unwrap();
    let good = s.save().unwrap();
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let (mut refused, mut taken) = (0, 0);
    for round in 0..2000 {
        let mut bytes = good[..good.len() - 8].to_vec();
        // Half of them only in the header and the tokens.
        let within = if round % 2 == 0 { 52 } else { bytes.len() };
        for _ in 0..=random(3) {
            bytes[random(within)] = [0, 1, 127, 255, random(256) as u8][random(5)];
        }
        if random(4) == 0 {
            bytes.truncate(random(good.len() - 8));
        }
        bytes.extend(fnv(&bytes).to_le_bytes());
        match Sequence::restore(&engine, None, &bytes) {
            Err(_) => refused += 1,
            Ok(mut s) => {
                taken += 1;
                // Numbers that are not finite may end the text.
                let _ = s.require(HeadRequest::Full).and_then(|()| s.feed(&[1, 2, 3]).map(drop));
            }
        }
    }
    assert!(refused > 500 && taken > 50, "{refused} refused, {taken} taken");
}

#[test]
fn sequences_of_another_engine_are_refused() {
    let c = config(&[TttLinear]);
    let (one, other) = (engine(&weights(&c, 1), 1), engine(&weights(&c, 1), 1));
    let mut d = Sequence::new(&one, KvType::F32, None);
    let mut input = [BatchInput { sequence: &mut d, tokens: &[1], head: None }];
    let error = sequence::step(&other, &mut input, &mut StepOutput::default()).unwrap_err();
    assert!(matches!(error, ModelError::ForeignSequence));
}

/// Both paths read the same weights and compute the same model. A flipped int8 code would show as a difference of about
/// 1e-2 (one step of 1/127 of a row's largest activation); without one, only the order of sums in f32 differs: the
/// chains have at most a few hundred terms, whose rounding is some 1e-7 of the size, and logits are of size 1; five
/// times the measured difference is allowed.
#[test]
fn engine_and_candle_path_agree() {
    for (name, mut c) in cases() {
        // Small, so that few codes can lie close enough to a tie for the last bit to decide.
        (c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim) = (32, 2, 1, 16);
        c.intermediate_size = 48;
        for seed in [1, 2] {
            let weights = weights(&c, seed);
            let ids = tokens(11);
            let candle = CandleModel::from_weights(&weights, &Device::Cpu).unwrap();
            let theirs: Vec<f32> = candle.forward(&ids).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let ours = Sequence::new(&engine(&weights, 2), KvType::F32, None).feed_each(&ids).unwrap();
            let diff = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let size = ours.iter().fold(0f32, |m, v| m.max(v.abs()));
            println!("{name}, seed {seed}: largest difference {diff:e} of {size}");
            assert!(size > 0.1 && diff <= 2e-6, "{name}, seed {seed}: logits differ by {diff}");

            // The candle model holds exactly the weights that it was made from.
            let back = ModelWeights::from_source(&candle).unwrap();
            let again = Sequence::new(&engine(&back, 1), KvType::F32, None).feed_each(&ids).unwrap();
            assert_eq!(bits(&again), bits(&ours), "{name}");
        }
    }
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut ModelConfig), field: &str| {
        let mut c = full(&[TttLinear, TttMlp]);
        change(&mut c);
        let message = c.validate().unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    };
    refused(|c| c.mixers.truncate(1), "mixers is 1");
    refused(|c| c.ttt.mini_batch_size = 0, "mini_batch_size is 0");
    refused(|c| c.ttt.mini_batch_size = 32 * 24 + 1, "mini_batch_size");
    refused(|c| c.ttt.conv_kernel = 65, "conv_kernel is 65");
    refused(|c| c.ttt.base_lr_mlp = f32::NAN, "base_lr");
    refused(|c| c.ttt.norm_eps = 0.0, "norm_eps");
    full(&[TttLinear, Attention]).validate().unwrap();
}

#[test]
fn a_frozen_model_reads_otherwise_and_takes_no_state_of_one_that_learns() {
    let weights = weights(&full(&[TttLinear, TttMlp]), 4);
    let ids = tokens(20);
    let engines = [true, false].map(|on| Engine::new(&weights, &EngineOptions::default().inner_updates(on)).unwrap());
    let [mut learns, mut still] = [0, 1].map(|i| Sequence::new(&engines[i], KvType::F32, None));
    assert_ne!(bits(learns.feed(&ids).unwrap()), bits(still.feed(&ids).unwrap()));
    let saved = learns.save().unwrap();
    let restored = [0, 1].map(|i| Sequence::restore(&engines[i], None, &saved).map(drop));
    let [Ok(()), Err(error)] = restored else { panic!("{restored:?}") };
    assert!(matches!(error, ModelError::SavedSequence(StateDamage::OtherModel)), "{error}");
    // A model without such layers has no updates to turn off.
    let attention = self::weights(&config(&[Attention]), 4);
    let [on, off] = [true, false].map(|on| EngineOptions::default().inner_updates(on)).map(|options| {
        bits(Sequence::new(&Engine::new(&attention, &options).unwrap(), KvType::F32, None).feed(&ids).unwrap())
    });
    assert_eq!(on, off);
}

#[test]
fn watching_the_inner_losses_changes_nothing() {
    for (name, c) in cases() {
        for engine in both_ways(&weights(&c, 8), 2) {
            let ids = tokens(300);
            let [mut plain, mut watched] = [(); 2].map(|()| Sequence::new(&engine, KvType::F32, None));
            plain.feed(&ids).unwrap();
            watched.feed(&ids[..6]).unwrap();
            let losses = watched.feed_watched(&ids[6..]).unwrap();
            assert_eq!(losses.len(), c.num_hidden_layers - c.attention_layers(), "{name}");
            for of_layer in &losses {
                assert_eq!(of_layer.len(), 294 * c.num_attention_heads, "{name}");
                assert!(of_layer.iter().all(|l| l.is_finite() && *l >= 0.0) && of_layer.iter().any(|l| *l > 0.0));
            }
            assert_eq!((watched.len(), watched.logits().len()), (300, 0));
            assert_eq!(bits(watched.feed(&[3]).unwrap()), bits(plain.feed(&[3]).unwrap()), "{name}");
        }
    }
}
