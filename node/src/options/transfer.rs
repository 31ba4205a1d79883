//! What `fetch`, `mirror` and `rsync` have in common: rsync's flags, and what rsync does not have.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::sync::choice::OriginUse;

use super::{Rules, Switches, duration, rates, size};
use crate::service::Rates;

/// The flags.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct TransferOptions {
    /// Show what would be done, change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// What of an entry is kept
    #[command(flatten)]
    pub switches: Switches,
    /// Which files are brought
    #[command(flatten)]
    pub choice: ChoiceOptions,
    /// What is deleted
    #[command(flatten)]
    pub deletion: Deletion,
    /// Include and exclude rules
    #[command(flatten)]
    pub rules: Rules,
    /// How files come to stand
    #[command(flatten)]
    pub placing: PlacingOptions,
    /// When to stop
    #[command(flatten)]
    pub limits: LimitOptions,
    /// What is printed
    #[command(flatten)]
    pub output: OutputOptions,
    /// What rsync does not have
    #[command(flatten)]
    pub own: OwnOptions,
}

/// Which files are brought.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct ChoiceOptions {
    /// Read the names to bring from FILE (-: stdin)
    #[arg(long, value_name = "FILE")]
    pub files_from: Option<PathBuf>,
    /// Bring what matches a regular expression (may be repeated)
    #[arg(long, value_name = "RE", env = "MURMIR_REGEX", value_delimiter = ' ')]
    pub regex: Vec<String>,
    /// Leave files alone that are newer here
    #[arg(short = 'u', long)]
    pub update: bool,
    /// Make nothing new
    #[arg(long, alias = "ignore-non-existing")]
    pub existing: bool,
    /// Leave alone what is here
    #[arg(long)]
    pub ignore_existing: bool,
    /// Files of the same size are the same
    #[arg(long)]
    pub size_only: bool,
    /// Read every file here before it counts as unchanged
    #[arg(short = 'c', long)]
    pub checksum: bool,
    /// Times less than so many seconds apart are the same [default: the same to the nanosecond]
    #[arg(long, value_name = "NUM", short = '@', allow_hyphen_values = true)]
    pub modify_window: Option<i32>,
    /// Leave out larger files
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Leave out smaller files
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub min_size: Option<u64>,
    /// Leave out symlinks that lead out of the tree
    #[arg(long)]
    pub safe_links: bool,
    /// Bring what symlinks point at; 23 if that is not in the module
    #[arg(short = 'L', long)]
    pub copy_links: bool,
    /// Bring the directories that symlinks point at
    #[arg(short = 'k', long)]
    pub copy_dirlinks: bool,
}

/// rsync's family of deletion. Whatever its members say, deletion comes last.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct Deletion {
    /// Delete what the module does not have, after everything else
    #[arg(long, visible_aliases = ["del", "delete-during"], action = ArgAction::Count)]
    pub delete: u8,
    /// The same, told as in rsync, as are the next two
    #[arg(long, action = ArgAction::Count)]
    pub delete_before: u8,
    /// The same
    #[arg(long, action = ArgAction::Count)]
    pub delete_delay: u8,
    /// The same
    #[arg(long, action = ArgAction::Count)]
    pub delete_after: u8,
    /// Delete also what the rules exclude
    #[arg(long)]
    pub delete_excluded: bool,
    /// Most entries to delete; 25 if there are more
    #[arg(long, value_name = "N")]
    pub max_delete: Option<u64>,
    /// Delete also where something that was asked for could not be had
    #[arg(long)]
    pub ignore_errors: bool,
    /// Delete directories that are in the way of a file, with what is in them
    #[arg(long)]
    pub force: bool,
}

impl Deletion {
    /// True if anything is deleted.
    pub fn is_on(&self) -> bool {
        let forms = [self.delete, self.delete_before, self.delete_delay, self.delete_after];
        self.delete_excluded || forms.iter().any(|given| *given > 0)
    }

    /// True if rsync has to have its whole list first.
    pub fn needs_whole_list(&self) -> bool {
        self.delete_before > 0 || self.delete_after > 0
    }

    /// True if rsync deletes, and so tells of it, at the end.
    pub fn is_last(&self) -> bool {
        self.delete_delay > 0 || self.delete_after > 0
    }
}

/// How files come to stand.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct PlacingOptions {
    /// Make missing parents of DEST
    #[arg(long)]
    pub mkpath: bool,
    /// Change permissions of what is brought (may be repeated)
    #[arg(long, value_name = "CHMOD")]
    pub chmod: Vec<String>,
    /// Keep what is replaced or deleted
    #[arg(short = 'b', long)]
    pub backup: bool,
    /// ... in this directory, from DEST on
    #[arg(long, value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,
    /// ... with this at the end of its name [default: ~]
    #[arg(long, value_name = "SUFFIX")]
    pub suffix: Option<String>,
    /// Link files that are the same there (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub link_dest: Vec<PathBuf>,
    /// Copy files that are the same there (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub copy_dest: Vec<PathBuf>,
    /// Leave out files that are the same there (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub compare_dest: Vec<PathBuf>,
    /// Keep partial files: always so
    #[arg(long)]
    pub partial: bool,
    /// Where rsync keeps them: left out of rsync's transfers, never used
    #[arg(long, value_name = "DIR")]
    pub partial_dir: Option<PathBuf>,
    /// Switch to the new files at the end: always so
    #[arg(long)]
    pub delay_updates: bool,
}

