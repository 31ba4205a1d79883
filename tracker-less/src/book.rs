//! The mirror book: who says that it holds a module, and what is known of them beside their own word. Bounded, so that no flood
//! of strangers can push out those who were tried and found good.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use libp2p_identity::PeerId;

use crate::network::{Narrow, Wide, networks};
use crate::record::nomination::MAX_LIFETIME;
use crate::record::{CheckedNomination, Coverage, Generation, Listed};

/// Most mirrors remembered for a module.
pub const MAX_MIRRORS: usize = 1024;
/// Most mirrors from one /24 (IPv4) or /48 (IPv6).
pub const MAX_PER_NETWORK: usize = 8;
/// Most mirrors that are known from one teller's word alone.
pub const MAX_PER_TELLER: usize = 256;
/// How far ahead of us a node's clock may be before its dates say nothing, seconds.
const CLOCK_SLACK: u64 = 24 * 3600;
/// How long a measurement of our own counts, seconds.
const MEASURED_FOR: u64 = 24 * 3600;
/// How long a failure counts: after that the mirror may be tried again, seconds.
const FAILED_FOR: u64 = 3600;
/// One place in so many goes to a mirror that nobody has tried yet.
const NEWCOMERS: usize = 4;

/// What a nomination came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// News.
    Taken,
    /// Known, or older than what is known.
    Old,
    /// No room: its network has enough, or the book is full of better ones.
    Refused,
}

/// What speaks for a mirror, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It took its word back: kept as the proof of that.
    Gone,
    /// It failed us a short time ago.
    Failed,
    /// Its own word, told by others.
    Heard,
    /// Its own word, told by itself: it exists.
    Met,
    /// It was vouched for or measured once, too long ago to count.
    Past,
    /// A tracker has probed it.
    Vouched,
    /// This node has had bytes from it.
    Measured,
}

/// How a mirror did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It gave what it claimed, and that was right.
    Good {
        /// Bytes per second.
        rate: u64,
    },
    /// It lacks what it claims, or gave wrong bytes.
    Lacking,
    /// It was not reached, or did not answer.
    Unreachable,
}

/// One mirror as the book knows it.
#[derive(Debug, Clone)]
pub struct Mirror {
    nomination: CheckedNomination,
    narrow: Vec<Narrow>,
    wide: Wide,
    teller: PeerId,
    met: bool,
    vouched: Option<Vouched>,
    measured: Option<Measured>,
    /// Decides between equals, differently on every node: neither dates nor names that a stranger chooses do.
    lot: u64,
}

#[derive(Debug, Clone, Copy)]
struct Vouched {
    tracker: PeerId,
    until: u64,
    probed: u64,
    rate: u64,
    lag: u64,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    at: u64,
    outcome: Outcome,
}

impl Mirror {
    /// Its own word.
    pub fn nomination(&self) -> &CheckedNomination {
        &self.nomination
    }

    /// True while its own word counts: neither expired nor from the future.
    pub fn is_current(&self, now: u64) -> bool {
        let said = self.nomination.nomination();
        said.until >= now && said.issued <= now.saturating_add(CLOCK_SLACK)
    }

    /// What speaks for it.
    pub fn standing(&self, now: u64) -> Standing {
        if self.nomination.nomination().coverage == Coverage::NONE {
            return Standing::Gone;
        }
        let recent = |at: u64, lasts: u64| now.abs_diff(at) <= lasts;
        match self.measured {
            Some(Measured { at, outcome: Outcome::Good { .. } }) if recent(at, MEASURED_FOR) => {
                return Standing::Measured;
            }
            Some(Measured { at, outcome: Outcome::Lacking | Outcome::Unreachable }) if recent(at, FAILED_FOR) => {
                return Standing::Failed;
            }
            _ => {}
        }
        let was_good = matches!(self.measured, Some(Measured { outcome: Outcome::Good { .. }, .. }));
        match self.vouched {
            Some(vouched) if vouched.until >= now => Standing::Vouched,
            vouched if vouched.is_some() || was_good => Standing::Past,
            _ if self.met => Standing::Met,
            _ => Standing::Heard,
        }
    }

    /// The best known rate, bytes per second: our own measurement before a tracker's.
    pub fn rate(&self) -> Option<u64> {
        match self.measured {
            Some(Measured { outcome: Outcome::Good { rate }, .. }) => Some(rate),
            _ => self.vouched.map(|vouched| vouched.rate),
        }
    }

    /// How far behind the newest generation a tracker found it, seconds.
    pub fn lag(&self) -> Option<u64> {
        self.vouched.map(|vouched| vouched.lag)
    }

    /// When it was last heard or tried, seconds since the epoch.
    pub fn last_seen(&self) -> u64 {
        let measured = self.measured.filter(|measured| matches!(measured.outcome, Outcome::Good { .. }));
        let probed = self.vouched.map_or(0, |vouched| vouched.probed);
        self.nomination.nomination().issued.max(probed).max(measured.map_or(0, |measured| measured.at))
    }
}

