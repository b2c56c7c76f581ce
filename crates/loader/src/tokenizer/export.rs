//! The vocabulary of a GGUF file as the files that Hugging Face folders have: `tokenizer.json` for byte-level BPE,
//! `tokenizer.model` for SentencePiece.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::gguf::GgufVocab;
use super::spm::PieceKind;

impl GgufVocab {
    /// The name and the bytes of a file with this vocabulary; `None` if no such file can hold it: unknown kinds of
    /// models, two tokens with the same spelling.
    pub fn to_file(&self) -> Option<(&'static str, Vec<u8>)> {
        match self.model.as_str() {
            "gpt2" => Some(("tokenizer.json", self.to_json()?.to_string().into_bytes())),
            "llama" => Some(("tokenizer.model", self.to_sentencepiece(2))),
            "t5" => Some(("tokenizer.model", self.to_sentencepiece(1))),
            _ => None,
        }
    }

    /// The spelling of a token in this vocabulary.
    pub fn spelling(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    fn to_json(&self) -> Option<Value> {
        let (patterns, ignore_merges, nfc) = self.byte_level_stages()?;
        let mut merged = HashSet::new();
        let mut merges = Vec::with_capacity(self.merges.len());
        for merge in &self.merges {
            let (left, right) = merge.split_once(' ')?;
            merged.insert(format!("{left}{right}"));
            merges.push(json!([left, right]));
        }
        let mut vocab = Map::new();
        let mut added = Vec::new();
        for (token, id) in self.tokens.iter().zip(0u32..) {
            let kind = self.kind(id);
            let found = matches!(kind, PieceKind::Control | PieceKind::Unknown | PieceKind::UserDefined);
            if found {
                added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": kind != PieceKind::UserDefined,
                }));
            }
            // A token that is found in the text is part of the vocabulary only if merges make it.
            if (!found || merged.contains(token)) && vocab.insert(token.clone(), json!(id)).is_some() {
                return None;
            }
        }
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let steps: Vec<Value> = patterns.iter().map(split).chain([bytes(false)]).collect();
        // Includes the BOS token, for programs that read this file and not tokenizer_config.json.
        let bos = self.bos.filter(|_| self.add_bos == Some(true));
        let post = match bos.and_then(|id| Some((id, self.spelling(id)?))) {
            Some((id, name)) => json!({
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [
                    {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": name, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
                ],
                "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
            }),
            None => bytes(true),
        };
        Some(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": if nfc { json!({"type": "NFC"}) } else { Value::Null },
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": post,
            "decoder": bytes(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges,
            },
        }))
    }

    /// The protocol buffer that `tokenizer.model` is; `kind` is 1 for unigram and 2 for BPE.
    fn to_sentencepiece(&self, kind: u64) -> Vec<u8> {
        let mut out = Message::default();
        for (token, id) in self.tokens.iter().zip(0u32..) {
            let mut piece = Message::default();
            piece.bytes(1, token.as_bytes());
            piece.float(2, self.scores.get(id as usize).copied().unwrap_or(0.0));
            piece.number(3, number(self.kind(id)));
            out.bytes(1, &piece.0);
        }
        let unknown = || (0u32..).zip(&self.tokens).map(|(id, _)| id).find(|id| self.kind(*id) == PieceKind::Unknown);
        // A special token that there is not has id -1, in 64 bits.
        let id = |id: Option<u32>| id.map_or(u64::MAX, u64::from);
        let mut trainer = Message::default();
        trainer.number(3, kind);
        trainer.number(4, self.tokens.len() as u64);
        let bytes = (0u32..).zip(&self.tokens).any(|(id, _)| self.kind(id) == PieceKind::Byte);
        trainer.number(35, u64::from(bytes));
        trainer.number(40, id(self.unk.or_else(unknown)));
        trainer.number(41, id(self.bos));
        trainer.number(42, id(self.eos));
        trainer.number(43, id(self.pad));
        out.bytes(2, &trainer.0);
        let mut normalizer = Message::default();
        normalizer.bytes(1, b"identity");
        if let Some(map) = &self.precompiled_charsmap {
            normalizer.bytes(2, map);
        }
        normalizer.number(3, u64::from(self.add_space_prefix.unwrap_or(true)));
        normalizer.number(4, u64::from(self.remove_extra_whitespaces.unwrap_or(false)));
        normalizer.number(5, 1);
        out.bytes(3, &normalizer.0);
        out.0
    }
}

/// The number of a kind, the same in both formats.
fn number(kind: PieceKind) -> u64 {
    match kind {
        PieceKind::Normal => 1,
        PieceKind::Unknown => 2,
        PieceKind::Control => 3,
        PieceKind::UserDefined => 4,
        PieceKind::Unused => 5,
        PieceKind::Byte => 6,
    }
}

/// The fields of a protocol buffer.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}
