//! Facts of the operating system about this process and this machine.

use std::num::NonZeroUsize;
use std::process::{Command, Stdio};

use crate::error::CliError;

/// Bytes that the bandwidth probe reads: larger than the caches of most machines by far.
const PROBE_BYTES: u64 = 512 << 20;

/// A field of `/proc/self/status`, for example `VmHWM`, in MiB; `None` if the system has none.
pub(crate) fn status_mib(field: &str) -> Option<f64> {
    kib_of(&std::fs::read_to_string("/proc/self/status").ok()?, field).map(|kib| kib as f64 / 1024.0)
}

/// A field of `/proc/meminfo`, for example `MemAvailable`, in bytes; `None` if the system has none.
pub(crate) fn memory_bytes(field: &str) -> Option<u64> {
    kib_of(&std::fs::read_to_string("/proc/meminfo").ok()?, field)?.checked_mul(1024)
}

/// The value of a line `Field:   123 kB`.
fn kib_of(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The name of the CPU, if the system reports it.
pub(crate) fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name") || l.starts_with("Model\t"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// CPUs that this process may use.
pub(crate) fn cpus() -> NonZeroUsize {
    bitnet::available_cpus()
}

/// The default number of threads of an engine.
pub(crate) fn threads() -> NonZeroUsize {
    ternary_kernels::default_threads()
}

/// Read bandwidth of main memory with `threads` threads, in GB/s, measured in a separate process so that the probe's
/// memory does not count as ours.
///
/// # Errors
/// [`CliError::Probe`] with the reason.
pub(crate) fn bandwidth_in_child(threads: usize) -> Result<f64, CliError> {
    let failed = |problem: String| CliError::Probe { problem };
    // A small machine gets a small probe rather than none.
    let bytes = memory_bytes("MemAvailable").map_or(PROBE_BYTES, |free| PROBE_BYTES.min(free / 4));
    let exe = std::env::current_exe().map_err(|e| failed(format!("cannot find the program's own executable: {e}")))?;
    let output = Command::new(exe)
        .args(["__bandwidth", "--threads", &threads.to_string(), "--bytes", &bytes.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(format!("the process cannot be started: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("{} {said}", output.status)));
    }
    text.trim().parse().map_err(|_| failed(format!("expected a number, got {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmHWMx:\t 7 kB\nVmHWM:\t  2048 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(kib_of(text, "VmHWM"), Some(2048));
        assert_eq!(kib_of(text, "RssAnon"), Some(12));
        assert_eq!(kib_of(text, "RssFile"), None);
    }
}
