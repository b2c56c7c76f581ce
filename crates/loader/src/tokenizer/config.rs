//! The parts of `tokenizer_config.json` and `generation_config.json` that concern tokens.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::error::TokenizerError;
use super::file;
use super::limits::CONFIG_BYTES;

/// A chat template of a checkpoint that has several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamedTemplate {
    /// Its name: `default`, `tool_use` ...
    pub name: String,
    /// Its Jinja source.
    pub template: String,
}

/// What a `tokenizer_config.json` says about tokens and chats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenizerConfig {
    /// The token that begins a text.
    pub bos_token: Option<String>,
    /// The token that ends a text.
    pub eos_token: Option<String>,
    /// The token for what the vocabulary cannot write.
    pub unk_token: Option<String>,
    /// The padding token.
    pub pad_token: Option<String>,
    /// Whether BOS begins every text.
    pub add_bos_token: Option<bool>,
    /// Whether EOS ends every text.
    pub add_eos_token: Option<bool>,
    /// The chat templates; a single one is called `default`.
    pub chat_templates: Vec<NamedTemplate>,
}

#[derive(Deserialize)]
struct ConfigJson {
    bos_token: Option<TokenJson>,
    eos_token: Option<TokenJson>,
    unk_token: Option<TokenJson>,
    pad_token: Option<TokenJson>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<TemplatesJson>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenJson {
    Text(String),
    Token { content: String },
}

impl TokenJson {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TemplatesJson {
    One(String),
    Named(Vec<NamedTemplate>),
}

/// Reads a file that may be absent.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match file::read(path, CONFIG_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}

impl TokenizerConfig {
    /// Reads the bytes of a `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Json`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let config: ConfigJson = serde_json::from_slice(bytes)
            .map_err(|source| TokenizerError::Json { what: "tokenizer_config.json", source })?;
        let text = |token: Option<TokenJson>| token.map(TokenJson::text).filter(|token| !token.is_empty());
        Ok(Self {
            bos_token: text(config.bos_token),
            eos_token: text(config.eos_token),
            unk_token: text(config.unk_token),
            pad_token: text(config.pad_token),
            add_bos_token: config.add_bos_token,
            add_eos_token: config.add_eos_token,
            chat_templates: match config.chat_template {
                None => Vec::new(),
                Some(TemplatesJson::One(template)) => vec![NamedTemplate { name: "default".to_owned(), template }],
                Some(TemplatesJson::Named(templates)) => templates,
            },
        })
    }

    /// Reads the `tokenizer_config.json` of a folder, and a `chat_template.jinja` beside it, which replaces the
    /// template called `default`. `None` where the folder has neither.
    ///
    /// # Errors
    /// [`TokenizerError::Read`], [`TokenizerError::Json`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Option<Self>, TokenizerError> {
        let dir = dir.as_ref();
        let config = read(&dir.join("tokenizer_config.json"))?.map(|bytes| Self::from_bytes(&bytes)).transpose()?;
        let path = dir.join("chat_template.jinja");
        let Some(template) = read(&path)? else { return Ok(config) };
        let template = String::from_utf8(template).map_err(|error| TokenizerError::Read {
            path,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()),
        })?;
        let mut config = config.unwrap_or_default();
        config.chat_templates.retain(|named| named.name != "default");
        config.chat_templates.insert(0, NamedTemplate { name: "default".to_owned(), template });
        Ok(Some(config))
    }
}

/// The `eos_token_id` of a `generation_config.json`: a number or a list.
pub(super) fn generation_eos(dir: &Path) -> Result<Option<Vec<u32>>, TokenizerError> {
    let Some(bytes) = read(&dir.join("generation_config.json"))? else { return Ok(None) };
    let config: Value = serde_json::from_slice(&bytes)
        .map_err(|source| TokenizerError::Json { what: "generation_config.json", source })?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(match config.get("eos_token_id") {
        Some(Value::Array(ids)) => Some(ids.iter().filter_map(id).collect()),
        Some(value) => id(value).map(|id| vec![id]),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_templates_in_both_forms() {
        let config = TokenizerConfig::from_bytes(
            br#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "add_bos_token": true,
                "pad_token": null, "chat_template": [{"name": "default", "template": "a"}, {"name": "x", "template": "b"}]}"#,
        )
        .expect("config");
        assert_eq!((config.bos_token.as_deref(), config.eos_token.as_deref()), (Some("<s>"), Some("</s>")));
        assert_eq!((config.pad_token, config.add_bos_token, config.add_eos_token), (None, Some(true), None));
        assert_eq!(config.chat_templates.len(), 2);
        let one = TokenizerConfig::from_bytes(br#"{"chat_template": "t"}"#).expect("config");
        assert_eq!(one.chat_templates, [NamedTemplate { name: "default".into(), template: "t".into() }]);
        assert!(TokenizerConfig::from_bytes(b"[").is_err());
    }

    #[test]
    fn the_template_file_comes_first() {
        let dir = tempfile::tempdir().expect("folder");
        assert_eq!(TokenizerConfig::from_dir(dir.path()).expect("nothing"), None);
        std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"chat_template": "old"}"#).expect("write");
        std::fs::write(dir.path().join("chat_template.jinja"), "new").expect("write");
        std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [1, 2]}"#).expect("write");
        let config = TokenizerConfig::from_dir(dir.path()).expect("config").expect("some");
        assert_eq!(config.chat_templates.len(), 1);
        assert_eq!(config.chat_templates.first().map(|t| t.template.as_str()), Some("new"));
        assert_eq!(generation_eos(dir.path()).expect("eos"), Some(vec![1, 2]));
    }
}
