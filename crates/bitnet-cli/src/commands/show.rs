//! `bitnet show`: the contents of a model's files, whether it can be run, and how much memory it needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitnet::{
    ChosenBy, InputForms, Isa, KvType, LayerKernel, LoadError, LoadedModel, MemoryEstimate, ModelConfig, Projection,
    UseTuning,
};
use clap::Args;
use loader::files::{self, Kind};
use loader::gguf::{Gguf, Value};
use loader::safetensors::Safetensors;
use serde_json::{Map, Value as Json, json};
use ternary_kernels::{GroupKernel, Levels, Scales};

use crate::args::{FileArgs, ModelArgs};
use crate::error::CliError;
use crate::explain;
use crate::known_files;
use crate::model_spec::ModelSpec;
use crate::source;
use crate::ui::{self, Style, Ui};

mod extractor;

const AFTER_HELP: &str = "\
Also works for files that cannot be run, and explains why.

Examples:
  bitnet show model.gguf
  bitnet show model.gguf --tensors
  bitnet show ./bitnet-b1.58-2B-4T --json | jq .memory";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ShowArgs {
    /// Model, as for --model
    #[arg(value_name = "MODEL", conflicts_with = "model", value_parser = ModelSpec::parser())]
    path: Option<ModelSpec>,
    /// List every tensor: type, shape, bytes
    #[arg(long)]
    tensors: bool,
    /// Do not print the metadata
    #[arg(long)]
    brief: bool,
    /// Compute the file's sha256 and compare it with those of known public files
    #[arg(long)]
    hash: bool,
    /// One JSON object on stdout, with everything
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Contents of the headers, whether or not the model can be run.
struct Header {
    container: String,
    architecture: String,
    file_bytes: u64,
    metadata: Vec<(String, String, Json)>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    /// Slowest dimension first.
    shape: Vec<u64>,
    ty: String,
    /// `None` if the type does not determine it.
    bytes: Option<u64>,
}

/// Memory at one context length, in bytes.
struct Need {
    context: usize,
    kv: u64,
    total: u64,
}

/// The growth of the state of a session.
struct Growth {
    /// Bytes for each token, keys and values in f16.
    per_token: u64,
    /// Bytes at any length: states of test-time-training layers and of layers of the gated delta rule.
    constant: u64,
}

impl Growth {
    fn of(c: &ModelConfig) -> Self {
        let per_token = KvType::F16.token_bytes(c) as u64;
        // The configuration was checked when the model was loaded.
        Self { per_token, constant: c.state_bytes().unwrap_or(0) as u64 }
    }
}

pub(crate) fn execute(args: &ShowArgs, ui: &Ui) -> Result<(), CliError> {
    let spec = args.path.as_ref().or(args.model.model.as_ref());
    let path = source::locate(spec, ui)?;
    let header = read_header(&path).map_err(|e| e.explained(explain::foreign(&path)))?;
    let hash = args.hash.then(|| known_files::sha256(&path)).transpose()?;
    let loaded = loader::load(&path, &args.model.files.load_options());
    if args.json {
        let mut json = as_json(&path, &header, &loaded);
        if extractor::is(&header) {
            extractor::complete(&path, &mut json);
        }
        if let Some(hash) = hash {
            json["hash"] = json!({ "sha256": hash, "verdict": known_files::verdict(&path, &hash) });
        }
        return ui::print_json(&json);
    }
    let mut text = as_text(args.tensors, args.brief, &path, &header, &loaded, ui);
    if let Some(hash) = hash {
        text.push_str(&format!("sha256 {hash}, {}\n", known_files::verdict(&path, &hash)));
    }
    ui::print(&text)
}

/// Description of a file without its metadata and tensors: for `bitnet doctor`.
///
/// # Errors
/// A file that is not a container.
pub(crate) fn brief(path: &Path, files: &FileArgs, ui: &Ui) -> Result<String, CliError> {
    let header = read_header(path).map_err(|e| e.explained(explain::foreign(path)))?;
    let loaded = loader::load(path, &files.load_options());
    Ok(as_text(false, true, path, &header, &loaded, ui))
}

/// The architecture that a file names.
///
/// # Errors
/// The errors of [`brief`].
pub(crate) fn architecture(path: &Path) -> Result<String, CliError> {
    Ok(read_header(path)?.architecture)
}

fn read_header(path: &Path) -> Result<Header, CliError> {
    if !path.is_dir() {
        files::regular(path, "a model")?;
    }
    match loader::gguf::locate(path)? {
        Some(file) => gguf(&file),
        None => folder(path),
    }
}

