//! The event loop: the only owner of the swarm and the machine. It never touches a disk and never waits for others.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream,
    core::transport::TransportError,
    identity::Keypair,
    kad::{Quorum, Record},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Config, NetEvent, PeerRow, StartError,
    address::{Gate, Scope, ensure_free, with_port_of, without_peer},
    behaviour::{self, Behaviour, announceable},
    dial::Dials,
    duties::Duties,
    gossip::{self, Outbox},
    lookup::{Lookups, Question, own_provider_key},
    narrow::Narrow,
    peers::{Book, Connected},
    quic::is_quic,
    store::{Saved, bundle_key},
    streams::{Counters, take_in},
    watches::Watches,
};
use crate::{
    machine::{Action, Event, Judgement, Limits, Machine},
    record::{CheckedBundle, ModuleId},
};

/// The machine's clock, and that of everything that is tried again.
const TICK: Duration = Duration::from_secs(1);
/// Listening takes this long at most.
const LISTEN: Duration = Duration::from_secs(5);
/// An address that a fallen loop still keeps is tried again after this, so many times.
const STILL_KEPT: Duration = Duration::from_millis(50);
const RETRIES: u32 = 30;
/// Announcements to a growing DHT: first this far apart, twice as far each time.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// Announcements are never further apart than this while the DHT still grows.
const ANNOUNCE_MAX: Duration = Duration::from_secs(600);
/// Topics that nobody follows, and peers of the user that are gone, are looked for this often.
const REACH: Duration = Duration::from_secs(30);
/// A new topic has this long to find followers among the connected peers, before others are looked for.
const COMPANY: Duration = Duration::from_secs(3);
/// Expired records are forgotten this often.
const SWEEP: Duration = Duration::from_secs(600);
/// Peers of earlier runs that are dialled at start.
pub(super) const MAX_CACHED: usize = 16;
/// A stopping node still sends for this long.
const LINGER: Duration = Duration::from_millis(300);

/// Something for the event loop to do; it carries where its answer goes.
pub(super) type Command = Box<dyn FnOnce(&mut Run) + Send>;

/// Seconds since 1970; a clock before that counts as 0.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What an event loop is made from, the first as well as one that takes its place.
#[derive(Clone)]
pub(super) struct Seed {
    pub(super) config: Config,
    pub(super) counters: Counters,
    pub(super) watches: Watches,
    pub(super) events: mpsc::Sender<NetEvent>,
    pub(super) incoming: mpsc::Sender<(PeerId, Stream)>,
}

/// Everything the event loop owns.
pub(super) struct Run {
    pub(super) swarm: libp2p::Swarm<Behaviour>,
    machine: Machine,
    /// Of this loop and of its successor: addresses to listen on have their real ports here.
    pub(super) seed: Seed,
    /// Addresses of them that could not be listened on again.
    deaf: Vec<Multiaddr>,
    /// Hands over the streams that peers open.
    _taking: JoinSet<()>,
    pub(super) duties: Duties,
    /// While the node began narrow and has not widened.
    pub(super) narrow: Option<Narrow>,
    pub(super) gate: Gate,
    pub(super) connected: Connected,
    pub(super) book: Book,
    pub(super) lookups: Lookups,
    pub(super) outbox: Outbox,
    pub(super) dials: Dials,
    provided: BTreeSet<ModuleId>,
    published: HashMap<ModuleId, CheckedBundle>,
    announce: Announce,
    reach_at: Instant,
    sweep_at: Instant,
    stopping: Option<oneshot::Sender<()>>,
}

/// When to tell the DHT again what we have: it may have grown since.
struct Announce {
    grown: bool,
    at: Instant,
    pause: Duration,
}

