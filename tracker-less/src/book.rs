//! The mirror book: who says that it holds a module. Bounded, so that a flood of strangers cannot push the honest out.

use std::collections::HashMap;
use std::net::IpAddr;

use libp2p_identity::PeerId;
use multiaddr::Protocol;

use crate::record::nomination::MAX_LIFETIME;
use crate::record::{CheckedNomination, Coverage, Generation};

/// Most mirrors remembered for a module.
const MAX_MIRRORS: usize = 1024;
/// Most mirrors from one /24 (IPv4) or /48 (IPv6).
const MAX_PER_NETWORK: usize = 8;
/// How far ahead of us a node's clock may be, seconds.
const CLOCK_SLACK: u64 = 24 * 3600;

/// What a nomination came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// News.
    Taken,
    /// Known, or older than what is known.
    Old,
    /// No room: its network has enough, or the book is full of better ones.
    Refused,
}

/// The nominations of one module, the latest of each node.
#[derive(Debug, Clone, Default)]
pub struct Book {
    mirrors: HashMap<PeerId, CheckedNomination>,
}

impl Book {
    /// Takes note of a verified nomination. The higher `issued` of a node wins; one without coverage takes the node out, and
    /// stays as the proof of it until it expires.
    pub fn offer(&mut self, nomination: CheckedNomination, now: u64) -> Entry {
        let new = nomination.nomination();
        if new.issued > now.saturating_add(CLOCK_SLACK) || new.until.saturating_add(MAX_LIFETIME) < now {
            return Entry::Refused;
        }
        let known = self.mirrors.get(&nomination.peer());
        if known.is_some_and(|known| known.nomination().issued >= new.issued) {
            return Entry::Old;
        }
        if known.is_none() && !self.has_room(&nomination, now) {
            return Entry::Refused;
        }
        self.mirrors.insert(nomination.peer(), nomination);
        Entry::Taken
    }

    /// Mirrors that hold something, best first: by generation, then coverage, then age of the nomination. Expired ones only
    /// when there are no others.
    pub fn mirrors(&self, now: u64) -> Vec<&CheckedNomination> {
        let claims = self.mirrors.values().filter(|mirror| mirror.nomination().coverage != Coverage::NONE);
        let (valid, expired): (Vec<_>, Vec<_>) = claims.partition(|mirror| mirror.nomination().until >= now);
        let mut best = if valid.is_empty() { expired } else { valid };
        best.sort_by_key(|mirror| std::cmp::Reverse(rank(mirror)));
        best
    }

    /// Drops what expired long ago.
    pub fn expire(&mut self, now: u64) {
        self.mirrors.retain(|_, mirror| mirror.nomination().until.saturating_add(MAX_LIFETIME) >= now);
    }

    fn has_room(&mut self, nomination: &CheckedNomination, now: u64) -> bool {
        let networks: Vec<_> = networks(nomination).collect();
        let crowded = networks.iter().any(|network| {
            let mut same = self.mirrors.values().filter(|known| self::networks(known).any(|one| one == *network));
            same.nth(MAX_PER_NETWORK - 1).is_some()
        });
        if crowded {
            return false;
        }
        if self.mirrors.len() < MAX_MIRRORS {
            return true;
        }
        let worst = self.mirrors.values().min_by_key(|mirror| (mirror.nomination().until >= now, rank(mirror)));
        let Some(worst) = worst.filter(|worst| rank(worst) < rank(nomination)).map(CheckedNomination::peer) else {
            return false;
        };
        self.mirrors.remove(&worst).is_some()
    }
}

fn rank(mirror: &CheckedNomination) -> (Generation, Coverage, u64, PeerId) {
    let said = mirror.nomination();
    (said.generation(), said.coverage, said.issued, mirror.peer())
}

/// The public networks of a mirror's addresses. Private ones do not count: a LAN is one network with many honest mirrors.
fn networks(mirror: &CheckedNomination) -> impl Iterator<Item = Vec<u8>> + '_ {
    mirror.nomination().addresses.iter().filter_map(|address| match address.iter().next() {
        Some(Protocol::Ip4(ip)) if is_public(ip.into()) => Some(ip.octets()[..3].to_vec()),
        Some(Protocol::Ip6(ip)) if is_public(ip.into()) => Some(ip.octets()[..6].to_vec()),
        _ => None,
    })
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()),
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}
