//! Input of messages: a line editor for a terminal, plain lines for a pipe.

use std::io::BufRead;
use std::path::PathBuf;

use loader::synthetic::cache_dir;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::error::CliError;
use crate::ui;

const PROMPT: &str = ">>> ";
const MORE: &str = "... ";
/// Bytes of a line at most.
const MAX_LINE: u64 = 16 << 20;
/// Begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";

/// A message, or the reason why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A message or a command.
    Text(String),
    /// Nothing this time, as after Ctrl-C.
    Again,
    /// The end of the input.
    End,
}

pub(super) enum Input {
    Person(Box<DefaultEditor>),
    Pipe(Box<dyn BufRead>),
}

/// The file of the history of typed lines.
fn history() -> PathBuf {
    cache_dir().join("chat-history.txt")
}

/// Result of one read.
enum Read {
    Line(String),
    Interrupted,
    End,
}

impl Input {
    /// A line editor if a person types, stdin as it is otherwise.
    ///
    /// # Errors
    /// [`CliError::Editor`] if the terminal cannot be used.
    pub(super) fn new(person: bool) -> Result<Self, CliError> {
        if person {
            let mut editor = DefaultEditor::new()?;
            // The first time there is no history.
            let _ = editor.load_history(&history());
            return Ok(Input::Person(Box::new(editor)));
        }
        Ok(Input::Pipe(Box::new(std::io::stdin().lock())))
    }

    /// The next message: a line, or several between `"""`.
    ///
    /// # Errors
    /// Errors of the terminal or of stdin.
    pub(super) fn message(&mut self) -> Result<Line, CliError> {
        let mut text = match self.line(PROMPT)? {
            Read::Line(line) => line,
            Read::Interrupted => return Ok(Line::Again),
            Read::End => return Ok(Line::End),
        };
        if let Some(begun) = text.trim_start().strip_prefix(FENCE) {
            text = match begun.trim_end().strip_suffix(FENCE) {
                Some(whole) => whole.to_owned(),
                None => match self.rest(begun.to_owned())? {
                    Some(message) => message,
                    None => return Ok(Line::Again),
                },
            };
        }
        if let Input::Person(editor) = self
            && !text.trim().is_empty()
        {
            editor.add_history_entry(&text)?;
            // Saved at once, so that it is kept however the program ends; a folder that cannot be written to is not a
            // reason to stop.
            let path = history();
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.save_history(&path);
        }
        Ok(Line::Text(text))
    }

    /// The lines up to the closing fence, or to the end of the input; `None` after Ctrl-C.
    fn rest(&mut self, mut text: String) -> Result<Option<String>, CliError> {
        loop {
            let line = match self.line(MORE)? {
                Read::Line(line) => line,
                Read::Interrupted => return Ok(None),
                Read::End => return Ok(Some(text)),
            };
            let (line, closed) = match line.trim_end().strip_suffix(FENCE) {
                Some(line) => (line, true),
                None => (line.as_str(), false),
            };
            if !(text.is_empty() || closed && line.is_empty()) {
                text.push('\n');
            }
            text.push_str(line);
            if closed {
                return Ok(Some(text));
            }
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Read, CliError> {
        match self {
            Input::Person(editor) => match editor.readline(prompt) {
                Ok(line) => Ok(Read::Line(line)),
                Err(ReadlineError::Eof) => Ok(Read::End),
                Err(ReadlineError::Interrupted) => Ok(Read::Interrupted),
                Err(error) => Err(error.into()),
            },
            Input::Pipe(stdin) => {
                let mut bytes = Vec::new();
                let mut limited = std::io::Read::take(&mut *stdin, MAX_LINE + 1);
                let n = limited.read_until(b'\n', &mut bytes).map_err(CliError::io("read", "stdin"))?;
                if n == 0 {
                    return Ok(Read::End);
                }
                if n as u64 > MAX_LINE {
                    return Err(CliError::usage(format!("stdin: a message is longer than {MAX_LINE} bytes")));
                }
                let mut line = ui::text(bytes, "stdin")?;
                line.truncate(line.trim_end_matches(['\n', '\r']).len());
                Ok(Read::Line(line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &'static str) -> Vec<Line> {
        let mut input = Input::Pipe(Box::new(text.as_bytes()));
        let mut all = Vec::new();
        loop {
            match input.message().unwrap() {
                Line::End => return all,
                line => all.push(line),
            }
        }
    }

    #[test]
    fn lines_and_fences() {
        let text = |t: &str| Line::Text(t.to_owned());
        assert_eq!(messages("one\r\ntwo"), [text("one"), text("two")]);
        assert_eq!(messages("\"\"\"a\nb\n\"\"\"\nc\n"), [text("a\nb"), text("c")]);
        assert_eq!(messages("\"\"\"\na\n\nb\"\"\"\n"), [text("a\n\nb")]);
        assert_eq!(messages("\"\"\"whole\"\"\"\n"), [text("whole")]);
        assert_eq!(messages("\"\"\"open\nend"), [text("open\nend")]);
    }
}
