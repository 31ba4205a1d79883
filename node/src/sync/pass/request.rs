//! What the user asked of a pass.

use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;

use crate::manifest::path::Name;
use crate::manifest::select::Selector;
use crate::manifest::selection::Selection;
use crate::sync::ModuleRef;
use crate::sync::choice::Choice;
use crate::sync::plan::{BasisKind, Rules};
use crate::sync::resolve::Wanted;
use crate::wire::throttle::Pace;

/// Whether the destination is a replica or merely a place to put files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Put files there.
    Fetch,
    /// A replica: registered, served, its superseded files kept for a while.
    Mirror,
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Fetch or mirror.
    pub kind: Kind,
    /// The reference as text, for the registration.
    pub reference: String,
    /// The module.
    pub module: ModuleRef,
    /// Which generation.
    pub wanted: Wanted,
    /// Addresses from the reference and the command line.
    pub hints: Vec<Multiaddr>,
    /// What of the module: path and filters.
    pub select: Selector,
    /// Further sources of the same module, brought in the same pass.
    pub more: Vec<Selector>,
    /// The same, for the registration.
    pub selection: Selection,
    /// The one selected file gets this name.
    pub rename: Option<Name>,
    /// The destination, absolute.
    pub dest: PathBuf,
    /// Attributes, links, deletion.
    pub rules: Rules,
    /// More globs of files that switch last.
    pub late: Vec<String>,
    /// A replica that fetches new heads by itself.
    pub watch: bool,
    /// The node does this pass by itself.
    pub by_itself: bool,
    /// Print what would be done and change nothing.
    pub dry_run: bool,
    /// Make missing parents of the destination.
    pub mkpath: bool,
    /// The destination may hold files that murmir did not write.
    pub adopt: bool,
    /// A drastic plan is meant.
    pub force_delete: bool,
    /// Most deletions of one pass.
    pub max_delete: Option<u64>,
    /// Go below what is placed.
    pub allow_downgrade: bool,
    /// Most bytes of the selected tree.
    pub max_total: Option<u64>,
    /// Most bytes to fetch.
    pub max_transfer: Option<u64>,
    /// Web addresses where the replica stands, for everybody.
    pub http: Vec<String>,
    /// Plain HTTP servers of the module.
    pub web_seeds: Vec<String>,
    /// Changed files are patched, rather than fetched whole.
    pub delta: bool,
    /// Further directories to take files from, absolute or from the destination on.
    pub bases: Vec<(BasisKind, PathBuf)>,
    /// What limits the bytes per second from the network; others may share it.
    pub pace: Option<Pace>,
    /// How long nothing at all may come.
    pub timeout: Option<Duration>,
    /// How long somebody may take to answer.
    pub contimeout: Option<Duration>,
    /// How long another run on the destination is waited for.
    pub wait_lock: Option<Duration>,
    /// Which sources take part.
    pub choice: Choice,
    /// A few may be asked first, and nobody else if they say that nothing is new.
    pub narrow: bool,
}

impl Request {
    /// What of the module, source by source.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.select).chain(&self.more)
    }

    /// True if the content of a directory was asked for, rather than entries by name.
    pub fn lists_root(&self) -> bool {
        self.selectors().any(|select| select.lists(select.base()))
    }
}
