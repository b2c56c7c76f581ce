//! Whole runs: exact resume, early ends, data, export.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_model::perplexity::{Perplexity, perplexity, perplexity_by_position};
use bitnet_model::train::{
    Batch, Checkpoint, Event, Finish, FusedLearner, Learner, MasterWeights, MuonOptions, OptimizerKind, Params,
    Sampler, ScheduleKind, Split, TextFormat, TokenFile, TokenWidth, TokenWriter, TrainConfig, TrainError, Trainer,
    Validation, for_each_document,
};
use bitnet_model::{ActivationBits, Engine, EngineOptions, KvType, Mixer, ModelConfig, ModelWeights};

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bitnet-train-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn model() -> ModelConfig {
    let mut c = ModelConfig::new(64, 32, 64, 2, 2, 1);
    c.max_position_embeddings = 64;
    c
}

/// Test-time training with all its parts, next to attention.
fn ttt_model() -> ModelConfig {
    let mut c = ModelConfig::new(64, 32, 64, 3, 2, 1);
    c.max_position_embeddings = 64;
    c.mixers = vec![Mixer::TttLinear, Mixer::Attention, Mixer::TttMlp];
    (c.ttt.share_qk, c.ttt.use_gate, c.ttt.pre_conv, c.ttt.decay) = (true, true, true, true);
    c.ttt.mini_batch_size = 8;
    c
}

/// Layers of the gated delta rule beside attention: two heads of values for each of keys, heads narrower than those of
/// attention.
fn delta_model() -> ModelConfig {
    let mut c = ModelConfig::new(64, 32, 64, 3, 2, 1);
    c.max_position_embeddings = 64;
    c.mixers = vec![Mixer::GatedDelta, Mixer::Attention, Mixer::GatedDelta];
    (c.delta.state_size, c.delta.key_heads, c.delta.value_heads) = (8, 2, 4);
    c
}

/// Norms of heads, heads that are wider than their share, a scale for each 64 weights.
fn group_model() -> ModelConfig {
    let mut c = ModelConfig::new(64, 64, 128, 2, 2, 1);
    (c.max_position_embeddings, c.head_dim) = (64, 64);
    c.hidden_act = bitnet_model::Activation::Silu;
    (c.sub_norms, c.head_norms) = (false, true);
    c.weight_group = Some(64);
    c.inputs = c.inputs.with_bits(ActivationBits::Sixteen);
    c
}

/// Runs of a counting text: each token is the previous one plus 1, modulo 64, which is easy to learn.
fn counting(path: &Path, n: u32) {
    let mut out = TokenWriter::create(path, TokenWidth::U16).unwrap();
    out.write(&(0..n).map(|i| i % 64).collect::<Vec<_>>()).unwrap();
    assert_eq!(out.finish().unwrap(), u64::from(n));
}

fn config() -> TrainConfig {
    let mut c = TrainConfig {
        steps: 24,
        batch: 4,
        accumulate: 2,
        context: 20,
        threads: 2,
        validate_every: 6,
        checkpoint_every: 6,
        ..TrainConfig::default()
    };
    c.schedule.warmup = 4;
    c
}

fn trainer(dir: &Folder, c: &TrainConfig, out: &str) -> Trainer<FusedLearner> {
    trainer_of(&model(), dir, c, out)
}

fn trainer_of(model: &ModelConfig, dir: &Folder, c: &TrainConfig, out: &str) -> Trainer<FusedLearner> {
    let data = || Some(TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap());
    let learner = FusedLearner::new(model, c.threads).unwrap();
    Trainer::new(model, c, learner, [data(), data()], &dir.file(out)).unwrap()
}

/// An interrupted run that is read back from its file ends with the same bits as one that was never interrupted:
/// parameters, moments, data position. And it has learned something.
#[test]
fn resume_is_exact() {
    resume(&model(), "resume");
}

/// Models with test-time training, whose inner learning rate is still warming up when the run stops.
#[test]
fn resume_of_test_time_training_is_exact() {
    resume(&ttt_model(), "resume-ttt");
}

