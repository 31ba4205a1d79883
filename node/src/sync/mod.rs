//! The two flows. Publish: scan, tree, index, sign, announce. Fetch: resolve, sources, pages, plan, bytes, place, index,
//! report.

mod anchored;
pub mod answer;
mod asked;
mod backup;
mod bring;
pub mod choice;
mod crafted;
mod deltas;
pub mod dest;
pub mod export;
pub mod fetch;
pub mod holding;
pub mod keys;
pub mod marks;
pub mod pages;
pub mod pass;
pub mod passes;
mod patches;
pub mod pick;
pub mod place;
pub mod plan;
pub mod probe;
pub mod proposal;
pub mod publish;
pub mod resolve;
mod rosters;
mod search;
pub mod seeds;
pub mod selected;
pub mod shelf;
mod silence;
pub mod source;
pub mod streams;
pub mod supply;
pub mod sweep;
mod unchanged;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tracker_less::machine::Event;
use tracker_less::net::Swarm;
use tracker_less::record::{CheckedBundle, Generation, ModuleId, ModuleName, PublisherId, RecordError};

use crate::manifest::ContentId;
use crate::manifest::page::PageError;
use crate::manifest::path::TreePath;
use crate::manifest::tree::TreeError;
use crate::manifest::walk::WalkError;
use crate::store::files::FileError;
use crate::store::index::{Index, IndexError};
use crate::store::stage::StageError;
use crate::store::state::{State, StateError};
use shelf::Shelf;
use streams::Streams;
use supply::SourceName;

/// What every flow works with: the state on disk, the index, the swarm, and what this node hands out.
pub struct Node {
    /// Keys, marks, bundles, registrations.
    pub state: Arc<State>,
    /// Pages and stat rows; can be rebuilt.
    pub index: Arc<Index>,
    /// The way to others.
    pub swarm: Swarm,
    /// What others get from here.
    pub shelf: Arc<Shelf>,
    /// Open streams to others, between runs.
    pub streams: Streams,
    /// What a mirror keeps of former generations.
    pub keeping: sweep::Keeping,
}

impl Node {
    /// Tells the swarm that nothing of a module can be had from here any more, unless a replica is held.
    pub async fn release(&self, module: &ModuleId) {
        if self.shelf.holding(module).is_none() {
            self.swarm.tell(Event::Release { module: *module }).await;
        }
    }
}

fn first(path: Option<&TreePath>) -> String {
    path.map_or_else(String::new, |path| format!(", first of {path}"))
}

/// Seconds since the epoch; 0 before it.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// True for a higher generation, or for a later Fresh of the same head.
fn supersedes(new: &CheckedBundle, old: &CheckedBundle) -> bool {
    let issued = |bundle: &CheckedBundle| bundle.fresh().map(|fresh| fresh.issued);
    let same = new.generation() == old.generation() && new.head_hash() == old.head_hash();
    new.generation() > old.generation() || (same && issued(new) > issued(old))
}

/// A module by publisher and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRef {
    /// Whose.
    pub publisher: PublisherId,
    /// Its name.
    pub name: ModuleName,
    /// What the network calls it.
    pub id: ModuleId,
}

impl ModuleRef {
    /// The module `name` of `publisher`.
    pub fn new(publisher: PublisherId, name: ModuleName) -> Self {
        let id = ModuleId::new(&publisher, &name);
        Self { publisher, name, id }
    }

    /// The module of a bundle.
    pub fn of(bundle: &CheckedBundle) -> Self {
        Self::new(*bundle.publisher(), bundle.name().clone())
    }
}

impl std::fmt::Display for ModuleRef {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "murmir://{}/{}", self.publisher, self.name)
    }
}

/// One source's part in a pass (the rows of `done`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Who.
    pub name: SourceName,
    /// Accepted payload bytes.
    pub received: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answers that did not verify.
    pub bad: u64,
    /// Dropped for good.
    pub banned: bool,
}

impl SourceRow {
    /// A source that has done nothing yet.
    pub fn new(name: SourceName) -> Self {
        Self { name, received: 0, requests: 0, bad: 0, banned: false }
    }
}

