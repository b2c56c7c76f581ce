//! What `bitnet run` may be told of the form of its text.

use std::path::{Path, PathBuf};

use bitnet::Constraint;
use clap::Args;

use crate::error::CliError;
use crate::ui;

/// At most one of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Form of the text")]
pub(super) struct ConstrainArgs {
    /// Generate JSON as this JSON Schema describes it: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON", conflicts_with_all = ["regex", "grammar", "choose", "stop"])]
    json_schema: Option<String>,
    /// Generate a text that this regular expression matches as a whole
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["grammar", "choose", "stop"])]
    regex: Option<String>,
    /// Generate a text of the grammar in this file, in Lark's notation
    #[arg(long, value_name = "FILE", conflicts_with_all = ["choose", "stop"])]
    grammar: Option<PathBuf>,
}

impl ConstrainArgs {
    /// The constraint that was asked for.
    ///
    /// # Errors
    /// A file that cannot be read, a schema that is no JSON.
    pub(super) fn constraint(&self) -> Result<Option<Constraint>, CliError> {
        if let Some(schema) = &self.json_schema {
            let text = match schema.trim_start().starts_with('{') {
                true => schema.clone(),
                false => read(Path::new(schema))?,
            };
            let value = serde_json::from_str(&text)
                .map_err(|e| CliError::usage(format!("--json-schema: this is no JSON: {e}")))?;
            return Ok(Some(Constraint::json_schema(&value)));
        }
        if let Some(pattern) = &self.regex {
            return Ok(Some(Constraint::regex(pattern)));
        }
        self.grammar.as_deref().map(|file| read(file).map(Constraint::lark)).transpose()
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let name = file.display().to_string();
    ui::text(std::fs::read(file).map_err(CliError::io("read", &name))?, &name)
}
