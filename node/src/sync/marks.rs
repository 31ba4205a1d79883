//! What a node remembers of modules: the highest head seen, what is placed where.

use std::collections::HashSet;
use std::path::Path;

use cid::Cid;
use tracker_less::heads::Fork;
use tracker_less::machine::Event;
use tracker_less::record::{CheckedBundle, Generation};

use super::pass::{Kind, Request};
use super::{ModuleRef, Node, SyncError};
use crate::manifest::path::TreePath;
use crate::store::state::{Fetched, Module, Placed, Registration, Role};

impl Node {
    /// The files that the state keeps of a module.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn marks(&self, module: &ModuleRef) -> Result<Module, SyncError> {
        Ok(self.state.module(&module.publisher.to_string(), module.name.as_str())?)
    }

    /// The highest head ever verified here.
    ///
    /// # Errors
    /// The state directory fails, or holds a bundle that does not verify.
    pub fn seen(&self, module: &ModuleRef) -> Result<Option<CheckedBundle>, SyncError> {
        let Some(bytes) = self.marks(module)?.seen()? else { return Ok(None) };
        CheckedBundle::verify(&bytes).map(Some).map_err(|error| SyncError::BadState { reason: error.to_string() })
    }

    /// Takes note of a verified bundle: the highest head ever seen reaches the disk before anything is done with it, and the
    /// swarm hears of it.
    ///
    /// # Errors
    /// The state could not be written.
    pub async fn witness(&self, bundle: &CheckedBundle) -> Result<(), SyncError> {
        self.note_seen(bundle)?;
        self.swarm.tell(Event::Bundle { bytes: bundle.bytes().to_vec() }).await;
        Ok(())
    }

    /// Tells the swarm what is remembered of a module: the proof of a fork, its highest head, the rosters of its trackers.
    ///
    /// # Errors
    /// The state directory fails.
    pub async fn recall(&self, module: &ModuleRef) -> Result<(), SyncError> {
        if let Some(fork) = self.fork(module)? {
            for half in [&fork.first, &fork.second] {
                self.swarm.tell(Event::Bundle { bytes: half.bytes().to_vec() }).await;
            }
        }
        if let Some(seen) = self.seen(module)? {
            self.swarm.tell(Event::Bundle { bytes: seen.bytes().to_vec() }).await;
        }
        for (bytes, list) in self.marks(module)?.rosters()? {
            self.swarm.tell(Event::Roster { bytes, list: Some(list) }).await;
        }
        Ok(())
    }

    /// Raises the mark `seen`, unless this bundle is below it or contradicts it.
    ///
    /// # Errors
    /// The state could not be written.
    pub fn note_seen(&self, bundle: &CheckedBundle) -> Result<(), SyncError> {
        let module = ModuleRef::of(bundle);
        let known = self.seen(&module)?;
        if known.is_none_or(|known| super::supersedes(bundle, &known)) {
            self.marks(&module)?.set_seen(bundle.bytes())?;
        }
        Ok(())
    }

    /// Keeps the proof of a fork. The first one of an epoch stays.
    ///
    /// # Errors
    /// The state could not be written.
    pub fn note_fork(&self, fork: &Fork) -> Result<(), SyncError> {
        let module = ModuleRef::of(&fork.first);
        if self.fork(&module)?.is_some_and(|known| known.at().epoch >= fork.at().epoch) {
            return Ok(());
        }
        Ok(self.marks(&module)?.set_fork(fork.first.bytes(), fork.second.bytes())?)
    }

    /// The proof of a fork that no higher epoch has led out of yet.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn fork(&self, module: &ModuleRef) -> Result<Option<Fork>, SyncError> {
        let Some([first, second]) = self.marks(module)?.fork()? else { return Ok(None) };
        let (Ok(first), Ok(second)) = (CheckedBundle::verify(&first), CheckedBundle::verify(&second)) else {
            return Ok(None);
        };
        let fork = Fork { first, second };
        let left = self.seen(module)?.is_some_and(|seen| seen.generation().epoch > fork.at().epoch);
        Ok(if left { None } else { Some(fork) })
    }

    /// True if this module is registered with this directory.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn is_registered_here(&self, module: &ModuleRef, dest: &Path) -> Result<bool, SyncError> {
        Ok(self.marks(module)?.registration()?.is_some_and(|registration| registration.directory == dest))
    }

    /// True if some module is registered with this directory.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn is_replica(&self, dest: &Path) -> Result<bool, SyncError> {
        for (publisher, name) in self.state.registered()? {
            let registration = self.state.module(&publisher, &name)?.registration()?;
            if registration.is_some_and(|registration| registration.directory == dest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Files of a replica that turned out damaged while they were served or verified.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn doubted(&self, module: &ModuleRef, dest: &Path) -> Result<HashSet<TreePath>, SyncError> {
        if !self.is_registered_here(module, dest)? {
            return Ok(HashSet::new());
        }
        let damaged = self.marks(module)?.damaged()?;
        Ok(damaged.iter().filter_map(|path| TreePath::new(path).ok()).collect())
    }

    /// The generation that stands in a destination, by the mark of the module or of the last fetch there.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn placed_at(&self, module: &ModuleRef, dest: &Path) -> Result<Option<Generation>, SyncError> {
        if self.is_registered_here(module, dest)? {
            let placed = self.marks(module)?.placed()?;
            return Ok(placed.map(|placed| Generation { epoch: placed.epoch, seq: placed.seq }));
        }
        Ok(self.standing(module, dest)?.map(|bundle| bundle.generation()))
    }

    /// The root of the tree that stands in a destination, by the same marks.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn placed_root(&self, module: &ModuleRef, dest: &Path) -> Result<Option<Cid>, SyncError> {
        if self.is_registered_here(module, dest)? {
            return Ok(self.marks(module)?.placed()?.and_then(|placed| placed.root.parse().ok()));
        }
        Ok(self.standing(module, dest)?.map(|bundle| *bundle.root()))
    }

    /// The head of what stands in a destination, by the same marks.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn standing(&self, module: &ModuleRef, dest: &Path) -> Result<Option<CheckedBundle>, SyncError> {
        if self.is_registered_here(module, dest)? {
            return placed_bundle(&self.marks(module)?);
        }
        Ok(self.fetched_bundle(dest)?.filter(|bundle| ModuleRef::of(bundle) == *module))
    }

    /// The head of the last fetch into a destination.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn fetched_bundle(&self, dest: &Path) -> Result<Option<CheckedBundle>, SyncError> {
        let bytes = self.state.fetched_bundle(dest)?;
        Ok(bytes.and_then(|bytes| CheckedBundle::verify(&bytes).ok()))
    }

    /// True if the last fetch into this destination was of the same module.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn was_fetched(&self, dest: &Path, request: &Request) -> Result<bool, SyncError> {
        Ok(self.fetched_bundle(dest)?.is_some_and(|bundle| ModuleRef::of(&bundle) == request.module))
    }

    /// Web addresses as asked for, else as they were.
    ///
    /// # Errors
    /// The state directory fails.
    pub fn urls(&self, module: &Module, asked: &[String]) -> Result<Vec<String>, SyncError> {
        let former = if asked.is_empty() { module.registration()? } else { None };
        Ok(former.map_or_else(|| asked.to_vec(), |former| former.http))
    }

    /// The last act of a complete pass: what stands in the destination from now on, and whether nothing foreign does.
    ///
    /// # Errors
    /// The state could not be written.
    pub fn mark_placed(&self, request: &Request, bundle: &CheckedBundle, ours: bool) -> Result<(), SyncError> {
        if request.kind == Kind::Fetch {
            let (reference, root) = (request.reference.clone(), bundle.root().to_string());
            let fetched = Fetched { reference, root, ours };
            return Ok(self.state.set_fetched(&request.dest, &fetched, Some(bundle.bytes()))?);
        }
        let module = self.marks(&request.module)?;
        let http = self.urls(&module, &request.http)?;
        module.register(&Registration {
            reference: request.reference.clone(),
            directory: request.dest.clone(),
            role: Role::Mirror,
            selection: request.selection.clone(),
            late: request.late.clone(),
            watch: request.watch,
            http,
            export: None,
            from: None,
            key: None,
            // A replica that follows by itself is as it was; one that somebody asks for is offered again.
            withdrawn: request.by_itself && module.registration()?.is_some_and(|former| former.withdrawn),
            fresh: None,
        })?;
        module.set_damaged(&[])?;
        module.set_placed(&placed(bundle), bundle.bytes())?;
        Ok(())
    }
}

/// The head of the generation that is placed, with the latest Fresh record that is known.
///
/// # Errors
/// The state fails.
pub fn placed_bundle(marks: &Module) -> Result<Option<CheckedBundle>, SyncError> {
    let Some(placed) = marks.placed()? else { return Ok(None) };
    // The one last seen has the later Fresh record, if it is of the same generation.
    let known = [marks.seen()?, marks.held()?].into_iter().flatten();
    let mut bundles = known.filter_map(|bytes| CheckedBundle::verify(&bytes).ok());
    Ok(bundles.find(|bundle| bundle.root().to_string() == placed.root))
}

/// The mark of a generation.
pub fn placed(bundle: &CheckedBundle) -> Placed {
    let Generation { epoch, seq } = bundle.generation();
    Placed { epoch, seq, root: bundle.root().to_string(), head: bundle.head_hash().to_string() }
}