/// Models with layers of the gated delta rule.
#[test]
fn resume_of_the_gated_delta_rule_is_exact() {
    resume(&delta_model(), "resume-delta");
}

/// Models whose groups of weights have scales.
#[test]
fn resume_with_groups_is_exact() {
    resume(&group_model(), "resume-groups");
}

/// Muon, whose momentum is in the checkpoint instead of two moments, with a learning rate of its own, another schedule,
/// and a moving average of the weights, which is not where they are.
#[test]
fn resume_with_muon_and_an_average_is_exact() {
    let muon = MuonOptions { lr: Some(5e-3), ..MuonOptions::default() };
    let mut c = TrainConfig { optimizer: OptimizerKind::Muon, muon, ema: 0.8, ..config() };
    c.schedule.kind = ScheduleKind::Wsd;
    resume_of(&ttt_model(), "resume-muon", &c);
    let dir = Folder::new("resume-muon-names");
    counting(&dir.file("t.u16"), 5000);
    let run = trainer(&dir, &TrainConfig { steps: 2, ..c.clone() }, "c.safetensors");
    run.checkpoint().save(&dir.file("c.safetensors")).unwrap();
    let file = test_support::Tensors::open(dir.file("c.safetensors"));
    let mut of_q: Vec<&str> = file.names().filter(|n| n.contains("layers.1.self_attn.q_proj")).collect();
    of_q.sort_unstable();
    let q = "model.layers.1.self_attn.q_proj.weight";
    assert_eq!(of_q, [format!("ema.{q}"), q.to_owned(), format!("muon.m.{q}")]);
    assert!(file.names().any(|n| n == "adam.v.model.embed_tokens.weight"));

    // One optimizer cannot use the moments of the other.
    let other = TrainConfig { optimizer: OptimizerKind::AdamW, muon: MuonOptions::default(), ..c };
    let refused = run.checkpoint().second_stage(model(), other).unwrap_err();
    assert!(matches!(refused, TrainError::Option { option: "optimizer", .. }), "{refused}");
}

/// Windows of 5, 10 and 20 tokens in a third of the run each, as many tokens in every step; the stop at step 11 is
/// within the second part.
#[test]
fn resume_with_growing_windows_is_exact() {
    resume_of(&model(), "resume-growing", &TrainConfig { context_start: 5, ..config() });
    for (start, context) in [(3, 20), (40, 20), (5, 15), (7, 20)] {
        let c = TrainConfig { context_start: start, context, ..config() };
        let refused = c.validate().unwrap_err();
        assert!(matches!(refused, TrainError::Option { option: "context_start", .. }), "{refused}");
    }
}

/// Documents of 64 tokens, each a text of its own.
#[test]
fn resume_with_documents_is_exact() {
    let c = TrainConfig { document_end: Some(63), inner_warmup: 15, ..config() };
    resume_of(&ttt_model(), "resume-documents", &c);
    // In windows that grow, too.
    let c = TrainConfig { whole_documents: true, context_start: 5, ..c };
    resume_of(&model(), "resume-whole-documents", &c);
    let refused = TrainConfig { document_end: None, ..c }.validate().unwrap_err();
    assert!(matches!(refused, TrainError::Option { option: "whole_documents", .. }), "{refused}");
    let dir = Folder::new("one-document");
    counting(&dir.file("t.u16"), 64);
    let mut file = TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap();
    // Nothing follows the last token, and there is no token 64.
    assert_eq!([62, 63, 64].map(|end| file.has_document_end(end).unwrap()), [true, false, false]);
    // Of documents of one token each there is nothing to learn.
    let mut out = TokenWriter::create(&dir.file("t.u16"), TokenWidth::U16).unwrap();
    out.write(&[7; 100]).unwrap();
    out.finish().unwrap();
    let mut file = TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap();
    file.set_document_end(Some(7));
    let refused = Sampler::new(file, 20, 1).unwrap_err();
    assert!(matches!(refused, TrainError::NothingToLearn { .. }), "{refused}");
}

