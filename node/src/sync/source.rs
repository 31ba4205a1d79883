//! Finds nodes that hold a module: every way in at once, for as long as a run lasts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracker_less::machine::Event;
use tracker_less::net::DialError;
use tracker_less::record::{CheckedBundle, CheckedNomination};

use super::answer::{Answer, Found, Way};
use super::asked::{MAX_PEERS, Shared, Standing, lock};
use super::choice::OriginUse;
use super::seeds::Seeds;
use super::supply::{SourceName, Supply};
use super::{ModuleRef, Node, rosters};
use crate::web::WebSeed;
use crate::wire::client::PeerClient;
use crate::wire::msg::{HeadReply, Hello, Known};
use crate::wire::{self, Deadlines};

/// Sources found and not yet taken.
const QUEUE: usize = 64;
/// Between two rounds of the mirror book and the DHT.
const ROUND: Duration = Duration::from_secs(3);
/// Most ways in of earlier runs that are tried.
const MAX_WAYS: usize = 48;
/// While somebody of the DHT is there who may lead to others, a run that found nobody looks for this long.
const LOOK: Duration = Duration::from_secs(10);
/// Most web servers of nominations that one run asks.
const MAX_NOMINATED: usize = 8;
/// How often somebody is dialled who hangs up at once, and how long after that.
const TRIES: usize = 6;
const PAUSE: Duration = Duration::from_secs(2);
/// Most failures remembered for the error message.
const MAX_NOTES: usize = 32;
/// Nominations asked for with a head.
const SAMPLE: u32 = 16;

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
        Self::with_seeds(node, module, hints, Arc::default())
    }

    /// The same, with web seeds that may have a static export.
    pub fn with_seeds(node: Arc<Node>, module: ModuleRef, hints: Vec<Multiaddr>, seeds: Arc<Seeds>) -> Self {
        let (sender, found) = mpsc::channel(QUEUE);
        let hint_count = hints.len().min(MAX_PEERS).saturating_add(seeds.given().len());
        let shared = Arc::new(Mutex::new(Shared { hints: hint_count, ..Shared::default() }));
        let news = Arc::new(Notify::new());
        let search = Search { node, module, shared: Arc::clone(&shared), news: Arc::clone(&news), sender, seeds };
        let search = tokio::spawn(search.run(hints));
        let (began, origin) = (Instant::now(), (OriginUse::Equal, Vec::new()));
        Self { found, shared, news, began, search, origin }
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

    /// True if anybody answered in our protocol, with or without the module.
    pub fn was_answered(&self) -> bool {
        lock(&self.shared).answered
    }

    /// What was tried in vain, and what each said.
    pub fn tried(&self) -> Vec<String> {
        lock(&self.shared).notes.clone()
    }
}

#[derive(Clone)]
struct Search {
    node: Arc<Node>,
    module: ModuleRef,
    shared: Arc<Mutex<Shared>>,
    news: Arc<Notify>,
    sender: mpsc::Sender<Source>,
    seeds: Arc<Seeds>,
}

impl Search {
    async fn run(self, hints: Vec<Multiaddr>) {
        let mut asks = JoinSet::new();
        let _watch = self.node.swarm.watch(self.module.id).await;
        if let Err(error) = self.node.recall(&self.module).await {
            self.note(error.to_string());
        }
        for way in self.ways_in(&hints).await {
            asks.spawn(self.clone().try_way(way, Found::Remembered));
        }
        for hint in hints.into_iter().take(MAX_PEERS) {
            asks.spawn(self.clone().dial(hint));
        }
        for seed in self.seeds.given() {
            asks.spawn(self.clone().look_at(Arc::clone(seed)));
        }
        loop {
            let before = lock(&self.shared).peers.len();
            let mut known = Vec::new();
            for nomination in self.node.swarm.mirrors(self.module.id).await {
                self.follow(&nomination).await;
                known.push((nomination.peer(), nomination.nomination().addresses.clone()));
            }
            self.ask_all(&mut asks, Found::Nominated, known);
            self.ask_connected(&mut asks).await;
            let swarm = &self.node.swarm;
            let (providers, bundles) = tokio::join!(swarm.providers(self.module.id), swarm.find_bundle(self.module.id));
            for bundle in bundles {
                self.witness(&bundle).await;
                lock(&self.shared).record(Answer { head: Some(bundle), ..Answer::from("DHT", Way::Dht) });
            }
            self.ask_all(&mut asks, Found::Provider, providers.into_iter().map(|peer| (peer, Vec::new())).collect());
            if !lock(&self.shared).first_round {
                while asks.join_next().await.is_some() {}
                self.ask_connected(&mut asks).await;
                while asks.join_next().await.is_some() {}
            }
            let (in_dht, rows) = (self.node.swarm.in_dht().await, self.node.swarm.peers().await);
            {
                let mut shared = lock(&self.shared);
                // A round that met nobody new, with nobody left to ask, has the answer of the one before.
                let met = shared.peers.len() > before || rows.iter().any(|row| !shared.peers.contains_key(&row.peer));
                shared.hopeful = in_dht && (met || !shared.first_round);
                shared.first_round = true;
            }
            self.news.notify_one();
            tokio::time::sleep(ROUND).await;
            while asks.try_join_next().is_some() {}
        }
    }

