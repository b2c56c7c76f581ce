//! Busy processes next to a measurement, for `bitnet bench --beside`.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::CliError;

/// The time that they run before the measurement: several time slices.
const HEAD_START: Duration = Duration::from_millis(200);

/// Processes with one endless loop each. They end when this is dropped, and when this process ends for any reason.
#[derive(Debug)]
pub(super) struct Busy(Vec<Child>);

impl Busy {
    /// Starts `count` of them.
    ///
    /// # Errors
    /// [`CliError::Busy`] if one cannot be started.
    pub(super) fn start(count: u32) -> Result<Self, CliError> {
        let failed = |e: std::io::Error| CliError::Busy { problem: e.to_string() };
        let exe = std::env::current_exe().map_err(failed)?;
        // An error drops, and so ends, those that run.
        let mut busy = Self(Vec::new());
        for _ in 0..count {
            let mut command = Command::new(&exe);
            // This process holds the other end of stdin, which the system closes with it.
            command.arg("__busy").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            busy.0.push(command.spawn().map_err(failed)?);
        }
        std::thread::sleep(HEAD_START);
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
            // It may have ended by itself; then there is nothing to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `bitnet __busy`: keeps one CPU busy until stdin ends.
pub(crate) fn execute() -> Result<(), CliError> {
    std::thread::spawn(|| {
        // An error is an end as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}

/// The speed that a scheduler that divides `cpus` evenly leaves to `threads` threads next to `busy` others, relative to
/// their speed alone.
pub(super) fn fair_share(cpus: usize, threads: usize, busy: u32) -> f64 {
    let of_each = |all: usize| (cpus as f64 / all.max(1) as f64).min(1.0);
    of_each(threads + busy as usize) / of_each(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fair_shares() {
        assert_eq!(fair_share(2, 2, 0), 1.0);
        assert_eq!(fair_share(2, 2, 1), 2.0 / 3.0);
        assert_eq!(fair_share(2, 2, 2), 0.5);
        // A CPU is left for each.
        assert_eq!(fair_share(8, 4, 4), 1.0);
        assert_eq!(fair_share(8, 4, 12), 0.5);
        // Too many threads have half a CPU each even alone.
        assert_eq!(fair_share(2, 4, 4), 0.5);
    }

    #[test]
    fn none_are_started_and_ended() {
        assert!(Busy::start(0).unwrap().0.is_empty());
    }
}
