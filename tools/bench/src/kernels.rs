//! Kernels alone: the benchmarks of `benches`, group by group.

use std::time::Duration;

use serde::Deserialize;
use ternary_kernels::{Isa, registry};

use crate::error::BenchError;
use crate::figure::{Figure, Results, What};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// Tasks for all groups that the benchmarks list themselves.
///
/// # Errors
/// If a benchmark cannot be asked.
pub(crate) fn tasks(programs: &Programs, threads: &[usize], effort: Effort) -> Result<Vec<Task>, BenchError> {
    let mut tasks = Vec::new();
    for (bench, path) in &programs.benches {
        let out = std::process::Command::new(path).arg("--list").output().map_err(BenchError::io(path))?;
        let text = String::from_utf8_lossy(&out.stdout);
        let groups: Vec<&str> = text.lines().collect();
        for &t in threads.iter().filter(|t| effort == Effort::Full || **t == 1) {
            // Level sets are compared with each other, which one thread shows.
            let wanted =
                |g: &str| (effort == Effort::Full || IN_HASTE.contains(&g)) && (t == 1 || !g.contains("level sets"));
            for group in groups.iter().filter(|g| wanted(g)) {
                let (bench, group) = (bench.clone(), (*group).to_owned());
                let name = format!("kernels/{group}/t{t}");
                tasks.push(Task::new(name, move |programs| run(programs, &bench, &group, t, effort)));
            }
        }
    }
    Ok(tasks)
}

/// The benchmarks of a `--quick` run.
const IN_HASTE: &[&str] = &["gemv 6912x2560", "gemv 6912x2560 from memory", "gemm 2560x2560, 128 tokens"];

fn run(
    programs: &Programs,
    bench: &str,
    group: &str,
    threads: usize,
    effort: Effort,
) -> Result<Vec<Figure>, BenchError> {
    let program = programs.benches.get(bench).ok_or_else(|| BenchError::Usage(format!("no benchmark {bench}")))?;
    let (seconds, rounds) = if effort == Effort::Full { ("1", "20") } else { ("0.4", "10") };
    let args = ["--group", group, "--json", "--seconds", seconds, "--rounds", rounds].map(str::to_owned);
    let count = threads.to_string();
    let env = [("RAYON_NUM_THREADS", count.as_str())];
    let out = programs.bracketed(program, &args, threads, &env, Duration::from_secs(300))?;
    let mut figures = Vec::new();
    for line in out.stdout.lines() {
        let measured: Measured = serde_json::from_str(line).map_err(|e| BenchError::unreadable(line, e))?;
        let isa = isa_of(&measured.name);
        let (what, shape, tokens) = measured.meaning();
        let [m, k] = shape;
        let id = format!("kernels/{}/{}/t{threads}", measured.group, measured.name);
        let us = |seconds: f64| seconds * 1e6;
        figures.push(Figure {
            isa: isa.map(str::to_owned),
            threads,
            tokens,
            shape: Some(shape),
            range: Some(measured.range.map(us)),
            bytes: measured.bytes,
            operations: Some(2 * m * k * tokens),
            bandwidth_gb_s: out.bandwidth(),
            peak_gop_s: isa.and_then(|isa| out.peak(isa)),
            ..Figure::of(id, what, &measured.name, us(measured.seconds), &programs.revision, effort)
        });
    }
    if figures.is_empty() {
        return Err(BenchError::unreadable(group, "the benchmark measured nothing"));
    }
    Ok(figures)
}

/// The instruction set of a kernel, which stands at the end of its name unless the registry knows better; of none for
/// what is not a kernel.
fn isa_of(name: &str) -> Option<&'static str> {
    let kernel = name.split(", ").next().unwrap_or(name);
    let entry = registry().iter().find(|e| e.name == kernel).map(|e| e.isa);
    let named = || Isa::from_name(kernel.rsplit_once('_')?.1).ok();
    entry.or_else(named).map(Isa::name)
}

/// Figures of kernels that no benchmark of `tasks` measures any more are dropped.
pub(crate) fn forget_others(results: &mut Results, tasks: &[Task]) {
    let group = |name: &str| name.strip_prefix("kernels/").and_then(|n| n.split('/').next()).map(str::to_owned);
    let groups: Vec<String> = tasks.iter().filter_map(|t| group(&t.name)).collect();
    if !groups.is_empty() {
        results.figures.retain(|f| group(&f.id).is_none_or(|g| groups.contains(&g)));
    }
}

/// What a benchmark prints of one candidate.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Measured {
    group: String,
    /// A kernel alone, or with the bits of its activations.
    name: String,
    /// Median of one run, and the least and the most.
    seconds: f64,
    range: [f64; 2],
    /// Bytes of one run, where the benchmark counts bytes.
    bytes: Option<u64>,
}

impl Measured {
    /// Parses the group's name: `gemv 6912x2560`, `gemv 6912x2560 from memory`, `gemm 2560x2560, 32 tokens`,
    /// `gemv 640x2560 baselines`.
    fn meaning(&self) -> (What, [u64; 2], u64) {
        let words: Vec<&str> = self.group.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let what = match words.first() {
            Some(&"gemm") => What::Gemm,
            _ if words.ends_with(&["from", "memory"]) => What::Stream,
            _ => What::Gemv,
        };
        let shape = words.get(1).and_then(|w| w.split_once('x'));
        let shape = shape.and_then(|(m, k)| Some([m.parse().ok()?, k.parse().ok()?])).unwrap_or([0, 0]);
        let tokens = words.windows(2).find(|w| w[1] == "tokens").and_then(|w| w[0].parse().ok());
        (what, shape, tokens.unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_group_names_understood() {
        let line = r#"{"group":"gemv 6912x2560","name":"i2s_avx2, int4","seconds":2e-6,"range":[1e-6,3e-6],"bytes":77}"#;
        let read: Measured = serde_json::from_str(line).unwrap();
        assert_eq!((read.seconds, read.range, read.bytes), (2e-6, [1e-6, 3e-6], Some(77)));
        assert_eq!(read.meaning(), (What::Gemv, [6912, 2560], 1));
        let none = r#"{"group":"gemm 2560x640, 32 tokens","name":"dense f32","seconds":1,"range":[1,1],"operations":9}"#;
        let read: Measured = serde_json::from_str(none).unwrap();
        assert_eq!((read.meaning(), read.bytes), ((What::Gemm, [2560, 640], 32), None));
        assert!(serde_json::from_str::<Measured>("{}").is_err());
        assert_eq!(
            ["i2s_avx2, int4", "elut[-1,1]x4_scalar", "dense f32", "candle Q4_0"].map(isa_of),
            [Some("avx2"), Some("scalar"), None, None]
        );
        let group = |name: &str| Measured { group: name.into(), ..read.clone() }.meaning();
        assert_eq!(group("gemv 5x7 from memory"), (What::Stream, [5, 7], 1));
        assert_eq!(group("gemm 5x7 from memory, 8 tokens"), (What::Gemm, [5, 7], 8));
    }
}
