//! A peer of the tests' own: whatever a provider gives, over a real swarm.

use std::sync::Arc;

use libp2p::{Multiaddr, StreamProtocol};
use murmir::wire::server::{Limits, serve_stream};
use murmir::wire::{Deadlines, PROTOCOL, Provider};
use tracker_less::net::{self, DhtMode};
use tracker_less::nominate::Profile;
use tracker_less::record::SecretKey;

/// Serves `provider` on loopback until the runtime ends; gives the address, peer id included.
pub async fn serve(provider: Arc<impl Provider>) -> String {
    let config = net::Config {
        key: SecretKey::from_seed([9; 32]),
        listen: vec![loopback()],
        external: Vec::new(),
        profile: Profile::default(),
        peers: Vec::new(),
        cached: Vec::new(),
        narrow: false,
        dht: DhtMode::Off,
        gossip: true,
        mdns: false,
        names: None,
        bulk: StreamProtocol::new(PROTOCOL),
        records: net::Saved::default(),
    };
    let (swarm, mut events, mut incoming) = net::start(config).await.expect("swarm");
    let address = swarm.listen_addresses().await.remove(0);
    let address = format!("{address}/p2p/{}", swarm.peer_id());
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    tokio::spawn(async move {
        let _swarm = swarm;
        let limits = Limits::new(Deadlines::default());
        while let Some((peer, stream)) = incoming.recv().await {
            let (provider, limits) = (Arc::clone(&provider), limits.clone());
            tokio::spawn(async move { serve_stream(stream, peer, provider, limits).await });
        }
    });
    address
}

/// Any port.
pub fn loopback() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().expect("an address")
}
