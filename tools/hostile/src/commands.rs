//! The command: the same inputs as files and options, and paths that are not regular files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::HostileError;
use crate::kinds::{KINDS, Reader};
use crate::probe::{files, kind_of_file};
use crate::report::{Report, within};
use crate::watch::{Ended, watched};

/// Memory that a command may take besides twenty bytes for each byte of its input. The program, its model and tables
/// take some 60 MB of it.
const MEMORY: u64 = 300_000_000;
/// Seconds for a whole run of the command.
const SECONDS: f64 = 4.0;

/// Runs `program` in an empty folder.
struct Place<'a> {
    program: &'a Path,
    dir: tempfile::TempDir,
}

impl Place<'_> {
    fn write(&self, name: &str, text: &str) -> Result<String, HostileError> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).map_err(HostileError::io("write", &path))?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn run(&self, args: &[&str], time: Duration) -> Result<Ended, HostileError> {
        let mut command = Command::new(self.program);
        command.args(args).current_dir(self.dir.path()).env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        for name in ["BITNET_MODEL", "BITNET_LOG", "BITNET_API_KEY", "HF_HOME"] {
            command.env_remove(name);
        }
        watched(command, time)
    }
}

/// The expected end of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Must {
    /// Well, or with an error of one line.
    End,
    /// With an error.
    Fail,
}

fn judged(ended: &Ended, input: u64, must: Must) -> Result<String, String> {
    if let Some(fault) = ended.fault(MEMORY + 20 * input) {
        return Err(fault);
    }
    let said = ended.err.lines().find(|l| l.starts_with("error")).unwrap_or_default().to_owned();
    match ended.code {
        Some(0) if must == Must::Fail => Err("it ended well".to_owned()),
        Some(0) => Ok(format!("answered in {:.2} s", ended.took.as_secs_f64())),
        Some(2) if said.contains("unexpected argument") => Err(format!("this check is wrong: {said}")),
        Some(1 | 2) if said.is_empty() => Err(format!("it failed without a word: {:?}", ended.err)),
        Some(1 | 2) if said.len() > 1000 => Err(format!("an error of {} characters", said.len())),
        Some(1 | 2) => Ok(format!("{said} ({:.2} s)", ended.took.as_secs_f64())),
        other => Err(format!("exit code {other:?}: {said}")),
    }
}

/// All rows.
pub(crate) fn all(report: &mut Report, program: &Path, inputs: &Path) -> Result<(), HostileError> {
    let dir = tempfile::tempdir().map_err(HostileError::io("make a folder in", std::env::temp_dir()))?;
    let place = Place { program, dir };
    for (name, path) in files(inputs)? {
        let Some(kind) = kind_of_file(&name) else { continue };
        let text = std::fs::read_to_string(&path).map_err(HostileError::io("read", &path))?;
        let (reader, source) = match kind {
            "template" => (Reader::Template, text),
            "tokenizer" => (Reader::Tokenizer, text),
            _ => constraint_of(&text),
        };
        through(report, &place, &format!("command {name}"), reader, &source)?;
    }
    // One large input of each generator.
    for kind in KINDS {
        for variant in kind.variants.iter().step_by(5) {
            let text = (variant.make)(variant.most.min(5_000));
            through(report, &place, &format!("command {} {}", kind.name, variant.name), kind.reader, &text)?;
        }
    }
    odd_files(report, &place)
}

/// Field of a request to the server that constrains its text.
fn constraint_of(body: &str) -> (Reader, String) {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match (body.get("grammar").and_then(|v| v.as_str()), body.get("regex").and_then(|v| v.as_str())) {
        (Some(grammar), _) => (Reader::Lark, grammar.to_owned()),
        (_, Some(regex)) => (Reader::Regex, regex.to_owned()),
        _ => (Reader::Schema, body["response_format"]["json_schema"]["schema"].to_string()),
    }
}

fn through(report: &mut Report, place: &Place<'_>, name: &str, reader: Reader, text: &str) -> Result<(), HostileError> {
    // Longer arguments than this the system does not hand over.
    if !report.wants(name) || (reader == Reader::Regex && text.len() > 100_000) {
        return Ok(());
    }
    let file = place.write("input", text)?;
    let prompt = ["run", "Once", "-n", "4", "--temperature", "0"];
    let args: Vec<&str> = match reader {
        Reader::Lark => [&prompt[..], &["--grammar", &file]].concat(),
        Reader::Regex => [&prompt[..], &["--regex", text]].concat(),
        Reader::Schema => [&prompt[..], &["--json-schema", &file]].concat(),
        Reader::Template => vec!["run", "Hello", "--chat", "-n", "4", "--template", &file],
        Reader::Tokenizer => vec!["tokenize", "--tokenizer", &file, "abc abc"],
    };
    let ended = place.run(&args, within(SECONDS))?;
    report.row(name, judged(&ended, text.len() as u64, Must::End));
    Ok(())
}

/// Pipes, devices, folders and endless files where a file is expected, to read or to write.
fn odd_files(report: &mut Report, place: &Place<'_>) -> Result<(), HostileError> {
    let pipe = place.dir.path().join("pipe").to_string_lossy().into_owned();
    let made = watched(
        {
            let mut c = Command::new("mkfifo");
            c.arg(&pipe);
            c
        },
        within(2.0),
    )?;
    if made.code != Some(0) {
        report.fault("command odd files", "mkfifo did not work");
        return Ok(());
    }
    let folder = place.dir.path().to_string_lossy().into_owned();
    for (what, path) in
        [("a pipe", pipe.as_str()), ("/dev/zero", "/dev/zero"), ("/dev/tty", "/dev/tty"), ("a folder", folder.as_str())]
    {
        let rows: [(&str, Vec<&str>); 10] = [
            ("model", vec!["run", "-m", path, "x", "-n", "2"]),
            ("show", vec!["show", "-m", path]),
            ("tokenizer", vec!["tokenize", "--tokenizer", path, "x"]),
            ("text", vec!["tokenize", "--file", path]),
            ("grammar", vec!["run", "--grammar", path, "x", "-n", "2"]),
            ("schema", vec!["run", "--json-schema", path, "x", "-n", "2"]),
            ("template", vec!["run", "--chat", "--template", path, "x", "-n", "2"]),
            ("perplexity", vec!["ppl", "--file", path]),
            ("questions", vec!["eval", path]),
            ("training", vec!["train", "--data", path, "--train-tokenizer", "300", "--out", "trained"]),
        ];
        for (option, args) in rows {
            let name = format!("command {what} as {option}");
            if report.wants(&name) {
                let ended = place.run(&args, within(SECONDS))?;
                report.row(&name, judged(&ended, 0, Must::Fail));
            }
        }
    }
    let name = "command --force onto a pipe";
    if report.wants(name) {
        let model = place.dir.path().join("shape.json");
        let shape = r#"{"vocab_size": 300, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 400, "seed": 3}"#;
        std::fs::write(&model, shape).map_err(HostileError::io("write", &model))?;
        let args = ["convert", "synthetic:shape.json", &pipe, "--to", "i2_s", "--force"];
        let ended = place.run(&args, within(SECONDS))?;
        let still = std::fs::symlink_metadata(&pipe).is_ok_and(|m| !m.is_file());
        let kept = judged(&ended, 0, Must::Fail)
            .and_then(|what| if still { Ok(what) } else { Err("the pipe was replaced".into()) });
        report.row(name, kept);
    }
    Ok(())
}
