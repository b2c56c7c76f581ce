//! Child processes with a bound on their time, and their memory as the system reports it.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::HostileError;

/// The end of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Whether that signal was ours, at the end of its time.
    pub(crate) timed_out: bool,
    /// Peak resident memory in bytes, as far as it was seen.
    pub(crate) peak: u64,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// Faults under any limit: a signal, a panic, too much time, too much memory.
    pub(crate) fn fault(&self, memory: u64) -> Option<String> {
        let first = |text: &str| {
            text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default().chars().take(160).collect::<String>()
        };
        if self.timed_out {
            return Some(format!("still running after {:.1} s", self.took.as_secs_f64()));
        }
        if let Some(signal) = self.signal {
            return Some(format!("ended by signal {signal}: {}", first(&self.err)));
        }
        if matches!(self.code, Some(101 | 134 | 139)) || self.err.contains("panicked") {
            return Some(format!("panicked (exit code {:?}): {}", self.code, first(&self.err)));
        }
        (self.peak > memory).then(|| format!("{} of memory, allowed are {}", megabytes(self.peak), megabytes(memory)))
    }
}

/// Bytes for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// A figure of `/proc/PID/status`, in bytes.
pub(crate) fn status_of(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Runs a command with at most `time`, and ends it then.
pub(crate) fn watched(mut command: Command, time: Duration) -> Result<Ended, HostileError> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().map_err(HostileError::io("start", Path::new(&program)))?;
    let out = reader(child.stdout.take());
    let err = reader(child.stderr.take());
    let (mut peak, mut timed_out) = (0, false);
    let status = loop {
        peak = peak.max(status_of(child.id(), "VmHWM").unwrap_or(0));
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(source) => return Err(HostileError::Io { op: "wait for", path: program.into(), source }),
        }
        if began.elapsed() > time && !timed_out {
            timed_out = true;
            end(&mut child);
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let text = |handle: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&handle.join().unwrap_or_default()).into_owned()
    };
    Ok(Ended {
        code: status.code(),
        signal: status.signal(),
        timed_out,
        peak,
        out: text(out),
        err: text(err),
        took: began.elapsed(),
    })
}

/// Ends a child; one that has ended already is not an error.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
}

/// Reads a pipe to its end, and keeps the beginning.
fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    const KEPT: usize = 1 << 20;
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let Some(mut pipe) = pipe else { return kept };
        let mut buffer = [0; 1 << 16];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            let room = KEPT.saturating_sub(kept.len()).min(n);
            kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
        }
        kept
    })
}
