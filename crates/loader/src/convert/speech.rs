//! How a checkpoint turns texts and chats into ids, and whether two checkpoints do it equally.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bitnet_model::ModelConfig;

use crate::chat::{ChatTemplate, Message, RenderOptions};
use crate::config::from_hf::MAX_CONFIG;
use crate::load::{gguf_templates, words};
use crate::mmap::read_bounded;
use crate::tokenizer::{NamedTemplate, Tokenizer, TokenizerConfig};
use crate::{Checkpoint, LoadError, LoadOptions};

/// The folder of a checkpoint with several chat templates, one file each.
pub(super) const MORE_TEMPLATES: &str = "additional_chat_templates";
/// Most templates taken from it.
const MAX_TEMPLATES: usize = 64;

/// Everything of a checkpoint that decides how people talk with it.
pub(super) struct Speech {
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) template: Option<ChatTemplate>,
    /// All templates that the files hold.
    pub(super) templates: Vec<NamedTemplate>,
    pub(super) bos: Option<u32>,
    /// Ids that end a text, the one that templates write out first.
    pub(super) eos: Vec<u32>,
}

impl Speech {
    /// Reads it; a template that cannot be used does not keep texts from being compared.
    pub(super) fn of(source: &Checkpoint, options: &LoadOptions, config: &ModelConfig) -> Result<Self, LoadError> {
        let mut config = config.clone();
        let (tokenizer, choice) = words(source, options, None, &mut config, &mut Vec::new())?;
        let template = choice.template;
        let templates = match (source.gguf(), source.folder()) {
            (Some(file), _) => gguf_templates(file.metadata()),
            (None, Some(folder)) => templates_of(folder)?,
            (None, None) => Vec::new(),
        };
        let mut eos = tokenizer.as_ref().map_or_else(Vec::new, |t| t.eos().to_vec());
        let more: Vec<u32> = config.eos_token_ids.iter().copied().filter(|id| !eos.contains(id)).collect();
        eos.extend(more);
        Ok(Self { tokenizer, template, templates, bos: config.bos_token_id, eos })
    }

    /// The first difference between the two, if both have a tokenizer.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let (Some(a), Some(b)) = (&self.tokenizer, &other.tokenizer) else { return None };
        if self.bos != other.bos {
            return Some(format!("the id that begins a text: {:?} became {:?}", self.bos, other.bos));
        }
        let sorted = |ids: &[u32]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        if sorted(&self.eos) != sorted(&other.eos) || self.eos.first() != other.eos.first() {
            return Some(format!("the ids that end a text: {:?} became {:?}", self.eos, other.eos));
        }
        let adds =
            |s: &Self, t: &Tokenizer| (s.bos.is_some() && t.add_bos().unwrap_or(true), t.add_eos() == Some(true));
        if adds(self, a) != adds(other, b) {
            return Some("whether special tokens are added around a text".to_owned());
        }
        if let Some(text) = differing_text(a, b) {
            return Some(format!("the ids of the text {text:?}"));
        }
        if default_template(&self.templates) != default_template(&other.templates) {
            return Some("the chat template".to_owned());
        }
        let named = |s: &Self| {
            let mut names: Vec<(String, String)> =
                s.templates.iter().map(|t| (plain(&t.name), t.template.clone())).collect();
            names.retain(|(name, _)| name != "default");
            names.sort();
            names
        };
        // A single template under another name is the default.
        if self.templates.len() > 1 && named(self) != named(other) {
            return Some("the chat templates that have names".to_owned());
        }
        if self.templates.is_empty() && other.templates.is_empty() {
            // A built-in one is chosen by the architecture as well, whose name may change.
            return None;
        }
        match (&self.template, &other.template) {
            (Some(x), Some(y)) => differing_chat((x, a), (y, b)),
            (None, None) => None,
            _ => Some("whether there is a chat template".to_owned()),
        }
    }
}