fn gguf(path: &Path) -> Result<Header, CliError> {
    let file = Gguf::open(path)?;
    let tensors = file.tensors().iter().map(|t| Tensor {
        name: t.name().to_owned(),
        shape: t.shape(),
        ty: t.tensor_type().to_string(),
        bytes: t.nbytes(),
    });
    Ok(Header {
        container: match (file.parts(), file.metadata().get("bitnet.packed.kernels").and_then(Value::as_str)) {
            (1, Some(kernels)) => format!("GGUF version {}, packed for {kernels}", file.version()),
            (1, None) => format!("GGUF version {}", file.version()),
            (n, _) => format!("GGUF version {}, {n} files", file.version()),
        },
        architecture: file.architecture().to_owned(),
        file_bytes: file.file_len(),
        metadata: file.metadata().iter().map(|(k, v)| (k.to_owned(), v.to_string(), json_of(v))).collect(),
        tensors: tensors.collect(),
    })
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::String(s) => json!(s),
        Value::Bool(b) => json!(b),
        // Vocabularies and merges are long: only their kind and length.
        Value::Array(_) => json!(value.to_string()),
        other => match (other.to_u64(), other.to_f64()) {
            (Some(n), _) => json!(n),
            (None, Some(x)) => json!(x),
            (None, None) => other.to_string().parse::<i64>().map_or_else(|_| json!(other.to_string()), |n| json!(n)),
        },
    }
}

fn folder(path: &Path) -> Result<Header, CliError> {
    let files = Safetensors::open(path)?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let config: Map<String, Json> = files::read(&folder.join("config.json"), Kind::CONFIG)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let architecture = config.get("model_type").and_then(Json::as_str).unwrap_or("").to_owned();
    let tensors = files.iter().map(|(name, t)| Tensor {
        name: name.to_owned(),
        shape: t.shape.iter().map(|&d| d as u64).collect(),
        ty: t.dtype.to_string(),
        bytes: Some(t.bytes.len() as u64),
    });
    Ok(Header {
        container: match files.files().len() {
            1 => "safetensors".to_owned(),
            n => format!("safetensors in {n} shards"),
        },
        architecture,
        file_bytes: files.files().iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum(),
        tensors: tensors.collect(),
        metadata: config.into_iter().map(|(k, v)| (k, v.to_string(), v)).collect(),
    })
}

/// Number, elements and bytes of the tensors of each type.
fn types(tensors: &[Tensor]) -> BTreeMap<&str, (usize, u64, Option<u64>)> {
    let mut types = BTreeMap::new();
    for t in tensors {
        let elements = t.shape.iter().fold(1u64, |p, &d| p.saturating_mul(d));
        let (n, all, bytes) = types.entry(t.ty.as_str()).or_insert((0, 0u64, Some(0u64)));
        *n += 1;
        *all = all.saturating_add(elements);
        *bytes = bytes.zip(t.bytes).map(|(a, b)| a.saturating_add(b));
    }
    types
}

/// Bytes of the packed projections: two bits per weight, rows and columns padded for the kernels; with a scale per
/// group of 128 weights 16 bits more for each.
fn packed_bytes(c: &ModelConfig) -> u64 {
    if MemoryEstimate::has_groups(c) {
        return c.ternary_weights() * 17 / 64;
    }
    let padded = |(rows, cols): (usize, usize)| (rows.next_multiple_of(16) * cols.next_multiple_of(64) / 4) as u64;
    let layer = |l: usize| -> u64 { c.layer_projections(l).map(|p| padded(c.projection_shape(l, p))).sum() };
    (0..c.num_hidden_layers).map(layer).sum()
}

/// The kernels that would compute the model, unless others are requested.
fn kernels(model: &LoadedModel) -> Option<Vec<LayerKernel>> {
    let mut all = bitnet::kernels_for(&model.weights.config, None, None, &UseTuning::FromCache).ok()?;
    let group_kernel = group_kernel();
    let layers = &model.weights.layers;
    for used in &mut all {
        // One matrix with group scales, or with weights of +2, gives all of its kind to the group kernel.
        let mut matrices =
            layers.iter().flat_map(|l| l.projections()).filter(|(p, _)| used.group.projections().any(|q| q == *p));
        let in_groups = matrices.any(|(_, w)| matches!(w.scales(), Scales::Groups(_)) || w.levels() == Levels::Four);
        if let Some(name) = group_kernel.filter(|_| in_groups) {
            (used.kernel, used.by) = (name.to_owned(), ChosenBy::Default);
        }
    }
    Some(all)
}

