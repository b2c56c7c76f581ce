//! `bitnet show` of an extractor.

use std::path::Path;

use bitnet::{Directions, EncoderMixer, Extractor, ExtractorConfig, TaskConfig};
use loader::extractor;
use serde_json::{Value as Json, json};

use super::{Header, Lines};
use crate::ui::{self, Style};

/// Whether the headers are those of an extractor.
pub(super) fn is(header: &Header) -> bool {
    header.architecture == extractor::ARCHITECTURE
}

/// Its shape and its tasks, or the reason why it cannot be read.
pub(super) fn describe(path: &Path, out: &mut Lines<'_>) {
    let extractor = match Extractor::load(path) {
        Ok(extractor) => extractor,
        Err(error) => {
            return out.put("problem", format_args!("{} {error}", out.ui.out(Style::Red, "cannot be run:")));
        }
    };
    let c = extractor.config();
    out.put("it is", "an extractor: `bitnet extract` names intent and slots of an utterance with it");
    out.put("features", format_args!("{} rows of {}", c.buckets, c.hidden_size));
    let layers = format!(
        "{} of {} heads, {} wide, feed-forward {}, {}",
        c.num_layers,
        c.num_heads,
        c.hidden_size,
        c.intermediate_size,
        c.activation.name()
    );
    out.put("layers", layers);
    out.put("mixer", mixers(c));
    out.put("memory", ui::bytes(extractor.model().byte_len() as u64));
    for task in &c.tasks {
        out.put("task", format_args!("{}: {}", task.name, summary(task)));
    }
}

/// The mixers in words: one for all, or a list.
fn mixers(c: &ExtractorConfig) -> String {
    let word = |mixer: EncoderMixer| match (mixer, c.directions) {
        (EncoderMixer::Attention, Directions::Both) => "attention over all words",
        (EncoderMixer::Attention, Directions::Forward) => "attention over the words before and itself",
        (EncoderMixer::TttLinear, Directions::Both) => "TTT-Linear, forward and backward",
        (EncoderMixer::TttLinear, Directions::Forward) => "TTT-Linear, forward",
        (EncoderMixer::GatedDelta, Directions::Both) => "the gated delta rule, forward and backward",
        (EncoderMixer::GatedDelta, Directions::Forward) => "the gated delta rule, forward",
    };
    let all: Vec<EncoderMixer> = (0..c.num_layers).map(|l| c.mixer(l)).collect();
    match all.iter().all(|m| *m == all[0]) {
        true => word(all[0]).to_owned(),
        false => all.into_iter().map(word).collect::<Vec<_>>().join("; "),
    }
}

fn summary(task: &TaskConfig) -> String {
    let names = |names: &[String]| {
        let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
        format!("{}{}", shown.join(", "), if names.len() > 8 { " ..." } else { "" })
    };
    let once = match task.once.len() {
        0 => String::new(),
        n if n == task.slots.len() => ", each at most once".to_owned(),
        n => format!(", {n} of them at most once"),
    };
    let slots = match task.slots.len() {
        0 => String::new(),
        n => format!("; {n} slots ({}){once}", names(&task.slots)),
    };
    let oos = match task.oos {
        None => "has no out-of-scope threshold".to_owned(),
        Some(rule) => format!("out of scope below {} {}", rule.score.name(), rule.threshold),
    };
    format!("{} intents ({}){slots}; {oos}", task.intents.len(), names(&task.intents))
}

/// Adds a description to the JSON of a file that cannot be run as a language model.
pub(super) fn complete(path: &Path, json: &mut Json) {
    let loaded = Extractor::load(path);
    json["runs"] = json!(loaded.is_ok());
    json["problem"] = json!(loaded.as_ref().err().map(ToString::to_string));
    json["explanation"] = Json::Null;
    json["extractor"] = match &loaded {
        Err(_) => Json::Null,
        Ok(extractor) => {
            let c = extractor.config();
            let task = |t: &TaskConfig| {
                let oos = t.oos.map(|rule| json!({ "score": rule.score.name(), "threshold": rule.threshold }));
                let TaskConfig { name, intents, slots, temperature, .. } = t;
                let once: Vec<&String> = t.once.iter().map(|slot| &slots[*slot]).collect();
                json!({
                    "name": name, "intents": intents, "slots": slots, "once": once, "oos": oos,
                    "temperature": temperature,
                })
            };
            json!({
                "buckets": c.buckets, "hidden_size": c.hidden_size, "num_hidden_layers": c.num_layers,
                "num_attention_heads": c.num_heads, "directions": c.directions.name(),
                "mixers": (0..c.num_layers).map(|l| c.mixer(l).name()).collect::<Vec<_>>(),
                "intermediate_size": c.intermediate_size,
                "hidden_act": c.activation.name(), "memory_bytes": extractor.model().byte_len(),
                "tasks": c.tasks.iter().map(task).collect::<Vec<_>>(),
            })
        }
    };
}
