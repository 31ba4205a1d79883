//! One generation of a module as it stands on this disk: plain files, found by content id through the manifest only, verified
//! while they are read. A file that does not verify is marked damaged and claimed no longer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracker_less::machine::Event;
use tracker_less::record::{CheckedBundle, Coverage};

use super::anchored::Anchored;
use super::fetch::SMALL;
use super::{ModuleRef, SyncError};
use crate::delta::{WINDOW, anchors};
use crate::manifest::ContentId;
use crate::manifest::entry::Node as Kind;
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;
use crate::manifest::walk::Walk;
use crate::store::files::{Dir, Kind as FileKind, read_small};
use crate::store::index::Index;
use crate::store::locate::{DirCache, locate};
use crate::store::outboard::{self, Outboard};
use crate::store::proof::{self, ProofError};
use crate::store::stage::Stage;
use crate::wire::Have;
use crate::wire::delta::Short;

/// Bytes of outboards kept in memory, for files that are being served; one is kept in any case.
const CACHED_OUTBOARDS: u64 = 16 << 20;
/// Largest old file that is read for its anchors: it takes seconds. Larger ones help where they stand.
const MAX_ANCHORED: u64 = 4 << 30;

/// Where a content stands below the directory.
#[derive(Debug, Clone)]
struct Place {
    path: TreePath,
    size: u64,
    number: u64,
}

/// Where the files are, and what goes with them.
pub struct Ground {
    /// The directory, as the user named it.
    pub path: PathBuf,
    /// The same, opened.
    pub root: Dir,
    /// Stored outboards.
    pub outboards: Dir,
    /// Superseded files, of a mirror.
    pub stage: Option<Arc<Stage>>,
    /// Web addresses where the same tree stands.
    pub http: Vec<String>,
}

/// One generation that this node holds.
pub struct Holding {
    /// Its head.
    pub bundle: CheckedBundle,
    /// Where it is.
    pub ground: Ground,
    contents: BTreeMap<ContentId, Place>,
    select: Selector,
    damaged: Mutex<BTreeSet<ContentId>>,
    /// What is held, once somebody has asked.
    have: Mutex<Option<Have>>,
    cache: Mutex<VecDeque<(ContentId, Arc<Outboard>)>>,
    anchored: Anchored,
    /// The directories of the small file that was opened last.
    dirs: Mutex<DirCache>,
}

impl Holding {
    /// Walks the selected pages of the tree and notes where each content stands. `damaged` paths are not claimed.
    ///
    /// # Errors
    /// The index lacks a page of the tree, or fails.
    pub fn load(
        index: &Index,
        bundle: CheckedBundle,
        select: &Selector,
        ground: Ground,
        damaged: &[Vec<u8>],
    ) -> Result<Self, SyncError> {
        let module = ModuleRef::of(&bundle);
        let mut contents = BTreeMap::new();
        let (damaged, mut bad) = (damaged.iter().map(Vec::as_slice).collect::<BTreeSet<_>>(), BTreeSet::new());
        let walk = Walk::new(index, bundle.root(), select).map_err(|error| SyncError::tree(&module, error))?;
        for item in walk {
            let item = item.map_err(|error| SyncError::tree(&module, error))?;
            let (Kind::File { size, id, .. }, Some(path)) = (item.entry.node, item.path.relative_to(select.base()))
            else {
                continue;
            };
            if damaged.contains(path.as_bytes()) {
                bad.insert(id);
            }
            contents.entry(id).or_insert(Place { path, size, number: item.number });
        }
        let (select, damaged) = (select.clone(), Mutex::new(bad));
        let (cache, anchored) = (Mutex::default(), Anchored::default());
        let (have, dirs) = (Mutex::default(), Mutex::new(DirCache::new(ground.root.clone())));
        Ok(Self { bundle, ground, contents, select, damaged, have, cache, anchored, dirs })
    }

    /// Paths of damaged files, sorted.
    pub fn damaged(&self) -> Vec<TreePath> {
        let damaged = lock(&self.damaged);
        let mut paths: Vec<_> =
            damaged.iter().filter_map(|id| self.contents.get(id)).map(|at| at.path.clone()).collect();
        paths.sort();
        paths
    }

    /// Whether it is this selection of this very bundle, with these paths damaged.
    pub fn is_of(&self, bundle: &CheckedBundle, select: &Selector, damaged: &[Vec<u8>]) -> bool {
        let mut damaged: Vec<&[u8]> = damaged.iter().map(Vec::as_slice).collect();
        damaged.sort_unstable();
        let same = self.damaged().iter().map(TreePath::as_bytes).eq(damaged);
        same && self.bundle.bytes() == bundle.bytes() && self.select == *select
    }

