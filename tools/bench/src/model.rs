//! Whole models: `bitnet bench` on weights of the shape of BitNet b1.58 2B4T, for each instruction set.

use bitnet_model::ModelConfig;
use serde_json::Value;
use ternary_kernels::Isa;

use crate::answer::{ask, check, complete, pair};
use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// The model as `bitnet` names it.
const MODEL: &str = "synthetic:2b4t";

/// The longest context that is measured; the generated tokens fit in as well.
pub(crate) const LONG_CONTEXT: u64 = 4096;

/// Shape of BitNet b1.58 2B4T.
pub(crate) fn shape() -> ModelConfig {
    ModelConfig::new(128_256, 2560, 6912, 30, 20, 5)
}

/// Multiplications and additions of the ternary products for one token.
pub(crate) fn ternary_operations() -> u64 {
    2 * shape().ternary_weights()
}

/// Parameters of one call of `bitnet bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    isa: Isa,
    threads: usize,
    prompt: u64,
    context: u64,
    new: u64,
    sessions: u64,
}

/// Texts that are generated together.
pub(crate) const SESSIONS: u64 = 8;

/// Tasks for every instruction set of this CPU and every number of threads; long contexts and several texts with the
/// best set and with AVX2, the last that most x86 computers have.
pub(crate) fn tasks(isas: &[Isa], threads: &[usize], effort: Effort) -> Vec<Task> {
    let mut calls = Vec::new();
    let (best, most) = (isas.last().copied(), threads.iter().max());
    for &isa in isas.iter().rev() {
        let is_best = Some(isa) == best;
        if effort == Effort::Quick && !is_best {
            continue;
        }
        for &threads in threads {
            let call = |prompt, context, new| Call { isa, threads, prompt, context, new, sessions: 1 };
            // Portable code takes a second for a token.
            let slow = isa == Isa::Scalar;
            calls.push(call(
                0,
                0,
                if slow {
                    2
                } else if effort == Effort::Quick {
                    8
                } else {
                    32
                },
            ));
            calls.push(call(if slow { 8 } else { 128 }, 0, 0));
            if effort == Effort::Full && !slow {
                calls.push(call(512, 0, 0));
            }
            if (is_best || isa == Isa::Avx2) && !slow {
                calls.push(Call { sessions: SESSIONS, ..call(0, 0, if effort == Effort::Quick { 4 } else { 16 }) });
                match effort {
                    Effort::Full => {
                        calls.extend([1024, LONG_CONTEXT - 16].map(|context| call(0, context, 16)));
                        if Some(&threads) == most {
                            calls.push(call(LONG_CONTEXT - 16, 0, 0));
                        }
                    }
                    Effort::Quick => calls.push(call(0, 256, 4)),
                }
            }
        }
    }
    calls.into_iter().map(|call| Task::new(call.name(), move |programs| call.run(programs, effort))).collect()
}

impl Call {
    fn name(&self) -> String {
        let Self { isa, threads, prompt, context, sessions, .. } = self;
        match (prompt, context) {
            (0, 0) if *sessions > 1 => format!("model/decode of {sessions} together/{isa}/t{threads}"),
            (0, 0) => format!("model/decode/{isa}/t{threads}"),
            (0, context) => format!("model/decode after {context}/{isa}/t{threads}"),
            (prompt, _) => format!("model/prefill {prompt}/{isa}/t{threads}"),
        }
    }

    fn run(self, programs: &Programs, effort: Effort) -> Result<Vec<Figure>, BenchError> {
        let args = ["--model", MODEL, "--details"];
        let mut numbers = vec![("-p", self.prompt), ("-n", self.new)];
        numbers.extend((self.context > 0).then_some(("--context", self.context)));
        numbers.extend((self.sessions > 1).then_some(("--sessions", self.sessions)));
        let mut answer = ask(programs, &args, &numbers, Some(self.isa), self.threads);
        if self.context == 0
            && self.sessions == 1
            && matches!(&answer, Err(BenchError::Failed { said, .. }) if said.contains("--details"))
        {
            // An older revision without details.
            answer = ask(programs, &args[..2], &numbers, Some(self.isa), self.threads);
        }
        let (json, out) = answer?;
        Ok(complete(self.figures(&json, effort)?, programs, self.isa, &out))
    }

