//! Prompts of all forms: a text, tokens, a conversation.

use bitnet::{GenerateOptions, Generation, Message, RenderOptions, Session};
use serde_json::Value;

use crate::failure::Failure;

/// A prompt.
#[derive(Debug)]
pub(crate) enum Prompt<'c> {
    /// Follows the text of the session.
    Text(&'c str),
    /// Follow the tokens of the session.
    Tokens(&'c [u32]),
    /// All of the text; what the session holds of its beginning is not read again.
    Chat(Box<(Vec<Message>, RenderOptions)>),
}

impl Prompt<'_> {
    /// A conversation in JSON: the messages, or an object with `messages`, and optionally `tools`, `documents` and variables of
    /// the template.
    pub(crate) fn chat(json: &str) -> Result<Self, Failure> {
        let wrong = |reason: String| Failure::argument(format!("messages: {reason}"));
        let mut options = RenderOptions::default();
        let messages = match serde_json::from_str(json).map_err(|e| wrong(format!("not JSON: {e}")))? {
            Value::Object(mut object) => {
                options.tools = object.remove("tools");
                options.documents = object.remove("documents");
                let messages = object.remove("messages");
                options.extra = object;
                messages.ok_or_else(|| wrong("the object has no list \"messages\"".to_owned()))?
            }
            messages => messages,
        };
        let messages: Vec<Message> = serde_json::from_value(messages)
            .map_err(|e| wrong(format!("a list of objects with role and content is needed: {e}")))?;
        Ok(Self::Chat(Box::new((messages, options))))
    }

    /// Begins to generate in `session`.
    pub(crate) fn begin<'s>(
        &self,
        session: &'s mut Session,
        options: GenerateOptions,
    ) -> Result<Generation<'s>, Failure> {
        Ok(match self {
            Self::Text(text) => session.generate(text, options)?,
            Self::Tokens(ids) => session.generate_ids(ids, options)?,
            Self::Chat(chat) => {
                let ids = session.model().encode_chat_with(&chat.0, &chat.1)?;
                session.generate_from(&ids, options)?
            }
        })
    }

    /// Brings `session` to where the rest of the prompt is to be read, and returns that rest and the number of tokens before
    /// it that were there.
    pub(crate) fn rest(&self, session: &mut Session) -> Result<(Vec<u32>, usize), Failure> {
        Ok(match self {
            Self::Text(text) => {
                let bos = session.is_empty() && session.model().adds_bos();
                (session.model().encode(text, bos)?, 0)
            }
            Self::Tokens(ids) => (ids.to_vec(), 0),
            Self::Chat(chat) => {
                let ids = session.model().encode_chat_with(&chat.0, &chat.1)?;
                let kept = session.keep_prefix(&ids)?;
                (ids[kept..].to_vec(), kept)
            }
        })
    }
}
