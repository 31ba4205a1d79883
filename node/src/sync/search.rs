//! Looks for nodes that hold a module, in the background: first, where that may do, among a few, then by every way in at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracker_less::machine::Event;
use tracker_less::net::DialError;
use tracker_less::record::{CheckedBundle, CheckedNomination};

use super::answer::{Answer, Found, Way};
use super::asked::{MAX_PEERS, Shared, Standing, lock};
use super::seeds::Seeds;
use super::source::{Offer, Source};
use super::supply::{SourceName, Supply};
use super::{ModuleRef, Node, rosters};
use crate::web::WebSeed;
use crate::wire::client::PeerClient;
use crate::wire::msg::{self, HeadReply, Hello, Known, NO_ROSTER};
use crate::wire::{self, Deadlines};

/// The mirror book is looked at this often.
const BRISK: Duration = Duration::from_secs(1);
/// Between two questions to the DHT and to those that held nothing.
const BRISK_ROUNDS: usize = 3;
/// Most ways in of earlier runs that are tried.
const MAX_WAYS: usize = 48;
/// Nodes of earlier runs that a narrow search asks.
const FEW: usize = 2;
/// A narrow search waits this long for those that were named.
const NAMED: Duration = Duration::from_millis(500);
/// Most web servers of nominations that one run asks.
const MAX_NOMINATED: usize = 8;
/// How often somebody is dialled who hangs up at once, and how long after that.
const TRIES: usize = 6;
const PAUSE: Duration = Duration::from_secs(2);
/// The first round waits this long for answers before it looks for others.
const ROUND: Duration = Duration::from_secs(10);
/// Most failures remembered for the error message.
const MAX_NOTES: usize = 32;
/// Nominations asked for with a head.
const SAMPLE: u32 = 16;

/// The search of one run.
#[derive(Clone)]
pub(super) struct Search {
    pub(super) node: Arc<Node>,
    pub(super) module: ModuleRef,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) news: Arc<Notify>,
    pub(super) sender: mpsc::Sender<Source>,
    pub(super) seeds: Arc<Seeds>,
}

