//! Extractors: utterances to train them with, and figures of a file of one on the official tests.

use std::path::Path;

use bitnet::Extractor;
use bitnet::train::extract::{Marked, auroc};
use intent::IntentError;
use intent::corpus::Corpus;
use intent::japanese::{Questions, TESTS};
use intent::metrics::{Guess, Scope, Share, Slots};
use intent::utterance::{OUT_OF_SCOPE, Utterance};
use serde_json::{Value, json};

use crate::commands::{folder, write};

/// The tasks of the English sets, and that of questions in Japanese.
const TASKS: [&str; 3] = ["snips", "clinc150", "topic-ja"];

/// Questions in Japanese to choose by, and of each test.
const KEPT: usize = 1000;
const ASKED: usize = 1000;

/// An utterance as `bitnet train --task extract` reads it, which chooses the part where none is given.
pub(crate) fn line(said: &Marked, intent: Option<&str>, slots: &[String], valid: Option<bool>) -> String {
    let slot = |(name, span): (&String, &std::ops::Range<usize>)| json!({ "name": name, "start": span.start, "end": span.end });
    let slots: Vec<Value> = slots.iter().zip(&said.spans).map(slot).collect();
    let mut line = json!({ "text": said.text(), "intent": intent, "slots": slots });
    if let Some(valid) = valid {
        line["part"] = json!(if valid { "valid" } else { "train" });
    }
    line.to_string() + "\n"
}

/// The training and validation data; not the test data.
fn lines([train, dev]: [&[Utterance]; 2]) -> String {
    let of = |all: &[Utterance], valid: bool| -> String {
        let intent = |u: &Utterance| (u.intent != OUT_OF_SCOPE).then(|| u.intent.clone());
        all.iter().map(|u| line(&u.said, intent(u).as_deref(), &u.slots, Some(valid))).collect()
    };
    of(train, false) + &of(dev, true)
}

/// Files of utterances: `snips.jsonl`, `clinc150.jsonl`, both with `.test` and `.typos` for the official tests, and
/// with a folder of Japanese titles `topic-ja.jsonl` of `questions` questions, and the numbers of [`TESTS`] with `.test`
/// and `.typos`.
pub(crate) fn prepare(
    data: &Path,
    ja: Option<&Path>,
    out: &Path,
    questions: usize,
    seed: u64,
) -> Result<(), IntentError> {
    folder(out)?;
    let corpus = Corpus::read(data, seed)?;
    for (name, parts) in [("snips", &corpus.snips), ("clinc150", &corpus.clinc)] {
        write(&out.join(format!("{name}.jsonl")), &lines([&parts.train, &parts.dev]))?;
        // For other programs; `eval-extract` makes the same.
        write(&out.join(format!("{name}.test.jsonl")), &lines([&parts.test, &[]]))?;
        write(&out.join(format!("{name}.typos.jsonl")), &lines([&corpus.with_typos(&parts.test), &[]]))?;
    }
    let Some(ja) = ja else { return Ok(()) };
    let all = Questions::read(ja, seed)?.composed();
    let ([learned, held_out], topics) = (all.patterns(), all.topics.len());
    println!("questions: {learned} patterns to learn, {held_out} held out; {topics} topics to learn");
    let slot = ["topic".to_owned()];
    let mut text = String::new();
    for (part, valid) in [(all.clean(questions), false), (all.kept(KEPT), true)] {
        text.extend(part.iter().map(|q| line(&q.said, Some("about"), &slot, Some(valid))));
    }
    for which in 0..TESTS.len() {
        for (kind, set) in ["test", "typos"].iter().zip(all.test(which, ASKED)) {
            let lines: String = set.iter().map(|q| line(&q.said, Some("about"), &slot, None)).collect();
            write(&out.join(format!("topic-ja.{which}.{kind}.jsonl")), &lines)?;
        }
    }
    write(&out.join("topic-ja.jsonl"), &text)
}

/// Figures of a set.
#[derive(Default)]
struct Figures {
    intents: Share,
    slots: Slots,
    whole: Share,
    guesses: Vec<Guess>,
    /// Scores of [`OosScore`](bitnet_model::encoder::OosScore), of what is in scope and of what is not.
    scores: [Vec<f32>; 2],
}

/// Asks about each utterance, `(text, intent, slots with values)`; shows the first `wrong` wrong answers.
fn judge(
    extractor: &Extractor,
    task: usize,
    all: impl Iterator<Item = (String, String, Vec<(String, String)>)>,
    wrong: usize,
) -> Result<Figures, IntentError> {
    let about = &extractor.config().tasks[task];
    let (mut f, mut scratch, mut shown) = (Figures::default(), extractor.scratch(), 0);
    for (text, intent, there) in all {
        let found = extractor.model().extract_into(task, &text, &mut scratch).map_err(bitnet::Error::from)?;
        let said = &about.intents[found.intent];
        let pairs: Vec<(String, String)> =
            found.spans.iter().map(|s| (about.slots[s.slot].clone(), text[s.range.clone()].to_owned())).collect();
        let is_out = intent == OUT_OF_SCOPE;
        let right = *said == intent;
        let slots = f.slots.add(&pairs, &there);
        f.guesses.push(Guess { right, says_out: found.out_of_scope, sure: f64::from(found.score), is_out });
        f.scores[usize::from(is_out)].push(found.score);
        if is_out {
            continue;
        }
        f.intents.add(right);
        f.whole.add(right && slots);
        if !(right && slots) && shown < wrong {
            shown += 1;
            println!("  {text:?}\n    {said} {pairs:?}\n    right: {intent} {there:?}");
        }
    }
    Ok(f)
}

