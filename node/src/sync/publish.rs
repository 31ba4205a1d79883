//! Publish: scan, tree, index, sign. Runs straight through, off the event loop.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cid::Cid;
use rayon::prelude::*;
use tracker_less::record::{CheckedBundle, Generation, Head};

use super::dest::nanos_now;
use super::keys::{Keys, Terms};
use super::{ModuleRef, SyncError, unchanged};
use crate::manifest::ContentId;
use crate::manifest::diff::{self, Difference};
use crate::manifest::entry::{DirLink, Entry, MAX_TARGET, Node as Kind};
use crate::manifest::page::RootNode;
use crate::manifest::path::{Name, TreePath};
use crate::manifest::select::Selector;
use crate::manifest::tree::{TreeError, build_directory};
use crate::manifest::walk::Walk;
use crate::store::files::{Dir, Stat};
use crate::store::glance::Seen;
use crate::store::index::{Directory, Index};
use crate::store::proof;
use crate::store::scan::{Hasher, Problem, ProblemKind, Scan, Scanned, ScannedDir, ScannedEntry, ScannedNode, settled};
use crate::store::state::Registration;

/// A tree that lost more than this share (percent) of its entries or bytes is not published without a word from the user.
const SHRINK_PERCENT: u64 = 25;
/// ... but only where it lost more entries than this.
const SHRINK_ENTRIES: u64 = 100;
/// Pages written to the index at once.
const PAGE_BATCH: usize = 512;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// The module.
    pub module: ModuleRef,
    /// What of the directory is published.
    pub select: Selector,
    /// Globs of files that switch last at mirrors.
    pub late: Vec<String>,
    /// What a first charter says.
    pub terms: Terms,
    /// The tree is another's, copied from this address.
    pub unofficial: Option<String>,
    /// Publish under this number.
    pub seq: Option<u64>,
    /// Publish a tree that lost much.
    pub allow_shrink: bool,
    /// Publish without entries that cannot be read any more.
    pub ignore_errors: bool,
    /// Keep nothing, sign nothing.
    pub dry_run: bool,
    /// Seconds since the epoch.
    pub now: u64,
}

/// What was published, or would be.
#[derive(Debug)]
pub struct Published {
    /// The generation; the former one if nothing changed.
    pub generation: Generation,
    /// Root CID.
    pub root: Cid,
    /// Regular files, hard links each counted.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// False if the tree is the one of the former generation.
    pub changed: bool,
    /// What changed since the former generation.
    pub changes: Vec<Difference>,
    /// Entries left out.
    pub problems: Vec<Problem>,
    /// What is to be signed.
    pub head: Head,
    /// The signed bundle; none of a dry run, and where the key is elsewhere.
    pub bundle: Option<CheckedBundle>,
}

/// Who signs.
#[derive(Debug, Clone)]
pub enum Signer {
    /// This machine.
    Keys(Box<Keys>),
    /// Another machine, later.
    Elsewhere,
    /// Another machine has signed this.
    Signed(Box<CheckedBundle>),
}

/// What a publish goes on from.
#[derive(Debug, Clone, Default)]
pub struct Former {
    /// The newest generation.
    pub bundle: Option<CheckedBundle>,
    /// Another module of the publisher, under its newest charter.
    pub sibling: Option<CheckedBundle>,
}

