//! Tokens of the page's requests.

use bitnet::{Message, Model};
use bitnet_backend::{Prompt, Turn};

use crate::Failure;

/// Tokens of a text that begins with the one of `before`: those, and then the tokens of the rest. A tokenizer might cut the
/// whole text elsewhere than the model did when it wrote a part of it, and then all of it would be read again.
fn continued(model: &Model, before: &[u32], text: &str) -> Result<Option<Vec<u32>>, Failure> {
    // An end is not a part of a text that goes on.
    let kept = before.len() - usize::from(before.last().is_some_and(|last| model.is_eos(*last)));
    let mut ids = before[..kept].to_vec();
    let Some(rest) = text.strip_prefix(model.decode(&ids)?.as_str()).filter(|_| kept > 0) else { return Ok(None) };
    ids.extend(model.encode(rest, false)?);
    // Tokenizers that put a space in front of a text would put it in the middle of this one.
    Ok((model.decode(&ids)? == text).then_some(ids))
}

/// Tokens of the prompt, for a session that has read `before`.
pub(super) fn ids(prompt: &Prompt, model: &Model, before: &[u32]) -> Result<Vec<u32>, Failure> {
    Ok(match prompt {
        Prompt::Text { text } => match continued(model, before, text)? {
            Some(ids) => ids,
            None => model.encode(text, model.adds_bos())?,
        },
        Prompt::Chat { messages } => {
            let messages: Vec<Message> = messages.iter().map(Turn::message).collect();
            model.encode_chat(&messages)?
        }
    })
}
