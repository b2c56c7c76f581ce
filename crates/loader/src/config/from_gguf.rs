//! The configuration in the metadata of a GGUF file.

use bitnet_model::config_json::{named_activation, named_mixers};
use bitnet_model::{Activation, Architecture, ModelConfig, Pooling};

use super::{DensePolicy, Reading, ScaleMeaning, TensorFacts, to_f32, to_token, to_usize, unsupported};
use super::{bit_ttt, fold, inputs, neutral, rope};
use crate::LoadError;
use crate::architecture::{Rules, Scales, qwen35, rules, unknown};
use crate::gguf::{Metadata, Value};
use crate::loaded::GenerationConfig;

/// The keys, after the architecture, under which a GGUF file may name the activation; the first one is that of
/// llama.cpp.
pub(crate) const ACTIVATION_KEYS: [&str; 3] = ["hidden_activation", "hidden_act", "feed_forward_activation"];

/// The pooling of the hidden states, as a number.
pub(crate) const POOLING: &str = "pooling_type";
/// Scales of MiniCPM: of the embedding, of the residual branches, and the divisor of the logits.
pub(crate) const SCALES: [&str; 3] = ["embedding_scale", "residual_scale", "logit_scale"];
pub(crate) const ATTENTION_SCALE: &str = "attention.scale";

/// All ids that end a text, if they are more than the keys of other programs can hold.
pub(crate) const EOS_LIST: &str = "tokenizer.ggml.eos_token_ids";

pub(crate) fn read(metadata: &Metadata, facts: TensorFacts) -> Result<Reading, LoadError> {
    let architecture = metadata.str("general.architecture")?.ok_or_else(|| LoadError::MissingKey {
        key: "general.architecture".into(),
        needed_for: "knowing the formulas of the model",
    })?;
    let family = Architecture::from_gguf(architecture).ok_or_else(|| unknown("general.architecture", architecture))?;
    let (rules, formulas) = (rules(family), family.formulas());
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
        if !formulas.partial_rotary {
            return Err(unsupported(&k.key("rope.dimension_count"), d, "only rotation of whole heads is supported"));
        }
        c.rotary_dim = Some(d);
    }
    let mut notes = Vec::new();
    if formulas.delta {
        // Some converters count the layers that predict further tokens, others do not.
        if let Some(first) = facts.nextn {
            c.num_hidden_layers = c.num_hidden_layers.min(first);
            notes.push(qwen35::NEXTN_NOTE.to_owned());
        }
        qwen35::read(metadata, architecture, &mut c)?;
    }
    let named = ACTIVATION_KEYS.iter().map(|short| {
        let key = k.key(short);
        metadata.str(&key).map(|name| (key, name))
    });
    c.hidden_act = match named_activation(named)?.or(rules.gguf_activation) {
        Some(act) => act,
        None => unnamed_act(&k, family, &c, &mut notes)?,
    };
    family.imply(&mut c);
    c.sub_norms = formulas.sub_norms.decide(facts.has_sub_norms);
    c.projection_norms = formulas.projection_norms.decide(facts.has_projection_norms);
    c.inputs = inputs::from_gguf(metadata, architecture, formulas.forms)?;
    c.tie_word_embeddings = !facts.has_head;
    c.pooling = pooling(&k)?;
    c.headless = formulas.seems_headless(!facts.has_head, c.pooling.is_some(), c.projection_norms);
    c.max_position_embeddings = k.size("context_length")?;
    let eps = "attention.layer_norm_rms_epsilon";
    c.rms_norm_eps = to_f32(metadata.f64(&k.key(eps))?.ok_or_else(|| k.missing(eps))?);
    // llama.cpp's default.
    c.rope_theta = metadata.f64(&k.key("rope.freq_base"))?.unwrap_or(10_000.0);
    let (scaling, note) = rope::from_gguf(metadata, architecture, facts.rope, c.max_position_embeddings)?;
    c.rope_scaling = scaling;
    notes.extend(note);
    read_scales(&k, family, rules, &mut c)?;
    notes.extend(neutral::check_gguf(metadata, architecture, family, &c)?);
    if formulas.mixers {
        let key = k.key("mixers");
        let names = metadata.strings(&key)?.ok_or_else(|| k.missing("mixers"))?;
        c.mixers = named_mixers(&key, names.iter(), c.num_hidden_layers)?;
        if c.has_ttt() {
            c.ttt = bit_ttt::options(metadata, architecture)?;
        }
        if c.has_delta() {
            c.delta = bit_ttt::delta_options(metadata, architecture, &c)?;
        }
    }
    if formulas.fold {
        c.fold = fold::read(metadata, &c, facts.names.as_ref())?;
        notes.extend(unfolded(metadata, &c)?);
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
        config: c.clone(),
        architecture: architecture.to_owned(),
        family,
        name: metadata.get("general.name").and_then(Value::as_str).map(str::to_owned),
        scale: ScaleMeaning::Multiply,
        // Norms of single projections are those of models whose float weights are masters.
        dense: if c.projection_norms { DensePolicy::Absmean } else { rules.gguf_dense },
        qk: rules.gguf_qk,
        generation: sampling(metadata)?,
        notes,
    })
}

