//! Which sources take part in a pass: `--origin` and `--sources`.

use std::collections::VecDeque;

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::source::Source;

/// What the publisher's own nodes are used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OriginUse {
    /// What nobody else has.
    Last,
    /// As anybody.
    #[default]
    Equal,
    /// Nobody but them.
    Only,
    /// Nothing.
    Never,
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// `--origin`.
    pub origin: OriginUse,
    /// Most sources at once.
    pub most: Option<usize>,
}

impl OriginUse {
    /// True if a source may take part at all.
    pub fn admits(self, source: &Source, trackers: &[PeerId]) -> bool {
        match self {
            Self::Last | Self::Equal => true,
            Self::Only => is_origin(source, trackers),
            Self::Never => !is_origin(source, trackers),
        }
    }
}

fn is_origin(source: &Source, trackers: &[PeerId]) -> bool {
    source.name.peer().is_some_and(|peer| trackers.contains(peer))
}

/// Sources that wait for their turn.
#[derive(Debug, Default)]
pub struct Reserve {
    choice: Choice,
    trackers: Vec<PeerId>,
    waiting: VecDeque<Source>,
}

impl Reserve {
    /// Nobody waits yet. `trackers` are the origin.
    pub fn new(choice: Choice, trackers: Vec<PeerId>) -> Self {
        Self { choice, trackers, waiting: VecDeque::new() }
    }

    /// The source, if it is to take part now, with `active` others at work; else it waits.
    pub fn pass(&mut self, source: Source, active: usize) -> Option<Source> {
        let held_back = self.choice.origin == OriginUse::Last && is_origin(&source, &self.trackers);
        if !held_back && self.has_place(active) {
            return Some(source);
        }
        // Of those that wait, the origin goes last.
        let place = if held_back { self.waiting.len() } else { 0 };
        self.waiting.insert(place, source);
        None
    }

    /// The next that waits, where one more may work. `is_stuck`: those at work have nothing to give.
    pub fn next(&mut self, active: usize, is_stuck: bool) -> Option<Source> {
        let first = self.waiting.front()?;
        let held_back = self.choice.origin == OriginUse::Last && is_origin(first, &self.trackers);
        let turn = if held_back { active == 0 || is_stuck } else { self.has_place(active) || is_stuck };
        if turn { self.waiting.pop_front() } else { None }
    }

    fn has_place(&self, active: usize) -> bool {
        self.choice.most.is_none_or(|most| active < most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::seeds::Seeds;
    use crate::sync::supply::SourceName;
    use crate::wire::pulse::Pulse;

    fn web(number: u8) -> Source {
        let seeds = Seeds::open(&[format!("http://192.0.2.{number}/")], Pulse::default()).unwrap();
        Source::web(&seeds.given()[0], None)
    }

    #[test]
    fn no_more_than_asked_for_at_once() {
        let mut reserve = Reserve::new(Choice { most: Some(1), ..Choice::default() }, Vec::new());
        assert!(reserve.pass(web(1), 0).is_some());
        assert!(reserve.pass(web(2), 1).is_none());
        assert!(reserve.next(1, false).is_none());
        assert!(reserve.next(1, true).is_some(), "the other has nothing to give");
        assert!(reserve.next(0, true).is_none());
    }

    #[test]
    fn the_origin_comes_last() {
        let origin = PeerId::random();
        let of_origin = || Source { name: SourceName::Peer(origin), ..web(9) };
        let last = Choice { origin: OriginUse::Last, most: None };
        let mut reserve = Reserve::new(last, vec![origin]);
        assert!(reserve.pass(of_origin(), 0).is_none(), "others may come");
        assert!(reserve.pass(web(1), 0).is_some());
        assert!(reserve.next(1, false).is_none());
        assert!(reserve.next(1, true).is_some(), "nobody else has the rest");
        assert!(reserve.pass(of_origin(), 0).is_none() && reserve.next(0, false).is_some(), "nobody else is there");
        assert!(!OriginUse::Never.admits(&of_origin(), &[origin]) && OriginUse::Only.admits(&of_origin(), &[origin]));
    }

    #[test]
    fn others_than_the_origin_are_told_apart() {
        let mirror = web(1);
        assert!(OriginUse::Never.admits(&mirror, &[]) && !OriginUse::Only.admits(&mirror, &[]));
    }
}