    /// Marks a content as damaged; true if that is news.
    pub fn mark_damaged(&self, id: &ContentId) -> bool {
        let Some(place) = self.contents.get(id) else { return false };
        let news = lock(&self.damaged).insert(*id);
        if news {
            *lock(&self.have) = None;
            tracing::warn!(path = %place.path, "damaged on disk: claimed no longer");
        }
        news
    }

    /// All of the module is here, undamaged.
    pub fn is_whole(&self) -> bool {
        self.select == Selector::all() && lock(&self.damaged).is_empty()
    }

    /// The share of the module that is held, for a nomination.
    pub fn coverage(&self) -> Coverage {
        if self.is_whole() {
            return Coverage::WHOLE;
        }
        let damaged = lock(&self.damaged);
        let good = self.contents.iter().filter(|(id, _)| !damaged.contains(*id));
        let bytes: u64 = good.map(|(_, place)| place.size).sum();
        // Never the whole: something is known to be missing.
        Coverage::share(bytes, self.bundle.head().bytes.max(bytes + 1))
    }

    /// Which entries are held. Directories and symlinks need nothing from anybody and are not counted.
    pub fn have(&self) -> Have {
        if self.is_whole() {
            return Have::Whole;
        }
        let make = || {
            let damaged = lock(&self.damaged);
            let good = self.contents.iter().filter(|(id, _)| !damaged.contains(*id));
            let mut numbers: Vec<u64> = good.map(|(_, place)| place.number).collect();
            numbers.sort_unstable();
            Have::of(numbers)
        };
        lock(&self.have).get_or_insert_with(make).clone()
    }

    /// What the swarm is told of it.
    pub fn event(&self) -> Event {
        Event::Hold { bundle: self.bundle.clone(), coverage: self.coverage(), http: self.ground.http.clone() }
    }

    /// A whole small file, verified.
    pub fn small(&self, id: &ContentId, size: u64) -> Option<Vec<u8>> {
        if size > SMALL { None } else { self.whole(id, size) }
    }

    /// A whole file of at most [`WINDOW`] bytes, verified.
    fn whole(&self, id: &ContentId, size: u64) -> Option<Vec<u8>> {
        let length = usize::try_from(size.min(WINDOW)).ok()?;
        let read = |file: File| {
            let bytes = read_small(&file, length).ok()?;
            (bytes.len() as u64 == size && proof::verify_small(id, &bytes)).then_some(bytes)
        };
        let here = self.open_near(id).and_then(read).or_else(|| {
            // Another directory may stand there by now.
            lock(&self.dirs).clear();
            read(self.open(id)?)
        });
        here.or_else(|| read(self.kept(id)?))
    }

    /// The content whose id begins like this, of `size` bytes: of the generation or a superseded one.
    pub fn find(&self, short: &Short, size: u64) -> Option<ContentId> {
        let mut like = self.contents.range(short.least()..).take_while(|(id, _)| short.begins(id));
        let here = like.find(|(_, place)| place.size == size).map(|(id, _)| *id);
        here.or_else(|| self.ground.stage.as_ref()?.kept_like(short.bytes(), size))
    }