impl Run {
    /// A swarm that does not listen yet. The peers of its configuration are being dialled once it runs.
    pub(super) fn new(seed: Seed) -> Result<Self, StartError> {
        let setup = |source| StartError::Setup { source };
        let config = seed.config.clone();
        let key =
            Keypair::ed25519_from_bytes(config.key.seed()).map_err(|error| setup(std::io::Error::other(error)))?;
        let gate = Gate::default();
        let swarm = behaviour::swarm(&key, &config, &seed.counters, &gate).map_err(setup)?;
        let streams = swarm.behaviour().control().accept(config.bulk);
        let streams = streams.map_err(|error| setup(std::io::Error::other(error)))?;
        let mut taking = JoinSet::new();
        taking.spawn(take_in(streams, seed.incoming.clone()));
        let now = Instant::now();
        let mut run = Self {
            swarm,
            machine: Machine::new(config.key, Limits::default()).describing(config.profile),
            seed,
            deaf: Vec::new(),
            _taking: taking,
            duties: Duties::default(),
            narrow: config.narrow.then(Narrow::default),
            gate,
            connected: Connected::default(),
            book: Book::default(),
            lookups: Lookups::default(),
            outbox: Outbox::default(),
            dials: Dials::default(),
            provided: BTreeSet::new(),
            published: HashMap::new(),
            announce: Announce { grown: false, at: now, pause: ANNOUNCE },
            reach_at: now + REACH,
            sweep_at: now + SWEEP,
            stopping: None,
        };
        run.restore(&config.records);
        for address in config.external {
            run.swarm.add_external_address(address);
        }
        let cached = if config.narrow { 0 } else { MAX_CACHED };
        for address in config.peers.into_iter().chain(config.cached.into_iter().take(cached)) {
            run.dial(address, None);
        }
        Ok(run)
    }

