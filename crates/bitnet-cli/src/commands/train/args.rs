//! The options of `bitnet train`.

use std::path::PathBuf;
use std::time::Duration;

use bitnet::train::{OptimizerKind, ScheduleKind, TrainConfig};
use clap::Args;
use serde_json::{Map, Value};

use super::extract::ExtractArgs;

const AFTER_HELP: &str = "\
Trains a BitNet b1.58 decoder (ternary weights, int8 activations) on the CPU; with --group-size, a decoder with a \
scale for each group of weights and int16 activations. Text files are split into documents at lines <|endoftext|>, or \
at each JSON line (field `text`); they are tokenized once, into OUT/data. JSON lines with the fields `prompt` and \
`completion` are examples: windows hold whole examples, and the loss covers only the completions. Ctrl-C writes a \
checkpoint and exits; --resume continues from there with the options of the checkpoint, and the result is bit for bit \
the same as without the interruption.

Written to OUT: checkpoint.safetensors and the one before it, checkpoint.previous.safetensors, log.jsonl, loss.svg, \
tokenizer.json, and export/ with the finished model as a Hugging Face folder with packed weights (with --group-size, \
with weights as floats) and, where the shape allows, as model.gguf. Only one process at a time can use OUT.

The configuration file has the sections [model] (keys of a Hugging Face config.json), [train], [train.schedule], \
[train.adamw] and [train.muon]. Options on the command line override it.

With --task extract the data are utterances, JSON lines like
  {\"text\": \"play So What\", \"intent\": \"play\", \"slots\": [{\"name\": \"track\", \"start\": 5, \"end\": 12}]}
where places count characters and the intent is null for what is out of scope; \"part\": \"valid\" keeps a line for validation.
Written to OUT are then export/ with the extractor as safetensors and as model.gguf, report.md with figures and pictures of
them (SVG), log.jsonl and checkpoint.safetensors, from which the same command with --resume goes on as if it had never ended.

Examples:
  bitnet train --task extract --data utterances.jsonl --out my-extractor
  bitnet train --data stories.txt --train-tokenizer 2048 --hidden 256 --layers 6 --heads 4 --kv-heads 2 --out my-model
  bitnet train --config tiny.toml --data stories.txt --tokenizer tokenizer.json --out my-model
  bitnet train --data stories.txt --train-tokenizer 2048 --family qwen3 --group-size 64 --out my-qwen
  bitnet train --data stories.txt --tokenizer tokenizer.json --optimizer muon --schedule wsd --time 90m --out my-model
  bitnet train --out my-model --resume
  bitnet train --out my-model --resume --previous      the last checkpoint is damaged
  bitnet train --out v2 --data stories.txt --tokenizer tokenizer.json --hadamard --steps 4000
  bitnet train --out v2-int4 --from v2 --data stories.txt --tokenizer tokenizer.json --activations 4 --steps 4200
  bitnet run -m my-model/export \"Once upon a time\"";

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|s| (0.0..=1.0).contains(s));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TrainArgs {
    /// Folder for checkpoint, log and the finished model
    #[arg(short, long, value_name = "OUT")]
    pub(super) out: PathBuf,
    /// Kind of model: a language model, or an extractor of intents and slots from utterances
    #[arg(long, value_name = "KIND", value_enum, default_value_t = TaskKind::Text)]
    pub(super) task: TaskKind,
    /// Text, JSON lines (.jsonl), or token ids (.u16, .u32; one file only); repeatable. Of extractors: JSON lines, a task for
    /// each file, or NAME=FILE
    #[arg(short, long, value_name = "FILE")]
    pub(super) data: Vec<PathBuf>,
    /// Text or token ids for validation, instead of a fraction of the data
    #[arg(long, value_name = "FILE")]
    pub(super) val_data: Option<PathBuf>,
    /// Fraction of the documents held out for validation, 0 to 1 [default: 0.02; of utterances 0.1]
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, value_parser = parse_share)]
    pub(super) val_share: Option<f64>,
    /// Configuration file, TOML or JSON
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Continue from the checkpoint in OUT, with its options
    #[arg(long)]
    pub(super) resume: bool,
    /// With --resume: continue from checkpoint.previous.safetensors, if the last checkpoint is damaged
    #[arg(long, requires = "resume")]
    pub(super) previous: bool,
    /// Start from the master weights, optimizer state, step and (unless overridden) options of the run in this folder,
    /// for the second stage of BitNet v2; the step count continues
    #[arg(long, value_name = "OUT", conflicts_with = "resume")]
    pub(super) from: Option<PathBuf>,
    /// Tokenizer to use (tokenizer.json)
    #[arg(long, value_name = "FILE", conflicts_with = "train_tokenizer")]
    pub(super) tokenizer: Option<PathBuf>,
    /// Train a byte-level BPE tokenizer of N tokens on the data
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(258..=1 << 20))]
    pub(super) train_tokenizer: Option<u32>,
    /// Print a continuation of this text after each validation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) sample: Option<String>,
    /// One JSON object on stdout at the end
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) shape: ShapeArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(flatten)]
    pub(super) extract: ExtractArgs,
}

