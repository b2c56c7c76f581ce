//! The post-processor of a `tokenizer.json`: tokens before and after an encoded text.

use serde_json::Value;

use super::error::TokenizerError;
use super::limits::{AFFIX_IDS, at_most};

/// Ids around an encoded text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Affixes {
    pub(super) prefix: Vec<u32>,
    pub(super) suffix: Vec<u32>,
}

fn bad(kind: impl Into<String>) -> TokenizerError {
    TokenizerError::UnsupportedStage { stage: "post_processor", kind: kind.into() }
}

impl Affixes {
    /// Reads the `post_processor` of a `tokenizer.json`, for a single text.
    pub(super) fn from_json(value: Option<&Value>) -> Result<Self, TokenizerError> {
        let mut affixes = Self::default();
        if let Some(value) = value.filter(|value| !value.is_null()) {
            affixes.add(value)?;
        }
        at_most("ids that the post-processor puts around a text", affixes.ids().count(), AFFIX_IDS)?;
        Ok(affixes)
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.prefix.iter().chain(&self.suffix).copied()
    }

    fn add(&mut self, value: &Value) -> Result<(), TokenizerError> {
        match value.get("type").and_then(Value::as_str).unwrap_or_default() {
            // It only moves offsets.
            "ByteLevel" => Ok(()),
            "Sequence" => {
                let steps = value.get("processors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                steps.iter().try_for_each(|step| self.add(step))
            }
            "TemplateProcessing" => self.add_template(value),
            "RobertaProcessing" | "BertProcessing" => {
                let id = |name: &str| {
                    let id = value.get(name).and_then(|pair| pair.get(1)).and_then(Value::as_u64);
                    id.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| bad(format!("no id for {name}")))
                };
                self.prefix.insert(0, id("cls")?);
                self.suffix.push(id("sep")?);
                Ok(())
            }
            other => Err(bad(other)),
        }
    }

    fn add_template(&mut self, value: &Value) -> Result<(), TokenizerError> {
        let parts = value.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
        let mut texts = 0u32;
        for part in parts {
            if part.get("Sequence").is_some() {
                texts = texts.saturating_add(1);
                continue;
            }
            let name = part.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
            let name = name.ok_or_else(|| bad("TemplateProcessing with an unknown part"))?;
            let ids = value.get("special_tokens").and_then(|tokens| tokens.get(name)).and_then(|t| t.get("ids"));
            let ids = ids.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if ids.is_empty() {
                return Err(TokenizerError::MissingToken { what: "the post-processor", token: name.to_owned() });
            }
            for id in ids {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| bad("an id out of range"))?;
                if texts == 0 { &mut prefix } else { &mut suffix }.push(id);
            }
        }
        if texts != 1 {
            return Err(bad("TemplateProcessing without exactly one text"));
        }
        prefix.append(&mut self.prefix);
        self.prefix = prefix;
        self.suffix.append(&mut suffix);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_pairs() {
        let template = serde_json::json!({"type": "Sequence", "processors": [
            {"type": "ByteLevel"},
            {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "</s>", "type_id": 0}}],
             "special_tokens": {"<s>": {"id": "<s>", "ids": [1]}, "</s>": {"id": "</s>", "ids": [2]}}}]});
        let affixes = Affixes::from_json(Some(&template)).expect("template");
        assert_eq!(affixes, Affixes { prefix: vec![1], suffix: vec![2] });
        let roberta = serde_json::json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]});
        let affixes = Affixes::from_json(Some(&roberta)).expect("roberta");
        assert_eq!(affixes, Affixes { prefix: vec![0], suffix: vec![2] });
        assert_eq!(Affixes::from_json(Some(&Value::Null)).expect("none"), Affixes::default());
        let unknown = serde_json::json!({"type": "Other"});
        assert!(Affixes::from_json(Some(&unknown)).is_err());
    }
}
