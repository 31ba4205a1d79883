//! rsync's switches that have a `--no-` form: the last word on each wins, and a verb has its own defaults.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use serde::{Deserialize, Serialize};

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Switch {
    /// `-a`: but for what its own switches say.
    Archive,
    /// `-r`: what is below directories.
    Recursive,
    /// `-l`: symlinks as symlinks.
    Links,
    /// `-p`: permission bits.
    Perms,
    /// `-t`: modification times.
    Times,
    /// `-H`: hard links.
    HardLinks,
    /// `-d`: directories without what is below them.
    Dirs,
    /// `-E`: executability.
    Executability,
    /// `-O`: times, but not of directories.
    OmitDirTimes,
    /// `-J`: times, but not of symlinks.
    OmitLinkTimes,
    /// `-R`: whole paths.
    Relative,
    /// `-m`: no empty directories.
    PruneEmptyDirs,
    /// `--inc-recursive`: the list grows while files are brought.
    IncRecursive,
    /// `--implied-dirs`: directories of whole paths get their attributes.
    ImpliedDirs,
}

/// Switch, long name, letter, names of its `--no-` form, whether `-a` means it too, help.
type Row = (Switch, &'static str, Option<char>, &'static [&'static str], bool, &'static str);

const SWITCHES: [Row; 13] = [
    (
        Switch::Recursive,
        "recursive",
        Some('r'),
        &["no-recursive", "no-r"],
        false,
        "Descend into directories [default of fetch and mirror]",
    ),
    (
        Switch::Links,
        "links",
        Some('l'),
        &["no-links", "no-l"],
        true,
        "Symlinks as symlinks [default of fetch and mirror]",
    ),
    (Switch::Perms, "perms", Some('p'), &["no-perms", "no-p"], true, "Permissions [default of fetch and mirror]"),
    (
        Switch::Times,
        "times",
        Some('t'),
        &["no-times", "no-t"],
        true,
        "Modification times [default of fetch and mirror]",
    ),
    (
        Switch::HardLinks,
        "hard-links",
        Some('H'),
        &["no-hard-links", "no-H"],
        false,
        "Hard links [default of fetch and mirror]",
    ),
    (Switch::Dirs, "dirs", Some('d'), &["no-dirs", "no-d"], false, "Directories without what is below them"),
    (
        Switch::Executability,
        "executability",
        Some('E'),
        &["no-executability", "no-E"],
        false,
        "Keep executability, without -p",
    ),
    (
        Switch::OmitDirTimes,
        "omit-dir-times",
        Some('O'),
        &["no-omit-dir-times", "no-O"],
        false,
        "Leave out directories from -t",
    ),
    (
        Switch::OmitLinkTimes,
        "omit-link-times",
        Some('J'),
        &["no-omit-link-times", "no-J"],
        false,
        "Leave out symlinks from -t",
    ),
    (Switch::Relative, "relative", Some('R'), &["no-relative", "no-R"], false, "Whole paths"),
    (
        Switch::PruneEmptyDirs,
        "prune-empty-dirs",
        Some('m'),
        &["no-prune-empty-dirs", "no-m"],
        false,
        "Leave out directories without a file below them",
    ),
    (
        Switch::IncRecursive,
        "inc-recursive",
        None,
        &["no-inc-recursive", "no-i-r"],
        false,
        "The list grows while files are brought: always so, but told as in rsync",
    ),
    (
        Switch::ImpliedDirs,
        "implied-dirs",
        None,
        &["no-implied-dirs"],
        false,
        "Attributes of the directories of whole paths [default]",
    ),
];

/// The switches that were given, the last word on each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Switches(BTreeMap<Switch, bool>);

impl Switches {
    /// What was said of a switch, or the default.
    pub fn is(&self, switch: Switch, default: bool) -> bool {
        self.0.get(&switch).copied().unwrap_or(default)
    }
}

impl Args for Switches {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Count);
        let archive = flag("archive").short('a').help("-rlpt: what an archive keeps, without owners and devices");
        SWITCHES.into_iter().fold(command.arg(archive), |command, (_, name, letter, offs, _, help)| {
            let command = command.arg(flag(name).short(letter).help(help));
            let Some((no, more)) = offs.split_first() else { return command };
            command.arg(flag(no).hide(true).aliases(more.iter().copied()))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Switches {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let last = |name: &str| match matches.value_source(name) {
            Some(ValueSource::CommandLine) => matches.indices_of(name).and_then(Iterator::max),
            _ => None,
        };
        let mut found = BTreeMap::new();
        for (switch, name, _, offs, archived, _) in SWITCHES {
            let on = last(name).max(if archived { last("archive") } else { None });
            let off = offs.first().and_then(|no| last(no));
            if on.max(off).is_some() {
                found.insert(switch, on > off);
            }
        }
        // -a means -r as well, but not for names that come from a list.
        if let Some(at) = last("archive") {
            found.insert(Switch::Archive, Some(at) > last("no-recursive"));
        }
        Ok(Self(found))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
