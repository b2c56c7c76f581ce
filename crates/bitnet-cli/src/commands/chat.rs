//! `bitnet chat`: a conversation, line by line.

mod input;
mod settings;
mod store;

use std::io::IsTerminal;
use std::path::Path;

use bitnet::{FinishReason, GenerateOptions, KvType, Message, Model, Output, SamplingOptions, Session};
use clap::Args;

use crate::args::SamplingArgs;
use crate::commands::run::stats_line;
use crate::error::CliError;
use crate::interrupt::Graceful;
use crate::source::{self, LoadArgs, Loaded};
use crate::ui::{self, Style, Ui};
use input::{Input, Line};
use settings::Settings;

const AFTER_HELP: &str = "\
Commands in the conversation: /help /clear /system /set /regen /save /load /stats /bye. Enclose a message of several \
lines in \"\"\". Ctrl-C stops an answer, Ctrl-D ends the conversation. Messages can also be piped in, one per line.

Examples:
  bitnet chat -m hf:microsoft/bitnet-b1.58-2B-4T
  bitnet chat -m model.gguf --system \"You answer in one sentence.\"
  printf 'What is 2+2?\\nAnd 3+3?\\n' | bitnet chat -m model.gguf";

const HELP: &str = "\
  /clear           clear the conversation
  /system TEXT     set the system message and start over; without TEXT, show it
  /set             show the options; /set temperature 0.2 changes one
  /regen           generate another answer to the last message
  /save FILE       save the conversation; /load FILE continues it
  /stats           show the speed of the last answer and the use of the context
  /bye             quit (also Ctrl-D)
  \"\"\"              begins and ends a message of several lines
  Ctrl-C           stops the current answer";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ChatArgs {
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// A chat template: a file with Jinja source, or the name of a built-in one
    #[arg(long, value_name = "FILE|NAME")]
    template: Option<String>,
    /// Use no chat template: continue each message as a text of its own, for base models
    #[arg(long, conflicts_with_all = ["template", "system"])]
    plain: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    load: LoadArgs,
}

/// The conversation and everything that it depends on.
struct Chat<'a> {
    model: Model,
    /// Messages are continued and not answered.
    plain: bool,
    session: Session,
    system: Option<String>,
    messages: Vec<Message>,
    settings: Settings,
    last: Option<Output>,
    ui: &'a Ui,
}

pub(crate) fn execute(args: &ChatArgs, ui: &Ui) -> Result<(), CliError> {
    let template = args.template.as_deref().map(source::template).transpose()?;
    let request = args.load.request(KvType::F16);
    let Loaded { model, .. } = request.chat_template(template).load(ui)?;
    if model.tokenizer().is_none() {
        return Err(bitnet::Error::NoTokenizer.into());
    }
    // The built-in model tells stories; it was not trained on conversations.
    let shipped = args.load.model.model.is_none() && args.template.is_none() && args.system.is_none();
    let plain = args.plain || shipped || model.chat_template().is_none();
    // A template that is there but broken is not a sign of a model that was not made to talk.
    if let Some(error) = model.chat_template_error().filter(|_| !args.plain) {
        return Err(bitnet::Error::ChatTemplate(error.clone()).into());
    }
    let person = std::io::stdin().is_terminal();
    if person {
        greet(&model, ui);
    }
    if plain && !args.plain {
        ui.note(PLAIN);
    }
    let mut chat = Chat {
        session: model.session(),
        system: args.system.clone(),
        messages: Vec::new(),
        settings: Settings::new(source::sampling(&model, &args.sampling), &args.sampling),
        last: None,
        model,
        plain,
        ui,
    };
    let mut input = Input::new(person)?;
    loop {
        match input.message()? {
            Line::End => return Ok(()),
            Line::Again => ui.say(ui.err(Style::Dim, "(Ctrl-D or /bye to leave)")),
            Line::Text(text) if text.trim().is_empty() => {}
            Line::Text(text) => match text.strip_prefix('/') {
                Some(command) => {
                    if !chat.command(command)? {
                        return Ok(());
                    }
                }
                None => chat.say(text)?,
            },
        }
    }
}

