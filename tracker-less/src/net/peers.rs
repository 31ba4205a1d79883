//! Who is connected, and where others can be dialled.

use std::collections::{HashMap, VecDeque};

use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    swarm::{ConnectionId, dial_opts::DialOpts},
};

use super::{
    address::{Scope, without_peer},
    quic::is_quic,
};

/// Peers whose addresses are remembered.
const BOOK_PEERS: usize = 1024;
/// Addresses remembered of one peer.
const BOOK_ADDRESSES: usize = 16;
/// Characters of a peer's description of itself that are kept.
const AGENT_CHARS: usize = 64;

/// Which side opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

/// One connected peer, as `peers` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// Its id.
    pub peer: PeerId,
    /// The far ends of its connections.
    pub addresses: Vec<Multiaddr>,
    /// Of its oldest connection.
    pub direction: Direction,
    /// What it calls itself; unverified text.
    pub agent: String,
    /// Round trip in milliseconds, once measured.
    pub rtt_ms: Option<u64>,
}

/// The live connections.
#[derive(Debug, Default)]
pub(super) struct Connected {
    peers: HashMap<PeerId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    connections: Vec<(ConnectionId, Multiaddr, Direction)>,
    agent: String,
    rtt_ms: Option<u64>,
}

impl Connected {
    /// Notes a new connection; true when it is the peer's first.
    pub(super) fn add(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) -> bool {
        let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
        let entry = self.peers.entry(peer).or_default();
        entry.connections.push((id, without_peer(endpoint.get_remote_address().clone()), direction));
        entry.connections.len() == 1
    }

    /// Forgets a connection; true when it was the peer's last.
    pub(super) fn remove(&mut self, peer: &PeerId, id: ConnectionId) -> bool {
        let Some(entry) = self.peers.get_mut(peer) else { return false };
        entry.connections.retain(|(held, ..)| *held != id);
        let gone = entry.connections.is_empty();
        if gone {
            self.peers.remove(peer);
        }
        gone
    }

    /// The far end of one connection.
    pub(super) fn remote(&self, peer: &PeerId, id: ConnectionId) -> Option<&Multiaddr> {
        let connections = &self.peers.get(peer)?.connections;
        connections.iter().find(|(held, ..)| *held == id).map(|(_, remote, _)| remote)
    }

    /// The peer that was dialled at this address.
    pub(super) fn at(&self, address: &Multiaddr) -> Option<PeerId> {
        let dialled =
            |entry: &Peer| entry.connections.iter().any(|(_, at, side)| at == address && *side == Direction::Outbound);
        self.peers.iter().find(|(_, entry)| dialled(entry)).map(|(peer, _)| *peer)
    }

    /// Whether there is a connection to the peer that is not by QUIC.
    pub(super) fn by_tcp(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.connections.iter().any(|(_, remote, _)| !is_quic(remote)))
    }

    /// The far end that is nearest to us among the peer's connections.
    pub(super) fn nearest(&self, peer: &PeerId) -> Option<&Multiaddr> {
        let connections = &self.peers.get(peer)?.connections;
        connections.iter().map(|(_, remote, _)| remote).min_by_key(|remote| Scope::of(remote))
    }

    /// Notes what the peer calls itself.
    pub(super) fn describe(&mut self, peer: &PeerId, agent: &str) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.agent = agent.chars().filter(|c| !c.is_control()).take(AGENT_CHARS).collect();
        }
    }

    /// Notes a measured round trip.
    pub(super) fn measure(&mut self, peer: &PeerId, rtt: std::time::Duration) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.rtt_ms = u64::try_from(rtt.as_millis()).ok();
        }
    }

    /// All connected peers, by id.
    pub(super) fn rows(&self) -> Vec<PeerRow> {
        let mut rows: Vec<PeerRow> = self
            .peers
            .iter()
            .filter_map(|(peer, entry)| {
                let (_, _, direction) = entry.connections.first()?;
                Some(PeerRow {
                    peer: *peer,
                    addresses: entry.connections.iter().map(|(_, remote, _)| remote.clone()).collect(),
                    direction: *direction,
                    agent: entry.agent.clone(),
                    rtt_ms: entry.rtt_ms,
                })
            })
            .collect();
        rows.sort_by_key(|row| row.peer);
        rows
    }
}

/// Where peers can be dialled: a bounded memory, the longest known forgotten first.
#[derive(Debug, Default)]
pub(super) struct Book {
    peers: HashMap<PeerId, Vec<Multiaddr>>,
    order: VecDeque<PeerId>,
    /// The address each peer was last reached at.
    good: HashMap<PeerId, Multiaddr>,
}

impl Book {
    /// Remembers an address, the newest first.
    pub(super) fn add(&mut self, peer: PeerId, address: Multiaddr) {
        if !self.peers.contains_key(&peer) {
            self.order.push_back(peer);
            if self.order.len() > BOOK_PEERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.peers.remove(&oldest);
                self.good.remove(&oldest);
            }
        }
        let address = without_peer(address);
        let known = self.peers.entry(peer).or_default();
        known.retain(|other| *other != address);
        known.insert(0, address);
        known.truncate(BOOK_ADDRESSES);
    }

    /// Remembers the address at which a dial reached the peer.
    pub(super) fn reached(&mut self, peer: PeerId, address: Multiaddr) {
        self.add(peer, address.clone());
        self.good.insert(peer, without_peer(address));
    }

    /// A dial of the peer at all known addresses, the DHT's included.
    pub(super) fn dial(&self, peer: PeerId) -> DialOpts {
        let known = self.peers.get(&peer).cloned().unwrap_or_default();
        DialOpts::peer_id(peer).addresses(known).extend_addresses_through_behaviour().build()
    }

    /// Where a dial reached the peer.
    pub(super) fn good(&self, peer: &PeerId) -> Option<&Multiaddr> {
        self.good.get(peer)
    }

    /// Addresses that worked, each with its `/p2p/` part.
    pub(super) fn dialable(&self) -> Vec<Multiaddr> {
        self.good.iter().filter_map(|(peer, address)| address.clone().with_p2p(*peer).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_is_bounded_both_ways() {
        let mut book = Book::default();
        let first = PeerId::random();
        for port in 1..=20u16 {
            book.add(first, format!("/ip4/9.9.9.9/tcp/{port}").parse().unwrap());
        }
        assert_eq!(book.peers[&first].len(), BOOK_ADDRESSES);
        assert_eq!(book.peers[&first][0].to_string(), "/ip4/9.9.9.9/tcp/20");
        for _ in 0..BOOK_PEERS {
            book.reached(PeerId::random(), "/ip4/9.9.9.9/tcp/1".parse().unwrap());
        }
        assert_eq!((book.peers.len(), book.good.len()), (BOOK_PEERS, BOOK_PEERS));
        assert!(!book.peers.contains_key(&first));
    }
}
