//! What a running node is: its state, its swarm, what it holds, and the tasks that keep these together. A standalone command
//! is the same thing for the time of one run, with an identity of its own and no registrations.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio::task::JoinSet;
use tracker_less::net::{self, DhtMode};
use tracker_less::nominate::Profile;
use tracker_less::record::{CheckedBundle, ModuleId, PublicKey, SecretKey};

use crate::attach::{dns, doorkeeper::Doorkeeper};
use crate::manifest::select::Selector;
use crate::manifest::selection::Selection;
use crate::reference::Reference;
use crate::store::files::Dir;
use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::state::{Registration, Role, State};
use crate::sync::dest::OWN_DIR;
use crate::sync::holding::{Ground, Holding};
use crate::sync::keys::Keys;
use crate::sync::marks::placed_bundle;
use crate::sync::passes::Passes;
use crate::sync::shelf::{Notice, Shelf};
use crate::sync::streams::Streams;
use crate::sync::sweep::{self, Keeping};
use crate::sync::{ModuleRef, Node, SyncError, unix_now};
use crate::verbs::pass::selector;
use crate::wire::limit::Served;
use crate::wire::{self, Deadlines, Limits};

mod export;
mod house;
mod keys;
mod news;
mod serving;
mod watchman;
mod withdraw;

pub use export::export_placed;
use house::{keep_house, keep_records, mend, records, remember_peers};
use keys::{lasting_key, renew};
pub use keys::{make_key, random};
use serving::{accept, attend};
pub use watchman::watched;

/// Life of a Fresh record where the registration says nothing, seconds.
const FRESH_FOR: u64 = 14 * 24 * 3600;

/// How a node takes part.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The state directory.
    pub state: PathBuf,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses others reach this node at, beside those it listens on.
    pub external: Vec<Multiaddr>,
    /// What it says of itself.
    pub profile: Profile,
    /// Nodes to dial at the start.
    pub peers: Vec<Multiaddr>,
    /// The same, remembered for later runs too.
    pub bootstrap: Vec<Multiaddr>,
    /// Take part in the DHT.
    pub dht: bool,
    /// Take no part in gossip: for tests of what then still leads to others.
    pub no_gossip: bool,
    /// Find and be found on the local network.
    pub mdns: bool,
    /// Who is asked for names, in the place of the system's name servers.
    pub name_server: Option<SocketAddr>,
    /// A lasting node: its own identity, DHT server, registrations served.
    pub serve: bool,
    /// Bytes per second that others get, and that are brought.
    pub rates: Rates,
    /// What a mirror keeps of former generations.
    pub keeping: Keeping,
}

/// Limits of bytes per second; none for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// To others.
    pub up: Option<u64>,
    /// From others.
    pub down: Option<u64>,
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A flow's failure: state, index, files.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Another `serve` runs on this state (46).
    #[error("another node runs on {state}")]
    Running {
        /// The state directory.
        state: PathBuf,
    },
    /// The network side failed (10 with the address named).
    #[error(transparent)]
    Net(#[from] net::StartError),
    /// No randomness for a key.
    #[error("no randomness: {reason}")]
    Random {
        /// The system's word.
        reason: String,
    },
}

/// A started node. Its tasks end when this is dropped.
pub struct Service {
    /// What the flows work with.
    pub node: Arc<Node>,
    settings: Settings,
    /// A newer head was heard of.
    news: Arc<Notify>,
    doorkeeper: Mutex<Doorkeeper>,
    /// What peers get from here.
    limits: Limits,
    /// What is under way.
    passes: Passes,
    tasks: JoinSet<()>,
    _lock: Option<Lock>,
}