/// The kernel of matrices with a scale per group, which is that of the instruction set.
fn group_kernel() -> Option<&'static str> {
    Some(GroupKernel::for_isa(Isa::selected().ok()?).ok()?.name())
}

/// Memory with f16 keys and values at several context lengths.
fn needs(model: &LoadedModel) -> Vec<Need> {
    let c = &model.weights.config;
    let head = model.weights.head.as_ref().map_or(0, |h| h.byte_len());
    let growth = Growth::of(c);
    let fixed = packed_bytes(c) + (model.weights.embedding.byte_len() + head) as u64 + growth.constant;
    let longest = c.max_position_embeddings;
    let mut contexts: Vec<usize> = [512, 2048, 8192, 32768].into_iter().filter(|&n| n < longest).collect();
    contexts.push(longest);
    let need = |context: usize| {
        let kv = growth.per_token * context as u64;
        Need { context, kv, total: fixed + kv }
    };
    contexts.into_iter().map(need).collect()
}

fn as_json(path: &Path, header: &Header, loaded: &Result<LoadedModel, LoadError>) -> Json {
    let types: Vec<Json> = types(&header.tensors)
        .into_iter()
        .map(|(ty, (n, elements, bytes))| json!({ "type": ty, "tensors": n, "elements": elements, "bytes": bytes }))
        .collect();
    let tensors: Vec<Json> = header
        .tensors
        .iter()
        .map(|t| json!({ "name": t.name, "shape": t.shape, "type": t.ty, "bytes": t.bytes }))
        .collect();
    let metadata: Map<String, Json> = header.metadata.iter().map(|(k, _, v)| (k.clone(), v.clone())).collect();
    let model = loaded.as_ref().ok();
    let config = model.map(|m| {
        let c = &m.weights.config;
        json!({
            "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
            "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
            "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim, "hidden_act": c.hidden_act.name(),
            "rms_norm_eps": c.rms_norm_eps, "rope_theta": c.rope_theta, "rope_scaling": explain::rope_scaling(c),
            "max_position_embeddings": c.max_position_embeddings, "tie_word_embeddings": c.tie_word_embeddings,
            "input_forms": activations_json(c),
            "mixers": (0..c.num_hidden_layers).map(|l| c.mixer(l).name()).collect::<Vec<_>>(),
            "sub_norms": c.sub_norms, "bos_token_id": c.bos_token_id, "eos_token_ids": c.eos_token_ids,
        })
    });
    let session = model.map(|m| {
        let growth = Growth::of(&m.weights.config);
        json!({ "bytes_per_token": growth.per_token, "constant_bytes": growth.constant })
    });
    let memory = model.map(|m| {
        let row = |n: &Need| json!({ "context": n.context, "kv_bytes": n.kv, "total_bytes": n.total });
        needs(m).iter().map(row).collect::<Vec<_>>()
    });
    json!({
        "path": path.display().to_string(),
        "container": header.container,
        "architecture": header.architecture,
        "name": model.and_then(|m| m.info.name.clone()),
        "file_bytes": header.file_bytes,
        "runs": model.is_some(),
        "problem": loaded.as_ref().err().map(ToString::to_string),
        "explanation": loaded.as_ref().err().and_then(|_| explain::elsewhere(path)),
        "known_file": known_files::identify(path).map(known_files::KnownFile::json),
        "scales": model.map(|m| explain::scales(&m.weights)),
        "formulas": model.map(|m| explain::formulas(&m.weights.config)),
        "pooling": model.and_then(|m| m.weights.config.pooling).map(|p| p.name()),
        "parameters": model.map(|m| m.weights.config.parameters()),
        "ternary_weights": model.map(|m| m.weights.config.ternary_weights()),
        "ternary_format": model.map(|m| m.info.ternary_format.clone()),
        "config": config,
        "tokenizer_vocab": model.and_then(|m| m.tokenizer.as_ref()).map(|t| t.vocab_size()),
        "chat_template": model.and_then(|m| m.chat_template.as_ref()).map(|t| t.origin().to_owned()),
        "chat_template_problem": model.and_then(|m| m.chat_template_error.as_ref()).map(ToString::to_string),
        "notes": model.map(|m| m.notes.clone()),
        "types": types,
        "session": session,
        "kernels": model.and_then(kernels).map(|k| ui::kernels_json(&k)),
        "memory": memory,
        "metadata": metadata,
        "tensors": tensors,
    })
}

/// Lines with a label each.
struct Lines<'a> {
    text: String,
    ui: &'a Ui,
}

