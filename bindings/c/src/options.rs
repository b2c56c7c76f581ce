//! Structures of options and results, and how they are read.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr;

use bitnet::{Constraint, FinishReason, GenerateOptions, KvType, ModelBuilder, SamplingOptions, Stats, WhenFull};

use crate::border::{Caller, Versioned};
use crate::cancel::bitnet_cancel;
use crate::failure::Failure;
use crate::model::bitnet_model;
use crate::status::{bitnet_error, bitnet_status};

/// No limit, in `max_tokens` of bitnet_generate_options; cbindgen.toml has it for C.
/// cbindgen:ignore
const BITNET_NO_LIMIT: usize = usize::MAX;

/// The text is free.
pub const BITNET_CONSTRAINT_NONE: u32 = 0;
/// The text is JSON that `constraint`, a JSON Schema, describes.
pub const BITNET_CONSTRAINT_JSON_SCHEMA: u32 = 1;
/// The whole text matches `constraint`, a regular expression without look-around and back references.
pub const BITNET_CONSTRAINT_REGEX: u32 = 2;
/// The text follows `constraint`, a grammar in Lark's notation that begins with the rule `start`.
pub const BITNET_CONSTRAINT_GRAMMAR: u32 = 3;

/// Continues after a token that ends the text.
pub const BITNET_FLAG_IGNORE_EOS: u32 = 1;
/// Special tokens appear in the text.
pub const BITNET_FLAG_SHOW_SPECIAL: u32 = 2;
/// At a full context the first `keep` tokens stay and the newest half of the rest; without it the text ends there.
pub const BITNET_FLAG_CONTEXT_SHIFT: u32 = 4;

/// A text of the caller's within a structure or an array: UTF-8, `len` bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bitnet_str {
    /// Its first byte; may be NULL if `len` is 0.
    pub data: *const c_char,
    /// Bytes.
    pub len: usize,
}

impl bitnet_str {
    pub(crate) const NONE: Self = Self { data: ptr::null(), len: 0 };
}

/// Options of loading. Set every byte to zero, which is the default of every field, and `size`:
/// `bitnet_load_options o = {0}; o.size = sizeof o;`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bitnet_load_options {
    /// sizeof(bitnet_load_options).
    pub size: usize,
    /// Most tokens of a session; 0 is the model's own limit, which is also the highest.
    pub context: usize,
    /// How keys and values are kept: "f32", "f16", "bf16", "q8" or "q4"; empty is the default.
    pub kv: bitnet_str,
    /// Path of a tokenizer.json that replaces the one of the model's file; empty for none.
    pub tokenizer: bitnet_str,
    /// A chat template in Jinja, or the name of a built-in one; empty is that of the model's file.
    pub chat_template: bitnet_str,
    /// Threads to compute with, the caller's included, at most 1024; 0 takes the CPUs that the process may use. The text
    /// does not depend on it.
    pub threads: u32,
    /// Zero.
    pub reserved: u32,
}

impl Versioned for bitnet_load_options {
    const NAME: &'static str = "bitnet_load_options";
    const FIRST: usize = offset_of!(Self, reserved) + size_of::<u32>();
}

impl bitnet_load_options {
    /// Most threads.
    const THREADS: u32 = 1024;
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        context: 0,
        kv: bitnet_str::NONE,
        tokenizer: bitnet_str::NONE,
        chat_template: bitnet_str::NONE,
        threads: 0,
        reserved: 0,
    };

    /// Reads the options of a caller.
    pub(crate) fn builder(caller: Caller<'_>, given: *const Self) -> Result<ModelBuilder, Failure> {
        let given = caller.options(given, Self::DEFAULT)?;
        if given.reserved != 0 {
            return Err(Failure::argument(format!("options: reserved is {}; it must be 0", given.reserved)));
        }
        if given.threads > Self::THREADS {
            return Err(Failure::argument(format!("options: threads is {}; at most {}", given.threads, Self::THREADS)));
        }
        let mut builder = bitnet::Model::builder().threads(given.threads as usize);
        if given.context > 0 {
            builder = builder.context(given.context);
        }
        match caller.str("options: kv", given.kv)? {
            "" => {}
            name => {
                let known = || KvType::ALL.map(KvType::name).join(", ");
                let kv = KvType::from_name(name);
                let unknown = || Failure::argument(format!("options: kv is {name:?}; supported: {}", known()));
                builder = builder.kv(kv.ok_or_else(unknown)?);
            }
        }
        match caller.str("options: tokenizer", given.tokenizer)? {
            "" => {}
            path => builder = builder.tokenizer(path),
        }
        match caller.str("options: chat_template", given.chat_template)? {
            "" => {}
            template => builder = builder.chat_template(template),
        }
        Ok(builder)
    }
}

