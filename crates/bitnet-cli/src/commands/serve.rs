//! `bitnet serve`: serves models over HTTP, with OpenAI's and Ollama's interfaces.

mod models;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use bitnet_server::{ApiKey, Options, Server};
use clap::Args;

use crate::args::{EngineArgs, FileArgs};
use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::model_spec::ModelSpec;
use crate::ui::{self, Style, Ui};

const AFTER_HELP: &str = "\
Endpoints: POST /v1/chat/completions, /v1/responses, /v1/completions, /v1/embeddings; GET /v1/models, /health, /metrics \
(Prometheus), and a page for browsers at /. Clients of Ollama: POST /api/chat, /api/generate, /api/embed; GET /api/tags; \
many look for it at --port 11434. Requests beyond --max-sessions wait in the queue; those beyond --queue get status 429. On Ctrl-C or \
SIGTERM running answers may continue for --grace seconds, then they are aborted, and the process exits two seconds \
later at the latest. A second signal ends it at once, with exit code 130 or 143.

Several models: the first --model is loaded at the start, the others, and those of --models, when a request names them. Where \
--memory-limit leaves no room, models leave that have been without a request longest, never one that is in use.

Examples:
  bitnet serve                                       the built-in model and its page, on port 8080
  bitnet serve -m model.gguf --port 0                a free port, printed on stdout
  bitnet serve -m small.gguf -m large.gguf --memory-limit 8GiB
  bitnet serve --models ~/models                     every model of a folder, loaded when a request names it
  BITNET_API_KEY=secret bitnet serve -m model.gguf --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
       -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 40, \"stream\": true}'
  python -c 'import openai; print(openai.OpenAI(base_url=\"http://127.0.0.1:8080/v1\", api_key=\"none\").models.list())'";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// Address to listen on; anything but 127.0.0.1 is reachable from other machines and needs an API key
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// API key that clients send as `Authorization: Bearer KEY`; other users can see command lines, so prefer
    /// BITNET_API_KEY or --api-key-file
    #[arg(long, value_name = "KEY", env = "BITNET_API_KEY", hide_env_values = true, conflicts_with_all = ["api_key_file", "without_key"])]
    api_key: Option<String>,
    /// File that holds the API key
    #[arg(long, value_name = "FILE", conflicts_with = "without_key")]
    api_key_file: Option<PathBuf>,
    /// Serve other machines without an API key; they must use the server's address or a name given with --allow-host
    #[arg(long)]
    without_key: bool,
    /// Extra host name that is accepted when there is no API key; repeatable
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Origins of web pages that may use the server from a browser, as in http://localhost:3000; repeatable. `*` lets in
    /// every page that anyone opens here, so it is for machines of your own only
    #[arg(long, value_name = "ORIGIN", num_args = 1..)]
    cors: Vec<String>,
    /// Serve no page at `/`, only the API
    #[cfg(feature = "page")]
    #[arg(long)]
    no_page: bool,
    /// Model name in the API, for one model [default: the file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Chat template for all models: a Jinja file, or the name of a built-in template
    #[arg(long, value_name = "FILE|NAME")]
    template: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// GGUF file, Hugging Face folder, a short name, hf:OWNER/REPO[:FILE], synthetic:NAME or synthetic:FILE.json; repeatable:
    /// requests pick one by its name
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL", hide_env = true, value_parser = ModelSpec::parser(), help_heading = "Model")]
    model: Vec<ModelSpec>,
    /// Folder whose models can be used as well: its GGUF files, and its folders with a config.json, as they are at the start
    #[arg(long, value_name = "FOLDER", help_heading = "Model")]
    models: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Maximum number of texts generated at the same time
    #[arg(long, value_name = "N", default_value_t = Options::default().max_sessions, value_parser = at_least_one)]
    max_sessions: usize,
    /// Extra texts beyond these, of at most 1024 tokens each, prompt and answer together
    #[arg(long, value_name = "N", default_value_t = Options::default().short_sessions)]
    short_sessions: usize,
    /// Maximum number of waiting texts, a quarter of them short ones; further requests get status 429
    #[arg(long, value_name = "N", default_value_t = Options::default().queue)]
    queue: usize,
    /// Maximum number of new tokens per text [default: the length of the context]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// Context length in tokens, prompt and answer together [default: the model's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    context: Option<usize>,
    /// Memory for finished texts of each model, so that follow-up requests need not read them again; 0 is off
    #[arg(long, value_name = "MIB", default_value_t = Options::default().cache_bytes >> 20)]
    cache: usize,
    /// Maximum size of a request body
    #[arg(long, value_name = "MIB", default_value_t = Options::default().body_bytes >> 20, value_parser = at_least_one)]
    max_body: usize,
    /// Maximum number of tokens per text to embed [default: the context length, or 32768 if there is no limit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_embed_tokens: Option<usize>,
    /// Threads that parse and tokenize requests larger than 64 KiB
    #[arg(long, value_name = "N", default_value_t = Options::default().prompt_threads, value_parser = at_least_one)]
    prompt_threads: usize,
    /// Maximum number of large requests waiting for such a thread; further ones get status 429
    #[arg(long, value_name = "N", default_value_t = Options::default().prompt_queue)]
    prompt_queue: usize,
    /// Threads that compile constraints: response_format, grammar, regex
    #[arg(long, value_name = "N", default_value_t = Options::default().constraint_threads, value_parser = at_least_one)]
    constraint_threads: usize,
    /// Maximum number of constraints waiting for such a thread; further ones get status 429
    #[arg(long, value_name = "N", default_value_t = Options::default().constraint_queue)]
    constraint_queue: usize,
    /// Time limit for compiling a constraint, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().constraint_timeout.as_secs(), value_parser = seconds())]
    constraint_timeout: u64,
    /// Memory for the constraints of all texts, waiting ones included
    #[arg(long, value_name = "MIB", default_value_t = Options::default().constraint_bytes >> 20, value_parser = at_least_one)]
    constraint_memory: usize,
    /// Memory for the weights of all loaded models and their finished texts: a size (6GiB) or a share of the machine's
    /// memory (60%) [default: 75% with several models]
    #[arg(long, value_name = "SIZE", value_parser = models::memory)]
    memory_limit: Option<u64>,
    /// Time limit for loading the model that a request names, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().load_timeout.as_secs(), value_parser = seconds())]
    load_timeout: u64,
    /// How long a model that was loaded stays at least before it leaves for another, in seconds; in any case ten times as
    /// long as its loading took
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().model_stay.as_secs(), value_parser = clap::value_parser!(u64).range(..=86_400))]
    model_stay: u64,
    /// Maximum number of connections; beyond, the one that has been idle longest is closed
    #[arg(long, value_name = "N", default_value_t = Options::default().max_connections, value_parser = at_least_one)]
    max_connections: usize,
    /// Time limit for receiving request headers, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().head_timeout.as_secs(), value_parser = seconds())]
    head_timeout: u64,
    /// How long an idle connection is kept, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().idle_timeout.as_secs(), value_parser = seconds())]
    idle_timeout: u64,
    /// Time limit for receiving a request body, and for writing to a client that does not read, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().read_timeout.as_secs(), value_parser = seconds())]
    timeout: u64,
    /// How long running texts may continue after Ctrl-C, in seconds; the process exits two seconds later at the latest
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().grace.as_secs(), value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,
}

fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::builder::RangedU64ValueParser::new().range(1..=86_400)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be an integer of at least 1".to_owned())
}

pub(crate) fn execute(args: &ServeArgs, ui: &Ui) -> Result<(), CliError> {
    let mut options = options(args)?;
    let models::Found { models, loaded, names } = models::find(args, ui)?;
    if let Some(model) = &loaded {
        if let Some(error) = model.chat_template_error() {
            ui.note(&format!("/v1/chat/completions is refused: {error}; --template gives another template"));
        } else if model.chat_template().is_none() {
            ui.note("the model has no chat template, so /v1/chat/completions is refused; --template gives it one");
        }
    }
    let threads = loaded.as_ref().map_or_else(String::new, |model| format!("{} threads, ", model.engine().threads()));
    // Only the server holds it from here on, so that it can leave memory.
    drop(loaded);
    options.memory_limit =
        args.limits.memory_limit.or_else(|| (models.len() > 1).then(models::default_limit).flatten());
    let open = args.without_key && !options.address.ip().is_loopback();
    #[cfg(feature = "page")]
    let has_page = options.page;
    #[cfg(not(feature = "page"))]
    let has_page = false;
    let server = Server::bind(models, options)?;
    if open {
        ui.note(&format!("anyone who can reach {} can use this server: no API key is set", server.address()));
    }
    if args.cors.iter().any(|origin| origin == "*") {
        ui.note("--cors \"*\": every web page that someone opens on this machine can use this server");
    }
    // From here on the first Ctrl-C ends the server, the second the process.
    let _graceful = Graceful::begin();
    let url = format!("http://{}/v1", server.address());
    let page = if has_page { format!(", page at {}", page_address(server.address())) } else { String::new() };
    ui::print_line(format_args!(
        "listening at {}{page} ({}, {threads}{} texts at once); Ctrl-C stops it",
        ui.out(Style::Bold, url),
        called(server.service().name(), &names),
        args.limits.max_sessions,
    ))?;
    Ok(server.run_until_signal()?)
}