impl Service {
    /// Starts a node: identity, index, swarm, registered modules, tasks.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing keeps running after an error.
    pub async fn start(mut settings: Settings) -> Result<Self, StartError> {
        let state = Arc::new(State::open(&settings.state).map_err(SyncError::from)?);
        let given: Vec<String> = settings.bootstrap.iter().map(ToString::to_string).collect();
        state.add_bootstrap(&given).map_err(SyncError::from)?;
        settings.peers.append(&mut settings.bootstrap);
        let lock = if settings.serve { Some(lock(&settings)?) } else { None };
        let key = if settings.serve { lasting_key(&state)? } else { SecretKey::from_seed(random()?) };
        let index = Arc::new(Index::open(&settings.state).map_err(SyncError::from)?);
        let (shelf, notices) = Shelf::new(Arc::clone(&index));
        let (swarm, events, incoming) = net::start(config(&settings, &state, key)?).await?;
        let (shelf, streams, keeping) = (Arc::new(shelf), Streams::default(), settings.keeping);
        let node = Arc::new(Node { state, index, swarm, shelf, streams, keeping });
        let limits = Limits::new(Deadlines::default()).with_rate(settings.rates.up);
        let news = Arc::new(Notify::new());
        let tasks = begin(&node, (incoming, events, notices), &limits, &news);
        let (doorkeeper, passes) = (Mutex::default(), Passes::with_rate(settings.rates.down));
        let mut service = Self { node, settings, news, doorkeeper, limits, passes, tasks, _lock: lock };
        if service.serves() {
            service.load_registered().await?;
            // Its first round is about what is held by now.
            let node = Arc::clone(&service.node);
            service.tasks.spawn(watched("keeping house", move || keep_house(Arc::clone(&node))));
            let node = Arc::clone(&service.node);
            service.tasks.spawn(watched("mending", move || mend(Arc::clone(&node))));
        }
        Ok(service)
    }

    /// Takes back what this node announced, and ends its tasks.
    pub async fn stop(&self) {
        remember_peers(&self.node).await;
        if self.serves() {
            keep_records(&self.node).await;
        }
        self.node.swarm.shutdown().await;
        if let Err(error) = self.node.index.flush() {
            tracing::warn!(%error, "index not flushed");
        }
    }

    /// True for a lasting node.
    pub fn serves(&self) -> bool {
        self.settings.serve
    }

    /// Notified when a newer head was heard of.
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Whether a stranger at `client` may nominate itself now; if so it counts.
    pub fn admits(&self, client: IpAddr, now: u64) -> bool {
        self.doorkeeper.lock().unwrap_or_else(PoisonError::into_inner).admits(client, now)
    }

    /// The passes that are under way.
    pub fn passes(&self) -> &Passes {
        &self.passes
    }

    /// Who gets something from here now.
    pub fn served(&self) -> Vec<Served> {
        self.limits.gate(|gate, now| gate.served(now))
    }

    /// The addresses that the user gave.
    pub fn hints(&self) -> Vec<Multiaddr> {
        self.settings.peers.clone()
    }

    /// Those of a reference, and the user's.
    pub fn hints_with(&self, more: &[Multiaddr]) -> Vec<Multiaddr> {
        let mut hints = more.to_vec();
        hints.extend(self.hints().into_iter().filter(|hint| !more.contains(hint)));
        hints
    }

    /// True if there is anybody to ask: an address of the user's, or a way in of earlier days.
    pub fn can_ask(&self) -> bool {
        self.serves() || !self.settings.peers.is_empty() || !self.node.state.ways_in().is_empty()
    }

    /// The keys of this name; `default` is made if it is absent. Also says whether it was made now.
    ///
    /// # Errors
    /// There is no such key, or the state fails.
    pub fn publisher_keys(&self, name: &str) -> Result<(Keys, bool), StartError> {
        let state = &self.node.state;
        match Keys::load(state, name)? {
            Some(keys) => Ok((keys, false)),
            None if name == "default" => Ok((Keys::of_root(name, make_key(state, name)?), true)),
            None => Err(SyncError::NoKey { name: name.to_owned() }.into()),
        }
    }

    /// The public key of the lasting node of this state, made if absent.
    ///
    /// # Errors
    /// The state fails.
    pub fn lasting_public_key(&self) -> Result<PublicKey, StartError> {
        Ok(lasting_key(&self.node.state)?.public())
    }