/// Options of a generation. bitnet_generate_options_init() fills them with what the model's files recommend; then set the
/// fields that are to differ.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bitnet_generate_options {
    /// sizeof(bitnet_generate_options).
    pub size: usize,
    /// Most new tokens; BITNET_NO_LIMIT goes on until the model ends the text or the context is full.
    pub max_tokens: usize,
    /// Selects the noise: the same seed, model and prompt give the same text, on every machine. 0 at first.
    pub seed: u64,
    /// Texts that end the generation and are not part of it.
    pub stop: *const bitnet_str,
    /// Number of texts in `stop`.
    pub stop_count: usize,
    /// The source of the constraint, of the kind `constraint_kind`.
    pub constraint: bitnet_str,
    /// One of BITNET_CONSTRAINT_*.
    pub constraint_kind: u32,
    /// Any of BITNET_FLAG_*, added.
    pub flags: u32,
    /// Ends the generation from another thread; may be NULL. It is used during the call, and by a stream until its end.
    pub cancel: *const bitnet_cancel,
    /// Tokens at the beginning that always stay, with BITNET_FLAG_CONTEXT_SHIFT.
    pub keep: usize,
    /// Divides the logits: below 1 sharpens, above 1 flattens. 0 always takes the most probable token.
    pub temperature: f32,
    /// Only the fewest most probable tokens whose probabilities sum to this; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this times as probable as the most probable one; 0 is all.
    pub min_p: f32,
    /// Divides positive logits of recent tokens and multiplies negative ones; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from logits of tokens that occur in the new text; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted once for each occurrence in the new text; 0 is off.
    pub frequency_penalty: f32,
    /// Only that many most probable tokens; 0 is all.
    pub top_k: u32,
    /// Last tokens that `repeat_penalty` applies to; 4294967295 is all.
    pub repeat_last_n: u32,
}

impl Versioned for bitnet_generate_options {
    const NAME: &'static str = "bitnet_generate_options";
    const FIRST: usize = offset_of!(Self, repeat_last_n) + size_of::<u32>();
}

impl bitnet_generate_options {
    fn of(sampling: &SamplingOptions) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            size: size_of::<Self>(),
            max_tokens: BITNET_NO_LIMIT,
            seed: sampling.seed,
            stop: ptr::null(),
            stop_count: 0,
            constraint: bitnet_str::NONE,
            constraint_kind: BITNET_CONSTRAINT_NONE,
            flags: 0,
            cancel: ptr::null(),
            keep: 0,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repeat_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            top_k: narrow(sampling.top_k),
            repeat_last_n: narrow(sampling.repeat_last_n),
        }
    }

    /// Reads the options of a caller, on top of what the files of `model` recommend.
    pub(crate) fn read(
        caller: Caller<'_>,
        model: &bitnet::Model,
        given: *const Self,
    ) -> Result<GenerateOptions, Failure> {
        let mut sampling = model.default_sampling();
        let given = caller.options(given, Self::of(&sampling))?;
        let wide = |n: u32| if n == u32::MAX { usize::MAX } else { n as usize };
        sampling.seed = given.seed;
        sampling.temperature = given.temperature;
        sampling.top_p = given.top_p;
        sampling.min_p = given.min_p;
        sampling.repeat_penalty = given.repeat_penalty;
        sampling.presence_penalty = given.presence_penalty;
        sampling.frequency_penalty = given.frequency_penalty;
        sampling.top_k = given.top_k as usize;
        sampling.repeat_last_n = wide(given.repeat_last_n);
        let mut options = GenerateOptions::default().sampling(sampling);
        if given.max_tokens != BITNET_NO_LIMIT {
            options = options.max_tokens(given.max_tokens);
        }
        for stop in caller.texts("options: stop", given.stop, given.stop_count)? {
            options = options.stop(stop);
        }
        if let Some(token) = caller.handle_or_null(given.cancel)? {
            options = options.cancel(token);
        }
        if let Some(constraint) = given.constraint(caller)? {
            options = options.constraint(constraint);
        }
        let all = BITNET_FLAG_IGNORE_EOS | BITNET_FLAG_SHOW_SPECIAL | BITNET_FLAG_CONTEXT_SHIFT;
        if given.flags & !all != 0 {
            let message = format!("options: flags is {}; bits above {all} mean nothing in this version", given.flags);
            return Err(Failure::argument(message));
        }
        options.ignore_eos = given.flags & BITNET_FLAG_IGNORE_EOS != 0;
        options.show_special = given.flags & BITNET_FLAG_SHOW_SPECIAL != 0;
        if given.flags & BITNET_FLAG_CONTEXT_SHIFT != 0 {
            options = options.when_full(WhenFull::ContextShift { keep: given.keep });
        }
        Ok(options)
    }

    fn constraint(&self, caller: Caller<'_>) -> Result<Option<Constraint>, Failure> {
        let source = caller.str("options: constraint", self.constraint)?;
        Ok(Some(match self.constraint_kind {
            BITNET_CONSTRAINT_NONE if source.is_empty() => return Ok(None),
            BITNET_CONSTRAINT_NONE => {
                let message = "options: a constraint is given, but constraint_kind is BITNET_CONSTRAINT_NONE";
                return Err(Failure::argument(message.to_owned()));
            }
            BITNET_CONSTRAINT_JSON_SCHEMA => {
                let schema = serde_json::from_str(source);
                let schema = schema
                    .map_err(|e| Failure::new(bitnet_status::Constraint, format!("the schema is not JSON: {e}")))?;
                Constraint::json_schema(&schema)
            }
            BITNET_CONSTRAINT_REGEX => Constraint::regex(source),
            BITNET_CONSTRAINT_GRAMMAR => Constraint::lark(source),
            other => {
                return Err(Failure::argument(format!("options: constraint_kind is {other}; it must be 0 to 3")));
            }
        }))
    }
}