/// Scans a directory, writes its pages to the index, and signs the generation after the former one.
///
/// # Errors
/// The guards of the command line (shrunken tree, entries that became unreadable), and local failures.
pub fn publish(
    index: &Index,
    outboards: &Dir,
    signer: &Signer,
    request: &Request,
    from: &Former,
) -> Result<Published, SyncError> {
    let former = from.bundle.as_ref();
    let glance = unchanged::published(request, former)?;
    if let Some((bundle, key)) = former.zip(glance)
        && let Some(seen) = index.seen(tree_key(&request.dir))?.filter(|seen| *seen.key == key)
    {
        return again(bundle, &seen, (signer, request, from));
    }
    let tree_key = tree_key(&request.dir);
    let scanned = scan(index, outboards, &request.dir, &request.select)?;
    let (root, tree, files) = write_tree(index, &scanned, &request.late, request.unofficial.clone())?;
    check_problems(index, &scanned, request, former)?;
    if let Some(bundle) = former.filter(|_| !request.allow_shrink) {
        check_shrink(bundle.head(), &tree)?;
    }
    let changed = former.is_none_or(|bundle| *bundle.root() != root);
    let changes = match former {
        Some(bundle) if changed => differences(index, bundle, &root),
        _ => Vec::new(),
    };
    let head = next_head(from, request, changed, (root, &tree));
    if !request.dry_run {
        remember(index, tree_key, &scanned)?;
        if let Some(key) = glance.filter(|_| !changed && scanned.problems.is_empty()) {
            index.put_seen(tree_key, &Seen { key: key.into(), counts: vec![files] })?;
        }
    }
    let bundle = sign(signer, request, from, &head)?;
    let head = bundle.as_ref().map_or(head, |bundle| bundle.head().clone());
    let (bytes, problems, generation) = (tree.bytes, scanned.problems, head.generation());
    Ok(Published { generation, root, files, bytes, changed, changes, problems, head, bundle })
}

/// The tree is the one of the former generation.
fn again(
    former: &CheckedBundle,
    seen: &Seen,
    (signer, request, from): (&Signer, &Request, &Former),
) -> Result<Published, SyncError> {
    tracing::debug!("all is as it was left");
    let head = former.head().clone();
    let bundle = sign(signer, request, from, &head)?;
    let head = bundle.as_ref().map_or(head, |bundle| bundle.head().clone());
    Ok(Published {
        generation: head.generation(),
        root: *former.root(),
        files: seen.counts.first().copied().unwrap_or(0),
        bytes: head.bytes,
        changed: false,
        changes: Vec::new(),
        problems: Vec::new(),
        head,
        bundle,
    })
}

/// Makes the pages of a published directory anew, and remembers its files; gives the root, which is the published one if nothing
/// has changed since.
///
/// # Errors
/// The directory cannot be read, or the index fails.
pub fn rebuild(index: &Index, outboards: &Dir, published: &Registration, select: &Selector) -> Result<Cid, SyncError> {
    let scanned = scan(index, outboards, &published.directory, select)?;
    let (root, ..) = write_tree(index, &scanned, &published.late, published.from.clone())?;
    remember(index, tree_key(&published.directory), &scanned)?;
    Ok(root)
}

/// The root of a directory as a tree: scanned and hashed, its pages put into the index, nothing signed.
///
/// # Errors
/// The directory cannot be read, or the index fails.
pub fn survey(index: &Index, path: &Path) -> Result<Cid, SyncError> {
    let root = Dir::open(path)?;
    let all = |_: &TreePath, _: bool| true;
    let scanned = Scan { root: &root, hasher: &Plain, read: true, wanted: &all, started: nanos_now() }.run()?;
    Ok(write_tree(index, &scanned, &[], None)?.0)
}

/// Hashes everything, keeps nothing.
struct Plain;

impl Hasher for Plain {
    fn known(&self, _: &TreePath) -> Directory {
        Directory::new()
    }

    fn hash(&self, file: &File, _: &Stat) -> io::Result<ContentId> {
        Ok(proof::hash_file(file)?.id)
    }
}

/// Hashes what the index does not know, and keeps the outboards of large files.
struct Reader<'a> {
    index: &'a Index,
    tree: &'a [u8],
    outboards: &'a Dir,
    /// Outboards written by this scan: several names may have one content, hashed at the same time.
    stored: Mutex<HashSet<ContentId>>,
}

