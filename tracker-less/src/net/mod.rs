//! The libp2p swarm behind a handle: one task owns it together with the pure [`machine`], every call is a
//! command to that task, and bulk bytes travel on streams that never pass through it.

mod address;
mod behaviour;
mod cipher;
mod crowd;
mod dial;
mod doorway;
mod duties;
mod events;
mod gossip;
mod lookup;
mod muxer;
mod narrow;
mod noise;
mod peers;
mod precedence;
mod quic;
mod revival;
mod run;
mod sealed;
mod store;
mod streams;
#[cfg(test)]
mod tests;
mod watches;

use std::{sync::Arc, time::Duration};

pub use libp2p::dns::ResolverConfig;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::{
    address::believable,
    peers::{Direction, PeerRow},
    store::{MAX_SAVED, Saved},
    streams::Incoming,
    watches::Watch,
};
use self::{
    lookup::Question,
    run::{Command, Run, Seed},
    streams::Counters,
    watches::Watches,
};
use crate::{
    book::Mirror,
    machine::{self, Judgement},
    nominate::Profile,
    record::{CheckedBundle, CheckedNomination, CheckedRoster, ModuleId, RosterList, SecretKey},
    tracker::Probe,
};

/// Commands waiting for the event loop.
const COMMANDS: usize = 64;
/// Events that nobody has taken yet.
const EVENTS: usize = 1024;
/// A dial is given up after this.
const DIAL: Duration = Duration::from_secs(15);
/// A stream is opened within this, or tried again.
const OPEN: Duration = Duration::from_secs(5);
/// Tries to open one stream.
const OPEN_TRIES: usize = 3;
/// Streams being opened at once.
const OPENING: usize = 8;
/// A node that stops waits this long for its goodbyes to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// Part in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtMode {
    /// None.
    Off,
    /// Asks and announces, answers nobody.
    Client,
    /// Also keeps and answers.
    Server,
}

/// What a swarm is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's key.
    pub key: SecretKey,
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Further addresses at which others reach this node.
    pub external: Vec<Multiaddr>,
    /// What the node says of itself; its addresses find themselves.
    pub profile: Profile,
    /// Peers that the user named: dialled at start, and again when nobody is connected. `/p2p/` is optional.
    pub peers: Vec<Multiaddr>,
    /// Peers of earlier runs: dialled at start.
    pub cached: Vec<Multiaddr>,
    /// Begin with the peers that the user named, and nothing else, until told to [`Swarm::widen`]: a run that finds nothing new is
    /// over by then.
    pub narrow: bool,
    /// Part in the DHT.
    pub dht: DhtMode,
    /// Whether to hear and tell news by gossip. Without it everything still works, later.
    pub gossip: bool,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Name servers to ask; without any those of the system.
    pub names: Option<ResolverConfig>,
    /// The protocol of bulk streams.
    pub bulk: StreamProtocol,
    /// What an earlier run kept for the DHT ([`Swarm::saved`]).
    pub records: Saved,
}

/// Why a swarm did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    ListenFailed {
        /// The address as it was asked for.
        address: Multiaddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The stack could not be built.
    #[error("cannot start the swarm: {source}")]
    Setup {
        /// The cause.
        source: std::io::Error,
    },
}

/// Why a dial led nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered there, or not in our protocols.
    #[error("{address}: {reason}")]
    Failed {
        /// What was dialled.
        address: Multiaddr,
        /// What went wrong.
        reason: String,
    },
    /// Somebody answered and hung up before a word was said, as nodes do that have no free place.
    #[error("{address}: hung up on us: it may have no free place now")]
    HungUp {
        /// What was dialled.
        address: Multiaddr,
    },
    /// Somebody else answered.
    #[error("{address}: another peer answers there: {obtained}")]
    WrongPeer {
        /// What was dialled, with the expected peer.
        address: Multiaddr,
        /// Who answered.
        obtained: PeerId,
    },
    /// No answer in time.
    #[error("{address}: no answer within {} s", DIAL.as_secs())]
    Timeout {
        /// What was dialled.
        address: Multiaddr,
    },
    /// The peer could not be reached at any known address.
    #[error("peer {peer}: {reason}")]
    Unreachable {
        /// Who was looked for.
        peer: PeerId,
        /// What was tried.
        reason: String,
    },
    /// The swarm has stopped.
    #[error("the swarm has stopped")]
    Stopped,
}

/// Why no stream was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer does not speak the bulk protocol.
    #[error("peer {peer} does not speak {protocol}")]
    Unsupported {
        /// Who was asked.
        peer: PeerId,
        /// The protocol.
        protocol: StreamProtocol,
    },
    /// The connection failed, or the peer did not answer in time.
    #[error("peer {peer}: no stream: {reason}")]
    Failed {
        /// Who was asked.
        peer: PeerId,
        /// What went wrong.
        reason: String,
    },
}

