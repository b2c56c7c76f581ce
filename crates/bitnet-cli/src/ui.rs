//! Output for users: messages on stderr, colours only where they make sense, numbers in readable units.

use std::io::{IsTerminal, Write};

use bitnet::{ChosenBy, LayerKernel};
use serde::Serialize;

use crate::error::CliError;

/// An ANSI style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Red => "31;1",
            Style::Green => "32",
            Style::Cyan => "36",
        }
    }
}

/// Which streams are terminals, and how talkative to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    quiet: bool,
    stdout_terminal: bool,
    stderr_terminal: bool,
    colours: bool,
}

impl Ui {
    /// Looks at the standard streams and at `NO_COLOR` (<https://no-color.org>).
    pub(crate) fn new(quiet: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            quiet,
            stdout_terminal: std::io::stdout().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
            colours: !no_colour && !dumb,
        }
    }

    /// Whether stderr is a terminal that a person looks at: progress bars and statistics go there.
    pub(crate) fn is_watched(&self) -> bool {
        self.stderr_terminal && !self.quiet
    }
    /// Whether stdout and stderr both are terminals.
    pub(crate) fn is_interactive(&self) -> bool {
        self.is_watched() && self.stdout_terminal
    }
    /// Whether stderr may be coloured.
    pub(crate) fn colours_on_stderr(&self) -> bool {
        self.colours && self.stderr_terminal
    }

    /// `text` in a style, for stdout.
    pub(crate) fn out(&self, style: Style, text: impl std::fmt::Display) -> String {
        paint(self.colours && self.stdout_terminal, style, text)
    }
    /// `text` in a style, for stderr.
    pub(crate) fn err(&self, style: Style, text: impl std::fmt::Display) -> String {
        paint(self.colours_on_stderr(), style, text)
    }

    /// A line on stderr, unless `--quiet`. A closed stderr is not an error.
    pub(crate) fn say(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            // In one piece: stderr has no buffer, and each piece would be a system call.
            let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    }
    /// Text on stderr that the following text on stdout continues, in bold.
    pub(crate) fn echo(&self, text: &str) {
        let mut err = std::io::stderr();
        let _ = err.write_all(self.err(Style::Bold, text).as_bytes()).and_then(|()| err.flush());
    }
    /// A note for the user, on stderr, unless `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        self.say(format_args!("{} {text}", self.err(Style::Cyan, "note:")));
    }
    /// Something that did not work and ends nothing, on stderr, also with `--quiet`.
    #[cfg(feature = "train")]
    pub(crate) fn warning(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{} {text}", self.err(Style::Red, "warning:"));
    }
    /// The error that ends the command, in one line. An interruption needs no explanation, nor does a closed pipe.
    pub(crate) fn error(&self, error: &CliError) {
        let silent = matches!(error, CliError::BrokenPipe) || (self.quiet && matches!(error, CliError::Interrupted));
        if !silent {
            let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(std::io::stderr(), "{} {text}", self.err(Style::Red, "error:"));
        }
    }
}

fn paint(on: bool, style: Style, text: impl std::fmt::Display) -> String {
    if on { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_string() }
}

/// Writes `text` to stdout and makes sure that it arrives.
///
/// # Errors
/// [`CliError::BrokenPipe`] if its reader is gone, [`CliError::Io`] otherwise.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::io("write", "stdout"))
}

/// Writes a line to stdout.
///
/// # Errors
/// The errors of [`print`].
pub(crate) fn print_line(line: impl std::fmt::Display) -> Result<(), CliError> {
    print(&format!("{line}\n"))
}

/// Writes the one JSON object of a command to stdout.
///
/// # Errors
/// The errors of [`print`].
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string(value).map_err(|e| CliError::Io {
        op: "write",
        what: "stdout".into(),
        source: e.into(),
    })?;
    text.push('\n');
    print(&text)
}

/// Bytes as text.
///
/// # Errors
/// [`CliError::NotUtf8`] with the first invalid byte.
pub(crate) fn text(bytes: Vec<u8>, what: &str) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|e| CliError::NotUtf8 { what: what.to_owned(), at: e.utf8_error().valid_up_to() })
}

/// The kernel of each projection group, and who chose it: `{"down": {"kernel": "i2s_avx2", "by": "tuning"}, ...}`.
pub(crate) fn kernels_json(kernels: &[LayerKernel]) -> serde_json::Value {
    let entry =
        |k: &LayerKernel| (k.group.name().to_owned(), serde_json::json!({ "kernel": k.kernel, "by": k.by.name() }));
    kernels.iter().map(entry).collect::<serde_json::Map<_, _>>().into()
}

/// The suffix of kernel names if `bitnet tune` chose them, or some of them.
pub(crate) fn chosen_by(kernels: &[LayerKernel]) -> &'static str {
    match kernels.iter().filter(|k| k.by == ChosenBy::Tuning).count() {
        0 => "",
        n if n == kernels.len() => " (tuned)",
        _ => " (partly tuned)",
    }
}

/// Bytes in binary units with three digits: `1.14 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if value < 9.995 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A count with three digits: `2.41 B`, `5.25 M`, `812`.
pub(crate) fn count(n: u64) -> String {
    let (value, unit) = match n {
        0..1_000 => return n.to_string(),
        1_000..1_000_000 => (n as f64 / 1e3, "k"),
        1_000_000..1_000_000_000 => (n as f64 / 1e6, "M"),
        _ => (n as f64 / 1e9, "B"),
    };
    if value < 99.95 { format!("{value:.2} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A rate with three digits or so: `0.52`, `12.3`, `1234`.
pub(crate) fn rate(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "0.98 KiB");
        assert_eq!(bytes(2_048), "2.00 KiB");
        assert_eq!(bytes(1_178_000_000), "1.10 GiB");
        assert_eq!(bytes(521_000_000), "497 MiB");
        assert_eq!(count(812), "812");
        assert_eq!(count(5_250_000), "5.25 M");
        assert_eq!(count(2_412_000_000), "2.41 B");
        assert_eq!(rate(0.516), "0.52");
        assert_eq!(rate(1234.4), "1234");
    }

    #[test]
    fn styles_vanish_where_they_are_off() {
        assert_eq!(paint(false, Style::Red, "x"), "x");
        assert_eq!(paint(true, Style::Red, "x"), "\x1b[31;1mx\x1b[0m");
    }
}