fn resume(model: &ModelConfig, name: &str) {
    resume_of(model, name, &TrainConfig { inner_warmup: 15, ..config() });
}

fn resume_of(model: &ModelConfig, name: &str, c: &TrainConfig) {
    let dir = Folder::new(name);
    counting(&dir.file("t.u16"), 5000);
    let mut whole = trainer_of(model, &dir, c, "whole.safetensors");
    let mut losses = Vec::new();
    let mut see = |e: Event<'_>| {
        if let Event::Step { loss, .. } = e {
            losses.push(loss);
        }
        ControlFlow::Continue(())
    };
    assert_eq!(whole.run(&mut see).unwrap(), Finish::Completed);
    assert_eq!(losses.len(), 24);
    // Windows that grow meet positions that they have not learned yet.
    let fall = if c.context_start == 0 { 0.5 } else { 0.4 };
    assert!(losses[23] < losses[0] - fall, "{losses:?}");
    assert_eq!(whole.trained() == whole.params(), c.ema == 0.0);

    let mut first = trainer_of(model, &dir, c, "part.safetensors");
    let stop_at_11 = &mut |e: Event<'_>| match e {
        Event::Step { step: 11, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(first.run(stop_at_11).unwrap(), Finish::Interrupted);
    drop(first);
    let saved = Checkpoint::load(&dir.file("part.safetensors")).unwrap();
    // The second part of the growing windows began with the ninth step.
    let position = if c.context_start == 0 { 11 * 8 } else { 3 * 16 };
    assert_eq!(saved.progress.step, 11);
    assert!(c.whole_documents || saved.progress.position == position, "{:?}", saved.progress);
    let data = || Some(TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap());
    let learner = FusedLearner::new(model, c.threads).unwrap();
    let mut second = Trainer::resume(saved, learner, [data(), data()], &dir.file("part.safetensors")).unwrap();
    assert_eq!(second.run(&mut |_| ControlFlow::Continue(())).unwrap(), Finish::Completed);
    assert!(second.checkpoint() == whole.checkpoint(), "the continued run differs from the whole one");
    assert!(Checkpoint::load(&dir.file("part.safetensors")).unwrap() == whole.checkpoint());
}

/// A learner whose loss becomes NaN.
struct Breaks(FusedLearner, u32);

impl Learner for Breaks {
    fn loss(&mut self, params: &Params, batch: &Batch) -> Result<f64, TrainError> {
        self.0.loss(params, batch)
    }
    fn accumulate(&mut self, params: &Params, batch: &Batch, grads: &mut [f32]) -> Result<f64, TrainError> {
        self.1 += 1;
        let loss = self.0.accumulate(params, batch, grads)?;
        Ok(if self.1 > 20 { f64::NAN } else { loss })
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint() {
    let dir = Folder::new("nan");
    counting(&dir.file("t.u16"), 5000);
    let data = || Some(TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap());
    let learner = Breaks(FusedLearner::new(&model(), 1).unwrap(), 0);
    let path = dir.file("c.safetensors");
    let mut run = Trainer::new(&model(), &config(), learner, [data(), None], &path).unwrap();
    let error = run.run(&mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { what: "loss", step: 11, .. }), "{error}");
    let kept = Checkpoint::load(&path).unwrap();
    assert_eq!(kept.progress.step, 6);
    assert!(kept.params.values.iter().all(|v| v.is_finite()));
}

/// A learner of whose gradients the twenty-first is infinite.
struct Overflows(FusedLearner, u32);

impl Learner for Overflows {
    fn loss(&mut self, params: &Params, batch: &Batch) -> Result<f64, TrainError> {
        self.0.loss(params, batch)
    }
    fn accumulate(&mut self, params: &Params, batch: &Batch, grads: &mut [f32]) -> Result<f64, TrainError> {
        self.1 += 1;
        let loss = self.0.accumulate(params, batch, grads)?;
        if self.1 > 20 {
            *grads.last_mut().unwrap() = f32::INFINITY;
        }
        Ok(loss)
    }
}

#[test]
fn a_gradient_that_is_no_number_changes_nothing_under_muon() {
    let dir = Folder::new("overflow");
    counting(&dir.file("t.u16"), 5000);
    let data = || Some(TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap());
    let learner = Overflows(FusedLearner::new(&model(), 1).unwrap(), 0);
    let c = TrainConfig { optimizer: OptimizerKind::Muon, checkpoint_every: 10, ..config() };
    let path = dir.file("c.safetensors");
    let mut run = Trainer::new(&model(), &c, learner, [data(), None], &path).unwrap();
    let error = run.run(&mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { what: "gradient", step: 11, .. }), "{error}");
    assert_eq!(Checkpoint::load(&path).unwrap().params, *run.params());
}

