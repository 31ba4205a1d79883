//! Everything that this node hands out: complete generations, and what a running pass has verified so far.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cid::Cid;
use libp2p::PeerId;
use serde::Serialize;
use tokio::sync::mpsc;
use tracker_less::record::{CheckedBundle, CheckedRoster, Generation, ModuleId, RosterList};

use super::crafted::{Crafted, Key};
use super::deltas;
use super::fetch::SMALL;
use super::holding::Holding;
use super::plan::Want;
use crate::manifest::ContentId;
use crate::store::files::read_small;
use crate::store::index::Index;
use crate::store::outboard::VALUE;
use crate::store::proof;
use crate::store::stage::{Partial, Stage};
use crate::wire::delta::{Lacking, Made, PagePatches, Pair, Part, Short};
use crate::wire::have::Groups;
use crate::wire::msg::{Held, Message};
use crate::wire::{Have, Provider, rules};

/// Notices that wait to be looked at; more are dropped.
const NOTICES: usize = 256;
/// Requests whose answers are kept for the next who asks.
const PATCHES: &str = "patches";
/// The others.
const SLICES: &str = "slices";

/// Something that the shelf learned while serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A peer passed on records; unchecked.
    Heard {
        /// Who.
        from: PeerId,
        /// Bundles.
        bundles: Vec<Vec<u8>>,
        /// Nominations.
        nominations: Vec<Vec<u8>>,
    },
    /// A content of this module turned out damaged.
    Damaged(ModuleId),
}

/// What a running pass has verified so far.
pub struct Arriving {
    bundle: CheckedBundle,
    stage: Arc<Stage>,
    numbers: BTreeMap<ContentId, u64>,
    done: Mutex<BTreeSet<u64>>,
    /// Large contents of which only ranges are here, by number.
    open: Mutex<BTreeMap<u64, Arc<Partial>>>,
}

impl Arriving {
    /// A pass that begins: nothing is there yet.
    pub fn new(bundle: CheckedBundle, stage: Arc<Stage>, wants: &[Want]) -> Self {
        let numbers = wants.iter().map(|want| (want.id, want.number)).collect();
        Self { bundle, stage, numbers, done: Mutex::default(), open: Mutex::default() }
    }

    /// A content is staged and verified.
    pub fn arrived(&self, id: &ContentId) {
        if let Some(number) = self.numbers.get(id) {
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(*number);
            self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(number);
        }
    }

    /// A content begins to arrive in ranges.
    pub fn opened(&self, partial: &Arc<Partial>) {
        if let Some(number) = self.numbers.get(partial.id()) {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(*number, Arc::clone(partial));
        }
    }

    fn have(&self) -> Have {
        let have = Have::of(self.done.lock().unwrap_or_else(PoisonError::into_inner).iter().copied());
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = open.iter().flat_map(|(number, partial)| {
            let (number, size) = (*number, partial.size());
            partial.present().into_iter().filter_map(move |range| Groups::of(number, &range, size))
        });
        have.with_parts(parts)
    }

    /// A range of a content that is here in part.
    fn part(&self, id: &ContentId, size: u64, range: &Range<u64>) -> Option<Vec<u8>> {
        let number = self.numbers.get(id)?;
        let partial = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned()?;
        let here = partial.size() == size && partial.has(range);
        here.then(|| partial.encode_range(range.clone()).ok()).flatten()
    }

    fn open(&self, id: &ContentId) -> Option<std::fs::File> {
        let number = self.numbers.get(id)?;
        let there = self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(number);
        if there { self.stage.open_file(id).ok() } else { None }
    }

    fn small(&self, short: &Short, size: u64) -> Option<Vec<u8>> {
        let mut like = self.numbers.range(short.least()..).map(|(id, _)| id).take_while(|id| short.begins(id));
        like.find_map(|id| {
            let bytes = read_small(&self.open(id)?, usize::try_from(size.min(SMALL)).ok()?).ok()?;
            (bytes.len() as u64 == size && proof::verify_small(id, &bytes)).then_some(bytes)
        })
    }

    fn range(&self, id: &ContentId, size: u64, range: Range<u64>) -> Option<Vec<u8>> {
        let Some(file) = self.open(id) else { return self.part(id, size, &range) };
        let outboard = crate::store::outboard::Outboard::load(self.stage.outboards(), id, size).ok()?;
        proof::encode_range(&file, id, size, outboard.as_ref(), range).ok()
    }
}

#[derive(Default)]
struct Module {
    newest: Option<CheckedBundle>,
    holding: Option<Arc<Holding>>,
    arriving: Option<Arc<Arriving>>,
    nominations: Vec<Vec<u8>>,
    rosters: Vec<(CheckedRoster, RosterList)>,
}

/// What this node hands out, by module.
pub struct Shelf {
    index: Arc<Index>,
    modules: RwLock<HashMap<ModuleId, Module>>,
    crafted: Crafted,
    notices: mpsc::Sender<Notice>,
}

