//! rsync's other flags: known to everybody's fingers, and never ignored in silence where they would change something.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::error::{Exit, Failure};

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It tunes rsync's own wire, or says what is so anyway.
    NoOp,
    /// Exit 4: to come, or not carried by the manifest.
    Unbuilt,
    /// Exit 1, and why.
    Nonsense(&'static str),
}

use Fate::{NoOp, Nonsense, Unbuilt};

const WIRE: Fate = Nonsense("there is no remote shell and no remote rsync here");
const IN_PLACE: Fate = Nonsense("files are replaced whole, so that no reader ever sees half of one");
const PULL: Fate = Nonsense("nothing is ever changed at the other side");
const BATCH: Fate = Nonsense("there is no batch: any mirror's disk is one");
const NAMES: Fate = Nonsense("names are bytes, and stay what they are");
const SEED: Fate = Nonsense("contents are known by their BLAKE3 hash");

/// Long name (of one letter: none), letter, whether a value follows, fate.
type Flag = (&'static str, Option<char>, bool, Fate);

const FLAGS: &[Flag] = &[
    ("compress", Some('z'), false, NoOp),
    ("whole-file", Some('W'), false, NoOp),
    ("no-whole-file", None, false, NoOp),
    ("no-W", None, false, NoOp),
    ("block-size", Some('B'), true, NoOp),
    ("inc-recursive", None, false, NoOp),
    ("i-r", None, false, NoOp),
    ("no-inc-recursive", None, false, NoOp),
    ("no-i-r", None, false, NoOp),
    ("checksum-choice", None, true, NoOp),
    ("cc", None, true, NoOp),
    ("compress-choice", None, true, NoOp),
    ("zc", None, true, NoOp),
    ("compress-level", None, true, NoOp),
    ("zl", None, true, NoOp),
    ("skip-compress", None, true, NoOp),
    ("blocking-io", None, false, NoOp),
    ("outbuf", None, true, NoOp),
    ("old-args", None, false, NoOp),
    ("secluded-args", Some('s'), false, NoOp),
    ("trust-sender", None, false, NoOp),
    ("sockopts", None, true, NoOp),
    ("protocol", None, true, NoOp),
    ("numeric-ids", None, false, NoOp),
    ("no-owner", None, false, NoOp),
    ("no-o", None, false, NoOp),
    ("no-group", None, false, NoOp),
    ("no-g", None, false, NoOp),
    ("no-devices", None, false, NoOp),
    ("no-specials", None, false, NoOp),
    ("no-D", None, false, NoOp),
    ("no-motd", None, false, NoOp),
    ("fsync", None, false, NoOp),
    ("preallocate", None, false, NoOp),
    ("owner", Some('o'), false, Unbuilt),
    ("group", Some('g'), false, Unbuilt),
    ("D", Some('D'), false, Unbuilt),
    ("devices", None, false, Unbuilt),
    ("specials", None, false, Unbuilt),
    ("acls", Some('A'), false, Unbuilt),
    ("xattrs", Some('X'), false, Unbuilt),
    ("atimes", Some('U'), false, Unbuilt),
    ("crtimes", Some('N'), false, Unbuilt),
    ("fake-super", None, false, Unbuilt),
    ("sparse", Some('S'), false, NoOp),
    ("ipv4", Some('4'), false, NoOp),
    ("ipv6", Some('6'), false, NoOp),
    ("one-file-system", Some('x'), false, NoOp),
    ("ignore-times", Some('I'), false, NoOp),
    ("fuzzy", Some('y'), false, NoOp),
    ("temp-dir", Some('T'), true, NoOp),
    ("timeout", None, true, NoOp),
    ("port", None, true, NoOp),
    ("address", None, true, NoOp),
    ("password-file", None, true, NoOp),
    ("rsh", Some('e'), true, WIRE),
    ("rsync-path", None, true, WIRE),
    ("remote-option", Some('M'), true, WIRE),
    ("remove-source-files", None, false, PULL),
    ("inplace", None, false, IN_PLACE),
    ("append", None, false, IN_PLACE),
    ("append-verify", None, false, IN_PLACE),
    ("write-batch", None, true, BATCH),
    ("only-write-batch", None, true, BATCH),
    ("read-batch", None, true, BATCH),
    ("iconv", None, true, NAMES),
    ("checksum-seed", None, true, SEED),
];

/// What is no flag of rsync's.
const OURS: [&str; 12] = [
    "places",
    "explain",
    "state_dir",
    "listen",
    "peer",
    "bootstrap",
    "config",
    "json",
    "no_dht",
    "mdns",
    "name_server",
    "no_node",
];

/// The flags of the table that were given, in its order.
#[derive(Debug, Clone, Default)]
pub struct Foreign {
    given: Vec<&'static Flag>,
    /// The names of all other flags that were given.
    others: Vec<String>,
    /// `--port`, for the names of rsync daemons.
    pub port: Option<u16>,
}

impl Foreign {
    /// The names of the flags that are not in the table.
    pub fn given(&self) -> &[String] {
        &self.others
    }

    /// What each flag of the table does here.
    pub fn explain(&self) -> Vec<String> {
        let said = |flag: &&'static Flag| match flag.3 {
            NoOp => format!("{}: of no effect: it tunes rsync's own wire, or says what is so anyway", shown(flag)),
            Unbuilt => format!("{}: not built yet", shown(flag)),
            Nonsense(why) => format!("{}: refused: {why}", shown(flag)),
        };
        self.given.iter().map(said).collect()
    }

    /// Refuses what cannot be done: 1 for nonsense, 4 for what is not built yet.
    pub fn check(&self) -> Result<(), Failure> {
        let refusals = self.given.iter().filter_map(|flag| match flag.3 {
            NoOp => None,
            Unbuilt => Some(Failure::new(Exit::Unsupported, format_args!("{} is not built yet", shown(flag)))),
            Nonsense(why) => Some(Failure::usage(format_args!("{} makes no sense here: {why}", shown(flag)))),
        });
        refusals.min_by_key(|failure| failure.code.code()).map_or(Ok(()), Err)
    }
}

fn shown((long, letter, ..): &Flag) -> String {
    match letter {
        Some(letter) if long.len() == 1 => format!("-{letter}"),
        Some(letter) => format!("-{letter} (--{long})"),
        None => format!("--{long}"),
    }
}

impl Args for Foreign {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(|flag| {
            let (long, letter, value, _) = *flag;
            let arg = Arg::new(long).hide(true).short(letter).value_name("VALUE");
            let arg = if long.len() == 1 { arg } else { arg.long(long) };
            arg.action(if value { ArgAction::Append } else { ArgAction::SetTrue }).allow_hyphen_values(value)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Foreign {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let is_given = |flag: &&Flag| matches.value_source(flag.0) == Some(ValueSource::CommandLine);
        let known = |id: &str| FLAGS.iter().any(|flag| flag.0 == id);
        let on_line = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let ids = matches.ids().map(clap::Id::as_str);
        // clap names groups of options by their type.
        let is_flag = |id: &&str| !id.starts_with(|first: char| first.is_ascii_uppercase()) || id.len() == 1;
        let others = ids.filter(is_flag).filter(|id| on_line(id) && !known(id) && !OURS.contains(id));
        let port = matches.get_one::<String>("port").map(|text| {
            text.parse()
                .map_err(|_| Error::raw(clap::error::ErrorKind::ValueValidation, format!("--port={text}: no port\n")))
        });
        let port = port.transpose()?;
        Ok(Self { port, given: FLAGS.iter().filter(is_given).collect(), others: others.map(str::to_owned).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
