//! The command line: arguments in, one verb, an exit code out.

mod args;
mod attach;
mod attached;
mod classic;
mod doctor;
mod explain;
mod foreign;
mod from;
mod keys;
mod manual;
mod near;
mod nominate;
mod rsync;
mod run;
mod screen;
mod serve;
mod transfer;
mod unbuilt;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches};

use crate::error::{Exit, Failure};
use crate::ui::Ui;
use args::Args;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let ui = Ui::new(words.iter().any(|word| word == "--json"));
    let outcome = match parse(&words) {
        Ok(Parsed::Args(args, matches)) => run::run(*args, &matches, &ui),
        Ok(Parsed::Text(text)) => ui.bytes(text.as_bytes()),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closed its end has what it wanted.
        Err(failure) if failure.code == Exit::Ok => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::from(failure.code.code())
        }
    }
}

enum Parsed {
    Args(Box<Args>, Box<ArgMatches>),
    /// Help or version: asked for, so on stdout.
    Text(String),
}

fn parse(words: &[OsString]) -> Result<Parsed, Failure> {
    let matches = match command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Parsed::Text(error.render().to_string()));
        }
        Err(error) => return Err(refuse(&error)),
    };
    match Args::from_arg_matches(&matches) {
        Ok(args) => Ok(Parsed::Args(Box::new(args), Box::new(matches))),
        Err(error) => Err(refuse(&error)),
    }
}

/// The whole command line, as clap sees it.
fn command() -> clap::Command {
    lenient(Args::command())
}

/// A flag that is given twice counts as given last, as everywhere in rsync.
fn lenient(command: clap::Command) -> clap::Command {
    let last_wins = |arg: clap::Arg| {
        let single = matches!(arg.get_action(), ArgAction::Set | ArgAction::SetTrue) && !arg.is_positional();
        let id = arg.get_id().clone();
        if single { arg.overrides_with(id) } else { arg }
    };
    command.disable_help_flag(true).mut_args(last_wins).mut_subcommands(lenient)
}

/// clap's refusal as ours: what rsync or a later murmir knows is told apart from what nobody knows.
fn refuse(error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let word = context(ContextKind::InvalidArg).or_else(|| context(ContextKind::InvalidSubcommand));
    if let Some(failure) = word.as_deref().and_then(unbuilt::explain) {
        return failure;
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut first = lines.next().unwrap_or("wrong usage").trim_start_matches("error: ").to_owned();
    if error.kind() == ErrorKind::MissingRequiredArgument {
        let names = lines.take_while(|line| !line.starts_with("Usage:"));
        first = names.fold(first, |text, name| format!("{text} {name}"));
    }
    Failure::usage(first).hint("murmir --help lists verbs, murmir VERB --help their flags")
}
