//! The programs that are measured: built in release mode, kept aside, run between probes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::BenchError;
use crate::limits::Bracketed;
use crate::machine::revision;

/// Benchmarks of kernels; each is a file of this name in `benches/benches`.
pub(crate) const KERNEL_BENCHES: &[&str] = &["gemv", "gemm"];

/// Programs of one revision.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) revision: String,
    /// The command line program.
    pub(crate) bitnet: PathBuf,
    /// Benchmarks of kernels by name.
    pub(crate) benches: BTreeMap<String, PathBuf>,
    /// This program.
    pub(crate) this: PathBuf,
    /// Command that every measurement is started through: `taskset -c 0` for example.
    pub(crate) through: Vec<String>,
    /// Folder for files of measurements.
    pub(crate) scratch: PathBuf,
}

impl Programs {
    /// Builds the workspace in `dir` into `target`, and copies the programs to `scratch`, where no later build changes
    /// them.
    ///
    /// # Errors
    /// If it does not build.
    pub(crate) fn build(dir: &Path, target: &Path, scratch: &Path, through: &[String]) -> Result<Self, BenchError> {
        let revision = revision(dir);
        println!("building {revision} in release mode");
        let mut args: Vec<&str> =
            "build --release --workspace --bin bitnet --message-format=json-render-diagnostics".split(' ').collect();
        // An older revision may lack one.
        for name in KERNEL_BENCHES.iter().filter(|n| dir.join(format!("benches/benches/{n}.rs")).is_file()) {
            args.extend(["--bench", name]);
        }
        let out = Command::new("cargo")
            .args(&args)
            .current_dir(dir)
            .env("CARGO_TARGET_DIR", target)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(BenchError::io("cargo"))?;
        if !out.status.success() {
            let command = format!("cargo {}", args.join(" "));
            return Err(BenchError::Failed { command, status: out.status.to_string(), said: String::new() });
        }
        let mut found = executables(&String::from_utf8_lossy(&out.stdout));
        let bin = scratch.join("bin").join(&revision);
        std::fs::create_dir_all(&bin).map_err(BenchError::io(&bin))?;
        for (name, path) in &mut found {
            let copy = bin.join(name.as_str());
            // A running copy cannot be written to, but it can be replaced.
            let _ = std::fs::remove_file(&copy);
            std::fs::copy(&*path, &copy).map_err(BenchError::io(&copy))?;
            *path = copy;
        }
        let bitnet = found.remove("bitnet").ok_or_else(|| BenchError::unreadable("cargo", "it built no `bitnet`"))?;
        let this = std::env::current_exe().map_err(BenchError::io("this program"))?;
        let (through, scratch) = (through.to_vec(), scratch.to_path_buf());
        Ok(Self { revision, bitnet, benches: found, this, through, scratch })
    }

    /// Runs `program` with `threads` threads between two measurements of the limits.
    ///
    /// # Errors
    /// If it fails, or takes longer than `timeout`.
    pub(crate) fn bracketed(
        &self,
        program: &Path,
        args: &[String],
        threads: usize,
        env: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Bracketed, BenchError> {
        let mut argv = self.through.clone();
        argv.push(self.this.display().to_string());
        argv.extend(["__bracket".into(), "--threads".into(), threads.to_string()]);
        // `bitnet bench` measures the bandwidth itself.
        argv.extend((program == self.bitnet).then(|| "--no-bandwidth".to_owned()));
        argv.push("--".into());
        argv.push(program.display().to_string());
        argv.extend_from_slice(args);
        let text = output(&argv, env, timeout)?;
        // The last line; lines above it may come from the command in between.
        let line = text.trim_end().lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|e| BenchError::unreadable(argv.join(" "), e))
    }
}

/// Executables among cargo's messages, by the name of their target.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let artifacts = messages.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    artifacts
        .filter_map(|m| Some((m["target"]["name"].as_str()?.to_owned(), PathBuf::from(m["executable"].as_str()?))))
        .collect()
}

/// Stdout of a command. Its stderr is shown only if it fails.
fn output(argv: &[String], env: &[(&str, &str)], timeout: Duration) -> Result<String, BenchError> {
    let (program, args) = argv.split_first().ok_or_else(|| BenchError::Usage("nothing to run".into()))?;
    let mut child = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(BenchError::io(program))?;
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = read(child.stderr.take().map(|s| Box::new(s) as _));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(BenchError::io(program))? {
            break status.to_string().replace("exit status: 0", "");
        }
        if began.elapsed() > timeout {
            let _ = child.kill();
            let _ = child.wait();
            break format!("no result after {} s", timeout.as_secs());
        }
        // Rarely enough that it disturbs nothing.
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.is_empty() {
        return Ok(stdout.join().unwrap_or_default());
    }
    // After a timeout a grandchild may hold the pipes open: its output is then not waited for.
    let said = if stderr.is_finished() || !status.starts_with("no result") {
        let text = stderr.join().unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].iter().map(|l| format!(": {}", l.trim())).collect()
    } else {
        String::new()
    };
    Err(BenchError::Failed { command: argv.join(" "), status, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn executables_are_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"half"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"bitnet"},"executable":"/t/release/bitnet"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(executables(messages), BTreeMap::from([("bitnet".into(), PathBuf::from("/t/release/bitnet"))]));
    }

    #[test]
    fn a_program_that_fails_says_why_and_one_that_hangs_is_ended() {
        assert_eq!(output(&argv("echo a; echo b >&2"), &[], Duration::from_secs(60)).unwrap(), "a\n");
        let e = output(&argv("echo why >&2; exit 3"), &[], Duration::from_secs(60)).unwrap_err().to_string();
        assert!(e.contains("exit status: 3: why"), "{e}");
        let e = output(&argv("sleep 1000"), &[], Duration::ZERO).unwrap_err().to_string();
        assert!(e.contains("no result after 0 s"), "{e}");
    }
}
