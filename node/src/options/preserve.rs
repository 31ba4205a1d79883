//! `-a -r -l -p -t -H` and their `--no-` forms: the last word on each wins, as in rsync.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use serde::{Deserialize, Serialize};

/// Flag, its letter, its `--no-` form with rsync's short alias, whether `-a` means it too, and its help.
const FLAGS: [(&str, char, &str, &str, bool, &str); 5] = [
    ("recursive", 'r', "no-recursive", "no-r", true, "Descend into directories [default]"),
    ("links", 'l', "no-links", "no-l", true, "Symlinks as symlinks [default]"),
    ("perms", 'p', "no-perms", "no-p", true, "Permissions [default]"),
    ("times", 't', "no-times", "no-t", true, "Modification times [default]"),
    ("hard-links", 'H', "no-hard-links", "no-H", false, "Hard links [default]"),
];

/// What of an entry is kept. Everything is, unless a `--no-` says otherwise; owner and group never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preserve {
    /// Descend into directories.
    pub recursive: bool,
    /// Make symlinks.
    pub links: bool,
    /// Set permission bits.
    pub perms: bool,
    /// Set modification times.
    pub times: bool,
    /// Make hard links.
    pub hard_links: bool,
}

impl Default for Preserve {
    fn default() -> Self {
        Self { recursive: true, links: true, perms: true, times: true, hard_links: true }
    }
}

impl Args for Preserve {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let archive = flag("archive").short('a').help("-rlpt: what an archive keeps, without owners and devices");
        FLAGS.into_iter().fold(command.arg(archive), |command, (name, letter, off, alias, _, help)| {
            let on = flag(name).short(letter).help(help);
            command.arg(on).arg(flag(off).visible_alias(alias).help(format!("Undoes -{letter}")))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Preserve {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let last = |name| match matches.value_source(name) {
            Some(ValueSource::CommandLine) => matches.indices_of(name).and_then(Iterator::max),
            _ => None,
        };
        let [recursive, links, perms, times, hard_links] = FLAGS.map(|(name, _, off, _, archived, _)| {
            let archive = if archived { last("archive") } else { None };
            last(off) <= last(name).max(archive)
        });
        Ok(Self { recursive, links, perms, times, hard_links })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
