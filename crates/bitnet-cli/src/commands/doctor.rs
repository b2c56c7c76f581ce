//! `bitnet doctor`: the instruction sets of this machine, and a check of every kernel on it; with a model also a
//! description of its file, and whether all ways of computing it agree.

mod model;

use std::sync::Arc;

use bitnet::{Isa, Kernel};
use clap::Args;
use loader::synthetic::cache_dir;
use loader::tuning::Tuning;
use serde_json::{Value, json};
use ternary_kernels::check::{Mismatch, self_check, self_check_group};
use ternary_kernels::{GroupKernel, registry};

use crate::error::CliError;
use crate::process;
use crate::progress;
use crate::source::LoadArgs;
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
Runs every kernel that this CPU supports on random and extreme inputs of many shapes, and compares each result with a \
reference implementation that shares no code with it. Exits with code 1 on a mismatch.

With --model, also describes the model and computes it in several ways, which must agree bit for bit; \
BitNet-embedding 0.6B must reproduce the vector on its model card.

Examples:
  bitnet doctor
  bitnet doctor -m model.gguf
  bitnet doctor --json | jq .bandwidth_gb_s
  BITNET_ISA=scalar bitnet doctor        what is used with a forced instruction set";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DoctorArgs {
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Do not measure the memory bandwidth
    #[arg(long)]
    no_bandwidth: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// A kernel of this program on this machine.
#[derive(Debug)]
struct Finding {
    name: String,
    isa: &'static str,
    format: &'static str,
    exact: bool,
    verdict: Verdict,
}

#[derive(Debug)]
enum Verdict {
    NotHere,
    Right { products: usize },
    Wrong { mismatch: Mismatch },
    Failed { reason: String },
}

impl Verdict {
    fn of(kernel: Option<Arc<dyn Kernel>>) -> Self {
        let Some(kernel) = kernel else { return Verdict::NotHere };
        match self_check(kernel.as_ref()) {
            Err(error) => Verdict::Failed { reason: error.to_string() },
            Ok(report) => match report.mismatch {
                Some(mismatch) => Verdict::Wrong { mismatch },
                None => Verdict::Right { products: report.products },
            },
        }
    }
    fn of_group(kernel: &GroupKernel) -> Self {
        match self_check_group(kernel) {
            Err(error) => Verdict::Failed { reason: error.to_string() },
            Ok(report) => match report.mismatch {
                Some(mismatch) => Verdict::Failed { reason: mismatch.to_string() },
                None => Verdict::Right { products: report.products },
            },
        }
    }
    fn is_wrong(&self) -> bool {
        matches!(self, Verdict::Wrong { .. } | Verdict::Failed { .. })
    }
}

