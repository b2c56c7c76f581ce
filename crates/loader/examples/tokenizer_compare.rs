//! Our tokenizer compared with the library `tokenizers`: ids, speed, memory, and hostile files. The figures of
//! docs/adr/0025 come from here.
//!
//! ```text
//! cargo run --release -p loader --example tokenizer_compare -- TOKENIZER.json[.zst] TEXT[.zst] ...
//! ```
//!
//! Each measurement runs in its own process, so that one implementation's memory is not the other's. Texts are encoded
//! in documents of some 4 KB that end at a line end; the time is the best of three passes, the memory the peak of the
//! process less that of one which only reads the text.

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loader::tokenizer::Tokenizer;

const DOCUMENT: usize = 4096;
const PASSES: usize = 3;
/// Time limits of a measurement, and of a hostile file.
const LIMITS: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(10)];

/// Files of a few hundred bytes that make a tokenizer panic, hang or fill memory unless it counts its work.
const HOSTILE: [(&str, &str); 3] = [
    ("FixedLength of 0", r#""pre_tokenizer": {"type": "FixedLength", "length": 0}"#),
    ("twelve replacements by ten", "replacements"),
    (
        "nested repetition",
        r#""pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?=(a+)+$)b"}, "behavior": "Isolated", "invert": false}"#,
    ),
];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--measure", who, tokenizer, text] => measure(who, Path::new(tokenizer), Path::new(text)),
        [tokenizer, ref texts @ ..] if !texts.is_empty() => compare(tokenizer, texts),
        _ => Err("usage: tokenizer_compare TOKENIZER.json TEXT ...".into()),
    }
}

fn compare(tokenizer: &str, texts: &[&str]) -> Outcome<()> {
    println!(
        "| text | ids | MB/s, ours | MB/s, tokenizers | load, ours | load, tokenizers | memory, ours | memory, tokenizers |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    for text in texts {
        let base: f64 = field(&child("none", tokenizer, text, LIMITS[0])?, 3)?;
        let [ours, theirs] = ["ours", "tokenizers"].map(|who| child(who, tokenizer, text, LIMITS[0]));
        let (ours, theirs) = (ours?, theirs?);
        let same = if ours.split(' ').next() == theirs.split(' ').next() { "equal" } else { "DIFFERENT" };
        let name = Path::new(text).file_name().unwrap_or_default().to_string_lossy();
        let [a, b] = [&ours, &theirs];
        println!(
            "| {name} | {same} | {:.1} | {:.1} | {:.0} ms | {:.0} ms | {:.0} MiB | {:.0} MiB |",
            field(a, 1)?,
            field(b, 1)?,
            field(a, 2)?,
            field(b, 2)?,
            field(a, 3)? - base,
            field(b, 3)? - base,
        );
    }
    println!("\n| hostile file | ours | tokenizers |\n|---|---|---|");
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("text");
    std::fs::write(&text, "a".repeat(2000))?;
    for (name, part) in HOSTILE {
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, hostile(part))?;
        let says = |who| child(who, &file.to_string_lossy(), &text.to_string_lossy(), LIMITS[1]);
        let [ours, theirs] = ["ours", "tokenizers"].map(|who| match says(who) {
            Ok(_) => "works".to_owned(),
            Err(error) => error.to_string(),
        });
        println!("| {name} | {ours} | {theirs} |");
    }
    Ok(())
}

fn hostile(part: &str) -> String {
    let replace = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}"#;
    let part = match part {
        "replacements" => {
            format!(r#""normalizer": {{"type": "Sequence", "normalizers": [{}]}}"#, [replace; 12].join(","))
        }
        other => other.to_owned(),
    };
    format!(
        r#"{{"version": "1.0", {part}, "decoder": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}}, "model": {{"type": "BPE", "vocab": {{"a": 0}}, "merges": []}}}}"#
    )
}

/// Measurements of a child: a hash of the ids, MB/s, milliseconds for loading, MiB at the peak.
fn child(who: &str, tokenizer: &str, text: &str, limit: Duration) -> Outcome<String> {
    let program = std::env::current_exe()?;
    let args = ["--measure", who, tokenizer, text];
    let mut child = Command::new(program).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if began.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            None => {
                child.kill()?;
                child.wait()?;
                return Err("still running after the time limit".into());
            }
        }
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().map(|mut s| s.read_to_string(&mut out)).transpose()?;
    child.stderr.take().map(|mut s| s.read_to_string(&mut err)).transpose()?;
    match status.success() {
        true => Ok(out.trim().to_owned()),
        false if err.contains("panicked") => Err("panics".into()),
        false => Err(format!("refused: {}", err.trim().trim_start_matches("Error: ")).into()),
    }
}

fn field(line: &str, at: usize) -> Outcome<f64> {
    Ok(line.split(' ').nth(at).ok_or("a child printed too little")?.parse()?)
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    match path.extension().is_some_and(|e| e == "zst") {
        true => ruzstd::decoding::StreamingDecoder::new(file)?.read_to_end(&mut bytes)?,
        false => std::io::BufReader::new(file).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

/// Pieces of at least [`DOCUMENT`] bytes that end at line ends.
fn documents(text: &str) -> Vec<&str> {
    let (mut all, mut rest) = (Vec::new(), text);
    while rest.len() > DOCUMENT {
        let end = rest.as_bytes()[DOCUMENT..].iter().position(|b| *b == b'\n').map_or(rest.len(), |n| DOCUMENT + n + 1);
        let (document, after) = rest.split_at(end);
        all.push(document);
        rest = after;
    }
    all.push(rest);
    all
}

fn measure(who: &str, tokenizer: &Path, text: &Path) -> Outcome<()> {
    let text = String::from_utf8(read(text)?)?;
    let documents = documents(&text);
    let bytes = if who == "none" { Vec::new() } else { read(tokenizer)? };
    let began = Instant::now();
    type Encode = Box<dyn Fn(&str) -> Outcome<Vec<u32>>>;
    let encode: Encode = match who {
        "ours" => {
            let tokenizer = Tokenizer::from_bytes(&bytes)?;
            Box::new(move |text| Ok(tokenizer.encode(text, false)?))
        }
        "tokenizers" => {
            let tokenizer = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| e.to_string())?;
            Box::new(move |text| Ok(tokenizer.encode(text, false).map_err(|e| e.to_string())?.get_ids().to_vec()))
        }
        _ => Box::new(|_| Ok(Vec::new())),
    };
    let load = began.elapsed();
    let (mut hash, mut best) = (0, Duration::MAX);
    for _ in 0..PASSES {
        let began = Instant::now();
        hash = 0xcbf2_9ce4_8422_2325_u64;
        for document in &documents {
            for id in encode(document)? {
                hash = (hash ^ u64::from(id)).wrapping_mul(0x100_0000_01b3);
            }
        }
        best = best.min(began.elapsed());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    let rate = text.len() as f64 / 1e6 / best.as_secs_f64();
    println!("{hash:016x} {rate} {} {}", load.as_secs_f64() * 1e3, peak / 1024.0);
    Ok(())
}