/// A run with a time instead of steps: it plans, ends at about its time with a learning rate near 0, and its last step
/// is validated; interrupted and continued, it has the rest of its time and its plan.
#[test]
fn a_run_ends_in_its_time() {
    let dir = Folder::new("time");
    counting(&dir.file("t.u16"), 5000);
    let mut c = TrainConfig { time: Some(3.0), validate_every: 0, ..config() };
    (c.schedule.kind, c.schedule.peak) = (ScheduleKind::Cosine, 1.0e-3);
    let mut first = trainer(&dir, &c, "c.safetensors");
    assert_eq!(first.steps(), None);
    let began = std::time::Instant::now();
    let mut plans = 0;
    let stop = &mut |e: Event<'_>| match e {
        Event::Plan { steps, .. } => {
            plans += 1;
            assert!(steps > 0);
            ControlFlow::Continue(())
        }
        _ if began.elapsed().as_secs_f64() > 1.0 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(first.run(stop).unwrap(), Finish::Interrupted);
    assert!(plans > 0);
    let saved = Checkpoint::load(&dir.file("c.safetensors")).unwrap();
    let clock = saved.progress.clock;
    assert!((0.5..3.0).contains(&clock.seconds) && clock.planned.is_some(), "{clock:?}");
    assert_eq!(clock.steps, saved.progress.step);

    let data = || Some(TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap());
    let learner = FusedLearner::new(&model(), c.threads).unwrap();
    let mut second = Trainer::resume(saved, learner, [data(), data()], &dir.file("c.safetensors")).unwrap();
    let (mut last, mut validations) = (0.0, 0);
    let finish = second.run(&mut |e| {
        match e {
            Event::Step { lr, .. } => last = lr,
            Event::Validation { .. } => validations += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!((finish.unwrap(), validations), (Finish::Completed, 1));
    let p = second.progress();
    assert_eq!(second.steps(), Some(p.step));
    // Where others use the same processors a step may take many times as long as the one before.
    assert!((1.5..6.0).contains(&p.clock.seconds), "{:?}", p.clock);
    // A cosine ends with the square of the share of steps that are left; the last plan may be a single step long.
    assert!(last < 0.2 * c.schedule.peak, "{last}");
    let refused = TrainConfig { time: Some(0.0), ..config() }.validate().unwrap_err();
    assert!(matches!(refused, TrainError::Option { option: "time", .. }), "{refused}");
}

#[test]
fn a_run_that_gets_no_better_stops_early() {
    let dir = Folder::new("early");
    counting(&dir.file("t.u16"), 5000);
    let mut c = TrainConfig { patience: 2, validate_every: 1, ..config() };
    // Without a learning rate nothing changes.
    (c.schedule.peak, c.schedule.peak2) = (0.0, 0.0);
    let mut run = trainer(&dir, &c, "c.safetensors");
    assert_eq!(run.run(&mut |_| ControlFlow::Continue(())).unwrap(), Finish::EarlyStop);
    assert_eq!(run.progress().step, 3);
}

/// Each epoch draws every window of its grid once, every epoch in another order, and a position is enough to continue.
#[test]
fn sampling_covers_the_file_and_goes_on_anywhere() {
    let dir = Folder::new("sample");
    let path = dir.file("t.u32");
    let mut out = TokenWriter::create(&path, TokenWidth::U32).unwrap();
    out.write(&(0..1013).collect::<Vec<_>>()).unwrap();
    out.finish().unwrap();
    let open = |seed| Sampler::new(TokenFile::open(&path, TokenWidth::U32).unwrap(), 10, seed).unwrap();
    let mut sampler = open(1);
    let n = sampler.epoch_len() as usize;
    assert_eq!(n, 100);
    let epoch = |s: &mut Sampler| -> Vec<u32> {
        let batch = s.next_batch(n).unwrap();
        batch
            .ids
            .chunks(11)
            .map(|w| {
                assert!(w.windows(2).all(|p| p[1] == p[0] + 1), "a window is one piece of the file");
                w[0]
            })
            .collect()
    };
    let (a, b) = (epoch(&mut sampler), epoch(&mut sampler));
    for starts in [&a, &b] {
        let mut sorted = starts.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|p| p[1] == p[0] + 10), "side by side, none twice");
    }
    assert_ne!(a, b);
    assert_ne!(a, epoch(&mut open(2)));
    let mut again = open(1);
    again.position = 37;
    assert_eq!(again.next_batch(5).unwrap().ids[0], a[37]);
    assert!(matches!(
        Sampler::new(TokenFile::open(&path, TokenWidth::U32).unwrap(), 1013, 1),
        Err(TrainError::TooShort { tokens: 1013, needed: 1014, .. })
    ));
}

#[test]
fn documents_of_both_formats() {
    let dir = Folder::new("documents");
    let read = |name: &str, text: &str| {
        let path = dir.file(name);
        std::fs::write(&path, text).unwrap();
        let mut seen = Vec::new();
        let result = for_each_document(&path, TextFormat::of_path(&path), &mut |d| {
            seen.push(d.to_owned());
            Ok(())
        });
        (seen, result)
    };
    let (seen, result) = read("a.txt", "One\ntwo\n<|endoftext|>\n\nThree <|endoftext|> in a line\n<|endoftext|>\n");
    result.unwrap();
    assert_eq!(seen, ["One\ntwo", "Three <|endoftext|> in a line"]);
    let (seen, result) = read("a.jsonl", "{\"text\": \"a\\nb\"}\n\n{\"id\": 1, \"text\": \"c\"}\n");
    result.unwrap();
    assert_eq!(seen, ["a\nb", "c"]);
    let (_, result) = read("b.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}\n");
    assert!(result.unwrap_err().to_string().contains("line 2: no field"));
    let (_, result) = read("c.jsonl", "nonsense\n");
    assert!(result.unwrap_err().to_string().contains("line 1: not JSON"));

    // Half of the documents are kept for validation; none is lost, all end with the end token.
    let path = dir.file("d.txt");
    std::fs::write(&path, (0..200).map(|i| format!("{i}\n<|endoftext|>\n")).collect::<String>()).unwrap();
    let split = Split { validation: 0.5, seed: 1 };
    let (train, valid) = (dir.file("d.u16"), dir.file("dv.u16"));
    let mut encode = |text: &str| text.parse().map(|id: u32| vec![id]).map_err(|e| e.to_string());
    let done = split.prepare(&[path], [&train, &valid], TokenWidth::U16, 999, &mut encode).unwrap();
    assert_eq!((done.documents, done.train_tokens + done.validation_tokens), (200, 400));
    assert!(done.validation_tokens > 100 && done.train_tokens > 100);
    let mut ids = Vec::new();
    for (path, n) in [(train, done.train_tokens), (valid, done.validation_tokens)] {
        TokenFile::open(&path, TokenWidth::U16).unwrap().read(0, n as usize, &mut ids).unwrap();
    }
    assert!(ids.chunks(2).all(|d| d[1] == 999));
    let mut first: Vec<u32> = ids.chunks(2).map(|d| d[0]).collect();
    first.sort_unstable();
    assert_eq!(first, (0..200).collect::<Vec<_>>());
}

/// Damaged checkpoints are rejected, whichever byte is missing.
#[test]
fn damaged_checkpoints_are_refused() {
    let dir = Folder::new("damaged");
    counting(&dir.file("t.u16"), 500);
    let run = trainer(&dir, &config(), "c.safetensors");
    let path = dir.file("c.safetensors");
    run.checkpoint().save(&path).unwrap();
    assert!(Checkpoint::load(&path).unwrap() == run.checkpoint());
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(matches!(Checkpoint::load(&path), Err(TrainError::Damaged { .. })), "cut to {cut} bytes");
    }
    let text = String::from_utf8_lossy(&bytes[..4000]).into_owned();
    let other = bytes.clone();
    let at = text.find("hidden_size").unwrap();
    let mut other = other;
    other[at] = b'x';
    std::fs::write(&path, &other).unwrap();
    assert!(Checkpoint::load(&path).is_err());
}

