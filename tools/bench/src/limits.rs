//! The limits of the machine, measured right before and right after each measurement: machines are shared, and a memory
//! that changes its speed by half within a minute would otherwise look like a change of the program.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ternary_kernels::Isa;
use ternary_kernels::probe::{dot_peak, read_bandwidth};

use crate::error::BenchError;
use crate::machine::memory_bytes;

/// Bytes that the bandwidth probe reads, as that of `bitnet doctor`.
const PROBE_BYTES: u64 = 512 << 20;

/// Limits with a given number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Read bandwidth in GB/s; `None` if the program measures it itself.
    pub(crate) bandwidth_gb_s: Option<f64>,
    /// By instruction set, 1e9 operations per second.
    pub(crate) peak_gop_s: BTreeMap<String, f64>,
}

impl Limits {
    fn measure(threads: NonZeroUsize, bandwidth: bool) -> Result<Self, BenchError> {
        let bytes = memory_bytes("MemAvailable").map_or(PROBE_BYTES, |free| PROBE_BYTES.min(free / 4));
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut peak_gop_s = BTreeMap::new();
        for isa in Isa::available() {
            if let Some(peak) = dot_peak(isa, threads, Duration::from_millis(60))? {
                peak_gop_s.insert(isa.name().to_owned(), peak);
            }
        }
        let probe = || read_bandwidth(threads, bytes, Duration::from_millis(600));
        Ok(Self { bandwidth_gb_s: bandwidth.then(probe).transpose()?, peak_gop_s })
    }
}

/// A program's output between two measurements of the limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bracketed {
    /// Stdout of the program.
    pub(crate) stdout: String,
    /// Before and after.
    pub(crate) limits: [Limits; 2],
}

impl Bracketed {
    /// Before and after.
    pub(crate) fn bandwidth(&self) -> Option<[f64; 2]> {
        Some([self.limits[0].bandwidth_gb_s?, self.limits[1].bandwidth_gb_s?])
    }

    /// Before and after, if `isa` has a dot-product instruction.
    pub(crate) fn peak(&self, isa: &str) -> Option<[f64; 2]> {
        Some([*self.limits[0].peak_gop_s.get(isa)?, *self.limits[1].peak_gop_s.get(isa)?])
    }
}

/// The hidden command that runs `argv` between two measurements with `threads` threads and prints a [`Bracketed`]. It
/// is a separate process so that a measurement can keep the machine quiet around the probes as well.
///
/// # Errors
/// If the program fails.
pub(crate) fn bracket(threads: NonZeroUsize, bandwidth: bool, argv: &[String]) -> Result<(), BenchError> {
    let (program, args) = argv.split_first().ok_or_else(|| BenchError::Usage("nothing to run".into()))?;
    let before = Limits::measure(threads, bandwidth)?;
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(BenchError::io(program))?;
    if !out.status.success() {
        return Err(BenchError::Failed {
            command: argv.join(" "),
            status: out.status.to_string(),
            said: String::new(),
        });
    }
    let limits = [before, Limits::measure(threads, bandwidth)?];
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    let text = serde_json::to_string(&Bracketed { stdout, limits }).map_err(|e| BenchError::unreadable("output", e))?;
    writeln!(std::io::stdout(), "{text}").map_err(BenchError::io("stdout"))
}