    /// Ways in of earlier runs. Who is connected already needs none.
    async fn ways_in(&self, hints: &[Multiaddr]) -> Vec<Multiaddr> {
        if !self.node.swarm.peers().await.is_empty() {
            return Vec::new();
        }
        let all = self.node.state.ways_in().into_iter().filter_map(|way| way.parse().ok());
        all.filter(|way| !hints.contains(way)).take(MAX_WAYS).collect()
    }

    /// Hands on the web servers that a nomination names. Nothing of them is believed.
    async fn follow(&self, nomination: &CheckedNomination) {
        for url in &nomination.nomination().http {
            let is_new = {
                let told = &mut lock(&self.shared).told;
                told.len() < MAX_NOMINATED && told.insert(url.clone())
            };
            if !is_new {
                continue;
            }
            let peers = self.node.swarm.peers().await;
            let row = peers.iter().find(|row| row.peer == nomination.peer());
            if let Some(seed) = self.seeds.nominated(url, row.and_then(|row| row.addresses.first())) {
                // Without a run that listens it does not matter.
                let _ = self.sender.send(Source::web(&seed, None)).await;
            }
        }
    }

    async fn ask_connected(&self, asks: &mut JoinSet<()>) {
        let rows = self.node.swarm.peers().await;
        self.ask_all(asks, Found::Connected, rows.into_iter().map(|row| (row.peer, Vec::new())).collect());
    }

    /// Asks nodes, those first that were not asked before: a crowd of useless ones keeps nobody from having a turn.
    fn ask_all(&self, asks: &mut JoinSet<()>, found: Found, mut known: Vec<(PeerId, Vec<Multiaddr>)>) {
        {
            let shared = lock(&self.shared);
            known.sort_by_key(|(peer, _)| shared.peers.contains_key(peer));
        }
        for (peer, addresses) in known {
            self.ask_once(asks, peer, addresses, found);
        }
    }

    /// Asks a node unless it is being asked, is a source, or was banned.
    fn ask_once(&self, asks: &mut JoinSet<()>, peer: PeerId, addresses: Vec<Multiaddr>, found: Found) {
        if peer == self.node.swarm.peer_id() || !self.claim(peer) {
            return;
        }
        let search = self.clone();
        asks.spawn(async move {
            if !addresses.is_empty() {
                // A failure shows when the stream is opened.
                let _ = search.node.swarm.connect(peer, addresses).await;
            }
            search.ask(peer, found).await;
        });
    }

    /// Marks a node as being asked; false if it must not be asked now.
    fn claim(&self, peer: PeerId) -> bool {
        lock(&self.shared).claim(peer)
    }

