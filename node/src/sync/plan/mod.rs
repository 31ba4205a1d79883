//! What a pass will change in the destination, as a value: `--dry-run` prints it, [`super::place`] carries it out. Pure.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

mod chmod;
mod delete;
mod disturbed;
mod estimate;
mod links;
mod make;
mod order;
mod rules;

pub use chmod::{Chmod, ChmodError};
pub use delete::Guard;
pub use disturbed::{Left, Outcome};
pub use estimate::{Estimate, pays};
pub use make::make;
pub use order::rsyncs_order;
pub use rules::{Backup, Rules, leads_out};

use crate::manifest::ContentId;
use crate::manifest::entry::Entry;
use crate::manifest::path::TreePath;
use crate::store::files::Attributes;

/// A plan that deletes or replaces more than this share (percent) of what was there is refused without a word from the user.
const GUARD_PERCENT: u64 = 25;
/// ... but only where it touches more entries than this.
const GUARD_ENTRIES: u64 = 100;

/// What stands at a path of the destination now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalKind {
    /// A regular file; the id is known where it was worth knowing. `inode` tells hard links of one file system apart.
    File {
        /// Bytes.
        size: u64,
        /// BLAKE3 of the content, if known.
        id: Option<ContentId>,
        /// Inode number.
        inode: u64,
    },
    /// A directory.
    Dir,
    /// A symlink and its target.
    Symlink(Vec<u8>),
    /// A device, FIFO or socket: never opened.
    Special,
}

/// One entry of the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Kind and what belongs to it.
    pub kind: LocalKind,
    /// Permission bits.
    pub mode: u16,
    /// Modification time, ns since the epoch.
    pub mtime: i64,
}

/// The destination by path.
pub type LocalTree = BTreeMap<TreePath, Local>;

/// What a further directory of this machine is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BasisKind {
    /// `--compare-dest`: what is the same there is not brought at all.
    Compare,
    /// `--copy-dest`: it is copied.
    Copy,
    /// `--link-dest`: it gets another name.
    Link,
    /// `--reuse`: any file there with the wanted content is copied, wherever it is.
    Reuse,
}

/// One entry of the module that the pass selected.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Path below the transfer root.
    pub path: TreePath,
    /// Path in the module.
    pub place: TreePath,
    /// Rank in the module's tree.
    pub number: u64,
    /// The entry.
    pub entry: Entry,
    /// A directory whose content was asked for: what is here and not there may be deleted.
    pub listed: bool,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Other nodes.
    Fetch,
    /// A copy (or reflink) of a file of the destination.
    Copy(TreePath),
    /// A file of the destination that this plan deletes: linked to its new name, nothing is copied.
    Move(TreePath),
    /// A file of one of the directories of `--link-dest` and its like.
    Basis {
        /// Which directory.
        number: usize,
        /// Where in it.
        path: TreePath,
        /// It becomes another name of that file, attributes and all.
        link: bool,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make a directory.
    MakeDir,
    /// Set a directory's attributes.
    SetDir,
    /// Put a file in place.
    File {
        /// Its content.
        id: ContentId,
        /// Its size.
        size: u64,
        /// Where the bytes come from.
        origin: Origin,
        /// Rank in the module's tree.
        number: u64,
    },
    /// Make a hard link.
    Link {
        /// To this path of the plan or the destination.
        leader: TreePath,
        /// Its size.
        size: u64,
    },
    /// Make a symlink.
    Symlink(Vec<u8>),
    /// Set the attributes of a file or symlink that stays.
    Touch,
    /// Nothing: it is told of, where that was asked for.
    Keep {
        /// It is a further name of another file here, as it should be.
        linked: bool,
    },
    /// Remove a file or an empty directory.
    Delete,
}

impl Change {
    /// True if nothing is done.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep { .. })
    }
}

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Path below the destination.
    pub path: TreePath,
    /// What is done.
    pub change: Change,
    /// Permission bits afterwards (of no meaning for a deletion).
    pub mode: u16,
    /// Modification time afterwards, ns; none if it is not kept.
    pub mtime: Option<i64>,
    /// Place in the sorted list of what was selected, from 1; 0 for the root and for deletions.
    pub rank: u64,
    /// What stands there now.
    pub replaces: Option<Box<Local>>,
    /// What stands at the same path of a basis directory, where nothing stands here: changes are told against it.
    pub beside: Option<Box<Local>>,
}

impl Step {
    /// What a file gets that is made for it.
    fn attributes(&self) -> Attributes {
        Attributes { mode: self.mode, mtime: self.mtime }
    }

