//! A narrow beginning: the named peers are dialled, and nothing else is done. A run that finds nothing new is over by then, and has
//! cost a few connections; any other widens.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId};

use super::{
    gossip,
    run::{MAX_CACHED, Run},
};

/// Nodes of the DHT that are remembered until then.
const MAX_WAITING: usize = 64;

/// What waits until the node widens.
#[derive(Debug, Default)]
pub(super) struct Narrow {
    /// Nodes of the DHT that were met.
    met: Vec<(PeerId, Multiaddr)>,
}

impl Run {
    /// Takes part in everything from now on. Does nothing the second time.
    pub(super) fn widen(&mut self) {
        let Some(narrow) = self.narrow.take() else { return };
        self.seed.config.narrow = false;
        for address in self.seed.config.cached.clone().into_iter().take(MAX_CACHED) {
            self.dial(address, None);
        }
        for (peer, address) in narrow.met {
            self.meet(peer, address);
        }
        if !self.seed.config.gossip {
            return;
        }
        let modules: Vec<_> = self.duties.modules().collect();
        for module in &modules {
            gossip::subscribe(&mut self.swarm.behaviour_mut().gossip, module);
        }
        self.outbox.flush(&mut self.swarm.behaviour_mut().gossip, Instant::now());
        // Those who follow a module said so when they were met.
        let followed = gossip::followers(&self.swarm.behaviour().gossip);
        for module in modules.into_iter().filter(|module| followed.get(module).is_some_and(|peers| !peers.is_empty())) {
            self.welcome(module);
        }
        self.seek_company();
    }

    /// A node of the DHT, and where it is.
    pub(super) fn meet(&mut self, peer: PeerId, address: Multiaddr) {
        if let Some(narrow) = &mut self.narrow {
            if narrow.met.len() < MAX_WAITING {
                narrow.met.push((peer, address));
            }
        } else if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            kad.add_address(&peer, address);
        }
    }
}
