//! The configuration in the metadata of a GGUF file.

use bitnet_model::{Activation, ModelConfig};

use super::bit_ttt::{self, TttFields};
use super::inputs::{self, Asked};
use super::{DensePolicy, Reading, ScaleMeaning, TensorFacts, to_f32, to_token, to_usize, unsupported};
use crate::LoadError;
use crate::gguf::{Metadata, Value};
use crate::loaded::{GenerationConfig, QkLayout};

/// Why projections of a file of architecture `llama` are not quantised at load.
const LLAMA_DENSE: &str = "a file of architecture llama whose projections are not ternary is an ordinary model; ternary \
                           ones store I2_S, TQ1_0, TQ2_0, or exact multiples of -1, 0 and 1";

pub(crate) fn read(metadata: &Metadata, facts: TensorFacts) -> Result<Reading, LoadError> {
    let architecture = metadata.str("general.architecture")?.ok_or_else(|| LoadError::MissingKey {
        key: "general.architecture".into(),
        needed_for: "knowing the formulas of the model",
    })?;
    let (act, sub_norms, qk, dense) = match architecture {
        "bitnet-b1.58" | "bitnet-25" => (Activation::Relu2, true, QkLayout::Half, DensePolicy::Absmean),
        "bitnet" => (Activation::Silu, facts.has_sub_norms, QkLayout::Half, DensePolicy::Absmean),
        "llama" => (Activation::Silu, facts.has_sub_norms, QkLayout::Interleaved, DensePolicy::Refuse(LLAMA_DENSE)),
        bit_ttt::ARCHITECTURE => {
            let key = "bit-ttt.feed_forward_activation";
            let act = metadata.str(key)?.map(|name| bit_ttt::activation(key, name)).transpose()?;
            (act.unwrap_or(Activation::Relu2), facts.has_sub_norms, QkLayout::Half, DensePolicy::Absmean)
        }
        inputs::GGUF_ARCHITECTURE => {
            (hidden_act(metadata, architecture)?, facts.has_sub_norms, QkLayout::Half, DensePolicy::Absmean)
        }
        other => {
            let reason =
                "supported architectures are bitnet-b1.58, bitnet-25, bitnet, bitnet-v2, bit-ttt and (ternary) llama";
            return Err(unsupported("general.architecture", other, reason));
        }
    };
    let k = Keys { metadata, architecture };
    let hidden = k.size("embedding_length")?;
    let heads = k.size("attention.head_count")?;
    let kv_heads = match k.uniform("attention.head_count_kv")? {
        Some(v) => v,
        None => heads,
    };
    let vocab = match (k.get_size("vocab_size")?, facts.embedding_rows) {
        (Some(v), _) => v,
        (None, Some(rows)) => to_usize("rows of token_embd.weight", rows)?,
        (None, None) => return Err(k.missing("vocab_size")),
    };
    let mut c =
        ModelConfig::new(vocab, hidden, k.size("feed_forward_length")?, k.size("block_count")?, heads, kv_heads);
    if let Some(d) = k.get_size("attention.key_length")? {
        c.head_dim = d;
    }
    if let Some(v) = k.get_size("attention.value_length")?
        && v != c.head_dim
    {
        return Err(unsupported(&k.key("attention.value_length"), v, "values as wide as keys are supported only"));
    }
    if let Some(d) = k.get_size("rope.dimension_count")?
        && d != c.head_dim
    {
        return Err(unsupported(&k.key("rope.dimension_count"), d, "only rotation of whole heads is supported"));
    }
    c.hidden_act = act;
    c.sub_norms = sub_norms;
    let (must, may) = (architecture == inputs::GGUF_ARCHITECTURE, architecture == bit_ttt::ARCHITECTURE);
    c.inputs = inputs::from_gguf(metadata, architecture, Asked::by(must, may))?;
    c.tie_word_embeddings = !facts.has_head;
    c.max_position_embeddings = k.size("context_length")?;
    let eps = "attention.layer_norm_rms_epsilon";
    c.rms_norm_eps = to_f32(metadata.f64(&k.key(eps))?.ok_or_else(|| k.missing(eps))?);
    // llama.cpp's default where the key is absent.
    c.rope_theta = metadata.f64(&k.key("rope.freq_base"))?.unwrap_or(10_000.0);
    if let Some(kind) = metadata.str(&k.key("rope.scaling.type"))?
        && kind != "none"
    {
        return Err(unsupported(&k.key("rope.scaling.type"), kind, "scaled rotary embeddings are not supported"));
    }
    if architecture == bit_ttt::ARCHITECTURE {
        let key = k.key("mixers");
        let names = metadata.strings(&key)?.ok_or_else(|| k.missing("mixers"))?;
        c.mixers = bit_ttt::mixers(&key, names.iter(), c.num_hidden_layers)?;
        if !c.mixers.is_empty() {
            c.ttt = bit_ttt::options(&k)?;
        }
    }
    c.bos_token_id = token(metadata, "tokenizer.ggml.bos_token_id")?;
    for key in ["eos", "eot", "eom"] {
        if let Some(id) = token(metadata, &format!("tokenizer.ggml.{key}_token_id"))?
            && !c.eos_token_ids.contains(&id)
        {
            c.eos_token_ids.push(id);
        }
    }
    Ok(Reading {
        config: c,
        architecture: architecture.to_owned(),
        name: metadata.get("general.name").and_then(Value::as_str).map(str::to_owned),
        scale: ScaleMeaning::Multiply,
        dense,
        qk,
        generation: sampling(metadata)?,
        notes: Vec::new(),
    })
}