/// Fills options of a generation with what the files of `model` recommend, or with the library's defaults for a NULL model:
/// temperature 0.7 and top_p 0.95. `size` is sizeof(bitnet_generate_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_generate_options_init(
    model: *const bitnet_model,
    options: *mut bitnet_generate_options,
    size: usize,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        let place = c.fill(options, size)?;
        let sampling = c.handle_or_null(model)?.map_or_else(SamplingOptions::default, bitnet::Model::default_sampling);
        place.set(bitnet_generate_options::of(&sampling));
        Ok(())
    })
}

/// How a generation ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bitnet_finish {
    /// It has not ended.
    None = 0,
    /// The model ended the text, a stop text appeared, or the constraint lets nothing follow.
    Stop = 1,
    /// The limit of new tokens or the end of the context was reached.
    Length = 2,
    /// A cancel token or the callback ended it.
    Cancelled = 3,
}

impl From<Option<FinishReason>> for bitnet_finish {
    fn from(reason: Option<FinishReason>) -> Self {
        match reason {
            None => Self::None,
            Some(FinishReason::Stop) => Self::Stop,
            Some(FinishReason::Length) => Self::Length,
            // Reasons that are added later end a text from outside, too.
            Some(_) => Self::Cancelled,
        }
    }
}

/// Facts about a generation. Set `size` before it is handed over.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bitnet_result {
    /// sizeof(bitnet_result).
    pub size: usize,
    /// Tokens of the prompt that were read.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the session held already.
    pub reused_tokens: usize,
    /// Generated tokens.
    pub new_tokens: usize,
    /// Generated tokens that the constraint left no alternative to.
    pub forced_tokens: usize,
    /// Seconds for the prompt.
    pub prefill_seconds: f64,
    /// Seconds for the generated tokens.
    pub decode_seconds: f64,
    /// How it ended.
    pub finish: bitnet_finish,
    /// How often the context was full and tokens were dropped.
    pub context_shifts: u32,
}

impl Versioned for bitnet_result {
    const NAME: &'static str = "bitnet_result";
    const FIRST: usize = offset_of!(Self, context_shifts) + size_of::<u32>();
}

impl bitnet_result {
    pub(crate) fn of(stats: &Stats, finish: Option<FinishReason>) -> Self {
        Self {
            size: size_of::<Self>(),
            prompt_tokens: stats.prompt_tokens,
            reused_tokens: stats.reused_tokens,
            new_tokens: stats.new_tokens,
            forced_tokens: stats.forced_tokens,
            prefill_seconds: stats.prefill.as_secs_f64(),
            decode_seconds: stats.decode.as_secs_f64(),
            finish: finish.into(),
            context_shifts: u32::try_from(stats.context_shifts).unwrap_or(u32::MAX),
        }
    }
}
