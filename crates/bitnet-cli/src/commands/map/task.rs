//! Options of the tasks, and the model for one.

use std::path::{Path, PathBuf};

use bitnet::{ChooseBy, EmbedOptions, Embedder, Extractor, KvType, Model, Pooling, SamplingOverrides};
use bitnet_arrow::{Choose, Embed, Extract, Generate, Score, Task, Template};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use loader::extractor;
use serde_json::{Value, json};

use super::MapArgs;
use crate::choices;
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::source::{self, Loaded};
use crate::ui::Ui;

/// The question that is answered for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskName {
    Extract,
    Embed,
    Choose,
    Score,
    Generate,
}

impl TaskName {
    const ALL: [(&str, Self, &str); 5] = [
        ("extract", Self::Extract, "Intent and slots, by an extractor"),
        ("embed", Self::Embed, "A vector"),
        ("choose", Self::Choose, "The most probable of --choices"),
        ("score", Self::Score, "The probability of the text"),
        ("generate", Self::Generate, "A text that follows"),
    ];

    /// For options.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        let names = Self::ALL.map(|(name, task, help)| {
            let value = PossibleValue::new(name).help(help);
            if task == Self::Choose { value.alias("classify") } else { value }
        });
        PossibleValuesParser::new(names).try_map(|name| {
            let name = if name == "classify" { "choose" } else { name.as_str() };
            Self::ALL.iter().find(|(known, ..)| *known == name).map(|(_, task, _)| *task).ok_or("unknown task")
        })
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, task, _)| *task == self).map_or("", |(name, ..)| *name)
    }
}

/// Options of single tasks.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Task")]
pub(super) struct TaskArgs {
    /// Text around each row's text, which stands at {text}; `score` reads what comes before it and scores the rest
    /// [default: {text}]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// `extract`: task of the extractor [default: its first]
    #[arg(long, value_name = "NAME")]
    extractor_task: Option<String>,
    /// `embed`: pooling of the token states [default: according to the model's file, else mean]
    #[arg(long, value_name = "HOW", value_parser = choices::pooling())]
    pooling: Option<Pooling>,
    /// `embed`: do not scale the vectors to length 1
    #[arg(long)]
    no_normalize: bool,
    /// `choose`: the texts to choose from, each as it follows the prompt, with a leading space if needed
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    choices: Vec<String>,
    /// `choose`: the score that is compared
    #[arg(long, value_name = "WHAT", value_parser = choices::choose_by())]
    choose_by: Option<ChooseBy>,
    /// `generate`: treat each text as a message and use the model's chat template
    #[arg(long)]
    chat: bool,
    /// `generate`: system message, with --chat
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    /// `generate`: JSON that matches this JSON Schema: a file, or the schema itself
    #[cfg(feature = "constrain")]
    #[arg(long, value_name = "FILE|JSON", conflicts_with = "stop")]
    schema: Option<String>,
    /// `generate`: maximum number of new tokens [default: 256]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// `generate`: stop at this text, which is not part of the result; repeatable
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// `generate`: randomness; 0 always picks the most likely token [default: 0]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// `generate`: sample from the K most likely tokens; 0 for all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// `generate`: sample from the most likely tokens whose probabilities add up to P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// `generate`: penalty factor for tokens that occurred before; 1 is off
    #[arg(long, value_name = "F")]
    repeat_penalty: Option<f32>,
    /// `generate`: random seed, the same for each row [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl TaskArgs {
    /// The options that were given, each with the tasks that have it.
    fn given(&self) -> Vec<(&'static str, bool, &'static [TaskName])> {
        use TaskName::{Choose, Embed, Extract, Generate, Score};
        let mut all: Vec<(&'static str, bool, &'static [TaskName])> = vec![
            ("--prompt", self.prompt.is_some(), &[Embed, Choose, Score, Generate]),
            ("--extractor-task", self.extractor_task.is_some(), &[Extract]),
            ("--pooling", self.pooling.is_some(), &[Embed]),
            ("--no-normalize", self.no_normalize, &[Embed]),
            ("--choices", !self.choices.is_empty(), &[Choose]),
            ("--choose-by", self.choose_by.is_some(), &[Choose]),
            ("--chat", self.chat, &[Generate]),
            ("--max-tokens", self.max_tokens.is_some(), &[Generate]),
            ("--stop", !self.stop.is_empty(), &[Generate]),
            ("--temperature", self.temperature.is_some(), &[Generate]),
            ("--top-k", self.top_k.is_some(), &[Generate]),
            ("--top-p", self.top_p.is_some(), &[Generate]),
            ("--repeat-penalty", self.repeat_penalty.is_some(), &[Generate]),
            ("--seed", self.seed.is_some(), &[Generate]),
        ];
        #[cfg(feature = "constrain")]
        all.push(("--schema", self.schema.is_some(), &[Generate]));
        all.retain(|option| option.1);
        all
    }

