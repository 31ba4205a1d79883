//! One pass over a live directory: sorted, parallel, hashing what no cache knows; what cannot be read or does not hold
//! still is named, never guessed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek};
use std::mem;
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use crate::manifest::ContentId;
use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError, Kind, Stamp, Stat, escape};
use crate::store::index::Directory;
use crate::store::locate::DirCache;

/// Directories that are worked on at once; bounds open descriptors.
const BATCH: usize = 256;
/// How often a file that changes while it is read is read again.
const TRIES: u32 = 3;
/// Two changes of a file within this time may leave equal times, in nanoseconds (FAT counts in 2 s).
const GRANULARITY: i64 = 2_000_000_000;
/// More than a tick of the clock that files get their times from (10 ms at the most), in nanoseconds.
const TICK: i128 = 50_000_000;
/// Problems kept by name; more are only counted.
const MAX_PROBLEMS: usize = 100_000;
/// Our own directory at the root, not part of the tree.
pub(super) const OWN: &[u8] = b".murmir";
/// Set-id bits are not scanned: `mode` is rwx three times and sticky.
const MODE: u16 = 0o1777;

/// Where content ids come from: the cache before, the bytes otherwise.
pub trait Hasher: Sync {
    /// What was known of the files in `dir`, by name; asked once a directory.
    fn known(&self, dir: &TreePath) -> Directory;

    /// Reads all of `file`.
    fn hash(&self, file: &File, stat: &Stat) -> io::Result<ContentId>;
}

/// Whether a path (a directory if the flag is set) is part of a tree.
pub type Wanted<'a> = dyn Fn(&TreePath, bool) -> bool + Sync + 'a;

/// What a scan is to do.
pub struct Scan<'a> {
    /// The top of the tree.
    pub root: &'a Dir,
    /// Where ids come from.
    pub hasher: &'a dyn Hasher,
    /// Whether files that the hasher does not know are read.
    pub read: bool,
    /// Whether a path (a directory if the flag is set) is part of the tree; a refused directory is not entered.
    pub wanted: &'a Wanted<'a>,
    /// The time now, in nanoseconds since the epoch.
    pub started: i64,
}

/// A tree as it was found.
#[derive(Debug)]
pub struct Scanned {
    /// The top.
    pub root: ScannedDir,
    /// What is missing from it and why, by path.
    pub problems: Vec<Problem>,
    /// Problems beyond those named.
    pub unnamed: u64,
}

/// A directory as it was found.
#[derive(Debug)]
pub struct ScannedDir {
    /// Permission bits without set-id.
    pub mode: u16,
    /// Modification time in nanoseconds since the epoch.
    pub mtime: i64,
    /// Sorted by name bytes.
    pub entries: Vec<ScannedEntry>,
    /// What was known of its files is just what was found.
    pub known: bool,
}

/// A name in a directory.
#[derive(Debug)]
pub struct ScannedEntry {
    /// The name.
    pub name: Name,
    /// Permission bits without set-id.
    pub mode: u16,
    /// Status of the file while it was read, or of the link or directory.
    pub stat: Stat,
    /// What it is.
    pub node: ScannedNode,
}

/// What a name stands for.
#[derive(Debug)]
pub enum ScannedNode {
    /// A regular file.
    File {
        /// The id of its bytes; `None` where the scan was not to read and nothing was known.
        id: Option<ContentId>,
        /// Changed so lately that an equal stamp proves nothing later: not for the cache.
        racy: bool,
    },
    /// A directory.
    Dir(ScannedDir),
    /// A symbolic link.
    Symlink {
        /// Its target, as it is.
        target: Vec<u8>,
    },
}

/// An entry that is not part of the scanned tree, against the user's wish.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The directory that holds it.
    pub dir: TreePath,
    /// Its name there, which need not be one that a manifest can hold; empty for the directory itself.
    pub name: Vec<u8>,
    /// Why.
    pub kind: ProblemKind,
}

/// Why an entry is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// It cannot be read.
    Unreadable,
    /// It was listed, then gone or something else.
    Vanished,
    /// It changed each time it was read.
    Changed,
    /// A FIFO, socket or device.
    Special,
    /// A depth that no manifest holds, or a name that whoever fetches refuses.
    Unnamable,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.kind {
            ProblemKind::Unreadable => "cannot be read",
            ProblemKind::Vanished => "vanished",
            ProblemKind::Changed => "kept changing while it was read",
            ProblemKind::Special => "is no file, directory or symlink",
            ProblemKind::Unnamable => "has a name or depth that cannot be published",
        };
        let slash = if self.dir.as_bytes().is_empty() || self.name.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{} {why}", escape(self.dir.as_bytes()), escape(&self.name))
    }
}