/// The text of an utterance and its right answer: intent and slots.
fn asked(u: &Utterance) -> (String, String, Vec<(String, String)>) {
    (u.said.text(), u.intent.clone(), u.pairs())
}

/// Figures of an extractor on the official tests, without errors and with those of the other figures: of the tasks
/// that it has.
pub(crate) fn eval(data: &Path, ja: Option<&Path>, model: &Path, wrong: usize, seed: u64) -> Result<(), IntentError> {
    let extractor = Extractor::load(model)?;
    let [snips, clinc, topic] = TASKS.map(|name| extractor.config().tasks.iter().position(|t| t.name == name));
    if [snips, clinc, topic].iter().all(Option::is_none) {
        let problem = format!("none of its tasks is one of {}", TASKS.join(", "));
        return Err(IntentError::Unreadable { what: model.display().to_string(), problem });
    }
    let english = snips.is_some() || clinc.is_some();
    let corpus = if english { Corpus::read(data, seed)? } else { Corpus::default() };
    if let Some(task) = snips {
        let test = &corpus.snips.test;
        for (kind, set) in [("clean", test.clone()), ("typos", corpus.with_typos(test))] {
            let f = judge(&extractor, task, set.iter().map(asked), wrong)?;
            println!(
                "SNIPS {kind}: {} utterances; intent {:.2} %; slots F1 {:.2} (precision {:.2}, recall {:.2}); all right {:.2} %",
                f.intents.of,
                f.intents.percent(),
                f.slots.f1(),
                f.slots.precision(),
                f.slots.recall(),
                f.whole.percent()
            );
        }
    }
    if let Some(task) = clinc {
        let test = &corpus.clinc.test;
        for (kind, set) in [("clean", test.clone()), ("typos", corpus.with_typos(test))] {
            let f = judge(&extractor, task, set.iter().map(asked), wrong)?;
            println!("CLINC150 {kind}: {} in scope, accuracy {:.2} %", f.intents.of, f.intents.percent());
            outside(kind, &f);
        }
    }
    if let (Some(task), Some(ja)) = (topic, ja) {
        let written = Questions::read(ja, seed)?;
        let composed = written.clone().composed();
        for (which, test) in TESTS.iter().enumerate() {
            topics(&extractor, task, &composed, which, test, wrong)?;
        }
        // The questions of the language model that came first.
        for which in [2, 3] {
            topics(&extractor, task, &written, which, &format!("22 of them: {}", TESTS[which]), wrong)?;
        }
    }
    Ok(())
}

/// Questions in Japanese: exact topics, beside those of a rule.
fn topics(
    extractor: &Extractor,
    task: usize,
    questions: &Questions,
    which: usize,
    test: &str,
    wrong: usize,
) -> Result<(), IntentError> {
    for (kind, set) in ["clean", "typos"].iter().zip(questions.test(which, ASKED)) {
        let all = set.iter().map(|q| (q.said.text(), "about".to_owned(), vec![("topic".to_owned(), q.topic())]));
        let f = judge(extractor, task, all, wrong)?;
        let mut rule = Share::default();
        set.iter().for_each(|q| rule.add(questions.by_rule(&q.said.text()) == Some(q.topic().as_str())));
        let (n, exact) = (f.whole.of, f.whole.percent());
        println!("{test}, {kind}: {n} questions, exact {exact:.2} %; by rule {:.2} %", rule.percent());
    }
    Ok(())
}

/// Results for "out of scope": the area under the curve, the file's rule, and the effect of other thresholds.
fn outside(kind: &str, f: &Figures) {
    let [inside, out] = &f.scores;
    if let Some(area) = auroc(inside, out) {
        println!("CLINC150 {kind}: out of scope, AUROC {area:.4}");
    }
    let of = |guesses: &[Guess], threshold: f64| {
        let s = Scope::of(guesses, threshold);
        (s.in_scope.percent(), s.recall.percent(), s.precision.percent())
    };
    let (accuracy, recall, precision) = of(&f.guesses, f64::MIN);
    println!(
        "CLINC150 {kind}, threshold of the file: in scope {accuracy:.2} %; {} out of scope, recall {recall:.2} %, precision {precision:.2} %",
        out.len()
    );
    // Thresholds are chosen on the test here, so these show the quality of the scores, not of a file.
    let plain: Vec<Guess> = f.guesses.iter().map(|g| Guess { says_out: false, ..g.clone() }).collect();
    let mut thresholds: Vec<f64> = plain.iter().map(|g| g.sure).collect();
    thresholds.sort_by(f64::total_cmp);
    let most = of(&plain, f64::MIN).0;
    for less in [0.5, 1.0, 2.0, 5.0] {
        // The accuracy falls as the threshold rises.
        let at = thresholds.partition_point(|t| of(&plain, *t).0 >= most - less);
        if let Some(t) = at.checked_sub(1).and_then(|at| thresholds.get(at)) {
            let (accuracy, recall, _) = of(&plain, *t);
            println!(
                "CLINC150 {kind}, {less} points of accuracy given: in scope {accuracy:.2} %, recall {recall:.2} %"
            );
        }
    }
}
