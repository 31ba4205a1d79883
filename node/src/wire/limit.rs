//! How much one peer may ask of us: plain counters, the time comes from the caller. How many connections it may have, and its
//! network, is the swarm's matter (tracker-less, net/crowd).

use std::collections::HashMap;
use std::time::Duration;

use libp2p::PeerId;

/// Streams one peer may have open.
const STREAMS_PER_PEER: u32 = 8;
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

/// What one peer uses.
#[derive(Debug)]
struct Usage {
    streams: u32,
    requests: Bucket,
    bytes: Bucket,
    /// When the first of its open streams was opened, and the bytes it has asked for since.
    since: Duration,
    asked: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { streams: 0, requests: Bucket::new(REQUESTS), bytes: Bucket::new(BYTES), since: Duration::ZERO, asked: 0 }
    }
}

impl Usage {
    fn wait(&mut self, now: Duration) -> Duration {
        self.requests.wait(now).max(self.bytes.wait(now))
    }
}

/// What a peer gets from here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Who.
    pub peer: PeerId,
    /// Its open streams.
    pub streams: u32,
    /// About how many bytes it asked for and was not refused, since the first of them was opened.
    pub bytes: u64,
    /// How long ago that was.
    pub span: Duration,
}

/// All counters of a node.
#[derive(Debug, Default)]
pub struct Gate {
    peers: HashMap<PeerId, Usage>,
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
        if usage.streams == 1 {
            (usage.since, usage.asked) = (now, 0);
        }
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
                usage.asked = usage.asked.saturating_add(bytes);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Peers with open streams.
    pub fn served(&self, now: Duration) -> Vec<Served> {
        let open = self.peers.iter().filter(|(_, usage)| usage.streams > 0);
        let row = |(peer, usage): (&PeerId, &Usage)| Served {
            peer: *peer,
            streams: usage.streams,
            bytes: usage.asked,
            span: now.saturating_sub(usage.since),
        };
        let mut rows: Vec<Served> = open.map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        rows
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
