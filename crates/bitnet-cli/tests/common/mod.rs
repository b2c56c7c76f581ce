//! Runs the binary as a user would.
#![allow(dead_code)] // Each test file uses a part.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bitnet::{ExtractorConfig, ExtractorWeights, TaskConfig};
use serde_json::Value;

/// A folder for one test: current folder and cache of the programs it starts.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// A small shape, made in no time: 2 layers, vocabulary 300, BOS 1, EOS 2.
pub(crate) const SHAPE: &str = r#"{"vocab_size": 300, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4000, "bos_token_id": 1,
    "eos_token_id": 2, "seed": 3}"#;

impl Place {
    /// A new one that holds `shape.json`.
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("shape.json", SHAPE);
        place
    }

    /// With the extractor `a.gguf`, which has two tasks.
    pub(crate) fn with_extractor() -> Self {
        let place = Self::new();
        let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect();
        let tasks = vec![
            TaskConfig::new("music", names("intent", 3), names("slot", 2)),
            TaskConfig::new("topic", names("topic", 2), vec![]),
        ];
        let config =
            ExtractorConfig { buckets: 100, hidden_size: 32, intermediate_size: 64, ..ExtractorConfig::new(tasks) };
        let weights = ExtractorWeights::synthetic(config, 9).unwrap();
        loader::extractor::write_gguf(&place.path("a.gguf"), &weights).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command without any part of the caller's environment that could change its behaviour.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_bitnet"));
        c.args(args).current_dir(self.dir.path()).env("XDG_CACHE_HOME", self.path("cache")).stdin(Stdio::null());
        for name in ["BITNET_MODEL", "BITNET_LOG", "BITNET_API_KEY", "NO_COLOR", "HF_HOME"] {
            c.env_remove(name);
        }
        c
    }

    /// A line for the shell, with the same care.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let mut c = Command::new("sh");
        c.args(["-c", line])
            .current_dir(self.dir.path())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .stdin(Stdio::null());
        for name in ["BITNET_MODEL", "BITNET_LOG", "NO_COLOR", "HF_HOME"] {
            c.env_remove(name);
        }
        c
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Done {
        let mut c = self.command(args);
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A program that fails early does not read.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        Done::of(child.wait_with_output().unwrap())
    }
}

/// Output of a finished command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        let text = |b: Vec<u8>| String::from_utf8(b).expect("output is UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Checks that it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks that it failed with `code` and one line that begins with `error:` and contains `what`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, what: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines: Vec<&str> = self.err.lines().filter(|l| l.starts_with("error:")).collect();
        assert!(matches!(lines[..], [line] if line.contains(what)), "{what:?} is not in {self:?}");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{self:?}");
        self
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let done = self.ok();
        let value: Value = serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {:?}", done.out));
        assert!(value.is_object());
        value
    }
}

/// The keys of an object, in order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The model for tests that need a trained one; `None` if the reference models are missing.
pub(crate) fn tinystories() -> Option<PathBuf> {
    Some(test_support::shared_dir()?.join("models/tinystories_5m"))
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