pub(crate) fn execute(args: &DoctorArgs, ui: &Ui) -> Result<(), CliError> {
    if args.load.model.model.is_some() {
        return model::execute(&args.load.model, &args.load.engine, args.json, ui);
    }
    let selected = match args.load.engine.isa {
        Some(isa) => isa.require()?,
        None => Isa::selected()?,
    };
    let threads = args.load.engine.threads.map_or(process::threads().get(), usize::from);

    let groups = GroupKernel::available();
    let bar = progress::of_steps(ui, "checking kernels", (registry().len() + groups.len()) as u64);
    let mut findings = Vec::new();
    for entry in registry() {
        findings.push(Finding {
            name: entry.name.to_owned(),
            isa: entry.isa.name(),
            format: entry.format_name,
            exact: entry.exact,
            verdict: Verdict::of(entry.kernel()),
        });
        bar.inc(1);
    }
    // Best first, as those before.
    for kernel in groups.iter().rev() {
        findings.push(Finding {
            name: kernel.name().to_owned(),
            isa: kernel.name().trim_start_matches("group_"),
            format: "group",
            exact: true,
            verdict: Verdict::of_group(kernel),
        });
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut bandwidth = Vec::new();
    if !args.no_bandwidth {
        let spinner = progress::spinner(ui, "measuring memory bandwidth");
        bandwidth.push((1, process::bandwidth_in_child(1)?));
        if threads > 1 {
            bandwidth.push((threads, process::bandwidth_in_child(threads)?));
        }
        spinner.finish_and_clear();
    }

    let used = ternary_kernels::for_isa(selected)?.name().to_owned();
    let tunings = Tuning::all(&cache_dir());
    let streaming = ternary_kernels::for_weights(selected, usize::MAX)?.name().to_owned();
    if args.json {
        ui::print_json(&as_json(&findings, &bandwidth, selected, &used, &tunings))?;
    } else {
        ui::print(&as_text(&findings, &bandwidth, selected, [&used, &streaming], &tunings, ui))?;
    }
    verdict(&findings)
}

/// Whether all is well.
fn verdict(findings: &[Finding]) -> Result<(), CliError> {
    let kernels: Vec<String> = findings.iter().filter(|f| f.verdict.is_wrong()).map(|f| f.name.clone()).collect();
    if kernels.is_empty() { Ok(()) } else { Err(CliError::WrongKernels { kernels }) }
}

fn as_json(findings: &[Finding], bandwidth: &[(usize, f64)], selected: Isa, used: &str, tunings: &[Tuning]) -> Value {
    let kernels: Vec<Value> = findings
        .iter()
        .map(|f| {
            let (status, products, detail) = match &f.verdict {
                Verdict::NotHere => ("not available", None, None),
                Verdict::Right { products } => ("ok", Some(*products), None),
                Verdict::Wrong { mismatch } => ("wrong", None, Some(describe(mismatch))),
                Verdict::Failed { reason } => ("wrong", None, Some(reason.clone())),
            };
            json!({
                "name": f.name, "format": f.format, "isa": f.isa, "exact": f.exact,
                "status": status, "products": products, "detail": detail,
            })
        })
        .collect();
    let isas: Vec<Value> =
        Isa::ALL.iter().map(|i| json!({ "name": i.name(), "available": i.is_available() })).collect();
    let bandwidth: Vec<Value> =
        bandwidth.iter().map(|(threads, gb_s)| json!({ "threads": threads, "gb_s": gb_s })).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": process::cpu_name(),
        "cpus": process::cpus().get(),
        "memory_bytes": process::memory_bytes("MemTotal"),
        "memory_available_bytes": process::memory_bytes("MemAvailable"),
        "isas": isas,
        "isa": selected.name(),
        "kernel": used,
        "tuned": tunings.iter().map(tuning_json).collect::<Vec<_>>(),
        "kernels": kernels,
        "bandwidth_gb_s": bandwidth,
        "ok": verdict(findings).is_ok(),
    })
}

/// A tuning that is used for models of its shapes.
fn tuning_json(t: &Tuning) -> Value {
    let kernels: serde_json::Map<String, Value> =
        t.kernels().iter().map(|k| (k.kind.clone(), json!(k.kernel))).collect();
    json!({ "ternary_weights": t.weights(), "threads": t.threads(), "kernels": kernels })
}

/// A tuning as text.
fn tuning_text(t: &Tuning) -> String {
    let mut names: Vec<&str> = t.kernels().iter().map(|k| k.kernel.as_str()).collect();
    names.dedup();
    let kernels = match names[..] {
        [one] => one.to_owned(),
        _ => t.kernels().iter().map(|k| format!("{} {}", k.kind, k.kernel)).collect::<Vec<_>>().join(", "),
    };
    let plural = if t.threads() == 1 { "thread" } else { "threads" };
    format!("{} weights on {} {plural}: {kernels}", ui::count(t.weights() as u64), t.threads())
}

fn describe(m: &Mismatch) -> String {
    let (token, row) = m.at;
    format!(
        "[{}, {}] weights times {} token(s): row {row} of token {token} should be {}, but is {}",
        m.rows, m.cols, m.tokens, m.expected, m.got
    )
}

