//! The run: nodes, their links, and what the machines' actions do to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::network::{Queue, What};
use super::node::{Kind, Message, Node};
use super::random::Random;
use super::scenario::{Scenario, Step};
use crate::book::Outcome;
use crate::machine::{Action, Event, Judgement, Verified};
use crate::record::fixtures::{charter, head, module, root_key};
use crate::record::{CheckedBundle, CheckedRoster, Coverage, Fresh, Generation, ModuleId};

/// When runs begin, seconds since the epoch: late enough for clocks that are ten years slow.
pub(super) const START: u64 = 2_000_000_000;
/// Ten years, seconds.
const YEARS: u64 = 10 * 365 * 24 * 3600;
/// Neighbours that each node looks for.
const LINKS: usize = 6;
/// Times that a node tells what it has, and to how many, once a second.
const REPAIRS: u32 = 3;
const TOLD: usize = 3;
/// Nominations that a hello brings.
const SAMPLE: usize = 16;

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    by_peer: HashMap<PeerId, usize>,
    queue: Queue,
    /// Milliseconds since the start.
    pub(super) now: u64,
    parted: bool,
    pub(super) module: ModuleId,
    pub(super) published: Vec<CheckedBundle>,
    /// When each was published, and when a parted network was whole again, milliseconds.
    pub(super) published_at: Vec<u64>,
    pub(super) healed_at: Option<u64>,
    pub(super) rejected: u64,
}

