//! What a running node is: its state, its swarm, what it holds, and the tasks that keep these together. A standalone command
//! is the same thing for the time of one run, with an identity of its own and no registrations.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracker_less::machine::Event;
use tracker_less::net::{self, DhtMode, NetEvent};
use tracker_less::record::{ModuleId, SecretKey};

use crate::store::index::Index;
use crate::store::lock::Lock;
use crate::store::state::{Role, State};
use crate::sync::holding::{Holdings, Notice};
use crate::sync::{Node, SyncError};
use crate::wire::server;

/// How often Fresh records, the peer cache and superseded files are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Most addresses kept for the next start.
const CACHED_PEERS: usize = 128;

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state directory.
    pub state: PathBuf,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses others reach this node at, beside those it listens on.
    pub external: Vec<Multiaddr>,
    /// Nodes to dial at the start.
    pub peers: Vec<Multiaddr>,
    /// Take part in the DHT.
    pub dht: bool,
    /// Find and be found on the local network.
    pub mdns: bool,
    /// A lasting node: its own identity, DHT server, registrations served.
    pub serve: bool,
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
    tasks: JoinSet<()>,
    _lock: Option<Lock>,
}

/// Seconds since the epoch; 0 before it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Service {
    /// Starts a node: identity, index, swarm, registered modules, tasks.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing keeps running after an error.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let state = Arc::new(State::open(&settings.state).map_err(SyncError::from)?);
        let lock = if settings.serve { Some(lock(&settings, &state)?) } else { None };
        let key = identity(&state, settings.serve)?;
        let index = Arc::new(Index::open(&state.index_dir()).map_err(SyncError::from)?);
        let (holdings, notices) = Holdings::new(Arc::clone(&index));
        let (swarm, events, incoming) = net::start(config(&settings, &state, key)?).await?;
        let node = Arc::new(Node { state, index, swarm, holdings: Arc::new(holdings) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&node), incoming));
        tasks.spawn(listen(Arc::clone(&node), events));
        tasks.spawn(attend(Arc::clone(&node), notices));
        if settings.serve {
            node.load_registered().await?;
            tasks.spawn(keep_house(Arc::clone(&node)));
        }
        Ok(Self { node, tasks, _lock: lock })
    }

    /// Takes back what this node announced, and ends its tasks.
    pub async fn stop(mut self) {
        self.node.remember_peers().await;
        self.node.swarm.shutdown().await;
        self.tasks.shutdown().await;
    }
}

fn lock(settings: &Settings, state: &State) -> Result<Lock, StartError> {
    Lock::acquire(&state.lock_path()).map_err(|_| StartError::Running { state: settings.state.clone() })
}

/// The lasting identity of the state, or one for this run only.
fn identity(state: &State, lasting: bool) -> Result<SecretKey, StartError> {
    if lasting {
        return Ok(state.node_key().map_err(SyncError::from)?);
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::Random { reason: error.to_string() })?;
    Ok(SecretKey::from_seed(seed))
}

fn config(settings: &Settings, state: &State, key: SecretKey) -> Result<net::Config, StartError> {
    let dht = match (settings.dht, settings.serve) {
        (false, _) => DhtMode::Off,
        (true, true) => DhtMode::Server,
        (true, false) => DhtMode::Client,
    };
    Ok(net::Config {
        key,
        listen: settings.listen.clone(),
        external: settings.external.clone(),
        peers: settings.peers.clone(),
        cached: state.peers().map_err(SyncError::from)?,
        dht,
        mdns: settings.mdns,
        bulk: crate::wire::PROTOCOL,
    })
}

/// Serves every inbound stream in a task of its own.
async fn accept(node: Arc<Node>, mut incoming: net::Incoming) {
    let limits = server::Limits::default();
    let mut streams = JoinSet::new();
    while let Some((peer, stream)) = incoming.recv().await {
        while streams.try_join_next().is_some() {}
        let Some(permit) = limits.admit(peer) else { continue };
        let holdings = Arc::clone(&node.holdings);
        streams.spawn(async move {
            server::serve_stream(stream, peer, holdings).await;
            drop(permit);
        });
    }
}

/// What the swarm tells: newest heads reach the disk, and mirrors that watch fetch them.
async fn listen(node: Arc<Node>, mut events: net::Events) {
    while let Some(event) = events.recv().await {
        if let NetEvent::Head { bundle, newer } = event {
            if let Err(error) = node.state.see(&bundle) {
                tracing::error!(%error, "the newest head could not be kept");
            }
            if newer {
                node.holdings.heard_of(bundle);
            }
        }
    }
}