impl Scan<'_> {
    /// Scans. Fails only where the root itself cannot be read.
    pub fn run(&self) -> Result<Scanned, FileError> {
        let mut found = vec![self.list(&TreePath::root(), self.root)?];
        let mut places: Vec<(usize, usize)> = Vec::new();
        let (mut problems, mut unnamed) = (mem::take(&mut found[0].problems), 0);
        let mut stack: Vec<Pending> = found[0].pending(0);
        // Depth first and by batches: neither the stack nor the descriptors grow with the tree.
        while !stack.is_empty() {
            let batch = stack.split_off(stack.len().saturating_sub(BATCH));
            let listed: Vec<Listing> = batch.par_iter().map(|next| self.descend(&next.path)).collect();
            for (next, mut listing) in batch.into_iter().zip(listed) {
                problems.append(&mut listing.problems);
                stack.extend(listing.pending(found.len()));
                places.push((next.parent, next.entry));
                found.push(listing);
            }
            unnamed += problems.len().saturating_sub(MAX_PROBLEMS) as u64;
            problems.truncate(MAX_PROBLEMS);
        }
        problems.sort();
        Ok(Scanned { root: assemble(found, &places), problems, unnamed })
    }

    /// One directory, without what is below it; none if it cannot be read.
    pub fn directory(&self, path: &TreePath) -> Option<ScannedDir> {
        self.descend(path).dir
    }

    /// Lists a directory below the root; one that cannot be read is a problem of its own.
    fn descend(&self, path: &TreePath) -> Listing {
        let mut dirs = DirCache::new(self.root.clone());
        match dirs.dir(path).cloned().and_then(|dir| self.list(path, &dir)) {
            Ok(listing) => listing,
            Err(error) => {
                let problem = Problem { dir: path.clone(), name: Vec::new(), kind: kind_of(&error) };
                Listing { dir: None, below: Vec::new(), problems: vec![problem] }
            }
        }
    }

    fn list(&self, path: &TreePath, dir: &Dir) -> Result<Listing, FileError> {
        let own = dir.own_stat()?;
        let mut names = dir.entries()?;
        if path.as_bytes().is_empty() {
            names.retain(|(name, _)| name != OWN);
        }
        names.par_sort_unstable();
        let known = self.hasher.known(path);
        let seen: Vec<_> = names.into_par_iter().map(|(name, _)| self.entry(path, dir, &known, name)).collect();

        let mut listing = Listing { dir: None, below: Vec::new(), problems: Vec::new() };
        let mut entries = Vec::with_capacity(seen.len());
        for result in seen {
            match result {
                Ok(Some((entry, below))) => {
                    listing.below.extend(below.map(|path| (entries.len(), path)));
                    entries.push(entry);
                }
                Ok(None) => {}
                Err(problem) => listing.problems.push(problem),
            }
        }
        let known = known.iter().map(|(name, (stamp, id))| (name, *stamp, *id)).eq(entries.iter().filter_map(settled));
        listing.dir = Some(ScannedDir { mode: own.mode & MODE, mtime: own.stamp.mtime, entries, known });
        Ok(listing)
    }

    /// One entry; with its path if it is a directory to descend into. `None` if it is not wanted.
    fn entry(
        &self,
        parent: &TreePath,
        dir: &Dir,
        known: &Directory,
        bytes: Vec<u8>,
    ) -> Result<Option<(ScannedEntry, Option<TreePath>)>, Problem> {
        let problem = |kind| Problem { dir: parent.clone(), name: bytes.clone(), kind };
        let failed = |error: FileError| problem(kind_of(&error));
        let stat = dir.stat(&bytes).map_err(failed)?;
        let named = Name::new(&bytes).and_then(|name| Ok((parent.join(&name)?, name)));
        let (path, name) = named.map_err(|_| problem(ProblemKind::Unnamable))?;
        if !(self.wanted)(&path, stat.kind == Kind::Dir) {
            return Ok(None);
        }
        // Whoever fetches refuses a tree that holds one.
        if self.read && name.has_control() {
            return Err(problem(ProblemKind::Unnamable));
        }
        let (stat, node, below) = match stat.kind {
            Kind::Special => return Err(problem(ProblemKind::Special)),
            Kind::Symlink => (stat, ScannedNode::Symlink { target: dir.read_link(&bytes).map_err(failed)? }, None),
            Kind::Dir => {
                let (mode, mtime) = (stat.mode & MODE, stat.stamp.mtime);
                let empty = ScannedDir { mode, mtime, entries: Vec::new(), known: false };
                (stat, ScannedNode::Dir(empty), Some(path))
            }
            Kind::File => {
                let (stat, id) = match known.get(&name) {
                    Some((stamp, id)) if *stamp == stat.stamp => (stat, Some(*id)),
                    _ if self.read => self.content(dir, &bytes).map(|(stat, id)| (stat, Some(id))).map_err(problem)?,
                    _ => (stat, None),
                };
                (stat, ScannedNode::File { id, racy: is_racy(&stat.stamp, self.started) }, None)
            }
        };
        Ok(Some((ScannedEntry { name, mode: stat.mode & MODE, stat, node }, below)))
    }

    /// Reads a file until it holds still: id and status belong together.
    fn content(&self, dir: &Dir, name: &[u8]) -> Result<(Stat, ContentId), ProblemKind> {
        for _ in 0..TRIES {
            let file = dir.open_file(name).map_err(|error| kind_of(&error))?;
            let before = Stat::of(&file).map_err(|_| ProblemKind::Unreadable)?;
            let id = self.hasher.hash(&file, &before).map_err(|_| ProblemKind::Unreadable)?;
            let after = Stat::of(&file).map_err(|_| ProblemKind::Unreadable)?;
            // Two changes within a tick of the kernel's clock leave one stamp: then a second look decides.
            let again = || (&file).rewind().and_then(|()| self.hasher.hash(&file, &after));
            let holds = || again().is_ok_and(|again| again == id);
            if before.stamp == after.stamp && (!is_young(&after.stamp) || holds()) {
                return Ok((after, id));
            }
        }
        Err(ProblemKind::Changed)
    }
}