    /// The peer id of the lasting node of this state, made if absent.
    ///
    /// # Errors
    /// The state fails.
    pub fn lasting_peer_id(&self) -> Result<PeerId, StartError> {
        let key = lasting_key(&self.node.state)?;
        Ok(key.public().peer_id().unwrap_or_else(|| self.node.swarm.peer_id()))
    }

    /// Where this node listens, with its id.
    pub async fn addresses(&self) -> Vec<String> {
        let id = Protocol::P2p(self.node.swarm.peer_id());
        self.node.swarm.listen_addresses().await.into_iter().map(|at| at.with(id.clone()).to_string()).collect()
    }

    /// The addresses of a serving node for a link.
    pub async fn public_addresses(&self) -> Vec<Multiaddr> {
        if !self.serves() {
            return Vec::new();
        }
        let id = Protocol::P2p(self.node.swarm.peer_id());
        self.node.swarm.listen_addresses().await.into_iter().map(|at| at.with(id.clone())).collect()
    }

    /// Where outboards of a published module are kept.
    ///
    /// # Errors
    /// The state fails.
    pub fn outboards(&self, module: &ModuleId) -> Result<Dir, SyncError> {
        outboards(&self.node.state, module)
    }

    /// A directory for one run, and its path.
    ///
    /// # Errors
    /// The state fails.
    pub fn scratch(&self) -> Result<(Dir, PathBuf), SyncError> {
        let name = format!("scratch-{}-{:x}", std::process::id(), unix_now());
        let dir = Dir::open(self.node.state.path())?.child_or_make(&name)?;
        Ok((dir, self.node.state.path().join(name)))
    }

    /// What the index calls the tree of a registration, or of the last fetch.
    pub fn tree_key(&self, registration: Option<&Registration>, dest: &std::path::Path) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        registration.map_or(dest, |registration| &registration.directory).as_os_str().as_bytes().to_vec()
    }

    /// Holds a registered module as its marks say, and lets the swarm know.
    ///
    /// # Errors
    /// The state, the directory or the index fails.
    pub async fn hold(&self, module: &ModuleRef) -> Result<(), SyncError> {
        hold(&self.node, module).await
    }

    async fn load_registered(&self) -> Result<(), StartError> {
        for (publisher, name) in self.node.state.registered().map_err(SyncError::from)? {
            let (Ok(publisher), Ok(name)) = (publisher.parse(), name.parse()) else { continue };
            let module = ModuleRef::new(publisher, name);
            if let Err(error) = hold(&self.node, &module).await {
                tracing::error!(%module, %error, "registered, but cannot be served");
            }
        }
        Ok(())
    }
}

/// What a node has to take: streams of peers, what the swarm tells, what serving brought to light.
type Inbox = (net::Incoming, net::Events, mpsc::Receiver<Notice>);

/// Begins the tasks that every node has.
fn begin(node: &Arc<Node>, inbox: Inbox, limits: &Limits, news: &Arc<Notify>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (incoming, events, notices) = inbox;
    let (taken, shared, limits) = (Arc::new(AsyncMutex::new(incoming)), Arc::clone(node), limits.clone());
    tasks.spawn(watched("serving", move || accept(Arc::clone(&shared), Arc::clone(&taken), limits.clone())));
    let (taken, shared, news) = (Arc::new(AsyncMutex::new(events)), Arc::clone(node), Arc::clone(news));
    tasks.spawn(watched("hearing news", move || {
        news::listen(Arc::clone(&shared), Arc::clone(&taken), Arc::clone(&news))
    }));
    let (taken, shared) = (Arc::new(AsyncMutex::new(notices)), Arc::clone(node));
    tasks.spawn(watched("attending", move || attend(Arc::clone(&shared), Arc::clone(&taken))));
    tasks
}

fn lock(settings: &Settings) -> Result<Lock, StartError> {
    let running = |_| StartError::Running { state: settings.state.clone() };
    Lock::acquire(&settings.state.join("serve.lock")).map_err(running)
}

