//! How many nominations strangers may hand in through a stock daemon: pure. So many of each client and of each network in an hour.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The span that is counted, seconds.
const SPAN: u64 = 3600;
/// Nominations of one address in a span.
const PER_CLIENT: u32 = 8;
/// ... and of one /24 (IPv4) or /48 (IPv6).
const PER_NETWORK: u32 = 32;
/// Most addresses and networks that are remembered: when so many came within a span, no more are heard.
const MAX_KNOWN: usize = 8192;

/// Counts who came. An address stands for itself, with the length of its prefix.
#[derive(Debug, Default)]
pub struct Doorkeeper {
    counts: HashMap<(IpAddr, u8), Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since: u64,
    came: u32,
}

impl Count {
    /// A clock that jumped begins a new span.
    fn is_over(&self, now: u64) -> bool {
        now.abs_diff(self.since) >= SPAN
    }
}

impl Doorkeeper {
    /// Whether `client` may hand one in at `now` (seconds since the epoch); if so it counts.
    pub fn admits(&mut self, client: IpAddr, now: u64) -> bool {
        let client = client.to_canonical();
        let keys = [(whole(client), PER_CLIENT), (network(client), PER_NETWORK)];
        if self.counts.len() + keys.len() > MAX_KNOWN {
            self.counts.retain(|_, count| !count.is_over(now));
        }
        let came = |key| self.counts.get(key).filter(|count| !count.is_over(now)).map_or(0, |count| count.came);
        if self.counts.len() + keys.len() > MAX_KNOWN || keys.iter().any(|(key, limit)| came(key) >= *limit) {
            return false;
        }
        for (key, _) in keys {
            let count = self.counts.entry(key).or_insert(Count { since: now, came: 0 });
            if count.is_over(now) {
                *count = Count { since: now, came: 0 };
            }
            count.came += 1;
        }
        true
    }
}

fn whole(address: IpAddr) -> (IpAddr, u8) {
    (address, if address.is_ipv4() { 32 } else { 128 })
}

fn network(address: IpAddr) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(ip) => (Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << 8)).into(), 24),
        IpAddr::V6(ip) => (Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80)).into(), 48),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_and_one_network_have_their_share_each_hour() {
        let mut door = Doorkeeper::default();
        let admitted = |door: &mut Doorkeeper, from: &str, now| (0..99).filter(|_| door.admits(ip(from), now)).count();
        assert_eq!(admitted(&mut door, "192.0.2.1", 0), PER_CLIENT as usize);
        assert_eq!(admitted(&mut door, "::ffff:192.0.2.1", 1), 0, "the same client");
        assert_eq!(admitted(&mut door, "198.51.100.1", 1), PER_CLIENT as usize, "another network");
        let rest: usize = (2..99).map(|last| admitted(&mut door, &format!("192.0.2.{last}"), 1)).sum();
        assert_eq!(rest, (PER_NETWORK - PER_CLIENT) as usize);
        let wide: usize = (0..99).map(|last| admitted(&mut door, &format!("2001:db8:1:{last}::1"), 1)).sum();
        assert_eq!(wide, PER_NETWORK as usize);
        assert_eq!(admitted(&mut door, "192.0.2.1", SPAN), PER_CLIENT as usize, "an hour later");
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_ends() {
        let mut door = Doorkeeper::default();
        let came = (0..20_000u32).filter(|n| door.admits(Ipv4Addr::from_bits(n << 8).into(), 5)).count();
        assert_eq!((came, door.counts.len()), (MAX_KNOWN / 2, MAX_KNOWN));
        assert!(door.admits(ip("192.0.2.1"), 5 + SPAN));
        assert_eq!(door.counts.len(), 2);
    }
}