/// When to stop.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct LimitOptions {
    /// Most bytes per second, in units of 1024 unless one is given: both ways, or UP:DOWN, either of which may be empty
    #[arg(long, value_name = "RATE", value_parser = rates)]
    pub bwlimit: Option<Rates>,
    /// Give up (30) where nothing comes for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Give up (35) where nobody answers for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub contimeout: Option<u64>,
    /// Stop (30) after so many minutes
    #[arg(long, value_name = "MINS", alias = "time-limit")]
    pub stop_after: Option<u64>,
    /// Stop (30) at this time: y-m-dTh:m
    #[arg(long, value_name = "TIME")]
    pub stop_at: Option<String>,
}

/// What is printed.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct OutputOptions {
    /// List names (twice: more); taken from the global flag
    #[arg(skip)]
    pub verbose: u8,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Numbers with units of 1000 (twice: of 1024)
    #[arg(short = 'h', long, overrides_with = "no_human_readable", action = ArgAction::Count)]
    pub human_readable: u8,
    /// Plain numbers
    #[arg(long, alias = "no-h")]
    pub no_human_readable: bool,
    /// List every change (twice: also what stays)
    #[arg(short, long, action = ArgAction::Count)]
    pub itemize_changes: u8,
    /// List changes in this format
    #[arg(long, value_name = "FORMAT", alias = "log-format")]
    pub out_format: Option<String>,
    /// Show figures at the end
    #[arg(long)]
    pub stats: bool,
    /// What to tell of: progress2, name0, stats, ... (may be repeated)
    #[arg(long, value_name = "FLAGS")]
    pub info: Vec<String>,
    /// List, bring nothing
    #[arg(long)]
    pub list_only: bool,
    /// Show each file's progress after its name; a bar until all are in place
    #[arg(long)]
    pub progress: bool,
    /// --partial --progress
    #[arg(short = 'P')]
    pub partial_progress: bool,
    /// Write what is done to this file
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// ... in this format [default: %i %n%L]
    #[arg(long, value_name = "FORMAT")]
    pub log_file_format: Option<String>,
}

/// Options of `fetch` and `mirror` that rsync does not have.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct OwnOptions {
    /// Accept a publisher that is not pinned yet
    #[arg(long, env = "MURMIR_ACCEPT_NEW")]
    pub accept_new: bool,
    /// Exit 45 if the head is older
    #[arg(long, value_name = "DUR", env = "MURMIR_MAX_AGE", value_parser = duration)]
    pub max_age: Option<Duration>,
    /// Most sources at once
    #[arg(long, value_name = "N", env = "MURMIR_SOURCES", value_parser = clap::value_parser!(u32).range(1..))]
    pub sources: Option<u32>,
    /// What the publisher's own nodes are asked for [default: equal]
    #[arg(long, value_name = "WHEN", env = "MURMIR_ORIGIN")]
    pub origin: Option<OriginUse>,
    /// Files to switch last (may be repeated)
    #[arg(long, value_name = "GLOB", env = "MURMIR_LATE", value_delimiter = ' ')]
    pub late: Vec<String>,
    /// Copy what is the same in this directory, whatever its name there (may be repeated)
    #[arg(long, value_name = "DIR", env = "MURMIR_REUSE", value_delimiter = ' ')]
    pub reuse: Vec<PathBuf>,
    /// Stay, and serve what was brought for this long
    #[arg(long, value_name = "DUR", env = "MURMIR_SEED", value_parser = duration)]
    pub seed: Option<Duration>,
    /// DEST may hold files that murmir did not write
    #[arg(long, env = "MURMIR_ADOPT")]
    pub adopt: bool,
    /// Wait for another run on DEST
    #[arg(long, value_name = "DUR", env = "MURMIR_WAIT_LOCK", value_parser = duration)]
    pub wait_lock: Option<Duration>,
    /// Stop (47) after so many bytes from the network
    #[arg(long, value_name = "SIZE", env = "MURMIR_MAX_TRANSFER", value_parser = size)]
    pub max_transfer: Option<u64>,
    /// Refuse (47) a tree of more bytes
    #[arg(long, value_name = "SIZE", env = "MURMIR_MAX_SIZE_TOTAL", value_parser = size)]
    pub max_size_total: Option<u64>,
    /// Go below the generation that is placed
    #[arg(long, env = "MURMIR_ALLOW_DOWNGRADE")]
    pub allow_downgrade: bool,
    /// Deleting or replacing more than a quarter is meant
    #[arg(long, env = "MURMIR_FORCE_DELETE")]
    pub force_delete: bool,
    /// Fetch changed files whole
    #[arg(long, env = "MURMIR_NO_DELTA")]
    pub no_delta: bool,
    /// A plain HTTP server of the module, as a further source (may be repeated)
    #[arg(long, value_name = "URL", env = "MURMIR_WEB_SEED", value_delimiter = ' ')]
    pub web_seed: Vec<String>,
    /// Never run rsync in place of the swarm
    #[arg(long, env = "MURMIR_NO_CLASSIC", conflicts_with = "classic_only")]
    pub no_classic: bool,
    /// Run rsync, and ask no swarm
    #[arg(long, env = "MURMIR_CLASSIC_ONLY")]
    pub classic_only: bool,
    /// Exit 48 if nothing changed
    #[arg(long, env = "MURMIR_ERROR_ON_NO_TRANSFER")]
    pub error_on_no_transfer: bool,
}
