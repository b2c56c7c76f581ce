//! The library, on a thread with a small stack: each generator, and each file, in a separate process.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bitnet::{Constraint, Error, GenerateOptions, Message, Model};
use loader::chat::{ChatTemplate, RenderOptions, SpecialTokens};
use loader::tokenizer::Tokenizer;

use crate::error::HostileError;
use crate::kinds::{self, Expect, KINDS, Kind, Reader, Variant};
use crate::report::{Report, within};
use crate::watch::{megabytes, watched};

/// As small as the stacks of threads are on common systems without glibc.
const STACK: usize = 256 << 10;
/// Longest message of a refusal: it is read by a person.
const LONGEST_MESSAGE: usize = 700;
/// One whole generator, all its sizes together.
const ALL_SIZES: Duration = Duration::from_secs(60);

/// Outcome of an input.
#[derive(Debug)]
enum Outcome {
    Answered,
    Refused(String),
}

/// Every generator of every kind, then the files of `inputs`.
pub(crate) fn all(report: &mut Report, inputs: &Path) -> Result<(), HostileError> {
    for kind in KINDS {
        for variant in kind.variants {
            let name = format!("library {} {}", kind.name, variant.name);
            if report.wants(&name) {
                let result = child(kind.name, variant.name)?;
                report.row(&name, result);
            }
        }
    }
    for (name, path) in files(inputs)? {
        let Some(kind) = kind_of_file(&name) else { continue };
        let row = format!("library {kind} {name}");
        if report.wants(&row) {
            let result = child(kind, &path)?;
            report.row(&row, result);
        }
    }
    Ok(())
}

/// Files of a folder, by name; empty if it is absent.
pub(crate) fn files(inputs: &Path) -> Result<Vec<(String, String)>, HostileError> {
    let Ok(entries) = std::fs::read_dir(inputs) else {
        println!("skipped {}: it is absent", inputs.display());
        return Ok(Vec::new());
    };
    let mut files: Vec<(String, String)> = entries
        .filter_map(Result::ok)
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path().to_string_lossy().into_owned()))
        .filter(|(name, _)| !name.ends_with(".md"))
        .collect();
    files.sort();
    Ok(files)
}

/// Which kind a file of hostile inputs is of, by its name; requests carry their constraint within.
pub(crate) fn kind_of_file(name: &str) -> Option<&'static str> {
    let extension = name.rsplit('.').next().unwrap_or_default();
    match extension {
        "jinja" => Some("template"),
        "json" if name.starts_with("tokenizer") => Some("tokenizer"),
        "json" => Some("request"),
        _ => None,
    }
}

/// Runs `probe KIND VARIANT` as a separate process.
fn child(kind: &str, variant: &str) -> Result<Result<String, String>, HostileError> {
    let program = std::env::current_exe().map_err(HostileError::io("find", "this program"))?;
    let mut command = Command::new(program);
    command.args(["probe", kind, variant]);
    let ended = watched(command, ALL_SIZES)?;
    // Time and memory of each size are measured in the child; here only how it ends.
    if let Some(fault) = ended.fault(u64::MAX) {
        let last = ended.out.lines().last().unwrap_or("nothing was read");
        return Ok(Err(format!("{fault} (after: {last})")));
    }
    let verdict = ended.out.lines().last().unwrap_or_default().to_owned();
    let noise = ended.err.lines().next().unwrap_or_default().to_owned();
    Ok(match (ended.code, noise.is_empty()) {
        (Some(0), true) => Ok(verdict),
        (Some(0), false) => Err(format!("something was printed to stderr: {noise}")),
        _ => Err(if verdict.is_empty() { noise } else { verdict }),
    })
}

/// The child: reads larger and larger inputs, a line for each, and ends with a verdict.
pub(crate) fn run(kind: &str, variant: &str) -> Result<(), HostileError> {
    // The model for constraints, loaded before anything is measured.
    let model = Model::tiny()?;
    begin(&model, &Constraint::regex("a"))?;
    let verdict = match kind {
        "request" => request(&model, Path::new(variant))?,
        _ => {
            let kind = kinds::named(kind)?;
            match kind.variants.iter().find(|v| v.name == variant) {
                Some(variant) => sizes(&model, kind, variant),
                None => {
                    let text = std::fs::read_to_string(variant).map_err(HostileError::io("read", variant))?;
                    read(&model, kind, &text).map(|(outcome, cost)| format!("{} ({cost})", told(&outcome)))
                }
            }
        }
    };
    match verdict {
        Ok(what) => println!("{what}"),
        Err(what) => {
            println!("{what}");
            std::process::exit(1);
        }
    }
    Ok(())
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered => "answered".to_owned(),
        Outcome::Refused(why) => format!("refused: {why}"),
    }
}

