//! Who takes how much room: when there is none left, whoever takes the most gives way, and a newcomer gets in.

use std::{collections::HashMap, net::IpAddr};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::net::address::network_of;

/// Whose room it is: a network's, or a peer's of this machine, where networks say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Giver {
    /// All peers of one network.
    Network(IpAddr),
    /// One peer.
    Peer(PeerId),
}

impl Giver {
    /// Of a peer that is connected from `remote`.
    pub(super) fn new(peer: PeerId, remote: Option<&Multiaddr>) -> Self {
        remote.and_then(network_of).map_or(Self::Peer(peer), Self::Network)
    }
}

/// The same on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum SavedGiver {
    /// See [`Giver::Network`].
    Network(IpAddr),
    /// See [`Giver::Peer`].
    Peer(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl From<Giver> for SavedGiver {
    fn from(giver: Giver) -> Self {
        match giver {
            Giver::Network(network) => Self::Network(network),
            Giver::Peer(peer) => Self::Peer(peer.to_bytes()),
        }
    }
}

impl SavedGiver {
    pub(super) fn giver(&self) -> Option<Giver> {
        match self {
            Self::Network(network) => Some(Giver::Network(*network)),
            Self::Peer(bytes) => PeerId::from_bytes(bytes).ok().map(Giver::Peer),
        }
    }
}

/// How many entries each giver has.
#[derive(Debug, Default)]
pub(super) struct Shares {
    counts: HashMap<Giver, usize>,
    total: usize,
}

impl Shares {
    /// One more.
    pub(super) fn add(&mut self, giver: Giver) {
        *self.counts.entry(giver).or_default() += 1;
        self.total += 1;
    }

    /// One less.
    pub(super) fn drop_one(&mut self, giver: &Giver) {
        let Some(count) = self.counts.get_mut(giver) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.counts.remove(giver);
        }
    }

    /// All entries.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Whoever has the most, if that stays more than `giver` has with one more.
    pub(super) fn greedier_than(&self, giver: &Giver) -> Option<Giver> {
        let (greediest, most) = self.counts.iter().max_by_key(|(_, count)| **count)?;
        let own = self.counts.get(giver).copied().unwrap_or(0);
        (*most > own + 1).then_some(*greediest)
    }
}
