//! A tracker node's side: it probes what mirrors claim, and puts on its roster what passed. A self-report alone puts nobody there.
//!
//! Stated times: a mirror is probed at once when it says something new (but not more often than every [`RETRY`] seconds), and
//! every [`PROBE_EVERY`] seconds while it says the same (2 seconds a mirror where there are over 300). One that gives wrong bytes or lacks what it claims leaves the roster with
//! that probe, one that is not reached with the second in a row, one whose word expired at the next tick. It comes back with the
//! first probe that it passes: the pause after a failure doubles, up to [`PROBE_EVERY`].

use std::cmp::Reverse;
use std::collections::BTreeMap;

use cid::Cid;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::book::{Book, Outcome};
use crate::heads::Heads;
use crate::record::roster::TOP;
use crate::record::{
    CheckedNomination, CheckedRoster, Coverage, Generation, Listed, ModuleId, RecordError, Roster, RosterList,
    SecretKey,
};

/// Between two probes of a mirror that says nothing new, seconds.
pub const PROBE_EVERY: u64 = 600;
/// A tracker of many mirrors takes longer: so many seconds a mirror.
const PACE: u64 = 2;
/// The shortest pause between two probes of a mirror, seconds; it doubles with every failure in a row.
pub const RETRY: u64 = 5;
/// Probes under way at once, of one module.
const MAX_UNDERWAY: usize = 8;
/// A probe that tells nothing for so long is counted as lost, seconds.
const LOST: u64 = 120;
/// Failures in a row to reach a mirror that take it off the roster.
const MAX_UNREACHED: u32 = 2;
/// Between two rosters where somebody is taken off, seconds.
const DELIST_PAUSE: u64 = 5;
/// Between two rosters where somebody comes on, seconds: others may come on with them.
const GATHER: u64 = 10;
/// How long a roster lasts; it is signed anew at half of that, seconds.
const ROSTER_FOR: u64 = 24 * 3600;

/// What to try of a mirror: that it holds this generation, by random proven ranges.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The module.
    pub module: ModuleId,
    /// The mirror.
    pub peer: PeerId,
    /// Where it is reached, by its own word.
    pub addresses: Vec<Multiaddr>,
    /// What it claims to hold.
    pub generation: Generation,
    /// The root of that.
    pub root: Cid,
    /// How much of it.
    pub coverage: Coverage,
    /// Which ranges: nobody but this node can foretell them.
    pub seed: [u8; 32],
}

/// One mirror in the tracker's eyes.
#[derive(Debug, Clone)]
struct Tracked {
    /// What was said when it was last probed.
    claim: (Generation, Coverage),
    /// When the last probe began.
    probed: u64,
    underway: Option<CheckedNomination>,
    failures: u32,
    passed: Option<Passed>,
}

#[derive(Debug, Clone)]
struct Passed {
    nomination: CheckedNomination,
    at: u64,
    rate: u64,
}

impl Tracked {
    /// When it is to be probed again; `pause` is that between two probes of the same claim.
    fn due(&self, claim: (Generation, Coverage), pause: u64) -> u64 {
        let backoff = RETRY.saturating_mul(1 << self.failures.min(10)).min(PROBE_EVERY);
        let pause = if claim == self.claim && self.failures == 0 { pause } else { backoff };
        self.probed.saturating_add(pause)
    }
}

/// The tracker's memory of one module.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    mirrors: BTreeMap<PeerId, Tracked>,
    /// Who was on the last roster with what, and when that was signed.
    published: Option<(Vec<(PeerId, Generation)>, u64)>,
}

impl Tracker {
    /// Mirrors to be probed now. `key` makes the seeds.
    pub fn probes(&mut self, book: &Book, heads: &Heads, key: &SecretKey, now: u64) -> Vec<Probe> {
        let Some(newest) = heads.newest() else { return Vec::new() };
        let (module, trackers) = (newest.module(), &newest.charter().trackers);
        self.mirrors.retain(|peer, _| book.get(peer).is_some());
        let pause = PROBE_EVERY.max(PACE.saturating_mul(u64::try_from(self.mirrors.len()).unwrap_or(u64::MAX)));
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for mirror in book.all().filter(|mirror| mirror.is_current(now)) {
            let nomination = mirror.nomination();
            let said = nomination.nomination();
            if said.coverage == Coverage::NONE || trackers.contains(&nomination.peer()) {
                continue;
            }
            let claim = (said.generation(), said.coverage);
            match self.mirrors.get_mut(&nomination.peer()) {
                None => new.push((Reverse(mirror.standing(now)), 0, nomination)),
                Some(tracked) => {
                    // After a jump of the clock nothing waits for the old time.
                    tracked.probed = tracked.probed.min(now);
                    let is_lost = tracked.probed.saturating_add(LOST) <= now;
                    let at = tracked.due(claim, pause);
                    if at <= now && (tracked.underway.is_none() || is_lost) {
                        let due = (Reverse(mirror.standing(now)), at, nomination);
                        if tracked.passed.is_some() { known.push(due) } else { new.push(due) }
                    }
                }
            }
        }
        known.sort_by_key(|(_, at, nomination)| (*at, nomination.peer()));
        // Those that speak for themselves before those that are only heard of.
        new.sort_by_key(|(standing, at, nomination)| (*standing, *at, nomination.peer()));
        let lost = |tracked: &&Tracked| tracked.underway.is_some() && tracked.probed.saturating_add(LOST) > now;
        let room = MAX_UNDERWAY.saturating_sub(self.mirrors.values().filter(lost).count());
        // In turns: a flood of new names does not keep the tracker from those that it vouches for.
        let (mut known, mut new) = (known.into_iter(), new.into_iter());
        let turns =
            std::iter::from_fn(|| Some([known.next(), new.next()]).filter(|turn| turn.iter().any(Option::is_some)));
        let due: Vec<_> = turns.flatten().flatten().take(room).collect();
        due.into_iter().map(|(_, _, nomination)| self.begin(module, nomination, key, now)).collect()
    }

