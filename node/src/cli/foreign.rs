//! rsync's other flags: known to everybody's fingers, and never ignored in silence where they would change something.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::error::{Exit, Failure};

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It tunes rsync's own wire, or says what is so anyway; how that is here.
    NoOp(&'static str),
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

const ZIP: Fate = NoOp("of no effect: answers are compressed by zstd wherever that pays");
const DELTA: Fate = NoOp("of no effect: what changed in a file is found as it pays; --no-delta fetches files whole");
const SUMS: Fate = NoOp("of no effect: contents are known by their BLAKE3 hash");
const TUNING: Fate = NoOp("of no effect: it tunes rsync's own wire");
const SHELL: Fate = NoOp("of no effect: names never pass a shell");
const OWNERS: Fate = NoOp("always so: a tree has no owners");
const DEVICES: Fate = NoOp("always so: a tree has no devices");
const ADDRESS: Fate = NoOp("of no effect: peers are reached by the addresses they tell; --listen names ours");

/// Long name (of one letter: none), letter, whether a value follows, fate.
type Flag = (&'static str, Option<char>, bool, Fate);

const FLAGS: &[Flag] = &[
    ("compress", Some('z'), false, ZIP),
    ("whole-file", Some('W'), false, DELTA),
    ("no-whole-file", None, false, DELTA),
    ("no-W", None, false, DELTA),
    ("block-size", Some('B'), true, DELTA),
    ("i-r", None, false, NoOp("of no effect: the list of files is the signed tree, read as far as it is wanted")),
    ("checksum-choice", None, true, SUMS),
    ("cc", None, true, SUMS),
    ("compress-choice", None, true, ZIP),
    ("zc", None, true, ZIP),
    ("compress-level", None, true, ZIP),
    ("zl", None, true, ZIP),
    ("skip-compress", None, true, ZIP),
    ("blocking-io", None, false, TUNING),
    ("outbuf", None, true, NoOp("of no effect: every line is flushed as it is written")),
    ("old-args", None, false, SHELL),
    ("secluded-args", Some('s'), false, SHELL),
    ("trust-sender", None, false, NoOp("of no effect: nobody is trusted: everything is checked against the signature")),
    ("sockopts", None, true, TUNING),
    ("protocol", None, true, TUNING),
    ("numeric-ids", None, false, OWNERS),
    ("no-owner", None, false, OWNERS),
    ("no-o", None, false, OWNERS),
    ("no-group", None, false, OWNERS),
    ("no-g", None, false, OWNERS),
    ("no-devices", None, false, DEVICES),
    ("no-specials", None, false, DEVICES),
    ("no-D", None, false, DEVICES),
    (
        "no-motd",
        None,
        false,
        NoOp("of no effect: peers have no message of the day; of a daemon's only our line is read"),
    ),
    ("fsync", None, false, NoOp("always so: what switches is on the disk before")),
    ("preallocate", None, false, NoOp("of no effect: files are staged as their bytes come")),
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
    ("sparse", Some('S'), false, NoOp("of no effect: files are written as their bytes come, zeros too")),
    ("ipv4", Some('4'), false, ADDRESS),
    ("ipv6", Some('6'), false, ADDRESS),
    (
        "one-file-system",
        Some('x'),
        false,
        NoOp("of no effect: a module has no mount points: publish decides about them"),
    ),
    ("ignore-times", Some('I'), false, NoOp("of no effect: contents are compared in any case")),
    ("fuzzy", Some('y'), false, NoOp("always so: a content that is here under any name is not brought again")),
    (
        "temp-dir",
        Some('T'),
        true,
        NoOp("of no effect: files are staged in .murmir/ of the destination, on its own file system"),
    ),
    ("port", None, true, NoOp("where the rsync daemon listens that tells of the swarm")),
    ("address", None, true, NoOp("of no effect: --listen names the addresses of this run")),
    ("password-file", None, true, NoOp("of no effect: peers ask for none; where rsync itself is run, it gets it")),
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

/// What every command here has, and rsync has not.
pub(super) const OURS: [&str; 12] = [
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
            NoOp(why) => format!("{}: {why}", shown(flag)),
            Unbuilt => format!("{}: refused (4): a tree does not carry it", shown(flag)),
            Nonsense(why) => format!("{}: refused (1): {why}", shown(flag)),
        };
        self.given.iter().map(said).collect()
    }

    /// Refuses what cannot be done: 1 for nonsense, 4 for what is not built yet.
    pub fn check(&self) -> Result<(), Failure> {
        let refusals = self.given.iter().filter_map(|flag| match flag.3 {
            NoOp(_) => None,
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