/// The kind of model to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum TaskKind {
    /// A language model, from text
    Text,
    /// An extractor, from utterances with intents and slots
    Extract,
}

/// The model's shape.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ShapeArgs {
    /// Width of the residual stream [default: 256]
    #[arg(long, value_name = "N")]
    pub(super) hidden: Option<u32>,
    /// Width of the feed-forward block [default: 3 times --hidden]
    #[arg(long, value_name = "N")]
    pub(super) ffn: Option<u32>,
    /// Layers [default: 6]
    #[arg(long, value_name = "N")]
    pub(super) layers: Option<u32>,
    /// Query heads [default: 4]
    #[arg(long, value_name = "N")]
    pub(super) heads: Option<u32>,
    /// Key and value heads [default: as --heads]
    #[arg(long, value_name = "N")]
    pub(super) kv_heads: Option<u32>,
    /// Width of a head [default: --hidden divided by --heads]
    #[arg(long, value_name = "N")]
    pub(super) head_dim: Option<u32>,
    /// Formulas: bitnet, or qwen3, with RMSNorms of the heads of q and k, SiLU and no sub-norms [default: bitnet]
    #[arg(long, value_name = "NAME", value_parser = ["bitnet", "qwen3"])]
    pub(super) family: Option<String>,
    /// Weights of a row that share a scale, 64, 128 or 256; activations are int16 then [default: one scale per matrix,
    /// int8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=256))]
    pub(super) group_size: Option<u32>,
    /// Vocabulary size [default: that of the tokenizer]
    #[arg(long, value_name = "N")]
    pub(super) vocab: Option<u32>,
    /// BitNet v2: a Hadamard transform before the output and the down projection
    #[arg(long)]
    pub(super) hadamard: bool,
    /// Bits of the activations of all projections: 8, or 4 as in the last steps of BitNet v2 [default: 8]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(4..=8))]
    pub(super) activations: Option<u32>,
    /// Token mixer: attention, ttt-linear, ttt-mlp (not in extractors) or gated-delta; one for all layers, or a
    /// comma-separated list with one per layer [default: attention]
    #[arg(long, value_name = "KIND", value_delimiter = ',',
          value_parser = ["attention", "ttt-linear", "ttt-mlp", "gated-delta"])]
    pub(super) mixer: Vec<String>,
    /// Test-time training: share one projection between queries and keys, followed by separate causal convolutions
    #[arg(long)]
    pub(super) share_qk: bool,
    /// Test-time training: multiply the layer's output by gelu of a projection of its input
    #[arg(long)]
    pub(super) gate: bool,
    /// Test-time training: a causal convolution before the layer
    #[arg(long)]
    pub(super) pre_conv: bool,
    /// Test-time training: let states forget; inner weights fall back towards the first ones by a share that each head
    /// learns
    #[arg(long)]
    pub(super) ttt_decay: bool,
    /// Test-time training: mini-batch size of the inner updates, in tokens [default: 16]
    #[arg(long, value_name = "N")]
    pub(super) mini_batch: Option<u32>,
    /// Test-time training: largest inner learning rate before the division by the head's width [default: 1, ttt-mlp
    /// 0.1]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(super) base_lr: Option<f64>,
}