    /// Bytes of a file, verified.
    pub fn bytes(&self, id: &ContentId, size: u64, range: &Range<u64>) -> Option<Vec<u8>> {
        if size <= WINDOW {
            let whole = self.whole(id, size)?;
            let cut = whole.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)?;
            return Some(cut.to_vec());
        }
        let file = self.open(id)?;
        let outboard = self.outboard(id, size, &file).ok().flatten()?;
        proof::read_range(&file, &outboard, range).inspect_err(|error| tracing::debug!(%error, "not read")).ok()
    }

    /// The ranges of an old file that help to make new bytes, which begin at `start` of theirs: none for all of a small one. And
    /// whether they are the best: later there may be better ones.
    pub fn helping(&self, old: &ContentId, size: u64, new: &[u8], start: u64) -> (Vec<Range<u64>>, bool) {
        if size <= WINDOW {
            return (Vec::new(), true);
        }
        if size > MAX_ANCHORED {
            return (vec![anchors::about(size, start)], true);
        }
        match self.anchored.get(old, size, || self.open(old)) {
            Some(anchors) => (anchors.ranges(size, new, start), true),
            None => (vec![anchors::about(size, start)], false),
        }
    }

    /// A range with its proof, verified while it is read.
    ///
    /// # Errors
    /// The file is not there, or not what it should be.
    pub fn range(&self, id: &ContentId, size: u64, range: Range<u64>) -> Result<Vec<u8>, ProofError> {
        let prove = |file: Option<File>, range: Range<u64>| {
            let file = file.ok_or(ProofError::Damaged { offset: range.start })?;
            let outboard = self.outboard(id, size, &file)?;
            proof::encode_range(&file, id, size, outboard.as_deref(), range)
        };
        match prove(self.open(id), range.clone()) {
            Err(ProofError::Damaged { .. }) => prove(self.kept(id), range),
            other => other,
        }
    }

    /// The inner hashes of a large file.
    pub fn hashes(&self, id: &ContentId, size: u64) -> Option<Arc<Outboard>> {
        self.outboard(id, size, &self.open(id)?).ok().flatten()
    }

    /// True if this content is claimed to be here in this size: then failing to deliver it means damage.
    pub fn claims(&self, id: &ContentId, size: u64) -> bool {
        self.contents.get(id).is_some_and(|place| place.size == size) && !lock(&self.damaged).contains(id)
    }

    /// Removes stored outboards of contents that are neither here nor kept, and older than `before` (ns since the epoch). Gives how
    /// many.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sweep_outboards(&self, before: i64) -> Result<usize, SyncError> {
        let (dir, mut gone) = (&self.ground.outboards, 0);
        for (name, kind) in dir.entries()? {
            let id = outboard::parse_name(&name);
            let needed = id.is_some_and(|id| {
                self.contents.contains_key(&id) || self.ground.stage.as_ref().is_some_and(|stage| stage.keeps(&id))
            });
            if !needed && kind == FileKind::File && dir.stat(&name).is_ok_and(|stat| stat.stamp.mtime < before) {
                dir.unlink(&name)?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Opens the file that holds a content: where the tree says, or among the superseded ones.
    fn open(&self, id: &ContentId) -> Option<File> {
        let Some(place) = self.contents.get(id) else { return self.kept(id) };
        if lock(&self.damaged).contains(id) {
            return None;
        }
        let (dir, name) = locate(&self.ground.root, &place.path).ok()?;
        dir.open_file(&name).ok()
    }

    /// Opens a superseded file. While a pass puts the next generation in place, those of this one become superseded one by one.
    fn kept(&self, id: &ContentId) -> Option<File> {
        self.ground.stage.as_ref()?.kept(id)
    }

    /// Opens a file in the directory that the one before was in, or from there on: neighbours are asked for together.
    fn open_near(&self, id: &ContentId) -> Option<File> {
        let place = self.contents.get(id).filter(|_| !lock(&self.damaged).contains(id))?;
        let (dir, name) = {
            let mut dirs = lock(&self.dirs);
            let (dir, name) = dirs.locate(&place.path).ok()?;
            (dir.clone(), name)
        };
        dir.open_file(&name).ok()
    }

    /// The outboard of a large file: from memory, from disk, or made anew.
    fn outboard(&self, id: &ContentId, size: u64, file: &File) -> Result<Option<Arc<Outboard>>, ProofError> {
        if size <= SMALL {
            return Ok(None);
        }
        if let Some((_, outboard)) = lock(&self.cache).iter().find(|(known, _)| known == id) {
            return Ok(Some(Arc::clone(outboard)));
        }
        let stored = Outboard::load(&self.ground.outboards, id, size).ok().flatten();
        let outboard = match stored {
            Some(outboard) => outboard,
            None => {
                let hashed = proof::hash_file(file)?;
                let made = hashed.outboard.filter(|_| hashed.id == *id);
                let made = made.ok_or(ProofError::Damaged { offset: 0 })?;
                if let Err(error) = made.store(&self.ground.outboards, id) {
                    tracing::warn!(%error, "outboard not kept");
                }
                made
            }
        };
        let outboard = Arc::new(outboard);
        let mut cache = lock(&self.cache);
        cache.push_front((*id, Arc::clone(&outboard)));
        let mut bytes = 0;
        let fits = cache.iter().take_while(|(_, outboard)| {
            bytes += outboard.bytes();
            bytes <= CACHED_OUTBOARDS
        });
        let count = fits.count().max(1);
        cache.truncate(count);
        Ok(Some(outboard))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
