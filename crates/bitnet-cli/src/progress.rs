//! Progress bars for work that takes a while; on stderr, in a terminal, and nowhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ui::Ui;

/// Style of a spinner.
const SPINNER: &str = "{spinner} {msg}";

fn bar(ui: &Ui, total: Option<u64>, template: &str) -> ProgressBar {
    let target = if ui.is_watched() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(total, target);
    // The templates are constants of this file; a typing error in one costs the looks and not the work.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar
}

/// A progress bar of bytes: done, total, speed, remaining time.
pub(crate) fn of_bytes(ui: &Ui, what: &str, total: u64) -> ProgressBar {
    let template = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
    bar(ui, Some(total), template).with_message(what.to_owned())
}

/// A bar of tokens, with the time that is left.
pub(crate) fn of_tokens(ui: &Ui, what: &str, total: u64) -> ProgressBar {
    bar(ui, Some(total), "{msg} {bar:30} {pos}/{len} tokens, {per_sec:.1}, {eta} left").with_message(what.to_owned())
}

/// A bar of the rows of a table; `total` is the length of the way, in bytes or rows, 0 if it is unknown. The message is
/// the number of rows.
#[cfg(feature = "map")]
pub(crate) fn of_rows(ui: &Ui, total: u64) -> ProgressBar {
    match total {
        0 => bar(ui, None, "{spinner} {msg} rows"),
        _ => bar(ui, Some(total), "{msg} rows {bar:30} {percent} %, {eta} left"),
    }
}

/// A bar of things that are counted.
pub(crate) fn of_steps(ui: &Ui, what: &str, total: u64) -> ProgressBar {
    bar(ui, Some(total), "{msg} {bar:30} {pos}/{len}").with_message(what.to_owned())
}

/// A bar of optimizer steps, with the time that is left.
#[cfg(feature = "train")]
pub(crate) fn of_training(ui: &Ui, total: u64) -> ProgressBar {
    bar(ui, Some(total), "{msg} {bar:30} step {pos}/{len}, {eta} left")
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(ui: &Ui, what: &str) -> ProgressBar {
    let spinner = bar(ui, None, SPINNER).with_message(what.to_owned());
    // A thread turns it.
    if !spinner.is_hidden() {
        spinner.enable_steady_tick(Duration::from_millis(120));
    }
    spinner
}
