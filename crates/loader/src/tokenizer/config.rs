//! The parts of `tokenizer_config.json` and `generation_config.json` that concern tokens.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::error::TokenizerError;
use crate::files::{self, Kind};

/// A chat template of a checkpoint that has several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamedTemplate {
    /// Its name: `default`, `tool_use` ...
    pub name: String,
    /// Its Jinja source.
    pub template: String,
}

/// Tokens and chat template of a `tokenizer_config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenizerConfig {
    /// The token that begins a text.
    pub bos_token: Option<String>,
    /// Whether `bos_token` is present and null: then no token begins a text, whatever the model's configuration says.
    pub bos_token_is_null: bool,
    /// The token that ends a text.
    pub eos_token: Option<String>,
    /// The token for text outside the vocabulary.
    pub unk_token: Option<String>,
    /// The padding token.
    pub pad_token: Option<String>,
    /// Whether BOS begins every text.
    pub add_bos_token: Option<bool>,
    /// Whether EOS ends every text.
    pub add_eos_token: Option<bool>,
    /// Which of BOS and EOS a `special_tokens_map.json` names, for errors.
    pub(crate) of_map: [bool; 2],
    /// The chat templates; a single one is called `default`.
    pub chat_templates: Vec<NamedTemplate>,
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default, deserialize_with = "even_null")]
    bos_token: Option<Option<TokenJson>>,
    eos_token: Option<TokenJson>,
    unk_token: Option<TokenJson>,
    pad_token: Option<TokenJson>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<TemplatesJson>,
}

/// `Some(None)` for null, `None` for a field that is absent.
fn even_null<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<TokenJson>>, D::Error> {
    Option::deserialize(value).map(Some)
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
    match files::read(path, Kind::CONFIG) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
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
            bos_token_is_null: matches!(config.bos_token, Some(None)),
            bos_token: text(config.bos_token.flatten()),
            eos_token: text(config.eos_token),
            unk_token: text(config.unk_token),
            pad_token: text(config.pad_token),
            add_bos_token: config.add_bos_token,
            add_eos_token: config.add_eos_token,
            of_map: [false; 2],
            chat_templates: match config.chat_template {
                None => Vec::new(),
                Some(TemplatesJson::One(template)) => vec![NamedTemplate { name: "default".to_owned(), template }],
                Some(TemplatesJson::Named(templates)) => templates,
            },
        })
    }

    /// Takes the tokens that it lacks from the bytes of a `special_tokens_map.json`, which older folders have.
    ///
    /// # Errors
    /// [`TokenizerError::Json`].
    fn complete(&mut self, map: &[u8]) -> Result<(), TokenizerError> {
        let map: ConfigJson = serde_json::from_slice(map)
            .map_err(|source| TokenizerError::Json { what: "special_tokens_map.json", source })?;
        let take = |own: &mut Option<String>, token: Option<TokenJson>| {
            let lacks = own.is_none();
            *own = own.take().or(token.map(TokenJson::text).filter(|token| !token.is_empty()));
            lacks && own.is_some()
        };
        // An explicit null stays null.
        let bos = map.bos_token.flatten().filter(|_| !self.bos_token_is_null);
        self.of_map = [take(&mut self.bos_token, bos), take(&mut self.eos_token, map.eos_token)];
        take(&mut self.unk_token, map.unk_token);
        take(&mut self.pad_token, map.pad_token);
        Ok(())
    }

    /// The file that names BOS, or that names EOS, and the key in it.
    pub(crate) fn said_by(&self, bos: bool) -> &'static str {
        let [bos_of_map, eos_of_map] = self.of_map;
        match (bos, if bos { bos_of_map } else { eos_of_map }) {
            (true, false) => "bos_token of tokenizer_config.json",
            (true, true) => "bos_token of special_tokens_map.json",
            (false, false) => "eos_token of tokenizer_config.json",
            (false, true) => "eos_token of special_tokens_map.json",
        }
    }

    /// Reads the `tokenizer_config.json` of a folder, an accompanying `special_tokens_map.json` for the tokens that it
    /// lacks, and a `chat_template.jinja`, which replaces the template called `default`. `None` if the folder has none
    /// of them.
    ///
    /// # Errors
    /// [`TokenizerError::Read`], [`TokenizerError::Json`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Option<Self>, TokenizerError> {
        let dir = dir.as_ref();
        let mut config = read(&dir.join("tokenizer_config.json"))?.map(|bytes| Self::from_bytes(&bytes)).transpose()?;
        if let Some(map) = read(&dir.join("special_tokens_map.json"))? {
            config.get_or_insert_default().complete(&map)?;
        }
        let path = dir.join("chat_template.jinja");
        let Some(template) = read(&path)? else { return Ok(config) };
        let template = files::text(template, &path)?;
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
    fn tokens_that_are_lacking_come_from_the_map() {
        let dir = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("write");
        let map = r#"{"bos_token": "<b>", "eos_token": {"content": "<e>", "lstrip": false}, "unk_token": "<u>",
            "additional_special_tokens": ["<x>", {"content": "<y>"}]}"#;
        write("special_tokens_map.json", map);
        let config = || TokenizerConfig::from_dir(dir.path()).expect("config").expect("some");
        let alone = config();
        assert_eq!((alone.bos_token.as_deref(), alone.eos_token.as_deref()), (Some("<b>"), Some("<e>")));
        assert_eq!((alone.unk_token.as_deref(), alone.of_map), (Some("<u>"), [true, true]));
        assert_eq!(alone.said_by(true), "bos_token of special_tokens_map.json");
        // The other file takes precedence, even if it says that there is none.
        write("tokenizer_config.json", r#"{"bos_token": null, "eos_token": "<s>"}"#);
        let both = config();
        assert_eq!((both.bos_token.as_deref(), both.eos_token.as_deref()), (None, Some("<s>")));
        assert_eq!(
            (both.bos_token_is_null, both.of_map, both.said_by(false)),
            (true, [false; 2], "eos_token of tokenizer_config.json")
        );
        write("special_tokens_map.json", "[");
        let error = TokenizerConfig::from_dir(dir.path()).expect_err("no JSON").to_string();
        assert!(error.contains("special_tokens_map.json"), "{error}");
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
