//! The hidden command that measures the alternative of a Rust user: a Llama of the same shape in candle-transformers,
//! dense or block-quantised, with random weights.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::quantized::ggml_file::{Content, HParams, VersionedMagic, Vocab};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};
use candle_transformers::models::quantized_llama::ModelWeights;
use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::model::shape;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Dense, 32 bits.
    F32,
    /// Dense, 16 bits.
    F16,
    /// Blocks of 32 with one scale, 4.5 bits.
    #[value(name = "q4_0")]
    Q4_0,
    /// Blocks of 32 with one scale, 8.5 bits.
    #[value(name = "q8_0")]
    Q8_0,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 4] = [Kind::F32, Kind::F16, Kind::Q4_0, Kind::Q8_0];

    /// `f32`, `q4_0`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::F32 => "f32",
            Kind::F16 => "f16",
            Kind::Q4_0 => "q4_0",
            Kind::Q8_0 => "q8_0",
        }
    }

    /// Bytes of 32 weights.
    fn block_bytes(self) -> u64 {
        match self {
            Kind::F32 => 128,
            Kind::F16 => 64,
            Kind::Q4_0 => 18,
            Kind::Q8_0 => 34,
        }
    }

    /// Bytes of projections and head that one token reads in a model of `layers` layers.
    pub(crate) fn bytes_per_token(self, layers: usize) -> u64 {
        let c = shape();
        let layer = c.ternary_weights() / c.num_hidden_layers as u64;
        let weights = layer * layers as u64 + (c.vocab_size * c.hidden_size) as u64;
        weights / 32 * self.block_bytes()
    }

    /// Bytes of memory that a model of `layers` layers takes; the quantised form keeps its embedding in f32 besides.
    pub(crate) fn memory(self, layers: usize) -> u64 {
        let c = shape();
        let embedding = match self {
            Kind::F32 | Kind::F16 => 0,
            Kind::Q4_0 | Kind::Q8_0 => (c.vocab_size * c.hidden_size * 4) as u64,
        };
        self.bytes_per_token(layers) + embedding
    }
}

/// Output of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Layers of the model that was measured.
    pub(crate) layers: usize,
    /// Seconds of each decode step.
    pub(crate) decode_s: Vec<f64>,
    /// Seconds for reading the prompt, each time.
    pub(crate) prefill_s: Vec<f64>,
}

/// Measures a model of each of the given numbers of layers and prints an [`Answer`] for each.
///
/// # Errors
/// Errors of candle.
pub(crate) fn measure(kind: Kind, layers: &[usize], prompt: usize, steps: usize) -> Result<(), BenchError> {
    let answers = layers.iter().map(|&n| one(kind, n, prompt, steps)).collect::<Result<Vec<_>, _>>()?;
    println!("{}", serde_json::to_string(&answers).map_err(|e| BenchError::unreadable("answer", e))?);
    Ok(())
}

/// A model that reads tokens at a position; it keeps the state of the text, which is reset at position 0.
enum Model {
    /// The model, its state, and the state of an empty text.
    Dense(Box<(Llama, Cache, Cache)>),
    Quantised(Box<ModelWeights>),
}

impl Model {
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<(), BenchError> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Model::Dense(dense) => {
                let (llama, cache, empty) = &mut **dense;
                if position == 0 {
                    *cache = empty.clone();
                }
                llama.forward(&input, position, cache)?
            }
            Model::Quantised(model) => model.forward(&input, position)?,
        };
        // Sampling needs them.
        std::hint::black_box(logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        Ok(())
    }
}

/// Seconds after which a measurement is not repeated.
const ENOUGH_S: f64 = 10.0;

fn one(kind: Kind, layers: usize, prompt: usize, steps: usize) -> Result<Answer, BenchError> {
    let mut model = match kind {
        Kind::F32 => dense(DType::F32, layers)?,
        Kind::F16 => dense(DType::F16, layers)?,
        Kind::Q4_0 => quantised(GgmlDType::Q4_0, layers)?,
        Kind::Q8_0 => quantised(GgmlDType::Q8_0, layers)?,
    };
    let vocab = shape().vocab_size as u32;
    let token = |i: usize| (i as u32).wrapping_mul(0x9E37_79B1) % vocab;
    let mut seconds = |tokens: &[u32], position: usize| -> Result<f64, BenchError> {
        let began = Instant::now();
        model.forward(tokens, position)?;
        Ok(began.elapsed().as_secs_f64())
    };
    let mut decode_s = Vec::new();
    for i in 0..=steps {
        let s = seconds(&[token(i)], i)?;
        // The first one touches everything for the first time.
        if i > 0 {
            decode_s.push(s);
        }
        if decode_s.len() >= 3 && decode_s.iter().sum::<f64>() > ENOUGH_S {
            break;
        }
    }
    let text: Vec<u32> = (0..prompt).map(token).collect();
    let mut prefill_s = Vec::new();
    while prompt > 0 && prefill_s.len() < 3 && prefill_s.iter().sum::<f64>() < ENOUGH_S {
        prefill_s.push(seconds(&text, 0)?);
    }
    Ok(Answer { layers, decode_s, prefill_s })
}

