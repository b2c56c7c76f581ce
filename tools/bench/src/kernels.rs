//! Kernels alone: the criterion benchmarks of `benches`, group by group, with criterion's own estimates.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ternary_kernels::{Isa, registry};

use crate::error::BenchError;
use crate::figure::{Figure, Results, What};
use crate::plan::{Effort, Task};
use crate::programs::Programs;

/// Tasks for all groups that the benchmarks list themselves.
///
/// # Errors
/// If a benchmark cannot be listed.
pub(crate) fn tasks(programs: &Programs, threads: &[usize], effort: Effort) -> Result<Vec<Task>, BenchError> {
    let mut tasks = Vec::new();
    for (bench, path) in &programs.benches {
        let out =
            std::process::Command::new(path).args(["--bench", "--list"]).output().map_err(BenchError::io(path))?;
        let text = String::from_utf8_lossy(&out.stdout);
        let mut groups: Vec<&str> = text.lines().filter_map(|l| l.split_once('/')).map(|(group, _)| group).collect();
        groups.dedup();
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
    let folder = programs.scratch.join("criterion");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(BenchError::io(&folder))?;
    }
    let (warm_up, time, samples) = if effort == Effort::Full { ("0.3", "1", "20") } else { ("0.1", "0.4", "10") };
    // The filter is a regular expression; nothing in the names of groups but spaces and commas needs thought.
    let filter = format!("^{group}/");
    let args = ["--bench", "--noplot", "--warm-up-time", warm_up, "--measurement-time", time, "--sample-size", samples];
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).chain([filter]).collect();
    let count = threads.to_string();
    let home = folder.display().to_string();
    let env = [("RAYON_NUM_THREADS", count.as_str()), ("CRITERION_HOME", home.as_str())];
    let out = programs.bracketed(program, &args, threads, &env, Duration::from_secs(300))?;
    let mut figures = Vec::new();
    for measured in read(&folder)? {
        let isa = isa_of(&measured.function);
        let (what, shape, tokens) = measured.meaning();
        let [m, k] = shape;
        let id = format!("kernels/{}/{}/t{threads}", measured.group, measured.function);
        let us = measured.median_ns / 1e3;
        figures.push(Figure {
            isa: isa.map(str::to_owned),
            threads,
            tokens,
            shape: Some(shape),
            range: Some(measured.interval_ns.map(|ns| ns / 1e3)),
            bytes: measured.bytes,
            operations: Some(2 * m * k * tokens),
            bandwidth_gb_s: out.bandwidth(),
            peak_gop_s: isa.and_then(|isa| out.peak(isa)),
            ..Figure::of(id, what, &measured.function, us, &programs.revision, effort)
        });
    }
    if figures.is_empty() {
        return Err(BenchError::unreadable(group, "criterion measured nothing"));
    }
    Ok(figures)
}

/// The instruction set of a kernel, which is at the end of its name unless the registry knows better; `None` for
/// anything that is not a kernel.
fn isa_of(function: &str) -> Option<&'static str> {
    let kernel = function.split(", ").next().unwrap_or(function);
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

/// One benchmark as criterion stored it.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    group: String,
    function: String,
    median_ns: f64,
    interval_ns: [f64; 2],
    /// Bytes of one iteration, if the benchmark counts bytes.
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

/// All benchmarks below `folder`.
fn read(folder: &Path) -> Result<Vec<Measured>, BenchError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(BenchError::io(&folder))?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("new/benchmark.json") {
                found.push(read_one(&path)?);
            }
        }
    }
    found.sort_by(|a, b| (&a.group, &a.function).cmp(&(&b.group, &b.function)));
    Ok(found)
}

fn read_one(path: &Path) -> Result<Measured, BenchError> {
    let json = |path: &Path| -> Result<Value, BenchError> {
        let bytes = std::fs::read(path).map_err(BenchError::io(path))?;
        serde_json::from_slice(&bytes).map_err(|e| BenchError::unreadable(path.display().to_string(), e))
    };
    let (name, estimates) = (json(path)?, json(&path.with_file_name("estimates.json"))?);
    let text = |key: &str| name[key].as_str().map(str::to_owned);
    let median = &estimates["median"];
    let number = |v: &Value| v.as_f64().ok_or_else(|| BenchError::unreadable(path.display().to_string(), "no median"));
    let interval = &median["confidence_interval"];
    Ok(Measured {
        group: text("group_id").unwrap_or_default(),
        // A kernel alone, or with the bits of its activations; a benchmark that is named by its parameter alone has no
        // function.
        function: [text("function_id"), text("value_str")].into_iter().flatten().collect::<Vec<_>>().join(", "),
        median_ns: number(&median["point_estimate"])?,
        interval_ns: [number(&interval["lower_bound"])?, number(&interval["upper_bound"])?],
        bytes: name["throughput"]["Bytes"].as_u64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_read_and_group_names_understood() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, benchmark: &str| {
            let folder = dir.path().join(name).join("new");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("benchmark.json"), benchmark).unwrap();
            let estimates = r#"{"median":{"point_estimate":2000.0,"confidence_interval":
                {"confidence_level":0.95,"lower_bound":1500.0,"upper_bound":2500.0}}}"#;
            std::fs::write(folder.join("estimates.json"), estimates).unwrap();
        };
        put(
            "a",
            r#"{"group_id":"gemv 6912x2560","function_id":null,"value_str":"i2s_avx2","throughput":{"Bytes":77}}"#,
        );
        put(
            "b",
            r#"{"group_id":"gemm 2560x640, 32 tokens","function_id":"dense f32","value_str":null,"throughput":null}"#,
        );
        put(
            "c",
            r#"{"group_id":"gemv 6912x2560","function_id":"i2s_avx2","value_str":"int4","throughput":{"Bytes":77}}"#,
        );
        let found = read(dir.path()).unwrap();
        assert_eq!(
            found.iter().map(|m| m.function.as_str()).collect::<Vec<_>>(),
            ["dense f32", "i2s_avx2", "i2s_avx2, int4"]
        );
        assert_eq!(
            ["i2s_avx2, int4", "elut[-1,1]x4_scalar", "dense f32", "candle Q4_0"].map(isa_of),
            [Some("avx2"), Some("scalar"), None, None]
        );
        assert_eq!(found[0].meaning(), (What::Gemm, [2560, 640], 32));
        assert_eq!((found[0].function.as_str(), found[0].bytes), ("dense f32", None));
        assert_eq!(found[1].meaning(), (What::Gemv, [6912, 2560], 1));
        let group = |name: &str| Measured { group: name.into(), ..found[0].clone() }.meaning();
        assert_eq!(group("gemv 5x7 from memory"), (What::Stream, [5, 7], 1));
        assert_eq!(group("gemm 5x7 from memory, 8 tokens"), (What::Gemm, [5, 7], 8));
        assert_eq!((found[1].function.as_str(), found[1].bytes), ("i2s_avx2", Some(77)));
        assert_eq!((found[1].median_ns, found[1].interval_ns), (2000.0, [1500.0, 2500.0]));
        std::fs::write(dir.path().join("a/new/estimates.json"), "{}").unwrap();
        assert!(matches!(read(dir.path()), Err(BenchError::Unreadable { .. })));
    }
}
