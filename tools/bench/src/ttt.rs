//! Test-time training against attention: the memory of a session and the time of a token after more and more of them;
//! and the model that comes with the program.

use serde_json::{Value, json};
use std::path::PathBuf;
use ternary_kernels::Isa;

use crate::answer::{ask, pair};
use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// Tokens before those that are measured.
const CONTEXTS: [u64; 4] = [1 << 10, 1 << 14, 1 << 17, 1 << 20];
/// Up to so many tokens attention reads a text; beyond, its keys and values are filled.
const READ_UP_TO: u64 = 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mixer {
    Ttt,
    Attention,
}

impl Mixer {
    fn name(self) -> &'static str {
        match self {
            Mixer::Ttt => "TTT-Linear",
            Mixer::Attention => "attention",
        }
    }

    /// A model of the shape of the one that comes with the program, with room for all contexts.
    fn shape(self) -> Value {
        let mut shape = json!({
            "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 1 << 21,
        });
        if self == Mixer::Ttt {
            shape["mixers"] = json!("ttt_linear");
            shape["ttt"] = json!({ "share_qk": true, "use_gate": true });
        }
        shape
    }

    fn file(self, programs: &Programs) -> Result<PathBuf, BenchError> {
        let path = programs.scratch.join(format!("small-{}.json", self.name()));
        std::fs::write(&path, self.shape().to_string()).map_err(BenchError::io(&path))?;
        Ok(path)
    }
}

/// All tasks of this part. The model that comes with the program is measured with the best set of `isas` and with AVX2,
/// the last that most x86 computers have.
pub(crate) fn tasks(isas: &[Isa], threads: &[usize], effort: Effort) -> Vec<Task> {
    let most = threads.last().copied().unwrap_or(1);
    let mut tasks = Vec::new();
    for &context in if effort == Effort::Full { &CONTEXTS[..] } else { &CONTEXTS[..2] } {
        for mixer in [Mixer::Ttt, Mixer::Attention] {
            let name = format!("ttt/after {context}/{}", mixer.name());
            tasks.push(Task::new(name, move |programs| after(programs, mixer, context, most, effort)));
        }
    }
    let sessions: &[u64] = if effort == Effort::Full { &[1, 4, 8, 16, 64] } else { &[1, 16] };
    for &isa in isas.iter().rev().filter(|isa| Some(*isa) == isas.last() || **isa == Isa::Avx2) {
        for &threads in threads {
            for &sessions in sessions {
                let name = format!("ttt/shipped model/{sessions} texts/{isa}/t{threads}");
                tasks.push(Task::new(name, move |programs| shipped(programs, sessions, isa, threads, effort)));
            }
        }
    }
    tasks
}

/// Runs `bitnet bench` and reads its answer.
fn bench(programs: &Programs, args: &[String], isa: Option<Isa>, threads: usize) -> Result<Value, BenchError> {
    let args: Vec<&str> = ["--details"].into_iter().chain(args.iter().map(String::as_str)).collect();
    Ok(ask(programs, &args, &[], isa, threads)?.0)
}

fn number(json: &Value, key: &str) -> Result<f64, BenchError> {
    json[key].as_f64().ok_or_else(|| BenchError::unreadable("bitnet bench", format!("no {key}")))
}

/// Memory and time of a session after `context` tokens.
fn after(
    programs: &Programs,
    mixer: Mixer,
    context: u64,
    threads: usize,
    effort: Effort,
) -> Result<Vec<Figure>, BenchError> {
    let filled = mixer == Mixer::Attention && context > READ_UP_TO;
    // Whole mini-batches; few if each token attends to very many.
    let new = if filled { 8 } else { 512 };
    let model = format!("synthetic:{}", mixer.file(programs)?.display());
    let mut args = vec!["-m".to_owned(), model, "-p".to_owned(), "0".to_owned(), "-n".to_owned(), new.to_string()];
    args.extend(["--context".to_owned(), context.to_string()]);
    args.extend(filled.then(|| "--fill".to_owned()));
    let json = bench(programs, &args, None, threads)?;
    let rate = number(&json, "decode_tok_s")?;
    let details = &json["details"];
    let range = details["decode_range"].as_array().and_then(|r| Some([1e6 / r[1].as_f64()?, 1e6 / r[0].as_f64()?]));
    let note = filled.then(|| "keys and values filled, not computed".to_owned());
    let make = |what: What, kind: &str, value: f64, range: Option<[f64; 2]>| Figure {
        threads,
        tokens: context,
        range,
        note: note.clone(),
        ..Figure::of(
            format!("ttt/{kind} after {context}/{}", mixer.name()),
            what,
            mixer.name(),
            value,
            &programs.revision,
            effort,
        )
    };
    Ok(vec![
        make(What::SessionMemory, "session", number(details, "session_bytes")? / 1024.0, None),
        make(What::TokenTime, "token", 1e6 / rate, range),
    ])
}

/// Speed of the model that comes with the program; the prompt only once.
fn shipped(
    programs: &Programs,
    sessions: u64,
    isa: Isa,
    threads: usize,
    effort: Effort,
) -> Result<Vec<Figure>, BenchError> {
    let prompt = if sessions == 1 { 1024 } else { 0 };
    let new = if effort == Effort::Full { 256 } else { 64 };
    let args = ["-p", &prompt.to_string(), "-n", &new.to_string(), "--sessions", &sessions.to_string()];
    let json = bench(programs, &args.map(str::to_owned), Some(isa), threads)?;
    let details = &json["details"];
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let note = format!(
        "{:.2} million parameters, vocabulary {}, kernel {}, head {}",
        number(details, "parameters")? / 1e6,
        number(details, "vocabulary")?,
        text("kernel"),
        text("head")
    );
    let make = |what: What, kind: &str, tokens: u64, value: f64, range: &Value| Figure {
        isa: Some(isa.name().to_owned()),
        threads,
        tokens,
        range: pair(range),
        note: Some(note.clone()),
        ..Figure::of(
            format!("ttt/{kind} {tokens}/{isa}/t{threads}"),
            what,
            "tiny-stories-ttt",
            value,
            &programs.revision,
            effort,
        )
    };
    let mut figures = Vec::new();
    if prompt > 0 {
        let rate = number(&json, "prefill_tok_s")?;
        figures.push(make(What::ShippedPrefill, "prefill", prompt, rate, &details["prefill_range"]));
    }
    let rate = number(&json, "decode_tok_s")?;
    figures.push(make(What::ShippedDecode, "decode of texts", sessions, rate, &details["decode_range"]));
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_models_have_one_shape() {
        let [mut ttt, attention] = [Mixer::Ttt, Mixer::Attention].map(Mixer::shape);
        let keys = ttt.as_object_mut().map(|o| (o.remove("mixers"), o.remove("ttt")));
        assert!(matches!(keys, Some((Some(_), Some(_)))));
        assert_eq!(ttt, attention);
    }
}
