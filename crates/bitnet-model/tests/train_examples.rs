//! Training on examples: prompts are read and not learned, and windows hold whole examples.

use std::path::PathBuf;

use bitnet_model::train::{
    Batch, CandleLearner, FusedLearner, GIVEN, Learner, Params, Random, Sampler, Split, TokenFile, TokenWidth,
    TrainError, Validation, for_each_example, holds_examples,
};
use bitnet_model::{Mixer, ModelConfig};
use candle_core::Device;

fn model() -> ModelConfig {
    let mut c = ModelConfig::new(64, 32, 64, 2, 2, 1);
    c.max_position_embeddings = 64;
    c.mixers = vec![Mixer::Attention, Mixer::TttLinear];
    c.ttt.mini_batch_size = 8;
    c
}

/// The loss of some predictions and the loss of all others add up to the loss of all, and so do gradients, for both
/// learners.
#[test]
fn given_tokens_are_read_and_not_learned() {
    let (b, t) = (3, 21);
    let c = model();
    let params = Params::init(&c, 5, 0.05).unwrap();
    let mut random = Random::new(1, "ids");
    let ids: Vec<u32> = (0..b * (t + 1)).map(|_| random.below(64) as u32).collect();
    let some: Vec<bool> = ids.iter().map(|_| random.unit() < 0.4).collect();
    let flagged = |which: bool| {
        let ids = ids.iter().zip(&some).map(|(id, s)| if *s == which { *id } else { id | GIVEN });
        Batch::new(ids.collect(), b, t).unwrap()
    };
    let whole = Batch::new(ids.clone(), b, t).unwrap();
    let parts = [flagged(true), flagged(false)];
    assert_eq!((&parts[0].ids, whole.predictions()), (&ids, b * t));
    assert_eq!(parts.iter().map(Batch::predictions).sum::<usize>(), b * t);
    let fused: Box<dyn Learner> = Box::new(FusedLearner::new(&c, 2).unwrap());
    let candle: Box<dyn Learner> = Box::new(CandleLearner::new(&c, &Device::Cpu).unwrap());
    for mut learner in [fused, candle] {
        let mut of = |batch: &Batch| {
            let mut grads = vec![0.0f32; params.values.len()];
            let loss = learner.accumulate(&params, batch, &mut grads).unwrap();
            let n = batch.predictions() as f64;
            (loss * n, grads.iter().map(|g| f64::from(*g) * n).collect::<Vec<f64>>())
        };
        let (loss, grads) = of(&whole);
        let [a, b] = [of(&parts[0]), of(&parts[1])];
        assert!((a.0 + b.0 - loss).abs() < 1e-3, "{} + {} is not {loss}", a.0, b.0);
        assert!(a.0 > 1.0 && b.0 > 1.0, "both parts have a loss: {} {}", a.0, b.0);
        let norm = grads.iter().map(|g| g * g).sum::<f64>().sqrt();
        let off = grads.iter().zip(a.1.iter().zip(&b.1)).map(|(g, (a, b))| (a + b - g).powi(2)).sum::<f64>().sqrt();
        assert!(off < 1e-3 * norm, "gradients differ by {off} of {norm}");
    }
    // Nothing to learn is not a division by zero.
    let nothing = Batch::new(ids.iter().map(|id| id | GIVEN).collect(), b, t).unwrap();
    assert_eq!(FusedLearner::new(&c, 1).unwrap().loss(&params, &nothing).unwrap(), 0.0);
}