/// The activation, where the architecture does not say it.
fn hidden_act(metadata: &Metadata, architecture: &str) -> Result<Activation, LoadError> {
    let key = format!("{architecture}.hidden_act");
    match metadata.str(&key)? {
        Some("relu2") => Ok(Activation::Relu2),
        Some("silu") => Ok(Activation::Silu),
        Some(other) => Err(unsupported(&key, other, "supported are relu2 and silu")),
        None => Err(LoadError::MissingKey { key, needed_for: "the formulas of the model" }),
    }
}

/// A token id, or `None` where the key is absent or says so.
pub(crate) fn token(metadata: &Metadata, key: &str) -> Result<Option<u32>, LoadError> {
    match metadata.get(key) {
        // Writers that mean "none" put -1 or the largest number here.
        Some(Value::I32(-1) | Value::I64(-1) | Value::U32(u32::MAX)) => Ok(None),
        _ => metadata.u64(key)?.map(|v| to_token(key, v)).transpose(),
    }
}

/// Sampling defaults, which newer files may carry.
fn sampling(metadata: &Metadata) -> Result<GenerationConfig, LoadError> {
    let float = |key: &str| Ok::<_, LoadError>(metadata.f64(key)?.map(to_f32));
    let mut g = GenerationConfig::default();
    g.temperature = float("general.sampling.temp")?;
    g.top_p = float("general.sampling.top_p")?;
    g.top_k = metadata.u64("general.sampling.top_k")?.and_then(|v| usize::try_from(v).ok());
    g.repetition_penalty = float("general.sampling.penalty_repeat")?;
    g.do_sample = g.temperature.map(|t| t > 0.0);
    Ok(g)
}

struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl TttFields for Keys<'_> {
    fn number(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.get_size(&format!("ttt.{key}"))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.metadata.f64(&self.key(&format!("ttt.{key}")))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.metadata.bool(&self.key(&format!("ttt.{key}")))
    }

    fn word(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.metadata.str(&self.key(&format!("ttt.{key}")))
    }
}

impl Keys<'_> {
    fn key(&self, short: &str) -> String {
        format!("{}.{short}", self.architecture)
    }

    fn missing(&self, short: &str) -> LoadError {
        LoadError::MissingKey { key: self.key(short), needed_for: "the shape of the model" }
    }

    fn get_size(&self, short: &str) -> Result<Option<usize>, LoadError> {
        let key = self.key(short);
        self.metadata.u64(&key)?.map(|v| to_usize(&key, v)).transpose()
    }

    fn size(&self, short: &str) -> Result<usize, LoadError> {
        match self.uniform(short)? {
            Some(v) => Ok(v),
            None => Err(self.missing(short)),
        }
    }

    /// A number, or an array with one number per layer that are all the same.
    fn uniform(&self, short: &str) -> Result<Option<usize>, LoadError> {
        let key = self.key(short);
        let Some(Value::Array(array)) = self.metadata.get(&key) else { return self.get_size(short) };
        let values = array.to_i64s().unwrap_or_default();
        match values.first() {
            Some(&first) if values.iter().all(|v| *v == first) => {
                let first = u64::try_from(first).map_err(|_| unsupported(&key, first, "it must be positive"))?;
                to_usize(&key, first).map(Some)
            }
            _ => Err(unsupported(&key, Value::Array(array.clone()), "layers of different shapes are not supported")),
        }
    }
}