impl Hasher for Reader<'_> {
    fn known(&self, dir: &TreePath) -> Directory {
        self.index.directory(self.tree, dir).unwrap_or_default()
    }

    fn hash(&self, file: &File, _: &Stat) -> io::Result<ContentId> {
        let hashed = proof::hash_file(file)?;
        if let Some(outboard) = &hashed.outboard {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            if stored.insert(hashed.id) {
                outboard.store(self.outboards, &hashed.id).map_err(|error| io::Error::new(error.kind(), error))?;
            }
        }
        Ok(hashed.id)
    }
}

/// What the index calls a published directory.
fn tree_key(dir: &Path) -> &[u8] {
    dir.as_os_str().as_bytes()
}

fn scan(index: &Index, outboards: &Dir, dir: &Path, select: &Selector) -> Result<Scanned, SyncError> {
    let root = Dir::open(dir)?;
    let hasher = Reader { index, tree: tree_key(dir), outboards, stored: Mutex::default() };
    let wanted = |path: &TreePath, dir: bool| select.wants(path, dir);
    let scan = Scan { root: &root, hasher: &hasher, read: true, wanted: &wanted, started: nanos_now() };
    Ok(scan.run()?)
}

/// Builds all pages bottom-up; returns the root CID, the tree's totals and the number of regular files.
fn write_tree(
    index: &Index,
    scanned: &Scanned,
    late: &[String],
    unofficial: Option<String>,
) -> Result<(Cid, DirLink, u64), SyncError> {
    let writer = Writer { index, labels: label_hard_links(scanned), batch: Mutex::default(), files: AtomicU64::new(0) };
    let tree = writer.directory(&scanned.root, &TreePath::root())?;
    let (mode, mtime) = (scanned.root.mode, scanned.root.mtime);
    let node = RootNode { mode, mtime, unofficial, late: late.to_vec(), tree: tree.clone() };
    let (root, bytes) = node.encode().ok_or(TreeError::TooLarge)?;
    writer.put(vec![(root, bytes)])?;
    let rest = std::mem::take(&mut *writer.batch());
    writer.write(rest)?;
    Ok((root, tree, writer.files.into_inner()))
}

struct Writer<'a> {
    index: &'a Index,
    labels: HashMap<TreePath, u32>,
    batch: Mutex<Vec<(Cid, Vec<u8>)>>,
    files: AtomicU64,
}

