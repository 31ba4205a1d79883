//! How many connections there may be: in all, of one peer, from one network, and half open. Whoever is over a bound is refused
//! before anything else is set up for it; those that are connected notice nothing. Only when all places are taken, the network
//! that has the most of them loses one to a newcomer of another.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::IpAddr,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{address::network_of, quic::is_quic};

/// Connections in all; a node keeps descriptors for its files beside them.
const MAX_CONNECTIONS: usize = 1024;
/// Connections that others opened: the rest stays free for our own choice of peers.
const MAX_INBOUND: usize = 896;
/// Connections of one peer.
const MAX_PER_PEER: usize = 3;
/// Connections that one network opened, half open ones included.
const MAX_PER_NETWORK: usize = 64;
/// Handshakes at once, each way.
const MAX_PENDING: usize = 256;
/// Handshakes at once from one network: who says nothing keeps a place for as long as a handshake may take.
const MAX_PENDING_PER_NETWORK: usize = 16;

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// See [`MAX_CONNECTIONS`] and [`MAX_INBOUND`].
    #[error("too many connections")]
    Connections,
    /// See [`MAX_PER_PEER`].
    #[error("too many connections of one peer")]
    Peer,
    /// See [`MAX_PER_NETWORK`] and [`MAX_PENDING_PER_NETWORK`].
    #[error("too many connections from one network")]
    Network,
    /// See [`MAX_PENDING`].
    #[error("too many handshakes at once")]
    Pending,
}

/// All connections, the half open ones too. They are few enough to be counted by looking at each.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    all: HashMap<ConnectionId, One>,
    /// Those that gave way and are still to be closed.
    leaving: VecDeque<(PeerId, ConnectionId)>,
    /// How many were refused.
    refused: u64,
    #[cfg(test)]
    loopback_too: bool,
    #[cfg(test)]
    closed: bool,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct One {
    inbound: bool,
    /// Where it comes from; of those that others open.
    network: Option<IpAddr>,
    /// By QUIC: until the handshake is done its source may be forged.
    forgeable: bool,
    /// Known once the handshake is done.
    peer: Option<PeerId>,
}

impl Crowd {
    /// Connections refused since the start.
    #[cfg(test)]
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Counts loopback as if it were the world: for tests, which live there.
    #[cfg(test)]
    pub(super) fn count_loopback(&mut self) {
        self.loopback_too = true;
    }

    /// Refuses everybody from now on.
    #[cfg(test)]
    pub(super) fn close_door(&mut self) {
        self.closed = true;
    }

    fn network(&self, remote: &Multiaddr) -> Option<IpAddr> {
        #[cfg(test)]
        if self.loopback_too {
            return super::address::wide_network_of(remote);
        }
        network_of(remote)
    }

    fn count(&self, wanted: impl Fn(&One) -> bool) -> usize {
        self.all.values().filter(|one| wanted(one)).count()
    }

    /// Somebody opens a connection.
    ///
    /// Half open ones that may be forged count among themselves: they take no place from those who come by TCP.
    fn arrive(&mut self, id: ConnectionId, network: Option<IpAddr>, forgeable: bool) -> Result<(), Full> {
        let same = |one: &One| one.inbound && network.is_some() && one.network == network;
        #[cfg(test)]
        if self.closed {
            return Err(Full::Pending);
        }
        let alike = |one: &One| one.peer.is_none() && one.forgeable == forgeable && same(one);
        let of_network = |one: &One| same(one) && (one.peer.is_some() || one.forgeable == forgeable);
        if self.count(of_network) >= MAX_PER_NETWORK || self.count(alike) >= MAX_PENDING_PER_NETWORK {
            return Err(Full::Network);
        }
        if self.count(|one| one.inbound && one.peer.is_none()) >= MAX_PENDING {
            return Err(Full::Pending);
        }
        self.all.insert(id, One { inbound: true, network, forgeable, peer: None });
        Ok(())
    }

