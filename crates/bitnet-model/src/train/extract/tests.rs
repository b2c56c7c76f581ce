//! Gradients against differences of the loss, and a model that was learned against inference.

use std::ops::ControlFlow;

use super::batch::{Batch, Goal};
use super::heads::Weights;
use super::learner::Learner;
use super::*;
use crate::encoder::{Directions, EncoderMixer, Extractor, ExtractorConfig, FeatureConfig, TaskConfig};
use crate::train::Random;

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|n| (*n).to_owned()).collect()
}

const WEIGHTS: Weights = Weights {
    tags: 0.5,
    smoothing: 0.0,
    dropout: 0.0,
    word_dropout: 0.0,
    agreement: 0.0,
    taught: 0.0,
    transitions: true,
};

fn small() -> ExtractorConfig {
    let tasks = vec![
        TaskConfig::new("music", names(&["play", "stop"]), names(&["artist", "track"])),
        TaskConfig::new("other", names(&["a", "b", "c"]), vec![]),
    ];
    ExtractorConfig {
        buckets: 64,
        hidden_size: 32,
        num_layers: 2,
        num_heads: 2,
        intermediate_size: 64,
        ..ExtractorConfig::new(tasks)
    }
}

/// Some texts.
const SAID: [&str; 5] = ["play so what by miles davis", "stop!", "青空 please", "what is it", "nothing of that kind"];

/// Every mixer alone, and two of them, in both directions; every mixer forward only.
fn shapes() -> Vec<ExtractorConfig> {
    use Directions::{Both, Forward};
    use EncoderMixer::{Attention, GatedDelta, TttLinear};
    let all = [
        (Both, vec![]),
        (Both, vec![TttLinear; 2]),
        (Both, vec![GatedDelta; 2]),
        (Both, vec![Attention, TttLinear]),
        (Forward, vec![]),
        (Forward, vec![TttLinear, GatedDelta]),
    ];
    all.map(|(directions, mixers)| ExtractorConfig { directions, mixers, ..small() }).into()
}

/// The texts of [`SAID`] as an extractor of this configuration reads them.
fn texts_for(config: &ExtractorConfig) -> Batch {
    let mut batch = Batch::default();
    let mut push = |text: &str, spans: Vec<std::ops::Range<usize>>, slots: &[usize], task, goal| {
        assert!(batch.push(&Marked::new(text, spans), slots, (task, config.features()), goal, &mut || false));
    };
    push("play so what by miles davis", vec![5..12, 16..27], &[1, 0], 0, Goal::Intent(0));
    push("stop!", vec![], &[], 0, Goal::Intent(1));
    push("青空 please", vec![0..2], &[0], 0, Goal::Intent(0));
    push("what is it", vec![], &[], 1, Goal::Intent(2));
    push("nothing of that kind", vec![], &[], 1, Goal::Outside);
    batch
}

fn texts() -> Batch {
    texts_for(&small())
}

/// Along the gradient of a tensor, and along a random direction, the loss changes as the gradient says. Without
/// quantisers: the straight-through estimator ignores them.
#[test]
fn gradients_are_slopes() {
    for config in shapes() {
        let mut learner = Learner::new(config.clone(), vec![false, true], 3, 1).unwrap();
        if !config.mixers.is_empty() {
            // A trained recurrence has larger numbers than one that begins, whose norms divide by next to nothing.
            let mut values = learner.flat();
            for (name, range) in learner.tensors() {
                let mut random = Random::new(11, &name);
                if name.contains("ttt_w1.weight") {
                    values[range].iter_mut().for_each(|v| *v = 0.3 * random.normal() as f32);
                }
            }
            learner.set_flat(&values);
        }
        slopes(learner, &config);
    }
}

