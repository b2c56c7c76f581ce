//! Templates that are built in, and the choice among all the templates that a checkpoint offers.

use super::{ChatError, ChatTemplate, Message};
use crate::tokenizer::{Note, Tokenizer, TokenizerConfig};

/// `(name, source)`.
const BUILTINS: &[(&str, &str)] = &[
    (BITNET_2B4T, include_str!("templates/bitnet-2b4t.jinja")),
    ("llama3", include_str!("templates/llama3.jinja")),
    ("chatml", include_str!("templates/chatml.jinja")),
];

/// The template of BitNet b1.58 2B4T: `Role: text<|eot_id|>` without line breaks between the turns.
const BITNET_2B4T: &str = "bitnet-2b4t";

/// The token that ends a turn of BitNet b1.58 2B4T.
const EOT: &str = "<|eot_id|>";

/// From where [`ChatTemplate::choose`] may take a template, the first one first.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ChoiceSources<'a> {
    /// What the user says: the name of a built-in template, or Jinja source.
    pub user: Option<&'a str>,
    /// The checkpoint's `tokenizer_config.json`.
    pub config: Option<&'a TokenizerConfig>,
    /// The `tokenizer.chat_template` of a GGUF file.
    pub gguf: Option<&'a str>,
    /// `general.architecture` of a GGUF file, or the model type of a `config.json`.
    pub architecture: Option<&'a str>,
    /// The vocabulary, to find a built-in template where the checkpoint has none.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// What [`ChatTemplate::choose`] found.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The template; `None` where nothing fits (a base model).
    pub template: Option<ChatTemplate>,
    /// What was replaced or assumed.
    pub notes: Vec<Note>,
}

/// Architectures of BitNet b1.58 2B4T, in GGUF files and in `config.json`.
fn is_2b4t(architecture: Option<&str>) -> bool {
    matches!(architecture, Some("bitnet-b1.58" | "bitnet-25" | "bitnet"))
}

/// How a template is known to be wrong for its model.
fn known_wrong(source: &str, architecture: Option<&str>) -> Option<&'static str> {
    if source.contains("BITNETAssistant") {
        return Some("it is the `Human:`/`BITNETAssistant:` placeholder of a converter");
    }
    if is_2b4t(architecture) && source.contains("Human:") && !source.contains(EOT) {
        return Some("it says `Human:` where the model was trained on `User:`");
    }
    None
}

impl ChatTemplate {
    /// A built-in template: `bitnet-2b4t`, `llama3` or `chatml`.
    ///
    /// # Errors
    /// [`ChatError::UnknownBuiltin`].
    pub fn builtin(name: &str) -> Result<Self, ChatError> {
        let found = BUILTINS.iter().find(|(known, _)| *known == name);
        let (name, source) = found.ok_or_else(|| {
            let known: Vec<&str> = Self::builtin_names().collect();
            ChatError::UnknownBuiltin { name: name.to_owned(), known: known.join(", ") }
        })?;
        Self::with_origin(source, &format!("built-in {name}"), Some(name))
    }

    /// The names of the built-in templates.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTINS.iter().map(|(name, _)| *name)
    }

    /// Chooses a template: the user's, else that of `tokenizer_config.json`, else that of the GGUF file, else a
    /// built-in one whose special tokens the vocabulary has. A checkpoint's template that is known to be wrong for
    /// its model (the one in the official 2B4T GGUF file) is replaced by the built-in one, with a note.
    ///
    /// # Errors
    /// A template that is there but malformed; an unknown name given by the user.
    pub fn choose(sources: ChoiceSources<'_>) -> Result<Choice, ChatError> {
        let mut notes = Vec::new();
        if let Some(user) = sources.user {
            // A template needs at least one tag to say anything about messages; a name has none.
            let template = if user.contains('{') { Self::from_source(user) } else { Self::builtin(user) }?;
            return Ok(Choice { template: Some(template), notes });
        }
        let mut found = sources.config.map(|config| Self::from_config(config, None)).transpose()?.flatten();
        if found.is_none() {
            found = sources.gguf.map(Self::from_gguf).transpose()?;
        }
        if let Some(template) = found {
            let Some(why) = known_wrong(template.source(), sources.architecture) else {
                return Ok(Choice { template: Some(template), notes });
            };
            notes.push(Note::TemplateReplaced { source: template.origin().to_owned(), taken: BITNET_2B4T, why });
            return Ok(Choice { template: Some(Self::builtin(BITNET_2B4T)?), notes });
        }
        let has = |token: &str| sources.tokenizer.is_some_and(|t| t.id_of(token).is_some_and(|id| t.is_special(id)));
        let taken = match () {
            () if is_2b4t(sources.architecture) && has(EOT) => Some(BITNET_2B4T),
            () if has("<|start_header_id|>") && has(EOT) => Some("llama3"),
            () if has("<|im_start|>") && has("<|im_end|>") => Some("chatml"),
            () => None,
        };
        let Some(taken) = taken else { return Ok(Choice { template: None, notes }) };
        notes.push(Note::TemplateAssumed { taken });
        Ok(Choice { template: Some(Self::builtin(taken)?), notes })
    }

    /// The ids of a conversation in the way in which BitNet b1.58 2B4T was trained: role and content are encoded
    /// apart, `User: ` and `hi` rather than `User: hi`, which gives other ids (`User`, `:`, ` `, `hi`). Special
    /// tokens that a message spells out stay text, so no message can forge the end of a turn.
    ///
    /// # Errors
    /// [`ChatError::NotSeparable`] for templates other than `bitnet-2b4t`, [`ChatError::MissingToken`] where the
    /// vocabulary lacks `<|eot_id|>`, and those of [`Tokenizer::encode_text`].
    pub fn encode_separate(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, ChatError> {
        if self.builtin_name() != Some(BITNET_2B4T) {
            return Err(ChatError::NotSeparable { template: self.origin().to_owned(), supported: BITNET_2B4T });
        }
        let eot = tokenizer.id_of(EOT);
        let eot = eot.ok_or_else(|| ChatError::MissingToken { template: BITNET_2B4T.into(), token: EOT.into() })?;
        let mut ids: Vec<u32> = tokenizer.bos().into_iter().collect();
        for message in messages {
            ids.extend(tokenizer.encode_text(&format!("{}: ", capitalized(&message.role)))?);
            ids.extend(tokenizer.encode_text(message.content.trim())?);
            ids.push(eot);
        }
        if add_generation_prompt {
            ids.extend(tokenizer.encode_text("Assistant: ")?);
        }
        Ok(ids)
    }
}

/// As Python's `str.capitalize`: the first letter large, the others small.
fn capitalized(role: &str) -> String {
    let mut chars = role.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}
