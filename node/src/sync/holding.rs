//! What this node holds of modules and hands out: plain files, found by content id through the manifest only, verified while
//! they are read. A file that does not verify is marked damaged and claimed no longer.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cid::Cid;
use tokio::sync::mpsc;
use tracker_less::record::{CheckedBundle, Coverage, ModuleId};

use super::fetch::SMALL;
use super::SyncError;
use crate::manifest::ContentId;
use crate::manifest::entry::Node as Kind;
use crate::manifest::path::TreePath;
use crate::manifest::select::Selector;
use crate::manifest::walk::Walk;
use crate::store::files::{Dir, locate};
use crate::store::index::Index;
use crate::store::outboard::Outboards;
use crate::store::proof::{self, ProofError};
use crate::store::stage::Stage;
use crate::wire::msg::{Have, Held as HeldClaim};
use crate::wire::server::Provider;

/// Records heard from peers and not yet judged.
const HEARD: usize = 256;

/// Where a content stands in the destination.
#[derive(Debug, Clone)]
struct Place {
    path: TreePath,
    size: u64,
    number: u64,
}

/// One module that this node holds, in one generation.
pub struct Holding {
    /// The head of the generation held.
    pub bundle: CheckedBundle,
    /// The directory, as the user named it.
    pub path: PathBuf,
    root: Dir,
    outboards: Outboards,
    stage: Option<Arc<Stage>>,
    contents: HashMap<ContentId, Place>,
    entries: u64,
    /// Numbers of entries whose bytes are not what the head says.
    damaged: Mutex<BTreeSet<u64>>,
    /// Contents that did not verify.
    damaged_paths: Mutex<BTreeSet<TreePath>>,
}

impl Holding {
    /// Walks the pages of `bundle`'s tree and notes where each content stands below `root`.
    ///
    /// # Errors
    /// The index lacks a page of the tree, or fails.
    pub fn load(
        index: &Index,
        bundle: CheckedBundle,
        path: PathBuf,
        root: Dir,
        outboards: Outboards,
        stage: Option<Arc<Stage>>,
    ) -> Result<Self, SyncError> {
        let mut contents = HashMap::new();
        let mut entries = 0;
        for item in Walk::new(index, bundle.root(), &Selector::all())? {
            let item = item?;
            entries = entries.max(item.number + 1);
            if let Kind::File { size, id, .. } = item.entry.node {
                contents.entry(id).or_insert(Place { path: item.path, size, number: item.number });
            }
        }
        let (damaged, damaged_paths) = (Mutex::default(), Mutex::default());
        Ok(Self { bundle, path, root, outboards, stage, contents, entries, damaged, damaged_paths })
    }

    /// Paths found damaged while serving or verifying.
    pub fn damaged(&self) -> Vec<TreePath> {
        lock(&self.damaged_paths).iter().cloned().collect()
    }

    /// Marks a content as damaged; true if that is news.
    pub fn mark_damaged(&self, id: &ContentId) -> bool {
        let Some(place) = self.contents.get(id) else { return false };
        tracing::warn!(path = %place.path, "damaged on disk: not claimed any more");
        lock(&self.damaged_paths).insert(place.path.clone());
        lock(&self.damaged).insert(place.number)
    }

    /// The share of the content that is held, for a nomination.
    pub fn coverage(&self) -> Coverage {
        let damaged = lock(&self.damaged).len() as u64;
        Coverage::share(self.contents.len() as u64 - damaged.min(self.contents.len() as u64), self.contents.len() as u64)
    }

    fn have(&self) -> Have {
        let damaged = lock(&self.damaged);
        if damaged.is_empty() {
            return Have::Whole;
        }
        let mut runs = Vec::new();
        let mut start = 0;
        for number in damaged.iter().copied().chain([self.entries]) {
            if number > start {
                runs.push((start, number - start));
            }
            start = number + 1;
        }
        Have::Runs(runs)
    }

    /// Opens the file that holds a content: where the tree says, or among the superseded ones.
    fn open(&self, id: &ContentId) -> Option<File> {
        if let Some(place) = self.contents.get(id) {
            if lock(&self.damaged).contains(&place.number) {
                return None;
            }
            let (dir, name) = locate(&self.root, &place.path).ok()?;
            return dir.open_file(&name).ok();
        }
        self.stage.as_ref()?.open_old(id)
    }

    fn small(&self, id: &ContentId, size: u64) -> Option<Vec<u8>> {
        if size > SMALL {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        let read = self.open(id)?.take(size + 1).read_to_end(&mut bytes);
        if read.is_ok() && bytes.len() as u64 == size && proof::verify_small(id, &bytes) {
            return Some(bytes);
        }
        None
    }

    fn range(&self, id: &ContentId, size: u64, range: Range<u64>) -> Result<Vec<u8>, ProofError> {
        let file = self.open(id).ok_or(ProofError::Missing)?;
        let outboard = self.outboards.load_or_make(id, size, &file)?;
        proof::encode_range(&file, id, size, outboard.as_ref(), range)
    }

    /// True if the node says that it holds this content in this size.
    fn claims(&self, id: &ContentId, size: u64) -> bool {
        match self.contents.get(id) {
            Some(place) => place.size == size && !lock(&self.damaged).contains(&place.number),
            None => true,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that a holding learned while serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A peer passed on records in its hello.
    Heard {
        /// Bundle bytes, unchecked.
        bundles: Vec<Vec<u8>>,
        /// Nomination bytes, unchecked.
        nominations: Vec<Vec<u8>>,
    },
    /// A content of this module turned out damaged.
    Damaged(ModuleId),
}