/// Why a flow ended early.
#[derive(Debug, Error)]
pub enum SyncError {
    /// Nobody answered (10).
    #[error("nobody answered for {module}")]
    NobodyAnswered {
        /// The module asked for.
        module: String,
        /// What was tried, and what each said.
        tried: Vec<String>,
    },
    /// Web servers cannot be asked at all (11).
    #[error("no HTTP client: {what}")]
    Web {
        /// Why.
        what: String,
    },
    /// Somebody answered, but had no acceptable head (40).
    #[error("no reachable node knows {module}")]
    NoHead {
        /// The module asked for.
        module: String,
        /// What was tried, and what each said.
        tried: Vec<String>,
    },
    /// Head and pages are there, but some content is not (24).
    #[error("no reachable source holds {pieces} of the pieces that are missing{} ({sources} sources answered)", first(path.as_ref()))]
    NoSource {
        /// A file that lacks one of them.
        path: Option<TreePath>,
        /// Its content.
        content: Option<ContentId>,
        /// Requests nobody could answer.
        pieces: usize,
        /// Sources that took part.
        sources: usize,
        /// What was tried, and what each said.
        tried: Vec<String>,
    },
    /// What can be had is older than what the destination holds (43).
    #[error("the newest generation that can be had is {offered}, and {placed} is placed already")]
    Rollback {
        /// What is offered.
        offered: Generation,
        /// What is placed.
        placed: Generation,
    },
    /// The tree breaks a rule of the format, or carries names that are refused.
    #[error("the tree of {module} is refused: {reason}")]
    BadTree {
        /// Which module.
        module: String,
        /// The rule, and the escaped path where there is one.
        reason: String,
        /// The feature is unknown here, not wrong (4 instead of 12).
        unsupported: bool,
    },
    /// No such path in the module (23).
    #[error("{path} is not in the module")]
    UnknownPath {
        /// Escaped path.
        path: String,
    },
    /// The destination holds files that murmir did not write (1).
    #[error("{dest} is not empty and was not written by murmir")]
    NotOurs {
        /// The destination.
        dest: PathBuf,
    },
    /// The destination cannot be used as asked (1).
    #[error("{dest}: {reason}")]
    BadDest {
        /// The destination.
        dest: PathBuf,
        /// Why.
        reason: String,
    },
    /// The plan changes more than the guards allow (25).
    #[error("{reason}")]
    Guarded {
        /// Which guard, with figures.
        reason: String,
        /// The flags that say that it is meant.
        unless: &'static str,
    },
    /// Nothing came for as long as the user would wait (30).
    #[error("io timeout after {seconds} seconds: nothing came from anybody; what was fetched is kept")]
    Silent {
        /// The limit.
        seconds: u64,
    },
    /// Nobody answered in the time that the user gave (35).
    #[error("nobody answered within {seconds} s")]
    ConnectTimeout {
        /// The limit.
        seconds: u64,
    },
    /// A limit set by the user stopped the pass (47).
    #[error("{reason}")]
    Limit {
        /// Which limit, with figures.
        reason: String,
    },
    /// There is no publisher key of that name (1).
    #[error("there is no publisher key {name}")]
    NoKey {
        /// Its name.
        name: String,
    },
    /// None of the keys of that name signs heads under the module's charter (1).
    #[error("the key {name} may not sign for this publisher's newest epoch")]
    NotASigner {
        /// Its name.
        name: String,
    },
    /// The root key is elsewhere, and needed (1).
    #[error("the root key of {name} is not on this machine")]
    NoRoot {
        /// Its name.
        name: String,
    },
    /// Publishing without knowing the newest generation (1).
    #[error("no state of this key here, and nobody reachable knows {module}")]
    NoHistory {
        /// The module.
        module: String,
    },
    /// The directory is not the tree that was signed elsewhere (24).
    #[error("the directory of {module} changed since the request: {signed} was signed, {found} is there")]
    TreeChanged {
        /// The module.
        module: String,
        /// Root of the signed tree.
        signed: String,
        /// Root of what is there.
        found: String,
    },
    /// Publishing cannot continue from here (43).
    #[error("{module} forked at {at}: two different heads carry this number")]
    Forked {
        /// The module.
        module: String,
        /// The number that was signed twice.
        at: Generation,
    },
    /// Entries that could not be read (23) or that changed meanwhile (24), in a publish.
    #[error("{count} entries could not be published, first {first}")]
    Unreadable {
        /// How many.
        count: u64,
        /// The first, escaped, with its reason.
        first: String,
        /// True if all of them changed or vanished, rather than being unreadable.
        vanished: bool,
    },
    /// The state directory holds something that murmir did not write (11).
    #[error("the state is damaged: {reason}")]
    BadState {
        /// What is wrong.
        reason: String,
    },
    /// Another run works on the same thing (46).
    #[error("another run holds {what}")]
    Locked {
        /// The locked thing.
        what: String,
    },
    /// Deletions that `--max-delete` left undone (25).
    #[error("{skipped} deletions were skipped because of --max-delete")]
    MaxDelete {
        /// How many.
        skipped: u64,
    },
    /// A local file operation failed (11).
    #[error(transparent)]
    File(#[from] FileError),
    /// The stage failed (11).
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A worker thread ended without a result (22).
    #[error("a worker ended: {reason}")]
    Worker {
        /// Its last word.
        reason: String,
    },
    /// A record could not be signed (1).
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The directory could not be written as a tree (1).
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The state directory failed (11).
    #[error(transparent)]
    State(#[from] StateError),
    /// The index failed (11).
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl SyncError {
    /// What a walk's end means for its tree.
    pub(crate) fn tree(module: &ModuleRef, error: WalkError<IndexError>) -> Self {
        match error {
            WalkError::Store(error) => error.into(),
            WalkError::Page(error) => refuse(module, &error),
            other => Self::BadTree { module: module.to_string(), reason: other.to_string(), unsupported: false },
        }
    }
}

/// Turns a page's refusal into the refusal of its tree.
pub(crate) fn refuse(module: &ModuleRef, error: &PageError) -> SyncError {
    SyncError::BadTree { module: module.to_string(), reason: error.to_string(), unsupported: error.is_unsupported() }
}
