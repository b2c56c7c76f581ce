//! The command: build, measure, write the report, compare.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ternary_kernels::Isa;

use crate::error::BenchError;
use crate::figure::Results;
use crate::machine::{Machine, cpus, said};
use crate::plan::{self, Effort, Task};
use crate::programs::Programs;
use crate::{baseline, compare, families, kernels, model, report, ttt, v2};

/// Options: the measurements, and where to put the results.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A few figures in about a minute; they go to target/bench/quick
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Section>,
    /// Only these instruction sets, for whole models; all that this CPU has otherwise
    #[arg(long, value_delimiter = ',', value_name = "SETS", value_parser = isa)]
    isa: Vec<Isa>,
    /// Numbers of threads; one and all otherwise
    #[arg(short, long, value_delimiter = ',', value_name = "N")]
    threads: Vec<usize>,
    /// Skip what was already measured at this revision, for example by an interrupted run
    #[arg(long)]
    resume: bool,
    /// Show ratios to another results file, or to a revision, which is then built and measured in turn with this one
    #[arg(long, value_name = "FILE|REV")]
    compare: Option<String>,
    /// Measure nothing: write the report, and compare, with the figures that are there
    #[arg(long, conflicts_with_all = ["only", "resume", "isa", "threads"])]
    report: bool,
    /// Start every measurement with its probes through this command: "taskset -c 0" for example
    #[arg(long, value_name = "COMMAND", default_value = "", hide_default_value = true)]
    through: String,
    /// Folder for the report; docs/bench otherwise
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Parts of a full run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Kernels alone, by criterion
    Kernels,
    /// Whole models, by `bitnet bench`
    Model,
    /// The shape of BitNet b1.58 2B4T in candle
    Candle,
    /// Models with a scale per group, and embedding models
    Families,
    /// BitNet v2: activations of 4 bits, keys and values in few bits, memory of several texts
    V2,
    /// Test-time training against attention, and the model that comes with the program
    Ttt,
}

fn isa(name: &str) -> Result<Isa, String> {
    Isa::from_name(name).and_then(Isa::require).map_err(|e| e.to_string())
}

impl Options {
    fn effort(&self) -> Effort {
        if self.quick { Effort::Quick } else { Effort::Full }
    }

    fn wants(&self, part: Section) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn threads(&self) -> Vec<usize> {
        let mut threads = if self.threads.is_empty() { vec![1, cpus()] } else { self.threads.clone() };
        threads.retain(|n| *n > 0);
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    fn isas(&self) -> Vec<Isa> {
        Isa::available().filter(|i| self.isa.is_empty() || self.isa.contains(i)).collect()
    }

    fn tasks(&self, programs: &Programs) -> Result<Vec<Task>, BenchError> {
        let (threads, effort) = (self.threads(), self.effort());
        let mut tasks = Vec::new();
        // The most important measurements come first, in case the run is interrupted.
        if self.wants(Section::Model) {
            tasks.extend(model::tasks(&self.isas(), &threads, effort));
        }
        if self.wants(Section::Families) {
            tasks.extend(families::tasks(&self.isas(), &threads, effort));
        }
        if self.wants(Section::V2) {
            tasks.extend(v2::tasks(&self.isas(), &threads, effort));
        }
        if self.wants(Section::Ttt) {
            tasks.extend(ttt::tasks(&self.isas(), &threads, effort));
        }
        if self.wants(Section::Candle) {
            tasks.extend(baseline::tasks(&threads, effort));
        }
        if self.wants(Section::Kernels) {
            tasks.extend(kernels::tasks(programs, &threads, effort)?);
        }
        Ok(tasks)
    }
}

/// Runs the command in the folder of the workspace.
///
/// # Errors
/// If something cannot be built or written; [`BenchError::Incomplete`] if a measurement failed, after all others and
/// the report.
pub(crate) fn run(options: &Options) -> Result<(), BenchError> {
    let here = std::env::current_dir().map_err(BenchError::io("the current folder"))?;
    let target = here.join(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from));
    let scratch = target.join("bench");
    let folder = match (&options.out, options.quick) {
        (Some(folder), _) => folder.clone(),
        (None, true) => scratch.join("quick"),
        (None, false) => here.join("docs/bench"),
    };
    for folder in [&folder, &scratch] {
        std::fs::create_dir_all(folder).map_err(BenchError::io(folder))?;
    }
    let machine = Machine::here();
    let name = machine.slug();
    let file = folder.join(format!("{name}.json"));
    let mut results = if file.exists() { Results::load(&file)? } else { Results::new(machine.clone()) };
    results.machine = machine;
    let through: Vec<String> = options.through.split_whitespace().map(str::to_owned).collect();

