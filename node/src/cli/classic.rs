//! The classic way: the installed rsync, with the same filters and flags.

mod guard;
mod report;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::ChildStdout;

use super::args::Command;
use super::foreign::OURS;
use super::transfer::Habit;
use crate::error::{Exit, Failure};
use crate::options::{OwnOptions, TransferOptions};
use crate::sync::dest::OWN_DIR;

/// The program.
const RSYNC: &str = "rsync";
/// Ours is not the origin's.
const SPARED: &str = "--exclude=/.murmir/";
/// Longest line of rsync's that is taken as one, bytes: names of files and words of a daemon are in them.
const MAX_LINE: u64 = 64 << 10;
/// A swarm that has gone silent sends all of its clients to the origin: they wait up to so long, each its own time.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// Flags of a pull that rsync does not have either, as clap knows them.
const PULLS: &[&str] = &[
    "regex",
    "accept_new",
    "max_age",
    "sources",
    "late",
    "reuse",
    "seed",
    "adopt",
    "wait_lock",
    "max_transfer",
    "max_size_total",
    "allow_downgrade",
    "force_delete",
    "no_delta",
    "no_classic",
    "classic_only",
    "error_on_no_transfer",
    "watch",
    "url",
    "reference",
    "dest",
    "origin",
    "web_seed",
    "help",
];

fn is_ours(id: &str) -> bool {
    OURS.contains(&id) || PULLS.contains(&id)
}

/// An rsync command line in waiting.
#[derive(Debug, Clone)]
pub struct Classic {
    words: Vec<OsString>,
    /// Where files would come to stand; none for a listing.
    dest: Option<OsString>,
    /// It deletes what was not written by murmir, and nobody said that it may.
    guarded: bool,
    /// DEST is a replica from now on.
    is_replica: bool,
    /// It deletes, and nobody said how much may go.
    watched: bool,
    /// What rsync cannot do.
    obstacle: Option<&'static str>,
    /// `--classic-only`.
    pub only: bool,
    /// `--no-classic`.
    never: bool,
}

impl Classic {
    /// The command line that does the same as `verb`; none where rsync has no such verb.
    pub fn of(verb: &Command, matches: &ArgMatches) -> Option<Self> {
        let (habit, options, places): (_, &TransferOptions, Vec<OsString>) = match verb {
            Command::Fetch { options, .. } => {
                let dest = options.dest.iter().map(|dest| dest.as_os_str().to_owned());
                let places = std::iter::once(options.reference.clone().into()).chain(dest);
                (Habit::Fetch, &options.transfer, places.collect())
            }
            Command::Mirror { options, .. } => {
                let places = vec![options.reference.clone().into(), options.dest.as_os_str().to_owned()];
                (Habit::Mirror, &options.transfer, places)
            }
            Command::Rsync { options, .. } => (Habit::Rsync, &options.transfer, options.places.clone()),
            _ => return None,
        };
        let (_, matches) = matches.subcommand()?;
        let mut words: Vec<OsString> = usual(habit).iter().map(OsString::from).collect();
        words.extend(given(matches));
        let lists = options.output.list_only || places.len() < 2;
        let dest = places.last().filter(|_| !lists).cloned();
        if habit == Habit::Rsync && dest.as_deref().is_some_and(|dest| Path::new(dest).join(OWN_DIR).is_dir()) {
            // A replica's own directory is nothing of the origin's.
            words.insert(0, SPARED.into());
        }
        words.push("--".into());
        words.extend(places);
        let OwnOptions { adopt, no_classic: never, classic_only: only, .. } = options.own;
        let deletes = habit == Habit::Mirror || (habit == Habit::Fetch && options.deletion.is_on());
        let obstacle = match &dest {
            Some(dest) if habit == Habit::Fetch && dest == "-" => Some("a file to stdout"),
            _ if !options.choice.regex.is_empty() => Some("--regex"),
            _ if matches!(verb, Command::Mirror { options, .. } if options.watch) => Some("--watch"),
            _ => None,
        };
        let is_replica = habit == Habit::Mirror && !options.dry_run;
        let meant = options.dry_run || options.own.force_delete || options.deletion.max_delete.is_some();
        let (guarded, watched) = (deletes && !adopt, deletes && !meant);
        Some(Self { words, dest, guarded, is_replica, watched, obstacle, only, never })
    }