    /// True if what stands there now is kept as a backup.
    pub fn backs_up(&self, backup: &Backup) -> bool {
        let Some(old) = self.replaces.as_ref().map(|old| &old.kind).filter(|old| **old != LocalKind::Dir) else {
            return false;
        };
        match self.change {
            Change::Keep { .. } | Change::Touch => false,
            Change::File { .. } if matches!(old, LocalKind::File { .. }) => true,
            // Backups of former runs are backed up by what takes their place as a file, and by nothing else.
            _ => self.path.name().is_some_and(|name| backup.keeps(name.as_bytes())),
        }
    }
}

/// Why a flag leaves an entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOver {
    /// `--existing`.
    New {
        /// It is a directory.
        is_dir: bool,
    },
    /// `--ignore-existing`.
    Exists,
    /// `-u`.
    Newer,
    /// `--max-size`.
    Large,
    /// `--min-size`.
    Small,
}

impl PassedOver {
    /// rsync's line (`--info=skip`).
    pub fn line(self, path: &TreePath) -> String {
        match self {
            Self::New { is_dir } => {
                format!("not creating new {} \"{path}\"", if is_dir { "directory" } else { "file" })
            }
            Self::Exists => format!("{path} exists"),
            Self::Newer => format!("{path} is newer"),
            Self::Large => format!("{path} is over max-size"),
            Self::Small => format!("{path} is under min-size"),
        }
    }
}

/// All changes of a pass, in rsync's order, deletions last.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The changes.
    pub steps: Vec<Step>,
    /// Attributes of every selected directory, for those that placing disturbs.
    pub dirs: BTreeMap<TreePath, (u16, Option<i64>)>,
    /// Regular files selected.
    pub files: u64,
    /// Directories and symlinks selected, the root included where it is.
    pub others: (u64, u64),
    /// Bytes of all regular files selected, and of the targets of symlinks.
    pub bytes: u64,
    /// Bytes that need not be fetched.
    pub reused: u64,
    /// Symlinks left out by `--safe-links`, and their targets.
    pub unsafe_links: Vec<(TreePath, Vec<u8>)>,
    /// Symlinks left out for want of `-l`.
    pub skipped: Vec<TreePath>,
    /// What flags leave alone.
    pub passed_over: Vec<(TreePath, PassedOver)>,
    /// Paths that could not be made for what stands in their way.
    pub blocked: Vec<TreePath>,
    /// Directories that stay because something in them is protected.
    pub kept_dirs: Vec<TreePath>,
    /// Entries and bytes that stood in the destination.
    pub before: (u64, u64),
}

/// What a content id is needed for: fetched once, whatever the number of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The content.
    pub id: ContentId,
    /// Its size.
    pub size: u64,
    /// Rank of the first entry that needs it.
    pub number: u64,
    /// Those of one path that it is for.
    pub attributes: Attributes,
}

/// True if so many entries of `all` are more than a replica loses without a word from the user.
pub fn is_much(entries: u64, all: u64) -> bool {
    entries > GUARD_ENTRIES && is_over(entries, all)
}

fn is_over(part: u64, whole: u64) -> bool {
    u128::from(part) * 100 > u128::from(whole) * u128::from(GUARD_PERCENT)
}

impl Plan {
    /// The contents to fetch, each once, in the order of the tree.
    pub fn wants(&self) -> Vec<Want> {
        let mut seen = HashSet::new();
        let mut wants = Vec::new();
        for step in &self.steps {
            if let Change::File { id, size, origin: Origin::Fetch, number } = &step.change
                && seen.insert(*id)
            {
                wants.push(Want { id: *id, size: *size, number: *number, attributes: step.attributes() });
            }
        }
        wants.sort_unstable_by_key(|want| want.number);
        wants
    }

    /// Adds what becomes of the root of the destination: it gets the attributes of `top`. `old` is none for a new one.
    pub fn set_root(&mut self, top: &Entry, old: Option<Local>, rules: &Rules) {
        let mode = rules.mode(top, old.as_ref());
        let mtime = rules.keeps_time(true, false).then_some(top.mtime);
        self.dirs.insert(TreePath::root(), (mode, mtime));
        let same_time = |old: &Local| mtime.is_none_or(|mtime| !rules.times_differ(old.mtime, mtime));
        let same = old.as_ref().is_some_and(|old| old.mode == mode && same_time(old));
        let change = match (&old, same) {
            (Some(_), true) => Change::Keep { linked: false },
            (Some(_), false) => Change::SetDir,
            (None, _) => Change::MakeDir,
        };
        if !same || rules.tell_unchanged {
            let (path, replaces) = (TreePath::root(), old.map(Box::new));
            self.steps.insert(0, Step { path, change, mode, mtime, rank: 0, replaces, beside: None });
        }
    }

