//! The destination of a pass: opened once, locked, looked at, and remembered.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use rustix::fs::{FlockOperation, flock};

use super::pass::{Kind, Request};
use super::plan::{Local, LocalKind, LocalTree, Outcome};
use super::{Node, SyncError};
use crate::manifest::ContentId;
use crate::manifest::filter::MAX_MERGE;
use crate::manifest::path::{Name, TreePath};
use crate::store::files::{Dir, FileError, Stamp, Stat};
use crate::store::index::{Directory, Index};
use crate::store::locate::locate;
use crate::store::proof;
use crate::store::scan::{Hasher, Problem, ProblemKind, Scan, ScannedDir, ScannedNode};
use crate::store::stage::Stage;

/// Our own directory at the root of a destination.
pub const OWN_DIR: &str = ".murmir";
/// How often a destination is looked at that another run holds.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Directories whose rows are made at once.
const DIRS_AT_ONCE: usize = 256;

/// An opened and locked destination. Clones share the lock.
#[derive(Clone)]
pub struct Destination {
    /// The directory, by descriptor: every later operation starts here.
    pub root: Dir,
    /// Its absolute path.
    pub path: PathBuf,
    /// Nothing stood there before this run.
    pub is_new: bool,
    /// Nothing stands there that murmir did not write, or the user said that it may go.
    pub is_ours: bool,
    /// Locks the directory itself, so that no lock file is left behind.
    lock: Option<Arc<File>>,
}

/// What stands in a destination.
#[derive(Debug, Default)]
pub struct Found {
    /// By path.
    pub tree: LocalTree,
    /// What tells one state of a file from another.
    pub stamps: HashMap<TreePath, Stamp>,
    /// Directories of which the index knows something else.
    pub unknown: HashSet<TreePath>,
}

impl Found {
    /// The content of a file that is still in the state it was found in.
    fn id(&self, path: &TreePath, stamp: &Stamp) -> Option<ContentId> {
        let local = self.tree.get(path).filter(|_| self.stamps.get(path) == Some(stamp))?;
        match &local.kind {
            LocalKind::File { id, .. } => *id,
            _ => None,
        }
    }
}