    /// The figures in the output of `bitnet bench`.
    fn figures(self, json: &Value, effort: Effort) -> Result<Vec<Figure>, BenchError> {
        let isa = self.isa.name();
        check(json, &[("isa", Value::from(isa)), ("threads", Value::from(self.threads))])?;
        let details = &json["details"];
        let figure = |what: What, value: f64, tokens: u64| {
            let kind = match what {
                What::Decode => format!("decode after {tokens}"),
                What::Together => format!("decode of {tokens} together"),
                What::Prefill => format!("prefill {tokens}"),
                What::Load => "load".to_owned(),
                What::FirstToken => format!("first token after {tokens}"),
                _ => "memory".to_owned(),
            };
            let id = format!("model/{kind}/{isa}/t{}", self.threads);
            Figure {
                isa: Some(isa.to_owned()),
                threads: self.threads,
                tokens,
                ..Figure::of(id, what, "bitnet", value, "", effort)
            }
        };
        let mut figures = Vec::new();
        if let Some(rate) = json["decode_tok_s"].as_f64() {
            let (what, tokens) =
                if self.sessions > 1 { (What::Together, self.sessions) } else { (What::Decode, self.context) };
            let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
            figures.push(Figure {
                range: pair(&details["decode_range"]),
                bytes: json["bytes_per_token"].as_u64(),
                operations: Some(ternary_operations()),
                bandwidth_gb_s: pair(&json["read_bandwidth_gb_s"]),
                joules: details["decode_joules_per_token"].as_f64(),
                note: Some(format!("kernel {}, head {}, kv {}", text("kernel"), text("head"), text("kv"))),
                ..figure(what, rate, tokens)
            });
            if self.context == 0 && self.sessions == 1 {
                figures.extend(json["rss_anonymous_mib"].as_f64().map(|mib| figure(What::Memory, mib, 0)));
                figures.extend(json["load_s"].as_f64().map(|s| figure(What::Load, s, 0)));
            }
        }
        if let Some(rate) = json["prefill_tok_s"].as_f64() {
            figures.push(Figure {
                range: pair(&details["prefill_range"]),
                operations: Some(ternary_operations()),
                bandwidth_gb_s: pair(&json["read_bandwidth_gb_s"]),
                joules: details["prefill_joules_per_token"].as_f64(),
                ..figure(What::Prefill, rate, self.prompt)
            });
            let first = details["first_token_s"].as_f64();
            figures.extend(first.map(|s| figure(What::FirstToken, s, self.prompt)));
        }
        if figures.is_empty() {
            return Err(BenchError::unreadable("bitnet bench", "neither prefill_tok_s nor decode_tok_s"));
        }
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_become_figures() {
        let call = Call { isa: Isa::Avx2, threads: 2, prompt: 0, context: 0, new: 8, sessions: 1 };
        let mut answer = json!({"prefill_tok_s": null, "decode_tok_s": 10.0, "bytes_per_token": 1_000_000_000u64,
            "read_bandwidth_gb_s": [20.0, 30.0], "bandwidth_share": 0.4, "rss_anonymous_mib": 600.0, "load_s": 0.5,
            "kernel": "k", "head": "f16", "kv": "f16", "isa": "avx2", "threads": 2,
            "details": {"decode_range": [9.0, 11.0], "decode_joules_per_token": 1.5}});
        let figures = call.figures(&answer, Effort::Full).unwrap();
        let ids: Vec<&str> = figures.iter().map(|f| f.id.as_str()).collect();
        assert_eq!(ids, ["model/decode after 0/avx2/t2", "model/memory/avx2/t2", "model/load/avx2/t2"]);
        assert_eq!((figures[0].value, figures[0].range, figures[0].joules), (10.0, Some([9.0, 11.0]), Some(1.5)));
        assert!((figures[0].bandwidth_share().unwrap() - 0.4).abs() < 1e-12);
        answer["isa"] = "scalar".into();
        assert!(call.figures(&answer, Effort::Full).is_err());
        assert!(call.figures(&json!({"isa": "avx2", "threads": 2}), Effort::Full).is_err());
    }

    #[test]
    fn the_shape_is_that_of_2b4t() {
        assert_eq!(ternary_operations(), 4_168_089_600);
    }
}
