//! All discovery decisions as one pure state machine: events and the time in, a judgement and actions out. No I/O, no clock, no
//! randomness of its own.

use std::collections::HashMap;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

mod event;

pub use event::{Action, BUNDLE, Event, Judgement, Limits, NOMINATION, ROSTER, Verified};

use crate::book::{Book, Entry, Mirror, Outcome};
use crate::heads::{Fork, Heads, Verdict};
use crate::nominate::{Held, Profile};
use crate::record::{CheckedBundle, CheckedNomination, CheckedRoster, Coverage, ModuleId, RosterList, SecretKey};
use crate::rosters::{Offered, Rosters};
use crate::tracker::Tracker;

#[derive(Debug, Default)]
struct Module {
    heads: Heads,
    book: Book,
    rosters: Rosters,
    tracker: Tracker,
    held: Option<Held>,
    watched: bool,
}

impl Module {
    fn ranked(&self, now: u64) -> Vec<&Mirror> {
        self.book.mirrors(self.heads.newest().map(CheckedBundle::generation), now)
    }

    /// The newest head changed, or became fresher.
    fn headed(&mut self, newer: bool, actions: &mut Vec<Action>) {
        let Some(newest) = self.heads.newest().cloned() else { return };
        for tracker in self.rosters.accept(newest.charter()) {
            self.book.unvouch(&tracker);
        }
        actions.push(Action::Head { bundle: newest, newer });
    }

    /// A verified roster, whatever it comes to: its mirrors enter the book with the tracker's word for them.
    fn rostered(
        &mut self,
        roster: CheckedRoster,
        list: Option<RosterList>,
        own: Option<PeerId>,
        now: u64,
        actions: &mut Vec<Action>,
    ) -> Offered {
        let Some(charter) = self.heads.newest().map(|newest| newest.charter().clone()) else {
            return Offered::Stranger;
        };
        let (module, tracker, until) = (roster.roster().module, roster.tracker(), roster.roster().until);
        let rows = list.as_ref().map(|list| list.rows().to_vec());
        let offered = self.rosters.offer(roster, list, &charter);
        let Some(rows) = rows.filter(|_| offered == Offered::Taken) else { return offered };
        self.book.unvouch(&tracker);
        for row in rows.iter().filter(|row| own != Some(row.nomination.peer())) {
            if self.book.vouch(row, tracker, until, now) {
                let (peer, addresses) = (row.nomination.peer(), row.nomination.nomination().addresses.clone());
                actions.push(Action::Learned { module, peer, addresses });
            }
        }
        let rosters = self.rosters.complete().into_iter().cloned().collect();
        actions.push(Action::KeepRosters { module, rosters });
        offered
    }

    /// A tracker of the charter probes, and publishes what passed.
    fn track(&mut self, key: &SecretKey, own: Option<PeerId>, now: u64, actions: &mut Vec<Action>) {
        let charter = self.heads.newest().map(CheckedBundle::charter);
        let Some(own) = own.filter(|own| charter.is_some_and(|charter| charter.trackers.contains(own))) else { return };
        if self.held.is_none() {
            return;
        }
        let probes = self.tracker.probes(&self.book, &self.heads, key, now);
        actions.extend(probes.into_iter().map(Action::Probe));
        match self.tracker.publish(&self.book, &self.heads, key, self.rosters.issued(&own), now) {
            Ok(None) => {}
            Ok(Some((roster, list))) => {
                let module = roster.roster().module;
                let payload = [&[ROSTER], roster.bytes()].concat();
                self.rostered(roster, Some(list), Some(own), now, actions);
                actions.push(Action::Gossip { module, payload });
            }
            Err(error) => tracing::warn!(%error, "own roster"),
        }
    }
}

/// The state of all decisions.
#[derive(Debug)]
pub struct Machine {
    key: SecretKey,
    peer: Option<PeerId>,
    limits: Limits,
    profile: Profile,
    modules: HashMap<ModuleId, Module>,
}

impl Machine {
    /// A machine that knows nothing yet; `key` signs this node's nominations.
    pub fn new(key: SecretKey, limits: Limits) -> Self {
        let peer = key.public().peer_id();
        Self { key, peer, limits, profile: Profile::default(), modules: HashMap::new() }
    }