/// What the swarm tells without being asked.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the common one")]
pub enum NetEvent {
    /// The newest known bundle of a watched module changed, or became fresher.
    Head {
        /// The bundle.
        bundle: CheckedBundle,
        /// Whether the generation is a later one.
        newer: bool,
    },
    /// Two heads claim one generation.
    Forked {
        /// Of this module.
        module: ModuleId,
        /// The proof.
        fork: Box<crate::heads::Fork>,
    },
    /// A mirror is to be probed: what came of it is told with [`machine::Event::Probed`].
    Probe(Probe),
    /// The list of a roster is lacking: it is to be asked for, and told with [`machine::Event::Roster`].
    WantList {
        /// Whose list.
        roster: CheckedRoster,
    },
    /// The rosters of a module changed: these are kept and passed on.
    Rosters {
        /// Of this module.
        module: ModuleId,
        /// Complete ones, the latest first.
        rosters: Vec<(CheckedRoster, RosterList)>,
    },
    /// A peer is connected.
    PeerConnected(PeerId),
    /// Its last connection closed.
    PeerGone(PeerId),
    /// A new listen address.
    Listening(Multiaddr),
}

/// Events in order; some are lost if nobody takes them.
pub type Events = mpsc::Receiver<NetEvent>;

/// A handle to the swarm. The event loop ends when the last one is dropped; a panic in it costs its connections, and no more.
#[derive(Clone)]
pub struct Swarm {
    peer: PeerId,
    commands: mpsc::Sender<Command>,
    control: watch::Receiver<libp2p_stream::Control>,
    opening: Arc<Semaphore>,
    bulk: StreamProtocol,
    counters: Counters,
    watches: Watches,
}

/// Starts a swarm on the current tokio runtime and returns once it listens. The peers to dial are dialled meanwhile.
///
/// # Errors
/// [`StartError::ListenFailed`] names the first address that cannot be listened on.
pub async fn start(config: Config) -> Result<(Swarm, Events, Incoming), StartError> {
    let (counters, watches, bulk) = (Counters::default(), Watches::default(), config.bulk.clone());
    let (commands, received) = mpsc::channel(COMMANDS);
    let (events, told) = mpsc::channel(EVENTS);
    let (incoming, streams) = streams::incoming();
    let mut run = Run::new(Seed { config, counters: counters.clone(), watches: watches.clone(), events, incoming })?;
    run.listen().await?;
    let (controls, control) = watch::channel(run.control());
    let peer = run.peer_id();
    tokio::spawn(revival::keep_running(run, received, controls));
    let opening = Arc::new(Semaphore::new(OPENING));
    Ok((Swarm { peer, commands, control, opening, bulk, counters, watches }, told, streams))
}

