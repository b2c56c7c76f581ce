//! Utterances out of templates: what someone writes down who has no data, in lines like
//! `can you (repair|fix) my {bike} (on |){day}`.
//!
//! A file has sections, `intent NAME` and `out of scope`, with a template on each line below, and values of slots,
//! `slot NAME = value | value`. `{slot}` is one of its values, `(a|b|)` one of these (nothing is one, too),
//! `[words](slot)` these words as a value. Lines without choices are utterances: so a test is written by hand. A line
//! that begins with `#` is a comment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bitnet::train::Random;
use bitnet::train::extract::Marked;

use crate::error::IntentError;
use crate::utterance::read_text;

/// Draws of a section without a new utterance after which it counts as used up.
const PATIENCE: usize = 40;
/// Choices within choices.
const DEPTH: usize = 16;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A value of a slot out of the file.
    Slot(String),
    /// Words that are a value of a slot.
    Value(String, String),
    Choice(Vec<Vec<Piece>>),
}

/// An utterance with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The utterance; spans are the values of slots.
    pub said: Marked,
    /// `None` where it is out of scope.
    pub intent: Option<String>,
    /// Names of the slots, one for each span.
    pub slots: Vec<String>,
}

impl Made {
    /// Slots with their values.
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.slots.iter().enumerate().map(|(i, name)| (name.clone(), self.said.value(i))).collect()
    }

    /// Writes half of the utterances the way some people do: with a sign at the end, if there is none, or with a capital
    /// letter at the beginning. Otherwise a question mark is something that no value was ever followed by.
    pub fn finish(&mut self, random: &mut Random) {
        let chars = &mut self.said.chars;
        let Some(&last) = chars.last() else { return };
        if last.is_alphanumeric() && random.below(2) == 0 {
            let signs = if last < '\u{2e80}' { ['?', '?', '.', '!'] } else { ['？', '?', '。', '！'] };
            chars.push(signs[random.below(4) as usize]);
        }
        if random.below(2) == 0 {
            chars[0] = chars[0].to_uppercase().next().unwrap_or(chars[0]);
        }
    }
}

/// Templates of a file.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    /// Sections in their order; `None` is what is out of scope.
    sections: Vec<(Option<String>, Vec<Vec<Piece>>)>,
    slots: BTreeMap<String, Vec<Vec<Piece>>>,
}

impl Templates {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read; [`IntentError::Unreadable`] names the line that makes no sense.
    pub fn read(path: &Path) -> Result<Self, IntentError> {
        Self::parse(&read_text(path)?)
            .map_err(|(line, problem)| IntentError::unreadable(format!("{}, line {line}", path.display()), problem))
    }

