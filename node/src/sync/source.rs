//! The sources of one module: what the search in the background finds, for as long as a run lasts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracker_less::record::CheckedBundle;

use super::answer::Answer;
use super::asked::{MAX_PEERS, Shared, Standing, lock};
use super::choice::OriginUse;
use super::search::Search;
use super::seeds::Seeds;
use super::supply::{SourceName, Supply};
use super::{ModuleRef, Node};
use crate::web::WebSeed;

/// Sources found and not yet taken.
const QUEUE: usize = 64;
/// While somebody of the DHT is there who may lead to others, a run that found nobody looks for this long.
const LOOK: Duration = Duration::from_secs(10);
/// A run that begins with a few looks everywhere after this, unless they are enough.
const NARROW: Duration = Duration::from_secs(1);
/// The same where little is to be brought.
const PRESENTLY: Duration = Duration::from_secs(20);

/// A generation that a source holds.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its head, verified.
    pub bundle: CheckedBundle,
    /// All of it is there, by the source's word.
    pub whole: bool,
}

/// Who holds some generation of the module.
#[derive(Debug, Clone)]
pub struct Source {
    /// Who it is.
    pub name: SourceName,
    /// The way to it.
    pub supply: Supply,
    /// What it holds.
    pub offers: Vec<Offer>,
}

impl Source {
    /// A web seed, and the generation that its static export is of. What it lacks, or has in another version, shows when it is
    /// asked.
    pub fn web(seed: &Arc<WebSeed>, exported: Option<CheckedBundle>) -> Self {
        let name = SourceName::Web(seed.url().to_owned());
        let offers = exported.into_iter().map(|bundle| Offer { bundle, whole: true }).collect();
        Self { name, supply: Supply::Web(Arc::clone(seed)), offers }
    }
}

/// Looks for sources of one module in the background; ends when dropped.
pub struct Finder {
    found: mpsc::Receiver<Source>,
    shared: Arc<Mutex<Shared>>,
    news: Arc<Notify>,
    began: Instant,
    /// When the search looks everywhere; it does not while there is none.
    widening: watch::Sender<Option<Instant>>,
    /// It began with a few.
    was_narrow: bool,
    search: tokio::task::JoinHandle<()>,
    /// What the origin is for, and who that is.
    origin: (OriginUse, Vec<PeerId>),
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.search.abort();
    }
}

impl Finder {
    /// Starts looking: `hints` are dialled, and connected nodes, nominations and the DHT are asked, all at once.
    pub fn start(node: Arc<Node>, module: ModuleRef, hints: Vec<Multiaddr>) -> Self {
        Self::with_seeds(node, module, hints, Arc::default(), false)
    }

    /// The same, with web seeds that may have a static export. A `narrow` search asks those that were named, or a few others, and
    /// them alone for a second: it is for runs that may find nothing new.
    pub fn with_seeds(
        node: Arc<Node>,
        module: ModuleRef,
        hints: Vec<Multiaddr>,
        seeds: Arc<Seeds>,
        narrow: bool,
    ) -> Self {
        let (sender, found) = mpsc::channel(QUEUE);
        let hint_count = hints.len().min(MAX_PEERS).saturating_add(seeds.given().len());
        let shared = Arc::new(Mutex::new(Shared { hints: hint_count, ..Shared::default() }));
        let news = Arc::new(Notify::new());
        let began = Instant::now();
        let (widening, due) = watch::channel(Some(if narrow { began + NARROW } else { began }));
        let search = Search { node, module, shared: Arc::clone(&shared), news: Arc::clone(&news), sender, seeds };
        let search = tokio::spawn(search.run(hints, due));
        let origin = (OriginUse::Equal, Vec::new());
        Self { found, shared, news, began, widening, was_narrow: narrow, search, origin }
    }

    /// Looks everywhere after `wait`, if it does not by now.
    pub fn widen_after(&self, wait: Duration) {
        self.widening.send_replace(Some(Instant::now() + wait));
    }

