//! `bitnet eval`: multiple choice by likelihood.

mod questions;

use std::path::PathBuf;

use bitnet::{KvType, Model, Score};
use clap::Args;
use loader::files::{self, Kind};
use serde_json::json;

use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::progress;
use crate::source::{LoadArgs, Loaded};
use crate::ui::{self, Ui};
use questions::Question;

const AFTER_HELP: &str = "\
Each line of the file is a JSON object in one of these forms, as in the public data sets:
  {\"question\": S, \"choices\": {\"text\": [S], \"label\": [S]}, \"answerKey\": S}        ARC, OpenBookQA, CommonsenseQA
  {\"ctx\": S, \"endings\": [S], \"label\": N, \"activity_label\": S?}                   HellaSwag
  {\"prompt\": S, \"choices\": [S], \"answer\": N}                                     anything else; N counts from 0

Each choice is scored as a continuation of the prompt, with a space in front. Accuracy picks the choice with the \
highest probability; normalised accuracy the one with the highest log-probability per character. Intervals are 95 % \
Wilson intervals.

Examples:
  bitnet eval -m model.gguf arc_easy.jsonl
  bitnet eval -m model.gguf hellaswag_val.jsonl --limit 1000 --json
  bitnet eval -m model.gguf set.jsonl --details answers.jsonl";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EvalArgs {
    /// File of questions, one JSON object per line
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Use only the first N questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Text before every prompt: an instruction, or few-shot examples
    #[arg(long, value_name = "FILE")]
    prefix: Option<PathBuf>,
    /// Write the scores of every question to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,
    /// One JSON object on stdout: questions, accuracy, accuracy_norm, intervals, errors of the mean
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// The number of correct answers, and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    right: usize,
    all: usize,
}

impl Count {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.all += 1;
    }
    /// The share of right answers.
    fn share(self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }
    /// Standard error of the share, as other harnesses print it.
    fn error(self) -> f64 {
        let p = self.share();
        (p * (1.0 - p) / (self.all.max(2) - 1) as f64).sqrt()
    }
    /// Wilson's interval for 95 %.
    fn interval(self) -> [f64; 2] {
        let (n, p, z) = (self.all.max(1) as f64, self.share(), 1.959_963_984_540_054_f64);
        let middle = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        [-1.0, 1.0].map(|sign| ((middle + sign * half) / (1.0 + z * z / n)).clamp(0.0, 1.0))
    }
}

pub(crate) fn execute(args: &EvalArgs, ui: &Ui) -> Result<(), CliError> {
    let mut questions = questions::read(&args.file)?;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    if questions.is_empty() {
        return Err(CliError::usage(format!("{} contains no questions", args.file.display())));
    }
    let prefix = match &args.prefix {
        None => String::new(),
        Some(file) => files::read_text(file, Kind::TEXT)?,
    };
    let Loaded { model, .. } = args.load.request(KvType::F16).load(ui)?;
    let graceful = Graceful::begin();
    let bar = progress::of_steps(ui, "questions", questions.len() as u64);
    let (mut plain, mut normed, mut details) = (Count::default(), Count::default(), String::new());
    for question in &questions {
        if graceful.cancelled() {
            bar.finish_and_clear();
            return Err(CliError::Interrupted);
        }
        let scores = ask(&model, &prefix, question)?;
        let best = best_of(&scores, |_, s| s.total());
        // By characters and without the leading space, as in the figures of papers.
        let per_character = |i: usize, s: &Score| s.total() / question.choices[i].chars().count().max(1) as f64;
        let best_norm = best_of(&scores, per_character);
        plain.add(best == question.answer);
        normed.add(best_norm == question.answer);
        if args.details.is_some() {
            let line = json!({
                "answer": question.answer, "chosen": best, "chosen_norm": best_norm,
                "logprobs": scores.iter().map(Score::total).collect::<Vec<_>>(),
                "characters": question.choices.iter().map(|c| c.chars().count()).collect::<Vec<_>>(),
            });
            details.push_str(&format!("{line}\n"));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(path) = &args.details {
        match files::replaceable(path) {
            Ok(_) => files::write(path, details.as_bytes())?,
            // A pipe or a terminal is written into.
            Err(_) => std::fs::write(path, details).map_err(CliError::io("write", path.to_string_lossy()))?,
        }
    }
    if args.json {
        return ui::print_json(&json!({
            "questions": plain.all,
            "accuracy": plain.share(), "accuracy_interval": plain.interval(), "accuracy_error": plain.error(),
            "accuracy_norm": normed.share(), "accuracy_norm_interval": normed.interval(), "accuracy_norm_error": normed.error(),
            "chance": chance(&questions),
        }));
    }
    ui::print_line(format_args!("questions            {}", plain.all))?;
    for (name, count) in [("accuracy", plain), ("normalised accuracy", normed)] {
        let [low, high] = count.interval().map(|x| 100.0 * x);
        ui::print_line(format_args!("{name:<20} {:.2} % ({low:.2} to {high:.2} with 95 %)", 100.0 * count.share()))?;
    }
    ui::print_line(format_args!("by chance            {:.2} %", 100.0 * chance(&questions)))
}

/// The score of random guessing.
fn chance(questions: &[Question]) -> f64 {
    questions.iter().map(|q| 1.0 / q.choices.len() as f64).sum::<f64>() / questions.len() as f64
}

/// The probability of each choice.
fn ask(model: &Model, prefix: &str, question: &Question) -> Result<Vec<Score>, CliError> {
    let choices = question.choices.iter().map(|c| format!(" {c}"));
    Ok(model.score(&format!("{prefix}{}", question.prompt), choices)?)
}

/// The choice with the largest value, of equal ones the first.
fn best_of(scores: &[Score], value: impl Fn(usize, &Score) -> f64) -> usize {
    let values: Vec<f64> = scores.iter().enumerate().map(|(i, s)| value(i, s)).collect();
    (0..values.len()).reduce(|a, b| if values[b] > values[a] { b } else { a }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the closed form, by hand and by another program.
    #[test]
    fn intervals_are_wilsons() {
        let near = |a: f64, b: f64| (a - b).abs() < 5e-5;
        let [low, high] = Count { right: 8, all: 10 }.interval();
        assert!(near(low, 0.4902) && near(high, 0.9433), "{low} {high}");
        let [low, high] = Count { right: 0, all: 20 }.interval();
        assert!(low == 0.0 && near(high, 0.1611), "{low} {high}");
        assert!(near(Count { right: 8, all: 10 }.error(), (0.16f64 / 9.0).sqrt()));
        assert_eq!(Count { right: 1, all: 1 }.error(), 0.0);
    }
}
