//! How long a model remembers a fact: it reads who has what, then other sentences, and is then asked about it.
//!
//! ```text
//! cargo run --release -p bitnet --example recall -- MODEL [--texts N] [--seed S] [--distances 100,300,1000]
//!     [--frozen] [--svg FILE]
//! cargo run --release -p bitnet --example recall -- --write FILE [--texts N] [--seed S] [--longest WORDS] [--questions N]
//! ```
//!
//! Each text is read twice, with a different thing in the hands of the person in the question; everything else is
//! equal. The measure is the difference of the losses of the answer: it is 0 for a model that remembers nothing,
//! however probable it finds the answer. The table also shows how often the right thing is the most probable of eight,
//! which chance would find once in eight. Texts are generated from the seed, so every model reads the same ones.
//! `--frozen` also turns off the inner updates of test-time training. A model may be named, as in `small=model.gguf`.
//!
//! `--write` makes texts of this kind to learn from instead, for `bitnet train --data FILE`: each tells the facts and asks
//! for all of them in random order, every question after as many words as chance says, up to `--longest`, short distances
//! as often as long ones on a logarithmic scale. Their random numbers are not those of the texts that are measured.
//! `--questions` asks more often than once for each: a text of the same length then says more about the facts. With
//! `--longest 0` nothing stands between.

use std::io::Write;

use bitnet::{Error, KvType, Model, Sequence};
use measure::plot::{Curve, Frame, svg};
use test_support::Random;

const NAMES: [&str; 8] = ["Tom", "Lily", "Ben", "Mia", "Sam", "Anna", "Max", "Sue"];
const THINGS: [&str; 8] = ["ball", "hat", "book", "car", "doll", "cake", "box", "kite"];
const WHO: [&str; 8] = ["A bird", "The cat", "A dog", "The old man", "A frog", "The mom", "A bear", "The boy"];
const DID: [&str; 8] = ["sat", "played", "ran", "slept", "danced", "waited", "sang", "walked"];
const WHERE: [&str; 8] = [
    "in the garden",
    "by the river",
    "under a tree",
    "in the park",
    "on the hill",
    "near the house",
    "in the sun",
    "at the lake",
];
/// People who have something.
const FACTS: usize = 3;

/// `k` of the first `n` numbers, in random order.
fn choose(random: &mut Random, k: usize, n: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    for i in 0..k {
        all.swap(i, i + random.below(n - i));
    }
    all.truncate(k);
    all
}

/// How a text begins: who has what.
fn facts(people: &[usize], things: &[usize]) -> String {
    let all = people.iter().zip(things).map(|(p, t)| format!(" {} had a {}.", NAMES[*p], THINGS[*t]));
    "Once upon a time, there were some friends.".to_owned() + &all.collect::<String>()
}

/// The beginning of a sentence whose next word is what this person has.
fn question(person: usize) -> String {
    format!(" {} still had a", NAMES[person])
}

/// A sentence about none of the people in the question.
fn sentence(random: &mut Random) -> String {
    format!(" {} {} {}.", WHO[random.below(8)], DID[random.below(8)], WHERE[random.below(8)])
}

/// Writes texts to learn from; see the top of the file. Returns their words.
fn write(path: &str, texts: usize, seed: u64, longest: usize, questions: usize) -> std::io::Result<usize> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut words = 0;
    for text in 0..texts {
        // Texts that are measured begin with `seed + (number << 32)`.
        let mut random = Random(!seed.wrapping_add((text as u64) << 32));
        let people = choose(&mut random, FACTS, NAMES.len());
        let things = choose(&mut random, FACTS, THINGS.len());
        let mut story = facts(&people, &things);
        let mut order = Vec::new();
        for number in 0..questions {
            if number % FACTS == 0 {
                order = choose(&mut random, FACTS, FACTS);
            }
            let asked = order[number % FACTS];
            let share = random.below(1 << 20) as f64 / f64::from(1 << 20);
            let distance = (longest as f64).powf(share) as usize;
            let begin = story.len();
            while story[begin..].split_whitespace().count() < distance {
                story += &sentence(&mut random);
            }
            story += &format!("{} {}.", question(people[asked]), THINGS[things[asked]]);
        }
        words += story.split_whitespace().count();
        writeln!(out, "{story}\n<|endoftext|>")?;
    }
    out.flush()?;
    Ok(words)
}

/// Sums of the measurements at one distance.
#[derive(Clone, Copy, Default)]
struct Sums {
    told: f64,
    other: f64,
    right: usize,
    texts: usize,
}