impl Shelf {
    /// An empty shelf, and where its notices arrive.
    pub fn new(index: Arc<Index>) -> (Self, mpsc::Receiver<Notice>) {
        let (notices, heard) = mpsc::channel(NOTICES);
        (Self { index, modules: RwLock::default(), crafted: Crafted::default(), notices }, heard)
    }

    fn change<T>(&self, module: ModuleId, change: impl FnOnce(&mut Module) -> T) -> T {
        let mut modules = self.modules.write().unwrap_or_else(PoisonError::into_inner);
        change(modules.entry(module).or_default())
    }

    fn look<T>(&self, module: &ModuleId, look: impl FnOnce(&Module) -> Option<T>) -> Option<T> {
        look(self.modules.read().unwrap_or_else(PoisonError::into_inner).get(module)?)
    }

    /// Holds a generation from now on, in place of the former one.
    pub fn put(&self, holding: Arc<Holding>) {
        let bundle = holding.bundle.clone();
        self.heard_of(&bundle);
        self.change(bundle.module(), |module| module.holding = Some(holding));
    }

    /// Holds nothing of a module any more.
    pub fn remove(&self, module: &ModuleId) {
        self.modules.write().unwrap_or_else(PoisonError::into_inner).remove(module);
    }

    /// A pass begins (or, with none, ends).
    pub fn set_arriving(&self, module: ModuleId, arriving: Option<Arc<Arriving>>) {
        self.change(module, |entry| entry.arriving = arriving);
    }

    /// Remembers the newest head, held or not: it is passed on.
    pub fn heard_of(&self, bundle: &CheckedBundle) {
        self.change(bundle.module(), |module| {
            let newer = module.newest.as_ref().is_none_or(|known| super::supersedes(bundle, known));
            if newer {
                module.newest = Some(bundle.clone());
            }
        });
    }

    /// Nominations to pass on.
    pub fn set_nominations(&self, module: ModuleId, nominations: Vec<Vec<u8>>) {
        self.change(module, |entry| entry.nominations = nominations);
    }

    /// Rosters to pass on, the latest first.
    pub fn set_rosters(&self, module: ModuleId, rosters: Vec<(CheckedRoster, RosterList)>) {
        self.change(module, |entry| entry.rosters = rosters);
    }

    /// What is held of a module.
    pub fn holding(&self, module: &ModuleId) -> Option<Arc<Holding>> {
        self.look(module, |module| module.holding.clone())
    }

    /// Everything that is held.
    pub fn holdings(&self) -> Vec<Arc<Holding>> {
        let modules = self.modules.read().unwrap_or_else(PoisonError::into_inner);
        modules.values().filter_map(|module| module.holding.clone()).collect()
    }

    /// The heads of everything that is held, arriving, or heard of as the newest.
    pub fn heads(&self) -> Vec<CheckedBundle> {
        let modules = self.modules.read().unwrap_or_else(PoisonError::into_inner);
        let of = |module: &Module| {
            let held = module.holding.as_ref().map(|holding| holding.bundle.clone());
            let arriving = module.arriving.as_ref().map(|arriving| arriving.bundle.clone());
            [held, arriving, module.newest.clone()]
        };
        modules.values().flat_map(of).flatten().collect()
    }

    /// Everything of which something is known here.
    pub fn modules(&self) -> Vec<ModuleId> {
        self.modules.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// True while a pass brings something of this module.
    pub fn is_arriving(&self, module: &ModuleId) -> bool {
        self.arriving(module).is_some()
    }

    /// The newest generation heard of.
    pub fn newest(&self, module: &ModuleId) -> Option<Generation> {
        self.look(module, |module| module.newest.as_ref().map(CheckedBundle::generation))
    }

    fn arriving(&self, module: &ModuleId) -> Option<Arc<Arriving>> {
        self.look(module, |module| module.arriving.clone())
    }

    fn notice(&self, notice: Notice) {
        // A full queue means that somebody floods us: what they say can wait for ever.
        let _ = self.notices.try_send(notice);
    }

    /// What was made for another request of this kind for the same of the generation held.
    fn lately<T: Serialize>(&self, module: &ModuleId, what: &str, asked: &[T]) -> Option<Made> {
        self.crafted.get(&Key::new(self.holding(module)?.bundle.root(), what, asked)?)
    }

    /// Makes what is asked for, and keeps it for the next who asks if it is as good as it gets.
    fn craft<T: Serialize>(
        &self,
        (module, what, asked): (&ModuleId, &str, &[T]),
        make: impl FnOnce(&Holding) -> (Made, bool),
    ) -> Made {
        let Some(holding) = self.holding(module) else { return Made::none(asked.len()) };
        let key = Key::new(holding.bundle.root(), what, asked);
        if let Some(made) = key.and_then(|key| self.crafted.get(&key)) {
            return made;
        }
        let (made, is_best) = make(&holding);
        if let Some(key) = key.filter(|_| is_best && made.slots.iter().any(Option::is_some)) {
            self.crafted.put(key, &made);
        }
        made
    }

    fn damaged(&self, holding: &Holding, id: &ContentId) {
        if holding.mark_damaged(id) {
            self.notice(Notice::Damaged(holding.bundle.module()));
        }
    }
}

fn held(bundle: &CheckedBundle, whole: bool) -> Held {
    let Generation { epoch, seq } = bundle.generation();
    Held { epoch, seq, root: *bundle.root(), whole }
}

impl Provider for Shelf {
    fn bundle(&self, module: &ModuleId) -> Option<CheckedBundle> {
        self.look(module, |module| module.newest.clone())
    }

