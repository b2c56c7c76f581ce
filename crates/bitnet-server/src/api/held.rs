//! Text that may be part of a call of a tool: a stream holds it back until that is known.

use std::borrow::Cow;

use loader::chat::{Answered, ToolCall, ToolForm};

/// How a model that was given tools calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calling {
    pub(crate) form: ToolForm,
    /// Whether an answer may have several calls; else the first one counts.
    pub(crate) several: bool,
}

/// A text of a stream, of which the part is held back that may become a call.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// How the model calls tools, if it was given some.
    calling: Option<Calling>,
    all: String,
    /// Bytes that were sent.
    sent: usize,
}

impl Held {
    /// A text that begins.
    pub(crate) fn new(calling: Option<Calling>) -> Self {
        Self { calling, all: String::new(), sent: 0 }
    }

    /// Adds `text`, and returns the part that can be sent now.
    pub(crate) fn push<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let Some(Calling { form, .. }) = self.calling else { return text.into() };
        self.all.push_str(text);
        // No text before the sent part can begin a call.
        let certain = match (form, self.sent) {
            (ToolForm::Whole, 1..) => self.all.len(),
            (_, sent) => sent + form.certain(self.all.get(sent..).unwrap_or_default()),
        };
        let ready = self.all.get(self.sent..certain).unwrap_or_default().to_owned();
        self.sent = certain.max(self.sent);
        ready.into()
    }

    /// The end of the text: its calls, or the rest if there are none.
    pub(crate) fn end(&mut self) -> (String, Vec<ToolCall>) {
        let all = std::mem::take(&mut self.all);
        let Answered { calls, .. } = read(self.calling, &all);
        match calls.is_empty() {
            true => (all.get(self.sent..).unwrap_or_default().to_owned(), calls),
            false => (String::new(), calls),
        }
    }
}

/// The parts of a whole text. Without calls all of it is content, as it came.
pub(crate) fn read(calling: Option<Calling>, text: &str) -> Answered {
    let read = calling.and_then(|Calling { form, several }| {
        let mut answered = form.read(text);
        answered.calls.truncate(if several { usize::MAX } else { 1 });
        (!answered.calls.is_empty()).then_some(answered)
    });
    read.unwrap_or_else(|| Answered { content: text.to_owned(), calls: Vec::new() })
}
