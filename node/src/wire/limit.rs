//! How much one peer and one network may ask of us: plain counters, the time comes from the caller.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use libp2p::PeerId;

/// Streams one peer may have open.
const STREAMS_PER_PEER: u32 = 8;
/// Connections from one IPv4 /24 or IPv6 /48.
const CONNECTIONS_PER_NETWORK: u32 = 64;
/// Requests one peer may make in a burst, and per second in the long run.
const REQUESTS: (u64, u64) = (32_768, 8192);
/// Bytes one peer may ask for in a burst, and per second in the long run: ten times a gigabit line.
const BYTES: (u64, u64) = (4 << 30, 1 << 30);
/// Peers remembered; beyond it those that owe nothing are forgotten first.
const MAX_PEERS: usize = 4096;

/// A place is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many at once")]
pub struct Full;

/// An allowance that refills steadily. A single large request may overdraw it; the next one then waits.
#[derive(Clone, Debug)]
pub struct Bucket {
    burst: u64,
    rate: u64,
    spent: u64,
    at: Duration,
}

impl Bucket {
    /// A full bucket of `burst` units that refills `rate` units a second.
    pub fn new((burst, rate): (u64, u64)) -> Self {
        Self { burst, rate: rate.max(1), spent: 0, at: Duration::ZERO }
    }

    /// How long to wait at `now` until anything is left; zero when something is.
    pub fn wait(&mut self, now: Duration) -> Duration {
        let refilled = now.saturating_sub(self.at).as_micros().saturating_mul(u128::from(self.rate)) / 1_000_000;
        // Not moving the clock for less than one unit keeps fractions from getting lost.
        if refilled > 0 {
            self.spent = self.spent.saturating_sub(u64::try_from(refilled).unwrap_or(u64::MAX));
            self.at = now;
        }
        match self.spent.checked_sub(self.burst) {
            Some(over) => Duration::from_millis((over + 1).saturating_mul(1000).div_ceil(self.rate)),
            None => Duration::ZERO,
        }
    }

    /// Takes `amount`.
    pub fn spend(&mut self, amount: u64) {
        self.spent = self.spent.saturating_add(amount);
    }
}