    /// The sources found are enough: where nothing is new, until more is wanted; where little is, unless one of them fails or it
    /// takes long.
    pub fn suffices(&self, nothing_new: bool) {
        self.widening.send_replace((!nothing_new).then(|| Instant::now() + PRESENTLY));
    }

    /// True if the search began with a few and has not asked everybody yet.
    pub fn is_unfinished(&self) -> bool {
        self.was_narrow && !self.asked_all()
    }

    /// From now on gives only sources that the user wants, and drops the others of those found. Who the origin is, the head's
    /// charter says.
    pub fn admit(&mut self, origin: OriginUse, head: &CheckedBundle, found: &mut Vec<Source>) {
        self.origin = (origin, head.charter().trackers.clone());
        found.retain(|source| self.admits(source));
    }

    /// True if the user wants this source.
    fn admits(&self, source: &Source) -> bool {
        self.origin.0.admits(source, &self.origin.1)
    }

    /// The next node that holds some generation of the module. Waits for as long as it takes; safe to cancel.
    pub async fn next(&mut self) -> Source {
        loop {
            match self.found.recv().await {
                Some(source) if self.admits(&source) => return source,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// The next such node, if one is there now.
    pub fn try_next(&mut self) -> Option<Source> {
        std::iter::from_fn(|| self.found.try_recv().ok()).find(|source| self.origin.0.admits(source, &self.origin.1))
    }

    /// What everybody said that was asked, in the order of the answers.
    pub fn answers(&self) -> Vec<Answer> {
        lock(&self.shared).answers.clone()
    }

    /// Notified when something may have changed: an answer, a failure, the end of a round.
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Never asks this node again.
    pub fn ban(&self, name: &SourceName) {
        self.stands(name, Standing::Banned);
    }

    /// The stream to this node ended: it may be asked again.
    pub fn lost(&self, name: &SourceName) {
        self.stands(name, Standing::Again);
    }

    /// A web seed that is left does not come back in this run.
    fn stands(&self, name: &SourceName, standing: Standing) {
        if let SourceName::Peer(peer) = name {
            lock(&self.shared).peers.insert(*peer, standing);
        }
    }

    /// True once every way in was tried, and nobody is being asked.
    pub fn asked_all(&self) -> bool {
        let shared = lock(&self.shared);
        shared.first_round && !shared.peers.values().any(|standing| *standing == Standing::Asked)
    }

    /// True once that is so, and looking on would bring nobody: no node of the DHT is there, or it had its time.
    pub fn is_exhausted(&self) -> bool {
        self.asked_all() && (!lock(&self.shared).hopeful || self.began.elapsed() >= LOOK)
    }

    /// True while some node has been asked and has not answered.
    pub fn is_asking(&self) -> bool {
        lock(&self.shared).peers.values().any(|standing| *standing == Standing::Asked)
    }

    /// True while an address that the user gave has not answered or failed yet.
    pub fn awaits_hints(&self) -> bool {
        lock(&self.shared).hints > 0
    }

    /// True while a narrow search asks nodes of earlier runs.
    pub fn awaits_others(&self) -> bool {
        lock(&self.shared).others > 0
    }

    /// True if anybody answered in our protocol, with or without the module.
    pub fn was_answered(&self) -> bool {
        lock(&self.shared).answered
    }

    /// What was tried in vain, and what each said.
    pub fn tried(&self) -> Vec<String> {
        lock(&self.shared).notes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_holds_nothing_makes_room() {
        let mut shared = Shared::default();
        let crowd: Vec<PeerId> = (0..200).map(|_| PeerId::random()).collect();
        let asked: Vec<&PeerId> = crowd.iter().filter(|peer| shared.claim(**peer)).collect();
        assert_eq!(asked.len(), MAX_PEERS, "so many at once");
        let honest = PeerId::random();
        assert!(!shared.claim(honest));
        shared.peers.insert(*asked[0], Standing::Again);
        assert!(shared.claim(honest) && !shared.claim(honest));
    }
}