fn slopes(mut learner: Learner, config: &ExtractorConfig) {
    let (batch, mixers) = (texts_for(config), (config.directions, &config.mixers));
    let weights = Weights { tags: 0.5, smoothing: 0.1, ..WEIGHTS };
    let gradient = learner.flat_gradient(&batch, weights);
    let values = learner.flat();
    for (name, range) in learner.tensors() {
        let g = &gradient[range.clone()];
        let norm = g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "{mixers:?}, {name} has no gradient");
        // A steep loss is steep only nearby.
        let step = 5e-3 / norm.max(1.0);
        let along: Vec<f64> = g.iter().map(|g| f64::from(*g) / norm).collect();
        let mut random = Random::new(7, &name);
        let drawn: Vec<f64> = g.iter().map(|_| random.normal()).collect();
        let length = drawn.iter().map(|d| d * d).sum::<f64>().sqrt();
        let any: Vec<f64> = drawn.iter().map(|d| d / length).collect();
        for direction in [along, any] {
            let mut at = |step: f64| {
                let mut moved = values.clone();
                moved[range.clone()].iter_mut().zip(&direction).for_each(|(v, d)| *v += (step * d) as f32);
                learner.set_flat(&moved);
                learner.loss(&batch, weights)
            };
            let mut slope = |step: f64| (at(step) - at(-step)) / (2.0 * step);
            let (far, near) = (slope(step), slope(step / 2.0));
            // Two steps cancel third derivatives (Richardson), which are large where a short text divides by little.
            let slope = (4.0 * near - far) / 3.0;
            let expected: f64 = g.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
            // The loss is a sum of f32 with about 7 digits: 1e-6 / step for the far slope, three times that in the
            // result; kinks of the largest values and higher derivatives: a percent of the slope.
            let near = (slope - expected).abs() < 3e-6 / step + 0.01 * norm;
            assert!(near, "{mixers:?}, {name}: {slope} instead of {expected}");
        }
    }
}

fn tasks() -> Vec<TaskData> {
    let artists = ["miles davis", "björk", "queen", "the cure", "青空"];
    let mut train = Vec::new();
    for (i, artist) in artists.iter().enumerate() {
        for (intent, before, after) in [(0, "play ", " now"), (1, "never play ", ""), (0, "i want to hear ", " please")]
        {
            let start = before.chars().count();
            let said = Marked::new(&format!("{before}{artist}{after}"), vec![start..start + artist.chars().count()]);
            train.push(Utterance { said, intent: Some(intent), slots: vec![0] });
        }
        let said = Marked::new(["how are you", "what time is it", "rain", "open the door", "hm"][i], vec![]);
        train.push(Utterance { said, intent: None, slots: vec![] });
    }
    let valid = train.clone();
    vec![TaskData { name: "music".into(), intents: names(&["play", "skip"]), slots: names(&["artist"]), train, valid }]
}

fn options() -> ExtractOptions {
    let mut o = ExtractOptions {
        hidden: 32,
        heads: 2,
        ffn: 64,
        buckets: 512,
        steps: Some(60),
        batch: 16,
        ..ExtractOptions::default()
    };
    (o.warmup, o.lr) = (10, 5e-3);
    o
}

#[test]
fn what_was_learned_is_what_inference_finds() {
    for mixers in [vec![], vec![EncoderMixer::TttLinear], vec![EncoderMixer::GatedDelta]] {
        learned(&ExtractOptions { mixers, ..options() });
    }
    learned(&ExtractOptions { directions: Directions::Forward, once: true, ..options() });
}

fn learned(options: &ExtractOptions) {
    let tasks = tasks();
    let mut losses = Vec::new();
    let mut see = |event: ExtractEvent<'_>| {
        if let ExtractEvent::Step { loss, .. } = event {
            losses.push(loss);
        }
        ControlFlow::Continue(())
    };
    let trained = train(&tasks, options, &mut see).unwrap();
    assert_eq!((losses.len(), trained.steps, trained.finish), (60, 60, Finish::Completed));
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
    let [clean, _] = &trained.figures[0];
    assert!(clean.accuracy() > 0.9 && clean.slot_counts().f1() > 0.9 && clean.auroc > Some(0.9), "{}", trained.report);
    // The same figures through inference.
    let model = Extractor::new(trained.weights.clone()).unwrap();
    let mut scratch = model.scratch();
    let (mut right, mut spans) = (0, 0);
    for u in tasks[0].valid.iter().filter(|u| u.intent.is_some()) {
        let text = u.said.text();
        let found = model.extract_into(0, &text, &mut scratch).unwrap();
        right += usize::from(Some(found.intent) == u.intent);
        spans += found.spans.iter().filter(|s| text[s.range.clone()] == u.said.value(0)).count();
    }
    assert_eq!((right, spans), (clean.intents, clean.slot_counts().right));
    // The same seed gives the same weights.
    let again = train(&tasks, options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.weights.features, trained.weights.features);
    assert_eq!(again.weights.tasks, trained.weights.tasks);
}

/// During training a model computes the same as inference, up to the rounding of the table to int8.
#[test]
fn the_net_and_inference_agree() {
    shapes().into_iter().for_each(agree);
}