/// Doubles the size until it is refused.
fn sizes(model: &Model, kind: &Kind, variant: &Variant) -> Result<String, String> {
    let (mut size, mut last) = (1usize, None);
    loop {
        let text = (variant.make)(size);
        let (outcome, cost) = read(model, kind, &text).map_err(|fault| format!("at size {size}: {fault}"))?;
        println!("size {size}, {} bytes: {} ({cost})", text.len(), told(&outcome));
        match (outcome, variant.expect) {
            (Outcome::Answered, Expect::Refused) => return Err("answered, though nothing can satisfy it".to_owned()),
            (Outcome::Refused(why), Expect::Grows) if last.is_none() => {
                return Err(format!("even the smallest is refused: {why}"));
            }
            (Outcome::Refused(why), Expect::Grows | Expect::Refused) => {
                let before = last.map_or_else(String::new, |n: usize| format!("{n} works, "));
                return Ok(format!("{before}{size} is refused: {why} ({cost})"));
            }
            (Outcome::Answered, _) => last = Some(size),
            (Outcome::Refused(_), Expect::Either) => {}
        }
        if size >= variant.most {
            return Ok(format!("all up to {size} ended well ({cost})"));
        }
        size = size.saturating_mul(2).min(variant.most);
    }
}

/// Reads one input on a small stack, within the limits of its kind.
fn read(model: &Model, kind: &Kind, text: &str) -> Result<(Outcome, String), String> {
    let before = resident();
    let began = Instant::now();
    let reader = kind.reader;
    let outcome = std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || by(model, reader, text));
        match small.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) => Err("a panic".to_owned()),
            Err(error) => Err(format!("no thread: {error}")),
        }
    })?;
    let took = began.elapsed();
    let grown = peak().saturating_sub(before);
    let cost = format!("{:.2} s, {}", took.as_secs_f64(), megabytes(grown));
    if took > within(kind.seconds) {
        return Err(format!("{} took {:.2} s, allowed are {:.1} s", told(&outcome), took.as_secs_f64(), kind.seconds));
    }
    let allowed = kind.memory.0 + kind.memory.1 * text.len() as u64;
    if grown > allowed {
        return Err(format!("{} took {}, allowed are {}", told(&outcome), megabytes(grown), megabytes(allowed)));
    }
    if let Outcome::Refused(why) = &outcome {
        if why.len() > LONGEST_MESSAGE {
            return Err(format!("a refusal of {} characters", why.len()));
        }
        if why.contains("panicked") || why.contains(".rs:") {
            return Err(format!("a refusal that tells of the inside: {why}"));
        }
    }
    Ok((outcome, cost))
}

/// The constraint within a request to the server.
fn request(model: &Model, path: &Path) -> Result<Result<String, String>, HostileError> {
    let text = std::fs::read_to_string(path).map_err(HostileError::io("read", path))?;
    let body: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let part = |name: &str| body.get(name).and_then(|v| v.as_str()).map(str::to_owned);
    let (kind, source) = match (part("grammar"), part("regex")) {
        (Some(grammar), _) => ("lark", grammar),
        (_, Some(regex)) => ("regex", regex),
        _ => ("schema", body["response_format"]["json_schema"]["schema"].to_string()),
    };
    let kind = kinds::named(kind)?;
    Ok(read(model, kind, &source).map(|(outcome, cost)| format!("{} ({cost})", told(&outcome))))
}

fn by(model: &Model, reader: Reader, text: &str) -> Outcome {
    match reader {
        Reader::Lark => constrained(model, &Constraint::lark(text)),
        Reader::Regex => constrained(model, &Constraint::regex(text)),
        Reader::Schema => match serde_json::from_str(text) {
            Ok(schema) => constrained(model, &Constraint::json_schema(&schema)),
            // The limit of JSON's depth.
            Err(error) => Outcome::Refused(error.to_string()),
        },
        Reader::Template => template(text),
        Reader::Tokenizer => tokenizer(text.as_bytes()),
    }
}

/// A few tokens under a constraint.
fn begin(model: &Model, constraint: &Constraint) -> Result<(), Error> {
    let options = GenerateOptions::default().temperature(0.0).max_tokens(6).constraint(constraint.clone());
    model.session().generate("Once upon a time", options)?.finish().map(drop)
}

fn constrained(model: &Model, constraint: &Constraint) -> Outcome {
    match begin(model, constraint) {
        Ok(()) | Err(Error::Constraint(bitnet::ConstraintError::Unfinished { .. })) => Outcome::Answered,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn template(source: &str) -> Outcome {
    let messages =
        [Message::system("Be brief."), Message::user("Hello!"), Message::assistant("Yes?"), Message::user("a\n\nb")];
    let rendered = ChatTemplate::from_source(source)
        .and_then(|template| template.clone().render(&messages, &SpecialTokens::default(), &RenderOptions::default()));
    match rendered {
        Ok(_) => Outcome::Answered,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn tokenizer(bytes: &[u8]) -> Outcome {
    let long = "aaaaaaaaaabcdefghijklmnopqrstuvwxyz ".repeat(300);
    let read = Tokenizer::from_bytes(bytes).and_then(|tokenizer| {
        for text in [
            "a",
            "abc",
            "Once upon a time, 1234 \u{3042}\u{1F600}e\u{301}\r\n\t <|eot_id|>  ",
            &"a".repeat(30_000),
            &long,
        ] {
            let ids = tokenizer.encode(text, true)?;
            tokenizer.decode(&ids, false);
        }
        Ok(())
    });
    match read {
        Ok(()) => Outcome::Answered,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// Resident memory, with the peak set back to it.
fn resident() -> u64 {
    // Without the right to do so the peak is that of all sizes, which is stricter.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    crate::watch::status_of(std::process::id(), "VmRSS").unwrap_or(0)
}

fn peak() -> u64 {
    crate::watch::status_of(std::process::id(), "VmHWM").unwrap_or(0)
}
