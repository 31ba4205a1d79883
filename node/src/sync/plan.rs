//! What a pass will change in the destination, as a value: `--dry-run` prints it, [`super::place`] carries it out. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::manifest::ContentId;
use crate::manifest::entry::{Entry, Node};
use crate::manifest::path::TreePath;

/// A plan that deletes or replaces more than this share (percent) of what was there is refused without a word from the user.
const GUARD_PERCENT: u64 = 25;
/// ... but only where it touches more entries than this.
const GUARD_ENTRIES: u64 = 100;

/// Which attributes and kinds a pass keeps: rsync's `-l -p -t -H`, `--delete`, `--safe-links`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `-l`: symlinks are made; otherwise they are left out.
    pub links: bool,
    /// `-p`: permission bits are set.
    pub perms: bool,
    /// `-t`: modification times are set.
    pub times: bool,
    /// `-H`: hard links are made; otherwise each name gets a file of its own.
    pub hard_links: bool,
    /// What the module does not have is deleted, after everything else.
    pub delete: bool,
    /// Symlinks that lead out of the tree are left out.
    pub safe_links: bool,
}

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

/// One entry of the module that the pass selected.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Path below the transfer root.
    pub path: TreePath,
    /// Rank in the module's tree.
    pub number: u64,
    /// The entry.
    pub entry: Entry,
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
    /// Make a hard link to another path of the plan or the destination.
    Link(TreePath),
    /// Make a symlink.
    Symlink(Vec<u8>),
    /// Set the attributes of a file or symlink that stays.
    Touch,
    /// Remove a file or an empty directory.
    Delete,
}

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Path below the destination.
    pub path: TreePath,
    /// What is done.
    pub change: Change,
    /// Attributes afterwards (of no meaning for a deletion).
    pub mode: u16,
    /// Modification time afterwards, ns.
    pub mtime: i64,
    /// What stands there now.
    pub replaces: Option<Local>,
}

