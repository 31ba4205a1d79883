//! The newest verified head of a module, the ones below it, and forks. Order is by (epoch, seq), never by time or arrival.

use std::collections::BTreeMap;

use crate::record::{CheckedBundle, Generation, Hash32};

/// Generations kept beside the newest, so that one that can be had whole is at hand.
const KEPT: usize = 8;

/// Two heads that carry one number (or a head that does not follow the one below it): proof that a head key is in two hands. Or
/// heads under two charters of one epoch: proof that the root key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Known first.
    pub first: CheckedBundle,
    /// Contradicts it.
    pub second: CheckedBundle,
}

impl Fork {
    /// The generation from which on this epoch is not believed any more.
    pub fn at(&self) -> Generation {
        self.first.generation().max(self.second.generation())
    }

    /// True for what nobody can believe after this proof: its own epoch from the fork on.
    pub fn doubts(&self, generation: Generation) -> bool {
        generation.epoch == self.at().epoch && generation >= self.at()
    }
}

/// What offering a bundle came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The highest generation so far.
    Newest,
    /// The head known as the newest, with a later Fresh record.
    Fresher,
    /// Nothing new.
    Known,
    /// Below the newest.
    Older,
    /// Contradicts a known head: kept as proof.
    Forked,
    /// At or above a fork of its epoch, or not accepted by a later charter: not believed.
    Doubted,
}

/// All that is known of one module's heads.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    kept: BTreeMap<Generation, CheckedBundle>,
    fork: Option<Fork>,
}

impl Heads {
    /// Takes note of a verified bundle of this module.
    pub fn offer(&mut self, bundle: CheckedBundle) -> Verdict {
        let generation = bundle.generation();
        if self.is_doubted(&bundle) {
            return Verdict::Doubted;
        }
        if let Some(known) = self.kept.get(&generation) {
            if known.head_hash() != bundle.head_hash() {
                let first = known.clone();
                return self.part(Fork { first, second: bundle });
            }
            return self.refresh(bundle);
        }
        if let Some(other) = self.contradicted(&bundle) {
            return self.part(Fork { first: other, second: bundle });
        }
        let is_newest = self.newest().is_none_or(|newest| generation > newest.generation());
        if is_newest {
            self.accept_epoch(&bundle);
        }
        self.kept.insert(generation, bundle);
        while self.kept.len() > KEPT {
            self.kept.pop_first();
        }
        if is_newest { Verdict::Newest } else { Verdict::Older }
    }

    /// The newest head that is believed.
    pub fn newest(&self) -> Option<&CheckedBundle> {
        self.kept.last_key_value().map(|(_, bundle)| bundle)
    }

    /// Believed generations, newest first, 8 at most.
    pub fn candidates(&self) -> impl Iterator<Item = &CheckedBundle> {
        self.kept.values().rev()
    }

    /// The proof of a fork, if there is one in the newest epoch.
    pub fn fork(&self) -> Option<&Fork> {
        self.fork.as_ref()
    }

    /// From a fork on nothing of that epoch counts; and of epochs below the newest charter's only what it accepts.
    fn is_doubted(&self, bundle: &CheckedBundle) -> bool {
        let forked = self.fork.as_ref().is_some_and(|fork| fork.doubts(bundle.generation()));
        forked || self.newest().is_some_and(|newest| !accepts(newest, bundle))
    }

    /// A head of the same epoch under another charter, or a neighbour (one number above or below) whose hash chain does not fit.
    fn contradicted(&self, bundle: &CheckedBundle) -> Option<CheckedBundle> {
        let at = bundle.generation();
        let mut same_epoch = self.kept.values().filter(|known| known.generation().epoch == at.epoch);
        if let Some(other) = same_epoch.find(|known| known.charter_hash() != bundle.charter_hash()) {
            return Some(other.clone());
        }
        let follows = |later: &CheckedBundle, earlier: Hash32| later.head().previous == Some(earlier);
        let below = Generation { seq: at.seq.checked_sub(1)?, ..at };
        if let Some(known) = self.kept.get(&below)
            && !follows(bundle, known.head_hash())
        {
            return Some(known.clone());
        }
        let above = Generation { seq: at.seq.checked_add(1)?, ..at };
        let known = self.kept.get(&above)?;
        if follows(known, bundle.head_hash()) { None } else { Some(known.clone()) }
    }

    fn part(&mut self, fork: Fork) -> Verdict {
        let at = fork.at();
        self.kept.retain(|generation, _| *generation < at || generation.epoch > at.epoch);
        // The first proof stays unless a lower one is found: belief ends where the keys first contradicted themselves.
        if self.fork.as_ref().is_none_or(|known| known.at().epoch < at.epoch || fork.at() < known.at()) {
            self.fork = Some(fork);
        }
        Verdict::Forked
    }

    fn refresh(&mut self, bundle: CheckedBundle) -> Verdict {
        let issued = |bundle: &CheckedBundle| bundle.fresh().map(|fresh| fresh.issued);
        let generation = bundle.generation();
        let Some(known) = self.kept.get_mut(&generation) else { return Verdict::Known };
        if issued(&bundle) <= issued(known) {
            return Verdict::Known;
        }
        *known = bundle;
        let is_newest = self.newest().is_some_and(|newest| newest.generation() == generation);
        if is_newest { Verdict::Fresher } else { Verdict::Older }
    }

    /// A higher epoch leads out of a fork, and drops what its charter does not accept of lower ones.
    fn accept_epoch(&mut self, bundle: &CheckedBundle) {
        self.kept.retain(|_, known| accepts(bundle, known));
        if self.fork.as_ref().is_some_and(|fork| fork.at().epoch < bundle.generation().epoch) {
            self.fork = None;
        }
    }
}

/// True if a charter lets a head count: it is of the same or a later epoch, or at most what the charter accepts of an older one.
pub fn accepts(newest: &CheckedBundle, bundle: &CheckedBundle) -> bool {
    let generation = bundle.generation();
    if generation.epoch >= newest.generation().epoch {
        return true;
    }
    let mut accepted = newest.charter().accepted.iter().filter(|one| one.module == bundle.module());
    accepted.any(|one| {
        one.epoch == generation.epoch
            && (generation.seq < one.seq || (generation.seq == one.seq && bundle.head_hash() == one.head))
    })
}

#[cfg(test)]
#[path = "heads_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "conformance_tests.rs"]
mod conformance_tests;
