//! What the swarm reports, and what follows from it.

use std::{io, time::Instant};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::ListenerId},
    gossipsub::{self, MessageAcceptance},
    identify, kad, mdns, ping,
    swarm::{ConnectionId, SwarmEvent},
};

use super::{
    NetEvent,
    address::Scope,
    behaviour::{BehaviourEvent, announceable, serves_dht},
    gossip,
    quic::is_quic,
    run::Run,
};
use crate::{
    machine::{BUNDLE, Event, Judgement, Verified},
    record::ModuleId,
};

/// Addresses taken from one identify message.
const MAX_TOLD: usize = 16;
/// Providers that are dialled because one answer named them: all that an honest one has.
const MAX_DIALLED: usize = 20;

impl Run {
    /// Handles events until the listener has an address.
    pub(super) async fn until_up(&mut self, listener: ListenerId) -> io::Result<Multiaddr> {
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::ListenerError { listener_id, error } if listener_id == listener => return Err(error),
                SwarmEvent::ListenerClosed { listener_id, reason, .. } if listener_id == listener => {
                    return reason.and(Err(io::ErrorKind::NotConnected.into()));
                }
                event => {
                    let up = match &event {
                        SwarmEvent::NewListenAddr { listener_id, address } if *listener_id == listener => {
                            Some(address.clone())
                        }
                        _ => None,
                    };
                    self.on_swarm(event);
                    if let Some(address) = up {
                        return Ok(address);
                    }
                }
            }
        }
    }

    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_closed(peer_id, connection_id);
            }
            // Whoever is connected was reached, by another way.
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer), .. }
                if self.swarm.is_connected(&peer) =>
            {
                self.dials.succeeded(connection_id, peer);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.dials.failed(connection_id, peer_id, &error);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                if announceable(&address) {
                    self.swarm.add_external_address(address.clone());
                }
                self.emit(NetEvent::Listening(address));
                self.tell_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.swarm.remove_external_address(&address);
                self.tell_addresses();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let remote = endpoint.get_remote_address();
        self.gate.open_for(remote);
        if endpoint.is_dialer() {
            self.book.reached(peer, remote.clone());
        }
        self.dials.succeeded(id, peer);
        // QUIC was dialled in case that TCP fails: streams go over the better way, not over any.
        if endpoint.is_dialer() && is_quic(remote) && self.connected.by_tcp(&peer) {
            self.swarm.close_connection(id);
        }
        if self.connected.add(peer, id, endpoint) {
            self.emit(NetEvent::PeerConnected(peer));
            self.feed(Event::Connected { peer });
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        if self.connected.remove(&peer, id) {
            self.emit(NetEvent::PeerGone(peer));
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(
                identify::Event::Received { connection_id, peer_id, info }
                | identify::Event::Pushed { connection_id, peer_id, info },
            ) => self.on_identified(connection_id, peer_id, info),
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => self.connected.measure(&peer, rtt),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (_, address) in found {
                    self.dial(address, None);
                }
            }
            _ => {}
        }
    }

    fn on_identified(&mut self, id: ConnectionId, peer: PeerId, info: identify::Info) {
        let Some(scope) = self.connected.remote(&peer, id).map(Scope::of) else { return };
        self.connected.describe(&peer, &info.agent_version);
        let serves = serves_dht(&info);
        let told = info.listen_addrs.into_iter().filter(|address| scope.accepts(address) && announceable(address));
        for address in told.take(MAX_TOLD) {
            self.book.add(peer, address.clone());
            if serves {
                self.meet(peer, address);
            }
        }
        // Where it was reached is an address of it too, whatever it says.
        if serves && let Some(address) = self.book.good(&peer).cloned() {
            self.meet(peer, address);
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let found = self.lookups.progress(kad, id, result, step.last);
                self.dial_found(found.providers);
                if let Some(bundle) = found.bundle {
                    self.feed(Event::Bundle { bytes: bundle.bytes().to_vec() });
                }
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::PutRecord { source, record: Some(record), .. },
            } => match kad.store_mut().accept(record, source, self.connected.nearest(&source)) {
                Ok(bundle) => drop(self.feed(Event::Bundle { bytes: bundle.bytes().to_vec() })),
                Err(refused) => tracing::debug!(peer = %source, %refused, "record not stored"),
            },
            kad::Event::InboundRequest { request: kad::InboundRequest::AddProvider { record: Some(record) } } => {
                let peer = record.provider;
                let stored =
                    self.connected.nearest(&peer).is_some_and(|remote| kad.store_mut().accept_provider(record, remote));
                tracing::trace!(%peer, stored, "provider");
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.dht_grew(),
            _ => {}
        }
    }

    /// Connects to providers just found: the DHT knows their addresses only until the query ends.
    fn dial_found(&mut self, providers: impl IntoIterator<Item = PeerId>) {
        let own = self.peer_id();
        for peer in providers.into_iter().filter(|peer| *peer != own).take(MAX_DIALLED) {
            if !self.swarm.is_connected(&peer)
                && let Err(error) = self.swarm.dial(self.book.dial(peer))
            {
                tracing::debug!(%peer, %error, "provider not dialled");
            }
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let judgement = self.judge(propagation_source, &message);
                let acceptance = match judgement {
                    Judgement::Accept => MessageAcceptance::Accept,
                    Judgement::Ignore => MessageAcceptance::Ignore,
                    Judgement::Reject => MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            gossipsub::Event::Subscribed { topic, .. } => {
                if let Some(module) = gossip::module_of(&topic).filter(|_| self.narrow.is_none()) {
                    self.welcome(module);
                }
            }
            _ => {}
        }
    }

    /// A peer began to follow a module: it soon hears the newest that we know.
    pub(super) fn welcome(&mut self, module: ModuleId) {
        let now = Instant::now();
        let newest = self.machine().newest(&module).map(|bundle| [&[BUNDLE], bundle.bytes()].concat());
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if let Some(payload) = newest
            && !self.outbox.holds(module, &payload)
        {
            self.outbox.put(gossip, module, payload, now);
        }
        self.outbox.repeat(gossip, module, now);
    }

    /// The machine's judgement of a gossip message, which must be about its topic's module.
    fn judge(&mut self, from: PeerId, message: &gossipsub::Message) -> Judgement {
        let Some(module) = gossip::module_of(&message.topic) else { return Judgement::Reject };
        match Verified::of_gossip(&message.data) {
            Ok(record) if record.module() == module => self.feed(Event::Verified { record, from }),
            _ => Judgement::Reject,
        }
    }
}
