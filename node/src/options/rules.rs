//! `--include` and `--exclude`: one list in the order of the command line, across both flags.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use serde::{Deserialize, Serialize};

/// The two flags, and whether what they match is wanted.
const FLAGS: [(&str, bool, &str); 2] = [
    ("include", true, "Take what matches (first match of all include and exclude rules wins)"),
    ("exclude", false, "Leave out what matches, and what is below it"),
];

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Take, or leave out.
    pub include: bool,
    /// rsync's pattern; bytes, as names are.
    pub pattern: Vec<u8>,
}

/// All rules, in order: the first match wins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(pub Vec<Rule>);

impl Args for Rules {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.map(|(name, _, help)| {
            let arg = Arg::new(name).long(name).value_name("PATTERN").help(help);
            arg.action(ArgAction::Append).value_parser(OsStringValueParser::new()).allow_hyphen_values(true)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut found = Vec::new();
        for (name, include, _) in FLAGS {
            let patterns = matches.get_many::<OsString>(name).into_iter().flatten();
            for (at, pattern) in matches.indices_of(name).into_iter().flatten().zip(patterns) {
                found.push((at, Rule { include, pattern: pattern.clone().into_vec() }));
            }
        }
        found.sort_by_key(|(at, _)| *at);
        Ok(Self(found.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