fn config(settings: &Settings, state: &State, key: SecretKey) -> Result<net::Config, StartError> {
    let dht = match (settings.dht, settings.serve) {
        (false, _) => DhtMode::Off,
        (true, true) => DhtMode::Server,
        (true, false) => DhtMode::Client,
    };
    let cached = state.ways_in().iter().filter_map(|address| address.parse().ok()).collect();
    Ok(net::Config {
        key,
        listen: settings.listen.clone(),
        external: settings.external.clone(),
        profile: settings.profile.clone(),
        peers: settings.peers.clone(),
        cached,
        narrow: !settings.serve,
        dht,
        gossip: !settings.no_gossip,
        mdns: settings.mdns,
        names: settings.name_server.map(dns::servers),
        bulk: libp2p::StreamProtocol::new(wire::PROTOCOL),
        records: records(settings, state),
    })
}

fn outboards(state: &State, module: &ModuleId) -> Result<Dir, SyncError> {
    let all = Dir::open(state.path())?.child_or_make("outboards")?;
    Ok(all.child_or_make(module.to_string())?)
}

/// Holds a registered module as its marks say, and lets the swarm know.
async fn hold(node: &Arc<Node>, module: &ModuleRef) -> Result<(), SyncError> {
    let marks = node.marks(module)?;
    let registration = marks.registration()?.filter(|registration| !registration.withdrawn);
    let (Some(registration), Some(bundle)) = (registration, placed_bundle(&marks)?) else { return Ok(()) };
    let damaged = marks.damaged()?;
    let select = selected(&registration)?;
    let (directory, http) = (&registration.directory, &registration.http);
    let is_same = |held: &Arc<Holding>| {
        held.is_of(&bundle, &select, &damaged) && (&held.ground.path, &held.ground.http) == (directory, http)
    };
    if node.shelf.holding(&module.id).as_ref().is_some_and(is_same) {
        return Ok(());
    }
    let (shared, module_id) = (Arc::clone(node), module.id);
    let work = move || load(&shared, module_id, &registration, &select, bundle, &damaged);
    let holding = tokio::task::spawn_blocking(work).await;
    let holding = Arc::new(holding.map_err(|error| SyncError::Worker { reason: error.to_string() })??);
    let hold = holding.event();
    node.shelf.put(holding);
    let mut watch = None;
    if let Some(seen) = node.seen(module)? {
        node.shelf.heard_of(&seen);
        // Until it is held: what is held is watched anyway.
        watch = Some(node.swarm.watch(module.id).await);
        node.recall(module).await?;
    }
    node.swarm.tell(hold).await;
    drop(watch);
    Ok(())
}

fn load(
    node: &Node,
    module: ModuleId,
    registration: &Registration,
    select: &Selector,
    bundle: CheckedBundle,
    damaged: &[Vec<u8>],
) -> Result<Holding, SyncError> {
    let (path, http) = (registration.directory.clone(), registration.http.clone());
    let root = Dir::open(&path)?;
    let (outboards, stage) = match registration.role {
        Role::Publisher => (outboards(&node.state, &module)?, None),
        Role::Mirror => {
            let own = root.child_or_make(OWN_DIR)?;
            let stage = crate::store::stage::Stage::open(&own)?;
            sweep::superseded_of(&stage, &bundle, node.keeping, unix_now())?;
            (own.child_or_make("outboards")?, Some(Arc::new(stage)))
        }
    };
    Holding::load(&node.index, bundle, select, Ground { path, root, outboards, stage, http }, damaged)
}

/// What of its module a registration holds.
fn selected(registration: &Registration) -> Result<Selector, SyncError> {
    let bad = |reason: String| SyncError::BadState { reason };
    let reference = Reference::parse(&registration.reference).map_err(|error| bad(error.to_string()))?;
    let (base, only) = reference.transfer_root();
    // A publisher's own patterns made the tree: all of it is here.
    let all = Selection::default();
    let selection = if registration.role == Role::Publisher { &all } else { &registration.selection };
    selector(base, only, selection).map_err(|failure| bad(failure.message))
}