/// The network an address belongs to: those who can get one address there can get them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// An IPv4 /24.
    V4([u8; 3]),
    /// An IPv6 /48.
    V6([u8; 6]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// What one peer uses.
#[derive(Debug)]
struct Usage {
    streams: u32,
    requests: Bucket,
    bytes: Bucket,
}

impl Default for Usage {
    fn default() -> Self {
        Self { streams: 0, requests: Bucket::new(REQUESTS), bytes: Bucket::new(BYTES) }
    }
}

impl Usage {
    fn wait(&mut self, now: Duration) -> Duration {
        self.requests.wait(now).max(self.bytes.wait(now))
    }
}

/// All counters of a node.
#[derive(Debug, Default)]
pub struct Gate {
    peers: HashMap<PeerId, Usage>,
    networks: HashMap<Network, u32>,
}

impl Gate {
    /// Counts a stream of `peer`, unless it has all it may have.
    pub fn open_stream(&mut self, peer: PeerId, now: Duration) -> Result<(), Full> {
        if self.peers.len() >= MAX_PEERS {
            self.peers.retain(|_, usage| usage.streams > 0 || usage.wait(now) > Duration::ZERO);
        }
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            return Err(Full);
        }
        let usage = self.peers.entry(peer).or_default();
        if usage.streams >= STREAMS_PER_PEER {
            return Err(Full);
        }
        usage.streams += 1;
        Ok(())
    }

    /// The end of a stream counted before. What the peer has spent is kept, so that coming back gains nothing.
    pub fn close_stream(&mut self, peer: &PeerId) {
        if let Some(usage) = self.peers.get_mut(peer) {
            usage.streams = usage.streams.saturating_sub(1);
        }
    }

    /// Takes one request for about `bytes` from the allowance of `peer`, or says how long it has to wait.
    pub fn admit(&mut self, peer: &PeerId, bytes: u64, now: Duration) -> Result<(), Duration> {
        let usage = self.peers.entry(*peer).or_default();
        match usage.wait(now) {
            Duration::ZERO => {
                usage.requests.spend(1);
                usage.bytes.spend(bytes);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Counts a connection from `address`, unless its network has all it may have. Loopback is not limited.
    pub fn connect(&mut self, address: IpAddr) -> Result<(), Full> {
        if address.to_canonical().is_loopback() {
            return Ok(());
        }
        let count = self.networks.entry(address.into()).or_default();
        if *count >= CONNECTIONS_PER_NETWORK {
            return Err(Full);
        }
        *count += 1;
        Ok(())
    }

    /// The end of a connection counted before.
    pub fn disconnect(&mut self, address: IpAddr) {
        if let std::collections::hash_map::Entry::Occupied(mut count) = self.networks.entry(address.into()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let mut bucket = Bucket::new((10, 2));
        for _ in 0..10 {
            assert_eq!(bucket.wait(Duration::ZERO), Duration::ZERO);
            bucket.spend(1);
        }
        assert_eq!(bucket.wait(Duration::ZERO), Duration::from_millis(500));
        assert_eq!(bucket.wait(SECOND), Duration::ZERO);
        bucket.spend(100);
        assert!(bucket.wait(2 * SECOND) > 40 * SECOND, "an overdraft is paid back");
        assert_eq!(bucket.wait(60 * SECOND), Duration::ZERO);
    }

    #[test]
    fn often_asking_a_bucket_loses_no_fraction() {
        let mut bucket = Bucket::new((1, 1));
        bucket.spend(1);
        let waits: Vec<_> = (1..=10).map(|tenth| bucket.wait(SECOND * tenth / 10)).collect();
        assert_eq!(waits.iter().position(Duration::is_zero), Some(9));
    }

    #[test]
    fn a_peer_has_eight_streams() {
        let (mut gate, peer) = (Gate::default(), PeerId::random());
        for _ in 0..STREAMS_PER_PEER {
            gate.open_stream(peer, SECOND).unwrap();
        }
        assert_eq!(gate.open_stream(peer, SECOND), Err(Full));
        gate.open_stream(PeerId::random(), SECOND).unwrap();
        gate.close_stream(&peer);
        gate.open_stream(peer, SECOND).unwrap();
    }

    #[test]
    fn coming_back_does_not_refill_an_allowance() {
        let (mut gate, peer) = (Gate::default(), PeerId::random());
        gate.open_stream(peer, SECOND).unwrap();
        gate.admit(&peer, 2 * BYTES.0, SECOND).unwrap();
        gate.close_stream(&peer);
        gate.open_stream(peer, SECOND).unwrap();
        assert!(gate.admit(&peer, 1, SECOND).is_err());
        assert!(gate.admit(&peer, 1, 60 * SECOND).is_ok());
    }

    #[test]
    fn a_network_is_a_slash_24_or_a_slash_48() {
        let mut gate = Gate::default();
        for last in 0..CONNECTIONS_PER_NETWORK {
            gate.connect(format!("198.51.100.{last}").parse().unwrap()).unwrap();
            gate.connect(format!("2001:db8:1:{last:x}::1").parse().unwrap()).unwrap();
        }
        assert_eq!(gate.connect("198.51.100.200".parse().unwrap()), Err(Full));
        assert_eq!(gate.connect("::ffff:198.51.100.200".parse().unwrap()), Err(Full));
        assert_eq!(gate.connect("2001:db8:1:ffff::1".parse().unwrap()), Err(Full));
        gate.connect("198.51.101.1".parse().unwrap()).unwrap();
        gate.connect("2001:db8:2::1".parse().unwrap()).unwrap();
        gate.disconnect("198.51.100.7".parse().unwrap());
        gate.connect("198.51.100.200".parse().unwrap()).unwrap();
    }

    #[test]
    fn remembered_peers_are_bounded() {
        let mut gate = Gate::default();
        for _ in 0..MAX_PEERS + 100 {
            let peer = PeerId::random();
            gate.open_stream(peer, SECOND).unwrap();
            gate.close_stream(&peer);
        }
        assert!(gate.peers.len() <= MAX_PEERS);
    }
}