    /// We open one.
    fn depart(&mut self, id: ConnectionId) -> Result<(), Full> {
        if self.count(|one| !one.inbound && one.peer.is_none()) >= MAX_PENDING {
            return Err(Full::Pending);
        }
        self.all.insert(id, One { inbound: false, network: None, forgeable: false, peer: None });
        Ok(())
    }

    /// A handshake is done.
    fn establish(&mut self, id: ConnectionId, peer: PeerId) -> Result<(), Full> {
        let Some(one) = self.all.remove(&id) else { return Err(Full::Connections) };
        let of_network = |other: &One| other.inbound && other.peer.is_some() && other.network == one.network;
        if one.inbound && one.network.is_some() && self.count(of_network) >= MAX_PER_NETWORK {
            return Err(Full::Network);
        }
        let established = self.count(|other| other.peer.is_some());
        let inbound = self.count(|other| other.inbound && other.peer.is_some());
        let full = established >= MAX_CONNECTIONS || (one.inbound && inbound >= MAX_INBOUND);
        if full && !(one.inbound && self.make_room_for(one.network)) {
            return Err(Full::Connections);
        }
        if self.count(|other| other.peer == Some(peer)) >= MAX_PER_PEER {
            return Err(Full::Peer);
        }
        self.all.insert(id, One { peer: Some(peer), ..one });
        Ok(())
    }

    /// Takes a place from the network that has the most, if that stays more than `network` has with one more. The latest comer of
    /// it goes: those that were served for long stay.
    fn make_room_for(&mut self, network: Option<IpAddr>) -> bool {
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for one in self.all.values().filter(|one| one.inbound && one.peer.is_some()) {
            *counts.entry(one.network).or_default() += 1;
        }
        let own = counts.get(&network).copied().unwrap_or(0);
        let Some((greediest, most)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
        if most <= own + 1 {
            return false;
        }
        let of_it = |(_, one): &(&ConnectionId, &One)| one.inbound && one.peer.is_some() && one.network == greediest;
        let Some((id, one)) = self.all.iter().filter(of_it).max_by_key(|(id, _)| **id) else { return false };
        let (id, peer) = (*id, one.peer);
        self.all.remove(&id);
        self.leaving.extend(peer.map(|peer| (peer, id)));
        true
    }

    fn judge(&mut self, result: Result<(), Full>) -> Result<(), ConnectionDenied> {
        result.map_err(|full| {
            self.refused += 1;
            ConnectionDenied::new(full)
        })
    }
}

impl NetworkBehaviour for Crowd {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let arrived = self.arrive(id, self.network(remote), is_quic(remote));
        self.judge(arrived)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let established = self.establish(id, peer);
        self.judge(established).map(|()| dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let departed = self.depart(id);
        self.judge(departed).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let established = self.establish(id, peer);
        self.judge(established).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            FromSwarm::DialFailure(failed) => failed.connection_id,
            FromSwarm::ListenFailure(failed) => failed.connection_id,
            _ => return,
        };
        self.all.remove(&gone);
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    /// What is to be closed was noted while the swarm handled a connection: it polls after that.
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.leaving.pop_front() {
            Some((peer_id, id)) => {
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) })
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections with numbers of their own.
    struct Door {
        crowd: Crowd,
        next: usize,
    }

    impl Door {
        fn new() -> Self {
            Self { crowd: Crowd::default(), next: 0 }
        }

        fn id(&mut self) -> ConnectionId {
            self.next += 1;
            ConnectionId::new_unchecked(self.next)
        }

        fn knock(&mut self, network: u32) -> Result<ConnectionId, Full> {
            self.knock_by(network, false)
        }

        fn knock_by(&mut self, network: u32, forgeable: bool) -> Result<ConnectionId, Full> {
            let id = self.id();
            self.crowd.arrive(id, Some(IpAddr::V4((network << 8).into())), forgeable).map(|()| id)
        }