impl Destination {
    /// Opens (and for a real run makes) the destination of a request, and takes its lock.
    ///
    /// # Errors
    /// A missing parent without `--mkpath` (11), `/` or the home directory, a directory that holds files murmir did not
    /// write where the pass may delete or replace them (1), another run at work there (46).
    pub fn open(node: &Node, request: &Request) -> Result<Self, SyncError> {
        refuse_precious(request)?;
        let path = request.dest.clone();
        let is_new = !path.exists();
        if is_new && request.dry_run {
            // Nothing to look at, nothing to lock: a dry run leaves no trace.
            let root = Dir::open(Path::new("/"))?;
            return Ok(Self { root, path, is_new, is_ours: true, lock: None });
        }
        let is_new = is_new && make(&path, request.mkpath)?;
        let root = Dir::open(&path)?;
        let lock = File::open(&path).map_err(|error| FileError::new("open", &path, error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SyncError::Locked { what: path.display().to_string() })?;
        let mut this = Self { root, path, is_new, is_ours: is_new, lock: Some(Arc::new(lock)) };
        this.is_ours = this.is_ours(node, request)?;
        this.check_replica(node, request)?;
        Ok(this)
    }

    /// The same, waiting for another run there for as long as the request says.
    ///
    /// # Errors
    /// As [`Destination::open`].
    pub async fn wait_open(node: &Node, request: &Request) -> Result<Self, SyncError> {
        let until = request.wait_lock.and_then(|wait| Instant::now().checked_add(wait));
        loop {
            match Self::open(node, request) {
                Err(SyncError::Locked { .. }) if until.is_some_and(|until| Instant::now() < until) => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// A directory that is only read from.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn basis(path: &Path) -> Result<Self, SyncError> {
        let root = Dir::open(path)?;
        let file = File::open(path).map_err(|error| FileError::new("open", path, error))?;
        Ok(Self { root, path: path.to_owned(), is_new: false, is_ours: false, lock: Some(Arc::new(file)) })
    }

    /// A replica is made only where nothing foreign can get lost, and one module has one replica per state.
    fn check_replica(&self, node: &Node, request: &Request) -> Result<(), SyncError> {
        let replica = request.rules.delete || request.kind == Kind::Mirror;
        if !replica || request.adopt {
            return Ok(());
        }
        if request.kind == Kind::Mirror
            && let Some(other) = node.marks(&request.module)?.registration()?
            && other.directory != self.path
        {
            let reason = format!("the module is registered at {}", other.directory.display());
            return Err(SyncError::BadDest { dest: self.path.clone(), reason });
        }
        if self.is_ours { Ok(()) } else { Err(SyncError::NotOurs { dest: self.path.clone() }) }
    }

    fn is_ours(&self, node: &Node, request: &Request) -> Result<bool, SyncError> {
        let deletes = request.rules.delete || request.kind == Kind::Mirror;
        if self.is_new || (request.adopt && deletes) || node.is_registered_here(&request.module, &self.path)? {
            return Ok(true);
        }
        let fetched = node.was_fetched(&self.path, request)?.then(|| node.state.fetched(&self.path)).transpose()?;
        if fetched.flatten().is_some_and(|fetched| fetched.ours) {
            return Ok(true);
        }
        Ok(self.root.entries()?.iter().all(|(name, _)| name == OWN_DIR.as_bytes()))
    }

    /// Our own directory in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn own_dir(&self) -> Result<Dir, SyncError> {
        Ok(self.root.child_or_make(OWN_DIR)?)
    }

    /// Opens the stage; what a former run left there is verified.
    ///
    /// # Errors
    /// The disk fails.
    pub fn stage(&self) -> Result<Arc<Stage>, SyncError> {
        Ok(Arc::new(Stage::open(&self.own_dir()?)?))
    }

    /// Looks at everything that is there. Contents are known from the index where nothing changed, and nobody doubts them; of the
    /// rest those files are hashed whose size `wanted` names: only they can spare a download.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn scan(
        &self,
        index: &Index,
        wanted: &HashSet<u64>,
        doubted: &HashSet<TreePath>,
        keeps: &(dyn Fn(&TreePath, bool) -> bool + Sync),
    ) -> Result<Found, SyncError> {
        if self.is_unmade() {
            return Ok(Found::default());
        }
        let known = Known { index, tree: self.key(), doubted };
        let started = nanos_now();
        let scanned = Scan { root: &self.root, hasher: &known, read: false, wanted: keeps, started }.run()?;
        let mut found = Found::default();
        collect(scanned.root, &TreePath::root(), &mut found);
        note_special(&scanned.problems, &mut found);
        self.hash_unknown(&mut found, wanted);
        Ok(found)
    }

    /// A file of rules that stands here.
    pub fn small_file(&self, path: &TreePath) -> Option<Vec<u8>> {
        let (dir, name) = locate(&self.root, path).ok()?;
        let mut content = Vec::new();
        dir.open_file(&name).ok()?.take(MAX_MERGE).read_to_end(&mut content).ok()?;
        Some(content)
    }

    fn hash_unknown(&self, found: &mut Found, wanted: &HashSet<u64>) {
        let unknown: Vec<TreePath> = found
            .tree
            .iter()
            .filter(|(_, local)| match &local.kind {
                LocalKind::File { size, id: None, .. } => wanted.contains(size),
                _ => false,
            })
            .map(|(path, _)| path.clone())
            .collect();
        if !unknown.is_empty() {
            tracing::info!(files = unknown.len(), "hashing files that the index does not know");
        }
        let hashed: Vec<(TreePath, ContentId)> = unknown
            .into_par_iter()
            .filter_map(|path| {
                let (dir, name) = locate(&self.root, &path).ok()?;
                let file = dir.open_file(&name).ok()?;
                let id = proof::hash_file(&file).ok()?.id;
                let now = dir.stat(&name).ok()?.stamp;
                (found.stamps.get(&path) == Some(&now)).then_some((path, id))
            })
            .collect();
        for (path, content) in hashed {
            found.unknown.extend(path.parent());
            if let Some(Local { kind: LocalKind::File { id, .. }, .. }) = found.tree.get_mut(&path) {
                *id = Some(content);
            }
        }
    }

    /// Writes down the state of the files in `dirs` whose content is known, for the next pass: of what the pass left there, and of
    /// what still stands as it was found.
    ///
    /// # Errors
    /// The index fails.
    pub fn remember(
        &self,
        index: &Index,
        outcome: &Outcome<'_>,
        found: &Found,
        dirs: &HashSet<TreePath>,
    ) -> Result<(), SyncError> {
        let id = |path: &TreePath, stamp: &Stamp| match outcome.at(path) {
            Some(left) => left.content(stamp),
            None => found.id(path, stamp),
        };
        let nothing = Known { index, tree: b"", doubted: &HashSet::new() };
        let files = |_: &TreePath, is_dir: bool| !is_dir;
        let scan = Scan { root: &self.root, hasher: &nothing, read: false, wanted: &files, started: nanos_now() };
        let dirs: Vec<&TreePath> = dirs.iter().collect();
        // Some at a time: all rows together may be as large as everything else.
        for some in dirs.chunks(DIRS_AT_ONCE) {
            let rows = some.par_iter().filter_map(|at| Some((*at, row(&scan.directory(at)?, at, &id)?)));
            let rows: Vec<(&TreePath, Directory)> = rows.collect();
            index.put_directories(self.key(), rows.iter().map(|(at, row)| (*at, row)))?;
        }
        Ok(())
    }

    /// A dry run on a directory that does not exist.
    pub fn is_unmade(&self) -> bool {
        self.lock.is_none()
    }

    /// Removes what runs that were cut off had brought for trees that are past; what cannot be removed stays.
    pub fn empty_stage(&self) {
        let own = self.root.child(OWN_DIR.as_bytes());
        if let Ok(own) = own
            && let Err(error) = Stage::empty(&own)
        {
            tracing::debug!(%error, "stage not emptied");
        }
    }

    /// Removes our own directory after a fetch; what cannot be removed stays.
    pub fn clean_up(&self) {
        if let Err(error) = remove_below(&self.root, OWN_DIR.as_bytes()) {
            tracing::debug!(%error, "own directory not removed");
        }
    }

    /// What the index calls this tree.
    pub fn key(&self) -> &[u8] {
        use std::os::unix::ffi::OsStrExt;
        self.path.as_os_str().as_bytes()
    }
}

/// Knows what the index knows, and reads nothing.
struct Known<'a> {
    index: &'a Index,
    tree: &'a [u8],
    /// Files that turned out damaged: a failing disk does not show it in their state.
    doubted: &'a HashSet<TreePath>,
}

