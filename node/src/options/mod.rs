//! What a verb was asked to do, as plain values: parsed from the command line, carried over the control socket.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

mod preserve;
mod rules;
mod units;

pub use preserve::Preserve;
pub use rules::{Rule, Rules};
pub use units::{UnitError, duration, size};

/// Options of `publish`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct PublishOptions {
    /// The directory to publish
    pub dir: PathBuf,
    /// Name of the module [default: the directory's name]
    #[arg(long, value_name = "NAME", env = "MURMIR_MODULE")]
    pub module: Option<String>,
    /// Name of the publisher key, made if absent
    #[arg(long, value_name = "NAME", env = "MURMIR_KEY", default_value = "default")]
    pub key: String,
    /// Include and exclude rules
    #[command(flatten)]
    pub rules: Rules,
    /// Files that mirrors switch last, such as indexes (may be repeated)
    #[arg(long, value_name = "GLOB", env = "MURMIR_LATE", value_delimiter = ' ')]
    pub late: Vec<String>,
    /// How long the head counts as fresh
    #[arg(long, value_name = "DUR", env = "MURMIR_FRESH", value_parser = duration)]
    pub fresh: Option<Duration>,
    /// There is no earlier generation of this module anywhere
    #[arg(long, env = "MURMIR_FIRST", conflicts_with = "seq")]
    pub first: bool,
    /// Publish under this number
    #[arg(long, value_name = "N", env = "MURMIR_SEQ")]
    pub seq: Option<u64>,
    /// Publish a tree that lost more than a quarter of its entries or bytes
    #[arg(long, env = "MURMIR_ALLOW_SHRINK")]
    pub allow_shrink: bool,
    /// Publish without entries that could not be read
    #[arg(long)]
    pub ignore_errors: bool,
    /// Exit 48 if the tree is the one of the former generation
    #[arg(long, env = "MURMIR_ERROR_ON_NO_TRANSFER")]
    pub error_on_no_transfer: bool,
    /// Ask nobody: continue from the generation known here
    #[arg(long, env = "MURMIR_OFFLINE")]
    pub offline: bool,
    /// Show what would be published, sign nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// List the changes
    #[arg(short = 'i', long)]
    pub itemize_changes: bool,
}

/// What `fetch` and `mirror` have in common.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct TransferOptions {
    /// List names (twice: more); taken from the global flag
    #[arg(skip)]
    pub verbose: u8,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Numbers with units
    #[arg(short = 'h', long, overrides_with = "no_human_readable")]
    pub human_readable: bool,
    /// Plain numbers
    #[arg(long, visible_alias = "no-h")]
    pub no_human_readable: bool,
    /// Show what would be done, change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// List every change (twice: also what stays)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub itemize_changes: u8,
    /// What of an entry is kept
    #[command(flatten)]
    pub preserve: Preserve,
    /// Leave out symlinks that lead out of the tree
    #[arg(long)]
    pub safe_links: bool,
    /// Keep partial files: always so
    #[arg(long)]
    pub partial: bool,
    /// Show progress on a terminal
    #[arg(long)]
    pub progress: bool,
    /// --partial --progress
    #[arg(short = 'P')]
    pub partial_progress: bool,
    /// What is deleted
    #[command(flatten)]
    pub deletion: Deletion,
    /// Include and exclude rules
    #[command(flatten)]
    pub rules: Rules,
    /// Make missing parents of DEST
    #[arg(long)]
    pub mkpath: bool,
    /// Show figures at the end
    #[arg(long)]
    pub stats: bool,
    /// List, bring nothing
    #[arg(long)]
    pub list_only: bool,
    /// What rsync does not have
    #[command(flatten)]
    pub own: OwnOptions,
}

/// rsync's family of deletion. Whatever its members say, deletion comes last.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct Deletion {
    /// Delete what the module does not have, after everything else
    #[arg(long, visible_aliases = ["del", "delete-before", "delete-during", "delete-delay", "delete-after"])]
    pub delete: bool,
    /// Most entries to delete; 25 if there are more
    #[arg(long, value_name = "N")]
    pub max_delete: Option<u64>,
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
    #[arg(long, value_name = "N", env = "MURMIR_SOURCES")]
    pub sources: Option<u32>,
    /// Files to switch last (may be repeated)
    #[arg(long, value_name = "GLOB", env = "MURMIR_LATE", value_delimiter = ' ')]
    pub late: Vec<String>,
    /// Look for content in this directory too (may be repeated)
    #[arg(long, value_name = "DIR", env = "MURMIR_REUSE", value_delimiter = ' ')]
    pub reuse: Vec<PathBuf>,
    /// Serve what was brought for this long
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
    /// Exit 48 if nothing changed
    #[arg(long, env = "MURMIR_ERROR_ON_NO_TRANSFER")]
    pub error_on_no_transfer: bool,
}

/// Options of `fetch`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct FetchOptions {
    /// What to fetch: murmir://ID/MODULE[/PATH]
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Where to: a directory or file, `-` for stdout; without it a listing
    pub dest: Option<PathBuf>,
    /// What fetch and mirror have in common
    #[command(flatten)]
    pub transfer: TransferOptions,
}

/// Options of `mirror`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct MirrorOptions {
    /// What to mirror: murmir://ID/MODULE[/PATH]
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The directory of the replica
    pub dest: PathBuf,
    /// Fetch new generations as they appear
    #[arg(long, env = "MURMIR_WATCH")]
    pub watch: bool,
    /// What fetch and mirror have in common
    #[command(flatten)]
    pub transfer: TransferOptions,
}