/// The nominations of one module, the latest of each node.
#[derive(Debug, Clone, Default)]
pub struct Book {
    mirrors: HashMap<PeerId, Mirror>,
    /// How many mirrors each wide network has.
    crowds: HashMap<Wide, usize>,
    salt: [u8; 32],
}

impl Book {
    /// An empty book; `salt` is known to this node alone.
    pub fn new(salt: [u8; 32]) -> Self {
        Self { salt, ..Self::default() }
    }

    /// Takes note of a verified nomination that `teller` passed on. The higher `issued` of a node wins; one without coverage
    /// takes the node out, and stays as the proof of it until it expires. A date in the future only counts until one that is
    /// not comes along.
    pub fn offer(&mut self, nomination: CheckedNomination, teller: PeerId, now: u64) -> Entry {
        self.admit(nomination, teller, None, now)
    }

    /// Takes note of a mirror that a tracker's roster lists; true if its nomination is news.
    pub fn vouch(&mut self, listed: &Listed, tracker: PeerId, until: u64, now: u64) -> bool {
        let vouched = Vouched { tracker, until, probed: listed.probed, rate: listed.rate, lag: listed.lag };
        self.admit(listed.nomination.clone(), tracker, Some(vouched), now) == Entry::Taken
    }

    /// Forgets what a tracker said before: its next roster counts.
    pub fn unvouch(&mut self, tracker: &PeerId) {
        for mirror in self.mirrors.values_mut() {
            mirror.vouched = mirror.vouched.filter(|vouched| vouched.tracker != *tracker);
        }
    }

    /// Takes note of what this node itself found out. It outranks what others say.
    pub fn measure(&mut self, peer: &PeerId, outcome: Outcome, now: u64) {
        if let Some(mirror) = self.mirrors.get_mut(peer) {
            mirror.measured = Some(Measured { at: now, outcome });
        }
    }

    /// One mirror.
    pub fn get(&self, peer: &PeerId) -> Option<&Mirror> {
        self.mirrors.get(peer)
    }