fn agree(config: ExtractorConfig) {
    let batch = texts_for(&config);
    let mut learner = Learner::new(config, vec![false, true], 5, 1).unwrap();
    let weights = learner.export().unwrap();
    // The table as inference has it, so that only the order of float sums differs.
    let width = weights.features.width();
    let table = (0..weights.features.buckets()).flat_map(|r| {
        let (codes, scale) = weights.features.row(r);
        codes.iter().map(move |c| scale * f32::from(*c)).collect::<Vec<f32>>()
    });
    learner.set_table(&table.collect::<Vec<f32>>());
    assert_eq!(width, 32);
    let guesses = learner.guess(&batch);
    let model = Extractor::new(weights).unwrap();
    let mut scratch = model.scratch();
    for ((text, t), guess) in SAID.iter().zip(&batch.all).zip(&guesses) {
        let found = model.extract_into(t.task, text, &mut scratch).unwrap();
        // A last bit of a float may move a code of an activation by one of 127, in the few near a half: that
        // moves a product of 32 to 64 terms by less than a hundredth of its largest value.
        for (a, b) in found.logits.iter().zip(&guess.logits) {
            assert!((a - b).abs() < 0.02, "{text}: {a} {b}");
        }
        assert_eq!(found.logits.len(), guess.logits.len());
        assert_eq!(found.tags, guess.tags, "{text}");
    }
}

#[test]
fn bad_options_are_named() {
    let tasks = tasks();
    let run = |change: &dyn Fn(&mut ExtractOptions)| {
        let mut o = options();
        change(&mut o);
        train(&tasks, &o, &mut |_| ControlFlow::Continue(())).map(drop).unwrap_err().to_string()
    };
    assert!(run(&|o| o.batch = 0).contains("batch is 0"));
    assert!(run(&|o| o.lr = f64::NAN).contains("lr is NaN"));
    assert!(run(&|o| o.augmentation.typos = 2.0).contains("typos is 2"));
    assert!(run(&|o| o.heads = 3).contains("num_heads"));
    assert!(run(&|o| o.mixers = vec![EncoderMixer::TttLinear; 3]).contains("3 names for 2 layers"));
    assert!(run(&|o| o.hidden = 0).contains("hidden_size"));
    // A rate that leads to infinity is an error, and nothing panics.
    let error = run(&|o| (o.lr, o.clip, o.table_lr) = (1e30, 0.0, 1e30));
    assert!(error.contains("became") || error.contains("not finite") || error.contains("inite"), "{error}");
}

