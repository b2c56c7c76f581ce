//! BitNet v2: activations of 4 bits compared with 8, keys and values in few bits, the cost of a Hadamard transform, and
//! the memory of texts that are generated together.

mod hadamard;

use serde_json::Value;
use ternary_kernels::Isa;

use crate::answer::{ask, check, complete, pair, wrong};
use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::model::{LONG_CONTEXT, SESSIONS, ternary_operations};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

pub(crate) use hadamard::measure as measure_hadamard;

/// Models of one shape as `bitnet` names them, and the bits of their activations.
const MODELS: [(&str, &str); 2] = [("synthetic:2b4t", "A8"), ("synthetic:2b4t-v2", "A4")];

/// Types of keys and values.
const KV_TYPES: [&str; 3] = ["f16", "q8", "q4"];

/// The type if no types are compared.
const PLAIN_KV: &str = "f16";

/// Tokens before those that are generated in each text whose memory is measured. There is room for 256 then.
pub(crate) const TEXT: u64 = 192;

/// Parameters of one call of `bitnet bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    what: What,
    model: &'static str,
    /// `A8` or `A4`.
    bits: &'static str,
    kv: &'static str,
    isa: Isa,
    threads: usize,
    prompt: u64,
    context: u64,
    new: u64,
    sessions: u64,
}

/// Tasks with the best instruction set, tasks that are compared with each other in a row.
pub(crate) fn tasks(isas: &[Isa], threads: &[usize], effort: Effort) -> Vec<Task> {
    let Some(&isa) = isas.last() else { return Vec::new() };
    let quick = effort == Effort::Quick;
    let mut calls = Vec::new();
    let mut tasks = Vec::new();
    for &threads in threads {
        let call = |what, model: (&'static str, &'static str), kv, new| Call {
            what,
            model: model.0,
            bits: model.1,
            kv,
            isa,
            threads,
            prompt: 0,
            context: 0,
            new,
            sessions: 1,
        };
        for model in MODELS {
            calls.push(call(What::V2Decode, model, PLAIN_KV, if quick { 8 } else { 32 }));
        }
        for model in MODELS {
            calls.push(Call { prompt: if quick { 32 } else { 128 }, ..call(What::V2Prefill, model, PLAIN_KV, 0) });
        }
        for model in MODELS {
            calls.push(Call {
                sessions: SESSIONS,
                ..call(What::V2Together, model, PLAIN_KV, if quick { 4 } else { 16 })
            });
        }
        for kv in KV_TYPES {
            for context in [0, if quick { 256 } else { LONG_CONTEXT - 16 }] {
                calls.push(Call { context, ..call(What::KvDecode, MODELS[0], kv, 16) });
            }
        }
        tasks.push(hadamard::task(isa, threads, effort));
    }
    // Memory is the same with any number of threads, and reading the texts takes its time.
    if let (Some(&threads), false) = (threads.last(), quick) {
        for (model, bits) in MODELS {
            for kv in KV_TYPES {
                let (what, context, sessions) = (What::TextMemory, TEXT, SESSIONS);
                calls.push(Call { what, model, bits, kv, isa, threads, prompt: 0, context, new: 2, sessions });
            }
        }
    }
    tasks.extend(calls.into_iter().map(|call| Task::new(call.name(), move |programs| call.run(programs, effort))));
    tasks
}

impl Call {
    fn name(&self) -> String {
        let Self { bits, kv, isa, threads, prompt, context, sessions, .. } = self;
        let kind = match self.what {
            What::V2Decode => format!("decode {bits}"),
            What::V2Prefill => format!("prefill {prompt} {bits}"),
            What::V2Together => format!("decode of {sessions} together {bits}"),
            What::KvDecode => format!("decode after {context} {kv}"),
            _ => format!("memory of {sessions} texts of {context} {bits} {kv}"),
        };
        format!("v2/{kind}/{isa}/t{threads}")
    }

    fn run(self, programs: &Programs, effort: Effort) -> Result<Vec<Figure>, BenchError> {
        let args = ["--model", self.model, "--kv", self.kv, "--details"];
        let context = [("--context", self.context), ("--sessions", self.sessions)];
        let numbers = [("-p", self.prompt), ("-n", self.new), context[0], context[1]];
        let (json, out) = ask(programs, &args, &numbers, Some(self.isa), self.threads)?;
        Ok(complete(vec![self.figure(&json, effort)?], programs, self.isa, &out))
    }