    /// All entries, those that took their word back included, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Mirror> {
        self.mirrors.values()
    }

    /// Mirrors that hold something, best first: by standing, generation (a claim above the `newest` head known counts for
    /// nothing), coverage, rate, and by lot; among equals one of each network before the second of any. One
    /// place in four goes to those that nobody has tried. Expired ones only when there are no others.
    pub fn mirrors(&self, newest: Option<Generation>, now: u64) -> Vec<&Mirror> {
        let claims = self.mirrors.values().filter(|mirror| mirror.standing(now) != Standing::Gone);
        let (valid, expired): (Vec<_>, Vec<_>) = claims.partition(|mirror| mirror.is_current(now));
        let mut best = if valid.is_empty() { expired } else { valid };
        best.sort_by_key(|mirror| Reverse(rank(mirror, newest, now)));
        let mut taken: HashMap<Narrow, usize> = HashMap::new();
        let mut spread: Vec<(Standing, usize, &Mirror)> = Vec::with_capacity(best.len());
        for mirror in best {
            let turns = mirror.narrow.iter().map(|network| {
                let turn = taken.entry(*network).or_default();
                *turn += 1;
                *turn
            });
            spread.push((mirror.standing(now), turns.max().unwrap_or(0), mirror));
        }
        spread.sort_by_key(|(standing, turn, _)| (Reverse(*standing), *turn));
        let tried = |standing: Standing| standing >= Standing::Past || standing == Standing::Failed;
        let (known, new): (Vec<_>, Vec<_>) = spread.into_iter().partition(|(standing, ..)| tried(*standing));
        interleave(known, new)
    }

    /// Drops what expired long ago; but where everything has, it is our clock that is wrong.
    pub fn expire(&mut self, now: u64) {
        if self.mirrors.values().any(|mirror| mirror.is_current(now)) {
            let last = |mirror: &Mirror| mirror.nomination.nomination().until.saturating_add(MAX_LIFETIME);
            let before = self.mirrors.len();
            self.mirrors.retain(|_, mirror| last(mirror) >= now);
            if self.mirrors.len() < before {
                self.count();
            }
        }
    }

    fn admit(&mut self, nomination: CheckedNomination, teller: PeerId, vouched: Option<Vouched>, now: u64) -> Entry {
        let (peer, new) = (nomination.peer(), nomination.nomination());
        let is_met = teller == peer;
        if let Some(known) = self.mirrors.get_mut(&peer) {
            known.met |= is_met;
            known.vouched = vouched.or(known.vouched);
            let latest = now.saturating_add(CLOCK_SLACK);
            let said = known.nomination.nomination().issued;
            let is_corrected = said > latest && new.issued <= latest;
            if new.issued <= said && !is_corrected {
                return Entry::Old;
            }
        }
        let (narrow, wide) = networks(&new.addresses);
        if self.mirrors.contains_key(&peer) && self.is_crowded(&peer, &narrow) {
            return Entry::Refused;
        }
        if let Some(known) = self.mirrors.get_mut(&peer) {
            let former = known.wide;
            (known.nomination, known.narrow, known.wide) = (nomination, narrow, wide);
            if former != wide {
                self.count();
            }
            return Entry::Taken;
        }
        let [a, b, c, d, e, f, g, h, ..] = *blake3::keyed_hash(&self.salt, &peer.to_bytes()).as_bytes();
        let lot = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let mirror = Mirror { nomination, narrow, wide, teller, met: is_met, vouched, measured: None, lot };
        if !self.make_room(&mirror, now) {
            return Entry::Refused;
        }
        self.mirrors.insert(peer, mirror);
        *self.crowds.entry(wide).or_default() += 1;
        Entry::Taken
    }

    fn count(&mut self) {
        self.crowds.clear();
        for mirror in self.mirrors.values() {
            *self.crowds.entry(mirror.wide).or_default() += 1;
        }
    }

    /// True if a network has enough mirrors without this one.
    fn is_crowded(&self, peer: &PeerId, narrow: &[Narrow]) -> bool {
        narrow.iter().any(|network| {
            let others = self.mirrors.values().filter(|known| known.nomination.peer() != *peer);
            others.filter(|known| known.narrow.contains(network)).nth(MAX_PER_NETWORK - 1).is_some()
        })
    }

    /// Makes a place for a newcomer where one is due to it: in its networks, among those known by the same teller's word alone,
    /// then among all.
    fn make_room(&mut self, new: &Mirror, now: u64) -> bool {
        // All is decided before anybody goes.
        let mut going = BTreeSet::new();
        for network in &new.narrow {
            let same = |mirror: &Mirror| mirror.narrow.contains(network);
            if !self.keep_under(MAX_PER_NETWORK, same, (new, now), &mut going) {
                return false;
            }
        }
        let by_word = |mirror: &Mirror| mirror.standing(now) <= Standing::Heard;
        if by_word(new) {
            let teller = new.teller;
            let same = |mirror: &Mirror| mirror.teller == teller && by_word(mirror);
            if !self.keep_under(MAX_PER_TELLER, same, (new, now), &mut going) {
                return false;
            }
        }
        if !self.keep_under(MAX_MIRRORS, |_| true, (new, now), &mut going) {
            return false;
        }
        for gone in going.iter().filter_map(|peer| self.mirrors.remove(peer)) {
            if let Some(crowd) = self.crowds.get_mut(&gone.wide) {
                *crowd -= 1;
            }
        }
        true
    }

    /// Marks the least of `group` as `going` if that has `max` members; false if the newcomer is not better than it.
    fn keep_under(
        &self,
        max: usize,
        group: impl Fn(&Mirror) -> bool,
        (new, now): (&Mirror, u64),
        going: &mut BTreeSet<PeerId>,
    ) -> bool {
        let stays = |mirror: &&Mirror| group(mirror) && !going.contains(&mirror.nomination.peer());
        let members = || self.mirrors.values().filter(stays);
        if members().count() < max {
            return true;
        }
        let least = members().map(|mirror| (self.worth(mirror, 0, now), mirror.nomination.peer())).min();
        let least = least.filter(|(worth, _)| *worth < self.worth(new, 1, now));
        least.map(|(_, peer)| going.insert(peer)).is_some()
    }

    /// What to keep: those that stand better first, then those whose wide network has fewer, `more` of them to come.
    fn worth(&self, mirror: &Mirror, more: usize, now: u64) -> (Standing, bool, Reverse<usize>) {
        let crowd = self.crowds.get(&mirror.wide).copied().unwrap_or(0) + more;
        (mirror.standing(now), mirror.is_current(now), Reverse(crowd))
    }
}

/// Best highest.
fn rank(mirror: &Mirror, newest: Option<Generation>, now: u64) -> (Standing, Generation, Coverage, u64, u64) {
    let said = mirror.nomination.nomination();
    let claimed = Some(said.generation()).filter(|claimed| newest.is_none_or(|newest| *claimed <= newest));
    let (generation, rate) = (claimed.unwrap_or_default(), mirror.rate().unwrap_or(0));
    (mirror.standing(now), generation, said.coverage, rate, mirror.lot)
}

/// One of `new` after every few of `known`.
fn interleave<'a>(
    known: Vec<(Standing, usize, &'a Mirror)>,
    new: Vec<(Standing, usize, &'a Mirror)>,
) -> Vec<&'a Mirror> {
    let (good, failed): (Vec<_>, Vec<_>) = known.into_iter().partition(|(standing, ..)| *standing != Standing::Failed);
    let mut new = new.into_iter();
    let mut all = Vec::new();
    for (at, (.., mirror)) in good.into_iter().enumerate() {
        if at % (NEWCOMERS - 1) == NEWCOMERS - 2 {
            all.push(mirror);
            all.extend(new.next().map(|(.., mirror)| mirror));
        } else {
            all.push(mirror);
        }
    }
    all.extend(new.chain(failed).map(|(.., mirror)| mirror));
    all
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