    /// Refuses what this way cannot or must not do.
    ///
    /// # Errors
    /// `--no-classic` or something rsync does not have (10, with what was `tried`), a destination that is not ours (1).
    pub fn check(&self, tried: &[String]) -> Result<(), Failure> {
        let hint = if tried.is_empty() { String::new() } else { format!("tried: {}", tried.join("; ")) };
        let refuse = |text: String| Err(Failure::new(Exit::Nobody, text).hint(&hint));
        if self.never {
            return refuse("no swarm is offered there, or none answers".to_owned());
        }
        if let Some(what) = self.obstacle {
            return refuse(format!("no swarm is offered there, or none answers, and rsync has no way for {what}"));
        }
        let Some(dest) = self.dest.as_deref().filter(|_| self.guarded).map(Path::new) else { return Ok(()) };
        let holds = dest.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if holds && !dest.join(OWN_DIR).is_dir() {
            let text = format!("{} is not empty and was not written by murmir", dest.display());
            return Err(Failure::usage(text).hint("--adopt makes it a replica all the same"));
        }
        Ok(())
    }

    /// Waits its own part of [`MAX_DELAY`].
    pub async fn step_aside(&self) {
        let random = getrandom::u32().unwrap_or_default();
        tokio::time::sleep(MAX_DELAY.mul_f64(f64::from(random) / f64::from(u32::MAX))).await;
    }

    /// Runs rsync to its end; gives the `done` event, for JSON.
    ///
    /// # Errors
    /// rsync's own code, and 10 where it is not installed.
    pub async fn run(&self, json: bool) -> Result<Option<Value>, Failure> {
        let done = if json {
            Some(report::reported(&self.with(&["--stats", "--no-h"])).await?)
        } else {
            rsync(&self.words, json).await?;
            None
        };
        self.mark()?;
        Ok(done)
    }

    /// The command line with more flags.
    fn with(&self, flags: &[&str]) -> Vec<OsString> {
        let end = self.words.iter().position(|word| word == "--").unwrap_or(self.words.len());
        let (before, after) = self.words.split_at(end);
        before.iter().cloned().chain(flags.iter().map(OsString::from)).chain(after.iter().cloned()).collect()
    }
}

/// Runs rsync to its end.
///
/// # Errors
/// rsync's own code, and 10 where it is not installed.
pub async fn rsync(words: &[OsString], json: bool) -> Result<(), Failure> {
    let mut command = tokio::process::Command::new(RSYNC);
    command.args(words).kill_on_drop(true);
    if json {
        // stdout is for JSON alone.
        command.stdout(Stdio::from(std::io::stderr()));
    }
    ended(command.status().await.map_err(|error| missing(&error))?)
}

/// The next line of rsync's, or a part of a longer one; none at the end.
async fn next_line(lines: &mut BufReader<ChildStdout>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = lines.take(MAX_LINE).read_until(b'\n', &mut line).await;
    read.is_ok_and(|count| count > 0).then_some(line)
}

fn missing(error: &io::Error) -> Failure {
    let text = format!("rsync is needed here, and cannot be run: {error}");
    Failure::new(Exit::Nobody, text).hint("install rsync, or name a reference or a peer")
}

fn ended(status: ExitStatus) -> Result<(), Failure> {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::new(Exit::try_from(code).unwrap_or(Exit::Start), "rsync failed")),
        None => Err(Failure::new(Exit::Signal, "rsync was ended by a signal")),
    }
}