impl Scanned {
    /// The files with several names inside the tree: paths sorted, groups by their first path.
    pub fn hard_links(&self) -> Vec<Vec<TreePath>> {
        let mut groups = BTreeMap::new();
        collect_links(&self.root, &TreePath::root(), &mut groups);
        let mut groups: Vec<Vec<TreePath>> = groups.into_values().filter(|group| group.len() > 1).collect();
        groups.iter_mut().for_each(|group| group.sort());
        groups.sort();
        groups
    }
}

/// Recursion is bounded by the depth of a [`TreePath`].
fn collect_links(dir: &ScannedDir, at: &TreePath, groups: &mut BTreeMap<(u64, u64), Vec<TreePath>>) {
    for entry in &dir.entries {
        let several = match &entry.node {
            ScannedNode::Dir(_) => true,
            ScannedNode::File { .. } => entry.stat.links > 1,
            ScannedNode::Symlink { .. } => false,
        };
        // Every path was joined once before.
        let Some(path) = several.then(|| at.join(&entry.name).ok()).flatten() else { continue };
        match &entry.node {
            ScannedNode::Dir(below) => collect_links(below, &path, groups),
            _ => groups.entry((entry.stat.stamp.dev, entry.stat.stamp.ino)).or_default().push(path),
        }
    }
}

/// What may be known of an entry the next time: state and content of a file that has been still for long enough.
pub fn settled(entry: &ScannedEntry) -> Option<(&Name, Stamp, ContentId)> {
    match entry.node {
        ScannedNode::File { id: Some(id), racy: false } => Some((&entry.name, entry.stat.stamp, id)),
        _ => None,
    }
}

/// A directory to be listed, entry number `entry` of the listing number `parent`.
struct Pending {
    path: TreePath,
    parent: usize,
    entry: usize,
}

/// A directory listed, its subdirectories (by entry number) still empty. `dir` is `None` if it could not be read.
struct Listing {
    dir: Option<ScannedDir>,
    below: Vec<(usize, TreePath)>,
    problems: Vec<Problem>,
}

impl Listing {
    fn pending(&self, own: usize) -> Vec<Pending> {
        let below = self.below.iter().rev();
        below.map(|(entry, path)| Pending { path: path.clone(), parent: own, entry: *entry }).collect()
    }
}

/// Puts every directory into its parent, the last found first: a parent always stands before its children.
fn assemble(mut found: Vec<Listing>, places: &[(usize, usize)]) -> ScannedDir {
    let mut unread: Vec<Vec<usize>> = found.iter().map(|_| Vec::new()).collect();
    while found.len() > 1 {
        let (Some(listing), Some((parent, entry))) = (found.pop(), places.get(found.len() - 1)) else { break };
        let removed = unread.pop().unwrap_or_default();
        let dir = listing.dir.map(|dir| without(dir, removed));
        let slot = found.get_mut(*parent).and_then(|p| p.dir.as_mut()).and_then(|d| d.entries.get_mut(*entry));
        match (slot, dir) {
            (Some(slot), Some(dir)) => slot.node = ScannedNode::Dir(dir),
            _ => unread[*parent].push(*entry),
        }
    }
    let top = found.pop().and_then(|listing| listing.dir);
    let top = top.unwrap_or(ScannedDir { mode: 0, mtime: 0, entries: Vec::new(), known: false });
    without(top, unread.pop().unwrap_or_default())
}

/// `dir` without the entries of these numbers: directories that could not be read.
fn without(mut dir: ScannedDir, mut removed: Vec<usize>) -> ScannedDir {
    if !removed.is_empty() {
        removed.sort_unstable();
        let mut number = 0..;
        dir.entries.retain(|_| number.next().is_some_and(|n| removed.binary_search(&n).is_err()));
    }
    dir
}

/// True if the file changed so lately before the scan that it may change again and leave the same state.
pub(super) fn is_racy(stamp: &Stamp, started: i64) -> bool {
    stamp.mtime.max(stamp.ctime) >= started.saturating_sub(GRANULARITY)
}

/// True if the file changed so lately that it may have changed since without showing it.
fn is_young(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let age = i128::try_from(now).unwrap_or(i128::MAX) - i128::from(stamp.mtime.max(stamp.ctime));
    age < TICK
}

fn kind_of(error: &FileError) -> ProblemKind {
    if error.is_missing() || error.is_other_kind() { ProblemKind::Vanished } else { ProblemKind::Unreadable }
}

#[cfg(test)]
mod tests;