/// The models by their names, or as many of them as a line has room for.
fn called(first: &str, names: &[String]) -> String {
    const MOST: usize = 5;
    let shown = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 | 1 => format!("model {first}"),
        n if n > MOST => format!("models {shown} and {} more", n - MOST),
        _ => format!("models {shown}"),
    }
}

/// The address to type into a browser on this machine.
fn page_address(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}/", address.port()),
        false => format!("http://{address}/"),
    }
}

fn options(args: &ServeArgs) -> Result<Options, CliError> {
    let mut options = Options::default();
    options.address = address(&args.host, args.port)?;
    options.name = args.name.clone().or_else(|| match &args.model[..] {
        // The name of its folder in the cache would mean nothing to a client.
        [ModelSpec::Hub(hub)] if args.models.is_none() => Some(hub.repo.clone()),
        _ => None,
    });
    options.api_key = match (&args.api_key, &args.api_key_file) {
        (Some(key), _) => Some(ApiKey::new(key)),
        (None, Some(file)) => {
            let kind = loader::files::Kind::KEY;
            Some(ApiKey::new(loader::files::read_text(file, kind)?))
        }
        (None, None) => None,
    };
    options.without_key = args.without_key;
    #[cfg(feature = "page")]
    {
        options.page = !args.no_page;
    }
    options.allow_hosts.clone_from(&args.allow_host);
    options.cors_origins.clone_from(&args.cors);
    let limits = &args.limits;
    options.max_sessions = limits.max_sessions;
    options.short_sessions = limits.short_sessions;
    options.queue = limits.queue;
    options.max_tokens = limits.max_tokens;
    options.cache_bytes = mib(limits.cache);
    options.body_bytes = mib(limits.max_body);
    options.max_embed_tokens = limits.max_embed_tokens;
    options.prompt_threads = limits.prompt_threads;
    options.prompt_queue = limits.prompt_queue;
    options.constraint_threads = limits.constraint_threads;
    options.constraint_queue = limits.constraint_queue;
    options.constraint_bytes = mib(limits.constraint_memory);
    options.constraint_timeout = Duration::from_secs(limits.constraint_timeout);
    options.load_timeout = Duration::from_secs(limits.load_timeout);
    options.model_stay = Duration::from_secs(limits.model_stay);
    options.max_connections = limits.max_connections;
    options.head_timeout = Duration::from_secs(limits.head_timeout);
    options.idle_timeout = Duration::from_secs(limits.idle_timeout);
    options.read_timeout = Duration::from_secs(limits.timeout);
    options.write_timeout = Duration::from_secs(limits.timeout);
    options.grace = Duration::from_secs(limits.grace);
    Ok(options)
}

fn mib(n: usize) -> usize {
    n.saturating_mul(1 << 20)
}

/// The address of a name or a number.
fn address(host: &str, port: u16) -> Result<SocketAddr, CliError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| {
        CliError::usage(format!(
            "--host {host:?} is not an address of this machine; use 127.0.0.1, ::1 or 0.0.0.0, for example"
        ))
    })
}