impl World {
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        let mut random = Random(seed);
        let kinds = [
            (Kind::Origin, 1),
            (Kind::Mirror, scenario.mirrors),
            (Kind::Watcher, scenario.watchers),
            (Kind::Sybil, scenario.sybils),
            (Kind::Liar, scenario.liars),
            (Kind::Replayer, scenario.replayers),
        ];
        let kinds = kinds.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
        let mut nodes: Vec<Node> = Vec::new();
        for (number, kind) in kinds.enumerate() {
            let is_skewed = kind != Kind::Origin && random.permille(scenario.skewed);
            let skew = i64::try_from(random.between(0, 2 * YEARS)).unwrap() - i64::try_from(YEARS).unwrap();
            let skew = if is_skewed { skew } else { 0 };
            nodes.push(Node::new(kind, number, skew, random.between(1, 50) << 20));
        }
        let by_peer = nodes.iter().enumerate().map(|(at, node)| (node.peer, at)).collect();
        let (module, queue) = (module(1).1, Queue::default());
        let (published, published_at) = (Vec::new(), Vec::new());
        let mut world = Self {
            scenario,
            random,
            nodes,
            by_peer,
            queue,
            now: 0,
            parted: false,
            module,
            published,
            published_at,
            healed_at: None,
            rejected: 0,
        };
        world.link();
        world.begin();
        world
    }

    /// Each node links to some others, as a gossip mesh does.
    fn link(&mut self) {
        for at in 0..self.nodes.len() {
            while self.nodes[at].links.len() < LINKS.min(self.nodes.len() - 1) {
                let other = self.random.below(self.nodes.len());
                if other != at && !self.nodes[at].links.contains(&other) {
                    self.nodes[at].links.push(other);
                    self.nodes[other].links.push(at);
                }
            }
        }
    }

    fn begin(&mut self) {
        for at in 0..self.nodes.len() {
            // A public address in a network of its own.
            let (high, low) = (at / 250, at % 250);
            let address = format!("/ip4/{}.{low}.1.1/tcp/4741", 20 + high).parse().unwrap();
            self.feed(at, Event::Addresses(vec![address]));
            self.feed(at, Event::Watch { module: self.module });
            let first = self.random.between(0, self.scenario.tick * 1000);
            self.queue.put(first, What::Tick(at));
        }
        for (at, step) in self.scenario.script.clone() {
            self.queue.put(at * 1000, What::Step(step));
        }
    }

    /// Runs until so many seconds after the start.
    pub(super) fn run(&mut self, end: u64) {
        while let Some((at, what)) = self.queue.next(end * 1000) {
            self.now = at;
            match what {
                What::Gossip { to, from, message, hop } => self.gossip(to, from, &message, hop),
                What::Repair { node, message, hop, left } => self.repair(node, &message, hop, left),
                What::Tick(node) => self.tick(node),
                What::Probed { node, peer, outcome } => {
                    let module = self.module;
                    self.feed(node, Event::Probed { module, peer, outcome });
                }
                What::List { node, roster } => self.bring_list(node, &roster),
                What::Fetched { node, bundle } => self.place(node, *bundle),
                What::Step(step) => self.step(step),
            }
        }
    }

    pub(super) fn time(&self) -> u64 {
        START + self.now / 1000
    }

    fn latency(&mut self) -> u64 {
        self.random.between(10, 250)
    }

    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        from.up && to.up && (!self.parted || from.part == to.part)
    }

    /// Gives a machine an event, and does what it says.
    pub(super) fn feed(&mut self, at: usize, event: Event) -> Judgement {
        let clock = self.nodes[at].clock(self.time());
        let (judgement, actions) = self.nodes[at].machine.handle(event, clock);
        for action in actions {
            self.act(at, action);
        }
        judgement
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Gossip { payload, .. } => {
                let message = Arc::new(message(payload));
                self.nodes[at].news.insert(message.bytes[0], Arc::clone(&message));
                self.nodes[at].seen.insert(message.id);
                self.forward(at, None, &message, 1);
            }
            Action::Head { bundle, newer: true } => self.heard_of(at, bundle),
            Action::Probe(probe) => {
                let outcome = match self.by_peer.get(&probe.peer) {
                    Some(peer) if self.reaches(at, *peer) => {
                        let there = &self.nodes[*peer];
                        let has = there.holds.get(&probe.generation).is_some_and(|held| *held.root() == probe.root);
                        if has { Outcome::Good { rate: there.rate } } else { Outcome::Lacking }
                    }
                    _ => Outcome::Unreachable,
                };
                let back = self.now + 4 * self.latency();
                self.queue.put(back, What::Probed { node: at, peer: probe.peer, outcome });
            }
            Action::WantList { roster } => {
                let later = self.now + 2 * self.latency();
                self.queue.put(later, What::List { node: at, roster: Box::new(roster) });
            }
            _ => {}
        }
    }

    /// A node learned of a newer head: never a lower one than before. Who mirrors fetches, who lies claims.
    fn heard_of(&mut self, at: usize, bundle: CheckedBundle) {
        let generation = bundle.generation();
        let node = &mut self.nodes[at];
        assert!(node.highest.is_none_or(|highest| generation > highest), "{}: rolled back", self.scenario.name);
        node.highest = Some(generation);
        match node.kind {
            Kind::Sybil => self.claim(at, bundle),
            Kind::Liar if !node.holds.is_empty() => self.claim(at, bundle),
            Kind::Mirror | Kind::Liar => self.plan_fetch(at),
            Kind::Origin | Kind::Watcher | Kind::Replayer => {}
        }
    }

    fn claim(&mut self, at: usize, bundle: CheckedBundle) {
        self.feed(at, Event::Hold { bundle, coverage: Coverage::WHOLE, http: Vec::new() });
    }

    /// A pass: the newest generation that somebody reachable has, if it is above what is placed.
    pub(super) fn plan_fetch(&mut self, at: usize) {
        if self.nodes[at].fetching || !self.nodes[at].up {
            return;
        }
        let candidates = self.nodes[at].machine.candidates(&self.module);
        let to_be_had = candidates.into_iter().find(|bundle| {
            let above = self.nodes[at].placed.is_none_or(|placed| bundle.generation() > placed);
            above && self.holder(at, bundle.generation()).is_some()
        });
        if let Some(bundle) = to_be_had {
            self.nodes[at].fetching = true;
            let takes = self.random.between(5_000, 60_000);
            self.queue.put(self.now + takes, What::Fetched { node: at, bundle: Box::new(bundle) });
        }
    }

    /// Somebody that this node knows of or is linked to, and who can give the generation.
    fn holder(&self, at: usize, generation: Generation) -> Option<usize> {
        let clock = self.nodes[at].clock(self.time());
        let known = self.nodes[at].machine.mirrors(&self.module, clock);
        let known = known.iter().filter_map(|nomination| self.by_peer.get(&nomination.peer()).copied());
        let mut all = known.chain(self.nodes[at].links.iter().copied()).chain([0]);
        all.find(|other| *other != at && self.reaches(at, *other) && self.nodes[*other].holds.contains_key(&generation))
    }

    fn place(&mut self, at: usize, bundle: CheckedBundle) {
        let node = &mut self.nodes[at];
        node.fetching = false;
        let generation = bundle.generation();
        assert!(node.placed.is_none_or(|placed| placed < generation), "{}: placed goes back", self.scenario.name);
        node.placed = Some(generation);
        // The former one is not kept.
        node.holds = BTreeMap::from([(generation, bundle.clone())]);
        self.feed(at, Event::Hold { bundle, coverage: Coverage::WHOLE, http: Vec::new() });
        self.plan_fetch(at);
    }

    fn forward(&mut self, at: usize, except: Option<usize>, message: &Arc<Message>, hop: u32) {
        for to in self.nodes[at].links.clone() {
            if Some(to) != except && self.reaches(at, to) && !self.random.permille(self.scenario.loss) {
                let arrives = self.now + self.latency();
                self.queue.put(arrives, What::Gossip { to, from: at, message: Arc::clone(message), hop });
            }
        }
        self.queue.put(self.now + 1000, What::Repair { node: at, message: Arc::clone(message), hop, left: REPAIRS });
    }

    fn repair(&mut self, at: usize, message: &Arc<Message>, hop: u32, left: u32) {
        for _ in 0..TOLD {
            let to = self.nodes[at].links[self.random.below(self.nodes[at].links.len())];
            let lacks = !self.nodes[to].seen.contains(&message.id);
            if lacks && self.reaches(at, to) && !self.random.permille(3 * self.scenario.loss) {
                let arrives = self.now + 3 * self.latency();
                self.queue.put(arrives, What::Gossip { to, from: at, message: Arc::clone(message), hop: hop + 1 });
            }
        }
        if left > 1 {
            let next = What::Repair { node: at, message: Arc::clone(message), hop, left: left - 1 };
            self.queue.put(self.now + 1000, next);
        }
    }

    fn gossip(&mut self, to: usize, from: usize, message: &Arc<Message>, hop: u32) {
        if !self.reaches(from, to) {
            return;
        }
        let now = self.now;
        let Some(record) = message.record.clone() else {
            self.rejected += 1;
            return;
        };
        let node = &mut self.nodes[to];
        if let Verified::Bundle(bundle) = &record {
            *node.copies.entry(bundle.generation()).or_default() += 1;
            node.heard.entry(bundle.generation()).or_insert((now, hop));
        }
        if !node.seen.insert(message.id) {
            return;
        }
        let (kind, from_peer) = (node.kind, self.nodes[from].peer);
        let judgement = self.feed(to, Event::Verified { record, from: from_peer });
        if judgement == Judgement::Accept && kind != Kind::Sybil {
            self.forward(to, Some(from), message, hop + 1);
        }
    }

    fn tick(&mut self, at: usize) {
        self.queue.put(self.now + self.scenario.tick * 1000, What::Tick(at));
        if at != 0 && self.scenario.churn > 0 {
            if !self.nodes[at].up {
                self.nodes[at].up = true;
                self.come_back(at);
            } else if self.random.permille(self.scenario.churn) {
                self.nodes[at].up = false;
            }
        }
        if !self.nodes[at].up {
            return;
        }
        self.feed(at, Event::Tick);
        match self.nodes[at].kind {
            Kind::Mirror => self.plan_fetch(at),
            Kind::Replayer => self.replay(at),
            _ => {}
        }
    }

    /// Old words of others, and junk.
    fn replay(&mut self, at: usize) {
        let clock = self.nodes[at].clock(self.time());
        let old = self.nodes[at].machine.mirrors(&self.module, clock).into_iter().next();
        let payload = match old {
            Some(nomination) => [&[crate::machine::NOMINATION], nomination.bytes()].concat(),
            None => vec![crate::machine::BUNDLE, 1, 2, 3],
        };
        self.forward(at, None, &Arc::new(message(payload)), 1);
        self.forward(at, None, &Arc::new(message(vec![9; 64])), 1);
    }

    /// Links stand again: both sides say hello.
    fn come_back(&mut self, at: usize) {
        for other in self.nodes[at].links.clone() {
            if self.reaches(at, other) {
                self.hello(at, other);
                self.hello(other, at);
            }
        }
    }

    /// What `to` hears from `from` with a hello: heads, nominations, rosters.
    pub(super) fn hello(&mut self, to: usize, from: usize) {
        let (module, peer) = (self.module, self.nodes[from].peer);
        let clock = self.nodes[from].clock(self.time());
        let machine = &self.nodes[from].machine;
        let heads: Vec<CheckedBundle> = machine.newest(&module).into_iter().cloned().collect();
        let held = self.nodes[from].holds.values().cloned();
        let bundles: Vec<_> = heads.into_iter().chain(held).map(Verified::Bundle).collect();
        let said = machine.mirrors(&module, clock).into_iter().take(SAMPLE).map(Verified::Nomination);
        let own = self.nodes[from].news.values().filter_map(|message| message.record.clone());
        let rosters = machine.rosters(&module);
        for record in bundles.into_iter().chain(said.collect::<Vec<_>>()).chain(own.collect::<Vec<_>>()) {
            if let Verified::Bundle(bundle) = &record {
                let now = self.now;
                self.nodes[to].heard.entry(bundle.generation()).or_insert((now, 0));
            }
            let is_news = self.feed(to, Event::Verified { record: record.clone(), from: peer }) == Judgement::Accept;
            if is_news && let Verified::Bundle(bundle) = &record {
                let payload = [&[crate::machine::BUNDLE], bundle.bytes()].concat();
                self.forward(to, Some(from), &Arc::new(named(payload, Some(record))), 1);
            }
        }
        for (roster, list) in rosters {
            // Verified by the other one: here that is enough, and it is most of the work.
            self.feed(to, Event::Verified { record: Verified::Roster(roster, Some(list)), from: peer });
        }
    }

    /// Asks the tracker, then the neighbours, for the list of a roster.
    fn bring_list(&mut self, at: usize, wanted: &CheckedRoster) {
        let (tracker, list) = (self.by_peer.get(&wanted.tracker()).copied(), wanted.roster().list);
        let asked: Vec<usize> = tracker.into_iter().chain(self.nodes[at].links.iter().copied()).collect();
        for other in asked.into_iter().filter(|other| self.reaches(at, *other)) {
            let found = self.nodes[other].machine.rosters(&self.module).into_iter().find(|(_, own)| own.cid() == list);
            if let Some((roster, list)) = found {
                let from = self.nodes[other].peer;
                self.feed(at, Event::Verified { record: Verified::Roster(roster, Some(list)), from });
                return;
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish => self.publish(true),
            Step::PublishAndDie => {
                self.publish(false);
                // Its last words leave; nobody ever gets the tree.
                self.nodes[0].holds.clear();
                self.queue.put(self.now + 2_000, What::Step(Step::OriginDies));
            }
            Step::OriginDies => self.nodes[0].up = false,
            Step::Part(parts) => {
                self.parted = true;
                for (at, node) in self.nodes.iter_mut().enumerate() {
                    node.part = at % parts;
                }
            }
            Step::Heal => {
                self.parted = false;
                self.healed_at = Some(self.now);
                for at in 0..self.nodes.len() {
                    for other in self.nodes[at].links.clone() {
                        if self.nodes[other].part != self.nodes[at].part && self.reaches(at, other) {
                            self.hello(at, other);
                        }
                    }
                }
            }
            Step::ToggleOdd => {
                for at in (1..self.nodes.len()).step_by(2) {
                    if self.nodes[at].kind != Kind::Mirror {
                        continue;
                    }
                    self.nodes[at].up = !self.nodes[at].up;
                    if self.nodes[at].up {
                        self.come_back(at);
                    }
                }
            }
        }
    }

    fn publish(&mut self, holds: bool) {
        let (name, _) = module(1);
        let previous = self.published.last();
        let seq = previous.map_or(1, |bundle| bundle.generation().seq + 1);
        let mut head = head(1, 0, seq, previous.map(CheckedBundle::head_hash));
        head.created = self.time();
        let mut charter = charter(0);
        charter.trackers.extend((!self.scenario.untracked).then_some(self.nodes[0].peer));
        let unfresh = CheckedBundle::sign(&root_key(), &root_key(), &name, &charter, head, None).unwrap();
        let (issued, until) = (self.time(), self.time() + charter.fresh_for);
        let fresh = Fresh { module: self.module, epoch: 0, seq, head: unfresh.head_hash(), issued, until };
        let bundle = unfresh.with_fresh(&root_key(), &fresh).unwrap();
        self.published.push(bundle.clone());
        self.published_at.push(self.now);
        let origin = &mut self.nodes[0];
        if holds {
            origin.holds.insert(bundle.generation(), bundle.clone());
        }
        origin.heard.insert(bundle.generation(), (self.now, 0));
        self.feed(0, Event::Hold { bundle, coverage: Coverage::WHOLE, http: Vec::new() });
    }

    /// A node that knows one bootstrap node and nothing else.
    pub(super) fn newcomer(&mut self, contacts: &[usize]) -> usize {
        let at = self.nodes.len();
        let mut node = Node::new(Kind::Watcher, 1_000_000 + at, 0, 0);
        node.links = contacts.to_vec();
        self.by_peer.insert(node.peer, at);
        self.nodes.push(node);
        self.feed(at, Event::Watch { module: self.module });
        for contact in contacts {
            self.hello(at, *contact);
        }
        at
    }

    /// The nodes that the mirrors in this node's book are, best first.
    pub(super) fn ranked(&self, at: usize) -> Vec<usize> {
        let clock = self.nodes[at].clock(self.time());
        let book = self.nodes[at].machine.book(&self.module, clock);
        book.iter().filter_map(|mirror| self.by_peer.get(&mirror.nomination().peer()).copied()).collect()
    }
}

fn message(bytes: Vec<u8>) -> Message {
    let record = Verified::of_gossip(&bytes).ok();
    named(bytes, record)
}

fn named(bytes: Vec<u8>, record: Option<Verified>) -> Message {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&bytes).as_bytes();
    Message { id: u64::from_be_bytes([a, b, c, d, e, f, g, h]), bytes, record }
}