/// Tokens of the vocabulary of BitNet b1.58 2B4T (that of Llama 3).
const VOCABULARY_2B4T: usize = 128_256;

/// The activation of a file that does not name it and whose architecture does not imply it.
///
/// Architecture `bitnet` was made for the 1bitLLM models, which compute SiLU. Converters write BitNet b1.58 2B4T under
/// the same name, which computes squared ReLU and is recognised by its shape. Another model with its vocabulary may be
/// of either kind.
fn unnamed_act(
    k: &Keys<'_>,
    family: Architecture,
    c: &ModelConfig,
    notes: &mut Vec<String>,
) -> Result<Activation, LoadError> {
    let [key, ..] = ACTIVATION_KEYS.map(|short| k.key(short));
    if family == Architecture::BitnetV2 {
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

/// A note if the name says that the weights are folded but the keys that describe the fold are missing.
fn unfolded(metadata: &Metadata, c: &ModelConfig) -> Result<Option<String>, LoadError> {
    let name = metadata.str("general.name")?.unwrap_or_default().to_ascii_lowercase().replace([' ', '_'], "-");
    Ok((c.fold.is_none() && name.contains("bonsai-2")).then(|| {
        "the name is that of a model whose weights are folded with signed Hadamard transforms, and the keys prism.hadamard.* that \
         describe them are missing; if the text is gibberish, convert the model again with a program that keeps them"
            .to_owned()
    }))
}

/// The pooling of the hidden states; 0 means none.
fn pooling(k: &Keys<'_>) -> Result<Option<Pooling>, LoadError> {
    let number = k.get_size(POOLING)?.unwrap_or(0);
    match number {
        0 => Ok(None),
        _ => match Pooling::ALL.into_iter().find(|p| pooling_number(*p) == number) {
            Some(pooling) => Ok(Some(pooling)),
            None => Err(unsupported(
                &k.key(POOLING),
                number,
                "expected 0 (none), 1 (mean), 2 (first token) or 3 (last token)",
            )),
        },
    }
}

/// The number of a pooling in GGUF files.
pub(crate) fn pooling_number(pooling: Pooling) -> usize {
    match pooling {
        Pooling::Mean => 1,
        Pooling::First => 2,
        Pooling::Last => 3,
    }
}

/// The scales of families whose files have some.
fn read_scales(k: &Keys<'_>, family: Architecture, rules: &Rules, c: &mut ModelConfig) -> Result<(), LoadError> {
    if let Some(absent) = rules.absent_scales {
        let Scales { embedding, residual, logits } = absent(c);
        let [e, r, l] = SCALES.map(|short| k.metadata.f64(&k.key(short)));
        c.embedding_scale = e?.map_or(embedding, to_f32);
        c.residual_scale = r?.map_or(residual, to_f32);
        c.logit_divisor = l?.map_or(logits, to_f32);
    }
    if family.formulas().attention_scale {
        let scale = k.metadata.f64(&k.key(ATTENTION_SCALE))?.filter(|s| *s != 0.0).map(to_f32);
        let usual = to_f32((c.head_dim as f64).powf(-0.5));
        c.attention_scale = scale.filter(|s| *s != usual);
    }
    Ok(())
}

/// A token id, or `None` if the key is missing or says so.
pub(crate) fn token(metadata: &Metadata, key: &str) -> Result<Option<u32>, LoadError> {
    match metadata.get(key) {
        // Writers store -1 or the largest number here for "none".
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
