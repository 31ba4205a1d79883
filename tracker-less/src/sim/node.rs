//! One simulated node: a machine, what it truly holds, and how honest it is.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::machine::{Limits, Machine};
use crate::record::{CheckedBundle, Generation, SecretKey};
use libp2p_identity::PeerId;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Origin,
    Mirror,
    Watcher,
    Sybil,
    Liar,
    Replayer,
}

/// Gossip as it travels: its bytes name it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: u64,
    pub(super) bytes: Vec<u8>,
    /// None: junk.
    pub(super) record: Option<crate::machine::Verified>,
}

pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) peer: PeerId,
    pub(super) machine: Machine,
    /// Seconds its clock is ahead.
    pub(super) skew: i64,
    pub(super) up: bool,
    /// Which part of a parted network it is in.
    pub(super) part: usize,
    pub(super) links: Vec<usize>,
    /// Generations that it can really give, with their heads.
    pub(super) holds: BTreeMap<Generation, CheckedBundle>,
    pub(super) placed: Option<Generation>,
    /// The highest head it ever knew.
    pub(super) highest: Option<Generation>,
    pub(super) fetching: bool,
    /// Gossip that it has had, and its latest own news by kind.
    pub(super) seen: HashSet<u64>,
    pub(super) news: BTreeMap<u8, std::sync::Arc<Message>>,
    /// Bytes per second that it gives.
    pub(super) rate: u64,
    /// For each head: when it came first, after how many hops.
    pub(super) heard: HashMap<Generation, (u64, u32)>,
    /// For each head: copies that arrived.
    pub(super) copies: HashMap<Generation, u32>,
}

impl Node {
    pub(super) fn new(kind: Kind, number: usize, skew: i64, rate: u64) -> Self {
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let key = SecretKey::from_seed(seed);
        Self {
            kind,
            peer: key.public().peer_id().unwrap(),
            machine: Machine::new(key, Limits::default()),
            skew,
            up: true,
            part: 0,
            links: Vec::new(),
            holds: BTreeMap::new(),
            placed: None,
            highest: None,
            fetching: false,
            seen: HashSet::new(),
            news: BTreeMap::new(),
            rate,
            heard: HashMap::new(),
            copies: HashMap::new(),
        }
    }

    /// Its own clock, seconds since the epoch.
    pub(super) fn clock(&self, at: u64) -> u64 {
        at.saturating_add_signed(self.skew)
    }

    pub(super) fn is_honest(&self) -> bool {
        matches!(self.kind, Kind::Origin | Kind::Mirror | Kind::Watcher)
    }
}
