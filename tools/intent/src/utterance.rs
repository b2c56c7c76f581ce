//! Utterances with their intents and slots, from the files of SNIPS and CLINC150.

use std::path::{Path, PathBuf};

use bitnet::train::extract::Marked;
use serde::Deserialize;

use crate::error::IntentError;

/// The question that is asked about an utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// One of seven intents and its slots (SNIPS).
    Slots,
    /// One of 150 intents, or none of them (CLINC150).
    Intent,
}

/// The intent of an utterance that is none of the known ones.
pub const OUT_OF_SCOPE: &str = "oos";

/// An utterance and its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utterance {
    /// The task.
    pub task: Task,
    /// The utterance; spans are the values of slots.
    pub said: Marked,
    /// The reference answer.
    pub intent: String,
    /// Names of the slots, one for each span.
    pub slots: Vec<String>,
}

impl Utterance {
    /// Slots with their values.
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.slots.iter().enumerate().map(|(i, name)| (name.clone(), self.said.value(i))).collect()
    }
}

/// A data set in its official parts.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// To learn from.
    pub train: Vec<Utterance>,
    /// Validation data; for SNIPS, which has none, a part of the training data.
    pub dev: Vec<Utterance>,
    /// To report.
    pub test: Vec<Utterance>,
    /// Utterances that were left out, as their form of answer cannot hold them.
    pub left_out: usize,
}

/// The text of a file, or of the same file compressed (`.zst`).
///
/// # Errors
/// Neither is there, or it cannot be read.
pub fn read_text(path: &Path) -> Result<String, IntentError> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(".zst");
    let packed = PathBuf::from(packed);
    if path.is_file() || !packed.is_file() {
        return std::fs::read_to_string(path).map_err(IntentError::io(path));
    }
    let bytes = std::fs::read(&packed).map_err(IntentError::io(&packed))?;
    let bad = |e: String| IntentError::unreadable(packed.display().to_string(), e);
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).map_err(|e| bad(e.to_string()))?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut decoder, &mut text).map_err(|e| bad(e.to_string()))?;
    Ok(text)
}

#[derive(Deserialize)]
struct SnipsLine {
    text: String,
    intent: String,
    slots: Vec<SnipsSlot>,
}

#[derive(Deserialize)]
struct SnipsSlot {
    slot: String,
    start: usize,
    end: usize,
}

/// SNIPS: `train.jsonl` and `valid.jsonl` of a folder; the latter is the test data. One in 25 of the former, by a
/// hash of the text, is kept for validation.
///
/// # Errors
/// Files that are not there or have another form.
pub fn snips(folder: &Path) -> Result<Parts, IntentError> {
    let mut parts = Parts::default();
    for (file, tested) in [("train.jsonl", false), ("valid.jsonl", true)] {
        let path = folder.join(file);
        for (i, line) in read_text(&path)?.lines().enumerate() {
            let bad = |e: String| IntentError::unreadable(format!("{}, line {}", path.display(), i + 1), e);
            let line: SnipsLine = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
            let spans: Vec<_> = line.slots.iter().map(|s| s.start..s.end).collect();
            let length = line.text.chars().count();
            if spans.iter().any(|s| s.start >= s.end || s.end > length) {
                return Err(bad("a slot is outside of its text".into()));
            }
            let said = Marked::new(&line.text, spans).trimmed();
            let slots: Vec<String> = line.slots.into_iter().map(|s| s.slot).collect();
            let twice = slots.iter().enumerate().any(|(i, name)| slots[..i].contains(name));
            let to = match (tested, twice) {
                (true, _) => &mut parts.test,
                // A JSON object has each name once.
                (false, true) => {
                    parts.left_out += 1;
                    continue;
                }
                (false, false) if hash(&said.text()).is_multiple_of(25) => &mut parts.dev,
                (false, false) => &mut parts.train,
            };
            to.push(Utterance { task: Task::Slots, said, intent: line.intent, slots });
        }
    }
    Ok(parts)
}

/// CLINC150: `data_full.json` of a folder, with the utterances out of scope of each part.
///
/// # Errors
/// A file that is not there or has another form.
pub fn clinc(folder: &Path) -> Result<Parts, IntentError> {
    let path = folder.join("data_full.json");
    let bad = |e: String| IntentError::unreadable(path.display().to_string(), e);
    let all: std::collections::BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&read_text(&path)?).map_err(|e| bad(e.to_string()))?;
    let part = |names: [&str; 2]| -> Result<Vec<Utterance>, IntentError> {
        let mut utterances = Vec::new();
        for name in names {
            for (text, intent) in all.get(name).ok_or_else(|| bad(format!("the part {name:?} is missing")))? {
                let said = Marked::new(text, Vec::new()).trimmed();
                utterances.push(Utterance { task: Task::Intent, said, intent: intent.clone(), slots: Vec::new() });
            }
        }
        Ok(utterances)
    };
    Ok(Parts {
        train: part(["train", "oos_train"])?,
        dev: part(["val", "oos_val"])?,
        test: part(["test", "oos_test"])?,
        left_out: 0,
    })
}

/// FNV-1a, 64 bits: the same on every machine.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
