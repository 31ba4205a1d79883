//! What a verb was asked to do, as plain values: parsed from the command line, carried over the control socket.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

mod rules;
mod switches;
mod transfer;
mod units;

pub use rules::{Rules, RulesError, read};
pub use switches::{Switch, Switches};
pub use transfer::{ChoiceOptions, Deletion, LimitOptions, OutputOptions, OwnOptions, PlacingOptions, TransferOptions};
pub use units::{UnitError, duration, rates, size};

/// Options of `publish`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct PublishOptions {
    /// The directory to publish
    pub dir: PathBuf,
    /// Name of the module [default: the directory's name]
    #[arg(long, value_name = "NAME", env = "MURMIR_MODULE")]
    pub module: Option<String>,
    /// Name of the publisher key, made if absent; or a publisher's id, whose key may be on another machine: then a request for
    /// `murmir sign` is written
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
    /// The tree also stands at this web address, for everybody (may be repeated)
    #[arg(long, value_name = "URL", env = "MURMIR_URL", value_delimiter = ' ')]
    pub url: Vec<String>,
    /// Also write bundle, pages and hashes of large files to DIR, for plain web servers (DIR/.murmir of the published directory, where
    /// its mirrors are), now and with every later generation, until `forget`
    #[arg(long, value_name = "DIR", env = "MURMIR_EXPORT")]
    pub export: Option<PathBuf>,
    /// First make the directory what stands at this rsync:// or https:// address, and publish it as an unofficial copy of that
    #[arg(long, value_name = "URL", env = "MURMIR_FROM")]
    pub from: Option<String>,
    /// The directory may hold files that `--from` did not bring
    #[arg(long, env = "MURMIR_ADOPT")]
    pub adopt: bool,
    /// Ask nobody: continue from the generation known here
    #[arg(long, env = "MURMIR_OFFLINE")]
    pub offline: bool,
    /// Sign nothing: write a request for `murmir sign` to this file [default, where the key is elsewhere: MODULE.request]
    #[arg(long, value_name = "FILE", env = "MURMIR_REQUEST", conflicts_with = "signed")]
    pub request: Option<PathBuf>,
    /// Publish what `murmir sign` made of a request; the directory must be as it was
    #[arg(long, value_name = "FILE", env = "MURMIR_SIGNED")]
    pub signed: Option<PathBuf>,
    /// Show what would be published, sign nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// List the changes
    #[arg(short = 'i', long)]
    pub itemize_changes: bool,
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
    /// The replica also stands at this web address, for everybody (may be repeated)
    #[arg(long, value_name = "URL", env = "MURMIR_URL", value_delimiter = ' ')]
    pub url: Vec<String>,
    /// Fetch new generations as they appear
    #[arg(long, env = "MURMIR_WATCH")]
    pub watch: bool,
    /// What fetch and mirror have in common
    #[command(flatten)]
    pub transfer: TransferOptions,
}

/// Options of `rsync`: a pulling rsync command line as it is.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct RsyncOptions {
    /// What to bring, and at the end where to
    #[arg(value_name = "ARGS", required = true)]
    pub places: Vec<std::ffi::OsString>,
    /// Say what each flag does here
    #[arg(long)]
    pub explain: bool,
    /// What all have in common
    #[command(flatten)]
    pub transfer: TransferOptions,
}
