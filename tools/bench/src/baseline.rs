//! candle as a baseline, measured in the same run: a Llama of the same shape, dense and block-quantised.

use std::time::Duration;

use measure::Samples;

use crate::candle::{Answer, Kind};
use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::machine::memory_bytes;
use crate::model::{shape, ternary_operations};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// Tokens of the prompt.
const PROMPT: usize = 128;
/// Tokens of the prompt with `--quick`.
const PROMPT_QUICK: usize = 16;

/// Tasks for each form of weights and each number of threads.
pub(crate) fn tasks(threads: &[usize], effort: Effort) -> Vec<Task> {
    let kinds = if effort == Effort::Full { &Kind::ALL[..] } else { &[Kind::Q8_0] };
    let mut tasks = Vec::new();
    for &kind in kinds {
        for &t in threads {
            if effort == Effort::Full || Some(&t) == threads.last() {
                let name = format!("candle/{}/t{t}", kind.name());
                tasks.push(Task::new(name, move |programs| run(programs, kind, t, effort)));
            }
        }
    }
    tasks
}

/// Layers to measure: all of them if memory suffices, otherwise two numbers from which the rest is extrapolated.
fn layers(kind: Kind, effort: Effort, free: Option<u64>) -> Vec<usize> {
    let all = shape().num_hidden_layers;
    // Making a tensor takes a second copy of it for a moment, and other programs live here as well.
    let fits = free.is_none_or(|free| kind.memory(all) / 4 * 5 + (1 << 30) < free);
    if effort == Effort::Full && fits { vec![all] } else { vec![1, 4] }
}

fn run(programs: &Programs, kind: Kind, threads: usize, effort: Effort) -> Result<Vec<Figure>, BenchError> {
    let layers = layers(kind, effort, memory_bytes("MemAvailable"));
    let (prompt, steps) = if effort == Effort::Full { (PROMPT, 8) } else { (PROMPT_QUICK, 3) };
    let mut args = vec!["__candle".to_owned(), "--kind".to_owned(), kind.name().to_owned()];
    args.extend(layers.iter().flat_map(|n| ["--layers".to_owned(), n.to_string()]));
    args.extend(["--prompt".to_owned(), prompt.to_string(), "--steps".to_owned(), steps.to_string()]);
    let count = threads.to_string();
    let env = [("RAYON_NUM_THREADS", count.as_str())];
    let out = programs.bracketed(&programs.this, &args, threads, &env, Duration::from_secs(900))?;
    let answers: Vec<Answer> =
        serde_json::from_str(out.stdout.trim()).map_err(|e| BenchError::unreadable("candle", e))?;
    let all = shape().num_hidden_layers;
    let note = match layers.as_slice() {
        [a, b] => Some(format!("extrapolated from models of {a} and {b} layers to {all}")),
        _ => None,
    };
    let figure = |what: What, tokens: u64, time: Time| {
        let id = match what {
            What::Decode => format!("candle/decode/{}/t{threads}", kind.name()),
            _ => format!("candle/prefill {tokens}/{}/t{threads}", kind.name()),
        };
        let subject = format!("candle {}", kind.name());
        Figure {
            threads,
            tokens,
            range: Some([time.rate(time.most), time.rate(time.least)]),
            bytes: (what == What::Decode).then(|| kind.bytes_per_token(all)),
            operations: Some(ternary_operations()),
            bandwidth_gb_s: out.bandwidth(),
            note: note.clone(),
            ..Figure::of(id, what, &subject, time.rate(time.median), &programs.revision, effort)
        }
    };
    let decode = Time::of(&answers, all, 1, |a| &a.decode_s)?;
    let prefill = Time::of(&answers, all, prompt, |a| &a.prefill_s)?;
    Ok(vec![figure(What::Decode, 0, decode), figure(What::Prefill, prompt as u64, prefill)])
}

/// Seconds for `tokens` tokens, for a model of all layers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Time {
    tokens: usize,
    median: f64,
    least: f64,
    most: f64,
}

impl Time {
    fn of(
        answers: &[Answer],
        all: usize,
        tokens: usize,
        which: impl Fn(&Answer) -> &Vec<f64>,
    ) -> Result<Self, BenchError> {
        let samples = |a: &Answer| -> Result<(f64, Samples), BenchError> {
            let seconds = Samples::from(which(a).clone());
            if seconds.is_empty() {
                return Err(BenchError::unreadable("candle", "nothing was measured"));
            }
            Ok((a.layers as f64, seconds))
        };
        let measured = answers.iter().map(samples).collect::<Result<Vec<_>, _>>()?;
        // A model's time is that of its head and that of its layers: a straight line through two models.
        let (median, [least, most]) = match measured.as_slice() {
            [(_, one)] => (one.median(), one.range()),
            [(a, x), (b, y)] if a < b => {
                let layer = (y.median() - x.median()) / (b - a);
                let median = (y.median() + layer * (all as f64 - b)).max(y.median());
                // The spread of a difference means nothing for a model that did not run.
                (median, [median, median])
            }
            _ => return Err(BenchError::unreadable("candle", "expected models of one or two sizes")),
        };
        Ok(Self { tokens, median, least, most })
    }

    fn rate(self, seconds: f64) -> f64 {
        self.tokens as f64 / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_extrapolated_on_a_straight_line() {
        let answer = |layers, s: f64| Answer { layers, decode_s: vec![s, s], prefill_s: vec![] };
        // The head takes 2 s, each layer 3 s.
        let two = [answer(1, 5.0), answer(4, 14.0)];
        let t = Time::of(&two, 30, 1, |a| &a.decode_s).unwrap();
        assert_eq!((t.median, t.rate(t.median)), (92.0, 1.0 / 92.0));
        assert!(Time::of(&two, 30, 1, |a| &a.prefill_s).is_err());
        assert_eq!(Time::of(&[answer(30, 7.0)], 30, 14, |a| &a.decode_s).unwrap().rate(7.0), 2.0);
    }

    #[test]
    fn a_model_that_does_not_fit_is_extrapolated() {
        assert_eq!(layers(Kind::F32, Effort::Full, Some(24 << 30)), [30]);
        assert_eq!(layers(Kind::F32, Effort::Full, Some(10 << 30)), [1, 4]);
        assert_eq!(layers(Kind::Q4_0, Effort::Quick, None), [1, 4]);
        // 2.08 G and 328 M weights of 4 bytes.
        assert_eq!(Kind::F32.bytes_per_token(30), 4 * (2_084_044_800 + 128_256 * 2560));
    }
}