    /// With something to say of itself; addresses that come by [`Event::Addresses`] replace those of `profile`.
    #[must_use]
    pub fn describing(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// Takes one event at time `now` (seconds since the epoch).
    pub fn handle(&mut self, event: Event, now: u64) -> (Judgement, Vec<Action>) {
        let mut actions = Vec::new();
        let judgement = match event {
            Event::Watch { module } => self.watch(module, &mut actions),
            Event::Unwatch { module } => self.unwatch(module, &mut actions),
            Event::Hold { bundle, coverage, http } => self.hold(Held::new(bundle, coverage, http), now, &mut actions),
            Event::Passing { bundle, coverage } => self.hold(Held::passing(bundle, coverage), now, &mut actions),
            Event::Release { module } => self.release(module, now, &mut actions),
            Event::Bundle { bytes } => match CheckedBundle::verify(&bytes) {
                Ok(bundle) => self.bundle(bundle, &mut actions),
                Err(_) => Judgement::Reject,
            },
            Event::Nomination { bytes, from } => match CheckedNomination::verify(&bytes) {
                Ok(nomination) => self.nomination(nomination, from, now, &mut actions),
                Err(_) => Judgement::Reject,
            },
            Event::Roster { bytes, list } => self.heard_roster(&bytes, list.as_deref(), now, &mut actions),
            Event::Verified { record: Verified::Bundle(bundle), .. } => self.bundle(bundle, &mut actions),
            Event::Verified { record: Verified::Nomination(nomination), from } => {
                self.nomination(nomination, from, now, &mut actions)
            }
            Event::Verified { record: Verified::Roster(roster, list), .. } => {
                self.roster(roster, list, now, &mut actions)
            }
            Event::Measured { module, peer, outcome } => self.measured(module, peer, outcome, now),
            Event::Probed { module, peer, outcome } => self.probed(module, peer, outcome, now, &mut actions),
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

    /// What mirrors say, best first; this node's own word last.
    pub fn mirrors(&self, module: &ModuleId, now: u64) -> Vec<CheckedNomination> {
        let Some(module) = self.modules.get(module) else { return Vec::new() };
        let own = module.held.as_ref().and_then(Held::last);
        module.ranked(now).into_iter().map(Mirror::nomination).chain(own).cloned().collect()
    }

    /// The mirrors in the book with all that is known of them, best first.
    pub fn book(&self, module: &ModuleId, now: u64) -> Vec<Mirror> {
        self.modules.get(module).map_or_else(Vec::new, |module| module.ranked(now).into_iter().cloned().collect())
    }

    /// Complete rosters of a module, the latest first.
    pub fn rosters(&self, module: &ModuleId) -> Vec<(CheckedRoster, RosterList)> {
        self.modules
            .get(module)
            .map_or_else(Vec::new, |module| module.rosters.complete().into_iter().cloned().collect())
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
        let book = || Book::new(self.key.secret_number(module.as_bytes()));
        Some(self.modules.entry(module).or_insert_with(|| Module { book: book(), ..Module::default() }))
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
        let (key, profile) = (self.key.clone(), self.profile.clone());
        let (module, bundle) = (held.bundle.module(), held.bundle.clone());
        let lasts = held.lasts();
        let Some(entry) = self.open(module, actions) else { return Judgement::Ignore };
        if !lasts && entry.held.as_ref().is_some_and(Held::lasts) {
            return Judgement::Ignore;
        }
        let first = lasts && !entry.held.as_ref().is_some_and(Held::lasts);
        let verdict = entry.heads.offer(bundle);
        entry.held = Some(held.after(entry.held.as_ref()));
        if matches!(verdict, Verdict::Newest | Verdict::Fresher) {
            entry.headed(verdict == Verdict::Newest, actions);
        }
        if let Some(newest) = entry.heads.newest().cloned().filter(|_| lasts) {
            actions.push(Action::Gossip { module, payload: [&[BUNDLE], newest.bytes()].concat() });
            actions.push(Action::PutBundle(newest));
        }
        if first {
            actions.push(Action::Provide(module));
        }
        say(entry, &key, &profile, now, actions);
        Judgement::Accept
    }

    fn release(&mut self, module: ModuleId, now: u64, actions: &mut Vec<Action>) -> Judgement {
        let (key, profile) = (self.key.clone(), self.profile.clone());
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        let Some(held) = &mut entry.held else { return Judgement::Ignore };
        held.coverage = Coverage::NONE;
        say(entry, &key, &profile, now, actions);
        entry.held = None;
        actions.push(Action::StopProviding(module));
        if !entry.watched {
            self.modules.remove(&module);
            actions.push(Action::Unsubscribe(module));
        }
        Judgement::Accept
    }

    fn bundle(&mut self, bundle: CheckedBundle, actions: &mut Vec<Action>) -> Judgement {
        let module = bundle.module();
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        let verdict = entry.heads.offer(bundle);
        match verdict {
            Verdict::Newest | Verdict::Fresher => {
                entry.headed(verdict == Verdict::Newest, actions);
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

    fn nomination(
        &mut self,
        nomination: CheckedNomination,
        from: PeerId,
        now: u64,
        actions: &mut Vec<Action>,
    ) -> Judgement {
        let module = nomination.nomination().module;
        let own = self.peer == Some(nomination.peer());
        let Some(entry) = self.modules.get_mut(&module).filter(|_| !own) else { return Judgement::Ignore };
        let (peer, addresses) = (nomination.peer(), nomination.nomination().addresses.clone());
        match entry.book.offer(nomination, from, now) {
            Entry::Taken => {
                actions.push(Action::Learned { module, peer, addresses });
                Judgement::Accept
            }
            Entry::Old | Entry::Refused => Judgement::Ignore,
        }
    }

    /// Verifies a roster, and its list where that is lacking here.
    fn heard_roster(&mut self, bytes: &[u8], list: Option<&[u8]>, now: u64, actions: &mut Vec<Action>) -> Judgement {
        let Ok(roster) = CheckedRoster::verify(bytes) else { return Judgement::Reject };
        let Some(entry) = self.modules.get(&roster.roster().module) else { return Judgement::Ignore };
        let list = list.filter(|_| entry.rosters.lacks(&roster));
        match list.map(|bytes| RosterList::read(roster.roster(), bytes)).transpose() {
            Ok(list) => self.roster(roster, list, now, actions),
            Err(_) => Judgement::Reject,
        }
    }

    fn roster(
        &mut self,
        roster: CheckedRoster,
        list: Option<RosterList>,
        now: u64,
        actions: &mut Vec<Action>,
    ) -> Judgement {
        let Some(entry) = self.modules.get_mut(&roster.roster().module) else { return Judgement::Ignore };
        match entry.rostered(roster, list, self.peer, now, actions) {
            Offered::Taken => Judgement::Accept,
            Offered::Old | Offered::Stranger => Judgement::Ignore,
        }
    }

    fn measured(&mut self, module: ModuleId, peer: PeerId, outcome: Outcome, now: u64) -> Judgement {
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        entry.book.measure(&peer, outcome, now);
        Judgement::Accept
    }

    fn probed(
        &mut self,
        module: ModuleId,
        peer: PeerId,
        outcome: Outcome,
        now: u64,
        actions: &mut Vec<Action>,
    ) -> Judgement {
        let Some(entry) = self.modules.get_mut(&module) else { return Judgement::Ignore };
        entry.book.measure(&peer, outcome, now);
        entry.tracker.probed(&peer, outcome, now);
        entry.track(&self.key, self.peer, now, actions);
        Judgement::Accept
    }

    fn readdress(&mut self, addresses: Vec<Multiaddr>, now: u64, actions: &mut Vec<Action>) -> Judgement {
        if addresses == self.profile.addresses {
            return Judgement::Ignore;
        }
        self.profile.addresses = addresses;
        for entry in self.modules.values_mut() {
            say(entry, &self.key, &self.profile, now, actions);
        }
        Judgement::Accept
    }

    fn tick(&mut self, now: u64, actions: &mut Vec<Action>) -> Judgement {
        for entry in self.modules.values_mut() {
            entry.book.expire(now);
            entry.track(&self.key, self.peer, now, actions);
            actions.extend(entry.rosters.lacking(now).into_iter().map(|roster| Action::WantList { roster }));
            if entry.held.as_ref().is_some_and(|held| held.is_due(now)) {
                say(entry, &self.key, &self.profile, now, actions);
            }
        }
        Judgement::Accept
    }
}

/// Signs and spreads the next nomination of a held module.
fn say(entry: &mut Module, key: &SecretKey, profile: &Profile, now: u64, actions: &mut Vec<Action>) {
    let Some(held) = &mut entry.held else { return };
    match held.nominate(key, profile, now) {
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

#[cfg(test)]
#[path = "roster_tests.rs"]
mod roster_tests;
