//! The commands, one function each.

use std::path::{Path, PathBuf};

use bitnet::Model;
use intent::answer::{Answer, prompt};
use intent::ask::{Figures, Reply, ask, evaluate};
use intent::baseline::Baseline;
use intent::corpus::{Corpus, examples, tokenizer_texts};
use intent::japanese::{self, Questions, TESTS};
use intent::metrics::{Scope, Share, best_threshold};
use intent::utterance::{Task, Utterance};
use intent::{IntentError, grammar};
use loader::tokenizer::train::train_bpe;

use crate::latency;

/// Questions of the test in small, for the repository.
const SAMPLE: usize = 50;

pub(crate) fn write(path: &Path, text: &str) -> Result<(), IntentError> {
    std::fs::write(path, text).map_err(|source| IntentError::Io { place: path.display().to_string(), source })?;
    println!("{}: {} lines", path.display(), text.lines().count());
    Ok(())
}

pub(crate) fn folder(path: &Path) -> Result<(), IntentError> {
    std::fs::create_dir_all(path).map_err(|source| IntentError::Io { place: path.display().to_string(), source })
}

/// Files to train with.
pub(crate) fn prepare(data: &Path, out: &Path, rounds: usize, vocab: usize, seed: u64) -> Result<(), IntentError> {
    folder(out)?;
    let corpus = Corpus::read(data, seed)?;
    for (name, parts) in [("SNIPS", &corpus.snips), ("CLINC150", &corpus.clinc)] {
        let counts = [&parts.train, &parts.dev, &parts.test].map(Vec::len);
        println!("{name}: {counts:?} to learn, to choose, to report; {} left out", parts.left_out);
    }
    for (set, text) in corpus.leaks() {
        println!("{set}: in the test and in what is learned: {text}");
    }
    let train = corpus.train(rounds);
    write(&out.join("train.jsonl"), &examples(&train))?;
    write(&out.join("valid.jsonl"), &examples(&corpus.validation()))?;
    write(&out.join("sample.jsonl"), &examples(&corpus.sample(SAMPLE)))?;
    write(&out.join("slots.lark"), &grammar::of_slots(&corpus.snips.train))?;
    write(&out.join("intent.lark"), &grammar::of_intents(&corpus.clinc.train))?;
    write(&out.join("tokenizer.json"), &train_bpe(&tokenizer_texts(&train), vocab)?)
}

/// Files to train the model of Japanese topics with.
pub(crate) fn prepare_ja(data: &Path, out: &Path, n: usize, vocab: usize, seed: u64) -> Result<(), IntentError> {
    folder(out)?;
    let questions = Questions::read(data, seed)?;
    println!("{} topics to learn, {} held out", questions.topics.len(), questions.held_out_topics.len());
    let train = questions.train(n);
    write(&out.join("train.jsonl"), &japanese::examples(&train))?;
    let [clean, wrong] = questions.test(3, 200);
    write(&out.join("valid.jsonl"), &japanese::examples(&[clean, wrong].concat()))?;
    let [clean, wrong] = questions.test(3, 500);
    let some = |all: Vec<japanese::Question>| all.into_iter().skip(450).collect::<Vec<_>>();
    write(&out.join("sample.jsonl"), &japanese::examples(&[some(clean), some(wrong)].concat()))?;
    write(&out.join("topic.lark"), japanese::GRAMMAR)?;
    write(&out.join("tokenizer.json"), &train_bpe(&japanese::tokenizer_texts(&train), vocab)?)
}

/// Learns and judges linear classifiers.
pub(crate) fn baseline(data: &Path, seed: u64) -> Result<(), IntentError> {
    let corpus = Corpus::read(data, seed)?;
    let train = corpus.train(1);
    let slots = Baseline::learn(&train, Task::Slots, seed);
    let intent = Baseline::learn(&train, Task::Intent, seed);
    report(&corpus, 1, &mut |_, utterances| {
        let task = utterances.first().map_or(Task::Slots, |u| u.task);
        Ok(if task == Task::Slots { &slots } else { &intent }.evaluate(utterances))
    })
}

/// A model that is judged, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Judged {
    /// GGUF file or folder
    #[arg(long)]
    model: PathBuf,
    /// Without the grammar
    #[arg(long)]
    free: bool,
    /// Show this many wrong answers of each set
    #[arg(long, default_value_t = 0)]
    wrong: usize,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Judged {
    fn load(&self) -> Result<Model, IntentError> {
        Ok(Model::builder().threads(1).load(&self.model)?)
    }
}

