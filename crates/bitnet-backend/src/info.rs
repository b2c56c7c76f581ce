//! Facts about a model, as the page shows them.

use bitnet::Model;
use serde::Serialize;

/// Facts that the program which computes adds to those of the model.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Name for people, if the model's file has none.
    pub name: &'a str,
    /// Where it computes, before the instruction set: `"wasm "`, or nothing.
    pub place: &'a str,
    /// Whether it reports the inner losses of test-time-training layers.
    pub inner_loss: bool,
}

/// `ModelInfo` of the page. It becomes JSON.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Name for people.
    pub name: String,
    architecture: String,
    parameters: u64,
    mixers: Vec<&'static str>,
    context: Option<usize>,
    max_tokens: usize,
    chat: bool,
    constrain: bool,
    inner_loss: bool,
    memory: Memory,
    sampling: Sampling,
    device: String,
    version: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    weights: usize,
    per_token: usize,
    constant: usize,
    /// Bytes of one token if every layer were attention, to compare with.
    per_token_as_attention: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampling {
    temperature: f32,
    top_p: f32,
    top_k: usize,
    min_p: f32,
}

impl Info {
    /// Facts about `model`.
    pub fn of(model: &Model, facts: Facts<'_>) -> Self {
        let (config, engine, info) = (model.config(), model.engine(), model.info());
        let context = Some(model.context()).filter(|tokens| *tokens != usize::MAX);
        let (sampling, threads) = (model.default_sampling(), engine.threads());
        Self {
            name: info.name.as_deref().unwrap_or(facts.name).to_owned(),
            architecture: info.architecture.clone(),
            parameters: config.parameters(),
            mixers: (0..config.num_hidden_layers).map(|layer| config.mixer(layer).name()).collect(),
            context,
            max_tokens: context.unwrap_or(config.max_position_embeddings),
            chat: model.chat_template().is_some() && model.tokenizer().is_some(),
            constrain: model.tokenizer().is_some(),
            inner_loss: facts.inner_loss && config.has_ttt(),
            memory: Memory {
                weights: engine.packed_bytes() + engine.head_bytes() + engine.coarse_head_bytes().unwrap_or(0),
                per_token: model.kv_type().token_bytes(config),
                constant: config.state_bytes().unwrap_or(0),
                per_token_as_attention: 2
                    * config.num_hidden_layers
                    * config.num_key_value_heads
                    * model.kv_type().row_bytes(config.head_dim),
            },
            sampling: Sampling {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                min_p: sampling.min_p,
            },
            device: format!("{}{}, {threads} thread{}", facts.place, engine.isa(), if threads == 1 { "" } else { "s" }),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