/// The loss of `answer` after `text` and `question`, in nats.
fn loss(text: &Sequence, question: &[u32], answer: &[u32]) -> Result<f64, Error> {
    let mut text = text.clone();
    let vocab = text.engine().config().vocab_size;
    let ids: Vec<u32> = question.iter().chain(answer).copied().collect();
    let logits = text.feed_each(&ids)?;
    let mut nats = 0.0;
    for (i, token) in answer.iter().enumerate() {
        let row = &logits[(question.len() + i - 1) * vocab..][..vocab];
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|l| f64::from(l - max).exp()).sum();
        nats += sum.ln() - f64::from(row[*token as usize] - max);
    }
    Ok(nats)
}

fn measure(model: &Model, texts: usize, seed: u64, distances: &[usize]) -> Result<Vec<Sums>, Error> {
    let mut sums = vec![Sums::default(); distances.len()];
    for text in 0..texts {
        let mut random = Random(seed.wrapping_add((text as u64) << 32));
        let people = choose(&mut random, FACTS, NAMES.len());
        let things = choose(&mut random, FACTS + 1, THINGS.len());
        let asked = random.below(FACTS);
        let story = |other: bool| {
            let thing = |i: usize| if other && i == asked { things[FACTS] } else { things[i] };
            facts(&people, &(0..FACTS).map(thing).collect::<Vec<_>>())
        };
        let question = model.encode(&question(people[asked]), false)?;
        let answers = THINGS.map(|thing| model.encode(&format!(" {thing}"), false));
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let [mut told, mut other] =
            [Sequence::new(model.engine(), KvType::F32, None), Sequence::new(model.engine(), KvType::F32, None)];
        let facts = model.encode(&story(false), model.adds_bos())?;
        told.feed(&facts)?;
        other.feed(&model.encode(&story(true), model.adds_bos())?)?;
        let mut read = 0;
        for (sum, &distance) in sums.iter_mut().zip(distances) {
            let mut filler = Vec::new();
            while read + filler.len() + question.len() < distance {
                filler.extend(model.encode(&sentence(&mut random), false)?);
            }
            told.feed(&filler)?;
            other.feed(&filler)?;
            read += filler.len();
            let right = things[asked];
            let losses = answers.iter().map(|a| loss(&told, &question, a)).collect::<Result<Vec<_>, _>>()?;
            sum.told += losses[right];
            sum.other += loss(&other, &question, &answers[right])?;
            let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b]));
            sum.right += usize::from(best == Some(right));
            sum.texts += 1;
        }
    }
    Ok(sums)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut models, mut texts, mut seed, mut frozen, mut picture) = (Vec::new(), 100, 1, false, None);
    let (mut written, mut longest, mut questions) = (None, 300, FACTS);
    let mut distances = vec![30, 100, 300, 1000, 3000, 10_000];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--texts" => texts = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--distances" => distances = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--frozen" => frozen = true,
            "--svg" => picture = Some(value()?),
            "--write" => written = Some(value()?),
            "--longest" => longest = value()?.parse()?,
            "--questions" => questions = value()?.parse()?,
            _ => models.push(arg),
        }
    }
    if let Some(path) = written {
        println!("{path}: {texts} texts, {} words", write(&path, texts, seed, longest, questions)?);
        return Ok(());
    }
    distances.sort_unstable();
    let mut curves = Vec::new();
    for (colour, model) in models.iter().enumerate() {
        let (name, path) = model.split_once('=').unwrap_or((model.as_str(), model.as_str()));
        for updates in if frozen { vec![true, false] } else { vec![true] } {
            let model = Model::builder().inner_updates(updates).load(path)?;
            if !updates && !model.config().has_ttt() {
                continue;
            }
            // A model of attention has only the positions that it was made for.
            let room = model.context().saturating_sub(200);
            let reach: Vec<usize> = distances.iter().copied().filter(|d| *d < room).collect();
            let sums = measure(&model, texts, seed, &reach)?;
            let name = format!("{name}{}", if updates { "" } else { ", no inner updates" });
            println!("{name}: {texts} texts, seed {seed}");
            println!("{:>10} {:>12} {:>14} {:>8} {:>8}", "tokens", "told, nats", "otherwise", "gain", "right");
            for (s, d) in sums.iter().zip(&reach) {
                let n = s.texts as f64;
                let share = 100.0 * s.right as f64 / n;
                println!(
                    "{d:>10} {:>12.3} {:>14.3} {:>8.3} {share:>6.0} %",
                    s.told / n,
                    s.other / n,
                    (s.other - s.told) / n
                );
            }
            curves.push(Curve {
                points: sums
                    .iter()
                    .zip(&reach)
                    .map(|(s, d)| (*d as f64, (s.other - s.told) / s.texts as f64))
                    .collect(),
                colour,
                dashed: !updates,
                name,
            });
        }
    }
    if let Some(path) = picture {
        let frame = Frame {
            title: "The gain from having read a fact that is asked for",
            x: "tokens between the fact and the answer",
            y: "nats of the answer, 0 is nothing",
            log_x: true,
        };
        std::fs::write(path, svg(&frame, &curves)?)?;
    }
    Ok(())
}