fn folder() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("bitnet-examples-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Letters as numbers from 1 on.
fn letters(text: &str) -> Vec<u32> {
    text.bytes().map(|b| u32::from(b - b'a') + 1).collect()
}

#[test]
fn windows_hold_whole_examples() {
    let dir = folder();
    let [file, train, valid] = ["e.jsonl", "train.u32", "valid.u32"].map(|n| dir.join(n));
    let mut random = Random::new(2, "examples");
    let mut word = |longest: u64| -> String {
        let n = 1 + random.below(longest);
        (0..n).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
    };
    let examples: Vec<(String, String)> = (0..300).map(|_| (word(9), word(6))).collect();
    let mut lines: String =
        examples.iter().map(|(p, c)| format!("{{\"prompt\": \"{p}\", \"completion\": \"{c}\"}}\n\n")).collect();
    lines += &format!("{{\"prompt\": \"{}\", \"completion\": \"b\"}}\n", "a".repeat(19));
    std::fs::write(&file, &lines).unwrap();
    assert!(holds_examples(&file).unwrap());

    let t = 20;
    let prepare = |share: f64| {
        let split = Split { validation: share, seed: 3 };
        let encode = &mut |e: bitnet_model::train::Example<'_>| {
            Ok([[vec![0], letters(e.prompt)].concat(), letters(e.completion)])
        };
        split.prepare_examples(std::slice::from_ref(&file), [&train, &valid], t, 27, encode).unwrap()
    };
    let done = prepare(0.0);
    // Beginning, 19 letters, one letter and end are 22 ids, the windows have room for 21.
    assert_eq!((done.documents, done.too_long, done.validation_tokens), (301, 1, 0));
    let mut ids = Vec::new();
    TokenFile::open(&train, TokenWidth::U32).unwrap().read(0, done.train_tokens as usize, &mut ids).unwrap();
    let mut found = Vec::new();
    for window in ids.chunks(t + 1) {
        let padding = window.iter().rev().take_while(|id| **id == 27 | GIVEN).count();
        for example in window[..window.len() - padding].split_inclusive(|id| *id == 27) {
            let given = example.iter().take_while(|id| **id & GIVEN != 0).count();
            let word =
                |ids: &[u32]| ids.iter().map(|id| char::from((id & !GIVEN) as u8 - 1 + b'a')).collect::<String>();
            assert_eq!((example[0], example[example.len() - 1]), (GIVEN, 27));
            found.push((word(&example[1..given]), word(&example[given..example.len() - 1])));
        }
    }
    let sorted = |mut all: Vec<(String, String)>| {
        all.sort();
        all
    };
    assert_eq!(sorted(found), sorted(examples));
    // Mean example: 1 + 5 + 3.5 + 1 ids; several open windows leave little room.
    let filled = ids.iter().filter(|id| **id != 27 | GIVEN).count();
    assert!(filled * 10 > ids.len() * 9, "{filled} of {} ids are examples", ids.len());

    // Each window once per epoch, from its beginning.
    let n = ids.len() / (t + 1);
    let mut sampler = Sampler::new(TokenFile::open_examples(&train, t).unwrap(), t, 4).unwrap();
    assert_eq!(sampler.epoch_len(), n as u64);
    let batch = sampler.next_batch(n).unwrap();
    let plain = |window: &[u32]| window.iter().map(|id| id & !GIVEN).collect::<Vec<u32>>();
    let mut drawn: Vec<Vec<u32>> = batch.ids.chunks(t + 1).map(plain).collect();
    let mut there: Vec<Vec<u32>> = ids.chunks(t + 1).map(plain).collect();
    assert_ne!(drawn, there);
    drawn.sort();
    there.sort();
    assert_eq!(drawn, there);
    assert!(matches!(TokenFile::open_examples(&train, t + 1), Err(TrainError::File { .. })));

    // Validation uses every window, too: its loss is that of one batch of all of them.
    let done = prepare(0.3);
    assert!(done.validation_tokens > 0 && done.train_tokens > done.validation_tokens);
    let c = model();
    let (params, mut learner) = (Params::init(&c, 5, 0.05).unwrap(), FusedLearner::new(&c, 1).unwrap());
    let n = done.validation_tokens as usize / (t + 1);
    let mut ids = Vec::new();
    let mut open = TokenFile::open_examples(&valid, t).unwrap();
    open.read(0, n * (t + 1), &mut ids).unwrap();
    let whole = learner.loss(&params, &Batch::new(ids, n, t).unwrap()).unwrap();
    let said = Validation::new(open, t).unwrap().loss(&mut learner, &params, [4, t], 1000).unwrap();
    assert!((whole - said).abs() < 1e-6, "{whole} {said}");
    std::fs::remove_dir_all(dir).ok();
}

#[test]
fn files_that_hold_no_examples_are_refused_by_line() {
    let dir = std::env::temp_dir();
    let path = dir.join(format!("bitnet-no-examples-{}.jsonl", std::process::id()));
    for (text, problem) in [
        ("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n", "line 2: no field \"completion\""),
        ("{\"prompt\": 1, \"completion\": \"b\"}\n", "line 1: no field \"prompt\""),
        ("nonsense\n", "line 1: not JSON"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = for_each_example(&path, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    std::fs::write(&path, "\n{\"text\": \"a\"}\n").unwrap();
    assert!(!holds_examples(&path).unwrap());
    std::fs::remove_file(path).ok();
}
