//! From the command line to [`Cli`]: parsed by clap, with support for texts that begin with a hyphen.
//!
//! `bitnet run "- item"` and `--choose "- a" "- b"` contain texts; `bitnet run --jsn` contains an option and gets
//! clap's error. So arguments that clap rejects are checked again: one that cannot be the name of an option is a text.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{Arg, Args, Command, CommandFactory, FromArgMatches};

use crate::commands::run::RunArgs;
use crate::commands::{Cli, CommonArgs};

/// Parses the arguments of this process; ends it with a message if they are invalid, or ask for help.
pub(crate) fn arguments() -> Cli {
    let args: Vec<OsString> = std::env::args_os().collect();
    let unset = std::env::var_os("BITNET_MODEL").is_some_and(|model| model.is_empty());
    match parse(&args, unset) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    }
}

/// `unset`: the variable `BITNET_MODEL` is set but empty, and therefore ignored.
fn parse(args: &[OsString], unset: bool) -> Result<Cli, clap::Error> {
    if let Some(cli) = run_alone(args).filter(|_| !unset) {
        return Ok(cli);
    }
    let error = match read(args, unset) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::InvalidUtf8 {
        let bad = args.iter().find(|a| a.to_str().is_none()).map(OsString::as_os_str).unwrap_or_default();
        let problem = format!("argument {bad:?} is not valid UTF-8; only file names may be");
        return Err(Cli::command().error(ErrorKind::InvalidUtf8, problem));
    }
    let told = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if told || !args.iter().skip(1).any(|a| is_text(a)) {
        return Err(error);
    }
    match rewritten(args) {
        Some(args) => read(&args, unset),
        None => Err(error),
    }
}

/// `bitnet run ...` where it makes sense as it stands. It is the command that is started for a word or two, and to describe all the
/// others takes as long as to load a small model. What else there is, help and errors too, is for the whole description.
fn run_alone(args: &[OsString]) -> Option<Cli> {
    let rest = args.get(1..).filter(|rest| rest.first().is_some_and(|name| name == "run"))?;
    let command = CommonArgs::augment_args(RunArgs::augment_args(Command::new("run")));
    let mut matches = command.try_get_matches_from(rest).ok()?;
    let run = RunArgs::from_arg_matches_mut(&mut matches).ok()?;
    let common = CommonArgs::from_arg_matches_mut(&mut matches).ok()?;
    Some(Cli { command: crate::commands::Command::Run(run), common })
}

fn read(args: &[OsString], unset: bool) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    if unset {
        let takes = |c: &Command| c.get_arguments().any(|a| a.get_id() == "model");
        let without = |a: Arg| a.env(None::<&'static str>);
        command = command.mut_subcommands(|c| if takes(&c) { c.mut_arg("model", without) } else { c });
    }
    let mut matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))
}

/// Whether this begins with a hyphen and cannot be an option: `- item`, `---`, `-5 degrees`, `--no name of an option`.
fn is_text(arg: &OsStr) -> bool {
    let Some(text) = arg.to_str().filter(|t| t.starts_with('-') && !matches!(*t, "-" | "--")) else { return false };
    let body = text.trim_start_matches('-');
    let name = body.split('=').next().unwrap_or_default();
    !body.starts_with(|c: char| c.is_ascii_alphabetic()) || text.starts_with("--") && name.contains(char::is_whitespace)
}

fn is_option(arg: &OsStr) -> bool {
    arg.as_encoded_bytes().starts_with(b"-") && arg != "-" && !is_text(arg)
}

/// The arguments with hyphens made harmless: texts after `--`, and one option for each value of a list.
fn rewritten(args: &[OsString]) -> Option<Vec<OsString>> {
    let mut root = Cli::command();
    root.build();
    let at = 1 + args.iter().skip(1).position(|a| !is_option(a))?;
    let command = root.find_subcommand(args.get(at)?)?;
    let (mut out, mut texts) = (args[..=at].to_vec(), Vec::new());
    let mut rest = args[at + 1..].iter().peekable();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            texts.extend(rest.by_ref().cloned());
        } else if !is_option(arg) {
            texts.push(arg.clone());
        } else if let Some(option) = wants_value(command, arg) {
            let many = option.get_num_args().is_some_and(|n| n.max_values() > 1);
            match option.get_long().filter(|_| many) {
                Some(long) => {
                    while let Some(value) = rest.next_if(|next| !is_option(next)) {
                        let mut both = OsString::from(format!("--{long}="));
                        both.push(value);
                        out.push(both);
                    }
                }
                None => out.extend([arg].into_iter().chain(rest.next()).cloned()),
            }
        } else {
            out.push(arg.clone());
        }
    }
    out.push("--".into());
    out.extend(texts);
    Some(out)
}