        fn enter(&mut self, network: u32, peer: PeerId) -> Result<ConnectionId, Full> {
            let id = self.knock(network)?;
            self.crowd.establish(id, peer).map(|()| id)
        }
    }

    #[test]
    fn silent_ones_of_one_network_leave_room_for_the_others() {
        let mut door = Door::new();
        let let_in = (0..10_000).filter(|_| door.knock(1).is_ok()).count();
        assert_eq!(let_in, MAX_PENDING_PER_NETWORK);
        let honest = PeerId::random();
        door.enter(2, honest).unwrap();
        let rest = (3..1000).filter(|network| door.knock(*network).is_ok()).count();
        assert_eq!(rest + let_in, MAX_PENDING, "all half open ones together are bounded as well");
    }

    #[test]
    fn forged_sources_keep_nobody_out_who_comes_by_tcp() {
        let mut door = Door::new();
        assert_eq!((0..1000).filter(|_| door.knock_by(1, true).is_ok()).count(), MAX_PENDING_PER_NETWORK);
        let entered = (0..1000).filter(|_| door.enter(1, PeerId::random()).is_ok()).count();
        assert_eq!(entered, MAX_PER_NETWORK);
        // Those that were true after all find no place any more.
        let pending: Vec<ConnectionId> =
            door.crowd.all.iter().filter(|(_, one)| one.forgeable).map(|(id, _)| *id).collect();
        assert!(pending.into_iter().all(|id| door.crowd.establish(id, PeerId::random()) == Err(Full::Network)));
    }

    #[test]
    fn one_network_and_one_peer_have_a_few_places() {
        let mut door = Door::new();
        let peer = PeerId::random();
        let let_in: Vec<_> = (0..10).map_while(|_| door.enter(1, peer).ok()).collect();
        assert_eq!(let_in.len(), MAX_PER_PEER);
        assert_eq!(door.enter(2, peer), Err(Full::Peer));
        let more = (0..10_000).filter(|_| door.enter(1, PeerId::random()).is_ok()).count();
        assert_eq!(more, MAX_PER_NETWORK - MAX_PER_PEER);
        door.crowd.all.remove(&let_in[0]);
        door.enter(1, peer).unwrap();
    }

    #[test]
    fn when_all_places_are_taken_the_greediest_network_gives_way() {
        let mut door = Door::new();
        let knocks = (0..20).flat_map(|network| [network; MAX_PER_NETWORK]);
        let let_in = knocks.filter(|network| door.enter(*network, PeerId::random()).is_ok()).count();
        let inside = |door: &Door, network: u32| {
            let network = IpAddr::V4((network << 8).into());
            door.crowd.count(|one| one.network == Some(network))
        };
        assert_eq!(door.crowd.count(|one| one.peer.is_some()), MAX_INBOUND);
        let honest: Vec<u32> = (100..140).collect();
        for network in &honest {
            door.enter(*network, PeerId::random()).unwrap();
        }
        assert!(honest.iter().all(|network| inside(&door, *network) == 1));
        assert!((0..20).all(|network| (MAX_INBOUND / 30..=MAX_PER_NETWORK).contains(&inside(&door, network))));
        assert_eq!(door.crowd.count(|one| one.peer.is_some()), MAX_INBOUND);
        assert_eq!(door.crowd.leaving.len(), let_in + honest.len() - MAX_INBOUND, "each that gave way is closed");
    }

    #[test]
    fn our_own_dials_keep_their_share() {
        let mut door = Door::new();
        assert!(
            (0..5000).any(|number| door.enter(number / 32, PeerId::random()).is_err()),
            "all have the same in the end"
        );
        assert_eq!(door.crowd.count(|one| one.inbound && one.peer.is_some()), MAX_INBOUND);
        let mut dial = || {
            let id = door.id();
            door.crowd.depart(id).and_then(|()| door.crowd.establish(id, PeerId::random()))
        };
        assert_eq!((0..5000).filter(|_| dial().is_ok()).count(), MAX_CONNECTIONS - MAX_INBOUND);
    }
}