impl Writer<'_> {
    /// Directories below one stand beside each other: they are built on all cores.
    fn directory(&self, dir: &ScannedDir, at: &TreePath) -> Result<DirLink, SyncError> {
        let entry = |scanned| self.entry(scanned, at).transpose();
        let below = dir.entries.iter().any(|entry| matches!(entry.node, ScannedNode::Dir(_)));
        let entries: Result<Vec<Entry>, SyncError> = match below {
            true => dir.entries.par_iter().filter_map(entry).collect(),
            false => dir.entries.iter().filter_map(entry).collect(),
        };
        let mut pages = Vec::new();
        let link = build_directory(entries?, &mut |cid, bytes| pages.push((cid, bytes)))?;
        self.put(pages)?;
        Ok(link)
    }

    fn entry(&self, scanned: &ScannedEntry, at: &TreePath) -> Result<Option<Entry>, SyncError> {
        let path = || at.join(&scanned.name).ok();
        let node = match &scanned.node {
            ScannedNode::File { id: Some(id), .. } => {
                self.files.fetch_add(1, Ordering::Relaxed);
                let label = (scanned.stat.links > 1).then(path).flatten().and_then(|path| self.labels.get(&path));
                Kind::File { size: scanned.stat.stamp.size, id: *id, link: label.copied().unwrap_or(0) }
            }
            ScannedNode::Dir(below) => match path() {
                Some(path) => Kind::Dir(Box::new(self.directory(below, &path)?)),
                None => return Ok(None),
            },
            ScannedNode::Symlink { target } if target.len() <= MAX_TARGET => Kind::Symlink { target: target.clone() },
            ScannedNode::File { id: None, .. } | ScannedNode::Symlink { .. } => return Ok(None),
        };
        let (name, mtime) = (scanned.name.clone(), scanned.stat.stamp.mtime);
        Ok(Some(Entry { name, mode: scanned.mode, mtime, node }))
    }

    fn batch(&self) -> MutexGuard<'_, Vec<(Cid, Vec<u8>)>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gathers pages, and writes them once they are many.
    fn put(&self, pages: Vec<(Cid, Vec<u8>)>) -> Result<(), SyncError> {
        let mut batch = self.batch();
        batch.extend(pages);
        let full = if batch.len() >= PAGE_BATCH { std::mem::take(&mut *batch) } else { Vec::new() };
        drop(batch);
        self.write(full)
    }

    /// Writes what is not there yet: of a tree that hardly changed, hardly anything.
    fn write(&self, mut pages: Vec<(Cid, Vec<u8>)>) -> Result<(), SyncError> {
        let mut failed = None;
        pages.retain(|(cid, _)| match self.index.has_page(cid) {
            Ok(there) => !there,
            Err(error) => failed.replace(error).is_some(),
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(self.index.put_pages(pages.iter().map(|(cid, bytes)| (cid, bytes.as_slice())))?)
    }
}

/// Labels of hard-linked paths: the ordinal of their group among those with the same content, mode and mtime, by first path.
fn label_hard_links(scanned: &Scanned) -> HashMap<TreePath, u32> {
    let mut groups = scanned.hard_links();
    for group in &mut groups {
        group.sort();
    }
    groups.sort();
    let mut ordinals: HashMap<(ContentId, u16, i64), u32> = HashMap::new();
    let mut labels = HashMap::new();
    for group in groups.into_iter().filter(|group| group.len() > 1) {
        let Some(key) = group.first().and_then(|path| identity(&scanned.root, path)) else { continue };
        let ordinal = ordinals.entry(key).or_default();
        *ordinal = ordinal.saturating_add(1);
        labels.extend(group.into_iter().map(|path| (path, *ordinal)));
    }
    labels
}

/// Content, mode and mtime of a scanned file.
fn identity(root: &ScannedDir, path: &TreePath) -> Option<(ContentId, u16, i64)> {
    let mut dir = root;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let at = dir.entries.binary_search_by(|entry| entry.name.cmp(&name)).ok()?;
        let entry = dir.entries.get(at)?;
        match &entry.node {
            ScannedNode::Dir(below) => dir = below,
            ScannedNode::File { id, .. } if names.peek().is_none() => {
                return Some(((*id)?, entry.mode, entry.stat.stamp.mtime));
            }
            _ => return None,
        }
    }
    None
}

/// What changed; nothing where the former tree's pages are not here.
fn differences(index: &Index, former: &CheckedBundle, root: &Cid) -> Vec<Difference> {
    diff::diff(index, former.root(), root).unwrap_or_default()
}

/// An entry of the former generation that cannot be read stops the publish; a new one is merely left out.
fn check_problems(
    index: &Index,
    scanned: &Scanned,
    request: &Request,
    former: Option<&CheckedBundle>,
) -> Result<(), SyncError> {
    let Some(former) = former.filter(|_| !request.ignore_errors) else { return Ok(()) };
    let named = |problem: &&Problem| problem.kind != ProblemKind::Unnamable;
    let failed = scanned.problems.iter().filter(named).filter(|problem| is_failure(problem));
    let mut lost = failed.filter(|problem| stood(index, former, problem));
    let Some(first) = lost.next() else {
        // Beyond the named ones nobody can say which they are.
        return if scanned.unnamed == 0 {
            Ok(())
        } else {
            Err(unreadable(scanned.unnamed, "more than can be listed", false))
        };
    };
    let vanished = first.kind != ProblemKind::Unreadable && lost.clone().all(|one| one.kind != ProblemKind::Unreadable);
    Err(unreadable(1 + lost.count() as u64, &first.to_string(), vanished))
}

fn unreadable(count: u64, first: &str, vanished: bool) -> SyncError {
    SyncError::Unreadable { count, first: first.to_owned(), vanished }
}

