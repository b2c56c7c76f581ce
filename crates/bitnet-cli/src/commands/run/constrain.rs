//! Options of `bitnet run` that constrain the form of its text.

use std::path::{Path, PathBuf};

use bitnet::Constraint;
use clap::Args;
use loader::files::{self, Kind};

use crate::error::CliError;

/// At most one of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Constrained output")]
pub(super) struct ConstrainArgs {
    /// Generate JSON that matches this JSON Schema: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON", conflicts_with_all = ["regex", "grammar", "choose", "stop"])]
    json_schema: Option<String>,
    /// Generate a text that matches this regular expression as a whole
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, conflicts_with_all = ["grammar", "choose", "stop"])]
    regex: Option<String>,
    /// Generate a text that matches the grammar in this file, in Lark notation
    #[arg(long, value_name = "FILE", conflicts_with_all = ["choose", "stop"])]
    grammar: Option<PathBuf>,
}

/// The JSON Schema that an option names: a file, or the schema itself.
///
/// # Errors
/// A file that cannot be read, a schema that is not JSON.
pub(crate) fn schema(typed: &str, option: &str) -> Result<serde_json::Value, CliError> {
    let text = match typed.trim_start().starts_with('{') {
        true => typed.to_owned(),
        false => files::read_text(Path::new(typed), Kind::SCHEMA)?,
    };
    serde_json::from_str(&text).map_err(|e| CliError::usage(format!("{option}: invalid JSON: {e}")))
}

impl ConstrainArgs {
    /// The requested constraint.
    ///
    /// # Errors
    /// A file that cannot be read, a schema that is not JSON.
    pub(super) fn constraint(&self) -> Result<Option<Constraint>, CliError> {
        if let Some(schema) = &self.json_schema {
            return Ok(Some(Constraint::json_schema(&self::schema(schema, "--json-schema")?)));
        }
        if let Some(pattern) = &self.regex {
            return Ok(Some(Constraint::regex(pattern)));
        }
        let Some(file) = &self.grammar else { return Ok(None) };
        Ok(Some(Constraint::lark(files::read_text(file, Kind::GRAMMAR)?)))
    }
}
