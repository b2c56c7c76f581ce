//! Models with a scale per group of weights, and embedding models: decode and prefill in the shapes of published ones,
//! next to the shape of BitNet b1.58 2B4T in the same run.

use loader::synthetic::Spec;
use serde_json::Value;
use ternary_kernels::Isa;

use crate::answer::{ask, check, complete, pair, wrong};
use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// Shapes by their names. The first has one scale for a matrix: the others are compared with it.
const MODELS: [&str; 4] = ["2b4t", "bonsai-1.7b", "bonsai-8b", "bitnet-embedding-0.6b"];

/// Parameters of one call of `bitnet bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    what: What,
    model: &'static str,
    isa: Isa,
    threads: usize,
    tokens: u64,
}

/// Tasks with the best instruction set; tasks that are compared with each other run in a row. With `--quick` only the
/// smallest of each kind.
pub(crate) fn tasks(isas: &[Isa], threads: &[usize], effort: Effort) -> Vec<Task> {
    let Some(&isa) = isas.last() else { return Vec::new() };
    let quick = effort == Effort::Quick;
    let models = MODELS.iter().filter(|name| !(quick && name.ends_with("8b")));
    let mut calls = Vec::new();
    for &threads in threads {
        for model in models.clone() {
            if !is_headless(model) {
                let tokens = if quick { 8 } else { 32 };
                calls.push(Call { what: What::FamilyDecode, model, isa, threads, tokens });
            }
        }
        for model in models.clone() {
            let tokens = if quick { 32 } else { 128 };
            calls.push(Call { what: What::FamilyPrefill, model, isa, threads, tokens });
        }
    }
    calls.into_iter().map(|call| Task::new(call.name(), move |programs| call.run(programs, effort))).collect()
}

fn is_headless(model: &str) -> bool {
    Spec::named(model).is_some_and(|spec| spec.config.headless)
}

impl Call {
    fn name(&self) -> String {
        let kind =
            if self.what == What::FamilyDecode { "decode".to_owned() } else { format!("prefill {}", self.tokens) };
        format!("families/{kind} {}/{}/t{}", self.model, self.isa, self.threads)
    }

    fn run(self, programs: &Programs, effort: Effort) -> Result<Vec<Figure>, BenchError> {
        let (prompt, new) = if self.what == What::FamilyDecode { (0, self.tokens) } else { (self.tokens, 0) };
        let model = format!("synthetic:{}", self.model);
        let args = ["--model", &model, "--details"];
        let (json, out) = ask(programs, &args, &[("-p", prompt), ("-n", new)], Some(self.isa), self.threads)?;
        Ok(complete(vec![self.figure(&json, effort)?], programs, self.isa, &out))
    }

    /// The figure in the output of `bitnet bench`.
    fn figure(self, json: &Value, effort: Effort) -> Result<Figure, BenchError> {
        let isa = self.isa.name();
        check(json, &[("isa", Value::from(isa)), ("threads", Value::from(self.threads))])?;
        let decode = self.what == What::FamilyDecode;
        let (key, range) = if decode { ("decode_tok_s", "decode_range") } else { ("prefill_tok_s", "prefill_range") };
        let value = json[key].as_f64().ok_or_else(|| wrong(format!("no figure for {}", self.name())))?;
        let weights = Spec::named(self.model).map(|spec| spec.config.ternary_weights());
        Ok(Figure {
            isa: Some(isa.to_owned()),
            threads: self.threads,
            tokens: self.tokens,
            range: pair(&json["details"][range]),
            bytes: json["bytes_per_token"].as_u64().filter(|_| decode),
            operations: weights.map(|w| 2 * w),
            bandwidth_gb_s: pair(&json["read_bandwidth_gb_s"]),
            note: json["kernel"].as_str().map(|kernel| format!("kernel {kernel}")),
            ..Figure::of(self.name(), self.what, self.model, value, "", effort)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_become_figures() {
        let call = Call { what: What::FamilyDecode, model: "bonsai-1.7b", isa: Isa::Avx2, threads: 2, tokens: 8 };
        let answer = json!({"decode_tok_s": 10.0, "bytes_per_token": 5000u64, "isa": "avx2", "threads": 2, "kernel": "group_avx2",
            "read_bandwidth_gb_s": [20.0, 30.0], "details": {"decode_range": [9.0, 11.0]}});
        let figure = call.figure(&answer, Effort::Full).unwrap();
        assert_eq!((figure.value, figure.bytes, figure.operations), (10.0, Some(5000), Some(2 * 1_409_286_144)));
        assert_eq!(figure.id, "families/decode bonsai-1.7b/avx2/t2");
        for key in ["isa", "threads", "decode_tok_s"] {
            let mut other = answer.clone();
            other[key] = Value::Null;
            assert!(call.figure(&other, Effort::Full).is_err(), "{key}");
        }
    }

    #[test]
    fn every_shape_has_its_tasks() {
        let names: Vec<String> = tasks(&[Isa::Scalar], &[1], Effort::Full).into_iter().map(|task| task.name).collect();
        assert!(MODELS.iter().all(|model| Spec::named(model).is_some()));
        assert_eq!(names.iter().filter(|n| n.contains("decode")).count(), 3, "{names:?}");
        assert_eq!(names.iter().filter(|n| n.contains("prefill")).count(), 4, "{names:?}");
    }
}
