//! All discovery decisions as one pure state machine: events and the time in, a judgement and actions out. No I/O, no clock, no
//! randomness of its own.

use std::collections::HashMap;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::book::{Book, Entry};
use crate::heads::{Fork, Heads, Verdict};
use crate::nominate::Held;
use crate::record::{CheckedBundle, CheckedNomination, Coverage, ModuleId, SecretKey};

/// First byte of a gossip message that carries a bundle.
pub const BUNDLE: u8 = 0;
/// First byte of a gossip message that carries a nomination.
pub const NOMINATION: u8 = 1;

/// Bounds of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Modules watched or held.
    pub modules: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { modules: 1024 }
    }
}

/// What happened.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and most carry a bundle")]
pub enum Event {
    /// Somebody here wants to hear of a module.
    Watch {
        /// The module.
        module: ModuleId,
    },
    /// Nobody here wants to hear of it any more.
    Unwatch {
        /// The module.
        module: ModuleId,
    },
    /// This node holds a generation, whole or in part. Replaces what it held of that module.
    Hold {
        /// The head of the generation.
        bundle: CheckedBundle,
        /// How much of it.
        coverage: Coverage,
        /// Web addresses where the same tree stands.
        http: Vec<String>,
    },
    /// This node holds nothing of a module any more.
    Release {
        /// The module.
        module: ModuleId,
    },
    /// A bundle from anywhere.
    Bundle {
        /// Unchecked.
        bytes: Vec<u8>,
    },
    /// A nomination from anywhere.
    Nomination {
        /// Unchecked.
        bytes: Vec<u8>,
        /// Who passed it on.
        from: PeerId,
    },
    /// Where this node is reached has changed.
    Addresses(Vec<Multiaddr>),
    /// A connection to a node.
    Connected {
        /// Which.
        peer: PeerId,
    },
    /// Time went by.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Join the module's gossip topic.
    Subscribe(ModuleId),
    /// Leave it.
    Unsubscribe(ModuleId),
    /// Tell the topic.
    Gossip {
        /// The module.
        module: ModuleId,
        /// Tag byte and record.
        payload: Vec<u8>,
    },
    /// Announce this node as a provider in the DHT.
    Provide(ModuleId),
    /// Do so no longer.
    StopProviding(ModuleId),
    /// Put a bundle into the DHT.
    PutBundle(CheckedBundle),
    /// The newest head changed, or got a later Fresh record.
    Head {
        /// The newest.
        bundle: CheckedBundle,
        /// A higher generation, not only fresher.
        newer: bool,
    },
    /// Two heads contradict each other.
    Forked {
        /// The module.
        module: ModuleId,
        /// The proof.
        fork: Box<Fork>,
    },
    /// A mirror and where it is reached.
    Learned {
        /// The module.
        module: ModuleId,
        /// The mirror.
        peer: PeerId,
        /// Its addresses, by its own word.
        addresses: Vec<Multiaddr>,
    },
}

/// What to do with the message an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Valid news: pass it on.
    Accept,
    /// Valid but old, or of no interest: do not pass it on.
    Ignore,
    /// Invalid: blame the sender.
    Reject,
}

#[derive(Debug, Default)]
struct Module {
    heads: Heads,
    book: Book,
    held: Option<Held>,
    watched: bool,
}

/// The state of all decisions.
#[derive(Debug)]
pub struct Machine {
    key: SecretKey,
    limits: Limits,
    addresses: Vec<Multiaddr>,
    modules: HashMap<ModuleId, Module>,
}

impl Machine {
    /// A machine that knows nothing yet; `key` signs this node's nominations.
    pub fn new(key: SecretKey, limits: Limits) -> Self {
        Self { key, limits, addresses: Vec::new(), modules: HashMap::new() }
    }

    /// Takes one event at time `now` (seconds since the epoch).
    pub fn handle(&mut self, event: Event, now: u64) -> (Judgement, Vec<Action>) {
        let mut actions = Vec::new();
        let judgement = match event {
            Event::Watch { module } => self.watch(module, &mut actions),
            Event::Unwatch { module } => self.unwatch(module, &mut actions),
            Event::Hold { bundle, coverage, http } => self.hold(Held::new(bundle, coverage, http), now, &mut actions),
            Event::Release { module } => self.release(module, now, &mut actions),
            Event::Bundle { bytes } => self.bundle(&bytes, &mut actions),
            Event::Nomination { bytes, .. } => self.nomination(&bytes, now, &mut actions),
            Event::Addresses(addresses) => self.readdress(addresses, now, &mut actions),
            Event::Connected { .. } => Judgement::Accept,
            Event::Tick => self.tick(now, &mut actions),
        };
        (judgement, actions)
    }

    /// The newest believed head.
    pub fn newest(&self, module: &ModuleId) -> Option<&CheckedBundle> {
        self.modules.get(module)?.heads.newest()
    }

    /// Believed generations, newest first, 8 at most.
    pub fn candidates(&self, module: &ModuleId) -> Vec<CheckedBundle> {
        self.modules.get(module).map_or_else(Vec::new, |module| module.heads.candidates().cloned().collect())
    }

    /// Mirrors by their own word, best first; this node's own word last.
    pub fn mirrors(&self, module: &ModuleId, now: u64) -> Vec<CheckedNomination> {
        let Some(module) = self.modules.get(module) else { return Vec::new() };
        let own = module.held.as_ref().and_then(Held::last);
        module.book.mirrors(now).into_iter().chain(own).cloned().collect()
    }

    /// The proof of a fork in the newest epoch.
    pub fn fork(&self, module: &ModuleId) -> Option<&Fork> {
        self.modules.get(module)?.heads.fork()
    }