impl ShapeArgs {
    /// Copies the options to the keys of a `config.json`.
    pub(super) fn put(&self, m: &mut Map<String, Value>) {
        for (key, value) in [
            ("hidden_size", self.hidden),
            ("intermediate_size", self.ffn),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("weight_group_size", self.group_size),
            ("vocab_size", self.vocab),
            ("activation_bits", self.activations),
        ] {
            if let Some(v) = value {
                m.insert(key.to_owned(), Value::from(v));
            }
        }
        if let Some(family) = &self.family {
            m.insert("model_type".to_owned(), Value::from(family.as_str()));
        }
        if self.hadamard {
            m.insert("hadamard".to_owned(), Value::Bool(true));
        }
        let names: Vec<String> = self.mixer.iter().map(|m| m.replace('-', "_")).collect();
        match &names[..] {
            [] => {}
            [one] => {
                m.insert("mixers".to_owned(), Value::from(one.as_str()));
            }
            all => {
                m.insert("mixers".to_owned(), Value::from(all.to_vec()));
            }
        }
        let flag = |on: bool| on.then_some(Value::from(true));
        for (key, value) in [
            ("share_qk", flag(self.share_qk)),
            ("use_gate", flag(self.gate)),
            ("pre_conv", flag(self.pre_conv)),
            ("decay", flag(self.ttt_decay)),
            ("mini_batch_size", self.mini_batch.map(Value::from)),
            ("base_lr_linear", self.base_lr.map(Value::from)),
            ("base_lr_mlp", self.base_lr.map(Value::from)),
        ] {
            let Some(value) = value else { continue };
            let ttt = m.entry("ttt").or_insert_with(|| Value::Object(Map::new()));
            if let Some(ttt) = ttt.as_object_mut() {
                ttt.insert(key.to_owned(), value);
            }
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(super) struct RunArgs {
    /// Optimizer steps [default: 1000]
    #[arg(long, value_name = "N")]
    pub(super) steps: Option<u64>,
    /// Windows per batch
    #[arg(long, value_name = "N")]
    pub(super) batch: Option<usize>,
    /// Batches per optimizer step (gradient accumulation)
    #[arg(long, value_name = "N")]
    pub(super) accumulate: Option<usize>,
    /// Tokens per window
    #[arg(long, value_name = "N")]
    pub(super) context: Option<usize>,
    /// Tokens of the first windows, which double in equal parts of the run up to --context; a step has as many tokens
    /// throughout [default: as --context]
    #[arg(long, value_name = "N")]
    pub(super) grow_from: Option<usize>,
    /// Optimizer of the ternary weights: adamw, or muon (orthogonal momentum); embedding, norms and all else use AdamW
    /// [default: adamw]
    #[arg(long, value_name = "NAME", value_parser = ["adamw", "muon"])]
    pub(super) optimizer: Option<String>,
    /// Let the texts of a window see what was before the ends of documents; by default every document is a text of its
    /// own
    #[arg(long)]
    pub(super) across_documents: bool,
    /// Cut documents where windows end; by default batches are made of whole documents, of which only those that are
    /// longer than --context are cut
    #[arg(long)]
    pub(super) cut_documents: bool,
    /// With --optimizer muon: peak learning rate of the ternary weights [default: as --lr]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(super) muon_lr: Option<f64>,
    /// How the learning rate goes after its warm-up: two-stage, cosine, or wsd, which stays at its peak and falls in
    /// the last 30 % of the steps [default: two-stage]
    #[arg(long, value_name = "NAME", value_parser = ["two-stage", "cosine", "wsd"])]
    pub(super) schedule: Option<String>,
    /// Validate and export a moving average of the weights, of which this share stays in a step; 0 is off [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(super) ema: Option<f64>,
    /// Peak learning rate, with --schedule two-stage that of stage 1
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(super) lr: Option<f64>,
    /// Peak learning rate of stage 2
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(super) lr2: Option<f64>,
    /// Warm-up steps
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<u64>,
    /// Steps over which the inner learning rate of test-time training rises from a tenth to its full value [default: 0]
    #[arg(long, value_name = "N")]
    pub(super) inner_warmup: Option<u64>,
    /// Weight decay; with --schedule two-stage there is none in stage 2
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(super) weight_decay: Option<f64>,
    /// Maximum gradient norm; 0 is off
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    pub(super) clip: Option<f64>,
    /// Seed of initialisation and data order
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Number of threads; it determines the order of sums, so it is stored in the checkpoint
    #[arg(short, long, value_name = "N")]
    pub(super) threads: Option<usize>,
    /// Steps between validations
    #[arg(long, value_name = "N")]
    pub(super) validate_every: Option<u64>,
    /// Steps between checkpoints
    #[arg(long, value_name = "N")]
    pub(super) checkpoint_every: Option<u64>,
    /// Stop after this many validations without improvement
    #[arg(long, value_name = "N")]
    pub(super) patience: Option<u64>,
}

impl RunArgs {
    /// Puts what was typed into a configuration, `time` among it.
    pub(super) fn put(&self, c: &mut TrainConfig, time: Option<Duration>) {
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            if let Some(v) = from {
                *to = v;
            }
        }
        set(&mut c.steps, self.steps);
        c.time = time.map(|t| t.as_secs_f64()).or(c.time);
        set(&mut c.batch, self.batch);
        set(&mut c.accumulate, self.accumulate);
        set(&mut c.context, self.context);
        set(&mut c.context_start, self.grow_from);
        if self.across_documents {
            c.document_end = None;
        }
        if self.across_documents || self.cut_documents {
            c.whole_documents = false;
        }
        set(
            &mut c.optimizer,
            self.optimizer.as_deref().map(|name| match name {
                "muon" => OptimizerKind::Muon,
                // The parser lets two names through.
                _ => OptimizerKind::AdamW,
            }),
        );
        c.muon.lr = self.muon_lr.or(c.muon.lr);
        set(
            &mut c.schedule.kind,
            self.schedule.as_deref().map(|name| match name {
                "cosine" => ScheduleKind::Cosine,
                "wsd" => ScheduleKind::Wsd,
                // The parser lets three names through.
                _ => ScheduleKind::TwoStage,
            }),
        );
        set(&mut c.ema, self.ema);
        set(&mut c.schedule.peak, self.lr);
        set(&mut c.schedule.peak2, self.lr2.or(self.lr.map(|lr| 0.6 * lr)));
        set(&mut c.schedule.warmup, self.warmup);
        set(&mut c.inner_warmup, self.inner_warmup);
        set(&mut c.schedule.weight_decay, self.weight_decay);
        set(&mut c.clip, self.clip);
        set(&mut c.seed, self.seed);
        set(&mut c.threads, self.threads);
        set(&mut c.validate_every, self.validate_every);
        set(&mut c.checkpoint_every, self.checkpoint_every);
        set(&mut c.patience, self.patience);
    }
}