/// All changes of a pass, in name order, deletions last.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The changes.
    pub steps: Vec<Step>,
    /// Attributes of every selected directory, for those that placing disturbs.
    pub dirs: BTreeMap<TreePath, (u16, i64)>,
    /// Regular files selected.
    pub files: u64,
    /// Bytes of all regular files selected.
    pub bytes: u64,
    /// Bytes that need not be fetched.
    pub reused: u64,
    /// Symlinks left out by `--safe-links`.
    pub unsafe_links: Vec<TreePath>,
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
                wants.push(Want { id: *id, size: *size, number: *number });
            }
        }
        wants
    }

    /// The steps as rsync prints them: deletions first.
    pub fn in_rsync_order(&self) -> impl Iterator<Item = &Step> {
        let deletions = self.steps.iter().filter(|step| step.change == Change::Delete);
        deletions.chain(self.steps.iter().filter(|step| step.change != Change::Delete))
    }

    /// Keeps the first `max` deletions; returns how many are left out.
    pub fn limit_deletions(&mut self, max: u64) -> u64 {
        let (mut seen, mut skipped) = (0, 0);
        self.steps.retain(|step| {
            if step.change != Change::Delete {
                return true;
            }
            seen += 1;
            skipped += u64::from(seen > max);
            seen <= max
        });
        skipped
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
        let over = |part: u64, whole: u64| u128::from(part) * 100 > u128::from(whole) * u128::from(GUARD_PERCENT);
        entries > GUARD_ENTRIES && (over(entries, all) || over(bytes, all_bytes))
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

/// Makes the plan that turns `local` into what `remote` says.
///
/// `remote` is in name order, parents first. `protected` says which local paths deletion must spare (excluded by filters).
pub fn make(remote: &[Remote], local: &LocalTree, rules: Rules, protected: impl Fn(&TreePath, bool) -> bool) -> Plan {
    let mut planner = Planner::new(remote, local, rules);
    for item in remote {
        planner.visit(item);
    }
    if rules.delete {
        planner.delete(&protected);
    }
    planner.finish()
}

/// Names of one file: what makes two entries hard links of each other.
type LinkGroup = (ContentId, u16, i64, u32);

struct Planner<'a> {
    local: &'a LocalTree,
    rules: Rules,
    /// Remote paths: what is not among them goes away when deleting.
    wanted: HashSet<&'a TreePath>,
    /// Where a content is in the destination now, best candidates first.
    by_id: HashMap<ContentId, Vec<&'a TreePath>>,
    /// Names per inode, to break links that the module does not have.
    names: HashMap<u64, u32>,
    leaders: HashMap<LinkGroup, (&'a TreePath, Option<u64>)>,
    used: HashSet<&'a TreePath>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(remote: &'a [Remote], local: &'a LocalTree, rules: Rules) -> Self {
        let wanted: HashSet<&TreePath> = remote.iter().map(|item| &item.path).collect();
        let mut by_id: HashMap<ContentId, Vec<&TreePath>> = HashMap::new();
        let mut names: HashMap<u64, u32> = HashMap::new();
        let mut plan = Plan::default();
        for (path, entry) in local {
            plan.before.0 += 1;
            if let LocalKind::File { size, id, inode } = &entry.kind {
                plan.before.1 = plan.before.1.saturating_add(*size);
                *names.entry(*inode).or_default() += 1;
                if let Some(id) = id {
                    by_id.entry(*id).or_default().push(path);
                }
            }
        }
        // Files that will go away come first: those can be moved rather than copied.
        for paths in by_id.values_mut() {
            paths.sort_by_key(|path| wanted.contains(*path));
        }
        let (leaders, used) = (HashMap::new(), HashSet::new());
        Self { local, rules, wanted, by_id, names, leaders, used, plan }
    }

    fn visit(&mut self, item: &'a Remote) {
        match &item.entry.node {
            Node::Dir(_) => self.directory(item),
            Node::File { size, id, link } => {
                self.plan.files += 1;
                self.plan.bytes = self.plan.bytes.saturating_add(*size);
                self.file(item, *size, *id, *link);
            }
            Node::Symlink { target } if self.rules.links => self.symlink(item, target),
            Node::Symlink { .. } => {}
        }
    }

    fn directory(&mut self, item: &'a Remote) {
        self.plan.dirs.insert(item.path.clone(), (item.entry.mode, item.entry.mtime));
        match self.local.get(&item.path) {
            Some(old) if old.kind == LocalKind::Dir => {
                if self.differs(old, &item.entry) {
                    self.push(item, Change::SetDir);
                }
            }
            _ => self.push(item, Change::MakeDir),
        }
    }

    fn symlink(&mut self, item: &'a Remote, target: &[u8]) {
        if self.rules.safe_links && leads_out(&item.path, target) {
            self.plan.unsafe_links.push(item.path.clone());
            return;
        }
        match self.local.get(&item.path) {
            Some(old) if old.kind == LocalKind::Symlink(target.to_vec()) => {
                if self.rules.times && old.mtime != item.entry.mtime {
                    self.push(item, Change::Touch);
                }
            }
            _ => self.push(item, Change::Symlink(target.to_vec())),
        }
    }

    fn file(&mut self, item: &'a Remote, size: u64, id: ContentId, link: u32) {
        let here = self.local.get(&item.path);
        let inode_here = match here.map(|old| &old.kind) {
            Some(LocalKind::File { id: Some(old), inode, .. }) if *old == id => Some(*inode),
            _ => None,
        };
        let group = (id, item.entry.mode, item.entry.mtime, link);
        if link != 0 && self.rules.hard_links {
            if let Some((leader, inode)) = self.leaders.get(&group).copied() {
                self.plan.reused = self.plan.reused.saturating_add(size);
                if inode.is_none() || inode != inode_here {
                    self.push(item, Change::Link(leader.clone()));
                }
                return;
            }
            self.leaders.insert(group, (&item.path, inode_here));
        }
        let Some(inode) = inode_here else { return self.content(item, size, id) };
        self.plan.reused = self.plan.reused.saturating_add(size);
        let shared = self.names.get(&inode).is_some_and(|names| *names > 1);
        let differs = here.is_some_and(|old| self.differs(old, &item.entry));
        if shared && (link == 0 || !self.rules.hard_links || differs) {
            // The module does not have this link (or other attributes for it): give the name a file of its own.
            if link != 0
                && let Some(leader) = self.leaders.get_mut(&group)
            {
                leader.1 = None;
            }
            let origin = Origin::Copy(item.path.clone());
            self.push(item, Change::File { id, size, origin, number: item.number });
        } else if differs {
            self.push(item, Change::Touch);
        }
    }

    /// A file whose content is not at its path yet.
    fn content(&mut self, item: &'a Remote, size: u64, id: ContentId) {
        let origin = self.origin(item, id);
        if origin != Origin::Fetch {
            self.plan.reused = self.plan.reused.saturating_add(size);
        }
        self.push(item, Change::File { id, size, origin, number: item.number });
    }

    fn origin(&mut self, item: &Remote, id: ContentId) -> Origin {
        let Some(paths) = self.by_id.get(&id) else { return Origin::Fetch };
        let movable = paths.iter().copied().find(|path| {
            let same = self.local.get(*path).is_some_and(|old| !self.differs(old, &item.entry));
            self.rules.delete && same && !self.wanted.contains(path) && !self.used.contains(path)
        });
        if let Some(from) = movable {
            self.used.insert(from);
            return Origin::Move(from.clone());
        }
        paths.first().map_or(Origin::Fetch, |from| Origin::Copy((*from).clone()))
    }

    fn differs(&self, old: &Local, new: &Entry) -> bool {
        (self.rules.perms && old.mode != new.mode) || (self.rules.times && old.mtime != new.mtime)
    }

    fn push(&mut self, item: &Remote, change: Change) {
        let replaces = self.local.get(&item.path).cloned();
        let (mode, mtime) = (item.entry.mode, item.entry.mtime);
        self.plan.steps.push(Step { path: item.path.clone(), change, mode, mtime, replaces });
    }

    /// Everything that the module does not have and no filter protects, children before their directories. A directory that
    /// keeps a protected entry stays.
    fn delete(&mut self, protected: &impl Fn(&TreePath, bool) -> bool) {
        let mut kept: HashSet<TreePath> = HashSet::new();
        for (path, old) in self.local.iter().rev() {
            let is_dir = old.kind == LocalKind::Dir;
            if self.wanted.contains(path) {
                continue;
            }
            if protected(path, is_dir) || kept.contains(path) {
                kept.extend(path.parent());
                continue;
            }
            let (mode, mtime) = (old.mode, old.mtime);
            let replaces = Some(old.clone());
            self.plan.steps.push(Step { path: path.clone(), change: Change::Delete, mode, mtime, replaces });
        }
    }

    fn finish(self) -> Plan {
        self.plan
    }
}

/// rsync's rule for `--safe-links`: absolute targets and those with enough `..` to leave the tree are unsafe.
pub fn leads_out(path: &TreePath, target: &[u8]) -> bool {
    if target.first().is_none_or(|first| *first == b'/') {
        return true;
    }
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}