const PLAIN: &str = "this is not a chat model: it continues what you type, and each line starts a new text";

fn greet(model: &Model, ui: &Ui) {
    let name = model.info().name.clone().unwrap_or_else(|| model.info().path.display().to_string());
    ui.say(format_args!(
        "{} {}",
        ui.err(Style::Bold, &name),
        ui.err(
            Style::Dim,
            format_args!("({} weights; /help for help, /bye to leave)", ui::count(model.config().parameters()))
        )
    ));
}

impl Chat<'_> {
    /// Answers a message. Errors are shown, and the conversation continues without the message.
    fn say(&mut self, text: String) -> Result<(), CliError> {
        self.messages.push(Message::user(text));
        match self.answer() {
            Ok(()) => Ok(()),
            Err(error @ (CliError::BrokenPipe | CliError::Io { .. })) => Err(error),
            Err(error) if !std::io::stdin().is_terminal() => Err(error),
            Err(error) => {
                self.messages.pop();
                self.ui.error(&error);
                Ok(())
            }
        }
    }

    /// Generates the answer to the last message and adds it to the conversation.
    fn answer(&mut self) -> Result<(), CliError> {
        let graceful = Graceful::begin();
        let mut options = GenerateOptions::default().sampling(self.settings.sampling.clone()).cancel(graceful.token());
        options.max_tokens = self.settings.max_tokens;
        options.stop = self.settings.stop.clone();
        options.ignore_eos = self.settings.ignore_eos;
        options.speculation = self.settings.speculation;
        let mut generation = match self.plain {
            false => {
                let system = self.system.as_deref().map(Message::system);
                let messages: Vec<Message> = system.into_iter().chain(self.messages.iter().cloned()).collect();
                self.session.chat(&messages, options)?
            }
            true => {
                self.session.clear();
                let text = self.messages.last().map_or("", |m| m.content.as_str());
                self.session.generate(text, options)?
            }
        };
        let mut open = false;
        for chunk in generation.by_ref() {
            let text = chunk?.text;
            if !text.is_empty() {
                ui::print(&text)?;
                open = !text.ends_with('\n');
            }
        }
        let output = generation.finish()?;
        if open {
            ui::print("\n")?;
        }
        match output.finish_reason {
            FinishReason::Cancelled => self.ui.say(self.ui.err(Style::Dim, "[interrupted]")),
            FinishReason::Length if self.session.remaining() == 0 => {
                self.ui.note("the context is full; /clear starts over");
            }
            FinishReason::Length => {
                self.ui.say(self.ui.err(Style::Dim, "[token limit reached; /set max_tokens changes it]"));
            }
            _ => {}
        }
        self.messages.push(Message::assistant(output.text.clone().unwrap_or_default()));
        self.last = Some(output);
        match graceful.cancelled() && !std::io::stdin().is_terminal() {
            true => Err(CliError::Interrupted),
            false => Ok(()),
        }
    }

    /// Obeys a command; `false` ends the conversation.
    fn command(&mut self, text: &str) -> Result<bool, CliError> {
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let ui = self.ui;
        match name {
            "bye" | "exit" | "quit" | "q" => return Ok(false),
            "help" | "?" | "h" => ui.say(HELP),
            "clear" => {
                self.forget();
                ui.say(ui.err(Style::Dim, "[conversation cleared]"));
            }
            "system" if rest.is_empty() => ui.say(self.system.as_deref().unwrap_or("[no instruction]")),
            "system" => {
                self.system = Some(rest.to_owned());
                self.forget();
                ui.say(ui.err(Style::Dim, "[instruction set; the conversation starts over]"));
            }
            "set" if rest.is_empty() => ui.say(&self.settings),
            "set" => match self.settings.set(rest) {
                Ok(line) => ui.say(ui.err(Style::Dim, format_args!("[{line}]"))),
                Err(problem) => ui.error(&CliError::usage(problem)),
            },
            "regen" => self.regenerate()?,
            "save" | "load" if rest.is_empty() => ui.error(&CliError::usage(format!("/{name} needs a file name"))),
            "save" => match store::save(Path::new(rest), &self.conversation(), &mut self.session) {
                Ok(()) => ui.say(ui.err(Style::Dim, format_args!("[saved to {rest} and {rest}.json]"))),
                Err(error) => ui.error(&error),
            },
            "load" => match store::load(Path::new(rest), &self.model) {
                Ok((conversation, session)) => self.take_up(&conversation, session),
                Err(error) => ui.error(&error),
            },
            "stats" => self.stats(),
            _ => ui.error(&CliError::usage(format!("unknown command /{name}; /help lists all commands"))),
        }
        Ok(true)
    }

    fn forget(&mut self) {
        self.messages.clear();
        self.session.clear();
        self.last = None;
    }

    fn conversation(&self) -> store::Conversation {
        store::Conversation::new(self.system.clone(), &self.messages)
    }

    /// Goes on with a conversation that was kept.
    fn take_up(&mut self, conversation: &store::Conversation, session: Result<Session, bitnet::Error>) {
        self.forget();
        self.system = conversation.system.clone();
        self.messages = conversation.messages();
        match session {
            Ok(session) => self.session = session,
            Err(error) => self.ui.note(&format!(
                "the saved state cannot be used, so the next message reads the conversation again: \
                 {error}"
            )),
        }
        let (said, cached) = (self.messages.len(), self.session.len());
        self.ui.say(self.ui.err(Style::Dim, format_args!("[{said} messages, {cached} tokens in the cache]")));
    }

    fn regenerate(&mut self) -> Result<(), CliError> {
        if self.messages.pop_if(|m| m.role == "assistant").is_none() {
            self.ui.error(&CliError::usage("there is no answer to regenerate"));
            return Ok(());
        }
        // The same seed would give the same answer.
        self.settings.sampling.seed = self.settings.sampling.seed.wrapping_add(1);
        if self.settings.sampling.is_greedy() {
            self.ui.note("temperature 0 always gives the same answer; /set temperature 0.7 changes that");
        }
        match self.messages.pop() {
            Some(message) => self.say(message.content),
            None => Ok(()),
        }
    }

    fn stats(&self) {
        if let Some(last) = &self.last {
            self.ui.say(stats_line(&last.stats, last.finish_reason));
        }
        let used = self.session.len();
        let context = match self.model.config().context_limit() {
            Some(_) => format!("context {used} of {} tokens", self.model.context()),
            None => format!("{used} tokens, without a limit"),
        };
        let mut memory = Vec::new();
        if self.model.config().attention_layers() > 0 {
            let bytes = ui::bytes(self.session.state().kv_bytes() as u64);
            memory.push(format!("{bytes} of keys and values as {}", self.model.kv_type().name()));
        }
        if self.session.state().ttt_bytes() > 0 {
            memory.push(format!("{} of test-time-training state", ui::bytes(self.session.state().ttt_bytes() as u64)));
        }
        let delta = self.session.state().constant_bytes() - self.session.state().ttt_bytes();
        if delta > 0 {
            memory.push(format!("{} of states of the gated delta rule", ui::bytes(delta as u64)));
        }
        self.ui.say(format_args!(
            "[{context}, {}; {} on {} thread(s)]",
            memory.join(", "),
            self.model.engine().kernel_name(),
            self.model.engine().threads(),
        ));
    }
}

/// Here, so that `settings` does not depend on the command line.
impl Settings {
    fn new(sampling: SamplingOptions, args: &SamplingArgs) -> Self {
        let SamplingArgs { max_tokens, stop, ignore_eos, .. } = args;
        let speculation = source::speculation(args);
        Settings { sampling, max_tokens: *max_tokens, stop: stop.clone(), ignore_eos: *ignore_eos, speculation }
    }
}
