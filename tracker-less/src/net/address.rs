//! How far an address reaches, and whose word may send us there.
//!
//! A stranger must not make us dial hosts of our own network. An address told over a connection is kept only if it reaches
//! at least as far as that connection ([`Scope::accepts`]); whatever still slips into the DHT's own tables is stopped by
//! the [`Gate`] below the resolver, which opens for local networks only where the user or a live connection is in them.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Transport,
    core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
    multiaddr::Protocol,
};

/// Names of the user's that are remembered.
const MAX_NAMES: usize = 256;
/// Name endings that only a local resolver answers (RFC 6761, 6762, 8375).
const LOCAL_NAMES: [&str; 5] = [".local", ".lan", ".internal", ".home.arpa", ".localdomain"];

/// How far an address reaches, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// This machine.
    Loopback,
    /// This site: private, link-local, shared, unspecified and other special ranges.
    Private,
    /// Everywhere.
    Public,
}

/// Whether `address` may be dialled on the word of somebody at `teller`, or of nobody in particular: near addresses count only
/// where the teller is as near.
pub fn believable(teller: Option<&Multiaddr>, address: &Multiaddr) -> bool {
    teller.map_or(Scope::Public, Scope::of).accepts(address)
}

impl Scope {
    /// The scope of the address's first host part.
    pub(super) fn of(address: &Multiaddr) -> Self {
        address
            .iter()
            .find_map(|part| match part {
                Protocol::Ip4(ip) => Some(Self::of_v4(ip)),
                Protocol::Ip6(ip) => Some(Self::of_v6(ip)),
                Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
                    Some(Self::of_name(&name))
                }
                _ => None,
            })
            .unwrap_or(Self::Loopback)
    }

    /// Whether `address` may be believed when it was told over a connection of this scope.
    pub(super) fn accepts(self, address: &Multiaddr) -> bool {
        Self::of(address) >= self
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [first, second, ..] = ip.octets();
        let shared = first == 100 && second & 0xc0 == 64;
        if ip.is_loopback() {
            Self::Loopback
        } else if first == 0 || first >= 224 || shared || ip.is_private() || ip.is_link_local() {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        if let Some(v4) = ip.to_ipv4_mapped() {
            return Self::of_v4(v4);
        }
        if ip.is_loopback() {
            Self::Loopback
        } else if ip.is_unspecified() || ip.is_multicast() || ip.is_unique_local() || ip.is_unicast_link_local() {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_name(name: &str) -> Self {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            Self::Loopback
        } else if !name.contains('.') || LOCAL_NAMES.iter().any(|end| name.ends_with(end)) {
            Self::Private
        } else {
            Self::Public
        }
    }
}

/// Where dials may lead, shared between the transport and the event loop.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// The nearest scope that is open to everybody's word.
    nearest: Arc<AtomicU8>,
    /// Names that the user gave: what they stand for is obeyed.
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { nearest: Arc::new(AtomicU8::new(Scope::Public as u8)), names: Arc::default() }
    }
}

impl Gate {
    /// Lets dials reach the scope of `address` from now on.
    pub(super) fn open_for(&self, address: &Multiaddr) {
        self.nearest.fetch_min(Scope::of(address) as u8, Ordering::Relaxed);
    }

    /// Lets dials reach an address of the user's: its scope, or whatever its name stands for.
    pub(super) fn obey(&self, address: &Multiaddr) {
        self.open_for(address);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = name_of(address).filter(|_| names.len() < MAX_NAMES) {
            names.insert(name);
        }
    }

    fn permits(&self, address: &Multiaddr) -> bool {
        Scope::of(address) as u8 >= self.nearest.load(Ordering::Relaxed)
    }

    fn knows(&self, address: &Multiaddr) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        name_of(address).is_some_and(|name| names.contains(&name))
    }

    /// A transport that dials only what the gate permits. It belongs below the resolver, where names have become numbers.
    pub(super) fn guard<T>(&self, inner: T) -> Guarded<T> {
        Guarded { inner, gate: self.clone(), rule: Rule::Reach }
    }

    /// A transport that only dials, and only names that the user gave. It belongs above a resolver.
    pub(super) fn obeying<T>(&self, inner: T) -> Guarded<T> {
        Guarded { inner, gate: self.clone(), rule: Rule::Named }
    }
}

/// What a guarded transport may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Reach the scopes that are open.
    Reach,
    /// Follow names of the user's.
    Named,
}

/// See [`Gate::guard`] and [`Gate::obeying`].
pub(super) struct Guarded<T> {
    inner: T,
    gate: Gate,
    rule: Rule,
}

impl<T: Transport + Unpin> Transport for Guarded<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        match self.rule {
            Rule::Reach => self.inner.listen_on(id, address),
            Rule::Named => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let may = match self.rule {
            Rule::Reach => self.gate.permits(&address),
            Rule::Named => self.gate.knows(&address),
        };
        if !may {
            if self.rule == Rule::Reach {
                tracing::debug!(%address, "not dialled: a local address on a stranger's word");
            }
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        // From a port of its own: to dial from the one listened on fails wherever any other connection of this machine has that
        // number, and serves only those who punch holes.
        self.inner.dial(address, DialOpts { port_use: PortUse::New, ..options })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

/// The host's name, where it is one.
fn name_of(address: &Multiaddr) -> Option<String> {
    address.iter().find_map(|part| match part {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
            Some(name.to_ascii_lowercase())
        }
        _ => None,
    })
}

/// Fails where somebody listens already. The sockets of TCP share their ports (they can dial from them), so that a second
/// listener would quietly take a part of the first one's connections; those of QUIC do not.
pub(super) fn ensure_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let (Some(host), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) else { return Ok(()) };
    let ip: IpAddr = match host {
        Protocol::Ip4(ip) => ip.into(),
        // "Any" would also claim IPv4 here; one of its addresses shows a listener as well.
        Protocol::Ip6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return Ok(()),
    };
    if port == 0 { Ok(()) } else { TcpListener::bind((ip, port)).map(drop) }
}