    /// Reads a text of that form; what makes no sense is named with its line.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut all = Self::default();
        let mut lines = Vec::new();
        for (i, line) in text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
            let at = |problem: String| (i + 1, problem);
            if let Some((name, values)) = line.strip_prefix("slot ").and_then(|rest| rest.split_once('=')) {
                let values = pieces(&format!("({})", values.trim().replace(" | ", "|"))).map_err(at)?;
                if values.iter().any(holds_a_slot) {
                    return Err(at("a value of a slot holds a slot".into()));
                }
                all.slots.entry(name.trim().to_owned()).or_default().push(values);
            } else if let Some(name) = line.strip_prefix("intent ").filter(|name| !name.trim().contains(' ')) {
                all.sections.push((Some(name.trim().to_owned()), Vec::new()));
            } else if line == "out of scope" {
                all.sections.push((None, Vec::new()));
            } else {
                let section = all.sections.last_mut().ok_or_else(|| at("a template before the first intent".into()))?;
                section.1.push(pieces(line).map_err(at)?);
                lines.push((i + 1, line));
            }
        }
        for (line, text) in lines {
            let mut used = pieces(text).map_err(|problem| (line, problem))?;
            while let Some(piece) = used.pop() {
                match piece {
                    Piece::Slot(name) if !all.slots.contains_key(&name) => {
                        return Err((line, format!("slot {name:?} has no values; write: slot {name} = a | b")));
                    }
                    Piece::Choice(options) => used.extend(options.into_iter().flatten()),
                    Piece::Slot(_) | Piece::Text(_) | Piece::Value(..) => {}
                }
            }
        }
        if all.sections.iter().all(|(_, templates)| templates.is_empty()) {
            return Err((text.lines().count(), "there is no template".into()));
        }
        Ok(all)
    }

    /// At most `most` different utterances, evenly from all sections and, within one, from all its lines. Fewer where
    /// the templates do not make more.
    pub fn draw(&self, most: usize, seed: u64) -> Vec<Made> {
        let mut random = Random::new(seed, "templates");
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        let mut left: Vec<usize> = (0..self.sections.len()).filter(|s| !self.sections[*s].1.is_empty()).collect();
        while all.len() < most && !left.is_empty() {
            left.retain(|s| {
                let (intent, templates) = &self.sections[*s];
                if all.len() == most {
                    return true;
                }
                let new = (0..PATIENCE).find_map(|_| {
                    let template = &templates[random.below(templates.len() as u64) as usize];
                    let made = self.make(intent.as_deref(), template, &mut random);
                    seen.insert(made.said.text()).then_some(made)
                });
                all.extend(new.clone());
                new.is_some()
            });
        }
        all
    }

    /// One utterance of each line, in their order: those of a file without choices are its lines.
    pub fn lines(&self) -> Vec<Made> {
        let mut random = Random::new(0, "lines");
        let each = self.sections.iter().flat_map(|(intent, all)| all.iter().map(move |t| (intent, t)));
        each.map(|(intent, template)| self.make(intent.as_deref(), template, &mut random)).collect()
    }

    fn make(&self, intent: Option<&str>, template: &[Piece], random: &mut Random) -> Made {
        let mut made = Made { said: Marked::default(), intent: intent.map(str::to_owned), slots: Vec::new() };
        self.append(template, &mut made, random);
        made.said = made.said.trimmed();
        made
    }

    fn append(&self, pieces: &[Piece], to: &mut Made, random: &mut Random) {
        fn one<'a, T>(of: &'a [T], random: &mut Random) -> Option<&'a T> {
            of.get(random.below(of.len().max(1) as u64) as usize)
        }
        for piece in pieces {
            let start = to.said.chars.len();
            let slot = match piece {
                Piece::Text(text) => {
                    push(&mut to.said.chars, text);
                    None
                }
                Piece::Value(name, text) => {
                    push(&mut to.said.chars, text);
                    Some(name)
                }
                Piece::Slot(name) => {
                    // Lines of values count by how many values they have.
                    let lines = self.slots.get(name).map(Vec::as_slice).unwrap_or_default();
                    let options = |line: &Vec<Piece>| match line.as_slice() {
                        [Piece::Choice(options)] => options.len() as u64,
                        _ => 1,
                    };
                    let mut at = random.below(lines.iter().map(options).sum::<u64>().max(1));
                    let line = lines.iter().find(|line| {
                        let here = at < options(line);
                        at = at.saturating_sub(options(line));
                        here
                    });
                    self.append(line.map(Vec::as_slice).unwrap_or_default(), to, random);
                    Some(name)
                }
                Piece::Choice(options) => {
                    let option = one(options, random).map(Vec::as_slice).unwrap_or_default();
                    self.append(option, to, random);
                    None
                }
            };
            let end = to.said.chars.len();
            if let Some(name) = slot.filter(|_| start < end) {
                to.said.spans.push(start..end);
                to.slots.push(name.clone());
            }
        }
    }
}

fn holds_a_slot(piece: &Piece) -> bool {
    match piece {
        Piece::Text(_) => false,
        Piece::Slot(_) | Piece::Value(..) => true,
        Piece::Choice(options) => options.iter().flatten().any(holds_a_slot),
    }
}

/// Appends text, without a second space beside a space.
fn push(chars: &mut Vec<char>, text: &str) {
    for c in text.chars() {
        if c != ' ' || !matches!(chars.last(), None | Some(' ')) {
            chars.push(c);
        }
    }
}

/// The pieces of a template.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut rest = text;
    let pieces = sequence(&mut rest, 0)?;
    match rest.chars().next() {
        None => Ok(pieces),
        Some(c) => Err(format!("{c:?} without its beginning")),
    }
}