/// The template that is used if none is requested by name.
pub(super) fn default_template(templates: &[NamedTemplate]) -> Option<&str> {
    let found = templates.iter().find(|t| t.name == "default").or(match templates {
        [only] => Some(only),
        _ => None,
    });
    found.map(|t| t.template.as_str())
}

/// A name as GGUF keys may have it.
pub(super) fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The templates of a folder.
pub(super) fn templates_of(folder: &Path) -> Result<Vec<NamedTemplate>, LoadError> {
    let config = TokenizerConfig::from_dir(folder).map_err(|e| LoadError::from(e).in_file(folder))?;
    let mut all = config.map_or_else(Vec::new, |c| c.chat_templates);
    for file in more_templates(folder)? {
        let name = file.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let bytes = read_bounded(&file, "a chat template", MAX_CONFIG)?;
        let template = String::from_utf8(bytes)
            .map_err(|_| LoadError::NotUtf8 { what: "the chat template".to_owned(), offset: 0 }.in_file(&file))?;
        if !name.is_empty() && all.iter().all(|t| t.name != name) {
            all.push(NamedTemplate { name, template });
        }
    }
    Ok(all)
}

/// Files with further templates next to a `chat_template.jinja`.
pub(super) fn more_templates(folder: &Path) -> Result<Vec<std::path::PathBuf>, LoadError> {
    let folder = folder.join(MORE_TEMPLATES);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&folder).map_err(LoadError::io("list", &folder))?;
    let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "jinja") && f.is_file());
    files.sort();
    files.truncate(MAX_TEMPLATES);
    Ok(files)
}

/// The first text that two tokenizers cut differently: texts of many kinds, special tokens written out, and pieces of
/// the vocabulary.
pub(super) fn differing_text(a: &Tokenizer, b: &Tokenizer) -> Option<String> {
    let mut texts = vec![
        "Hello, world!  It's 2024-05-06 12:34; don't   panic\n\n\tnaïve café x1234567\r\n".to_owned(),
        "東京タワー 🙂 Привет, мир! ﬁ １２３ e\u{301}".to_owned(),
        " leading and trailing  ".to_owned(),
    ];
    let size = a.vocab_size().min(b.vocab_size());
    let ids = || (0u32..).take(size);
    let text_of = |id: u32| String::from_utf8_lossy(a.token_bytes(id).unwrap_or_default()).into_owned();
    let special: Vec<String> = ids().filter(|id| a.is_special(*id)).take(64).map(text_of).collect();
    texts.push(format!("one {} two", special.join(" and ")));
    texts.push(special.concat());
    // Some hundred tokens from the whole vocabulary, one after the other.
    let step = size.div_euclid(512).max(1);
    texts.push(ids().step_by(step).map(text_of).collect());
    let same = |text: &str| {
        let whole = |t: &Tokenizer| t.encode(text, true).ok();
        let part = |t: &Tokenizer| t.encode_text(text).ok();
        whole(a) == whole(b) && part(a) == part(b)
    };
    texts.into_iter().find(|text| !same(text)).map(|text| text.chars().take(80).collect())
}

/// Whether two templates make other prompts of the same chats.
fn differing_chat(a: (&ChatTemplate, &Tokenizer), b: (&ChatTemplate, &Tokenizer)) -> Option<String> {
    // Some templates write the date.
    let now = UNIX_EPOCH.checked_add(Duration::from_secs(1_700_000_000));
    let options = RenderOptions { now, ..RenderOptions::default() };
    let turn = [Message::user("What is 2 + 3?  Say it in café words.")];
    let chat = [
        Message::system("Be brief."),
        Message::user("Hello"),
        Message::assistant("Hello! What can I do?"),
        Message::user("<|eot_id|> 東京\nis where?"),
    ];
    for messages in [&turn[..], &chat] {
        // A template that rejects a chat rejects it in both.
        let ids =
            |(template, tokenizer): (&ChatTemplate, &Tokenizer)| template.encode(tokenizer, messages, &options).ok();
        if ids(a) != ids(b) {
            return Some(format!("the ids of a chat of {} messages", messages.len()));
        }
    }
    None
}