    /// Gives the DHT's memory what an earlier run kept.
    pub(super) fn restore(&mut self, saved: &Saved) {
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            kad.store_mut().restore(saved);
        }
    }

    /// What the DHT's memory holds for others.
    pub(super) fn saved(&mut self) -> Saved {
        let kad = self.swarm.behaviour_mut().kad.as_mut();
        kad.map(|kad| kad.store_mut().saved()).unwrap_or_default()
    }

    /// Listens, and returns when every listener has its addresses.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
        for index in 0..self.seed.config.listen.len() {
            let address = self.seed.config.listen[index].clone();
            let real = self.listen_on(&address).await;
            self.seed.config.listen[index] =
                real.map_err(|source| StartError::ListenFailed { address: address.clone(), source })?;
        }
        self.settle();
        Ok(())
    }

    /// Listens where an earlier loop did. What is not free now is tried again from time to time.
    pub(super) async fn listen_again(&mut self) {
        for address in self.seed.config.listen.clone() {
            let mut listens = self.listen_on(&address).await;
            // The sockets of QUIC close in tasks of their own, a moment later.
            for _ in (0..RETRIES).take_while(|_| is_quic(&address)) {
                if listens.is_ok() {
                    break;
                }
                sleep(STILL_KEPT).await;
                listens = self.listen_on(&address).await;
            }
            if let Err(error) = listens {
                tracing::error!(%address, %error, "not listened on again");
                self.deaf.push(address);
            }
        }
        self.settle();
    }

    /// Listens on one address; returns it with its real port.
    async fn listen_on(&mut self, address: &Multiaddr) -> io::Result<Multiaddr> {
        ensure_free(address)?;
        let listener = self.swarm.listen_on(address.clone()).map_err(|error| match error {
            TransportError::Other(source) => source,
            unsupported => io::Error::other(unsupported.to_string()),
        })?;
        let up = timeout(LISTEN, self.until_up(listener)).await;
        Ok(with_port_of(address, &up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?))
    }

    /// An address of "any interface" has become several: takes note of those that are known by now.
    fn settle(&mut self) {
        while let Some(Some(event)) = self.swarm.next().now_or_never() {
            self.on_swarm(event);
        }
    }

    pub(super) fn control(&self) -> libp2p_stream::Control {
        self.swarm.behaviour().control()
    }

    pub(super) fn peer_id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn listen_addresses(&self) -> Vec<Multiaddr> {
        let mut addresses: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        addresses.sort_by_key(|address| (is_quic(address), address.to_string()));
        addresses
    }

    pub(super) fn rows(&self) -> Vec<PeerRow> {
        self.connected.rows()
    }

    pub(super) fn dialable(&self) -> Vec<Multiaddr> {
        self.book.dialable()
    }

    /// Runs until the last handle is dropped, or told to stop.
    pub(super) async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stopping.is_none() {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = commands.recv() => match command {
                    Some(command) => command(self),
                    None => return,
                },
                _ = tick.tick() => self.on_tick(),
            }
        }
    }

    /// Withdraws everything and lets that leave; who offered nothing has nothing to withdraw.
    pub(super) async fn say_goodbye(mut self) {
        let provided = std::mem::take(&mut self.provided);
        let waits = !provided.is_empty() && self.narrow.is_none() && self.swarm.connected_peers().next().is_some();
        for module in provided {
            self.feed(Event::Release { module });
        }
        if waits {
            let _ = timeout(LINGER, async {
                loop {
                    let event = self.swarm.select_next_some().await;
                    self.on_swarm(event);
                }
            })
            .await;
        }
        let stopping = self.stopping.take();
        drop(self);
        if let Some(reply) = stopping {
            let _ = reply.send(());
        }
    }

    /// Ends the event loop after the current turn.
    pub(super) fn stop(&mut self, reply: oneshot::Sender<()>) {
        self.stopping = Some(reply);
    }

    /// Tells the machine, and does what it says.
    pub(super) fn feed(&mut self, event: Event) -> Judgement {
        let noted =
            matches!(event, Event::Watch { .. } | Event::Unwatch { .. } | Event::Hold { .. } | Event::Release { .. });
        let told = noted.then(|| event.clone());
        let (judgement, actions) = self.machine.handle(event, unix_now());
        if let Some(told) = told {
            self.duties.note(&told, judgement);
        }
        for action in actions {
            self.act(action);
        }
        judgement
    }

    fn act(&mut self, action: Action) {
        let peer = self.peer_id();
        let behaviour = self.swarm.behaviour_mut();
        match action {
            Action::Subscribe(_) | Action::Unsubscribe(_) | Action::Gossip { .. } if !self.seed.config.gossip => {}
            // Widening makes up for it.
            Action::Subscribe(_) if self.narrow.is_some() => {}
            Action::Gossip { module, payload } if self.narrow.is_some() => {
                self.outbox.keep(module, payload, Instant::now());
            }
            Action::Subscribe(module) => {
                gossip::subscribe(&mut behaviour.gossip, &module);
                self.seek_company();
            }
            Action::Unsubscribe(module) => {
                behaviour.gossip.unsubscribe(&gossip::topic(&module));
                self.outbox.drop(module);
            }
            Action::Gossip { module, payload } => {
                self.outbox.put(&mut behaviour.gossip, module, payload, Instant::now());
            }
            Action::Provide(module) => {
                self.provided.insert(module);
                self.provide(module);
            }
            Action::StopProviding(module) => {
                self.provided.remove(&module);
                self.published.remove(&module);
                if let Some(kad) = behaviour.kad.as_mut() {
                    kad.stop_providing(&own_provider_key(&module, &peer));
                    kad.remove_record(&bundle_key(&module));
                }
            }
            Action::PutBundle(bundle) => {
                self.publish(&bundle);
                self.published.insert(bundle.module(), bundle);
            }
            Action::Head { bundle, newer } => {
                self.duties.note_newest(bundle.clone());
                self.emit(NetEvent::Head { bundle, newer });
            }
            Action::Forked { module, fork } => self.emit(NetEvent::Forked { module, fork }),
            Action::Probe(probe) => self.emit(NetEvent::Probe(probe)),
            Action::WantList { roster } => self.emit(NetEvent::WantList { roster }),
            Action::KeepRosters { module, rosters } => self.emit(NetEvent::Rosters { module, rosters }),
            Action::Learned { peer, addresses, .. } => {
                for address in addresses.into_iter().filter(announceable) {
                    self.book.add(peer, address);
                }
            }
        }
    }

    fn provide(&mut self, module: ModuleId) {
        let key = own_provider_key(&module, &self.peer_id());
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && let Err(error) = kad.start_providing(key)
        {
            tracing::warn!(%module, %error, "module not announced");
        }
    }

    fn publish(&mut self, bundle: &CheckedBundle) {
        let record = Record::new(bundle_key(&bundle.module()), bundle.bytes().to_vec());
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && let Err(error) = kad.put_record(record, Quorum::One)
        {
            tracing::warn!(module = %bundle.module(), %error, "bundle not put into the DHT");
        }
    }

    pub(super) fn emit(&self, event: NetEvent) {
        if let Err(error) = self.seed.events.try_send(event) {
            tracing::debug!(%error, "event not taken");
        }
    }

    /// Asks the DHT; without one the answer is empty.
    pub(super) fn look_up(&mut self, question: Question) {
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            self.lookups.ask(kad, question, Instant::now());
        }
    }

    /// Whether there is any other node in the DHT, as far as this one knows.
    pub(super) fn in_dht(&mut self) -> bool {
        let connected = self.swarm.connected_peers().next().is_some();
        let kad = self.swarm.behaviour_mut().kad.as_mut();
        connected && kad.is_some_and(|kad| kad.kbuckets().next().is_some())
    }

    /// The DHT has a new peer: what waited is asked, what we have is told again.
    pub(super) fn dht_grew(&mut self) {
        self.announce.grown = true;
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            self.lookups.unpark(kad, Instant::now());
        }
    }

    /// Tells the machine where this node can be reached, the farthest reaching addresses first.
    pub(super) fn tell_addresses(&mut self) {
        let mut addresses: Vec<Multiaddr> = self.swarm.external_addresses().cloned().map(without_peer).collect();
        addresses.sort_by(|a, b| Scope::of(b).cmp(&Scope::of(a)).then_with(|| a.cmp(b)));
        self.feed(Event::Addresses(addresses));
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.feed(Event::Tick);
        for module in self.seed.watches.over(now) {
            self.feed(Event::Unwatch { module });
        }
        let behaviour = self.swarm.behaviour_mut();
        if self.narrow.is_none() {
            self.outbox.flush(&mut behaviour.gossip, now);
        }
        if let Some(kad) = behaviour.kad.as_mut() {
            self.lookups.unpark(kad, now);
            if now >= self.sweep_at {
                self.sweep_at = now + SWEEP;
                kad.store_mut().expire();
            }
        }
        self.dials.forget_abandoned();
        if self.announce.grown && now >= self.announce.at {
            self.announce(now);
        }
        if now >= self.reach_at {
            self.reach_at = now + REACH;
            self.reach();
        }
    }

    /// Followers of a topic are looked for soon.
    pub(super) fn seek_company(&mut self) {
        self.reach_at = self.reach_at.min(Instant::now() + COMPANY);
    }

    fn announce(&mut self, now: Instant) {
        let pause = self.announce.pause;
        self.announce = Announce { grown: false, at: now + pause, pause: (2 * pause).min(ANNOUNCE_MAX) };
        for module in self.provided.clone() {
            self.provide(module);
        }
        let published: Vec<CheckedBundle> = self.published.values().cloned().collect();
        for bundle in published {
            self.publish(&bundle);
        }
    }

    /// Looks for company: for topics that nobody here follows, and the user's peers when nobody at all is connected.
    fn reach(&mut self) {
        let followers = gossip::followers(&self.swarm.behaviour().gossip);
        for (module, _) in followers.into_iter().filter(|(_, peers)| peers.is_empty()) {
            self.look_up(Question::Providers(module, None));
        }
        if self.swarm.connected_peers().next().is_none() {
            for address in self.seed.config.peers.clone() {
                self.dial(address, None);
            }
        }
        for address in std::mem::take(&mut self.deaf) {
            if ensure_free(&address).is_err() || self.swarm.listen_on(address.clone()).is_err() {
                self.deaf.push(address);
            }
        }
    }
}