fn as_text(
    findings: &[Finding],
    bandwidth: &[(usize, f64)],
    selected: Isa,
    [used, streaming]: [&str; 2],
    tunings: &[Tuning],
    ui: &Ui,
) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        text.push_str(&format!("  {} {value}\n", ui.out(Style::Dim, format_args!("{label:<10}"))));
    };
    let cpu = process::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let plural = if process::cpus().get() == 1 { "CPU" } else { "CPUs" };
    line("machine", format!("{cpu}, {} {plural}, {}", process::cpus(), std::env::consts::OS));
    if let (Some(total), Some(free)) = (process::memory_bytes("MemTotal"), process::memory_bytes("MemAvailable")) {
        line("memory", format!("{}, {} of it available", ui::bytes(total), ui::bytes(free)));
    }
    // Sets of other architectures are nothing that this CPU lacks.
    let here = |isa: Isa| ternary_kernels::registry().iter().any(|e| e.isa == isa);
    let names = |available: bool| -> String {
        let names = Isa::ALL.iter().filter(|i| here(**i) && i.is_available() == available).map(|i| i.name());
        names.collect::<Vec<_>>().join(" ")
    };
    let missing = match names(false) {
        none if none.is_empty() => none,
        some => ui.out(Style::Dim, format_args!(" (not here: {some})")),
    };
    line("sets", format!("{}{missing}", names(true)));
    let large = match used == streaming {
        true => String::new(),
        false => format!(" ({streaming} for models larger than the cache)"),
    };
    line("in use", format!("{selected}, kernel {used}{large}"));
    let mut label = "tuned";
    for tuning in tunings {
        line(std::mem::take(&mut label), tuning_text(tuning));
    }
    let mut label = "kernels";
    for f in findings {
        let result = match &f.verdict {
            Verdict::NotHere => continue,
            Verdict::Right { products } => {
                let how = if f.exact { "equal the reference" } else { "within the kernel's error bound" };
                format!("{} {products} products {how}", ui.out(Style::Green, "ok   "))
            }
            Verdict::Wrong { mismatch } => format!("{} {}", ui.out(Style::Red, "WRONG"), describe(mismatch)),
            Verdict::Failed { reason } => format!("{} {reason}", ui.out(Style::Red, "WRONG")),
        };
        line(std::mem::take(&mut label), format!("{:<20} {result}", f.name));
    }
    if let Some(best) = bandwidth.iter().map(|b| b.1).max_by(f64::total_cmp) {
        let each = bandwidth
            .iter()
            .map(|(t, gb_s)| format!("{gb_s:.1} GB/s with {t} thread{}", if *t == 1 { "" } else { "s" }));
        line("bandwidth", each.collect::<Vec<_>>().join(", "));
        // One token of 2B4T reads 2.08 G weights of two or 1.6 bits, and six bits of each weight of the head.
        let gb = if streaming.starts_with("base3") { 0.417 } else { 0.521 } + 0.249;
        let most = best / gb;
        line("estimate", format!("at most about {most:.0} tokens/s with BitNet b1.58 2B4T ({gb:.2} GB per token)"));
    }
    text.push_str(&match verdict(findings) {
        Ok(()) => format!("{}\n", ui.out(Style::Green, "All checks passed.")),
        Err(_) => String::new(),
    });
    format!("{}\n{text}", ui.out(Style::Bold, format_args!("bitnet {}", env!("CARGO_PKG_VERSION"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ternary_kernels::{Int8Matrix, Int8Vector, KernelError, Packed, PackedRows, TernaryMatrix, by_name};

    /// A kernel that forgets the last row.
    #[derive(Debug)]
    struct Wrong(Arc<dyn Kernel>);
    impl Kernel for Wrong {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn panel_rows(&self) -> usize {
            self.0.panel_rows()
        }
        fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
            self.0.prepack(w)
        }
        fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
            self.0.gemv(w, x, acc);
            if let Some(last) = acc.last_mut() {
                *last = 0;
            }
        }
        fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
            self.0.gemm(w, x, acc);
        }
    }

    fn finding(verdict: Verdict) -> Finding {
        Finding { name: "k".into(), isa: "scalar", format: "i2s", exact: true, verdict }
    }

    #[test]
    fn a_wrong_kernel_is_a_failure_and_is_shown() {
        let wrong = finding(Verdict::of(Some(Arc::new(Wrong(by_name("i2s_scalar").unwrap())))));
        assert!(matches!(wrong.verdict, Verdict::Wrong { .. }));
        let ui = Ui::new(true);
        assert!(as_text(std::slice::from_ref(&wrong), &[], Isa::Scalar, ["k", "k"], &[], &ui).contains("WRONG"));
        let all = [finding(Verdict::Right { products: 1 }), wrong];
        assert_eq!(as_json(&all, &[], Isa::Scalar, "k", &[])["ok"], false);
        let error = verdict(&all).unwrap_err();
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_kernel_for_another_cpu_is_no_failure() {
        let all = [finding(Verdict::of(None)), finding(Verdict::of(by_name("i2s_scalar").ok()))];
        assert!(verdict(&all).is_ok());
    }
}