    /// Tries a way in; more than once where somebody is there who has no place for us at the moment.
    async fn try_way(self, way: Multiaddr, found: Found) {
        for left in (0..TRIES).rev() {
            match self.node.swarm.dial(way.clone()).await {
                Err(DialError::HungUp { .. }) if left > 0 => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    let answer = Answer::from(&way.to_string(), Way::Hello);
                    lock(&self.shared).record(Answer { error: Some(error.to_string()), ..answer });
                    return self.note(error.to_string());
                }
                Ok(peer) if self.claim(peer) => return self.ask(peer, found).await,
                Ok(_) => return,
            }
        }
    }

    async fn dial(self, hint: Multiaddr) {
        self.clone().try_way(hint, Found::Given).await;
        self.hint_settled();
    }

    fn hint_settled(&self) {
        let mut shared = lock(&self.shared);
        shared.hints = shared.hints.saturating_sub(1);
        drop(shared);
        self.news.notify_one();
    }

    /// Reads the head of a web seed's static export, if there is one.
    async fn look_at(self, seed: Arc<WebSeed>) {
        match self.exported(&seed).await {
            Ok(bundle) => {
                lock(&self.shared).answered = true;
                lock(&self.shared).record(Answer { head: Some(bundle.clone()), ..Answer::from(seed.url(), Way::Web) });
                // Without a run that listens it does not matter.
                let _ = self.sender.send(Source::web(&seed, Some(bundle))).await;
            }
            Err(why) => {
                lock(&self.shared).record(Answer { error: Some(why.clone()), ..Answer::from(seed.url(), Way::Web) });
                self.note(format!("{}: {why}", seed.url()));
            }
        }
        self.hint_settled();
    }

    async fn exported(&self, seed: &WebSeed) -> Result<CheckedBundle, String> {
        let bytes = seed.bundle().await.map_err(text)?.ok_or("no static export")?;
        let bundle = CheckedBundle::verify(&bytes).map_err(|error| error.to_string())?;
        if bundle.module() != self.module.id {
            return Err("the export of another module".to_owned());
        }
        self.witness(&bundle).await;
        Ok(bundle)
    }

    /// Opens a stream, exchanges heads, and hands the node on if it holds something.
    async fn ask(&self, peer: PeerId, found: Found) {
        let name = peer.to_string();
        let answer = Answer { found: Some(found), ..Answer::from(&name, Way::Hello) };
        let standing = match self.exchange(peer).await {
            Ok((source, head)) => {
                lock(&self.shared).answered = true;
                if source.offers.is_empty() {
                    let shown = head.as_ref().map(|head| format!("shows {}, holds nothing", head.generation()));
                    self.note(format!("{peer}: {}", shown.unwrap_or_else(|| "knows nothing of it".to_owned())));
                }
                lock(&self.shared).record(Answer { head, holds: source.offers.clone(), ..answer });
                if source.offers.is_empty() {
                    Standing::Again
                } else if self.sender.send(source).await.is_ok() {
                    Standing::Source
                } else {
                    Standing::Banned
                }
            }
            Err(why) => {
                self.note(format!("{peer}: {why}"));
                lock(&self.shared).record(Answer { error: Some(why), ..answer });
                Standing::Again
            }
        };
        lock(&self.shared).peers.insert(peer, standing);
        self.news.notify_one();
    }

    async fn exchange(&self, peer: PeerId) -> Result<(Source, Option<CheckedBundle>), String> {
        let stream = self.node.swarm.open(peer).await.map_err(|error| error.to_string())?;
        let pulse = self.seeds.pulse().clone();
        let client = PeerClient::start_told(stream, Hello::ours(), Deadlines::default(), pulse);
        let seen = self.node.seen(&self.module).map_err(|error| error.to_string())?;
        let known = seen.as_ref().map(Known::of);
        let since = rosters::since(&self.node, self.module.id).await;
        let mut reply = client.head(self.module.id, known, None, SAMPLE, since).await.map_err(text)?;
        let told = std::mem::take(&mut reply.rosters);
        // A node that knows nothing newer than what it was told does not repeat it.
        let knows = reply.bundle.is_some() || !reply.holds.is_empty();
        let head = reply.bundle.as_ref().and_then(|bytes| CheckedBundle::verify(bytes).ok());
        let head = head.or_else(|| seen.clone().filter(|_| knows));
        let offers = self.digest(peer, reply, seen).await?;
        rosters::take(&self.node, self.module.id, &client, told).await?;
        Ok((Source { name: SourceName::Peer(peer), supply: Supply::Peer(client), offers }, head))
    }

    /// Verifies what a node answered, takes note of it, and says which generations it holds.
    async fn digest(&self, from: PeerId, reply: HeadReply, seen: Option<CheckedBundle>) -> Result<Vec<Offer>, String> {
        let mut known: Vec<CheckedBundle> = seen.into_iter().collect();
        for bytes in reply.bundle.iter().chain(&reply.held) {
            let bundle = CheckedBundle::verify(bytes).map_err(|error| error.to_string())?;
            if bundle.module() != self.module.id {
                return Err("a head of another module".to_owned());
            }
            self.witness(&bundle).await;
            known.push(bundle);
        }
        for bytes in reply.nominations {
            if let Ok(nomination) = CheckedNomination::verify(&bytes)
                && nomination.nomination().module == self.module.id
            {
                self.follow(&nomination).await;
            }
            self.node.swarm.tell(Event::Nomination { bytes: bytes.into_vec(), from }).await;
        }
        known.extend(self.node.swarm.candidates(self.module.id).await);
        let offer = |held: wire::msg::Held| {
            let mut same = known.iter().filter(|bundle| bundle.generation() == held.generation());
            let bundle = same.find(|bundle| *bundle.root() == held.root)?.clone();
            Some(Offer { bundle, whole: held.whole })
        };
        Ok(reply.holds.into_iter().filter_map(offer).collect())
    }

    async fn witness(&self, bundle: &CheckedBundle) {
        if let Err(error) = self.node.witness(bundle).await {
            self.note(error.to_string());
        }
    }

    fn note(&self, what: String) {
        let mut shared = lock(&self.shared);
        if shared.notes.len() < MAX_NOTES && !shared.notes.contains(&what) {
            shared.notes.push(what);
        }
    }
}

fn text(error: wire::Error) -> String {
    error.to_string()
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