    fn begin(&mut self, module: ModuleId, nomination: &CheckedNomination, key: &SecretKey, now: u64) -> Probe {
        let (peer, said) = (nomination.peer(), nomination.nomination());
        let claim = (said.generation(), said.coverage);
        let former = self.mirrors.remove(&peer);
        let (failures, passed) = former.map_or((0, None), |former| (former.failures, former.passed));
        let underway = Some(nomination.clone());
        self.mirrors.insert(peer, Tracked { claim, probed: now, underway, failures, passed });
        let context = [module.as_bytes().as_slice(), &peer.to_bytes(), &now.to_be_bytes()].concat();
        Probe {
            module,
            peer,
            addresses: said.addresses.clone(),
            generation: said.generation(),
            root: said.root,
            coverage: said.coverage,
            seed: key.secret_number(&context),
        }
    }

    /// Takes what a probe found.
    pub fn probed(&mut self, peer: &PeerId, outcome: Outcome, now: u64) {
        let Some(tracked) = self.mirrors.get_mut(peer) else { return };
        let Some(nomination) = tracked.underway.take() else { return };
        match outcome {
            Outcome::Good { rate } => {
                tracked.failures = 0;
                tracked.passed = Some(Passed { nomination, at: now, rate });
            }
            Outcome::Lacking | Outcome::Unreachable => {
                tracked.failures = tracked.failures.saturating_add(1);
                if outcome == Outcome::Lacking || tracked.failures >= MAX_UNREACHED {
                    tracked.passed = None;
                }
            }
        }
    }

    /// The next roster, where one is due. `last` is when this tracker last signed one, as far as anybody knows.
    ///
    /// # Errors
    /// The record would not be valid.
    pub fn publish(
        &mut self,
        book: &Book,
        heads: &Heads,
        key: &SecretKey,
        last: Option<u64>,
        now: u64,
    ) -> Result<Option<(CheckedRoster, RosterList)>, RecordError> {
        let Some(module) = heads.newest().map(|newest| newest.module()) else { return Ok(None) };
        let rows = self.rows(book, heads, now);
        let mut members: Vec<_> =
            rows.iter().map(|row| (row.nomination.peer(), row.nomination.nomination().generation())).collect();
        members.sort_unstable();
        let is_due = match &self.published {
            None => !members.is_empty(),
            Some((former, at)) => {
                let (age, gone) = (now.abs_diff(*at), former.iter().any(|one| !members.contains(one)));
                let pause = if gone { DELIST_PAUSE } else { GATHER };
                age >= ROSTER_FOR / 2 || (*former != members && age >= pause)
            }
        };
        if !is_due {
            return Ok(None);
        }
        let issued = last.map_or(now, |last| now.max(last.saturating_add(1)));
        let list = RosterList::new(rows);
        let roster = CheckedRoster::sign(
            key,
            &Roster {
                module,
                list: list.cid(),
                count: u64::try_from(list.rows().len()).unwrap_or(u64::MAX),
                top: list.rows().iter().take(TOP).map(|row| row.nomination.peer()).collect(),
                issued,
                until: issued.saturating_add(ROSTER_FOR),
            },
        )?;
        self.published = Some((members, now));
        Ok(Some((roster, list)))
    }

    /// What passed and is still said, best first: by generation, coverage and rate.
    fn rows(&self, book: &Book, heads: &Heads, now: u64) -> Vec<Listed> {
        let listed = |(peer, tracked): (&PeerId, &Tracked)| {
            let passed = tracked.passed.as_ref()?;
            let known = book.get(peer).filter(|known| known.is_current(now))?.nomination();
            let (said, proven) = (known.nomination(), passed.nomination.nomination());
            if said.coverage == Coverage::NONE {
                return None;
            }
            // A later word of the same claim lasts longer; a word of another claim is not proven yet.
            let same = said.generation() == proven.generation() && said.coverage == proven.coverage;
            let nomination = if same { known } else { &passed.nomination }.clone();
            let lag = lag(heads, proven.generation(), now);
            Some(Listed { nomination, lag, rate: passed.rate, probed: passed.at })
        };
        let mut rows: Vec<Listed> = self.mirrors.iter().filter_map(listed).collect();
        rows.sort_by_key(|row| {
            let said = row.nomination.nomination();
            Reverse((said.generation(), said.coverage, row.rate, row.nomination.peer()))
        });
        rows
    }
}

/// How long the oldest known generation above this one has been out, seconds.
pub fn lag(heads: &Heads, held: Generation, now: u64) -> u64 {
    let above = heads.candidates().filter(|bundle| bundle.generation() > held);
    above.last().map_or(0, |oldest| now.saturating_sub(oldest.head().created))
}