/// The option whose value is the argument after this one.
fn wants_value<'c>(command: &'c Command, arg: &OsStr) -> Option<&'c Arg> {
    let text = arg.to_str()?;
    let takes = |option: &&Arg| option.get_action().takes_values();
    if let Some(long) = text.strip_prefix("--") {
        return command.get_arguments().find(|a| a.get_long() == Some(long)).filter(takes);
    }
    let mut letters = text.strip_prefix('-')?.chars();
    while let Some(letter) = letters.next() {
        let option = command.get_arguments().find(|a| a.get_short() == Some(letter))?;
        if takes(&option) {
            // The rest of the argument is the value.
            return letters.as_str().is_empty().then_some(option);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Command as Given;

    fn cli(args: &[&str]) -> Result<Cli, clap::Error> {
        let args: Vec<OsString> = ["bitnet"].iter().chain(args).map(OsString::from).collect();
        parse(&args, false)
    }

    #[test]
    fn texts_may_begin_with_a_hyphen() {
        for prompt in ["- item", "---", "-5 degrees", "-- so", "--no option", "-", "---\ntitle: x\n---\n", "-\u{2192}"]
        {
            for args in [&["run", prompt, "--json"][..], &["run", "--json", prompt], &["-q", "run", "-n", "3", prompt]]
            {
                let Given::Run(run) = cli(args).unwrap().command else { panic!("{args:?}") };
                assert_eq!(run.prompt_text(), Some(prompt), "{args:?}");
            }
            for option in ["-p", "--prompt", "--system", "--stop"] {
                cli(&["run", "--chat", option, prompt, "--json"]).unwrap();
            }
            let Given::Tokenize(_) = cli(&["tokenize", prompt, "--pieces"]).unwrap().command else {
                panic!("{prompt}")
            };
            let Given::Embed(embed) = cli(&["embed", prompt, "a", prompt, "--json"]).unwrap().command else {
                panic!("{prompt}")
            };
            assert_eq!(embed.texts(), [prompt, "a", prompt]);
            let Given::Run(run) = cli(&["run", "x", "--choose", prompt, "b", prompt, "--json"]).unwrap().command else {
                panic!("{prompt}")
            };
            assert_eq!(run.choices(), [prompt, "b", prompt]);
        }
        let Given::Run(run) = cli(&["run", "--stop=- x", "-n3", "- a"]).unwrap().command else { panic!() };
        assert_eq!(run.prompt_text(), Some("- a"));
    }

    #[test]
    fn options_that_do_not_exist_are_still_named() {
        for args in [
            &["run", "--unknown-flag"][..],
            &["run", "--unknown-flag", "x"],
            &["run", "- item", "--unknown-flag"],
            &["run", "--unknown-flag", "- item"],
            &["embed", "- a", "--unknown-flag"],
            &["run", "-Z"],
        ] {
            let error = cli(args).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{args:?}: {error}");
        }
        assert!(cli(&["run", "--jsno"]).map(drop).unwrap_err().to_string().contains("'--json'"));
        assert_eq!(cli(&["run", "- x", "--help"]).map(drop).unwrap_err().kind(), ErrorKind::DisplayHelp);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_are_paths_or_named() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"m\xff.gguf".to_vec());
        let of = |args: &[&OsStr]| {
            let args: Vec<OsString> = args.iter().map(|a| OsString::from(*a)).collect();
            parse(&args, false)
        };
        let [bitnet, run, m] = ["bitnet", "run", "-m"].map(OsStr::new);
        assert!(of(&[bitnet, run, m, &odd]).is_ok());
        let error = of(&[bitnet, run, &odd]).map(drop).unwrap_err().to_string();
        assert!(error.contains("m\\xFF.gguf") && error.contains("UTF-8"), "{error}");
    }
}
