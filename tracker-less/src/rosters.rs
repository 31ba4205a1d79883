//! The rosters of one module that a node keeps, uses and passes on, also when their tracker is gone: the latest of each tracker
//! of the charter, with its list.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use crate::record::{Charter, CheckedRoster, RosterList};

/// A list that is lacking is asked for again after this, seconds.
const ASK_EVERY: u64 = 60;

/// What a roster came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// News: it is kept. Its list may still be lacking.
    Taken,
    /// Known, or older than what is known.
    Old,
    /// Its signer does not track this module, as far as is known here.
    Stranger,
}

/// What is known of one tracker's word.
#[derive(Debug, Clone)]
struct Kept {
    latest: CheckedRoster,
    /// The latest whose list is here: it serves until that of a later one is.
    complete: Option<(CheckedRoster, RosterList)>,
    asked: Option<u64>,
}

impl Kept {
    fn lacks_list(&self) -> bool {
        self.complete.as_ref().is_none_or(|(roster, _)| roster.bytes() != self.latest.bytes())
    }
}

/// The latest roster of each tracker. There are as many as the charter names trackers; none is dropped for its age, since the
/// origin may be gone for good, and a clock may be wrong.
#[derive(Debug, Clone, Default)]
pub struct Rosters {
    kept: BTreeMap<PeerId, Kept>,
}

impl Rosters {
    /// Takes note of a verified roster and, if it is here, of its list.
    pub fn offer(&mut self, roster: CheckedRoster, list: Option<RosterList>, charter: &Charter) -> Offered {
        let tracker = roster.tracker();
        if !charter.trackers.contains(&tracker) {
            return Offered::Stranger;
        }
        let complete = list.map(|list| (roster.clone(), list));
        let Some(known) = self.kept.get_mut(&tracker) else {
            self.kept.insert(tracker, Kept { latest: roster, complete, asked: None });
            return Offered::Taken;
        };
        let (said, new) = (known.latest.roster().issued, roster.roster().issued);
        let completes = new == said && roster.bytes() == known.latest.bytes() && known.lacks_list();
        if new > said {
            (known.latest, known.asked) = (roster, None);
        } else if !(completes && complete.is_some()) {
            return Offered::Old;
        }
        known.complete = complete.or(known.complete.take());
        Offered::Taken
    }

    /// A later charter may name other trackers: what the former ones said does not count any more. Gives those that went.
    pub fn accept(&mut self, charter: &Charter) -> Vec<PeerId> {
        let gone = self.kept.keys().filter(|tracker| !charter.trackers.contains(tracker)).copied().collect();
        self.kept.retain(|tracker, _| charter.trackers.contains(tracker));
        gone
    }

    /// All that are complete, the latest first: what is kept on disk and passed on.
    pub fn complete(&self) -> Vec<&(CheckedRoster, RosterList)> {
        let mut complete: Vec<_> = self.kept.values().filter_map(|kept| kept.complete.as_ref()).collect();
        complete.sort_by_key(|(roster, _)| std::cmp::Reverse(roster.roster().issued));
        complete
    }

    /// Whether the list of this roster would be news.
    pub fn lacks(&self, roster: &CheckedRoster) -> bool {
        let known = self.kept.get(&roster.tracker()).and_then(|kept| kept.complete.as_ref());
        known.is_none_or(|(known, _)| known.roster().issued < roster.roster().issued)
    }

    /// When this tracker last spoke.
    pub fn issued(&self, tracker: &PeerId) -> Option<u64> {
        self.kept.get(tracker).map(|kept| kept.latest.roster().issued)
    }

    /// Rosters whose lists are to be asked for now; each is named once a minute until its list is here.
    pub fn lacking(&mut self, now: u64) -> Vec<CheckedRoster> {
        let mut lacking = Vec::new();
        for kept in self.kept.values_mut() {
            let waits = kept.asked.is_some_and(|asked| now.abs_diff(asked) < ASK_EVERY);
            if kept.lacks_list() && !waits {
                kept.asked = Some(now);
                lacking.push(kept.latest.clone());
            }
        }
        lacking
    }
}
