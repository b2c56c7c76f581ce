//! Conversations to prompts.
//!
//! A [`ChatTemplate`] comes from the checkpoint (`tokenizer_config.json`, `chat_template.jinja`,
//! `tokenizer.chat_template` of a GGUF file), from the user, or is built in; [`ChatTemplate::choose`] decides, and
//! replaces templates that are known to be wrong. Templates run in the environment that Hugging Face's transformers
//! gives them. They are programs that came with a download, so their steps are counted and their output is capped.
//! Two things a template can still do are to take up memory with strings it builds on the way (the engine caps
//! repetition at 100 MB but not concatenation), and to say something other than what the user believes it says.

mod builtin;
mod engine;
mod error;
mod time;

use std::sync::Arc;
use std::time::SystemTime;

use minijinja::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use builtin::{Choice, ChoiceSources};
pub use error::ChatError;

use crate::tokenizer::{Tokenizer, TokenizerConfig};

/// Longest template source in bytes; real ones have a few kilobytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Longest prompt in bytes.
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Steps that a template may take: a fixed part, and a part for each message. Real templates take some dozens for
/// each message.
const FUEL: (u64, u64) = (500_000, 20_000);

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
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

    /// An instruction that stands above the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the model has said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// What a template is told beside the messages.
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
    /// The time that `strftime_now` tells (in UTC); the clock's where `None`.
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
    /// The token that begins a text; empty where there is none.
    pub bos_token: String,
    /// The token that ends a text; empty where there is none.
    pub eos_token: String,
}

impl SpecialTokens {
    /// Those of a tokenizer.
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
    /// The source as the engine reads it.
    prepared: Arc<str>,
    origin: Arc<str>,
    builtin: Option<&'static str>,
}

impl ChatTemplate {
    /// A template from its Jinja source.
    ///
    /// # Errors
    /// [`ChatError::Syntax`]; [`ChatError::TooLarge`] beyond 1 MiB.
    pub fn from_source(source: &str) -> Result<Self, ChatError> {
        Self::with_origin(source, "the given source", None)
    }

    /// The template of a `tokenizer_config.json` (and `chat_template.jinja`); `name` chooses among several, `default`
    /// where `None`. `Ok(None)` where the configuration has no template and none was asked for by name.
    ///
    /// # Errors
    /// [`ChatError::UnknownName`], and those of [`Self::from_source`].
    pub fn from_config(config: &TokenizerConfig, name: Option<&str>) -> Result<Option<Self>, ChatError> {
        let wanted = name.unwrap_or("default");
        let found = config.chat_templates.iter().find(|template| template.name == wanted);
        // A single template under another name is the one that is meant.
        let found = found.or(match (name, config.chat_templates.as_slice()) {
            (None, [only]) => Some(only),
            _ => None,
        });
        match found {
            Some(found) => Self::with_origin(&found.template, "tokenizer_config.json", None).map(Some),
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
    /// Those of [`Self::from_source`].
    pub fn from_gguf(source: &str) -> Result<Self, ChatError> {
        Self::with_origin(source, "the GGUF file", None)
    }

    fn with_origin(source: &str, origin: &str, builtin: Option<&'static str>) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE_BYTES {
            let template = origin.to_owned();
            return Err(ChatError::TooLarge { template, what: "the source", limit: MAX_SOURCE_BYTES });
        }
        let prepared = engine::without_generation_blocks(source);
        let template = Self { source: source.into(), prepared: prepared.into(), origin: origin.into(), builtin };
        let environment = engine::environment(FUEL.0, SystemTime::UNIX_EPOCH);
        match environment.template_from_str(&template.prepared) {
            Ok(_) => Ok(template.clone()),
            Err(error) => {
                let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
                let line = error.line().unwrap_or(0);
                Err(ChatError::Syntax { template: template.origin.as_ref().to_owned(), line, detail })
            }
        }
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where the template came from, for messages.
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
    /// [`ChatError::Refused`] where the template refuses the messages, [`ChatError::Render`] where it fails,
    /// [`ChatError::OutOfFuel`] and [`ChatError::TooLarge`] where it does not behave.
    pub fn render(
        &self,
        messages: &[Message],
        tokens: &SpecialTokens,
        options: &RenderOptions,
    ) -> Result<String, ChatError> {
        let messages: Vec<Value> = messages.iter().map(|message| serde_json::json!(message)).collect();
        self.render_json(messages, tokens, options)
    }

    /// As [`Self::render`], for messages in JSON of any form that the template knows (`content` as a list of parts).
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_json(
        &self,
        messages: Vec<Value>,
        tokens: &SpecialTokens,
        options: &RenderOptions,
    ) -> Result<String, ChatError> {
        let fuel = FUEL.1.saturating_mul(messages.len() as u64).saturating_add(FUEL.0);
        let environment = engine::environment(fuel, options.now.unwrap_or_else(SystemTime::now));
        let mut variables = options.extra.clone();
        let json = |value: &Option<Value>| value.clone().unwrap_or(Value::Null);
        variables.insert("tools".into(), json(&options.tools));
        variables.insert("documents".into(), json(&options.documents));
        variables.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        variables.insert("bos_token".into(), tokens.bos_token.clone().into());
        variables.insert("eos_token".into(), tokens.eos_token.clone().into());
        variables.insert("messages".into(), Value::Array(messages));
        let context = minijinja::Value::deserialize(Value::Object(variables)).map_err(|error| ChatError::Render {
            template: self.origin().to_owned(),
            line: 0,
            detail: error.to_string(),
        })?;
        let template = environment.template_from_str(&self.prepared).map_err(|error| self.failed(&error, fuel))?;
        let mut out = Limited::default();
        match template.render_captured_to(context, &mut out) {
            Ok(_) => {}
            Err(_) if out.full => {
                let limit = MAX_OUTPUT_BYTES;
                return Err(ChatError::TooLarge { template: self.origin().to_owned(), what: "its output", limit });
            }
            Err(error) => return Err(self.failed(&error, fuel)),
        }
        String::from_utf8(out.bytes).map_err(|_| ChatError::Render {
            template: self.origin().to_owned(),
            line: 0,
            detail: "the output is not UTF-8".to_owned(),
        })
    }

    fn failed(&self, error: &minijinja::Error, fuel: u64) -> ChatError {
        let template = self.origin().to_owned();
        if error.kind() == ErrorKind::OutOfFuel {
            return ChatError::OutOfFuel { template, fuel };
        }
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = source {
            if let Some(raised) = inner.downcast_ref::<engine::Raised>() {
                return ChatError::Refused { template, message: raised.0.clone() };
            }
            source = inner.source();
        }
        let detail = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        ChatError::Render { template, line: error.line().unwrap_or(0), detail }
    }

    /// The ids of a conversation: the rendered text as a whole, as transformers encodes it. BOS is added where the
    /// template writes none and the tokenizer says that texts begin with it.
    ///
    /// Special tokens that a message spells out (`<|eot_id|>`) become their ids here, as in transformers. Where
    /// messages are not to be trusted use [`Self::encode_separate`], or remove them.
    ///
    /// # Errors
    /// Those of [`Self::render`] and of [`Tokenizer::encode`].
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

/// A buffer that takes [`MAX_OUTPUT_BYTES`] and then refuses.
#[derive(Debug, Default)]
struct Limited {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(std::io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