/// Features that training does not support are rejected by name, with the way out.
#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let refused = |change: fn(&mut ModelConfig)| {
        let mut c = group_model();
        change(&mut c);
        FusedLearner::new(&c, 1).unwrap_err().to_string()
    };
    type Change = fn(&mut ModelConfig);
    let cases: [(Change, &str); 5] = [
        (|c| c.qkv_bias = true, "biases of q, k and v"),
        (|c| c.output_norms = true, "outputs of attention"),
        (|c| c.rope_scaling = bitnet_model::RopeScaling::yarn(4.0, 32), "YaRN"),
        (|c| c.weight_group = None, "16-bit activations"),
        (|c| c.weight_group = Some(128), "hidden_size"),
    ];
    for (change, word) in cases {
        let error = refused(change);
        assert!(error.contains(word), "{error}");
    }
    assert!(refused(|c| c.qkv_bias = true).contains("run others with the engine"));
}

/// The inference engine, given the trained weights, predicts the validation text as well as the trainer reports.
#[test]
fn the_engine_agrees_with_the_trainer() {
    let models = [
        (model(), "engine"),
        (ttt_model(), "engine-ttt"),
        (delta_model(), "engine-delta"),
        (group_model(), "engine-groups"),
    ];
    for (model, name) in models {
        let dir = Folder::new(name);
        counting(&dir.file("t.u16"), 2001);
        let mut run = trainer_of(&model, &dir, &config(), "c.safetensors");
        run.run(&mut |_| ControlFlow::Continue(())).unwrap();
        let params = run.params();
        let file = TokenFile::open(&dir.file("t.u16"), TokenWidth::U16).unwrap();
        let mut learner = FusedLearner::new(&model, 2).unwrap();
        let trainer_says = Validation::new(file, 20).unwrap().loss(&mut learner, params, [4, 20], 100).unwrap();
        let weights = ModelWeights::from_source(&MasterWeights { model: &model, params }).unwrap();
        let engine = Engine::new(&weights, &EngineOptions::default()).unwrap();
        let tokens: Vec<u32> = (0..2001).map(|i| i % 64).collect();
        let p = perplexity(&engine, &tokens, 20, KvType::F32, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(p.tokens, 2000);
        // Differences in codes of 16 bits have a smaller effect.
        let limit = if model.weight_group.is_some() { 1e-5 } else { 1e-3 };
        assert!((p.nats_per_token - trainer_says).abs() <= limit, "{name}: {} and {trainer_says}", p.nats_per_token);
        let parts =
            perplexity_by_position(&engine, &tokens, [20, 8], KvType::F32, &mut |_, _| ControlFlow::Continue(()));
        let parts = parts.unwrap();
        assert_eq!(parts.iter().map(|p| p.tokens).collect::<Vec<_>>(), [800, 800, 400]);
        assert!((Perplexity::of_all(&parts).nats_per_token - p.nats_per_token).abs() < 1e-12);
    }
}
