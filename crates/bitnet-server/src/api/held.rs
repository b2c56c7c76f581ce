//! Text that may be part of a call of a tool: a stream holds it back until that is known.

use std::borrow::Cow;

use loader::chat::{Answered, ToolCall, ToolForm};

/// A text of a stream, of which the part is held back that may become a call.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// How the model calls tools, if it was given some.
    form: Option<ToolForm>,
    all: String,
    /// Bytes that were sent.
    sent: usize,
}

impl Held {
    /// A text that begins.
    pub(crate) fn new(form: Option<ToolForm>) -> Self {
        Self { form, all: String::new(), sent: 0 }
    }

    /// Adds `text`, and returns the part that can be sent now.
    pub(crate) fn push<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let Some(form) = self.form else { return text.into() };
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
        let Answered { calls, .. } = read(self.form, &all);
        match calls.is_empty() {
            true => (all.get(self.sent..).unwrap_or_default().to_owned(), calls),
            false => (String::new(), calls),
        }
    }
}

/// The parts of a whole text. Without calls all of it is content, as it came.
pub(crate) fn read(form: Option<ToolForm>, text: &str) -> Answered {
    let read = form.map(|form| form.read(text)).filter(|answered| !answered.calls.is_empty());
    read.unwrap_or_else(|| Answered { content: text.to_owned(), calls: Vec::new() })
}
