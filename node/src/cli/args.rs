//! What clap sees.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, Subcommand};

use super::foreign::Foreign;
use crate::options::{FetchOptions, MirrorOptions, PublishOptions, RsyncOptions, Rules, duration, rates, size};
use crate::service::Rates;

/// rsync's agility with a swarm behind it: publish a signed tree, mirror it with one command, fetch it from whoever has it
#[derive(Debug, Parser)]
#[command(name = "murmir", version, propagate_version = true, disable_help_flag = true, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Command,
}

/// Flags that stand before or after the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Show this help
    #[arg(long, action = ArgAction::Help, global = true)]
    help: Option<bool>,
    /// Where keys, marks and registrations are kept
    #[arg(long, value_name = "DIR", env = "MURMIR_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Read settings from this file only
    #[arg(long, value_name = "FILE", env = "MURMIR_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// JSON Lines on stdout
    #[arg(long, env = "MURMIR_JSON", value_parser = BoolishValueParser::new(), global = true)]
    pub json: bool,
    /// Listen here (may be repeated)
    #[arg(long, value_name = "MULTIADDR", env = "MURMIR_LISTEN", value_delimiter = ' ', global = true)]
    pub listen: Vec<String>,
    /// Ask this node (may be repeated)
    #[arg(long, value_name = "MULTIADDR", env = "MURMIR_PEER", value_delimiter = ' ', global = true)]
    pub peer: Vec<String>,
    /// Ask this node, and remember it (may be repeated)
    #[arg(long, value_name = "MULTIADDR", env = "MURMIR_BOOTSTRAP", value_delimiter = ' ', global = true)]
    pub bootstrap: Vec<String>,
    /// Stay out of the DHT
    #[arg(long, env = "MURMIR_NO_DHT", value_parser = BoolishValueParser::new(), global = true)]
    pub no_dht: bool,
    /// Find nodes on the local network
    #[arg(long, env = "MURMIR_MDNS", value_parser = BoolishValueParser::new(), global = true)]
    pub mdns: bool,
    /// Ask this name server rather than the system's
    #[arg(long, value_name = "ADDRESS", env = "MURMIR_NAME_SERVER", global = true)]
    pub name_server: Option<String>,
    /// Work alone, also where a node runs on the state
    #[arg(long, env = "MURMIR_NO_NODE", value_parser = BoolishValueParser::new(), global = true)]
    pub no_node: bool,
    /// List names (fetch, mirror); log more (elsewhere)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// The verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make a publisher key, and print its id
    Keygen {
        /// Its name
        #[arg(default_value = "default")]
        name: String,
    },
    /// Make a new head key: a new epoch of all modules of a publisher, signed by its root key
    Rotate(Rotate),
    /// Sign what `publish` on another machine asks for
    Sign(Sign),
    /// Print the node's id and addresses
    Id,
    /// Sign a directory as the next generation of a module
    Publish(PublishOptions),
    /// Run a node in the foreground
    Serve(Serve),
    /// Publish a directory and serve it, also on the local network
    Share {
        /// The directory
        dir: PathBuf,
    },
    /// Bring a module, a directory or a file
    Fetch {
        #[command(flatten)]
        options: Box<FetchOptions>,
        #[command(flatten)]
        foreign: Foreign,
    },
    /// Make or update a replica, and serve it
    Mirror {
        #[command(flatten)]
        options: Box<MirrorOptions>,
        #[command(flatten)]
        foreign: Foreign,
    },
    /// A pulling rsync command line as it is
    Rsync {
        // First, while it sees what was given: the options take it away.
        #[command(flatten)]
        foreign: Foreign,
        #[command(flatten)]
        options: Box<RsyncOptions>,
    },
    /// End a registration; the files stay
    Forget {
        /// A reference, or a registered directory
        what: OsString,
    },
    /// Take back a publication or nomination
    Withdraw {
        /// A reference
        what: OsString,
    },
    /// List a module
    Ls {
        /// What to list
        reference: String,
        /// rsync's list lines
        #[arg(short = 'l', long)]
        long: bool,
        /// Everything below
        #[arg(short = 'R', long)]
        recursive: bool,
        #[command(flatten)]
        #[allow(missing_docs, reason = "a text here would become the verb's own")]
        rules: Rules,
    },
    /// List what matches in a module
    Find {
        /// Where to look
        reference: String,
        /// Patterns as in --include, one of which must match
        patterns: Vec<OsString>,
        /// Regular expressions, one of which must match (may be repeated)
        #[arg(long, value_name = "RE")]
        regex: Vec<String>,
        /// Files of at least this size
        #[arg(long, value_name = "SIZE", value_parser = size)]
        min_size: Option<u64>,
        /// Files of at most this size
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// Modified within this time, such as 24h
        #[arg(long, value_name = "DUR", value_parser = duration)]
        newer: Option<Duration>,
        /// rsync's list lines
        #[arg(short = 'l', long)]
        long: bool,
    },
    /// What differs between two modules or directories
    Diff {
        /// What was: a reference or a directory
        old: OsString,
        /// What is: a reference or a directory
        new: OsString,
    },
    /// The generations that somebody within reach holds
    Log {
        /// The module
        reference: String,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Write one file to stdout
    Cat {
        /// The file
        reference: String,
    },
    /// Check every file of a destination against the signed tree
    Verify {
        /// The directory
        dest: PathBuf,
        /// Check against this
        reference: Option<String>,
        /// Fetch what is damaged or missing
        #[arg(long)]
        repair: bool,
        /// Check so many percent of the files, others each time
        #[arg(long, value_name = "P", value_parser = percent, conflicts_with = "repair")]
        sample: Option<f64>,
    },
    /// The newest generation that can be found; with -v what each source said
    Resolve {
        /// The module
        reference: String,
    },
    /// Who says that it holds a module
    Mirrors {
        /// The module
        reference: String,
    },
    /// Show or change which publisher an rsync:// or https:// name is pinned to
    Trust {
        /// The name
        origin: Option<String>,
        /// Pin it to this
        reference: Option<String>,
        /// Forget it
        #[arg(long)]
        remove: bool,
    },
    /// What the running node holds; with -v also what changed in published directories since
    Status,
    /// Whom the running node is connected to
    Peers,
    /// What the running node brings and serves now
    Transfers,
    /// What hinders this machine: clock, addresses, disks, limits, permissions
    Doctor,
    /// The settings in force, and where each comes from
    Config,
    /// Lines for an MOTD, DNS and the web that lead others here
    Motd {
        /// The module [default: all that are published here]
        reference: Option<String>,
        /// Mirrors may nominate themselves by rsync's --early-input (see `nominate --stdin`)
        #[arg(long, env = "MURMIR_NOMINATE", value_parser = BoolishValueParser::new())]
        nominate: bool,
    },
    /// Tell an origin, by its rsync daemon, that this node mirrors its module
    Nominate {
        /// rsync://HOST/MODULE; of a reference the record goes to stdout, for rsync --early-input
        #[arg(value_name = "REF", required_unless_present = "stdin")]
        what: Option<String>,
        /// Take one from stdin: the origin's end, `early exec` of its rsyncd.conf
        #[arg(long, conflicts_with = "what")]
        stdin: bool,
    },
}