    /// The module's entry, made (and its topic joined) where there is room.
    fn open(&mut self, module: ModuleId, actions: &mut Vec<Action>) -> Option<&mut Module> {
        if !self.modules.contains_key(&module) {
            if self.modules.len() >= self.limits.modules {
                return None;
            }
            actions.push(Action::Subscribe(module));
        }
        Some(self.modules.entry(module).or_default())
    }

    fn watch(&mut self, module: ModuleId, actions: &mut Vec<Action>) -> Judgement {
        match self.open(module, actions) {
            Some(entry) => {
                entry.watched = true;
                Judgement::Accept
            }
            None => Judgement::Ignore,
        }
    }

    fn unwatch(&mut self, module: ModuleId, actions: &mut Vec<Action>) -> Judgement {
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        entry.watched = false;
        if entry.held.is_none() {
            self.modules.remove(&module);
            actions.push(Action::Unsubscribe(module));
        }
        Judgement::Accept
    }

    fn hold(&mut self, held: Held, now: u64, actions: &mut Vec<Action>) -> Judgement {
        let (key, addresses) = (self.key.clone(), self.addresses.clone());
        let (module, bundle) = (held.bundle.module(), held.bundle.clone());
        let Some(entry) = self.open(module, actions) else { return Judgement::Ignore };
        let first = entry.held.is_none();
        let verdict = entry.heads.offer(bundle);
        entry.held = Some(held.after(entry.held.as_ref()));
        if matches!(verdict, Verdict::Newest | Verdict::Fresher)
            && let Some(newest) = entry.heads.newest().cloned()
        {
            actions.push(Action::Head { bundle: newest, newer: verdict == Verdict::Newest });
        }
        if let Some(newest) = entry.heads.newest().cloned() {
            actions.push(Action::Gossip { module, payload: [&[BUNDLE], newest.bytes()].concat() });
            actions.push(Action::PutBundle(newest));
        }
        if first {
            actions.push(Action::Provide(module));
        }
        say(entry, &key, &addresses, now, actions);
        Judgement::Accept
    }

    fn release(&mut self, module: ModuleId, now: u64, actions: &mut Vec<Action>) -> Judgement {
        let (key, addresses) = (self.key.clone(), self.addresses.clone());
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        let Some(held) = &mut entry.held else { return Judgement::Ignore };
        held.coverage = Coverage::NONE;
        say(entry, &key, &addresses, now, actions);
        entry.held = None;
        actions.push(Action::StopProviding(module));
        if !entry.watched {
            self.modules.remove(&module);
            actions.push(Action::Unsubscribe(module));
        }
        Judgement::Accept
    }

    fn bundle(&mut self, bytes: &[u8], actions: &mut Vec<Action>) -> Judgement {
        let Ok(bundle) = CheckedBundle::verify(bytes) else { return Judgement::Reject };
        let module = bundle.module();
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        let verdict = entry.heads.offer(bundle);
        match verdict {
            Verdict::Newest | Verdict::Fresher => {
                if let Some(newest) = entry.heads.newest().cloned() {
                    actions.push(Action::Head { bundle: newest, newer: verdict == Verdict::Newest });
                }
                Judgement::Accept
            }
            Verdict::Forked => {
                if let Some(fork) = entry.heads.fork().cloned() {
                    actions.push(Action::Forked { module, fork: Box::new(fork) });
                }
                // Others should see the proof as well.
                Judgement::Accept
            }
            Verdict::Known | Verdict::Older | Verdict::Doubted => Judgement::Ignore,
        }
    }

    fn nomination(&mut self, bytes: &[u8], now: u64, actions: &mut Vec<Action>) -> Judgement {
        let Ok(nomination) = CheckedNomination::verify(bytes) else { return Judgement::Reject };
        let module = nomination.nomination().module;
        let own = self.key.public().peer_id() == Some(nomination.peer());
        let Some(entry) = self.modules.get_mut(&module).filter(|_| !own) else { return Judgement::Ignore };
        let (peer, addresses) = (nomination.peer(), nomination.nomination().addresses.clone());
        match entry.book.offer(nomination, now) {
            Entry::Taken => {
                actions.push(Action::Learned { module, peer, addresses });
                Judgement::Accept
            }
            Entry::Old | Entry::Refused => Judgement::Ignore,
        }
    }

    fn readdress(&mut self, addresses: Vec<Multiaddr>, now: u64, actions: &mut Vec<Action>) -> Judgement {
        if addresses == self.addresses {
            return Judgement::Ignore;
        }
        self.addresses = addresses;
        for entry in self.modules.values_mut() {
            say(entry, &self.key, &self.addresses, now, actions);
        }
        Judgement::Accept
    }

    fn tick(&mut self, now: u64, actions: &mut Vec<Action>) -> Judgement {
        for entry in self.modules.values_mut() {
            entry.book.expire(now);
            if entry.held.as_ref().is_some_and(|held| held.is_due(now)) {
                say(entry, &self.key, &self.addresses, now, actions);
            }
        }
        Judgement::Accept
    }
}

/// Signs and spreads the next nomination of a held module.
fn say(entry: &mut Module, key: &SecretKey, addresses: &[Multiaddr], now: u64, actions: &mut Vec<Action>) {
    let Some(held) = &mut entry.held else { return };
    match held.nominate(key, addresses, now) {
        Ok(nomination) => {
            let payload = [&[NOMINATION], nomination.bytes()].concat();
            actions.push(Action::Gossip { module: held.bundle.module(), payload });
        }
        Err(error) => tracing::warn!(%error, "own nomination"),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