/// True for what should have been published and could not be; devices and FIFOs never are.
pub fn is_failure(problem: &Problem) -> bool {
    problem.kind != ProblemKind::Special
}

fn stood(index: &Index, former: &CheckedBundle, problem: &Problem) -> bool {
    let path = if problem.name.is_empty() {
        Some(problem.dir.clone())
    } else {
        Name::new(&problem.name).and_then(|name| problem.dir.join(&name)).ok()
    };
    let Some((dir, name)) = path.and_then(|path| Some((path.parent()?, path.name()?))) else { return true };
    let select = Selector::below(dir, Some(name));
    Walk::new(index, former.root(), &select).is_ok_and(|mut walk| matches!(walk.next(), Some(Ok(_))))
}

fn check_shrink(former: &Head, tree: &DirLink) -> Result<(), SyncError> {
    let lost = former.entries.saturating_sub(tree.entries);
    let over = |before: u64, now: u64| {
        u128::from(before.saturating_sub(now)) * 100 > u128::from(before) * u128::from(SHRINK_PERCENT)
    };
    if lost > SHRINK_ENTRIES && (over(former.entries, tree.entries) || over(former.bytes, tree.bytes)) {
        let (now, before) = (tree.entries, former.entries);
        let reason = format!("the tree shrank to {now} entries from {before}");
        return Err(SyncError::Guarded { reason, unless: "--allow-shrink" });
    }
    Ok(())
}

/// The head that is to be signed; the former one if nothing changed.
fn next_head(from: &Former, request: &Request, changed: bool, (root, tree): (Cid, &DirLink)) -> Head {
    let former = from.bundle.as_ref();
    if let Some(former) = former.filter(|_| !changed) {
        return former.head().clone();
    }
    let epoch = former.or(from.sibling.as_ref()).map_or(0, |bundle| bundle.generation().epoch);
    let next = former.map_or(1, |former| former.generation().seq.saturating_add(1));
    Head {
        module: request.module.id,
        epoch,
        seq: request.seq.unwrap_or(next),
        previous: former.map(CheckedBundle::head_hash),
        root,
        entries: tree.entries,
        bytes: tree.bytes,
        created: request.now,
    }
}

fn sign(signer: &Signer, request: &Request, from: &Former, head: &Head) -> Result<Option<CheckedBundle>, SyncError> {
    match signer {
        _ if request.dry_run => Ok(None),
        Signer::Elsewhere => Ok(None),
        Signer::Keys(keys) => {
            let before = (from.bundle.as_ref(), from.sibling.as_ref());
            keys.sign(&request.module.name, head.clone(), before, (&request.terms, request.now)).map(Some)
        }
        Signer::Signed(bundle) if *bundle.root() == head.root => Ok(Some((**bundle).clone())),
        Signer::Signed(bundle) => {
            let (signed, found) = (bundle.root().to_string(), head.root.to_string());
            Err(SyncError::TreeChanged { module: request.module.to_string(), signed, found })
        }
    }
}

/// Keeps the state of every file for the next publish, except those changed so lately that an equal state proves nothing.
fn remember(index: &Index, tree: &[u8], scanned: &Scanned) -> Result<(), SyncError> {
    let mut rows: BTreeMap<TreePath, Directory> = BTreeMap::new();
    collect(&scanned.root, &TreePath::root(), &mut rows);
    index.put_directories(tree, &rows)?;
    Ok(index.flush()?)
}

/// The rows of the directories of which something else is known.
fn collect(dir: &ScannedDir, at: &TreePath, rows: &mut BTreeMap<TreePath, Directory>) {
    for entry in &dir.entries {
        if let ScannedNode::Dir(below) = &entry.node
            && let Ok(path) = at.join(&entry.name)
        {
            collect(below, &path, rows);
        }
    }
    if !dir.known {
        let row = dir.entries.iter().filter_map(settled).map(|(name, stamp, id)| (name.clone(), (stamp, id)));
        rows.insert(at.clone(), row.collect());
    }
}