impl Hasher for Known<'_> {
    fn known(&self, dir: &TreePath) -> Directory {
        let mut row = self.index.directory(self.tree, dir).unwrap_or_default();
        if !self.doubted.is_empty() {
            row.retain(|name, _| dir.join(name).is_ok_and(|path| !self.doubted.contains(&path)));
        }
        row
    }

    fn hash(&self, _: &File, _: &Stat) -> io::Result<ContentId> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Flattens a scanned directory.
fn collect(dir: ScannedDir, at: &TreePath, found: &mut Found) {
    if !dir.known {
        found.unknown.insert(at.clone());
    }
    for entry in dir.entries {
        let Ok(path) = at.join(&entry.name) else { continue };
        let stamp = entry.stat.stamp;
        let kind = match entry.node {
            ScannedNode::File { id, .. } => {
                found.stamps.insert(path.clone(), stamp);
                LocalKind::File { size: stamp.size, id, inode: stamp.ino }
            }
            ScannedNode::Dir(below) => {
                collect(below, &path, found);
                LocalKind::Dir
            }
            ScannedNode::Symlink { target } => LocalKind::Symlink(target),
        };
        found.tree.insert(path, Local { kind, mode: entry.mode, mtime: stamp.mtime });
    }
}

/// The row of a directory: each file whose content is known. None where there is no file.
fn row(dir: &ScannedDir, at: &TreePath, id: &impl Fn(&TreePath, &Stamp) -> Option<ContentId>) -> Option<Directory> {
    let (mut row, mut files) = (Directory::new(), 0);
    for entry in &dir.entries {
        let Ok(path) = at.join(&entry.name) else { continue };
        if matches!(entry.node, ScannedNode::File { .. }) {
            files += 1;
            if let Some(id) = id(&path, &entry.stat.stamp) {
                row.insert(entry.name.clone(), (entry.stat.stamp, id));
            }
        }
    }
    (files > 0).then_some(row)
}