/// Arguments of `serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Serve {
    /// An address others reach this node at (may be repeated)
    #[arg(long, value_name = "MULTIADDR", env = "MURMIR_EXTERNAL", value_delimiter = ' ')]
    pub external: Vec<String>,
    /// Where in the world this node is; told with every nomination
    #[arg(long, value_name = "TEXT", env = "MURMIR_REGION")]
    pub region: Option<String>,
    /// How to reach who runs this node; told with every nomination
    #[arg(long, value_name = "TEXT", env = "MURMIR_CONTACT")]
    pub contact: Option<String>,
    /// Serve stock rsync clients here too, by the installed rsync
    #[arg(long, value_name = "ADDR", env = "MURMIR_RSYNCD")]
    pub rsyncd: Option<SocketAddr>,
    /// Most bytes per second, in units of 1024 unless one is given: to all others together and of all passes together, or UP:DOWN,
    /// either of which may be empty; stock rsync clients get as much each
    #[arg(long, value_name = "RATE", env = "MURMIR_BWLIMIT", value_parser = rates)]
    pub bwlimit: Option<Rates>,
}

/// Arguments of `rotate`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "After a theft of the head key, or a fork: what was published from here counts, and whatever else the old \
keys signed at or above it is refused by everybody who hears of the new epoch. Files named MODULE.signed are written for modules \
that were signed here and are served elsewhere (publish --signed takes them in). From the first rotation on the root key is needed \
by rotate alone."
)]
pub struct Rotate {
    /// Whose: the name of a key, a publisher id, or the reference of one of its modules
    #[arg(value_name = "NAME|REF", default_value = "default")]
    pub what: String,
    /// Read the root key from this file, not from the state
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
}

/// Arguments of `sign`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Shows what it signs. A request that does not go on from what this machine signed last is refused (43). \
Where the tree is, publish with --signed FILE takes the result in."
)]
pub struct Sign {
    /// The request that publish wrote
    pub file: PathBuf,
    /// Write the signed bundle to this file [default: FILE.signed]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Show, sign nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `5`, `5%` or `0.1`.
fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "no percentage".to_owned())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err("not between 0 and 100 percent".to_owned()) }
}
