//! How a run stands with the nodes that it asks, and what it heard from them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

use super::answer::Answer;
use crate::wire::client::PeerClient;

/// Most nodes that one run talks to at once; those that hold nothing make room for others.
pub(super) const MAX_PEERS: usize = 64;
/// Most nodes that are remembered as asked.
const MAX_ASKED: usize = 1024;
/// Most answers remembered for whoever wants to see them.
const MAX_ANSWERS: usize = MAX_PEERS + 16;

/// How a run stands with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Being asked.
    Asked,
    /// A source now.
    Source,
    /// Answered without holding anything, or failed: asked again in a later round.
    Again,
    /// Never again in this run.
    Banned,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) peers: HashMap<PeerId, Standing>,
    pub(super) notes: Vec<String>,
    pub(super) answers: Vec<Answer>,
    /// Web servers of nominations that were handed on.
    pub(super) told: HashSet<String>,
    /// Somebody spoke our protocol, whatever it said.
    pub(super) answered: bool,
    /// Everybody is looked for.
    pub(super) wide: bool,
    /// Nodes of earlier runs that a narrow search waits for.
    pub(super) others: usize,
    /// Those that were asked for a head only, before that.
    pub(super) few: Vec<(PeerId, PeerClient)>,
    /// Every way in was tried once.
    pub(super) first_round: bool,
    /// Somebody of the DHT is there, and the last round met somebody new: a further one may bring what it did not.
    pub(super) hopeful: bool,
    /// Hints not yet dialled or asked.
    pub(super) hints: usize,
}

impl Shared {
    /// Marks a node as being asked; false if it must not be asked now.
    pub(super) fn claim(&mut self, peer: PeerId) -> bool {
        let busy = |standing: &&Standing| matches!(standing, Standing::Asked | Standing::Source);
        let full = self.peers.values().filter(busy).count() >= MAX_PEERS;
        match self.peers.get(&peer) {
            Some(Standing::Asked | Standing::Source | Standing::Banned) => false,
            None if self.peers.len() >= MAX_ASKED => false,
            _ if full => false,
            _ => {
                self.peers.insert(peer, Standing::Asked);
                true
            }
        }
    }

    /// Keeps an answer, in the place of an earlier one of the same.
    pub(super) fn record(&mut self, answer: Answer) {
        let mut known = self.answers.iter_mut();
        if let Some(known) = known.find(|known| known.who == answer.who && known.way == answer.way) {
            *known = answer;
        } else if self.answers.len() < MAX_ANSWERS {
            self.answers.push(answer);
        }
    }
}

pub(super) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
