//! Templates that are built in, and the choice among all the templates that a checkpoint offers.

use std::sync::Arc;

use super::{ChatError, ChatTemplate, GGUF_FILE, Message, TOKENIZER_CONFIG};
use crate::architecture::{named, rules};
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

/// The sources of templates for [`ChatTemplate::choose`], in order of precedence.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ChoiceSources<'a> {
    /// A user's choice: the name of a built-in template or of one of the checkpoint's, or Jinja source.
    pub user: Option<&'a str>,
    /// The checkpoint's `tokenizer_config.json`.
    pub config: Option<&'a TokenizerConfig>,
    /// The `tokenizer.chat_template` of a GGUF file.
    pub gguf: Option<&'a str>,
    /// `general.architecture` of a GGUF file, or the model type of a `config.json`.
    pub architecture: Option<&'a str>,
    /// The vocabulary, to find a built-in template if the checkpoint has none.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// Result of [`ChatTemplate::choose`].
#[derive(Debug, Clone)]
pub struct Choice {
    /// The template; `None` if none fits (a base model).
    pub template: Option<ChatTemplate>,
    /// The reason why the checkpoint's own template cannot be used, if so. Everything except chats works without it.
    pub broken: Option<Arc<ChatError>>,
    /// Notes on what was replaced or assumed.
    pub notes: Vec<Note>,
}

impl Choice {
    fn of(template: Option<ChatTemplate>, notes: Vec<Note>) -> Self {
        Self { template, broken: None, notes }
    }
}

/// The built-in template of an architecture, by its name in GGUF files or in `config.json`.
fn template_of(architecture: Option<&str>) -> Option<&'static str> {
    architecture.and_then(named).and_then(|a| rules(a).template)
}

/// Whether it is an architecture of BitNet b1.58 2B4T.
fn is_2b4t(architecture: Option<&str>) -> bool {
    template_of(architecture) == Some(BITNET_2B4T)
}

/// The reason why a template is known to be wrong for its model.
fn known_wrong(source: &str, architecture: Option<&str>) -> Option<&'static str> {
    if source.contains("BITNETAssistant") {
        return Some("it is the `Human:`/`BITNETAssistant:` placeholder of a converter");
    }
    if is_2b4t(architecture) && source.contains("Human:") && !source.contains(EOT) {
        return Some("it writes `Human:`, but the model was trained on `User:`");
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
    /// A checkpoint's template that cannot be used, and several templates without a `default`, are not an error here:
    /// [`Choice::broken`] holds it for callers that need a chat.
    ///
    /// # Errors
    /// If the user's template is malformed, or its name unknown.
    pub fn choose(sources: ChoiceSources<'_>) -> Result<Choice, ChatError> {
        let mut notes = Vec::new();
        if let Some(user) = sources.user {
            return Ok(Choice::of(Some(Self::of_user(user, sources.config)?), notes));
        }
        let own = sources.config.map_or(&[] as &[_], |config| &config.chat_templates);
        let named =
            own.iter().find(|named| named.name == "default").or(if own.len() == 1 { own.first() } else { None });
        let source = named.map(|named| named.template.as_str()).or(sources.gguf.filter(|_| own.is_empty()));
        if let Some(why) = source.and_then(|source| known_wrong(source, sources.architecture)) {
            let source = if own.is_empty() { GGUF_FILE } else { TOKENIZER_CONFIG };
            notes.push(Note::TemplateReplaced { source: source.to_owned(), taken: BITNET_2B4T, why });
            return Ok(Choice::of(Some(Self::builtin(BITNET_2B4T)?), notes));
        }
        let found = match sources.config.map(|config| Self::from_config(config, None)).transpose() {
            Ok(found) => match (found.flatten(), sources.gguf) {
                (None, Some(gguf)) => Self::from_gguf(gguf).map(Some),
                (found, _) => Ok(found),
            },
            Err(error) => Err(error),
        };
        match found {
            Ok(None) => {}
            Ok(template) => return Ok(Choice::of(template, notes)),
            Err(error) => return Ok(Choice { template: None, broken: Some(Arc::new(error)), notes }),
        }
        let has = |token: &str| sources.tokenizer.is_some_and(|t| t.id_of(token).is_some_and(|id| t.is_special(id)));
        let taken = match () {
            () if is_2b4t(sources.architecture) && has(EOT) => Some(BITNET_2B4T),
            () if has("<|start_header_id|>") && has(EOT) => Some("llama3"),
            () if has("<|im_start|>") && has("<|im_end|>") => Some("chatml"),
            () => None,
        };
        let Some(taken) = taken else { return Ok(Choice::of(None, notes)) };
        notes.push(Note::TemplateAssumed { taken });
        Ok(Choice::of(Some(Self::builtin(taken)?), notes))
    }

    /// The user's choice.
    fn of_user(user: &str, config: Option<&TokenizerConfig>) -> Result<Self, ChatError> {
        // A template needs at least one tag to use messages; a name has none.
        if user.contains('{') {
            return Self::from_source(user);
        }
        let named: Vec<&str> = config
            .into_iter()
            .flat_map(|config| config.chat_templates.iter())
            .map(|named| named.name.as_str())
            .collect();
        match config {
            Some(config) if named.contains(&user) && !Self::builtin_names().any(|name| name == user) => {
                let template = Self::from_config(config, Some(user))?;
                template.ok_or_else(|| ChatError::UnknownName { name: user.to_owned(), known: named.join(", ") })
            }
            _ => Self::builtin(user).map_err(|error| match error {
                ChatError::UnknownBuiltin { name, known } if !named.is_empty() => ChatError::UnknownBuiltin {
                    name,
                    known: format!("{known}, and in the checkpoint {}", named.join(", ")),
                },
                other => other,
            }),
        }
    }

    /// The ids of a conversation as in the training of BitNet b1.58 2B4T: role and content are encoded separately,
    /// `User: ` and `hi` rather than `User: hi`, which gives other ids (`User`, `:`, ` `, `hi`). Special tokens that a
    /// message spells out stay text, so no message can forge the end of a turn.
    ///
    /// # Errors
    /// [`ChatError::NotSeparable`] for templates other than `bitnet-2b4t`, [`ChatError::MissingToken`] if the
    /// vocabulary lacks `<|eot_id|>`, and the errors of [`Tokenizer::encode_text`].
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

/// Like Python's `str.capitalize`: the first letter in upper case, the others in lower case.
fn capitalized(role: &str) -> String {
    let mut chars = role.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}