impl Swarm {
    /// This node's id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The addresses listened on, real ports, one per interface, without `/p2p/`.
    pub async fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.ask(|run| run.listen_addresses()).await.unwrap_or_default()
    }

    /// Connects to an address; its `/p2p/` part may be missing. Local addresses are obeyed: the user named them.
    ///
    /// # Errors
    /// Says what was dialled and what went wrong there.
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, DialError> {
        let (reply, answer) = oneshot::channel();
        let dialled = address.clone();
        self.send(move |run| run.dial(dialled, Some(reply))).await;
        match tokio::time::timeout(DIAL, answer).await {
            Ok(answer) => answer.unwrap_or(Err(DialError::Stopped)),
            Err(_) => Err(DialError::Timeout { address }),
        }
    }

    /// Connects to a peer at the given addresses and all that are known.
    ///
    /// # Errors
    /// [`DialError::Unreachable`] says what was tried.
    pub async fn connect(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        let (reply, answer) = oneshot::channel();
        self.send(move |run| run.connect(peer, addresses, reply)).await;
        match tokio::time::timeout(DIAL, answer).await {
            Ok(answer) => answer.unwrap_or(Err(DialError::Stopped)).map(|_| ()),
            Err(_) => Err(DialError::Unreachable { peer, reason: "no answer in time".to_owned() }),
        }
    }

    /// Opens a bulk stream to a peer, connecting first where needed. The peer may still drop it unseen when it is
    /// flooded: a hello must be answered before the stream counts.
    ///
    /// # Errors
    /// No connection, or no stream after some tries.
    pub async fn open(&self, peer: PeerId) -> Result<Stream, OpenError> {
        let mut reason = "no answer in time".to_owned();
        for _ in 0..OPEN_TRIES {
            self.connect(peer, Vec::new()).await?;
            let _turn = self.opening.acquire().await.map_err(|_| DialError::Stopped)?;
            let mut control = self.control.borrow().clone();
            match tokio::time::timeout(OPEN, control.open_stream(peer, self.bulk.clone())).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(libp2p_stream::OpenStreamError::UnsupportedProtocol(protocol))) => {
                    return Err(OpenError::Unsupported { peer, protocol });
                }
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => {}
            }
        }
        Err(OpenError::Failed { peer, reason })
    }

    /// Ends a narrow beginning ([`Config::narrow`]): from now on the node has its part in the DHT and in gossip.
    pub async fn widen(&self) {
        self.send(Run::widen).await;
    }

    /// True while that lasts.
    pub async fn is_narrow(&self) -> bool {
        self.ask(|run| run.narrow.is_some()).await.unwrap_or(false)
    }

    /// Asks the DHT who holds the module, and connects to some of them. Bounded in time by the query's own limit.
    pub async fn providers(&self, module: ModuleId) -> Vec<PeerId> {
        let (reply, answer) = oneshot::channel();
        self.send(move |run| run.look_up(Question::Providers(module, Some(reply)))).await;
        let own = self.peer;
        answer.await.unwrap_or_default().into_iter().filter(|peer| *peer != own).collect()
    }

    /// Asks the DHT for the module's bundle: every valid answer, not sorted.
    pub async fn find_bundle(&self, module: ModuleId) -> Vec<CheckedBundle> {
        let (reply, answer) = oneshot::channel();
        self.send(move |run| run.look_up(Question::Bundle(module, Some(reply)))).await;
        answer.await.unwrap_or_default()
    }

    /// Tells the machine something from outside the swarm, and returns its judgement.
    pub async fn tell(&self, event: machine::Event) -> Judgement {
        self.ask(move |run| run.feed(event)).await.unwrap_or(Judgement::Ignore)
    }

    /// Watches a module for as long as what this returns is kept, and some minutes longer.
    pub async fn watch(&self, module: ModuleId) -> Watch {
        // Counted before it is told: an earlier watch may be about to end.
        let watch = self.watches.begin(module);
        self.tell(machine::Event::Watch { module }).await;
        watch
    }

    /// The newest verified bundle of a module.
    pub async fn newest(&self, module: ModuleId) -> Option<CheckedBundle> {
        self.ask(move |run| run.machine().newest(&module).cloned()).await.flatten()
    }

    /// Verified generations of a module, newest first.
    pub async fn candidates(&self, module: ModuleId) -> Vec<CheckedBundle> {
        self.ask(move |run| run.machine().candidates(&module)).await.unwrap_or_default()
    }

    /// The mirrors of a module with all that is known of them, best first; this node is not among them.
    pub async fn book(&self, module: ModuleId) -> Vec<Mirror> {
        self.ask(move |run| run.machine().book(&module, run::unix_now())).await.unwrap_or_default()
    }

    /// Complete rosters of a module, the latest first.
    pub async fn rosters(&self, module: ModuleId) -> Vec<(CheckedRoster, RosterList)> {
        self.ask(move |run| run.machine().rosters(&module)).await.unwrap_or_default()
    }

    /// Nominations of a module, best first.
    pub async fn mirrors(&self, module: ModuleId) -> Vec<CheckedNomination> {
        self.ask(move |run| run.machine().mirrors(&module, run::unix_now())).await.unwrap_or_default()
    }

    /// Whether any node of the DHT is known: there is somebody who may lead to others.
    pub async fn in_dht(&self) -> bool {
        self.ask(|run| run.in_dht()).await.unwrap_or(false)
    }

    /// The connected peers.
    pub async fn peers(&self) -> Vec<PeerRow> {
        self.ask(|run| run.rows()).await.unwrap_or_default()
    }

    /// Addresses that worked, with `/p2p/`, for the peer cache.
    pub async fn dialable(&self) -> Vec<Multiaddr> {
        self.ask(|run| run.dialable()).await.unwrap_or_default()
    }

    /// What this node keeps for the DHT, for the next start.
    pub async fn saved(&self) -> Saved {
        self.ask(|run| run.saved()).await.unwrap_or_default()
    }

    /// (received, sent) bytes of all sockets, counted above TCP and QUIC.
    pub async fn bytes(&self) -> (u64, u64) {
        self.counters.read()
    }

    /// Withdraws what this node offers, closes all connections, and ends the event loop.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        self.send(move |run| run.stop(reply)).await;
        let _ = tokio::time::timeout(GOODBYE, answer).await;
    }

    /// Has the event loop do something. After its end nothing happens, and the reply's sender is dropped.
    async fn send(&self, command: impl FnOnce(&mut Run) + Send + 'static) {
        let _ = self.commands.send(Box::new(command)).await;
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Run) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(move |run| {
            let _ = reply.send(question(run));
        })
        .await;
        answer.await.ok()
    }
}