    /// Checks that each option belongs to the task.
    ///
    /// # Errors
    /// [`CliError::Usage`] that names the option.
    pub(super) fn check(&self, task: TaskName) -> Result<(), CliError> {
        if let Some((option, _, tasks)) = self.given().into_iter().find(|(.., tasks)| !tasks.contains(&task)) {
            let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
            let task = task.name();
            return Err(CliError::usage(format!(
                "{option} is an option of --task {}, not of {task}",
                names.join(", ")
            )));
        }
        if task == TaskName::Choose && self.choices.is_empty() {
            return Err(CliError::usage("--task choose needs --choices: the texts to choose from"));
        }
        Ok(())
    }

    fn template(&self) -> Result<Template, CliError> {
        match &self.prompt {
            None => Ok(Template::default()),
            Some(prompt) => prompt.parse().map_err(|e| CliError::usage(format!("--prompt: {e}"))),
        }
    }

    /// The options of `task` as they count for its results.
    pub(super) fn identity(&self, task: TaskName) -> Value {
        let mut value = json!({
            "name": task.name(),
            "prompt": self.prompt,
            "extractor-task": self.extractor_task,
            "pooling": self.pooling.map(Pooling::name),
            "no-normalize": self.no_normalize,
            "choices": self.choices,
            "choose-by": self.choose_by.map(|by| format!("{by:?}")),
            "chat": self.chat,
            "system": self.system,
            "max-tokens": self.max_tokens,
            "stop": self.stop,
            "temperature": self.temperature,
            "top-k": self.top_k,
            "top-p": self.top_p,
            "repeat-penalty": self.repeat_penalty,
            "seed": self.seed,
        });
        #[cfg(feature = "constrain")]
        {
            value["schema"] = json!(self.schema);
        }
        if let Some(options) = value.as_object_mut() {
            options.retain(|_, v| !v.is_null() && *v != json!(false) && *v != json!([]));
        }
        value
    }

    fn generate(&self, model: &Model) -> Result<Generate, CliError> {
        let typed = SamplingOverrides {
            temperature: Some(self.temperature.unwrap_or(0.0)),
            top_k: self.top_k,
            top_p: self.top_p,
            repeat_penalty: self.repeat_penalty,
            seed: Some(self.seed.unwrap_or(0)),
            ..SamplingOverrides::default()
        };
        let mut task = Generate::default().template(self.template()?).sampling(typed.apply(model.default_sampling()));
        if self.chat {
            task = task.chat(self.system.clone());
        }
        if let Some(n) = self.max_tokens {
            task = task.max_tokens(n);
        }
        task.stop.clone_from(&self.stop);
        #[cfg(feature = "constrain")]
        if let Some(schema) = &self.schema {
            task = task.constraint(bitnet::Constraint::json_schema(&crate::commands::run::schema(schema, "--schema")?));
        }
        Ok(task)
    }

    /// The task for a model that was loaded.
    ///
    /// # Errors
    /// Options that cannot be used.
    pub(super) fn task(&self, task: TaskName, model: &Embedder) -> Result<Task, CliError> {
        Ok(match (task, model) {
            (TaskName::Extract, _) => match &self.extractor_task {
                Some(name) => Extract::task(name).into(),
                None => Extract::default().into(),
            },
            (TaskName::Embed, _) => {
                let mut options = EmbedOptions::default().normalize(!self.no_normalize);
                options.pooling = self.pooling;
                Embed::default().options(options).template(self.template()?).into()
            }
            (TaskName::Choose, _) => {
                let by = self.choose_by.unwrap_or_default();
                Choose::new(&self.choices).template(self.template()?).by(by).into()
            }
            (TaskName::Score, _) => Score::default().template(self.template()?).into(),
            (TaskName::Generate, Embedder::Model(model)) => self.generate(model)?.into(),
            // The mapper says that this is the wrong kind of model.
            (TaskName::Generate, Embedder::Extractor(_)) => Generate::default().into(),
        })
    }
}

/// The file or folder of the model, `None` for the one within the program.
///
/// # Errors
/// The errors of [`source::locate`]; no model for `extract`.
pub(super) fn locate(args: &MapArgs, ui: &Ui) -> Result<Option<PathBuf>, CliError> {
    match &args.load.model.model {
        None if args.task == TaskName::Extract => {
            Err(CliError::usage("--task extract needs an extractor: name one with --model"))
        }
        None => Ok(None),
        spec => source::locate(spec.as_ref(), ui).map(Some),
    }
}

/// Loads the model at `path`, or the one within the program.
///
/// # Errors
/// Errors in the files; features that this CPU does not have.
pub(super) fn load(args: &MapArgs, path: Option<&Path>, ui: &Ui) -> Result<Embedder, CliError> {
    match path {
        Some(path) if args.task == TaskName::Extract || extractor::is_extractor(path) => {
            Ok(Extractor::load(path)?.into())
        }
        path => {
            // It was found before; what it was called does not matter any more.
            let mut load = args.load.clone();
            load.model.model = path.map(|path| ModelSpec::Path(path.to_path_buf()));
            let Loaded { model, .. } = load.request(KvType::F16).load(ui)?;
            Ok(model.into())
        }
    }
}
