//! The configuration in the metadata of a GGUF file.

use bitnet_model::{Activation, ModelConfig};

use super::bit_ttt::{self, TttFields};
use super::inputs::{self, Asked};
use super::{DensePolicy, Reading, ScaleMeaning, TensorFacts, to_f32, to_token, to_usize, unsupported};
use super::{act, neutral, rope};
use crate::LoadError;
use crate::gguf::{Metadata, Value};
use crate::loaded::{GenerationConfig, QkLayout};

/// Why projections of a file of architecture `llama` are not quantised at load.
const LLAMA_DENSE: &str = "a file of architecture llama whose projections are not ternary is an ordinary model; ternary \
                           ones store I2_S, TQ1_0, TQ2_0, or exact multiples of -1, 0 and 1";

/// All ids that end a text, where they are more than the keys of other programs can hold.
pub(crate) const EOS_LIST: &str = "tokenizer.ggml.eos_token_ids";

pub(crate) fn read(metadata: &Metadata, facts: TensorFacts) -> Result<Reading, LoadError> {
    let architecture = metadata.str("general.architecture")?.ok_or_else(|| LoadError::MissingKey {
        key: "general.architecture".into(),
        needed_for: "knowing the formulas of the model",
    })?;
    let (default_act, sub_norms, qk, dense) = match architecture {
        "bitnet-b1.58" | "bitnet-25" => (Some(Activation::Relu2), true, QkLayout::Half, DensePolicy::Absmean),
        // Decided below, where the file does not name it.
        "bitnet" => (None, facts.has_sub_norms, QkLayout::Half, DensePolicy::Absmean),
        "llama" => {
            (Some(Activation::Silu), facts.has_sub_norms, QkLayout::Interleaved, DensePolicy::Refuse(LLAMA_DENSE))
        }
        bit_ttt::ARCHITECTURE => (Some(Activation::Relu2), facts.has_sub_norms, QkLayout::Half, DensePolicy::Absmean),
        inputs::GGUF_ARCHITECTURE => (None, facts.has_sub_norms, QkLayout::Half, DensePolicy::Absmean),
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
    let mut notes = Vec::new();
    let named = act::GGUF_KEYS.iter().map(|short| {
        let key = k.key(short);
        metadata.str(&key).map(|name| (key, name))
    });
    c.hidden_act = match act::named(named)?.or(default_act) {
        Some(act) => act,
        None => unnamed_act(&k, &c, &mut notes)?,
    };
    c.sub_norms = sub_norms;
    let (must, may) = (architecture == inputs::GGUF_ARCHITECTURE, architecture == bit_ttt::ARCHITECTURE);
    c.inputs = inputs::from_gguf(metadata, architecture, Asked::by(must, may))?;
    c.tie_word_embeddings = !facts.has_head;
    c.max_position_embeddings = k.size("context_length")?;
    let eps = "attention.layer_norm_rms_epsilon";
    c.rms_norm_eps = to_f32(metadata.f64(&k.key(eps))?.ok_or_else(|| k.missing(eps))?);
    // llama.cpp's default where the key is absent.
    c.rope_theta = metadata.f64(&k.key("rope.freq_base"))?.unwrap_or(10_000.0);
    c.rope_scaling = rope::from_gguf(metadata, architecture, facts.rope_factors)?;
    notes.extend(neutral::check_gguf(metadata, architecture, &c)?);
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
    // Our own key: three is as many as other programs have keys for.
    for id in metadata.i32s(EOS_LIST)?.unwrap_or_default() {
        let id = to_token(EOS_LIST, u64::try_from(id).map_err(|_| unsupported(EOS_LIST, id, "ids are not negative"))?)?;
        if !c.eos_token_ids.contains(&id) {
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
        notes,
    })
}

/// Tokens of the vocabulary of BitNet b1.58 2B4T (that of Llama 3).
const VOCABULARY_2B4T: usize = 128_256;

/// The activation of a file that names none and whose architecture does not say it either.
///
/// Architecture `bitnet` was made for the 1bitLLM models, which compute SiLU. Converters write BitNet b1.58 2B4T under the same
/// name, which computes squared ReLU; its shape tells it. Another model with its vocabulary may be of either kind.
fn unnamed_act(k: &Keys<'_>, c: &ModelConfig, notes: &mut Vec<String>) -> Result<Activation, LoadError> {
    let key = k.key(act::GGUF_KEYS[0]);
    if k.architecture == inputs::GGUF_ARCHITECTURE {
        return Err(LoadError::MissingKey { key, needed_for: "the formulas of the model" });
    }
    let is_2b4t = (c.hidden_size, c.intermediate_size, c.num_hidden_layers) == (2560, 6912, 30)
        && (c.num_attention_heads, c.num_key_value_heads) == (20, 5);
    match c.vocab_size == VOCABULARY_2B4T {
        true if is_2b4t => {
            notes.push(format!(
                "the file does not name its activation ({key}); squared ReLU was taken, because it has the shape of BitNet b1.58 2B4T"
            ));
            Ok(Activation::Relu2)
        }
        true => Err(unsupported(
            &key,
            "missing",
            "files of architecture bitnet with the vocabulary of BitNet b1.58 2B4T exist with squared ReLU and with SiLU, so it \
             must be named: set this key to relu2 or silu (with gguf_new_metadata.py for example), or convert the original again",
        )),
        false => {
            // The models that the architecture was made for have SentencePiece vocabularies.
            if k.metadata.str("tokenizer.ggml.model")? == Some("gpt2") {
                notes.push(format!(
                    "the file does not name its activation ({key}); SiLU was taken, as in the models that architecture bitnet \
                     was made for; if the text is gibberish, the key should say relu2"
                ));
            }
            Ok(Activation::Silu)
        }
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