/// Reads up to the end, a `|` or a closing bracket that belongs to what is around.
fn sequence(rest: &mut &str, depth: usize) -> Result<Vec<Piece>, String> {
    if depth > DEPTH {
        return Err("too many choices within choices".into());
    }
    let mut pieces = Vec::new();
    loop {
        let end = rest.find(['{', '}', '(', ')', '[', ']', '|']).unwrap_or(rest.len());
        let (text, after) = rest.split_at(end);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        *rest = after;
        let name = |text: &str| match text.trim() {
            "" => Err("a slot without a name".to_owned()),
            name => Ok(name.to_owned()),
        };
        match after.chars().next() {
            Some('{') => {
                let (inside, after) = after[1..].split_once('}').ok_or("'{' without '}'")?;
                pieces.push(Piece::Slot(name(inside)?));
                *rest = after;
            }
            Some('[') => {
                let (value, after) = after[1..].split_once("](").ok_or("'[' without \"](slot)\"")?;
                let (slot, after) = after.split_once(')').ok_or("\"](\" without ')'")?;
                pieces.push(Piece::Value(name(slot)?, value.trim().to_owned()));
                *rest = after;
            }
            Some('(') => {
                let mut options = Vec::new();
                while options.is_empty() || rest.starts_with('|') {
                    *rest = &rest[1..];
                    options.push(sequence(rest, depth + 1)?);
                }
                *rest = rest.strip_prefix(')').ok_or("'(' without ')'")?;
                pieces.push(Piece::Choice(options));
            }
            Some('|') if depth == 0 => return Err("'|' outside of brackets".into()),
            None | Some(_) => return Ok(pieces),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "# lights\nslot room = kitchen | (big|small) hall\n\nintent on\n\
                        (please |)light in the {room}(, now|)\nintent off\n dark in [the cellar](room) and {room}\nout of scope\n(hello|bye)\n";

    #[test]
    fn templates_become_utterances() {
        let all = Templates::parse(HOME).unwrap().draw(100, 1);
        let texts: BTreeSet<String> = all.iter().map(|m| m.said.text()).collect();
        // Two beginnings, three rooms, two ends; three rooms; two words.
        assert_eq!((texts.len(), all.len()), (12 + 3 + 2, 17));
        for made in &all {
            match made.intent.as_deref() {
                Some("on") => assert!(["kitchen", "big hall", "small hall"].contains(&&*made.said.value(0))),
                Some("off") => assert_eq!((made.slots.len(), &*made.said.value(0)), (2, "the cellar")),
                _ => assert!(made.slots.is_empty() && ["hello", "bye"].contains(&&*made.said.text())),
            }
        }
        assert!(texts.contains("please light in the small hall, now") && texts.contains("light in the kitchen"));
        assert_eq!(Templates::parse(HOME).unwrap().draw(5, 1), all[..5]);
        assert_eq!(Templates::parse(HOME).unwrap().lines().len(), 3);
    }

    #[test]
    fn signs_and_capitals_leave_values_alone() {
        let mut random = Random::new(1, "finish");
        let mut texts = BTreeSet::new();
        for _ in 0..100 {
            let mut made = Made { said: Marked::new("light in the hall", vec![13..17]), intent: None, slots: vec![] };
            made.finish(&mut random);
            assert_eq!(made.said.value(0), "hall");
            texts.insert(made.said.text());
        }
        // None or one of three signs, both letters.
        assert!(texts.len() == 8 && texts.contains("Light in the hall?"), "{texts:?}");
        let mut nothing = Made { said: Marked::default(), intent: None, slots: vec![] };
        nothing.finish(&mut random);
        assert_eq!(nothing.said.text(), "");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (text, line, problem) in [
            ("intent a\nhi {b}", 2, "slot \"b\" has no values"),
            ("hi", 1, "before the first intent"),
            ("intent a\nhi (b|c", 2, "'(' without ')'"),
            ("intent a\nhi b|c", 2, "'|' outside"),
            ("intent a\nhi b)", 2, "')' without its beginning"),
            ("intent a\nhi {b", 2, "'{' without '}'"),
            ("intent a\nhi {}", 2, "without a name"),
            ("intent a\nhi [b] c", 2, "\"](slot)\""),
            ("intent a\n# nothing", 2, "no template"),
            ("slot b = c | (d|{b})\nintent a\n{b}", 1, "holds a slot"),
            (&format!("intent a\n{}", "(".repeat(50)), 2, "too many"),
        ] {
            let (at, said) = Templates::parse(text).map(drop).unwrap_err();
            assert!(at == line && said.contains(problem), "{text}: {at}: {said}");
        }
    }

    #[test]
    fn the_workshop_is_well_formed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workshop");
        for language in ["", "-ja"] {
            let read = |name: String| Templates::read(&folder.join(name)).unwrap();
            let learned = read(format!("workshop{language}.txt"));
            let made = learned.draw(500, 1);
            assert_eq!(made.len(), 500);
            let test = read(format!("workshop{language}.test.txt")).lines();
            let names = |all: &[Made]| all.iter().flat_map(|m| m.slots.clone()).collect::<BTreeSet<String>>();
            let intents = |all: &[Made]| all.iter().map(|m| m.intent.clone()).collect::<BTreeSet<_>>();
            assert_eq!((names(&made), intents(&made)), (names(&test), intents(&test)));
            assert_eq!(intents(&made).len(), 7);
            assert!(test.len() == if language.is_empty() { 60 } else { 23 }, "{}", test.len());
        }
    }
}