/// Values of the usual size of weights; pages differ, so none is shared or dropped by the system.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 8_388_608.0 - 1.0) / 32.0
    };
    // Random numbers for some rows, and those again and again: making them would take longer than measuring.
    let block: Vec<f32> = (0..n.min(1 << 20)).map(|_| next()).collect();
    block.iter().copied().cycle().take(n).collect()
}

fn dense(dtype: DType, layers: usize) -> Result<Model, BenchError> {
    let c = shape();
    let config = Config {
        hidden_size: c.hidden_size,
        intermediate_size: c.intermediate_size,
        vocab_size: c.vocab_size,
        num_hidden_layers: layers,
        num_attention_heads: c.num_attention_heads,
        num_key_value_heads: c.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 4096,
        tie_word_embeddings: true,
    };
    let device = Device::Cpu;
    let mut tensors = HashMap::new();
    let mut put = |name: String, shape: &[usize]| -> Result<(), BenchError> {
        let n = shape.iter().product();
        let data = if shape.len() == 1 { vec![1.0; n] } else { values(n, tensors.len() as u64) };
        tensors.insert(name, Tensor::from_vec(data, shape, &device)?.to_dtype(dtype)?);
        Ok(())
    };
    let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
    let kv = hidden / c.num_attention_heads * c.num_key_value_heads;
    put("model.embed_tokens.weight".into(), &[c.vocab_size, hidden])?;
    put("model.norm.weight".into(), &[hidden])?;
    for l in 0..layers {
        for (name, shape) in [
            ("self_attn.q_proj", &[hidden, hidden][..]),
            ("self_attn.k_proj", &[kv, hidden]),
            ("self_attn.v_proj", &[kv, hidden]),
            ("self_attn.o_proj", &[hidden, hidden]),
            ("mlp.gate_proj", &[ffn, hidden]),
            ("mlp.up_proj", &[ffn, hidden]),
            ("mlp.down_proj", &[hidden, ffn]),
            ("input_layernorm", &[hidden]),
            ("post_attention_layernorm", &[hidden]),
        ] {
            put(format!("model.layers.{l}.{name}.weight"), shape)?;
        }
    }
    let llama = Llama::load(VarBuilder::from_tensors(tensors, dtype, &device), &config)?;
    let cache = Cache::new(true, dtype, &config, &device)?;
    Ok(Model::Dense(Box::new((llama, cache.clone(), cache))))
}

fn quantised(dtype: GgmlDType, layers: usize) -> Result<Model, BenchError> {
    let c = shape();
    let device = Device::Cpu;
    let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
    let kv = hidden / c.num_attention_heads * c.num_key_value_heads;
    // Quantised once for each shape and copied for each layer, into separate memory.
    let mut made: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
    let mut matrix = |m: usize, k: usize| -> Result<QTensor, BenchError> {
        let bytes = match made.entry((m, k)) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) => {
                let dense = Tensor::from_vec(values(m * k, k as u64), (m, k), &device)?;
                e.insert(QTensor::quantize(&dense, dtype)?.data()?.into_owned())
            }
        };
        Ok(QTensor::new(QStorage::from_data(bytes.as_slice().into(), &device, dtype)?, (m, k))?)
    };
    let norm = || -> Result<QTensor, BenchError> {
        Ok(QTensor::quantize(&Tensor::ones(hidden, DType::F32, &device)?, GgmlDType::F32)?)
    };
    let mut tensors = HashMap::new();
    tensors.insert("tok_embeddings.weight".to_owned(), matrix(c.vocab_size, hidden)?);
    tensors.insert("output.weight".to_owned(), matrix(c.vocab_size, hidden)?);
    tensors.insert("norm.weight".to_owned(), norm()?);
    for l in 0..layers {
        for (name, m, k) in [
            ("attention.wq", hidden, hidden),
            ("attention.wk", kv, hidden),
            ("attention.wv", kv, hidden),
            ("attention.wo", hidden, hidden),
            ("feed_forward.w1", ffn, hidden),
            ("feed_forward.w2", hidden, ffn),
            ("feed_forward.w3", ffn, hidden),
        ] {
            tensors.insert(format!("layers.{l}.{name}.weight"), matrix(m, k)?);
        }
        for name in ["attention_norm", "ffn_norm"] {
            tensors.insert(format!("layers.{l}.{name}.weight"), norm()?);
        }
    }
    drop(made);
    let hparams = HParams {
        n_vocab: c.vocab_size as u32,
        n_embd: hidden as u32,
        n_mult: 0,
        n_head: c.num_attention_heads as u32,
        n_layer: layers as u32,
        n_rot: 0,
        ftype: 0,
    };
    let vocab = Vocab { token_score_pairs: Vec::new() };
    let content = Content { magic: VersionedMagic::GgjtV3, hparams, vocab, tensors, device };
    let model = ModelWeights::from_ggml(content, c.num_attention_heads / c.num_key_value_heads)?;
    Ok(Model::Quantised(Box::new(model)))
}