impl Lines<'_> {
    fn put(&mut self, label: &str, value: impl std::fmt::Display) {
        let label = self.ui.out(Style::Dim, format_args!("{label:<10}"));
        self.text.push_str(&format!("  {label} {value}\n"));
    }
    fn title(&mut self, title: &str) {
        self.text.push_str(&format!("{}\n", self.ui.out(Style::Bold, title)));
    }
    fn line(&mut self, line: impl std::fmt::Display) {
        self.text.push_str(&format!("  {line}\n"));
    }
}

fn as_text(
    tensors: bool,
    brief: bool,
    path: &Path,
    header: &Header,
    loaded: &Result<LoadedModel, LoadError>,
    ui: &Ui,
) -> String {
    let mut out = Lines { text: String::new(), ui };
    out.title(&file_title(path));
    let architecture = match header.architecture.as_str() {
        "" => "no architecture named",
        a => a,
    };
    out.put("file", format_args!("{}, {}, {architecture}", header.container, ui::bytes(header.file_bytes)));
    if let Some(known) = known_files::identify(path) {
        out.put("size", format_args!("that of {known}; --hash tells whether it is the same"));
    }
    match loaded {
        Ok(model) => describe(model, &mut out),
        Err(_) if extractor::is(header) => extractor::describe(path, &mut out),
        Err(error) => {
            out.put("problem", format_args!("{} {error}", ui.out(Style::Red, "cannot be run:")));
            if let Some(what) = explain::elsewhere(path) {
                out.put("it is", what);
            }
        }
    }
    out.title("tensors");
    for (ty, (n, elements, bytes)) in types(&header.tensors) {
        let bytes = bytes.map_or("size unknown".to_owned(), ui::bytes);
        let plural = if n == 1 { "" } else { "s" };
        out.line(format_args!("{ty:<18} {:>9} values in {n} tensor{plural}, {bytes}", ui::count(elements)));
    }
    if tensors {
        out.text.push('\n');
        let width = header.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
        for t in &header.tensors {
            let bytes = t.bytes.map_or("?".to_owned(), ui::bytes);
            let shape = format!("{:?}", t.shape);
            out.line(format_args!("{:<width$}  {:<8} {shape:<16} {bytes:>12}", t.name, t.ty));
        }
    }
    if !brief {
        out.title("metadata");
        let width = header.metadata.iter().map(|(k, ..)| k.len()).max().unwrap_or(0);
        for (key, value, _) in &header.metadata {
            out.line(format_args!("{}  {value}", ui.out(Style::Cyan, format_args!("{key:<width$}"))));
        }
    }
    out.text
}

fn file_title(path: &Path) -> String {
    let absolute: Option<PathBuf> = path.canonicalize().ok();
    // `.` and `..` have no name of their own.
    match path.file_name().or_else(|| absolute.as_deref().and_then(Path::file_name)) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => path.display().to_string(),
    }
}

/// How activations become codes: once if all are equal, otherwise for each row by the projections that read it.
fn activations(forms: &InputForms) -> String {
    if forms.are_plain() {
        return "8 bits".to_owned();
    }
    let all = [forms.mixer, forms.output, forms.feed_forward, forms.down];
    if all.iter().all(|form| *form == forms.mixer) {
        return forms.mixer.to_string();
    }
    let rows = [("mixer", forms.mixer), ("o", forms.output), ("gate and up", forms.feed_forward), ("down", forms.down)];
    rows.map(|(row, form)| format!("{row}: {form}")).join("; ")
}

/// The activations of each projection as JSON.
fn activations_json(c: &ModelConfig) -> Json {
    let one = |p: Projection| {
        let form = c.input_form(p);
        (p.name().to_owned(), json!({ "hadamard_block": form.hadamard, "activation_bits": form.bits.number() }))
    };
    let all: Vec<Projection> = (0..c.num_hidden_layers).flat_map(|l| c.layer_projections(l)).collect();
    Json::Object(Projection::ALL.into_iter().filter(|p| all.contains(p)).map(one).collect())
}

/// Runs of equal mixers: `3 ttt_linear, 1 attention`.
fn mixers(c: &ModelConfig) -> String {
    let all: Vec<&str> = (0..c.num_hidden_layers).map(|l| c.mixer(l).name()).collect();
    let runs = all.chunk_by(|a, b| a == b).map(|run| format!("{} {}", run.len(), run[0]));
    runs.collect::<Vec<_>>().join(", ")
}

/// The least and the largest share that stays after a mini-batch, of all heads of layers whose states forget.
fn kept(weights: &bitnet_model::ModelWeights) -> Option<[f32; 2]> {
    let all = weights.layers.iter().filter_map(|l| l.ttt.as_ref()).flat_map(|t| &t.parameters.decay);
    all.map(|logit| 1.0 / (1.0 + (-logit).exp())).fold(None, |range: Option<[f32; 2]>, keep| {
        let [least, most] = range.unwrap_or([keep; 2]);
        Some([least.min(keep), most.max(keep)])
    })
}