    let other = match &options.compare {
        Some(name) if Path::new(name).is_file() => Some(Baseline::File(Results::load(Path::new(name))?, name.clone())),
        Some(name) if options.report => {
            return Err(BenchError::Usage(format!("--report measures nothing, so {name} must be a results file")));
        }
        Some(name) => Some(Baseline::Revision(build_revision(name, &here, &scratch, &through)?)),
        None => None,
    };
    if !options.report {
        let programs = Programs::build(&here, &target, &scratch, &through)?;
        let tasks = options.tasks(&programs)?;
        if let Some(Baseline::Revision(old)) = &other {
            return in_turn(&tasks, &programs, old, &scratch, options.effort());
        }
        if options.effort() == Effort::Full {
            kernels::forget_others(&mut results, &tasks);
        }
        plan::run(&tasks, &programs, &mut results, &file, options.effort(), options.resume)?;
    }
    report::write(&results, &folder, &name)?;
    if options.out.is_none() && !options.quick {
        report::update_readme(&results, &here.join("README.md"), &format!("docs/bench/{name}.md"))?;
    }
    if let Some(Baseline::File(old, old_name)) = &other {
        println!("\n{}", compare::table(&results, old, old_name));
    }
    match results.failures.len() {
        0 => Ok(()),
        count => Err(BenchError::Incomplete { count }),
    }
}

/// The other side of a comparison.
enum Baseline {
    File(Results, String),
    Revision(Programs),
}

/// Builds a revision in a working tree and a target folder of their own, which stay for the next time.
///
/// The target folder cannot be that of this tree: cargo names build outputs by the path within the workspace, so each
/// tree would use the other's libraries. For the same reason there is one tree for all revisions: a checkout touches
/// the files that differ, and cargo sees that.
fn build_revision(name: &str, here: &Path, scratch: &Path, through: &[String]) -> Result<Programs, BenchError> {
    let commit = said("git", &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")], here)
        .ok_or_else(|| BenchError::Usage(format!("--compare {name}: neither a file nor a revision")))?;
    let tree = scratch.join("tree");
    let is_tree = tree.join(".git").is_file();
    if !is_tree || said("git", &["checkout", "--quiet", "--detach", "--force", &commit], &tree).is_none() {
        let path = tree.display().to_string();
        // Remains of an interrupted run are removed first.
        let _ = std::fs::remove_dir_all(&tree);
        let _ = said("git", &["worktree", "prune"], here);
        said("git", &["worktree", "add", "--detach", "--force", &path, &commit], here).ok_or_else(|| {
            BenchError::unreadable("git worktree add", format!("it cannot check out {commit} in {path}"))
        })?;
    }
    Programs::build(&tree, &scratch.join("tree-target"), scratch, through)
}

/// Times that each revision measures everything.
const ROUNDS: usize = 2;

/// Measures two revisions in turn, task by task, so that a machine that changes its speed changes it for both.
fn in_turn(tasks: &[Task], new: &Programs, old: &Programs, scratch: &Path, effort: Effort) -> Result<(), BenchError> {
    let file = |p: &Programs, round: usize| scratch.join(format!("compare-{}-{round}.json", p.revision));
    let mut rounds: Vec<[Results; 2]> = Vec::new();
    for round in 0..ROUNDS {
        let mut pair = [Results::new(Machine::here()), Results::new(Machine::here())];
        for task in tasks {
            // The one that was second is first the next time.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for who in order {
                let programs = [new, old][who];
                println!("{}, round {}", programs.revision, round + 1);
                let one = std::slice::from_ref(task);
                plan::run(one, programs, &mut pair[who], &file(programs, round), effort, false)?;
            }
        }
        rounds.push(pair);
    }
    let [first, second] = [&rounds[0], &rounds[1]];
    let merged = [0, 1].map(|who| compare::merge(&first[who], &second[who]));
    let text = compare::table(&merged[0], &merged[1], &old.revision);
    let path = scratch.join(format!("compare-{}-with-{}.md", new.revision, old.revision));
    std::fs::write(&path, &text).map_err(BenchError::io(&path))?;
    println!("\n{text}\nwrote {}", path.display());
    // The other revision may lack something; ours must not.
    match merged[0].failures.len() {
        0 => Ok(()),
        count => Err(BenchError::Incomplete { count }),
    }
}
