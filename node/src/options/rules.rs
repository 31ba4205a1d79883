//! The flags that select: one filter in the order of the command line, across all of rsync's flags that add to it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::manifest::filter::{Filter, FilterError, Manner, lines};

/// Largest file of rules or names, bytes.
const MAX_FILE: u64 = 256 << 20;

/// One word of the command line that adds to the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Flag {
    Include,
    Exclude,
    IncludeFrom,
    ExcludeFrom,
    Filter,
    /// `-F`: once per-directory files, twice without themselves.
    PerDir,
}

const FLAGS: [(Flag, &str, Option<char>, &str, &str); 5] = [
    (Flag::Include, "include", None, "PATTERN", "Take what matches (first match of all rules wins)"),
    (Flag::Exclude, "exclude", None, "PATTERN", "Leave out what matches, and what is below it"),
    (Flag::IncludeFrom, "include-from", None, "FILE", "Read include patterns from FILE (-: stdin)"),
    (Flag::ExcludeFrom, "exclude-from", None, "FILE", "Read exclude patterns from FILE (-: stdin)"),
    (Flag::Filter, "filter", Some('f'), "RULE", "Add a rule of rsync's filter language"),
];

/// All words that add to the filter, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    words: Vec<(Flag, Vec<u8>)>,
    /// `-C`.
    cvs: bool,
    /// `-0`: files of rules and names end their lines with NUL.
    pub from0: bool,
}

/// Why the rules cannot be had.
#[derive(Debug, Error)]
pub enum RulesError {
    /// A rule is refused (1).
    #[error(transparent)]
    Rule(#[from] FilterError),
    /// A file of rules cannot be read (11).
    #[error("failed to open {file}: {source}")]
    File {
        /// As given, escaped.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Rules {
    /// The filter that they make; reads the files that they name.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn filter(&self) -> Result<Filter, RulesError> {
        let mut filter = Filter::default();
        let plain = Manner { nul: self.from0, ..Manner::default() };
        let mut seen_per_dir = false;
        for (flag, value) in &self.words {
            match flag {
                Flag::Include | Flag::Exclude => {
                    filter.add(value, Manner::patterns(*flag == Flag::Include), &mut read)?;
                }
                Flag::IncludeFrom | Flag::ExcludeFrom => {
                    let manner = Manner { nul: self.from0, ..Manner::patterns(*flag == Flag::IncludeFrom) };
                    for line in lines(&read(value)?, manner) {
                        filter.add(line, manner, &mut read)?;
                    }
                }
                Flag::Filter => filter.add(value, plain, &mut read)?,
                Flag::PerDir => {
                    let rule: &[u8] = if seen_per_dir { b"- .rsync-filter" } else { b": /.rsync-filter" };
                    filter.add(rule, plain, &mut read)?;
                    seen_per_dir = true;
                }
            }
        }
        if self.cvs {
            self.add_cvs(&mut filter)?;
        }
        Ok(filter)
    }

    /// What CVS ignores: files of directories, its own list, the user's file and environment (rsync(1), `-C`).
    fn add_cvs(&self, filter: &mut Filter) -> Result<(), RulesError> {
        filter.add(b":C", Manner::default(), &mut read)?;
        filter.add(b"-C", Manner::default(), &mut read)?;
        let home = std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".cvsignore"));
        let own = home.and_then(|path| read(path.as_os_str().as_bytes()).ok()).unwrap_or_default();
        let environment = std::env::var_os("CVSIGNORE").unwrap_or_default();
        let words = Manner { words: true, bare: true, ..Manner::default() };
        for word in lines(&own, words).into_iter().chain(lines(environment.as_bytes(), words)) {
            filter.add(word, words, &mut read)?;
        }
        Ok(())
    }
}

/// The content of a file of rules or names; `-` is stdin.
///
/// # Errors
/// It cannot be read, or has over 256 MiB.
pub fn read(name: &[u8]) -> Result<Vec<u8>, RulesError> {
    use std::io::Read;
    let path = OsStr::from_bytes(name);
    let refuse = |source| RulesError::File { file: crate::manifest::path::escape(name), source };
    let mut content = Vec::new();
    let mut from: Box<dyn Read> = match name {
        b"-" => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(refuse)?),
    };
    from.by_ref().take(MAX_FILE + 1).read_to_end(&mut content).map_err(refuse)?;
    if content.len() as u64 > MAX_FILE {
        return Err(refuse(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(content)
}

impl Args for Rules {
    fn augment_args(command: Command) -> Command {
        let rules = FLAGS.map(|(_, name, letter, value, help)| {
            let arg = Arg::new(name).long(name).short(letter).value_name(value).help(help);
            arg.action(ArgAction::Append).value_parser(OsStringValueParser::new()).allow_hyphen_values(true)
        });
        let switch = |name: &'static str, letter, help| Arg::new(name).short(letter).help(help);
        command
            .args(rules)
            .arg(
                switch("F", 'F', "--filter=': /.rsync-filter' (twice: and leave those out)")
                    .action(ArgAction::Append)
                    .num_args(0)
                    .default_missing_value(""),
            )
            .arg(switch("cvs-exclude", 'C', "Leave out what CVS does").long("cvs-exclude").action(ArgAction::SetTrue))
            .arg(
                switch("from0", '0', "Lines of files of rules and names end with NUL")
                    .long("from0")
                    .action(ArgAction::SetTrue),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut found = Vec::new();
        for (flag, name, ..) in FLAGS {
            let values = matches.get_many::<OsString>(name).into_iter().flatten();
            for (at, value) in matches.indices_of(name).into_iter().flatten().zip(values) {
                found.push((at, (flag, value.clone().into_vec())));
            }
        }
        for at in matches.indices_of("F").into_iter().flatten() {
            found.push((at, (Flag::PerDir, Vec::new())));
        }
        found.sort_by_key(|(at, _)| *at);
        let words = found.into_iter().map(|(_, word)| word).collect();
        Ok(Self { words, cvs: matches.get_flag("cvs-exclude"), from0: matches.get_flag("from0") })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