    fn held(&self, module: &ModuleId) -> Option<CheckedBundle> {
        let holding = self.holding(module).map(|holding| holding.bundle.clone());
        let arriving = || self.arriving(module).map(|arriving| arriving.bundle.clone());
        holding.or_else(arriving)
    }

    fn holds(&self, module: &ModuleId) -> Vec<Held> {
        let holding = self.holding(module).map(|holding| held(&holding.bundle, holding.is_whole()));
        let arriving = self.arriving(module).map(|arriving| held(&arriving.bundle, false));
        let mut holds: Vec<Held> = arriving.into_iter().chain(holding).collect();
        holds.dedup_by(|second, first| first.root == second.root);
        holds
    }

    fn nominations(&self, module: &ModuleId) -> Vec<Vec<u8>> {
        self.look(module, |module| Some(module.nominations.clone())).unwrap_or_default()
    }

    fn rosters(&self, module: &ModuleId, since: u64) -> Vec<Vec<u8>> {
        let later = |module: &Module| {
            let later = module.rosters.iter().filter(|(roster, _)| roster.roster().issued > since);
            Some(later.map(|(roster, _)| roster.bytes().to_vec()).collect())
        };
        self.look(module, later).unwrap_or_default()
    }

    fn page(&self, module: &ModuleId, cid: &Cid) -> Option<Vec<u8>> {
        let list = |module: &Module| {
            let list = module.rosters.iter().find(|(_, list)| list.cid() == *cid);
            list.map(|(_, list)| list.bytes().to_vec())
        };
        if let Some(list) = self.look(module, list) {
            return Some(list);
        }
        self.index.page(cid).ok().flatten()
    }

    fn page_patches(&self, _module: &ModuleId, pages: &[(Short, Short)]) -> PagePatches {
        deltas::pages(&self.index, pages)
    }

    fn small(&self, module: &ModuleId, id: &Short, size: u64) -> Option<Vec<u8>> {
        if let Some(holding) = self.holding(module)
            && let Some(id) = holding.find(id, size)
        {
            match holding.small(&id, size) {
                Some(bytes) => return Some(bytes),
                None if holding.claims(&id, size) && size <= SMALL => self.damaged(&holding, &id),
                None => {}
            }
        }
        self.arriving(module)?.small(id, size)
    }

    fn range(&self, module: &ModuleId, id: &ContentId, size: u64, range: Range<u64>) -> Option<Vec<u8>> {
        if let Some(holding) = self.holding(module) {
            match holding.range(id, size, range.clone()) {
                Ok(bytes) => return Some(bytes),
                Err(proof::ProofError::Damaged { .. }) if holding.claims(id, size) => self.damaged(&holding, id),
                Err(error) => tracing::debug!(%error, "range not served"),
            }
        }
        self.arriving(module)?.range(id, size, range)
    }

    fn patches(&self, module: &ModuleId, pairs: &[Pair]) -> Made {
        self.craft((module, PATCHES, pairs), |holding| deltas::patches(holding, pairs))
    }

    fn outboard(&self, module: &ModuleId, id: &ContentId, size: u64, start: u64) -> Option<Vec<u8>> {
        let most = usize::try_from(rules::MAX_BATCH).ok()? / VALUE;
        Some(self.holding(module)?.hashes(id, size)?.values(start, most))
    }

    fn sums(&self, module: &ModuleId, part: &Part) -> Option<Vec<u8>> {
        deltas::sums(&*self.holding(module)?, part)
    }

    fn slices(&self, module: &ModuleId, parts: &[Lacking]) -> Made {
        self.craft((module, SLICES, parts), |holding| (deltas::slices(holding, parts), true))
    }

    fn made_lately(&self, request: &Message) -> Option<Message> {
        match request {
            Message::GetPatches(get) => self.lately(&get.module, PATCHES, &get.pairs).map(Message::Patches),
            Message::GetSlices(get) => self.lately(&get.module, SLICES, &get.parts).map(Message::Slices),
            _ => None,
        }
    }

    fn have(&self, module: &ModuleId, root: &Cid) -> Have {
        let holding = self.holding(module).filter(|holding| holding.bundle.root() == root);
        let arriving = self.arriving(module).filter(|arriving| arriving.bundle.root() == root);
        match (holding, arriving) {
            (Some(holding), _) => holding.have(),
            (None, Some(arriving)) => arriving.have(),
            (None, None) => Have::None,
        }
    }

    fn heard(&self, from: PeerId, bundles: Vec<Vec<u8>>, nominations: Vec<Vec<u8>>) {
        self.notice(Notice::Heard { from, bundles, nominations });
    }
}
