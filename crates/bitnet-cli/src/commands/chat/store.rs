//! Conversations as files: `/save` and `/load`.
//!
//! `NAME` holds the session, from which the model continues immediately; `NAME.json` the messages, for people, and for
//! another model, which then reads the conversation again.

use std::io::Write;
use std::path::{Path, PathBuf};

use bitnet::{Message, Model, Session};
use loader::files::{self, Kind, Pending};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Conversation {
    pub(super) system: Option<String>,
    messages: Vec<SavedMessage>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedMessage {
    role: String,
    content: String,
}

impl Conversation {
    pub(super) fn new(system: Option<String>, messages: &[Message]) -> Self {
        let said = |m: &Message| SavedMessage { role: m.role.clone(), content: m.content.clone() };
        Self { system, messages: messages.iter().map(said).collect() }
    }

    /// The messages, as a model takes them.
    pub(super) fn messages(&self) -> Vec<Message> {
        let message = |s: &SavedMessage| match s.role.as_str() {
            "assistant" => Message::assistant(s.content.clone()),
            "system" => Message::system(s.content.clone()),
            _ => Message::user(s.content.clone()),
        };
        self.messages.iter().map(message).collect()
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Writes both files, each as a whole or not at all.
///
/// # Errors
/// Files that cannot be written.
pub(super) fn save(path: &Path, conversation: &Conversation, session: &mut Session) -> Result<(), CliError> {
    session.save_to(path)?;
    let text_path = beside(path);
    let mut text = serde_json::to_vec_pretty(conversation)
        .map_err(|e| CliError::io("write", text_path.display().to_string())(e.into()))?;
    text.push(b'\n');
    let mut file = Pending::private(&text_path)?;
    file.write_all(&text).map_err(|e| file.failed(e))?;
    Ok(file.commit()?)
}

/// Reads them; the session as the model can go on with it, or why it cannot.
///
/// # Errors
/// Files that are not there, or hold something else.
pub(super) fn load(path: &Path, model: &Model) -> Result<(Conversation, Result<Session, bitnet::Error>), CliError> {
    let text_path = beside(path);
    let name = text_path.display().to_string();
    let text = files::read_text(&text_path, Kind::CONVERSATION)?;
    let conversation =
        serde_json::from_str(&text).map_err(|e| CliError::usage(format!("{name} is not a saved conversation: {e}")))?;
    Ok((conversation, model.load_session(path)))
}
