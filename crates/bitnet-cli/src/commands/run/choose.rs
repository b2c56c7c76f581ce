//! `bitnet run --choose`: the most probable of some texts.

use bitnet::{Choice, ChooseBy, Model};
use serde_json::json;

use crate::error::CliError;
use crate::ui::{self, Style, Ui};

/// The place that the texts follow.
pub(super) enum After<'a> {
    /// A prompt as text: prompt and text are cut into tokens together.
    Text(&'a str),
    /// Tokens.
    Ids(&'a [u32]),
}

/// Prints the most probable of `texts`.
///
/// # Errors
/// No tokenizer, texts that do not fit, a closed output.
pub(super) fn execute(
    model: &Model,
    after: After<'_>,
    texts: &[String],
    by: ChooseBy,
    json: bool,
    ui: &Ui,
) -> Result<(), CliError> {
    let choice = match after {
        After::Text(prompt) => model.choose(prompt, texts, by)?,
        After::Ids(ids) => {
            let mut session = model.session();
            session.feed_ids(ids)?;
            session.choose(texts, by)?
        }
    };
    if json {
        return ui::print_json(&json!({
            "choice": texts[choice.index],
            "index": choice.index,
            "scores": scores(&choice, texts),
        }));
    }
    if ui.is_watched() {
        for (text, p) in texts.iter().zip(&choice.probabilities) {
            ui.say(ui.err(Style::Dim, format_args!("{:5.1} %  {text}", 100.0 * p)));
        }
    }
    ui::print_line(&texts[choice.index])
}

fn scores(choice: &Choice, texts: &[String]) -> Vec<serde_json::Value> {
    let each = texts.iter().zip(&choice.scores).zip(&choice.probabilities);
    each.map(|((text, score), p)| {
        json!({ "text": text, "logprob": score.total(), "tokens": score.ids.len(), "probability": p })
    })
    .collect()
}
