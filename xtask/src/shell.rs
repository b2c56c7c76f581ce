//! Programs that the commands start, and the steps that they belong to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::XtaskError;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies one folder below the workspace").to_path_buf()
}

/// Whether this runs in continuous integration, where a missing tool is a failure.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// Runs `program` with its output shown.
///
/// # Errors
/// If it cannot be started or ends with a failure.
pub(crate) fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), XtaskError> {
    let shown = shown(program, args, env);
    println!("$ {shown}");
    let status = command(program, args, env).status().map_err(XtaskError::io(program))?;
    if status.success() { Ok(()) } else { Err(XtaskError::Failed { command: shown, status: status.to_string() }) }
}

/// Runs `cargo` with its output shown.
///
/// # Errors
/// The errors of [`run`].
pub(crate) fn cargo(args: &[&str], env: &[(&str, &str)]) -> Result<(), XtaskError> {
    run("cargo", args, env)
}

/// Stdout of `program`; its stderr is shown.
///
/// # Errors
/// The errors of [`run`].
pub(crate) fn output(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<String, XtaskError> {
    let out = command(program, args, env).stderr(Stdio::inherit()).output().map_err(XtaskError::io(program))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    print!("{}", String::from_utf8_lossy(&out.stdout));
    Err(XtaskError::Failed { command: shown(program, args, env), status: out.status.to_string() })
}

/// Options of cargo for a build of the kernels' tests that only this one check uses: less optimisation, which takes
/// longer than it saves.
pub(crate) const BUILT_FOR_ONE_RUN: [&str; 2] = ["--config", "profile.dev.package.ternary-kernels.opt-level=1"];

/// Whether `program` starts and ends well with `args`; nothing is shown.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    command(program, args, &[]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn command(program: &str, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut c = Command::new(program);
    c.args(args).envs(env.iter().copied()).stdin(Stdio::null());
    if program == "cargo" && args.first().is_some_and(|a| a.starts_with('+')) {
        // `cargo run` of the outer command names its own toolchain, which would win over `+nightly`.
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
            c.env_remove(name);
        }
    }
    c
}

fn shown(program: &str, args: &[&str], env: &[(&str, &str)]) -> String {
    let env = env.iter().map(|(k, v)| format!("{k}={v:?} "));
    env.chain([program.to_owned()]).collect::<String>() + &args.iter().map(|a| format!(" {a}")).collect::<String>()
}

/// Seconds of CPU that ended child processes have used, with their children; `None` if the system does not tell. With
/// the time on the wall it shows how many cores a step kept busy.
fn cpu_seconds_of_children() -> Option<f64> {
    /// Clock ticks per second in `/proc`, which Linux fixes at 100 for programs.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces. `cutime` and `cstime` are fields 16 and 17 of proc_pid_stat(5), the 13th
    // and 14th of the fields after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(13)? + ticks(14)?) / TICKS)
}

/// `12.3 s`, and the seconds of CPU within.
fn times(wall: Duration, cpu: Option<f64>) -> String {
    let cpu = cpu.map(|cpu| format!(" ({cpu:.0} s of CPU)")).unwrap_or_default();
    format!("{:8.1} s{cpu}", wall.as_secs_f64())
}

/// The result of a step that did not fail.
pub(crate) enum Outcome {
    /// It ran.
    Done,
    /// It could not run here; the text says why.
    Skipped(String),
}

/// Steps in their order, with times; the first failure ends the command.
pub(crate) struct Steps {
    start: Instant,
    done: Vec<(String, Duration, Option<f64>, Outcome)>,
    failed: Option<String>,
}

impl Steps {
    /// No steps yet.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), done: Vec::new(), failed: None }
    }

    /// Runs one step.
    ///
    /// # Errors
    /// The error of the step, with its name.
    pub(crate) fn run(&mut self, name: &str, f: impl FnOnce() -> Result<(), XtaskError>) -> Result<(), XtaskError> {
        self.try_run(name, || f().map(|()| Outcome::Done))
    }

    /// Runs one step that may find that it cannot run here.
    ///
    /// # Errors
    /// The error of the step, with its name.
    pub(crate) fn try_run(
        &mut self,
        name: &str,
        f: impl FnOnce() -> Result<Outcome, XtaskError>,
    ) -> Result<(), XtaskError> {
        println!("\n=== {name}");
        let (start, cpu_before) = (Instant::now(), cpu_seconds_of_children());
        match f() {
            Ok(outcome) => {
                let took = start.elapsed();
                let cpu = cpu_seconds_of_children().zip(cpu_before).map(|(after, before)| after - before);
                match &outcome {
                    Outcome::Done => println!("=== {name}: ok, {}", times(took, cpu).trim_start()),
                    Outcome::Skipped(why) => println!("=== {name}: skipped, {why}"),
                }
                self.done.push((name.to_owned(), took, cpu, outcome));
                Ok(())
            }
            Err(source) => {
                self.failed = Some(name.to_owned());
                Err(XtaskError::Step { step: name.to_owned(), source: Box::new(source) })
            }
        }
    }

    /// Prints the steps with their times.
    pub(crate) fn summary(&self, ok: bool) {
        println!("\nsteps");
        let mut skipped = 0;
        for (name, took, cpu, outcome) in &self.done {
            match outcome {
                Outcome::Done => println!("  ok      {}  {name}", times(*took, *cpu)),
                Outcome::Skipped(why) => {
                    skipped += 1;
                    println!("  skipped             {name} ({why})");
                }
            }
        }
        if let Some(name) = &self.failed {
            println!("  FAILED              {name}");
        }
        let passed = self.done.len() - skipped;
        println!("total {:.1} s", self.start.elapsed().as_secs_f64());
        println!("steps: {passed} passed, {} failed, {skipped} skipped", usize::from(!ok));
    }
}