fn describe(model: &LoadedModel, out: &mut Lines<'_>) {
    let c = &model.weights.config;
    if let Some(name) = &model.info.name {
        out.put("name", name);
    }
    let table = model.weights.embedding.type_name();
    let head = match &model.weights.head {
        None if c.headless => format!("embedding {table}, no head"),
        None => format!("embedding {table}, also the head"),
        Some(head) => format!("embedding {table}, head {}", head.type_name()),
    };
    let ternary = format!("{} ternary as {}", ui::count(c.ternary_weights()), model.info.ternary_format);
    out.put("weights", format_args!("{}, of these {ternary}; {head}", ui::count(c.parameters())));
    out.put(
        "shape",
        format_args!(
            "{} layers, hidden {}, feed-forward {} ({}), {} heads of {}, {} for keys and values, vocabulary {}",
            c.num_hidden_layers,
            c.hidden_size,
            c.intermediate_size,
            c.hidden_act.name(),
            c.num_attention_heads,
            c.head_dim,
            c.num_key_value_heads,
            c.vocab_size,
        ),
    );
    if c.is_recurrent() {
        out.put("mixers", mixers(c));
    }
    if let Some([least, most]) = kept(&model.weights) {
        let b = c.ttt.mini_batch_size;
        out.put(
            "forgetting",
            format_args!("after every {b} tokens a state keeps {least:.4} to {most:.4} of what it learned"),
        );
    }
    out.put("scales", explain::scales(&model.weights));
    let formulas = explain::formulas(c);
    if !formulas.is_empty() {
        out.put("formulas", formulas.join(", "));
    }
    let scaling = explain::rope_scaling(c).map_or_else(String::new, |scaling| format!(", {scaling}"));
    out.put("positions", format_args!("rotary embedding, base {}{scaling}", c.rope_theta));
    match c.pooling {
        Some(pooling) => out.put("pooling", format_args!("{}, of texts as vectors (`bitnet embed`)", pooling.name())),
        None if c.headless => out.put("pooling", "the file names none; `bitnet embed` takes the mean"),
        None => {}
    }
    out.put("inputs", activations(&c.inputs));
    let eos = c.eos_token_ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let id = |id: Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
    let tokenizer = match &model.tokenizer {
        Some(t) => format!("{} tokens", t.vocab_size()),
        None => "none in the file (--tokenizer gives one)".to_owned(),
    };
    out.put(
        "tokenizer",
        format_args!(
            "{tokenizer}; begins with {}, ends with {}",
            id(c.bos_token_id),
            match eos.as_str() {
                "" => "nothing",
                eos => eos,
            }
        ),
    );
    match (&model.chat_template, &model.chat_template_error) {
        (Some(template), _) => out.put("chat", format_args!("template: {}", template.origin())),
        (None, Some(error)) => {
            out.put("chat", format_args!("template: cannot be used: {error} (--template gives one)"))
        }
        (None, None) => out.put("chat", "template: none"),
    }
    for note in &model.notes {
        out.put("note", note);
    }
    if let Some(kernels) = kernels(model) {
        let mut names: Vec<&str> = kernels.iter().map(|k| k.kernel.as_str()).collect();
        names.dedup();
        let text = match names[..] {
            [one] => one.to_owned(),
            _ => kernels.iter().map(|k| format!("{} {}", k.group, k.kernel)).collect::<Vec<_>>().join(", "),
        };
        out.put("kernel", format_args!("{text}{}", ui::chosen_by(&kernels)));
    }
    let growth = Growth::of(c);
    let mut session = Vec::new();
    if growth.per_token > 0 {
        session.push(format!("{} for each token (keys and values in f16)", ui::bytes(growth.per_token)));
    }
    if growth.constant > 0 {
        session.push(format!("{} at any length (test-time training)", ui::bytes(growth.constant)));
    }
    out.put("session", session.join(" and "));
    let needs = needs(model);
    if let (0, Some(n)) = (growth.per_token, needs.first()) {
        out.put("memory", format_args!("about {} at any number of tokens", ui::bytes(n.total)));
        return;
    }
    out.put("memory", format_args!("about, with keys and values in f16:"));
    for n in needs {
        out.put(
            "",
            format_args!(
                "{:>10} at {} tokens, {} of it keys and values",
                ui::bytes(n.total),
                n.context,
                ui::bytes(n.kv)
            ),
        );
    }
}
