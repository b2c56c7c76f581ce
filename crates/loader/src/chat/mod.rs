//! Conversations to prompts.
//!
//! A [`ChatTemplate`] comes from the checkpoint (`tokenizer_config.json`, `chat_template.jinja`,
//! `tokenizer.chat_template` of a GGUF file), from the user, or is built in; [`ChatTemplate::choose`] decides, and
//! replaces templates that are known to be wrong. Templates behave as in Hugging Face's transformers, but run in an
//! engine of this crate (`jinja`). They are programs that came with a download, so their steps are counted, their
//! memory is limited, and they run on a separate stack. A template can still write something other than what the user
//! expects.
//! what the user believes it says.

mod builtin;
mod error;
mod jinja;
mod time;
mod tools;

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use builtin::{Choice, ChoiceSources};
pub use error::ChatError;
pub use tools::{Answered, ToolCall, ToolForm};

use crate::tokenizer::{Tokenizer, TokenizerConfig};

/// The sources of templates, in messages.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GGUF_FILE: &str = "the GGUF file";
/// Longest template source in bytes; real ones have a few dozen kilobytes at most.
const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Memory of a rendering, including output, in addition to [`MEMORY_OF_INPUT`].
const MAX_MEMORY: usize = 24 << 20;
/// How many copies of the conversation may be in memory: original, changed, joined, written.
const MEMORY_OF_INPUT: usize = 8;
/// Steps that a template may take: a fixed part, and a part for each message. Real templates take some hundreds for
/// each message.
const FUEL: (u64, u64) = (2_000_000, 5_000);
/// Steps that no conversation goes beyond, however long it is.
const MAX_FUEL: u64 = 10_000_000;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The speaker: `system`, `user`, `assistant`, or another role of the template.
    pub role: String,
    /// The text.
    pub content: String,
    /// Anything else that the template looks at (`name`, `tool_calls` ...).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), extra: Map::new() }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// An instruction that precedes the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Answer of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// Variables of a template in addition to the messages.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RenderOptions {
    /// End with the beginning of the model's answer. On by default.
    pub add_generation_prompt: bool,
    /// Descriptions of tools, as JSON.
    pub tools: Option<Value>,
    /// Documents to answer from, as JSON.
    pub documents: Option<Value>,
    /// Other variables: `enable_thinking`, `date_string` ...
    pub extra: Map<String, Value>,
    /// The time that `strftime_now` uses (in UTC); that of the clock if `None`.
    pub now: Option<SystemTime>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, tools: None, documents: None, extra: Map::new(), now: None }
    }
}

/// The names of the special tokens, which templates write out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SpecialTokens {
    /// The token that begins a text; empty if there is none.
    pub bos_token: String,
    /// The token that ends a text; empty if there is none.
    pub eos_token: String,
}

impl SpecialTokens {
    /// The special tokens of a tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let name = |id: Option<u32>| {
            let bytes = id.and_then(|id| tokenizer.token_bytes(id)).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        Self { bos_token: name(tokenizer.bos()), eos_token: name(tokenizer.eos().first().copied()) }
    }
}

/// A compiled chat template. Immutable; cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    program: Arc<jinja::Program>,
    origin: Arc<str>,
    builtin: Option<&'static str>,
}

impl ChatTemplate {
    /// A template from its Jinja source.
    ///
    /// # Errors
    /// [`ChatError::Syntax`]; [`ChatError::TooDeep`]; [`ChatError::TooLarge`] beyond 256 KiB.
    pub fn from_source(source: &str) -> Result<Self, ChatError> {
        Self::with_origin(source, "the given source", None)
    }