/// Devices, FIFOs and sockets stand in the way of files, and go where the module has nothing.
fn note_special(problems: &[Problem], found: &mut Found) {
    for problem in problems.iter().filter(|problem| problem.kind == ProblemKind::Special) {
        let path = Name::new(&problem.name).and_then(|name| problem.dir.join(&name));
        if let Ok(path) = path {
            found.tree.insert(path, Local { kind: LocalKind::Special, mode: 0, mtime: 0 });
        }
    }
}

/// `/` and the home directory are nobody's replica.
fn refuse_precious(request: &Request) -> Result<(), SyncError> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let home = std::env::var_os("HOME").map(|home| real(home.into()));
    let dest = real(request.dest.clone());
    let replica = request.rules.delete || request.kind == Kind::Mirror;
    if replica && (dest == Path::new("/") || home.is_some_and(|home| home == dest)) {
        let reason = "refused as a replica, which deletes what the module does not have".to_owned();
        return Err(SyncError::BadDest { dest: request.dest.clone(), reason });
    }
    Ok(())
}

/// Makes a directory; false where another run was faster.
fn make(path: &Path, parents: bool) -> Result<bool, SyncError> {
    match if parents { std::fs::create_dir_all(path) } else { std::fs::create_dir(path) } {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(FileError::new("make directory", path, error).into()),
    }
}

fn remove_below(dir: &Dir, name: &[u8]) -> Result<(), FileError> {
    let own = dir.child(name)?;
    for (below, kind) in own.entries()? {
        if kind == crate::store::files::Kind::Dir { remove_below(&own, &below)? } else { own.unlink(&below)? }
    }
    dir.remove_dir(name)
}

/// Nanoseconds since the epoch.
pub fn nanos_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_doubted_is_read_again_though_nothing_shows() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rotten"), "bad").unwrap();
        let target = Destination::basis(dir.path()).unwrap();
        let stat = target.root.stat("rotten").unwrap();
        // A failing disk changes bytes and nothing else: the state is what it was when they were right.
        let (index, right) = (Index::memory(), ContentId::of(b"was"));
        let row = Directory::from([(Name::new("rotten").unwrap(), (stat.stamp, right))]);
        index.put_directories(target.key(), [(&TreePath::root(), &row)]).unwrap();
        let path = TreePath::new(b"rotten").unwrap();
        let content = |doubted: &HashSet<TreePath>| {
            let found = target.scan(&index, &HashSet::from([3]), doubted, &|_, _| true).unwrap();
            match &found.tree[&path].kind {
                LocalKind::File { id, .. } => *id,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(content(&HashSet::new()), Some(right));
        assert_eq!(content(&HashSet::from([path.clone()])), Some(ContentId::of(b"bad")));
    }
}