/// Judges a model on every `every`th utterance.
pub(crate) fn eval(data: &Path, judged: &Judged, every: usize) -> Result<(), IntentError> {
    let corpus = Corpus::read(data, judged.seed)?;
    let model = judged.load()?;
    let grammars = [grammar::of_slots(&corpus.snips.train), grammar::of_intents(&corpus.clinc.train)];
    report(&corpus, every, &mut |name, utterances| {
        let task = utterances.first().map_or(Task::Slots, |u| u.task);
        let grammar = grammars[usize::from(task == Task::Intent)].as_str();
        let mut shown = 0;
        let mut see = |u: &Utterance, reply: &Reply, right: bool| {
            if !right && shown < judged.wrong && name != "choose" {
                shown += 1;
                println!("  {:?}\n    {}\n    right: {}", u.said.text(), reply.text, intent::answer::completion(u));
            }
        };
        evaluate(&model, (!judged.free).then_some(grammar), utterances, &mut see)
    })
}

/// Gives the figures of a set with a name.
type Judge<'j> = dyn FnMut(&str, &[Utterance]) -> Result<Figures, IntentError> + 'j;

/// Prints the tables of the official tests; a threshold for "out of scope" is chosen on the validation data.
fn report(corpus: &Corpus, every: usize, judge: &mut Judge<'_>) -> Result<(), IntentError> {
    let some = |all: &[Utterance]| all.iter().step_by(every.max(1)).cloned().collect::<Vec<_>>();
    let test = some(&corpus.snips.test);
    for (name, set) in
        [("choose", some(&corpus.snips.dev)), ("clean", test.clone()), ("typos", corpus.with_typos(&test))]
    {
        let f = judge(name, &set)?;
        let (i, s) = (f.intents, f.slots);
        println!(
            "SNIPS {name}: {} utterances; intent {:.2} %; slots F1 {:.2} (precision {:.2}, recall {:.2}); all right {:.2} %; no answer {}",
            i.of,
            i.percent(),
            s.f1(),
            s.precision(),
            s.recall(),
            f.whole.percent(),
            f.unreadable
        );
    }
    let chosen = judge("choose", &some(&corpus.clinc.dev))?;
    let threshold = best_threshold(&chosen.guesses);
    let test = some(&corpus.clinc.test);
    let sets = [("clean", judge("clean", &test)?), ("typos", judge("typos", &corpus.with_typos(&test))?)];
    for (name, f) in [("choose", chosen)].into_iter().chain(sets) {
        for t in [0.0, threshold] {
            let s = Scope::of(&f.guesses, t);
            println!(
                "CLINC150 {name}, threshold {t:.2}: {} in scope, accuracy {:.2} %; {} out of scope, recall {:.2} %, precision {:.2} %; no answer {}",
                s.in_scope.of,
                s.in_scope.percent(),
                s.recall.of,
                s.recall.percent(),
                s.precision.percent(),
                f.unreadable
            );
        }
    }
    Ok(())
}

/// Judges a model of Japanese topics.
pub(crate) fn eval_ja(data: &Path, judged: &Judged, n: usize) -> Result<(), IntentError> {
    let questions = Questions::read(data, judged.seed)?;
    let model = judged.load()?;
    let grammar = (!judged.free).then_some(japanese::GRAMMAR);
    for (which, test) in TESTS.iter().enumerate() {
        for (kind, set) in ["clean", "typos"].iter().zip(questions.test(which, n)) {
            let (mut share, mut shown) = (Share::default(), 0);
            for q in &set {
                let reply = ask(&model, grammar, &q.prompt(), &q.said.text())?;
                let right = reply.text == q.completion();
                share.add(right);
                if !right && shown < judged.wrong {
                    shown += 1;
                    println!("  {:?}: {} right: {}", q.said.text(), reply.text, q.completion());
                }
            }
            let mut rule = Share::default();
            set.iter().for_each(|q| rule.add(questions.by_rule(&q.said.text()) == Some(q.topic().as_str())));
            let n = share.of;
            println!("{test}, {kind}: {n} questions, exact {:.2} %; by rule {:.2} %", share.percent(), rule.percent());
        }
    }
    Ok(())
}

/// Measures calls.
pub(crate) fn latency(data: &Path, options: &latency::Options<'_>, calls: usize) -> Result<(), IntentError> {
    let corpus = Corpus::read(data, 1)?;
    let grammars = [grammar::of_slots(&corpus.snips.train), grammar::of_intents(&corpus.clinc.train)];
    let some = |all: &[Utterance]| {
        all.iter().step_by((all.len() / calls.max(1)).max(1)).take(calls).cloned().collect::<Vec<_>>()
    };
    let utterances: Vec<Utterance> = [some(&corpus.snips.test), some(&corpus.clinc.test)].concat();
    latency::measure(options, [&grammars[0], &grammars[1]], &utterances)
}

/// Answers once.
pub(crate) fn answer(model: &Path, text: &str) -> Result<(), IntentError> {
    let model = Model::builder().threads(1).load(model)?;
    let reply = ask(&model, None, &prompt(Task::Slots, text), text)?;
    let problem = |e: serde_json::Error| IntentError::Unreadable { what: reply.text.clone(), problem: e.to_string() };
    let answer = Answer::read(&reply.text).map_err(problem)?;
    println!("{answer:?}");
    Ok(())
}
