//! Programs that run side by side: emulated CPUs and fuzz targets, each of which keeps one core busy for minutes.

use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::error::XtaskError;

/// A program to run; its output is shown when it has ended, in one piece.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Heading of the output.
    pub(crate) name: String,
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// Added to its environment.
    pub(crate) env: Vec<(String, String)>,
}

impl Job {
    /// A job with its arguments and environment.
    pub(crate) fn new(name: impl Into<String>, program: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Self { name: name.into(), program: program.to_owned(), args, env }
    }

    fn run(&self) -> Result<(), XtaskError> {
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().cloned()).stdin(Stdio::null());
        let output = command.output().map_err(XtaskError::io(&self.program))?;
        let shown = format!("{} {}", self.program, self.args.join(" "));
        // One write, so that the outputs of two jobs never mix.
        println!(
            "--- {}: {:.1} s\n$ {shown}\n{}{}",
            self.name,
            start.elapsed().as_secs_f64(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            return Ok(());
        }
        Err(XtaskError::Failed { command: shown, status: output.status.to_string() })
    }
}

/// Runs `jobs` in their order, as many at a time as there are cores. After a failure no further job begins.
///
/// # Errors
/// The first failure.
pub(crate) fn side_by_side(jobs: &[Job]) -> Result<(), XtaskError> {
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(jobs.len().max(1));
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first_error = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if let Err(error) = job.run() {
                        failed.store(true, Ordering::Relaxed);
                        let mut first = first_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        first.get_or_insert(XtaskError::Step { step: job.name.clone(), source: Box::new(error) });
                    }
                }
            });
        }
    });
    first_error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Job {
        Job::new(script, "sh", &["-c", script], &[("WORD", "right")])
    }

    #[cfg(unix)]
    #[test]
    fn all_jobs_run_and_the_first_failure_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |i: usize| folder.path().join(i.to_string());
        let jobs: Vec<Job> = (0..5).map(|i| shell(&format!("echo $WORD > {}", path(i).display()))).collect();
        side_by_side(&jobs).unwrap();
        for i in 0..5 {
            assert_eq!(std::fs::read_to_string(path(i)).unwrap(), "right\n");
        }
        let error = side_by_side(&[shell("exit 3"), shell("true")]).unwrap_err().to_string();
        assert!(error.contains("exit 3"), "{error}");
        side_by_side(&[]).unwrap();
    }
}