/// The network that an address belongs to: whoever can get one address there can get them all. A /24 or /48 of public ones; a host
/// by itself where the address is private, for a site is one network with many honest nodes. Loopback is none.
pub(super) fn network_of(address: &Multiaddr) -> Option<IpAddr> {
    match Scope::of(address) {
        Scope::Loopback => None,
        Scope::Private => ip_of(address),
        Scope::Public => wide_network_of(address),
    }
}

/// The /24 or /48 of any address.
pub(super) fn wide_network_of(address: &Multiaddr) -> Option<IpAddr> {
    Some(match ip_of(address)? {
        IpAddr::V4(ip) => (ip & Ipv4Addr::new(255, 255, 255, 0)).into(),
        IpAddr::V6(ip) => (ip & Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0)).into(),
    })
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

/// `asked`, with the port that `real` has in the place of its own.
pub(super) fn with_port_of(asked: &Multiaddr, real: &Multiaddr) -> Multiaddr {
    let port = |part: &Protocol<'_>| matches!(part, Protocol::Tcp(_) | Protocol::Udp(_));
    let real = real.iter().find(port);
    asked.iter().map(|part| real.clone().filter(|_| port(&part)).unwrap_or(part)).collect()
}

/// The peer named by a trailing `/p2p/` part.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The address without a trailing `/p2p/` part.
pub(super) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if peer_of(&address).is_some() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::of(&text.parse().unwrap())
    }

    #[test]
    fn addresses_have_the_scope_of_their_host() {
        for near in ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1", "/dns/localhost/tcp/1"] {
            assert_eq!(scope(near), Scope::Loopback, "{near}");
        }
        for site in
            ["/ip4/10.1.2.3/tcp/1", "/ip4/100.64.0.1/tcp/1", "/ip4/169.254.169.254/tcp/80", "/ip4/0.0.0.0/tcp/1"]
        {
            assert_eq!(scope(site), Scope::Private, "{site}");
        }
        for site in ["/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1", "/dns4/printer/tcp/1", "/dns/nas.LOCAL./tcp/1"] {
            assert_eq!(scope(site), Scope::Private, "{site}");
        }
        for far in ["/ip4/9.9.9.9/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns/mirror.example.org/tcp/1"] {
            assert_eq!(scope(far), Scope::Public, "{far}");
        }
    }

    #[test]
    fn a_network_is_a_slash_24_or_a_slash_48_or_a_private_host() {
        let network = |text: &str| network_of(&text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(network("/ip4/9.9.9.200/tcp/1").unwrap(), "9.9.9.0");
        assert_eq!(network("/ip6/::ffff:9.9.9.200/tcp/1").unwrap(), "9.9.9.0");
        assert_eq!(network("/ip6/2001:db8:1:2::3/tcp/1").unwrap(), "2001:db8:1::");
        assert_eq!(network("/ip4/10.1.2.3/tcp/1").unwrap(), "10.1.2.3");
        assert_eq!(network("/ip4/127.0.0.1/tcp/1"), None);
    }

    #[test]
    fn any_port_becomes_the_real_one() {
        let with = |asked: &str, real: &str| with_port_of(&asked.parse().unwrap(), &real.parse().unwrap()).to_string();
        assert_eq!(with("/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/4741"), "/ip4/0.0.0.0/tcp/4741");
        assert_eq!(with("/ip6/::/udp/0/quic-v1", "/ip6/::1/udp/77/quic-v1"), "/ip6/::/udp/77/quic-v1");
    }

    #[test]
    fn a_stranger_cannot_name_nearer_addresses() {
        let (far, site): (Multiaddr, Multiaddr) =
            ("/ip4/9.9.9.9/tcp/1".parse().unwrap(), "/ip4/192.168.0.1/tcp/1".parse().unwrap());
        assert!(!Scope::Public.accepts(&site) && Scope::Public.accepts(&far));
        assert!(Scope::Private.accepts(&site) && Scope::Loopback.accepts(&site));
        let gate = Gate::default();
        assert!(gate.permits(&far) && !gate.permits(&site));
        gate.open_for(&site);
        assert!(gate.permits(&site) && !gate.permits(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()));
    }

    #[test]
    fn names_of_the_users_are_obeyed_and_no_others() {
        let gate = Gate::default();
        let (given, other): (Multiaddr, Multiaddr) = (
            "/dnsaddr/Ways.example.org/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse().unwrap(),
            "/dns4/other.example.org/tcp/1".parse().unwrap(),
        );
        gate.obey(&given);
        assert!(gate.knows(&given) && !gate.knows(&other));
        assert!(!gate.permits(&"/ip4/10.0.0.1/tcp/1".parse().unwrap()), "the way of others stays shut");
        assert!(
            gate.knows(&"/dns4/ways.example.org/tcp/1".parse().unwrap()),
            "whatever kind of record it is asked for"
        );
        for port in 0..2 * MAX_NAMES {
            gate.obey(&format!("/dns4/n{port}.example.org/tcp/1").parse().unwrap());
        }
        assert_eq!(gate.names.lock().unwrap().len(), MAX_NAMES);
    }
}
