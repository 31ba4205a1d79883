//! What the swarm speaks, with every default that is open on purpose closed: limits, filters, own protocol names.

use std::{io, num::NonZeroUsize, time::Duration};

use futures::future;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    dns,
    identity::Keypair,
    kad, mdns, ping,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
    tcp,
};

use super::{
    Config, DhtMode, address::Gate, crowd::Crowd, doorway::Doorway, gossip, muxer, noise, precedence::TcpFirst, quic,
    store::Records, streams::Counters,
};

/// A connection that nobody uses is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// A connection is set up within this, or not at all.
pub(super) const SETUP: Duration = Duration::from_secs(10);
/// Connections by TCP that others are setting up. With those of QUIC below the bound at which more are refused (see crowd.rs).
const MAX_WAITING: usize = 192;
/// A DHT query ends within this.
const QUERY: Duration = Duration::from_secs(20);
/// Lookups of the DHT follow this many paths that share no peer (S/Kademlia).
const PATHS: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Stored bundles are handed to nodes that came closer this often.
const REPLICATION: Duration = Duration::from_secs(4 * 60 * 60);

/// The DHT's protocol.
pub(super) const KAD: StreamProtocol = StreamProtocol::new("/murmir/kad/1");
/// Identify's name for the family of protocols.
const IDENTIFY: &str = "/murmir/id/1";
/// What we call ourselves.
const AGENT: &str = concat!("murmir/", env!("CARGO_PKG_VERSION"));

/// All protocols together. The limits stand first, so that they refuse before anything else is set up.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Behaviour {
    pub(super) crowd: Crowd,
    identify: libp2p::identify::Behaviour,
    ping: Toggle<ping::Behaviour>,
    pub(super) kad: Toggle<kad::Behaviour<Records>>,
    pub(super) gossip: gossip::Gossip,
    mdns: Toggle<mdns::tokio::Behaviour>,
    streams: libp2p_stream::Behaviour,
}

impl Behaviour {
    fn new(key: &Keypair, own: &Config) -> io::Result<Self> {
        let peer = key.public().to_peer_id();
        let mdns = if own.mdns { Some(mdns::Behaviour::new(mdns::Config::default(), peer)?) } else { None };
        // Identify's own cache of addresses would go round our rule of scopes.
        let identify = libp2p::identify::Config::new(IDENTIFY.to_owned(), key.public())
            .with_agent_version(AGENT.to_owned())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        Ok(Self {
            crowd: Crowd::default(),
            identify: libp2p::identify::Behaviour::new(identify),
            // Who stays for one run measures its sources by what they give.
            ping: (!own.narrow).then(ping::Behaviour::default).into(),
            kad: kademlia(peer, own).into(),
            gossip: gossip::behaviour(key.clone()).map_err(io::Error::other)?,
            mdns: mdns.into(),
            streams: libp2p_stream::Behaviour::new(),
        })
    }

    /// A control for bulk streams.
    pub(super) fn control(&self) -> libp2p_stream::Control {
        self.streams.new_control()
    }
}

fn kademlia(peer: PeerId, own: &Config) -> Option<kad::Behaviour<Records>> {
    let mode = match own.dht {
        DhtMode::Off => return None,
        DhtMode::Client => kad::Mode::Client,
        DhtMode::Server => kad::Mode::Server,
    };
    let mut config = kad::Config::new(KAD);
    config
        .set_query_timeout(QUERY)
        .set_parallelism(PATHS)
        .disjoint_query_paths(true)
        .set_replication_interval(Some(REPLICATION))
        .set_record_filtering(kad::StoreInserts::FilterBoth);
    if own.narrow {
        // Whoever is connected stays out of it until the node widens.
        config.set_kbucket_inserts(kad::BucketInserts::Manual);
    }
    let mut kad = kad::Behaviour::with_config(peer, Records::new(peer, &own.key.seed()), config);
    kad.set_mode(Some(mode));
    Some(kad)
}

/// TCP and QUIC, counted and guarded, names resolved. Names of the user's have a resolver of their own, for they may stand for
/// addresses of this site.
pub(super) fn transport(
    key: &Keypair,
    counters: &Counters,
    gate: &Gate,
    names: Option<&dns::ResolverConfig>,
) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let both = || {
        let both = tcp(key, counters).or_transport(quic::transport(key, counters));
        both.map(|either, _| future::Either::into_inner(either)).map_err(|either| either.into_inner())
    };
    let named = gate.obeying(resolved(both, names));
    let all = named.or_transport(resolved(|| gate.guard(both()), names)).map(|either, _| either.into_inner()).boxed();
    Ok(TcpFirst::new(all).boxed())
}

/// TCP with noise and yamux.
fn tcp(key: &Keypair, counters: &Counters) -> Doorway<Boxed<(PeerId, StreamMuxerBox)>> {
    let counters = counters.clone();
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let tcp = tcp
        .map(move |stream, _| counters.count(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Upgrade::new(key.clone()))
        .multiplex(muxer::Upgrade)
        .timeout(SETUP)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    Doorway::new(tcp, MAX_WAITING)
}

/// `inner` with a resolver before it, which asks `names` or the system's name servers.
fn resolved<T>(inner: impl Fn() -> T, names: Option<&dns::ResolverConfig>) -> dns::tokio::Transport<T> {
    let custom = |names| dns::tokio::Transport::custom(inner(), names, dns::ResolverOpts::default());
    if let Some(names) = names {
        return custom(names.clone());
    }
    dns::tokio::Transport::system(inner()).unwrap_or_else(|source| {
        tracing::debug!(%source, "no system resolver: defaults are used");
        custom(dns::ResolverConfig::default())
    })
}

/// The whole swarm, not listening yet. Errors: no entropy, or no network interface for mDNS.
pub(super) fn swarm(key: &Keypair, own: &Config, counters: &Counters, gate: &Gate) -> io::Result<Swarm<Behaviour>> {
    let transport = transport(key, counters, gate, own.names.as_ref())?;
    let behaviour = Behaviour::new(key, own)?;
    // Lazily: a stream whose protocol is the only one proposed carries its first bytes along, a round trip earlier.
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    Ok(Swarm::new(transport, behaviour, key.public().to_peer_id(), config))
}

/// Whether identify says that the peer serves our DHT.
pub(super) fn serves_dht(info: &libp2p::identify::Info) -> bool {
    info.protocols.contains(&KAD)
}

/// Listen addresses worth telling others: none that only name "any interface".
pub(super) fn announceable(address: &Multiaddr) -> bool {
    use libp2p::multiaddr::Protocol;
    !address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_unspecified() || ip.is_unicast_link_local(),
        _ => false,
    })
}
