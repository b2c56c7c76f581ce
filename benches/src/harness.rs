//! Runs the groups of a benchmark that the arguments name, and prints what each candidate takes.

use std::cell::RefCell;
use std::time::Duration;

use clap::Parser;
use measure::{Samples, Turns};
use serde_json::json;

/// What one run of a candidate works through; its throughput is told beside its time.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Bytes that it reads, where the memory is the limit.
    Bytes(u64),
    /// Multiplications and additions, where arithmetic is the limit.
    Operations(u64),
    /// Tokens or values.
    Elements(u64),
    /// None that says anything.
    Unstated,
}

impl Work {
    /// The throughput of `seconds` for a run, for people.
    fn throughput(self, seconds: f64) -> String {
        let giga = |n: u64| n as f64 / seconds / 1e9;
        match self {
            Work::Bytes(n) => format!("{:8.1} GB/s", giga(n)),
            Work::Operations(n) => format!("{:8.1} GOP/s", giga(n)),
            Work::Elements(n) => format!("{:8.3} million/s", 1e3 * giga(n)),
            Work::Unstated => String::new(),
        }
    }
}

/// Something to measure.
pub struct Candidate {
    name: String,
    work: Work,
    run: RefCell<Box<dyn FnMut()>>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("name", &self.name).field("work", &self.work).finish_non_exhaustive()
    }
}

impl Candidate {
    /// A candidate; `run` is what is timed.
    pub fn new(name: impl Into<String>, work: Work, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), work, run: RefCell::new(Box::new(run)) }
    }
}

#[derive(Debug, Parser)]
struct Args {
    /// Only groups whose name contains this text
    filter: Option<String>,
    /// Only the group of this name
    #[arg(long)]
    group: Option<String>,
    /// Prints the names of the groups and measures nothing
    #[arg(long)]
    list: bool,
    /// A line of JSON for each candidate
    #[arg(long)]
    json: bool,
    /// Timings of each candidate
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: usize,
    /// Seconds that all timings of a candidate take together, about
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Added by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=3600.0).contains(&value) { Ok(value) } else { Err("expected 0 to 3600 seconds".to_owned()) }
}

/// The groups of one benchmark, as they are asked for.
#[derive(Debug)]
pub struct Harness {
    args: Args,
    turns: Turns,
}

impl Harness {
    /// What the arguments of this program ask for; ends it with a message where they cannot be read.
    pub fn from_arguments() -> Self {
        let args = Args::parse();
        let at_least = Duration::from_secs_f64(args.seconds / args.rounds.max(1) as f64);
        Self { turns: Turns::new(args.rounds).at_least(at_least), args }
    }

    /// One group. The candidates of each of the `sets` take turns; the next set is made when one has been measured, so
    /// that candidates which need much memory need not be there together.
    pub fn group<I: IntoIterator<Item = Vec<Candidate>>>(&self, name: &str, sets: impl FnOnce() -> I) {
        let Args { filter, group, list, json, .. } = &self.args;
        if filter.as_ref().is_some_and(|part| !name.contains(part)) || group.as_ref().is_some_and(|g| g != name) {
            return;
        }
        if *list || !*json {
            println!("{name}");
        }
        if *list {
            return;
        }
        for candidates in sets() {
            let samples = self.turns.time(&candidates, |candidate| (candidate.run.borrow_mut())());
            for (candidate, samples) in candidates.iter().zip(&samples) {
                match json {
                    true => println!("{}", as_json(name, candidate, samples)),
                    false => println!("{}", as_text(candidate, samples)),
                }
            }
        }
    }
}

/// Names, seconds of one run as the median with the least and the most, and what it works through.
fn as_json(group: &str, candidate: &Candidate, samples: &Samples) -> serde_json::Value {
    let mut line = json!({
        "group": group, "name": candidate.name, "seconds": samples.median(), "range": samples.range(),
    });
    let work = match candidate.work {
        Work::Bytes(n) => ("bytes", n),
        Work::Operations(n) => ("operations", n),
        Work::Elements(n) => ("elements", n),
        Work::Unstated => return line,
    };
    line[work.0] = work.1.into();
    line
}

fn as_text(candidate: &Candidate, samples: &Samples) -> String {
    let us = |seconds: f64| seconds * 1e6;
    let [least, most] = samples.range().map(us);
    let median = samples.median();
    let throughput = candidate.work.throughput(median);
    format!("  {:<34} {:10.2} us ({least:.2} to {most:.2}) {throughput}", candidate.name, us(median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_was_measured() {
        let candidate = Candidate::new("i2s_avx2, int4", Work::Bytes(2_000_000), || ());
        let samples = Samples::from(vec![0.004, 0.001, 0.002]);
        let line = as_json("gemv 5x7", &candidate, &samples);
        assert_eq!(
            line,
            json!({"group": "gemv 5x7", "name": "i2s_avx2, int4", "seconds": 0.002, "range": [0.001, 0.004],
                "bytes": 2_000_000})
        );
        let text = as_text(&candidate, &samples);
        for part in ["i2s_avx2, int4", "2000.00 us", "(1000.00 to 4000.00)", "1.0 GB/s"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn sets_are_made_one_after_the_other_and_their_candidates_take_turns() {
        let args = Args::parse_from(["bench", "--rounds", "1", "--seconds", "0", "--json", "--bench", "a"]);
        let harness = Harness { turns: Turns::new(args.rounds), args };
        let log = std::rc::Rc::new(RefCell::new(String::new()));
        let told = |what: &'static str| {
            let log = log.clone();
            move || log.borrow_mut().push_str(what)
        };
        let set = |names: [&'static str; 2]| {
            log.borrow_mut().push('|');
            names.map(|name| Candidate::new(name, Work::Unstated, told(name))).into()
        };
        harness.group("a", || [["x", "y"], ["z", "w"]].into_iter().map(set));
        harness.group("b", || -> Vec<Vec<Candidate>> { unreachable!("no such group is asked for") });
        // Each candidate once to warm up and once to be timed.
        assert_eq!(*log.borrow(), "|xxyy|zzww");
    }
}
