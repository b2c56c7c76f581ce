//! The machine that was measured, and which revision of this repository it ran.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use ternary_kernels::Isa;

/// Facts that a reader needs to compare machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Name of the CPU as the system gives it.
    pub(crate) cpu: String,
    /// Family, model and stepping of an x86 CPU: virtual machines hide the name.
    pub(crate) version: Option<String>,
    /// CPUs that this process may use.
    pub(crate) cpus: usize,
    /// Memory in GiB, rounded.
    pub(crate) memory_gib: u64,
    /// Instruction sets that kernels are written for and this CPU has, worst first.
    pub(crate) isas: Vec<String>,
    /// Operating system.
    pub(crate) system: String,
    pub(crate) rustc: String,
}

impl Machine {
    /// Looks around.
    pub(crate) fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let version = match (field("cpu family"), field("model"), field("stepping")) {
            (Some(f), Some(m), Some(s)) => Some(format!("family {f}, model {m}, stepping {s}")),
            _ => None,
        };
        Self {
            cpu: field("model name").or_else(|| field("Model")).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            version,
            cpus: cpus(),
            memory_gib: memory_bytes("MemTotal").map_or(0, |b| (b + (1 << 29)) >> 30),
            isas: Isa::available().map(|i| i.name().to_owned()).collect(),
            system: std::env::consts::OS.to_owned(),
            rustc: said("rustc", &["--version"], Path::new(".")).unwrap_or_default(),
        }
    }

    /// A file name for it, without extension: `amd-epyc-25-17-1-2cpu`.
    pub(crate) fn slug(&self) -> String {
        let numbers = self.version.as_deref().map(|v| {
            let parts = v.split(", ").filter_map(|p| p.split(' ').nth(1));
            parts.map(|n| format!("-{n}")).collect::<String>()
        });
        let text = format!("{}{} {}cpu", self.cpu, numbers.unwrap_or_default(), self.cpus).to_lowercase();
        // Removes marks without meaning, and characters that a file name should not have.
        let text = ["(r)", "(tm)", " cpu "].iter().fold(text, |t, mark| t.replace(mark, " "));
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|w| !w.is_empty());
        words.collect::<Vec<_>>().join("-")
    }
}

/// CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A field of `/proc/meminfo` in bytes.
pub(crate) fn memory_bytes(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The revision checked out in `dir`, with the suffix `-dirty` if files differ.
pub(crate) fn revision(dir: &Path) -> String {
    let hash = said("git", &["rev-parse", "--short=10", "HEAD"], dir).unwrap_or_else(|| "unknown".to_owned());
    // The report itself is not part of what was measured.
    let changed = said("git", &["status", "--porcelain", "--", ".", ":!docs"], dir).is_some_and(|s| !s.is_empty());
    if changed { hash + "-dirty" } else { hash }
}

/// Stdout of a program, without the line end; `None` if it fails.
pub(crate) fn said(program: &str, args: &[&str], dir: &Path) -> Option<String> {
    let out = Command::new(program).args(args).current_dir(dir).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Today as `2026-01-31`, in UTC.
pub(crate) fn today() -> String {
    let seconds = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    date(seconds / 86_400)
}

/// The day `days` after 1970-01-01.
fn date(days: u64) -> String {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(11_017), "2000-03-01");
        assert_eq!(date(20_453), "2025-12-31");
    }

    #[test]
    fn slugs_are_file_names() {
        let mut m = Machine::here();
        m.cpu = "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz".into();
        (m.version, m.cpus) = (Some("family 6, model 140, stepping 1".into()), 8);
        assert_eq!(m.slug(), "intel-core-i7-1185g7-3-00ghz-6-140-1-8cpu");
    }
}