    /// The template of a `tokenizer_config.json` (and `chat_template.jinja`); `name` selects among several, `default`
    /// if `None`. `Ok(None)` if the configuration has no template and none was requested by name.
    ///
    /// # Errors
    /// [`ChatError::UnknownName`], and the errors of [`Self::from_source`].
    pub fn from_config(config: &TokenizerConfig, name: Option<&str>) -> Result<Option<Self>, ChatError> {
        let wanted = name.unwrap_or("default");
        let found = config.chat_templates.iter().find(|template| template.name == wanted);
        // A single template under another name is the one that is meant.
        let found = found.or(match (name, config.chat_templates.as_slice()) {
            (None, [only]) => Some(only),
            _ => None,
        });
        match found {
            Some(found) => Self::with_origin(&found.template, TOKENIZER_CONFIG, None).map(Some),
            None if name.is_none() && config.chat_templates.is_empty() => Ok(None),
            None => {
                let known: Vec<&str> = config.chat_templates.iter().map(|template| template.name.as_str()).collect();
                Err(ChatError::UnknownName { name: wanted.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// The template of a GGUF file (`tokenizer.chat_template`).
    ///
    /// # Errors
    /// The errors of [`Self::from_source`].
    pub fn from_gguf(source: &str) -> Result<Self, ChatError> {
        Self::with_origin(source, GGUF_FILE, None)
    }

    fn with_origin(source: &str, origin: &str, builtin: Option<&'static str>) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE_BYTES {
            let template = origin.to_owned();
            return Err(ChatError::TooLarge { template, what: "the source", limit: MAX_SOURCE_BYTES });
        }
        let program = jinja::Program::compile(source).map_err(|flaw| match flaw {
            jinja::Flaw::Syntax { line, detail } => ChatError::Syntax { template: origin.to_owned(), line, detail },
            jinja::Flaw::Deep { line, what, limit } => {
                ChatError::TooDeep { template: origin.to_owned(), line, what, limit }
            }
        })?;
        Ok(Self { source: source.into(), program: Arc::new(program), origin: origin.into(), builtin })
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The origin of the template, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The name of a built-in template.
    pub fn builtin_name(&self) -> Option<&'static str> {
        self.builtin
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`ChatError::Refused`] if the template rejects the messages, [`ChatError::Render`] if it fails,
    /// [`ChatError::OutOfFuel`], [`ChatError::TooLarge`] and [`ChatError::TooDeep`] if it exceeds its limits.
    pub fn render(
        &self,
        messages: &[Message],
        tokens: &SpecialTokens,
        options: &RenderOptions,
    ) -> Result<String, ChatError> {
        let messages: Vec<Value> = messages.iter().map(|message| serde_json::json!(message)).collect();
        self.render_json(messages, tokens, options)
    }

    /// Like [`Self::render`], for messages in JSON of any form that the template supports (`content` as a list of
    /// parts).
    ///
    /// # Errors
    /// The errors of [`Self::render`].
    pub fn render_json(
        &self,
        messages: Vec<Value>,
        tokens: &SpecialTokens,
        options: &RenderOptions,
    ) -> Result<String, ChatError> {
        let messages = Value::Array(messages);
        let (prompt, null) = (Value::Bool(options.add_generation_prompt), Value::Null);
        let (bos, eos) = (Value::from(tokens.bos_token.as_str()), Value::from(tokens.eos_token.as_str()));
        // The later ones win over those in `extra`.
        let mut variables: Vec<(&str, &Value)> =
            options.extra.iter().map(|(name, value)| (name.as_str(), value)).collect();
        variables.extend([
            ("tools", options.tools.as_ref().unwrap_or(&null)),
            ("documents", options.documents.as_ref().unwrap_or(&null)),
            ("add_generation_prompt", &prompt),
            ("bos_token", &bos),
            ("eos_token", &eos),
            ("messages", &messages),
        ]);
        let count = messages.as_array().map_or(0, Vec::len) as u64;
        let size = jinja::size(&variables);
        let fuel = FUEL.1.saturating_mul(count).saturating_add(FUEL.0).saturating_add(size as u64 / 8).min(MAX_FUEL);
        let memory = MEMORY_OF_INPUT.saturating_mul(size).saturating_add(MAX_MEMORY);
        let now = options.now.unwrap_or_else(SystemTime::now);
        let rendered = self.program.render(&variables, now, jinja::Limits { fuel, memory });
        rendered.map_err(|stop| self.stopped(stop, fuel, memory))
    }

    fn stopped(&self, stop: jinja::Stop, fuel: u64, memory: usize) -> ChatError {
        let (template, line) = (self.origin().to_owned(), stop.line);
        match stop.fail {
            jinja::Fail::Fuel => ChatError::OutOfFuel { template, fuel },
            jinja::Fail::Memory => ChatError::TooLarge { template, what: "what it builds", limit: memory },
            jinja::Fail::Deep { what, limit } => ChatError::TooDeep { template, line, what, limit },
            jinja::Fail::Raised(message) => ChatError::Refused { template, message },
            jinja::Fail::Error(detail) => ChatError::Render { template, line, detail },
        }
    }

    /// The ids of a conversation: the rendered text as a whole, encoded as in transformers. BOS is added if the
    /// template writes none and the tokenizer says that texts begin with it.
    ///
    /// Special tokens that a message spells out (`<|eot_id|>`) become their ids here, as in transformers. Where
    /// messages are not to be trusted use [`Self::encode_separate`], or remove them.
    ///
    /// # Errors
    /// The errors of [`Self::render`] and of [`Tokenizer::encode`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Vec<u32>, ChatError> {
        let text = self.render(messages, &SpecialTokens::of(tokenizer), options)?;
        let mut ids = tokenizer.encode(&text, false)?;
        if tokenizer.add_bos() == Some(true)
            && let Some(bos) = tokenizer.bos()
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}