    /// The figures in the output of `bitnet bench`.
    fn figure(self, json: &Value, effort: Effort) -> Result<Figure, BenchError> {
        let isa = self.isa.name();
        check(
            json,
            &[("isa", Value::from(isa)), ("threads", Value::from(self.threads)), ("kv", Value::from(self.kv))],
        )?;
        let (details, memory) = (&json["details"], &json["details"]["memory"]);
        let (key, range) = match self.what {
            What::V2Prefill => ("prefill_tok_s", "prefill_range"),
            _ => ("decode_tok_s", "decode_range"),
        };
        let is_memory = self.what == What::TextMemory;
        let value = if is_memory { memory["anonymous_mib"].as_f64() } else { json[key].as_f64() };
        let value = value.ok_or_else(|| wrong(format!("no figure for {}", self.name())))?;
        let count = |key: &str| memory[key].as_u64().unwrap_or_default();
        let tokens = match self.what {
            What::V2Prefill => self.prompt,
            What::V2Together | What::TextMemory => self.sessions,
            _ => self.context,
        };
        let subject = match self.what {
            What::KvDecode => self.kv,
            What::TextMemory => &format!("{}, {}", self.bits, self.kv),
            _ => self.bits,
        };
        Ok(Figure {
            isa: Some(isa.to_owned()),
            threads: self.threads,
            tokens,
            range: if is_memory { None } else { pair(&details[range]) },
            bytes: match self.what {
                What::V2Prefill => None,
                What::TextMemory => Some(count("state_bytes")),
                _ => json["bytes_per_token"].as_u64(),
            },
            operations: (!is_memory).then(ternary_operations),
            bandwidth_gb_s: pair(&json["read_bandwidth_gb_s"]).filter(|_| !is_memory),
            note: is_memory.then(|| {
                let before = memory["anonymous_before_mib"].as_f64().unwrap_or_default();
                let (codes, others) = (count("activation_bytes"), count("working_bytes"));
                format!(
                    "{:.2} MiB of codes, {:.1} MiB of other buffers; {before:.0} MiB before",
                    mib(codes),
                    mib(others)
                )
            }),
            ..Figure::of(self.name(), self.what, subject, value, "", effort)
        })
    }
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(what: What) -> Call {
        let (model, bits) = MODELS[1];
        let isa = Isa::Avx2;
        Call { what, model, bits, kv: "q8", isa, threads: 2, prompt: 0, context: 512, new: 2, sessions: 8 }
    }

    fn answer() -> Value {
        json!({"prefill_tok_s": null, "decode_tok_s": 10.0, "bytes_per_token": 5000u64, "kv": "q8", "isa": "avx2", "threads": 2,
            "read_bandwidth_gb_s": [20.0, 30.0], "details": {"decode_range": [9.0, 11.0], "memory": {"anonymous_mib": 700.5,
            "anonymous_before_mib": 500.0, "state_bytes": 1u64 << 27, "activation_bytes": 1u64 << 20, "working_bytes": 1u64 << 22}}})
    }

    #[test]
    fn answers_become_figures() {
        let speed = call(What::KvDecode).figure(&answer(), Effort::Full).unwrap();
        assert_eq!((speed.value, speed.tokens, speed.subject.as_str()), (10.0, 512, "q8"));
        assert_eq!(speed.id, "v2/decode after 512 q8/avx2/t2");
        let memory = call(What::TextMemory).figure(&answer(), Effort::Full).unwrap();
        assert_eq!((memory.value, memory.bytes, memory.tokens), (700.5, Some(1 << 27), 8));
        assert!(memory.note.unwrap().starts_with("1.00 MiB of codes, 4.0 MiB of other buffers; 500 MiB before"));
        assert_eq!(memory.subject, "A4, q8");
        for key in ["kv", "isa", "threads", "decode_tok_s"] {
            let mut other = answer();
            other[key] = Value::Null;
            assert!(call(What::V2Decode).figure(&other, Effort::Full).is_err(), "{key}");
        }
    }

    #[test]
    fn names_of_tasks_are_theirs_alone() {
        let mut names: Vec<String> =
            tasks(&[Isa::Scalar], &[1, 2], Effort::Full).into_iter().map(|task| task.name).collect();
        let all = names.len();
        assert!(all > 20 && names.iter().all(|n| n.starts_with("v2/")), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