#[test]
fn a_run_can_be_ended_early() {
    let tasks = tasks();
    let mut steps = 0;
    let trained = train(&tasks, &options(), &mut |event| {
        steps += usize::from(matches!(event, ExtractEvent::Step { .. }));
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let trained = trained.unwrap();
    assert_eq!((trained.steps, trained.finish), (3, Finish::Interrupted));
    assert!(trained.report.contains("## music"));
}

/// Two threads learn what one does, up to the order of sums, and always the same.
#[test]
fn threads_share_a_batch() {
    let [mut one, mut two] = [1, 2].map(|threads| Learner::new(small(), vec![false, true], 6, threads).unwrap());
    let (whole, mut halves) = (texts(), [Batch::default(), Batch::default()]);
    for (i, text) in SAID.iter().enumerate() {
        let t = &whole.all[i];
        let (said, slots): (Marked, &[usize]) = match i {
            0 => (Marked::new(text, vec![5..12, 16..27]), &[1, 0]),
            2 => (Marked::new(text, vec![0..2]), &[0]),
            _ => (Marked::new(text, vec![]), &[]),
        };
        halves[i % 2].push(&said, slots, (t.task, FeatureConfig::new(64)), t.goal, &mut || false);
    }
    let (loss, gradient) = one.quantised_gradient(&[whole], WEIGHTS);
    let (halved, other) = two.quantised_gradient(&halves, WEIGHTS);
    assert!((loss - halved).abs() < 1e-5 * loss, "{loss} {halved}");
    let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
    let off = gradient.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    // Sums of a few hundred f32 in another order.
    assert!(off < 1e-4 * norm && norm > 0.0, "{off} {norm}");
    assert_eq!(two.quantised_gradient(&halves, WEIGHTS).1, other);

    let tasks = tasks();
    let run = |threads| train(&tasks, &ExtractOptions { threads, ..options() }, &mut |_| ControlFlow::Continue(()));
    let (a, b) = (run(2).unwrap(), run(2).unwrap());
    assert!(a.figures[0][0].accuracy() > 0.9);
    assert_eq!((a.weights.features, a.weights.tasks), (b.weights.features, b.weights.tasks));
}

/// A run that was ended and goes on ends with the weights of one that was never ended.
#[test]
fn a_run_goes_on_from_its_checkpoint() {
    let tasks = tasks();
    let mut o = ExtractOptions { steps: Some(20), average: 0.9, agreement: 0.5, ..options() };
    o.augmentation.crossed = 0.3;
    let whole = train(&tasks, &o, &mut |_| ControlFlow::Continue(())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.safetensors");
    let until = |end: u64, beginning: Beginning| {
        train_from(&tasks, &o, beginning, &mut |event| match event {
            ExtractEvent::Step { step, .. } if step == end => ControlFlow::Break(()),
            ExtractEvent::State { state, last } => {
                assert!(last);
                state.save(&path).unwrap();
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
    };
    let from = || Beginning { checkpoint: Some(ExtractCheckpoint::load(&path).unwrap()), ..Beginning::default() };
    let part = until(7, Beginning::default()).unwrap();
    assert_eq!((part.steps, part.finish), (7, Finish::Interrupted));
    assert_ne!(part.weights.features, whole.weights.features);
    until(9, from()).unwrap();
    let end = until(0, from()).unwrap();
    assert_eq!((end.steps, end.finish, end.best_step), (20, Finish::Completed, whole.best_step));
    assert_eq!(end.weights.features, whole.weights.features);
    assert_eq!(end.weights.tasks, whole.weights.tasks);
    // One that has ended only exports again.
    assert_eq!(until(0, from()).unwrap().weights.tasks, whole.weights.tasks);

    let other = ExtractOptions { lr: 1e-3, ..o.clone() };
    let refused = train_from(&tasks, &other, from(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, TrainError::Mismatch { .. }), "{refused}");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(ExtractCheckpoint::load(&path), Err(TrainError::Damaged { .. })));
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(ExtractCheckpoint::load(&path), Err(TrainError::Damaged { .. })));
}

/// Two versions of each text that ought to mean the same, and a teacher.
#[test]
fn gradients_are_slopes_with_twins_and_teachers() {
    let mut learner = Learner::new(small(), vec![false, true], 4, 1).unwrap();
    let mut batch = texts();
    let mut again = |text: &str, task, goal| {
        batch.push(&Marked::new(text, vec![]), &[], (task, FeatureConfig::new(64)), goal, &mut || false);
        let twin = batch.all.len() - 1;
        batch.all[twin].twin = true;
    };
    again("nothing of this knd", 1, Goal::Outside);
    again("nothing of ths kind", 1, Goal::Outside);
    batch.taught =
        batch.all.iter().map(|t| if t.task == 0 { vec![0.2, 0.8, 0.0] } else { vec![0.1, 0.5, 0.1, 0.3] }).collect();
    let weights = Weights { smoothing: 0.1, agreement: 2.0, taught: 0.6, ..WEIGHTS };
    let gradient = learner.flat_gradient(&batch, weights);
    let values = learner.flat();
    let (step, mut any) = (3e-3, Random::new(3, "direction"));
    for (name, range) in learner.tensors() {
        let g = &gradient[range.clone()];
        let direction: Vec<f64> = g.iter().map(|g| f64::from(*g) + 1e-4 * any.normal()).collect();
        let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        let mut at = |step: f64| {
            let mut moved = values.clone();
            moved[range.clone()].iter_mut().zip(&direction).for_each(|(v, d)| *v += (step * d / length) as f32);
            learner.set_flat(&moved);
            learner.loss(&batch, weights)
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let expected: f64 = g.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d / length).sum();
        // As in `gradients_are_slopes`.
        assert!((slope - expected).abs() < 3e-4 + 0.01 * expected.abs(), "{name}: {slope} instead of {expected}");
    }
}

/// A student of a teacher that knows what it does not see learns it.
#[test]
fn a_teacher_is_believed() {
    let tasks = tasks();
    let teacher = train(&tasks, &options(), &mut |_| ControlFlow::Continue(())).unwrap();
    // All that it sees says "play".
    let mut wrong = tasks.clone();
    wrong[0].train.iter_mut().filter(|u| u.intent.is_some()).for_each(|u| u.intent = Some(0));
    let o = ExtractOptions { taught: 1.0, ..options() };
    let run = |teachers: Vec<Extractor>| {
        let beginning = Beginning { teachers, checkpoint: None };
        train_from(&wrong, &o, beginning, &mut |_| ControlFlow::Continue(())).unwrap().figures[0][0].accuracy()
    };
    assert!(run(vec![]) < 0.7);
    assert!(run(vec![Extractor::new(teacher.weights.clone()).unwrap()]) > 0.9);
    let mut other = tasks.clone();
    other[0].intents[1] = "pause".into();
    let beginning = Beginning { teachers: vec![Extractor::new(teacher.weights).unwrap()], checkpoint: None };
    let error = train_from(&other, &o, beginning, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("'pause'"), "{error}");
}

/// The gradient with quantisers is that of the candle layers, which have the straight-through estimator from autograd.
#[cfg(feature = "candle")]
#[test]
fn gradients_are_those_of_the_candle_layers() -> Result<(), Box<dyn std::error::Error>> {
    shapes().into_iter().try_for_each(candle_agrees)
}

#[cfg(feature = "candle")]
fn candle_agrees(config: ExtractorConfig) -> Result<(), Box<dyn std::error::Error>> {
    use std::collections::HashMap;

    use candle_core::{DType, Device, Tensor, Var};
    use candle_nn::VarBuilder;

    use crate::encoder::Utterance as Reader;
    use crate::encoder::nn::CandleExtractor;

    let mut learner = Learner::new(config.clone(), vec![false, true], 9, 1)?;
    let batch = texts_for(&config);
    let weights = Weights { tags: 0.5, smoothing: 0.0, ..WEIGHTS };
    let (loss, gradient) = learner.quantised_gradient(std::slice::from_ref(&batch), weights);
    let (mut values, shapes) = (learner.flat(), learner.shapes());
    // The factor of decays, of which the logarithm is learned.
    let in_file = |name: &str| name.replace("ssm_a_log", "ssm_a");
    let mut vars = HashMap::new();
    for ((name, range), shape) in learner.tensors().into_iter().zip(shapes) {
        if in_file(&name) != name {
            values[range.clone()].iter_mut().for_each(|v| *v = -v.exp());
        }
        vars.insert(in_file(&name), Var::from_slice(&values[range], shape, &Device::Cpu)?);
    }
    let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
    let model = CandleExtractor::new(&config, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;

    let mut total = Tensor::new(0f32, &Device::Cpu)?;
    for (text, t) in SAID.iter().zip(&batch.all) {
        let mut reader = Reader::default();
        reader.read(text, config.features());
        let (e, h) = model.encode(&reader)?;
        let mut logits = model.intents(t.task, &e, &h)?;
        if t.task == 1 {
            logits = Tensor::cat(&[logits, Tensor::zeros(1, DType::F32, &Device::Cpu)?], 0)?;
        }
        let right = match t.goal {
            Goal::Intent(i) => logits.get(i)?,
            Goal::Outside => logits.get(3)?,
        };
        total = (total + (logits.log_sum_exp(0)? - right)?)?;
        if let Some(emissions) = model.emissions(t.task, &e, &h)? {
            let gold: Vec<u32> = batch.tags[t.words.clone()].iter().map(|t| u32::from(*t)).collect();
            total = (total + (model.tag_loss(t.task, &emissions, &gold)? * 0.5)?)?;
        }
    }
    let total = (total / SAID.len() as f64)?;
    let reference = f64::from(total.to_scalar::<f32>()?);
    // Integers are exact on both sides; floats are summed in other orders, and of about 5,000 codes none is so near
    // to a half that this moves it (the seed is fixed).
    assert!((loss - reference).abs() < 1e-4 * reference, "{loss} {reference}");
    let grads = total.backward()?;
    for (name, range) in learner.tensors() {
        let var = vars[&in_file(&name)].as_tensor();
        let mut theirs = grads.get(var).ok_or(name.clone())?.flatten_all()?.to_vec1::<f32>()?;
        if in_file(&name) != name {
            theirs.iter_mut().zip(&values[range.clone()]).for_each(|(d, v)| *d *= v);
        }
        let ours = &gradient[range];
        let norm = theirs.iter().map(|g| g * g).sum::<f32>().sqrt();
        let off = theirs.iter().zip(ours).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(
            off <= 1e-3 * norm && norm > 0.0,
            "{:?} {:?}, {name}: {off} of {norm}",
            config.directions,
            config.mixers
        );
    }
    Ok(())
}