impl Search {
    /// Runs until the run is over. `due`: when it looks everywhere.
    pub(super) async fn run(self, hints: Vec<Multiaddr>, mut due: watch::Receiver<Option<Instant>>) {
        let mut asks = JoinSet::new();
        let _watch = self.node.swarm.watch(self.module.id).await;
        if let Err(error) = self.node.recall(&self.module).await {
            self.note(error.to_string());
        }
        let narrow = due.borrow_and_update().is_none_or(|due| due > Instant::now());
        let ways = if narrow { Vec::new() } else { self.ways_in(&hints).await };
        for hint in hints.iter().take(MAX_PEERS).cloned() {
            asks.spawn(self.clone().dial(hint));
        }
        for seed in self.seeds.given() {
            asks.spawn(self.clone().look_at(Arc::clone(seed)));
        }
        if narrow {
            tokio::select! {
                () = self.ask_few(&mut asks, &hints) => {}
                () = is_due(&mut due) => {}
            }
        }
        self.node.swarm.widen().await;
        let ways = if narrow { self.ways_in(&hints).await } else { ways };
        for way in ways {
            asks.spawn(self.clone().try_way(way, Found::Remembered));
        }
        let few = {
            let mut shared = lock(&self.shared);
            shared.wide = true;
            std::mem::take(&mut shared.few)
        };
        for (peer, client) in few {
            asks.spawn(self.clone().ask_more(peer, client));
        }
        loop {
            let before = lock(&self.shared).peers.len();
            self.ask_book(&mut asks, true).await;
            self.ask_connected(&mut asks).await;
            self.ask_dht(&mut asks).await;
            if !lock(&self.shared).first_round {
                settle(&mut asks).await;
                self.ask_connected(&mut asks).await;
                settle(&mut asks).await;
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
            for _ in 0..BRISK_ROUNDS {
                tokio::time::sleep(BRISK).await;
                while asks.try_join_next().is_some() {}
                self.ask_book(&mut asks, false).await;
            }
        }
    }

    /// Asks those that were named, and one of earlier runs beside them unless the origin is among them; a few more where these hold
    /// nothing. Ends when all have answered in vain: as long as somebody holds something, the run says what comes next.
    async fn ask_few(&self, asks: &mut JoinSet<()>, hints: &[Multiaddr]) {
        // A node that follows the topic hears of news without asking for them.
        if !self.names_origin(hints) && self.node.swarm.is_narrow().await {
            self.ask_others(asks, hints, 1).await;
        }
        let all = async { while asks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(NAMED, all).await;
        if !self.has_source() {
            self.ask_others(asks, hints, FEW).await;
            while asks.join_next().await.is_some() {}
        }
        if self.has_source() {
            std::future::pending::<()>().await;
        }
    }

    /// True if one of these is a node of the publisher's.
    fn names_origin(&self, hints: &[Multiaddr]) -> bool {
        let Ok(Some(seen)) = self.node.seen(&self.module) else { return false };
        let is_tracker = |part| matches!(part, Protocol::P2p(peer) if seen.charter().trackers.contains(&peer));
        hints.iter().flatten().any(is_tracker)
    }

    /// Asks so many mirrors that are connected, or nodes of earlier runs.
    async fn ask_others(&self, asks: &mut JoinSet<()>, hints: &[Multiaddr], count: usize) {
        let mirrors = self.node.swarm.mirrors(self.module.id).await;
        let rows = self.node.swarm.peers().await;
        let is_mirror = |peer: &PeerId| mirrors.iter().any(|one| one.peer() == *peer);
        let connected = rows.iter().map(|row| row.peer).filter(is_mirror).take(count);
        let connected: Vec<_> = connected.map(|peer| (peer, Vec::new())).collect();
        let rest = count - connected.len();
        self.ask_all(asks, Found::Connected, connected);
        let ways = self.node.state.peers().unwrap_or_default().into_iter().filter_map(|way| way.parse().ok());
        for way in ways.filter(|way| !hints.contains(way)).take(rest) {
            lock(&self.shared).others += 1;
            let search = self.clone();
            asks.spawn(async move {
                search.clone().try_way(way, Found::Remembered).await;
                lock(&search.shared).others -= 1;
                search.news.notify_one();
            });
        }
    }

    fn has_source(&self) -> bool {
        lock(&self.shared).peers.values().any(|standing| *standing == Standing::Source)
    }

    /// Asks the mirrors of the book: all of them, or those only that were never asked.
    async fn ask_book(&self, asks: &mut JoinSet<()>, again: bool) {
        let mut known = Vec::new();
        for nomination in self.node.swarm.mirrors(self.module.id).await {
            self.follow(&nomination).await;
            if again || !lock(&self.shared).peers.contains_key(&nomination.peer()) {
                known.push((nomination.peer(), nomination.nomination().addresses.clone()));
            }
        }
        self.ask_all(asks, Found::Nominated, known);
    }

    /// Asks the DHT, and meanwhile whoever is nominated.
    async fn ask_dht(&self, asks: &mut JoinSet<()>) {
        let swarm = &self.node.swarm;
        let lookup = async { tokio::join!(swarm.providers(self.module.id), swarm.find_bundle(self.module.id)) };
        tokio::pin!(lookup);
        let (providers, bundles) = loop {
            tokio::select! {
                found = &mut lookup => break found,
                () = tokio::time::sleep(BRISK) => self.ask_book(asks, false).await,
            }
        };
        for bundle in bundles {
            self.witness(&bundle).await;
            lock(&self.shared).record(Answer { head: Some(bundle), ..Answer::from("DHT", Way::Dht) });
        }
        self.ask_all(asks, Found::Provider, providers.into_iter().map(|peer| (peer, Vec::new())).collect());
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
        {
            let mut shared = lock(&self.shared);
            // Whoever was handed on may have been dropped already.
            let stays = match shared.peers.get(&peer) {
                Some(Standing::Banned) => true,
                Some(Standing::Again) => standing == Standing::Source,
                _ => false,
            };
            if !stays {
                shared.peers.insert(peer, standing);
            }
        }
        self.news.notify_one();
    }

    async fn exchange(&self, peer: PeerId) -> Result<(Source, Option<CheckedBundle>), String> {
        // A stream that an earlier run left open may have died without a sign.
        if let Some(client) = self.node.streams.take(&peer)
            && let Ok(done) = self.exchange_over(peer, client).await
        {
            return Ok(done);
        }
        let stream = self.node.swarm.open(peer).await.map_err(|error| error.to_string())?;
        self.exchange_over(peer, PeerClient::start(stream, Hello::ours(), Deadlines::default())).await
    }

    async fn exchange_over(&self, peer: PeerId, client: PeerClient) -> Result<(Source, Option<CheckedBundle>), String> {
        client.tell(self.seeds.pulse().clone());
        let seen = self.node.seen(&self.module).map_err(|error| error.to_string())?;
        let known = seen.as_ref().map(Known::of);
        let wide = lock(&self.shared).wide;
        let (sample, since) = if wide { self.more_wanted().await } else { (0, NO_ROSTER) };
        let mut reply = client.head(self.module.id, known, None, sample, since).await.map_err(text)?;
        let told = std::mem::take(&mut reply.rosters);
        // A node that knows nothing newer than what it was told does not repeat it.
        let knows = reply.bundle.is_some() || !reply.holds.is_empty();
        let head = reply.bundle.as_ref().and_then(|bytes| CheckedBundle::verify(bytes).ok());
        let head = head.or_else(|| seen.clone().filter(|_| knows));
        let offers = self.digest(peer, reply, seen).await?;
        rosters::take(&self.node, self.module.id, &client, told).await?;
        if !wide {
            lock(&self.shared).few.push((peer, client.clone()));
        }
        self.node.streams.keep(peer, client.clone());
        Ok((Source { name: SourceName::Peer(peer), supply: Supply::Peer(client), offers }, head))
    }

    /// How many nominations are wanted with a head, and of which time on rosters are.
    async fn more_wanted(&self) -> (u32, u64) {
        (SAMPLE, rosters::since(&self.node, self.module.id).await)
    }

    /// Asks one of the few, whose head is here, what else it knows.
    async fn ask_more(self, peer: PeerId, client: PeerClient) {
        let more = async {
            let seen = self.node.seen(&self.module).map_err(|error| error.to_string())?;
            let (sample, since) = self.more_wanted().await;
            let known = seen.as_ref().map(Known::of);
            let mut reply = client.head(self.module.id, known, None, sample, since).await.map_err(text)?;
            let told = std::mem::take(&mut reply.rosters);
            self.digest(peer, reply, seen).await?;
            rosters::take(&self.node, self.module.id, &client, told).await
        };
        if let Err(why) = more.await {
            self.note(format!("{peer}: {why}"));
        }
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
        let offer = |held: msg::Held| {
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

/// Returns when the time has come.
async fn is_due(due: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = *due.borrow_and_update();
        let wait = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => return,
            changed = due.changed() => if changed.is_err() {
                // The run is over.
                return;
            },
        }
    }
}

/// Waits for all who are being asked, but not for ever.
async fn settle(asks: &mut JoinSet<()>) {
    let all = async { while asks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(ROUND, all).await;
}