    /// True if anything is to be done.
    pub fn has_changes(&self) -> bool {
        self.steps.iter().any(|step| !step.change.is_keep())
    }

    /// The contents to fetch for paths where an old version stands, each once, with path and size of the old one.
    pub fn bases(&self) -> Vec<(Want, TreePath, u64)> {
        let mut seen = HashSet::new();
        let mut bases = Vec::new();
        for step in &self.steps {
            if let Change::File { id, size, origin: Origin::Fetch, number } = &step.change
                && let Some(LocalKind::File { size: old_size, .. }) = step.replaces.as_ref().map(|old| &old.kind)
                && seen.insert(*id)
            {
                let want = Want { id: *id, size: *size, number: *number, attributes: step.attributes() };
                bases.push((want, step.path.clone(), *old_size));
            }
        }
        bases
    }

    /// The steps as rsync prints them: deletions first, or last; of a dry run hard links where their turn is.
    pub fn in_rsync_order(&self, dry_run: bool, deletes_last: bool) -> Vec<&Step> {
        let (deletions, others): (Vec<&Step>, Vec<&Step>) =
            self.steps.iter().partition(|step| step.change == Change::Delete);
        let others = if dry_run { links::without_waiting(others) } else { others };
        if deletes_last { [others, deletions].concat() } else { [deletions, others].concat() }
    }

    /// Keeps the first `max` deletions; returns how many are left out. Directories that hold something then are kept.
    pub fn limit_deletions(&mut self, max: u64) -> u64 {
        let is_doomed = |step: &&Step| step.change == Change::Delete;
        let doomed: HashSet<TreePath> = self.steps.iter().filter(is_doomed).map(|step| step.path.clone()).collect();
        let (mut seen, mut skipped, mut holders, mut kept) = (0, 0, HashSet::new(), Vec::new());
        self.steps.retain(|step| {
            if step.change != Change::Delete {
                return true;
            }
            seen += 1;
            if seen <= max {
                return true;
            }
            let above = step.path.parent().unwrap_or_default();
            let holds = holders.contains(&step.path);
            // As in rsync, such a directory is told of, and counts only below another.
            skipped += u64::from(!holds || doomed.contains(&above));
            if holds {
                kept.push(step.path.clone());
            }
            holders.insert(above);
            false
        });
        self.kept_dirs.extend(kept);
        self.settle_moves();
        skipped
    }

    /// A file can be moved only where its old name goes; else it is copied.
    pub(super) fn settle_moves(&mut self) {
        let going: HashSet<TreePath> =
            self.steps.iter().filter(|step| step.change == Change::Delete).map(|step| step.path.clone()).collect();
        for step in &mut self.steps {
            if let Change::File { origin, .. } = &mut step.change
                && let Origin::Move(from) = origin
                && !going.contains(from)
            {
                *origin = Origin::Copy(std::mem::take(from));
            }
        }
    }

    /// Deletions of the plan.
    pub fn deletions(&self) -> u64 {
        self.steps.iter().filter(|step| step.change == Change::Delete).count() as u64
    }

    /// Regular files whose content comes from others.
    pub fn transfers(&self) -> u64 {
        let fetched = |step: &&Step| matches!(step.change, Change::File { origin: Origin::Fetch, .. });
        self.steps.iter().filter(fetched).count() as u64
    }

    /// True if the plan deletes or replaces so much that the user should say so first.
    pub fn is_drastic(&self) -> bool {
        let mut entries = 0u64;
        let mut bytes = 0u64;
        let moved = self.moved_away();
        for step in &self.steps {
            let Some(old) = &step.replaces else { continue };
            let lost = matches!(step.change, Change::File { .. } | Change::Delete | Change::Symlink(_));
            if lost && !moved.contains(&step.path) {
                entries += 1;
                bytes = bytes.saturating_add(if let LocalKind::File { size, .. } = old.kind { size } else { 0 });
            }
        }
        let (all, all_bytes) = self.before;
        is_much(entries, all) || (entries > GUARD_ENTRIES && is_over(bytes, all_bytes))
    }

    /// Paths whose deletion loses nothing because their content moves elsewhere.
    fn moved_away(&self) -> HashSet<&TreePath> {
        self.steps
            .iter()
            .filter_map(|step| match &step.change {
                Change::File { origin: Origin::Move(from), .. } => Some(from),
                _ => None,
            })
            .collect()
    }
}
