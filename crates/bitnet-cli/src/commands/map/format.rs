//! Formats of tables.

use std::path::Path;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::error::CliError;

/// The format of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON object per line.
    Jsonl,
    /// Values separated by this byte, after a line of names.
    Csv(u8),
    /// Apache Parquet.
    Parquet,
}

impl Format {
    const ALL: [(&str, Self, &str); 4] = [
        ("jsonl", Self::Jsonl, "A JSON object per line"),
        ("csv", Self::Csv(b','), "Values separated by commas, after a line of names"),
        ("tsv", Self::Csv(b'\t'), "Values separated by tabs, after a line of names"),
        ("parquet", Self::Parquet, "Apache Parquet"),
    ];

    /// For options.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        let names = Self::ALL.map(|(name, _, help)| PossibleValue::new(name).help(help));
        PossibleValuesParser::new(names).try_map(|name| Self::named(&name).ok_or("unknown format"))
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, ..)| *known == name).map(|(_, format, _)| *format)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format, _)| *format == self).map_or("", |(name, ..)| *name)
    }

    /// The format that was asked for, or that of the ending; `-` is JSONL.
    ///
    /// # Errors
    /// [`CliError::Usage`] for another ending, or for Parquet in a stream.
    pub(super) fn of(path: &Path, asked: Option<Self>, option: &str) -> Result<Self, CliError> {
        let stream = is_stream(path);
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let by_ending = || match ending.as_deref() {
            _ if stream => Some(Self::Jsonl),
            Some("ndjson" | "jsonlines") => Some(Self::Jsonl),
            Some(name) => Self::named(name),
            None => None,
        };
        match asked.or_else(by_ending) {
            Some(Self::Parquet) if stream => {
                Err(CliError::usage("Parquet needs a file: its directory is at its end, and `-` is a stream"))
            }
            Some(format) => Ok(format),
            None => Err(CliError::usage(format!(
                "the ending of {} names no format; use .jsonl, .csv, .tsv or .parquet, or {option}",
                path.display()
            ))),
        }
    }
}

/// Whether a path stands for standard input or output.
pub(super) fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_formats_and_options_overrule_them() {
        let of = |path: &str, asked| Format::of(Path::new(path), asked, "--input-format").map_err(|e| e.to_string());
        for (path, format) in [
            ("a.jsonl", Format::Jsonl),
            ("b/A.NDJSON", Format::Jsonl),
            ("a.csv", Format::Csv(b',')),
            ("a.tsv", Format::Csv(b'\t')),
            ("a.b.parquet", Format::Parquet),
            ("-", Format::Jsonl),
        ] {
            assert_eq!(of(path, None), Ok(format), "{path}");
        }
        assert_eq!(of("a.csv", Some(Format::Jsonl)), Ok(Format::Jsonl));
        assert_eq!(of("-", Some(Format::Csv(b','))), Ok(Format::Csv(b',')));
        assert!(of("a.xlsx", None).unwrap_err().contains("--input-format"));
        assert!(of("a", None).is_err() && of("-", Some(Format::Parquet)).is_err());
        assert!(Format::ALL.iter().all(|(name, format, _)| format.name() == *name));
    }
}
