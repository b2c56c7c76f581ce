//! Conversations as files: `/save` and `/load`.
//!
//! `NAME` holds the session, with which the model goes on at once; `NAME.json` what was said, for people, and for the day when
//! the model is another one: it then reads the conversation anew.

use std::io::Write;
use std::path::{Path, PathBuf};

use bitnet::{Message, Model, Session};
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::ui;

/// What was said.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Conversation {
    pub(super) system: Option<String>,
    messages: Vec<Said>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Said {
    role: String,
    content: String,
}

impl Conversation {
    pub(super) fn new(system: Option<String>, messages: &[Message]) -> Self {
        let said = |m: &Message| Said { role: m.role.clone(), content: m.content.clone() };
        Self { system, messages: messages.iter().map(said).collect() }
    }

    /// The messages, as a model takes them.
    pub(super) fn messages(&self) -> Vec<Message> {
        let message = |s: &Said| match s.role.as_str() {
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
    let text_path = beside(path);
    let name = text_path.display().to_string();
    session.save_to(path)?;
    let folder = text_path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, conversation)?;
        file.write_all(b"\n")?;
        file.persist(&text_path).map_err(|e| e.error).map(drop)
    };
    write().map_err(CliError::io("write", name))
}

/// Reads them; the session as the model can go on with it, or why it cannot.
///
/// # Errors
/// Files that are not there, or hold something else.
pub(super) fn load(path: &Path, model: &Model) -> Result<(Conversation, Result<Session, bitnet::Error>), CliError> {
    let text_path = beside(path);
    let name = text_path.display().to_string();
    let text = ui::text(std::fs::read(&text_path).map_err(CliError::io("read", &name))?, &name)?;
    let conversation =
        serde_json::from_str(&text).map_err(|e| CliError::usage(format!("{name} is no conversation: {e}")))?;
    Ok((conversation, model.load_session(path)))
}