impl Classic {
    /// By this the next run knows the replica as its own.
    fn mark(&self) -> Result<(), Failure> {
        let Some(dest) = self.dest.as_deref().filter(|_| self.is_replica).map(Path::new) else { return Ok(()) };
        match std::fs::create_dir(dest.join(OWN_DIR)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Failure::new(Exit::Files, format_args!("{}: {error}", dest.display())))
            }
            _ => Ok(()),
        }
    }
}

/// The habits of a verb, as rsync's flags. A replica's own directory is not the origin's.
fn usual(habit: Habit) -> &'static [&'static str] {
    match habit {
        Habit::Fetch => &["-rlptH", "--partial", "--no-motd", SPARED],
        Habit::Mirror => &["-rlptH", "--delete-delay", "--delay-updates", "--safe-links", "--no-motd", SPARED],
        Habit::Rsync => &[],
    }
}

/// The flags that stand on the command line, in their order.
fn given(matches: &ArgMatches) -> Vec<OsString> {
    let command = super::command();
    let Some(verb) = command.find_subcommand("rsync") else { return Vec::new() };
    let mut words: Vec<(usize, OsString)> = Vec::new();
    for arg in verb.get_arguments().filter(|arg| !is_ours(arg.get_id().as_str())) {
        let id = arg.get_id().as_str();
        let on_line = matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine);
        let Some(indices) = matches.indices_of(id).filter(|_| on_line) else { continue };
        let indices: Vec<usize> = indices.collect();
        match arg.get_action() {
            ArgAction::Append | ArgAction::Set if arg.get_num_args().is_none_or(|range| range.takes_values()) => {
                let values = matches.get_raw(id).into_iter().flatten();
                let values = values.map(|value| if id == "bwlimit" { inward(value) } else { value });
                words.extend(indices.iter().copied().zip(values.map(|value| with_value(arg, value))));
            }
            ArgAction::Count => {
                let last = indices.last().copied().unwrap_or_default();
                words.extend((0..matches.get_count(id)).map(|_| (last, plain(arg))));
            }
            // A switch; `-F` counts how often it is given.
            _ => words.extend(indices.iter().map(|index| (*index, plain(arg)))),
        }
    }
    words.extend((0..matches.get_count("verbose")).map(|_| (0, "-v".into())));
    words.sort_by_key(|(index, _)| *index);
    words.into_iter().map(|(_, word)| word).collect()
}

/// What of `UP:DOWN` rsync knows: what comes in, 0 for no limit.
fn inward(value: &OsStr) -> &OsStr {
    match value.to_str().and_then(|text| text.split_once(':')) {
        None => value,
        Some((_, "")) => OsStr::new("0"),
        Some((_, down)) => OsStr::new(down),
    }
}

fn plain(arg: &Arg) -> OsString {
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}").into(),
        (None, Some(short)) => format!("-{short}").into(),
        (None, None) => OsString::new(),
    }
}

fn with_value(arg: &Arg, value: &OsStr) -> OsString {
    let flag = plain(arg);
    let between: &[u8] = if arg.get_long().is_some() { b"=" } else { b"" };
    OsString::from_vec([flag.as_bytes(), between, value.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let matches = super::super::command().get_matches_from(line.split(' '));
        let words = given(matches.subcommand().unwrap().1);
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn flags_come_out_as_they_went_in() {
        for (line, expected) in [
            ("-avz --exclude=b --include=a --delete", "-v --archive --compress --exclude=b --include=a --delete"),
            ("--include a -f -_b -F --exclude c -F", "--include=a --filter=-_b -F --exclude=c -F"),
            ("--bwlimit=1:2m", "--bwlimit=2m"),
            ("--bwlimit 3:", "--bwlimit=0"),
            ("--no-perms -a --adopt --max-delete=7", "--no-perms --archive --max-delete=7"),
            (
                "--bwlimit=1m --timeout=9 --port 99 -n -ii",
                "--bwlimit=1m --timeout=9 --port=99 --dry-run --itemize-changes --itemize-changes",
            ),
        ] {
            assert_eq!(words(&format!("murmir rsync {line} host::m /d")).join(" "), expected, "{line}");
        }
    }
}
